//! The guest agent and the programs behind it.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_agent_answers_once_and_only_when_it_is_there() {
    let b = Bench::with("usb-move", |w| {
        w.vms.get_mut(&108).unwrap().guest.files.insert("/etc/motd".into(), "caf\u{e9}\n".into());
        w.timing.install = 1_000_000_000;
    })
    .await;
    let agent = |command: &str| format!("{VM108}/agent/{command}");
    assert_eq!(b.post(&agent("ping"), &[]).await.data(), &json!({ "result": {} }));
    assert_eq!(b.get(&agent("get-host-name")).await, json!({ "result": { "host-name": "k3s-vm-still-fawn" } }));
    let info = b.get(&agent("info")).await;
    let exec = |info: &Value| {
        info["result"]["supported_commands"].as_array().unwrap().iter().find(|c| c["name"] == "guest-exec").unwrap()["enabled"].clone()
    };
    assert_eq!(exec(&info), true);
    assert_eq!(
        b.get(&agent("network-get-interfaces")).await["result"][1]["ip-addresses"][0]["ip-address"],
        "192.168.4.212"
    );
    b.ask(&b.auth, "GET", &agent("fstrim"), &[])
        .await
        .refused(501, &format!("Method 'GET {VM108}/agent/fstrim' not implemented"));

    let run = |argv: Vec<&'static str>| {
        let params: Vec<(&str, &str)> = argv.into_iter().map(|a| ("command", a)).collect();
        let b = &b;
        async move { b.post(&format!("{VM108}/agent/exec"), &params).await }
    };
    let status = |pid: &Value| {
        let path = format!("{VM108}/agent/exec-status?pid={pid}");
        let b = &b;
        async move { b.ask(&b.auth, "GET", &path, &[]).await }
    };
    let pid = run(vec!["cat", "/etc/motd"]).await.data()["pid"].clone();
    // Each byte is one character: UTF-8 arrives in pieces.
    assert_eq!(
        status(&pid).await.data(),
        &json!({ "exited": 1, "exitcode": 0, "out-data": "caf\u{c3}\u{a9}\n", "out-truncated": 0 })
    );
    status(&pid).await.refused(500, "Agent error: Invalid parameter 'pid'");
    let pid = run(vec!["/usr/bin/dpkg", "-s", "libedgetpu1-std"]).await.data()["pid"].clone();
    assert_eq!(status(&pid).await.data()["exitcode"], 1);
    let pid = run(vec!["/usr/bin/apt-get", "install", "-y", "libedgetpu1-std"]).await.data()["pid"].clone();
    assert_eq!(status(&pid).await.data(), &json!({ "exited": 0 }));
    b.lab.shared().change(|w| {
        let now = w.now;
        w.vms.get_mut(&108).unwrap().running.as_mut().unwrap().execs.values_mut().for_each(|e| e.done_at = now);
    });

    assert_eq!(status(&pid).await.data()["exitcode"], 0);
    let pid = run(vec!["sh", "-c", "dpkg -s libedgetpu1-std && cat /none 2>/dev/null || echo no"]).await.data()["pid"]
        .clone();
    assert!(status(&pid).await.data()["out-data"].as_str().unwrap().ends_with("installed\nVersion: 16.0\nno\n"));
    let said = run(vec!["ls -l"]).await;
    // Quotation marks beyond ASCII: many clients drop such a reason phrase, the body has the text.
    let text = "Agent error: Guest agent command failed, error was 'Failed to execute child process “ls -l” (No such file or directory)'\n";
    assert_eq!((said.status, said.body["message"].as_str().unwrap()), (500, text));
    let said = b.post(&agent("exec"), &[("command", "cat"), ("input-data", "\u{2713}")]).await;
    assert!(said.reason.starts_with("Wide character"), "{said:?}");
    assert_eq!(b.post(&agent("exec"), &[]).await.about("command"), "property is missing and it is not optional");

    b.lab.shared().change(|w| w.vms.get_mut(&108).unwrap().guest.agent.exec_allowed = false);
    run(vec!["lsusb"]).await.refused(500, "Agent error: Command guest-exec has been disabled");
    assert_eq!(exec(&b.get(&agent("info")).await), false);
    b.lab.shared().change(|w| w.vms.get_mut(&108).unwrap().guest.agent.silent = true);
    b.post(&agent("ping"), &[]).await.refused(500, "QEMU guest agent is not running");
    b.power(VM108, "stop", &[]).await;
    b.post(&agent("ping"), &[]).await.refused(500, "VM 108 is not running");
    b.put(&format!("{VM108}/config"), &[("delete", "agent")]).await.data();
    b.post(&agent("ping"), &[]).await.refused(500, "No QEMU guest agent configured");
    // `agent=1` takes effect at a cold start only.
    b.lab.shared().change(|w| w.vms.get_mut(&108).unwrap().guest.agent.silent = false);
    b.power(VM108, "start", &[]).await;
    b.wait("ssh", |w| w.guest_ssh_up(108)).await;
    b.put(&format!("{VM108}/config"), &[("agent", "1")]).await.data();
    b.lab.shared().change(|w| {
        let vm = w.vms.get_mut(&108).unwrap();
        vm.config.insert("agent".into(), "1".into());
        vm.pending.clear();
    });
    b.lab.shared().clock.pause(Duration::from_secs(30)).await;
    b.post(&agent("ping"), &[]).await.refused(500, "QEMU guest agent is not running");
    assert_eq!(b.power(VM108, "reboot", &[]).await, "OK");
    b.wait("agent", |w| w.agent_up(108)).await;
    assert_eq!(b.post(&agent("ping"), &[]).await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn programs_say_what_the_guest_and_the_host_show() {
    let b = Bench::new("usb-move").await;
    let argv = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
    let guest = |vmid: u32, line: &str| {
        let outcome = b.lab.shared().change(|w| w.guest_exec(vmid, &argv(line), &[]));
        (outcome.exit, String::from_utf8(outcome.stdout).unwrap(), outcome.changed)
    };
    let host = |name: &str, line: &str| {
        let outcome = b.lab.shared().change(|w| w.host_exec(name, &argv(line), &[]));
        (outcome.exit, String::from_utf8(outcome.stdout).unwrap(), outcome.changed)
    };
    assert!(guest(105, "lsusb").1.contains("ID 18d1:9302 Google Inc."));
    assert!(!guest(108, "lsusb").1.contains("18d1"));
    assert!(host("pumped-piglet", "lsusb").1.contains("Bus 002 Device"));
    let find = "find -L /sys/bus/usb/devices -maxdepth 2 ( -name idVendor -o -name idProduct -o -name speed ) -exec grep -H . {} +";
    let (exit, text, changed) = guest(105, find);
    assert_eq!((exit, changed), (0, false));
    for line in [
        "/sys/bus/usb/devices/2-2/idVendor:18d1",
        "/sys/bus/usb/devices/2-2/speed:5000",
        "/sys/bus/usb/devices/usb2/idProduct:0003",
    ] {
        assert!(text.lines().any(|l| l == line), "{line} in {text}");
    }
    assert_eq!(text.lines().count(), 5 * 3);
    let boot = b.lab.shared().read(|w| w.boot_id(108)).unwrap();
    assert_eq!(guest(108, "cat /proc/sys/kernel/random/boot_id"), (0, format!("{boot}\n"), false));
    assert_eq!(guest(108, "test -e /dev/dri").0, 0);
    assert_eq!(guest(105, "test -e /dev/dri").0, 1);
    assert_eq!(
        guest(105, "du -skx /var/lib/rancher/k3s/storage").1,
        format!("{}\t/var/lib/rancher/k3s/storage\n", (48_318_382_080_u64 + 41_875_931_136 + 73_400_320) / 1024)
    );
    assert_eq!(guest(108, "frobnicate"), (127, String::new(), true));
    assert_eq!(guest(108, "apt-get install -y nothing").0, 100);
    assert_eq!(guest(108, "apt-get install -y libedgetpu1-std").0, 0);
    assert_eq!(guest(108, "dpkg -s libedgetpu1-std").0, 0);
    assert_eq!(guest(108, "apt-get remove -y libedgetpu1-std").0, 0);
    assert_eq!(guest(108, "dpkg -s libedgetpu1-std").0, 1);

    assert_eq!(host("still-fawn", "qm agent 108 ping"), (0, String::new(), false));
    let (exit, text, changed) = host("still-fawn", "qm guest exec 108 --timeout 5 -- cat /etc/hostname");
    assert_eq!((exit, changed), (0, false));
    assert_eq!(
        serde_json::from_str::<Value>(&text).unwrap(),
        json!({ "exitcode": 0, "exited": 1, "out-data": "k3s-vm-still-fawn\n", "out-truncated": 0 })
    );
    assert!(host("still-fawn", "qm guest exec 108 -- rm /x").2);
    assert_eq!(host("pve", "qm status 108").0, 2);
    assert_eq!(b.lab.shared().read(|w| w.edge_tpus(105)), "[{'type': 'usb', 'path': '/sys/bus/usb/devices/2-2'}]\n");
    assert_eq!(b.lab.shared().read(|w| w.edge_tpus(108)), "[]\n");
}
