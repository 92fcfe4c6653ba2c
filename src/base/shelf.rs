//! How snapshots of etcd are called: `CLUSTER-2026-11-22T155536Z.snapshot`, with `.age` behind where they are encrypted.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

/// The moment in a name; as text it sorts as time does.
pub const STAMP: &str = "%Y-%m-%dT%H%M%SZ";
/// The end of the name of one that is not encrypted.
pub const PLAIN: &str = ".snapshot";
/// Of one that is.
pub const SEALED: &str = ".snapshot.age";
/// SHA-256 at the end of a snapshot: what is not larger is none.
pub const DIGEST: u64 = 32;

/// The name of a snapshot of a cluster.
pub fn name(cluster: &str, at: DateTime, sealed: bool) -> String {
    format!("{cluster}-{}{}", at.strftime(STAMP), if sealed { SEALED } else { PLAIN })
}

/// When a snapshot of the cluster was taken, by its name, as text; None: it is not named as ours are.
pub fn stamp<'n>(cluster: &str, name: &'n str) -> Option<&'n str> {
    let rest = name.strip_prefix(cluster)?.strip_prefix('-')?;
    let stamp = rest.strip_suffix(SEALED).or_else(|| rest.strip_suffix(PLAIN))?;
    // As it would be written: `strptime` takes less strict texts too, and years before Christ.
    let taken = DateTime::strptime(STAMP, stamp).ok().filter(|taken| taken.year() >= 0)?;
    (taken.strftime(STAMP).to_string() == stamp).then_some(stamp)
}

/// The same as a moment.
pub fn taken(cluster: &str, name: &str) -> Option<Timestamp> {
    let taken = DateTime::strptime(STAMP, stamp(cluster, name)?).ok()?;
    Some(taken.to_zoned(TimeZone::UTC).ok()?.timestamp())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_tells_its_moment() {
        let at = DateTime::constant(2026, 11, 22, 15, 55, 36, 0);
        let (plain, sealed) = (name("home", at, false), name("home", at, true));
        assert_eq!(
            (plain.as_str(), sealed.as_str()),
            ("home-2026-11-22T155536Z.snapshot", "home-2026-11-22T155536Z.snapshot.age")
        );
        for name in [&plain, &sealed] {
            assert_eq!(taken("home", name).unwrap().to_string(), "2026-11-22T15:55:36Z");
        }
        for other in
            ["hom-2026-11-22T155536Z.snapshot", "home-2026-11-22.snapshot", "home-2026-11-22T155536Z.snapshot.partial"]
        {
            assert_eq!(taken("home", other), None, "{other}");
        }
    }
}
