//! Clusters that have lost nodes, and machines that are none yet: the votes, and what is known of those who do not answer.

use pvemig::base::survey::{Layer, Majority, Presence, Survey, Voice};
use pvemig::lab::{FaultEffect, Front};
use serde_json::{Value, json};

use super::Bench;
use super::shown::{on_terminal, row};

const NONE_TO_SPARE: &str = "3 voters, 2 healthy, 2 needed: none to spare";

/// What the verb prints, its commands without the site file that the tests give it.
fn said(bench: &Bench) -> String {
    let (code, text) = bench.run(&["survey"]);
    assert_eq!(code, Some(0), "{text}");
    text.replace(&format!("pvemig --site {}/site.yaml ", bench.lab.dir().display()), "pvemig ")
}

fn ballot(survey: &Survey) -> pvemig::base::survey::Ballot {
    let mut all = survey.ballots(&survey.talos[0]);
    assert_eq!(all.len(), 1, "{all:#?}");
    all.remove(0)
}

fn voices(survey: &Survey) -> Vec<(String, &'static str)> {
    ballot(survey).members.iter().map(|member| (member.name.clone(), member.voice.word())).collect()
}

fn words(of: &[(&str, &'static str)]) -> Vec<(String, &'static str)> {
    of.iter().map(|(name, word)| ((*name).to_owned(), *word)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn machines_that_wait_are_asked_and_are_nothing_wrong() {
    let bench = Bench::new("talos-fresh").await;
    let survey = bench.survey(&[]).await;
    assert_eq!(survey.nodes.len(), 3);
    for node in &survey.nodes {
        let waiting = node.waiting.as_ref().unwrap();
        assert_eq!(waiting.version, Layer::Known("v1.11.5".into()), "{}", node.name);
        let serials: Vec<&str> = waiting.disks.known().unwrap().iter().map(|disk| disk.serial.as_str()).collect();
        assert!(!serials.is_empty() && serials.iter().all(|serial| !serial.is_empty()), "{serials:?}");
        assert!(waiting.system_uuid.known().is_some());
        let nothing = [node.talos.is_absent(), node.etcd.is_absent(), node.kubelet.is_absent()];
        assert_eq!((nothing, node.talos_silent, node.unknown()), ([true; 3], false, vec![]), "{}", node.name);
        assert!(node.wrong().is_empty(), "{:?}", node.wrong());
        assert_eq!(node.presence(survey.at), Presence::Waits);
    }
    assert_eq!(ballot(&survey).majority, Majority::NotBegun);

    let text = said(&bench);
    for part in [
        "etcd homelab: not begun, every machine waits for its first configuration",
        "3 machines wait for their first configuration",
        "serial S2ZRNYAH500749; holds EFI (vfat), META, STATE, EPHEMERAL (xfs)",
        "serial talos-vm-root; nothing known on it",
        "help: `pvemig plan build` shows what becomes of it",
        "there is no cluster yet: what builds it writes the kubeconfig",
        "no findings in what is known",
    ] {
        assert_eq!(text.matches(part).count(), 1, "{part}:\n{text}");
    }
    assert!(!text.contains("! ") && row(&text, "talos-mac")[0] == "~", "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_node_is_told_from_one_that_does_not_answer() {
    let bench = Bench::new("talos-dead-node").await;
    let survey = bench.survey(&[]).await;
    let mac = survey.node("talos-mac").unwrap();
    assert!(matches!(mac.presence(survey.at), Presence::Dead { unheard } if unheard.as_secs() > 3_000), "{mac:#?}");
    assert!(mac.talos.is_unknown() && mac.etcd.is_unknown(), "what it would say is not known");
    let wanted = words(&[("talos-nuc", "well"), ("talos-vm", "well"), ("talos-mac", "dead")]);
    assert_eq!(voices(&survey), wanted);
    assert_eq!(ballot(&survey).sum(), NONE_TO_SPARE);
    // The spare machine has no vote, and is no node that is missed.
    assert_eq!(survey.node("talos-mac2").unwrap().presence(survey.at), Presence::Waits);

    // The same Talos is silent, and Kubernetes hears of its kubelet: nobody calls that dead.
    let bench = Bench::new("talos-three").await;
    bench.fault(Front::Talos, "/talos-mac/*", FaultEffect::ResetBefore);
    let survey = bench.survey(&[]).await;
    assert_eq!(survey.node("talos-mac").unwrap().presence(survey.at), Presence::Unheard);
    let ballot = ballot(&survey);
    assert_eq!(ballot.sum(), "3 voters, 2 healthy, 1 not known, 2 needed: none to spare for certain");
    assert!(matches!(ballot.member_of("talos-mac").unwrap().voice, Voice::Unknown(_)));
    let text = said(&bench);
    assert_eq!(row(&text, "talos-mac")[4], "?", "{text}");
    assert!(text.contains("talos-mac: it does not answer, which is not known to be more"), "{text}");
    assert!(!text.contains("dead"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn where_only_some_are_asked_the_others_are_not_counted_as_lost() {
    let bench = Bench::new("talos-three").await;
    let survey = bench.survey(&["talos-mac"]).await;
    let ballot = ballot(&survey);
    assert_eq!((ballot.majority, ballot.not_known()), (Majority::Held, 2));
    assert_eq!(ballot.sum(), "3 voters, 1 healthy, 2 not known, 2 needed: it has its majority");
    let looked = pvemig::lint::look(&survey);
    assert!(!looked.findings.iter().any(|finding| finding.rule > "L36"), "{looked:#?}");
}

/// A world, what its screen says, and what it does not.
type Screen = (&'static str, &'static [&'static str], &'static [&'static str]);

const SCREENS: [Screen; 4] = [
    ("talos-fresh", &["~ etcd homelab: not begun", "waits", "3 machines wait"], &["L29", "L32", "! silent"]),
    (
        "talos-dead-node",
        &["~ etcd homelab: 3 voters, 2 healthy, 2 needed: none to spare; talos-mac:", "! dead", "L39 talos-mac"],
        &["L32"],
    ),
    (
        "talos-no-quorum",
        &[
            "! etcd homelab: no majority: 1 of 2 or 3 voters answers, 2 needed; writes are",
            "L37 homelab",
            "leave it as it is",
        ],
        &["L16", "L25", "L29"],
    ),
    (
        "talos-deadlock",
        &[
            "! etcd homelab: no majority: 1 of 2 voters answers, 2 needed; writes are",
            "a learner without a vote",
            "L37 homelab",
        ],
        &["L16 talos", "L25 talos"],
    ),
];

#[tokio::test(flavor = "multi_thread")]
async fn the_screens_of_lost_nodes_fit_and_say_it() {
    let mut shown = 0;
    for (world, there, absent) in SCREENS {
        let bench = Bench::new(world).await;
        for columns in [80, 120] {
            let (_, plain) = on_terminal(&bench, columns, "survey", false);
            let lines = plain.lines().filter(|line| !line.starts_with("      talosctl "));
            let wide: Vec<&str> = lines.clone().filter(|line| line.chars().count() >= columns).collect();
            assert!(lines.count() > 12 && wide.is_empty(), "{world} {columns}: {wide:#?}\n{plain}");
            for part in there.iter().filter(|_| columns == 80) {
                assert!(plain.contains(part), "{world}: {part}:\n{plain}");
            }
            for part in absent {
                let found = plain.split("could not look").next().unwrap();
                assert!(!found.contains(part), "{world}: {part}:\n{plain}");
            }
            shown += 1;
        }
    }
    assert_eq!(shown, 8);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_json_has_the_votes_and_what_is_next() {
    let json = |bench: &Bench| -> Value {
        let (code, text) = bench.run(&["survey", "--json"]);
        assert_eq!(code, Some(0), "{text}");
        serde_json::from_str(&text).unwrap()
    };
    let fresh = json(&Bench::new("talos-fresh").await);
    let next = json!([{
        "nodes": ["talos-mac", "talos-nuc", "talos-vm"], "help": "`pvemig plan build` shows what becomes of it",
    }]);
    assert_eq!((&fresh["waiting"], &fresh["etcd"][0]["majority"]), (&next, &json!("not-begun")));
    assert_eq!(fresh["nodes"][0]["waiting"]["version"], json!({ "known": "v1.11.5" }));

    let dead = json(&Bench::new("talos-dead-node").await);
    let etcd = &dead["etcd"][0];
    let numbers = ["voters", "healthy", "not-known", "needed", "to-spare"].map(|key| etcd[key].as_u64());
    assert_eq!(numbers, [Some(3), Some(2), Some(0), Some(2), Some(0)], "{etcd}");
    let mac = etcd["members"].as_array().unwrap().iter().find(|member| member["node"] == "talos-mac").unwrap();
    assert_eq!((mac["state"].as_str(), mac["seat"].as_str()), (Some("dead"), Some("voter")), "{mac}");
    assert_eq!(mac["id"].as_str().unwrap().len(), 16);

    let lost = json(&Bench::new("talos-deadlock").await);
    let etcd = &lost["etcd"][0];
    assert_eq!((etcd["majority"].as_str(), etcd["voters"].is_null()), (Some("lost"), true), "{etcd}");
    assert!(etcd["text"].as_str().unwrap().contains("1 of 2 voters answers, 2 needed"), "{etcd}");
    assert_eq!(lost["findings"][0]["rule"], "L37");
}

/// A site that has migrations for it is told them in place of what it would have to write.
#[tokio::test(flavor = "multi_thread")]
async fn the_sites_own_migrations_are_named() {
    let with = |bench: &Bench, name: &str, migration: Value| {
        let file = bench.lab.dir().join("site.yaml");
        let mut site: Value = serde_saphyr::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
        site["migrations"][name] = migration;
        std::fs::write(&file, serde_saphyr::to_string(&site).unwrap()).unwrap();
        said(bench)
    };
    let replace = |old: &str| json!({ "blueprint": "node-replace", "params": { "talos": "homelab", "old": old, "new": { "node": "talos-mac2" } } });
    let bench = Bench::new("talos-dead-node").await;
    let text = with(&bench, "replace-mac", replace("talos-mac"));
    assert!(
        text.contains("where it is gone for good, `pvemig plan replace-mac`, for which talos-mac2 waits"),
        "{text}"
    );
    assert!(text.contains("help: `pvemig plan replace-mac` shows what becomes of it"), "{text}");
    // Another node's replacement is no help for this one.
    let text = with(&bench, "replace-mac", replace("talos-vm"));
    assert!(text.contains("write a migration of the blueprint node-replace"), "{text}");
    let bench = Bench::new("talos-no-quorum").await;
    let recover = |talos: &str| json!({ "blueprint": "quorum-recover", "params": { "talos": talos } });
    let text = with(&bench, "recover", recover("homelab"));
    assert!(text.contains("help: `pvemig plan recover`") && !text.contains("write a migration"), "{text}");
    let text = with(&bench, "recover", recover("another"));
    assert!(text.contains("write a migration of the blueprint quorum-recover"), "{text}");
}

/// Whose certificate is of another authority is asked whether he waits, and one who has a configuration does not.
#[tokio::test(flavor = "multi_thread")]
async fn another_clusters_machine_does_not_wait() {
    let (mut bench, other) = (Bench::new("talos-three").await, Bench::new("talos-three").await);
    let mut site = (*bench.site).clone();
    site.talos.values_mut().for_each(|cluster| cluster.talosconfig = other.lab.dir().join("talosconfig"));
    bench.site = std::sync::Arc::new(site);
    let survey = bench.survey(&[]).await;
    assert_eq!(survey.nodes.len(), 3);
    for node in &survey.nodes {
        let reason = node.talos.reason().unwrap();
        assert!(node.waiting.is_none() && reason.contains("it has one, and asks who we are"), "{reason}");
    }
    assert_eq!(ballot(&survey).majority, Majority::Unknown);
}
