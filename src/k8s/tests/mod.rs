//! The parts that only judge, on shapes of the real API.

mod claims;
mod drains;
mod errors;
mod flux;
mod held;
mod placement;
mod pods;

use serde_json::Value;

/// A fixture by file name.
pub(super) fn fixture(name: &str) -> Value {
    let path = format!("{}/fixtures/kubernetes/{name}.json", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// The fixture node under another name, with labels besides its host name and without taints.
pub(super) fn node(name: &str, labels: &[(&str, &str)]) -> super::Node {
    let mut value = fixture("node");
    value["metadata"]["name"] = name.into();
    value["metadata"]["labels"] = serde_json::json!({"kubernetes.io/hostname": name});
    value["spec"] = serde_json::json!({});
    for (key, label) in labels {
        value["metadata"]["labels"][*key] = (*label).into();
    }
    super::Node::from_api(value).unwrap()
}

#[test]
fn quantities_are_read_in_whole_units() {
    let table = [
        ("16Gi", Some(16 << 30)),
        ("3920m", Some(3)),
        ("1.5k", Some(1500)),
        ("2e3", Some(2000)),
        ("2E", Some(2_000_000_000_000_000_000)),
        ("0", Some(0)),
        ("2", Some(2)),
        ("x", None),
        ("-1", None),
        ("", None),
    ];
    for (text, expected) in table {
        assert_eq!(super::meta::whole(text), expected, "{text}");
    }
}
