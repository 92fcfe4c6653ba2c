//! The word of a person that a silent machine is off, and what else shows it: each counts for what was seen then alone. A
//! machine that was heard since has come back in between.

use serde::{Deserialize, Serialize};

use crate::base::check::Problem;
use crate::base::permit::Thing;
use crate::engine::step::RunInfo;
use crate::k8s::Node;
use crate::k8s::gone::Lease;

use super::on;
use super::s01_snapshot::FILE as COPY;
use super::swap::Swap;

/// The run file of 01: what was seen of the old machine when the run began.
pub(super) const SEEN: &str = "old.json";
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

/// What 01 has seen of the old machine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Old {
    /// Where it was silent: by what it is known whether it was heard since.
    pub(super) silent: Option<Sign>,
    /// Where it was alive: the serial number of the disk that it ran from.
    pub(super) disk: Option<String>,
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
        let old = seen(run);
        let own = old.as_ref().and_then(|old| old.disk.as_ref());
        // Boards of a vendor may have one uuid; the disk that it ran from runs nowhere else.
        if let Some(disk) = own.filter(|disk| self.waits.as_ref().is_some_and(|disks| disks.contains(disk))) {
            return Some(Shown::Disk(disk.clone()));
        }
        if run.consents.contains(&swap.off()) {
            let kept = old.as_ref().and_then(|old| old.silent.as_ref());
            // As long as the run has not begun the word is of this moment.
            if kept.map_or(!has_begun(run), |kept| self.sign == *kept) {
                return Some(Shown::Word);
            }
        }
        // Until its kubelet ends it renews its lease: another boot alone tells that it has come back.
        let boot = read(run, on::SHUTDOWN, SHUT).filter(|boot| !boot.is_empty());
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
        let kept = seen(run).and_then(|old| old.silent);
        let shut = read(run, on::SHUTDOWN, SHUT).is_some();
        let since = match (run.consents.contains(&swap.off()), kept) {
            (true, Some(kept)) => format!(
                "It was heard since your word that it is off, which was of what was seen then ({kept}); now: {}",
                self.sign
            ),
            (true, None) => {
                format!(
                    "It was not silent when this run began, so your word counts for what is seen now: {}",
                    self.sign
                )
            }
            (false, _) if shut => {
                format!("It took its shutdown from this run, and has started again since: {}", self.sign)
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

/// What 01 has seen in this run.
pub(super) fn seen(run: &RunInfo) -> Option<Old> {
    serde_json::from_slice(&read(run, on::SNAPSHOT, SEEN)?).ok()
}

/// Whether 01 has been at work: from then on a word is of the past.
fn has_begun(run: &RunInfo) -> bool {
    read(run, on::SNAPSHOT, COPY).is_some()
}

/// A run file; what cannot be read shows nothing.
fn read(run: &RunInfo, step: &str, name: &str) -> Option<Vec<u8>> {
    std::fs::read(run.files.as_ref()?.join(step).join(name)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::names::Dial;
    use crate::blueprint::install::{Bare, source::Source};
    use crate::blueprint::machine::Machine;
    use crate::blueprint::node::KubeNode;

    fn swap() -> Swap {
        let machine = |name: &str| Machine {
            cluster: "c".into(),
            name: name.into(),
            node: KubeNode { cluster: "k".into(), name: name.into() },
            vm: None,
            dial: Dial::default(),
        };
        let source = Source { file: "/c.yaml".into(), decrypt: Vec::new(), patches: Vec::new() };
        let new = Bare { machine: machine("n4"), source, disk: "NEW".into(), at: None, fingerprint: None };
        Swap { old: machine("n3"), new, peers: Vec::new(), worker: false }
    }

    fn sign(renewed: &str, boot: &str) -> Sign {
        Sign { boot: boot.into(), renewed: renewed.into() }
    }

    /// A run with these files, and these consents.
    fn run(files: &std::path::Path, with: &[(&str, &str, &[u8])], consents: &[Thing]) -> RunInfo {
        for (step, name, bytes) in with {
            std::fs::create_dir_all(files.join(step)).unwrap();
            std::fs::write(files.join(step).join(name), bytes).unwrap();
        }
        RunInfo { files: Some(files.into()), consents: consents.iter().cloned().collect(), ..RunInfo::default() }
    }

    #[test]
    fn each_sign_counts_for_what_was_seen_then() {
        let swap = swap();
        let old = |silent: Option<Sign>, disk: Option<&str>| {
            serde_json::to_vec(&Old { silent, disk: disk.map(str::to_owned) }).unwrap()
        };
        let (at_1, alive) = (old(Some(sign("1", "a")), None), old(None, Some("OWN")));
        let copy = (on::SNAPSHOT, COPY, &b"db"[..]);
        let kept = &[copy, (on::SNAPSHOT, SEEN, at_1.as_slice())][..];
        let shut = &[copy, (on::SNAPSHOT, SEEN, alive.as_slice()), (on::SHUTDOWN, SHUT, &b"a"[..])][..];
        let lived = &[copy, (on::SNAPSHOT, SEEN, alive.as_slice())][..];
        let (off, since) = (&[swap.off()][..], &[swap.off_since("2")][..]);
        let given: &[Thing] = &[];
        let waits = |serial: &str| Some(vec![serial.to_owned(), "STICK".to_owned()]);
        let none = &[copy][..0];
        // What the run keeps, what was consented to, what is seen now, what waits there, and the word that is asked for.
        let cases = [
            (none, given, sign("1", "a"), None, Some("off/n3")),
            (none, off, sign("1", "a"), None, None),
            (kept, off, sign("1", "a"), None, None),
            (kept, off, sign("2", "a"), None, Some("off/n3@2")),
            (kept, off, sign("1", "b"), None, Some("off/n3@1")),
            (kept, since, sign("2", "a"), None, None),
            (kept, since, sign("3", "a"), None, Some("off/n3@3")),
            (lived, off, sign("2", "a"), None, Some("off/n3@2")),
            (shut, given, sign("2", "a"), None, None),
            (shut, given, sign("2", "b"), None, Some("off/n3@2")),
            (shut, given, sign("", ""), None, Some("off/n3@never-heard")),
            // The uuid alone is no proof; the disk that it ran from is.
            (none, given, sign("1", "a"), waits("OTHER"), Some("off/n3")),
            (lived, given, sign("2", "a"), waits("OTHER"), Some("off/n3@2")),
            (lived, given, sign("2", "a"), waits("OWN"), None),
        ];
        assert_eq!(cases.len(), 14);
        for (at, (files, consents, sign, waits, asks)) in cases.into_iter().enumerate() {
            let dir = tempfile::tempdir().unwrap();
            let run = run(dir.path(), files, consents);
            let silence = Silence { how: "it is silent".into(), sign, waits, host: None };
            let problem = silence.unsure(&swap, &run);
            assert_eq!(problem.is_none(), silence.by(&swap, &run).is_some(), "{at}");
            let word = problem.as_ref().and_then(|problem| problem.help.split('`').nth(1));
            assert_eq!(word, asks.map(|asks| format!("--destroy {asks}")).as_deref(), "{at}: {problem:?}");
        }
    }
}
