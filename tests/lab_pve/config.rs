//! Configs, hot-plug, sticks, mappings.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_config_has_three_views_a_digest_and_locks() {
    let b = Bench::new("usb-move").await;
    let config = format!("{VM108}/config");
    let before = b.get(&config).await;
    let digest = before["digest"].as_str().unwrap().to_owned();
    assert_eq!(digest.len(), 40);
    assert_eq!((&before["cores"], &before["memory"]), (&json!(6), &json!("24576")));

    // A key that no running process takes stays pending; the merged view shows it as if it were there.
    b.put(&config, &[("cores", "8"), ("digest", &digest)]).await.data();
    assert_eq!(b.get(&config).await["cores"], 8);
    assert_eq!(b.get(&format!("{config}?current=1")).await["cores"], 6);
    assert_eq!(b.pending(VM108).await["cores"], json!({ "key": "cores", "value": 6, "pending": 8 }));
    b.put(&config, &[("cores", "4"), ("digest", &digest)])
        .await
        .refused(500, "checksum mismatch (file change by other user?)");
    b.put(&config, &[("revert", "cores")]).await.data();
    assert_eq!(b.pending(VM108).await["cores"], json!({ "key": "cores", "value": 6 }));

    // Deleting: pending, forced, reverted; of a key that is not set it is no error.
    b.put(&config, &[("delete", "cpu")]).await.data();
    assert_eq!(b.pending(VM108).await["cpu"], json!({ "key": "cpu", "value": "host", "delete": 1 }));
    assert!(b.get(&config).await.get("cpu").is_none());
    assert_eq!(b.get(&format!("{config}?current=1")).await["cpu"], "host");
    b.put(&config, &[("delete", "cpu"), ("force", "1")]).await.data();
    assert_eq!(b.pending(VM108).await["cpu"]["delete"], 2);
    b.put(&config, &[("cpu", "host")]).await.data();
    assert_eq!(b.pending(VM108).await["cpu"], json!({ "key": "cpu", "value": "host" }));
    b.put(&config, &[("delete", "usb0;usb1")]).await.data();
    assert_eq!(b.put(&config, &[("delete", "usb77")]).await.about("delete"), "unknown option 'usb77'");
    let both = b.put(&config, &[("delete", "cpu"), ("cpu", "host")]).await;
    assert_eq!(both.about("delete"), "you can't use '-cpu' and '-delete cpu' at the same time");
    b.put(&config, &[]).await.refused(500, "no options specified");
    assert_eq!(b.get(&config).await["digest"], digest.as_str());

    // What applies at once is not pending.
    b.put(&config, &[("description", "né"), ("onboot", "0")]).await.data();
    let rows = b.pending(VM108).await;
    assert_eq!(rows["description"], json!({ "key": "description", "value": "né" }));
    assert_eq!(rows["onboot"], json!({ "key": "onboot", "value": 0 }));

    let usb = |value: &str| vec![("usb0".to_owned(), value.to_owned())];
    for (value, text) in [
        ("host=xyz", "usb0.host: value does not match the regex pattern"),
        ("host=1a6e:089a,usb3=maybe", "usb0.usb3: type check ('boolean') failed - got 'maybe'"),
        (
            "host=1a6e:089a,speed=1",
            "usb0.speed: property is not defined in schema and the schema does not allow additional properties",
        ),
        ("usb3=1", "usb0.host: property is missing and it is not optional"),
    ] {
        let said = b.send(b.request(&b.auth, "PUT", &config).form(&usb(value))).await;
        assert_eq!(said.about("usb0"), format!("invalid format - format error\n{text}\n"), "{value}");
    }

    b.lab.shared().change(|w| w.vms.get_mut(&108).unwrap().lock = Some("backup".into()));
    b.put(&config, &[("onboot", "1")]).await.refused(500, "VM is locked (backup)");
    assert_eq!(b.get(&config).await["lock"], "backup");
    assert_eq!(b.power(VM108, "shutdown", &[]).await, "VM is locked (backup)");
    b.put(&config, &[("onboot", "1"), ("skiplock", "1")]).await.data();
    let token = b.token("root@pam!pvemig");
    let said = b.ask(&token, "PUT", &config, &[("onboot", "1"), ("skiplock", "1")]).await;
    assert_eq!(said.about("skiplock"), "Only root may use this option.");
    b.put(&config, &[("delete", "lock")]).await.data();

    b.lab.shared().change(|w| {
        let until = w.now + Duration::from_secs(100_000);
        w.vms.get_mut(&108).unwrap().flock_until = Some(until);
    });
    let busy = "can't lock file '/var/lock/qemu-server/lock-108.conf' - got timeout";
    b.put(&config, &[("onboot", "1")]).await.refused(500, busy);
    let upid = b.post(&config, &[("onboot", "1")]).await.data().as_str().unwrap().to_owned();
    assert_eq!(b.finish(&upid).await, busy);
    b.lab.shared().change(|w| {
        w.vms.get_mut(&108).unwrap().flock_until = None;
        w.no_quorum = true;
    });
    b.put(&config, &[("onboot", "1")]).await.refused(500, "cluster not ready - no quorum?");
    let upid = b.post(&config, &[("onboot", "1")]).await.data().as_str().unwrap().to_owned();
    assert_eq!(b.finish(&upid).await, "cluster not ready - no quorum?");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_current_machine_takes_usb_while_it_runs() {
    let b = Bench::new("usb-move").await;
    let config = format!("{VM108}/config");
    assert_eq!(b.ids_in_guest(105), [("18d1:9302".to_owned(), 5000, "2-2".to_owned())]);
    b.put(&config, &[("usb0", "host=1a6e:089a,usb3=1"), ("usb1", "host=18d1:9302,usb3=1")]).await.data();
    let rows = b.pending(VM108).await;
    assert_eq!(rows["usb0"], json!({ "key": "usb0", "value": "host=1a6e:089a,usb3=1" }));
    // An absent device is no error; it is attached when it shows up.
    assert_eq!(b.ids_in_guest(108), []);
    b.lab.move_stick("coral", place("still-fawn", "2-3")).unwrap();
    assert_eq!(b.ids_in_guest(105), []);
    assert_eq!(b.ids_in_guest(108), [("1a6e:089a".to_owned(), 5000, "2-1".to_owned())]);
    // First use: off the bus, then back with the other identity, taken by the other key.
    let (used, seen) = b.lab.shared().change(|w| (w.use_coral(108), w.guest_usb(108)));
    assert_eq!((used, seen.iter().filter(|d| d.id.starts_with("1a6e") || d.id.starts_with("18d1")).count()), (1, 0));
    b.wait("the coral comes back", |w| w.guest_usb(108).iter().any(|d| d.id == "18d1:9302")).await;
    assert_eq!(b.ids_in_guest(108), [("18d1:9302".to_owned(), 5000, "2-2".to_owned())]);
    assert_eq!(b.lab.shared().change(|w| w.use_coral(108)), 1);
    // Replugged through a USB 2 cable: power was lost, other bus, slow.
    b.lab.move_stick("coral", place("still-fawn", "1-3")).unwrap();
    assert_eq!(b.ids_in_guest(108), [("1a6e:089a".to_owned(), 480, "1-1".to_owned())]);
    let host = b.get("/nodes/still-fawn/hardware/usb").await;
    let coral = host.as_array().unwrap().iter().find(|d| d["vendid"] == "1a6e").unwrap().clone();
    assert_eq!((&coral["busnum"], &coral["usbpath"], &coral["speed"]), (&json!(1), &json!("3"), &json!("480")));
    assert!(coral.get("product").is_none());

    b.put(&config, &[("delete", "usb0,usb1")]).await.data();
    assert!(!b.pending(VM108).await.contains_key("usb0"));
    assert_eq!(b.ids_in_guest(108), []);

    // The guest keeps the device busy: 400, and the delete stays pending.
    b.put(&config, &[("usb0", "host=1-3")]).await.data();
    assert_eq!(b.ids_in_guest(108).len(), 1);
    b.lab.shared().change(|w| w.vms.get_mut(&108).unwrap().guest.holds_usb = true);
    let said = b.put(&config, &[("delete", "usb0")]).await;
    assert_eq!(said.about("usb0"), "hotplug problem - error on hot-unplugging device 'usb0' - still busy in guest?");
    assert_eq!(b.pending(VM108).await["usb0"]["delete"], 1);
    b.put(&config, &[("revert", "usb0")]).await.data();
    let upid = b.post(&config, &[("delete", "usb0")]).await.data().as_str().unwrap().to_owned();
    let text = "400 Parameter verification failed. usb0: hotplug problem - error on hot-unplugging device 'usb0' - still busy in guest?";
    assert_eq!(b.finish(&upid).await, text);
    // Without the feature it stays pending.
    b.lab.shared().change(|w| w.vms.get_mut(&108).unwrap().guest.holds_usb = false);
    b.put(&config, &[("revert", "usb0"), ("hotplug", "disk,network")]).await.data();
    b.power(VM108, "stop", &[]).await;
    b.power(VM108, "start", &[]).await;
    b.put(&config, &[("usb5", "host=18d1:9302")]).await.data();
    assert_eq!(b.pending(VM108).await["usb5"], json!({ "key": "usb5", "pending": "host=18d1:9302" }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_machine_that_asks_first_has_the_device() {
    let b = Bench::new("usb-move").await;
    b.lab.shared().change(|w| {
        let mut twin = w.vms[&108].clone();
        twin.node = "pumped-piglet".into();
        w.vms.insert(109, twin);
    });
    let vm109 = "/nodes/pumped-piglet/qemu/109";
    b.put(&format!("{vm109}/config"), &[("usb0", "host=2-1,usb3=1")]).await.data();
    assert_eq!((b.ids_in_guest(105).len(), b.ids_in_guest(109).len()), (1, 0));
    b.put(&format!("{VM105}/config"), &[("delete", "usb0,usb1")]).await.data();
    assert_eq!((b.ids_in_guest(105).len(), b.ids_in_guest(109).len()), (0, 1));
    // By port it keeps the device through its change of identity.
    b.lab.move_stick("coral", place("pumped-piglet", "2-1")).unwrap();
    assert_eq!(b.ids_in_guest(109), [("1a6e:089a".to_owned(), 5000, "2-1".to_owned())]);
    b.lab.shared().change(|w| w.use_coral(109));
    b.wait("back", |w| w.guest_usb(109).iter().any(|d| d.id == "18d1:9302")).await;
    assert_eq!(b.ids_in_guest(109), [("18d1:9302".to_owned(), 5000, "2-1".to_owned())]);

    let no = |stick: &str, to| match b.lab.move_stick(stick, to).unwrap_err() {
        LabError::Hands(text) => text,
        other => panic!("{other}"),
    };
    assert!(no("nothing", None).starts_with("there is no stick `nothing`; there are: coral"));
    assert_eq!(
        no("coral", place("nowhere", "2-1")),
        "there is no host `nowhere`; there are: pumped-piglet, pve, still-fawn"
    );
    assert_eq!(no("coral", place("pve", "7-1")), "host `pve` has no socket `7-1`; it has: 1-1, 2-1, 1-2, 2-2");
    b.lab.shared().change(|w| {
        let twin = w.sticks["coral"].clone();
        w.sticks.insert("twin".into(), twin);
    });
    assert_eq!(no("twin", place("pumped-piglet", "1-1")), "`coral` is in that socket");
    b.lab.move_stick("twin", None).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_machine_takes_usb_at_its_next_start_and_usb3_decides_the_controller() {
    let b = Bench::new("usb-move-old").await;
    let config = format!("{VM108}/config");
    b.put(&config, &[("usb0", "host=1a6e:089a"), ("usb1", "host=18d1:9302")]).await.data();
    assert_eq!(b.pending(VM108).await["usb0"], json!({ "key": "usb0", "pending": "host=1a6e:089a" }));
    b.put(&format!("{VM105}/config"), &[("delete", "usb0,usb1")]).await.data();
    assert_eq!(b.pending(VM105).await["usb0"]["delete"], 1);
    assert_eq!(b.ids_in_guest(105).len(), 1);
    b.lab.move_stick("coral", place("still-fawn", "2-3")).unwrap();
    // A reboot from inside and a reset leave pending what is pending.
    assert_eq!(b.power(VM108, "reset", &[]).await, "OK");
    b.wait("up", |w| w.guest_up(108)).await;
    assert_eq!(b.ids_in_guest(108), []);
    assert_eq!(b.power(VM108, "shutdown", &[("timeout", "300")]).await, "OK");
    assert_eq!(b.power(VM108, "start", &[]).await, "OK");
    b.wait("up", |w| w.guest_up(108)).await;
    assert!(b.pending(VM108).await["usb0"].get("pending").is_none());
    // Without usb3 it is behind EHCI: there, and slow.
    assert_eq!(b.ids_in_guest(108), [("1a6e:089a".to_owned(), 480, "3-1".to_owned())]);
    b.put(&config, &[("usb0", "host=1a6e:089a,usb3=1")]).await.data();
    b.power(VM108, "stop", &[]).await;
    b.power(VM108, "start", &[]).await;
    b.wait("up", |w| w.guest_up(108)).await;
    assert_eq!(b.ids_in_guest(108), [("1a6e:089a".to_owned(), 5000, "2-1".to_owned())]);
    // Five keys, and the start says so.
    b.put(&config, &[("usb5", "host=2-2")]).await.data();
    b.power(VM108, "stop", &[]).await;
    let text = "using usb5 is only possible with machine type >= 7.1 and ostype l26 or windows > 7";
    assert_eq!(b.power(VM108, "start", &[]).await, text);
    assert_eq!(b.get(&format!("{VM108}/status/current")).await["status"], "stopped");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mappings_are_checked_at_the_start_and_replaced_as_a_whole() {
    let b = Bench::new("usb-move-token").await;
    let token = b.token("pvemig@pve!pvemig");
    let path = "/cluster/mapping/usb";
    let rows = b.ask(&token, "GET", path, &[("check-node", "pumped-piglet")]).await.data().clone();
    let digest = rows[0]["digest"].clone();
    assert_eq!(
        rows,
        json!([{ "id": "coral", "map": ["node=pumped-piglet,id=18d1:9302,path=2-1"], "type": "usb",
        "digest": digest, "description": "Coral accelerator", "errors": [] }])
    );
    let rows = b.ask(&token, "GET", path, &[("check-node", "still-fawn")]).await.data().clone();
    assert_eq!(rows[0]["errors"], json!([{ "severity": "warning", "message": "No mapping for node still-fawn." }]));
    assert!(b.get(path).await[0].get("errors").is_none());

    let config = format!("{VM108}/config");
    let problem = |said: Said| said.about("usb0").to_owned();
    let attach = [("usb0", "mapping=coral,usb3=1")];
    let said = b.ask(&token, "PUT", &config, &attach).await;
    assert_eq!(problem(said), "hotplug problem - USB device mapping not found for 'coral'");
    assert_eq!(b.pending(VM108).await["usb0"], json!({ "key": "usb0", "pending": "mapping=coral,usb3=1" }));

    let both = [("map", "node=pumped-piglet,id=18d1:9302,path=2-1"), ("map", "node=still-fawn,id=1a6e:089a,path=2-3")];
    let digest = b.get(path).await[0]["digest"].as_str().unwrap().to_owned();
    let with = |digest: &str| {
        both.iter()
            .map(|(k, v)| (k.to_string(), v.to_string()))
            .chain([("digest".to_owned(), digest.to_owned())])
            .collect::<Vec<_>>()
    };
    let put = b.request(&token, "PUT", &format!("{path}/coral")).form(&with("0"));
    b.send(put).await.refused(
        500,
        "update hardware mapping failed: detected modified configuration - file changed by other user? Try again.",
    );
    b.send(b.request(&token, "PUT", &format!("{path}/coral")).form(&with(&digest))).await.data();
    assert_eq!(b.get(&format!("{path}/coral")).await["map"].as_array().unwrap().len(), 2);
    let invalid = "hotplug problem - USB Mapping invalid (hardware probably changed): ";
    assert_eq!(problem(b.ask(&token, "PUT", &config, &attach).await), format!("{invalid}usb device '2-3' not found"));
    b.ask(&token, "PUT", &format!("{VM105}/config"), &[("delete", "usb0")]).await.data();
    b.lab.move_stick("coral", place("still-fawn", "2-3")).unwrap();
    b.ask(&token, "PUT", &config, &attach).await.data();
    assert_eq!(b.ids_in_guest(108), [("1a6e:089a".to_owned(), 5000, "2-1".to_owned())]);
    // Passed by port: it stays through the change of identity; but the next start finds another id.
    b.lab.shared().change(|w| w.use_coral(108));
    b.wait("back", |w| w.guest_usb(108).iter().any(|d| d.id == "18d1:9302")).await;
    b.power(VM108, "stop", &[]).await;
    let text =
        "USB Mapping invalid (hardware probably changed): 'id' does not match for 'coral' (18d1:9302 != 1a6e:089a)";
    assert_eq!(b.power(VM108, "start", &[]).await, text);
    let rows = b.ask(&token, "GET", path, &[("check-node", "still-fawn")]).await.data().clone();
    assert_eq!(
        rows[0]["errors"][0]["message"],
        "Invalid configuration: 'id' does not match for 'coral' (18d1:9302 != 1a6e:089a)\n"
    );
    let twice = json!({ "map": ["node=still-fawn,id=18d1:9302,path=2-3", "node=still-fawn,id=18d1:9302,path=2-2"] });
    b.send(b.request(&b.auth, "PUT", &format!("{path}/coral")).json(&twice)).await.data();
    assert_eq!(b.power(VM108, "start", &[]).await, "More than one USB mapping per host not supported");

    let said = b.post(path, &[("id", "coral"), ("map", "node=pve,id=1a6e:089a")]).await;
    said.refused(500, "create hardware mapping failed: usb ID 'coral' already defined");
    let said = b.post(path, &[("id", "other"), ("map", "node=pve,id=zz")]).await;
    assert_eq!(said.about("map"), "invalid format - format error\nmap.id: value does not match the regex pattern\n");
    b.post(path, &[("id", "other"), ("map", "node=pve,id=1a6e:089a"), ("description", "x")]).await.data();
    for _ in 0..2 {
        b.ask(&b.auth, "DELETE", &format!("{path}/other"), &[]).await.data();
    }
    b.ask(&b.auth, "GET", &format!("{path}/other"), &[]).await.refused(500, "mapping 'other' not found");
    b.ask(&b.auth, "PUT", &format!("{path}/other"), &[("map", "node=pve,id=1a6e:089a")])
        .await
        .refused(500, "update hardware mapping failed: usb ID 'other' does not exist");
}
