//! `pvemig survey --hardware [--to FILE] [NODE]...`: what nodes and hosts are made of, as an inventory file.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use serde_json::Value;

use crate::base::drives::sheet::Sheet;

use super::super::args::SurveyArgs;
use super::super::exit::Exit;
use super::super::fail::{self, Words};
use super::super::out::Out;
use super::super::session::{Session, plural};

/// Asks once, and writes. Nothing that is there is written over unasked.
pub(super) async fn hardware(session: &Session, args: &SurveyArgs, out: &Out) -> anyhow::Result<Exit> {
    named(session, &args.nodes)?;
    // Before anybody is asked anything: it may take its time.
    if let Some(file) = args.to.as_ref().filter(|file| file.is_dir() || !args.force && file.symlink_metadata().is_ok())
    {
        return Err(taken(file).into());
    }
    let sheet = session.estate.hardware(&args.nodes).await.map_err(fail::failure)?;
    let yaml = serde_saphyr::to_string(&sheet)?;
    if let Some(file) = &args.to {
        put(file, yaml.as_bytes(), args.force).map_err(|error| match error.kind() {
            ErrorKind::AlreadyExists if !args.force => taken(file),
            kind => Words::new(
                Exit::Failed,
                format!("{} cannot be written: {error}", file.display()),
                vec![writable(file, kind)],
            ),
        })?;
        tell(file, &sheet, out)?;
    }
    match (out.json, &args.to) {
        (true, _) => out.data(&format!("{}\n", serde_json::to_string(&sheet)?))?,
        (false, None) => out.data(&yaml)?,
        (false, Some(_)) => {}
    }
    Ok(Exit::Done)
}

/// Refuses what tells nothing of itself.
fn named(session: &Session, names: &[String]) -> Result<(), Words> {
    let site = &session.site;
    let hosts: Vec<_> = site.proxmox.values().flat_map(|cluster| &cluster.hosts).collect();
    let known: Vec<&String> = site.talos_node_names.iter().chain(hosts.iter().map(|(name, _)| *name)).collect();
    let slots = hosts.iter().any(|(_, host)| !host.slots.is_empty());
    if names.is_empty() && site.talos_node_names.is_empty() && !slots {
        let text = "the site file has no Talos node, and no Proxmox host with `slots`";
        return Err(Words::usage(text, "describe the one or the other; `pvemig site example` shows how"));
    }
    match names.iter().find(|name| !known.contains(name)) {
        None => Ok(()),
        Some(name) => {
            let all: Vec<_> = known.iter().map(|name| format!("`{name}`")).collect();
            let what = if site.node_names.contains(name) {
                format!("`{name}` is a VM: what it is made of is what its host gives it")
            } else {
                format!("the site file has no Talos node or Proxmox host `{name}`")
            };
            let help = if all.is_empty() { "it has none".into() } else { format!("there is {}", all.join(", ")) };
            Err(Words::usage(what, help))
        }
    }
}

fn taken(file: &Path) -> Words {
    if file.is_dir() {
        let help = format!("name a file in it: `--to {}`", file.join("inventory.yaml").display());
        return Words::usage(format!("{} is a directory", file.display()), help);
    }
    let help = "`--force` writes over it; else name another file";
    Words::usage(format!("{} is there already", file.display()), help)
}

/// What to do where a file cannot be written.
fn writable(file: &Path, kind: ErrorKind) -> String {
    let dir = file.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    match kind {
        ErrorKind::NotFound => format!("make its directory first: `mkdir -p {}`", dir.display()),
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
            "name a file in a directory that you may write to, or leave `--to` out: it goes to the screen then"
                .to_owned()
        }
        _ => format!("see what is wrong with {}, or name another file", dir.display()),
    }
}

/// A file that everybody may read: a new one, or with `force` in the place of another one as a whole.
fn put(file: &Path, bytes: &[u8], force: bool) -> io::Result<()> {
    let place = if force { file.canonicalize().unwrap_or_else(|_| file.to_owned()) } else { file.to_owned() };
    let draft = if force {
        let name = place.file_name().ok_or_else(|| io::Error::other("it names no file"))?;
        place.with_file_name(format!(".{}.{}", name.to_string_lossy(), std::process::id()))
    } else {
        place.clone()
    };
    let mut written = OpenOptions::new().write(true).create_new(true).mode(0o644).open(&draft)?;
    let mut done = written.write_all(bytes).and_then(|()| written.sync_all());
    if force {
        done = done.and_then(|()| std::fs::rename(&draft, &place));
    }
    if done.is_err() {
        // The half of it is none; that it cannot be removed is less than why it could not be written.
        let _left = std::fs::remove_file(&draft);
    }
    done
}

/// What was written, and each reason for something that is not known in it once.
fn tell(file: &Path, sheet: &Sheet, out: &Out) -> anyhow::Result<()> {
    let nodes = sheet.nodes.values().filter_map(|told| Some(&told.get().ok()?.bays));
    let bays = nodes.chain(sheet.hosts.values().filter_map(|told| told.get().ok()));
    let drives: usize = bays.filter_map(|bays| bays.drives.get().ok()).map(Vec::len).sum();
    let each = [(sheet.nodes.len(), "node"), (sheet.hosts.len(), "host"), (drives, "drive")];
    let each: Vec<_> = each.iter().filter(|(count, _)| *count > 0).map(|(count, what)| plural(*count, what)).collect();
    out.say(&format!("{}: {}", file.display(), each.join(", ")));
    let mut reasons = BTreeMap::new();
    collect(&serde_json::to_value(sheet)?, &mut reasons);
    for (reason, (count, help)) in reasons {
        let times = if count > 1 { format!(" ({})", plural(count, "time")) } else { String::new() };
        out.tell("  ? ", &format!("not known{times}: {reason}"), 4);
        if let Some(help) = help {
            out.tell("    help: ", &help, 10);
        }
    }
    Ok(())
}

fn collect(value: &Value, reasons: &mut BTreeMap<String, (usize, Option<String>)>) {
    match value {
        Value::Object(fields) => {
            if let Some(reason) = fields.get("unknown").and_then(Value::as_str) {
                let found = reasons.entry(reason.to_owned()).or_default();
                found.0 += 1;
                found.1 = fields.get("help").and_then(Value::as_str).map(str::to_owned).or(found.1.take());
            }
            fields.values().for_each(|value| collect(value, reasons));
        }
        Value::Array(all) => all.iter().for_each(|value| collect(value, reasons)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn nothing_is_written_over_unasked_and_nothing_is_left_of_an_attempt() {
        let dir = tempfile::tempdir().unwrap();
        let names = || std::fs::read_dir(dir.path()).unwrap().count();
        let file = dir.path().join("nuc.yaml");
        put(&file, b"one", false).unwrap();
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777 & !0o022, 0o644);
        assert_eq!(put(&file, b"two", false).unwrap_err().kind(), ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read(&file).unwrap(), b"one");
        put(&file, b"two", true).unwrap();
        assert_eq!((std::fs::read(&file).unwrap().as_slice(), names()), (b"two".as_slice(), 1));
        // A link stays one.
        let link = dir.path().join("link.yaml");
        std::os::unix::fs::symlink(&file, &link).unwrap();
        assert!(put(&link, b"three", false).is_err());
        put(&link, b"three", true).unwrap();
        assert_eq!((std::fs::read(&file).unwrap().as_slice(), names()), (b"three".as_slice(), 2));
        assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink());
        // A directory is none.
        assert!(put(dir.path(), b"four", true).is_err());
        assert_eq!(put(&dir.path().join("no/nuc.yaml"), b"four", true).unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(names(), 2);
    }

    #[test]
    fn a_reason_is_counted_wherever_it_stands() {
        let value = serde_json::json!({
            "a": { "unknown": "denied" },
            "b": [{ "link": { "unknown": "denied", "help": "ask" } }, { "unknown": "silent" }],
            "unknown-things": 1,
        });
        let mut reasons = BTreeMap::new();
        collect(&value, &mut reasons);
        assert_eq!(reasons["denied"], (2, Some("ask".to_owned())));
        assert_eq!((reasons["silent"].clone(), reasons.len()), ((1, None), 2));
    }
}
