//! Every change: noted before it is sent, sent once, and what it left written down.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use pvemig::base::fault::{Effect, Fault};
use pvemig::base::permit::{Again, Refused};
use pvemig::proxmox::{ConfigChange, Error, MapEntry, PciEntry, PciMapping};
use serde_json::json;

use super::script::{Asked, Journal, Reply, Script, fixture, ok, ticket, token, vm};

const BASE: &str = "/nodes/still-fawn/qemu/108";

fn upid(kind: &str) -> String {
    format!("UPID:still-fawn:0010C3F2:0A1B2C3D:68F0A1B2:{kind}:108:root@pam!pvemig:")
}

fn answer(kind: &str) -> Reply {
    ok(&json!({ "data": upid(kind) }).to_string())
}

#[tokio::test]
async fn a_config_is_changed_by_post_and_the_upid_is_written_down() {
    let script = Script::play(vec![answer("qmconfig")]);
    let (permit, journal) = Journal::of(&script);
    let change = ConfigChange {
        set: vec![("usb0".into(), "host=1a6e:089a,usb3=1".into()), ("usb1".into(), "host=18d1:9302,usb3=1".into())],
        delete: vec!["usb2".into(), "usb3".into()],
        revert: vec!["usb4".into()],
        digest: Some("1e9b".into()),
    };
    let got = token(&script.url).set_config(&vm(), &change, &permit).await.unwrap().unwrap();
    assert_eq!(got.to_string(), upid("qmconfig"));
    assert_eq!(
        journal.events(),
        [
            format!(
                "note POST {BASE}/config usb0: host=1a6e:089a,usb3=1, usb1: host=18d1:9302,usb3=1, delete usb2,usb3, revert usb4"
            ),
            format!("POST /api2/json{BASE}/config"),
            format!("got 1 upid {}", upid("qmconfig")),
        ]
    );
    let asked = script.end();
    assert_eq!(
        asked[0].json(),
        json!({"usb0": "host=1a6e:089a,usb3=1", "usb1": "host=18d1:9302,usb3=1", "delete": "usb2,usb3", "revert": "usb4", "digest": "1e9b"})
    );
    assert_eq!(asked[0].header("content-type"), Some("application/json"));
    let notes = journal.notes.lock().unwrap();
    let task = notes[0].task.clone().unwrap();
    assert_eq!((notes[0].again, task.kind.as_str(), task.vmid), (Again::Safe, "qmconfig", 108));
    assert_eq!((task.cluster.as_str(), task.node.as_str()), ("home", "still-fawn"));
}

#[tokio::test]
async fn a_change_of_nothing_is_not_sent() {
    let script = Script::play(vec![]);
    let (permit, journal) = Journal::of(&script);
    let change = ConfigChange { digest: Some("1e9b".into()), ..ConfigChange::default() };
    let error = token(&script.url).set_config(&vm(), &change, &permit).await.unwrap_err();
    assert!(matches!(error, Error::BadRequest { .. }), "{error:?}");
    assert!(journal.events().is_empty() && script.end().is_empty());
}

#[tokio::test]
async fn power_calls_are_never_safe_to_send_twice() {
    let minutes = Duration::from_secs(300);
    let cases = [
        ("start", "qmstart", None),
        ("shutdown", "qmshutdown", Some(json!({"timeout": 300, "forceStop": 0}))),
        ("stop", "qmstop", None),
        ("reboot", "qmreboot", Some(json!({"timeout": 300}))),
    ];
    for (word, kind, body) in cases {
        let script = Script::play(vec![answer(kind)]);
        let (permit, journal) = Journal::of(&script);
        let pve = token(&script.url);
        let got = match word {
            "start" => pve.start(&vm(), &permit).await,
            "shutdown" => pve.shutdown(&vm(), minutes, &permit).await,
            "stop" => pve.stop(&vm(), &permit).await,
            _ => pve.reboot(&vm(), minutes, &permit).await,
        };
        assert_eq!(got.unwrap().to_string(), upid(kind), "{word}");
        let events = journal.events();
        assert!(events[0].starts_with(&format!("note POST {BASE}/status/{word}")), "{events:?}");
        assert_eq!(events[1..], [format!("POST /api2/json{BASE}/status/{word}"), format!("got 1 upid {}", upid(kind))]);
        let notes = journal.notes.lock().unwrap();
        assert_eq!((notes[0].again, notes[0].task.as_ref().unwrap().kind.as_str()), (Again::Once, kind));
        let asked = script.end();
        match body {
            Some(body) => assert_eq!(asked[0].json(), body),
            None => {
                assert_eq!((asked[0].body.as_str(), asked[0].header("content-length")), ("", Some("0")));
                assert_eq!(asked[0].header("content-type"), None);
            }
        }
    }
}

#[tokio::test]
async fn a_power_call_without_a_upid_may_have_happened() {
    for (body, what) in [(r#"{"data":null}"#, "no pve task"), (r#"{"data":"fine"}"#, "UPID"), (r#"{}"#, "`data`")] {
        let script = Script::play(vec![ok(body)]);
        let (permit, _) = Journal::of(&script);
        let error = token(&script.url).start(&vm(), &permit).await.unwrap_err();
        assert!(matches!(error, Error::BadAnswer { effect: Effect::Maybe, .. }), "{error:?}");
        assert!(error.to_string().contains(what), "{error}");
        script.end();
    }
}

fn events(asked: &[Asked]) -> Vec<&str> {
    asked.iter().map(|a| a.line.as_str()).collect()
}

#[tokio::test]
async fn mappings_are_made_changed_and_deleted() {
    let null = || ok(r#"{"data":null}"#);
    let entry = MapEntry::new("still-fawn", "18d1:9302".parse().unwrap(), Some(&"2-3".parse().unwrap()));
    let script = Script::play(vec![
        null(),
        ok(&fixture("usb-mappings")),
        null(),
        ok(&fixture("usb-mappings")),
        null(),
        ok(&fixture("usb-mappings")),
        null(),
    ]);
    let (permit, journal) = Journal::of(&script);
    let pve = token(&script.url);
    pve.create_usb_mapping("coral", std::slice::from_ref(&entry), &permit).await.unwrap();
    pve.set_usb_mapping("coral", "still-fawn", Some(&entry), &permit).await.unwrap();
    pve.set_usb_mapping("coral", "still-fawn", None, &permit).await.unwrap();
    let missing = pve.set_usb_mapping("other", "still-fawn", None, &permit).await.unwrap_err();
    assert!(matches!(missing, Error::NoSuchMapping { .. }), "{missing:?}");
    pve.delete_usb_mapping("coral", &permit).await.unwrap();

    let all = [
        "node=pumped-piglet,id=18d1:9302,path=2-1,description=rack",
        "node=still-fawn,id=18d1:9302,path=2-3",
        "node=pve,id=18d1:9302",
    ];
    let digest = "5f7a9b0c2d4e6f801e9b7a3c5d0f4e2b6a8c1d3e";
    let asked = script.end();
    let (list, one) = ("/api2/json/cluster/mapping/usb", "/api2/json/cluster/mapping/usb/coral");
    assert_eq!(
        events(&asked),
        [
            format!("POST {list}"),
            format!("GET {list}"),
            format!("PUT {one}"),
            format!("GET {list}"),
            format!("PUT {one}"),
            format!("GET {list}"),
            format!("DELETE {one}"),
        ]
    );
    assert_eq!(asked[0].json(), json!({"id": "coral", "map": [all[1]]}));
    assert_eq!(asked[2].json(), json!({"map": all, "digest": digest}), "the other nodes' entries are as they were");
    assert_eq!(asked[4].json(), json!({"map": [all[0], all[2]], "digest": digest}));
    assert_eq!(asked[6].body, "", "a body on DELETE is refused");
    let notes = journal.notes.lock().unwrap();
    assert_eq!(notes.len(), 4, "one for each change that was sent");
    assert!(notes.iter().all(|note| note.again == Again::Safe && note.task.is_none()));
}

#[tokio::test]
async fn an_entry_of_a_pci_mapping_is_changed_and_all_others_stay() {
    let changed = r#"{"data":null,"message":"update hardware mapping failed: detected modified configuration - file changed by other user? Try again.\n"}"#;
    let script = Script::play(vec![
        ok(&fixture("pci-mappings")),
        ok(r#"{"data":null}"#),
        Reply::Say(500, "update hardware mapping failed", changed.to_owned()),
    ]);
    let (permit, journal) = Journal::of(&script);
    let pve = token(&script.url);
    let all = pve.pci_mappings().await.unwrap();
    let media = &all[0];
    let old = media.entries("pve").next().unwrap();
    let new = PciEntry(old.0.clone().with("path", "0000:05:00.0").with("iommugroup", "17"));
    pve.set_pci_entry(media, old, &new, &permit).await.unwrap();
    let error = pve.set_pci_entry(media, old, &new, &permit).await.unwrap_err();
    assert!(matches!(error, Error::DigestMismatch { .. }), "{error:?}");
    // What was not read cannot be replaced, and without a digest nothing is.
    let error = pve.set_pci_entry(media, &new, old, &permit).await.unwrap_err();
    assert!(matches!(error, Error::NoSuchMapping { .. }), "{error:?}");
    let bare = PciMapping { digest: None, ..media.clone() };
    let error = pve.set_pci_entry(&bare, old, &new, &permit).await.unwrap_err();
    assert!(matches!(error, Error::NoSuchMapping { .. }), "{error:?}");

    let map = [
        "node=pve,path=0000:05:00.0,id=15b7:5017,iommugroup=17,subsystem-id=15b7:5017",
        "id=15b7:5017,node=still-fawn,path=0000:03:00,description=rack",
        "node=gpu-box,path=0000:01:00.0;0000:01:00.1,id=10de:2684",
        "node=gpu-box,path=0000:02:00.0,id=10de:2684",
    ];
    let asked = script.end();
    let one = "PUT /api2/json/cluster/mapping/pci/media";
    assert_eq!(events(&asked), ["GET /api2/json/cluster/mapping/pci", one, one]);
    assert_eq!(asked[1].json(), json!({"map": map, "digest": "5f7a9b0c2d4e6f801e9b7a3c5d0f4e2b6a8c1d3e"}));
    assert_eq!(asked[2].json(), asked[1].json());
    let notes = journal.notes.lock().unwrap();
    assert!(notes.len() == 2 && notes.iter().all(|note| note.again == Again::Safe && note.task.is_none()));
}

#[tokio::test]
async fn a_permit_that_refuses_keeps_the_change_back() {
    let refused = Refused::Journal("No space left on device".into());
    let (permit, _) = Journal::with(Arc::new(Mutex::default()), Some(refused.clone()));
    let script = Script::play(vec![]);
    let error = token(&script.url).start(&vm(), &permit).await.unwrap_err();
    assert!(matches!(&error, Error::Refused(r) if *r == refused), "{error:?}");
    assert_eq!(error.effect(), Effect::None);
    assert!(script.end().is_empty());
}

#[tokio::test]
async fn a_change_carries_the_csrf_token_and_is_not_sent_again_after_401() {
    let script = Script::play(vec![
        ok(&fixture("ticket")),
        Reply::Say(401, "Permission denied - invalid csrf token", String::new()),
        ok(&fixture("ticket")),
        answer("qmstart"),
    ]);
    let (permit, journal) = Journal::of(&script);
    let pve = ticket(&script.url);
    let error = pve.start(&vm(), &permit).await.unwrap_err();
    assert!(matches!(error, Error::AuthFailed { .. }), "{error:?}");
    assert_eq!(error.effect(), Effect::None);
    pve.start(&vm(), &permit).await.unwrap();
    let asked = script.end();
    assert_eq!(asked.len(), 4, "the next change logs in anew");
    assert_eq!(asked[1].header("csrfpreventiontoken"), Some("68F0A1B2:Y3NyZg"));
    assert_eq!(journal.notes.lock().unwrap().len(), 2, "a login is no change");
}
