//! Whether a machine is off, by two ways that do not hang on each other: Talos is silent, and something that sees its
//! power says so. What is silent alone may be cut off, and run on; nobody puts a hand into that.

use std::sync::Arc;

use crate::base::fault::Failure;
use crate::blueprint::machine::Machine;
use crate::estate::Estate;
use crate::site::{OutOfBand, Power};
use crate::talos::kind::{self, Stage};
use crate::talos::{Error, Talos};

/// How a machine stands.
pub enum Off {
    /// It answers as a node of the cluster, in this stage.
    On(Arc<Talos>, Stage),
    /// It says itself that it goes down, or is not up yet.
    Between(String),
    /// Somebody else answers at its address: it waits for a configuration, or has booted another installation.
    Other(String),
    /// It is off, and both ways say so.
    Off(String),
    /// It does not answer, and the second way says that it is on.
    Deaf(String),
    /// It does not answer, and nothing says that it is off.
    Silent(String),
}

/// What the second way says of its power.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Second {
    /// It is on, and who says so.
    On(String),
    /// It is off, and who says so.
    Off(String),
    /// It does not tell, and why.
    Unknown(String),
}

/// Asks Talos, and where that is silent the second way.
///
/// # Errors
/// What keeps Talos from answering though it is there, and what keeps Proxmox from telling.
pub async fn two_ways(cx: &Estate, machine: &Machine) -> Result<Off, Failure> {
    let talos = machine.open(cx).await?;
    let silent = match talos.single(&kind::MACHINE_STATUS).await {
        Ok(status) => {
            let stage = status.map(|status| status.spec.stage).unwrap_or_default();
            return Ok(match stage {
                Stage::Rebooting | Stage::ShuttingDown | Stage::Resetting | Stage::Upgrading => {
                    Off::Between(format!("{} is going down", machine.name))
                }
                _ => Off::On(talos, stage),
            });
        }
        Err(error @ Error::UnknownIssuer { .. }) => return Ok(Off::Other(error.to_string())),
        Err(error @ (Error::Unreachable { .. } | Error::NoAnswer { .. })) => error.to_string(),
        // It says so itself, so it is not off.
        Err(error) if error.is_down() => return Ok(Off::Between(error.to_string())),
        Err(error) => return Err(error.into()),
    };
    Ok(both(&silent, second(cx, machine).await?))
}

/// What both say together.
fn both(silent: &str, second: Second) -> Off {
    match second {
        Second::Off(sign) => Off::Off(format!("Talos does not answer ({silent}), and {sign}")),
        Second::On(sign) => Off::Deaf(format!("{sign}, and Talos does not answer: {silent}")),
        Second::Unknown(why) => {
            Off::Silent(format!("Talos does not answer ({silent}), and nothing says yet that it is off: {why}"))
        }
    }
}

/// Asks what sees its power without Talos: Proxmox for a VM, else what the site file names as `out_of_band`. A command is
/// run anew each time.
///
/// # Errors
/// What keeps Proxmox from telling.
pub async fn second(cx: &Estate, machine: &Machine) -> Result<Second, Failure> {
    let name = &machine.name;
    if let Some(vm) = &machine.vm {
        let (_, _, status) = vm.status(cx).await?;
        return Ok(if status.is_running() {
            Second::On(format!("vm {} runs", vm.vmid))
        } else {
            Second::Off(format!("vm {} does not run", vm.vmid))
        });
    }
    Ok(match cx.site().talos_node(name).and_then(|(_, node)| node.out_of_band.as_ref()) {
        Some(OutOfBand::Power(power)) => {
            let program = power.command.first().map_or("", String::as_str);
            match power.ask().await {
                Ok(Power::On) => Second::On(format!("`{program}` says that it is on")),
                Ok(Power::Off) => Second::Off(format!("`{program}` says that it is off")),
                Ok(Power::Unclear(count)) => Second::Unknown(format!(
                    "of the {count} bytes that `{program}` prints for {name}, neither or both of `on` and `off` of the site file are \
                     a part"
                )),
                Err(error) => Second::Unknown(format!("the command of its `out_of_band` tells nothing: {error}")),
            }
        }
        Some(OutOfBand::AtTheMachine(_)) => by_kubelet(cx, machine).await,
        None => Second::Unknown(format!("the site file has no `out_of_band` of {name}")),
    })
}

/// Where somebody stands before it: by its kubelet, which the control plane hears no more. It is still for a person to see
/// that its screen is dark.
async fn by_kubelet(cx: &Estate, machine: &Machine) -> Second {
    match machine.node.find(cx).await {
        Ok(Ok(node)) => match &node.ready {
            // Nobody but the control plane writes that, once the kubelet is silent for longer than it bears.
            Some(ready) if ready.status == "Unknown" => Second::Off(format!("its kubelet is silent ({ready})")),
            Some(ready) => Second::Unknown(format!("its kubelet was heard lately ({ready})")),
            None => Second::Unknown(format!("node {} has no condition Ready", machine.node.name)),
        },
        Ok(Err(missing)) => Second::Unknown(missing.text),
        Err(failure) => Second::Unknown(failure.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn off_takes_both_ways() {
        let word = |second: Second| match both("no route", second) {
            Off::Off(text) => format!("off: {text}"),
            Off::Deaf(text) => format!("deaf: {text}"),
            Off::Silent(text) => format!("silent: {text}"),
            Off::On(..) | Off::Between(_) | Off::Other(_) => "up".to_owned(),
        };
        let cases = [
            (Second::Off("vm 9 does not run".into()), "off: Talos does not answer (no route), and vm 9 does not run"),
            (Second::On("vm 9 runs".into()), "deaf: vm 9 runs, and Talos does not answer: no route"),
            (
                Second::Unknown("nobody looks".into()),
                "silent: Talos does not answer (no route), and nothing says yet that it is off: nobody looks",
            ),
        ];
        assert_eq!(cases.len(), 3);
        for (second, expected) in cases {
            assert_eq!(word(second), expected);
        }
    }
}
