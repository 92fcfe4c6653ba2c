//! 03 where the machine configuration lacks something: set-merged, applied without a reboot, and put back byte for byte.

use crate::base::check::{Change, Check, Problem};
use crate::base::fault::Failure;
use crate::base::permit::Permit;
use crate::blueprint::machine::Machine;
use crate::estate::Estate;
use crate::talos::patch::{Patch, Patched, patch};
use crate::talos::{ApplyMode, KeptConfig, MachineConfig, Talos, Which};

use super::repair::patches;

/// The configurations of a node.
#[derive(Debug, Clone)]
pub(super) struct Configs {
    /// The one in effect.
    pub(super) active: MachineConfig,
    /// The one on its disk, which it boots with; None: there is none.
    pub(super) persistent: Option<MachineConfig>,
}

impl Configs {
    /// Another configuration than the one in effect waits on the disk: whatever is applied would take its place, or make
    /// for good what is on trial.
    pub(super) fn waits(&self, name: &str) -> Option<Problem> {
        let text = match &self.persistent {
            Some(persistent) if persistent.expose() == self.active.expose() => return None,
            Some(_) => format!(
                "the machine configuration in effect on {name} is not the one on its disk: a staged or tried \
                 configuration waits"
            ),
            None => {
                format!("{name} has no machine configuration on its disk: the one in effect goes with its next boot")
            }
        };
        let help = format!(
            "`talosctl -n {name} get machineconfig v1alpha1 -o yaml` shows the one in effect, `get machineconfig \
             persistent` the other (secrets and all); one on trial goes by itself, else `talosctl -n {name} apply-config \
             --mode no-reboot -f FILE` with the right one settles it; then run again"
        );
        Some(Problem::new(text, help))
    }

    /// The one that there is.
    fn only(self, machine: &Machine) -> Result<MachineConfig, Failure> {
        match self.waits(&machine.name) {
            None => Ok(self.active),
            Some(problem) => Err(Failure::plain(problem.text, Some(problem.help))),
        }
    }
}

/// Reads them.
///
/// # Errors
/// What keeps the node from answering; one that waits for its first has none.
pub(super) async fn configs(machine: &Machine, talos: &Talos) -> Result<Configs, Failure> {
    let (active, persistent) =
        futures::try_join!(talos.machine_config(Which::Active), talos.machine_config(Which::Persistent))?;
    let active = active.ok_or_else(|| {
        let help = "it waits for its configuration: `talosctl apply-config --insecure`".to_owned();
        Failure::plain(format!("{} has no machine configuration", machine.name), Some(help))
    })?;
    Ok(Configs { active, persistent })
}

/// The run file with the configuration as it was; it holds the secrets of the cluster.
pub(super) const FORMER: &str = "machineconfig.yaml";

/// What would change, secrets masked.
///
/// # Errors
/// The configuration cannot be edited.
pub(super) fn changes(machine: &Machine, config: &MachineConfig, wanted: &[Patch]) -> Result<Vec<Change>, Failure> {
    let patched = merged(machine, config.expose(), wanted)?;
    let of = |change: Change| Change { what: format!("{}: {}", machine.name, change.what), ..change };
    Ok(patched.changes.into_iter().map(of).collect())
}

/// Writes it. What it was is kept before, once.
///
/// # Errors
/// The node does not take it, or somebody else has changed it meanwhile.
pub(super) async fn apply(cx: &Estate, machine: &Machine, kept: &KeptConfig, permit: &Permit) -> Result<(), Failure> {
    let talos = machine.open(cx).await?;
    let config = configs(machine, &talos).await?.only(machine)?;
    let patched = merged(machine, config.expose(), &patches())?;
    if patched.same {
        return Ok(());
    }
    if !kept.store(permit, &config)? {
        return Err(changed(machine));
    }
    write(machine, &talos, &config, &patched.text, permit).await
}

/// Whether the configuration is what it was.
///
/// # Errors
/// What keeps the node from answering.
pub(super) async fn back(
    cx: &Estate,
    machine: &Machine,
    kept: &KeptConfig,
    stored: Option<Vec<u8>>,
) -> Result<Check<()>, Failure> {
    let name = &machine.name;
    let Some(stored) = stored else {
        return Ok(Check::done().note(format!("this run has not written to the configuration of {name}")));
    };
    let both = configs(machine, &*machine.open(cx).await?).await?;
    if let Some(waits) = both.waits(name) {
        return Ok(Check::blocked(vec![waits]));
    }
    let now = both.active;
    if kept.is(&now) {
        return Ok(Check::done().note(format!("modules that {name} has loaded stay loaded until its next boot")));
    }
    let set = merged(machine, kept.restore(Some(stored))?.expose(), &patches())?;
    Ok(if now.expose() == set.text {
        let changes = set.changes.into_iter().map(|change| Change {
            symbol: change.symbol,
            what: format!("{name}: {}", change.what),
            from: change.to,
            to: change.from,
        });
        Check::todo(changes.collect(), ())
    } else {
        let lines: Vec<String> = set.changes.iter().map(ToString::to_string).collect();
        Check::blocked(vec![Problem::new(
            format!(
                "the machine configuration of {name} is neither what it was before this run nor what this run set ({}): \
                 somebody else has changed it since",
                lines.join("; ")
            ),
            format!(
                "what it was is in the run's file {}; set it by hand to one of the two, then undo again",
                kept.file
            ),
        )])
    })
}

/// Puts it back, byte for byte.
///
/// # Errors
/// The node does not take it.
pub(super) async fn undo(
    cx: &Estate,
    machine: &Machine,
    kept: &KeptConfig,
    stored: Option<Vec<u8>>,
    permit: &Permit,
) -> Result<(), Failure> {
    let talos = machine.open(cx).await?;
    let now = configs(machine, &talos).await?.only(machine)?;
    if kept.is(&now) {
        return Ok(());
    }
    let former = kept.restore(stored)?;
    write(machine, &talos, &now, former.expose(), permit).await
}

fn changed(machine: &Machine) -> Failure {
    let text = format!("somebody changed the machine configuration of {} just now", machine.name);
    Failure::plain(text, Some("`pvemig plan` shows what is to be done by now".into()))
}

/// Nothing that takes a reboot is written: the node says so before. There is no lock on a configuration; it is looked at
/// once more right before.
async fn write(
    machine: &Machine,
    talos: &Talos,
    seen: &MachineConfig,
    text: &str,
    permit: &Permit,
) -> Result<(), Failure> {
    let trial = talos.dry_run(text, ApplyMode::NoReboot).await?;
    if trial.reboots {
        let text = format!("{} would reboot for this configuration at once", machine.name);
        return Err(Failure::plain(text, Some("apply it by hand with `talosctl apply-config --mode staged`".into())));
    }
    if configs(machine, talos).await?.only(machine)?.version != seen.version {
        return Err(changed(machine));
    }
    let applied = talos.apply_config(permit, text, ApplyMode::NoReboot).await?;
    applied.warnings.iter().for_each(|warning| permit.progress(warning));
    Ok(())
}

fn merged(machine: &Machine, config: &str, wanted: &[Patch]) -> Result<Patched, Failure> {
    patch(config, wanted).map_err(|error| {
        let help = crate::base::fault::Fault::help(&error);
        Failure::plain(format!("{}: {error}", machine.name), help)
    })
}
