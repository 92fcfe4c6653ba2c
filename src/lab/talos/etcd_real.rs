//! Calls about etcd of nodes whose etcd is a real one: handed on as Talos does (siderolabs/talos
//! `internal/pkg/etcd/etcd.go`), over etcd's JSON gateway.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tonic::Status;

use crate::base::wait::within;
use crate::talos::proto::machine::{EtcdMember, EtcdMemberAlarm, EtcdMemberStatus, etcd_member_alarm};

/// How long a call may take. A real etcd lives in real time, and waits for a majority for up to seven seconds.
const CALL: Duration = Duration::from_secs(30);

/// The real etcd of a node, and those of all nodes.
pub(super) struct Real {
    /// Where clients reach the node's own.
    pub(super) own: SocketAddr,
    /// Where clients reach them.
    pub(super) all: Vec<SocketAddr>,
}

/// Why a call came to nothing.
pub(super) enum Failed {
    /// Nobody is there.
    Away,
    /// In etcd's words.
    Said(String),
}

/// Which of them is asked.
#[derive(Clone, Copy)]
enum Whom {
    Own,
    Any,
}

impl Failed {
    /// As the call of the node says it; `away` where nobody is there.
    pub(super) fn status(self, prefix: &str, away: impl FnOnce() -> Status) -> Status {
        match self {
            Self::Away => away(),
            // Errors of etcd's client are none of gRPC's.
            Self::Said(text) => Status::unknown(format!("{prefix}{text}")),
        }
    }
}

/// A number as JSON has it: of 64 bits they are texts.
fn number(value: &Value) -> u64 {
    value.as_u64().or_else(|| value.as_str()?.parse().ok()).unwrap_or_default()
}

fn signed(value: &Value) -> i64 {
    i64::try_from(number(value)).unwrap_or(i64::MAX)
}

fn texts(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(|text| text.as_str().map(str::to_owned)).collect()
}

impl Real {
    /// Asks one of them; `led`: not without a leader.
    async fn ask(&self, whom: Whom, led: bool, call: &str, body: Value) -> Result<Vec<Value>, Failed> {
        let addresses = match whom {
            Whom::Own => std::slice::from_ref(&self.own),
            Whom::Any => self.all.as_slice(),
        };
        for address in addresses {
            let Ok(Ok(bytes)) = within(CALL, post(*address, led, call, &body)).await else { continue };
            // A stream is one value a line.
            let values = serde_json::Deserializer::from_slice(&bytes).into_iter::<Value>();
            let values: Vec<Value> = values.filter_map(Result::ok).collect();
            let refused = values.iter().find_map(|value| {
                let error = value.get("error")?;
                error.as_str().or_else(|| error.get("message")?.as_str()).map(str::to_owned)
            });
            return refused.map_or(Ok(values), |text| Err(Failed::Said(text)));
        }
        Err(Failed::Away)
    }

    async fn one(&self, whom: Whom, led: bool, call: &str, body: Value) -> Result<Value, Failed> {
        let mut values = self.ask(whom, led, call, body).await?;
        if values.is_empty() { Err(Failed::Away) } else { Ok(values.swap_remove(0)) }
    }

    pub(super) async fn members(&self, local: bool) -> Result<Vec<EtcdMember>, Failed> {
        let whom = if local { Whom::Own } else { Whom::Any };
        let answer = self.one(whom, true, "cluster/member/list", json!({})).await?;
        let one = |member: &Value| EtcdMember {
            id: number(&member["ID"]),
            hostname: member["name"].as_str().unwrap_or_default().to_owned(),
            peer_urls: texts(&member["peerURLs"]),
            client_urls: texts(&member["clientURLs"]),
            is_learner: member["isLearner"].as_bool().unwrap_or(false),
        };
        Ok(answer["members"].as_array().into_iter().flatten().map(one).collect())
    }

    pub(super) async fn status(&self) -> Result<EtcdMemberStatus, Failed> {
        let answer = self.one(Whom::Own, false, "maintenance/status", json!({})).await?;
        Ok(EtcdMemberStatus {
            protocol_version: answer["version"].as_str().unwrap_or_default().to_owned(),
            db_size: signed(&answer["dbSize"]),
            db_size_in_use: signed(&answer["dbSizeInUse"]),
            leader: number(&answer["leader"]),
            raft_index: number(&answer["raftIndex"]),
            raft_term: number(&answer["raftTerm"]),
            raft_applied_index: number(&answer["raftAppliedIndex"]),
            errors: texts(&answer["errors"]),
            is_learner: answer["isLearner"].as_bool().unwrap_or(false),
            member_id: number(&answer["header"]["member_id"]),
            storage_version: answer["storageVersion"].as_str().unwrap_or_default().to_owned(),
        })
    }

    pub(super) async fn alarms(&self) -> Result<Vec<EtcdMemberAlarm>, Failed> {
        let answer = self.one(Whom::Own, false, "maintenance/alarm", json!({ "action": "GET" })).await?;
        let one = |alarm: &Value| {
            let kind = match alarm["alarm"].as_str() {
                Some("NOSPACE") => etcd_member_alarm::AlarmType::Nospace,
                Some("CORRUPT") => etcd_member_alarm::AlarmType::Corrupt,
                _ => etcd_member_alarm::AlarmType::None,
            };
            EtcdMemberAlarm { member_id: number(&alarm["memberID"]), alarm: kind.into() }
        };
        Ok(answer["alarms"].as_array().into_iter().flatten().map(one).collect())
    }

    pub(super) async fn remove(&self, id: u64) -> Result<(), Failed> {
        self.one(Whom::Any, true, "cluster/member/remove", json!({ "ID": id.to_string() })).await.map(drop)
    }

    /// Removes the node's own member, whose etcd then ends by itself.
    pub(super) async fn leave(&self) -> Result<(), Failed> {
        let id = self.status().await?.member_id;
        self.one(Whom::Own, true, "cluster/member/remove", json!({ "ID": id.to_string() })).await.map(drop)
    }

    /// Moves the leadership to the first other member; its name, or nothing where this one does not lead.
    pub(super) async fn forfeit(&self) -> Result<String, Failed> {
        let listed = self.members(true).await.map_err(|failed| match failed {
            Failed::Said(text) => Failed::Said(format!("failed to list etcd members: {text}")),
            Failed::Away => Failed::Away,
        })?;
        if listed.len() == 1 {
            return Err(Failed::Said("cannot forfeit leadership, only one member".into()));
        }
        let status = self.status().await?;
        if status.leader != status.member_id {
            return Ok(String::new());
        }
        let Some(next) = listed.iter().find(|member| member.id != status.member_id) else { return Ok(String::new()) };
        let body = json!({ "targetID": next.id.to_string() });
        self.one(Whom::Own, true, "maintenance/transfer-leadership", body).await?;
        Ok(next.hostname.clone())
    }

    /// The database, and the digest that etcd sends behind it.
    pub(super) async fn snapshot(&self) -> Result<Vec<u8>, Failed> {
        let pieces = self.ask(Whom::Own, false, "maintenance/snapshot", json!({})).await?;
        let mut bytes = Vec::new();
        for piece in pieces {
            let blob = piece["result"]["blob"].as_str().unwrap_or_default();
            bytes.extend(STANDARD.decode(blob).map_err(|error| Failed::Said(error.to_string()))?);
        }
        Ok(bytes)
    }
}

/// Sends a request on a connection of its own.
async fn post(address: SocketAddr, led: bool, call: &str, body: &Value) -> io::Result<Bytes> {
    let stream = tokio::net::TcpStream::connect(address).await?;
    let (mut send, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    let mut request = http::Request::post(format!("/v3/{call}")).header("Host", address.to_string());
    if led {
        // etcd's clientv3.WithRequireLeader, through the gateway.
        request = request.header("Grpc-Metadata-hasleader", "true");
    }
    let request = request.body(Full::new(Bytes::from(body.to_string()))).map_err(io::Error::other)?;
    // The sender goes with the answer, and the connection with the sender.
    let asked = async move {
        let answer = send.send_request(request).await?;
        Ok::<_, hyper::Error>(answer.into_body().collect().await?.to_bytes())
    };
    let (answer, _ended) = tokio::join!(asked, connection);
    answer.map_err(io::Error::other)
}
