//! What the target's guest and the checkout are asked, once.

use crate::base::fault::Failure;
use crate::checkout::{Checkout, Object, Status};
use crate::estate::Estate;
use crate::guest::Seen as Answer;

use super::super::manifests::{commit_of, is_declared_wrong, missing, wrong};
use super::Preflight;
use super::ask_kubernetes::KubeFacts;
use super::finding::{Asked, asked};
use crate::base::check::Problem;

/// The ways into the target's guest.
pub(super) struct WayFacts {
    /// The route that answered, and what the others said.
    pub(super) answer: Asked<Answer<String>>,
    /// Whether a needed path is there.
    pub(super) paths: Vec<(String, Asked<bool>)>,
}

/// Knocks at the target's guest, and looks for what the workload needs there.
pub(super) async fn way(p: &Preflight, cx: &Estate) -> WayFacts {
    let guest = match cx.guest(&p.vm.node).await {
        Ok(guest) => guest,
        Err(failure) => return WayFacts { answer: Err(failure.into()), paths: Vec::new() },
    };
    let answer = asked(guest.boot_id().await);
    let mut paths = Vec::new();
    if answer.is_ok() {
        for path in &p.needs.paths {
            paths.push((path.clone(), asked(guest.exists(path).await.map(|seen| seen.value))));
        }
    }
    WayFacts { answer, paths }
}

/// The checkout that the cluster follows.
pub(super) struct GitFacts {
    /// The checkout.
    pub(super) checkout: Checkout,
    /// The tip of its branch.
    pub(super) tip: String,
    /// What of the declared values the tip does not have, a line each.
    pub(super) differs: Vec<String>,
    /// The objects that are edited, each with the `apiVersion` that its file says; none whose file cannot be read.
    pub(super) apis: Vec<(String, Object)>,
    /// What a person has to correct.
    pub(super) wrong: Vec<Problem>,
    /// The person's own checkout.
    pub(super) status: Asked<Status>,
    /// Whether the branch has the commit that the source follows; None: not asked.
    pub(super) known: Option<Asked<bool>>,
}

/// Asks the checkout; None where nothing is declared for it.
pub(super) async fn git(p: &Preflight, cx: &Estate) -> Option<Asked<GitFacts>> {
    let gitops = p.gitops.as_ref().filter(|_| !p.edits.is_empty())?;
    Some(asked(ask(p, cx, &gitops.checkout).await))
}

async fn ask(p: &Preflight, cx: &Estate, name: &str) -> Result<GitFacts, Failure> {
    let checkout = cx.checkout(name)?;
    let tip = checkout.fetch().await?;
    let missing = missing(&checkout, &tip, &p.edits).await?;
    let differs = missing.differences.iter().map(|(edit, d)| format!("{} {}: {d}", edit.file, edit.object)).collect();
    let mut problems = missing.problems;
    let mut apis = Vec::new();
    for edit in &p.edits {
        // What is wrong with the file is among the problems already.
        let text = match checkout.read(&tip, &edit.file).await {
            Ok(text) => text.unwrap_or_default(),
            Err(error) if is_declared_wrong(&error) => continue,
            Err(error) => return Err(error.into()),
        };
        let api = edit.api_version(&text).ok().flatten().map(|api| (api, edit.object.clone()));
        apis.extend(api.filter(|api| !apis.contains(api)));
    }
    // An edit that cannot be made is known beforehand only by making it.
    if problems.is_empty()
        && let Err(error) = checkout.preview(&tip, &p.edits).await
    {
        if !is_declared_wrong(&error) {
            return Err(error.into());
        }
        problems.push(wrong(&error));
    }
    let status = asked(checkout.status().await);
    Ok(GitFacts { checkout, tip, differs, apis, wrong: problems, status, known: None })
}

/// Whether the branch has the commit that the cluster's source is at.
pub(super) async fn known(p: &Preflight, cx: &Estate, kube: &KubeFacts) -> Option<Asked<bool>> {
    let source = kube.flux.as_ref().ok()?.source.as_ref()?;
    let commit = commit_of(&source.artifact)?;
    let checkout = cx.checkout(&p.gitops.as_ref()?.checkout).ok()?;
    Some(asked(checkout.is_in_tip(commit).await))
}
