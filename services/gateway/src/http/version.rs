//! What older versions of the API have and newer ones do not.

use std::convert::Infallible;

use axum::extract::FromRequestParts;
use http::request::Parts;
use serde_json::{Value, json};

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
            for (key, empty) in [("Container", json!("")), ("ContainerConfig", image["Config"].clone())] {
                if image[key].is_null() {
                    image[key] = empty;
                }
            }
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
            for key in ["KernelMemory", "KernelMemoryTCP", "BridgeNfIptables", "BridgeNfIp6tables"] {
                info[key] = false.into();
            }
        }
    }
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
