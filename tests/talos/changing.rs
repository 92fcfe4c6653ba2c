//! Changes: what is sent, what is noted before, what needs a consent, and what the answers come to.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use pvemig::base::fault::{Effect, Fault};
use pvemig::base::permit::{Again, CallId, Handle, Ledger, Note, Permit, Refused, Thing};
use pvemig::talos::{ApplyMode, Error, EtcdMember, Leaving, RebootMode, Upgrade};

use super::fake::{Says, msg, num, raw, text};
use super::{Wire, decent, machine};

/// A ledger that keeps everything, and consents to what it is told to.
#[derive(Default)]
pub(super) struct Book {
    pub(super) notes: Mutex<Vec<Note>>,
    pub(super) handles: Mutex<Vec<Handle>>,
    lines: Mutex<Vec<String>>,
    consents: Vec<&'static str>,
    pub(super) asked: Mutex<Vec<String>>,
}

impl Book {
    /// A permit for a test; no engine is there to make it.
    pub(super) fn permit(consents: &[&'static str]) -> (Permit, Arc<Self>) {
        let book = Arc::new(Self { consents: consents.to_vec(), ..Self::default() });
        (Permit::mint(book.clone()), book)
    }

    pub(super) fn texts(&self) -> Vec<String> {
        self.notes.lock().unwrap().iter().map(|note| note.text.clone()).collect()
    }
}

impl Ledger for Book {
    fn note(&self, note: &Note) -> Result<CallId, Refused> {
        let mut notes = self.notes.lock().unwrap();
        notes.push(note.clone());
        Ok(CallId(notes.len() as u64))
    }
    fn got(&self, _: CallId, handle: &Handle) -> Result<(), Refused> {
        self.handles.lock().unwrap().push(handle.clone());
        Ok(())
    }
    fn progress(&self, line: &str) {
        self.lines.lock().unwrap().push(line.to_owned());
    }
    fn file(&self, _: &str, _: &[u8]) -> Result<(), Refused> {
        Ok(())
    }
    fn may_destroy(&self, thing: &Thing) -> Result<(), Refused> {
        self.asked.lock().unwrap().push(thing.to_string());
        match self.consents.contains(&thing.0.as_str()) {
            true => Ok(()),
            false => Err(Refused::NotConsented { thing: thing.clone(), declared: true }),
        }
    }
}

#[tokio::test]
async fn power_goes_out_once_with_its_mode_and_leaves_the_actor() {
    let actor = || text(2, "0b5c");
    let wire = Wire::start().await;
    wire.says("Reboot", &[actor()]);
    assert_eq!(wire.talos.reboot(&wire.permit, RebootMode::PowerCycle).await.unwrap(), "0b5c");
    let (asked, note) = wire.change();
    assert_eq!((asked.path.as_str(), asked.messages), (machine("Reboot").as_str(), vec![num(1, 1)]));
    // A node that goes down says so.
    assert_eq!((note.text.as_str(), note.again, note.unseen), ("talos-20 Reboot, power cycle", Again::Once, false));

    let wire = Wire::start().await;
    wire.says("Reboot", &[actor()]);
    let (permit, book) = Book::permit(&[]);
    wire.talos.reboot(&permit, RebootMode::Kexec).await.unwrap();
    assert_eq!(wire.one().messages, [Vec::<u8>::new()]);
    assert_eq!(*book.handles.lock().unwrap(), [Handle::new("actor", "0b5c")]);

    for (force, message) in [(false, Vec::new()), (true, num(1, 1))] {
        let wire = Wire::start().await;
        wire.says("Shutdown", &[actor()]);
        assert_eq!(wire.talos.shutdown(&wire.permit, force).await.unwrap(), "0b5c");
        let (asked, note) = wire.change();
        assert_eq!((asked.path, asked.messages, note.again), (machine("Shutdown"), vec![message], Again::Once));
    }
    // Of a machine that stays off: nothing is drained, it may be said twice, and no consent is asked for.
    let wire = Wire::start().await;
    wire.says("Shutdown", &[actor()]);
    assert_eq!(wire.talos.shutdown_for_good(&wire.permit).await.unwrap(), "0b5c");
    let (asked, note) = wire.change();
    assert_eq!((asked.path, asked.messages), (machine("Shutdown"), vec![num(1, 1)]));
    assert_eq!((note.text.as_str(), note.again), ("talos-20 Shutdown for good, without drain", Again::Safe));
    let wire = Wire::start().await;
    wire.says("Shutdown", &[actor()]);
    let (permit, book) = Book::permit(&[]);
    wire.talos.shutdown_for_good(&permit).await.unwrap();
    assert_eq!(*book.handles.lock().unwrap(), [Handle::new("actor", "0b5c")]);
    assert!(book.asked.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_configuration_is_applied_with_its_mode_set() {
    let minute = Duration::from_secs(90);
    let cases = [
        (ApplyMode::Auto, num(4, 1), "mode AUTO", Again::Safe),
        (ApplyMode::NoReboot, num(4, 2), "mode NO_REBOOT", Again::Safe),
        (ApplyMode::Staged, num(4, 3), "mode STAGED", Again::Safe),
        (
            ApplyMode::Try { back_after: minute },
            [num(4, 4), msg(6, &[num(1, 90)])].concat(),
            "mode TRY for 90 s",
            Again::Safe,
        ),
        (ApplyMode::Reboot, Vec::new(), "mode REBOOT", Again::Once),
    ];
    for (mode, fields, words, again) in &cases {
        let wire = Wire::start().await;
        wire.says("ApplyConfiguration", &[num(3, 2), text(4, "Applied configuration without a reboot")]);
        let config = "machine:\n  token: abcdef.0123456789abcdef\n";
        let applied = wire.talos.apply_config(&wire.permit, config, *mode).await.unwrap();
        assert_eq!((applied.reboots, applied.details.as_str()), (false, "Applied configuration without a reboot"));
        let (asked, note) = wire.change();
        assert_eq!(asked.path, machine("ApplyConfiguration"));
        assert_eq!(asked.messages, [[text(1, config).as_slice(), fields].concat()]);
        assert!(note.text.ends_with(words) && !note.text.contains("token"), "{}", note.text);
        assert_eq!(note.again, *again);
    }
    assert_eq!(cases.len(), 5);
}

#[tokio::test]
async fn what_a_node_says_of_a_configuration_has_none_of_its_secrets() {
    const SECRET: &str = "abcdef.0123456789abcdef";
    const QUOTED: &str = "unknown keys found during decoding: machine: tokne: abcdef.0123456789abcdef";
    let config = format!("machine:\n  tokne: {SECRET}\n  type: worker\n");
    let wire = Wire::start().await;
    for code in [3, 9, 2] {
        wire.fake.on(&machine("ApplyConfiguration"), Says::Status(vec![], code, QUOTED));
        let error = wire.talos.apply_config(&wire.permit, &config, ApplyMode::NoReboot).await.unwrap_err();
        let text = format!("{error} {error:?}");
        assert!(text.contains("unknown keys found") && text.contains("tokne: …") && !text.contains(SECRET), "{text}");
        wire.fake.on(&machine("ApplyConfiguration"), Says::Status(vec![], code, QUOTED));
        let error = wire.talos.dry_run(&config, ApplyMode::NoReboot).await.unwrap_err();
        assert!(error.to_string().contains("unknown keys found") && !format!("{error:?}").contains(SECRET), "{error}");
    }
    let wire = Wire::start().await;
    // A difference has the values of the former configuration, which this side has not seen.
    let details =
        format!("Dry run summary:\nApplied (skipped).\nConfig diff:\n\n-  token: former\n+  token: {SECRET}\n");
    let warning = format!("machine.tokne: {SECRET} is going to go");
    let said = [text(2, &warning), num(3, 2), text(4, &details)];
    wire.says("ApplyConfiguration", &said);
    let would = wire.talos.dry_run(&config, ApplyMode::NoReboot).await.unwrap();
    assert_eq!(would.details, "Dry run summary:\nApplied (skipped).");
    assert_eq!(would.warnings, ["machine.tokne: … is going to go"]);
    wire.says("ApplyConfiguration", &said);
    let applied = wire.talos.apply_config(&wire.permit, &config, ApplyMode::NoReboot).await.unwrap();
    assert_eq!(applied, would);
    assert!(!format!("{applied:?}").contains("former"));
}

fn member(id: u64, hostname: &str) -> EtcdMember {
    let (peer_urls, client_urls) = (Vec::new(), Vec::new());
    EtcdMember { id, hostname: hostname.into(), peer_urls, client_urls, is_learner: false }
}

#[tokio::test]
async fn a_member_goes_only_with_a_consent_and_one_that_is_gone_is_gone() {
    let wire = Wire::start().await;
    let listed = |id: u64, hostname: &str| msg(3, &[num(2, id), text(3, hostname)]);
    let members = [listed(2, "talos-20"), listed(3, "talos-49"), listed(5, "twin"), listed(6, "twin"), listed(255, "")];
    wire.says("EtcdMemberList", &members);
    wire.says("EtcdRemoveMemberByID", &[]);
    wire.fake.on(&machine("EtcdRemoveMemberByID"), Says::Status(vec![], 5, "etcdserver: member not found"));
    let (permit, book) = Book::permit(&["etcd/talos-49", "etcd/00000000000000ff", "etcd/twin"]);
    // Two that share a host name are told apart by their ids, and a consent to that name is one to neither.
    for (id, hostname, thing) in [(2, "talos-20", "etcd/talos-20"), (5, "twin", "etcd/0000000000000005")] {
        let error = wire.talos.etcd_remove(&permit, &member(id, hostname)).await.unwrap_err();
        let help = error.help().unwrap();
        assert!(matches!(&error, Error::Refused(_)) && help.contains(&format!("--destroy {thing}")), "{error:?}");
    }
    let removed = || wire.fake.asked().into_iter().filter(|asked| asked.path == machine("EtcdRemoveMemberByID"));
    assert_eq!((removed().count(), book.texts().len()), (0, 0));

    wire.talos.etcd_remove(&permit, &member(3, "talos-49")).await.unwrap();
    // One that never started is known by its id.
    wire.talos.etcd_remove(&permit, &member(255, "")).await.unwrap();
    removed().for_each(|asked| decent(&asked));
    assert_eq!(removed().map(|a| a.messages[0].clone()).collect::<Vec<_>>(), [num(1, 3), num(1, 255)]);
    assert_eq!(book.texts()[0], "talos-20 EtcdRemoveMemberByID 0000000000000003 (talos-49)");
    assert_eq!(book.notes.lock().unwrap()[1].again, Again::Safe);
}

#[tokio::test]
async fn leaving_for_good_asks_for_the_own_member_and_forfeiting_for_nothing() {
    let wire = Wire::start().await;
    wire.says("EtcdStatus", &[msg(2, &[num(4, 255), num(10, 255)])]);
    wire.says(
        "EtcdMemberList",
        &[msg(3, &[num(2, 255), text(3, "talos-20")]), msg(3, &[num(2, 7), text(3, "talos-49")])],
    );
    wire.says("EtcdLeaveCluster", &[]);
    wire.says("EtcdForfeitLeadership", &[text(2, "talos-49")]);
    let (none, asked_for) = Book::permit(&[]);
    assert!(matches!(wire.talos.etcd_leave(&none, Leaving::ForGood).await, Err(Error::Refused(_))));
    assert_eq!(*asked_for.asked.lock().unwrap(), ["etcd/talos-20"]);
    let (permit, book) = Book::permit(&["etcd/talos-20"]);
    wire.talos.etcd_leave(&permit, Leaving::ForGood).await.unwrap();
    assert_eq!(wire.talos.etcd_forfeit(&none).await.unwrap().as_deref(), Some("talos-49"));
    let paths: Vec<_> = wire.fake.asked().into_iter().map(|asked| asked.path).collect();
    let wanted =
        ["EtcdStatus", "EtcdMemberList", "EtcdStatus", "EtcdMemberList", "EtcdLeaveCluster", "EtcdForfeitLeadership"];
    assert_eq!(paths, wanted.map(machine));
    assert_eq!(
        (book.texts(), asked_for.texts()),
        (vec!["talos-20 EtcdLeaveCluster".into()], vec!["talos-20 EtcdForfeitLeadership".into()])
    );
}

#[tokio::test]
async fn leaving_until_the_next_boot_asks_for_no_consent_and_for_another_voter() {
    let own = || msg(3, &[num(2, 255), text(3, "talos-20")]);
    // Learners (7), and one that was added and never started, keep no data.
    let others = [
        (vec![], false),
        (vec![msg(3, &[num(2, 7), text(3, "talos-49"), num(6, 1)])], false),
        (vec![msg(3, &[num(2, 7)])], false),
        (vec![msg(3, &[num(2, 7), text(3, "talos-49")])], true),
    ];
    assert_eq!(others.len(), 4);
    for (others, goes) in others {
        let wire = Wire::start().await;
        wire.says("EtcdStatus", &[msg(2, &[num(4, 255), num(10, 255)])]);
        wire.says("EtcdMemberList", &std::iter::once(own()).chain(others).collect::<Vec<_>>());
        wire.says("EtcdLeaveCluster", &[]);
        let (permit, book) = Book::permit(&[]);
        let left = wire.talos.etcd_leave(&permit, Leaving::UntilItsNextBoot).await;
        assert_eq!(left.is_ok(), goes, "{left:?}");
        assert!(goes || left.unwrap_err().to_string().contains("the only one with a vote"));
        assert_eq!(*book.asked.lock().unwrap(), Vec::<String>::new());
        assert_eq!(book.texts(), if goes { vec!["talos-20 EtcdLeaveCluster".to_owned()] } else { Vec::new() });
    }
}

#[tokio::test]
async fn etcd_is_started_anew_from_nothing_or_from_a_snapshot() {
    for (recover, skip, message) in
        [(false, false, Vec::new()), (true, false, num(1, 1)), (true, true, [num(1, 1), num(2, 1)].concat())]
    {
        let wire = Wire::start().await;
        wire.says("Bootstrap", &[]);
        wire.talos.bootstrap(&wire.permit, recover, skip).await.unwrap();
        let (asked, note) = wire.change();
        assert_eq!((asked.path, asked.messages, note.again), (machine("Bootstrap"), vec![message], Again::Safe));
    }
    let wire = Wire::start().await;
    wire.fake.on(&machine("Bootstrap"), Says::Status(vec![], 6, "etcd data directory is not empty"));
    let error = wire.talos.bootstrap(&wire.permit, false, false).await.unwrap_err();
    assert!(matches!(error, Error::Exists { .. }) && error.effect() == Effect::None, "{error:?}");

    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("snapshot");
    let data: Vec<u8> = (0..150_000_u32).map(|i| i as u8).collect();
    std::fs::write(&path, &data).unwrap();
    let wire = Wire::start().await;
    wire.says("EtcdRecover", &[]);
    wire.talos.etcd_recover(&wire.permit, &path).await.unwrap();
    let (asked, note) = wire.change();
    assert_eq!(
        (asked.path.as_str(), note.text.as_str()),
        (machine("EtcdRecover").as_str(), "talos-20 EtcdRecover, 150000 bytes")
    );
    // In pieces, each the second field of a message.
    let pieces: Vec<Vec<u8>> = data.chunks(64 << 10).map(|piece| raw(2, piece)).collect();
    assert_eq!(pieces.len(), 3);
    assert_eq!(asked.messages, pieces);
    let wire = Wire::start().await;
    let error = wire.talos.etcd_recover(&wire.permit, &dir.path().join("none")).await.unwrap_err();
    assert!(matches!(error, Error::File { .. }), "{error:?}");
    assert_eq!((wire.fake.asked().len(), wire.notebook.notes().len()), (0, 0));
}

#[tokio::test]
async fn up_to_1_12_an_upgrade_is_one_call() {
    let wire = Wire::start().await;
    wire.says("Version", &[msg(2, &[text(1, "v1.12.11")])]);
    wire.says("Upgrade", &[text(2, "Upgrade request received"), text(3, "0b5c")]);
    let image = "factory.talos.dev/nocloud-installer/abc:v1.12.12";
    let upgrade = wire.talos.upgrade(&wire.permit, image).await.unwrap();
    assert_eq!(upgrade, Upgrade::Begun { actor: "0b5c".into() });
    let asked = wire.fake.asked();
    assert_eq!(asked.iter().map(|a| a.path.clone()).collect::<Vec<_>>(), [machine("Version"), machine("Upgrade")]);
    assert_eq!(asked[1].messages, [[text(1, image), num(5, 1)].concat()]);
    let notes = wire.notebook.notes();
    assert_eq!(unseen(&notes), [(Again::Once, true)]);
}

/// Whether each may be sent again, and whether it may be under way without a sign of it on the node.
fn unseen(notes: &[Note]) -> Vec<(Again, bool)> {
    notes.iter().map(|note| (note.again, note.unseen)).collect()
}

const PULL: &str = "/machine.ImageService/Pull";
const WRITE: &str = "/machine.LifecycleService/Upgrade";

/// A node of 1.13 that has pulled the image.
async fn pulled() -> Wire {
    let wire = Wire::start().await;
    wire.says("Version", &[msg(2, &[text(1, "v1.13.9")])]);
    let progress = msg(2, &[text(1, "sha256:aa"), msg(2, &[num(1, 2), num(3, 5), num(4, 10)])]);
    wire.fake.on(PULL, Says::Ok(vec![progress, text(1, "reg/installer@sha256:bb")]));
    wire
}

#[tokio::test]
async fn from_1_13_on_the_image_is_pulled_and_written_and_nothing_else() {
    let wire = pulled().await;
    let line = |said: &str| msg(1, &[text(1, said)]);
    // A zero is sent all the same: it is one of two.
    wire.fake.on(WRITE, Says::Ok(vec![line("writing"), line("done"), msg(1, &[num(2, 0)])]));
    let (permit, book) = Book::permit(&[]);
    assert_eq!(wire.talos.upgrade(&permit, "reg/installer:v1.13.9").await.unwrap(), Upgrade::Written);
    let asked = wire.fake.asked();
    asked.iter().for_each(decent);
    assert_eq!(asked.iter().map(|a| a.path.as_str()).collect::<Vec<_>>(), [machine("Version").as_str(), PULL, WRITE]);
    let system = msg(1, &[num(2, 1)]);
    assert_eq!(asked[1].messages, [[system.clone(), text(3, "reg/installer:v1.13.9")].concat()]);
    assert_eq!(asked[2].messages, [[system, msg(2, &[text(1, "reg/installer@sha256:bb")])].concat()]);
    assert_eq!(*book.lines.lock().unwrap(), ["sha256:aa EXTRACTING 5 of 10", "writing", "done"]);
    let notes = book.notes.lock().unwrap();
    // A pull may be sent again, so nobody waits for what became of it.
    assert_eq!(unseen(&notes), [(Again::Safe, false), (Again::Once, true)]);
}

#[tokio::test]
async fn an_installer_that_fails_says_so_under_ok() {
    let wire = pulled().await;
    wire.fake.on(WRITE, Says::Ok(vec![msg(1, &[text(1, "no space left on device")]), msg(1, &[num(2, 1)])]));
    let error = wire.talos.upgrade(&wire.permit, "reg/installer:v1.13.9").await.unwrap_err();
    assert!(matches!(error, Error::InstallerFailed { code: 1, .. }), "{error:?}");
    assert_eq!(error.effect(), Effect::Partial);
    assert!(error.to_string().contains("no space left"), "{error}");

    let writing = || vec![msg(1, &[text(1, "writing")])];
    // FAILED_PRECONDITION would be a refusal, were it not for what was written before it.
    let ends = [Says::Ok(writing()), Says::Breaks(writing()), Says::Status(writing(), 9, "the disk is busy")];
    for says in ends {
        let wire = pulled().await;
        wire.fake.on(WRITE, says);
        let error = wire.talos.upgrade(&wire.permit, "reg/installer:v1.13.9").await.unwrap_err();
        assert_eq!(error.effect(), Effect::Maybe, "{error:?}");
    }
    let wire = pulled().await;
    wire.fake.on(WRITE, Says::Status(Vec::new(), 9, "the disk is busy"));
    let error = wire.talos.upgrade(&wire.permit, "reg/installer:v1.13.9").await.unwrap_err();
    assert!(matches!(error, Error::NotReady { .. }) && error.effect() == Effect::None, "{error:?}");
    // A pull that breaks off leaves nothing that is written.
    let wire = Wire::start().await;
    wire.says("Version", &[msg(2, &[text(1, "v1.14.0")])]);
    wire.fake.on(PULL, Says::Ok(Vec::new()));
    let error = wire.talos.upgrade(&wire.permit, "reg/installer:v1.14.0").await.unwrap_err();
    assert!(matches!(error, Error::BadAnswer { .. }), "{error:?}");
    assert_eq!(wire.fake.asked().len(), 2);
}

#[tokio::test]
async fn a_node_that_does_not_have_the_new_way_goes_the_old_one() {
    let wire = Wire::start().await;
    wire.says("Version", &[msg(2, &[text(1, "v1.13.0-alpha.0")])]);
    wire.says("Upgrade", &[text(3, "0b5c")]);
    let upgrade = wire.talos.upgrade(&wire.permit, "reg/installer:v1.13.0").await.unwrap();
    assert_eq!(upgrade, Upgrade::Begun { actor: "0b5c".into() });
    let paths: Vec<_> = wire.fake.asked().into_iter().map(|asked| asked.path).collect();
    assert_eq!(paths, [machine("Version"), PULL.to_owned(), machine("Upgrade")]);
    assert_eq!(unseen(&wire.notebook.notes()), [(Again::Safe, false), (Again::Once, true)]);
}

#[tokio::test]
async fn the_slots_are_swapped_back_once() {
    let wire = Wire::start().await;
    wire.says("Rollback", &[]);
    wire.talos.roll_back(&wire.permit).await.unwrap();
    let (asked, note) = wire.change();
    assert_eq!((asked.path, asked.messages, note.again), (machine("Rollback"), vec![Vec::new()], Again::Once));
    assert!(!note.unseen, "{note:?}");
}
