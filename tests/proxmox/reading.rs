//! Every question: method, path, query, and what is made of the answer.

use pvemig::base::fault::{Effect, Fault};
use pvemig::base::names::UsbId;
use pvemig::proxmox::{Error, MapEntry, TaskFilter, UsbStyle, free_usb_slots, places_text, usb_hotplugs};
use wiremock::matchers::{header, method, path, query_param};
use wiremock::{Mock, MockServer, ResponseTemplate};

use super::script::{Journal, Reply, Script, fixture, ok, ticket, token, vm};

/// A server that answers one GET, and only that, with a fixture.
async fn serve(at: &str, query: &[(&str, &str)], name: &str) -> MockServer {
    let server = MockServer::start().await;
    also(&server, at, query, name).await;
    server
}

async fn also(server: &MockServer, at: &str, query: &[(&str, &str)], name: &str) {
    let mut mock = Mock::given(method("GET"))
        .and(path(format!("/api2/json{at}")))
        .and(header("authorization", "PVEAPIToken=root@pam!pvemig=s3cr3t-uuid"));
    for (key, value) in query {
        mock = mock.and(query_param(*key, *value));
    }
    let answer = ResponseTemplate::new(200).set_body_raw(fixture(name), "application/json;charset=UTF-8");
    mock.respond_with(answer).expect(1).mount(server).await;
}

#[tokio::test]
async fn the_cluster_as_a_whole() {
    let server = serve("/version", &[], "version").await;
    also(&server, "/nodes", &[], "nodes").await;
    also(&server, "/cluster/status", &[], "cluster-status").await;
    also(&server, "/cluster/ha/resources", &[], "ha-resources").await;
    let pve = token(&server.uri());

    let version = pve.version().await.unwrap();
    assert_eq!((version.version.as_str(), version.major()), ("9.1.4", Some(9)));
    let nodes = pve.nodes().await.unwrap();
    assert_eq!(nodes.len(), 2);
    assert_eq!((nodes[0].uptime, nodes[0].ssl_fingerprint.as_deref()), (Some(86400), Some("AA:BB:CC")));
    assert_eq!((nodes[1].status.as_str(), nodes[1].uptime), ("offline", None));
    let status = pve.cluster_status().await.unwrap();
    assert_eq!((status.name.as_deref(), status.quorate), (Some("home"), true));
    assert_eq!(status.nodes.iter().map(|n| (n.online, n.local)).collect::<Vec<_>>(), [(true, true), (false, false)]);
    let ha = pve.ha_resources().await.unwrap();
    assert_eq!((ha[0].sid.as_str(), ha[0].state.as_deref()), ("vm:108", Some("started")));
}

#[tokio::test]
async fn a_lone_host_is_quorate_and_a_cluster_says_when_it_is_not() {
    let server = serve("/cluster/status", &[], "cluster-status-lone").await;
    let status = token(&server.uri()).cluster_status().await.unwrap();
    assert_eq!((status.name, status.quorate, status.nodes.len()), (None, true, 1));

    let script = Script::play(vec![ok(r#"{"data":[{"type":"cluster","name":"home","quorate":"0"}]}"#)]);
    assert!(!token(&script.url).cluster_status().await.unwrap().quorate);
    script.end();
}

#[tokio::test]
async fn where_a_vm_is() {
    for (vmid, node) in [(105, Some("pumped-piglet")), (108, Some("still-fawn")), (107, None), (999, None)] {
        let server = serve("/cluster/resources", &[("type", "vm")], "resources-vm").await;
        let found = token(&server.uri()).locate(vmid).await;
        match node {
            Some(node) => assert_eq!(found.unwrap().node, node),
            None => {
                let error = found.unwrap_err();
                assert!(matches!(error, Error::NoSuchVm { .. }), "{error:?}");
                assert!(error.to_string().contains(&format!("vm {vmid} (cluster home)")), "{error}");
            }
        }
    }
    let server = serve("/cluster/resources", &[("type", "vm")], "resources-vm").await;
    let rows = token(&server.uri()).resources().await.unwrap();
    assert_eq!(rows.len(), 3);
    assert_eq!((rows[2].lock.as_deref(), rows[2].hastate.as_deref()), (Some("backup"), Some("started")));
}

#[tokio::test]
async fn what_the_credentials_may_do() {
    let server = serve("/access/permissions", &[("path", "/vms/108")], "permissions").await;
    let permissions = token(&server.uri()).permissions(Some("/vms/108")).await.unwrap();
    assert!(permissions.has("/vms/108", "VM.PowerMgmt"));
    assert!(permissions.has("/vms/108", "VM.Config.HWType"), "held, though not handed down");
    assert!(!permissions.has("/vms/108", "VM.Allocate") && !permissions.has("/", "Sys.Audit"));

    for empty in [r#"{"data":{}}"#, r#"{"data":[]}"#] {
        let script = Script::play(vec![ok(empty)]);
        assert!(token(&script.url).permissions(None).await.unwrap().0.is_empty());
        assert_eq!(script.end()[0].line, "GET /api2/json/access/permissions");
    }
}

#[tokio::test]
async fn pending_tells_apart_what_is_and_what_will_be() {
    let base = "/nodes/still-fawn/qemu/108";
    let server = serve(&format!("{base}/pending"), &[], "pending").await;
    let pending = token(&server.uri()).pending(&vm()).await.unwrap();

    assert_eq!(pending.digest, "1e9b7a3c5d0f4e2b6a8c1d3e5f7a9b0c2d4e6f80");
    assert_eq!(pending.value("cores"), Some("4"));
    assert_eq!((pending.value("memory"), pending.configured("memory")), (Some("8192"), Some("16384")));
    let usb: Vec<_> =
        pending.usb().into_iter().map(|(n, k)| (n, k.value.is_some(), k.configured().is_some())).collect();
    assert_eq!(usb, [(0, true, true), (1, false, true), (2, true, false), (3, true, false)]);
    assert_eq!(pending.changed().map(|(key, _)| key).collect::<Vec<_>>(), ["memory", "usb1", "usb2", "usb3"]);
    let keys = pending.keys.keys().map(String::as_str);
    let free = free_usb_slots(keys, pending.configured("machine"), pending.configured("ostype"));
    assert_eq!(free, [4, 5, 6, 7, 8, 9, 10, 11, 12, 13]);
    assert_eq!(server.received_requests().await.unwrap().len(), 1, "the digest is of the same reading");
    let script = Script::play(vec![ok(r#"{"data":[{"key":"cores","value":4}]}"#)]);
    let error = token(&script.url).pending(&vm()).await.unwrap_err();
    assert!(matches!(error, Error::BadAnswer { .. }) && error.to_string().contains("no digest"), "{error}");
    script.end();
}

/// What the cluster's list says of a VM's place, and the refusal of a node that does not have it.
fn place(vmid: u32, node: &str) -> Reply {
    ok(&format!(r#"{{"data":[{{"type":"qemu","vmid":{vmid},"node":"{node}","status":"running"}}]}}"#))
}

fn gone(node: &str) -> Reply {
    let text = format!("Configuration file 'nodes/{node}/qemu-server/108.conf' does not exist");
    Reply::Say(500, "Internal Server Error", serde_json::json!({"data": null, "message": text}).to_string())
}

const LIST: &str = "GET /api2/json/cluster/resources?type=vm";

#[tokio::test]
async fn a_place_is_remembered_until_the_vm_is_not_there() {
    let stopped = || ok(r#"{"data":{"status":"stopped"}}"#);
    let replies = vec![place(108, "fawn"), stopped(), gone("fawn"), place(108, "piglet"), stopped()];
    let script = Script::play(replies);
    let pve = token(&script.url);
    let at = pve.locate(108).await.unwrap();
    assert_eq!(pve.locate(108).await.unwrap(), at);
    assert_eq!(pve.status(&at).await.unwrap().status, "stopped");
    let error = pve.status(&at).await.unwrap_err();
    let now = pve.moved(&at, error).await.unwrap();
    assert_eq!((now.node.as_str(), pve.locate(108).await.unwrap()), ("piglet", now.clone()));
    assert_eq!(pve.status(&now).await.unwrap().status, "stopped");
    // Any other error is not about its place.
    let other = Error::NoQuorum { at: "home".into() };
    assert!(matches!(pve.moved(&now, other).await, Err(Error::NoQuorum { .. })));
    let status = |node: &str| format!("GET /api2/json/nodes/{node}/qemu/108/status/current");
    let lines: Vec<_> = script.end().into_iter().map(|asked| asked.line).collect();
    assert_eq!(lines, [LIST.into(), status("fawn"), status("fawn"), LIST.into(), status("piglet")]);
}

#[tokio::test]
async fn a_place_that_does_not_answer_is_not_held_on_to() {
    let lost = || Reply::Say(595, "No route to host", r#"{"data":null}"#.into());
    let refused = || Reply::Say(500, "VM is locked (migrate)", r#"{"data":null}"#.into());
    // What a node says that does not have the VM, how often it is said, and how often the list is read in all.
    type Row = (fn() -> Reply, usize, usize);
    let table: [Row; 3] = [(|| gone("fawn"), 1, 2), (lost, 4, 2), (refused, 1, 1)];
    for (i, (reply, times, lists)) in table.into_iter().enumerate() {
        let mut replies = vec![place(108, "fawn")];
        replies.extend((0..times).map(|_| reply()));
        replies.extend((1..lists).map(|_| place(108, "piglet")));
        let script = Script::play(replies);
        let pve = token(&script.url);
        let at = pve.locate(108).await.unwrap();
        pve.status(&at).await.unwrap_err();
        assert_eq!(pve.locate(108).await.unwrap() == at, lists == 1, "row {i}");
        assert_eq!(script.end().iter().filter(|asked| asked.line == LIST).count(), lists, "row {i}");
    }
}

#[tokio::test]
async fn where_it_has_to_be_known_now_the_list_is_asked() {
    let script = Script::play(vec![place(108, "fawn"), place(108, "piglet"), place(105, "fawn"), place(105, "fawn")]);
    let pve = token(&script.url);
    for node in ["fawn", "piglet"] {
        assert_eq!(pve.locate_now(108).await.unwrap().node, node);
        assert_eq!(pve.locate(108).await.unwrap().node, node);
    }
    // The list is the whole truth: what it has no more is nowhere.
    pve.resources().await.unwrap();
    assert!(matches!(pve.locate(108).await, Err(Error::NoSuchVm { .. })));
    assert_eq!(script.end().len(), 4);
}

#[tokio::test]
async fn a_change_that_meets_a_vm_moved_is_not_sent_again() {
    let script = Script::play(vec![place(108, "fawn"), gone("fawn"), place(108, "piglet")]);
    let (permit, _) = Journal::of(&script);
    let pve = token(&script.url);
    let at = pve.locate(108).await.unwrap();
    let error = pve.start(&at, &permit).await.unwrap_err();
    assert_eq!((matches!(error, Error::NoSuchVm { .. }), error.effect()), (true, Effect::None), "{error:?}");
    assert_eq!(pve.locate(108).await.unwrap().node, "piglet");
    assert_eq!(script.end().iter().filter(|asked| asked.line.starts_with("POST")).count(), 1);
}

#[tokio::test]
async fn a_look_by_the_agent_follows_the_vm() {
    let pid = ok(r#"{"data":{"pid":1}}"#);
    let end = ok(r#"{"data":{"exited":1,"exitcode":0,"out-data":"x"}}"#);
    let ping = ok(r#"{"data":{"result":{}}}"#);
    // Where it is by now is asked of the list of that moment, each time.
    let now = || place(108, "piglet");
    let replies = vec![place(108, "fawn"), gone("fawn"), now(), pid, end, gone("fawn"), now(), ping];
    let script = Script::play(replies);
    let pve = token(&script.url);
    let at = pve.locate(108).await.unwrap();
    let found = pve.agent_look(&at, &["/bin/true"], None).await.unwrap();
    assert_eq!(found.stdout, b"x");
    pve.agent_ping(&at).await.unwrap();
    let lines: Vec<_> = script.end().into_iter().map(|asked| asked.line).collect();
    let of = |node: &str| lines.iter().filter(|line| line.contains(&format!("/nodes/{node}/"))).count();
    assert_eq!((of("fawn"), of("piglet"), lines.len()), (2, 3, 8), "{lines:?}");
}

#[tokio::test]
async fn what_a_vm_runs_with() {
    let base = "/nodes/still-fawn/qemu/108";
    let server = serve(&format!("{base}/config"), &[("current", "1")], "config-current").await;
    also(&server, &format!("{base}/status/current"), &[], "status-running").await;
    let pve = token(&server.uri());
    let config = pve.running_config(&vm()).await.unwrap();
    assert_eq!(config.get("usb0").map(String::as_str), Some("host=1a6e:089a,usb3=1"));
    assert_eq!((config.get("usb1"), config.get("digest"), config.len()), (None, None, 6));
    let status = pve.status(&vm()).await.unwrap();
    assert!(status.is_running() && status.agent && !status.is_ha_managed());
    assert_eq!((status.pid, status.uptime, status.lock.as_deref()), (Some(4711), Some(3600), None));
    let machine = status.running_machine.as_deref();
    assert_eq!(UsbStyle::of(machine, Some("l26")), UsbStyle::Modern);
    assert!(usb_hotplugs(machine, Some("l26"), None));

    let server = serve(&format!("{base}/status/current"), &[], "status-stopped").await;
    let status = token(&server.uri()).status(&vm()).await.unwrap();
    assert!(!status.is_running() && !status.agent && status.is_ha_managed());
    assert_eq!((status.pid, status.uptime, status.lock.as_deref()), (None, Some(0), Some("backup")));
}

#[tokio::test]
async fn usb_devices_and_mappings() {
    let server = serve("/nodes/still-fawn/hardware/usb", &[], "usb-devices").await;
    also(&server, "/cluster/mapping/usb", &[("check-node", "still-fawn")], "usb-mappings").await;
    let pve = token(&server.uri());

    let devices = pve.usb_devices("still-fawn").await.unwrap();
    assert_eq!(devices.len(), 3);
    assert_eq!((devices[0].port(), devices[0].is_hub()), (None, true));
    let coral = &devices[1];
    assert_eq!((coral.port().unwrap().to_string(), coral.id.to_string()), ("2-1".into(), "1a6e:089a".into()));
    assert_eq!((coral.speed, coral.dev, coral.is_hub(), coral.product.as_deref()), (5000.0, 3, false, None));
    assert_eq!(devices[2].id, UsbId { vendor: 0x1234, product: 2 });
    assert_eq!((devices[2].port().unwrap().to_string(), devices[2].speed), ("1-1.4".into(), 1.5));

    let mappings = pve.usb_mappings(Some("still-fawn")).await.unwrap();
    let entry = mappings[0].entry("still-fawn").unwrap();
    assert_eq!(
        (entry.id().unwrap().to_string(), entry.path().unwrap().to_string()),
        ("1a6e:089a".into(), "2-3".into())
    );
    assert_eq!((mappings[0].entry("pve").and_then(MapEntry::path), mappings[0].entry("nobody")), (None, None));
    assert!(mappings[0].errors[0].message.contains("usb device '2-3' not found"));
}

#[tokio::test]
async fn pci_devices_and_mappings() {
    let server = serve("/nodes/pve/hardware/pci", &[], "pci-devices").await;
    also(&server, "/cluster/mapping/pci", &[], "pci-mappings").await;
    let pve = token(&server.uri());

    let devices = pve.pci_devices("pve").await.unwrap();
    let shown: Vec<_> = devices.iter().map(|d| (d.id.as_str(), d.is_nvme(), d.iommugroup)).collect();
    assert_eq!(
        shown,
        [("0000:04:00.0", true, Some(15)), ("0000:00:02.0", false, Some(-1)), ("0000:05:00.0", false, None)]
    );
    assert_eq!(devices[0].vendor_device().as_deref(), Some("15b7:5017"));
    assert_eq!((devices[0].subsystem().as_deref(), devices[1].subsystem()), (Some("15b7:5017"), None));

    let mappings = pve.pci_mappings().await.unwrap();
    assert_eq!((mappings.len(), mappings[1].map.len(), mappings[1].digest.as_deref()), (2, 0, None));
    let of = |node: &str| -> Vec<String> {
        let all = mappings[0].entries(node).map(|entry| places_text(&entry.places().unwrap()));
        all.collect()
    };
    assert_eq!(of("pve"), ["0000:04:00.0"]);
    assert_eq!(of("still-fawn"), ["0000:03:00"]);
    assert_eq!(of("gpu-box"), ["0000:01:00.0;0000:01:00.1", "0000:02:00.0"]);
    assert_eq!(of("nobody").len(), 0);
    let entry = mappings[0].entries("pve").next().unwrap();
    assert_eq!((entry.id(), entry.iommugroup()), (Some("15b7:5017"), Some("15")));
}

#[tokio::test]
async fn a_lost_pve_task_is_found_again() {
    let since = jiff::Timestamp::from_second(1_760_600_512).unwrap();
    let query = [("source", "all"), ("vmid", "108"), ("since", "1760600212"), ("limit", "500")];
    let cases = [
        ("qmshutdown", Some("0000AAAA")), // the newest of ours; a later one is somebody else's
        ("qmstart", Some("0000DDDD")),    // under high availability: hastart
        ("qmreboot", None),
    ];
    for (kind, pid) in cases {
        let server = serve("/nodes/still-fawn/tasks", &query, "tasks").await;
        let found = token(&server.uri()).find_task("still-fawn", 108, kind, since).await.unwrap();
        assert_eq!(found.map(|upid| format!("{:08X}", upid.pid)).as_deref(), pid, "{kind}");
    }
    let server = serve("/nodes/still-fawn/tasks", &[("source", "active")], "tasks").await;
    let filter = TaskFilter { active_only: true, ..TaskFilter::default() };
    let rows = token(&server.uri()).tasks("still-fawn", &filter).await.unwrap();
    assert_eq!(rows.iter().map(|row| row.is_running()).collect::<Vec<_>>(), [true, false, false, true]);

    // A backup of several guests has no guest's id; a shell on the node has none either.
    let query = [("source", "active"), ("limit", "500")];
    for (lock, kinds) in [("backup", vec!["vzdump", "qmsnapshot"]), ("snapshot", vec!["qmsnapshot"])] {
        let server = serve("/nodes/still-fawn/tasks", &query, "tasks-backup").await;
        let rows = token(&server.uri()).at_work_on(&vm(), lock).await.unwrap();
        assert_eq!(rows.iter().map(|row| row.upid.kind.as_str()).collect::<Vec<_>>(), kinds, "{lock}");
    }
}

#[tokio::test]
async fn a_login_is_made_once_kept_and_renewed_on_401() {
    let version = || ok(&fixture("version"));
    let script = Script::play(vec![
        ok(&fixture("ticket")),
        version(),
        version(),
        Reply::Say(401, "permission denied - invalid PVE ticket", String::new()),
        ok(&fixture("ticket").replace("c2ln", "bmV3")),
        version(),
    ]);
    let pve = ticket(&script.url);
    assert!(pve.is_root());
    for _ in 0..3 {
        pve.version().await.unwrap();
    }
    let asked = script.end();
    let lines: Vec<_> = asked.iter().map(|a| a.line.as_str()).collect();
    let (login, question) = ("POST /api2/json/access/ticket", "GET /api2/json/version");
    assert_eq!(lines, [login, question, question, question, login, question]);
    assert_eq!(asked[0].body, "username=root%40pam&password=p%26ss+w%C3%B6rd");
    let cookie = "PVEAuthCookie=PVE%3Aroot%40pam%3A68F0A1B2%3A%3Ac2ln%2BbmF0%2FdXJl%3D%3D";
    assert_eq!(asked[1].header("cookie"), Some(cookie));
    assert_eq!(asked[1].header("csrfpreventiontoken"), None, "a question needs none");
    assert!(asked[5].header("cookie").unwrap().contains("bmV3"));
}

#[tokio::test]
async fn logins_that_fail() {
    let script = Script::play(vec![Reply::Say(401, "authentication failure", r#"{"data":null}"#.into())]);
    let error = ticket(&script.url).version().await.unwrap_err();
    assert!(matches!(&error, Error::AuthFailed { user, .. } if user == "root@pam"), "{error:?}");
    assert_eq!(script.end().len(), 1, "a wrong password is not tried twice");

    let script = Script::play(vec![ok(r#"{"data":{"ticket":"PVE:!tfa!x","NeedTFA":1}}"#)]);
    let error = ticket(&script.url).version().await.unwrap_err();
    assert!(matches!(error, Error::SecondFactor { .. }), "{error:?}");
    script.end();

    let refuse = || Reply::Say(401, "permission denied - invalid PVE ticket", String::new());
    let script = Script::play(vec![ok(&fixture("ticket")), refuse(), ok(&fixture("ticket")), refuse()]);
    let error = ticket(&script.url).version().await.unwrap_err();
    assert!(matches!(error, Error::AuthFailed { .. }), "{error:?}");
    assert_eq!(script.end().len(), 4, "a fresh login that is refused too is believed");

    let script = Script::play(vec![Reply::Say(401, "invalid token value!", String::new())]);
    let error = token(&script.url).version().await.unwrap_err();
    assert!(error.to_string().contains("root@pam!pvemig was refused: invalid token value!"), "{error}");
    assert_eq!(script.end().len(), 1, "a token has nothing to renew");
}
