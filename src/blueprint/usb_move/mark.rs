//! Whose the mark of a hold is: ours, one that was left behind, or another operator's.

use serde_json::Value;

use crate::base::check::Problem;
use crate::base::hold::{MARK, Mark};
use crate::engine::step::{RunInfo, Standing};
use crate::k8s::meta::Meta;

/// Whose a mark is.
#[derive(Debug, Clone, PartialEq)]
pub enum Whose {
    /// There is none.
    Nobodys,
    /// This run's; with the former state.
    Ours(Value),
    /// Of a run of this state directory that is over: it is taken over, with its former state.
    Left(Mark),
    /// Of a run that may still be at work, or that this state directory does not know.
    Others(Problem),
}

/// Whose the mark on an object is; `title` names the object, as in `Kustomization flux-system/apps`.
pub fn whose(title: &str, meta: &Meta, run: &RunInfo) -> Whose {
    let mark = match meta.mark() {
        Ok(None) => return Whose::Nobodys,
        Ok(Some(mark)) => mark,
        Err(why) => return Whose::Others(Problem::new(format!("{title}: {why}"), take_off(title, meta))),
    };
    if !run.id.is_empty() && mark.run == run.id {
        return Whose::Ours(mark.was);
    }
    match run.others.get(&mark.run) {
        Some(Standing::Abandoned | Standing::Closed) => Whose::Left(mark),
        Some(Standing::Open) => Whose::Others(Problem::new(
            format!("{title} is held by run {}, which is still open", mark.run),
            format!("finish it: `pvemig resume {0}`, `pvemig undo {0}` or `pvemig abandon {0}`", mark.run),
        )),
        None => Whose::Others(Problem::new(
            format!("{title} is held by run {} of another state directory, on host {}", mark.run, mark.host),
            format!("ask whoever works on {}; if nobody does, {}", mark.host, take_off(title, meta)),
        )),
    }
}

/// The mark that a closer, or an undo, takes away: of any run of this state directory, open ones included, as a run
/// of one step leaves its hold to a later one.
///
/// # Errors
/// The mark is of a run that this state directory does not know, or is no mark.
pub fn known(title: &str, meta: &Meta, run: &RunInfo) -> Result<Option<Mark>, Problem> {
    match whose(title, meta, run) {
        Whose::Nobodys => Ok(None),
        Whose::Others(problem) => match meta.mark() {
            Ok(Some(mark)) if run.others.contains_key(&mark.run) => Ok(Some(mark)),
            _ => Err(problem),
        },
        Whose::Ours(_) | Whose::Left(_) => meta.mark().map_err(|why| Problem::new(why, take_off(title, meta))),
    }
}

/// `title` begins with the kind.
fn take_off(title: &str, meta: &Meta) -> String {
    let kind = title.split(' ').next().unwrap_or_default().to_lowercase();
    let place = if meta.namespace.is_empty() { String::new() } else { format!(" -n {}", meta.namespace) };
    format!("take the mark off with `kubectl{place} annotate {kind} {} {MARK}-`", meta.name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_mark_is_ours_left_or_anothers() {
        let meta = |run: &str| {
            let mark = Mark { run: run.into(), host: "desk".into(), was: json!(3) };
            Meta::of(&json!({"metadata": {"annotations": {MARK: mark.to_annotation()}}}))
        };
        let others = [("a", Standing::Abandoned), ("c", Standing::Closed), ("o", Standing::Open)];
        let others: std::collections::BTreeMap<_, _> = others.map(|(k, v)| (k.to_owned(), v)).into();
        let run = |id: &str| RunInfo { id: id.into(), host: "here".into(), others: others.clone(), files: None };
        assert_eq!(whose("x", &Meta::default(), &run("r")), Whose::Nobodys);
        assert_eq!(whose("x", &meta("r"), &run("r")), Whose::Ours(json!(3)));
        for id in ["a", "c"] {
            assert!(matches!(whose("x", &meta(id), &run("r")), Whose::Left(m) if m.was == json!(3)), "{id}");
            assert!(matches!(known("x", &meta(id), &run("r")), Ok(Some(_))), "{id}");
        }
        for (id, asker, word) in [("o", "r", "still open"), ("z", "r", "on host desk"), ("o", "", "still open")] {
            let Whose::Others(problem) = whose("x", &meta(id), &run(asker)) else { panic!("{id} is not another's") };
            assert!(problem.text.contains(word), "{}", problem.text);
        }
        assert!(matches!(known("x", &meta("o"), &run("r")), Ok(Some(_))), "a closer takes an open run's mark too");
        assert!(known("x", &meta("z"), &run("r")).is_err());
        let broken = Meta::of(&json!({"metadata": {"annotations": {MARK: "yes"}}}));
        assert!(matches!(whose("x", &broken, &run("r")), Whose::Others(_)));
        assert!(known("x", &broken, &run("r")).is_err());
    }
}
