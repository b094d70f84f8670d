//! The one error that a command ends with: a line for the person, a hint, an exit code.

use std::fmt;

/// Why a command did not succeed.
#[derive(Debug, Clone)]
pub struct Failure {
    /// HTTP status, when the daemon refused.
    pub status: Option<u16>,
    /// What is printed; nothing is printed when it is empty (a container's own exit code).
    pub message: String,
    /// A second line that says what to do.
    pub hint: Option<String>,
    /// The process's exit code.
    pub code: i32,
}

pub type Outcome<T = ()> = Result<T, Failure>;

impl Failure {
    pub fn new(message: impl Into<String>) -> Self {
        Self { status: None, message: message.into(), hint: None, code: 1 }
    }

    /// Ends the process with `code` and prints nothing.
    pub fn exit(code: i32) -> Self {
        Self { code, ..Self::new("") }
    }

    /// The daemon answered with an error status.
    pub fn daemon(status: u16, message: &str) -> Self {
        let message = format!("Error response from daemon: {message}");
        Self { status: Some(status), ..Self::new(message) }
    }

    pub fn code(self, code: i32) -> Self {
        Self { code, ..self }
    }

    pub fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    pub fn is_not_found(&self) -> bool {
        self.status == Some(404)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::new(error.to_string())
    }
}

impl From<serde_json::Error> for Failure {
    fn from(error: serde_json::Error) -> Self {
        Self::new(format!("the daemon's answer is not the JSON expected: {error}"))
    }
}

/// Runs `action` for every name, prints each failure, and fails at the end if one did.
/// Docker's commands over several objects go on after an error.
pub async fn for_each<F, Fut>(names: &[String], mut action: F) -> Outcome
where
    F: FnMut(String) -> Fut,
    Fut: Future<Output = Outcome>,
{
    let mut failed = false;
    for name in names {
        if let Err(failure) = action(name.clone()).await {
            eprintln!("{failure}");
            failed = true;
        }
    }
    if failed { Err(Failure::exit(1)) } else { Ok(()) }
}
