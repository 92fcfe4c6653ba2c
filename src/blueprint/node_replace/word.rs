//! The word of a person that a silent machine is off, and what else shows it: each counts for what was seen then alone. A
//! machine that was heard since has come back in between.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::base::check::Problem;
use crate::base::fault::Failure;
use crate::base::permit::{Permit, Thing};
use crate::blueprint::install::asked::runs_from;
use crate::engine::step::RunInfo;
use crate::k8s::Node;
use crate::k8s::gone::Lease;

use super::on;
use super::s01_snapshot::FILE as COPY;
use super::sight::Life;
use super::swap::Swap;

/// The run file of the first step that acts: what was seen of the old machine then.
const SEEN: &str = "old.json";
/// The steps that keep it: in a run of one step there is no 01.
const KEEPERS: [&str; 4] = [on::SNAPSHOT, on::LEAVE, on::SHUTDOWN, on::NODE];
/// The run file of 04: the boot that has taken its shutdown.
pub(super) const SHUT: &str = "taken";

/// By what it is known whether a kubelet was heard in between.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Sign {
    /// The boot that the Node object tells; empty where there is no Node object.
    pub(super) boot: String,
    /// When the lease was renewed last; empty where there is none.
    pub(super) renewed: String,
}

impl Sign {
    pub(super) fn of(node: Option<&Node>, lease: Option<&Lease>) -> Self {
        Self {
            boot: node.map(|node| node.boot_id.clone()).unwrap_or_default(),
            renewed: lease.map(|lease| lease.renewed.clone()).unwrap_or_default(),
        }
    }

    /// Whether it shows that the machine was heard: what was deleted since shows nothing.
    fn was_heard_since(&self, kept: &Self) -> bool {
        let is = |now: &str, then: &str| !now.is_empty() && now != then;
        is(&self.boot, &kept.boot) || is(&self.renewed, &kept.renewed)
    }

    /// What names it in a consent.
    fn mark(&self) -> &str {
        [self.renewed.as_str(), self.boot.as_str()].into_iter().find(|mark| !mark.is_empty()).unwrap_or("never-heard")
    }
}

impl std::fmt::Display for Sign {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let or = |text: &str| if text.is_empty() { "none".to_owned() } else { text.to_owned() };
        write!(f, "lease renewed last at {}, boot {}", or(&self.renewed), or(&self.boot))
    }
}

/// What the first step that acts has seen of the old machine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Old {
    /// Where it was silent: by what it is known whether it was heard since.
    silent: Option<Sign>,
    /// Where it was alive: the serial number of the disk that it ran from, where that tells one.
    disk: Option<String>,
}

/// Nothing is heard of a machine.
pub(super) struct Silence {
    /// How that is known.
    pub(super) how: String,
    pub(super) sign: Sign,
    /// What waits for a configuration at its address tells its uuid; the serial numbers of the disks of that.
    pub(super) waits: Option<Vec<String>>,
    /// Its VM cannot be asked: the host that it was seen on last, and one that answers.
    pub(super) host: Option<(String, String)>,
}

/// Why a silent machine is taken to be off.
enum Shown {
    Word,
    Shutdown,
    Disk(String),
}

impl Silence {
    fn shown(&self, swap: &Swap, run: &RunInfo) -> Option<Shown> {
        if run.consents.contains(&swap.off_since(self.sign.mark())) {
            return Some(Shown::Word);
        }
        let old = kept(run);
        let own = old.as_ref().ok().and_then(|old| old.as_ref()?.disk.as_ref()).filter(|disk| !disk.is_empty());
        // Boards of a vendor may have one uuid; the disk that it ran from runs nowhere else.
        if let Some(disk) = own.filter(|disk| self.waits.as_ref().is_some_and(|disks| disks.contains(disk))) {
            return Some(Shown::Disk(disk.clone()));
        }
        if run.consents.contains(&swap.off()) {
            let counts = match &old {
                Ok(Some(old)) => old.silent.as_ref() == Some(&self.sign),
                // As long as nothing is kept the word is of this moment, and one that an earlier process got is not.
                Ok(None) => run.granted.contains(&swap.off()) && !has_begun(run),
                Err(_) => false,
            };
            if counts {
                return Some(Shown::Word);
            }
        }
        // Until its kubelet ends it renews its lease: another boot alone tells that it has come back.
        let boot = read(run, on::SHUTDOWN, SHUT).ok().flatten().filter(|boot| !boot.is_empty());
        boot.is_some_and(|boot| boot == self.sign.boot.as_bytes()).then_some(Shown::Shutdown)
    }

    /// By what it is taken to be off; None where nothing shows it.
    pub(super) fn by(&self, swap: &Swap, run: &RunInfo) -> Option<String> {
        Some(match self.shown(swap, run)? {
            Shown::Word => "that it is off is your word".into(),
            Shown::Shutdown => "it took its shutdown from this run".into(),
            Shown::Disk(disk) => {
                format!("the disk {disk} that it ran from is in the machine that waits at its address")
            }
        })
    }

    /// Why it is not taken to be off: this run did not switch it off, and nobody said of what is seen now that it is.
    pub(super) fn unsure(&self, swap: &Swap, run: &RunInfo) -> Option<Problem> {
        if self.shown(swap, run).is_some() {
            return None;
        }
        let anew = run.consents.contains(&swap.off()) || has_begun(run);
        let thing = if anew { swap.off_since(self.sign.mark()) } else { swap.off() };
        Some(Problem::new(self.said(swap, run), self.help(swap, &thing)))
    }

    fn said(&self, swap: &Swap, run: &RunInfo) -> String {
        let now = &self.sign;
        let shut = read(run, on::SHUTDOWN, SHUT).is_ok_and(|boot| boot.is_some());
        let since = match (run.consents.contains(&swap.off()), kept(run)) {
            (true, Err(why)) => {
                format!("What was seen of it when your word was given cannot be read ({why}); what is seen now: {now}")
            }
            (true, Ok(Some(Old { silent: Some(kept), .. }))) if now.was_heard_since(&kept) => format!(
                "It was heard since your word that it is off, which was of what was seen then ({kept}); now: {now}"
            ),
            // Deleted by somebody, or by the cloud's controller: no machine was heard for that.
            (true, Ok(Some(Old { silent: Some(kept), .. }))) => format!(
                "What your word that it is off goes by is not all there any more, so whether it was heard since is not known \
                 (then: {kept}; now: {now})"
            ),
            (true, Ok(Some(_))) => {
                format!(
                    "It was not silent when this run began; your word that it is off has to be of what is seen now: {now}"
                )
            }
            (true, Ok(None)) => format!(
                "What was seen of it when your word was given was not kept, so whether it was heard since is not known; what \
                 is seen now: {now}"
            ),
            (false, _) if shut && now.boot.is_empty() => {
                format!("It took its shutdown from this run; whether it has started since is not known: {now}")
            }
            (false, _) if shut => {
                format!("It took its shutdown from this run, and has started again since: {now}")
            }
            (false, _) if self.waits.is_some() => {
                "What waits at its address tells its uuid, which other boards of its \
                                                   vendor may have too: nothing shows that it is that machine"
                    .into()
            }
            (false, _) => "A machine that is only cut off looks the same, and runs on".into(),
        };
        format!("{} is silent: {}. {since}", swap.goer(), self.how)
    }

    fn help(&self, swap: &Swap, thing: &Thing) -> String {
        let look = format!(
            "go and look at it: where it is off, and stays off, add `--destroy {thing}`; what runs on it would run twice"
        );
        self.keep_off(swap).map_or(look.clone(), |keep| format!("{look}. {keep}"))
    }

    /// How a VM is kept off whose host cannot be asked.
    pub(super) fn keep_off(&self, swap: &Swap) -> Option<String> {
        let (vm, (host, other)) = (swap.old.vm.as_ref()?, self.host.as_ref()?);
        let conf = format!("qemu-server/{}.conf", vm.vmid);
        Some(format!(
            "before its host {host} is started again, keep it from starting vm {}: on {other} `mv /etc/pve/nodes/{host}/{conf} \
             /etc/pve/nodes/{other}/{conf}`, then `qm set {} --onboot 0`",
            vm.vmid, vm.vmid
        ))
    }
}

/// Keeps what is seen of it, for the first step of a run that acts: a word of a person is of that.
///
/// # Errors
/// What keeps it from telling its disk; the file cannot be written.
pub(super) async fn keep(life: &Life, swap: &Swap, run: &RunInfo, permit: &Permit) -> Result<(), Failure> {
    // In the place of what cannot be read nothing is put: it is not known what the word was of.
    if !matches!(kept(run), Ok(None)) {
        return Ok(());
    }
    // Nor is a word of an earlier day made one of what is seen now.
    if run.consents.contains(&swap.off()) && life.unsure(swap, run).is_some() {
        return Ok(());
    }
    let old = match life {
        Life::Silent(silence) => Old { silent: Some(silence.sign.clone()), disk: None },
        Life::Alive(talos) => {
            let disk = runs_from(talos).await?.map(|(_, serial)| serial).filter(|serial| !serial.is_empty());
            Old { silent: None, disk }
        }
        _ => Old::default(),
    };
    permit.file(SEEN, &serde_json::to_vec(&old).map_err(|error| Failure::plain(error.to_string(), None))?)?;
    Ok(())
}

/// What was kept in this run of what was seen first.
fn kept(run: &RunInfo) -> Result<Option<Old>, String> {
    for step in KEEPERS {
        if let Some(bytes) = read(run, step, SEEN)? {
            return serde_json::from_slice(&bytes).map(Some).map_err(|error| format!("{step}/{SEEN}: {error}"));
        }
    }
    Ok(None)
}

/// Whether the run has been at work: from then on a word is of the past. What cannot be looked for may be there.
fn has_begun(run: &RunInfo) -> bool {
    let is = |step: &str, name: &str| file(run, step, name).is_some_and(|path| path.try_exists().unwrap_or(true));
    is(on::SNAPSHOT, COPY) || is(on::SHUTDOWN, SHUT) || KEEPERS.iter().any(|step| is(step, SEEN))
}

/// A run file; None where there is none.
fn read(run: &RunInfo, step: &str, name: &str) -> Result<Option<Vec<u8>>, String> {
    let Some(path) = file(run, step, name) else { return Ok(None) };
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(format!("{step}/{name}: {error}")),
    }
}

fn file(run: &RunInfo, step: &str, name: &str) -> Option<PathBuf> {
    Some(run.files.as_ref()?.join(step).join(name))
}

#[cfg(test)]
mod tests;
