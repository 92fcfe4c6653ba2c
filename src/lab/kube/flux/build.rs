//! What a folder of the repository builds to: a part of kustomize (`resources` and `namespace`).

use serde_json::Value;

use super::git::Tree;
use crate::lab::kube::json::{self, list, text};
use crate::lab::kube::kinds;

const FILE: &str = "kustomization.yaml";

/// The objects of a folder. One without a `kustomization.yaml` gives every manifest below it, as kustomize-controller
/// generates one.
pub(super) fn build(tree: &Tree, folder: &str) -> Result<Vec<Value>, String> {
    let folder = clean(folder);
    let below = if folder.is_empty() { String::new() } else { format!("{folder}/") };
    if !tree.keys().any(|p| p.starts_with(&below)) {
        return Err(format!("kustomization path not found: stat {folder}: no such file or directory"));
    }
    let mut objects = Vec::new();
    add_folder(tree, &folder, &mut objects)?;
    for (i, object) in objects.iter().enumerate() {
        if json::name(object).is_empty() || text(object, "/kind").is_empty() {
            return Err(format!("object {i} of {folder} has no kind or no name"));
        }
    }
    Ok(objects)
}

fn add_folder(tree: &Tree, folder: &str, out: &mut Vec<Value>) -> Result<(), String> {
    let below = if folder.is_empty() { String::new() } else { format!("{folder}/") };
    let Some(file) = tree.get(&format!("{below}{FILE}")) else {
        let mut names: Vec<&str> = tree.keys().filter_map(|p| p.strip_prefix(below.as_str())).collect();
        names.sort_unstable();
        let mut folders: Vec<&str> = Vec::new();
        for name in names {
            match name.split_once('/') {
                None if is_yaml(name) => add_file(tree, &format!("{below}{name}"), out)?,
                Some((inner, _)) if !folders.contains(&inner) => {
                    folders.push(inner);
                    add_folder(tree, &format!("{below}{inner}"), out)?;
                }
                _ => {}
            }
        }
        return Ok(());
    };
    let kustomization: Value = serde_saphyr::from_str(file).map_err(|e| format!("{below}{FILE}: {e}"))?;
    for key in kustomization.as_object().into_iter().flat_map(|m| m.keys()) {
        if !["apiVersion", "kind", "resources", "namespace", "metadata"].contains(&key.as_str()) {
            return Err(format!("{below}{FILE}: this kustomize knows no `{key}`"));
        }
    }
    let first = out.len();
    for resource in list(&kustomization, "/resources").iter().filter_map(Value::as_str) {
        let path = clean(&format!("{below}{resource}"));
        if tree.contains_key(&path) {
            add_file(tree, &path, out)?;
        } else if tree.keys().any(|p| p.starts_with(&format!("{path}/"))) {
            add_folder(tree, &path, out)?;
        } else {
            return Err(format!("accumulating resources from '{resource}': open {path}: no such file or directory"));
        }
    }
    let space = text(&kustomization, "/namespace");
    if !space.is_empty() {
        for object in out.iter_mut().skip(first) {
            into_namespace(object, space);
        }
    }
    Ok(())
}

/// Puts an object into a namespace, where its kind has one.
pub(super) fn into_namespace(object: &mut Value, space: &str) {
    let kind = kinds::of(text(object, "/apiVersion"), text(object, "/kind"));
    if kind.is_none_or(|k| k.namespaced) {
        json::set(object, &["metadata", "namespace"], space);
    }
}

fn add_file(tree: &Tree, path: &str, out: &mut Vec<Value>) -> Result<(), String> {
    let text = tree.get(path).map_or("", String::as_str);
    let documents: Vec<Value> = serde_saphyr::from_multiple(text).map_err(|e| format!("{path}: {e}"))?;
    out.extend(documents.into_iter().filter(|d| !d.is_null()));
    Ok(())
}

fn is_yaml(name: &str) -> bool {
    name.ends_with(".yaml") || name.ends_with(".yml")
}

/// `./apps/../apps/x` as `apps/x`.
fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree() -> Tree {
        let object = |name: &str| format!("# {name}\napiVersion: v1\nkind: ConfigMap\nmetadata: {{ name: {name} }}\n");
        Tree::from([
            ("apps/kustomization.yaml".to_owned(), "resources: [a, b.yaml]\n".to_owned()),
            ("apps/a/kustomization.yaml".to_owned(), "namespace: x\nresources: [one.yaml]\n".to_owned()),
            ("apps/a/one.yaml".to_owned(), format!("{}---\n{}", object("one"), object("two"))),
            ("apps/b.yaml".to_owned(), object("three")),
            ("plain/deep/c.yaml".to_owned(), object("four")),
            ("bad/kustomization.yaml".to_owned(), "patches: []\n".to_owned()),
        ])
    }

    #[test]
    fn folders_build() {
        let names = |folder: &str| -> Vec<String> {
            build(&tree(), folder)
                .unwrap()
                .iter()
                .map(|o| format!("{}/{}", json::namespace(o), json::name(o)))
                .collect()
        };
        assert_eq!(names("./apps"), ["x/one", "x/two", "/three"]);
        assert_eq!(names("plain/"), ["/four"]);
        assert!(build(&tree(), "bad").unwrap_err().contains("patches"));
        assert!(build(&tree(), "none").unwrap_err().contains("path not found"));
    }
}
