/// Whose words errors are told in. What a Dockerfile means is the same for both, and so are most words since Docker 23,
/// whose classic builder reads Dockerfiles with BuildKit's parser.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Dialect {
    /// Docker's classic builder.
    #[default]
    Classic,
    /// BuildKit's frontend.
    BuildKit,
}

impl Dialect {
    /// What stands before an error in the splitting of the text.
    pub(crate) fn syntax(self) -> &'static str {
        match self {
            Self::Classic => "failed to parse Dockerfile: ",
            Self::BuildKit => "",
        }
    }
}
