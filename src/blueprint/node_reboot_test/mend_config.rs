//! 03 where the machine configuration lacks something: set-merged, applied without a reboot, and put back byte for byte.

use crate::base::check::{Change, Check, Problem};
use crate::base::fault::Failure;
use crate::base::permit::Permit;
use crate::blueprint::machine::Machine;
use crate::estate::Estate;
use crate::talos::patch::{Patch, Patched, patch};
use crate::talos::{ApplyMode, KeptConfig, MachineConfig, Talos, Which};

use super::repair::patches;

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
    let config = read(machine, &talos).await?;
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
    let now = read(machine, &*machine.open(cx).await?).await?;
    if kept.is(&now) {
        return Ok(Check::done().note(format!("modules that {name} has loaded stay loaded until its next boot")));
    }
    let Some(stored) = stored else {
        return Ok(Check::done().note(format!("this run has not written to the configuration of {name}")));
    };
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
    let now = read(machine, &talos).await?;
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

async fn read(machine: &Machine, talos: &Talos) -> Result<MachineConfig, Failure> {
    let config = talos.machine_config(Which::Active).await?;
    config.ok_or_else(|| Failure::plain(format!("{} has no machine configuration", machine.name), None))
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
    if read(machine, talos).await?.version != seen.version {
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
