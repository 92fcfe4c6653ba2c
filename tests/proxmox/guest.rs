//! Pve tasks and the guest agent: what is polled, and how it ends.

use std::sync::Mutex;
use std::time::Duration;

use pvemig::base::fault::{Effect, Fault};
use pvemig::base::permit::Again;
use pvemig::proxmox::{AgentCause, Error, Upid};
use serde_json::json;

use super::script::{Journal, Reply, Script, fixture, ok, token, vm};

const UPID: &str = "UPID:still-fawn:0010C3F2:0A1B2C3D:68F0A1B2:qmconfig:108:root@pam!pvemig:";
const ENCODED: &str = "UPID%3Astill-fawn%3A0010C3F2%3A0A1B2C3D%3A68F0A1B2%3Aqmconfig%3A108%3Aroot%40pam%21pvemig%3A";
const MINUTE: Duration = Duration::from_secs(60);

fn upid() -> Upid {
    UPID.parse().unwrap()
}

fn running() -> Reply {
    ok(r#"{"data":{"status":"running","pid":1,"upid":"x"}}"#)
}

fn stopped(exit: &str) -> Reply {
    ok(&json!({"data": {"status": "stopped", "exitstatus": exit}}).to_string())
}

async fn wait(replies: Vec<Reply>) -> (Result<Option<String>, Error>, Vec<String>) {
    let script = Script::play(replies);
    let end = token(&script.url).wait_task(&upid(), MINUTE, &|_| {}).await;
    (end.map(|end| end.warnings), script.end().into_iter().map(|asked| asked.line).collect())
}

#[tokio::test]
async fn a_pve_task_is_asked_at_its_own_node_until_it_ends() {
    let (end, lines) = wait(vec![running(), running(), stopped("OK")]).await;
    assert_eq!(end.unwrap(), None);
    assert_eq!(lines, vec![format!("GET /api2/json/nodes/still-fawn/tasks/{ENCODED}/status"); 3]);

    let (end, _) = wait(vec![stopped("WARNINGS: 2")]).await;
    assert_eq!(end.unwrap().as_deref(), Some("WARNINGS: 2"));
}

#[tokio::test]
async fn an_end_that_is_unknown_is_said_to_be_unknown() {
    let (end, lines) = wait((0..4).map(|_| stopped("unexpected status")).collect()).await;
    let error = end.unwrap_err();
    assert!(matches!(error, Error::TaskUnknown { .. }), "{error:?}");
    assert_eq!((error.effect(), lines.len()), (Effect::Maybe, 4));
    // The last line of the log may come a moment after the worker is gone.
    let (end, _) = wait(vec![stopped("unexpected status"), stopped("OK")]).await;
    assert_eq!(end.unwrap(), None);
}

#[tokio::test]
async fn a_failed_pve_task_shows_the_tail_of_its_log() {
    let log = |n: u64| json!({"n": n, "t": format!("line {n}")});
    let (end, lines) = wait(vec![
        stopped("start failed: QEMU exited with code 1"),
        ok(&json!({"data": [log(1)], "total": "42"}).to_string()),
        ok(&json!({"data": [log(41), log(42)], "total": 42}).to_string()),
    ])
    .await;
    let error = end.unwrap_err();
    assert_eq!(
        error.to_string(),
        "vm 108 on still-fawn (cluster home): pve task qmconfig failed: start failed: QEMU exited with code 1\n  | line 41\n  | line 42"
    );
    assert_eq!(error.effect(), Effect::Maybe);
    assert!(lines[2].ends_with("/log?start=32&limit=10"), "{}", lines[2]);
    // A log that cannot be read does not hide the failure.
    let (end, _) = wait(vec![stopped("odd"), Reply::Say(500, "gone", String::new())]).await;
    assert!(end.unwrap_err().to_string().contains("its log cannot be read"));
}

#[tokio::test]
async fn known_texts_of_failed_pve_tasks_have_their_causes() {
    type Is = fn(&Error) -> bool;
    let cases: [(&str, Is, Effect); 6] = [
        (
            "400 Parameter verification failed. usb0: hotplug problem - error on hot-unplugging device 'usb0' - still busy in guest?",
            |e| matches!(e, Error::PendingKept { .. }),
            Effect::Partial,
        ),
        ("only root can set 'usb0' config for real devices", |e| matches!(e, Error::RootOnly { .. }), Effect::None),
        ("VM is locked (backup)", |e| matches!(e, Error::Locked { lock, .. } if lock == "backup"), Effect::None),
        ("VM 108 already running", |e| matches!(e, Error::WrongPower { .. }), Effect::None),
        ("VM quit/powerdown failed - got timeout", |e| matches!(e, Error::ShutdownTimedOut { .. }), Effect::Maybe),
        (
            "'id' does not match for 'coral' (18d1:9302 != 1a6e:089a)",
            |e| matches!(e, Error::MappingUnfit { .. }),
            Effect::None,
        ),
    ];
    for (text, is, effect) in cases {
        let (end, lines) = wait(vec![stopped(text)]).await;
        let error = end.unwrap_err();
        assert!(is(&error), "{text}: {error:?}");
        assert_eq!((error.effect(), lines.len()), (effect, 1), "{text}");
    }
}

#[tokio::test]
async fn a_wait_outlives_a_node_that_goes_away_and_ends_at_its_limit() {
    let gone = || Reply::Say(595, "Connection refused", String::new());
    let (end, lines) = wait(vec![gone(), gone(), gone(), gone(), gone(), stopped("OK")]).await;
    assert_eq!((end.unwrap(), lines.len()), (None, 6));

    let script = Script::play(vec![running()]);
    let error = token(&script.url).wait_task(&upid(), Duration::ZERO, &|_| {}).await.unwrap_err();
    assert!(matches!(error, Error::TaskTooLong { .. }), "{error:?}");
    assert_eq!(error.effect(), Effect::Maybe);
    script.end();

    // Whoever was not answered at the limit does not know that it still runs.
    let script = Script::play(vec![gone()]);
    let error = token(&script.url).wait_task(&upid(), Duration::ZERO, &|_| {}).await.unwrap_err();
    assert!(matches!(error, Error::TaskUnasked { .. }) && error.effect() == Effect::Maybe, "{error:?}");
    script.end();

    let body = r#"{"data":null,"errors":{"upid":"no such task"},"message":"Parameter verification failed.\n"}"#;
    let (end, _) = wait(vec![Reply::Say(400, "Parameter verification failed.", body.into())]).await;
    assert!(matches!(end.unwrap_err(), Error::NoSuchTask { .. }));

    // Who may not ask any more does not know: the pve task goes on.
    let (end, _) = wait(vec![running(), Reply::Say(403, "Permission check failed", String::new())]).await;
    let error = end.unwrap_err();
    assert!(matches!(error, Error::TaskUnasked { .. }) && error.effect() == Effect::Maybe, "{error:?}");
}

#[tokio::test]
async fn a_long_pve_task_shows_its_log() {
    let mut replies: Vec<Reply> = (0..11).map(|_| running()).collect();
    replies.push(ok(r#"{"data":[{"n":1,"t":"one"},{"n":"2","t":"two"}],"total":2}"#));
    replies.push(running());
    replies.push(ok(r#"{"data":[{"n":1,"t":"no content"}],"total":2}"#));
    replies.push(stopped("OK"));
    let script = Script::play(replies);
    let seen = Mutex::new(Vec::new());
    let show = |line: &str| seen.lock().unwrap().push(line.to_owned());
    token(&script.url).wait_task(&upid(), MINUTE, &show).await.unwrap();
    assert_eq!(*seen.lock().unwrap(), ["one", "two"]);
    assert!(script.end()[13].line.ends_with("/log?start=2&limit=50"));
}

#[tokio::test]
async fn the_agent_answers_or_says_why_not() {
    let script = Script::play(vec![ok(r#"{"data":{"result":{}}}"#), ok(&fixture("agent-info"))]);
    let pve = token(&script.url);
    pve.agent_ping(&vm()).await.unwrap();
    let info = pve.agent_info(&vm()).await.unwrap();
    assert!(info.may_exec() && info.version == "7.2.11");
    assert_eq!(info.commands.get("guest-file-read"), Some(&false));
    let asked = script.end();
    assert_eq!(asked[0].line, "POST /api2/json/nodes/still-fawn/qemu/108/agent/ping");
    assert_eq!(asked[1].line, "GET /api2/json/nodes/still-fawn/qemu/108/agent/info");

    let cases = [
        (r#"{"class":"CommandNotFound","desc":"Command guest-info has been disabled"}"#, true),
        (r#"{"class":"GenericError","desc":"odd"}"#, false),
    ];
    for (error, disabled) in cases {
        let script = Script::play(vec![ok(&format!(r#"{{"data":{{"result":{{"error":{error}}}}}}}"#))]);
        let error = token(&script.url).agent_info(&vm()).await.unwrap_err();
        let Error::Agent { cause, .. } = &error else { panic!("{error:?}") };
        assert_eq!(matches!(cause, AgentCause::Disabled(_)), disabled, "{cause:?}");
        script.end();
    }
}

#[tokio::test]
async fn a_look_starts_a_program_and_polls_for_its_end() {
    let script = Script::play(vec![
        ok(r#"{"data":{"pid":"4711"}}"#),
        ok(&fixture("exec-status-running")),
        ok(&fixture("exec-status-done")),
    ]);
    let result = token(&script.url).agent_look(&vm(), &["/usr/bin/lsusb", "-t"], Some("in\n")).await.unwrap();
    assert_eq!((result.exit, result.truncated), (0, true));
    assert_eq!(String::from_utf8(result.stdout).unwrap(), "Bus 002 Device 003: ID 18d1:9302 Größe\n");
    assert_eq!(result.stderr, b"warned\n");
    let asked = script.end();
    assert_eq!(asked[0].line, "POST /api2/json/nodes/still-fawn/qemu/108/agent/exec");
    assert_eq!(asked[0].json(), json!({"command": ["/usr/bin/lsusb", "-t"], "input-data": "in\n"}));
    let poll = "GET /api2/json/nodes/still-fawn/qemu/108/agent/exec-status?pid=4711";
    assert_eq!((asked[1].line.as_str(), asked[2].line.as_str(), asked.len()), (poll, poll, 3));

    let script = Script::play(vec![ok(r#"{"data":{"pid":1}}"#), ok(&fixture("exec-status-killed"))]);
    assert_eq!(token(&script.url).agent_look(&vm(), &["/bin/cat"], None).await.unwrap().exit, 137);
    script.end();

    let script = Script::play(vec![]);
    let pve = token(&script.url);
    for (argv, input) in [(&[][..], None), (&["/bin/cat"][..], Some("é".to_owned())), (&["x"], Some("x".repeat(65537)))]
    {
        let error = pve.agent_look(&vm(), argv, input.as_deref()).await.unwrap_err();
        assert!(matches!(error, Error::BadRequest { .. }), "{error:?}");
    }
    assert!(script.end().is_empty());
}

#[tokio::test]
async fn a_command_is_noted_and_its_pid_written_down() {
    for again in [Again::Safe, Again::Once] {
        let script = Script::play(vec![ok(r#"{"data":{"pid":4711}}"#), ok(&fixture("exec-status-done"))]);
        let (permit, journal) = Journal::of(&script);
        let argv = ["/usr/bin/apt-get", "install", "-y", "libedgetpu1-std"];
        token(&script.url).agent_run(&vm(), &argv, again, MINUTE, &permit).await.unwrap();
        let base = "/nodes/still-fawn/qemu/108/agent";
        assert_eq!(
            journal.events(),
            [
                format!("note POST {base}/exec /usr/bin/apt-get install -y libedgetpu1-std"),
                format!("POST /api2/json{base}/exec"),
                "got 1 pid 4711".to_owned(),
                format!("GET /api2/json{base}/exec-status?pid=4711"),
            ]
        );
        assert_eq!(journal.notes.lock().unwrap()[0].again, again);
        script.end();
    }
}

#[tokio::test]
async fn a_started_command_whose_end_is_not_seen_may_have_run() {
    type Is = fn(&Error) -> bool;
    let refuse = |text: &'static str| Reply::Say(500, text, r#"{"data":null}"#.into());
    let cases: Vec<(Vec<Reply>, Is)> = vec![
        (vec![refuse("Agent error: Invalid parameter 'pid'")], |e| {
            matches!(e, Error::Agent { cause: AgentCause::ResultLost(4711), .. })
        }),
        (vec![refuse("Agent error: PID 4711 does not exist")], |e| {
            matches!(e, Error::Agent { cause: AgentCause::ResultLost(4711), .. })
        }),
        // The answer with the result is lost: the agent has dropped it by the time it is asked again.
        (vec![Reply::Drop, refuse("Agent error: Invalid parameter 'pid'")], |e| {
            matches!(e, Error::Agent { cause: AgentCause::ResultLost(4711), .. })
        }),
        (
            vec![refuse("Configuration file 'nodes/still-fawn/qemu-server/108.conf' does not exist")],
            |e| matches!(e, Error::LostAnswer { why, .. } if why.contains("pid 4711")),
        ),
        (vec![refuse("VM 108 is not running")], |e| matches!(e, Error::Agent { cause: AgentCause::VmOff, .. })),
        (vec![Reply::Drop, Reply::Drop, Reply::Drop, Reply::Drop], |e| matches!(e, Error::LostAnswer { .. })),
        (vec![ok(r#"{"data":{"exited":1}}"#)], |e| matches!(e, Error::BadAnswer { .. })),
    ];
    let mut seen = 0;
    for (more, is) in cases {
        let mut replies = vec![ok(r#"{"data":{"pid":4711}}"#)];
        replies.extend(more);
        let script = Script::play(replies);
        let (permit, _) = Journal::of(&script);
        let error = token(&script.url).agent_run(&vm(), &["/bin/x"], Again::Once, MINUTE, &permit).await.unwrap_err();
        assert!(is(&error), "{error:?}");
        assert_eq!(error.effect(), Effect::Maybe, "{error:?}");
        script.end();
        seen += 1;
    }
    assert_eq!(seen, 7);

    // No answer to the start itself: the agent keeps the request.
    let script = Script::play(vec![refuse("VM 108 qga command 'guest-exec' failed - got timeout")]);
    let (permit, _) = Journal::of(&script);
    let error = token(&script.url).agent_run(&vm(), &["/bin/x"], Again::Once, MINUTE, &permit).await.unwrap_err();
    assert!(matches!(error, Error::Agent { cause: AgentCause::TimedOut, .. }), "{error:?}");
    assert_eq!((error.effect(), script.end().len()), (Effect::Maybe, 1));

    // A busy guest is asked again, and a command that goes on for too long keeps running.
    let busy = || refuse("VM 108 qga command 'guest-exec-status' failed - got timeout");
    let script = Script::play(vec![
        ok(r#"{"data":{"pid":1}}"#),
        busy(),
        refuse("QEMU guest agent is not running"),
        ok(&fixture("exec-status-done")),
    ]);
    let (permit, _) = Journal::of(&script);
    token(&script.url).agent_run(&vm(), &["/bin/x"], Again::Safe, MINUTE, &permit).await.unwrap();
    script.end();
    let script = Script::play(vec![ok(r#"{"data":{"pid":1}}"#), ok(&fixture("exec-status-running"))]);
    let (permit, _) = Journal::of(&script);
    let error =
        token(&script.url).agent_run(&vm(), &["/bin/x"], Again::Safe, Duration::ZERO, &permit).await.unwrap_err();
    assert!(matches!(error, Error::Agent { cause: AgentCause::StillRunning { pid: 1, .. }, .. }), "{error:?}");
    script.end();
}
