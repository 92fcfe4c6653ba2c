//! What a request is to the estate, and who may make it.

use prost::Message;
use tonic::{Code, Status};

use crate::lab::wire::Class;
use crate::talos::proto::cosi::resource::{GetRequest, ListRequest, WatchRequest};
use crate::talos::proto::machine::ApplyConfigurationRequest;

/// The roles of whoever made a request; an extension of it.
#[derive(Debug, Clone, Default)]
pub(super) struct Roles(pub(super) Vec<String>);

impl Roles {
    /// Whether one of these is among them.
    pub(super) fn any(&self, allowed: &[&str]) -> bool {
        self.0.iter().any(|role| allowed.contains(&role.as_str()))
    }
}

const ADMIN: &[&str] = &["os:admin"];
const OPERATOR: &[&str] = &["os:admin", "os:operator"];
const READER: &[&str] = &["os:admin", "os:operator", "os:reader"];
const ETCD: &[&str] = &["os:admin", "os:operator", "os:reader", "os:etcd:backup"];
const SNAPSHOT: &[&str] = &["os:admin", "os:operator", "os:etcd:backup"];

/// The roles that may call a method, by its path (siderolabs/talos `internal/app/machined/pkg/system/services/machined.go`).
fn allowed(path: &str) -> &'static [&'static str] {
    match path {
        "/machine.MachineService/EtcdMemberList"
        | "/machine.MachineService/EtcdStatus"
        | "/machine.MachineService/EtcdAlarmList" => ETCD,
        "/machine.MachineService/EtcdSnapshot" => SNAPSHOT,
        "/machine.MachineService/Version"
        | "/machine.MachineService/ServiceList"
        | "/machine.MachineService/DiskUsage"
        | "/machine.MachineService/Dmesg"
        | "/machine.MachineService/Events"
        | "/machine.MachineService/List"
        | "/machine.MachineService/Memory"
        | "/machine.MachineService/SystemStat"
        | "/cosi.resource.State/Get"
        | "/cosi.resource.State/List"
        | "/cosi.resource.State/Watch" => READER,
        "/machine.MachineService/Reboot" | "/machine.MachineService/Shutdown" | "/machine.ImageService/Pull" => {
            OPERATOR
        }
        _ => ADMIN,
    }
}

/// Whether these roles may call this.
///
/// # Errors
/// What apid answers.
pub(super) fn authorize(path: &str, roles: &Roles) -> Result<(), Status> {
    if roles.any(allowed(path)) { Ok(()) } else { Err(denied()) }
}

/// Whether anybody may call this on a node of 1.`minor` in maintenance, which asks for no certificate (siderolabs/talos
/// `internal/app/maintenance`; from 1.13 on apid with the role of a reader, and what the handlers themselves allow).
///
/// # Errors
/// What the node answers.
pub(super) fn in_maintenance(path: &str, minor: u32) -> Result<Roles, Status> {
    let reader = Roles(vec!["os:reader".into()]);
    let open = path == "/machine.MachineService/ApplyConfiguration";
    if minor < 13 {
        let there = open || path.starts_with("/cosi.resource.State/");
        return match there {
            true => Ok(reader),
            false => Err(Status::unimplemented("API is not implemented in maintenance mode")),
        };
    }
    if open || reader.any(allowed(path)) { Ok(reader) } else { Err(denied()) }
}

/// apid's answer to somebody who may not.
pub(super) fn denied() -> Status {
    Status::permission_denied("not authorized")
}

/// The first message of a body in gRPC's framing.
fn message<M: Message + Default>(body: &[u8]) -> Option<M> {
    let length = body.get(1..5).and_then(|bytes| <[u8; 4]>::try_from(bytes).ok()).map(u32::from_be_bytes)?;
    let end = usize::try_from(length).ok()?.checked_add(5)?;
    M::decode(body.get(5..end)?).ok()
}

/// What a request is to the estate. What is not known to read changes something.
pub(super) fn classify(path: &str, body: &[u8]) -> Class {
    let read = match path.trim_start_matches("/machine.MachineService/") {
        "ApplyConfiguration" => message::<ApplyConfigurationRequest>(body).is_some_and(|request| request.dry_run),
        "DiskUsage" | "Dmesg" | "EtcdAlarmList" | "EtcdMemberList" | "EtcdSnapshot" | "EtcdStatus" | "Events"
        | "Kubeconfig" | "List" | "Memory" | "Read" | "ServiceList" | "SystemStat" | "Version" => true,
        other => other.starts_with("/cosi.resource.State/"),
    };
    if read { Class::Read } else { Class::Change }
}

/// What a request is about, for the log: of a resource its type, and its id.
pub(super) fn about(path: &str, body: &[u8]) -> String {
    let both = |kind: String, id: String| if id.is_empty() { format!("/{kind}") } else { format!("/{kind}/{id}") };
    match path {
        "/cosi.resource.State/Get" => message::<GetRequest>(body).map(|r| both(r.r#type, r.id)),
        "/cosi.resource.State/List" => message::<ListRequest>(body).map(|r| both(r.r#type, String::new())),
        "/cosi.resource.State/Watch" => message::<WatchRequest>(body).map(|r| both(r.r#type, r.id.unwrap_or_default())),
        _ => None,
    }
    .unwrap_or_default()
}

/// gRPC's codes and the HTTP statuses that stand for them in fault rules and in the log (google/rpc/code.proto; a failed
/// precondition has one of its own).
const CODES: &[(Code, u16)] = &[
    (Code::Ok, 200),
    (Code::InvalidArgument, 400),
    (Code::Unauthenticated, 401),
    (Code::PermissionDenied, 403),
    (Code::NotFound, 404),
    (Code::AlreadyExists, 409),
    (Code::FailedPrecondition, 412),
    (Code::ResourceExhausted, 429),
    (Code::Cancelled, 499),
    (Code::Unknown, 500),
    (Code::Unimplemented, 501),
    (Code::Unavailable, 503),
    (Code::DeadlineExceeded, 504),
];

/// The HTTP status that stands for a code.
pub(super) fn http_of(code: Code) -> u16 {
    CODES.iter().find(|(c, _)| *c == code).map_or(500, |(_, http)| *http)
}

/// The code that a rule's status stands for; 1 to 16 are gRPC's own numbers.
pub(super) fn code_of(status: u16) -> Code {
    match CODES.iter().find(|(_, http)| *http == status) {
        Some((code, _)) => *code,
        None if (1..=16).contains(&status) => Code::from_i32(i32::from(status)),
        None => Code::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framed(message: &impl Message) -> Vec<u8> {
        let bytes = message.encode_to_vec();
        let mut body = vec![0];
        body.extend_from_slice(&u32::try_from(bytes.len()).unwrap().to_be_bytes());
        body.extend_from_slice(&bytes);
        body
    }

    #[test]
    fn a_dry_run_reads_and_what_is_unknown_changes() {
        let apply = "/machine.MachineService/ApplyConfiguration";
        let dry = |dry_run| framed(&ApplyConfigurationRequest { dry_run, ..ApplyConfigurationRequest::default() });
        assert_eq!(classify(apply, &dry(true)), Class::Read);
        assert_eq!(classify(apply, &dry(false)), Class::Change);
        assert_eq!(classify(apply, b"\0\0"), Class::Change);
        assert_eq!(classify("/cosi.resource.State/List", b""), Class::Read);
        assert_eq!(classify("/cosi.resource.State", b""), Class::Change);
        assert_eq!(classify("/machine.ImageService/Pull", b""), Class::Change);
        let get = GetRequest { r#type: "Disks.block.talos.dev".into(), id: "sda".into(), ..GetRequest::default() };
        assert_eq!(about("/cosi.resource.State/Get", &framed(&get)), "/Disks.block.talos.dev/sda");
    }

    #[test]
    fn roles_open_what_they_open() {
        let may = |role: &str, method: &str| {
            authorize(&format!("/machine.MachineService/{method}"), &Roles(vec![role.into()])).is_ok()
        };
        let table = [
            ("os:reader", "Version", true),
            ("os:reader", "Reboot", false),
            ("os:reader", "Read", false),
            ("os:reader", "EtcdSnapshot", false),
            ("os:operator", "Reboot", true),
            ("os:operator", "ApplyConfiguration", false),
            ("os:etcd:backup", "EtcdSnapshot", true),
            ("os:etcd:backup", "Version", false),
            ("os:admin", "ApplyConfiguration", true),
            ("", "Version", false),
        ];
        assert_eq!(table.len(), 10);
        for (role, method, yes) in table {
            assert_eq!(may(role, method), yes, "{role} {method}");
        }
    }

    #[test]
    fn codes_go_there_and_back() {
        assert_eq!(CODES.len(), 13);
        for (code, http) in CODES {
            assert_eq!((code_of(*http), http_of(*code)), (*code, *http));
        }
        assert_eq!((code_of(9), code_of(418), http_of(Code::Aborted)), (Code::FailedPrecondition, Code::Unknown, 500));
    }
}
