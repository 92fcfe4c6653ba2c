//! What a copy is of, and what a member has besides: two etcds are never mixed up.

use pvemig::lab::talos::database::Database;
use pvemig::lab::talos::etcd::{Etcd, Member};

use super::meanwhile::{goes_on, up_to, up_to_with};
use super::refused::{params, stops};
use super::*;

const WIPE_MAC: &str = "02-wipe-etcd@talos-mac";
const WIPE_NUC: &str = "02-wipe-etcd@talos-nuc";

/// What befalls a world.
type Befell<'b> = &'b dyn Fn(&mut World);

/// Somebody began etcd anew by hand, and its majority was lost once more: what is there now is another log, whatever its index.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_etcd_that_began_anew_is_not_the_one_of_the_copy() {
    let began: [(Befell<'_>, &str); 3] = [
        // By hand, on the same machine: a log that begins low, and as a rule a member of its own.
        (&|w| w.talos.etcd.index = 60_000, "talos-nuc has more by now than its copy: entry 60000 of term"),
        (
            &|w| {
                let id = w.talos.nodes[NUC].member.unwrap();
                w.talos.etcd.members.iter_mut().find(|member| member.id == id).unwrap().id = 0x4d;
                w.talos.nodes.get_mut(NUC).unwrap().member = Some(0x4d);
            },
            "talos-nuc has more by now than its copy: another etcd: its member is 000000000000004d",
        ),
        (&|w| w.talos.etcd.index += 1, "talos-nuc has more by now than its copy: entry 1204812 of term"),
    ];
    let mut rig = deadlock().await;
    let (run, Scenes { settled, .. }) = rig.watched(None, &consenting()).await;
    assert_done(&run, "undisturbed");
    let turn = rig.steps.iter().position(|step| step.key().as_str() == WIPE_MAC).unwrap();
    let mut asked = 0;
    for (change, words) in began {
        rig.go_back(&settled[turn]);
        rig.lab.shared().change(change);
        goes_on(&rig, &run, WIPE_MAC, &[words, "`pvemig abandon` this run"]).await;
        asked += 1;
    }
    assert_eq!(asked, 3);
}

/// Of two survivors one is a member of another etcd: which has more no index tells, and nothing is wiped.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_survivor_of_another_etcd_is_not_compared_by_its_index() {
    let other = |w: &mut World| {
        let learner = Member { id: 99, name: MAC.into(), learner: true, lags: true, ..Member::default() };
        let gone = Member { id: 98, name: VM.into(), ..Member::default() };
        let kept = Some(Database { ids: vec![98, 99], ..Database::default() });
        let quiet = w.talos.etcd.quiet;
        let etcd = Etcd { members: vec![gone, learner], index: 40, quiet, kept, ..Etcd::default() };
        w.talos.etcd.members.retain(|member| member.name != MAC);
        w.talos.others.push(etcd);
        w.talos.nodes.get_mut(MAC).unwrap().member = Some(99);
    };
    let rig = self::rig(DEADLOCK, other, |_| {}).await;
    let run = rig.forward(None, &consenting()).await;
    let (key, text) = why(&run);
    assert_eq!((key, rig.changes()), ("01-save-copy", 0), "{text}");
    for part in ["talos-mac is of another etcd than talos-nuc", "which has more no index tells", "put under `lost`"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(rig.lab.shared().read(|w| w.talos.wiped.is_empty()));
    assert_eq!(held(&rig), BTreeSet::new());
}

/// An etcd that starts over and over writes its file each time, and adds nothing: what is in it decides.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_etcd_that_does_not_tell_is_compared_by_what_is_in_its_file() {
    let mut rig = rig("talos-no-quorum", |_| {}, |_| {}).await;
    let run = up_to_with(&mut rig, WIPE_NUC, &vouching(MAC)).await;
    let none = FaultEffect::Status(2, "rpc error: connection refused".into());
    rig.lab.fault(FaultRule::on(Front::Talos, none).path("/talos-nuc/*/EtcdStatus"));
    // It was written a moment ago.
    rig.lab.shared().change(|w| w.talos.etcd.quiet = Some(w.now));
    let check = asked(&rig, &run.id, WIPE_NUC, false).await;
    assert!(matches!(check.answer, Answer::Todo { .. }), "{check:#?}");
    rig.lab.shared().change(|w| {
        let ids = w.talos.etcd.members.iter().map(|member| member.id).collect();
        w.talos.etcd.kept = Some(Database { revision: 9, ids, ..Database::default() });
    });
    let text = blocked(&asked(&rig, &run.id, WIPE_NUC, false).await);
    for part in ["its file has another content than the copy", "switch talos-nuc off and put it under `lost`"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    // What cannot be read is not known to be the same.
    rig.lab.fault(FaultRule::on(Front::Talos, FaultEffect::Refuse).path("/talos-nuc/*/Read"));
    let text = blocked(&asked(&rig, &run.id, WIPE_NUC, false).await);
    assert!(text.contains("as much as nobody can tell"), "{text}");
}

/// Another cluster has nodes of these names too, and longer ones: where a member tells its id, that alone decides.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_of_nodes_show_nothing_where_a_member_tells_its_id() {
    let mut rig = deadlock().await;
    let run = up_to(&mut rig, WIPE_MAC).await;
    let files = rig.bench.store.info(&run.id, "here").unwrap().files.unwrap().join("01-save-copy");
    // The raw file: it has no digest that would have to be made anew.
    let own = std::fs::read(files.join("talos-mac.db")).unwrap();
    let ids = rig.lab.shared().read(|w| w.talos.etcd.members.iter().map(|m| format!("{:x}", m.id)).collect::<Vec<_>>());
    let (mut staging, mut longer) = (own.clone(), own.clone());
    for id in &ids {
        let at = staging.windows(id.len()).position(|part| part == id.as_bytes()).unwrap() + id.len() - 1;
        staging[at] = if staging[at] == b'0' { b'1' } else { b'0' };
    }
    let key = b"/registry/minions/talos-nuc";
    let at = longer.windows(key.len()).position(|part| part == key).unwrap();
    // `talos-nu` is none of ours, though `talos-nuc` begins with it.
    longer[at + key.len() - 1] = b'-';
    let silent = |rig: &Rig| {
        let none = FaultEffect::Status(2, "rpc error".into());
        rig.lab.fault(FaultRule::on(Front::Talos, none).path("*/EtcdStatus"));
    };
    let cases: [(&[u8], bool, Result<&str, &str>); 4] = [
        (&staging, true, Err("it is of another cluster, or of a time before this etcd began")),
        (&longer, true, Ok("has no Node of talos-nuc")),
        (&longer, false, Err("that it is of homelab is not shown: it has no Node talos-nuc")),
        (&own, false, Ok("the names of its Nodes say, and nothing else")),
    ];
    let mut found = 0;
    for (content, tells, wanted) in cases {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("given");
        pvemig::base::private::write(&path, content).unwrap();
        let rig = self::rig(DEADLOCK, |_| {}, |site| params(site)["snapshot"] = json!(path)).await;
        if !tells {
            silent(&rig);
        }
        let check = asked(&rig, "", "00-preflight", false).await;
        let said = match &check.answer {
            Answer::Blocked { .. } => blocked(&check),
            _ => String::new(),
        };
        match wanted {
            Err(words) => assert!(said.contains(words), "{words}: {said}"),
            Ok(words) => {
                assert!(!said.contains("which etcd is to begin from"), "{said}");
                assert!(check.notes.iter().any(|note| note.contains(words)), "{words}: {:#?}", check.notes);
            }
        }
        found += 1;
    }
    assert_eq!(found, 4);
}

/// The copies go to another place too, for their owner alone; one that was lost there is written anew.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copies_are_saved_elsewhere_too() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let to = dir.path().join("deep/er");
    let rig = self::rig(DEADLOCK, |_| {}, |site| params(site)["saves"] = json!(to)).await;
    let before = rig.lab.shared().read(objects);
    let run = rig.forward(None, &consenting()).await;
    assert_done(&run, "saved");
    assert_recovered(&rig, &before, "saved");
    // Two resets, the copy, and the beginning; and each file that is written here.
    assert_eq!((calls(&run.records), rig.changes()), (6, 4));
    let files = rig.bench.store.info(&run.id, "here").unwrap().files.unwrap().join("01-save-copy");
    let mut same = 0;
    for name in ["talos-nuc.snapshot", "talos-mac.db"] {
        let path = to.join(format!("{}-{name}", run.id));
        assert_eq!(std::fs::read(&path).unwrap(), std::fs::read(files.join(name)).unwrap());
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        same += 1;
    }
    assert_eq!((same, std::fs::read_dir(&to).unwrap().count()), (2, 2));
    // Where none can be written nothing is wiped, and it says so.
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    let rig = self::rig(DEADLOCK, |_| {}, |site| params(site)["saves"] = json!(file.join("below"))).await;
    stops(&rig, &consenting(), "01-save-copy", &["cannot be written", "or leave `saves` out"]).await;
}
