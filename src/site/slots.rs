//! The slots of a machine, and the second way to see whether it is on.

use std::collections::BTreeMap;

use crate::base::drives::{Port, Slot};

use super::fields::{Fields, Item};
use super::secret::{SecretError, run};
use super::values::{plain_name, transpose};

/// How a person or a program sees whether a machine is on, where its own API does not answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OutOfBand {
    /// A command tells it: that of a management controller, of a switched socket.
    Power(PowerCommand),
    /// Somebody stands before it: where its screen and keyboard are.
    AtTheMachine(String),
}

/// A command that tells whether a machine is on. It changes nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PowerCommand {
    /// The program and its arguments.
    pub command: Vec<String>,
    /// It is on where this is in the output.
    pub on: String,
    /// It is off where this is in the output.
    pub off: String,
}

/// Whether a machine is on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Power {
    /// It is.
    On,
    /// It is not.
    Off,
    /// The output has both words or neither. How many bytes it had.
    Unclear(usize),
}

impl PowerCommand {
    /// Runs it.
    ///
    /// # Errors
    /// It cannot be run, or ended with an error: then nothing is known.
    pub async fn ask(&self) -> Result<Power, SecretError> {
        let program = self.command.first().map_or("", String::as_str);
        let output = run(program, self.command.get(1..).unwrap_or_default()).await?;
        Ok(self.read(&String::from_utf8_lossy(&output)))
    }

    /// What an output says.
    pub fn read(&self, output: &str) -> Power {
        match (output.contains(&self.on), output.contains(&self.off)) {
            (true, false) => Power::On,
            (false, true) => Power::Off,
            _ => Power::Unclear(output.len()),
        }
    }
}

/// `slots:`, in the order of the file.
pub(super) fn slots(fields: &Fields<'_>) -> Option<Vec<Slot>> {
    let Some(all) = fields.get("slots") else { return Some(Vec::new()) };
    let entries = all.entries();
    if entries.is_empty() && all.value().is_object() {
        all.problem("`slots` has no slot", "add a line for each, `M2_1: { position: \"under the battery\" }`");
    }
    let mut ports: BTreeMap<Port, &str> = BTreeMap::new();
    let mut out = Vec::new();
    let total = entries.len();
    for (name, item) in entries {
        let named = plain_name(&item, name);
        let fields = item.fields(&["position", "port"]);
        let help = "say where a person finds it, `position: \"under the battery\"`";
        let position = fields.need("position", help).and_then(|item| item.text());
        let port = transpose(fields.get("port").map(|item| {
            let help = "write the PCI address before the drive's own in its bus path (`talosctl get disks -o yaml` shows it), \
                        or leave it out: it is learned from the drive that is in the slot";
            let port: Port = item.parse(help)?;
            if let Some(other) = ports.insert(port.clone(), name) {
                item.problem(format!("`{name}` and `{other}` have the same port"), "correct one of them");
                return None;
            }
            Some(port)
        }));
        if let (Some(name), Some(position), Some(port)) = (named, position, port) {
            out.push(Slot { name, position: position.to_owned(), port });
        }
    }
    (total > 0 && out.len() == total).then_some(out)
}

/// `out_of_band:`.
pub(super) fn out_of_band(item: &Item<'_>) -> Option<OutOfBand> {
    const HELP: &str = "write `power: { command: [PROGRAM, ARGUMENT], on: TEXT, off: TEXT }`, or `at_the_machine: TEXT` with \
                        the place of its screen and keyboard";
    let fields = item.fields(&["power", "at_the_machine"]);
    match (fields.get("power"), fields.get("at_the_machine")) {
        (Some(power), None) => power_command(&power).map(OutOfBand::Power),
        (None, Some(place)) => place.text().map(|place| OutOfBand::AtTheMachine(place.to_owned())),
        (Some(_), Some(place)) => {
            place.problem("`power` and `at_the_machine` exclude each other", "keep `power`: it needs nobody there");
            None
        }
        (None, None) => {
            if fields.is_mapping() {
                fields.problem("`out_of_band` has neither `power` nor `at_the_machine`", HELP);
            }
            None
        }
    }
}

fn power_command(item: &Item<'_>) -> Option<PowerCommand> {
    let fields = item.fields(&["command", "on", "off"]);
    let help = "add a command that prints whether the machine is on, `command: [ipmitool, -H, nuc-bmc, chassis, power, status]`";
    let command = fields.need("command", help).and_then(|item| item.texts());
    let on = fields.need("on", "add what it prints when the machine is on, `on: is on`").and_then(|item| item.text());
    let off = fields.need("off", "add what it prints when the machine is off, `off: is off`")?;
    let (command, on, text) = (command?, on?, off.text()?);
    if on.contains(text) || text.contains(on) {
        let help = "write more of what it prints, so that neither is a part of the other: `is on`, `is off`";
        off.problem(format!("`{on}` and `{text}` cannot be told apart in an output"), help);
        return None;
    }
    Some(PowerCommand { command, on: on.to_owned(), off: text.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::super::Site;
    use super::super::tests::{problems, with};
    use super::*;

    /// The example, where a node of Talos has this as well.
    fn node(lines: &str) -> String {
        with("node_name: talos-49 }", &format!("node_name: talos-49, {lines} }}"))
    }

    #[test]
    fn what_is_wrong_with_slots_and_power_is_said_with_its_place() {
        let port = "is not a PCI port like `0000:00:1d.0`";
        let cases = [
            ("slots: {}", ".slots: `slots` has no slot".to_owned()),
            ("slots: []", ".slots: `slots` is to be a mapping, not a list".to_owned()),
            (
                "slots: { M2_1: }",
                ".slots.M2_1: `position` is missing in `talos.homelab.nodes.talos-mac.slots.M2_1`".to_owned(),
            ),
            ("slots: { M2_1: { position: \"\" } }", ".slots.M2_1.position: `position` is empty".to_owned()),
            ("slots: { \"M 1\": { position: a } }", ".slots.M 1: `M 1` is not a name".to_owned()),
            ("slots: { M2_1: { position: a, prot: x } }", ".slots.M2_1.prot: unknown key `prot`".to_owned()),
            ("slots: { M2_1: { position: a, port: 1b.0 } }", format!(".slots.M2_1.port: `1b.0` {port}")),
            (
                "slots: { A: { position: a, port: \"0000:00:1b.0\" }, B: { position: b, port: \"0000:00:1B.0\" } }",
                ".slots.B.port: `B` and `A` have the same port".to_owned(),
            ),
            ("out_of_band: { }", ".out_of_band: `out_of_band` has neither `power` nor `at_the_machine`".to_owned()),
            ("out_of_band: ipmi", ".out_of_band: `out_of_band` is to be a mapping, not a text".to_owned()),
            (
                "out_of_band: { at_the_machine: 7 }",
                ".out_of_band.at_the_machine: `at_the_machine` is to be a text, not `7`".to_owned(),
            ),
            (
                "out_of_band: { at_the_machine: shelf, power: { command: [a], on: b, off: c } }",
                ".out_of_band.at_the_machine: `power` and `at_the_machine` exclude each other".to_owned(),
            ),
            (
                "out_of_band: { power: { on: b, off: c } }",
                ".out_of_band.power: `command` is missing in `talos.homelab.nodes.talos-mac.out_of_band.power`"
                    .to_owned(),
            ),
            (
                "out_of_band: { power: { command: [], on: b, off: c } }",
                ".out_of_band.power.command: `command` is an empty list".to_owned(),
            ),
            (
                "out_of_band: { power: { command: [a], off: c } }",
                ".out_of_band.power: `on` is missing in `talos.homelab.nodes.talos-mac.out_of_band.power`".to_owned(),
            ),
            (
                "out_of_band: { power: { command: [a], on: b } }",
                ".out_of_band.power: `off` is missing in `talos.homelab.nodes.talos-mac.out_of_band.power`".to_owned(),
            ),
            (
                "out_of_band: { power: { command: [a], on: power, off: power off } }",
                ".out_of_band.power.off: `power` and `power off` cannot be told apart in an output".to_owned(),
            ),
        ];
        assert_eq!(cases.len(), 17);
        for (lines, expected) in cases {
            assert_eq!(problems(&node(lines)), [format!("talos.homelab.nodes.talos-mac{expected}")], "{lines}");
        }
        // A VM's drives are in its host, and Proxmox knows whether it is on.
        let vm = "vm: { proxmox: home, vmid: 223 } }";
        let text = with(
            vm,
            "vm: { proxmox: home, vmid: 223 }, slots: { A: { position: a } }, out_of_band: { at_the_machine: b } }",
        );
        assert_eq!(
            problems(&text),
            [
                "talos.homelab.nodes.talos-vm.slots: `talos-vm` is a VM: its drives are in the slots of its host",
                "talos.homelab.nodes.talos-vm.out_of_band: `talos-vm` is a VM: Proxmox tells whether it is on",
            ]
        );
        let text = with("still-fawn: {}", "still-fawn: { slots: { A: { position: } } }");
        assert_eq!(
            problems(&text),
            [
                "proxmox.home.hosts.still-fawn.slots.A.position: `position` in `proxmox.home.hosts.still-fawn.slots.A` has no value"
            ]
        );
    }

    #[test]
    fn slots_are_in_the_order_of_the_file() {
        let text = include_str!("../../fixtures/site/slots.yaml");
        let site = Site::parse(text, std::path::Path::new("/etc/pvemig/site.yaml"), None).unwrap();
        let nuc = site.talos_node("talos-nuc").unwrap().1;
        let shown: Vec<String> = nuc
            .slots
            .iter()
            .map(|slot| format!("{} {}", slot.name, slot.port.as_ref().map_or("-", Port::as_str)))
            .collect();
        assert_eq!(shown, ["M2_3 -", "M2_1 -", "M2_2 0000:00:1b.0"]);
        assert_eq!(nuc.slots[1].position, "beside the processor, under the heat sink");
        let Some(OutOfBand::Power(power)) = &nuc.out_of_band else { panic!() };
        assert_eq!((power.command.len(), power.read("Chassis Power is on\n")), (6, Power::On));
        let mac = site.talos_node("talos-mac").unwrap().1;
        assert!(matches!(&mac.out_of_band, Some(OutOfBand::AtTheMachine(place)) if place.contains("shelf")));
        let vm = site.talos_node("talos-vm").unwrap().1;
        assert_eq!((vm.slots.len(), &vm.out_of_band), (0, &None));
        assert_eq!(site.proxmox["home"].hosts["still-fawn"].slots.len(), 1);
    }

    #[tokio::test]
    async fn a_power_command_is_believed_only_where_it_is_clear() {
        let of = |script: &str| PowerCommand {
            command: ["sh", "-c", script].map(str::to_owned).into(),
            on: "is on".into(),
            off: "is off".into(),
        };
        let cases = [
            ("echo Chassis Power is on", Power::On),
            ("echo Chassis Power is off; echo not this >&2", Power::Off),
            ("echo is on; echo is off", Power::Unclear(13)),
            ("true", Power::Unclear(0)),
            ("printf '\\377 is off'", Power::Off),
        ];
        assert_eq!(cases.len(), 5);
        for (script, expected) in cases {
            assert_eq!(of(script).ask().await.unwrap(), expected, "{script}");
        }
        // Whatever it printed before it failed.
        assert!(matches!(of("echo is off; exit 1").ask().await, Err(SecretError::Failed { .. })));
        let none = PowerCommand { command: vec!["/nonexistent/ipmitool".into()], ..of("") };
        assert!(matches!(none.ask().await, Err(SecretError::NotStarted { .. })));
    }
}
