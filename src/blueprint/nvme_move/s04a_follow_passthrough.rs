//! 04a: what Proxmox hands on to a VM goes along with the drives: `hostpciN` lines and mappings name their new addresses.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::base::check::{Change, Check, Problem};
use crate::base::drives::{Plan, pci_address};
use crate::base::fault::Failure;
use crate::base::permit::{Permit, System};
use crate::blueprint::backup::kept;
use crate::blueprint::machine::Machine;
use crate::blueprint::power::write_config;
use crate::blueprint::vm::Vm;
use crate::engine::step::{Outlook, Risk, RunInfo, Seen, Step};
use crate::estate::Estate;
use crate::proxmox::{ConfigChange, PciEntry, PciPlace, places_text};

use super::behind::{Host, Line, Lines, Passed, View, mend, passed, view};
use super::remembered::count;
use super::s02_drain::DrainNode;
use super::sight::{Stand, stand};
use super::way_out::once_more;

/// Has the lines and mappings of a VM follow its drives.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FollowPassthrough {
    /// The node.
    pub machine: Machine,
    /// What is to become of its drives.
    pub plan: Plan,
}

/// A text before and after.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Was {
    /// As it was.
    pub old: String,
    /// As this step writes it.
    pub new: String,
}

/// The lines and the entries of mappings that it changes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Before {
    /// By key.
    pub lines: BTreeMap<String, Was>,
    /// By the mapping's name.
    pub entries: BTreeMap<String, Was>,
}

impl Step<Estate> for FollowPassthrough {
    const ID: &'static str = "04a-follow-passthrough";
    const RISK: Risk = Risk::Reverts;
    /// With the only control plane off there is no API to ask.
    const BLIND_TO: &'static [&'static str] = &[<DrainNode as Step<Estate>>::ID];
    type Before = Before;

    fn title(&self) -> String {
        format!("{} is given its drives from where they are now", self.machine.as_a_whole())
    }

    fn why(&self) -> Vec<String> {
        let vmid = self.machine.vm.as_ref().map_or(0, |vm| vm.vmid);
        vec![
            "A drive in another slot has another address on PCI: by the old one the VM would be given another drive, its host's own \
             perhaps, or would not start."
                .into(),
            "Which line has which drive was seen before the VM went off; where each is now its host shows by their serial numbers. \
             Other settings of a line stay as they are; of a mapping the entry of this host alone is changed, with its IOMMU \
             group, which goes by the slot."
                .into(),
            "The addresses of other devices may change as well, with the buses that are counted: see the hostpci lines of the \
             host's other VMs before they start."
                .into(),
            format!("By hand: `lspci -nn` on the host, `qm set {vmid} --hostpciN ADDRESS,..`, `pvesh set /cluster/mapping/pci/NAME`."),
        ]
    }

    fn limit(&self) -> Duration {
        Duration::from_secs(120)
    }

    fn outlook(&self, _cx: &Estate) -> Outlook {
        match &self.machine.vm {
            Some(vm) => Outlook::changes(System::Proxmox, [format!("vm {} hostpci", vm.vmid)]),
            None => Outlook::default(),
        }
    }

    async fn check(&self, cx: &Estate, seen: Seen<'_, Before>) -> Result<Check<Before>, Failure> {
        let Some(vm) = &self.machine.vm else { return Ok(Check::not_needed("it is no VM")) };
        let lines = Lines::whole(cx, vm).await?;
        if lines.status.is_running() {
            return Ok(match stand(cx, &self.machine, &self.plan, seen.run, &self.plan.target, None).await? {
                Stand::There(notes) => Check::done().notes(notes),
                Stand::Amiss(problems, notes) | Stand::Waits(_, problems, notes) => {
                    Check::blocked(once_more(problems)).notes(notes)
                }
                Stand::Between(why) | Stand::Other(why) | Stand::Off(why) | Stand::Deaf(why) => Check::waiting(why),
            });
        }
        let wanted = match self.wanted(cx, vm, &lines, &seen).await? {
            Ok(wanted) => wanted,
            Err(problems) => return Ok(Check::blocked(problems)),
        };
        if wanted == Before::default() {
            return Ok(Check::done().note(format!("what vm {} is given is where its drives are", vm.vmid)));
        }
        Ok(Check::todo(changes(vm, &wanted), wanted))
    }

    async fn apply(&self, cx: &Estate, seen: Seen<'_, Before>, permit: &Permit) -> Result<(), Failure> {
        let Some(vm) = &self.machine.vm else { return Ok(()) };
        let lines = Lines::whole(cx, vm).await?;
        off(&lines)?;
        let wanted = self.wanted(cx, vm, &lines, &seen).await?.map_err(Failure::barred)?;
        // Drives that are moved once more have other texts than those of the first time.
        let name = wrote_file(count(seen.run, Self::ID, wrote_file)?);
        let bytes = serde_json::to_vec(&wanted).map_err(|error| Failure::plain(format!("{name}: {error}"), None))?;
        permit.file(&name, &bytes)?;
        write(&lines, &wanted, permit).await
    }

    async fn back(&self, cx: &Estate, before: &Before, seen: Seen<'_, Before>) -> Result<Check<()>, Failure> {
        let Some(vm) = &self.machine.vm else { return Ok(Check::done()) };
        let lines = Lines::whole(cx, vm).await?;
        let (to_write, problems) = restored(&lines, &written(seen.run, Some(before))?);
        if !problems.is_empty() {
            return Ok(Check::blocked(problems));
        }
        if to_write == Before::default() {
            return Ok(Check::done());
        }
        if lines.status.is_running() {
            let text = format!("vm {} runs, and its lines are put back while it is off", vm.vmid);
            return Ok(Check::blocked(vec![Problem::new(
                text,
                format!("`qm shutdown {}`, then `pvemig undo`", vm.vmid),
            )]));
        }
        Ok(Check::todo(changes(vm, &to_write), ()))
    }

    async fn undo(&self, cx: &Estate, before: &Before, seen: Seen<'_, Before>, permit: &Permit) -> Result<(), Failure> {
        let Some(vm) = &self.machine.vm else { return Ok(()) };
        let lines = Lines::whole(cx, vm).await?;
        off(&lines)?;
        let (to_write, problems) = restored(&lines, &written(seen.run, Some(before))?);
        if !problems.is_empty() {
            return Err(Failure::barred(problems));
        }
        write(&lines, &to_write, permit).await
    }
}

/// The lines and entries that change.
fn changes(vm: &Vm, what: &Before) -> Vec<Change> {
    let line = |(key, was): (&String, &Was)| Change::set(format!("vm {} {key}", vm.vmid), &was.old, &was.new);
    let entry = |(name, was): (&String, &Was)| Change::set(format!("pci mapping {name}"), &was.old, &was.new);
    what.lines.iter().map(line).chain(what.entries.iter().map(entry)).collect()
}

/// The nth file of what this step was about to write.
fn wrote_file(n: usize) -> String {
    format!("wrote-{n}.json")
}

/// What this run has written, the first time first.
fn written(run: &RunInfo, first: Option<&Before>) -> Result<Vec<Before>, Failure> {
    const ID: &str = <FollowPassthrough as Step<Estate>>::ID;
    let mut all: Vec<Before> = first.cloned().into_iter().collect();
    for n in 0..count(run, ID, wrote_file)? {
        let name = wrote_file(n);
        let Some(bytes) = kept(run, ID, &name, &name)? else { continue };
        let read = serde_json::from_slice(&bytes);
        all.push(read.map_err(|error| Failure::plain(format!("{name} of this run: {error}"), None))?);
    }
    Ok(all)
}

fn off(lines: &Lines) -> Result<(), Failure> {
    if !lines.status.is_running() {
        return Ok(());
    }
    let text = format!("vm {} runs: what it is given is changed while it is off", lines.at.vmid);
    Err(Failure::plain(text, Some("`pvemig resume` looks again".into())))
}

/// What has to be written so that all is as it was first, and what somebody else has changed.
fn restored(lines: &Lines, all: &[Before]) -> (Before, Vec<Problem>) {
    let (mut out, mut problems) = (Before::default(), Vec::new());
    let mut judge = |what: String, is: Option<String>, wrote: &[&Was]| -> Option<Was> {
        let (first, last) = (wrote.first()?, wrote.last()?);
        match is {
            Some(is) if is == first.old => None,
            Some(is) if wrote.iter().any(|was| is == was.new) => Some(Was { old: is, new: first.old.clone() }),
            is => {
                let text = format!(
                    "{what} of vm {} was `{}`, this run wrote `{}`, and now it is `{}`: somebody else has changed it",
                    lines.at.vmid,
                    first.old,
                    last.new,
                    is.unwrap_or_else(|| "not set".into())
                );
                problems.push(Problem::new(text, format!("set it to one of the two by hand; {}", mend(lines.at.vmid))));
                None
            }
        }
    };
    for (key, wrote) in by_name(all, |before| &before.lines) {
        let is = lines.config.configured(key).map(str::to_owned);
        out.lines.extend(judge(key.to_owned(), is, &wrote).map(|was| (key.to_owned(), was)));
    }
    for (name, wrote) in by_name(all, |before| &before.entries) {
        let of = lines.all.iter().filter_map(|line| line.mapping.as_ref()).find(|(mapping, _)| mapping.id == *name);
        let is = of.map(|(_, entry)| entry.to_string());
        out.entries.extend(judge(format!("mapping {name}"), is, &wrote).map(|was| (name.to_owned(), was)));
    }
    (out, problems)
}

/// What was written, by the names of it.
fn by_name(all: &[Before], of: impl Fn(&Before) -> &BTreeMap<String, Was>) -> BTreeMap<&str, Vec<&Was>> {
    let mut out: BTreeMap<&str, Vec<&Was>> = BTreeMap::new();
    for (name, was) in all.iter().flat_map(of) {
        out.entry(name).or_default().push(was);
    }
    out
}

/// Writes each line and entry that is as it is to be found, under the digest with which it was read.
async fn write(lines: &Lines, what: &Before, permit: &Permit) -> Result<(), Failure> {
    let mut set = Vec::new();
    for (key, was) in &what.lines {
        if lines.config.configured(key) == Some(&was.old) {
            set.push((key.clone(), was.new.clone()));
        }
    }
    if !set.is_empty() {
        let change = ConfigChange { set, digest: Some(lines.config.digest.clone()), ..ConfigChange::default() };
        write_config(&lines.pve, &lines.at, &change, permit).await?;
    }
    for (name, Was { old: from, new: to }) in &what.entries {
        let of = lines.all.iter().filter_map(|line| line.mapping.as_ref()).find(|(mapping, _)| mapping.id == *name);
        let Some((_, old)) = of.filter(|(_, entry)| entry.to_string() == *from) else { continue };
        let props = to.parse().map_err(|error| Failure::plain(format!("mapping {name}: {error}"), None))?;
        // Another entry of this run has changed the digest of all of them.
        let all = lines.pve.pci_mappings().await?;
        let gone = || Failure::plain(format!("the mapping {name} is gone"), Some("`pvemig resume` looks again".into()));
        let mapping = all.iter().find(|mapping| mapping.id == *name).ok_or_else(gone)?;
        lines.pve.set_pci_entry(mapping, old, &PciEntry(props), permit).await?;
    }
    Ok(())
}

impl FollowPassthrough {
    /// The lines and entries that have to change, or what is in the way.
    async fn wanted(
        &self,
        cx: &Estate,
        vm: &Vm,
        lines: &Lines,
        seen: &Seen<'_, Before>,
    ) -> Result<Result<Before, Vec<Problem>>, Failure> {
        let barred = |text: String, help: String| Ok(Err(vec![Problem::new(text, help)]));
        let Some(passed) = passed(seen.run)? else {
            let text = format!("which line of vm {} has which drive is not known: this run did not see it on", vm.vmid);
            return barred(
                text,
                format!("start it with its drives where they were, and begin anew; {}", mend(vm.vmid)),
            );
        };
        if passed.host != lines.at.node {
            let text = format!("vm {} is on {}, and its drives are in {}", vm.vmid, lines.at.node, passed.host);
            return barred(text, format!("bring it back: `qm migrate {} {}`", vm.vmid, passed.host));
        }
        let shown = match view(cx, &vm.cluster, &passed.host).await? {
            Host::Shown(shown) => shown,
            Host::Silent(why) => {
                let text = format!("where the drives are is not known: {} does not answer: {why}", passed.host);
                return barred(text, format!("see that `ssh` to {} works", passed.host));
            }
        };
        if passed.boot == shown.boot {
            // Nothing can have been moved, and vfio still keeps what the VM had.
            return Ok(if passed.was == lines.places() { Ok(Before::default()) } else { Err(vec![theirs(lines)]) });
        }
        let places = match self.followed(lines, &passed, &shown) {
            Ok(places) => places,
            Err(problems) => return Ok(Err(problems)),
        };
        let mut wanted = Before::default();
        let mut problems = Vec::new();
        let before = written(seen.run, seen.since)?;
        for line in &lines.all {
            let Some(to) = places.get(&line.key).filter(|to| **to != line.places) else { continue };
            // Only what is as this run saw it, or as it wrote it, is this run's to change.
            if passed.was.get(&line.key) != Some(&line.places) && !wrote(&before, line) {
                problems.push(changed(lines, line, &passed, to));
                continue;
            }
            match &line.mapping {
                None => {
                    let was = Was { old: line.value.to_string(), new: line.value.with_places(to).to_string() };
                    wanted.lines.insert(line.key.clone(), was);
                }
                Some((mapping, entry)) => match self.moved(lines, entry, to, &shown).await? {
                    Ok(new) => {
                        let was = Was { old: entry.to_string(), new: new.to_string() };
                        wanted.entries.insert(mapping.id.clone(), was);
                    }
                    Err(problem) => problems.push(problem),
                },
            }
        }
        Ok(if problems.is_empty() { Ok(wanted) } else { Err(problems) })
    }

    /// The places of each line with its drives where the host shows them.
    fn followed(
        &self,
        lines: &Lines,
        passed: &Passed,
        shown: &View,
    ) -> Result<BTreeMap<String, Vec<PciPlace>>, Vec<Problem>> {
        let (vmid, mut problems) = (lines.at.vmid, Vec::new());
        let mut places = lines.places();
        for (name, of) in &passed.drives {
            let found = shown.find(&self.plan, name);
            let address = match found.as_slice() {
                [drive] => pci_address(&drive.bus_path),
                _ => None,
            };
            let was = places.get_mut(&of.key).and_then(|all| all.get_mut(of.index));
            let text = match (address, was) {
                (Some(address), Some(was)) => match was.at(&address) {
                    Ok(new) => {
                        *was = new;
                        continue;
                    }
                    Err(_) => format!(
                        "{name} is at {address} of {}, and {} names a device without its function",
                        shown.host, of.key
                    ),
                },
                (None, _) => format!("{} shows {} drives that are {name}, and one is meant", shown.host, found.len()),
                (_, None) => format!("{} of vm {vmid}, which had {name}, is not there any more", of.key),
            };
            problems.push(Problem::new(text, mend(vmid)));
        }
        if problems.is_empty() { Ok(places) } else { Err(problems) }
    }

    /// A mapping's entry with other places. What Proxmox holds against the hardware at a start is held against it here.
    async fn moved(
        &self,
        lines: &Lines,
        entry: &PciEntry,
        to: &[PciPlace],
        shown: &View,
    ) -> Result<Result<PciEntry, Problem>, Failure> {
        let devices = lines.pve.pci_devices(&shown.host).await?;
        let first = to.first().map(PciPlace::address).unwrap_or_default();
        let Some(device) = devices.iter().find(|device| device.id == first) else {
            let text = format!("Proxmox shows nothing at {first} of {}, and its kernel a drive", shown.host);
            return Ok(Err(Problem::new(text, format!("`pvesh get /nodes/{}/hardware/pci`", shown.host))));
        };
        let is = device.vendor_device();
        if is.as_deref() != entry.id() {
            let is = is.unwrap_or_else(|| "without an id".into());
            let text =
                format!("{first} of {} is {is}, and the mapping says {}", shown.host, entry.id().unwrap_or("nothing"));
            return Ok(Err(Problem::new(text, mend(lines.at.vmid))));
        }
        let mut props = entry.0.clone().with("path", places_text(to));
        if let (Some(_), Some(group)) = (entry.iommugroup(), device.iommugroup) {
            props = props.with("iommugroup", group.to_string());
        }
        Ok(Ok(PciEntry(props)))
    }
}

/// It is as this run has written it: the drives were moved once more since.
fn wrote(all: &[Before], line: &Line) -> bool {
    let is = |before: &Before| match &line.mapping {
        None => before.lines.get(&line.key).is_some_and(|was| was.new == line.value.to_string()),
        Some((mapping, entry)) => before.entries.get(&mapping.id).is_some_and(|was| was.new == entry.to_string()),
    };
    all.iter().any(is)
}

fn theirs(lines: &Lines) -> Problem {
    let vmid = lines.at.vmid;
    let text = format!("the hostpci lines of vm {vmid} are others than when it went off, and nothing was moved since");
    Problem::new(text, format!("somebody else is at work on it: {}", mend(vmid)))
}

fn changed(lines: &Lines, line: &Line, passed: &Passed, to: &[PciPlace]) -> Problem {
    let was = passed.was.get(&line.key).map(|places| places_text(places)).unwrap_or_else(|| "not there".into());
    let text = format!(
        "{} of vm {} was {was} when it went off, is {} now, and would have to be {}: somebody else has changed it",
        line.key,
        lines.at.vmid,
        places_text(&line.places),
        places_text(to)
    );
    Problem::new(text, format!("set it to {} by hand, or to {was}; {}", places_text(to), mend(lines.at.vmid)))
}
