//! Surveys of any values: no rule panics, and what is not known makes no finding.

use proptest::prelude::*;
use serde_json::{Value, json};

use crate::base::survey::Survey;

use super::super::*;
use super::{cases, estate};

/// Texts that are read as something somewhere.
const WORDS: &[&str] = &[
    "",
    "é",
    "v",
    "v1.",
    "v99999999999.1",
    "1.34",
    "/dev/sda",
    "/dev/disk/by-id/",
    "*",
    "a*b*",
    ">= 9EB",
    "99999999999999999999Gi",
    "2Gi",
    "disk.serial == '",
    "disk.size / 0u > 1u",
    "((((((((",
    "system_disk || disk.symlinks[9] == ''",
    "factory.talos.dev/metal-installer/é:",
    "376567988ad370138ad8b2698212367b8edcb69b5fd68c80be1f2ec7d603b4ba",
    "host=",
    ",=,",
    "00000000-0000-0000-0000-000000000000",
    "ééééééééééééééééé",
    "nonfree-kmod-nvidia-production",
    "qemu-guest-agent",
    "nvidia-x",
    "NOSPACE",
    "0x10de",
];

/// Every place of a value, as a JSON pointer.
fn places(value: &Value, at: &str, all: &mut Vec<String>) {
    all.push(at.to_owned());
    match value {
        Value::Array(items) => items.iter().enumerate().for_each(|(n, item)| places(item, &format!("{at}/{n}"), all)),
        Value::Object(keys) => keys.iter().for_each(|(key, item)| {
            places(item, &format!("{at}/{}", key.replace('~', "~0").replace('/', "~1")), all);
        }),
        _ => {}
    }
}

/// Makes something else of what is there.
fn change(value: &mut Value, how: u32, text: &str) {
    let pick = how as usize;
    *value = match value.take() {
        Value::Object(keys) if keys.contains_key("known") => match pick % 3 {
            0 => json!("absent"),
            _ => json!({ "unknown": { "reason": text } }),
        },
        Value::String(_) => json!(if pick.is_multiple_of(8) { text } else { WORDS[pick % WORDS.len()] }),
        Value::Number(_) => json!([0, 1, 5, 4_000, u64::from(u32::MAX), i64::MAX as u64][pick % 6]),
        Value::Bool(was) => json!(!was),
        Value::Array(mut items) => {
            match (pick % 3, items.first().cloned()) {
                (0, _) => items.clear(),
                (1, Some(first)) => items.push(first),
                _ => items.reverse(),
            }
            Value::Array(items)
        }
        Value::Object(keys) => Value::Object(keys.into_iter().skip(pick % 2).collect()),
        Value::Null => json!(text),
    };
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn no_survey_makes_a_rule_panic(
        from in 0..cases::wrong().len(),
        steps in prop::collection::vec((any::<u32>(), any::<u32>(), ".{0,12}"), 1..32),
    ) {
        let mut survey = estate::sound();
        (cases::wrong()[from].change)(&mut survey);
        let mut value = serde_json::to_value(&survey).unwrap();
        let mut changed = 0;
        for (place, how, text) in steps {
            let mut all = Vec::new();
            places(&value, "", &mut all);
            let mut next = value.clone();
            change(next.pointer_mut(&all[place as usize % all.len()]).unwrap(), how, &text);
            // What is no survey any more is not what a rule is given.
            let Ok(survey) = serde_json::from_value::<Survey>(next.clone()) else { continue };
            for finding in look(&survey).findings {
                prop_assert!(rule(finding.rule).is_some() && !finding.text.is_empty() && !finding.help.is_empty());
            }
            value = next;
            changed += 1;
        }
        prop_assume!(changed > 0);
    }
}

/// What a rule alone says of which thing.
fn said(survey: &Survey) -> Vec<(&'static str, String)> {
    each_rule(survey).findings.into_iter().map(|finding| (finding.rule, finding.what)).collect()
}

#[test]
fn what_is_not_known_makes_no_finding() {
    let (mut tried, mut fewer) = (0, 0);
    for case in cases::wrong() {
        let mut survey = estate::sound();
        (case.change)(&mut survey);
        let before = said(&survey);
        let value = serde_json::to_value(&survey).unwrap();
        let mut all = Vec::new();
        places(&value, "", &mut all);
        // A node is judged by what is known of it and of the clusters.
        let other =
            |n: usize| survey.nodes.iter().any(|node| node.name == case.what) && survey.nodes[n].name != case.what;
        let others: Vec<String> =
            (0..survey.nodes.len()).filter(|n| other(*n)).map(|n| format!("/nodes/{n}/")).collect();
        let own = |place: &&str| !others.iter().any(|other| place.starts_with(other.as_str()));
        for place in all.iter().filter_map(|place| place.strip_suffix("/known")).filter(own) {
            let mut next = value.clone();
            *next.pointer_mut(place).unwrap() = json!({ "unknown": { "reason": "no answer" } });
            let after = said(&serde_json::from_value(next).unwrap());
            // That the channel comes with the next power cycle is known without Talos; then it is told by that rule.
            // So it is with a node's own word on its etcd, where the majority is not known to be lost.
            let by = |rule: &str| before.iter().any(|(other, _)| *other == rule);
            let told = |rule: &str| rule == "L30" && by("L04") || rule == "L25" && by("L37");
            let new: Vec<_> = after.iter().filter(|said| !before.contains(said) && !told(said.0)).collect();
            assert!(new.is_empty(), "{}: {new:?} without {place}", case.name);
            tried += 1;
            fewer += usize::from(after.len() < before.len());
        }
    }
    assert!(tried > 2_000 && fewer > 100, "{tried} {fewer}");
}
