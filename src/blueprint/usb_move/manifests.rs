//! `manifests:` of the parameters: what values the files of the checkout are to have.

use crate::base::check::Problem;
use crate::base::fault::{Failure, Fault};
use crate::blueprint::param::{Param, keys};
use crate::checkout::{Checkout, CheckoutError, Difference, Edit, Found, Path};
use crate::site::fields::Item;

/// How one is written.
pub const MANIFEST: &[Param] = &[
    Param::need("file", "the file, from the checkout's root", "apps/frigate/deployment.yaml"),
    Param::need("object", "the object in it, as KIND/NAMESPACE/NAME", "Deployment/frigate/frigate"),
    Param::may("set", "values by path", "{ \"spec.template.spec.nodeSelector\": { coral: \"true\" } }", "none"),
    Param::may("remove", "paths that are not to be there", "[spec.template.spec.runtimeClassName]", "none"),
    Param::may("replace", "a text within a value", "[{ path: .., from: .., to: .. }]", "none").of(REPLACE),
];

const REPLACE: &[Param] = &[
    Param::need("path", "the value", "data[config.yml]"),
    Param::need("from", "the text that is there", "preset-nvidia-h264"),
    Param::need("to", "the text that is to be there", "preset-vaapi"),
];

/// Reads the list of edits; what is wrong goes into the item's sink.
pub fn read(item: &Item<'_>) -> Option<Vec<Edit>> {
    let entries = item.list()?;
    let edits: Vec<Edit> = entries.iter().filter_map(edit).collect();
    (edits.len() == entries.len()).then_some(edits)
}

fn edit(item: &Item<'_>) -> Option<Edit> {
    let fields = item.fields(&keys(MANIFEST));
    let file = fields.need("file", "the file, from the checkout's root").and_then(|i| i.text().map(str::to_owned));
    let object = fields
        .need("object", "the object in it, as `Deployment/NAMESPACE/NAME`")
        .and_then(|i| i.parse("KIND/NAMESPACE/NAME, or KIND/NAME without a namespace"));
    let set = fields.get("set").map_or(Some(Vec::new()), |i| set(&i));
    let remove = fields.get("remove").map_or(Some(Vec::new()), |i| paths(&i));
    let replace = fields.get("replace").map_or(Some(Vec::new()), |i| replaced(&i));
    let edit: Edit = Edit { file: file?, object: object?, set: set?, remove: remove?, replace: replace? };
    if edit.set.is_empty() && edit.remove.is_empty() && edit.replace.is_empty() {
        fields.problem("this manifest has nothing to change", "add `set`, `remove` or `replace`");
        return None;
    }
    if edit.object.kind == "Secret" {
        fields.problem("values of Secrets are never read", "change it by hand; name what is not secret here");
        return None;
    }
    Some(edit)
}

const PATH: &str = "a path like `spec.template.spec.containers[NAME].image`";

fn set(item: &Item<'_>) -> Option<Vec<(Path, serde_json::Value)>> {
    let entries = item.entries();
    let one = |(key, value): &(&str, Item<'_>)| match key.parse::<Path>() {
        Ok(path) => Some((path, value.value().clone())),
        Err(error) => {
            value.problem(error.to_string(), format!("the key is {PATH}"));
            None
        }
    };
    let read: Vec<_> = entries.iter().filter_map(one).collect();
    (read.len() == entries.len()).then_some(read)
}

fn paths(item: &Item<'_>) -> Option<Vec<Path>> {
    let entries = item.list()?;
    let read: Vec<Path> = entries.iter().filter_map(|i| i.parse(PATH)).collect();
    (read.len() == entries.len()).then_some(read)
}

fn replaced(item: &Item<'_>) -> Option<Vec<(Path, String, String)>> {
    let entries = item.list()?;
    let one = |item: &Item<'_>| {
        let fields = item.fields(&keys(REPLACE));
        let path = fields.need("path", PATH).and_then(|i| i.parse(PATH));
        let text = |key, help| fields.need(key, help).and_then(|i| i.text().map(str::to_owned));
        let (from, to) = (text("from", "the text that is there"), text("to", "the text that is to be there"));
        Some((path?, from?, to?))
    };
    let read: Vec<_> = entries.iter().filter_map(one).collect();
    (read.len() == entries.len()).then_some(read)
}

/// What of the declared values a revision does not have.
#[derive(Debug, Default)]
pub struct Missing<'e> {
    /// Values that differ, by edit.
    pub differences: Vec<(&'e Edit, Difference)>,
    /// What a person has to correct: no such file, no such object.
    pub problems: Vec<Problem>,
}

impl Missing<'_> {
    /// True where the revision has every declared value.
    pub fn is_empty(&self) -> bool {
        self.differences.is_empty() && self.problems.is_empty()
    }
}

/// Holds the edits against a revision of the checkout's own clone.
///
/// # Errors
/// What keeps git from answering.
pub async fn missing<'e>(checkout: &Checkout, revision: &str, edits: &'e [Edit]) -> Result<Missing<'e>, Failure> {
    let mut missing = Missing::default();
    for edit in edits {
        let found = match checkout.read(revision, &edit.file).await {
            Ok(Some(text)) => edit.contained_in(&text),
            Ok(None) => Err(CheckoutError::NoFile { file: edit.file.clone(), revision: short(revision).to_owned() }),
            Err(error) => Err(error),
        };
        match found {
            Ok(Found::Already) => {}
            Ok(Found::Differs(differences)) => {
                missing.differences.extend(differences.into_iter().map(|difference| (edit, difference)));
            }
            Ok(Found::MissingObject) => {
                let (file, object) = (edit.file.clone(), edit.object.to_string());
                missing.problems.push(wrong(&CheckoutError::MissingObject { file, object }));
            }
            Err(error) if is_declared_wrong(&error) => missing.problems.push(wrong(&error)),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(missing)
}

/// True where the site file, or the file in the checkout, has to be corrected by a person; asking again is no use.
pub fn is_declared_wrong(error: &CheckoutError) -> bool {
    use CheckoutError as E;
    matches!(
        error,
        E::NoFile { .. }
            | E::NotAFile { .. }
            | E::NotYaml { .. }
            | E::MissingObject { .. }
            | E::Ambiguous { .. }
            | E::NotEditable { .. }
            | E::NothingToReplace { .. }
    )
}

/// An error as a problem with its help.
pub fn wrong(error: &CheckoutError) -> Problem {
    Problem::new(error.to_string(), error.help().unwrap_or_else(|| "see `manifests` in the site file".into()))
}

/// The first characters of a commit id, as people write it.
pub fn short(commit: &str) -> &str {
    commit.get(..7).unwrap_or(commit)
}

/// The commit in a revision of Flux (`main@sha1:COMMIT`; before Flux 2.0 `main/COMMIT`).
pub fn commit_of(revision: &str) -> Option<&str> {
    let commit = revision.rsplit([':', '/']).next()?;
    (commit.len() >= 40 && commit.bytes().all(|b| b.is_ascii_hexdigit())).then_some(commit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::site::fields::Sink;
    use serde_json::json;

    #[test]
    fn manifests_are_read_into_edits() {
        let sink = Sink::new();
        let value = json!([
            {"file": "apps/frigate/deployment.yaml", "object": "Deployment/frigate/frigate",
             "remove": ["spec.template.spec.runtimeClassName"],
             "set": {"spec.template.spec.nodeSelector": {"coral": "true"}}},
            {"file": "apps/frigate/configmap.yaml", "object": "ConfigMap/frigate/frigate-config",
             "replace": [{"path": "data[config.yml]", "from": "preset-nvidia-h264", "to": "preset-vaapi"}]},
        ]);
        let edits = read(&Item::new(&value, "manifests", &sink)).unwrap();
        assert_eq!((edits.len(), sink.count()), (2, 0));
        assert_eq!(edits[0].set[0].1, json!({"coral": "true"}));
        assert_eq!(edits[0].remove.len(), 1);
        assert_eq!(edits[1].replace[0].2, "preset-vaapi");
    }

    #[test]
    fn every_problem_of_the_manifests_is_told() {
        let sink = Sink::new();
        let value = json!([
            {"file": "a.yaml", "object": "Deployment/frigate/frigate"},
            {"object": "nothing", "set": {"a..b": 1}},
            {"file": "s.yaml", "object": "Secret/frigate/x", "remove": ["data.a"]},
            {"file": "c.yaml", "object": "ConfigMap/c", "replace": [{"path": "data.x", "from": "a"}]},
        ]);
        assert!(read(&Item::new(&value, "manifests", &sink)).is_none());
        let problems = sink.into_problems();
        assert_eq!(problems.len(), 6, "{problems:?}");
    }

    #[test]
    fn a_revision_of_flux_names_its_commit() {
        let commit = "0123456789abcdef0123456789abcdef01234567";
        assert_eq!(commit_of(&format!("main@sha1:{commit}")), Some(commit));
        assert_eq!(commit_of(&format!("main/{commit}")), Some(commit));
        assert_eq!(commit_of("main@sha1:"), None);
        assert_eq!(commit_of(""), None);
    }
}
