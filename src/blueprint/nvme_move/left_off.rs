//! Who has the machine off: a run that is open, or one that is over and has left it so.

use crate::base::check::Problem;
use crate::base::fault::Failure;
use crate::base::names::StepKey;
use crate::blueprint::machine::Machine;
use crate::blueprint::retired::fate;
use crate::engine::state::{Phase, Stage};
use crate::engine::step::RunInfo;
use crate::engine::store::{Ids, RunRead, Store};
use crate::estate::Estate;

use super::on;
use super::s04_in_its_host::host_with_slots;

/// A run that has the machine off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LeftOff {
    /// In what it is told.
    text: String,
    /// What goes on with it, or how it is begun anew.
    help: String,
    /// It can still go on.
    open: bool,
}

/// The newest other run of this site that has come to switch this machine off, where it has it off still by its journal.
///
/// # Errors
/// The runs cannot be listed.
pub(super) fn left_off(cx: &Estate, machine: &Machine, run: &RunInfo) -> Result<Option<LeftOff>, Failure> {
    let dir = cx.journals();
    let (Some(root), Some(site)) = (dir.parent(), dir.file_name().and_then(|name| name.to_str())) else {
        return Ok(None);
    };
    // What is damaged says nothing of machines; `pvemig status` and `survey` name it.
    let (runs, _) = Store::at(root, site, Ids::Random)
        .every_run()
        .map_err(|error| Failure::plain(format!("the runs of this site cannot be listed: {error}"), None))?;
    let key = StepKey::new(on::SHUTDOWN, None);
    let comes_to = |other: &&RunRead| {
        let planned = other.state.opened.plan.iter().find(|planned| planned.key == key);
        let name = planned.and_then(|planned| planned.step.pointer("/machine/name")?.as_str());
        name == Some(machine.name.as_str()) && other.state.stage(&key) != Stage::Pending
    };
    let Some(last) = runs.iter().rev().filter(|other| other.id != run.id).find(comes_to) else { return Ok(None) };
    let holds = fate(&last.state).held.iter().any(|(name, _)| *name == machine.name);
    Ok(holds.then(|| told(cx, machine, last, run)))
}

fn told(cx: &Estate, machine: &Machine, other: &RunRead, run: &RunInfo) -> LeftOff {
    let (name, id) = (&machine.name, &other.id);
    let open = matches!(other.state.phase, Phase::Forward | Phase::Undoing | Phase::Stuck);
    let help = match (open, &machine.vm) {
        (true, _) if run.at_work.as_ref().is_some_and(|(of, _)| of == id) => {
            "`pvemig status` shows how far it is".to_owned()
        }
        (true, _) if other.state.phase == Phase::Forward => format!("`pvemig resume {id}` goes on with it"),
        (true, _) => format!("`pvemig undo {id}` goes on with its way back"),
        // Proxmox hands on what is at an address, whatever that is by now.
        (false, Some(vm)) => format!(
            "put each drive where the hostpci lines of vm {0} have it (`qm config {0}`; `pvemig survey --hardware {1}` shows what is \
             where), then `qm start {0}`; a run takes over what is still held",
            vm.vmid,
            host_with_slots(cx, machine).unwrap_or("HOST")
        ),
        (false, None) => {
            format!(
                "where it is off, see that its drives are where they belong, then switch {name} on; a run takes over what is still held"
            )
        }
    };
    // Whether somebody has switched it on since, no journal tells.
    let text = if open {
        format!("{name} is held off by run {id}, which is open")
    } else {
        format!("{name} does not answer, and by its journal run {id}, which is over, has left it off")
    };
    LeftOff { text, help, open }
}

impl LeftOff {
    /// Of a machine that does not answer.
    pub(super) fn problem(&self) -> Problem {
        Problem::new(self.text.clone(), self.help.clone())
    }

    /// What goes on with an open run: its drives are not to be taken for anybody's plan meanwhile.
    pub(super) fn goes_on(&self) -> Option<String> {
        self.open.then(|| format!("{}: {}", self.text, self.help))
    }
}
