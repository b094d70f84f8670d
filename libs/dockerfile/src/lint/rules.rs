//! BuildKit's rules: names, descriptions and addresses as its clients show them.

#[derive(Debug, PartialEq, Eq)]
pub struct Rule {
    pub name: &'static str,
    pub description: &'static str,
    /// The last part of its address.
    page: &'static str,
    /// Only where `# check=experimental=` asks for it.
    pub experimental: bool,
}

impl Rule {
    const fn stable(name: &'static str, page: &'static str, description: &'static str) -> Self {
        Self { name, description, page, experimental: false }
    }

    const fn experimental(name: &'static str, page: &'static str, description: &'static str) -> Self {
        Self { name, description, page, experimental: true }
    }

    /// Empty for a rule without a page.
    pub fn url(&self) -> String {
        match self.page {
            "" => String::new(),
            page => format!("https://docs.docker.com/go/dockerfile/rule/{page}/"),
        }
    }
}

pub static STAGE_NAME_CASING: Rule =
    Rule::stable("StageNameCasing", "stage-name-casing", "Stage names should be lowercase");
pub static FROM_AS_CASING: Rule =
    Rule::stable("FromAsCasing", "from-as-casing", "The 'as' keyword should match the case of the 'from' keyword");
pub static NO_EMPTY_CONTINUATION: Rule = Rule::stable(
    "NoEmptyContinuation",
    "no-empty-continuation",
    "Empty continuation lines will become errors in a future release",
);
pub static CONSISTENT_INSTRUCTION_CASING: Rule = Rule::stable(
    "ConsistentInstructionCasing",
    "consistent-instruction-casing",
    "All commands within the Dockerfile should use the same casing (either upper or lower)",
);
pub static DUPLICATE_STAGE_NAME: Rule =
    Rule::stable("DuplicateStageName", "duplicate-stage-name", "Stage names should be unique");
pub static RESERVED_STAGE_NAME: Rule =
    Rule::stable("ReservedStageName", "reserved-stage-name", "Reserved words should not be used as stage names");
pub static JSON_ARGS_RECOMMENDED: Rule = Rule::stable(
    "JSONArgsRecommended",
    "json-args-recommended",
    "JSON arguments recommended for ENTRYPOINT/CMD to prevent unintended behavior related to OS signals",
);
pub static MAINTAINER_DEPRECATED: Rule = Rule::stable(
    "MaintainerDeprecated",
    "maintainer-deprecated",
    "The MAINTAINER instruction is deprecated, use a label instead to define an image author",
);
pub static UNDEFINED_ARG_IN_FROM: Rule =
    Rule::stable("UndefinedArgInFrom", "undefined-arg-in-from", "FROM command must use declared ARGs");
pub static WORKDIR_RELATIVE_PATH: Rule = Rule::stable(
    "WorkdirRelativePath",
    "workdir-relative-path",
    "Relative workdir without an absolute workdir declared within the build can have unexpected results if the base image changes",
);
pub static UNDEFINED_VAR: Rule =
    Rule::stable("UndefinedVar", "undefined-var", "Variables should be defined before their use");
pub static MULTIPLE_INSTRUCTIONS_DISALLOWED: Rule = Rule::stable(
    "MultipleInstructionsDisallowed",
    "multiple-instructions-disallowed",
    "Multiple instructions of the same type should not be used in the same stage",
);
pub static LEGACY_KEY_VALUE_FORMAT: Rule = Rule::stable(
    "LegacyKeyValueFormat",
    "legacy-key-value-format",
    "Legacy key/value format with whitespace separator should not be used",
);
pub static REDUNDANT_TARGET_PLATFORM: Rule = Rule::stable(
    "RedundantTargetPlatform",
    "redundant-target-platform",
    "Setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is the default behavior",
);
pub static SECRETS_USED_IN_ARG_OR_ENV: Rule = Rule::stable(
    "SecretsUsedInArgOrEnv",
    "secrets-used-in-arg-or-env",
    "Sensitive data should not be used in the ARG or ENV commands",
);
pub static INVALID_DEFAULT_ARG_IN_FROM: Rule = Rule::stable(
    "InvalidDefaultArgInFrom",
    "invalid-default-arg-in-from",
    "Default value for global ARG results in an empty or invalid base image name",
);
pub static FROM_PLATFORM_FLAG_CONST_DISALLOWED: Rule = Rule::stable(
    "FromPlatformFlagConstDisallowed",
    "from-platform-flag-const-disallowed",
    "FROM --platform flag should not use a constant value",
);
pub static INVALID_BASE_IMAGE_PLATFORM: Rule = Rule {
    name: "InvalidBaseImagePlatform",
    description: "Base image platform does not match expected target platform",
    page: "",
    experimental: false,
};
pub static COPY_IGNORED_FILE: Rule = Rule::experimental(
    "CopyIgnoredFile",
    "copy-ignored-file",
    "Attempting to Copy file that is excluded by .dockerignore",
);
pub static INVALID_DEFINITION_DESCRIPTION: Rule = Rule::experimental(
    "InvalidDefinitionDescription",
    "invalid-definition-description",
    "Comment for build stage or argument should follow the format: `# <arg/stage name> <description>`. If this is not intended to be a description comment, add an empty line or comment between the instruction and the comment.",
);
pub static EXPOSE_PROTO_CASING: Rule =
    Rule::stable("ExposeProtoCasing", "expose-proto-casing", "Protocol in EXPOSE instruction should be lowercase");
pub static EXPOSE_INVALID_FORMAT: Rule = Rule::stable(
    "ExposeInvalidFormat",
    "expose-invalid-format",
    "IP address and host-port mapping should not be used in EXPOSE instruction. This will become an error in a future release",
);
