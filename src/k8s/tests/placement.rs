use serde_json::{Value, json};

use super::super::claim::{Claim, SELECTED_NODE};
use super::super::volume::{DataAt, Reach, Source, Volume};
use super::{fixture, node};

/// What, affinity, nodes that may use it, reach, where the data is, enforced?, may start empty?
type Row = (&'static str, Value, &'static [&'static str], Reach, DataAt, bool, bool);

fn volume(affinity: Value) -> Volume {
    let mut value = fixture("pv-local-path");
    value["metadata"]["annotations"] = json!({});
    value["spec"]["nodeAffinity"] = affinity;
    Volume::from_api(value).unwrap()
}

fn terms(terms: Value) -> Value {
    json!({"required": {"nodeSelectorTerms": terms}})
}

#[test]
fn affinity_is_evaluated_and_not_matched_by_pattern() {
    let nodes =
        [node("a", &[("zone", "x"), ("size", "10")]), node("b", &[("zone", "y"), ("size", "3")]), node("c", &[])];
    let host = |name: &str| json!({"key": "kubernetes.io/hostname", "operator": "In", "values": [name]});
    let field = |name: &str| json!({"key": "metadata.name", "operator": "In", "values": [name]});
    let on = |names: &[&str]| DataAt::Nodes(names.iter().map(|n| (*n).to_owned()).collect());
    let pinned = |name: &str| Reach::Pinned(name.to_owned());
    let table: Vec<Row> = vec![
        ("one host", terms(json!([{"matchExpressions": [host("b")]}])), &["b"], pinned("b"), on(&["b"]), true, false),
        (
            "two terms are alternatives",
            terms(json!([{"matchExpressions": [host("a")]}, {"matchExpressions": [host("b")]}])),
            &["a", "b"],
            Reach::Zonal,
            on(&["a", "b"]),
            true,
            true,
        ),
        (
            "NotIn holds for a node without the label",
            terms(json!([{"matchExpressions": [{"key": "zone", "operator": "NotIn", "values": ["x"]}]}])),
            &["b", "c"],
            Reach::Zonal,
            on(&["b", "c"]),
            true,
            true,
        ),
        (
            "Exists has no values",
            terms(json!([{"matchExpressions": [{"key": "zone", "operator": "Exists"}]}])),
            &["a", "b"],
            Reach::Zonal,
            on(&["a", "b"]),
            true,
            true,
        ),
        (
            "Gt compares integers",
            terms(json!([{"matchExpressions": [{"key": "size", "operator": "Gt", "values": ["9"]}]}])),
            &["a"],
            pinned("a"),
            on(&["a"]),
            true,
            false,
        ),
        (
            "all requirements of a term",
            terms(json!([{"matchExpressions": [{"key": "zone", "operator": "Exists"}, host("c")]}])),
            &[],
            Reach::Orphaned,
            DataAt::Unknown,
            true,
            false,
        ),
        (
            "matchFields tell where the data is and hold nothing",
            terms(json!([{"matchFields": [field("b")]}])),
            &["a", "b", "c"],
            Reach::Free,
            on(&["b"]),
            false,
            true,
        ),
        (
            "matchFields beside labels: the labels alone hold",
            terms(json!([{"matchExpressions": [{"key": "zone", "operator": "Exists"}], "matchFields": [field("b")]}])),
            &["a", "b"],
            Reach::Zonal,
            on(&["b"]),
            false,
            true,
        ),
        ("an empty term admits nothing", terms(json!([{}])), &[], Reach::Orphaned, DataAt::Unknown, true, false),
        ("no term admits nothing", terms(json!([])), &[], Reach::Orphaned, DataAt::Unknown, true, false),
        (
            "a host that is gone",
            terms(json!([{"matchExpressions": [host("z")]}])),
            &[],
            Reach::Orphaned,
            DataAt::Unknown,
            true,
            false,
        ),
        ("hostPath without affinity", Value::Null, &["a", "b", "c"], Reach::Free, DataAt::Unknown, true, true),
    ];
    assert_eq!(table.len(), 12);
    for (what, affinity, eligible, reach, data, enforced, empty) in table {
        let placement = volume(affinity).placement(&nodes);
        assert_eq!(placement.eligible, eligible, "{what}");
        assert_eq!(placement.reach, reach, "{what}");
        assert_eq!(placement.data, data, "{what}");
        assert_eq!(placement.not_enforced, !enforced, "{what}");
        assert_eq!(placement.can_start_empty(), empty, "{what}");
    }
}

#[test]
fn a_label_may_differ_from_the_name() {
    let mut renamed = node("vm-105", &[]);
    renamed.meta.labels.insert("kubernetes.io/hostname".into(), "pumped-piglet".into());
    let affinity = terms(json!([{"matchExpressions": [
        {"key": "kubernetes.io/hostname", "operator": "In", "values": ["pumped-piglet"]}]}]));
    let placement = volume(affinity).placement(&[renamed, node("other", &[])]);
    assert_eq!(placement.reach, Reach::Pinned("vm-105".into()));
}

#[test]
fn the_provisioners_annotation_tells_where_the_data_is() {
    let mut value = fixture("pv-local-path");
    value["spec"]["nodeAffinity"] = Value::Null;
    let volume = Volume::from_api(value).unwrap();
    let placement = volume.placement(&[node("k3s-vm-pumped-piglet", &[]), node("other", &[])]);
    assert_eq!(placement.data, DataAt::Nodes(vec!["k3s-vm-pumped-piglet".into()]));
    assert!(placement.serves("k3s-vm-pumped-piglet"));
    assert!(placement.admits("other") && !placement.serves("other"));
    assert!(placement.can_start_empty());
}

#[test]
fn the_claims_annotation_tells_it_where_the_volume_does_not() {
    let claim = |volume: &str, node: Option<&str>| {
        let mut value = fixture("pvc-bound");
        value["spec"]["volumeName"] = volume.into();
        value["metadata"]["annotations"] = node.map_or(json!({}), |node| json!({SELECTED_NODE: node}));
        Claim::from_api(value).unwrap()
    };
    let nodes = [node("a", &[]), node("b", &[])];
    let host = json!({"key": "kubernetes.io/hostname", "operator": "In", "values": ["b"]});
    let (free, pinned) = (volume(Value::Null), volume(terms(json!([{"matchExpressions": [host]}]))));
    let name = free.meta.name.as_str();
    let made = claim(name, Some("a"));
    let on = |node: &str| DataAt::Nodes(vec![node.to_owned()]);
    let seen = free.placement_for(Some(&made), &nodes);
    assert_eq!((seen.data.clone(), seen.serves("a"), seen.serves("b")), (on("a"), true, false));
    assert!(seen.admits("b") && seen.can_start_empty());
    for nothing in [None, Some(claim(name, None)), Some(claim("another", Some("a")))] {
        assert_eq!(free.placement_for(nothing.as_ref(), &nodes).data, DataAt::Unknown);
    }
    assert_eq!(pinned.placement_for(Some(&made), &nodes).data, on("b"));
}

#[test]
fn only_some_sources_are_on_a_node() {
    let with = |source: Value| {
        let mut value = fixture("pv-local-path");
        value["spec"].as_object_mut().unwrap().remove("hostPath");
        for (key, field) in source.as_object().unwrap() {
            value["spec"][key] = field.clone();
        }
        Volume::from_api(value).unwrap()
    };
    let cases = [
        (json!({"local": {"path": "/x"}}), Source::Local("/x".into()), true),
        (json!({"csi": {"driver": "topolvm.io", "volumeHandle": "h"}}), Source::Csi("topolvm.io".into()), true),
        (
            json!({"csi": {"driver": "io.openebs.csi-mayastor", "volumeHandle": "h"}}),
            Source::Csi("io.openebs.csi-mayastor".into()),
            false,
        ),
        (json!({"nfs": {"server": "s", "path": "/p"}}), Source::Nfs("s:/p".into()), false),
        (json!({"iscsi": {"iqn": "i", "lun": 0, "targetPortal": "t"}}), Source::Other("iscsi".into()), false),
    ];
    let mut seen = 0;
    for (source, expected, local) in cases {
        let volume = with(source);
        assert_eq!((volume.source.clone(), volume.is_node_local()), (expected, local));
        seen += 1;
    }
    assert_eq!(seen, 5);
}

#[test]
fn one_node_and_no_affinity_is_free_and_a_single_match_on_it_is_pinned() {
    let alone = [node("a", &[])];
    assert_eq!(volume(Value::Null).placement(&alone).reach, Reach::Free);
    let host = json!({"key": "kubernetes.io/hostname", "operator": "In", "values": ["a"]});
    let placement = volume(terms(json!([{"matchExpressions": [host]}]))).placement(&alone);
    assert_eq!(placement.reach, Reach::Pinned("a".into()));
    assert_eq!(placement.data, DataAt::Nodes(vec!["a".into()]));
}
