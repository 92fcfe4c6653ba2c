//! The machine configurations of a node: the one in effect and the one that waits on its disk. What one lacks is set-merged,
//! applied without a reboot, and put back byte for byte.

use crate::base::check::{Change, Check, Problem};
use crate::base::fault::Failure;
use crate::base::permit::Permit;
use crate::blueprint::machine::Machine;
use crate::estate::Estate;
use crate::talos::patch::{Patch, Patched, diff, patch};
use crate::talos::{Applied, ApplyMode, Error, KeptConfig, MachineConfig, Talos, Which};

/// The configurations of a node.
#[derive(Debug, Clone)]
pub struct Configs {
    /// The one in effect.
    pub active: MachineConfig,
    /// The one on its disk, which it boots with; None: there is none.
    pub persistent: Option<MachineConfig>,
}

impl Configs {
    /// Another configuration than the one in effect waits on the disk: whatever is applied would take its place, or make
    /// for good what is on trial.
    pub fn waits(&self, machine: &Machine) -> Option<Problem> {
        let name = &machine.name;
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
            "{} shows the one in effect, `get machineconfig persistent` the other (secrets and all); one on trial goes by \
             itself, else {} with the right one settles it; then run again",
            machine.talosctl("get machineconfig v1alpha1 -o yaml"),
            machine.talosctl("apply-config --mode no-reboot -f FILE")
        );
        Some(Problem::new(text, help))
    }

    /// What a boot would put into effect besides: a note with what differs, secrets masked; None: nothing. A problem where
    /// that is not wanted (`staged`: the site file says that it is; None: it cannot say so there), and where a boot would
    /// leave the node without any.
    ///
    /// Whoever staged a configuration waits for a moment of his own, and a run of tests has none to give: it cannot be
    /// taken back, and a node that comes up otherwise after it would say nothing about the reboot. So it is refused, as
    /// other people's changes are, unless the one who runs it says that these are his.
    pub fn with_a_boot(&self, machine: &Machine, staged: Option<bool>) -> Result<Option<String>, Problem> {
        let Some(waits) = self.waits(machine) else { return Ok(None) };
        if staged == Some(true) && self.persistent.is_some() {
            return Ok(self.staged(machine));
        }
        let text = format!("{}; a reboot would settle that", waits.text);
        let help = format!(
            "{}; or, where it is to come with the reboot, `staged: true` in the parameters of a new run (one that is open keeps \
             its plan)",
            waits.help
        );
        let may = staged.is_some() && self.persistent.is_some();
        Err(Problem::new(text, if may { help } else { waits.help }))
    }

    /// What differs on the disk from what is in effect, secrets masked.
    pub fn staged(&self, machine: &Machine) -> Option<String> {
        let persistent = self.persistent.as_ref().filter(|persistent| persistent.expose() != self.active.expose())?;
        let name = &machine.name;
        Some(match diff(self.active.expose(), persistent.expose()) {
            Ok(lines) => format!(
                "a boot of {name} puts the machine configuration on its disk into effect, which is not the one that is:\n\
                 {}",
                lines.trim_end()
            ),
            Err(error) => format!(
                "a boot of {name} puts the machine configuration on its disk into effect; what differs cannot be shown: \
                 {error}"
            ),
        })
    }

    /// The one that there is.
    fn only(self, machine: &Machine) -> Result<MachineConfig, Failure> {
        match self.waits(machine) {
            None => Ok(self.active),
            Some(problem) => Err(Failure::plain(problem.text, Some(problem.help))),
        }
    }
}

/// Reads them.
///
/// # Errors
/// What keeps the node from answering; one that waits for its first has none.
pub async fn configs(machine: &Machine, talos: &Talos) -> Result<Configs, Failure> {
    let (active, persistent) =
        futures::try_join!(talos.machine_config(Which::Active), talos.machine_config(Which::Persistent))?;
    let active = active.ok_or_else(|| {
        let help = "it waits for its configuration: `talosctl apply-config --insecure`".to_owned();
        Failure::plain(format!("{} has no machine configuration", machine.name), Some(help))
    })?;
    Ok(Configs { active, persistent })
}

/// The run file with the configuration as it was; it holds the secrets of the cluster.
pub const FORMER: &str = "machineconfig.yaml";

/// What would change, secrets masked.
///
/// # Errors
/// The configuration cannot be edited.
pub fn changes(machine: &Machine, config: &MachineConfig, wanted: &[Patch]) -> Result<Vec<Change>, Failure> {
    let patched = merged(machine, config.expose(), wanted)?;
    let of = |change: Change| Change { what: format!("{}: {}", machine.name, change.what), ..change };
    Ok(patched.changes.into_iter().map(of).collect())
}

/// Writes it. What it was is kept before, once.
///
/// # Errors
/// The node does not take it, or somebody else has changed it meanwhile.
pub async fn apply(
    cx: &Estate,
    machine: &Machine,
    kept: &KeptConfig,
    wanted: &[Patch],
    permit: &Permit,
) -> Result<(), Failure> {
    let talos = machine.open(cx).await?;
    let config = configs(machine, &talos).await?.only(machine)?;
    let patched = merged(machine, config.expose(), wanted)?;
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
pub async fn back(
    cx: &Estate,
    machine: &Machine,
    kept: &KeptConfig,
    stored: Option<Vec<u8>>,
    wanted: &[Patch],
) -> Result<Check<()>, Failure> {
    let name = &machine.name;
    let Some(stored) = stored else {
        return Ok(Check::done().note(format!("this run has not written to the configuration of {name}")));
    };
    let both = configs(machine, &*machine.open(cx).await?).await?;
    if let Some(waits) = both.waits(machine) {
        return Ok(Check::blocked(vec![waits]));
    }
    let now = both.active;
    if kept.is(&now) {
        return Ok(Check::done().stays([format!("modules that {name} has loaded stay loaded until its next boot")]));
    }
    let set = merged(machine, kept.restore(Some(stored))?.expose(), wanted)?;
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
pub async fn undo(
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

/// Right before a call that reboots a node by itself: nobody's configuration comes into effect by it.
///
/// # Errors
/// One waits, and what keeps the node from answering.
pub async fn none_waits(machine: &Machine, talos: &Talos) -> Result<(), Failure> {
    configs(machine, talos).await?.only(machine).map(drop)
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
    let trial = talos.dry_run(text, ApplyMode::NoReboot).await.map_err(|error| untaken(machine, error))?;
    if let Some(at_once) = would_reboot(machine, &trial) {
        return Err(at_once);
    }
    if configs(machine, talos).await?.only(machine)? != *seen {
        return Err(changed(machine));
    }
    let applied = talos.apply_config(permit, text, ApplyMode::NoReboot).await?;
    applied.warnings.iter().for_each(|warning| permit.progress(warning));
    Ok(())
}

/// A configuration that the node does not take as it is: up to 1.13 that is also what takes a reboot.
fn untaken(machine: &Machine, error: Error) -> Failure {
    if !matches!(error, Error::Invalid { .. }) {
        return error.into();
    }
    let help = format!(
        "nothing was written; what takes a reboot can be staged by hand: {}",
        machine.talosctl("apply-config --mode staged -f FILE")
    );
    Failure::plain(format!("{} does not take this configuration without a reboot: {error}", machine.name), Some(help))
}

/// What keeps a configuration from being written: the node says that it would reboot for it at once.
fn would_reboot(machine: &Machine, trial: &Applied) -> Option<Failure> {
    let text = format!("{} would reboot for this configuration at once, so nothing was written", machine.name);
    let help = format!("apply it by hand: {}", machine.talosctl("apply-config --mode staged -f FILE"));
    trial.reboots.then(|| Failure::plain(text, Some(help)))
}

/// With what it is to hold, all documents of it.
///
/// # Errors
/// The configuration cannot be edited.
pub fn merged(machine: &Machine, config: &str, wanted: &[Patch]) -> Result<Patched, Failure> {
    patch(config, wanted).map_err(|error| {
        let help = crate::base::fault::Fault::help(&error);
        Failure::plain(format!("{}: {error}", machine.name), help)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::names::Dial;
    use crate::blueprint::node::KubeNode;

    fn machine() -> Machine {
        let node = KubeNode { cluster: "k".into(), name: "n1".into() };
        let dial = Dial::to("10.0.0.1", None);
        Machine { cluster: "c".into(), name: "n1".into(), node, vm: None, dial }
    }

    #[test]
    fn a_node_that_would_reboot_at_once_is_not_written_to() {
        let trial = |reboots| Applied { reboots, details: String::new(), warnings: Vec::new() };
        assert!(would_reboot(&machine(), &trial(false)).is_none());
        let failure = would_reboot(&machine(), &trial(true)).unwrap();
        assert!(failure.to_string().contains("n1 would reboot") && failure.to_string().contains("nothing was written"));
        assert!(
            failure.fault().help().unwrap().contains("`talosctl -e 10.0.0.1 -n 10.0.0.1 apply-config --mode staged")
        );
        assert_eq!(failure.fault().effect(), crate::base::fault::Effect::None);
    }

    #[test]
    fn what_a_boot_puts_into_effect_is_shown_without_its_secrets_and_refused_unless_it_is_wanted() {
        const ACTIVE: &str = "version: v1alpha1\nmachine:\n  type: worker\n  token: aaaaaa.0123456789abcdef\n  sysctls:\n    \
                              a: \"1\"\ncluster:\n  controlPlane:\n    endpoint: https://x:6443\n";
        let config = |text: &str| MachineConfig::new("1", text);
        let both = |persistent: Option<&str>| Configs { active: config(ACTIVE), persistent: persistent.map(config) };
        for staged in [None, Some(false), Some(true)] {
            assert_eq!(both(Some(ACTIVE)).with_a_boot(&machine(), staged), Ok(None));
        }
        let other = ACTIVE.replace("a: \"1\"", "a: \"2\"").replace("aaaaaa.0123", "bbbbbb.0123");
        let waits = both(Some(&other));
        let problem = waits.with_a_boot(&machine(), None).unwrap_err();
        assert!(problem.text.contains("a reboot would settle that") && !problem.help.contains("staged"));
        let problem = waits.with_a_boot(&machine(), Some(false)).unwrap_err();
        assert!(problem.text.contains("a reboot would settle that") && problem.help.contains("`staged: true`"));
        let note = waits.with_a_boot(&machine(), Some(true)).unwrap().unwrap();
        assert_eq!(Some(&note), waits.staged(&machine()).as_ref());
        assert!(note.contains("-    a: \"1\"") && note.contains("+    a: \"2\""), "{note}");
        assert!(!note.contains("0123456789abcdef"), "{note}");
        // With nothing on its disk it would wait for a configuration: no wish makes that good.
        for staged in [Some(false), Some(true)] {
            let gone = both(None).with_a_boot(&machine(), staged).unwrap_err();
            assert!(gone.text.contains("no machine configuration on its disk") && !gone.help.contains("staged: true"));
        }
    }
}
