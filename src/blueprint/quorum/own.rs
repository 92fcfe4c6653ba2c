//! Whether a node's own member of etcd is whole: up again, whatever the others are, and whether or not it might go down.

use super::{BEHIND, Etcd, Said, learner, troubles};
use crate::base::check::Problem;

/// What a node's member still misses: it has started, has its vote and has caught up, and knows a leader. None on a
/// worker, and where nothing is missing.
pub fn amiss(node: &str, etcd: &Etcd) -> Option<Problem> {
    let logs = || format!("{} tells more", etcd.talosctl(node, "logs etcd"));
    let view = match etcd.said_by(node) {
        Some(Said::View(view)) => view,
        Some(Said::Worker) => return None,
        Some(Said::Silent(why)) => {
            let text = format!("how etcd is on {node} is not known: {why}");
            return Some(Problem::new(text, format!("{} tells more", etcd.talosctl(node, "service etcd"))));
        }
        None => {
            let text = format!("{node} is no node of Talos cluster {} in the site file", etcd.cluster);
            return Some(Problem::new(text, format!("add it to `talos.{}.nodes`", etcd.cluster)));
        }
    };
    let own = view.members.iter().find(|member| member.id == view.status.member);
    let Some(own) = own.filter(|member| !member.is_unstarted()) else {
        let text = format!("etcd on {node} ({:016x}) is none of the members that it knows", view.status.member);
        return Some(Problem::new(text, logs()));
    };
    if own.is_learner || view.status.is_learner {
        return Some(learner(&own.name(), node, etcd));
    }
    if view.status.leader == 0 {
        let help = format!("{} shows which of them are up; a majority must be", etcd.everywhere("etcd status"));
        return Some(Problem::new(format!("etcd has no leader, as {node} sees it"), help));
    }
    let errors = troubles(view);
    if !errors.is_empty() {
        return Some(Problem::new(
            format!("member {} of etcd is not healthy: {}", own.name(), errors.join("; ")),
            logs(),
        ));
    }
    let newest = etcd.views().map(|(_, view)| view.status.raft_applied).max().unwrap_or_default();
    let behind = newest.saturating_sub(view.status.raft_applied);
    (behind > BEHIND)
        .then(|| Problem::new(format!("member {} of etcd is {behind} entries behind the others", own.name()), logs()))
}
