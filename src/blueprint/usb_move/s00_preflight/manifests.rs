//! The checkout: whether the declared values can be brought into the files that the cluster follows.

use crate::base::permit::System;

use super::super::manifests::{commit_of, short};
use super::Preflight;
use super::ask_kubernetes::KubeFacts;
use super::ask_others::GitFacts;
use super::finding::{Asked, Findings, on};
use super::known;

pub(super) fn find(p: &Preflight, git: Option<&Asked<GitFacts>>, kube: Option<&KubeFacts>) -> Findings {
    let mut out = Findings::of(System::Checkout);
    let Some(git) = git else {
        out.note(on::MANIFESTS, "the migration declares no manifests");
        return out;
    };
    let name = p.gitops.as_ref().map(|g| g.checkout.as_str()).unwrap_or_default();
    let Some(git) = out.need(on::MANIFESTS, &format!("checkout {name}"), git) else { return out };
    let branch = format!("branch {} at {}", git.checkout.branch, short(&git.tip));
    for problem in &git.wrong {
        out.borrowed(&known::EDIT_MISFIT, on::MANIFESTS, problem.clone());
    }
    if git.differs.is_empty() && git.wrong.is_empty() {
        out.note(on::MANIFESTS, format!("{branch} has the declared values"));
    }
    if !git.differs.is_empty() {
        let (remote, to) = (&git.checkout.remote, &git.checkout.branch);
        let how = if git.checkout.push {
            format!("09a commits them and pushes to {remote} {to}")
        } else {
            format!("09a commits them and asks you to push to {remote} {to} (`push: false`)")
        };
        out.note(on::MANIFESTS, format!("{branch} lacks {} declared values; {how}", git.differs.len()));
        git.differs.iter().for_each(|line| out.note(on::MANIFESTS, line));
    }
    person(git, name, &mut out);
    follows(p, git, kube, &mut out);
    out
}

/// The person's own checkout is not touched; that it differs is only to be known.
fn person(git: &GitFacts, name: &str, out: &mut Findings) {
    let path = git.checkout.path.display();
    match &git.status {
        Err(why) => out.note(on::MANIFESTS, format!("how checkout {name} stands cannot be asked: {}", why.text)),
        Ok(status) => {
            if !status.is_clean() {
                let files = status.dirty.join(", ");
                out.note(on::MANIFESTS, format!("{path} has changes of yours ({files}): they are left alone"));
            }
            if status.ahead > 0 {
                let text = format!("{path} has {} commits that are not on {}", status.ahead, git.checkout.remote);
                out.note(on::MANIFESTS, format!("{text}: they are left alone, and 09a commits without them"));
            }
        }
    }
}

/// The source must follow the very branch that is pushed to.
fn follows(p: &Preflight, git: &GitFacts, kube: Option<&KubeFacts>, out: &mut Findings) {
    let Some(source) = kube.and_then(|k| k.flux.as_ref().ok()?.source.as_ref()) else { return };
    let name = p.gitops.as_ref().map(|g| g.checkout.as_str()).unwrap_or_default();
    let branch = &git.checkout.branch;
    let help = format!("correct `branch` or `path` of checkout {name}, or `gitops.source`, in the site file");
    let followed = source.raw.pointer("/spec/ref/branch").and_then(|b| b.as_str());
    if let Some(followed) = followed.filter(|followed| followed != branch) {
        let text = format!("{} follows branch {followed}, and checkout {name} is of branch {branch}", source.title());
        return out.problem(&known::OTHER_BRANCH, on::MANIFESTS, text, help);
    }
    match (&git.known, commit_of(&source.artifact)) {
        (Some(Ok(false)), _) => out.problem(
            &known::OTHER_REPOSITORY, on::MANIFESTS,
            format!(
                "{} is at {}, which branch {branch} of checkout {name} does not have: it follows another repository, or the \
                 branch was pushed over",
                source.title(),
                source.artifact
            ),
            help,
        ),
        (Some(Ok(true)), Some(commit)) if commit != git.tip => {
            let text = format!("{} is at {}", source.title(), short(commit));
            out.note(on::MANIFESTS, format!("{text}, and the branch at {}: it fetches at its interval", short(&git.tip)));
        }
        (Some(Err(why)), _) => {
            let text = format!("whether branch {branch} has {}", source.artifact);
            out.note(on::MANIFESTS, format!("{text} cannot be asked: {}", why.text));
        }
        _ => {}
    }
}
