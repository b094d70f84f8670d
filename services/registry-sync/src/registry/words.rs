use model::{ErrorKind, ImageRef};

use crate::error::Error;

/// Docker's words for what a registry refuses of a pull (`TranslatePullError` of dockerd).
pub fn of_pull(error: Error, reference: &ImageRef) -> Error {
    let Error::Registry(error) = error else { return error };
    let Some(refusal) = error.first_refusal().cloned() else { return Error::Registry(error) };
    // A code that stands alone stays alone, at Docker as here.
    let front = match refusal.message.as_ref().and(error.code()) {
        Some("DENIED") => format!(
            "pull access denied for {}, repository does not exist or may require 'docker login'",
            reference.familiar_name()
        ),
        Some("MANIFEST_UNKNOWN") => format!("manifest for {} not found", reference.familiar()),
        Some("NAME_UNKNOWN") => format!("repository {} not found", reference.familiar_name()),
        _ => {
            let text = refusal.to_string();
            return Error::Remote { kind: Error::Registry(error).kind(), text };
        }
    };
    Error::Remote { kind: ErrorKind::NotFound, text: format!("{front}: {refusal}") }
}
