//! What is wrong with a node's image or modules, and what mends it: a pure judgement over what was read.
//!
//! NVIDIA's driver is two things: system extensions in the image, and kernel modules that the machine configuration
//! loads (docs.siderolabs.com, "NVIDIA GPU"). With one of them missing a service of the extension waits for a file that
//! never comes, and the node stays `booting`, whatever the kubelet says.

use serde_json::Value;

use crate::base::check::Problem;
use crate::base::fault::Failure;
use crate::base::schematic::{FactoryImage, id, tag, without};
use crate::blueprint::configs::{Configs, configs};
use crate::blueprint::machine::{Machine, Running, running};
use crate::estate::Estate;
use crate::talos::kind;
use crate::talos::patch::Patch;
use crate::talos::{Error, MachineConfig, Talos};

use super::installer::Origin;

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
    /// The image.
    pub(super) running: Running,
    /// Its firmware starts signed images only; None: it does not say.
    pub(super) secure_boot: Option<bool>,
    /// A device of NVIDIA is there.
    pub(super) gpu: bool,
    /// The modules that are loaded.
    pub(super) loaded: Vec<String>,
    /// The machine configuration.
    pub(super) configs: Configs,
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

/// Why nothing can be done about it.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Refused {
    /// What it needs cannot be told.
    Untold(Problem),
    /// Another configuration than the one in effect waits on its disk.
    Waits(Problem),
}

impl Refused {
    /// In the words for the step itself.
    pub(super) fn problem(self) -> Problem {
        match self {
            Self::Untold(problem) | Self::Waits(problem) => problem,
        }
    }
}

/// Another image for a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Image {
    /// What is run now, as a reference; or why its name cannot be told.
    pub(super) from: Result<String, String>,
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
    let (running, secure_boot, pci, loaded) = futures::try_join!(
        running(&talos),
        secure_boot(&talos),
        talos.list(&kind::PCI_DEVICES),
        talos.list(&kind::LOADED_MODULES),
    )?;
    Ok(Facts {
        running,
        secure_boot,
        gpu: pci.iter().any(|device| device.spec.vendor_id.eq_ignore_ascii_case(VENDOR)),
        loaded: loaded.into_iter().filter(|module| module.spec.is_live()).map(|module| module.id).collect(),
        configs: configs(machine, &talos).await?,
    })
}

async fn secure_boot(talos: &Talos) -> Result<Option<bool>, Error> {
    match talos.single(&kind::SECURITY_STATE).await {
        Ok(state) => Ok(state.and_then(|state| state.spec.secure_boot)),
        Err(Error::NoSuchKind { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// What is to be done about a node. `named`: the image that the site file names for it.
pub(super) fn judge(machine: &Machine, facts: &Facts, named: Option<&str>) -> Result<Repair, Refused> {
    let name = &machine.name;
    let untold = |text: String, help: String| Err(Refused::Untold(Problem::new(text, help)));
    let extensions = facts.running.extensions.iter().map(String::as_str);
    let nvidia: Vec<&str> = extensions.filter(|extension| is_nvidia(extension)).collect();
    let without_gpu = !nvidia.is_empty() && !facts.gpu;
    let why = if without_gpu {
        format!("{name} has no NVIDIA device, and its image is made for one ({})", nvidia.join(", "))
    } else {
        format!("the site file names another image for {name}")
    };
    if let Some(to) = named {
        let version = &facts.running.version;
        if tag(to) != Some(version) {
            // To another version there is more to do than this, and back from it there may be no way.
            let text = format!("the site file names {to} for {name}, which runs {version}: 03 changes no version");
            return untold(
                text,
                format!("name the image of {version} in `images`, or upgrade {name} by itself before"),
            );
        }
        if !facts.running.is(to) {
            // Up to 1.12 the node boots into it by itself, and with it into what waits.
            if let Some(waits) = facts.configs.waits(machine) {
                return Err(Refused::Waits(waits));
            }
            let installed = facts.installed();
            // A machine that does not say whether it has SecureBoot is given what somebody has chosen.
            if let (Some(_), Err(why)) = (facts.secure_boot, facts.origin(installed.as_deref()).signed_as(to)) {
                return untold(format!("{name}: {why}"), facts.suggestion(name));
            }
            return Ok(Repair::Image(facts.image(to.to_owned(), why)));
        }
    } else if without_gpu {
        if let Some(waits) = facts.configs.waits(machine) {
            return Err(Refused::Waits(waits));
        }
        return match facts.installs() {
            Some(Ok(to)) => Ok(Repair::Image(facts.image(to, why))),
            Some(Err(not)) => untold(format!("{why}; {not}"), facts.suggestion(name)),
            None => untold(why, facts.suggestion(name)),
        };
    }
    if nvidia.is_empty() {
        return Ok(Repair::Nothing(format!("the image of {name} needs no modules of NVIDIA")));
    }
    if without_gpu {
        let help = "name another image for it: the one that the site file names is what it runs";
        return untold(why, help.to_owned());
    }
    let patches = patches();
    let has =
        |config: &MachineConfig| crate::talos::patch::patch(config.expose(), &patches).map(|patched| patched.same);
    let waits = facts.configs.waits(machine);
    match has(&facts.configs.active) {
        // Nothing is written then, and so nothing takes the place of what waits; unless that would take it away again.
        Ok(true)
            if waits.is_none() || facts.configs.persistent.as_ref().is_some_and(|config| has(config) == Ok(true)) =>
        {
            Ok(Repair::Nothing(format!("{name} has NVIDIA's extensions, device and modules")))
        }
        Ok(_) => waits.map_or_else(|| Ok(Repair::Config(patches.clone())), |waits| Err(Refused::Waits(waits))),
        Err(error) => untold(
            format!("{name}: {error}"),
            format!("change it by hand with {}, and run again", machine.talosctl("edit machineconfig")),
        ),
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
    fn origin<'a>(&'a self, installed: Option<&'a str>) -> Origin<'a> {
        Origin { running: &self.running, secure_boot: self.secure_boot, installed }
    }

    /// The image that the machine configuration names.
    fn installed(&self) -> Option<String> {
        install_image(self.configs.active.expose())
    }

    /// That image's schematic in the version that runs (an upgrade does not write its version there); or why it is none
    /// for this machine. None where it names no other schematic than the one that runs.
    fn installs(&self) -> Option<Result<String, String>> {
        let installed = self.installed()?;
        let schematic = FactoryImage::of(&installed)?.schematic;
        let other = self.running.schematic.as_deref() != Some(schematic);
        other.then(|| self.origin(Some(&installed)).of(schematic))
    }

    fn image(&self, to: String, why: String) -> Image {
        let from = self.origin(self.installed().as_deref()).now();
        let all = || self.running.extensions.iter().cloned();
        let loses = FactoryImage::of(&to)
            .and_then(|image| self.kept(image.schematic))
            .map(|kept| all().partition(|extension| !kept.contains(&extension.as_str())));
        Image { from, to, loses, why }
    }

    /// Which of the extensions a schematic has, where it has no others: an id is the digest of their list.
    fn kept(&self, schematic: &str) -> Option<Vec<&str>> {
        let mut all: Vec<&str> = self.running.extensions.iter().map(String::as_str).collect();
        all.sort_unstable();
        let count = u32::try_from(all.len()).ok().filter(|_| all.len() <= MOST)?;
        let some = |mask: u32| -> Vec<&str> {
            all.iter().enumerate().filter(|(at, _)| mask >> at & 1 == 1).map(|(_, name)| *name).collect()
        };
        (0..1_u32 << count).map(some).find(|names| id(names) == schematic)
    }

    /// What to write into the site file.
    fn suggestion(&self, name: &str) -> String {
        let Running { version, schematic, extensions, .. } = &self.running;
        let right = without(schematic.as_deref().unwrap_or_default(), extensions, is_nvidia);
        let right = right.as_deref().unwrap_or("SCHEMATIC");
        let installed = self.installed();
        match self.origin(installed.as_deref()).place() {
            Ok(place) => format!(
                "name the right one: `images: {{ {name}: {place}{right}:{version} }}` in the parameters, of a schematic \
                 that was made at {}",
                place.split('/').next().unwrap_or_default()
            ),
            Err(why) => format!(
                "name the right one: `images: {{ {name}: INSTALLER/{right}:{version} }}` in the parameters, with the \
                 installer of its platform and firmware at the factory of its schematic ({why})"
            ),
        }
    }
}

/// The image that a machine configuration names, in either form.
fn install_image(config: &str) -> Option<String> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(config).ok()?;
    let of = |document: &Value| {
        let unattended = document.get("kind").and_then(Value::as_str) == Some("UnattendedInstallConfig");
        let at = if unattended { "/installer/image" } else { "/machine/install/image" };
        document.pointer(at)?.as_str().map(str::to_owned)
    };
    documents.iter().find_map(of)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::names::Dial;
    use crate::blueprint::node::KubeNode;

    const AGENT: &str = "ce4c980550dd2ab1b17bbf2b08801c7eb59418eafe8f279833297925d67c7515";
    const BOTH: &str = "990731763242a6b3cf735e49d0f550ce4068b4d0e7f4dfbb49a31799b698877e";
    const PLAIN: &str = "376567988ad370138ad8b2698212367b8edcb69b5fd68c80be1f2ec7d603b4ba";

    fn machine() -> Machine {
        let node = KubeNode { cluster: "k".into(), name: "n1".into() };
        Machine { cluster: "c".into(), name: "n1".into(), node, vm: None, dial: Dial::default() }
    }

    fn facts(gpu: bool, modules: &str, image: &str) -> Facts {
        let names = ["nonfree-kmod-nvidia-production", "nvidia-container-toolkit-production", "qemu-guest-agent"];
        let text = format!(
            "version: v1alpha1\nmachine:\n  type: worker\n  install:\n    image: {image}\n{modules}cluster:\n  \
             controlPlane:\n    endpoint: https://x:6443\n"
        );
        Facts {
            running: Running {
                version: "v1.11.5".into(),
                platform: "nocloud".into(),
                schematic: Some(BOTH.into()),
                extensions: names.map(str::to_owned).to_vec(),
            },
            secure_boot: Some(false),
            gpu,
            loaded: Vec::new(),
            configs: both(&text, &text),
        }
    }

    fn both(active: &str, persistent: &str) -> Configs {
        let config = |text: &str| MachineConfig::new("1", text);
        Configs { active: config(active), persistent: Some(config(persistent)) }
    }

    fn installer(schematic: &str) -> String {
        format!("factory.talos.dev/nocloud-installer/{schematic}:v1.11.5")
    }

    /// The text of a refusal with its help, for a reason that is not a configuration that waits.
    fn untold(facts: &Facts, named: Option<&str>) -> String {
        match judge(&machine(), facts, named) {
            Err(Refused::Untold(problem)) => format!("{} ({})", problem.text, problem.help),
            other => panic!("{other:?}"),
        }
    }

    fn image(facts: &Facts, named: Option<&str>) -> Image {
        match judge(&machine(), facts, named) {
            Ok(Repair::Image(image)) => image,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn modules_are_asked_for_once() {
        let Ok(Repair::Config(asked)) = judge(&machine(), &facts(true, "", &installer(BOTH)), None) else { panic!() };
        let plain = facts(true, "", &installer(BOTH));
        let patched = crate::talos::patch::patch(plain.configs.active.expose(), &asked).unwrap().text;
        let mended = Facts { configs: both(&patched, &patched), ..plain.clone() };
        assert!(matches!(judge(&machine(), &mended, None), Ok(Repair::Nothing(_))));
        assert_eq!(unloaded(&mended), MODULES);

        // Staged, or on trial: what is in effect will not be what it boots with.
        let former = plain.configs.active.expose();
        let gone = Configs { persistent: None, ..both(&patched, "") };
        for configs in [both(former, &patched), both(&patched, former), gone] {
            let refused = judge(&machine(), &Facts { configs, ..plain.clone() }, None).unwrap_err();
            let Refused::Waits(problem) = refused else { panic!("{refused:?}") };
            assert!(!problem.help.is_empty(), "{problem:?}");
        }
    }

    #[test]
    fn an_image_for_a_device_that_is_not_there_is_replaced() {
        let made = image(&facts(false, "", &installer(AGENT)), None);
        assert_eq!((made.from, made.to), (Ok(installer(BOTH)), installer(AGENT)));
        let (lost, kept) = made.loses.unwrap();
        assert_eq!((lost.len(), kept), (2, vec!["qemu-guest-agent".to_owned()]));
        // The site file's word counts more.
        let named = installer(PLAIN);
        let made = image(&facts(false, "", &installer(AGENT)), Some(&named));
        assert_eq!((made.to, made.loses.unwrap().0.len()), (named, 3));
        let made = image(&facts(false, "", &installer(&"0".repeat(64))), None);
        assert_eq!(made.loses, None, "nobody can tell");
    }

    #[test]
    fn no_version_is_changed() {
        let mut later = facts(false, "", &installer(AGENT));
        later.running.version = "v1.12.4".into();
        let at = |image: String| image.replace(":v1.11.5", ":v1.12.4");
        let made = image(&later, None);
        assert_eq!((made.from, made.to), (Ok(at(installer(BOTH))), at(installer(AGENT))));
        let said = untold(&later, Some(&installer(AGENT)));
        assert!(said.contains("runs v1.12.4: 03 changes no version"), "{said}");
        assert_eq!(image(&later, Some(&at(installer(AGENT)))).to, at(installer(AGENT)));
    }

    #[test]
    fn an_image_fits_the_firmware_and_the_factory() {
        let of = |place: &str, schematic: &str| format!("factory.lan:5000/{place}/{schematic}:v1.11.5");
        let secure = Facts { secure_boot: Some(true), ..facts(false, "", &of("nocloud-installer-secureboot", AGENT)) };
        let made = image(&secure, None);
        let wanted = |schematic: &str| of("nocloud-installer-secureboot", schematic);
        assert_eq!((made.from, made.to), (Ok(wanted(BOTH)), wanted(AGENT)));
        let said = untold(&Facts { secure_boot: Some(false), ..secure.clone() }, None);
        assert!(said.contains("boots without SecureBoot") && said.contains("INSTALLER/"), "{said}");
        let said = untold(&secure, Some(&of("nocloud-installer", AGENT)));
        assert!(said.contains("is not signed") && said.contains(&wanted(AGENT)), "{said}");
        // What it runs cannot be told, what it is to run can.
        let made = image(&facts(false, "", "ghcr.io/siderolabs/installer:v1.11.5"), Some(&installer(AGENT)));
        assert_eq!((made.to, made.from.is_err()), (installer(AGENT), true));
    }

    #[test]
    fn without_a_right_image_its_name_is_asked_for() {
        let said = untold(&facts(false, "", &installer(BOTH)), None);
        assert!(said.contains(&installer(AGENT)), "{said}");
        let same = installer(BOTH);
        assert!(judge(&machine(), &facts(false, "", &installer(AGENT)), Some(&same)).is_err());
        let mut none = facts(false, "", &same);
        none.running.extensions = vec!["qemu-guest-agent".into()];
        assert!(matches!(judge(&machine(), &none, None), Ok(Repair::Nothing(_))));
    }

    #[test]
    fn both_forms_of_a_configuration_name_the_image() {
        let kind = "apiVersion: v1alpha1\nkind: UnattendedInstallConfig\ninstaller:\n  image: a/b:v1\n";
        assert_eq!(install_image(&format!("version: v1alpha1\nmachine: {{}}\n---\n{kind}")).as_deref(), Some("a/b:v1"));
        assert_eq!(install_image("version: v1alpha1\nmachine: {}\n"), None);
    }
}
