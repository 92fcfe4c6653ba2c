//! Owners back to their former state, and what they own as their source says: the undo of 00b, and part of 10.

use crate::base::check::{Change, Check, Problem};
use crate::base::fault::Failure;
use crate::base::permit::Permit;
use crate::engine::step::{Got, RunInfo};
use crate::estate::Estate;
use crate::k8s::Kubernetes;
use crate::k8s::flux::{FluxKind, FluxObject, REQUESTED_AT};

use super::hold::known;
use super::live::{self, Declared};
use super::manifests::{commit_of, short};
use super::owners::OwnerWas;
use super::params::Gitops;

/// How an owner stands to its former state.
#[derive(Debug, PartialEq)]
pub enum Stand {
    /// It is in it, as far as this is ours.
    Former(Option<String>),
    /// Our hold is on it.
    Held(Change),
    /// Somebody else changed it.
    Changed(Problem),
}

/// How an owner (None: it is gone) stands to what it was.
pub fn judge(was: &OwnerWas, now: Option<&FluxObject>, run: &RunInfo) -> Stand {
    let title = was.title();
    let Some(now) = now else { return Stand::Former(Some(format!("{title} is gone"))) };
    let mark = match known(&title, &now.meta, run) {
        Ok(mark) => mark,
        Err(problem) => return Stand::Changed(problem),
    };
    let word = |suspended: bool| if suspended { "suspended" } else { "not suspended" };
    match (mark, was.was_suspended(), now.is_suspended()) {
        (Some(_), then, is) => Stand::Held(Change::set(title, format!("{}, held", word(is)), word(then))),
        (None, false, true) => {
            let who = now.suspended_by().first().map(|who| format!(" by {who}")).unwrap_or_default();
            Stand::Changed(Problem::new(
                format!(
                    "{title} was not suspended, this run suspended it with its mark, and now it is suspended{who} \
                     without the mark"
                ),
                format!("if it is to run: `flux resume {} {} -n {}`", was.command(), was.name, was.namespace),
            ))
        }
        (None, true, false) => Stand::Former(Some(format!("{title} was suspended before, and somebody resumed it"))),
        (None, ..) => Stand::Former(None),
    }
}

/// Takes the hold off every owner that carries it, leaves first: what a leaf applies then comes before its parent
/// can change it, and image automations come last, so that no commit of theirs starts anything before.
///
/// # Errors
/// An owner was changed by somebody else, or what keeps the API from doing it.
pub async fn all(kube: &Kubernetes, owners: &[OwnerWas], run: &RunInfo, permit: &Permit) -> Result<(), Failure> {
    for was in owners.iter().rev() {
        let now = was.read(kube).await?;
        match (judge(was, now.as_ref(), run), &now) {
            (Stand::Changed(problem), _) => return Err(Failure::plain(problem.text, Some(problem.help))),
            (Stand::Held(_), Some(now)) => kube.flux_release(permit, now, was.suspend).await?,
            (Stand::Held(_) | Stand::Former(_), _) => {}
        }
    }
    Ok(())
}

/// The source that the site names; None where it is gone.
///
/// # Errors
/// What keeps the API from answering.
pub async fn source(kube: &Kubernetes, gitops: &Gitops) -> Result<Option<FluxObject>, Failure> {
    Ok(kube.flux(FluxKind::GitRepository, &gitops.namespace, &gitops.name).await?)
}

/// Asks the source and every owner that is not suspended to reconcile, from the root on.
///
/// # Errors
/// What keeps the API from doing it.
pub async fn request(
    cx: &Estate,
    kube: &Kubernetes,
    gitops: &Gitops,
    owners: &[OwnerWas],
    permit: &Permit,
) -> Result<(), Failure> {
    let token = token(cx);
    if let Some(source) = source(kube, gitops).await?.filter(|s| !s.is_suspended()) {
        kube.flux_request(permit, &source, &token).await?;
    }
    for was in owners.iter().filter(|was| applies(was)) {
        if let Some(owner) = was.read(kube).await?.filter(|o| !o.is_suspended()) {
            kube.flux_request(permit, &owner, &token).await?;
        }
    }
    Ok(())
}

/// A new request; any value that was not there before is one.
pub fn token(cx: &Estate) -> String {
    cx.clock().now().to_string()
}

/// An image automation applies nothing.
pub fn applies(was: &OwnerWas) -> bool {
    was.kind != FluxKind::ImageUpdateAutomation.api().1
}

/// Whether a request of ours is on the object and was not handled yet.
pub fn pending(object: &FluxObject, got: &[Got]) -> bool {
    let asked = object.meta.annotations.get(REQUESTED_AT);
    let ours = asked.is_some_and(|asked| got.iter().any(|g| g.handle.kind == "token" && g.handle.value == *asked));
    ours && asked != Some(&object.last_handled)
}

/// Whether what the owners own is as the branch says: the source is at its tip, each owner that ran before and was
/// Ready is Ready again at its source's present revision with our request handled, and the live objects carry at the
/// declared places what the tip has there, but for what was `unlike` it before the run.
///
/// # Errors
/// What keeps the API from answering.
pub async fn settled(
    cx: &Estate,
    kube: &Kubernetes,
    declared: Declared<'_>,
    (owners, unlike): (&[OwnerWas], &[String]),
    got: &[Got],
) -> Result<Check<()>, Failure> {
    let (mut notes, gitops) = (Vec::new(), declared.0);
    // An owner that does not apply does not bring what the tip has either.
    let mut brought = owners.iter().any(applies) && !owners.iter().any(|was| applies(was) && was.was_suspended());
    if let Some(source) = source(kube, gitops).await? {
        if source.is_suspended() {
            notes.push(format!("{} is suspended at {}", source.title(), source.artifact));
            brought = false;
        } else {
            if pending(&source, got) {
                return Ok(Check::waiting(format!("{} has not yet handled our request", source.title())));
            }
            let tip = cx.checkout(&gitops.checkout)?.fetch().await?;
            if commit_of(&source.artifact) != Some(tip.as_str()) {
                let text = format!("{} is at {}, the branch at {}", source.title(), source.artifact, short(&tip));
                return Ok(Check::todo(vec![Change::act(format!("reconcile: {text}"))], ()));
            }
        }
    }
    for was in owners.iter().filter(|was| applies(was) && !was.was_suspended()) {
        let Some(now) = was.read(kube).await? else { continue };
        if !was.ready {
            notes.push(format!("{} was not Ready before and is not waited for", was.title()));
            brought = false;
            continue;
        }
        if let Some(reason) = behind(kube, &now, got).await? {
            return Ok(Check::waiting(reason).notes(notes));
        }
    }
    let mut differs = live::unlike_tip(cx, kube, declared).await?;
    let (before, since): (Vec<_>, Vec<_>) = differs.drain(..).partition(|line| unlike.contains(line));
    notes.extend(before.into_iter().map(|line| format!("{line} at the branch's tip, and was so before this run")));
    if since.is_empty() {
        return Ok(Check::done().notes(notes));
    }
    let text = format!("the branch's tip has other values: {}", since.join("; "));
    Ok(if brought { Check::waiting(text).notes(notes) } else { Check::done().notes(notes).note(text) })
}

/// Why an owner has not yet applied what its source has; None where it has.
///
/// # Errors
/// What keeps the API from answering.
pub async fn behind(kube: &Kubernetes, now: &FluxObject, got: &[Got]) -> Result<Option<String>, Failure> {
    if pending(now, got) {
        return Ok(Some(format!("{} has not yet handled our request", now.title())));
    }
    if !now.is_ready() {
        return Ok(Some(now.summary()));
    }
    if now.kind != FluxKind::Kustomization {
        return Ok(None);
    }
    let Some(named) = &now.source else { return Ok(None) };
    // Of a kind that this version does not know: that the owner is Ready and has handled our request is what is known.
    let Some(kind) = FluxKind::parse(&named.kind) else { return Ok(None) };
    let Some(source) = kube.flux(kind, &named.namespace, &named.name).await? else {
        return Ok(Some(format!("{}: its source {} {} is not there", now.title(), named.kind, named.name)));
    };
    if !source.artifact.is_empty() && source.artifact != now.last_applied {
        let text = format!("{} has applied {}, its source is at {}", now.title(), now.last_applied, source.artifact);
        return Ok(Some(text));
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::super::owners::tests::kustomization;
    use super::*;
    use crate::base::hold::{MARK, Mark};
    use crate::base::permit::{Handle, Note, System};
    use crate::engine::step::Standing;
    use serde_json::json;

    #[test]
    fn only_our_hold_is_taken_off() {
        let run = RunInfo { id: "r".into(), host: "h".into(), ..RunInfo::default() };
        let marked =
            |run: &str| json!({MARK: Mark { run: run.into(), host: "h".into(), was: json!(null) }.to_annotation()});
        let free = kustomization("apps", None, &json!({}));
        let (was_free, was_held) = (OwnerWas::of(&free, None), OwnerWas::of(&free, Some(true)));
        let ours = kustomization("apps", Some(true), &marked("r"));
        let theirs = kustomization("apps", Some(true), &json!({}));
        let foreign = kustomization("apps", Some(true), &marked("z"));
        assert!(matches!(judge(&was_free, Some(&ours), &run), Stand::Held(_)));
        assert!(matches!(judge(&was_held, Some(&ours), &run), Stand::Held(c) if c.to.as_deref() == Some("suspended")));
        assert_eq!(judge(&was_free, Some(&free), &run), Stand::Former(None));
        assert_eq!(judge(&was_held, Some(&theirs), &run), Stand::Former(None));
        assert!(matches!(judge(&was_held, Some(&free), &run), Stand::Former(Some(_))));
        assert!(matches!(judge(&was_free, Some(&theirs), &run), Stand::Changed(_)));
        assert!(matches!(judge(&was_free, Some(&foreign), &run), Stand::Changed(_)));
        assert!(matches!(judge(&was_free, None, &run), Stand::Former(Some(_))));
        // A run of one step has left it, and is still open.
        let others = [("z".to_owned(), Standing::Open)].into();
        let known = RunInfo { others, ..run };
        assert!(matches!(judge(&was_free, Some(&foreign), &known), Stand::Held(_)));
    }

    #[test]
    fn a_request_is_pending_until_it_is_handled() {
        let at = "2025-01-01T00:00:00Z".parse().unwrap();
        let got = [Got { note: Note::safe(System::Kubernetes, "x"), handle: Handle::new("token", "t1"), at }];
        let mut object = kustomization("apps", None, &json!({REQUESTED_AT: "t1"}));
        assert!(pending(&object, &got));
        object.last_handled = "t1".into();
        assert!(!pending(&object, &got));
        // Somebody's later request is not ours to wait for.
        let other = kustomization("apps", None, &json!({REQUESTED_AT: "t2"}));
        assert!(!pending(&other, &got));
    }
}
