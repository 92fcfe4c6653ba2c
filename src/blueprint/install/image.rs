//! Whether the image that a configuration names fits the machine: NVIDIA's extensions are for machines with such a device.

use crate::base::check::Problem;
use crate::base::fault::Failure;
use crate::base::schematic::{FactoryImage, id};
use crate::talos::{Talos, kind};

use super::bare::Bare;
use super::source::Wanted;

/// NVIDIA's vendor id.
const VENDOR: &str = "0x10de";
/// What an image for NVIDIA has beside other extensions (siderolabs/extensions, `nvidia-gpu`): the driver in one of its
/// flavours, and the toolkit of the same line.
const DRIVERS: [&str; 2] = ["nonfree-kmod-nvidia", "nvidia-open-gpu-kernel-modules"];
const LINES: [&str; 2] = ["production", "lts"];
/// Extensions that images for homelabs have beside them; an id is the digest of the list, so that these lists can be tried.
const OTHERS: [&[&str]; 6] =
    [&[], &["qemu-guest-agent"], &["iscsi-tools"], &["iscsi-tools", "util-linux-tools"], &["i915"], &["intel-ucode"]];

/// Why the image of a configuration does not fit.
///
/// # Errors
/// What keeps the machine from telling its devices.
pub async fn amiss(bare: &Bare, talos: &Talos, wanted: &Wanted) -> Result<Option<Problem>, Failure> {
    let Some(image) = wanted.facts.image.as_deref() else { return Ok(None) };
    let devices = talos.list(&kind::PCI_DEVICES).await?;
    let gpu = devices.iter().any(|device| device.spec.vendor_id.eq_ignore_ascii_case(VENDOR));
    Ok(fits(bare.name(), image, gpu, &wanted.facts.modules))
}

/// As [`amiss`], of what is known. Modules of NVIDIA in the configuration say what the image is for where its id does not.
fn fits(name: &str, image: &str, gpu: bool, modules: &[String]) -> Option<Problem> {
    let asks = modules.iter().any(|module| module.starts_with("nvidia"));
    let made = FactoryImage::of(image).is_some_and(|image| is_for_nvidia(image.schematic));
    match (gpu, asks || made) {
        (false, true) => Some(Problem::new(
            format!("{name} has no NVIDIA device, and its configuration is for one ({image})"),
            "an image with NVIDIA's driver leaves such a node in `booting`: give it the image without it, and no modules of \
             NVIDIA, by `patches` or in the file",
        )),
        (true, true) if made && !asks => Some(Problem::new(
            format!("the image of {name} has NVIDIA's driver, and its configuration loads no modules of it"),
            "add `{ kernel-module: { name: nvidia } }`, and those of nvidia_uvm, nvidia_drm and nvidia_modeset, to `patches` \
             of the node",
        )),
        _ => None,
    }
}

/// What cannot be said of the image that a configuration names, by its id alone.
pub fn unknown(name: &str, wanted: &Wanted) -> Option<String> {
    unknown_of(name, wanted.facts.image.as_deref()?, &wanted.facts.modules)
}

fn unknown_of(name: &str, image: &str, modules: &[String]) -> Option<String> {
    if modules.iter().any(|module| module.starts_with("nvidia")) {
        return None;
    }
    let Some(factory) = FactoryImage::of(image) else {
        return Some(format!("{name}: what is in the image {image} is not known: it is not of the image factory"));
    };
    let plain = OTHERS.iter().any(|others| id(others) == factory.schematic);
    (!plain && !is_for_nvidia(factory.schematic)).then(|| {
        format!(
            "{name}: which extensions schematic {} has is not known here, and so not whether it fits the devices: \
             `curl -s https://factory.talos.dev/schematics/{0}` shows them",
            factory.schematic
        )
    })
}

/// Whether a schematic is one with NVIDIA's driver and nothing that is not tried here.
fn is_for_nvidia(schematic: &str) -> bool {
    DRIVERS.iter().any(|driver| {
        LINES.iter().any(|line| {
            OTHERS.iter().any(|others| {
                let mut names = vec![format!("{driver}-{line}"), format!("nvidia-container-toolkit-{line}")];
                names.extend(others.iter().map(|other| (*other).to_owned()));
                names.sort_unstable();
                id(&names) == schematic
            })
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_that_no_list_has_is_not_known() {
        let made = |names: &[&str]| format!("factory.talos.dev/metal-installer/{}:v1.11.5", id(names));
        let nvidia = ["nvidia".to_owned()];
        assert_eq!(unknown_of("n1", &made(&["qemu-guest-agent"]), &[]), None);
        assert_eq!(unknown_of("n1", &made(&["zfs"]), &nvidia), None);
        assert!(unknown_of("n1", &made(&["zfs"]), &[]).unwrap().contains("is not known here"));
        assert!(unknown_of("n1", "registry.lan/mine:v1", &[]).unwrap().contains("not of the image factory"));
    }

    #[test]
    fn an_image_with_a_driver_is_for_machines_with_a_device() {
        let made = |names: &[&str]| format!("factory.talos.dev/metal-installer/{}:v1.11.5", id(names));
        let plain = made(&["qemu-guest-agent"]);
        let nvidia = made(&["nonfree-kmod-nvidia-production", "nvidia-container-toolkit-production"]);
        let both = made(&["nonfree-kmod-nvidia-lts", "nvidia-container-toolkit-lts", "qemu-guest-agent"]);
        let modules = ["nvidia".to_owned()];
        let cases = [
            (&plain, false, false, None),
            (&plain, true, false, None),
            (&nvidia, false, false, Some("no NVIDIA device")),
            (&both, false, true, Some("no NVIDIA device")),
            (&plain, false, true, Some("no NVIDIA device")),
            (&nvidia, true, true, None),
            (&nvidia, true, false, Some("loads no modules")),
        ];
        assert_eq!(cases.len(), 7);
        for (image, gpu, asks, part) in cases {
            let found = fits("n1", image, gpu, if asks { &modules } else { &[] });
            assert_eq!(found.is_some(), part.is_some(), "{image} {gpu} {asks}: {found:?}");
            assert!(part.is_none_or(|part| found.unwrap().text.contains(part)), "{image} {gpu} {asks}");
        }
    }
}
