//! Watches: an endless list of what happens.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::Kube;
use super::call::{Call, Form, Target};
use super::read::{Choice, partial, snapshot};
use super::status::{Outcome, Refusal};
use super::table;
use crate::base::clock::Clock;
use crate::base::wait;
use crate::lab::talos::Serving;
use crate::lab::wire::{self, Answer};
use crate::lab::{Shared, World};

/// How often a watch that asked for bookmarks gets one, in real time, as its deadline is.
const BOOKMARK: Duration = Duration::from_secs(60);

/// A watch that has begun.
pub(crate) struct Watch {
    choice: Choice,
    call: Call,
    seen: u64,
    begun: bool,
    head: bool,
}

/// What goes out first: events, and whether the watch goes on.
type Batch = (Vec<Value>, bool);

impl Watch {
    /// Checks the request.
    pub(crate) fn open(kube: &Kube, target: &Target, call: &Call) -> Outcome<Self> {
        let choice = Choice::of(target, call)?;
        let version = call.query("resourceVersion").unwrap_or("0");
        let seen: u64 =
            version.parse().map_err(|_| Refusal::bad(format!("Invalid value: \"{version}\": resourceVersion")))?;
        let begun = seen > 0 && !call.is_set("sendInitialEvents");
        if begun && kube.store.since(seen).is_none() {
            return Err(Refusal::expired(format!("too old resource version: {seen} ({})", kube.store.revision())));
        }
        Ok(Self { choice, call: call.clone(), seen, begun, head: true })
    }

    /// How long it may take, in real time.
    fn limit(&self) -> Duration {
        let asked = self.call.query("timeoutSeconds").and_then(|t| t.parse().ok()).filter(|t| *t > 0);
        Duration::from_secs(asked.unwrap_or(1_800))
    }

    fn event(&mut self, kind: &str, object: &Arc<Value>, now: jiff::Timestamp) -> Value {
        self.call.now = now;
        let shown = match self.call.form() {
            Form::Whole => Value::clone(object),
            Form::Metadata => partial(object),
            Form::Table => {
                let head = std::mem::take(&mut self.head);
                table::render(self.choice.kind, std::slice::from_ref(object), &self.call, head)
            }
        };
        json!({ "type": kind, "object": shown })
    }

    fn bookmark(&self, initial: bool) -> Value {
        let mut object = json!({
            "kind": self.choice.kind.kind, "apiVersion": self.choice.kind.api_version(),
            "metadata": { "resourceVersion": self.seen.to_string(), "creationTimestamp": null },
        });
        if initial {
            object["metadata"]["annotations"] = json!({ "k8s.io/initial-events-end": "true" });
        }
        if self.call.form() == Form::Table {
            object = json!({ "kind": "Table", "apiVersion": "meta.k8s.io/v1", "columnDefinitions": [], "rows": [],
                "metadata": object["metadata"] });
        }
        json!({ "type": "BOOKMARK", "object": object })
    }

    /// What has happened since the last call.
    fn step(&mut self, kube: &Kube, now: jiff::Timestamp) -> Batch {
        let mut out = Vec::new();
        if !self.begun {
            self.begun = true;
            self.seen = kube.store.revision();
            for object in snapshot(kube, &self.choice, self.seen).unwrap_or_default() {
                let event = self.event("ADDED", &object, now);
                out.push(event);
            }
            if self.call.is_set("sendInitialEvents") && self.call.is_set("allowWatchBookmarks") {
                out.push(self.bookmark(true));
            }
            return (out, true);
        }
        let Some(changes) = kube.store.since(self.seen) else {
            let text = format!("too old resource version: {} ({})", self.seen, kube.store.revision());
            out.push(json!({ "type": "ERROR", "object": Refusal::expired(text).body }));
            return (out, false);
        };
        for change in changes.filter(|c| self.choice.covers(&c.key)).cloned().collect::<Vec<_>>() {
            let was = change.before.as_ref().is_some_and(|b| self.choice.takes(b));
            let is = !change.gone && self.choice.takes(&change.after);
            let kind = match (was, is) {
                (false, true) => "ADDED",
                (true, true) => "MODIFIED",
                (true, false) => "DELETED",
                (false, false) => continue,
            };
            let event = self.event(kind, &change.after, now);
            out.push(event);
        }
        self.seen = self.seen.max(kube.store.revision());
        (out, true)
    }

    /// The streaming answer.
    pub(crate) fn answer(mut self, shared: Arc<Shared>) -> Answer {
        let (sender, mut receiver) = mpsc::channel::<Bytes>(16);
        tokio::spawn(async move {
            let mut changes = shared.changes();
            let start = Clock::real().instant();
            let (end, mut marked) = (start + self.limit(), start);
            let bookmarks = self.call.is_set("allowWatchBookmarks");
            loop {
                changes.mark_unchanged();
                let (events, on) = shared.read(|world| self.step(&world.kube, super::time(world)));
                if shared.read(World::kube_serving) == Serving::Not {
                    return;
                }
                let mut text = String::new();
                for event in events {
                    text.push_str(&event.to_string());
                    text.push('\n');
                }
                let now = Clock::real().instant();
                if bookmarks && now >= marked + BOOKMARK.min(self.limit() / 2) {
                    marked = now;
                    text.push_str(&format!("{}\n", self.bookmark(false)));
                }
                if !text.is_empty() && sender.send(text.into()).await.is_err() {
                    return;
                }
                let left = end.saturating_duration_since(now).min(BOOKMARK.min(self.limit() / 2));
                if !on || left.is_zero() {
                    return;
                }
                // Whether something changed, time passed or nobody listens any more: the next round finds out.
                let mut gone = std::pin::pin!(sender.closed().fuse());
                let mut next = std::pin::pin!(wait::within(left, changes.changed()).fuse());
                futures::select_biased! {
                    () = gone => return,
                    _ = next => {}
                }
            }
        });
        let body = StreamBody::new(futures::stream::poll_fn(move |context| {
            receiver.poll_recv(context).map(|bytes| bytes.map(|b| Ok::<_, Infallible>(Frame::data(b))))
        }))
        .boxed_unsync();
        let mut answer = wire::answer(http::StatusCode::OK, "application/json", Bytes::new());
        *answer.body_mut() = body;
        answer
    }
}
