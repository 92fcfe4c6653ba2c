//! Who calls: tickets with CSRF tokens, and API tokens.

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use bytes::Bytes;
use http::{Method, Request, header};
use percent_encoding::percent_decode_str;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::front::{Data, No};
use super::params::Params;
use crate::base::clock::Clock;
use crate::lab::Shared;
use crate::lab::world::World;

/// A ticket's life in real seconds: the client that renews it lives in real time, whatever the lab's speed.
const TICKET_SECONDS: i64 = 2 * 3600;

/// An authenticated caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Caller {
    /// `root@pam`, or the full token id `root@pam!pvemig`, which is never root itself.
    pub(super) who: String,
}

impl Caller {
    /// What every root-only rule asks.
    pub(super) fn is_root(&self) -> bool {
        self.who == "root@pam"
    }
}

fn sign(world: &World, kind: &str, user: &str, time: &str) -> Option<String> {
    let password = &world.access.users.get(user)?.password;
    Some(STANDARD_NO_PAD.encode(Sha256::digest(format!("{kind}:{user}:{time}:{password}"))))
}

fn now() -> i64 {
    Clock::real().now().as_second()
}

fn fresh(time: &str) -> bool {
    i64::from_str_radix(time, 16).is_ok_and(|t| (-300..TICKET_SECONDS).contains(&(now() - t)))
}

/// `PVE:USER:HEXTIME::SIGNATURE` -> user
fn ticket_user(world: &World, ticket: &str) -> Option<String> {
    let rest = ticket.strip_prefix("PVE:")?;
    let (head, signature) = rest.split_once("::")?;
    let (user, time) = head.rsplit_once(':')?;
    let good = fresh(time) && sign(world, "ticket", user, time)? == signature;
    good.then(|| user.to_owned())
}

/// The caller of a request. A cookie wins over a token.
pub(super) fn caller(shared: &Shared, request: &Request<Bytes>) -> Result<Caller, No> {
    let headers = request.headers();
    let cookie = headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(';'))
        .find_map(|c| c.trim().strip_prefix("PVEAuthCookie="));
    if let Some(cookie) = cookie {
        let ticket = percent_decode_str(cookie).decode_utf8_lossy().into_owned();
        let user =
            shared.read(|w| ticket_user(w, &ticket)).ok_or_else(|| No::Stranger("Authentication failed!".into()))?;
        if request.method() != Method::GET {
            let given = headers.get("CSRFPreventionToken").and_then(|v| v.to_str().ok()).unwrap_or_default();
            let good = given.split_once(':').is_some_and(|(time, signature)| {
                fresh(time) && shared.read(|w| sign(w, "csrf", &user, time)).as_deref() == Some(signature)
            });
            if !good {
                return Err(No::Stranger("Permission denied - invalid csrf token".into()));
            }
        }
        return Ok(Caller { who: user });
    }
    let token = headers
        .get(header::AUTHORIZATION)
        .and_then(|v| v.to_str().ok())
        .and_then(|v| v.strip_prefix("PVEAPIToken"))
        .and_then(|v| v.strip_prefix(['=', ' ']));
    let Some((id, secret)) = token.and_then(|t| t.split_once('=')) else {
        return Err(No::Stranger("No ticket".into()));
    };
    let good = shared.read(|w| w.access.tokens.get(id).is_some_and(|t| t.secret == secret));
    if good { Ok(Caller { who: id.to_owned() }) } else { Err(No::Stranger("Authentication failed!".into())) }
}

/// `POST /access/ticket`
pub(super) fn login(shared: &Shared, request: &Request<Bytes>, params: &Params) -> Result<Data, No> {
    if request.headers().get(header::AUTHORIZATION).is_some_and(|v| v.as_bytes().starts_with(b"PVEAPIToken")) {
        let text = "Permission check failed (URI '/access/ticket' not available with API token, need proper ticket.\n)";
        return Err(No::Says(403, text.into()));
    }
    params.accept(&["username", "password"], &["realm", "otp", "tfa-challenge", "new-format", "path", "privs"])?;
    let mut user = params.text("username").unwrap_or_default();
    if let (false, Some(realm)) = (user.contains('@'), params.text("realm")) {
        user = format!("{user}@{realm}");
    }
    let password = params.text("password").unwrap_or_default();
    shared.read(|world| {
        let good = world.access.users.get(&user).is_some_and(|u| u.password == password)
            || ticket_user(world, &password).is_some_and(|u| u == user);
        if !good {
            return Err(No::BadLogin);
        }
        let time = format!("{:08X}", now());
        let (Some(ticket), Some(csrf)) = (sign(world, "ticket", &user, &time), sign(world, "csrf", &user, &time))
        else {
            return Err(No::BadLogin);
        };
        let cap = |path: &str| {
            json!(
                world
                    .access
                    .rights(&user, path)
                    .keys()
                    .map(|p| (p.clone(), 1))
                    .collect::<Vec<_>>()
                    .into_iter()
                    .collect::<std::collections::BTreeMap<_, _>>()
            )
        };
        Ok(json!({
            "username": user,
            "ticket": format!("PVE:{user}:{time}::{ticket}"),
            "CSRFPreventionToken": format!("{time}:{csrf}"),
            "clustername": "homelab",
            "cap": { "vms": cap("/vms"), "nodes": cap("/nodes"), "mapping": cap("/mapping"), "access": cap("/access"),
                     "storage": cap("/storage"), "sdn": cap("/sdn"), "dc": cap("/") },
        })
        .into())
    })
}

/// `GET /access/permissions`: the caller's own.
pub(super) fn permissions(shared: &Shared, caller: &Caller, params: &Params) -> Result<Data, No> {
    params.accept(&[], &["path", "userid"])?;
    if let Some(other) = params.text("userid").filter(|u| *u != caller.who)
        && !shared.read(|w| w.access.may(&caller.who, "/access", &["Sys.Audit"]))
    {
        return Err(No::Says(403, format!("Permission check failed (/access, Sys.Audit) for '{other}'")));
    }
    let who = params.text("userid").unwrap_or_else(|| caller.who.clone());
    shared.read(|world| {
        let paths = match params.text("path") {
            Some(path) => [path].into(),
            None => world.access.known_paths(),
        };
        let mut out = Map::new();
        for path in paths {
            let rights = world.access.rights(&who, &path);
            if !rights.is_empty() {
                let row: Map<String, Value> = rights.into_iter().map(|(p, down)| (p, u8::from(down).into())).collect();
                out.insert(path, Value::Object(row));
            }
        }
        Ok(Value::Object(out).into())
    })
}
