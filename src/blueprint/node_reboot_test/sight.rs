//! How a node stands against what it had booted before, and whether it may still go off.

use crate::base::check::{Check, Problem};
use crate::base::fault::Failure;
use crate::base::wait::show;
use crate::blueprint::machine::Machine;
use crate::blueprint::power::SHUTDOWN;
use crate::proxmox::VmStatus;
use crate::talos::Talos;

use super::s04_reboot::{BEGINS, Before};
use crate::blueprint::stand::goes_down;

/// How a node stands against what it had booted before.
pub(super) enum Sight {
    /// It is in the same boot, and stays there.
    There,
    /// It is in the same boot, and on its way down.
    Going,
    /// It is in this other boot.
    Gone(String),
    /// It does not answer: it may be off, on its way, or cut off.
    Silent(Failure),
}

/// How it stands.
///
/// # Errors
/// What keeps it from answering, but that it is down.
pub(super) async fn sight(talos: &Talos, since: &Before) -> Result<Sight, Failure> {
    let asked = match talos.this_boot().await {
        Ok(id) if id != since.boot.id => return Ok(Sight::Gone(id)),
        Ok(_) => goes_down(talos).await,
        Err(error) => Err(error),
    };
    match asked {
        Ok(true) => Ok(Sight::Going),
        Ok(false) => Ok(Sight::There),
        Err(error) if error.is_down() => Ok(Sight::Silent(error.into())),
        Err(error) => Err(error.into()),
    }
}

/// Waits until the node says that it has begun. Where it goes away before it says so, the check sees what came of it.
pub(super) async fn begun(talos: &Talos, actor: &str) -> Result<(), Failure> {
    match talos.sequence_began(actor, BEGINS).await {
        Err(error) if !error.is_down() => Err(error.into()),
        _ => Ok(()),
    }
}

/// The answer of a `back` for a node in a VM that still has its old process, and that does not answer (`why`): what is
/// known is said at once, and it is waited for only as long as something that this step sent, or may have sent (`told`),
/// may still take it off.
pub(super) fn deaf(machine: &Machine, vmid: u32, status: &VmStatus, told: bool, why: &Failure) -> Check<()> {
    let name = &machine.name;
    let stands = format!("{name} does not answer ({why}), and vm {vmid} still has the process that it had before");
    // QEMU's own word: CPUs that do not run bring no shutdown to its end.
    let word = status.qmpstatus.as_deref().filter(|word| !matches!(*word, "running" | "shutdown"));
    if let Some(word) = word {
        let help = format!("see its console; `qm resume {vmid}` or `qm stop {vmid}`, then undo again");
        return Check::blocked(vec![Problem::new(
            format!("{stands}, which is in state {word}: it goes off as little as on"),
            help,
        )]);
    }
    if !told {
        return Check::done().stays([format!(
            "{stands}: nothing that this run sent is under way there, so that stays; its console says more"
        )]);
    }
    Check::waiting(format!(
        "{stands}: this run told it to go down, or may have, which takes up to {}; its console says what keeps it, and `qm stop \
         {vmid}` ends it",
        show(SHUTDOWN)
    ))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::base::check::Answer;
    use crate::base::names::Dial;
    use crate::blueprint::node::KubeNode;

    #[test]
    fn a_vm_that_is_silent_in_its_old_process_is_waited_for_only_where_it_was_told_to_go() {
        let node = KubeNode { cluster: "k".into(), name: "n1".into() };
        let machine = Machine { cluster: "c".into(), name: "n1".into(), node, vm: None, dial: Dial::default() };
        let ask = |word: Option<&str>, told: bool| {
            let status = json!({"status": "running", "pid": 7, "qmpstatus": word});
            let status: VmStatus = serde_json::from_value(status).unwrap();
            deaf(&machine, 120, &status, told, &Failure::plain("no route", None))
        };
        let known = "n1 does not answer (no route), and vm 120 still has the process that it had before";
        for word in [None, Some("running"), Some("shutdown")] {
            let Answer::Waiting { reason, foreign: false } = ask(word, true).answer else { panic!() };
            assert!(
                reason.starts_with(known) && reason.contains("up to 5 min") && reason.contains("`qm stop 120`"),
                "{reason}"
            );
            let left = ask(word, false);
            assert!(left.is_done() && left.stays.len() == 1 && left.stays[0].starts_with(known), "{left:?}");
        }
        for word in ["paused", "io-error", "internal-error"] {
            let Answer::Blocked { problems } = ask(Some(word), true).answer else { panic!() };
            assert!(problems[0].text.contains(&format!("in state {word}")), "{problems:?}");
        }
    }
}
