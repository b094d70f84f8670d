use std::collections::HashMap;

use bollard_buildkit_proto::moby::buildkit::v1 as wire;
use serde_json::Value;

use super::results::Input;
use crate::app::{App, Failure, Outcome};

/// The exporters that make an image of this engine: BuildKit's name for it in dockerd, and its usual one.
const IMAGE_EXPORTERS: [&str; 3] = ["moby", "image", ""];

/// Clients put a worker's address in the place of `host-gateway`. Each step has its own machine's, so they are told the
/// dummy address (RFC 7600), which stands for that.
pub const HOST_GATEWAY: &str = "192.0.0.8";

/// What they call the store that takes the blobs of a layout, where an archive is to be a folder.
const LAYOUT_STORE: &str = "export";

/// A build as BuildKit's clients ask for it.
#[derive(Debug, Default, Clone)]
pub struct Solve {
    /// Options of the Dockerfile frontend: `filename`, `target`, `build-arg:NAME`, ...
    pub attrs: HashMap<String, String>,
    /// None: only the cache is warmed.
    pub exporters: Vec<wire::Exporter>,
    pub cache: wire::CacheOptions,
    pub session: String,
    pub entitlements: Vec<String>,
    /// A tar in the layer store, in place of the session's folder.
    pub context: Option<proto::Descriptor>,
    pub user: String,
    /// What earlier builds have made, by the names that `attrs` have for it.
    pub inputs: HashMap<String, Input>,
}

impl Solve {
    /// The same for the graph builder.
    ///
    /// # Errors
    /// `InvalidArgument` for what makes no sense, `Unimplemented` for what the builder does not know.
    pub fn options(&self, app: &App) -> Outcome<proto::BuildOptions> {
        let mut options = proto::BuildOptions {
            remote: self.context_url()?,
            graph: true,
            remove: true,
            user: self.user.clone(),
            context: self.context.clone(),
            entitlements: self.entitlements.clone(),
            ..Default::default()
        };
        for (key, value) in &self.attrs {
            match key.strip_prefix("context:") {
                Some(name) => self.named_context(&mut options, name, value)?,
                None => attribute(&mut options, key, value)?,
            }
        }
        if !self.session.is_empty() {
            options.session_id.clone_from(&self.session);
            app.db.session().clone_into(&mut options.session_gateway);
            options.session_context = options.remote.is_empty() && options.context.is_none();
        }
        options.session_dockerfile &= !options.session_id.is_empty() && !options.remote.is_empty();
        for exporter in &self.exporters {
            export(&mut options, exporter)?;
        }
        if self.exporters.is_empty() {
            // No output at all would be an image.
            options.outputs.push(proto::BuildOutput { r#type: "cacheonly".to_owned(), ..Default::default() });
        }
        let entry = |entry: &wire::CacheOptionsEntry| proto::CacheOption {
            r#type: entry.r#type.clone(),
            attributes: entry.attrs.clone(),
        };
        // Some clients say the same in both ways.
        for import in self.cache.imports.iter().map(entry) {
            if !options.cache_imports.contains(&import) {
                options.cache_imports.push(import);
            }
        }
        options.cache_exports.extend(self.cache.exports.iter().map(entry));
        Ok(options)
    }
}

impl Solve {
    /// What a client gives in place of a folder or a URL: files of bake's own repository.
    fn context_url(&self) -> Outcome<String> {
        match self.inputs.get("context") {
            None => Ok(String::new()),
            Some(Input::Url(url)) => Ok(url.clone()),
            Some(Input::Image(_)) => Err(Failure::not_built("a result of a build is no build context")),
        }
    }

    fn named_context(&self, options: &mut proto::BuildOptions, name: &str, value: &str) -> Outcome<()> {
        // Clients put the platform that it is for behind the name.
        let name = name.split_once("::").map_or(name, |(name, _)| name);
        let mut context = proto::NamedContext { name: name.to_owned(), ..Default::default() };
        match value.split_once(':') {
            Some(("local", folder)) => context.source = format!("session:{folder}"),
            Some(("input", input)) => {
                let missing = || Failure::invalid(format!("invalid input {input} for context {name}"));
                match self.inputs.get(input).ok_or_else(missing)?.clone() {
                    Input::Url(url) => context.source = url,
                    Input::Image(result) => {
                        if let Some(known) = options.contexts.iter_mut().find(|known| known.name == name) {
                            known.results.push(*result);
                            return Ok(());
                        }
                        context.results.push(*result);
                    }
                }
            }
            _ => value.clone_into(&mut context.source),
        }
        options.contexts.push(context);
        Ok(())
    }
}

fn attribute(options: &mut proto::BuildOptions, key: &str, value: &str) -> Outcome<()> {
    let text = || value.to_owned();
    let list = || value.split(',').map(str::trim).filter(|item| !item.is_empty()).map(str::to_owned);
    if let Some(name) = key.strip_prefix("build-arg:") {
        options.build_args.insert(name.to_owned(), text());
        return Ok(());
    }
    if let Some(name) = key.strip_prefix("label:") {
        options.labels.insert(name.to_owned(), text());
        return Ok(());
    }
    match key {
        "filename" => options.dockerfile = text(),
        "target" => options.target = text(),
        "platform" => {
            for platform in list() {
                platform.parse::<model::Platform>()?;
                options.platforms.push(platform);
            }
        }
        "no-cache" => {
            options.no_cache_stages.extend(list());
            options.no_cache = options.no_cache_stages.is_empty();
        }
        "image-resolve-mode" => options.pull = value == "pull",
        "force-network-mode" => options.network_mode = text(),
        "add-hosts" => {
            for host in list() {
                let (name, address) = host.split_once('=').ok_or_else(|| wrong("host", &host))?;
                let address = if address == HOST_GATEWAY { "host-gateway" } else { address };
                options.extra_hosts.push(format!("{name}:{address}"));
            }
        }
        "shm-size" => options.shm_bytes = value.parse().map_err(|_| wrong("shm-size", value))?,
        "ulimit" => options.ulimits.extend(list()),
        "cgroup-parent" => {
            options.resources.get_or_insert_default().cgroup_parent = text();
        }
        // A folder of the session has no URL.
        "context" if value.starts_with("local:") && value != "local:context" => {
            return Err(Failure::not_built(format!("context {value} is not the session's \"context\"")));
        }
        "context" if !value.starts_with("local:") => options.remote = text(),
        // The Dockerfile lies beside a context that is not the session's.
        "dockerfilekey" if value == "dockerfile" => options.session_dockerfile = true,
        "cache-from" => options.cache_imports.extend(list().map(|reference| registry_cache(&reference))),
        "cache-imports" => {
            for import in cache_imports(value)? {
                if !options.cache_imports.contains(&import) {
                    options.cache_imports.push(import);
                }
            }
        }
        "requestid" => options.check = subrequest(value)?.to_owned(),
        // How the client came to what it asks; and a frontend that is built in.
        _ => {}
    }
    Ok(())
}

fn wrong(what: &str, value: &str) -> Failure {
    Failure::invalid(format!("invalid {what} {value}"))
}

fn registry_cache(reference: &str) -> proto::CacheOption {
    let attributes = HashMap::from([("ref".to_owned(), reference.to_owned())]);
    proto::CacheOption { r#type: "registry".to_owned(), attributes }
}

/// JSON of BuildKit's CacheOptionsEntry.
fn cache_imports(json: &str) -> Outcome<Vec<proto::CacheOption>> {
    let entries: Vec<Value> = serde_json::from_str(json).map_err(|_| wrong("cache-imports", json))?;
    let import = |entry: &Value| {
        let attributes = entry["Attrs"].as_object().into_iter().flatten();
        let attributes = attributes.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())));
        proto::CacheOption {
            r#type: entry["Type"].as_str().unwrap_or_default().to_owned(),
            attributes: attributes.collect(),
        }
    };
    Ok(entries.iter().map(import).collect())
}

fn subrequest(id: &str) -> Outcome<&'static str> {
    match id {
        "frontend.lint" => Ok("lint"),
        "frontend.outline" => Ok("outline"),
        "frontend.targets" => Ok("targets"),
        _ => Err(Failure::not_built(format!("unsupported request {id}"))),
    }
}

fn export(options: &mut proto::BuildOptions, exporter: &wire::Exporter) -> Outcome<()> {
    let wire::Exporter { r#type, attrs } = exporter;
    let mut attributes = attrs.clone();
    let is_image = IMAGE_EXPORTERS.contains(&r#type.as_str());
    if is_image && let Some(names) = attributes.get("name") {
        let names = names.split(',').filter(|name| !name.is_empty());
        let names = names.map(|name| Ok(name.parse::<model::ImageRef>()?.or_latest().familiar()));
        options.tags = names.collect::<Outcome<Vec<_>>>()?;
        attributes.insert("name".to_owned(), options.tags.join(","));
    }
    let r#type = if is_image { "image" } else { r#type }.to_owned();
    let is_layout =
        matches!(r#type.as_str(), "oci" | "docker") && contexts::is_folder(attributes.get("tar").map(String::as_str));
    let store = if is_layout { LAYOUT_STORE } else { "" }.to_owned();
    options.outputs.push(proto::BuildOutput { r#type, attributes, store });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(attrs: &[(&str, &str)]) -> Result<proto::BuildOptions, String> {
        let mut options = proto::BuildOptions::default();
        for (key, value) in attrs {
            attribute(&mut options, key, value).map_err(|failure| failure.message)?;
        }
        Ok(options)
    }

    #[test]
    fn attributes_of_the_frontend() {
        let read = options(&[
            ("filename", "sub/D"),
            ("build-arg:A", "1=2"),
            ("label:l", "v"),
            ("platform", "linux/amd64,linux/arm64"),
            ("add-hosts", "a=1.2.3.4,b=::1,c=192.0.0.8"),
            ("shm-size", "65536"),
            ("ulimit", "nofile=1:2"),
            ("image-resolve-mode", "pull"),
            ("cache-imports", r#"[{"Type":"registry","Attrs":{"ref":"r/x"}}]"#),
            ("source", "docker/dockerfile:1"),
        ])
        .expect("read");
        assert_eq!((read.dockerfile.as_str(), read.build_args["A"].as_str()), ("sub/D", "1=2"));
        assert_eq!(read.extra_hosts, ["a:1.2.3.4", "b:::1", "c:host-gateway"]);
        assert_eq!((read.platforms.len(), read.shm_bytes, read.pull), (2, 65536, true));
        assert_eq!(read.cache_imports[0].attributes["ref"], "r/x");
    }

    #[test]
    fn named_contexts_are_sources_folders_and_what_was_built() {
        let made = |platform: &str| proto::BuiltImage { platform: platform.to_owned(), ..Default::default() };
        let inputs = [("0-b::linux/amd64", made("linux/amd64")), ("0-b::linux/arm64", made("linux/arm64"))];
        let inputs = inputs.map(|(name, made)| (name.to_owned(), Input::Image(Box::new(made)))).into();
        let solve = Solve { inputs, ..Solve::default() };
        let of = |contexts: &[(&str, &str)]| {
            let mut options = proto::BuildOptions::default();
            for (name, value) in contexts {
                solve.named_context(&mut options, name, value).map_err(|failure| failure.message)?;
            }
            let shown = |context: &proto::NamedContext| {
                let platforms: Vec<_> = context.results.iter().map(|made| made.platform.as_str()).collect();
                format!("{}={}{}", context.name, context.source, platforms.join("+"))
            };
            Ok::<_, String>(options.contexts.iter().map(shown).collect::<Vec<_>>())
        };
        assert_eq!(of(&[("base", "docker-image://busybox")]), Ok(vec!["base=docker-image://busybox".to_owned()]));
        assert_eq!(of(&[("own", "local:own-dir")]), Ok(vec!["own=session:own-dir".to_owned()]));
        let both = [("b::linux/amd64", "input:0-b::linux/amd64"), ("b::linux/arm64", "input:0-b::linux/arm64")];
        assert_eq!(of(&both), Ok(vec!["b=linux/amd64+linux/arm64".to_owned()]));
        assert_eq!(of(&[("b", "input:0-c")]), Err("invalid input 0-c for context b".to_owned()));
    }

    #[test]
    fn no_cache_is_for_all_stages_or_for_some() {
        let of = |value| options(&[("no-cache", value)]).map(|read| (read.no_cache, read.no_cache_stages.join(" ")));
        assert_eq!(of(""), Ok((true, String::new())));
        assert_eq!(of("a,b"), Ok((false, "a b".to_owned())));
    }

    #[test]
    fn contexts_are_folders_of_the_session_or_urls() {
        let of = |value| options(&[("context", value)]).map(|read| read.remote);
        assert_eq!(of("https://x/y.git"), Ok("https://x/y.git".to_owned()));
        assert_eq!(of("local:context"), Ok(String::new()));
        assert!(of("local:else").is_err());
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for (key, value, why) in [
            ("platform", "a/b/c/d/e", "platform"),
            ("add-hosts", "nothing", "invalid host nothing"),
            ("shm-size", "1x", "invalid shm-size 1x"),
            ("cache-imports", "{", "invalid cache-imports {"),
            ("requestid", "frontend.dance", "unsupported request frontend.dance"),
        ] {
            let refused = options(&[(key, value)]).expect_err(value);
            assert!(refused.contains(why), "{refused}");
        }
    }

    #[test]
    fn exporters() {
        let of = |kind: &str, name: &str| {
            let mut options = proto::BuildOptions::default();
            let attrs = HashMap::from([("name".to_owned(), name.to_owned())]);
            export(&mut options, &wire::Exporter { r#type: kind.to_owned(), attrs }).map_err(|f| f.message)?;
            let output = options.outputs.remove(0);
            Ok::<_, String>((output.r#type, output.attributes["name"].clone(), options.tags.join(" ")))
        };
        let image = || ("image".to_owned(), "a:latest,b:1".to_owned(), "a:latest b:1".to_owned());
        assert_eq!(of("moby", "a,docker.io/library/b:1"), Ok(image()));
        assert_eq!(of("", "a,b:1"), Ok(image()));
        assert_eq!(of("oci", "a"), Ok(("oci".to_owned(), "a".to_owned(), String::new())));
        assert!(of("image", "UPPER").is_err());
        let store = |kind: &str, tar: &str| {
            let mut options = proto::BuildOptions::default();
            let attrs = HashMap::from([("tar".to_owned(), tar.to_owned())]);
            export(&mut options, &wire::Exporter { r#type: kind.to_owned(), attrs }).expect("read");
            options.outputs.remove(0).store
        };
        assert_eq!((store("oci", "0"), store("oci", "true")), ("export".to_owned(), String::new()));
        assert_eq!((store("docker", "false"), store("local", "false")), ("export".to_owned(), String::new()));
    }
}
