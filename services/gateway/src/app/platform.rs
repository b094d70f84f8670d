//! Platforms of images: what one was made for, and Docker's words where that is not the wanted one.

use model::Platform;
use serde_json::Value;

use super::images::{Image, config_of};

/// What an image's config says it was made for.
pub fn of_image(config: &Value) -> Platform {
    let text = |key: &str| config[key].as_str().unwrap_or_default();
    let or_host = |text: &str, host: String| if text.is_empty() { host } else { text.to_owned() };
    let host = Platform::host();
    let (os, architecture) = (or_host(text("os"), host.os), or_host(text("architecture"), host.architecture));
    Platform::new(&os, &architecture, text("variant"))
}

/// Docker's words for an image that is there but was made for another platform than the wanted one.
pub fn mismatch(wanted: &Platform, name: &str, image: &Image) -> Option<String> {
    let actual = of_image(&config_of(image));
    let text = || {
        format!(
            "image with reference {name} was found but its platform ({actual}) does not match the specified platform ({wanted})"
        )
    };
    (!wanted.takes(&actual)).then(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_image_fits_or_not() {
        let image = of_image(&json!({"os": "linux", "architecture": "arm", "variant": "v7"}));
        for (text, fits) in
            [("linux/arm", true), ("linux/arm/v7", true), ("linux/arm/v6", false), ("linux/amd64", false)]
        {
            assert_eq!(text.parse::<Platform>().expect("known").takes(&image), fits, "{text}");
        }
        assert_eq!(of_image(&json!({})), Platform::host());
    }
}
