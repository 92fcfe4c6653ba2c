//! A node without a configuration: it waits for one, and where nothing is installed it installs.

use serde_json::Value;
use tonic::Status;

use super::config::Config;
use super::event::{Step, What};
use super::hardware;
use super::life::Due;
use super::node::{Disk, Going, Node, Run, Wiped};
use super::server::Server;
use crate::lab::World;
use crate::lab::agenda::Event;
use crate::talos::proto::machine::apply_configuration_request::Mode;
use crate::talos::proto::machine::{ApplyConfiguration, ApplyConfigurationRequest};

impl Server {
    /// Takes the first configuration of a node in maintenance (siderolabs/talos `internal/app/maintenance`; from 1.13 on
    /// machined's own way, which takes every mode).
    pub(super) fn first_config(
        &self,
        request: &ApplyConfigurationRequest,
        config: &Config,
        text: String,
        minor: u32,
    ) -> Result<ApplyConfiguration, Status> {
        let mode = Mode::try_from(request.mode).map_err(|_| Status::unknown("incorrect mode specified"))?;
        if minor < 13 && matches!(mode, Mode::NoReboot | Mode::Staged) {
            let text = format!("apply configuration --mode='{}' is not supported in maintenance mode", word(mode));
            return Err(Status::unimplemented(text));
        }
        let installed = self.look(|_, node, _| !node.slots.is_empty())?;
        if !installed && !config.names_a_disk() {
            return Err(Status::invalid_argument(
                "1 error occurred:\n\t* either install disk or diskSelector should be defined\n\n",
            ));
        }
        let said = |details: &str| ApplyConfiguration {
            metadata: None,
            warnings: Vec::new(),
            mode: mode.into(),
            mode_details: details.to_owned(),
        };
        if request.dry_run {
            let text = "Dry run summary:\nNode is running in maintenance mode and does not have a config yet.";
            return Ok(said(text));
        }
        self.shared.change(|w| w.talos_configured(&self.node, &text, !installed));
        Ok(said(""))
    }
}

fn word(mode: Mode) -> &'static str {
    match mode {
        Mode::Reboot => "reboot",
        Mode::Auto => "auto",
        Mode::NoReboot => "no-reboot",
        Mode::Staged => "staged",
        Mode::Try => "try",
    }
}

impl World {
    /// A node in maintenance has its configuration: it installs, or goes on with its boot.
    pub fn talos_configured(&mut self, name: &str, text: &str, installs: bool) {
        let (now, timing) = (self.now, self.talos.timing.clone());
        let Some(node) = self.talos.nodes.get_mut(name) else { return };
        text.clone_into(&mut node.config);
        if installs {
            if let Some(run) = node.run.as_mut() {
                run.log.sequence("initialize", Step::Stop);
                run.going = Some(Going::Installing);
                run.log.sequence("install", Step::Start);
            }
            self.talos_stop(name);
            return;
        }
        let Some(run) = node.run.as_mut() else { return };
        let at = |n: u64| now + std::time::Duration::from_millis(n);
        run.maintenance = false;
        (run.services_at, run.kubelet_at) = (at(timing.services), at(timing.kubelet));
        run.log.sequence("initialize", Step::Stop);
        run.log.sequence("boot", Step::Start);
        run.log.push(What::Task { name: "startAllServices", ended: false });
        let (times, boot_id) = ([run.services_at, run.kubelet_at], run.boot_id.clone());
        for time in times {
            self.agenda.at(time, Event::Look);
        }
        let due = Event::Talos { node: name.to_owned(), boot_id, due: Due::Stuck };
        self.agenda.at(at(timing.stuck), due);
        self.talos_activate(name, text);
    }

    /// The first image is written, to the disk that the configuration means; or there is none, and the node reboots as
    /// empty as it was.
    pub(super) fn talos_installed(&mut self, name: &str) {
        let Some(node) = self.talos.nodes.get(name) else { return };
        let Some(run) = node.run.as_ref() else { return };
        let config = Config::read(node.config.as_bytes(), node.image().minor().1);
        let wanted = config.and_then(|config| {
            let image = self.talos.image(config.installer())?;
            let at = target(node, run, &config).ok_or("no disk matched the installation disk selector")?;
            Ok((at, image))
        });
        let Some(node) = self.talos.nodes.get_mut(name) else { return };
        match wanted {
            Ok((at, image)) => {
                node.slots.insert(node.boots, image);
                let held = node.disks.get(at).map(Disk::held).unwrap_or_default();
                node.disks.iter_mut().enumerate().for_each(|(place, disk)| disk.system = place == at);
                if let Some(disk) = node.disks.get_mut(at) {
                    let lost = Wiped { node: name.to_owned(), serial: disk.serial.clone(), by: "install", held };
                    self.talos.wiped.push(lost);
                    disk.wipe();
                }
                // Its installer enters itself.
                node.boot_entries.clear();
                if let Some(run) = node.run.as_mut() {
                    run.log.sequence("install", Step::Stop);
                }
                self.talos_sequence(name, "reboot", Going::Rebooting { kexec: false }, true, false);
            }
            Err(error) => {
                node.config.clear();
                let text = format!("error running phase 1 in install sequence: task 1/1: failed, {error}");
                self.talos_failed(name, &text);
            }
        }
    }
}

/// The first disk that a configuration means, in the order of their names.
fn target(node: &Node, run: &Run, config: &Config) -> Option<usize> {
    let mut named: Vec<(&String, usize)> = run.names.iter().map(|(at, name)| (name, *at)).collect();
    named.sort();
    let mut disks = named.into_iter().filter_map(|(name, at)| Some((name, at, node.disks.get(at)?)));
    match config.selector() {
        Some(selector) => disks.find(|(_, _, disk)| selects(selector, &node.shown(disk))),
        None => {
            let path = config.disk();
            disks.find(|(name, _, disk)| {
                path == format!("/dev/{name}") || hardware::links_of(&node.shown(disk)).iter().any(|l| l == path)
            })
        }
    }
    .map(|(_, at, _)| at)
}

/// Whether a `diskSelector` means a disk: all of its keys must (siderolabs/talos `config/types/v1alpha1`, `InstallDiskSelector`).
fn selects(selector: &serde_json::Map<String, Value>, disk: &Disk) -> bool {
    selector.iter().all(|(key, value)| {
        let value = value.as_str().unwrap_or_default();
        match key.as_str() {
            "serial" => glob(value, &disk.serial),
            "model" => glob(value, &disk.model),
            "wwid" => glob(value, &disk.wwid),
            "busPath" => glob(value, &disk.bus_path),
            "type" => match value {
                "nvme" => disk.transport == "nvme",
                "hdd" => disk.rotational,
                "ssd" => !disk.rotational,
                _ => false,
            },
            "size" => sized(value, disk.size),
            // The lab's disks have neither uuid nor modalias.
            _ => value.is_empty(),
        }
    })
}

/// Whether a text fits a pattern with `*`.
fn glob(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((head, rest)) => text.strip_prefix(head).is_some_and(|behind| {
            behind.char_indices().map(|(at, _)| at).chain([behind.len()]).any(|at| glob(rest, behind.split_at(at).1))
        }),
    }
}

/// A number of bytes like `100GB`.
pub(super) fn bytes(text: &str) -> Option<u64> {
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let unit: u64 = match unit.trim() {
        "" | "B" => 1,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        _ => return None,
    };
    number.parse::<u64>().ok().and_then(|n| n.checked_mul(unit))
}

/// Whether a size fits a condition like `>= 100GB`.
fn sized(condition: &str, size: u64) -> bool {
    let (sign, rest) = condition.split_at(condition.find(|c: char| !"<>=".contains(c)).unwrap_or(condition.len()));
    let Some(wanted) = bytes(rest.trim()) else { return false };
    match sign {
        "" | "==" => size == wanted,
        ">=" => size >= wanted,
        "<=" => size <= wanted,
        ">" => size > wanted,
        "<" => size < wanted,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_and_sizes() {
        let cases = [("S5*", "S5GX", true), ("*GX", "S5GX", true), ("S*G*", "S5GX", true), ("S5", "S5GX", false)];
        assert_eq!(cases.iter().filter(|(p, t, yes)| glob(p, t) == *yes).count(), 4);
        let sizes = [
            (">= 100GB", true),
            ("< 100GiB", false),
            ("<= 1TB", true),
            ("== 251000193024", true),
            ("100 apples", false),
        ];
        assert_eq!(sizes.iter().filter(|(c, yes)| sized(c, 251_000_193_024) == *yes).count(), 5);
        let disk = Disk { serial: "S2Z".into(), transport: "sata".into(), size: 1 << 40, ..Disk::default() };
        let selector = |text: &str| serde_json::from_str::<Value>(text).unwrap().as_object().cloned().unwrap();
        assert!(selects(&selector(r#"{"serial": "S2*", "type": "ssd", "size": ">= 500GB"}"#), &disk));
        assert!(!selects(&selector(r#"{"serial": "S2*", "type": "nvme"}"#), &disk));
    }
}
