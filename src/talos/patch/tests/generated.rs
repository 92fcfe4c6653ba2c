//! Laws of patches over machine configurations as somebody, or something, might have written them.

use proptest::prelude::*;
use serde_json::Map;

use super::written::{LABELS, LINKS, MODULES, SYSCTLS, shape};
use super::*;

fn asked() -> impl Strategy<Value = Vec<Patch>> {
    let value = prop::sample::select(vec!["1", "2", "true", "a b", "x: y"]);
    let serial = prop::sample::select(vec!["S1", "S 2", "7"]);
    let one = prop_oneof![
        (0usize..5, prop::option::of(prop::collection::vec("[a-z]{1,3}=[0-9]", 0..3)))
            .prop_map(|(name, parameters)| Patch::KernelModule { name: MODULES[name].into(), parameters }),
        (0usize..4, value.clone()).prop_map(|(name, value)| sysctl(SYSCTLS[name], value)),
        (0usize..4, value).prop_map(|(name, value)| label(LABELS[name], value)),
        (0usize..3, prop::collection::vec(1u8..4, 0..3)).prop_map(|(name, hosts)| {
            let all: Vec<String> = hosts.iter().map(|host| format!("10.0.0.{host}/24")).collect();
            Patch::Addresses { link: LINKS[name].into(), addresses: all }
        }),
        serial.clone().prop_map(|serial| Patch::InstallDisk(InstallDisk::Serial(serial.into()))),
        Just(Patch::InstallDisk(InstallDisk::Path("/dev/sda".into()))),
        Just(Patch::InstallImage("factory.talos.dev/metal-installer/x:v1".into())),
        "[a-z]{1,4}".prop_map(Patch::Hostname),
        serial.prop_map(|serial| volume("data", &format!("disk.serial == \"{serial}\""))),
        Just(mount("/var/local", "/var/local", &["bind", "rw"])),
    ];
    // What is asked for is asked once: two values for one thing are two wishes.
    prop::collection::vec(one, 1..5).prop_map(|all| {
        let about = |patch: &Patch| match patch {
            Patch::KernelModule { name, .. } => format!("module {name}"),
            Patch::Sysctl { name, .. } => format!("sysctl {name}"),
            Patch::NodeLabel { name, .. } => format!("label {name}"),
            Patch::Addresses { link, .. } => format!("link {link}"),
            Patch::InstallDisk(_) => "disk".into(),
            Patch::InstallImage(_) => "image".into(),
            Patch::Hostname(_) => "hostname".into(),
            Patch::UserVolume { name, .. } => format!("volume {name}"),
            Patch::KubeletMount { destination, .. } => format!("mount {destination}"),
        };
        let mut seen = Vec::new();
        all.into_iter()
            .filter(|patch| {
                !seen.contains(&about(patch)) && {
                    seen.push(about(patch));
                    true
                }
            })
            .collect()
    })
}

/// Documents by identity, without what a patch is about and without what is empty.
fn without(text: &str, patches: &[Patch]) -> Vec<Value> {
    let mut documents = yaml::documents(text).unwrap();
    documents.retain(|document| !document.is_null());
    for document in &mut documents {
        for patch in patches {
            take(document, patch);
        }
        prune(document);
    }
    // What is left of a document that was added for a patch.
    documents.retain(|document| {
        document
            .as_object()
            .into_iter()
            .flat_map(Map::keys)
            .any(|key| !["apiVersion", "kind", "name"].contains(&key.as_str()))
    });
    documents
}

fn drop(document: &mut Value, pointer: &str, key: &str) {
    document.pointer_mut(pointer).and_then(Value::as_object_mut).map(|map| map.shift_remove(key));
}

fn take(document: &mut Value, patch: &Patch) {
    let kind = document["kind"].as_str().unwrap_or_default().to_owned();
    let named = |document: &Value, name: &str| document["name"].as_str() == Some(name);
    match (patch, kind.as_str()) {
        (Patch::KernelModule { name, .. }, "") => {
            let list = document.pointer_mut("/machine/kernel/modules").and_then(Value::as_array_mut);
            list.into_iter().for_each(|list| list.retain(|member| !named(member, name)));
        }
        (Patch::KernelModule { name, .. }, "KernelModuleConfig") if named(document, name) => *document = json!({}),
        (Patch::Sysctl { name, .. }, "") => drop(document, "/machine/sysctls", name),
        (Patch::Sysctl { name, .. }, "SysctlConfig") => drop(document, "/params", name),
        (Patch::NodeLabel { name, .. }, "") => drop(document, "/machine/nodeLabels", name),
        (Patch::NodeLabel { name, .. }, "KubeNodeConfig") => drop(document, "/labels", name),
        (Patch::InstallImage(_), "") => drop(document, "/machine/install", "image"),
        (Patch::InstallImage(_), "UnattendedInstallConfig") => drop(document, "/installer", "image"),
        (Patch::InstallDisk(_), "") => {
            drop(document, "/machine/install", "disk");
            drop(document, "/machine/install", "diskSelector");
        }
        (Patch::InstallDisk(_), "UnattendedInstallConfig") => drop(document, "/provisioning", "diskSelector"),
        (Patch::Hostname(_), "") => drop(document, "/machine/network", "hostname"),
        (Patch::Hostname(_), "HostnameConfig") => *document = json!({}),
        (Patch::Addresses { link, .. }, "") => {
            let list = document.pointer_mut("/machine/network/interfaces").and_then(Value::as_array_mut);
            for member in list.into_iter().flatten().filter(|member| member["interface"].as_str() == Some(link)) {
                member["addresses"] = Value::Null;
                // One that was not there at all.
                if member["mtu"].is_null() {
                    *member = Value::Null;
                }
            }
        }
        (Patch::Addresses { link, .. }, "LinkConfig") if named(document, link) => document["addresses"] = Value::Null,
        (Patch::UserVolume { name, .. }, "UserVolumeConfig") if named(document, name) => {
            drop(document, "/provisioning", "diskSelector")
        }
        (Patch::KubeletMount { .. }, "") => drop(document, "/machine", "kubelet"),
        _ => {}
    }
}

fn prune(value: &mut Value) {
    match value {
        Value::Object(map) => {
            let kept: Map<String, Value> = std::mem::take(map)
                .into_iter()
                .filter_map(|(key, mut value)| {
                    prune(&mut value);
                    (!value.is_null()).then_some((key, value))
                })
                .collect();
            if kept.is_empty() { *value = Value::Null } else { *map = kept }
        }
        Value::Array(list) => {
            list.iter_mut().for_each(prune);
            list.retain(|value| !value.is_null());
            if list.is_empty() {
                *value = Value::Null;
            }
        }
        _ => {}
    }
}

/// True where the documents have it, in whichever form.
fn holds(documents: &[Value], patch: &Patch) -> bool {
    let of = |kind: &str| {
        documents.iter().filter(move |d| d["kind"].as_str().unwrap_or_default() == kind).collect::<Vec<_>>()
    };
    let main = of("")[0];
    let owned = |kind: &str, pointer: &str, name: &str| -> Option<String> {
        of(kind).iter().find_map(|d| Some(d.pointer(pointer)?.get(name)?.as_str()?.to_owned()))
    };
    let old = |section: &str, name: &str| main["machine"][section].get(name).and_then(Value::as_str).map(str::to_owned);
    match patch {
        Patch::KernelModule { name, parameters } => {
            let all = main.pointer("/machine/kernel/modules").and_then(Value::as_array).into_iter().flatten();
            let found: Vec<&Value> =
                all.chain(of("KernelModuleConfig")).filter(|m| m["name"] == name.as_str()).collect();
            let same =
                |m: &&Value| parameters.as_ref().is_none_or(|p| m.get("parameters").unwrap_or(&json!([])) == &json!(p));
            !found.is_empty() && found.iter().all(same)
        }
        Patch::Sysctl { name, value } => {
            owned("SysctlConfig", "/params", name).or(old("sysctls", name)).as_ref() == Some(value)
        }
        Patch::NodeLabel { name, value } => {
            owned("KubeNodeConfig", "/labels", name).or(old("nodeLabels", name)).as_ref() == Some(value)
        }
        Patch::InstallImage(image) => {
            main["machine"]["install"]["image"] == image.as_str()
                || of("UnattendedInstallConfig").iter().any(|d| d["installer"]["image"] == image.as_str())
        }
        Patch::InstallDisk(InstallDisk::Serial(serial)) => {
            main["machine"]["install"]["diskSelector"] == json!({ "serial": serial })
                && main["machine"]["install"]["disk"].is_null()
                || of("UnattendedInstallConfig").len() == 1
        }
        Patch::InstallDisk(_) => {
            main["machine"]["install"]["disk"] == "/dev/sda" && main["machine"]["install"]["diskSelector"].is_null()
                || of("UnattendedInstallConfig").len() == 1
        }
        Patch::Hostname(name) => match of("HostnameConfig").first() {
            Some(d) => d["hostname"] == name.as_str() && d["auto"].is_null(),
            None => main["machine"]["network"]["hostname"] == name.as_str(),
        },
        Patch::Addresses { link, addresses } => {
            let own = of("LinkConfig").into_iter().find(|d| d["name"] == link.as_str());
            let list = main.pointer("/machine/network/interfaces").and_then(Value::as_array);
            let old = list.into_iter().flatten().find(|m| m["interface"] == link.as_str());
            let Some(found) = own.or(old) else { return addresses.is_empty() };
            let all = found["addresses"].as_array().cloned().unwrap_or_default();
            let text = |a: &Value| a.as_str().or(a["address"].as_str()).unwrap().to_owned();
            let all: std::collections::BTreeSet<String> = all.iter().map(text).collect();
            all == addresses.iter().cloned().collect()
        }
        Patch::UserVolume { disk, .. } => {
            of("UserVolumeConfig")[0]["provisioning"]["diskSelector"]["match"] == disk.as_str()
        }
        Patch::KubeletMount { .. } => {
            main["machine"]["kubelet"]["extraMounts"]
                == json!([{ "destination": "/var/local", "type": "bind", "source": "/var/local", "options": ["bind", "rw"] }])
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn twice_is_once_and_all_else_stays(shape in shape(), patches in asked()) {
        let text = shape.text();
        let once = match patch(&text, &patches) {
            Ok(once) => once,
            Err(error) => return Err(TestCaseError::fail(format!("{error}\n{patches:?}\n{text}"))),
        };
        let twice = patch(&once.text, &patches).unwrap();
        prop_assert!(twice.same && twice.changes.is_empty() && twice.text == once.text, "{:?}\n{}", twice, once.text);
        prop_assert_eq!(once.same, once.text == text);
        prop_assert_eq!(once.same, once.changes.is_empty());
        let documents = yaml::documents(&once.text).unwrap();
        for patch in &patches {
            prop_assert!(holds(&documents, patch), "{:?}\n{}\n--- became\n{}", patch, text, once.text);
        }
        prop_assert_eq!(without(&text, &patches), without(&once.text, &patches), "{}\n--- became\n{}", text, once.text);
        // One after the other is all at once.
        let each = patches.iter().fold(text.clone(), |text, one| patch(&text, std::slice::from_ref(one)).unwrap().text);
        prop_assert_eq!(&each, &once.text);
        // Comments that stand alone stay, in their order.
        let comments = |text: &str| text.lines().map(str::trim).filter(|line| line.starts_with('#')).map(str::to_owned).collect::<Vec<_>>();
        let mut after = comments(&once.text).into_iter();
        for comment in comments(&text) {
            prop_assert!(after.any(|kept| kept == comment), "{} is gone\n{}\n--- became\n{}", comment, text, once.text);
        }
        let diff = diff(&text, &once.text).unwrap();
        prop_assert_eq!(diff.is_empty(), once.same);
        prop_assert!(!diff.contains("not-shown"));
    }

    #[test]
    fn no_text_makes_it_panic(shape in shape(), patches in asked(), cuts in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), ".{0,3}"), 1..4), wild in ".{0,60}", whole in any::<bool>()) {
        let mut text = if whole { wild } else { shape.text() };
        for (at, length, new) in cuts {
            let chars: Vec<char> = text.chars().collect();
            if chars.is_empty() {
                break;
            }
            let at = at.index(chars.len());
            let end = (at + length.index(8)).min(chars.len());
            text = chars[..at].iter().copied().chain(new.chars()).chain(chars[end..].iter().copied()).collect();
        }
        Mask::of(&text).text(&text);
        if let Ok(once) = patch(&text, &patches) {
            // A new mistake is none of ours: what was taken is held to the law.
            let twice = patch(&once.text, &patches).unwrap();
            prop_assert!(twice.same, "{}\n--- became\n{}\n--- and\n{}", text, once.text, twice.text);
            let _shown_or_refused = diff(&text, &once.text);
        }
    }
}
