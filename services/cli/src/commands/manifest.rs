//! `manifest inspect`: asks the registry itself, as Docker's client does. The engine is only asked for its mirrors and
//! insecure registries, so that a name means here what it means there.

use std::path::PathBuf;

use clap::Args;
use distribution::registry::{Access, Error, Fetched, Reference, Registries, Repository, Settings};
use model::{Digest, ErrorKind, ImageRef};
use serde_json::{Value, json};

use super::pull::parse;
use crate::credentials::Keyring;
use crate::engine::Engine;
use crate::failure::{Failure, Outcome};
use crate::format::json::indent;
use crate::output;

#[derive(Args, Debug)]
pub struct ManifestInspect {
    /// Allow communication with an insecure registry
    #[arg(long)]
    insecure: bool,
    /// Output additional info including layers and platform
    #[arg(short, long)]
    verbose: bool,
    #[arg(value_name = "MANIFEST")]
    name: String,
}

/// Larger configs are nobody's.
const CONFIG_MAX_BYTES: u64 = 8 << 20;

impl ManifestInspect {
    pub async fn run(self, engine: &Engine) -> Outcome {
        let image = parse(&self.name)?.or_latest();
        let registries = Registries::new(self.settings(engine, &image).await);
        let no_such = |error: Error| match error.kind() {
            ErrorKind::NotFound => Failure::new(format!("no such manifest: {}", image.familiar())),
            _ => Failure::new(error.to_string()),
        };
        let credentials = Keyring::open_or_warn().of_host(image.domain());
        let credentials = distribution::registry::Credentials::from(credentials);
        let read = |endpoint| async {
            let repository = registries.connect(endpoint, image.path(), credentials.clone(), Access::Pull).await?;
            self.shown(&repository, &image).await
        };
        let text = registries.at_first(image.domain(), true, read).await.map_err(no_such)?;
        output::line(indent(text.as_bytes(), "\t"));
        Ok(())
    }

    /// The engine's, where there is one.
    async fn settings(&self, engine: &Engine, image: &ImageRef) -> Settings {
        let info = engine.get("/info").value().await.unwrap_or_default();
        let config = &info["RegistryConfig"];
        let texts = |list: &Value| -> Vec<String> {
            list.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
        };
        let mut insecure = texts(&config["InsecureRegistryCIDRs"]);
        let indexes = config["IndexConfigs"].as_object().into_iter().flatten();
        insecure.extend(indexes.filter(|(_, index)| index["Secure"] == false).map(|(host, _)| host.clone()));
        if self.insecure {
            insecure.push(image.domain().to_owned());
        }
        Settings { mirrors: texts(&config["Mirrors"]), insecure, certs_dir: PathBuf::from("/etc/docker/certs.d") }
    }

    async fn shown(&self, repository: &Repository, image: &ImageRef) -> Result<String, Error> {
        let reference = match (image.digest(), image.tag()) {
            (Some(digest), _) => Reference::Digest(digest.clone()),
            (None, tag) => Reference::Tag(tag.unwrap_or("latest").to_owned()),
        };
        let fetched = repository.manifest(&reference).await?;
        if !self.verbose {
            return Ok(String::from_utf8_lossy(&fetched.bytes).into_owned());
        }
        let document: Value = serde_json::from_slice(&fetched.bytes).unwrap_or_default();
        let Some(entries) = document["manifests"].as_array() else {
            return described(repository, &image.familiar(), &fetched, None).await;
        };
        let mut all = Vec::new();
        for entry in entries {
            let digest: Digest = entry["digest"]
                .as_str()
                .unwrap_or_default()
                .parse()
                .map_err(|_| Error::Lie("the registry's index names no digest".to_owned()))?;
            let of_one = repository.manifest(&Reference::Digest(digest.clone())).await?;
            let name = format!("{}@{digest}", image.clone().without_tag().familiar_name());
            all.push(described(repository, &name, &of_one, Some(&entry["platform"])).await?);
        }
        Ok(format!("[{}]", all.join(",")))
    }
}

/// One manifest with its descriptor, in the order of Docker's fields; the manifest is what the registry sent.
async fn described(
    repository: &Repository,
    name: &str,
    fetched: &Fetched,
    platform: Option<&Value>,
) -> Result<String, Error> {
    use base64::Engine as _;
    let document: Value = serde_json::from_slice(&fetched.bytes).unwrap_or_default();
    let platform = match platform {
        Some(platform) => platform.clone(),
        None => platform_of(repository, &document["config"]).await?,
    };
    let descriptor = json!({
        "mediaType": fetched.media_type, "digest": fetched.digest.to_string(), "size": fetched.bytes.len(),
        "platform": platform,
    });
    let field = if fetched.media_type.contains("docker") { "SchemaV2Manifest" } else { "OCIManifest" };
    let raw = base64::engine::general_purpose::STANDARD.encode(&fetched.bytes);
    let manifest = String::from_utf8_lossy(&fetched.bytes);
    Ok(format!(r#"{{"Ref":{},"Descriptor":{descriptor},"Raw":"{raw}","{field}":{manifest}}}"#, Value::from(name)))
}

/// The platform that an image's config names.
async fn platform_of(repository: &Repository, config: &Value) -> Result<Value, Error> {
    let lie = || Error::Lie("the registry's manifest names no config".to_owned());
    let digest: Digest = config["digest"].as_str().unwrap_or_default().parse().map_err(|_| lie())?;
    let size = config["size"].as_u64().ok_or_else(lie)?;
    let bytes = repository.blob_bytes(&digest, size, CONFIG_MAX_BYTES).await?;
    let config: Value = serde_json::from_slice(&bytes).map_err(|_| lie())?;
    let mut platform = json!({});
    for field in ["architecture", "os", "os.version", "variant"] {
        if let Some(text) = config[field].as_str().filter(|text| !text.is_empty()) {
            platform[field] = text.into();
        }
    }
    Ok(platform)
}
