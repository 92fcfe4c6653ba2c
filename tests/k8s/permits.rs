//! What a permit is asked and told round a change.

use std::sync::{Arc, Mutex};

use pvemig::base::fault::{Effect, Fault};
use pvemig::base::permit::{CallId, Handle, Ledger, Note, Permit, Refused, Thing};
use pvemig::k8s::KubeError;
use pvemig::k8s::flux::FluxKind;
use serde_json::json;

use super::{Wire, answer, fixture, ok};

/// A ledger that writes down what it is asked, and refuses what its test says.
#[derive(Default)]
struct Book {
    lines: Mutex<Vec<String>>,
    refuses_notes: bool,
    refuses_handles: bool,
    consents: bool,
}

impl Book {
    fn line(&self, text: String) {
        self.lines.lock().unwrap().push(text);
    }
}

impl Ledger for Book {
    fn note(&self, note: &Note) -> Result<CallId, Refused> {
        if self.refuses_notes {
            return Err(Refused::Journal("no space left".into()));
        }
        self.line(format!("note {}", note.text));
        Ok(CallId(7))
    }
    fn got(&self, call: CallId, handle: &Handle) -> Result<(), Refused> {
        if self.refuses_handles {
            return Err(Refused::Journal("no space left".into()));
        }
        self.line(format!("got {} {} {}", call.0, handle.kind, handle.value));
        Ok(())
    }
    fn progress(&self, _: &str) {}
    fn file(&self, _: &str, _: &[u8]) -> Result<(), Refused> {
        Ok(())
    }
    fn may_destroy(&self, thing: &Thing) -> Result<(), Refused> {
        self.line(format!("may destroy {thing}"));
        if self.consents { Ok(()) } else { Err(Refused::NotConsented { thing: thing.clone(), declared: true }) }
    }
}

fn permit(book: Book) -> (Permit, Arc<Book>) {
    let book = Arc::new(book);
    (Permit::mint(book.clone()), book)
}

#[tokio::test]
async fn nothing_is_sent_that_could_not_be_noted() {
    let wire = Wire::answering(answer(200, "node")).await;
    let (permit, _) = permit(Book { refuses_notes: true, ..Book::default() });
    let error = wire.kube.set_node_label(&permit, "n", "coral", "true").await.unwrap_err();
    assert!(matches!(error, KubeError::Permit(Refused::Journal(_))), "{error:?}");
    assert_eq!(error.effect(), Effect::None);
    assert!(wire.requests().await.is_empty());
}

#[tokio::test]
async fn what_could_not_be_kept_was_done_all_the_same() {
    let wire = Wire::answering(answer(201, "pvc-bound")).await;
    let (permit, _) = permit(Book { refuses_handles: true, ..Book::default() });
    let error = wire.kube.create_claim(&permit, &fixture("pvc-bound")).await.unwrap_err();
    assert!(matches!(error, KubeError::NotRecorded { .. }), "{error:?}");
    assert_eq!((error.effect(), wire.requests().await.len()), (Effect::Partial, 1));
    assert!(error.help().unwrap().contains("make room"), "{:?}", error.help());
}

#[tokio::test]
async fn data_goes_only_with_consent_and_is_not_asked_for_where_it_stays() {
    let wire = Wire::answering(answer(200, "status-success")).await;
    let claim = ("frigate", "frigate-config");
    let (strict, book) = permit(Book::default());
    for outcome in [
        wire.kube.delete_claim(&strict, claim, "u1", true).await,
        wire.kube.delete_volume(&strict, "pv1", "u2", true).await,
        wire.kube.delete_node(&strict, "talos-mac", "u3").await,
    ] {
        let error = outcome.unwrap_err();
        assert!(matches!(error, KubeError::Permit(Refused::NotConsented { .. })), "{error:?}");
        assert!(error.help().unwrap().contains("--destroy"));
    }
    assert!(wire.requests().await.is_empty());
    assert_eq!(
        *book.lines.lock().unwrap(),
        ["may destroy pvc/frigate/frigate-config", "may destroy pv/pv1", "may destroy node/talos-mac"]
    );

    wire.kube.delete_claim(&strict, claim, "u1", false).await.unwrap();
    let (consenting, book) = permit(Book { consents: true, ..Book::default() });
    wire.kube.delete_volume(&consenting, "pv1", "u2", true).await.unwrap();
    assert_eq!(wire.requests().await.len(), 2);
    assert_eq!(*book.lines.lock().unwrap(), ["may destroy pv/pv1", "note DELETE persistentvolumes/pv1 uid u2"]);
}

#[tokio::test]
async fn a_uid_and_a_token_are_kept_with_their_call() {
    let wire = Wire::start().await;
    wire.on("POST", "/api/v1/namespaces/frigate/persistentvolumeclaims", answer(201, "pvc-bound")).await;
    let groups = json!({"groups": [{"name": "source.toolkit.fluxcd.io", "versions": [{"version": "v1"}]}]});
    wire.on("GET", "/apis", ok(&groups)).await;
    let kinds = json!({"resources": [{"name": "gitrepositories", "kind": "GitRepository", "namespaced": true}]});
    wire.on("GET", "/apis/source.toolkit.fluxcd.io/v1", ok(&kinds)).await;
    let at = "/apis/source.toolkit.fluxcd.io/v1/namespaces/flux-system/gitrepositories/flux-system";
    wire.on("GET", at, answer(200, "gitrepository")).await;
    wire.on("PATCH", at, answer(200, "gitrepository")).await;
    let (permit, book) = permit(Book::default());
    wire.kube.create_claim(&permit, &fixture("pvc-bound")).await.unwrap();
    let source = wire.kube.flux(FluxKind::GitRepository, "flux-system", "flux-system").await.unwrap().unwrap();
    wire.kube.flux_request(&permit, &source, "t1").await.unwrap();
    let lines = book.lines.lock().unwrap().clone();
    assert_eq!(lines.len(), 4);
    assert_eq!(lines[1], "got 7 uid 44444444-aaaa-4aaa-8aaa-000000000001");
    assert_eq!(
        lines[2..],
        ["note PATCH gitrepositories/flux-system/flux-system reconcile, token t1", "got 7 token t1"]
    );
}
