//! What an image is called that a node can be given: nobody writes down where the one that runs was pulled from.
//!
//! The image factory gives an id to each schematic, and serves it under a platform and with or without signatures for
//! SecureBoot (siderolabs/image-factory `internal/frontend/http`). Factories can be one's own, and so can mirrors. What a
//! node tells is version, schematic, platform and SecureBoot; where its images come from only `machine.install.image`
//! says. What cannot be told from these is not guessed.

use crate::base::schematic::{FactoryImage, tag};
use crate::blueprint::machine::Running;

/// Where the images without extensions of the versions up to 1.13 are.
const VANILLA: &str = "ghcr.io/siderolabs/installer";
/// How installers that are signed for SecureBoot end.
const SIGNED: &str = "-secureboot";

/// What tells of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Origin<'a> {
    /// What runs.
    pub(super) running: &'a Running,
    /// The firmware starts signed images only; None: not known.
    pub(super) secure_boot: Option<bool>,
    /// `machine.install.image`.
    pub(super) installed: Option<&'a str>,
}

impl<'a> Origin<'a> {
    /// The name of what runs.
    ///
    /// # Errors
    /// Why it cannot be told.
    pub(super) fn now(self) -> Result<String, String> {
        let version = &self.running.version;
        if let Some(schematic) = &self.running.schematic {
            return Ok(format!("{}{schematic}:{version}", self.place()?));
        }
        let installed = self.named()?;
        if FactoryImage::of(installed).is_some() {
            return Err(format!("it runs an image without a schematic, and `machine.install.image` is {installed}"));
        }
        self.signed_as(installed)?;
        if tag(installed) == Some(version) {
            return Ok(installed.to_owned());
        }
        let name = installed.split(['@']).next().and_then(|name| name.rsplit_once(':')).map(|(name, _)| name);
        // It has one content for each version.
        if name == Some(VANILLA) && self.running.extensions.is_empty() {
            return Ok(format!("{VANILLA}:{version}"));
        }
        Err(format!("it runs {version}, and `machine.install.image` is {installed}"))
    }

    /// The name of a schematic in the version that runs.
    ///
    /// # Errors
    /// Why it cannot be told.
    pub(super) fn of(self, schematic: &str) -> Result<String, String> {
        Ok(format!("{}{schematic}:{}", self.place()?, self.running.version))
    }

    /// Where images of the factory for it are: `factory.talos.dev/metal-installer/`.
    pub(super) fn place(self) -> Result<&'a str, String> {
        let installed = self.named()?;
        let Some(image) = FactoryImage::of(installed) else {
            return Err(format!("`machine.install.image` is {installed}, which names no schematic"));
        };
        self.signed_as(installed)?;
        let platform = &self.running.platform;
        let kind = kind(image.place).trim_end_matches(SIGNED);
        // The old name is the one of metal.
        if kind.strip_suffix("-installer") != Some(platform) && !(kind == "installer" && platform == "metal") {
            return Err(format!("it runs as {platform}, and `machine.install.image` is {installed}"));
        }
        Ok(image.place)
    }

    /// Whether an image is of the kind that its firmware starts.
    ///
    /// # Errors
    /// Why not, or why that cannot be told.
    pub(super) fn signed_as(self, image: &str) -> Result<(), String> {
        let place = FactoryImage::of(image).map_or_else(|| image.split(':').next().unwrap_or_default(), |it| it.place);
        match (self.secure_boot, kind(place).ends_with(SIGNED)) {
            (Some(true), false) => Err(format!("it boots with SecureBoot, and {image} is not signed for that")),
            (Some(false), true) => Err(format!("it boots without SecureBoot, and {image} is for machines with it")),
            (None, _) => Err("it does not say whether it boots with SecureBoot".to_owned()),
            _ => Ok(()),
        }
    }

    fn named(self) -> Result<&'a str, String> {
        self.installed.ok_or_else(|| "its machine configuration has no `machine.install.image`".to_owned())
    }
}

/// The last word of a place: `metal-installer`.
fn kind(place: &str) -> &str {
    let place = place.trim_end_matches('/');
    place.rsplit_once('/').map_or(place, |(_, kind)| kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: &str = "ce4c980550dd2ab1b17bbf2b08801c7eb59418eafe8f279833297925d67c7515";
    const OTHER: &str = "376567988ad370138ad8b2698212367b8edcb69b5fd68c80be1f2ec7d603b4ba";

    fn running(schematic: Option<&str>, platform: &str) -> Running {
        Running {
            version: "v1.12.4".into(),
            platform: platform.into(),
            schematic: schematic.map(str::to_owned),
            extensions: schematic.map(|_| "qemu-guest-agent".to_owned()).into_iter().collect(),
        }
    }

    #[test]
    fn the_place_is_the_one_of_the_configuration() {
        let cases = [
            // A factory of one's own, an older version, another schematic.
            ("factory.lan:5000/nocloud-installer/", "nocloud", false),
            ("factory.talos.dev/nocloud-installer-secureboot/", "nocloud", true),
            ("mirror.lan/factory.talos.dev/metal-installer/", "metal", false),
            ("factory.talos.dev/installer/", "metal", false),
            ("factory.talos.dev/installer-secureboot/", "metal", true),
        ];
        assert_eq!(cases.len(), 5);
        for (place, platform, secure_boot) in cases {
            for schematic in [OWN, OTHER] {
                let (running, installed) = (running(Some(OWN), platform), format!("{place}{schematic}:v1.11.5"));
                let it = Origin { running: &running, secure_boot: Some(secure_boot), installed: Some(&installed) };
                assert_eq!(it.now(), Ok(format!("{place}{OWN}:v1.12.4")));
                assert_eq!(it.of(OTHER), Ok(format!("{place}{OTHER}:v1.12.4")));
                let other = Origin { secure_boot: Some(!secure_boot), ..it };
                assert!(other.now().unwrap_err().contains("SecureBoot") && other.of(OTHER).is_err());
                let silent = Origin { secure_boot: None, ..it };
                assert!(silent.now().unwrap_err().contains("does not say"));
            }
        }
    }

    #[test]
    fn what_cannot_be_told_is_not_guessed() {
        let vanilla = "ghcr.io/siderolabs/installer:v1.12.4";
        let (old, mine) = ("ghcr.io/siderolabs/installer:v1.10.0", "reg.lan/talos/installer:v1.12.4");
        let factory = format!("factory.talos.dev/metal-installer/{OWN}:v1.12.4");
        let cases = [
            (Some(OWN), "metal", None, Err("has no `machine.install.image`")),
            (Some(OWN), "metal", Some(vanilla), Err("names no schematic")),
            (Some(OWN), "nocloud", Some(factory.as_str()), Err("it runs as nocloud")),
            (None, "metal", Some(factory.as_str()), Err("without a schematic")),
            (None, "metal", Some(vanilla), Ok(vanilla)),
            (None, "metal", Some(old), Ok(vanilla)),
            (None, "metal", Some(mine), Ok(mine)),
            (None, "metal", Some("reg.lan/talos/installer:v1.10.0"), Err("it runs v1.12.4")),
        ];
        assert_eq!(cases.len(), 8);
        for (schematic, platform, installed, wanted) in cases {
            let running = running(schematic, platform);
            let said = Origin { running: &running, secure_boot: Some(false), installed }.now();
            match wanted {
                Ok(image) => assert_eq!(said.as_deref(), Ok(image)),
                Err(part) => assert!(said.as_ref().is_err_and(|why| why.contains(part)), "{part}: {said:?}"),
            }
        }
        let mut extended = running(None, "metal");
        extended.extensions.push("made-here".into());
        let it = Origin { running: &extended, secure_boot: Some(false), installed: Some(old) };
        assert!(it.now().is_err(), "an image without a schematic may be of one's own making");
    }
}
