//! What the site's own migrations and runs have to do with a finding: what a migration mends is left to it (it is shown
//! before, asked of etcd, and can be taken back), and what a run that is at work has put up is nothing wrong.

use crate::base::survey::Survey;
use crate::blueprint;
use crate::estate::Estate;
use crate::lint::Finding;
use crate::site::Site;

use super::super::session::Session;

/// The rules whose findings a repair is for.
const MENDED: [&str; 2] = ["L01", "L02"];
/// The step that repairs a node.
const REPAIR: &str = "03-repair";

/// The rule that finds a cordon.
const CORDONED: &str = "L33";

/// Takes out the cordons of the run that is at work at this moment; what is to be said of them instead.
pub(super) fn by_our_runs(session: &Session, survey: &Survey, findings: &mut Vec<Finding>) -> Vec<String> {
    if !findings.iter().any(|finding| finding.rule == CORDONED) {
        return Vec::new();
    }
    let holder = match session.store.at_work() {
        Ok(Some(holder)) => holder,
        Ok(None) => return Vec::new(),
        // Then the findings stand, and say where to look.
        Err(error) => return vec![format!("whether a run of this site is at work is not known: {error}")],
    };
    let mark = format!("run {} on {}", holder.run, holder.host);
    let mark_of = |name: &str| survey.node(name)?.kubelet()?.cordon_mark.as_deref();
    let mut notes = Vec::new();
    findings.retain(|finding| {
        let ours = finding.rule == CORDONED && mark_of(&finding.what) == Some(mark.as_str());
        if ours {
            notes.push(format!("{} is cordoned by {holder}, which is at work on it", finding.what));
        }
        !ours
    });
    notes
}

/// Findings whose help is the migration, where there is one. What a person has to find out first stays: no repair does it.
pub(super) fn by_migrations(session: &Session, findings: &mut [Finding]) {
    let by_hand = |help: &str| {
        (help.contains(" patch mc ") || help.contains(" upgrade --image ")) && !help.contains("make a schematic")
    };
    for finding in findings.iter_mut().filter(|finding| MENDED.contains(&finding.rule) && by_hand(&finding.help)) {
        if let Some(name) = that_mends(&session.site, &session.estate, &finding.what) {
            finding.help = format!(
                "`pvemig plan {name}` shows how its step {REPAIR} mends it, with what that takes down and back"
            );
        }
    }
}

/// The first migration with a repair of this node.
fn that_mends<'s>(site: &'s Site, estate: &Estate, node: &str) -> Option<&'s str> {
    let repairs = |name: &str, blueprint: &str| {
        // One that cannot be read `pvemig site check` tells of.
        let steps =
            blueprint::named(blueprint).and_then(|blueprint| blueprint.build(site, name).ok()).unwrap_or_default();
        let mut of_node = steps.iter().filter(|step| step.id() == REPAIR && step.key().instance() == Some(node));
        of_node.any(|step| step.outlook(estate).maybe.is_some())
    };
    site.migrations.iter().find(|(name, of)| repairs(name, &of.blueprint)).map(|(name, _)| name.as_str())
}
