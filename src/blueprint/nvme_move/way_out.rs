//! What a person may do who stands before a machine that does not come up, or at a terminal with one that is on with its
//! drives elsewhere.

use std::time::Duration;

use crate::base::check::Problem;
use crate::base::drives::{Layout, Plan};
use crate::base::fault::Failure;
use crate::blueprint::machine::Machine;
use crate::engine::step::RunInfo;

use super::anew::Anew;
use super::on;
use super::s04_asked::called;
use super::sight::facts;

/// So long firmware and boot take with nothing wrong: nobody is told before what he may do about it.
pub(super) const GRACE: Duration = Duration::from_secs(180);

/// Which way the drives go.
#[derive(Debug, Clone, Copy)]
pub(super) enum Way<'a> {
    /// To where they belong. Where the system disk is another one, that is empty.
    Forth(Option<&'a Anew>),
    /// To where they were. It may be another medium that is still plugged in.
    Back(Option<&'a Anew>),
}

/// What a person does who stands before a machine that is on and does not come up. One part of a reason, so that it is never
/// cut.
pub(super) fn way_out(machine: &Machine, plan: &Plan, layout: &Layout, way: Way<'_>) -> String {
    if let Some(vm) = &machine.vm {
        let next = if matches!(way, Way::Forth(_)) { "`pvemig resume`" } else { "`pvemig undo`" };
        return format!(
            "what it boots, and why it may not, is on its console. Where it stays there, `qm stop {}`, and {next} goes on",
            vm.vmid
        );
    }
    let (disk, sits) = match plan.system_in(layout) {
        Some((name, _)) => {
            let disk = called(plan, name);
            let slot = Plan::slot_of(layout, name).unwrap_or_default();
            let sits = format!(
                ". Where it is not in that menu, hold its power button until it is off, see that it sits in {slot}, and switch it on"
            );
            (disk, sits)
        }
        None => ("its system disk".to_owned(), String::new()),
    };
    let does = match way {
        Way::Forth(Some(anew)) => format!(
            "where it has not booted from the stick, {}, switch it off and on, and choose that stick in its boot menu: never {disk}, \
             which is empty until it is installed from there",
            anew.plug_in()
        ),
        Way::Back(Some(_)) => {
            format!("where its firmware finds nothing, take the stick out, and choose {disk} in its boot menu{sits}")
        }
        Way::Forth(None) | Way::Back(None) => {
            format!("where its firmware finds nothing, choose {disk} in its boot menu, or correct its boot order{sits}")
        }
    };
    let end = match way {
        Way::Forth(_) => "put the drives back, and once this run has stopped `pvemig undo`",
        Way::Back(_) => "and you are asked for the drives once more",
    };
    format!(
        "what it boots, and why it may not, is on its screen: {does}. Else hold its power button until it is off, {end}"
    )
}

/// A step that stands alone, and has nobody before it who switches the machine off. None: a run with those steps.
///
/// # Errors
/// What this run has kept cannot be read.
pub(super) fn alone(machine: &Machine, run: &RunInfo) -> Result<Option<String>, Failure> {
    if facts(machine, run)?.is_some() {
        return Ok(None);
    }
    let migration = run.migration.as_deref().unwrap_or("MIGRATION");
    Ok(Some(format!(
        "`pvemig run {migration}` drains {0} and switches it off before anybody is asked for its drives; `pvemig step {1} -m \
         {migration}` switches it off alone, and then this step asks",
        machine.name,
        on::SHUTDOWN
    )))
}

/// Problems of drives that are elsewhere, as one: what helps a step that stands alone is the same for all.
pub(super) fn with_help(problems: Vec<Problem>, help: &str) -> Vec<Problem> {
    let all: Vec<String> = problems.into_iter().map(|problem| problem.text).collect();
    vec![Problem::new(all.join("; "), help).mended_by(on::SHUTDOWN)]
}

/// What a resume does where drives are to be put right.
pub(super) const ONCE_MORE: &str = "`pvemig resume` switches it off first, and asks once more";

/// Problems of drives, where a resume switches the machine off: said with those that it mends.
pub(super) fn once_more(problems: Vec<Problem>) -> Vec<Problem> {
    let one = |problem: Problem| {
        if problem.mended_by.as_deref() != Some(on::SHUTDOWN) || problem.help.ends_with(ONCE_MORE) {
            return problem;
        }
        let help = format!("{}: {ONCE_MORE}", problem.help);
        Problem { help, ..problem }
    };
    problems.into_iter().map(one).collect()
}
