use crate::error::Error;
use crate::expand::{Lexer, Lookup};
use crate::heredoc::Heredoc;
use crate::mount::MountFlag;

/// One build stage: a FROM and what follows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stage {
    pub line: usize,
    pub end_line: usize,
    /// The comments right above, without their `#`.
    pub comments: Vec<String>,
    /// The FROM line as Docker prints it after `Step n/m : `.
    pub original: String,
    /// Lower case.
    pub name: Option<String>,
    /// Not yet expanded.
    pub base: String,
    /// Not yet expanded.
    pub platform: Option<String>,
    pub instructions: Vec<Instruction>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instruction {
    /// Where it starts, counted from 1.
    pub line: usize,
    /// Its last line, with heredocs.
    pub end_line: usize,
    /// The comments right above, without their `#`.
    pub comments: Vec<String>,
    /// The text as Docker prints it after `Step n/m : `.
    pub original: String,
    pub kind: Kind,
}

/// What an instruction says. Words are as written until [`Kind::expanded`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    Maintainer(String),
    Run(Run),
    Cmd(Command),
    Entrypoint(Command),
    Copy(Copy),
    Add(Copy),
    Env(Vec<(String, String)>),
    Label(Vec<(String, String)>),
    Arg(Vec<ArgDeclaration>),
    Expose(Vec<String>),
    Volume(Vec<String>),
    User(String),
    Workdir(String),
    /// The trigger's text.
    Onbuild(String),
    Stopsignal(String),
    Healthcheck(Healthcheck),
    Shell(Vec<String>),
}

/// A command line in exec form (JSON) or shell form (at most one argument, for the shell).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    Exec(Vec<String>),
    Shell(Option<String>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    pub command: Command,
    pub heredocs: Vec<Heredoc>,
    /// "default", "none" or "host"; the classic builder takes any network.
    pub network: Option<String>,
    /// "sandbox" or "insecure".
    pub security: Option<String>,
    pub mounts: Vec<MountFlag>,
    /// Devices by their CDI names, as written.
    pub devices: Vec<String>,
}

/// COPY and ADD.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copy {
    pub sources: Vec<String>,
    /// Sources written in the Dockerfile itself; copied after `sources`.
    pub heredocs: Vec<Heredoc>,
    pub destination: String,
    pub from: Option<String>,
    pub chown: Option<String>,
    /// Octal, or symbolic as `u=rwX,go=rX`; not yet checked.
    pub chmod: Option<String>,
    /// A layer of its own, which fits any parent.
    pub link: bool,
    /// COPY: sources keep their parent folders, from `/./` on where that is written.
    pub parents: bool,
    /// Patterns of what is left out.
    pub excludes: Vec<String>,
    /// ADD: the digest that a download must have.
    pub checksum: Option<String>,
    /// ADD of a git repository: with its `.git`.
    pub keep_git_dir: bool,
    /// ADD: whether archives are unpacked; where not written, local ones are and downloads are not.
    pub unpack: Option<bool>,
}

impl Run {
    /// The name of a flag that only BuildKit acts upon, if there is one.
    pub fn buildkit_flag(&self) -> Option<&'static str> {
        let used = [
            (!self.mounts.is_empty(), "mount"),
            (self.security.is_some(), "security"),
            (!self.devices.is_empty(), "device"),
        ];
        used.into_iter().find_map(|(used, name)| used.then_some(name))
    }
}

impl Copy {
    /// The name of a flag that only BuildKit acts upon, if there is one.
    pub fn buildkit_flag(&self) -> Option<&'static str> {
        let used = [
            (self.link, "link"),
            (self.parents, "parents"),
            (!self.excludes.is_empty(), "exclude"),
            (self.checksum.is_some(), "checksum"),
            (self.keep_git_dir, "keep-git-dir"),
            (self.unpack.is_some(), "unpack"),
        ];
        used.into_iter().find_map(|(used, name)| used.then_some(name))
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArgDeclaration {
    pub name: String,
    pub default: Option<String>,
}

/// Durations are nanoseconds and 0 where not set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Healthcheck {
    pub test: Test,
    pub interval_ns: i64,
    pub timeout_ns: i64,
    pub start_period_ns: i64,
    pub start_interval_ns: i64,
    pub retries: i64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Test {
    None,
    Command(Command),
}

impl Instruction {
    /// The instruction's name in upper case.
    pub fn name(&self) -> &'static str {
        self.kind.name()
    }
}

impl Kind {
    pub fn name(&self) -> &'static str {
        match self {
            Self::Maintainer(_) => "MAINTAINER",
            Self::Run(_) => "RUN",
            Self::Cmd(_) => "CMD",
            Self::Entrypoint(_) => "ENTRYPOINT",
            Self::Copy(_) => "COPY",
            Self::Add(_) => "ADD",
            Self::Env(_) => "ENV",
            Self::Label(_) => "LABEL",
            Self::Arg(_) => "ARG",
            Self::Expose(_) => "EXPOSE",
            Self::Volume(_) => "VOLUME",
            Self::User(_) => "USER",
            Self::Workdir(_) => "WORKDIR",
            Self::Onbuild(_) => "ONBUILD",
            Self::Stopsignal(_) => "STOPSIGNAL",
            Self::Healthcheck(_) => "HEALTHCHECK",
            Self::Shell(_) => "SHELL",
        }
    }

    /// The same instruction with its variables replaced, for those that Docker expands. All words
    /// of one instruction see the variables from before it.
    pub fn expanded(&self, lexer: &Lexer, lookup: &Lookup) -> Result<Self, Error> {
        let word = |text: &String| lexer.expand(text, lookup);
        let words = |texts: &[String]| texts.iter().map(word).collect::<Result<Vec<_>, _>>();
        let pairs = |pairs: &[(String, String)]| {
            pairs.iter().map(|(name, value)| Ok((word(name)?, word(value)?))).collect::<Result<Vec<_>, Error>>()
        };
        let copy = |copy: &Copy| {
            Ok(Copy {
                sources: words(&copy.sources)?,
                destination: word(&copy.destination)?,
                chown: copy.chown.as_ref().map(word).transpose()?,
                chmod: copy.chmod.as_ref().map(word).transpose()?,
                excludes: words(&copy.excludes)?,
                checksum: copy.checksum.as_ref().map(word).transpose()?,
                heredocs: copy
                    .heredocs
                    .iter()
                    .map(|heredoc| heredoc.expanded(lexer, lookup))
                    .collect::<Result<_, Error>>()?,
                ..copy.clone()
            })
        };
        Ok(match self {
            Self::Copy(inner) => Self::Copy(copy(inner)?),
            Self::Add(inner) => Self::Add(copy(inner)?),
            Self::Env(inner) => Self::Env(pairs(inner)?),
            Self::Label(inner) => Self::Label(pairs(inner)?),
            Self::Arg(inner) => Self::Arg(
                inner
                    .iter()
                    .map(|arg| {
                        Ok(ArgDeclaration {
                            name: word(&arg.name)?,
                            default: arg.default.as_ref().map(word).transpose()?,
                        })
                    })
                    .collect::<Result<_, Error>>()?,
            ),
            Self::Expose(ports) => {
                let mut split = Vec::new();
                for port in ports {
                    split.extend(lexer.expand_words(port, lookup)?);
                }
                Self::Expose(split)
            }
            Self::Volume(paths) => Self::Volume(words(paths)?),
            Self::User(user) => Self::User(word(user)?),
            Self::Workdir(path) => Self::Workdir(word(path)?),
            Self::Stopsignal(signal) => Self::Stopsignal(word(signal)?),
            Self::Maintainer(_)
            | Self::Run(_)
            | Self::Cmd(_)
            | Self::Entrypoint(_)
            | Self::Onbuild(_)
            | Self::Healthcheck(_)
            | Self::Shell(_) => self.clone(),
        })
    }
}

impl Heredoc {
    /// Variables in the content replaced, unless its word was quoted. Quotes in the content stay.
    fn expanded(&self, lexer: &Lexer, lookup: &Lookup) -> Result<Self, Error> {
        if !self.expand {
            return Ok(self.clone());
        }
        Ok(Self { content: lexer.expand_text(&self.content, lookup)?, ..self.clone() })
    }
}
