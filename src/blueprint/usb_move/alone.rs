//! One step from flags alone, for a site that has no migration for it.

use std::cell::RefCell;

use crate::blueprint::{BoxedStep, Given};
use crate::site::{Node, Site};

use super::device::{Attach, Device, Vm};
use super::params::{KubeNode, Label, device_named, node_named};
use super::{
    AddUsb, CheckHostHardware, CheckVmHardware, DrainNode, LabelNode, RebootVm, RemoveLabel, RemoveUsb, UncordonNode,
    WaitForVm,
};

/// Builds the step.
///
/// # Errors
/// Everything that is missing or wrong, a line each.
pub(super) fn step(site: &Site, id: &str, given: &Given) -> Result<BoxedStep, Vec<String>> {
    let read = Read { site, given, problems: RefCell::default() };
    let built = read.step(id);
    let problems = read.problems.into_inner();
    built.filter(|_| problems.is_empty()).ok_or(problems)
}

struct Read<'a> {
    site: &'a Site,
    given: &'a Given,
    problems: RefCell<Vec<String>>,
}

impl Read<'_> {
    fn step(&self, id: &str) -> Option<BoxedStep> {
        Some(match id {
            "01-remove-usb" => {
                let (at, device) = (self.at("--vmid"), self.device());
                Box::new(RemoveUsb { vm: at?.0, device: device? })
            }
            "02-remove-label" => {
                let (at, key) = (self.at("--node"), self.need("--label", self.given.label.as_deref()));
                Box::new(RemoveLabel { node: at?.1, key: Some(key?.to_owned()) })
            }
            "03-check-host-hardware" => {
                let (at, device) = (self.at("--vmid"), self.device());
                let vm = at?.0;
                Box::new(CheckHostHardware { source: self.source(&vm)?, vm, device: device? })
            }
            "04-add-usb" => {
                let (at, device, attach) = (self.at("--vmid"), self.device(), self.attach());
                let vm = at?.0;
                Box::new(AddUsb { source: self.source(&vm)?, vm, device: device?, attach: attach? })
            }
            "04a-drain-node" => {
                let (vm, node) = self.at("--vmid or --node")?;
                Box::new(DrainNode { vm, node, drain: true })
            }
            "05-reboot-vm" => {
                let (at, device, attach) = (self.at("--vmid"), self.device(), self.attach());
                Box::new(RebootVm { vm: at?.0, device: device?, attach: attach?, force_off: false })
            }
            "06-wait-for-vm" => {
                let (vm, node) = self.at("--vmid or --node")?;
                Box::new(WaitForVm { vm, node })
            }
            "06a-uncordon-node" => Box::new(UncordonNode { node: self.at("--node")?.1 }),
            "07-check-vm-hardware" => {
                let (at, device) = (self.at("--vmid"), self.device());
                Box::new(CheckVmHardware { vm: at?.0, device: device?, paths: Vec::new() })
            }
            "09-label-node" => {
                let (at, label) = (self.at("--node"), self.label());
                Box::new(LabelNode { node: at?.1, label: Some(label?) })
            }
            _ => return self.problem("it needs more than flags can say: a migration in the site file".into()),
        })
    }

    fn problem<T>(&self, text: String) -> Option<T> {
        self.problems.borrow_mut().push(text);
        None
    }

    fn need<'g>(&self, flag: &str, given: Option<&'g str>) -> Option<&'g str> {
        given.or_else(|| self.problem(format!("{flag} is missing")))
    }

    /// The node of the site that `--vmid` or `--node` means; both must mean the same.
    fn at(&self, flags: &str) -> Option<(Vm, KubeNode)> {
        if self.given.vmid.is_none() && self.given.node.is_none() {
            return self.problem(format!("{flags} is missing"));
        }
        let fits = |n: &Node| {
            self.given.vmid.is_none_or(|vmid| n.vmid == vmid)
                && self.given.node.as_ref().is_none_or(|name| n.node_name == *name)
        };
        let vmid = self.given.vmid.map(|vmid| format!("--vmid {vmid}"));
        let asked: Vec<_> = vmid.into_iter().chain(self.given.node.as_ref().map(|n| format!("--node {n}"))).collect();
        self.one(&asked.join(" "), fits)
    }

    /// The VM that had the device: `--from`, else nobody is known who had it.
    fn source(&self, vm: &Vm) -> Option<Vm> {
        match self.given.from {
            None => Some(vm.clone()),
            Some(from) => Some(self.one(&format!("--from {from}"), |n| n.vmid == from && n.proxmox == vm.cluster)?.0),
        }
    }

    fn one(&self, asked: &str, fits: impl Fn(&Node) -> bool) -> Option<(Vm, KubeNode)> {
        let found: Vec<&String> = self.site.nodes.iter().filter(|(_, n)| fits(n)).map(|(name, _)| name).collect();
        match found.as_slice() {
            [name] => node_named(self.site, (*name).clone()),
            [] => {
                let known = |n: &Node| format!("{} ({})", n.vmid, n.node_name);
                let known: Vec<_> = self.site.nodes.values().map(known).collect();
                self.problem(format!("no node of the site is {asked}; there is {}", known.join(", ")))
            }
            _ => self.problem(format!("several nodes of the site are {asked}")),
        }
    }

    fn device(&self) -> Option<Device> {
        let name = self.need("--device", self.given.device.as_deref())?;
        device_named(self.site, name.to_owned()).or_else(|| {
            let known: Vec<_> = self.site.devices.keys().map(String::as_str).collect();
            self.problem(format!("the site has no device {name}; there is {}", known.join(", ")))
        })
    }

    fn attach(&self) -> Option<Attach> {
        match self.need("--attach", self.given.attach.as_deref())? {
            "id" => Some(Attach::Id),
            "port" => Some(Attach::Port),
            "mapping" => Some(Attach::Mapping),
            other => self.problem(format!("--attach is id, port or mapping, not {other}")),
        }
    }

    fn label(&self) -> Option<Label> {
        let label = self.need("--label", self.given.label.as_deref())?;
        match label.split_once('=') {
            Some((key, value)) => Some(Label { key: key.to_owned(), value: value.to_owned() }),
            None => self.problem(format!("--label is KEY=VALUE here, not {label}")),
        }
    }
}
