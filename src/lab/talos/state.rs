//! `cosi.resource.State`: resources are read, one by one, all of a kind, or as they change.

use std::collections::{BTreeMap, VecDeque};

use futures::{StreamExt, stream};
use prost::Message;
use tokio::sync::watch;
use tonic::{Request, Response, Status};

use super::access::{Roles, denied};
use super::kinds::{self, Kind};
use super::resources::{self, Resource};
use super::server::{Said, Server, Streamed};
use crate::talos::proto::cosi::resource::state_server::State;
use crate::talos::proto::cosi::resource::{
    self as wire, Event, EventType, GetRequest, GetResponse, ListRequest, ListResponse, Metadata, Spec, WatchRequest,
    WatchResponse,
};
use crate::talos::proto::definitions::MachineConfigSpec;

impl Server {
    /// The kind, where whoever asks may read it (siderolabs/talos `internal/app/resources/access.go`).
    fn readable(&self, roles: Option<&Roles>, name: &str, namespace: &str) -> Result<&'static Kind, Status> {
        let minor = self.look(|_, node, _| node.image().minor().1)?;
        let Some(kind) = kinds::find(name, minor) else {
            if kinds::MISSING.iter().any(|m| m.eq_ignore_ascii_case(name)) {
                return Err(Status::unimplemented(format!("the lab has no resources of type {name}")));
            }
            return Err(Status::permission_denied(format!("resource type {name:?} is not supported")));
        };
        if kind.sensitive && !roles.is_some_and(|roles| roles.any(&["os:admin"])) {
            return Err(denied());
        }
        if !kinds::NAMESPACES.contains(&namespace) {
            return Err(Status::permission_denied(format!("namespace {namespace:?} is not supported")));
        }
        Ok(kind)
    }

    /// What is there of a kind in a namespace. Another namespace than the kind's own is empty.
    fn present(&self, kind: &Kind, namespace: &str) -> Result<Vec<Resource>, Status> {
        if namespace != kind.namespace {
            return Ok(Vec::new());
        }
        self.look(|w, _, _| resources::all(w, &self.node, kind))?.map_err(Status::internal)
    }

    fn written(&self, kind: &Kind, resource: &Resource) -> wire::Resource {
        let at = self.shared.read(|w| super::stamp(&self.shared, w.now));
        let metadata = Metadata {
            namespace: kind.namespace.to_owned(),
            r#type: kind.name.to_owned(),
            id: resource.id.clone(),
            version: resource.version.to_string(),
            owner: String::new(),
            phase: "running".into(),
            created: Some(at),
            updated: Some(at),
            ..Metadata::default()
        };
        let bytes = resource.config.clone();
        let proto_spec = bytes.map(|yaml_marshalled| MachineConfigSpec { yaml_marshalled }.encode_to_vec());
        let spec = Spec { proto_spec: proto_spec.unwrap_or_default(), yaml_spec: resource.yaml.clone() };
        wire::Resource { metadata: Some(metadata), spec: Some(spec) }
    }
}

/// A watch.
struct Watched {
    server: Server,
    kind: &'static Kind,
    namespace: String,
    id: Option<String>,
    known: BTreeMap<String, Resource>,
    ready: VecDeque<Event>,
    changes: watch::Receiver<u64>,
    over: bool,
}

impl Watched {
    fn now(&self) -> Result<BTreeMap<String, Resource>, Status> {
        let wanted = |r: &Resource| self.id.as_ref().is_none_or(|id| *id == r.id);
        let all = self.server.present(self.kind, &self.namespace)?;
        Ok(all.into_iter().filter(wanted).map(|r| (r.id.clone(), r)).collect())
    }

    fn event(&self, kind: EventType, new: Option<&Resource>, old: Option<&Resource>) -> Event {
        let written = |r: Option<&Resource>| r.map(|r| self.server.written(self.kind, r));
        Event { resource: written(new), event_type: kind.into(), old: written(old), error: None }
    }

    /// What differs from what was told.
    fn compare(&mut self) -> Result<(), Status> {
        let now = self.now()?;
        let same = |a: &Resource, b: &Resource| a.yaml == b.yaml && a.config == b.config;
        let mut told = Vec::new();
        for (id, new) in &now {
            match self.known.get(id) {
                None => told.push(self.event(EventType::Created, Some(new), None)),
                Some(old) if !same(old, new) => told.push(self.event(EventType::Updated, Some(new), Some(old))),
                Some(_) => {}
            }
        }
        for (_, old) in self.known.iter().filter(|(id, _)| !now.contains_key(*id)) {
            told.push(self.event(EventType::Destroyed, Some(old), None));
        }
        self.ready.extend(told);
        self.known = now;
        Ok(())
    }
}

#[tonic::async_trait]
impl State for Server {
    type ListStream = Streamed<ListResponse>;
    type WatchStream = Streamed<WatchResponse>;

    async fn get(&self, request: Request<GetRequest>) -> Said<GetResponse> {
        let roles = request.extensions().get::<Roles>().cloned();
        let GetRequest { namespace, r#type: name, id, .. } = request.into_inner();
        let kind = self.readable(roles.as_ref(), &name, &namespace)?;
        let found = self.present(kind, &namespace)?.into_iter().find(|r| r.id == id);
        let found = found.ok_or_else(|| {
            Status::not_found(format!("resource {}({namespace}/{id}@undefined) doesn't exist", kind.name))
        })?;
        Ok(Response::new(GetResponse { resource: Some(self.written(kind, &found)) }))
    }

    async fn list(&self, request: Request<ListRequest>) -> Said<Self::ListStream> {
        let roles = request.extensions().get::<Roles>().cloned();
        let ListRequest { namespace, r#type: name, .. } = request.into_inner();
        let kind = self.readable(roles.as_ref(), &name, &namespace)?;
        let all = self.present(kind, &namespace)?;
        let all: Vec<_> = all.iter().map(|r| Ok(ListResponse { resource: Some(self.written(kind, r)) })).collect();
        Ok(Response::new(stream::iter(all).boxed()))
    }

    async fn watch(&self, request: Request<WatchRequest>) -> Said<Self::WatchStream> {
        let roles = request.extensions().get::<Roles>().cloned();
        let request = request.into_inner();
        let kind = self.readable(roles.as_ref(), &request.r#type, &request.namespace)?;
        let bootstrap = request.options.unwrap_or_default().bootstrap_contents;
        if request.id.is_some() && bootstrap {
            return Err(Status::unimplemented("bootstrap contents is not implemented for a single resource watch"));
        }
        let mut state = Watched {
            server: self.clone(),
            kind,
            namespace: request.namespace,
            id: request.id,
            known: BTreeMap::new(),
            ready: VecDeque::new(),
            changes: self.shared.changes(),
            over: false,
        };
        match &state.id {
            // The present state comes first, also where there is nothing.
            Some(id) => {
                let absent = Resource { id: id.clone(), version: 0, yaml: String::new(), config: None };
                state.compare()?;
                if state.ready.is_empty() {
                    let event = state.event(EventType::Destroyed, Some(&absent), None);
                    state.ready.push_back(event);
                }
            }
            None if bootstrap => {
                state.compare()?;
                let end = state.event(EventType::Bootstrapped, None, None);
                state.ready.push_back(end);
            }
            None => state.known = state.now()?,
        }
        let events = stream::unfold(state, |mut state| async move {
            loop {
                if let Some(event) = state.ready.pop_front() {
                    return Some((Ok(WatchResponse { event: vec![event] }), state));
                }
                if state.over {
                    return None;
                }
                state.changes.changed().await.ok()?;
                if let Err(status) = state.compare() {
                    state.over = true;
                    return Some((Err(status), state));
                }
            }
        });
        Ok(Response::new(events.boxed()))
    }
}
