//! A line that fails: questions are asked again, changes never are.

use std::net::TcpListener;
use std::time::Duration;

use pvemig::base::fault::{Effect, Fault};
use pvemig::base::secret::Secret;
use pvemig::proxmox::{Auth, Error, Proxmox};

use super::script::{Journal, Reply, Script, endpoint, fixture, ok, token, token_at, vm};

const SHORT: Duration = Duration::from_millis(300);

/// Each way to lose an answer, four times: as often as a question is asked.
fn losses() -> Vec<(&'static str, Vec<Reply>)> {
    let four = |reply: fn() -> Reply| (0..4).map(|_| reply()).collect::<Vec<_>>();
    vec![
        ("closed without a word", four(|| Reply::Drop)),
        ("half a body", four(|| Reply::Half(r#"{"data":"#.into()))),
        ("595", four(|| Reply::Say(595, "Connection refused", String::new()))),
        ("596", four(|| Reply::Say(596, "Connection timed out", String::new()))),
        ("599", four(|| Reply::Say(599, "Too many redirections", String::new()))),
        ("502 of a proxy in between", four(|| Reply::Say(502, "Bad Gateway", "<html>".into()))),
    ]
}

#[tokio::test]
async fn a_question_is_asked_again_until_it_is_answered() {
    let mut count = 0;
    for (name, mut replies) in losses() {
        replies.truncate(3);
        replies.push(ok(&fixture("version")));
        let script = Script::play(replies);
        assert_eq!(token(&script.url).version().await.unwrap().version, "9.1.4", "{name}");
        assert_eq!(script.end().len(), 4, "{name}");
        count += 1;
    }
    assert_eq!(count, 6);
}

#[tokio::test]
async fn a_question_that_stays_unanswered_changed_nothing() {
    for (name, replies) in losses() {
        let script = Script::play(replies);
        let error = token(&script.url).version().await.unwrap_err();
        assert!(matches!(error, Error::NoAnswer { .. }), "{name}: {error:?}");
        assert!(error.retryable() && error.effect() == Effect::None, "{name}");
        assert_eq!(script.end().len(), 4, "{name}");
    }
}

#[tokio::test]
async fn a_change_whose_answer_is_lost_is_not_sent_again() {
    let mut count = 0;
    for (name, replies) in losses() {
        let script = Script::play(replies.into_iter().take(1).collect());
        let (permit, journal) = Journal::of(&script);
        let error = token(&script.url).start(&vm(), &permit).await.unwrap_err();
        assert!(matches!(error, Error::LostAnswer { .. }), "{name}: {error:?}");
        assert_eq!((error.effect(), error.retryable()), (Effect::Maybe, false), "{name}");
        assert!(error.to_string().contains("vm 108 on still-fawn (cluster home)"), "{error}");
        assert_eq!((script.end().len(), journal.notes.lock().unwrap().len()), (1, 1), "{name}");
        count += 1;
    }
    assert_eq!(count, 6);
}

#[tokio::test]
async fn a_silent_server_is_waited_for_only_so_long() {
    let script = Script::play(vec![Reply::Hang]);
    let (permit, _) = Journal::of(&script);
    let pve = token_at(&[&script.url], SHORT);
    let change = pve.start(&vm(), &permit).await.unwrap_err();
    assert!(matches!(&change, Error::LostAnswer { why, .. } if why == "no answer within 300 ms"), "{change:?}");
    script.end();

    let script = Script::play(vec![Reply::Hang]);
    let question = token_at(&[&script.url], SHORT).version().await.unwrap_err();
    assert!(matches!(&question, Error::NoAnswer { why, .. } if why == "no answer within 300 ms"), "{question:?}");
    script.end();
}

#[tokio::test]
async fn answers_that_are_no_answers() {
    let bodies = ["", "<html>", "[]", "{}", r#"{"data":{}}"#, r#"{"data":{"version":7.5,"#, r#"{"data":[1]}"#];
    for body in bodies {
        let script = Script::play(vec![ok(body)]);
        let error = token(&script.url).version().await.unwrap_err();
        assert!(matches!(error, Error::BadAnswer { effect: Effect::None, .. }), "{body}: {error:?}");
        assert!(error.to_string().contains("GET /version"), "{error}");
        script.end();
    }
    for body in bodies {
        let script = Script::play(vec![ok(body)]);
        let (permit, _) = Journal::of(&script);
        let error = token(&script.url).start(&vm(), &permit).await.unwrap_err();
        assert!(matches!(error, Error::BadAnswer { effect: Effect::Maybe, .. }), "{body}: {error:?}");
        script.end();
    }
}

#[tokio::test]
async fn a_connection_gone_stale_costs_a_question_nothing() {
    let script = Script::play(vec![Reply::Keep(fixture("version")), Reply::Drop, ok(&fixture("version"))]);
    let pve = token(&script.url);
    pve.version().await.unwrap();
    pve.version().await.unwrap();
    assert_eq!(script.end().len(), 3);
}

#[tokio::test]
async fn a_change_never_uses_a_connection_that_was_kept() {
    let started = r#"{"data":"UPID:still-fawn:0010C3F2:0A1B2C3D:68F0A1B2:qmstart:108:root@pam!pvemig:"}"#;
    let script = Script::play(vec![Reply::Shelve(fixture("version")), Reply::Shelve(started.into()), ok(started)]);
    let (permit, _) = Journal::of(&script);
    let pve = token(&script.url);
    pve.version().await.unwrap();
    pve.start(&vm(), &permit).await.unwrap();
    pve.start(&vm(), &permit).await.unwrap();
    assert_eq!(script.end().len(), 3);
}

/// An address where nobody listens.
fn nobody() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

#[tokio::test]
async fn another_node_is_asked_where_one_cannot_be_reached() {
    let script = Script::play(vec![
        ok(&fixture("version")),
        ok(r#"{"data":"UPID:still-fawn:0010C3F2:0A1B2C3D:68F0A1B2:qmstart:108:root@pam!pvemig:"}"#),
    ]);
    let (permit, journal) = Journal::of(&script);
    let (gone, gone_too) = (nobody(), nobody());
    let pve = token_at(&[&gone, &script.url, &gone_too], Duration::from_secs(20));
    pve.version().await.unwrap();
    pve.start(&vm(), &permit).await.unwrap();
    assert_eq!(script.end().len(), 2);
    assert_eq!(journal.notes.lock().unwrap().len(), 1, "what was never sent is no second call");

    let error = token_at(&[&gone, &gone_too], Duration::from_secs(20)).version().await.unwrap_err();
    let Error::Unreachable { urls, why, .. } = &error else { panic!("{error:?}") };
    assert_eq!(*urls, format!("{gone}, {gone_too}"));
    assert!(why.contains("refused"), "{why}");
}

#[test]
fn endpoints_that_cannot_be_used() {
    let good = || Auth::Token { id: "root@pam!pvemig".into(), secret: Secret::new("x") };
    let ticket = |user: &str| Auth::Ticket { user: user.into(), password: Secret::new("x") };
    let cases = [
        (endpoint(&[], good()), "no url"),
        (endpoint(&["10.0.0.2:8006"], good()), "10.0.0.2:8006"),
        (endpoint(&["https://10.0.0.2:8006"], good()), "fingerprint"),
        (endpoint(&["http://10.0.0.2:8006"], good()), "unencrypted"),
        (endpoint(&["ftp://10.0.0.2"], good()), "neither https nor http"),
        (endpoint(&["http://u:p@127.0.0.1"], good()), "auth"),
        (endpoint(&["http://127.0.0.1"], ticket("root")), "realm"),
        (endpoint(&["http://[::1]:1"], Auth::Token { id: "root@pam".into(), secret: Secret::new("x") }), "root@pam"),
        (endpoint(&["http://localhost"], Auth::Token { id: "a@b!c".into(), secret: Secret::new("x\ny") }), "secret"),
    ];
    for (endpoint, part) in cases {
        let error = Proxmox::new(endpoint).unwrap_err();
        assert!(matches!(error, Error::Setup { .. }) && error.to_string().contains(part), "{part}: {error}");
    }
    let shown = format!("{:?}", token("http://127.0.0.1:1"));
    assert!(shown.contains("root@pam!pvemig") && !shown.contains("s3cr3t"), "{shown}");
}
