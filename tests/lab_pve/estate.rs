//! Lists, the files of a lab, its control socket.

use super::*;

fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_cluster_and_its_hardware_are_listed() {
    let b = Bench::new("usb-move").await;
    assert_eq!(b.get("/version").await["version"], "9.1.4");
    assert_eq!(b.get("/nodes/pve/version").await["release"], "9.1");
    assert_eq!(b.get("/nodes").await.as_array().unwrap().len(), 3);
    let status = b.get("/cluster/status").await;
    assert_eq!(status.as_array().unwrap().len(), 4);
    assert_eq!(
        status[0],
        json!({ "type": "cluster", "id": "cluster", "name": "homelab", "version": 3, "nodes": 3, "quorate": 1 })
    );
    assert_eq!(b.get("/nodes/pve/status").await["pveversion"].as_str().unwrap().split('/').nth(1), Some("9.1.4"));
    let rows = b.get("/cluster/resources?type=vm").await;
    let where_is = |vmid: u32| rows.as_array().unwrap().iter().find(|r| r["vmid"] == vmid).unwrap()["node"].clone();
    assert_eq!([where_is(103), where_is(105), where_is(108)], ["pve", "pumped-piglet", "still-fawn"]);
    assert_eq!(
        b.ask(&b.auth, "GET", "/cluster/nextid", &[("vmid", "108")]).await.about("vmid"),
        "VM 108 already exists"
    );
    assert_eq!(b.get("/cluster/nextid").await, "100");
    assert_eq!(b.get("/cluster/ha/resources").await, json!([]));

    let usb = b.get("/nodes/pumped-piglet/hardware/usb").await;
    let usb = usb.as_array().unwrap();
    assert_eq!(usb.len(), 4);
    let coral = usb.iter().find(|d| d["vendid"] == "18d1").unwrap();
    let devnum = coral["devnum"].clone();
    assert_eq!(
        *coral,
        json!({ "busnum": 2, "devnum": devnum, "port": 0, "level": 1, "class": 0, "vendid": "18d1",
        "prodid": "9302", "speed": "5000", "usbpath": "1", "product": "Google Inc.", "manufacturer": "" })
    );
    assert_eq!(usb.iter().filter(|d| d["class"] == 9 && d["level"] == 0 && d.get("usbpath").is_none()).count(), 2);
    assert!(usb.iter().all(|d| d.get("serial").is_none()));
    assert_eq!(b.get("/nodes/still-fawn/hardware/usb").await.as_array().unwrap().len(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_folder_has_all_that_one_needs_to_reach_the_lab() {
    for (world, token) in [("usb-move", "root@pam!pvemig"), ("usb-move-token", "pvemig@pve!pvemig")] {
        let b = Bench::new(world).await;
        let dir = b.lab.dir();
        for name in ["pve-password", "pve-token-secret", "id_ed25519", "kubeconfig", "env"] {
            assert_eq!(mode(&dir.join(name)), 0o600, "{name}");
        }
        let env = std::fs::read_to_string(dir.join("env")).unwrap();
        let var = |name: &str| {
            let line =
                env.lines().find_map(|l| l.strip_prefix(&format!("{name}='"))).unwrap_or_else(|| panic!("{name}"));
            line.strip_suffix('\'').unwrap().to_owned()
        };
        assert_eq!(env.lines().last(), Some("export PVEMIG_SITE PVEMIG_STATE KUBECONFIG"));
        assert_eq!(var("PVE_URL"), b.base);
        assert_eq!(var("PVE_FINGERPRINT"), b.lab.reach().proxmox.fingerprint.to_string());
        assert!(var("PVE_TOKEN").starts_with(&format!("{token}=")), "{}", var("PVE_TOKEN"));
        assert_eq!(b.ask(&Auth::Token(var("PVE_TOKEN")), "GET", "/version", &[]).await.status, 200);
        for name in ["SITE", "KUBECONFIG", "SSH_KEY", "REQUESTS", "PVE_CA"] {
            assert!(Path::new(&var(name)).is_file(), "{name}");
        }
        // The certificate also stands under the authority's.
        let trust = Trust::Ca(std::fs::read(var("PVE_CA")).unwrap());
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(client_config(&trust).unwrap())
            .no_proxy()
            .build()
            .unwrap();
        assert_eq!(client.get(format!("{}/api2/json/version", b.base)).send().await.unwrap().status(), 401);

        let site: Value = serde_saphyr::from_str(&std::fs::read_to_string(var("SITE")).unwrap()).unwrap();
        assert_eq!(site["proxmox"]["home"]["urls"], json!([b.base]));
        assert_eq!(site["proxmox"]["home"]["hosts"].as_object().unwrap().len(), 3);
        assert_eq!(site["nodes"]["k3s-vm-still-fawn"]["vmid"], 108);
        assert_eq!(site["nodes"]["k3s-vm-still-fawn"]["access"], json!(["ssh", "agent", "host-ssh"]));
        assert_eq!(site["migrations"]["frigate-coral"]["blueprint"], "usb-move");
        let auth = site["proxmox"]["home"]["auth"].as_object().unwrap();
        assert_eq!(auth.keys().collect::<Vec<_>>(), [if world == "usb-move" { "ticket" } else { "token" }]);
        assert_eq!(site["devices"]["coral"]["ids"], json!(["1a6e:089a", "18d1:9302"]));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_process_is_the_hands_of_a_running_lab() {
    let b = Bench::new("usb-move").await;
    let dir = b.lab.dir().to_owned();
    let first = control::ask(&dir, &Ask::Compared).await.unwrap();
    assert_eq!(first, b.lab.compared());
    let to = |place| Ask::Move { stick: "coral".into(), place };
    control::ask(&dir, &to(place("still-fawn", "2-3"))).await.unwrap();
    assert_eq!(b.lab.shared().read(|w| w.sticks["coral"].at.clone()), place("still-fawn", "2-3"));
    assert_ne!(control::ask(&dir, &Ask::Compared).await.unwrap(), first);
    let refused = control::ask(&dir, &to(place("still-fawn", "9-9"))).await.unwrap_err().to_string();
    assert_eq!(
        refused,
        "the running lab says: that cannot be done by hand: host `still-fawn` has no socket `9-9`; it has: 1-2, 2-2, 1-3, 2-3, 1-5"
    );
    let rule = FaultRule::on(Front::Proxmox, FaultEffect::Status(500, "no".into())).path("*/version");
    control::ask(&dir, &Ask::Fault(rule)).await.unwrap();
    assert_eq!(b.ask(&b.auth, "GET", "/version", &[]).await.status, 500);
    assert_eq!(control::ask(&dir, &Ask::ClearFaults).await.unwrap()[0]["met"], 1);
    let state = control::ask(&dir, &Ask::State).await.unwrap();
    assert_eq!(state["vms"]["108"]["node"], "still-fawn");
    assert_eq!(state["access"]["users"]["root@pam"]["password"], "");
    // A second lab in the same folder is refused before it has touched the first one's files.
    let files = ["env", "site.yaml", "kubeconfig", "id_ed25519", "requests.jsonl"];
    let read = || files.map(|name| std::fs::read(dir.join(name)).unwrap());
    let before = read();
    assert!(before.iter().all(|bytes| !bytes.is_empty()));
    let again =
        Lab::start(LabOptions { world: load("usb-move").unwrap(), dir: dir.clone(), speed: 1 }).await.unwrap_err();
    assert!(matches!(again, LabError::Second { .. }), "{again}");
    for (name, (was, is)) in files.iter().zip(before.iter().zip(read())) {
        assert!(*was == is, "{name} was overwritten");
    }
    control::ask(&dir, &Ask::Stop).await.unwrap();
    b.lab.stopped().await;
    b.lab.stop().await;
    let gone = control::ask(&dir, &Ask::State).await.unwrap_err().to_string();
    assert!(gone.starts_with("no lab runs in "), "{gone}");
}

#[test]
fn a_world_file_that_does_not_fit_is_refused() {
    for (text, says) in [
        ("name: x\nhosts: { a: { sockts: [] } }", "sockts"),
        ("extends: nowhere", "there is no world `nowhere`"),
        ("name: [", "the world file does not fit"),
    ] {
        let error = read(text).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }
    assert_eq!(read("extends: usb-move\nname: mine").unwrap().vms.len(), 3);
}
