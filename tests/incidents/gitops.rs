//! Whoever else writes to the cluster: holds that are taken down in the middle, and images that change meanwhile.

use pvemig::base::check::Hands;
use pvemig::lab::Place;
use pvemig::lab::kube::kinds;
use serde_json::{Value, json};

use super::{How, Rig, assert_stopped, go, notes, rig};
use crate::harness::same::assert_done;

const MERGE: &str = "application/merge-patch+json";
pub(crate) const JSON: &str = "application/json";
const FLUX: &str = "/apis/kustomize.toolkit.fluxcd.io/v1/namespaces/flux-system/kustomizations";
const FRIGATE: &str = "/apis/apps/v1/namespaces/frigate/deployments/frigate";

pub(crate) async fn send(rig: &Rig, method: &str, path: &str, kind: &str, body: Value) {
    let request = http::Request::builder().method(method).uri(path).header("content-type", kind);
    let request = request.body(body.to_string().into_bytes()).unwrap();
    let _answer: Value = rig.cluster().await.request(request).await.unwrap();
}

/// Somebody does something while a run waits for the stick, and carries it over then; the run stops before its next
/// change and names it. `resume` puts the hold up again, and the run goes on to its end.
async fn taken_down(by: impl AsyncFnOnce(&Rig), says: &[&str]) {
    let rig = rig("usb-move", &[], |_| {}).await;
    let (asked, mut ask) = tokio::sync::mpsc::unbounded_channel();
    let hands = move |hands: &Hands| drop(asked.send(hands.clone()));
    let how = How::default();
    let run = rig.bench.go(&rig.estate, &rig.steps, None, false, &how, hands);
    let somebody = async {
        let wish = ask.recv().await.unwrap();
        assert!(matches!(&wish, Hands::Plug { device, .. } if device == "coral"), "{wish:?}");
        by(&rig).await;
        rig.lab.move_stick("coral", Some(Place { host: "still-fawn".into(), port: "2-3".into() })).unwrap();
    };
    let (stopped, ()) = tokio::join!(run, somebody);
    assert_stopped(&stopped, "04-", says);
    assert_done(&rig.forward(Some(&stopped.id), &How::default()).await, "the hold is up again");
}

async fn flux() {
    let resume = async |rig: &Rig| {
        let path = format!("{FLUX}/apps?fieldManager=flux");
        send(rig, "PATCH", &path, MERGE, json!({"spec": {"suspend": false}})).await;
    };
    taken_down(resume, &["00b-suspend-gitops", "Kustomization flux-system/apps", "flux"]).await;
}

async fn a_parent() {
    let resume = async |rig: &Rig| {
        let path = format!("{FLUX}/flux-system?fieldManager=kubectl-edit");
        send(rig, "PATCH", &path, MERGE, json!({"spec": {"suspend": false}})).await;
    };
    taken_down(resume, &["00b-suspend-gitops", "Kustomization flux-system/flux-system"]).await;
}

/// A release that owns the workload appears.
async fn helm_release() {
    let release = async |rig: &Rig| {
        let release = json!({"apiVersion": "helm.toolkit.fluxcd.io/v2", "kind": "HelmRelease",
            "metadata": {"name": "nvr"}, "spec": {"interval": "10m", "chart": {"spec": {"chart": "nvr",
                "sourceRef": {"kind": "HelmRepository", "name": "charts"}}}}});
        send(rig, "POST", "/apis/helm.toolkit.fluxcd.io/v2/namespaces/frigate/helmreleases", JSON, release).await;
        let labels = json!({"helm.toolkit.fluxcd.io/name": "nvr", "helm.toolkit.fluxcd.io/namespace": "frigate"});
        send(rig, "PATCH", FRIGATE, MERGE, json!({"metadata": {"labels": labels}})).await;
    };
    taken_down(release, &["00b-suspend-gitops", "HelmRelease frigate/nvr"]).await;
}

/// Somebody scales it up again.
async fn scaled_up() {
    let up = async |rig: &Rig| {
        send(rig, "PATCH", &format!("{FRIGATE}?fieldManager=kubectl-scale"), MERGE, json!({"spec": {"replicas": 1}}))
            .await;
    };
    taken_down(up, &["00d-scale-down", "kubectl-scale"]).await;
}

/// The branch gets another image while the run waits: that is what comes up, and 10 says so.
async fn image_bumped() {
    let rig = rig("usb-move", &[], |_| {}).await;
    let run = rig.forward(None, &How { no_hands: true, ..How::default() }).await;
    assert_stopped(&run, "03-", &["plug coral"]);
    let image = rig.lab.shared().read(|world| {
        let frigate = world.kube.store.get(kinds::deployments(), "frigate", "frigate").unwrap();
        frigate["spec"]["template"]["spec"]["containers"][0]["image"].as_str().unwrap().to_owned()
    });
    let other = format!("{}:0.99.0", image.rsplit_once(':').unwrap().0);
    commit(&rig, &image, &other);
    let resumed = rig.forward(Some(&run.id), &How::default()).await;
    assert_done(&resumed, "with another image");
    let said = notes(&resumed, "10-");
    assert!(said.contains(&format!("image {image} became {other} meanwhile")), "{said}");
}

/// Somebody else's commit on the branch that Flux follows.
#[expect(clippy::disallowed_methods, reason = "the test plays the person at another desk")]
fn commit(rig: &Rig, from: &str, to: &str) {
    let script = format!(
        "git clone -q '{bare}' desk && cd desk && sed -i 's|{from}|{to}|' apps/frigate/deployment.yaml && \
         git -c user.name=robot -c user.email=robot@localhost commit -qam bump && git push -q origin HEAD:main",
        bare = rig.dir().join("gitops.git").display()
    );
    let dir = tempfile::tempdir().unwrap();
    let done = std::process::Command::new("sh").args(["-ec", &script]).current_dir(dir.path()).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

/// Another operator's mark: two at once.
async fn two_operators() {
    let rig = rig("usb-move", &[], |_| {}).await;
    let mark = pvemig::base::hold::Mark { run: "9zz".into(), host: "other-desk".into(), was: json!({"replicas": 1}) };
    let body = json!({"metadata": {"annotations": {(pvemig::base::hold::MARK): mark.to_annotation()}},
        "spec": {"replicas": 0}});
    send(&rig, "PATCH", FRIGATE, MERGE, body).await;
    let before = rig.changes();
    let run = go(&rig).await;
    assert_stopped(&run, "00", &["9zz", "other-desk"]);
    assert_eq!(rig.changes(), before);
}

incidents! {
    flux_is_resumed_in_the_middle: flux();
    a_parent_is_resumed_in_the_middle: a_parent();
    a_helm_release_appears_in_the_middle: helm_release();
    the_workload_is_scaled_up_in_the_middle: scaled_up();
    the_image_is_bumped_in_between: image_bumped();
    two_operators_are_at_it: two_operators();
}
