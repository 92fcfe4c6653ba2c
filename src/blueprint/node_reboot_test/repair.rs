//! What is wrong with a node's image or modules, and what mends it: a pure judgement over what was read.
//!
//! NVIDIA's driver is two things: system extensions in the image, and kernel modules that the machine configuration
//! loads (docs.siderolabs.com, "NVIDIA GPU"). With one of them missing a service of the extension waits for a file that
//! never comes, and the node stays `booting`, whatever the kubelet says.

use serde_json::Value;

use crate::base::check::Problem;
use crate::base::fault::Failure;
use crate::base::schematic::{FactoryImage, id};
use crate::blueprint::machine::Machine;
use crate::estate::Estate;
use crate::talos::kind;
use crate::talos::patch::Patch;
use crate::talos::{MachineConfig, Which};

/// The modules that NVIDIA's extensions need.
const MODULES: [&str; 4] = ["nvidia", "nvidia_uvm", "nvidia_drm", "nvidia_modeset"];
/// What their container toolkit needs.
const SYSCTL: (&str, &str) = ("net.core.bpf_jit_harden", "1");
/// The vendor of PCI devices that they drive.
const VENDOR: &str = "0x10de";
/// More extensions than this are not tried in all combinations.
const MOST: usize = 10;

/// What decides about it.
#[derive(Debug, Clone)]
pub(super) struct Facts {
    /// The image's extensions.
    pub(super) extensions: Vec<String>,
    /// The image factory's schematic; None where the image is not of the factory.
    pub(super) schematic: Option<String>,
    /// `v1.11.5`
    pub(super) version: String,
    /// `metal`, `nocloud`, ...
    pub(super) platform: String,
    /// A device of NVIDIA is there.
    pub(super) gpu: bool,
    /// The modules that are loaded.
    pub(super) loaded: Vec<String>,
    /// The machine configuration.
    pub(super) config: MachineConfig,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Repair {
    /// Nothing, and why.
    Nothing(String),
    /// The machine configuration has to hold these.
    Config(Vec<Patch>),
    /// Another image.
    Image(Image),
}

/// Another image for a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Image {
    /// What is run now, as a reference.
    pub(super) from: String,
    /// What is to run.
    pub(super) to: String,
    /// What it loses and what it keeps; None where the new schematic does not tell.
    pub(super) loses: Option<(Vec<String>, Vec<String>)>,
    /// Why.
    pub(super) why: String,
}

/// Reads it.
///
/// # Errors
/// What keeps the node from answering.
pub(super) async fn facts(cx: &Estate, machine: &Machine) -> Result<Facts, Failure> {
    let talos = machine.open(cx).await?;
    let (extensions, pci, loaded, version, config) = futures::try_join!(
        talos.list(&kind::EXTENSIONS),
        talos.list(&kind::PCI_DEVICES),
        talos.list(&kind::LOADED_MODULES),
        talos.version(),
        talos.machine_config(Which::Active),
    )?;
    let config = config.ok_or_else(|| {
        let help = "it waits for its configuration: `talosctl apply-config --insecure`".to_owned();
        Failure::plain(format!("{} has no machine configuration", machine.name), Some(help))
    })?;
    let (own, others): (Vec<_>, Vec<_>) =
        extensions.into_iter().map(|e| e.spec.metadata).partition(|m| m.name == "schematic");
    Ok(Facts {
        extensions: others.into_iter().map(|m| m.name).collect(),
        schematic: own.into_iter().next().map(|m| m.version),
        version: version.tag,
        platform: version.platform,
        gpu: pci.iter().any(|device| device.spec.vendor_id.eq_ignore_ascii_case(VENDOR)),
        loaded: loaded.into_iter().filter(|module| module.spec.is_live()).map(|module| module.id).collect(),
        config,
    })
}

/// What is to be done about a node. `named`: the image that the site file names for it.
pub(super) fn judge(machine: &Machine, facts: &Facts, named: Option<&str>) -> Result<Repair, Problem> {
    let name = &machine.name;
    let nvidia: Vec<&str> = facts.extensions.iter().map(String::as_str).filter(|e| is_nvidia(e)).collect();
    let without_gpu = !nvidia.is_empty() && !facts.gpu;
    let why = if without_gpu {
        format!("{name} has no NVIDIA device, and its image is made for one ({})", nvidia.join(", "))
    } else {
        format!("the site file names another image for {name}")
    };
    if let Some(to) = named {
        if !facts.runs(to) {
            return Ok(Repair::Image(facts.image(to.to_owned(), why)));
        }
    } else if without_gpu {
        let installed = install_image(facts.config.expose());
        let other = installed.filter(|image| FactoryImage::of(image).is_some() && !facts.runs(image));
        return match other {
            Some(to) => Ok(Repair::Image(facts.image(to, why))),
            None => Err(Problem::new(why, facts.suggestion(name))),
        };
    }
    if nvidia.is_empty() {
        return Ok(Repair::Nothing(format!("the image of {name} needs no modules of NVIDIA")));
    }
    if without_gpu {
        return Err(Problem::new(why, "name another image for it: the one that the site file names is what it runs"));
    }
    let patches = patches();
    match crate::talos::patch::patch(facts.config.expose(), &patches) {
        Ok(patched) if patched.same => {
            Ok(Repair::Nothing(format!("{name} has NVIDIA's extensions, device and modules")))
        }
        Ok(_) => Ok(Repair::Config(patches)),
        Err(error) => Err(Problem::new(
            format!("{name}: {error}"),
            "change it by hand with `talosctl edit machineconfig`, and run again",
        )),
    }
}

/// What the machine configuration has to hold for NVIDIA's extensions.
pub(super) fn patches() -> Vec<Patch> {
    let modules = MODULES.iter().map(|name| Patch::KernelModule { name: (*name).to_owned(), parameters: None });
    let (name, value) = SYSCTL;
    modules.chain([Patch::Sysctl { name: name.to_owned(), value: value.to_owned() }]).collect()
}

/// The modules that are not loaded.
pub(super) fn unloaded(facts: &Facts) -> Vec<&'static str> {
    MODULES.iter().copied().filter(|module| !facts.loaded.iter().any(|loaded| loaded == module)).collect()
}

fn is_nvidia(extension: &str) -> bool {
    extension.contains("nvidia")
}

impl Facts {
    /// Whether this image runs already.
    pub(super) fn runs(&self, image: &str) -> bool {
        match FactoryImage::of(image) {
            Some(it) => self.schematic.as_deref() == Some(it.schematic) && it.version == self.version,
            None => self.schematic.is_none() && image.ends_with(&format!(":{}", self.version)),
        }
    }

    /// The installer of what runs.
    fn installer(&self, schematic: &str) -> String {
        format!("factory.talos.dev/{}-installer/{schematic}:{}", self.platform, self.version)
    }

    fn image(&self, to: String, why: String) -> Image {
        let from = match &self.schematic {
            Some(schematic) => self.installer(schematic),
            None => format!("ghcr.io/siderolabs/installer:{}", self.version),
        };
        let loses = FactoryImage::of(&to)
            .and_then(|image| self.kept(image.schematic))
            .map(|kept| self.extensions.iter().cloned().partition(|extension| !kept.contains(&extension.as_str())));
        Image { from, to, loses, why }
    }

    /// Which of the extensions a schematic has, where it has no others: an id is the digest of their list.
    fn kept(&self, schematic: &str) -> Option<Vec<&str>> {
        let mut all: Vec<&str> = self.extensions.iter().map(String::as_str).collect();
        all.sort_unstable();
        let count = u32::try_from(all.len()).ok().filter(|_| all.len() <= MOST)?;
        let some = |mask: u32| -> Vec<&str> {
            all.iter().enumerate().filter(|(at, _)| mask >> at & 1 == 1).map(|(_, name)| *name).collect()
        };
        (0..1_u32 << count).map(some).find(|names| id(names) == schematic)
    }

    /// What to write into the site file.
    fn suggestion(&self, name: &str) -> String {
        let all: Vec<&str> = self.extensions.iter().map(String::as_str).collect();
        let gone = crate::base::schematic::without(self.schematic.as_deref().unwrap_or_default(), &all, is_nvidia);
        let image = gone.map_or_else(|| self.installer("SCHEMATIC"), |schematic| self.installer(&schematic));
        format!(
            "name the right one: `images: {{ {name}: {image} }}` in the parameters, of a schematic that was made at \
             factory.talos.dev"
        )
    }
}

/// `machine.install.image` of a configuration.
fn install_image(config: &str) -> Option<String> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(config).ok()?;
    documents.iter().find_map(|d| d.pointer("/machine/install/image")?.as_str().map(str::to_owned))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blueprint::node::KubeNode;

    const AGENT: &str = "ce4c980550dd2ab1b17bbf2b08801c7eb59418eafe8f279833297925d67c7515";
    const BOTH: &str = "990731763242a6b3cf735e49d0f550ce4068b4d0e7f4dfbb49a31799b698877e";
    const PLAIN: &str = "376567988ad370138ad8b2698212367b8edcb69b5fd68c80be1f2ec7d603b4ba";

    fn machine() -> Machine {
        let node = KubeNode { cluster: "k".into(), name: "n1".into() };
        Machine { cluster: "c".into(), name: "n1".into(), node, vm: None }
    }

    fn facts(gpu: bool, modules: &str, image: &str) -> Facts {
        let names = ["nonfree-kmod-nvidia-production", "nvidia-container-toolkit-production", "qemu-guest-agent"];
        let text = format!(
            "version: v1alpha1\nmachine:\n  type: worker\n  install:\n    image: {image}\n{modules}cluster:\n  \
             controlPlane:\n    endpoint: https://x:6443\n"
        );
        Facts {
            extensions: names.map(str::to_owned).to_vec(),
            schematic: Some(BOTH.into()),
            version: "v1.11.5".into(),
            platform: "nocloud".into(),
            gpu,
            loaded: Vec::new(),
            config: MachineConfig::new("1", text),
        }
    }

    fn installer(schematic: &str) -> String {
        format!("factory.talos.dev/nocloud-installer/{schematic}:v1.11.5")
    }

    #[test]
    fn modules_are_asked_for_once() {
        let Ok(Repair::Config(asked)) = judge(&machine(), &facts(true, "", &installer(BOTH)), None) else { panic!() };
        let plain = facts(true, "", &installer(BOTH));
        let patched = crate::talos::patch::patch(plain.config.expose(), &asked).unwrap();
        let mended = Facts { config: MachineConfig::new("2", patched.text), ..plain };
        assert!(matches!(judge(&machine(), &mended, None), Ok(Repair::Nothing(_))));
        assert_eq!(unloaded(&mended), MODULES);
    }

    #[test]
    fn an_image_for_a_device_that_is_not_there_is_replaced() {
        let Ok(Repair::Image(image)) = judge(&machine(), &facts(false, "", &installer(AGENT)), None) else { panic!() };
        assert_eq!((image.from, image.to), (installer(BOTH), installer(AGENT)));
        let (lost, kept) = image.loses.unwrap();
        assert_eq!((lost.len(), kept), (2, vec!["qemu-guest-agent".to_owned()]));
        // The site file's word counts more.
        let named = installer(PLAIN);
        let Ok(Repair::Image(image)) = judge(&machine(), &facts(false, "", &installer(AGENT)), Some(&named)) else {
            panic!()
        };
        assert_eq!((image.to, image.loses.unwrap().0.len()), (named, 3));
        let other = installer(&"0".repeat(64));
        let Ok(Repair::Image(image)) = judge(&machine(), &facts(false, "", &other), None) else { panic!() };
        assert_eq!(image.loses, None, "nobody can tell");
    }

    #[test]
    fn without_a_right_image_its_name_is_asked_for() {
        let problem = judge(&machine(), &facts(false, "", &installer(BOTH)), None).unwrap_err();
        assert!(problem.help.contains(&installer(AGENT)), "{problem:?}");
        let same = installer(BOTH);
        assert!(judge(&machine(), &facts(false, "", &installer(AGENT)), Some(&same)).is_err());
        let none = Facts { extensions: vec!["qemu-guest-agent".into()], ..facts(false, "", &same) };
        assert!(matches!(judge(&machine(), &none, None), Ok(Repair::Nothing(_))));
    }
}
