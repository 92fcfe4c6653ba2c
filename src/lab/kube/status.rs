//! Refusals as the API server words them: `Status` objects.
//!
//! Texts and reasons as in apimachinery `pkg/api/errors`.

use http::StatusCode;
use serde_json::{Value, json};

use super::kinds::Kind;

/// A refusal.
#[derive(Debug, Clone)]
pub struct Refusal {
    /// HTTP status.
    pub code: u16,
    /// The `Status` object.
    pub body: Value,
}

/// What an API call comes to.
pub type Outcome<T> = Result<T, Refusal>;

impl Refusal {
    /// A refusal with a reason and a text.
    pub fn new(code: u16, reason: &str, message: impl Into<String>) -> Self {
        let message = message.into();
        let body = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": message, "reason": reason, "details": {}, "code": code,
        });
        Self { code, body }
    }

    fn about(mut self, kind: &Kind, name: &str) -> Self {
        let mut details = json!({ "name": name });
        if !kind.group.is_empty() {
            super::json::set(&mut details, &["group"], kind.group);
        }
        super::json::set(&mut details, &["kind"], kind.resource);
        super::json::set(&mut self.body, &["details"], details);
        self
    }

    fn cause(mut self, reason: &str, message: &str, field: Option<&str>) -> Self {
        let mut cause = json!({ "reason": reason, "message": message });
        if let Some(field) = field {
            super::json::set(&mut cause, &["field"], field);
        }
        let mut all = super::json::list(&self.body, "/details/causes").to_vec();
        all.push(cause);
        super::json::set(&mut self.body, &["details", "causes"], all);
        self
    }

    /// There is no such object.
    pub fn not_found(kind: &Kind, name: &str) -> Self {
        Self::new(404, "NotFound", format!("{} \"{name}\" not found", kind.qualified())).about(kind, name)
    }

    /// There is no such path.
    pub fn no_path() -> Self {
        Self::new(404, "NotFound", "the server could not find the requested resource")
    }

    /// The name is taken.
    pub fn exists(kind: &Kind, name: &str) -> Self {
        Self::new(409, "AlreadyExists", format!("{} \"{name}\" already exists", kind.qualified())).about(kind, name)
    }

    /// Somebody wrote in between, or a precondition fails.
    pub fn conflict(kind: &Kind, name: &str, why: &str) -> Self {
        let text = format!("Operation cannot be fulfilled on {} \"{name}\": {why}", kind.qualified());
        Self::new(409, "Conflict", text).about(kind, name)
    }

    /// The resourceVersion is not the present one.
    pub fn modified(kind: &Kind, name: &str) -> Self {
        let why = "the object has been modified; please apply your changes to the latest version and try again";
        Self::conflict(kind, name, why)
    }

    /// A precondition of a delete fails, as `registry/rest/delete.go` words it: it names the kind, not the resource.
    pub fn precondition(kind: &Kind, name: &str, what: &str, (wanted, present): (&str, &str)) -> Self {
        let why = if what == "UID" { "deleted and then recreated" } else { "modified" };
        let of = if kind.group.is_empty() { kind.kind.to_owned() } else { format!("{}.{}", kind.kind, kind.group) };
        let text = format!(
            "Operation cannot be fulfilled on {of} \"{name}\": the {what} in the precondition ({wanted}) does not match the \
             {what} in record ({present}). The object might have been {why}"
        );
        let mut refusal = Self::new(409, "Conflict", text).about(kind, name);
        super::json::set(&mut refusal.body, &["details", "kind"], kind.kind);
        refusal
    }

    /// A field may not be so. `problems`: field path, reason (`FieldValueInvalid`), message.
    pub fn invalid(kind: &Kind, name: &str, problems: &[(String, &str, String)]) -> Self {
        let said: Vec<String> = problems.iter().map(|(field, _, text)| format!("{field}: {text}")).collect();
        let all = match said.as_slice() {
            [one] => one.clone(),
            many => format!("[{}]", many.join(", ")),
        };
        let of = if kind.group.is_empty() { kind.kind.to_owned() } else { format!("{}.{}", kind.kind, kind.group) };
        let mut refusal = Self::new(422, "Invalid", format!("{of} \"{name}\" is invalid: {all}")).about(kind, name);
        super::json::set(&mut refusal.body, &["details", "kind"], kind.kind);
        for (field, reason, text) in problems {
            refusal = refusal.cause(reason, text, Some(field));
        }
        refusal
    }

    /// Not allowed.
    pub fn forbidden(kind: &Kind, name: &str, why: &str) -> Self {
        let text = format!("{} \"{name}\" is forbidden: {why}", kind.qualified());
        Self::new(403, "Forbidden", text).about(kind, name)
    }

    /// The namespace is going away.
    pub fn terminating(kind: &Kind, name: &str, namespace: &str) -> Self {
        let why = format!("unable to create new content in namespace {namespace} because it is being terminated");
        Self::forbidden(kind, name, &why).cause(
            "NamespaceTerminating",
            &format!("namespace {namespace} is being terminated"),
            Some("metadata.namespace"),
        )
    }

    /// The request makes no sense.
    pub fn bad(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message)
    }

    /// A watch or a page from before what the server remembers.
    pub fn expired(message: impl Into<String>) -> Self {
        Self::new(410, "Expired", message)
    }

    /// The verb is not there.
    pub fn no_method() -> Self {
        Self::new(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")
    }

    /// The body's type is not there.
    pub fn media(message: impl Into<String>) -> Self {
        Self::new(415, "UnsupportedMediaType", message)
    }

    /// A disruption budget says: not now. `seconds`: when to ask again; 0 where nobody knows.
    pub fn budget(message: &str, cause: &str, seconds: u32) -> Self {
        let mut refusal = Self::new(429, "TooManyRequests", message).cause("DisruptionBudget", cause, None);
        super::json::set(&mut refusal.body, &["details", "retryAfterSeconds"], seconds);
        refusal
    }

    /// Fields that other managers own: manager text and field text.
    pub fn owned_elsewhere(conflicts: &[(String, String)]) -> Self {
        let count = conflicts.len();
        let lines = conflicts.iter().map(|(who, field)| format!("conflict with {who}: {field}"));
        let text = format!(
            "Apply failed with {count} conflict{}: {}",
            if count == 1 { "" } else { "s" },
            lines.collect::<Vec<_>>().join("\n- ")
        );
        let mut refusal = Self::new(409, "Conflict", text);
        for (who, field) in conflicts {
            refusal = refusal.cause("FieldManagerConflict", &format!("conflict with {who}"), Some(field));
        }
        refusal
    }

    /// The HTTP status.
    pub fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// The text.
    pub fn message(&self) -> &str {
        super::json::text(&self.body, "/message")
    }
}

/// The answer to a call that has nothing to show.
pub fn success(code: u16) -> Value {
    json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": code })
}
