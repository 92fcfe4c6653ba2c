//! Roles and bindings for `kubectl apply`.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::blueprint::rights::{KubeNeed, Rights, Weight};

use super::super::out::Out;
use super::{Page, condition, json_of, numbers};

const API: &str = "rbac.authorization.k8s.io/v1";
/// The name of the account that gets the rights.
const ACCOUNT: &str = "pvemig";

/// What is allowed on one kind of objects.
struct Rule<'r> {
    group: &'r str,
    resource: &'r str,
    names: Vec<&'r str>,
    verbs: Vec<&'r str>,
    weight: &'r Weight,
    needs: Vec<&'r KubeNeed>,
}

/// The rules of each namespace; those of the empty one are of the cluster.
pub(super) struct Rules<'r> {
    name: String,
    by_space: BTreeMap<&'r str, Vec<Rule<'r>>>,
}

impl<'r> Rules<'r> {
    pub(super) fn of(rights: &'r Rights, migration: &str) -> Self {
        let mut by_space: BTreeMap<&str, Vec<Rule<'_>>> = BTreeMap::new();
        // What is optional, or needed on a condition, stands behind.
        let rank = |need: &&KubeNeed| match need.weight {
            Weight::Needed => 0,
            Weight::Optional(_) => 1,
            Weight::If(_) => 2,
        };
        let mut needs: Vec<&KubeNeed> = rights.kube.iter().collect();
        needs.sort_by_key(rank);
        for need in needs {
            let right = &need.right;
            let rules = by_space.entry(&right.namespace).or_default();
            let name = Some(right.name.as_str()).filter(|name| !name.is_empty());
            let same = |rule: &&mut Rule<'_>| {
                let kind = (rule.group, rule.resource) == (right.group.as_str(), right.resource.as_str());
                kind && *rule.weight == need.weight
            };
            // A further verb on the same objects, or a further object for the same verbs.
            let named: Vec<&str> = name.into_iter().collect();
            if let Some(rule) = rules.iter_mut().filter(same).find(|rule| rule.names == named) {
                rule.verbs.push(&right.verb);
                rule.needs.push(need);
            } else {
                rules.push(Rule {
                    group: &right.group,
                    resource: &right.resource,
                    names: named,
                    verbs: vec![&right.verb],
                    weight: &need.weight,
                    needs: vec![need],
                });
            }
        }
        by_space.values_mut().for_each(join_names);
        let name = migration.to_lowercase().replace(|c: char| !(c.is_ascii_alphanumeric() || c == '-'), "-");
        Self { name: format!("pvemig-{}", name.trim_matches('-')), by_space }
    }

    pub(super) fn print(&self, rights: &Rights, migration: &str, all: bool, out: Out, page: &mut Page) {
        let more = if all { " --with-optional" } else { "" };
        let apply = out.commands(&format!("pvemig privileges {migration} --only kubernetes{more}"));
        page.words(&format!("As an administrator: `{apply} | kubectl apply -f -`."));
        let space = &rights.namespace;
        page.words(&format!(
            "For the kubeconfig of the site file, a token: `kubectl -n {space} create token {ACCOUNT} --duration 24h`."
        ));
        page.words("To ask for the API's versions and for one's own rights is open to everybody who is let in.");
        for note in &rights.kube_notes {
            page.words(note);
        }
        page.line("apiVersion: v1");
        page.line("kind: ServiceAccount");
        meta(ACCOUNT, space, page);
        for (space, rules) in &self.by_space {
            let (given, left): (Vec<&Rule<'_>>, Vec<_>) = rules.iter().partition(|rule| rule.is_given(all));
            if given.is_empty() {
                let mut role = Page::default();
                self.role(space, &left, rights, &mut role, |_| {});
                page.words(super::WITHOUT);
                page.left_out(&role);
                continue;
            }
            self.role(space, &given, rights, page, |page| {
                if left.is_empty() {
                    return;
                }
                page.hanging("  # ", super::WITHOUT);
                let mut lines = Page::default();
                left.iter().for_each(|rule| rule.print(&mut lines));
                page.left_out(&lines);
            });
        }
    }

    /// A role with its binding; `more` follows its rules.
    fn role(&self, space: &str, rules: &[&Rule<'_>], rights: &Rights, page: &mut Page, more: impl FnOnce(&mut Page)) {
        let kind = if space.is_empty() { "ClusterRole" } else { "Role" };
        page.line("---");
        page.line(&format!("apiVersion: {API}"));
        page.line(&format!("kind: {kind}"));
        meta(&self.name, space, page);
        page.line("rules:");
        rules.iter().for_each(|rule| rule.print(page));
        more(page);
        page.line("---");
        page.line(&format!("apiVersion: {API}"));
        page.line(&format!("kind: {kind}Binding"));
        meta(&self.name, space, page);
        page.line("roleRef:");
        page.line("  apiGroup: rbac.authorization.k8s.io");
        page.line(&format!("  kind: {kind}"));
        page.line(&format!("  name: {}", plain(&self.name)));
        page.line("subjects:");
        page.line("  - kind: ServiceAccount");
        page.line(&format!("    name: {ACCOUNT}"));
        page.line(&format!("    namespace: {}", plain(&rights.namespace)));
    }

    pub(super) fn json(&self, rights: &Rights, all: bool) -> Value {
        let rules = rights.kube.iter().map(|need| {
            let (needed, without, when) = json_of(&need.weight);
            let right = &need.right;
            let some = |text: &str| if text.is_empty() { Value::Null } else { text.into() };
            json!({ "verb": right.verb, "group": right.group, "resource": right.resource,
                "namespace": some(&right.namespace), "name": some(&right.name), "steps": need.steps,
                "purpose": need.purpose, "needed": needed, "without": without, "if": when })
        });
        json!({
            "cluster": rights.kubernetes, "user": format!("system:serviceaccount:{}:{ACCOUNT}", rights.namespace),
            "notes": rights.kube_notes, "rights": rules.collect::<Vec<_>>(), "manifests": self.manifests(rights, all),
        })
    }

    fn manifests(&self, rights: &Rights, optional: bool) -> Vec<Value> {
        let metadata = |name: &str, space: &str| match space {
            "" => json!({ "name": name }),
            space => json!({ "name": name, "namespace": space }),
        };
        let account = metadata(ACCOUNT, &rights.namespace);
        let mut all = vec![json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": account })];
        for (space, rules) in &self.by_space {
            let rules: Vec<Value> = rules.iter().filter(|rule| rule.is_given(optional)).map(Rule::json).collect();
            if rules.is_empty() {
                continue;
            }
            let kind = if space.is_empty() { "ClusterRole" } else { "Role" };
            all.push(json!({
                "apiVersion": API, "kind": kind, "metadata": metadata(&self.name, space),
                "rules": rules,
            }));
            all.push(json!({
                "apiVersion": API, "kind": format!("{kind}Binding"), "metadata": metadata(&self.name, space),
                "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": self.name },
                "subjects": [{ "kind": "ServiceAccount", "name": ACCOUNT, "namespace": rights.namespace }],
            }));
        }
        all
    }
}

/// Rules that allow the same on different objects of a kind become one.
fn join_names(rules: &mut Vec<Rule<'_>>) {
    let mut joined: Vec<Rule<'_>> = Vec::new();
    for rule in rules.drain(..) {
        let same = |known: &&mut Rule<'_>| {
            let kind = (known.group, known.resource) == (rule.group, rule.resource);
            kind && known.weight == rule.weight
                && known.verbs == rule.verbs
                && known.names.is_empty() == rule.names.is_empty()
        };
        match joined.iter_mut().find(same) {
            Some(known) => {
                known.names.extend(rule.names);
                known.needs.extend(rule.needs);
            }
            None => joined.push(rule),
        }
    }
    *rules = joined;
}

impl Rule<'_> {
    /// Whether it is printed for use.
    fn is_given(&self, all: bool) -> bool {
        all || *self.weight == Weight::Needed
    }

    fn print(&self, page: &mut Page) {
        let mut lines: Vec<(&str, Vec<&'static str>)> = Vec::new();
        for need in &self.needs {
            match lines.iter_mut().find(|(purpose, _)| *purpose == need.purpose) {
                Some((_, steps)) => steps.extend(&need.steps),
                None => lines.push((&need.purpose, need.steps.clone())),
            }
        }
        for (purpose, steps) in lines {
            page.hanging("  # ", &format!("{purpose} ({})", numbers(&steps)));
        }
        condition(self.weight).iter().for_each(|text| page.hanging("  # ", text));
        page.line(&format!("  - apiGroups: [{}]", Value::from(self.group)));
        page.line(&format!("    resources: [{}]", plain(self.resource)));
        let names: Vec<String> = self.names.iter().map(|name| plain(name)).collect();
        let flow = format!("    resourceNames: [{}]", names.join(", "));
        match names.len() {
            0 => {}
            _ if flow.chars().count() <= super::WIDTH => page.line(&flow),
            _ => {
                page.line("    resourceNames:");
                names.iter().for_each(|name| page.line(&format!("      - {name}")));
            }
        }
        page.line(&format!("    verbs: [{}]", self.verbs.join(", ")));
    }

    fn json(&self) -> Value {
        let mut rule = json!({ "apiGroups": [self.group], "resources": [self.resource], "verbs": self.verbs });
        if !self.names.is_empty() {
            rule["resourceNames"] = json!(self.names);
        }
        rule
    }
}

fn meta(name: &str, space: &str, page: &mut Page) {
    page.line("metadata:");
    page.line(&format!("  name: {}", plain(name)));
    if !space.is_empty() {
        page.line(&format!("  namespace: {}", plain(space)));
    }
}

/// A text as YAML takes it: in quotes where it could be read as something else.
fn plain(text: &str) -> String {
    let good = |c: char| c.is_ascii_alphanumeric() || "-./".contains(c);
    let word = text.starts_with(|c: char| c.is_ascii_alphabetic()) && text.chars().all(good);
    let other = ["true", "false", "null", "yes", "no", "on", "off", "y", "n"];
    if word && !other.contains(&text.to_lowercase().as_str()) { text.to_owned() } else { Value::from(text).to_string() }
}

#[cfg(test)]
mod tests {
    use super::plain;

    #[test]
    fn names_stay_names() {
        for (text, written) in
            [("frigate", "frigate"), ("pods/exec", "pods/exec"), ("on", "\"on\""), ("1e3", "\"1e3\"")]
        {
            assert_eq!(plain(text), written);
        }
    }
}
