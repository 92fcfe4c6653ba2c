//! Flux.

use std::time::Duration;

use pvemig::base::hold::MARK;
use pvemig::k8s::KubeError;
use pvemig::k8s::appliers::Applier;
use pvemig::k8s::flux::{FluxKind, REQUESTED_AT};
use pvemig::k8s::meta::Meta;
use serde_json::{Value, json};
use wiremock::matchers::{method, path, query_param};
use wiremock::{Mock, ResponseTemplate};

use super::{MERGE, Wire, answer, fixture, list, mark, ok, sent};

const KUSTOMIZATIONS: &str = "/apis/kustomize.toolkit.fluxcd.io/v1/namespaces/flux-system/kustomizations";

/// A cluster with Flux. Its image automation has `v1` as the preferred version of the group, and the kind only in
/// `v1beta2`.
async fn flux() -> Wire {
    let wire = Wire::start().await;
    let group = |name: &str, versions: &[&str]| {
        let all: Vec<Value> =
            versions.iter().map(|v| json!({"groupVersion": format!("{name}/{v}"), "version": v})).collect();
        json!({"name": name, "versions": all, "preferredVersion": all[0]})
    };
    let groups = json!({"kind": "APIGroupList", "groups": [
        group("source.toolkit.fluxcd.io", &["v1"]), group("kustomize.toolkit.fluxcd.io", &["v1"]),
        group("helm.toolkit.fluxcd.io", &["v2"]), group("image.toolkit.fluxcd.io", &["v1", "v1beta2"])]});
    wire.on("GET", "/apis", ok(&groups)).await;
    for (at, plural, kind) in [
        ("source.toolkit.fluxcd.io/v1", "gitrepositories", "GitRepository"),
        ("kustomize.toolkit.fluxcd.io/v1", "kustomizations", "Kustomization"),
        ("helm.toolkit.fluxcd.io/v2", "helmreleases", "HelmRelease"),
        ("image.toolkit.fluxcd.io/v1", "imagepolicies", "ImagePolicy"),
        ("image.toolkit.fluxcd.io/v1beta2", "imageupdateautomations", "ImageUpdateAutomation"),
    ] {
        let status = json!({"name": format!("{plural}/status"), "kind": kind, "namespaced": true});
        let kinds = json!({"resources": [status, {"name": plural, "kind": kind, "namespaced": true}]});
        wire.on("GET", &format!("/apis/{at}"), ok(&kinds)).await;
    }
    wire.on("GET", &format!("{KUSTOMIZATIONS}/apps"), answer(200, "kustomization")).await;
    let mut root = fixture("kustomization");
    root["metadata"]["name"] = "flux-system".into();
    wire.on("GET", &format!("{KUSTOMIZATIONS}/flux-system"), ok(&root)).await;
    wire.on("PATCH", &format!("{KUSTOMIZATIONS}/apps"), answer(200, "kustomization")).await;
    wire
}

#[tokio::test]
async fn owners_are_walked_up_to_the_root_that_owns_itself() {
    let wire = flux().await;
    wire.on("GET", "/apis/apps/v1/namespaces/frigate/deployments/frigate", answer(200, "deployment")).await;
    let workload = wire.kube.workload("Deployment", "frigate", "frigate").await.unwrap().unwrap();
    let owners = wire.kube.flux_owners(&workload.meta, &[]).await.unwrap();
    let titles: Vec<String> = owners.iter().map(|o| o.title()).collect();
    assert_eq!(titles, ["Kustomization flux-system/apps", "Kustomization flux-system/flux-system"]);
    assert_eq!(owners[0].resource.api_version(), "kustomize.toolkit.fluxcd.io/v1");

    // A release of a Kustomization applies it too: each comes before those that apply it.
    let mut both = workload.meta.clone();
    both.labels.insert("helm.toolkit.fluxcd.io/name".into(), "nvr".into());
    both.labels.insert("helm.toolkit.fluxcd.io/namespace".into(), "frigate".into());
    let mut release = fixture("helmrelease");
    release["metadata"]["labels"] = json!({"kustomize.toolkit.fluxcd.io/name": "flux-system",
        "kustomize.toolkit.fluxcd.io/namespace": "flux-system"});
    wire.on("GET", "/apis/helm.toolkit.fluxcd.io/v2/namespaces/frigate/helmreleases/nvr", ok(&release)).await;
    let owners = wire.kube.flux_owners(&both, &[]).await.unwrap();
    let titles: Vec<String> = owners.iter().map(|o| o.title()).collect();
    assert_eq!(titles.len(), 3, "{titles:?}");
    assert_eq!(titles[2], "Kustomization flux-system/flux-system");
    assert!(titles[..2].iter().any(|t| t.starts_with("HelmRelease ")), "{titles:?}");

    let mut orphan = workload.meta.clone();
    orphan.labels.insert("kustomize.toolkit.fluxcd.io/name".into(), "gone".into());
    wire.on("GET", &format!("{KUSTOMIZATIONS}/gone"), answer(404, "status-404")).await;
    let error = wire.kube.flux_owners(&orphan, &[]).await.unwrap_err();
    assert!(error.is_not_found(), "{error:?}");
    orphan.labels.clear();
    assert!(wire.kube.flux_owners(&orphan, &[]).await.unwrap().is_empty());
}

#[tokio::test]
async fn an_application_of_argo_cd_is_looked_up_by_what_it_writes() {
    let wire = Wire::start().await;
    let version = json!({"groupVersion": "argoproj.io/v1alpha1", "version": "v1alpha1"});
    let groups = json!({"kind": "APIGroupList", "groups": [
        {"name": "argoproj.io", "versions": [version], "preferredVersion": version}]});
    wire.on("GET", "/apis", ok(&groups)).await;
    let kinds = json!({"resources": [{"name": "applications", "kind": "Application", "namespaced": true}]});
    wire.on("GET", "/apis/argoproj.io/v1alpha1", ok(&kinds)).await;
    let app = |name: &str, policy: Value| {
        json!({"metadata": {"name": name, "namespace": "argocd"},
            "spec": {"syncPolicy": policy, "destination": {"namespace": "frigate"}}})
    };
    let apps = [
        app("heals", json!({"automated": {"selfHeal": true}})),
        app("off", json!({"automated": {"enabled": false}})),
        app("manual", json!({})),
        app("twice", json!({})),
        app("twice", json!({"automated": {}})),
    ];
    wire.on("GET", "/apis/argoproj.io/v1alpha1/applications", ok(&list(&apps))).await;
    let table = [
        ("heals", Some(true)),
        ("argocd_heals", Some(true)),
        ("elsewhere_heals", None),
        ("off", Some(false)),
        ("manual", Some(false)),
        ("twice", Some(true)),
        ("x", None),
    ];
    for (name, automated) in table {
        let mut meta = Meta::default();
        let id = format!("{name}:apps/Deployment:frigate/frigate");
        meta.annotations.insert("argocd.argoproj.io/tracking-id".into(), id);
        let name = name.rsplit('_').next().unwrap().to_owned();
        assert_eq!(wire.kube.appliers(&meta).await.unwrap(), [Applier::Argo { name, automated }]);
    }
    assert_eq!(wire.kube.appliers(&Meta::default()).await.unwrap(), []);
    // A label that other tools set, too.
    for (name, namespace, found) in [("heals", "frigate", 1), ("heals", "other", 0), ("x", "frigate", 0)] {
        let labels = [("app.kubernetes.io/instance".to_owned(), name.to_owned())].into();
        let meta = Meta { namespace: namespace.into(), labels, ..Meta::default() };
        assert_eq!(wire.kube.appliers(&meta).await.unwrap().len(), found, "{name} {namespace}");
    }
}

#[tokio::test]
async fn a_kind_is_found_in_the_version_that_has_it() {
    let wire = flux().await;
    let at = "/apis/image.toolkit.fluxcd.io/v1beta2/imageupdateautomations";
    let mut other = fixture("imageupdateautomation");
    other["spec"]["sourceRef"]["name"] = "another".into();
    wire.on("GET", at, ok(&list(&[fixture("imageupdateautomation"), other]))).await;
    let apps = wire.kube.flux(FluxKind::Kustomization, "flux-system", "apps").await.unwrap().unwrap();
    let automations = wire.kube.flux_automations(apps.source.as_ref().unwrap()).await.unwrap();
    assert_eq!(automations.iter().map(|a| a.title()).collect::<Vec<_>>(), ["ImageUpdateAutomation flux-system/bump"]);
    // A kind that is not installed is none, and is asked for again next time.
    assert_eq!(wire.kube.flux(FluxKind::OciRepository, "a", "b").await.unwrap(), None);
    let before = wire.requests().await.len();
    assert!(wire.kube.flux_all(FluxKind::Bucket).await.unwrap().is_empty());
    assert_eq!(wire.requests().await.len(), before + 2);
}

#[tokio::test]
async fn suspending_and_releasing_are_one_patch_each() {
    let wire = flux().await;
    let apps = wire.kube.flux(FluxKind::Kustomization, "flux-system", "apps").await.unwrap().unwrap();
    wire.kube.flux_suspend(&wire.permit, &apps, &mark()).await.unwrap();
    for was in [None, Some(false), Some(true)] {
        wire.kube.flux_release(&wire.permit, &apps, was).await.unwrap();
    }
    wire.kube.flux_request(&wire.permit, &apps, "t1").await.unwrap();
    let patches: Vec<_> = wire.requests().await.into_iter().filter(|r| r.0 == "PATCH").collect();
    let at = format!("{KUSTOMIZATIONS}/apps?fieldManager=pvemig");
    let uid = "66666666-aaaa-4aaa-8aaa-000000000001";
    let up = json!({"uid": uid, "annotations": {MARK: mark().to_annotation()}});
    let down = json!({"uid": uid, "annotations": {MARK: null}});
    let expected = [
        sent("PATCH", &at, MERGE, json!({"metadata": up, "spec": {"suspend": true}})),
        sent("PATCH", &at, MERGE, json!({"metadata": down, "spec": {"suspend": null}})),
        sent("PATCH", &at, MERGE, json!({"metadata": down, "spec": {"suspend": false}})),
        sent("PATCH", &at, MERGE, json!({"metadata": down, "spec": {"suspend": true}})),
        sent("PATCH", &at, MERGE, json!({"metadata": {"annotations": {REQUESTED_AT: "t1"}}})),
    ];
    assert_eq!(patches, expected);
    let notes: Vec<String> = wire.notebook.notes().into_iter().map(|n| n.text).collect();
    assert_eq!(notes.len(), 5);
    assert_eq!(notes[4], "PATCH kustomizations/flux-system/apps reconcile, token t1");
}

#[tokio::test]
async fn a_reconciliation_is_waited_for_by_its_token() {
    let wire = flux().await;
    let apps = wire.kube.flux(FluxKind::Kustomization, "flux-system", "apps").await.unwrap().unwrap();
    let handled = |token: &str| {
        let mut value = fixture("kustomization");
        value["status"]["lastHandledReconcileAt"] = token.into();
        ok(&list(&[value]))
    };
    let looks = || Mock::given(method("GET")).and(path(KUSTOMIZATIONS));
    // A watch that is refused is only a reason to look again.
    looks().and(query_param("watch", "true")).respond_with(answer(410, "status-410")).mount(&wire.server).await;
    looks().respond_with(handled("t0")).up_to_n_times(2).mount(&wire.server).await;
    looks().respond_with(handled("t1")).mount(&wire.server).await;
    let limit = Duration::from_secs(20);
    let done = wire.kube.flux_wait(&apps, "t1", limit).await.unwrap();
    assert_eq!(done.last_handled, "t1");
    let paths: Vec<String> =
        wire.paths().await.into_iter().filter(|p| p.starts_with(KUSTOMIZATIONS) && p.contains('?')).collect();
    let look = format!("{KUSTOMIZATIONS}?fieldSelector=metadata.name%3Dapps&limit=500");
    let watch =
        format!("{KUSTOMIZATIONS}?fieldSelector=metadata.name%3Dapps&watch=true&resourceVersion=100&timeoutSeconds=60");
    assert_eq!(paths, [look.clone(), watch.clone(), look.clone(), watch, look]);
}

#[tokio::test]
async fn a_suspended_object_is_not_waited_for() {
    let wire = flux().await;
    let apps = wire.kube.flux(FluxKind::Kustomization, "flux-system", "apps").await.unwrap().unwrap();
    let mut value = fixture("kustomization");
    value["spec"]["suspend"] = true.into();
    wire.on("GET", KUSTOMIZATIONS, ok(&list(&[value]))).await;
    let error = wire.kube.flux_wait(&apps, "t1", Duration::from_secs(20)).await.unwrap_err();
    assert!(matches!(&error, KubeError::Hopeless { why, .. } if why.contains("suspended")), "{error:?}");
    let wire = flux().await;
    wire.on("GET", KUSTOMIZATIONS, ok(&list(&[]))).await;
    let error = wire.kube.flux_wait(&apps_of(&wire).await, "t1", Duration::from_secs(20)).await.unwrap_err();
    assert!(matches!(&error, KubeError::Hopeless { why, .. } if why.contains("gone")), "{error:?}");
    // Credentials and permissions do not go by.
    let wire = flux().await;
    wire.on("GET", KUSTOMIZATIONS, answer(403, "status-403")).await;
    let error = wire.kube.flux_wait(&apps_of(&wire).await, "t1", Duration::from_secs(20)).await.unwrap_err();
    assert!(matches!(error, KubeError::Forbidden { .. }), "{error:?}");
    let wire = flux().await;
    wire.on("GET", KUSTOMIZATIONS, ResponseTemplate::new(500)).await;
    let error = wire.kube.flux_wait(&apps_of(&wire).await, "t1", Duration::from_millis(300)).await.unwrap_err();
    assert!(matches!(&error, KubeError::Deadline { last: Some(last), .. } if last.contains("500")), "{error:?}");
}

async fn apps_of(wire: &Wire) -> pvemig::k8s::flux::FluxObject {
    wire.kube.flux(FluxKind::Kustomization, "flux-system", "apps").await.unwrap().unwrap()
}
