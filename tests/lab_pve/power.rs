//! Power and pve tasks.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn power_goes_through_pve_tasks_with_a_life_of_their_own() {
    let b = Bench::new("usb-move").await;
    let current = format!("{VM108}/status/current");
    let first = b.get(&current).await;
    assert_eq!(
        (&first["status"], &first["qmpstatus"], &first["agent"]),
        (&json!("running"), &json!("running"), &json!(1))
    );
    assert_eq!(first["running-machine"], "pc-q35-10.1+pve0");
    assert_eq!(first["ha"], json!({ "managed": 0 }));
    assert_eq!(b.power(VM108, "start", &[]).await, "VM 108 already running");
    let boot = b.lab.shared().read(|w| w.boot_id(108)).unwrap();

    // A reset: same process, another boot.
    assert_eq!(b.power(VM108, "reset", &[]).await, "OK");
    b.wait("up again", |w| w.guest_up(108)).await;
    let second = b.lab.shared().read(|w| w.boot_id(108)).unwrap();
    assert_ne!(boot, second);
    assert_eq!(b.get(&current).await["pid"], first["pid"]);

    // A reboot: the task ends with the shutdown, another one starts the machine, and pending is applied.
    b.put(&format!("{VM108}/config"), &[("cores", "2")]).await.data();
    assert_eq!(b.power(VM108, "reboot", &[("timeout", "300")]).await, "OK");
    b.wait("started by the daemon", |w| {
        w.tasks.iter().any(|t| t.kind == "qmstart" && t.end.as_ref().is_some_and(|e| e.1 == "OK"))
    })
    .await;
    b.wait("up again", |w| w.agent_up(108) && w.guest_ssh_up(108)).await;
    let third = b.lab.shared().read(|w| w.boot_id(108)).unwrap();
    assert_ne!(second, third);
    let after = b.get(&current).await;
    assert_ne!(after["pid"], first["pid"]);
    assert!(after["uptime"].as_u64() < first["uptime"].as_u64());
    assert_eq!(b.pending(VM108).await["cores"], json!({ "key": "cores", "value": 2 }));

    assert_eq!(b.power(VM108, "stop", &[]).await, "OK");
    let off = b.get(&current).await;
    assert_eq!((&off["status"], &off["uptime"], off.get("pid")), (&json!("stopped"), &json!(0), None));
    assert_eq!(b.power(VM108, "stop", &[]).await, "OK");
    assert_eq!(b.power(VM108, "shutdown", &[]).await, "OK");
    b.post(&format!("{VM108}/status/reboot"), &[]).await.refused(500, "VM 108 not running");
    b.post(&format!("{VM108}/status/reset"), &[]).await.refused(500, "VM 108 not running");

    // A guest that is still booting hears nothing of a shutdown.
    b.lab.shared().change(|w| w.timing.boot = 1_000_000_000);
    assert_eq!(b.power(VM108, "start", &[]).await, "OK");
    assert_eq!(b.power(VM108, "shutdown", &[("timeout", "3")]).await, "VM quit/powerdown failed - got timeout");
    assert_eq!(b.power(VM108, "shutdown", &[("timeout", "1"), ("forceStop", "1")]).await, "OK");
    assert_eq!(b.get(&current).await["status"], "stopped");
    assert_eq!(
        b.post(&format!("{VM108}/status/shutdown"), &[("timeout", "soon")]).await.about("timeout"),
        "type check ('integer') failed - got 'soon'"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_guest_stays_off_after_a_failed_reboot_and_holds_the_file_lock_meanwhile() {
    let b = Bench::with("usb-move", |w| {
        let vm = w.vms.get_mut(&108).unwrap();
        vm.guest.shutdown_ms = Some(3_000_000);
        vm.config.insert("startup".into(), "order=2,down=1000".into());
    })
    .await;
    let upid = b.post(&format!("{VM108}/status/reboot"), &[]).await.data().as_str().unwrap().to_owned();
    b.wait("it waits", |w| w.vms[&108].shutdown.is_some()).await;
    let busy = "can't lock file '/var/lock/qemu-server/lock-108.conf' - got timeout";
    b.put(&format!("{VM108}/config"), &[("onboot", "0")]).await.refused(500, busy);
    // `down=` is the limit where the call names none.
    assert_eq!(b.finish(&upid).await, "VM quit/powerdown failed - got timeout");
    assert_eq!(b.get(&format!("{VM108}/status/current")).await["status"], "running");
    b.wait("off after all", |w| w.vms[&108].running.is_none()).await;
    b.lab.shared().clock.pause(Duration::from_secs(60)).await;
    assert_eq!(b.get(&format!("{VM108}/status/current")).await["status"], "stopped");
    assert_eq!(b.lab.shared().read(|w| w.tasks.iter().filter(|t| t.kind == "qmstart").count()), 0);

    // A stop that overrules: the shutdown is interrupted.
    b.power(VM108, "start", &[]).await;
    b.wait("up", |w| w.guest_up(108)).await;
    let upid =
        b.post(&format!("{VM108}/status/shutdown"), &[("timeout", "100000")]).await.data().as_str().unwrap().to_owned();
    b.wait("it waits", |w| w.vms[&108].shutdown.is_some()).await;
    assert_eq!(b.power(VM108, "stop", &[("overrule-shutdown", "1")]).await, "OK");
    assert_eq!(b.finish(&upid).await, "received interrupt");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ha_only_takes_requests_and_acts_later() {
    let b = Bench::with("usb-move", |w| {
        w.ha.insert(108, "started".into());
    })
    .await;
    assert_eq!(b.get("/cluster/ha/resources").await, json!([{ "sid": "vm:108", "type": "vm", "state": "started" }]));
    let said = b.post(&format!("{VM108}/status/shutdown"), &[]).await;
    let upid = said.data().as_str().unwrap().to_owned();
    assert!(upid.contains(":hastop:108:"), "{upid}");
    assert_eq!(b.finish(&upid).await, "OK");
    b.wait("stopped", |w| w.vms[&108].running.is_none()).await;
    assert_eq!(b.power(VM108, "start", &[]).await, "OK");
    b.wait("started", |w| w.guest_up(108)).await;
    // Off from inside: brought back, in another boot.
    let boot = b.lab.shared().read(|w| w.boot_id(108)).unwrap();
    b.lab.shared().change(|w| w.guest_exec(108, &["poweroff".to_owned()], &[]));
    b.wait("on again", |w| w.guest_up(108) && w.boot_id(108).is_some_and(|now| now != boot)).await;
    let said = b.post(&format!("{VM108}/status/stop"), &[("overrule-shutdown", "1")]).await;
    assert_eq!(said.about("overrule-shutdown"), "not applicable for HA resources");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pve_tasks_are_listed_filtered_and_read_by_those_who_may() {
    let b = Bench::new("usb-move-token").await;
    let token = b.token("pvemig@pve!pvemig");
    b.power(VM108, "start", &[]).await;
    let said = b.ask(&token, "POST", &format!("{VM108}/status/stop"), &[]).await;
    let upid = said.data().as_str().unwrap().to_owned();
    assert!(upid.ends_with(":qmstop:108:pvemig@pve!pvemig:"), "{upid}");
    assert_eq!(b.finish(&upid).await, "OK");
    let path = |upid: &str, rest: &str| {
        format!("/nodes/still-fawn/tasks/{}/{rest}", upid.replace(':', "%3A").replace('!', "%21"))
    };
    let status = b.get(&path(&upid, "status")).await;
    assert_eq!(
        (&status["user"], &status["tokenid"], &status["type"]),
        (&json!("pvemig@pve"), &json!("pvemig"), &json!("qmstop"))
    );
    let log = b.ask(&b.auth, "GET", &path(&upid, "log"), &[("limit", "0")]).await;
    assert_eq!((log.data(), &log.body["total"]), (&json!([{ "n": 1, "t": "TASK OK" }]), &json!(1)));

    let list = |query: &str| {
        let path = format!("/nodes/still-fawn/tasks?{query}");
        let (b, token) = (&b, token.clone());
        async move { b.ask(&token, "GET", &path, &[]).await }
    };
    let all = list("source=all&vmid=108").await;
    assert_eq!((all.data().as_array().unwrap().len(), &all.body["total"]), (2, &json!(2)));
    assert_eq!(all.data()[0]["type"], "qmstop");
    assert_eq!(list("source=all&typefilter=qmstart").await.data()[0]["status"], "VM 108 already running");
    assert_eq!(list("errors=1").await.data().as_array().unwrap().len(), 1);
    assert_eq!(list("source=active").await.data(), &json!([]));
    assert_eq!(list("limit=1&start=1").await.data()[0]["type"], "qmstart");
    assert_eq!(list("since=99999999999").await.data(), &json!([]));
    assert_eq!(list("vmid=105").await.data(), &json!([]));
    assert!(list("source=some").await.about("source").contains("enumeration"));
    assert_eq!(b.get("/cluster/tasks").await.as_array().unwrap().len(), 2);

    let bad = b.ask(&b.auth, "GET", "/nodes/still-fawn/tasks/nonsense/status", &[]).await;
    assert_eq!(bad.about("upid"), "unable to parse worker upid");
    let none = "UPID:still-fawn:00000001:00000001:00000001:qmstart:108:root@pam:";
    assert_eq!(b.ask(&b.auth, "GET", &path(none, "status"), &[]).await.about("upid"), "no such task");

    // Without Sys.Audit only one's own.
    b.lab.shared().change(|w| w.access.acl.retain(|e| e.path != "/"));
    assert_eq!(list("source=all").await.data().as_array().unwrap().len(), 1);
    // A running task is interrupted.
    b.lab.shared().change(|w| w.vms.get_mut(&108).unwrap().guest.ignores_shutdown = true);
    b.power(VM108, "start", &[]).await;
    b.wait("up", |w| w.guest_up(108)).await;
    let said = b.ask(&token, "POST", &format!("{VM108}/status/shutdown"), &[("timeout", "1000000")]).await;
    let upid = said.data().as_str().unwrap().to_owned();
    assert_eq!(list("source=active").await.data()[0]["status"], "RUNNING");
    b.ask(&token, "DELETE", &path(&upid, ""), &[]).await.data();
    assert_eq!(b.finish(&upid).await, "received interrupt");
}
