use proptest::prelude::*;
use serde_json::{Value, json};

use super::edit::Wanted;
use super::*;
use crate::base::yaml;

const FILE: &str = include_str!("../../fixtures/checkout/frigate.yaml");

/// Lines gone and lines come, or the error's text.
type Lines = Result<(Vec<String>, Vec<String>), String>;

fn edit(object: &str) -> Edit {
    Edit { file: "frigate.yaml".into(), object: object.parse().unwrap(), set: vec![], remove: vec![], replace: vec![] }
}

fn path(text: &str) -> Path {
    text.parse().unwrap()
}

/// The lines that an edit takes away and brings.
fn changed(old: &str, new: &str) -> (Vec<String>, Vec<String>) {
    let diff = diff("f", old, new);
    let lines = |sign: char| {
        let with =
            diff.lines().filter(|line| line.starts_with(sign) && !line.starts_with(&String::from(sign).repeat(3)));
        with.map(|line| line[1..].to_owned()).collect::<Vec<_>>()
    };
    (lines('-'), lines('+'))
}

#[test]
fn a_diff_shows_what_changes_and_no_password_beside_it() {
    let text = |preset: &str| {
        format!(
            "cameras:\n  path: rtsp://admin:hunter2@cam/1\n  hwaccel: preset-{preset}\n  input: -i \
             rtsp://admin:hunter2@cam/2 -hwaccel {preset}\nmqtt:\n  password: hunter2\n"
        )
    };
    assert!(text("nvidia").contains("hunter2"));
    let shown = diff("config.yml", &text("nvidia"), &text("vaapi"));
    assert!(shown.contains("-  hwaccel: preset-nvidia\n-  input: -i rtsp://"), "{shown}");
    assert!(shown.contains("+  hwaccel: preset-vaapi\n") && shown.contains("cam/2 -hwaccel vaapi"), "{shown}");
    assert!(!shown.contains("hunter2") && !shown.contains("mqtt"), "{shown}");
}

#[test]
fn paths_round_trip_and_bad_ones_are_refused() {
    for good in
        ["a", "spec.template.spec.containers[frigate].resources.limits[nvidia.com/gpu]", "data[config.yml]", "[a.b].c"]
    {
        assert_eq!(path(good).to_string(), good);
    }
    for bad in ["", ".", "a.", ".a", "a..b", "a[b", "a[]", "a]b", "a[b]c", "[a]b"] {
        assert!(bad.parse::<Path>().is_err(), "{bad}");
    }
    let value = json!({"a": [{"name": "x", "v": 1}], "b": {"c.d": 2}});
    assert_eq!(path("a[x].v").get(&value), Some(&json!(1)));
    assert_eq!(path("b[c.d]").get(&value), Some(&json!(2)));
    assert_eq!(path("a.x").get(&value), None);
    assert_eq!(path("a[y]").get(&value), None);
    for bad in ["Deployment", "A/b/c/d", "/a", "A//b"] {
        assert!(bad.parse::<Object>().is_err(), "{bad}");
    }
}

#[test]
fn the_declared_edits_of_a_move_touch_their_lines_alone() {
    let mut deployment = edit("Deployment/frigate/frigate");
    deployment.remove = vec![
        path("spec.template.spec.runtimeClassName"),
        path("spec.template.spec.containers[frigate].resources.limits[nvidia.com/gpu]"),
    ];
    deployment.set = vec![(path("spec.template.spec.nodeSelector"), json!({"coral": "true"}))];
    let Found::Differs(differences) = deployment.contained_in(FILE).unwrap() else { panic!() };
    let shown: Vec<String> = differences.iter().map(ToString::to_string).collect();
    assert_eq!(
        shown,
        [
            "`spec.template.spec.nodeSelector` is `{\"gpu\":\"true\"}`, to be `{\"coral\":\"true\"}`",
            "`spec.template.spec.runtimeClassName` is `\"nvidia\"`, not to be there",
            "`spec.template.spec.containers[frigate].resources.limits[nvidia.com/gpu]` is `\"1\"`, not to be there",
        ]
    );
    let new = deployment.apply(FILE).unwrap();
    let (gone, come) = changed(FILE, &new);
    assert_eq!(
        gone,
        [
            "      runtimeClassName: nvidia   # needs the plugin",
            "        gpu: \"true\"   # by hand",
            "            nvidia.com/gpu: \"1\"",
        ]
    );
    assert_eq!(come.iter().map(|line| line.trim()).collect::<Vec<_>>(), ["coral: 'true'"]);
    assert_eq!(deployment.contained_in(&new).unwrap(), Found::Already);
    assert_eq!(deployment.apply(&new).unwrap(), new, "twice is the same as once");

    let mut config = edit("ConfigMap/frigate/frigate-config");
    config.replace = vec![(path("data[config.yml]"), "preset-nvidia-h264".into(), "preset-vaapi".into())];
    let new = config.apply(&new).unwrap();
    assert_eq!(new.matches("preset-vaapi").count(), 2);
    assert_eq!(new.matches("preset-nvidia-h264").count(), 1, "another key of the same object stays");
    assert!(new.contains("      hwaccel_args: preset-vaapi   # fast\n"));
    assert_eq!(config.contained_in(&new).unwrap(), Found::Already);
}

#[test]
fn single_edits() {
    let apply = |object: &str, change: &dyn Fn(&mut Edit)| {
        let mut edit = edit(object);
        change(&mut edit);
        let new = edit.apply(FILE).map_err(|error| error.to_string())?;
        assert_eq!(edit.contained_in(&new).unwrap(), Found::Already);
        Ok::<_, String>(changed(FILE, &new))
    };
    let d = "Deployment/frigate/frigate";
    let set = |p: &'static str, v: Value| move |e: &mut Edit| e.set = vec![(path(p), v.clone())];
    let remove = |p: &'static str| move |e: &mut Edit| e.remove = vec![path(p)];
    let replace = |p: &'static str, a: &'static str, b: &'static str| {
        move |e: &mut Edit| e.replace = vec![(path(p), a.into(), b.into())]
    };
    let c = "spec.template.spec.containers";
    let cases: Vec<(Lines, &[&str], &[&str])> = vec![
        (apply(d, &set("spec.replicas", json!(0))), &["  replicas: 1"], &["  replicas: 0"]),
        (
            apply(d, &set("metadata.labels.tier", json!("work"))),
            &["  labels: { app: frigate,   tier: home }"],
            &["  labels: { app: frigate,   tier: work }"],
        ),
        (
            apply(d, &remove("metadata.labels.tier")),
            &["  labels: { app: frigate,   tier: home }"],
            &["  labels: { app: frigate}"],
        ),
        (
            apply(d, &set("metadata.annotations", json!({"a/b": "on", "n": {"x": [1, "2"]}}))),
            &[],
            &["  annotations:", "    a/b: 'on'", "    n:", "      x:", "      - 1", "      - '2'"],
        ),
        (
            apply(d, &remove("spec.template.spec.containers[frigate].image")),
            &[
                "      - image: ghcr.io/blakeblackshear/frigate:0.14.1 # {\"$imagepolicy\": \"flux-system:frigate\"}",
                "        name: frigate",
            ],
            &["      - name: frigate"],
        ),
        (
            apply(d, &set("spec.template.spec.containers[frigate].image", json!("x:1"))),
            &["      - image: ghcr.io/blakeblackshear/frigate:0.14.1 # {\"$imagepolicy\": \"flux-system:frigate\"}"],
            &["      - image: x:1 # {\"$imagepolicy\": \"flux-system:frigate\"}"],
        ),
        (
            apply(d, &remove("spec.template.spec.containers[sidecar]")),
            &["      - name: sidecar", "        image: busybox"],
            &[],
        ),
        (
            apply(d, &set("spec.template.spec.containers[third]", json!({"name": "third", "image": "c"}))),
            &[],
            &["      - name: third", "        image: c"],
        ),
        (
            apply(d, &set("spec.template.spec.affinity.nodeAffinity.x", json!(true))),
            &[],
            &["      affinity:", "        nodeAffinity:", "          x: true"],
        ),
        (
            apply(d, &remove("spec.template.spec.nodeSelector.gpu")),
            &["      nodeSelector:", "        gpu: \"true\"   # by hand"],
            &["      nodeSelector: {}"],
        ),
        (
            apply("ConfigMap/frigate-config", &replace("data.other", "preset-nvidia-h264", "p")),
            &["  other: \"say \\\"preset-nvidia-h264\\\"\""],
            &["  other: \"say \\\"p\\\"\""],
        ),
        (apply(d, &remove("spec.none")), &[], &[]),
        (apply(d, &set("metadata.labels", json!({"app": "frigate", "tier": "home"}))), &[], &[]),
    ];
    assert_eq!(cases.len(), 13);
    for (result, gone, come) in cases {
        let (found_gone, found_come) = result.unwrap();
        assert_eq!(
            (found_gone, found_come),
            (gone.iter().map(|s| (*s).to_owned()).collect(), come.iter().map(|s| (*s).to_owned()).collect())
        );
    }
    for (result, part) in [
        (apply("Deployment/frigate/other", &set("a", json!(1))), "Deployment/frigate/other is not in frigate.yaml"),
        (apply(d, &set("spec.template.spec.containers[none].image", json!(1))), "no such list item"),
        (apply(d, &set("spec.template.spec.containers[none]", json!({"name": "x"}))), "has not this name"),
        (apply(d, &set("spec.replicas.x", json!(1))), "`spec.replicas.x` in frigate.yaml cannot be edited"),
        (apply("ConfigMap/frigate-config", &replace("data.other", "absent", "b")), "holds neither `absent` nor `b`"),
        (apply("ConfigMap/frigate-config", &replace("data.none", "a", "b")), "holds neither `a` nor `b`"),
        (
            apply("ConfigMap/frigate-config", &replace("data[config.yml]", "ffmpeg:\n  hwaccel", "x")),
            "in another notation",
        ),
        (
            apply(d, &|e: &mut Edit| {
                e.set = vec![(path("spec.replicas"), json!(3))];
                e.remove = vec![path("spec")];
            }),
            "would not hold exactly the declared values",
        ),
    ] {
        let text = result.unwrap_err();
        assert!(text.contains(part), "{text}");
    }
    assert!(path(c).get(&json!({})).is_none());
}

#[test]
fn files_that_cannot_be_edited_are_refused_whole() {
    let e = Edit { set: vec![(path("a.b"), json!(2))], ..edit("K/it") };
    for (text, part) in [
        ("kind: K\nmetadata: {name: it}\na: {{ .Values.x }}\n", "cannot be read as YAML"),
        ("kind: K\nmetadata: {name: it}\na: [\n", "cannot be read as YAML"),
        ("kind: K\nmetadata: {name: it}\n---\nkind: K\nmetadata: {name: it}\n", "more than once"),
        ("kind: K\nmetadata: {name: it}\nx: &x {b: 1}\na: *x\n", "cannot be edited"),
        ("", "is not in"),
        ("- a\n", "is not in"),
    ] {
        let error = e.apply(text).unwrap_err().to_string();
        assert!(error.contains(part), "{text}: {error}");
    }
    assert_eq!(e.contained_in("kind: K\nmetadata: {name: other}\n").unwrap(), Found::MissingObject);
}

#[test]
fn an_object_is_found_by_its_namespace_or_without_one() {
    let e = Edit { set: vec![(path("a"), json!(1))], ..edit("K/ns/it") };
    let two = "kind: K\nmetadata: {name: it, namespace: other}\na: 1\n---\nkind: K\nmetadata: {name: it}\na: 2\n";
    assert!(matches!(e.contained_in(two).unwrap(), Found::Differs(_)), "the one without a namespace");
    assert_eq!(e.contained_in(&two.replace("other", "ns")).unwrap(), Found::Already);
    assert_eq!(
        e.contained_in("kind: K\nmetadata: {name: it, namespace: other}\na: 1\n").unwrap(),
        Found::MissingObject
    );
}

#[test]
fn replacing_knows_what_is_done() {
    let text = |value: &str| format!("kind: K\nmetadata: {{name: it}}\ndata:\n  x: {value}\n");
    let e = |from: &str, to: &str| Edit { replace: vec![(path("data.x"), from.into(), to.into())], ..edit("K/it") };
    // The new text holds the old one.
    assert_eq!(e("cpu", "cpu-fast").apply(&text("cpu")).unwrap(), text("cpu-fast"));
    assert_eq!(e("cpu", "cpu-fast").contained_in(&text("cpu-fast")).unwrap(), Found::Already);
    assert_eq!(e("cpu", "cpu-fast").apply(&text("cpu-fast cpu")).unwrap(), text("cpu-fast cpu-fast"));
    // The old text holds the new one.
    assert_eq!(e("cpu-fast", "cpu").apply(&text("cpu-fast cpu")).unwrap(), text("cpu cpu"));
    let Found::Differs(differences) = e("a", "b").contained_in(&text("c")).unwrap() else { panic!() };
    assert_eq!(differences[0].to_string(), "`data.x` holds neither `a` nor `b`");
    assert!(matches!(differences[0].wanted, Wanted::Replaced(..)));
}

#[test]
fn live_objects_are_compared_as_an_api_server_writes_them() {
    let mut e = edit("Deployment/frigate/frigate");
    e.set = vec![
        (path("spec.nodeSelector"), json!({"coral": "true"})),
        (path("spec.containers[a].resources.limits"), json!({"cpu": "1000m", "memory": "1024Mi"})),
        (path("spec.containers[a].resources.requests.cpu"), json!("0.5")),
        (path("spec.containers[a].livenessProbe"), json!({"httpGet": {"path": "/", "port": 80}})),
        (path("metadata.labels"), json!({"app": "x"})),
    ];
    e.remove = vec![path("spec.runtimeClassName")];
    e.replace = vec![(path("data[c.yml]"), "a".into(), "b".into())];
    let live = json!({
        "metadata": {"labels": {"app": "x", "kustomize.toolkit.fluxcd.io/name": "apps"}},
        "spec": {
            "nodeSelector": {"coral": "true"},
            "containers": [{
                "name": "a",
                "resources": {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}},
                "livenessProbe": {"httpGet": {"path": "/", "port": 80, "scheme": "HTTP"}, "timeoutSeconds": 1},
            }],
        },
        "data": {"c.yml": "b"},
    });
    assert!(e.holds_in(&live), "{:?}", e.differences_in(&live));
    let breaks: [(&str, Value); 6] = [
        ("/spec/nodeSelector", json!({"coral": "true", "gpu": "true"})),
        ("/spec/containers/0/resources/limits/memory", json!("2Gi")),
        ("/spec/containers/0/resources/requests/cpu", json!("501m")),
        ("/spec/containers/0/livenessProbe/httpGet/port", json!(81)),
        ("/metadata/labels/app", json!("y")),
        ("/data/c.yml", json!("a")),
    ];
    for (pointer, value) in breaks {
        let mut other = live.clone();
        *other.pointer_mut(pointer).unwrap() = value;
        assert_eq!(e.differences_in(&other).len(), 1, "{pointer}");
    }
    let mut other = live.clone();
    other["spec"]["runtimeClassName"] = json!("nvidia");
    assert_eq!(e.differences_in(&other)[0].to_string(), "`spec.runtimeClassName` is `\"nvidia\"`, not to be there");
}

#[test]
fn a_live_object_is_held_against_a_files_own_values() {
    let mut e = edit("Deployment/frigate/frigate");
    e.set = vec![
        (path("spec.nodeSelector"), json!({"coral": "true"})),
        (path("spec.revisionHistoryLimit"), json!(2)),
        (path("spec.host"), json!("new")),
    ];
    e.remove = vec![path("spec.runtimeClassName")];
    e.replace = vec![(path("spec.preset"), "nvidia".into(), "vaapi".into())];
    let text = "kind: Deployment\nmetadata: {name: frigate, namespace: frigate}\nspec:\n  nodeSelector: {gpu: 'true'}\n  \
                runtimeClassName: nvidia\n  preset: preset-nvidia\n  host: ${HOST}\n";
    // What the file leaves open has a default, what it fills in is not compared.
    let live = json!({"spec": {"nodeSelector": {"gpu": "true"}, "runtimeClassName": "nvidia",
        "preset": "preset-nvidia", "revisionHistoryLimit": 10, "host": "here"}});
    let drift = |live: &Value| {
        let differences = e.drift(text, live).unwrap().unwrap();
        differences.iter().map(|d| d.path.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(drift(&live), Vec::<String>::new());
    let breaks = [
        ("/spec/nodeSelector", json!({"coral": "true"})),
        ("/spec/runtimeClassName", json!("runc")),
        ("/spec/preset", json!("preset-vaapi")),
        ("/spec/revisionHistoryLimit", json!(2)),
    ];
    for (pointer, value) in breaks {
        let mut other = live.clone();
        *other.pointer_mut(pointer).unwrap() = value;
        assert_eq!(drift(&other), [pointer[1..].replace('/', ".")]);
    }
    assert_eq!(e.drift("kind: Deployment\nmetadata: {name: other}\n", &live).unwrap(), None);
}

/// Keys, values and a number for their looks.
type Entries = Vec<(String, Typed, u8)>;

/// A mapping as somebody might have typed it: comments, uneven blanks, flow and block, lists flush and indented.
#[derive(Debug, Clone)]
enum Typed {
    Scalar(&'static str),
    Flow(Vec<(String, &'static str)>),
    Block(String),
    Map(Entries),
    List(Vec<(String, Entries)>, bool),
}

fn typed() -> impl Strategy<Value = Entries> {
    let scalar = prop::sample::select(vec!["x", "'a  b'", "\"q\\\"\"", "5", "true", "1.50", "\"no\"", "a#b", "~"]);
    let leaf = prop_oneof![
        scalar.clone().prop_map(Typed::Scalar),
        prop::collection::vec(scalar, 1..3).prop_map(|values| Typed::Flow(
            values.into_iter().enumerate().map(|(i, v)| (format!("f{i}"), v)).collect()
        )),
        "[a-z]{1,5}( # [a-z]{1,3})?(\n[a-z]{1,4}:)?".prop_map(Typed::Block),
    ];
    let entries = |inner: BoxedStrategy<Typed>| {
        prop::collection::vec((inner, any::<u8>()), 1..4).prop_map(|values| {
            let key = |i: usize| ["alpha", "b.eta", "c/d", "delta"][i % 4].to_owned();
            values.into_iter().enumerate().map(|(i, (value, look))| (key(i), value, look)).collect::<Vec<_>>()
        })
    };
    let tree = leaf.prop_recursive(3, 24, 4, move |inner| {
        let inner = inner.boxed();
        prop_oneof![
            entries(inner.clone()).prop_map(Typed::Map),
            (prop::collection::vec(entries(inner), 1..3), any::<bool>()).prop_map(|(items, flush)| {
                Typed::List(items.into_iter().enumerate().map(|(i, item)| (format!("item{i}"), item)).collect(), flush)
            }),
        ]
    });
    entries(tree.boxed())
}

/// A place that can be edited: path, first line, line behind the last, how many entries its mapping has, flow or not.
#[derive(Debug, Clone)]
struct Place {
    path: String,
    lines: std::ops::Range<usize>,
    alone: bool,
    inline: bool,
}

fn write(
    entries: &[(String, Typed, u8)],
    indent: usize,
    base: &str,
    out: &mut Vec<String>,
    places: &mut Vec<Place>,
    first: Option<String>,
) {
    let mut first = first;
    for (key, value, look) in entries {
        let pad = " ".repeat(indent);
        if look & 1 == 1 && first.is_none() {
            out.push(format!("{pad}# about {key}"));
        }
        let lead = first.take();
        let inline = lead.is_some();
        let head = format!("{}{key}:", lead.unwrap_or_else(|| pad.clone()));
        let tail = if look & 2 == 2 { "   # note" } else { "" };
        let path = if base.is_empty() { format!("[{key}]") } else { format!("{base}[{key}]") };
        let start = out.len();
        match value {
            Typed::Scalar(text) => out.push(format!("{head} {text}{tail}")),
            Typed::Flow(pairs) => {
                let inside = pairs.iter().map(|(k, v)| format!("{k}: {v}")).collect::<Vec<_>>().join(",  ");
                out.push(format!("{head} {{ {inside} }}{tail}"));
            }
            Typed::Block(text) => {
                out.push(format!("{head} |"));
                out.extend(text.lines().map(|line| format!("{pad}    {line}")));
            }
            Typed::Map(inner) => {
                out.push(format!("{head}{tail}"));
                write(inner, indent + 2 + usize::from(look & 4 == 4), &path, out, places, None);
            }
            Typed::List(items, flush) => {
                out.push(format!("{head}{tail}"));
                let dash = indent + if *flush { 0 } else { 2 };
                for (name, item) in items {
                    out.push(format!("{}- name: {name}", " ".repeat(dash)));
                    write(item, dash + 2, &format!("{path}[{name}]"), out, places, None);
                }
            }
        }
        places.push(Place { path, lines: start..out.len(), alone: entries.len() == 1, inline });
        if look & 8 == 8 {
            out.push(String::new());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn an_edit_changes_its_own_lines_and_its_own_value(entries in typed(), pick in any::<prop::sample::Index>(), what in 0u8..4, end in any::<bool>()) {
        let mut lines: Vec<String> = ["# top", "kind: Other", "metadata: {name: it}", "---", "kind: K", "metadata:", "  name: it # here", "spec:"].map(String::from).to_vec();
        let mut places = Vec::new();
        write(&entries, 2, "spec", &mut lines, &mut places, None);
        if end {
            lines.extend(["---", "# last", "kind: K", "metadata: {name: m}"].map(String::from));
        }
        let text = lines.join("\n") + "\n";
        let place = &places[pick.index(places.len())];
        let mut e = edit("K/it");
        match what {
            0 => e.remove = vec![path(&place.path)],
            1 => e.set = vec![(path(&place.path), json!("changed"))],
            2 => e.set = vec![(path(&place.path), json!({"new": {"k": "true"}, "l": [1, {"m": null}]}))],
            _ => e.set = vec![(path(&format!("spec.fresh[{}]", "x.y")), json!("v"))],
        }
        let documents = yaml::documents(&text).unwrap();
        prop_assert_eq!(documents.len(), if end { 3 } else { 2 });
        let new = match e.apply(&text) {
            Ok(new) => new,
            Err(error) => return Err(TestCaseError::fail(format!("{error}\n{text}"))),
        };
        // `apply` compares the values itself; here once more from outside.
        prop_assert_eq!(e.contained_in(&new).unwrap(), Found::Already);
        let after = yaml::documents(&new).unwrap();
        prop_assert_eq!(&after[0], &documents[0]);
        let new: Vec<&str> = new.lines().collect();
        if what == 3 {
            let (gone, come) = changed(&text, &(new.join("\n") + "\n"));
            prop_assert!(gone.is_empty() && come.len() == 2, "{:?} {:?}\n{}", gone, come, text);
            return Ok(());
        }
        // The entry that holds the last value of a mapping that empties changes too: `parent: {}`.
        let slack = usize::from(what == 0 && (place.alone || place.inline));
        let mut before = &lines[..place.lines.start - slack];
        // Of the blank lines on both sides of what was taken away one may go with it.
        while what == 0 && before.last().is_some_and(String::is_empty) {
            before = &before[..before.len() - 1];
        }
        // Blank lines behind a block scalar are part of it.
        let blank = lines[place.lines.end..].iter().take_while(|line| line.is_empty()).count();
        let behind = &lines[place.lines.end + blank..];
        prop_assert!(new.len() >= before.len() + behind.len() , "too short\n{}\n---\n{}", text, new.join("\n"));
        prop_assert_eq!(&new[..before.len()], before, "{}", text);
        prop_assert_eq!(&new[new.len() - behind.len()..], behind, "{}", text);
    }
}

#[test]
fn an_object_as_it_would_be() {
    let edit = Edit {
        file: "a.yaml".into(),
        object: "Deployment/ns/app".parse().unwrap(),
        set: vec![("spec.nodeSelector".parse().unwrap(), serde_json::json!({"coral": "true"}))],
        remove: vec!["spec.list[a].x".parse().unwrap(), "spec.gone".parse().unwrap()],
        replace: Vec::new(),
    };
    let object = serde_json::json!({"spec": {"nodeSelector": {"host": "a"}, "list": [{"name": "a", "x": 1}]}});
    let made = serde_json::json!({"spec": {"nodeSelector": {"coral": "true"}, "list": [{"name": "a"}]}});
    assert_eq!(edit.made_in(&object), made);
    assert!(edit.is_of("Deployment", "ns", "app") && !edit.is_of("Deployment", "other", "app"));
}
