//! The error table: each refusal of the server, its cause, and what it leaves behind.

use pvemig::base::fault::{Effect, Fault};
use pvemig::proxmox::{AgentCause, Error};
use serde_json::json;

use super::script::{Journal, Reply, Script, token, vm};

type Is = fn(&Error) -> bool;

/// Text, status, cause. All are refusals: nothing was changed, unless said otherwise below.
const REFUSALS: &[(u16, &str, Is)] = &[
    (401, "no such token 'x' for user 'root@pam'", |e| matches!(e, Error::AuthFailed { .. })),
    (
        403,
        "Permission check failed (/vms/108, VM.PowerMgmt)",
        |e| matches!(e, Error::NotAuthorized { privilege, path, .. } if privilege == "VM.PowerMgmt" && path == "/vms/108"),
    ),
    (
        403,
        "Permission check failed (/, Sys.Audit|Sys.Modify)",
        |e| matches!(e, Error::NotAuthorized { privilege, .. } if privilege == "Sys.Audit|Sys.Modify"),
    ),
    (403, "Permission check failed (configuring device passthrough is only allowed for root@pam)", |e| {
        matches!(e, Error::RootOnly { .. })
    }),
    (403, "Permission check failed (URI '/access/ticket' not available with API token, need proper ticket.)", |e| {
        matches!(e, Error::NeedsTicket { .. })
    }),
    (403, "Permission check failed", |e| matches!(e, Error::Forbidden { .. })),
    (500, "Configuration file 'nodes/still-fawn/qemu-server/108.conf' does not exist", |e| {
        matches!(e, Error::NoSuchVm { .. })
    }),
    (500, "no such cluster node 'still-fawn'", |e| matches!(e, Error::NoSuchNode { .. })),
    (500, "hostname lookup 'x' failed - failed to get address info for: x: Name or service not known", |e| {
        matches!(e, Error::NoSuchNode { .. })
    }),
    (500, "VM is locked (snapshot-delete)", |e| matches!(e, Error::Locked { lock, .. } if lock == "snapshot-delete")),
    (500, "can't lock file '/var/lock/qemu-server/lock-108.conf' - got timeout", |e| {
        matches!(e, Error::LockBusy { .. })
    }),
    (500, "cfs-lock 'file-mapping_usb_cfg' error: got lock request timeout", |e| matches!(e, Error::LockBusy { .. })),
    (500, "cfs-lock 'file-mapping_usb_cfg' error: no quorum!", |e| matches!(e, Error::NoQuorum { .. })),
    (500, "cluster not ready - no quorum?", |e| matches!(e, Error::NoQuorum { .. })),
    (500, "checksum mismatch (file change by other user?)", |e| matches!(e, Error::DigestMismatch { .. })),
    (500, "detected modified configuration - file changed by other user? Try again.", |e| {
        matches!(e, Error::DigestMismatch { .. })
    }),
    (500, "only root can set 'usb0' config for real devices", |e| matches!(e, Error::RootOnly { .. })),
    (400, "Only root may use this option.", |e| matches!(e, Error::RootOnly { .. })),
    (500, "VM 108 not running", |e| matches!(e, Error::WrongPower { .. })),
    (500, "VM is paused - cannot shutdown", |e| matches!(e, Error::WrongPower { .. })),
    (500, "create hardware mapping failed: usb ID 'coral' already defined", |e| {
        matches!(e, Error::MappingExists { .. })
    }),
    (500, "mapping 'coral' not found", |e| matches!(e, Error::NoSuchMapping { .. })),
    (500, "PCI device mapping not found for 'media'", |e| matches!(e, Error::MappingUnfit { .. })),
    (500, "PCI device mapping invalid (hardware probably changed): pci device '0000:04:00.0' not found", |e| {
        matches!(e, Error::MappingUnfit { .. })
    }),
    (500, "only root can set 'hostpci0' config for non-mapped devices", |e| matches!(e, Error::RootOnly { .. })),
    (500, "USB device mapping not found for 'coral'", |e| matches!(e, Error::MappingUnfit { .. })),
    (500, "USB Mapping invalid (hardware probably changed): usb device '2-1' not found", |e| {
        matches!(e, Error::MappingUnfit { .. })
    }),
    (501, "Method 'GET /x' not implemented", |e| matches!(e, Error::NotImplemented { .. })),
    (500, "No QEMU guest agent configured", |e| agent(e) == Some(&AgentCause::NotConfigured)),
    (500, "VM 108 is not running", |e| agent(e) == Some(&AgentCause::VmOff)),
    (500, "QEMU guest agent is not running", |e| agent(e) == Some(&AgentCause::Silent)),
    (500, "VM 108 qga command 'guest-exec' failed - got timeout", |e| agent(e) == Some(&AgentCause::TimedOut)),
    (500, "VM 108 qmp command 'guest-ping' failed - got timeout", |e| agent(e) == Some(&AgentCause::TimedOut)),
    (500, "Agent error: Command guest-exec has been disabled", |e| matches!(agent(e), Some(AgentCause::Disabled(_)))),
    (
        500,
        "Agent error: Guest agent command failed, error was 'Failed to execute child process \u{201c}lsusb\u{201d}'",
        |e| matches!(agent(e), Some(AgentCause::NoProgram(_))),
    ),
    (500, "Agent error: something else", |e| matches!(agent(e), Some(AgentCause::Said(_)))),
];

fn agent(error: &Error) -> Option<&AgentCause> {
    match error {
        Error::Agent { cause, .. } => Some(cause),
        _ => None,
    }
}

/// The places in which a server puts the text, by its age.
fn shapes(status: u16, text: &'static str) -> Vec<Reply> {
    let message = json!({"data": null, "message": format!("{text}\n")}).to_string();
    let mut shapes = vec![Reply::Say(status, "Odd Phrase", message)];
    if text.is_ascii() {
        shapes.push(Reply::Say(status, text, r#"{"data":null}"#.into()));
        shapes.push(Reply::Say(status, text, String::new()));
    }
    shapes
}

#[tokio::test]
async fn every_refusal_has_its_cause_wherever_its_text_is() {
    let mut count = 0;
    for (status, text, is) in REFUSALS {
        for shape in shapes(*status, text) {
            let script = Script::play(vec![shape]);
            let error = token(&script.url).status(&vm()).await.unwrap_err();
            assert!(is(&error), "{status} {text}: {error:?}");
            assert_eq!(error.effect(), Effect::None, "{text}");
            assert!(error.to_string().contains("cluster home"), "the target is in the text: {error}");
            assert_eq!(script.end().len(), 1, "a refusal is not asked again: {text}");
            count += 1;
        }
    }
    assert_eq!((REFUSALS.len(), count), (36, 36 * 3 - 2));
}

#[tokio::test]
async fn a_refused_change_changed_nothing_and_is_not_sent_again() {
    let mut count = 0;
    for (status, text, is) in REFUSALS {
        let Some(shape) = shapes(*status, text).into_iter().next() else { continue };
        let script = Script::play(vec![shape]);
        let (permit, journal) = Journal::of(&script);
        let error = token(&script.url).start(&vm(), &permit).await.unwrap_err();
        assert!(is(&error), "{status} {text}: {error:?}");
        // What the agent did not answer in time it keeps, and carries it out later.
        let kept = agent(&error) == Some(&AgentCause::TimedOut);
        assert_eq!(error.effect(), if kept { Effect::Maybe } else { Effect::None }, "{text}");
        assert_eq!((script.end().len(), journal.notes.lock().unwrap().len()), (1, 1), "{text}");
        count += 1;
    }
    assert_eq!(count, 36);
}

#[tokio::test]
async fn refused_parameters_are_named_and_a_kept_one_is_told_apart() {
    let body =
        |why: &str| json!({"data": null, "errors": {"usb0": why}, "message": "Parameter verification failed.\n"});
    let phrase = "Parameter verification failed.";
    let script = Script::play(vec![Reply::Say(400, phrase, body("invalid format - format error\n").to_string())]);
    let error = token(&script.url).status(&vm()).await.unwrap_err();
    assert!(
        matches!(&error, Error::BadParameter { errors, .. } if errors["usb0"] == "invalid format - format error"),
        "{error:?}"
    );
    assert!(error.to_string().ends_with("refused parameters: usb0: invalid format - format error"), "{error}");
    script.end();

    let kept = "hotplug problem - error on hot-unplugging device 'usb0' - still busy in guest?";
    let script = Script::play(vec![Reply::Say(400, phrase, body(kept).to_string())]);
    let (permit, _) = Journal::of(&script);
    let error = token(&script.url).start(&vm(), &permit).await.unwrap_err();
    assert!(matches!(error, Error::PendingKept { .. }), "{error:?}");
    assert_eq!(error.effect(), Effect::Partial);
    script.end();
}

#[tokio::test]
async fn an_unknown_refusal_keeps_its_text_and_may_have_changed_something() {
    let odd = || Reply::Say(500, "the cat sat on it", r#"{"data":null}"#.into());
    let script = Script::play(vec![odd(), odd()]);
    let pve = token(&script.url);
    let (permit, _) = Journal::of(&script);
    let question = pve.status(&vm()).await.unwrap_err();
    assert!(matches!(question, Error::Unexpected { status: 500, effect: Effect::None, .. }), "{question:?}");
    let change = pve.start(&vm(), &permit).await.unwrap_err();
    assert!(matches!(change, Error::Unexpected { status: 500, effect: Effect::Maybe, .. }), "{change:?}");
    assert!(change.to_string().contains("the cat sat on it"), "{change}");
    script.end();
}

#[test]
fn what_may_pass_is_retryable_and_what_needs_a_hand_has_help() {
    let at = || "vm 108 on still-fawn (cluster home)".to_owned();
    let why = String::new;
    let passes = [
        Error::NoAnswer { at: at(), why: why() },
        Error::Locked { at: at(), lock: "backup".into() },
        Error::LockBusy { at: at(), why: why() },
        Error::DigestMismatch { at: at() },
        Error::NoQuorum { at: at() },
        Error::Agent { at: at(), cause: AgentCause::Silent, effect: Effect::None },
    ];
    assert!(passes.iter().all(Fault::retryable));
    // Its saved memory hangs on the lock of a hibernated VM.
    let hibernated = Error::Locked { at: at(), lock: "suspended".into() }.help().unwrap();
    assert!(hibernated.contains("`qm resume VMID`") && !hibernated.contains("unlock"), "{hibernated}");
    assert!(passes[1].help().unwrap().contains("unlock"));
    let stays = [
        Error::LostAnswer { at: at(), why: why() },
        Error::RootOnly { at: at(), what: why() },
        Error::NotAuthorized { at: at(), privilege: "VM.Audit".into(), path: "/vms/108".into() },
        Error::AuthFailed { at: at(), user: "root@pam".into(), why: why() },
        Error::PendingKept { at: at(), why: why() },
        Error::Agent { at: at(), cause: AgentCause::NotConfigured, effect: Effect::None },
    ];
    assert!(stays.iter().all(|error| !error.retryable() && error.help().is_some()));
    assert_eq!(stays[2].help().as_deref(), Some("grant VM.Audit on /vms/108 to these credentials"));
}
