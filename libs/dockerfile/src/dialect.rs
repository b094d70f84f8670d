/// Whose words errors are told in. What a Dockerfile means is the same for both.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Dialect {
    /// Docker's classic builder (20.10).
    #[default]
    Classic,
    /// BuildKit's frontend, which also suggests what was meant.
    BuildKit,
}

impl Dialect {
    pub(crate) fn unknown_flag<'a>(self, name: &str, known: impl IntoIterator<Item = &'a str>) -> String {
        match self {
            Self::Classic => format!("Unknown flag: {name}"),
            Self::BuildKit => crate::suggest::exact(format!("unknown flag: --{name}"), name, known),
        }
    }

    pub(crate) fn duplicate_flag(self, name: &str) -> String {
        match self {
            Self::Classic => format!("Duplicate flag specified: {name}"),
            Self::BuildKit => format!("duplicate flag specified: --{name}"),
        }
    }

    pub(crate) fn missing_value(self, name: &str) -> String {
        match self {
            Self::Classic => format!("Missing a value on flag: {name}"),
            Self::BuildKit => format!("missing a value on flag: --{name}"),
        }
    }

    pub(crate) fn not_boolean(self, name: &str, value: &str) -> String {
        match self {
            Self::Classic => format!("Expecting boolean value for flag {name}, not: {value}"),
            Self::BuildKit => format!("expecting boolean value for flag --{name}, not: {value}"),
        }
    }

    pub(crate) fn unknown_instruction(self, name: &str) -> String {
        match self {
            Self::Classic => format!("unknown instruction: {}", name.to_uppercase()),
            Self::BuildKit => crate::suggest::ignoring_case(format!("unknown instruction: {name}"), name, INSTRUCTIONS),
        }
    }

    /// What stands before an instruction's line number.
    pub(crate) fn at(self) -> &'static str {
        match self {
            Self::Classic => "dockerfile parse error line",
            Self::BuildKit => "dockerfile parse error on line",
        }
    }

    /// What stands before an error in the splitting of the text.
    pub(crate) fn syntax(self) -> &'static str {
        match self {
            Self::Classic => "failed to parse Dockerfile: ",
            Self::BuildKit => "",
        }
    }
}

const INSTRUCTIONS: [&str; 18] = [
    "ADD",
    "ARG",
    "CMD",
    "COPY",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "FROM",
    "HEALTHCHECK",
    "LABEL",
    "MAINTAINER",
    "ONBUILD",
    "RUN",
    "SHELL",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];
