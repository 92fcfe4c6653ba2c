//! The file that is given to begin from: whether it is of this cluster.

use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;

use crate::base::check::Problem;
use crate::base::fault::Fault;
use crate::base::private;
use crate::base::wait::show;
use crate::blueprint::machine::Machine;

use super::copies::{Held, ids};
use super::facts::Facts;
use super::{Planes, names};

/// What to name in place of what is none.
pub(super) const NAMED: &str = "name a file as `pvemig etcd snapshot` or `talosctl etcd snapshot` wrote it; an encrypted one is \
                                decrypted before: `age -d -i KEYFILE -o etcd.snapshot FILE.age`";

/// Looks at it: what is to be known of it, else why it is of no use. The members that are here decide whose it is, as far as
/// any tells its own id. Names alone show nothing, since other clusters have them too: they are taken only where no member is
/// left, and nothing can be lost that is not lost already.
pub(super) fn given(path: &Path, facts: &Facts, planes: &Planes, now: Timestamp) -> Result<Vec<String>, Problem> {
    let (shown, cluster, from) = (path.display(), &planes.cluster, &planes.from);
    let unusable = |why: String, help: Option<String>| {
        let text = format!("{shown}, which etcd is to begin from, cannot be used: {why}");
        Problem::new(text, help.unwrap_or_else(|| NAMED.to_owned()))
    };
    let content = private::read(path).map_err(|error| unusable(error.to_string(), error.help()))?;
    let copy = Held::of(None, &content).map_err(|why| unusable(why, None))?;
    let written = std::fs::metadata(path).ok().and_then(|meta| Timestamp::try_from(meta.modified().ok()?).ok());
    let age = written.map_or_else(
        || "when it was written is not known".to_owned(),
        |at| {
            let ago = Duration::from_secs(now.duration_since(at).as_secs().max(0).unsigned_abs());
            format!("written {} ago ({at:.0})", show(ago))
        },
    );
    let mut notes =
        vec![format!("etcd is to begin from {shown}: {}, {age}; what was written since is lost", copy.words())];
    let own: Vec<(&Machine, u64)> =
        facts.holders().filter_map(|(machine, holds)| Some((machine, holds.status.as_ref().ok()?.member))).collect();
    let missing: Vec<&Machine> = planes
        .stay()
        .chain(&planes.lost)
        .filter(|machine| !copy.content.nodes.contains_key(&machine.node.name))
        .collect();
    if !own.is_empty() {
        if !own.iter().any(|(_, id)| copy.content.knows(*id)) {
            let here: Vec<String> = own.iter().map(|(machine, id)| format!("{} is {id:016x}", machine.name)).collect();
            let why = format!(
                "it is of another cluster, or of a time before this etcd began: it knows the members {}, and {}",
                ids(&copy.content),
                here.join(", ")
            );
            return Err(unusable(why, Some(format!("name a snapshot that was taken of this etcd of {cluster}"))));
        }
    } else if missing.iter().any(|machine| machine.name == from.name) {
        let why = format!("that it is of {cluster} is not shown: it has no Node {}", from.node.name);
        return Err(unusable(why, Some(format!("name a snapshot of {cluster}"))));
    } else {
        notes.push(format!(
            "that {shown} is of {cluster} the names of its Nodes say, and nothing else: no member of its etcd tells who it is, and \
             another cluster may have such names too"
        ));
    }
    if !missing.is_empty() {
        notes.push(format!("{shown} has no Node of {}: it is of a time before they came", names(missing)));
    }
    Ok(notes)
}
