use serde_json::{Value, json};

use super::super::flux::{FluxKind, FluxObject, Settled};
use super::super::resource::Resource;
use super::fixture;

fn object(kind: FluxKind, file: &str, change: impl Fn(&mut Value)) -> FluxObject {
    let mut value = fixture(file);
    change(&mut value);
    let (group, name) = kind.api();
    let resource = Resource {
        group: group.into(),
        version: "v1".into(),
        plural: format!("{}s", name.to_lowercase()).into(),
        kind: name.into(),
        namespaced: true,
        replicas_in_spec: false,
    };
    FluxObject::from_api(kind, resource, value)
}

#[test]
fn what_a_kustomization_and_its_source_say() {
    let apps = object(FluxKind::Kustomization, "kustomization", |_| {});
    assert!(apps.is_ready() && !apps.is_suspended() && apps.suspend.is_none());
    assert_eq!(
        apps.source.as_ref().map(|s| (s.kind.as_str(), s.namespace.as_str())),
        Some(("GitRepository", "flux-system"))
    );
    assert_eq!(apps.suspended_by()[0].manager, "flux");
    assert_eq!(apps.last_applied, "main@sha1:1111111111111111111111111111111111111111");
    let source = object(FluxKind::GitRepository, "gitrepository", |_| {});
    assert_eq!(source.artifact, "main@sha1:2222222222222222222222222222222222222222");
    let release = object(FluxKind::HelmRelease, "helmrelease", |_| {});
    assert_eq!(release.suspend, Some(false));
    assert_eq!(release.source.as_ref().map(|s| s.name.as_str()), Some("blakeshome"));
    assert_eq!(
        release.summary(),
        "HelmRelease frigate/frigate: Stalled is True (RetriesExceeded): Failed to upgrade after 1 attempt(s)"
    );
    assert_eq!(FluxKind::parse("OCIRepository"), Some(FluxKind::OciRepository));
    assert_eq!(FluxKind::parse("Deployment"), None);
}

#[test]
fn a_request_is_settled_by_its_token_or_by_a_later_one() {
    let ready =
        |status: &str, reason: &str| json!([{"type": "Ready", "status": status, "reason": reason, "message": ""}]);
    let at = |handled: &str, change: &dyn Fn(&mut Value)| {
        object(FluxKind::Kustomization, "kustomization", |v| {
            v["status"]["lastHandledReconcileAt"] = handled.into();
            change(v);
        })
    };
    let settled = |o: FluxObject| o.settled("t1", "t0");
    assert_eq!(settled(at("t1", &|_| {})), Settled::Yes { ours: true });
    assert_eq!(settled(at("t2", &|_| {})), Settled::Yes { ours: false });
    assert!(matches!(settled(at("t0", &|_| {})), Settled::NotYet(_)), "Ready of before is not an answer");
    assert!(matches!(settled(at("", &|_| {})), Settled::NotYet(_)));
    assert!(matches!(settled(at("t1", &|v| v["metadata"]["generation"] = 4.into())), Settled::NotYet(_)));
    assert!(matches!(settled(at("t1", &|v| v["spec"]["suspend"] = true.into())), Settled::Never(_)));
    assert!(matches!(
        settled(at("t1", &|v| v["status"]["conditions"] = ready("False", "BuildFailed"))),
        Settled::Failed(_)
    ));
    assert!(matches!(
        settled(at("t1", &|v| v["status"]["conditions"] = ready("Unknown", "Progressing"))),
        Settled::NotYet(_)
    ));
    let busy = |v: &mut Value| {
        v["status"]["conditions"] = json!([{"type": "Ready", "status": "False", "reason": "HealthCheckFailed", "message": ""},
            {"type": "Reconciling", "status": "True", "reason": "ProgressingWithRetry", "message": ""}]);
    };
    assert!(matches!(settled(at("t1", &busy)), Settled::NotYet(_)));
    let stalled = object(FluxKind::HelmRelease, "helmrelease", |v| v["status"]["lastHandledReconcileAt"] = "t1".into());
    assert!(matches!(stalled.settled("t1", "t0"), Settled::Never(_)));
}
