//! Whose the mark on a held object is, and what it says of the state before.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::base::check::Problem;
use crate::base::fault::Failure;
use crate::base::hold::{MARK, Mark};
use crate::engine::step::{RunInfo, Standing};
use crate::k8s::meta::Meta;

/// The mark on an object, seen from a run.
#[derive(Debug, Clone, PartialEq)]
pub enum Held {
    /// There is none.
    No,
    /// This run's.
    Ours(Mark),
    /// That of a run of this state directory which is abandoned or closed: whoever needs the hold takes it over.
    Left(Mark),
    /// That of a run which may still go on: of this state directory, or of one that is not known here.
    Theirs(Mark, Problem),
}

/// Whether a mark is of a run of this state directory. Its id alone says little: ids are short, and another machine's
/// run may have the same one.
pub fn is_known(mark: &Mark, run: &RunInfo) -> bool {
    let known = mark.run == run.id || run.others.contains_key(&mark.run);
    known && (mark.host == run.host || run.hosts.get(&mark.run) == Some(&mark.host))
}

/// Reads the mark of an object. `what` is the object's name in texts.
///
/// # Errors
/// The annotation is there and is no mark: nobody knows what was before. Or it is of a run of this machine of which
/// nothing can be read.
pub fn held(what: &str, meta: &Meta, run: &RunInfo) -> Result<Held, Problem> {
    let mark = match meta.mark() {
        Ok(None) => return Ok(Held::No),
        Ok(Some(mark)) => mark,
        Err(error) => return Err(unreadable(what, &error)),
    };
    let known = is_known(&mark, run);
    if mark.run == run.id && known {
        return Ok(Held::Ours(mark));
    }
    Ok(match run.others.get(&mark.run).filter(|_| known) {
        Some(Standing::Abandoned | Standing::Closed) => Held::Left(mark),
        Some(open @ (Standing::Open | Standing::Undoing)) => {
            let id = &mark.run;
            let (is, resume) = match open {
                Standing::Undoing => ("whose undo is not finished", String::new()),
                _ => ("which is still open", format!("`pvemig resume {id}`, ")),
            };
            let text = format!("{what} is held by run {id}, {is}");
            let help = match &run.at_work {
                Some((at, process)) if at == id => {
                    format!("{process} is at work on it: let it end (`pvemig status` shows where it is)")
                }
                _ => format!("first {resume}`pvemig undo {id}`, or `pvemig abandon {id} --comment '...'`"),
            };
            Held::Theirs(mark, Problem::new(text, help))
        }
        // Not even a closer may go by it: the operator gives it up first.
        Some(Standing::Unreadable) => {
            let id = &mark.run;
            let text = format!("{what} is held by run {id}, whose journal is empty or damaged");
            let help = format!(
                "`pvemig report {id}` shows what can be read of it; `pvemig abandon {id} --comment '...'` gives it up, \
                 and the next run takes the hold over, with what the mark says of the state before: {}",
                former(&mark.was)
            );
            return Err(Problem::new(text, help));
        }
        None if mark.host == run.host => return Err(lost(what, meta, &mark, run)),
        None => {
            let problem = foreign(what, &mark);
            Held::Theirs(mark, problem)
        }
    })
}

/// The mark that a closer, or an undo, takes away: of any run of this state directory, open ones included, as a run
/// of one step leaves its hold to a later one.
///
/// # Errors
/// The mark is of a run that this state directory does not know, or is no mark.
pub fn known(what: &str, meta: &Meta, run: &RunInfo) -> Result<Option<Mark>, Problem> {
    match held(what, meta, run)? {
        Held::No => Ok(None),
        Held::Ours(mark) | Held::Left(mark) => Ok(Some(mark)),
        Held::Theirs(mark, _) if is_known(&mark, run) => Ok(Some(mark)),
        Held::Theirs(_, problem) => Err(problem),
    }
}

/// The former state in a mark, in its holder's own shape.
///
/// # Errors
/// It has another shape.
pub fn was<B: DeserializeOwned>(what: &str, mark: &Mark) -> Result<B, Problem> {
    // The error's own text quotes what is there, which may be anything.
    B::deserialize(&mark.was).map_err(|_| unreadable(what, "the state before has another shape"))
}

/// The mark of this run with the state before.
///
/// # Errors
/// The state cannot be written as JSON.
pub fn mark<B: Serialize>(run: &RunInfo, before: &B) -> Result<Mark, Failure> {
    let was = serde_json::to_value(before)
        .map_err(|error| Failure::plain(format!("the state before cannot be written: {error}"), None))?;
    // Of a state directory that several machines have, the run is the first one's.
    let host = run.hosts.get(&run.id).unwrap_or(&run.host).clone();
    Ok(Mark { run: run.id.clone(), host, was })
}

/// A mark of a run that was begun on this machine and whose journal is gone, or is in another state directory.
fn lost(what: &str, meta: &Meta, mark: &Mark, run: &RunInfo) -> Problem {
    let kind = what.split(' ').next().unwrap_or_default().to_lowercase();
    let place = if meta.namespace.is_empty() { String::new() } else { format!(" -n {}", meta.namespace) };
    let object = format!("{kind} {}{place}", meta.name);
    let restore = format!(
        "bring back by hand what annotation {MARK} says was before, {}{}, then take it off: `kubectl annotate {object} \
         {MARK}-`",
        former(&mark.was),
        by_hand(&kind, &object, &mark.was).map(|command| format!(" (`{command}`)")).unwrap_or_default()
    );
    let (text, help) = match run.elsewhere.get(&mark.run) {
        Some(site) => (
            format!("{what} is held by run {} of site `{site}`, in this state directory", mark.run),
            format!(
                "was `name` in the site file changed? with `name: {site}` the run is found again, and can be ended \
                 (`pvemig status --all`); where it is over already, {restore}"
            ),
        ),
        None => (
            format!(
                "{what} is held by run {} of this machine ({}), which this state directory does not know",
                mark.run, mark.host
            ),
            format!(
                "where that run has another state directory, end it there (`pvemig --state DIR status`); where its \
                 journal is lost, {restore}"
            ),
        ),
    };
    Problem::new(text, help).foreign()
}

/// What a mark says of the state before: null stands for what was not set at all.
fn former(was: &Value) -> String {
    if was.is_null() { "not set".to_owned() } else { was.to_string() }
}

/// The command that brings back what a mark says; None where nothing was different.
fn by_hand(kind: &str, object: &str, was: &Value) -> Option<String> {
    let on = |value: &Value| value.as_bool().unwrap_or(false);
    match (kind, was.get("replicas"), was.get("unschedulable")) {
        (_, Some(replicas), _) => Some(format!("kubectl scale {object} --replicas {replicas}")),
        ("node", _, Some(before)) => {
            (!on(before)).then(|| format!("kubectl uncordon {}", object.trim_start_matches("node ")))
        }
        // An owner: what was before is the value of its `suspend`, if it had one.
        _ if was.is_null() || was.is_boolean() => {
            let patch = r#"'{"spec":{"suspend":false}}'"#;
            (!on(was)).then(|| format!("kubectl patch {object} --type merge -p {patch}"))
        }
        _ => None,
    }
}

/// A mark of a run on another machine.
fn foreign(what: &str, mark: &Mark) -> Problem {
    let text = format!("{what} is held by run {} on {}, which this state directory does not know", mark.run, mark.host);
    let help = format!(
        "somebody may be at work there: `pvemig status` on {} shows it; let that run end or abandon it there",
        mark.host
    );
    Problem::new(text, help).foreign()
}

fn unreadable(what: &str, error: &str) -> Problem {
    Problem::new(
        format!("{what} carries a mark that cannot be read, so the state before it is not known: {error}"),
        format!("see who wrote annotation {MARK}, set the object as it should be, and take the annotation off"),
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn meta(run: &str) -> Meta {
        let mark = Mark { run: run.into(), host: "alpha".into(), was: json!({"replicas": 2}) };
        Meta { annotations: [(MARK.to_owned(), mark.to_annotation())].into(), ..Meta::default() }
    }

    fn run(id: &str) -> RunInfo {
        let others = [
            ("old", Standing::Abandoned),
            ("done", Standing::Closed),
            ("open", Standing::Open),
            ("back", Standing::Undoing),
            ("lost", Standing::Unreadable),
        ];
        let readable = others.iter().filter(|(_, standing)| *standing != Standing::Unreadable).map(|(id, _)| *id);
        RunInfo {
            id: id.into(),
            host: "beta".into(),
            hosts: readable.chain([id]).map(|id| (id.to_owned(), "alpha".to_owned())).collect(),
            others: others.map(|(id, standing)| (id.to_owned(), standing)).into(),
            ..RunInfo::default()
        }
    }

    #[test]
    fn a_mark_is_ours_or_left_or_somebody_elses() {
        let me = run("me");
        assert_eq!(held("x", &Meta::default(), &me), Ok(Held::No));
        assert!(matches!(held("x", &meta("me"), &me), Ok(Held::Ours(_))));
        for ended in ["old", "done"] {
            assert!(matches!(held("x", &meta(ended), &me), Ok(Held::Left(_))), "{ended}");
        }
        let Ok(Held::Theirs(_, open)) = held("x", &meta("open"), &me) else { panic!() };
        assert!(open.text.contains("run open") && open.help.contains("abandon open"), "{open:?}");
        assert!(open.help.contains("`pvemig resume open`"), "{open:?}");
        // One way only is possible by then.
        let Ok(Held::Theirs(_, back)) = held("x", &meta("back"), &me) else { panic!() };
        assert!(back.help.contains("`pvemig undo back`") && !back.help.contains("resume"), "{back:?}");
        let Ok(Held::Theirs(_, foreign)) = held("x", &meta("nobody"), &me) else { panic!() };
        assert!(foreign.text.contains("nobody on alpha"), "{foreign:?}");
        // Of this very machine, and nobody knows it any more: what is said can be done without it.
        let here = RunInfo { host: "alpha".into(), ..run("me") };
        let object = Meta { namespace: "cam".into(), name: "frigate".into(), ..meta("nobody") };
        let gone = held("Deployment cam/frigate", &object, &here).unwrap_err();
        assert!(gone.text.contains("nobody of this machine (alpha)"), "{gone:?}");
        for word in [
            r#"{"replicas":2} (`kubectl scale deployment frigate -n cam --replicas 2`)"#,
            "`kubectl annotate deployment frigate -n cam pvemig.io/hold-`",
        ] {
            assert!(gone.help.contains(word), "{gone:?}");
        }
        let node = held("node n1", &Meta { name: "n1".into(), ..meta("nobody") }, &here).unwrap_err();
        assert!(node.help.contains("`kubectl annotate node n1 pvemig.io/hold-`"), "{node:?}");
        let lost = held("x", &meta("lost"), &here).unwrap_err();
        assert!(lost.help.contains("`pvemig abandon lost --comment") && lost.help.contains("replicas"), "{lost:?}");
        let rows = [
            (
                "kustomization",
                json!(null),
                Some(r#"kubectl patch kustomization x -n n --type merge -p '{"spec":{"suspend":false}}'"#),
            ),
            ("kustomization", json!(true), None),
            ("node", json!({"unschedulable": true}), None),
        ];
        for (kind, was, command) in rows {
            assert_eq!(by_hand(kind, &format!("{kind} x -n n"), &was).as_deref(), command, "{kind} {was}");
        }
        let was = json!({"unschedulable": false});
        assert_eq!(by_hand("node", "node n1", &was).as_deref(), Some("kubectl uncordon n1"));
        // The same state directory, under the name that the site had before.
        let renamed = RunInfo { elsewhere: [("far".to_owned(), "home".to_owned())].into(), host: "alpha".into(), ..me };
        let problem = held("x", &meta("far"), &renamed).unwrap_err();
        assert!(problem.foreign && problem.text.contains("of site `home`"), "{problem:?}");
        assert!(problem.help.contains("with `name: home`"), "{problem:?}");
        // A plan has no run of its own.
        assert!(
            matches!(held("x", &meta("open"), &run("")), Ok(Held::Theirs(_, open)) if open.text.contains("still open"))
        );
    }

    #[test]
    fn a_run_of_the_same_id_on_another_machine_is_another_run() {
        let me = run("me");
        let of = |id: &str, host: &str| {
            let mark = Mark { run: id.into(), host: host.into(), was: json!({"replicas": 2}) };
            Meta { annotations: [(MARK.to_owned(), mark.to_annotation())].into(), ..Meta::default() }
        };
        for id in ["me", "old", "done", "open", "lost"] {
            let Ok(Held::Theirs(mark, foreign)) = held("x", &of(id, "gamma"), &me) else { panic!("{id}") };
            assert!(
                foreign.text.contains(&format!("{id} on gamma, which this state directory does not")),
                "{foreign:?}"
            );
            assert!(!is_known(&mark, &me));
            // Opened on another machine that has the same state directory, and gone on with on this one.
            for host in ["alpha", "beta"] {
                let ours = held("x", &of(id, host), &me);
                match id {
                    "me" => assert!(matches!(ours, Ok(Held::Ours(_))), "{ours:?}"),
                    "old" | "done" => assert!(matches!(ours, Ok(Held::Left(_))), "{id}: {ours:?}"),
                    "open" => assert!(matches!(ours, Ok(Held::Theirs(mark, _)) if is_known(&mark, &me))),
                    // Of one that cannot be read nobody knows where it was opened.
                    _ if host == "alpha" => assert!(matches!(ours, Ok(Held::Theirs(..)))),
                    _ => assert!(ours.is_err()),
                }
            }
        }
        assert_eq!(mark(&me, &json!(1)).unwrap().host, "alpha");
        let first = RunInfo { hosts: Default::default(), ..me };
        assert_eq!(mark(&first, &json!(1)).unwrap().host, "beta");
    }

    #[test]
    fn what_cannot_be_read_is_said() {
        let broken = Meta { annotations: [(MARK.to_owned(), "{}".to_owned())].into(), ..Meta::default() };
        assert!(held("x", &broken, &run("me")).is_err());
        let mark = mark(&run("me"), &json!({"replicas": "two"})).unwrap();
        assert_eq!((mark.run.as_str(), mark.host.as_str()), ("me", "alpha"));
        #[derive(serde::Deserialize)]
        struct Replicas {
            #[expect(dead_code, reason = "only its shape counts")]
            replicas: i64,
        }
        assert!(was::<Replicas>("x", &mark).is_err());
    }
}
