//! What a node tells of its own doing.
//!
//! Reboot, reset, shutdown and upgrade are answered before they begin: that another sequence holds the lock, or that one
//! failed, is said here and nowhere else.

use std::time::Duration;

use prost::Message;
use tonic::Streaming;

use crate::base::wait;

use super::api::{Talos, machine};
use super::error::Error;
use super::kind::Stage;
use super::proto::common::Code;
use super::proto::machine as wire;

/// Something that a node tells.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// Its id, by time.
    pub id: String,
    /// The call that brought it about; empty where none did.
    pub actor: String,
    /// What.
    pub what: Happening,
}

/// What happened.
#[derive(Debug, Clone, PartialEq)]
pub enum Happening {
    /// A sequence (boot, reboot, upgrade) began or ended.
    Sequence {
        /// Its name.
        name: String,
        /// What became of it.
        step: Step,
    },
    /// A part of a sequence.
    Phase {
        /// Its name.
        name: String,
        /// True where it ended.
        ended: bool,
    },
    /// A part of a phase.
    Task {
        /// Its name.
        name: String,
        /// True where it ended.
        ended: bool,
    },
    /// A service changed its state.
    Service {
        /// Its id.
        id: String,
        /// Its state in capitals: `WAITING`.
        state: String,
        /// What it says.
        message: String,
    },
    /// The machine's status.
    Status {
        /// How far it is.
        stage: Stage,
        /// Of use in the stages booting and running only.
        ready: bool,
        /// What is missing: name and reason.
        unmet: Vec<(String, String)>,
    },
    /// Anything else, by its type.
    Other(String),
}

/// What became of a sequence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// It began.
    Began,
    /// It ended well.
    Ended,
    /// Another one holds the lock; this one was not begun.
    Locked(String),
    /// It failed.
    Failed(String),
    /// It was given up for another one.
    Canceled(String),
    /// Nothing.
    Nothing,
}

/// The events of a node as they come.
pub struct Events<'a> {
    talos: &'a Talos,
    stream: Streaming<wire::Event>,
}

impl Talos {
    /// The events from now on, or with the past ones first (`past`: how many, -1 for all that are kept); those of one
    /// call where its actor is named.
    ///
    /// # Errors
    /// Those of any question.
    pub async fn events(&self, past: i32, actor: Option<&str>) -> Result<Events<'_>, Error> {
        let request = wire::EventsRequest {
            tail_events: past,
            with_actor_id: actor.unwrap_or_default().to_owned(),
            ..wire::EventsRequest::default()
        };
        let mut client = machine(self.questions());
        let open = async { Ok(client.events(request).await?.into_inner()) };
        let stream = self.once("Events", self.limits.read, open).await?;
        Ok(Events { talos: self, stream })
    }

    /// Waits until the sequence that a call asked for has begun. It may be over by then.
    ///
    /// # Errors
    /// [`Error::Busy`] where another sequence holds the lock, [`Error::SequenceFailed`], and [`Error::NoAnswer`] after
    /// `limit` or where the node went away before it said so: then its state tells what became of it.
    pub async fn sequence_began(&self, actor: &str, limit: Duration) -> Result<(), Error> {
        let look = async {
            let mut events = self.events(-1, Some(actor)).await?;
            while let Some(event) = events.next().await? {
                let Happening::Sequence { name, step } = event.what else { continue };
                let (at, sequence) = (self.at(), name);
                match step {
                    Step::Began | Step::Ended => return Ok(()),
                    Step::Locked(why) => return Err(Error::Busy { at, sequence, why }),
                    Step::Failed(why) | Step::Canceled(why) => {
                        return Err(Error::SequenceFailed { at, sequence, why });
                    }
                    Step::Nothing => {}
                }
            }
            Err(Error::NoAnswer { at: self.at(), why: "its events ended".into() })
        };
        let over = |elapsed: wait::Elapsed| Error::NoAnswer { at: self.at(), why: elapsed.to_string() };
        wait::within(limit, look).await.unwrap_or_else(|elapsed| Err(over(elapsed)))
    }
}

impl Events<'_> {
    /// The next event; waits for it as long as it takes. None where the node ended the stream.
    ///
    /// # Errors
    /// What keeps the node from telling.
    pub async fn next(&mut self) -> Result<Option<Event>, Error> {
        loop {
            let event = match self.stream.message().await {
                Ok(Some(event)) => event,
                Ok(None) => return Ok(None),
                Err(status) => return Err(self.talos.broken(&status)),
            };
            if let Some(metadata) = event.metadata.as_ref().filter(|m| !m.error.is_empty()) {
                return Err(Error::NoAnswer { at: self.talos.at(), why: metadata.error.clone() });
            }
            // The first one of a stream is empty.
            let Some(data) = event.data else { continue };
            let what = happening(&data.type_url, &data.value)
                .map_err(|error| self.talos.unreadable(&data.type_url, &error.to_string()))?;
            return Ok(Some(Event { id: event.id, actor: event.actor_id, what }));
        }
    }
}

/// An event's content by its type, which stands behind the last `/`.
fn happening(kind: &str, bytes: &[u8]) -> Result<Happening, prost::DecodeError> {
    Ok(match kind.rsplit('/').next().unwrap_or(kind) {
        "machine.SequenceEvent" => {
            let event = wire::SequenceEvent::decode(bytes)?;
            let action = event.action();
            let step = match (event.error, action) {
                (Some(error), _) if error.code() == Code::Locked => Step::Locked(error.message),
                (Some(error), _) if error.code() == Code::Canceled => Step::Canceled(error.message),
                (Some(error), _) => Step::Failed(error.message),
                (None, wire::sequence_event::Action::Start) => Step::Began,
                (None, wire::sequence_event::Action::Stop) => Step::Ended,
                (None, wire::sequence_event::Action::Noop) => Step::Nothing,
            };
            Happening::Sequence { name: event.sequence, step }
        }
        "machine.PhaseEvent" => {
            let event = wire::PhaseEvent::decode(bytes)?;
            Happening::Phase { ended: event.action() == wire::phase_event::Action::Stop, name: event.phase }
        }
        "machine.TaskEvent" => {
            let event = wire::TaskEvent::decode(bytes)?;
            Happening::Task { ended: event.action() == wire::task_event::Action::Stop, name: event.task }
        }
        "machine.ServiceStateEvent" => {
            let event = wire::ServiceStateEvent::decode(bytes)?;
            let state = event.action().as_str_name().to_owned();
            Happening::Service { id: event.service, state, message: event.message }
        }
        "machine.MachineStatusEvent" => {
            let event = wire::MachineStatusEvent::decode(bytes)?;
            let stage = stage(event.stage());
            let status = event.status.unwrap_or_default();
            let unmet = status.unmet_conditions.into_iter().map(|c| (c.name, c.reason)).collect();
            Happening::Status { stage, ready: status.ready, unmet }
        }
        other => Happening::Other(other.to_owned()),
    })
}

fn stage(stage: wire::machine_status_event::MachineStage) -> Stage {
    use wire::machine_status_event::MachineStage as Wire;
    match stage {
        Wire::Unknown => Stage::Unknown,
        Wire::Booting => Stage::Booting,
        Wire::Installing => Stage::Installing,
        Wire::Maintenance => Stage::Maintenance,
        Wire::Running => Stage::Running,
        Wire::Rebooting => Stage::Rebooting,
        Wire::ShuttingDown => Stage::ShuttingDown,
        Wire::Resetting => Stage::Resetting,
        Wire::Upgrading => Stage::Upgrading,
    }
}
