use bus::{Target, calls};
use dockerfile::Kind;
use oci::ImageConfig;
use tokio::sync::mpsc;

use super::stage::Stage;
use super::{Builder, Progress};
use crate::failure::Failure;
use crate::image;
use crate::squash::Base;

const SCRATCH: &str = "scratch";

impl Builder {
    /// FROM: the image that a stage begins on, and the triggers that it brings.
    pub(super) async fn begin(&self, progress: &mut Progress, stage: &dockerfile::Stage) -> Result<Stage, Failure> {
        let arguments = &progress.arguments;
        let expand = |word: &str| progress.lexer.expand(word, &|name| arguments.meta_value(name));
        let base = expand(&stage.base)?;
        if base.is_empty() {
            return Err(Failure::user(format!("base name ({}) should not be blank", stage.base)));
        }
        let platform = match &stage.platform {
            Some(platform) => expand(platform)?,
            None => self.options.platform.clone(),
        };
        check_platform(&platform)?;
        let earlier = match progress.stages.named(&base, progress.number) {
            Some(number) => Some(self.earlier(progress, number).await?),
            None => None,
        };
        let mut state = match earlier {
            Some(earlier) => Stage {
                name: None,
                author: None,
                cmd_set: false,
                cache_missed: false,
                // The next stage begins with what the image says.
                config: match earlier.image_id.is_empty() {
                    true => Stage::default().config,
                    false => oci::ContainerConfig { image: earlier.image_id.clone(), ..earlier.file.config.clone() },
                },
                ..earlier
            },
            None if base == SCRATCH => Stage::default(),
            None => self.base_image(&base, &platform).await?,
        };
        state.base = (!state.image_id.is_empty()).then(|| Base {
            id: state.image_id.clone(),
            layers: state.layers.len(),
            history: state.file.history.len(),
        });
        if state.image_id.is_empty() {
            state.file =
                ImageConfig { architecture: architecture(&platform), os: "linux".into(), ..ImageConfig::default() };
        }
        state.name.clone_from(&stage.name);
        image::default_path(&mut state.config);
        (state.config.open_stdin, state.config.stdin_once) = (false, false);
        self.triggers(progress, &mut state).await?;
        Ok(state)
    }

    /// An image by name, pulled where it is missing; its layers are kept from now on.
    pub(super) async fn base_image(&self, reference: &str, platform: &str) -> Result<Stage, Failure> {
        if reference == SCRATCH {
            return Err(Failure::user("'scratch' is a reserved name"));
        }
        reference.parse::<model::ImageRef>().map_err(|error| Failure::user(error.to_string()))?;
        let request = proto::ImageResolve {
            reference: reference.to_owned(),
            build_id: self.build_id.clone(),
            pull: self.options.pull,
            platform: platform.to_owned(),
            local: false,
            attempt: self.attempt,
        };
        // Whoever leaves while an image is pulled leaves the pull too.
        let image = tokio::select! {
            () = self.cancel.cancelled() => return Err(Failure::Cancelled),
            image = self.resolve(&request) => image?,
        };
        if !self.layers.pin(&image.layers).await? {
            return Err(Failure::internal(format!("a layer of image {reference} is not in the layer store")));
        }
        Stage::on(image)
    }

    /// Asks for an image; the lines of its pull go into the log.
    async fn resolve(&self, request: &proto::ImageResolve) -> Result<proto::Image, Failure> {
        let (progress, mut steps) = mpsc::channel::<proto::Progress>(64);
        let call = self.bus.call_while_wanted::<calls::ImageResolve>(&Target::Gateway, request, Some(progress));
        let forward = async {
            while let Some(step) = steps.recv().await {
                self.log.status(&step.json).await?;
            }
            Ok::<_, bus::Error>(())
        };
        let (image, forwarded) = tokio::join!(call, forward);
        forwarded?;
        Ok(image?)
    }

    /// The ONBUILD instructions of the base, run as if they stood below FROM.
    async fn triggers(&self, progress: &mut Progress, stage: &mut Stage) -> Result<(), Failure> {
        let triggers = std::mem::take(&mut stage.config.on_build);
        if triggers.is_empty() {
            return Ok(());
        }
        // Three writes, as Docker's.
        self.log.stream(&format!("# Executing {} build trigger", triggers.len())).await?;
        if triggers.len() > 1 {
            self.log.stream("s").await?;
        }
        self.log.stream("\n").await?;
        for trigger in triggers {
            let instruction = dockerfile::parse_instruction(&trigger).map_err(trigger_error)?;
            match instruction.kind {
                Kind::Onbuild(_) => {
                    return Err(Failure::user("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed"));
                }
                Kind::Maintainer(_) => {
                    return Err(Failure::user("MAINTAINER isn't allowed as an ONBUILD trigger"));
                }
                _ => self.dispatch(progress, stage, &instruction).await?,
            }
        }
        Ok(())
    }
}

/// A trigger has no line of its own to name.
fn trigger_error(error: dockerfile::Error) -> Failure {
    match error {
        dockerfile::Error::Instruction { message, .. } => Failure::user(message),
        other => other.into(),
    }
}

/// `os[/architecture[/variant]]`, or an architecture alone.
fn check_platform(platform: &str) -> Result<(), Failure> {
    const KNOWN: [&str; 14] = [
        "linux", "windows", "amd64", "x86_64", "arm64", "aarch64", "arm", "386", "i386", "ppc64le", "s390x", "riscv64",
        "mips64le", "loong64",
    ];
    let first = platform.split('/').next().unwrap_or_default().to_lowercase();
    if first.is_empty() || platform.contains('/') || KNOWN.contains(&first.as_str()) {
        return Ok(());
    }
    Err(Failure::user(format!(
        "failed to parse platform {platform}: \"{platform}\": unknown operating system or architecture: invalid argument"
    )))
}

/// The architecture of a stage from scratch: the one asked for, else this machine's.
fn architecture(platform: &str) -> String {
    let asked = match platform.split('/').collect::<Vec<_>>().as_slice() {
        [_, architecture, ..] => *architecture,
        _ => std::env::consts::ARCH,
    };
    match asked {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
    .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn platforms() {
        for fine in ["", "linux", "linux/arm64", "amd64"] {
            assert!(check_platform(fine).is_ok(), "{fine}");
        }
        assert_eq!(
            check_platform("foo").expect_err("unknown").to_string(),
            "failed to parse platform foo: \"foo\": unknown operating system or architecture: invalid argument"
        );
        assert_eq!(architecture("linux/arm64/v8"), "arm64");
    }
}
