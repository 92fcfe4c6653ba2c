//! The parameters of an `nvme-move`, read from the site file and resolved.

mod plan;
mod table;
#[cfg(test)]
mod tests;

use std::ops::RangeInclusive;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::base::age::Recipient;
use crate::base::drives::{Plan, Purpose, Scenario};
use crate::base::selector::fallback;
use crate::blueprint::install::{Bare, Source, at, command, config, fingerprint, patches};
use crate::blueprint::machine::Machine;
use crate::blueprint::param::keys;
use crate::blueprint::quorum::Peer;
use crate::site::Site;
use crate::site::fields::{Fields, Item, Sink};
use crate::talos::patch::Patch;

pub use table::PARAMS;

use super::anew::Anew;
use plan::{Core, core, number, transpose};
use table::{MEASURED, MEDIUM, VOLUME};

/// The blueprint's name in site files.
pub const NAME: &str = "nvme-move";
/// Which image measures where none is named, where, and how many bytes.
const MEASURE: (&str, &str, u64) = ("docker.io/library/busybox:1.37", "kube-system", 256 << 20);

/// How long such a move takes by the write-up that this blueprint was made from, the work at the machine with it: 30 to 45
/// minutes for data drives, 60 to 90 where the system disk goes too.
pub(super) fn usually(scenario: Scenario) -> RangeInclusive<Duration> {
    let minutes = |minutes: u64| Duration::from_secs(minutes * 60);
    match scenario {
        Scenario::Data => minutes(30)..=minutes(45),
        Scenario::SystemMoved | Scenario::SystemReplaced => minutes(60)..=minutes(90),
    }
}

/// All of it.
#[derive(Debug, Clone)]
pub struct Params {
    /// The node.
    pub machine: Machine,
    /// All nodes of its cluster.
    pub peers: Vec<Peer>,
    /// What is to become of its drives.
    pub plan: Plan,
    /// User volumes that are made on drives that come.
    pub volumes: Vec<Patch>,
    /// What it is installed with, and on which drive, where its system disk is replaced.
    pub anew: Option<Anew>,
    /// What it boots from, where nothing on its drives boots.
    pub medium: Option<Medium>,
    /// The Kubernetes API may be away for as long as the node is off.
    pub without_api: bool,
    /// It has its turn although a less important node has drives to move too.
    pub first: bool,
    /// How the drives are measured; None: not at all.
    pub measure: Option<Measure>,
    /// For whom alone the run files with secrets are.
    pub recipients: Vec<String>,
    /// The other migrations of this blueprint on nodes of the same cluster.
    pub others: Vec<Other>,
}

/// What a machine boots from where nothing on its drives boots.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Medium {
    /// Its version of Talos, `v1.11.5`.
    pub version: String,
    /// Its schematic at the image factory; None: it is not looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schematic: Option<String>,
}

/// How drives are measured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Measure {
    /// The pod's image; it has `dd`.
    pub image: String,
    /// The pod's namespace.
    pub namespace: String,
    /// How much is written and read.
    pub bytes: u64,
}

/// Another migration of this blueprint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Other {
    /// Its name in the site file.
    pub migration: String,
    /// Its node.
    pub machine: Machine,
    /// What is to become of that node's drives.
    pub plan: Plan,
}

impl Params {
    /// Reads the parameters; what is wrong goes into the item's sink.
    pub fn read(site: &Site, item: &Item<'_>) -> Option<Self> {
        let fields = item.fields(&keys(PARAMS));
        let core = core(site, &fields);
        let volumes = fields.get("volumes").map_or(Some(Vec::new()), |i| volumes(&i, core.as_ref()));
        let decrypt = fields.get("decrypt").map_or(Some(Vec::new()), |i| command(site, &i));
        let file = fields.get("config").map(|i| config(site, &i, decrypt.as_deref().unwrap_or_default()));
        let own = core.as_ref().map(|core| core.machine.name.clone());
        let merged = fields.get("patches").map_or(Some(Vec::new()), |i| patches(site, &i, &[own.as_deref()]));
        let (at, pin) = (at(fields.get("at").as_ref()), fingerprint(fields.get("fingerprint").as_ref()));
        let medium = fields.get("medium").map(|i| medium(&i));
        let without_api = fields.get("without_api").map_or(Some(false), |i| i.flag());
        let first = fields.get("first").map_or(Some(false), |i| i.flag());
        let measure = measured_by(&fields);
        let recipients = fields.get("recipients").map_or(Some(Vec::new()), |i| recipients(&i));
        if let Some(Core { plan, .. }) = &core {
            let word = plan.scenario.word();
            if plan.scenario == Scenario::SystemReplaced && file.is_none() {
                let help = "add `config:`, a file of talosctl or talhelper, made with the secrets of the cluster";
                fields.problem(format!("`{word}` installs the node anew, and there is no `config`"), help);
            }
            if plan.scenario != Scenario::Data && medium.is_none() {
                let help = "add `medium: { version: v1.11.5 }`, a stick or image of the version that runs, and have it at hand";
                fields.problem(
                    format!("`{word}` takes a way to boot without the system disk, and there is no `medium`"),
                    help,
                );
            }
            if let (Scenario::SystemReplaced, Some(i)) = (plan.scenario, fields.get("volumes")) {
                i.problem(
                    format!("`{word}` installs with `config`, and `volumes` is for a node that keeps its machine configuration"),
                    "write each as a document, `kind: UserVolumeConfig`, into that file",
                );
            }
            let of_an_installation = if plan.scenario == Scenario::SystemReplaced {
                &[][..]
            } else {
                &["config", "patches", "at", "fingerprint"]
            };
            for (key, i) in of_an_installation.iter().filter_map(|key| Some((key, fields.get(key)?))) {
                i.problem(
                    format!("`{word}` installs nothing, and `{key}` is what a node is installed with"),
                    "leave it out: the node keeps its machine configuration",
                );
            }
        }
        let Core { machine, plan } = core?;
        let peers = Machine::peers(site, &machine.cluster);
        let others = others(site, item.path(), &machine);
        let source = transpose(file)?.map(|file| Some(Source { file, decrypt: decrypt?, patches: merged? }));
        let (source, medium, at, fingerprint) = (transpose(source)?, transpose(medium)?, at?, pin?);
        let anew = match (plan.system_in(&plan.target), source, &medium) {
            (Some((_, wanted)), Some(source), Some(medium)) if plan.scenario == Scenario::SystemReplaced => {
                let disk = wanted.serial.trim().to_owned();
                let bare = Bare { machine: machine.clone(), source, disk, at, fingerprint };
                Some(Anew { bare, medium: medium.version.clone(), schematic: medium.schematic.clone() })
            }
            _ => None,
        };
        Some(Self {
            peers,
            volumes: volumes?,
            anew,
            medium,
            without_api: without_api?,
            first: first?,
            measure: measure?,
            recipients: recipients?,
            others,
            machine,
            plan,
        })
    }
}

impl Measure {
    fn usual() -> Self {
        let (image, namespace, bytes) = MEASURE;
        Self { image: image.into(), namespace: namespace.into(), bytes }
    }
}

/// The documents of user volumes on drives that come.
fn volumes(item: &Item<'_>, core: Option<&Core>) -> Option<Vec<Patch>> {
    let volume = |(name, item): &(&str, Item<'_>)| -> Option<Patch> {
        let fields = item.fields(&keys(VOLUME));
        let on = fields.need("on", "name the drive, one of `drives`").and_then(|i| {
            let plan = &core?.plan;
            let drive = i.name_of("a drive of `drives`", plan.drives.keys().map(String::as_str))?;
            if Plan::slot_of(&plan.target, &drive).is_none() {
                i.problem(
                    format!("{drive} is in no slot of `target`"),
                    "a volume is made on a drive that is in the machine then",
                );
                return None;
            }
            plan.drives.get(&drive).cloned()
        });
        let by_model = fields.get("else_by_model").map_or(Some(false), |i| i.flag());
        let min_size = fields.get("min_size").map(|i| i.text().map(str::to_owned));
        let grow = fields.get("grow").map(|i| i.flag());
        let (on, by_model) = (on?, by_model?);
        let purpose = Purpose::UserVolume((*name).to_owned());
        if !on.purposes.contains(&purpose) {
            fields.problem(
                format!("the drive of volume {name} has another purpose"),
                format!("write `purpose: {purpose}` at the drive, or name another one"),
            );
            return None;
        }
        let by_model = by_model || on.serial.is_empty();
        if by_model && (on.model.is_empty() || on.size.is_none()) {
            fields.problem(
                format!("the drive of volume {name} is to be meant by model and size, and has none of them"),
                "add `model:` and `size:` to it in `drives`",
            );
            return None;
        }
        Some(Patch::UserVolume {
            name: (*name).to_owned(),
            disk: if by_model {
                fallback(&on.serial, &on.model, on.size.unwrap_or_default())
            } else {
                format!("disk.serial == \"{}\"", on.serial.replace('\\', "\\\\").replace('"', "\\\""))
            },
            min_size: transpose(min_size)?,
            max_size: None,
            grow: transpose(grow)?,
        })
    };
    let read: Vec<Option<Patch>> = item.entries().iter().map(volume).collect();
    read.into_iter().collect()
}

fn medium(item: &Item<'_>) -> Option<Medium> {
    let fields = item.fields(&keys(MEDIUM));
    let version = fields.need("version", "name its version of Talos, `v1.11.5`").and_then(|i| {
        let text = i.text()?;
        let numbers = text.strip_prefix('v').map(|rest| rest.split('.').count());
        if numbers != Some(3) {
            i.problem(format!("`{text}` is no version of Talos"), "write `v1.11.5`");
            return None;
        }
        Some(text.to_owned())
    });
    let schematic = fields.get("schematic").map(|i| i.text().map(str::to_owned));
    Some(Medium { version: version?, schematic: transpose(schematic)? })
}

/// How the drives are measured, of parameters of which nothing else is read.
pub(super) fn measured(item: &Item<'_>) -> Option<Option<Measure>> {
    measured_by(&item.fields(&keys(PARAMS)))
}

fn measured_by(fields: &Fields<'_>) -> Option<Option<Measure>> {
    fields.get("measure").map_or_else(|| Some(Some(Measure::usual())), |i| measure(&i))
}

fn measure(item: &Item<'_>) -> Option<Option<Measure>> {
    // YAML reads a bare `off` as a text here; somebody may write `false`.
    if item.value().as_str() == Some("off") || item.value().as_bool() == Some(false) {
        return Some(None);
    }
    let fields = item.fields(&keys(MEASURED));
    let text = |key: &str, usual: &str| match fields.get(key) {
        Some(i) => i.text().map(str::to_owned),
        None => Some(usual.to_owned()),
    };
    let usual = Measure::usual();
    let (image, namespace) = (text("image", &usual.image), text("namespace", &usual.namespace));
    let bytes =
        fields.get("bytes").map_or(Some(usual.bytes), |i| number(&i, "how much is written and read, `268435456`"));
    if !fields.is_mapping() {
        return None;
    }
    Some(Some(Measure { image: image?, namespace: namespace?, bytes: bytes? }))
}

fn recipients(item: &Item<'_>) -> Option<Vec<String>> {
    let read = |i: &Item<'_>| -> Option<String> {
        i.parse::<Recipient>("a recipient is what `age-keygen` prints as its public key, `age1..`")?;
        i.text().map(str::to_owned)
    };
    let read: Vec<Option<String>> = item.list()?.iter().map(read).collect();
    read.into_iter().collect()
}

/// The other migrations of this blueprint on the same cluster. What is wrong with one is said where that one is read.
fn others(site: &Site, own: &str, machine: &Machine) -> Vec<Other> {
    let mut all = Vec::new();
    for (migration, found) in site.migrations.iter().filter(|(_, found)| found.blueprint == NAME) {
        let sink = Sink::new();
        let Some(item) = site.params(migration, &sink).filter(|item| item.path() != own && found.params.is_object())
        else {
            continue;
        };
        let Some(Core { machine: other, plan }) = core(site, &item.fields(&keys(PARAMS))) else { continue };
        if other.cluster == machine.cluster && other.name != machine.name {
            all.push(Other { migration: migration.clone(), machine: other, plan });
        }
    }
    all
}
