//! The live objects at the places that the manifests declare, held against the declared values and against the branch.

use futures::future::try_join_all;
use serde_json::Value;

use crate::base::fault::Failure;
use crate::checkout::{CheckoutError, Difference, Edit};
use crate::estate::Estate;
use crate::k8s::Kubernetes;

use super::params::{Gitops, Work};

/// What is declared: for which source, which values, of whose workload.
pub type Declared<'e> = (&'e Gitops, &'e [Edit], &'e Work);

/// What the live objects lack of the declared values, one line each.
///
/// # Errors
/// What keeps the API or git from answering.
pub async fn lacking(cx: &Estate, kube: &Kubernetes, declared: Declared<'_>) -> Result<Vec<String>, Failure> {
    lines(cx, kube, declared, true, |edit, _, live| Ok(edit.differences_in(live))).await
}

/// What the live objects, at the declared places, do not carry of the branch's tip, one line each: after an undo the
/// tip has what was there before.
///
/// # Errors
/// What keeps the API or git from answering.
pub async fn unlike_tip(cx: &Estate, kube: &Kubernetes, declared: Declared<'_>) -> Result<Vec<String>, Failure> {
    lines(cx, kube, declared, false, |edit, text, live| Ok(edit.drift(text, live)?.unwrap_or_default())).await
}

/// A line for each difference, of the file at the tip and the live object. What is not in git nobody brings: that is a
/// line only where the file is `needed`.
async fn lines(
    cx: &Estate,
    kube: &Kubernetes,
    (gitops, edits, work): Declared<'_>,
    needed: bool,
    differences: impl Fn(&Edit, &str, &Value) -> Result<Vec<Difference>, CheckoutError>,
) -> Result<Vec<String>, Failure> {
    let mut lines = Vec::new();
    if edits.is_empty() {
        return Ok(lines);
    }
    let checkout = cx.checkout(&gitops.checkout)?;
    let tip = match checkout.fetched().await? {
        Some(tip) => tip,
        None => checkout.fetch().await?,
    };
    let mut files = Vec::new();
    for edit in edits {
        // Which API the object is of only its file says.
        let text = checkout.read(&tip, &edit.file).await?.unwrap_or_default();
        let api = edit.api_version(&text)?;
        files.push((edit, text, api));
    }
    let object = |(edit, _, api): &(&Edit, String, Option<String>)| {
        let (object, api) = (edit.object.clone(), api.clone());
        async move {
            let Some(api) = api else { return Ok(None) };
            let namespace = object.namespace.as_deref().unwrap_or(&work.namespace);
            kube.object(&api, &object.kind, namespace, &object.name).await
        }
    };
    let objects = try_join_all(files.iter().map(object)).await?;
    for ((edit, text, api), live) in files.iter().zip(objects) {
        match live {
            None if api.is_none() => {
                lines.extend(needed.then(|| format!("{} is not in {}", edit.object, edit.file)));
            }
            None => lines.push(format!("{} is not there", edit.object)),
            Some(live) => {
                let found = differences(edit, text, &live)?;
                lines.extend(found.iter().map(|difference| format!("{}: {difference}", edit.object)));
            }
        }
    }
    Ok(lines)
}
