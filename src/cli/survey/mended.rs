//! What a migration of the site mends is left to it: it is shown before, asked of etcd, and can be taken back.

use crate::blueprint;
use crate::estate::Estate;
use crate::lint::Finding;
use crate::site::Site;

use super::super::session::Session;

/// The rules whose findings a repair is for.
const MENDED: [&str; 2] = ["L01", "L02"];
/// The step that repairs a node.
const REPAIR: &str = "03-repair";

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
