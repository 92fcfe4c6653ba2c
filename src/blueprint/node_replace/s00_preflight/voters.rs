//! The votes of etcd: as they are, without the old member, and with the new one.

use crate::blueprint::finding::Findings;
use crate::blueprint::quorum::{Leave, Votes, leave, votes};
use crate::engine::step::RunInfo;

use super::super::s03_leave_or_remove::unconsented as member_unconsented;
use super::super::sight::Life;
use super::super::swap::Swap;
use super::super::{known, on};
use super::ask::{Facts, New};
use super::find::old_node;

/// The votes now, without the old one, and with the new one.
pub(super) fn findings(swap: &Swap, facts: &Facts, run: &RunInfo, out: &mut Findings) {
    let up = matches!(facts.life, Ok(Life::Alive(_) | Life::Going));
    let comes = facts.wanted.as_ref().ok().map(|wanted| wanted.is_control_plane());
    let was_worker =
        || facts.kube.as_ref().ok().and_then(|kube| old_node(swap, kube)).is_some_and(|node| !node.is_control_plane());
    let voter = match leave(swap.old(), swap.host(), up, &facts.etcd) {
        Leave::NoCluster => {
            let why: Vec<String> = facts.etcd.silent().map(|(name, why)| format!("{name}: {why}")).collect();
            out.problem(
                &known::QUORUM,
                on::LEAVE,
                format!("no control plane tells the members of etcd ({})", why.join("; ")),
                "let one of them answer; where they are gone for good, `pvemig explain quorum-recover`",
            );
            return;
        }
        Leave::NoMember => {
            let (now, more) = (votes(&facts.etcd), comes == Some(true) && !matches!(facts.new, Ok(New::In(_))));
            if let Some(now) = now.filter(|_| more) {
                let more = Votes { voters: now.voters + 1, healthy: now.healthy + 1 };
                out.note(
                    on::LEAVE,
                    format!("etcd has {now}, and none is {}; with {} {more}", swap.goer(), swap.comer()),
                );
            }
            let node = facts.kube.as_ref().map(|kube| old_node(swap, kube).is_some());
            if node == Ok(false)
                && matches!(&facts.life, Ok(life) if life.is_down())
                && matches!(facts.new, Ok(New::Away | New::Waits(_)))
                && now.is_some()
            {
                out.problem(
                    &known::NOTHING,
                    on::APPLY,
                    format!(
                        "{} is no node and no member of {} any more: there is nothing to replace",
                        swap.goer(),
                        swap.old.cluster
                    ),
                    "a machine that comes beside the others is a node of a `cluster-build`; after an abandoned run of this too",
                );
            }
            false
        }
        Leave::Shut(problems) => {
            problems.into_iter().for_each(|problem| out.borrowed(&known::QUORUM, on::LEAVE, problem));
            true
        }
        Leave::Open { sum, then, .. } => {
            let more = Votes { voters: then.voters + 1, healthy: then.healthy + 1 };
            let more = if comes == Some(true) { format!("; with {} {more}", swap.comer()) } else { String::new() };
            out.note(on::LEAVE, format!("{sum}{more}"));
            if !run.consents.contains(&swap.member()) {
                out.borrowed(&known::CONSENT, on::LEAVE, member_unconsented(swap));
            }
            true
        }
    };
    if comes == Some(false) && voter || comes == Some(true) && !voter && was_worker() {
        let (was, is) = if voter { ("a control plane", "a worker") } else { ("a worker", "a control plane") };
        out.problem(
            &known::KIND,
            on::APPLY,
            format!("{} is {was}, and the configuration of {} is that of {is}", swap.goer(), swap.new.name()),
            "name the configuration of the same kind; another kind of node is added by a `cluster-build`",
        );
    }
}
