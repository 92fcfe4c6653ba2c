//! The state of a node as resources (COSI): one, all of a kind, and what becomes of them.

use std::collections::BTreeMap;
use std::marker::PhantomData;

use serde::de::DeserializeOwned;

use crate::base::fault::Effect;

use super::api::{Talos, state};
use super::error::Error;
use super::proto::cosi::resource as wire;

/// A kind of resource. Both names are exact; the server resolves nothing.
pub struct Kind<T> {
    /// The namespace.
    pub namespace: &'static str,
    /// The full name of the type.
    pub name: &'static str,
    spec: PhantomData<fn() -> T>,
}

impl<T> Kind<T> {
    /// A kind whose spec is read as `T`.
    pub const fn new(namespace: &'static str, name: &'static str) -> Self {
        Self { namespace, name, spec: PhantomData }
    }

    /// The one resource of it that has this id.
    pub const fn one(self, id: &'static str) -> Single<T> {
        Single { kind: self, id }
    }
}

/// The one resource of a kind that there can be.
pub struct Single<T> {
    /// Its kind.
    pub kind: Kind<T>,
    /// Its id.
    pub id: &'static str,
}

/// A resource.
#[derive(Debug, Clone, PartialEq)]
pub struct Resource<T> {
    /// Its id, unique within its kind.
    pub id: String,
    /// Counts its changes.
    pub version: String,
    /// `running` or `tearingDown`.
    pub phase: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
    /// What it says.
    pub spec: T,
}

/// What became of a resource.
#[derive(Debug, Clone, PartialEq)]
pub enum Change<T> {
    /// It is there; also said of each that was there already.
    Created(Resource<T>),
    /// It says something else now.
    Updated(Resource<T>),
    /// It is gone.
    Destroyed {
        /// Its id.
        id: String,
    },
    /// All that was there already has been told.
    Bootstrapped,
}

/// The changes of a kind as they come.
pub struct Watch<'a, T> {
    talos: &'a Talos,
    stream: tonic::Streaming<wire::WatchResponse>,
    waiting: std::collections::VecDeque<wire::Event>,
    what: String,
    /// All that was there already has been told.
    told: bool,
    spec: PhantomData<fn() -> T>,
}

impl Talos {
    /// The one resource of a kind; None where there is none (yet: shortly after a boot they come one after the other).
    ///
    /// # Errors
    /// [`Error::NoSuchKind`] where this version does not have the kind, and those of any question.
    pub async fn single<T: DeserializeOwned>(&self, single: &Single<T>) -> Result<Option<Resource<T>>, Error> {
        self.get(&single.kind, single.id).await
    }

    /// A resource by its id; None where there is none.
    ///
    /// # Errors
    /// As [`Talos::single`].
    pub async fn get<T: DeserializeOwned>(&self, kind: &Kind<T>, id: &str) -> Result<Option<Resource<T>>, Error> {
        let Some(raw) = self.raw(kind.namespace, kind.name, id).await? else { return Ok(None) };
        self.parsed(kind.name, raw).map(Some)
    }

    /// A resource as the wire has it.
    pub(super) async fn raw(&self, namespace: &str, kind: &str, id: &str) -> Result<Option<wire::Resource>, Error> {
        let request =
            wire::GetRequest { namespace: namespace.into(), r#type: kind.into(), id: id.into(), options: None };
        let ask = |channel| {
            let request = request.clone();
            async move { Ok(state(channel).get(request).await?.into_inner()) }
        };
        match self.read(&format!("Get {kind}/{id}"), ask).await {
            Ok(answer) => match answer.resource {
                Some(resource) => Ok(Some(resource)),
                None => Err(self.unreadable(kind, "there is no resource in it")),
            },
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// All resources of a kind.
    ///
    /// # Errors
    /// As [`Talos::single`].
    pub async fn list<T: DeserializeOwned>(&self, kind: &Kind<T>) -> Result<Vec<Resource<T>>, Error> {
        let request = wire::ListRequest {
            namespace: kind.namespace.into(),
            r#type: kind.name.into(),
            options: Some(wire::ListOptions {}),
        };
        let ask = |channel| {
            let request = request.clone();
            async move {
                let mut stream = state(channel).list(request).await?.into_inner();
                let mut all = Vec::new();
                while let Some(answer) = stream.message().await? {
                    all.push(answer.resource);
                }
                Ok(all)
            }
        };
        let all = self.read(&format!("List {}", kind.name), ask).await?;
        let one = |resource: Option<wire::Resource>| {
            self.parsed(kind.name, resource.ok_or_else(|| self.unreadable(kind.name, "there is no resource in it"))?)
        };
        all.into_iter().map(one).collect()
    }

    /// Watches a kind: first what is there already, then [`Change::Bootstrapped`], then what changes.
    ///
    /// # Errors
    /// As [`Talos::single`].
    pub async fn watch<T: DeserializeOwned>(&self, kind: &Kind<T>) -> Result<Watch<'_, T>, Error> {
        let request = wire::WatchRequest {
            namespace: kind.namespace.into(),
            r#type: kind.name.into(),
            id: None,
            options: Some(wire::WatchOptions { bootstrap_contents: true }),
            api_version: 1,
        };
        let what = format!("Watch {}", kind.name);
        let mut client = state(self.questions());
        let stream =
            self.once(&what, self.limits.read, async { Ok(client.watch(request).await?.into_inner()) }).await?;
        let waiting = std::collections::VecDeque::new();
        Ok(Watch { talos: self, stream, waiting, what: kind.name.to_owned(), told: false, spec: PhantomData })
    }

    /// A resource with its spec read.
    fn parsed<T: DeserializeOwned>(&self, kind: &str, resource: wire::Resource) -> Result<Resource<T>, Error> {
        let missing = |what: &str| self.unreadable(kind, &format!("there is no {what} in it"));
        let metadata = resource.metadata.ok_or_else(|| missing("metadata"))?;
        let yaml = resource.spec.ok_or_else(|| missing("spec"))?.yaml_spec;
        // The error's own text quotes what it reads, which may be secret.
        let spec = serde_saphyr::from_str(&yaml).map_err(|error| {
            let place = error.location().map(|at| format!(" at line {}, column {}", at.line(), at.column()));
            let why = format!("its spec does not fit{}", place.unwrap_or_default());
            self.unreadable(&format!("{kind}/{}", metadata.id), &why)
        })?;
        Ok(Resource {
            id: metadata.id,
            version: metadata.version,
            phase: metadata.phase,
            labels: metadata.labels.into_iter().collect(),
            annotations: metadata.annotations.into_iter().collect(),
            spec,
        })
    }

    pub(super) fn unreadable(&self, what: &str, why: &str) -> Error {
        Error::BadAnswer { at: self.at(), why: format!("{what}: {why}"), effect: Effect::None }
    }
}

impl<T: DeserializeOwned> Watch<'_, T> {
    /// The next change; waits for it as long as it takes. None where the node ended the watch, behind
    /// [`Change::Bootstrapped`].
    ///
    /// # Errors
    /// What keeps the node from telling. A watch that broke is begun anew.
    pub async fn next(&mut self) -> Result<Option<Change<T>>, Error> {
        loop {
            if let Some(event) = self.waiting.pop_front() {
                match self.change(event)? {
                    Some(change) => return Ok(Some(change)),
                    None => continue,
                }
            }
            match self.stream.message().await {
                Ok(Some(answer)) => self.waiting.extend(answer.event),
                Ok(None) if self.told => return Ok(None),
                Ok(None) => {
                    let why = format!("{}: the watch ended before it had told all that is there", self.what);
                    return Err(Error::NoAnswer { at: self.talos.at(), why });
                }
                Err(status) => return Err(self.talos.broken(&status)),
            }
        }
    }

    fn change(&mut self, event: wire::Event) -> Result<Option<Change<T>>, Error> {
        use wire::EventType as Type;
        let kind = event.event_type();
        let resource = || event.resource.clone().ok_or_else(|| self.talos.unreadable(&self.what, "an empty event"));
        Ok(Some(match kind {
            Type::Created => Change::Created(self.talos.parsed(&self.what, resource()?)?),
            Type::Updated => Change::Updated(self.talos.parsed(&self.what, resource()?)?),
            Type::Destroyed => Change::Destroyed { id: resource()?.metadata.map(|m| m.id).unwrap_or_default() },
            Type::Bootstrapped => {
                self.told = true;
                Change::Bootstrapped
            }
            Type::Errored => {
                let why = event.error.unwrap_or_default();
                return Err(Error::NoAnswer { at: self.talos.at(), why: format!("{}: {why}", self.what) });
            }
            Type::Noop => return Ok(None),
        }))
    }
}
