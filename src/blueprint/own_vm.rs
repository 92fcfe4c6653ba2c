//! Whether the VM that is switched is the one that the node runs in: by the uuid of its firmware, which both tell.

use crate::base::check::Problem;
use crate::blueprint::machine::Machine;
use crate::proxmox::Pending;
use crate::talos::{Error, Talos, kind};

/// The uuid that the VM's process has.
pub fn of_vm(config: &Pending) -> Option<String> {
    let smbios = config.value("smbios1")?;
    known(smbios.split(',').find_map(|part| part.strip_prefix("uuid="))?)
}

/// The uuid of the machine that a node runs in, as its firmware tells it.
///
/// # Errors
/// What keeps it from answering.
pub async fn of_node(talos: &Talos) -> Result<Option<String>, Error> {
    let system = talos.single(&kind::SYSTEM_INFORMATION).await?;
    Ok(system.and_then(|system| known(&system.spec.uuid)))
}

/// A firmware without one says zeros.
fn known(uuid: &str) -> Option<String> {
    uuid.chars().any(|c| c != '0' && c != '-').then(|| uuid.to_owned())
}

/// It does not run: then it may be another one, or there is nothing to reboot.
pub fn off(name: &str, vmid: u32) -> Problem {
    let help = format!("`qm start {vmid}`, or correct `vm` in the site file");
    Problem::new(format!("vm {vmid}, which is to be {name}, does not run"), help)
}

/// Why the VM with this number is not to be switched for the node. What is not known is no yes.
pub fn amiss(machine: &Machine, vmid: u32, runs: bool, vm: Option<&str>, own: Option<&str>) -> Vec<Problem> {
    let (name, mut problems) = (&machine.name, Vec::new());
    if !runs {
        problems.push(off(name, vmid));
    }
    let help = "correct `vm` of the node in the site file";
    problems.extend(match (vm, own) {
        (Some(vm), Some(own)) if vm.eq_ignore_ascii_case(own) => None,
        (Some(vm), Some(own)) => {
            Some(Problem::new(format!("vm {vmid} has the uuid {vm}, and {name} runs in a machine with {own}"), help))
        }
        (None, _) => Some(Problem::new(
            format!("vm {vmid} has no uuid in its config (smbios1): whether {name} runs in it is not known"),
            match own {
                Some(own) => {
                    format!("where it is the right one: `qm set {vmid} --smbios1 uuid={own}`, then stop and start it")
                }
                None => format!("`qm set {vmid} --smbios1 uuid=$(uuidgen)`, then stop and start it"),
            },
        )),
        (Some(_), None) => Some(Problem::new(
            format!("{name} tells no uuid of its machine: whether it runs in vm {vmid} is not known"),
            format!("see {} and `qm config {vmid}`", machine.talosctl("get systeminformation")),
        )),
    });
    problems
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::base::names::Dial;
    use crate::blueprint::node::KubeNode;

    #[test]
    fn only_the_same_uuid_on_both_sides_will_do() {
        let node = KubeNode { cluster: "k".into(), name: "n1".into() };
        let machine = Machine { cluster: "c".into(), name: "n1".into(), node, vm: None, dial: Dial::default() };
        let text = |runs, vm, own| -> Vec<String> {
            let problems = amiss(&machine, 120, runs, vm, own);
            assert!(problems.iter().all(|problem| !problem.help.is_empty()));
            problems.into_iter().map(|problem| problem.text).collect()
        };
        assert_eq!(text(true, Some("ab-1"), Some("AB-1")), Vec::<String>::new());
        let cases = [
            (false, Some("a"), Some("a"), "does not run"),
            (true, Some("a"), Some("b"), "vm 120 has the uuid a, and n1 runs in a machine with b"),
            (true, None, Some("b"), "vm 120 has no uuid in its config"),
            (true, None, None, "vm 120 has no uuid in its config"),
            (true, Some("a"), None, "n1 tells no uuid"),
        ];
        assert_eq!(cases.len(), 5);
        for (runs, vm, own, part) in cases {
            let said = text(runs, vm, own);
            assert!(said.len() == 1 && said[0].contains(part), "{part}: {said:?}");
        }
        assert_eq!(text(false, Some("a"), Some("b")).len(), 2);
    }

    #[test]
    fn the_running_process_counts_and_zeros_are_no_uuid() {
        let config = |value: Option<&str>, pending: Option<&str>| {
            let row = json!({"key": "smbios1", "value": value, "pending": pending});
            of_vm(&Pending::of(vec![serde_json::from_value(row).unwrap()], String::new()))
        };
        assert_eq!(config(Some("base64=1,uuid=a1"), Some("uuid=b2")).as_deref(), Some("a1"));
        assert_eq!(config(None, Some("uuid=b2")), None);
        assert_eq!(config(Some("uuid=00000000-0000-0000-0000-000000000000"), None), None);
    }
}
