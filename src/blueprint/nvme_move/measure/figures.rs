//! What a measurement came to: read from what the pod leaves, kept with the run, and told beside an earlier one.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::base::check::bytes;
use crate::base::drives::{Inventory, Purpose};

/// The figures of one measurement, as the run keeps them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Figures {
    /// When they were taken.
    pub(super) taken: jiff::Timestamp,
    /// The node.
    pub(super) node: String,
    /// How much was written and read, in each volume.
    pub(super) bytes: u64,
    /// By the name that the pod has the volume by.
    pub(super) volumes: BTreeMap<String, Volume>,
    /// The drives of which nothing was measured, and why, a line each.
    pub(super) not_measured: Vec<String>,
}

/// A file system of the node, and how fast it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Volume {
    /// Where it is mounted: `/var/mnt/media`.
    pub(super) path: String,
    /// The drive that it is on, by its serial number; none: that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) drive: Option<String>,
    /// What came of it.
    #[serde(flatten)]
    pub(super) told: Told,
}

/// What the pod says of a volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum Told {
    /// Bytes in a second.
    Is {
        /// Written.
        write: u64,
        /// Read.
        read: u64,
        /// The file system refused `O_DIRECT`: what was read came out of the page cache.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        cached: bool,
        /// `dd` did not tell how long it took: by a clock of hundredths of a second.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        coarse: bool,
    },
    /// It was left out, and why.
    Not {
        /// In the pod's words.
        skipped: String,
    },
}

/// A file system that is to be measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// By which name the pod has it.
    pub(super) name: String,
    /// Where the node has it.
    pub(super) path: String,
    /// The drive that it is on.
    pub(super) drive: Option<String>,
}

/// What of a machine is on its system disk and holds nobody's volumes alone.
pub(super) const SYSTEM: &str = "/var";

impl Place {
    /// A mount of a node; None where the pod could not name it.
    pub(super) fn of(path: &str, live: Option<&Inventory>) -> Option<Self> {
        let name = path.strip_prefix('/')?.replace('/', ".");
        let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if name.is_empty() || !name.chars().all(good) {
            return None;
        }
        let purpose = match path.strip_prefix("/var/mnt/") {
            Some(volume) => Purpose::UserVolume(volume.to_owned()),
            None if path == SYSTEM => Purpose::System,
            None => return Some(Self { name, path: path.to_owned(), drive: None }),
        };
        let drive = live.and_then(|live| live.drives.iter().find(|drive| drive.purposes.contains(&purpose)));
        Some(Self { name, path: path.to_owned(), drive: drive.map(|drive| drive.shown()) })
    }

    /// In words.
    fn words(path: &str, drive: Option<&str>) -> String {
        let what = if path == SYSTEM { format!("{path} (system disk)") } else { path.to_owned() };
        drive.map_or(what.clone(), |drive| format!("{what} on {drive}"))
    }
}

/// The drives that no place is on, and why nothing is measured of them.
pub(super) fn left_out(places: &[Place], live: &Inventory) -> Vec<String> {
    let measured = |name: &str| places.iter().any(|place| place.drive.as_deref() == Some(name));
    let left = live.drives.iter().filter(|drive| !measured(&drive.shown()));
    left.map(|drive| {
        let raw = drive.purposes.iter().find(|one| matches!(one, Purpose::RawVolume(_) | Purpose::Mayastor(_)));
        let why = match raw {
            Some(raw) => format!("it is {raw}, and what writes to a raw drive destroys what is on it"),
            None => "no file system of it is mounted".to_owned(),
        };
        format!("{} is not measured: {why}", drive.shown())
    })
    .collect()
}

/// What a pod has left, by the names of the volumes.
///
/// # Errors
/// Why it is no such thing.
pub(super) fn read(message: &str, places: &[Place]) -> Result<BTreeMap<String, Volume>, String> {
    let mut told: BTreeMap<String, Told> = serde_json::from_str(message).map_err(|error| error.to_string())?;
    let volume = |place: &Place| {
        let silent = || Told::Not { skipped: "the pod told nothing of it".into() };
        let told = told.remove(&place.name).unwrap_or_else(silent);
        (place.name.clone(), Volume { path: place.path.clone(), drive: place.drive.clone(), told })
    };
    Ok(places.iter().map(volume).collect())
}

impl Figures {
    /// A line for each volume, beside what was measured before where that is known, and for each drive that was left out.
    /// `beside`: whether there is to be something before; then what is missing of it is said.
    pub(super) fn lines(&self, before: Option<&Self>, beside: bool) -> Vec<String> {
        let mut lines: Vec<String> = Vec::new();
        for (name, now) in &self.volumes {
            let then = before.and_then(|before| before.volumes.get(name));
            let head = Place::words(&now.path, now.drive.as_deref());
            let Told::Is { write, read, cached, coarse } = now.told else {
                if let Told::Not { skipped } = &now.told {
                    lines.push(format!("{head} is not measured: {skipped}"));
                }
                continue;
            };
            let mut line = match then.map(|then| (&then.told, then)) {
                Some((Told::Is { write: wrote, read: had, .. }, then)) => {
                    let other = match (&then.drive, &now.drive) {
                        (Some(then), Some(now)) if then != now => format!("; before it was on {then}"),
                        _ => String::new(),
                    };
                    let slower = if less(*wrote, write) || less(*had, read) {
                        "; that is slower: `pvemig survey --hardware` shows the drive's link, whose lanes or speed a slot may lack"
                    } else {
                        ""
                    };
                    format!(
                        "{head} writes {}, reads {}{other}{slower}",
                        beside_of(*wrote, write),
                        beside_of(*had, read)
                    )
                }
                other => {
                    let why = match other {
                        Some((Told::Not { skipped }, _)) => format!(" (not measured before: {skipped})"),
                        _ if before.is_some() => " (new: there was no such volume before)".to_owned(),
                        _ if beside => " (not measured before)".to_owned(),
                        _ => String::new(),
                    };
                    format!("{head} writes {}/s, reads {}/s{why}", bytes(write), bytes(read))
                }
            };
            if cached {
                line.push_str(
                    "; it refuses O_DIRECT: what was read came out of memory, and tells nothing of the drive",
                );
            }
            if coarse {
                line.push_str("; the image's `dd` tells no time: a clock of hundredths of a second did");
            }
            lines.push(line);
        }
        let gone = before.into_iter().flat_map(|before| &before.volumes);
        for (_, volume) in gone.filter(|(name, _)| !self.volumes.contains_key(*name)) {
            let what = Place::words(&volume.path, volume.drive.as_deref());
            lines.push(format!("{what} was measured before, and is not mounted now"));
        }
        lines.extend(self.not_measured.iter().cloned());
        lines
    }
}

/// Clearly slower: the figures of one drive differ by some percent from one time to the next.
fn less(then: u64, now: u64) -> bool {
    now / 4 < then / 5
}

fn beside_of(then: u64, now: u64) -> String {
    let part = match i64::try_from((u128::from(now) * 100).checked_div(u128::from(then)).unwrap_or(100)) {
        Ok(percent) => percent - 100,
        Err(_) => 0,
    };
    let sign = if part >= 0 { "+" } else { "" };
    format!("{}/s (before {}/s, {sign}{part} %)", bytes(now), bytes(then))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::drives::Drive;

    fn drive(serial: &str, purposes: &[Purpose]) -> Drive {
        Drive { serial: serial.into(), purposes: purposes.to_vec(), ..Drive::default() }
    }

    fn live() -> Inventory {
        let drives = vec![
            drive("SYS", &[Purpose::System]),
            drive("DATA", &[Purpose::UserVolume("media".into()), Purpose::Local("films".into())]),
            drive("POOL", &[Purpose::Mayastor("pool-a".into())]),
            drive("NEW", &[Purpose::Spare]),
        ];
        Inventory { drives, ..Inventory::default() }
    }

    fn places() -> Vec<Place> {
        ["/var", "/var/mnt/media"].map(|path| Place::of(path, Some(&live())).unwrap()).into()
    }

    fn figures(message: &str) -> Figures {
        let taken = jiff::Timestamp::UNIX_EPOCH;
        let (volumes, places) = (read(message, &places()).unwrap(), places());
        Figures { taken, node: "n".into(), bytes: 7, volumes, not_measured: left_out(&places, &live()) }
    }

    #[test]
    fn a_mount_is_named_by_its_path_and_knows_its_drive() {
        let shown: Vec<_> = places().into_iter().map(|place| (place.name, place.drive.unwrap())).collect();
        let expected = [("var", "SYS"), ("var.mnt.media", "DATA")];
        assert_eq!(shown, expected.map(|(name, drive)| (name.to_owned(), drive.to_owned())));
        assert_eq!(Place::of("/var/mnt/other", Some(&live())).unwrap().drive, None);
        assert_eq!(Place::of("/var/mnt/media", None).unwrap().drive, None);
        for bad in ["", "/", "var", "/var/mnt/a b", "/var/mnt/\"", "/var/mnt/ä"] {
            assert_eq!(Place::of(bad, None), None, "{bad}");
        }
    }

    #[test]
    fn what_a_pod_leaves_is_read_as_it_is_or_not_at_all() {
        let told =
            read(r#"{"var":{"write":1,"read":2,"cached":true},"else":{"write":3,"read":4}}"#, &places()).unwrap();
        assert_eq!(told.len(), 2);
        assert_eq!(told["var"].told, Told::Is { write: 1, read: 2, cached: true, coarse: false });
        assert_eq!(told["var.mnt.media"].told, Told::Not { skipped: "the pod told nothing of it".into() });
        for bad in ["", "{", "[]", r#"{"var":{"write":1}}"#, r#"{"var":{"write":-1,"read":2}}"#, "sh: dd: not found"] {
            assert!(read(bad, &places()).is_err(), "{bad}");
        }
        // What is kept is read again.
        let figures = figures(r#"{"var":{"skipped":"no room"},"var.mnt.media":{"write":1,"read":2}}"#);
        let text = serde_json::to_string(&figures).unwrap();
        assert_eq!(serde_json::from_str::<Figures>(&text).unwrap(), figures);
    }

    #[test]
    fn a_volume_is_told_beside_what_it_was_and_what_is_not_measured_is_told_too() {
        let raw = [
            "POOL is not measured: it is mayastor pool-a, and what writes to a raw drive destroys what is on it",
            "NEW is not measured: no file system of it is mounted",
        ];
        let of = |message: &str, before: Option<&str>, beside: bool| {
            let mut lines = figures(message).lines(before.map(figures).as_ref(), beside);
            assert_eq!(lines.split_off(lines.len() - 2), raw);
            lines
        };
        let both = |w: u64, r: u64| {
            let m = 1 << 20;
            format!(r#"{{"var":{{"write":{},"read":{}}},"var.mnt.media":{{"write":{m},"read":{m}}}}}"#, w * m, r * m)
        };
        let data = "/var/mnt/media on DATA writes 1.0 MiB/s (before 1.0 MiB/s, +0 %), reads 1.0 MiB/s (before 1.0 MiB/s, +0 %)";
        let alone = "/var/mnt/media on DATA writes 1.0 MiB/s, reads 1.0 MiB/s";
        assert_eq!(
            of(&both(10, 20), None, false),
            ["/var (system disk) on SYS writes 10.0 MiB/s, reads 20.0 MiB/s", alone]
        );
        let new = " (not measured before)";
        assert_eq!(of(&both(10, 20), None, true)[1], format!("{alone}{new}"));
        // A tenth less is what differs anyhow.
        let head = "/var (system disk) on SYS writes";
        assert_eq!(
            of(&both(9, 22), Some(&both(10, 20)), true),
            [
                format!("{head} 9.0 MiB/s (before 10.0 MiB/s, -10 %), reads 22.0 MiB/s (before 20.0 MiB/s, +10 %)"),
                data.into()
            ]
        );
        let slower = &of(&both(10, 9), Some(&both(10, 20)), true)[0];
        assert!(slower.contains("-55 %)") && slower.contains("that is slower: `pvemig survey --hardware`"), "{slower}");
        let skipped = r#"{"var":{"skipped":"no room"},"var.mnt.media":{"write":1048576,"read":1048576,"cached":true,"coarse":true}}"#;
        let lines = of(skipped, Some(&both(1, 1)), true);
        assert_eq!(lines[0], "/var (system disk) on SYS is not measured: no room");
        assert!(lines[1].starts_with(data) && lines[1].contains("refuses O_DIRECT") && lines[1].contains("hundredths"));
        let lines = of(&both(1, 1), Some(skipped), true);
        assert!(lines[0].ends_with("reads 1.0 MiB/s (not measured before: no room)"), "{lines:?}");
    }

    #[test]
    fn a_volume_that_is_new_or_gone_or_on_another_drive_is_told_as_that() {
        let volume = |drive: &str| Volume {
            path: "/var/mnt/media".into(),
            drive: Some(drive.into()),
            told: Told::Is { write: 1 << 20, read: 1 << 20, cached: false, coarse: false },
        };
        let with = |volumes: &[(&str, &str)]| Figures {
            taken: jiff::Timestamp::UNIX_EPOCH,
            node: "n".into(),
            bytes: 7,
            volumes: volumes.iter().map(|(name, drive)| ((*name).to_owned(), volume(drive))).collect(),
            not_measured: Vec::new(),
        };
        let lines = with(&[("a", "X"), ("b", "Y")]).lines(Some(&with(&[("b", "Z"), ("c", "Z")])), true);
        assert_eq!(lines.len(), 3);
        assert!(lines[0].ends_with("(new: there was no such volume before)"), "{lines:?}");
        assert!(lines[1].ends_with("+0 %); before it was on Z"), "{lines:?}");
        assert_eq!(lines[2], "/var/mnt/media on Z was measured before, and is not mounted now");
    }
}
