mod downtime;
mod hands;

use serde_json::{Value, json};

use super::*;
use crate::base::check::Change;
use crate::base::fault::Effect;
use crate::base::names::StepKey;
use crate::base::permit::{CallId, Handle, Note, System, Thing};
use crate::engine::event::{Event, FORMAT, Opened, Outcome, Planned, Record};
use crate::engine::fold::Fold;
use crate::engine::step::Risk;

/// A journal, a second a line.
struct Lines(Vec<Record>);

impl Lines {
    fn open() -> Self {
        let planned = |key: &str, title: &str, risk, holds_until: Option<&str>| Planned {
            key: key.into(),
            title: title.into(),
            risk,
            holds_until: holds_until.map(str::to_owned),
            step: json!({}),
        };
        let opened = Opened {
            tool: "0.1.0".into(),
            site: "homelab".into(),
            site_digest: "ab".repeat(32),
            migration: Some("frigate-coral".into()),
            blueprint: "usb-move".into(),
            blueprint_version: 1,
            single: false,
            argv: ["pvemig", "run", "frigate-coral"].map(String::from).to_vec(),
            host: "laptop".into(),
            plan: vec![
                planned("00d-scale-down", "scale frigate/frigate to 0", Risk::Reverts, Some("10-deploy")),
                planned("03-check-host", "still-fawn shows the coral", Risk::Reads, None),
                planned("04-add-usb", "vm 108 gets the coral", Risk::Reverts, None),
                planned("11-recreate-pvcs", "recreate | 1 claim", Risk::Destroys, None),
                planned("10-deploy", "frigate runs on still-fawn", Risk::Reverts, None),
            ],
        };
        let mut lines = Self(Vec::new());
        lines.add(Event::Opened(Box::new(opened)));
        lines
    }

    fn add(&mut self, event: Event) -> &mut Self {
        let seq = self.0.len() as u64;
        let at = jiff::Timestamp::from_second(1_795_233_600 + i64::try_from(seq).unwrap()).unwrap();
        self.0.push(Record { v: FORMAT, seq, at, event });
        self
    }

    fn checked(&mut self, key: &str, answer: &str, notes: &[&str]) -> &mut Self {
        let notes = notes.iter().map(|note| (*note).to_owned()).collect();
        self.add(Event::Checked { key: key.into(), answer: answer.into(), back: false, notes })
    }

    fn applying(&mut self, key: &str, change: Change) -> &mut Self {
        self.add(Event::Applying { key: key.into(), before: Value::Null, changes: vec![change] })
    }

    fn call(&mut self, key: &str, number: u64, system: System, text: &str, left: Option<(&str, &str)>) -> &mut Self {
        let key = StepKey::from(key);
        self.add(Event::Call { key: key.clone(), call: CallId(number), note: Note::safe(system, text) });
        if let Some((kind, value)) = left {
            self.add(Event::Got { key, call: CallId(number), handle: Handle::new(kind, value) });
        }
        self
    }

    fn applied(&mut self, key: &str) -> &mut Self {
        self.add(Event::Applied { key: key.into(), notes: vec![] })
    }

    fn report(&self) -> Report {
        Report::of("7k2", &self.0).unwrap().unwrap()
    }
}

/// Up to a failure at 04, with a person asked at 03.
fn failed() -> Lines {
    let mut lines = Lines::open();
    lines
        .add(Event::Consented { thing: Thing::claim("frigate", "frigate-media") })
        .checked("00d-scale-down", "todo", &[])
        .applying("00d-scale-down", Change::set("deployment frigate/frigate replicas", "1", "0"))
        .call("00d-scale-down", 1, System::Kubernetes, "PATCH deployments/frigate", None)
        .applied("00d-scale-down")
        .checked("03-check-host", "manual", &["asked over the API"])
        .add(Event::Asked {
            key: "03-check-host".into(),
            ask: "plug the coral into still-fawn".into(),
            hint: Some("port 2-3".into()),
            hands: None,
            before: None,
        });
    lines
        .checked("03-check-host", "done", &["asked over the API"])
        .add(Event::AlreadySo { key: "03-check-host".into(), needless: false, notes: vec![] })
        .checked("00d-scale-down", "done", &[])
        .checked("04-add-usb", "todo", &["route: agent; ssh: refused"])
        .applying("04-add-usb", Change::add("vm 108 usb0", "host=1a6e:089a,usb3=1"))
        .call("04-add-usb", 2, System::Proxmox, "PUT nodes/still-fawn/qemu/108/config", Some(("upid", "UPID:x")))
        .add(Event::Failed {
            key: "04-add-usb".into(),
            error: vec!["vm 108 cannot be changed".into(), "no answer within 40 s".into()],
            effect: Effect::Maybe,
            help: vec!["look at the host".into()],
            voids: Vec::new(),
        });
    lines
}

/// To the end.
fn done() -> Lines {
    let mut lines = failed();
    lines
        .checked("04-add-usb", "done", &[])
        .applied("04-add-usb")
        .applying("11-recreate-pvcs", Change::remove("pvc frigate/frigate-media", "pv-1"))
        .add(Event::Filed { key: "11-recreate-pvcs".into(), name: "pvc.json".into(), sha256: "00".into(), bytes: 5 })
        .call("11-recreate-pvcs", 3, System::Kubernetes, "DELETE pvc frigate-media", None)
        .applied("11-recreate-pvcs")
        .applying("10-deploy", Change::act("reconcile apps"))
        .call("10-deploy", 4, System::Kubernetes, "PATCH kustomizations/apps", None)
        .applied("10-deploy")
        .add(Event::Closed { outcome: Outcome::Done });
    lines
}

#[test]
fn a_failed_run_as_text() {
    assert_eq!(
        text(&failed().report()),
        "\
frigate-coral (usb-move v1) on homelab, run 7k2: failed
  2026-11-21 04:00:00 UTC, 15 s
  pvemig 0.1.0 on laptop: pvemig run frigate-coral
  steps: 1 done, 1 there now, 3 not done
  changed: 2 calls (proxmox 1, kubernetes 1)
  by hand: 03: plug the coral into still-fawn: asked 04:00:07, there after 2 s
  trouble: 04, 04:00:15: vm 108 cannot be changed

✓ 00d-scale-down    scale frigate/frigate to 0  [done, 4 s]
  ├ ~ deployment frigate/frigate replicas: 1 -> 0
  └ call 1 (kubernetes): PATCH deployments/frigate
✓ 03-check-host     still-fawn shows the coral  [there now, 4 s]
  ├ asked: plug the coral into still-fawn (port 2-3)
  └ note: asked over the API
✗ 04-add-usb        wanted: vm 108 gets the coral  [failed, 5 s]
  ├ + vm 108 usb0: host=1a6e:089a,usb3=1
  ├ call 2 (proxmox): PUT nodes/still-fawn/qemu/108/config -> upid UPID:x
  ├ note: route: agent; ssh: refused
  ├ error: vm 108 cannot be changed: no answer within 40 s
  ├ it may have changed something; resume and undo look first
  └ help: look at the host
○ 11-recreate-pvcs  wanted: recreate | 1 claim  [not begun]
○ 10-deploy         wanted: frigate runs on still-fawn  [not begun]

consented to lose:
  pvc/frigate/frigate-media
holds still up:
  00d-scale-down
possible now:
  pvemig resume 7k2
  pvemig undo 7k2
  pvemig abandon 7k2 --comment TEXT
"
    );
}

#[test]
fn a_finished_run_as_markdown() {
    assert_eq!(
        markdown(&done().report()),
        "\
# frigate-coral (usb-move v1) on homelab, run 7k2: done

- began 2026-11-21 04:00:00 UTC, took 25 s
- pvemig 0.1.0 on laptop: `pvemig run frigate-coral`
- steps: 4 done, 1 there now
- changed: 4 calls (proxmox 1, kubernetes 3)
- by hand: 03: plug the coral into still-fawn: asked 04:00:07, there after 2 s
- trouble: 04, 04:00:15: vm 108 cannot be changed

| | step | what | state |
|---|---|---|---|
| ✓ | `00d-scale-down` | scale frigate/frigate to 0 | done, 4 s |
| ✓ | `03-check-host` | still-fawn shows the coral | there now, 4 s |
| ✓ | `04-add-usb` | vm 108 gets the coral | done, 7 s |
| ✓ | `11-recreate-pvcs` | recreate \\| 1 claim | done, 4 s |
| ✓ | `10-deploy` | frigate runs on still-fawn | done, 3 s |

## 00d-scale-down

- `~ deployment frigate/frigate replicas: 1 -> 0`
- `call 1 (kubernetes): PATCH deployments/frigate`

## 03-check-host

- `asked: plug the coral into still-fawn (port 2-3)`
- `note: asked over the API`

## 04-add-usb

- `+ vm 108 usb0: host=1a6e:089a,usb3=1`
- `call 2 (proxmox): PUT nodes/still-fawn/qemu/108/config -> upid UPID:x`
- `note: route: agent; ssh: refused`
- `failed before: vm 108 cannot be changed: no answer within 40 s`

## 11-recreate-pvcs

- `- pvc frigate/frigate-media: pv-1`
- `call 3 (kubernetes): DELETE pvc frigate-media`
- `run file: pvc.json`

## 10-deploy

- `! reconcile apps`
- `call 4 (kubernetes): PATCH kustomizations/apps`

## Consented to lose

- `pvc/frigate/frigate-media`

## Gone for good

- `11-recreate-pvcs: recreate | 1 claim`

## Possible now

- `pvemig undo 7k2`
"
    );
}

#[test]
fn the_report_as_json_has_every_part() {
    let value = json(&done().report()).unwrap();
    assert_eq!(value["run"], "7k2");
    assert_eq!(value["standing"], "done");
    assert_eq!(value["began"], "2026-11-21T04:00:00Z");
    assert_eq!(value["calls"], json!({"proxmox": 1, "kubernetes": 3}));
    assert_eq!(value["next"], json!(["pvemig undo 7k2"]));
    assert_eq!(value["destroyed"], json!(["11-recreate-pvcs: recreate | 1 claim"]));
    let steps = value["steps"].as_array().unwrap();
    assert_eq!(steps.len(), 5);
    assert_eq!(steps[2]["word"], "done");
    assert_eq!(steps[2]["elapsed_ms"], 7000);
    assert_eq!(steps[2]["calls"][0]["left"], json!(["upid", "UPID:x"]));
    assert_eq!(steps[2]["changes"][0], json!({"symbol": "add", "what": "vm 108 usb0", "to": "host=1a6e:089a,usb3=1"}));
    assert_eq!(steps[2]["troubles"][0]["effect"], "maybe");
    assert_eq!(steps[3]["files"], json!(["pvc.json"]));
}

#[test]
fn every_standing_has_its_words_and_commands() {
    let key = || StepKey::from("03-check-host");
    let ask = || Event::Asked { key: key(), ask: "plug it".into(), hint: None, hands: None, before: None };
    let all = ["pvemig resume 7k2", "pvemig undo 7k2", "pvemig abandon 7k2 --comment TEXT"];
    let mut cases: Vec<(Lines, Standing, Vec<&str>)> = vec![(Lines::open(), Standing::Open, vec![all[0], all[2]])];

    let mut lines = Lines::open();
    lines.add(Event::AlreadySo { key: "00d-scale-down".into(), needless: false, notes: vec![] }).add(ask());
    cases.push((lines, Standing::Asked, all.to_vec()));

    let mut lines = Lines::open();
    lines.add(Event::Interrupted { key: "00d-scale-down".into() });
    cases.push((lines, Standing::Interrupted, vec![all[0], all[2]]));

    let mut lines = failed();
    lines.add(Event::Undoing { key: "04-add-usb".into() });
    lines.call("04-add-usb", 3, System::Proxmox, "PUT config delete usb0", None);
    lines.add(Event::Undone {
        key: "04-add-usb".into(),
        passed: false,
        notes: vec!["slot as before".into()],
        stays: Vec::new(),
    });
    cases.push((lines, Standing::Undoing, all[1..].to_vec()));

    let mut lines = failed();
    lines.add(Event::Undoing { key: "04-add-usb".into() });
    lines.add(Event::UndoFailed {
        key: "04-add-usb".into(),
        error: vec!["no".into()],
        effect: Effect::None,
        help: vec!["look".into()],
    });
    cases.push((lines, Standing::Stuck, all[1..].to_vec()));

    let mut lines = failed();
    lines.add(Event::Abandoned { comment: "by hand".into() });
    cases.push((lines, Standing::Abandoned, vec![]));

    let mut lines = failed();
    for step in ["04-add-usb", "00d-scale-down"] {
        lines.add(Event::Undoing { key: step.into() }).add(Event::Undone {
            key: step.into(),
            passed: false,
            notes: vec![],
            stays: vec![],
        });
    }
    lines.add(Event::Undoing { key: key() }).add(Event::Undone {
        key: key(),
        passed: false,
        notes: vec![],
        stays: Vec::new(),
    });
    lines.add(Event::Closed { outcome: Outcome::Undone });
    cases.push((lines, Standing::Undone, vec![]));
    cases.push((failed(), Standing::Failed, all.to_vec()));
    cases.push((done(), Standing::Done, vec![all[1]]));

    assert_eq!(cases.len(), 9);
    for (lines, standing, next) in &cases {
        let report = lines.report();
        assert_eq!(
            (report.standing, report.next.iter().map(String::as_str).collect::<Vec<_>>()),
            (*standing, next.clone())
        );
        let shown = text(&report);
        assert!(shown.lines().next().unwrap().ends_with(standing.words()), "{shown}");
    }
    let undo = text(&cases[3].0.report());
    assert!(undo.contains("↶ 04-add-usb") && undo.contains("call 3 (undo, proxmox): PUT config"), "{undo}");
    assert!(undo.contains("note: slot as before") && undo.contains("failed before: vm 108"), "{undo}");
    let stuck = text(&cases[4].0.report());
    assert!(stuck.contains("error: no") && stuck.contains("help: look"), "{stuck}");
    let abandoned = text(&cases[5].0.report());
    assert!(
        abandoned.contains("because: by hand") && abandoned.contains("holds still up:\n  00d-scale-down"),
        "{abandoned}"
    );
    assert!(text(&cases[0].0.report()).contains("changed: nothing\n"));
}

#[test]
fn a_hold_that_fell_is_told_and_markup_stays_text() {
    let mut lines = failed();
    lines.add(Event::HoldFell {
        key: "00d-scale-down".into(),
        changes: vec![Change::set("replicas", "0", "1")],
        notes: vec!["kustomize-controller".into()],
    });
    lines.checked("04-add-usb", "todo", &["a `tick` and\nmore <b>"]);
    let report = lines.report();
    assert!(text(&report).contains("this hold did not stand any more: ~ replicas: 0 -> 1 (kustomize-controller)"));
    assert!(text(&report).contains("the hold was taken down by somebody"));
    let mut asked = report.clone();
    asked.steps.iter_mut().flat_map(|row| &mut row.fell).for_each(|fell| fell.as_asked = true);
    assert!(!text(&asked).contains("by somebody"), "{}", text(&asked));
    assert!(text(&asked).contains("as the run had asked, this hold did not stand any more: ~ replicas"));
    let markdown = markdown(&report);
    // Lines of a text stay lines: they may be a drawing.
    assert!(markdown.contains("- ``note: a `tick` and``\n\n```text\nmore <b>\n```\n"), "{markdown}");
    assert!(Report::of("7k2", &[]).unwrap().is_none());
    assert!(Report::of("7k2", &failed().0[1..]).is_err());
}

#[test]
fn what_an_undo_left_is_said_and_what_it_passed_is_still_gone() {
    let mut lines = done();
    let undone = |lines: &mut Lines, key: &str, note: &str| {
        lines.add(Event::Undoing { key: key.into() });
        let passed = note.starts_with("passed");
        let stays = if passed { vec![note.into()] } else { Vec::new() };
        lines.add(Event::Undone { key: key.into(), notes: vec![note.into()], passed, stays });
    };
    undone(&mut lines, "11-recreate-pvcs", "passed by `--past 11-recreate-pvcs`: what it did stays");
    // A word in a note is no statement of what is left.
    undone(&mut lines, "04-add-usb", "asked over the API, which stays up");
    assert!(text(&lines.report()).contains("↶ 04-add-usb        vm 108 gets the coral  [undone,"));
    // What nothing was sent for is as it was.
    lines.0.truncate(lines.0.len() - 1);
    lines.call("04-add-usb", 5, System::Proxmox, "POST config", None);
    let (notes, stays) = (Vec::new(), Vec::new());
    lines.add(Event::Undone { key: "04-add-usb".into(), notes, passed: false, stays });
    let report = lines.report();
    assert_eq!(report.stays, ["11-recreate-pvcs: passed by `--past 11-recreate-pvcs`: what it did stays"]);
    assert_eq!(report.destroyed, ["11-recreate-pvcs: recreate | 1 claim"]);
    assert!(text(&report).contains("left as it is by the undo:\n  11-recreate-pvcs: passed"));
    assert!(text(&report).contains("↶ 11-recreate-pvcs  recreate | 1 claim  [passed, stays,"), "{}", text(&report));
    assert!(
        text(&report).contains("↶ 04-add-usb        taken back: vm 108 gets the coral  [undone,"),
        "{}",
        text(&report)
    );
}

#[test]
fn a_failure_is_over_once_its_step_is_undone() {
    let mut lines = failed();
    assert!(crate::engine::state::RunState::fold(&lines.0).unwrap().unwrap().failure.is_some());
    lines.add(Event::Undone { key: "04-add-usb".into(), notes: vec![], passed: false, stays: Vec::new() });
    assert_eq!(crate::engine::state::RunState::fold(&lines.0).unwrap().unwrap().failure, None);
}

#[test]
fn a_hold_that_was_not_needed_is_not_said_to_be_up() {
    let mut lines = Lines::open();
    let notes = vec!["not needed: nothing that it would guard has to be done".to_owned()];
    lines.add(Event::AlreadySo { key: "00d-scale-down".into(), needless: true, notes: notes.clone() });
    lines.add(Event::AlreadySo { key: "03-check-host".into(), needless: false, notes });
    let report = lines.report();
    assert_eq!(json(&report).unwrap()["steps"][0]["word"], "not-needed");
    let shown = text(&report);
    let line = "· 00d-scale-down    nothing that it would guard has to be done  [not needed, 1 s]";
    assert!(shown.contains(line) && shown.matches("nothing that it would guard").count() == 2, "{shown}");
    assert!(!shown.contains("scale frigate/frigate to 0"), "{shown}");
    assert!(markdown(&report).contains("| · | `00d-scale-down` | nothing that it"), "{}", markdown(&report));
}

#[test]
fn a_text_with_lines_of_its_own_stays_below_its_branch() {
    let mut lines = Lines::open();
    let error = vec!["vm 108: no way in\n  ssh: refused\n  agent: no".into()];
    lines.add(Event::Failed {
        key: "04-add-usb".into(),
        error,
        effect: Effect::None,
        help: vec!["wait".into()],
        voids: Vec::new(),
    });
    let shown = text(&lines.report());
    let wanted = "  ├ error: vm 108: no way in\n  │   ssh: refused\n  │   agent: no\n  ├ nothing was";
    assert!(shown.contains(wanted), "{shown}");
}

#[test]
fn a_difference_is_shown_as_one() {
    let mut lines = Lines::open();
    let diff = ["--- a/x.yaml", "+++ b/x.yaml", "@@ -1,2 +1,3 @@", " a: 1", "+  b:", "+  b:", "-c"];
    let notes: Vec<_> = std::iter::once("branch main").chain(diff).chain(["pushed"]).collect();
    lines.checked("04-add-usb", "todo", &notes).checked("04-add-usb", "todo", &notes);
    let shown = markdown(&lines.report());
    let block = diff.join("\n");
    let wanted = format!("- `note: branch main`\n\n```diff\n{block}\n```\n\n- `note: pushed`\n");
    assert!(shown.contains(&wanted) && shown.matches("+  b:").count() == 2, "{shown}");
}

#[test]
fn the_ways_that_answered_and_what_others_must_say_are_told() {
    let mut lines = done();
    let mut report = lines.report();
    assert!(report.routes.is_empty() && !text(&report).contains(FOLD));
    lines = failed();
    lines.checked("04-add-usb", "done", &["ssh root@vm: refused", "agent of vm 108: answered"]);
    report = lines.report();
    assert_eq!(report.routes["agent of vm 108"], ["04-add-usb"]);
    assert!(text(&report).contains("ways into guests: agent of vm 108 (04)"), "{}", text(&report));
    report.fold_back = vec![Fold {
        owner: "Terraform, provider x/y".into(),
        why: vec!["it would <move> it back".into()],
        language: "diff",
        lines: vec!["- usb {".into(), "+ a ``` fence".into()],
    }];
    let shown = text(&report);
    let wanted =
        "  Terraform, provider x/y\n    # it would <move> it back\n    - usb {\n    + a ``` fence\npossible now:";
    assert!(shown.contains(&format!("{FOLD}:\n{wanted}")), "{shown}");
    let shown = markdown(&report);
    let wanted =
        "### Terraform, provider x/y\n\n- it would \\<move> it back\n\n````diff\n- usb {\n+ a ``` fence\n````\n";
    assert!(shown.contains(wanted), "{shown}");
    assert_eq!(json(&report).unwrap()["fold_back"][0]["language"], "diff");
}

const FOLD: &str = "what others must say now, or their next apply undoes this";
