//! Schematics of the Talos image factory: what an image is made from beside its version.
//!
//! A schematic's id is the SHA-256 of its YAML as the factory writes it (siderolabs/image-factory `pkg/schematic`), so
//! that of a list of extensions can be told without asking, and an id that was read can be tried against a list.

use sha2::{Digest, Sha256};

/// Whose extensions the factory offers.
const VENDOR: &str = "siderolabs/";

/// The schematic that asks for these extensions and for nothing else, as YAML. A name without its vendor is one of
/// `siderolabs/`.
pub fn yaml(extensions: &[impl AsRef<str>]) -> String {
    if extensions.is_empty() {
        return "customization: {}\n".to_owned();
    }
    let mut text = "customization:\n    systemExtensions:\n        officialExtensions:\n".to_owned();
    for name in extensions.iter().map(AsRef::as_ref) {
        let vendor = if name.contains('/') { "" } else { VENDOR };
        text.push_str(&format!("            - {vendor}{name}\n"));
    }
    text
}

/// The id of that schematic.
pub fn id(extensions: &[impl AsRef<str>]) -> String {
    Sha256::digest(yaml(extensions).as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The id without some of its extensions; None where the schematic asks for more than its extensions (kernel arguments,
/// meta values, an overlay), which the id alone does not tell.
pub fn without(schematic: &str, extensions: &[impl AsRef<str>], gone: impl Fn(&str) -> bool) -> Option<String> {
    let mut names: Vec<&str> = extensions.iter().map(AsRef::as_ref).collect();
    // The order is the one in which somebody asked for them; images list them by name.
    if id(&names) != schematic {
        names.sort_unstable();
    }
    (id(&names) == schematic).then(|| {
        names.retain(|name| !gone(name));
        id(&names)
    })
}

/// What an image of the factory is named by: `factory.talos.dev/metal-installer/<schematic>:<version>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FactoryImage<'a> {
    /// Up to the schematic, with the slash before it: `factory.talos.dev/metal-installer/`.
    pub place: &'a str,
    /// 64 hexadecimal digits.
    pub schematic: &'a str,
    /// `v1.11.5`; empty where it is left out.
    pub version: &'a str,
}

impl<'a> FactoryImage<'a> {
    /// Reads a reference; None where it names no schematic (`ghcr.io/siderolabs/installer:v1.11.5`).
    pub fn of(image: &'a str) -> Option<Self> {
        let image = image.split_once('@').map_or(image, |(name, _)| name);
        let at = image.rfind('/')? + 1;
        let (place, rest) = image.split_at(at);
        let (schematic, version) = rest.split_once(':').unwrap_or((rest, ""));
        let hex = schematic.len() == 64 && schematic.bytes().all(|b| b.is_ascii_hexdigit());
        hex.then_some(Self { place, schematic, version })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ids that the public factory gives.
    const PLAIN: &str = "376567988ad370138ad8b2698212367b8edcb69b5fd68c80be1f2ec7d603b4ba";
    const AGENT: &str = "ce4c980550dd2ab1b17bbf2b08801c7eb59418eafe8f279833297925d67c7515";
    const BOTH: &str = "990731763242a6b3cf735e49d0f550ce4068b4d0e7f4dfbb49a31799b698877e";

    #[test]
    fn ids_are_those_of_the_factory() {
        assert_eq!(id(&[] as &[&str]), PLAIN);
        assert_eq!(id(&["qemu-guest-agent"]), AGENT);
        assert_eq!(id(&["siderolabs/qemu-guest-agent"]), AGENT);
    }

    #[test]
    fn what_is_left_without_some_extensions_is_told_where_there_is_nothing_else() {
        let gone = |name: &str| name.contains("nvidia");
        let names = ["qemu-guest-agent", "nonfree-kmod-nvidia-production", "nvidia-container-toolkit-production"];
        assert_eq!(without(BOTH, &names, gone).as_deref(), Some(AGENT));
        assert_eq!(without(BOTH, &names[1..], gone), None);
        assert_eq!(without(&id(&names[1..]), &names[1..], gone).as_deref(), Some(PLAIN));
    }

    #[test]
    fn an_image_is_taken_apart() {
        let text = format!("factory.talos.dev/nocloud-installer/{AGENT}:v1.11.5");
        let read = FactoryImage::of(&text).unwrap();
        let wanted =
            FactoryImage { place: "factory.talos.dev/nocloud-installer/", schematic: AGENT, version: "v1.11.5" };
        assert_eq!(read, wanted);
        assert_eq!(FactoryImage::of(&format!("a/b/{AGENT}@sha256:00")).unwrap().version, "");
        let port = format!("factory.lan:5000/nocloud-installer-secureboot/{AGENT}:v1.13.0");
        assert_eq!(FactoryImage::of(&port).unwrap().schematic, AGENT);
        for other in ["ghcr.io/siderolabs/installer:v1.11.5", "", "x", "/", "a/é:b"] {
            assert_eq!(FactoryImage::of(other), None, "{other}");
        }
    }
}
