//! The configuration of the new node, and who may send it.

use crate::blueprint::finding::Findings;

use super::super::swap::Swap;
use super::super::{known, on, rights};
use super::ask::Facts;

/// The configuration, and who may send it.
pub(super) fn findings(swap: &Swap, facts: &Facts, out: &mut Findings) {
    let name = swap.new.name();
    if let Err(why) = &facts.wanted {
        let help = why.help.clone().unwrap_or_else(|| "correct `config` of `new`".into());
        return out.problem(&known::SOURCE, on::APPLY, format!("{name}: {}", why.text), help);
    }
    match &facts.ours {
        Err(why) => out.unknown(on::APPLY, &format!("the talosconfig of {}", swap.old.cluster), why),
        Ok((roles, same)) => {
            if *same == Some(false) {
                out.problem(
                    &known::AUTHORITY,
                    on::APPLY,
                    format!(
                        "the talosconfig of {} is of another authority than the configuration of {name}",
                        swap.old.cluster
                    ),
                    "take the configuration that was made with the secrets of this cluster",
                );
            }
            if !roles.iter().any(|role| role == rights::ROLE) {
                out.problem(
                    &known::ROLE,
                    on::LEAVE,
                    format!(
                        "the talosconfig's certificate has the roles {}, and {} is needed",
                        roles.join(", "),
                        rights::ROLE
                    ),
                    "name a talosconfig with that role in the site file (`pvemig privileges` says what for)",
                );
            }
        }
    }
}
