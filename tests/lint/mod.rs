//! What the rules say of the lab's worlds: what is wrong there, and no more.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]

mod worlds;

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Api, Patch, PatchParams, PostParams};
use pvemig::base::clock::Clock;
use pvemig::base::survey::Survey;
use pvemig::estate::Estate;
use pvemig::lab::{self, FaultEffect, FaultRule, Front, Lab, LabOptions, World};
use pvemig::lint::{self, Finding, Looked};
use pvemig::site::Site;

use crate::harness::estate::at_rest;

/// A question is given up after this.
const PATIENCE: Duration = Duration::from_secs(20);

/// What is wrong with a world whose systems do this.
async fn looked(world: World, faults: &[(Front, &str, FaultEffect)]) -> Looked {
    let dir = tempfile::tempdir().unwrap();
    let lab = Lab::start(LabOptions { world, dir: dir.path().to_owned(), speed: 1 }).await.unwrap();
    for (front, path, effect) in faults {
        lab.fault(FaultRule::on(*front, effect.clone()).path(path));
    }
    at(&lab).await
}

/// What is wrong with a lab as it is.
async fn at(lab: &Lab) -> Looked {
    let site = Arc::new(Site::load(&lab.dir().join("site.yaml")).unwrap());
    let estate = Estate::new(site, Clock::real(), lab.dir().join("state")).deadlines(PATIENCE, PATIENCE);
    let mut survey: Survey = estate.survey(&[]).await.unwrap();
    for node in &mut survey.nodes {
        // How fast this machine is says nothing of the world.
        if let pvemig::base::survey::Layer::Known(seat) = &mut node.etcd {
            seat.answered_ms = 1;
        }
    }
    let looked = lint::look(&survey);
    // What a node goes by has no port, whatever that of its API is.
    for finding in &looked.findings {
        let words: Vec<&str> = finding.help.split_whitespace().collect();
        let named = words.windows(2).filter(|pair| pair[0] == "-n" && pair[1].contains(':'));
        assert_eq!(named.count(), 0, "{finding:?}");
    }
    looked
}

/// A world at rest after something was made of it; a boot that is stuck there stays so.
fn changed(name: &str, change: impl FnOnce(&mut World)) -> World {
    let mut world = lab::load(name).unwrap();
    world.talos.timing.stuck = 1_000_000_000;
    change(&mut world);
    Lab::at_rest(world, tempfile::tempdir().unwrap().path()).unwrap()
}

fn told(looked: &Looked) -> Vec<(&str, &str)> {
    looked.findings.iter().map(|finding| (finding.rule, finding.what.as_str())).collect()
}

/// The only finding of a rule.
fn only<'l>(looked: &'l Looked, rule: &str) -> &'l Finding {
    let found: Vec<&Finding> = looked.findings.iter().filter(|finding| finding.rule == rule).collect();
    let [one] = found.as_slice() else { panic!("{:#?}", looked.findings) };
    one
}

/// Two of the three are configured by the kernel's name of their disk, which is what moves in that world.
const NAMES: [(&str, &str); 2] = [("L06", "talos-mac"), ("L06", "talos-nuc")];

#[tokio::test(flavor = "multi_thread")]
async fn of_three_sound_nodes_two_name_their_disk_by_what_moves() {
    let looked = looked(at_rest("talos-three"), &[]).await;
    assert_eq!(told(&looked), NAMES, "{looked:#?}");
    assert_eq!(looked.unlooked, []);
    let mac = &looked.findings[0];
    assert!(mac.text.contains("now it is sda (APPLE SSD SM0256G S2ZRNYAH500749"), "{mac:?}");
    let link = "/dev/disk/by-id/ata-APPLE_SSD_SM0256G_S2ZRNYAH500749";
    assert!(mac.help.contains(&format!(r#"{{"machine":{{"install":{{"disk":"{link}"}}}}}}"#)), "{mac:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_modules_the_patch_is_shown() {
    let looked = looked(changed("talos-three-no-modules", |_| {}), &[]).await;
    assert_eq!(told(&looked), [("L01", "talos-nuc")], "{looked:#?}");
    assert_eq!(looked.unlooked, []);
    let Finding { text, help, .. } = only(&looked, "L01");
    for part in
        ["`nvidia_modeset`", "`ext-nvidia-persistenced` is Waiting", "Talos is `booting` though the kubelet is Ready"]
    {
        assert!(text.contains(part), "{part}: {text}");
    }
    let patch: serde_json::Value = serde_json::from_str(help.split('\'').nth(1).unwrap()).unwrap();
    let modules = patch.pointer("/machine/kernel/modules").unwrap().as_array().unwrap();
    assert_eq!(modules.len(), 4);
    assert_eq!(patch.pointer("/machine/sysctls/net.core.bpf_jit_harden").unwrap(), "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn on_the_wrong_image_the_right_one_is_named() {
    let looked = looked(changed("talos-three-wrong-image", |_| {}), &[]).await;
    assert_eq!(told(&looked), [("L02", "talos-vm")], "{looked:#?}");
    let Finding { text, help, .. } = only(&looked, "L02");
    assert!(text.contains("`ext-nvidia-persistenced` is Waiting"), "{text}");
    let image =
        "factory.talos.dev/nocloud-installer/ce4c980550dd2ab1b17bbf2b08801c7eb59418eafe8f279833297925d67c7515:v1.11.5";
    assert!(help.contains(&format!("upgrade --image {image}`")), "{help}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_talos_that_does_not_answer_is_told_and_what_could_not_be_looked_at() {
    let faults = [(Front::Talos, "/talos-mac/*", FaultEffect::ResetBefore)];
    let looked = looked(at_rest("talos-three"), &faults).await;
    assert_eq!(told(&looked), [("L26", "talos-mac"), ("L06", "talos-nuc")], "{looked:#?}");
    let blind = looked.blind();
    assert!(!blind.is_empty() && blind.iter().all(|blind| blind.what == "talos-mac"), "{blind:#?}");
    let rules: Vec<&str> = blind.iter().flat_map(|blind| blind.rules.iter().copied()).collect();
    for rule in ["L01", "L02", "L03", "L06", "L10", "L20", "L22", "L23", "L24"] {
        assert!(rules.contains(&rule), "{rule}: {blind:#?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn machines_with_k3s_have_nothing_wrong_until_the_credentials_cannot_touch_a_stick() {
    let sound = looked(at_rest("usb-move"), &[]).await;
    assert_eq!((told(&sound), sound.unlooked.as_slice()), (vec![], &[][..]), "{sound:#?}");
    let mapped = looked(at_rest("usb-move-token"), &[]).await;
    assert_eq!(told(&mapped), [], "{mapped:#?}");
    let raw = looked(at_rest("usb-move-token-cannot"), &[]).await;
    assert_eq!(told(&raw), [("L21", "k3s-vm-pumped-piglet")], "{raw:#?}");
    let Finding { text, .. } = only(&raw, "L21");
    assert!(text.contains("`usb0: host=") && text.contains("by an API token"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_object_that_was_made_anew_on_the_same_machine_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let options = LabOptions { world: at_rest("talos-three"), dir: dir.path().to_owned(), speed: 1 };
    let lab = Lab::start(options).await.unwrap();
    let file = kube::config::Kubeconfig::from_yaml(&lab.reach().kubernetes.kubeconfig).unwrap();
    let config = kube::Config::from_custom_kubeconfig(file, &Default::default()).await.unwrap();
    let api: Api<Node> = Api::all(kube::Client::try_from(config).unwrap());
    let old = api.get("talos-vm").await.unwrap();
    api.delete("talos-vm", &Default::default()).await.unwrap();
    let mut new = old.clone();
    new.metadata = ObjectMeta { name: Some("talos-vm".into()), labels: old.metadata.labels, ..ObjectMeta::default() };
    let made = api.create(&PostParams::default(), &new).await.unwrap();
    assert_ne!(made.metadata.uid, old.metadata.uid);
    let status = Patch::Merge(serde_json::json!({ "status": old.status }));
    api.patch_status("talos-vm", &PatchParams::default(), &status).await.unwrap();

    let looked = at(&lab).await;
    assert_eq!(told(&looked), [&NAMES[..], &[("L36", "talos-vm")]].concat(), "{looked:#?}");
    let Finding { text, help, .. } = only(&looked, "L36");
    assert!(text.contains(&made.metadata.uid.unwrap()), "{text}");
    assert!(help.contains(" get node talos-vm --show-labels`") && help.contains("service kubelet restart"), "{help}");
}
