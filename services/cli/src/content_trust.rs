//! Content trust: `--disable-content-trust=false` and DOCKER_CONTENT_TRUST ask for verified signatures. Nothing here
//! verifies them yet, so whoever asks is refused, never served without.

use clap::Args;

use crate::failure::{Failure, Outcome};

#[derive(Args, Debug)]
pub struct ContentTrust {
    /// Skip image verification
    #[arg(
        long,
        value_name = "bool",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        hide_possible_values = true,
        value_parser = clap::builder::BoolishValueParser::new()
    )]
    disable_content_trust: Option<bool>,
}

impl ContentTrust {
    /// Refuses where verification was asked for.
    pub fn check(&self) -> Outcome {
        let asked_by = match self.disable_content_trust {
            Some(true) => return Ok(()),
            Some(false) => "--disable-content-trust=false",
            None if wanted_by_environment(std::env::var("DOCKER_CONTENT_TRUST").ok().as_deref()) => {
                "DOCKER_CONTENT_TRUST"
            }
            None => return Ok(()),
        };
        Err(Failure::new(format!(
            "content trust is not supported: signatures of images cannot be verified yet; leave out {asked_by} to go on without"
        )))
    }
}

/// Docker takes everything but a false as a yes.
fn wanted_by_environment(value: Option<&str>) -> bool {
    value.is_some_and(|v| !["", "0", "f", "F", "false", "FALSE", "False"].contains(&v))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asks_is_refused() {
        let check = |flag| ContentTrust { disable_content_trust: flag }.check();
        assert!(check(Some(true)).is_ok());
        assert!(check(Some(false)).expect_err("refused").message.contains("--disable-content-trust=false"));
        for (value, wanted) in [(None, false), (Some("0"), false), (Some("1"), true), (Some("yes"), true)] {
            assert_eq!(wanted_by_environment(value), wanted, "{value:?}");
        }
    }
}
