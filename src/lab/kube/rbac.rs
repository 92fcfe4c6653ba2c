//! Who asks, and what that one may do: role-based access control over the roles and bindings in the store.
//!
//! As in apiserver `pkg/endpoints/request/requestinfo.go` (what a request is about), kubernetes
//! `plugin/pkg/auth/authorizer/rbac` (what a rule allows) and apiserver `responsewriters/errors.go` (the refusal).

use bytes::Bytes;
use http::{Method, Request, header};
use serde_json::{Value, json};

use super::Kube;
use super::call::Call;
use super::json::{self as place, list, text};
use super::kinds;
use super::status::{Outcome, Refusal};

const GROUP: &str = "rbac.authorization.k8s.io";

/// Whoever asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct User {
    /// `system:serviceaccount:frigate:pvemig`
    name: String,
    groups: Vec<String>,
}

impl User {
    /// A member of the group that no rule holds back.
    fn administrator() -> Self {
        Self { name: "kubernetes-admin".into(), groups: vec!["system:masters".into(), "system:authenticated".into()] }
    }

    fn named(name: &str) -> Self {
        let mut groups = vec!["system:authenticated".to_owned()];
        if let Some((space, _)) = name.strip_prefix("system:serviceaccount:").and_then(|rest| rest.split_once(':')) {
            groups.extend(["system:serviceaccounts".to_owned(), format!("system:serviceaccounts:{space}")]);
        }
        Self { name: name.to_owned(), groups }
    }

    fn may_everything(&self) -> bool {
        self.groups.iter().any(|group| group == "system:masters")
    }
}

/// What a request is about.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Asked {
    verb: String,
    /// Of what is no object of the API.
    path: Option<String>,
    group: String,
    resource: String,
    part: String,
    namespace: String,
    name: String,
}

impl Asked {
    fn of(call: &Call) -> Self {
        let verb = |named: bool| match call.method {
            Method::POST => "create",
            Method::PUT => "update",
            Method::PATCH => "patch",
            Method::DELETE if named => "delete",
            Method::DELETE => "deletecollection",
            _ if call.is_set("watch") => "watch",
            _ if named => "get",
            _ => "list",
        };
        let path: Vec<&str> = call.path.iter().map(String::as_str).collect();
        let (group, rest) = match path.as_slice() {
            ["api", _, rest @ ..] if !rest.is_empty() => ("", rest),
            ["apis", group, _, rest @ ..] if !rest.is_empty() => (*group, rest),
            _ => {
                let verb = call.method.as_str().to_lowercase();
                return Self { verb, path: Some(format!("/{}", path.join("/"))), ..Self::default() };
            }
        };
        let (namespace, rest) = match rest {
            ["namespaces", space, inner @ ..] if !inner.is_empty() && !matches!(inner, ["status" | "finalize"]) => {
                (*space, inner)
            }
            ["namespaces", space, ..] => (*space, rest),
            _ => ("", rest),
        };
        let part = |at: usize| rest.get(at).copied().unwrap_or_default().to_owned();
        let mut name = part(1);
        let verb = verb(!name.is_empty());
        // A list or watch of one name is about that object.
        if matches!(verb, "list" | "watch" | "deletecollection") && name.is_empty() {
            let selected = call
                .query("fieldSelector")
                .and_then(|fields| fields.split(',').find_map(|field| field.strip_prefix("metadata.name=")));
            name = selected.map(|name| name.trim_start_matches('=').to_owned()).unwrap_or_default();
        }
        Self {
            verb: verb.to_owned(),
            path: None,
            group: group.to_owned(),
            resource: part(0),
            part: part(2),
            namespace: namespace.to_owned(),
            name,
        }
    }

    fn whole(&self) -> String {
        if self.part.is_empty() { self.resource.clone() } else { format!("{}/{}", self.resource, self.part) }
    }

    fn with(&self, verb: &str) -> Self {
        Self { verb: verb.to_owned(), ..self.clone() }
    }

    /// What every user may who is let in: the roles `system:basic-user`, `system:discovery` and
    /// `system:public-info-viewer` are bound to all of them from the start.
    fn is_for_everybody(&self) -> bool {
        match &self.path {
            Some(path) => {
                let open = ["/healthz", "/livez", "/readyz", "/version", "/api", "/apis", "/openapi"];
                let below =
                    |root: &str| path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
                matches!(self.verb.as_str(), "get" | "head") && open.into_iter().any(below)
            }
            None => {
                let reviews = ["selfsubjectaccessreviews", "selfsubjectrulesreviews"];
                self.verb == "create"
                    && self.group == "authorization.k8s.io"
                    && reviews.contains(&self.resource.as_str())
            }
        }
    }

    /// The refusal, with the roles that are named and not there.
    fn refusal(&self, user: &User, missing: &[String]) -> Refusal {
        let who = &user.name;
        let mut said = match &self.path {
            Some(path) => format!("User \"{who}\" cannot {} path \"{path}\"", self.verb),
            None => {
                let at = match self.namespace.as_str() {
                    "" => "at the cluster scope".to_owned(),
                    space => format!("in the namespace \"{space}\""),
                };
                let (verb, whole, group) = (&self.verb, self.whole(), &self.group);
                format!("User \"{who}\" cannot {verb} resource \"{whole}\" in API group \"{group}\" {at}")
            }
        };
        if !missing.is_empty() {
            said = format!("{said}: RBAC: {}", missing.join(", "));
        }
        let of = match self.group.as_str() {
            "" => self.resource.clone(),
            group => format!("{}.{group}", self.resource),
        };
        let message = match (of.is_empty(), self.name.is_empty()) {
            (true, _) => format!("forbidden: {said}"),
            (false, true) => format!("{of} is forbidden: {said}"),
            (false, false) => format!("{of} \"{}\" is forbidden: {said}", self.name),
        };
        let mut refusal = Refusal::new(403, "Forbidden", message);
        let mut details = serde_json::Map::new();
        for (key, value) in [("name", &self.name), ("group", &self.group), ("kind", &self.resource)] {
            if !value.is_empty() {
                details.insert(key.into(), value.as_str().into());
            }
        }
        place::set(&mut refusal.body, &["details"], details);
        refusal
    }
}

/// Whether a rule of a role allows it.
fn allows(rule: &Value, asked: &Asked) -> bool {
    let has = |field: &str, wanted: &str| {
        list(rule, field).iter().filter_map(Value::as_str).any(|value| value == "*" || value == wanted)
    };
    if !has("/verbs", &asked.verb) {
        return false;
    }
    if let Some(path) = &asked.path {
        let fits = |url: &str| url == path || url.strip_suffix('*').is_some_and(|root| path.starts_with(root));
        return list(rule, "/nonResourceURLs").iter().filter_map(Value::as_str).any(fits);
    }
    let names = list(rule, "/resourceNames");
    let any_part = format!("*/{}", asked.part);
    has("/apiGroups", &asked.group)
        && (has("/resources", &asked.whole()) || (!asked.part.is_empty() && has("/resources", &any_part)))
        && (names.is_empty() || names.iter().any(|name| name.as_str() == Some(asked.name.as_str())))
}

/// Whether a binding is for a user.
fn binds(binding: &Value, user: &User) -> bool {
    list(binding, "/subjects").iter().any(|subject| {
        let name = text(subject, "/name");
        match text(subject, "/kind") {
            "User" => name == user.name,
            "Group" => user.groups.iter().any(|group| group == name),
            "ServiceAccount" => {
                let own = text(subject, "/namespace");
                let space = if own.is_empty() { place::namespace(binding) } else { own };
                user.name == format!("system:serviceaccount:{space}:{name}")
            }
            _ => false,
        }
    })
}

/// Whether a user may, and else which roles are bound to that user and not there.
fn judge(kube: &Kube, user: &User, asked: &Asked) -> Result<(), Vec<String>> {
    if user.may_everything() || asked.is_for_everybody() {
        return Ok(());
    }
    let mut missing = Vec::new();
    let cluster = kube.store.list(kinds::cluster_bindings(), None);
    let space = asked.namespace.as_str();
    let inside = kube.store.list(kinds::bindings(), Some(space)).filter(|_| !space.is_empty());
    for binding in cluster.chain(inside).filter(|binding| binds(binding, user)) {
        let name = text(binding, "/roleRef/name");
        let (kind, at) = match text(binding, "/roleRef/kind") {
            "Role" => (kinds::roles(), place::namespace(binding)),
            _ => (kinds::cluster_roles(), ""),
        };
        match kube.store.get(kind, at, name) {
            Some(role) if list(role, "/rules").iter().any(|rule| allows(rule, asked)) => return Ok(()),
            Some(_) => {}
            None => missing.push(format!("{}.{GROUP} \"{name}\" not found", kind.singular())),
        }
    }
    Err(missing)
}

fn minor(kube: &Kube) -> u32 {
    kube.version.split('.').nth(1).and_then(|minor| minor.parse().ok()).unwrap_or_default()
}

/// The user of a request; None: nobody is known by these credentials.
pub(crate) fn user(kube: &Kube, request: &Request<Bytes>) -> Option<User> {
    let given = request.headers().get(header::AUTHORIZATION).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let token = given.strip_prefix("Bearer ").filter(|token| !token.is_empty())?;
    match &kube.user {
        Some(name) if token == kube.token => Some(User::named(name)),
        None if token == kube.token => Some(User::administrator()),
        Some(_) if token == kube.admin => Some(User::administrator()),
        _ => None,
    }
}

/// Lets a request in, or refuses it.
pub(crate) fn door(kube: &Kube, request: &Request<Bytes>) -> Outcome<()> {
    let user = user(kube, request).ok_or_else(|| Refusal::new(401, "Unauthorized", "Unauthorized"))?;
    if user.may_everything() {
        return Ok(());
    }
    let call = Call::of(request, jiff::Timestamp::UNIX_EPOCH);
    let asked = Asked::of(&call);
    let mut all = vec![asked.clone()];
    if asked.part == "exec" && asked.verb == "get" && minor(kube) >= 35 {
        // Since 1.35 an upgrade is held against `create` as well (gate AuthorizePodWebsocketUpgradeCreatePermission).
        all.push(asked.with("create"));
    }
    let applied = call.header(header::CONTENT_TYPE).starts_with("application/apply-patch");
    if applied && call.target(kube).is_ok_and(|target| super::read::find(kube, &target).is_err()) {
        all.push(asked.with("create"));
    }
    if asked.group == GROUP && matches!(asked.verb.as_str(), "create" | "update" | "patch") {
        // The real server lets through what grants no more than one has oneself; here it takes the verbs that let
        // everything through.
        all.push(asked.with(if asked.resource.ends_with("bindings") { "bind" } else { "escalate" }));
    }
    for asked in all {
        judge(kube, &user, &asked).map_err(|missing| asked.refusal(&user, &missing))?;
    }
    Ok(())
}

/// Answers a question about one's own rights.
pub(crate) fn review(kube: &Kube, user: &User, call: &Call) -> Outcome<super::write::Written> {
    let mut body = call.json()?;
    let said = |key: &str| text(&body, &format!("/spec/resourceAttributes/{key}")).to_owned();
    let asked = match body.pointer("/spec/nonResourceAttributes") {
        Some(other) => Asked {
            verb: text(other, "/verb").to_owned(),
            path: Some(text(other, "/path").to_owned()),
            ..Asked::default()
        },
        None => Asked {
            verb: said("verb"),
            path: None,
            group: said("group"),
            resource: said("resource"),
            part: said("subresource"),
            namespace: said("namespace"),
            name: said("name"),
        },
    };
    let status = match judge(kube, user, &asked) {
        Ok(()) => json!({ "allowed": true }),
        Err(missing) if missing.is_empty() => json!({ "allowed": false }),
        Err(missing) => json!({ "allowed": false, "reason": format!("RBAC: {}", missing.join(", ")) }),
    };
    place::set(&mut body, &["kind"], "SelfSubjectAccessReview");
    place::set(&mut body, &["apiVersion"], "authorization.k8s.io/v1");
    place::set(&mut body, &["status"], status);
    Ok((201, body))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(method: &str, uri: &str) -> Asked {
        let request = Request::builder().method(method).uri(uri).body(Bytes::new()).unwrap();
        Asked::of(&Call::of(&request, jiff::Timestamp::UNIX_EPOCH))
    }

    fn shown(asked: &Asked) -> String {
        let Asked { verb, path, group, namespace, name, .. } = asked;
        match path {
            Some(path) => format!("{verb} {path}"),
            None => format!("{verb} {group}|{}|{namespace}|{name}", asked.whole()),
        }
    }

    #[test]
    fn a_request_is_about_what_its_path_says() {
        let table = [
            ("GET", "/apis/apps/v1/namespaces/a/deployments/x", "get apps|deployments|a|x"),
            ("GET", "/apis/apps/v1/namespaces/a/deployments", "list apps|deployments|a|"),
            ("GET", "/api/v1/pods?watch=true", "watch |pods||"),
            ("GET", "/api/v1/pods?fieldSelector=spec.nodeName%3Dn", "list |pods||"),
            ("GET", "/api/v1/namespaces/a/pods?fieldSelector=metadata.name%3Dp", "list |pods|a|p"),
            ("POST", "/api/v1/namespaces/a/pods/p/eviction", "create |pods/eviction|a|p"),
            ("GET", "/api/v1/namespaces/a/pods/p/exec?command=x", "get |pods/exec|a|p"),
            ("PATCH", "/api/v1/nodes/n", "patch |nodes||n"),
            ("DELETE", "/api/v1/namespaces/a/pods", "deletecollection |pods|a|"),
            ("PUT", "/api/v1/namespaces/a", "update |namespaces|a|a"),
            ("GET", "/api/v1/namespaces", "list |namespaces||"),
            ("GET", "/apis/apps/v1", "get /apis/apps/v1"),
            ("GET", "/version", "get /version"),
        ];
        for (method, uri, expected) in table {
            assert_eq!(shown(&asked(method, uri)), expected, "{method} {uri}");
        }
        assert_eq!(table.len(), 13);
    }

    #[test]
    fn a_rule_allows_what_it_names() {
        let exec = asked("GET", "/api/v1/namespaces/a/pods/p/exec");
        let pods = asked("GET", "/api/v1/namespaces/a/pods/p");
        let list = asked("GET", "/api/v1/namespaces/a/pods");
        let rule = |resources: &[&str], names: &[&str]| json!({ "apiGroups": [""], "resources": resources, "verbs": ["get", "list"], "resourceNames": names });
        let table = [
            (rule(&["pods"], &[]), [true, false, true]),
            (rule(&["pods/exec"], &[]), [false, true, false]),
            (rule(&["*/exec"], &[]), [false, true, false]),
            (rule(&["*"], &[]), [true, true, true]),
            (rule(&["pods"], &["p"]), [true, false, false]),
            (rule(&["pods"], &["q"]), [false, false, false]),
            (json!({ "apiGroups": ["apps"], "resources": ["*"], "verbs": ["*"] }), [false, false, false]),
            (json!({ "apiGroups": [""], "resources": ["pods"], "verbs": ["patch"] }), [false, false, false]),
        ];
        for (rule, expected) in &table {
            assert_eq!([&pods, &exec, &list].map(|asked| allows(rule, asked)), *expected, "{rule}");
        }
        assert_eq!(table.len(), 8);
    }

    #[test]
    fn everything_is_allowed_by_a_rule_of_everything_alone() {
        let all = |namespace: &str| {
            let [verb, group, resource] = ["*"; 3].map(str::to_owned);
            Asked { verb, group, resource, namespace: namespace.into(), ..Asked::default() }
        };
        let rule = |verbs: &[&str], groups: &[&str], resources: &[&str]| json!({ "apiGroups": groups, "resources": resources, "verbs": verbs });
        let mut named = rule(&["*"], &["*"], &["*"]);
        named["resourceNames"] = json!(["a"]);
        let table = [
            (rule(&["*"], &["*"], &["*"]), true),
            (rule(&["get", "list", "watch", "create", "update", "patch", "delete"], &["*"], &["*"]), false),
            (rule(&["*"], &[""], &["*"]), false),
            (rule(&["*"], &["*"], &["pods", "pods/exec"]), false),
            (rule(&["*"], &["*"], &["*/scale"]), false),
            (named, false),
        ];
        for (rule, expected) in &table {
            assert_eq!(allows(rule, &all("")), *expected, "{rule}");
        }
        assert_eq!(table.len(), 6);
    }
}
