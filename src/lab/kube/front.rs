//! The Kubernetes API at the wire.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use http::{HeaderValue, Method, Request, StatusCode, header};
use serde_json::Value;

use super::call::{Call, Form, Target};
use super::status::{Outcome, Refusal};
use super::watch::Watch;
use super::{Kube, discovery, evict, exec, rbac, read, time, write};
use crate::lab::talos::Serving;
use crate::lab::wire::{self, Answer, Authority, Class, Front, Service};
use crate::lab::{Fronts, LabError, Shared, World};

/// Starts the front.
pub(super) async fn serve(
    shared: &Arc<Shared>,
    authority: &Authority,
    fronts: &mut Fronts,
) -> Result<super::Reach, LabError> {
    let service = Service {
        front: Front::Kubernetes,
        classify,
        handle,
        error: |status, text| refused(&Refusal::new(status.as_u16(), reason(status), text)),
        http2: true,
        keep_alive: (u32::MAX, Duration::from_secs(300)),
        body_limit: 3 << 20,
        away: |shared| shared.read(World::kube_serving) == Serving::Not,
    };
    let address = wire::serve(shared, service, authority.identity(true)?, fronts).await?;
    let (token, admin) = shared.read(|world| {
        let admin = world.kube.user.is_some().then(|| world.kube.admin.clone());
        (world.kube.token.clone(), admin)
    });
    let address = address.to_string();
    let contexts: Vec<(&str, &str)> =
        [("lab", token.as_str())].into_iter().chain(admin.as_deref().map(|token| ("admin", token))).collect();
    let own = format!("admin@{}", shared.read(|world| world.talos.cluster.clone()));
    let administrator = [(own.as_str(), admin.as_deref().unwrap_or(&token))];
    let text = |contexts: &[(&str, &str)]| kubeconfig(&address, &authority.pem(), contexts);
    Ok(super::Reach { kubeconfig: text(&contexts), administrator: text(&administrator) })
}

/// The text of a kubeconfig file: names of contexts, the first one the current one, with their bearer tokens.
fn kubeconfig(address: &str, authority: &str, contexts: &[(&str, &str)]) -> String {
    use base64::Engine;
    let authority = base64::engine::general_purpose::STANDARD.encode(authority);
    let context =
        |(name, _): &(&str, &str)| format!("- name: {name}\n  context:\n    cluster: lab\n    user: {name}\n");
    let user = |(name, token): &(&str, &str)| format!("- name: {name}\n  user:\n    token: {token}\n");
    let current = contexts.first().map(|(name, _)| *name).unwrap_or_default();
    format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: {current}\nclusters:\n- name: lab\n  cluster:\n    server: \
         https://{address}\n    certificate-authority-data: {authority}\ncontexts:\n{}users:\n{}",
        contexts.iter().map(context).collect::<String>(),
        contexts.iter().map(user).collect::<String>()
    )
}

/// How long etcd waits for a leader (`server/config/config.go`, `ReqTimeout`).
const NO_LEADER: Duration = Duration::from_secs(7);

fn reason(status: StatusCode) -> &'static str {
    match status.as_u16() {
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "NotFound",
        409 => "Conflict",
        410 => "Expired",
        429 => "TooManyRequests",
        500 => "InternalError",
        503 => "ServiceUnavailable",
        504 => "Timeout",
        _ => "",
    }
}

fn classify(shared: &Shared, request: &Request<Bytes>) -> Class {
    let path = request.uri().path();
    if path.ends_with("/exec") {
        let call = Call::of(request, jiff::Timestamp::UNIX_EPOCH);
        let reads = shared.read(|world| world.reads_only(&exec::command(&call)));
        return if reads { Class::Look } else { Class::Change };
    }
    match *request.method() {
        Method::GET | Method::HEAD | Method::OPTIONS => Class::Read,
        _ if path.ends_with("/selfsubjectaccessreviews") => Class::Login,
        _ if Call::of(request, jiff::Timestamp::UNIX_EPOCH).dry() => Class::Read,
        _ => Class::Change,
    }
}

fn handle(shared: Arc<Shared>, request: Request<Bytes>) -> BoxFuture<'static, Answer> {
    async move {
        if let Err(refusal) = shared.read(|world| rbac::door(&world.kube, &request)) {
            return refused(&refusal);
        }
        if let Some(answer) = without_etcd(&shared, &request).await {
            return answer;
        }
        let outcome = match *request.method() {
            Method::GET | Method::HEAD => reading(&shared, request),
            Method::POST | Method::PUT | Method::PATCH | Method::DELETE => changing(&shared, request),
            _ => Err(Refusal::no_method()),
        };
        outcome.unwrap_or_else(|refusal| refused(&refusal))
    }
    .boxed()
}

/// What is answered where etcd does not do as it is told: without a leader nothing but what the server knows by itself,
/// and after a while; with a full database no write. Errors of etcd have no reason of their own (apiserver
/// `endpoints/handlers/responsewriters/status.go`).
async fn without_etcd(shared: &Arc<Shared>, request: &Request<Bytes>) -> Option<Answer> {
    let (path, serving) = (request.uri().path(), shared.read(World::kube_serving));
    let refusal = match serving {
        Serving::Headless if matches!(path, "/healthz" | "/livez" | "/readyz") => {
            let check = path.trim_start_matches('/');
            let text = format!("[+]ping ok\n[+]log ok\n[-]etcd failed: reason withheld\n{check} check failed\n");
            return Some(wire::answer(StatusCode::INTERNAL_SERVER_ERROR, "text/plain; charset=utf-8", text));
        }
        Serving::Headless => {
            let call = Call::of(request, jiff::Timestamp::UNIX_EPOCH);
            if *request.method() == Method::GET && shared.read(|w| discovery::answer(&w.kube, &call).is_some()) {
                return None;
            }
            shared.clock.pause(NO_LEADER).await;
            "etcdserver: request timed out"
        }
        Serving::Full if *request.method() != Method::GET && classify(shared, request) == Class::Change => {
            "etcdserver: mvcc: database space exceeded"
        }
        _ => return None,
    };
    Some(refused(&Refusal::new(500, "", refusal)))
}

fn reading(shared: &Arc<Shared>, mut request: Request<Bytes>) -> Outcome<Answer> {
    if matches!(request.uri().path(), "/healthz" | "/livez" | "/readyz") {
        return Ok(wire::answer(StatusCode::OK, "text/plain; charset=utf-8", "ok"));
    }
    enum Found {
        Object(u16, Value),
        Discovery(Value),
        Watch(Box<Watch>),
        Text(String),
        Exec(Box<(Call, Target)>),
    }
    let found = shared.read(|world| {
        let kube = &world.kube;
        let call = Call::of(&request, time(world));
        if let Some(found) = discovery::answer(kube, &call) {
            return found.map(Found::Discovery);
        }
        let target = call.target(kube)?;
        Ok(match (target.name.as_ref(), target.part.as_deref()) {
            (_, None) if call.is_set("watch") => Found::Watch(Box::new(Watch::open(kube, &target, &call)?)),
            (None, None) => Found::Object(200, read::list(kube, &target, &call)?),
            (Some(_), None | Some("status")) => Found::Object(200, read::get(kube, &target, &call)?),
            (Some(_), Some("scale")) => Found::Object(200, super::scale::of(&*read::find(kube, &target)?)),
            (Some(_), Some("log")) => Found::Text(super::logs::of(world, &target, &call)?),
            (Some(_), Some("proxy")) if target.kind.resource == "services" => {
                Found::Object(200, super::mayastor::asked(world, &target, &call)?)
            }
            (Some(_), Some("proxy")) => Found::Object(200, super::logs::stats(world, &target, &call)?),
            (Some(_), Some("exec")) => Found::Exec(Box::new((call, target))),
            _ => return Err(Refusal::no_method()),
        })
    })?;
    Ok(match found {
        Found::Object(code, value) => reply(code, &value),
        Found::Discovery(value) => discovered(&value),
        Found::Watch(watch) => watch.answer(shared.clone()),
        Found::Text(text) => wire::answer(StatusCode::OK, "text/plain; charset=utf-8", text),
        Found::Exec(named) => exec::open(shared, &mut request, &named.0, &named.1)?,
    })
}

fn changing(shared: &Arc<Shared>, request: Request<Bytes>) -> Outcome<Answer> {
    let work = |world: &mut World| -> Outcome<Answer> {
        let call = Call::of(&request, time(world));
        if request.method() == Method::POST && request.uri().path().ends_with("/v1/selfsubjectaccessreviews") {
            let user = rbac::user(&world.kube, &request).ok_or_else(Refusal::no_path)?;
            return rbac::review(&world.kube, &user, &call).map(|(code, value)| reply(code, &value));
        }
        let target = call.target(&world.kube)?;
        let (code, value) = if call.dry() {
            let mut copy = world.kube.clone();
            change(&mut copy, &target, &call)?
        } else {
            change(&mut world.kube, &target, &call)?
        };
        Ok(match call.form() {
            Form::Metadata if value.get("metadata").is_some() => reply(code, &read::partial(&value)),
            Form::Table if value.get("metadata").is_some() && super::json::text(&value, "/kind") != "Status" => {
                let row = super::table::render(target.kind, &[Arc::new(value)], &call, true);
                reply(code, &row)
            }
            _ => reply(code, &value),
        })
    };
    shared.change(work)
}

fn change(kube: &mut Kube, target: &Target, call: &Call) -> Outcome<write::Written> {
    let part = target.part.as_deref();
    match (&call.method, target.name.is_some(), part) {
        (&Method::POST, false, None) => write::create(kube, target, call),
        (&Method::POST, true, Some("eviction")) => evict::evict(kube, target, call),
        (&Method::POST, true, Some("exec")) => {
            Err(Refusal::bad("unable to upgrade: this server executes over WebSocket (GET) only"))
        }
        (&Method::PUT, true, None | Some("status" | "scale")) => write::update(kube, target, call),
        (&Method::PATCH, true, None | Some("status" | "scale")) => write::patch(kube, target, call),
        (&Method::DELETE, true, None) => write::delete(kube, target, call),
        _ => Err(Refusal::no_method()),
    }
}

fn reply(code: u16, value: &Value) -> Answer {
    let status = StatusCode::from_u16(code).unwrap_or(StatusCode::OK);
    wire::answer(status, "application/json", value.to_string())
}

fn discovered(value: &Value) -> Answer {
    let kind = match super::json::text(value, "/apiVersion") {
        "apidiscovery.k8s.io/v2" => "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
        "apidiscovery.k8s.io/v2beta1" => "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList",
        _ => "application/json",
    };
    wire::answer(StatusCode::OK, kind, value.to_string())
}

/// A refusal as an answer; a refusal that says when to come back says so in the header too.
fn refused(refusal: &Refusal) -> Answer {
    let mut answer = wire::answer(refusal.status(), "application/json", refusal.body.to_string());
    if let Some(seconds) = super::json::int(&refusal.body, "/details/retryAfterSeconds").filter(|s| *s > 0) {
        answer.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    answer
}
