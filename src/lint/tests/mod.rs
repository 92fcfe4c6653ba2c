//! Every rule against an estate where it finds something and one where it finds nothing.

mod any;
mod cases;
mod estate;
mod said;

use std::collections::BTreeSet;

use super::*;

#[test]
fn nothing_is_wrong_where_nothing_is_wrong() {
    let looked = look(&estate::sound());
    assert_eq!(looked, Looked::default());
}

#[test]
fn numbers_are_given_once_and_every_rule_is_explained() {
    let numbers: Vec<&str> = rules().map(|rule| rule.number).collect();
    let once: BTreeSet<&str> = numbers.iter().copied().collect();
    assert_eq!(numbers.len(), once.len());
    assert_eq!(numbers.len(), 41);
    for (at, found) in rules().enumerate() {
        assert_eq!(found.number, format!("L{:02}", at + 1));
        assert!(!found.title.is_empty() && !found.title.ends_with('.'), "{}", found.number);
        for (head, words) in found.explain.lines() {
            assert!(words.len() > 20, "{} {head}", found.number);
            assert!(!words.contains("  "), "{} {head}", found.number);
        }
        for other in found.silences {
            assert!(once.contains(other) && *other != found.number, "{} silences {other}", found.number);
        }
        assert!(rule(&found.number.to_lowercase()).is_some());
        // Nor does any silence itself by way of others.
        let mut reached: Vec<&str> = found.silences.to_vec();
        let mut at = 0;
        while let Some(next) = reached.get(at).and_then(|number| rule(number)) {
            let further: Vec<&str> = next.silences.iter().filter(|n| !reached.contains(n)).copied().collect();
            reached.extend(further);
            at += 1;
        }
        assert!(!reached.contains(&found.number), "{} silences itself: {reached:?}", found.number);
    }
    assert!(rule("L99").is_none() && rule("L").is_none() && rule("L0").is_none());
    assert_eq!((rule("l1").unwrap().number, rule("L10").unwrap().number), ("L01", "L10"));
}

#[test]
fn each_rule_finds_its_cause_and_nothing_else_does() {
    let mut tried = BTreeSet::new();
    for case in cases::wrong() {
        let mut survey = estate::sound();
        (case.change)(&mut survey);
        let found = look(&survey).findings;
        let told: Vec<(&str, &str)> = found.iter().map(|f| (f.rule, f.what.as_str())).collect();
        assert_eq!(told, [(case.rule, case.what)], "{}: {found:#?}", case.name);
        let Finding { text, help, .. } = &found[0];
        // Each command names the cluster that it is for.
        let commands = |tool: &str| help.matches(&format!("`{tool} ")).count();
        let (talos, kube) =
            (" --talosconfig ~/.talos/config --context home", " --kubeconfig ~/.kube/config --context k");
        assert_eq!(
            help.matches(talos).count(),
            commands("talosctl") - commands("talosctl gen"),
            "{}: {help}",
            case.name
        );
        assert_eq!(help.matches(kube).count(), commands("kubectl"), "{}: {help}", case.name);
        let help = help.replace(&format!("`talosctl{talos}"), "`talosctl");
        let help = help.replace(&format!("{kube}3s "), " ").replace(&format!("{kube} "), " ");
        for part in case.text {
            assert!(text.contains(part), "{}: `{part}` is not in {text}", case.name);
        }
        assert!(help.contains(case.help), "{}: `{}` is not in {help}", case.name, case.help);
        tried.insert(case.rule);
    }
    assert_eq!(tried.len(), rules().count(), "rules without a case");
}

#[test]
fn what_is_no_trouble_is_not_found() {
    let mut tried = BTreeSet::new();
    for (rule, name, change) in cases::RIGHT {
        let mut survey = estate::sound();
        change(&mut survey);
        let found = look(&survey).findings;
        assert!(!found.iter().any(|f| f.rule == *rule), "{rule} {name}: {found:#?}");
        tried.insert(rule);
    }
    assert_eq!(tried.len(), rules().count(), "rules without a case");
}

#[test]
fn what_cannot_be_looked_at_is_said() {
    let mut survey = estate::sound();
    estate::at(&mut survey, "mac").talos = Layer::unknown("no answer within 5 s");
    let looked = look(&survey);
    assert_eq!(looked.findings, []);
    let blind = looked.blind();
    let [one] = blind.as_slice() else { panic!("{blind:#?}") };
    assert_eq!((one.what.as_str(), one.reason.as_str()), ("mac", "no answer within 5 s"));
    assert!(one.rules.contains(&"L01") && one.rules.contains(&"L24") && !one.rules.contains(&"L27"), "{one:?}");
    assert!(one.rules.is_sorted());

    // What one part is for is said of those rules alone.
    let mut survey = estate::sound();
    estate::talos_of(&mut survey, "mac").config = Layer::unknown("it takes os:admin");
    let rules: Vec<_> = look(&survey).blind().into_iter().flat_map(|blind| blind.rules).collect();
    assert_eq!(rules, ["L03", "L06", "L07", "L08", "L09", "L20"]);

    // A version that does not tell is no node without modules.
    let mut survey = estate::sound();
    estate::talos_of(&mut survey, "nuc").modules_loaded = Layer::Absent;
    let looked = look(&survey);
    assert_eq!(looked.findings, []);
    assert_eq!(looked.unlooked.iter().map(|u| u.rule).collect::<Vec<_>>(), ["L01"]);

    // Part of the site's nodes: a member that is none of them may be one of the others.
    let mut survey = estate::sound();
    survey.nodes.retain(|node| node.name != "mac");
    survey.partial = true;
    let looked = look(&survey);
    assert_eq!(looked.findings, []);
    assert_eq!(looked.unlooked.iter().map(|u| u.rule).collect::<Vec<_>>(), ["L15", "L38"]);
    assert_eq!(looked.blind().len(), 1);

    // A selector that cannot be told here.
    let mut survey = estate::sound();
    let install = &mut estate::config_of(&mut survey, "mac").install;
    install.expression = Some("disk.modalias == 'x'".into());
    let looked = look(&survey);
    assert_eq!(looked.findings, []);
    assert!(looked.unlooked.iter().all(|u| u.reason.contains("disk.modalias is not known here")));
    assert_eq!(looked.unlooked.len(), 3);
}
