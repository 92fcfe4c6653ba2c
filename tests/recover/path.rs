//! The way that led into the deadlock (3 -> 2 -> a learner -> a dead voter), walked outside of pvemig: at each stage it
//! refuses the next step with the arithmetic, and from the last one it leads out.

use std::time::Duration;

use pvemig::blueprint::machine::Machine;
use pvemig::blueprint::quorum::{Etcd, Join, join, look, votes};
use pvemig::blueprint::{self, BoxedStep};
use pvemig::talos::Error;

use super::*;

fn steps_of(rig: &Rig, migration: &str) -> Vec<BoxedStep> {
    let blueprint = &rig.site.migrations[migration].blueprint;
    blueprint::named(blueprint).unwrap().build(&rig.site, migration).unwrap()
}

async fn etcd(rig: &Rig) -> Etcd {
    look(&rig.estate, "homelab", &Machine::peers(&rig.site, "homelab")).await
}

/// What the gate of a node's reboot says.
async fn gate(rig: &Rig, node: &str) -> Result<(), String> {
    let steps = steps_of(rig, "reboots");
    let key = format!("01-quorum-gate@{node}");
    let step = steps.iter().find(|step| step.key().as_str() == key).unwrap();
    let (info, held) = (rig.bench.store.info("", "here").unwrap(), BTreeMap::new());
    let check = step.check(&rig.estate, Seen { since: None, got: &[], held: &held, run: &info }).await.unwrap();
    match check.answer {
        Answer::Blocked { problems } => Err(problems.into_iter().map(|p| p.text).collect::<Vec<_>>().join("\n")),
        _ => Ok(()),
    }
}

/// What a recovery says, which changes nothing.
async fn refused(rig: &Rig, words: &[&str]) {
    let before = rig.changes();
    let run = rig.forward(None, &consenting()).await;
    let (key, text) = why(&run);
    assert_eq!((key, rig.changes()), ("00-preflight", before), "{text}");
    for word in words {
        assert!(text.contains(word), "{word}: {text}");
    }
}

async fn until(rig: &Rig, what: &str, look: impl Fn(&World) -> bool) {
    let found = rig.lab.shared().until(Duration::from_secs(900), |w| look(w).then_some(())).await;
    assert!(found.is_some(), "{what}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_step_into_the_deadlock_is_refused_and_a_way_leads_out() {
    let mut rig = Rig::of(at_rest("talos-three"), |site| {
        site["migrations"]["recover"] = json!({ "blueprint": "quorum-recover", "params": {
            "talos": "homelab", "from": NUC, "nodes": [MAC], "lost": [VM] } });
    })
    .await;
    rig.steps = steps_of(&rig, "recover");
    let before = rig.lab.shared().read(objects);

    // Three: one of them may go for a while, and there is nothing to recover.
    assert_eq!(votes(&etcd(&rig).await).unwrap().to_string(), "3 voters, 3 healthy, 2 needed: 1 to spare");
    assert_eq!(gate(&rig, VM).await, Ok(()));
    refused(&rig, &["3 voters, 3 healthy, 2 needed: 1 to spare", "nothing is to be recovered"]).await;

    // Two: somebody takes the Mac out of etcd. None of the two may go any more.
    rig.lab.shared().change(|w| w.etcd_leave(MAC)).unwrap();
    assert_eq!(votes(&etcd(&rig).await).unwrap().to_string(), "2 voters, 2 healthy, 2 needed: none to spare");
    let text = gate(&rig, VM).await.unwrap_err();
    let sum = "etcd has 2 voters, 2 healthy, 2 needed: none to spare; while talos-vm is down 2 voters, 1 healthy, 2 needed: no majority";
    assert!(text.contains(sum), "{text}");
    refused(&rig, &["2 voters, 2 healthy, 2 needed: none to spare"]).await;

    // A learner: the Mac comes back, and does not catch up. Nobody else gets in, and nobody may go.
    rig.lab.shared().change(|w| w.talos_reboot(MAC, false));
    until(&rig, "it joins", |w| w.talos.etcd.members.iter().any(|member| member.name == MAC)).await;
    rig.lab.shared().change(|w| {
        let mac = w.talos.etcd.members.iter_mut().find(|member| member.name == MAC).unwrap();
        (mac.learner, mac.lags, mac.votes_at, mac.behind) = (true, true, None, 900);
    });
    until(&rig, "it is up", |w| w.etcd_of(MAC).is_some()).await;
    let now = etcd(&rig).await;
    assert_eq!(votes(&now).unwrap().to_string(), "2 voters, 2 healthy, 2 needed: none to spare");
    let Join::Wait(text) = join("talos-new", &now) else { panic!("{:?}", join("talos-new", &now)) };
    assert!(text.contains("talos-mac of etcd is a learner"), "{text}");
    let text = gate(&rig, VM).await.unwrap_err();
    assert!(text.contains("is a learner") && text.contains("needed: none to spare; while talos-vm is down"), "{text}");
    refused(&rig, &["2 voters, 2 healthy, 2 needed: none to spare"]).await;

    // One of the two dies all the same, with its disk: a majority is two, and one is left.
    rig.lab.shared().change(|w| w.fork("qmstop", 223, "root@pam", json!({})));
    until(&rig, "it is off", |w| w.vms[&223].running.is_none() && w.talos.etcd.leader.is_none()).await;
    rig.lab.shared().change(|w| w.talos.nodes.get_mut(VM).unwrap().member = None);
    let now = etcd(&rig).await;
    assert_eq!((votes(&now), join("talos-new", &now)), (None, Join::NoCluster));
    let text = gate(&rig, NUC).await.unwrap_err();
    assert!(text.contains("how etcd is on talos-nuc is not known") && text.contains("no leader"), "{text}");
    // The node itself begins no second one.
    let (permit, _) = pvemig::base::permit::Notebook::permit();
    let error = rig.estate.talos(NUC).await.unwrap().bootstrap(&permit, false, false).await.unwrap_err();
    assert!(matches!(error, Error::Exists { .. }), "{error}");
    assert_eq!(rig.lab.shared().read(|w| w.etcd_clusters()), 1);

    // And out of it.
    let run = rig.forward(None, &consenting()).await;
    assert_done(&run, "out");
    let said = notes(&run, "00-preflight");
    assert!(said.contains("2 voters, 1 healthy, 2 needed: no majority"), "{said}");
    assert!(said.contains("vm 223 (talos-vm) is there and off"), "{said}");
    assert_recovered(&rig, &before, "out");
}
