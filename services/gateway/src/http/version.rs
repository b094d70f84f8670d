//! What older versions of the API have and newer ones do not.

use std::collections::BTreeMap;
use std::convert::Infallible;

use axum::extract::FromRequestParts;
use http::request::Parts;
use serde_json::{Map, Value, json};

/// The minor number of the API's version in a request's path.
#[derive(Clone, Copy, Debug)]
pub struct Version(pub u32);

/// What a path without a version means.
pub const NEWEST: Version = Version(51);

impl<S: Send + Sync> FromRequestParts<S> for Version {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(parts.extensions.get::<Self>().copied().unwrap_or(NEWEST))
    }
}

impl Version {
    /// Whether rows of images say how many containers stand on each.
    pub fn counts_containers(self) -> bool {
        self.0 >= 51
    }

    /// Rows of images.
    pub fn images(self, rows: &mut Value) {
        for row in rows.as_array_mut().into_iter().flatten() {
            self.virtual_size(row);
        }
    }

    fn virtual_size(self, image: &mut Value) {
        if self.0 < 44 {
            image["VirtualSize"] = image["Size"].clone();
        }
    }

    pub fn image(self, image: &mut Value) {
        self.virtual_size(image);
        if self.0 < 45 {
            for (key, empty) in [("Container", json!("")), ("ContainerConfig", engine_api::image_config_defaults())] {
                if image[key].is_null() {
                    image[key] = empty;
                }
            }
        }
        if self.0 >= 50
            && let Some(fields) = image.as_object_mut()
            && let Some(Value::Object(config)) = fields.shift_remove("Config")
        {
            fields.insert("Config".to_owned(), Value::Object(of_an_image(config)));
        }
    }

    pub fn container(self, container: &mut Value) {
        if self.0 < 42 && container["HostConfig"].is_object() {
            container["HostConfig"]["KernelMemory"] = 0.into();
            container["HostConfig"]["KernelMemoryTCP"] = 0.into();
        }
    }

    pub fn info(self, info: &mut Value) {
        if self.0 < 42 {
            info["KernelMemory"] = false.into();
        }
        if self.0 < 50 {
            for key in ["KernelMemoryTCP", "BridgeNfIptables", "BridgeNfIp6tables"] {
                info[key] = false.into();
            }
        }
        if self.0 < 49 {
            for key in ["ContainerdCommit", "RuncCommit", "InitCommit"] {
                info[key]["Expected"] = info[key]["ID"].clone();
            }
            for key in ["AllowNondistributableArtifactsCIDRs", "AllowNondistributableArtifactsHostnames"] {
                info["RegistryConfig"][key] = Value::Null;
            }
        }
    }
}

/// From 1.50 on an image's config has what the OCI's has, and is in the order of its names.
fn of_an_image(config: Map<String, Value>) -> Map<String, Value> {
    const OF_CONTAINERS: [&str; 9] = [
        "AttachStderr",
        "AttachStdin",
        "AttachStdout",
        "Domainname",
        "Hostname",
        "Image",
        "OpenStdin",
        "StdinOnce",
        "Tty",
    ];
    let kept: BTreeMap<_, _> = config.into_iter().filter(|(key, _)| !OF_CONTAINERS.contains(&key.as_str())).collect();
    kept.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_fields_are_there_for_old_clients_only() {
        for (minor, virtual_size, container) in
            [(41, true, true), (44, false, true), (45, false, false), (51, false, false)]
        {
            let mut image = json!({"Size": 5, "Config": {"Cmd": null}});
            Version(minor).image(&mut image);
            let has = (image.get("VirtualSize").is_some(), image.get("Container").is_some());
            assert_eq!(has, (virtual_size, container), "1.{minor}");
        }
    }
}
