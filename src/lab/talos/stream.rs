//! Events, the kernel's log, files.

use std::collections::VecDeque;
use std::io::Write;

use futures::{StreamExt, stream};
use prost::Message;
use prost_types::{Any, Timestamp};
use tokio::sync::watch;
use tonic::Status;

use super::event::{Happened, Step, What};
use super::server::{Server, Streamed, gone, pieces};
use super::services::{Service, Stage};
use super::{efivars, sensors};
use crate::lab::World;
use crate::talos::proto::common::{self, Data};
use crate::talos::proto::machine::{self as wire, DmesgRequest, Event, EventsRequest, ServiceHealth};

/// Where etcd has its database.
const DATABASE: &str = "/var/lib/etcd/member/snap/db";

/// A .tar.gz with one file (POSIX.1-1988 ustar).
///
/// # Errors
/// There is no room for it.
pub(super) fn archive(name: &str, content: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut header = vec![0_u8; 512];
    let mut put = |at: usize, bytes: &[u8]| {
        header.iter_mut().skip(at).zip(bytes).for_each(|(place, byte)| *place = *byte);
    };
    put(0, name.as_bytes());
    for (at, number) in [(100, 0o600), (108, 0), (116, 0)] {
        put(at, format!("{number:07o}").as_bytes());
    }
    put(124, format!("{:011o}", content.len()).as_bytes());
    put(136, format!("{:011o}", 0).as_bytes());
    // The sum counts its own place as blanks.
    put(148, b"        ");
    put(156, b"0");
    put(257, b"ustar\x0000");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    let sum = format!("{sum:06o}\0 ");
    header.iter_mut().skip(148).zip(sum.as_bytes()).for_each(|(place, byte)| *place = *byte);
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    out.write_all(&header)?;
    out.write_all(content)?;
    out.write_all(&vec![0; content.len().next_multiple_of(512) - content.len() + 1_024])?;
    out.finish()
}

/// A service's health.
pub(super) fn health(healthy: Option<bool>, message: &str, at: Option<Timestamp>) -> ServiceHealth {
    ServiceHealth {
        unknown: healthy.is_none(),
        healthy: healthy.unwrap_or(false),
        last_message: if healthy.is_none() { String::new() } else { message.to_owned() },
        last_change: at,
    }
}

fn any(kind: &str, message: &impl Message) -> Any {
    Any { type_url: format!("talos/runtime/machine.{kind}"), value: message.encode_to_vec() }
}

fn stage(stage: Stage) -> wire::machine_status_event::MachineStage {
    use wire::machine_status_event::MachineStage as Wire;
    match stage {
        Stage::Booting => Wire::Booting,
        Stage::Running => Wire::Running,
        Stage::Rebooting => Wire::Rebooting,
        Stage::ShuttingDown => Wire::ShuttingDown,
        Stage::Upgrading => Wire::Upgrading,
        Stage::Installing => Wire::Installing,
        Stage::Maintenance => Wire::Maintenance,
        Stage::Resetting => Wire::Resetting,
    }
}

fn sequence(name: &str, step: &Step) -> Any {
    use wire::sequence_event::Action;
    let error = |code: common::Code, text: &str| Some(common::Error { code: code.into(), message: text.to_owned() });
    let (action, error) = match step {
        Step::Start => (Action::Start, None),
        Step::Stop => (Action::Stop, None),
        Step::Locked(text) => (Action::Noop, error(common::Code::Locked, text)),
        Step::Fatal(text) => (Action::Noop, error(common::Code::Fatal, text)),
    };
    any("SequenceEvent", &wire::SequenceEvent { sequence: name.to_owned(), action: action.into(), error })
}

fn service(service: &Service) -> Any {
    use wire::service_state_event::Action;
    let action = Action::from_str_name(&service.state.to_uppercase()).unwrap_or(Action::Initialized);
    let event = wire::ServiceStateEvent {
        service: service.id.clone(),
        action: action.into(),
        message: service.message.clone(),
        health: Some(health(service.healthy, &service.message, None)),
    };
    any("ServiceStateEvent", &event)
}

fn told(boot_id: &str, happened: &Happened) -> Event {
    let data = match &happened.what {
        What::Sequence { name, step } => sequence(name, step),
        What::Phase { name, ended } => {
            let action = if *ended { wire::phase_event::Action::Stop } else { wire::phase_event::Action::Start };
            any("PhaseEvent", &wire::PhaseEvent { phase: (*name).to_owned(), action: action.into() })
        }
        What::Task { name, ended } => {
            let action = if *ended { wire::task_event::Action::Stop } else { wire::task_event::Action::Start };
            any("TaskEvent", &wire::TaskEvent { task: (*name).to_owned(), action: action.into() })
        }
        What::Service(changed) => service(changed),
        What::Status(status) => {
            use wire::machine_status_event::{MachineStatus, machine_status::UnmetCondition};
            let unmet =
                |(name, reason): &(&str, String)| UnmetCondition { name: (*name).to_owned(), reason: reason.clone() };
            let ready = status.unmet.is_empty();
            let status_of = MachineStatus { ready, unmet_conditions: status.unmet.iter().map(unmet).collect() };
            let event = wire::MachineStatusEvent { stage: stage(status.stage).into(), status: Some(status_of) };
            any("MachineStatusEvent", &event)
        }
    };
    let id = format!("{}{:06}", boot_id.get(..8).unwrap_or_default(), happened.number);
    Event { metadata: None, data: Some(data), id, actor_id: happened.actor.clone() }
}

/// Where a stream of events stands.
struct Told {
    server: Server,
    boot_id: String,
    actor: String,
    after: u64,
    ready: VecDeque<Event>,
    changes: watch::Receiver<u64>,
    over: bool,
}

impl Told {
    /// Takes over what has happened since; false where the node is another boot by now.
    fn catch_up(&mut self) -> bool {
        let (after, actor) = (self.after, self.actor.clone());
        let fresh = self.server.look(|_, _, run| {
            let wanted = |h: &&Happened| h.number > after && (actor.is_empty() || h.actor == actor);
            let events: Vec<Event> = run.log.events.iter().filter(wanted).map(|h| told(&run.boot_id, h)).collect();
            (run.boot_id.clone(), run.log.events.last().map_or(after, |h| h.number), events)
        });
        match fresh {
            Ok((boot_id, last, events)) if boot_id == self.boot_id => {
                self.after = last;
                self.ready.extend(events);
                true
            }
            _ => false,
        }
    }
}

impl Server {
    /// The events: an empty one first, then as many past ones as were asked for, then those that come.
    pub(super) fn told(&self, request: EventsRequest) -> Result<Streamed<Event>, Status> {
        let (boot_id, count) = self.look(|_, _, run| (run.boot_id.clone(), run.log.events.len()))?;
        let keep = match request.tail_events {
            n if n < 0 => count,
            n => usize::try_from(n).unwrap_or(0),
        };
        let last = self.look(|_, _, run| {
            let skipped = run.log.events.len().saturating_sub(keep);
            skipped.checked_sub(1).and_then(|at| run.log.events.get(at)).map_or(0, |h| h.number)
        })?;
        let hello = Event { metadata: None, data: None, id: String::new(), actor_id: String::new() };
        let mut state = Told {
            server: self.clone(),
            boot_id,
            actor: request.with_actor_id,
            after: last,
            ready: VecDeque::from([hello]),
            // Word of changes from before the first look on: none falls between.
            changes: self.shared.changes(),
            over: false,
        };
        state.catch_up();
        let events = stream::unfold(state, |mut state| async move {
            loop {
                if let Some(event) = state.ready.pop_front() {
                    return Some((Ok(event), state));
                }
                if state.over {
                    return None;
                }
                state.changes.changed().await.ok()?;
                if !state.catch_up() {
                    state.over = true;
                    return Some((Err(gone()), state));
                }
            }
        });
        Ok(events.boxed())
    }

    /// The kernel's log of this boot.
    pub(super) fn kernel_log(&self, request: &DmesgRequest) -> Result<Streamed<Data>, Status> {
        let lines = self.look(|w, node, run| {
            let image = node.image();
            let mut lines = vec![
                "kern:  notice: Linux version 6.12.57-talos (@buildkitsandbox)".to_owned(),
                format!("user: warning: [talos] task startAllServices (1/1): starting, talos v{}", image.version),
            ];
            lines.extend(sensors::kernel_lines(node, run));
            for module in run.wants.modules.keys().filter(|m| !run.loaded.contains(&m.replace('-', "_"))) {
                lines.push(format!("user: warning: [talos] controller failed: error loading module {module:?}"));
            }
            for service in w.talos_services(&self.node).into_iter().filter(|s| s.state == "Waiting") {
                lines.push(format!("user: warning: [talos] service[{}](Waiting): {}", service.id, service.message));
            }
            let at = super::stamp(&self.shared, run.since);
            let at = jiff::Timestamp::from_second(at.seconds).unwrap_or_default();
            lines.into_iter().map(|line| format!("{line} [{at}]\n")).collect::<Vec<_>>()
        })?;
        let lines = if request.tail { Vec::new() } else { lines };
        let past = stream::iter(lines.into_iter().map(|line| Ok(Data { metadata: None, bytes: line.into_bytes() })));
        Ok(if request.follow { past.chain(stream::pending()).boxed() } else { past.boxed() })
    }

    /// A regular file of the node.
    pub(super) fn file(&self, path: &str) -> Result<Streamed<Data>, Status> {
        let host = |w: &World| format!("{}\n", w.talos_host(&self.node));
        if path == DATABASE {
            let found = self.look(|w, _, _| w.etcd_file(&self.node))?;
            let bytes = found.ok_or_else(|| Status::not_found(format!("stat {path}: no such file or directory")))?;
            return Ok(pieces(&bytes, 32 * 1_024));
        }
        if path.starts_with(efivars::FOLDER) {
            let found = self.look(|_, node, _| efivars::files(node).remove(path))?;
            let bytes = found.ok_or_else(|| Status::not_found(format!("stat {path}: no such file or directory")))?;
            return Ok(pieces(&bytes, 32 * 1_024));
        }
        let text = self.look(|w, node, run| match path {
            "/proc/sys/kernel/random/boot_id" => Some(format!("{}\n", run.boot_id)),
            "/proc/modules" => {
                Some(run.loaded.iter().map(|m| format!("{m} 126976 1 - Live 0x0000000000000000\n")).collect())
            }
            "/proc/uptime" => {
                let up = self.up(w, run).as_secs();
                Some(format!("{up}.00 {up}.00\n"))
            }
            "/etc/os-release" => {
                let version = node.image().version;
                Some(format!("NAME=\"Talos\"\nID=talos\nVERSION_ID=v{version}\nPRETTY_NAME=\"Talos (v{version})\"\n"))
            }
            "/etc/hostname" => Some(host(w)),
            _ => sensors::file(node, run, path),
        })?;
        match text {
            Some(text) => Ok(pieces(text.as_bytes(), 32 * 1_024)),
            None => Err(Status::not_found(format!("stat {path}: no such file or directory"))),
        }
    }
}
