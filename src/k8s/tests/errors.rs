use bytes::Bytes;
use http::StatusCode;

use super::super::classify::refused;
use super::super::error::{Call, KubeError};
use super::fixture;
use crate::base::fault::{Effect, Fault};

fn call(changing: bool) -> Call {
    Call { cluster: "k3s".into(), request: "PATCH nodes/x".into(), changing }
}

fn error(file: &str, code: u16, changing: bool) -> KubeError {
    let body = Bytes::from(fixture(file).to_string());
    refused(call(changing), StatusCode::from_u16(code).unwrap(), None, &body)
}

#[test]
fn each_code_has_its_cause_effect_and_help() {
    // file, code, variant, effect of a change, worth another try, has help
    let table: &[(&str, u16, &str, Effect, bool, bool)] = &[
        ("status-401", 401, "Unauthorized", Effect::None, false, true),
        ("status-403", 403, "Forbidden", Effect::None, false, true),
        ("status-404", 404, "NotFound", Effect::None, false, false),
        ("status-409-uid", 409, "Replaced", Effect::None, false, true),
        ("status-409-uid-delete", 409, "Replaced", Effect::None, false, true),
        ("status-409-modified", 409, "Conflict", Effect::None, false, true),
        ("status-409-exists", 409, "Exists", Effect::None, false, false),
        ("status-410", 410, "Expired", Effect::None, true, false),
        ("status-422", 422, "Invalid", Effect::None, false, false),
        ("status-422-uid", 422, "Replaced", Effect::None, false, true),
        ("status-429-budget", 429, "DisruptionBudget", Effect::None, true, true),
        ("status-429-throttled", 429, "Throttled", Effect::None, true, true),
        ("status-500", 500, "Server", Effect::Maybe, false, false),
        ("status-503", 503, "Server", Effect::Maybe, false, true),
        ("status-two-budgets", 200, "Refused", Effect::None, false, true),
    ];
    for (file, code, variant, effect, retryable, help) in table {
        let error = error(file, *code, true);
        assert!(format!("{error:?}").starts_with(variant), "{file}: {error:?}");
        assert_eq!((error.effect(), error.retryable(), error.help().is_some()), (*effect, *retryable, *help), "{file}");
        assert!(error.to_string().starts_with("kubernetes `k3s`: PATCH nodes/x: "), "{error}");
        assert_eq!(error.call(), Some(&call(true)));
        assert_eq!(error.stale(), *variant == "Conflict", "only a change in between is decided anew: {file}");
    }
    assert_eq!(table.len(), 15);
    assert_eq!(error("status-500", 500, false).effect(), Effect::None, "a question changes nothing");
    assert!(error("status-503", 503, false).retryable() && !error("status-500", 500, false).retryable());
}

#[test]
fn only_the_cause_tells_the_two_429s_apart() {
    let KubeError::DisruptionBudget { text, .. } = error("status-429-budget", 429, true) else { panic!() };
    assert_eq!(text, "The disruption budget frigate needs 1 healthy pods and has 1 currently");
    let KubeError::Throttled { retry_after, .. } = error("status-429-throttled", 429, true) else { panic!() };
    assert_eq!(retry_after, 1);
    let bare = refused(call(false), StatusCode::TOO_MANY_REQUESTS, Some(7), &Bytes::from_static(b"slow down"));
    assert!(matches!(bare, KubeError::Throttled { retry_after: 7, .. }), "{bare:?}");
}

#[test]
fn a_proxys_404_does_not_say_that_something_is_gone() {
    let html = Bytes::from_static(b"<html>404 page not found</html>");
    let error = refused(call(false), StatusCode::NOT_FOUND, None, &html);
    assert!(matches!(&error, KubeError::Refused { code: 404, .. }), "{error:?}");
    assert!(!error.is_not_found());
}
