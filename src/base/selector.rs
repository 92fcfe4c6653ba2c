//! How a machine configuration names disks, and which of a node's disks that means.

use std::collections::BTreeMap;

use super::cel::{Cel, Value, glob};
use super::survey::{Disk, Layer, MachineConfig, SystemDisk, Talos};

/// One place of a configuration that names a disk.
#[derive(Debug, Clone)]
pub struct Selector<'c> {
    /// `machine.install.disk`, `UserVolumeConfig data`.
    pub place: String,
    /// How it names it.
    pub by: By<'c>,
    /// The label of the partition that is made there, empty where nothing is made there anew; None for the disk of the
    /// installation.
    pub volume: Option<String>,
}

/// How.
#[derive(Debug, Clone, Copy)]
pub enum By<'c> {
    /// By a path below `/dev`.
    Path(&'c str),
    /// `machine.install.diskSelector`.
    Fields(&'c BTreeMap<String, String>),
    /// By an expression.
    Cel(&'c str),
}

/// All of a configuration's. Data disks by path, `machine.disks`, are legacy: they are named, nothing is made there anew.
/// Nor is on an existing volume, which is chosen by what is on it (`volume.*`), not by its disk alone.
pub fn all(config: &MachineConfig) -> Vec<Selector<'_>> {
    let mut found = Vec::new();
    let install = &config.install;
    // The expression is of another document, which excludes the old form; a selector wins over a path.
    let (place, by) = if let Some(expression) = &install.expression {
        ("UnattendedInstallConfig", Some(By::Cel(expression)))
    } else if !install.selector.is_empty() {
        ("machine.install.diskSelector", Some(By::Fields(&install.selector)))
    } else {
        ("machine.install.disk", install.disk.as_deref().map(By::Path))
    };
    found.extend(by.map(|by| Selector { place: place.to_owned(), by, volume: None }));
    for path in &config.disks {
        found.push(Selector { place: "machine.disks".to_owned(), by: By::Path(path), volume: Some(String::new()) });
    }
    for named in &config.volumes {
        let label = match named.kind.as_str() {
            "UserVolumeConfig" => format!("u-{}", named.name),
            "RawVolumeConfig" => format!("r-{}", named.name),
            "SwapVolumeConfig" => format!("s-{}", named.name),
            "ExistingVolumeConfig" => String::new(),
            _ => named.name.clone(),
        };
        found.push(Selector {
            place: format!("{} {}", named.kind, named.name),
            by: By::Cel(&named.expression),
            volume: Some(label),
        });
    }
    found
}

impl Selector<'_> {
    /// As it stands there.
    pub fn shown(&self) -> String {
        match self.by {
            By::Path(path) => format!("{}: {path}", self.place),
            By::Fields(fields) => {
                let fields: Vec<String> = fields.iter().map(|(key, value)| format!("{key}: {value}")).collect();
                format!("{}: {{{}}}", self.place, fields.join(", "))
            }
            By::Cel(expression) => format!("{}: {expression}", self.place),
        }
    }

    /// Talos makes a user or raw volume on what it means, at once, where none is there.
    pub fn makes_a_volume(&self) -> bool {
        self.volume.as_deref().is_some_and(|label| label.starts_with("u-") || label.starts_with("r-"))
    }

    /// It goes by what is another disk after a boot with something else plugged in: the kernel's names, and the socket.
    pub fn moves(&self) -> bool {
        match self.by {
            By::Path(path) => {
                path.starts_with("/dev/disk/by-path/")
                    || path.strip_prefix("/dev/").is_some_and(|name| {
                        ["sd", "vd", "hd", "xvd", "nvme", "mmcblk"].iter().any(|kind| name.starts_with(kind))
                    })
            }
            By::Fields(fields) => fields.contains_key("busPath") || fields.contains_key("name"),
            By::Cel(expression) => Cel::read(expression).is_ok_and(|read| {
                ["disk.dev_path", "disk.bus_path", "/dev/disk/by-path/", "/dev/sd", "/dev/nvme"]
                    .iter()
                    .any(|what| read.names(what))
            }),
        }
    }

    /// The disks that it means, in the kernel's order.
    ///
    /// # Errors
    /// Why that cannot be told.
    pub fn means<'d>(&self, talos: &Talos, disks: &'d [Disk]) -> Result<Vec<&'d Disk>, String> {
        self.means_of(&talos.system_disk, disks)
    }

    /// As [`Selector::means`], where no more is known of the machine than the disk that it is installed on.
    ///
    /// # Errors
    /// As [`Selector::means`].
    pub fn means_of<'d>(&self, system: &Layer<SystemDisk>, disks: &'d [Disk]) -> Result<Vec<&'d Disk>, String> {
        let mut found = Vec::new();
        for disk in disks {
            let fits = match self.by {
                By::Path(path) => is_called(disk, path),
                By::Fields(fields) => has(disk, fields)?,
                By::Cel(expression) => Cel::read(expression)?.holds(&|name| field(system, disk, name))?,
            };
            if fits {
                found.push(disk);
            }
        }
        Ok(found)
    }
}

/// One expression for a drive by its serial number, or by model and size where it reports none in another slot. Fields of a
/// selector all have to hold; an alternative is an expression's alone. It does not mean another drive that has a serial
/// number of its own.
pub fn fallback(serial: &str, model: &str, size: u64) -> String {
    let text = |text: &str| format!("\"{}\"", text.trim().replace('\\', "\\\\").replace('"', "\\\""));
    let by_model = format!("disk.serial == \"\" && disk.model == {} && disk.size == {size}u", text(model));
    // Without a serial number its half of the expression would mean every drive that has none.
    if serial.trim().is_empty() { by_model } else { format!("disk.serial == {} || ({by_model})", text(serial)) }
}

/// By the kernel's name or one of udev's.
fn is_called(disk: &Disk, path: &str) -> bool {
    disk.dev_path == path || disk.symlinks.iter().any(|link| link == path)
}

/// A selector's fields as Talos turns them into an expression (`InstallConfig.DiskMatchExpression`): all have to hold.
fn has(disk: &Disk, fields: &BTreeMap<String, String>) -> Result<bool, String> {
    let mut all = !disk.transport.is_empty();
    for (key, wanted) in fields {
        all &= match key.as_str() {
            "size" => sized(disk.size, wanted)?,
            "model" => glob(wanted, &disk.model),
            "serial" => glob(wanted, &disk.serial),
            "wwid" => glob(wanted, &disk.wwid),
            "uuid" => glob(wanted, &disk.uuid),
            "busPath" => glob(wanted, &disk.bus_path),
            "type" => match wanted.as_str() {
                "nvme" => disk.transport == "nvme",
                "sd" => disk.transport == "mmc",
                "hdd" => disk.rotational,
                "ssd" => !disk.rotational,
                other => return Err(format!("Talos knows no type {other}")),
            },
            "modalias" => return Err("a disk's modalias is not read".to_owned()),
            "name" => return Err("Talos refuses a selector by name".to_owned()),
            other => return Err(format!("{other} is no key that is known here")),
        };
    }
    Ok(all)
}

/// `>= 100GB`, `4TiB`.
fn sized(size: u64, wanted: &str) -> Result<bool, String> {
    let wanted = wanted.trim();
    let (sign, rest) = [">=", "<=", "==", ">", "<"]
        .into_iter()
        .find_map(|sign| Some((sign, wanted.strip_prefix(sign)?)))
        .unwrap_or(("==", wanted));
    let bytes = bytes(rest).ok_or_else(|| format!("{wanted} is no size that is known here"))?;
    Ok(match sign {
        ">=" => size >= bytes,
        "<=" => size <= bytes,
        ">" => size > bytes,
        "<" => size < bytes,
        _ => size == bytes,
    })
}

/// As dustin/go-humanize `ParseBytes` reads it: units of 1000, those with an `i` of 1024.
fn bytes(text: &str) -> Option<u64> {
    let text: String = text.trim().chars().filter(|c| *c != ',').collect();
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len()));
    let unit = unit.trim().to_ascii_lowercase();
    let unit = unit.strip_suffix('b').unwrap_or(&unit);
    let (scale, base) = unit.strip_suffix('i').map_or((unit, 1000_u64), |scale| (scale, 1024));
    let power = ["", "k", "m", "g", "t", "p", "e"].iter().position(|known| *known == scale)?;
    let factor = base.checked_pow(u32::try_from(power).ok()?)?;
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(factor);
    }
    #[expect(clippy::cast_precision_loss, reason = "as go-humanize reckons")]
    let value = number.parse::<f64>().ok()? * factor as f64;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked to be in range")]
    (0.0..1.8e19).contains(&value).then_some(value as u64)
}

/// What an expression may ask of a disk. Read-only ones and CD drives are not among those of a survey.
fn field(system: &Layer<SystemDisk>, disk: &Disk, name: &str) -> Option<Value> {
    let text = |text: &str| Some(Value::Text(text.to_owned()));
    match name {
        "disk.dev_path" => text(&disk.dev_path),
        "disk.size" => Some(Value::Uint(disk.size)),
        "disk.model" => text(&disk.model),
        "disk.serial" => text(&disk.serial),
        "disk.wwid" => text(&disk.wwid),
        "disk.uuid" => text(&disk.uuid),
        "disk.bus_path" => text(&disk.bus_path),
        "disk.transport" => text(&disk.transport),
        "disk.rotational" => Some(Value::Bool(disk.rotational)),
        "disk.readonly" | "disk.cdrom" => Some(Value::Bool(false)),
        "disk.symlinks" => Some(Value::List(disk.symlinks.iter().cloned().map(Value::Text).collect())),
        "system_disk" => match system {
            Layer::Known(system) => Some(Value::Bool(system.id == disk.id)),
            Layer::Absent => Some(Value::Bool(false)),
            Layer::Unknown { .. } => None,
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_talos_reads_them() {
        let cases = [
            ("100GB", Some(100_000_000_000)),
            ("4TiB", Some(4 << 40)),
            (" 42 mb", Some(42_000_000)),
            ("1.5k", Some(1_500)),
            ("7", Some(7)),
            ("1,005 B", Some(1_005)),
            ("12 parsecs", None),
            ("", None),
            ("99999999999999999999", None),
            ("99999999EB", None),
        ];
        assert_eq!(cases.len(), 10);
        for (text, wanted) in cases {
            assert_eq!(bytes(text), wanted, "{text}");
        }
        for (text, wanted) in [(">= 1TB", true), ("> 1TB", false), ("<= 1TB", true), ("1TB", true), ("< 1TB", false)] {
            assert_eq!(sized(1_000_000_000_000, text), Ok(wanted), "{text}");
        }
    }

    #[test]
    fn a_fall_back_is_one_expression_that_is_read_back() {
        let said = fallback("S1", "WD \"B\" \\ 2TB", 1_024_209_543_168);
        assert_eq!(
            said,
            r#"disk.serial == "S1" || (disk.serial == "" && disk.model == "WD \"B\" \\ 2TB" && disk.size == 1024209543168u)"#
        );
        let cases = [
            (("S1", "another", 1), true),
            (("", "WD \"B\" \\ 2TB", 1_024_209_543_168), true),
            (("", "WD \"B\" \\ 2TB", 1_024_209_543_169), false),
            (("", "another", 1_024_209_543_168), false),
            (("S2", "WD \"B\" \\ 2TB", 1_024_209_543_168), false),
        ];
        assert_eq!(cases.len(), 5);
        let read = Cel::read(&said).unwrap();
        for ((serial, model, size), expected) in cases {
            let holds = read.holds(&|name| match name {
                "disk.serial" => Some(Value::Text(serial.to_owned())),
                "disk.model" => Some(Value::Text(model.to_owned())),
                "disk.size" => Some(Value::Uint(size)),
                _ => None,
            });
            assert_eq!(holds, Ok(expected), "{serial} {model} {size}");
        }
        assert_eq!(fallback(" ", "M", 7), r#"disk.serial == "" && disk.model == "M" && disk.size == 7u"#);
        let by = Selector { place: String::new(), by: By::Cel(&said), volume: None };
        assert!(!by.moves());
    }

    #[test]
    fn all_fields_have_to_hold() {
        let disk = Disk {
            model: "Samsung SSD 980".into(),
            transport: "nvme".into(),
            size: 1_000_204_886_016,
            ..Disk::default()
        };
        let of = |fields: &[(&str, &str)]| {
            let fields = fields.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
            has(&disk, &fields)
        };
        for (fields, wanted) in [
            (&[("model", "Samsung*"), ("type", "ssd")][..], Ok(true)),
            (&[("model", "Samsung*"), ("type", "hdd")], Ok(false)),
            (&[("model", "Samsung")], Ok(false)),
            (&[("size", ">= 500GB"), ("type", "nvme"), ("serial", "")], Ok(true)),
            (&[("type", "tape")], Err("Talos knows no type tape".to_owned())),
            (&[("modalias", "x")], Err("a disk's modalias is not read".to_owned())),
        ] {
            assert_eq!(of(fields), wanted, "{fields:?}");
        }
        let dm = Disk { transport: String::new(), ..disk.clone() };
        assert_eq!(has(&dm, &BTreeMap::new()), Ok(false));
    }
}
