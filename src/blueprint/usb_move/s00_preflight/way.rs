//! Ways into the target's guest, and what the workload needs there.

use crate::base::permit::System;

use super::Preflight;
use super::ask_others::WayFacts;
use super::finding::{Findings, on};
use super::known;

pub(super) fn find(p: &Preflight, facts: Option<&WayFacts>) -> Findings {
    let mut out = Findings::of(System::Ssh);
    let vm = format!("vm {} ({})", p.vm.vmid, p.vm.node);
    let Some(facts) = facts else {
        out.note(on::WAIT, format!("{vm} is off: ways into its guest are not tried, 05 starts it"));
        for path in &p.needs.paths {
            out.note(on::GUEST, format!("whether the guest of {vm} has {path} is not seen before 07, as it is off"));
        }
        return out;
    };
    match &facts.answer {
        Ok(answer) => {
            out.note(on::WAIT, format!("into the guest of {vm}: {}", answer.route));
            // The last line only says that the route answered.
            let refused = answer.notes.split_last().map(|(_, before)| before).unwrap_or_default();
            for line in refused {
                out.note(on::WAIT, format!("into the guest of {vm}: {line}"));
            }
        }
        Err(why) => {
            let help = why.help.clone().unwrap_or_else(|| {
                format!(
                    "mend one of the ways in, or add another one under `access` of node {} in the site file",
                    p.vm.node
                )
            });
            out.problem(
                &known::NO_WAY_IN,
                on::WAIT,
                format!("no way into the guest of {vm}: {}", why.text.replace('\n', "")),
                help,
            );
        }
    }
    for (path, there) in &facts.paths {
        match there {
            Ok(true) => out.note(on::GUEST, format!("the guest of {vm} has {path}")),
            Ok(false) => out.problem(
                &known::PATH_MISSING,
                on::GUEST,
                format!("the guest of {vm} has no {path}, which {} needs", p.work),
                format!("pass that hardware to vm {} and load its driver, or correct `needs.paths`", p.vm.vmid),
            ),
            Err(why) => out.unknown(on::GUEST, &format!("the guest of {vm} for {path}"), why),
        }
    }
    out
}
