//! Names, partial files, and what `--keep` removes.

use super::*;

fn shelf(dir: &tempfile::TempDir) -> Shelf {
    Shelf::open(dir.path(), "homelab").unwrap()
}

fn now() -> Timestamp {
    "2026-11-21T22:30:15Z".parse().unwrap()
}

/// What is in a directory, by name.
fn there(dir: &tempfile::TempDir) -> Vec<String> {
    let mut names: Vec<String> =
        std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn only_names_of_our_own_form_are_ours() {
    let ours = ["homelab-2026-11-21T223015Z.snapshot", "homelab-0001-01-01T000000Z.snapshot.age"];
    for name in ours {
        assert_eq!(stamp("homelab", name).map(str::len), Some(18), "{name}");
    }
    let foreign = [
        "homelab-2026-11-21T223015Z.snapshot.bak",
        "homelab-2026-11-21T223015Z.snapshot.age.age",
        "homelab-2026-11-21T223015Z",
        "homelab-2026-11-21T22:30:15Z.snapshot",
        "homelab-2026-11-31T223015Z.snapshot",
        "homelab-2026-11-21T223061Z.snapshot",
        "homelab-2026-1-21T223015Z.snapshot",
        "homelab-26-11-21T223015Z.snapshot",
        "homelab-2026-11-21T223015z.snapshot",
        "homelab-2026-11-21T223015Z.snapshot ",
        "homelab--2026-11-21T223015Z.snapshot",
        "homelab-2-2026-11-21T223015Z.snapshot",
        "homelab2026-11-21T223015Z.snapshot",
        "Homelab-2026-11-21T223015Z.snapshot",
        "old-homelab-2026-11-21T223015Z.snapshot",
        ".homelab-2026-11-21T223015Z.snapshot.partial",
        "homelab-+026-11-21T223015Z.snapshot",
        "homelab.snapshot",
        "",
    ];
    for name in foreign {
        assert_eq!(stamp("homelab", name), None, "{name}");
    }
    assert_eq!(foreign.len(), 19);
    assert!(stamp("homelab-2", "homelab-2-2026-11-21T223015Z.snapshot").is_some());
}

/// A member of the etcd that was just copied.
const MEMBER: u64 = 0x9f1b_2c3d_4e5f_6071;

/// A snapshot with its digest.
fn made(data: &[u8]) -> Vec<u8> {
    [data, Sha256::digest(data).as_slice()].concat()
}

/// One that names that member.
fn sound() -> Vec<u8> {
    made(&[[7; 68].as_slice(), format!("{MEMBER:x}").as_bytes()].concat())
}

#[test]
fn the_newest_stay_and_what_is_foreign_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let of = |day: u32, end: &str| format!("homelab-2026-11-{day:02}T023000Z.snapshot{end}");
    let others = ["notes.txt", "other-2026-11-01T023000Z.snapshot", "homelab-2026-11-01T023000Z.snapshot.part"];
    let put = |name: &str, bytes: &[u8]| std::fs::write(dir.path().join(name), bytes).unwrap();
    others.into_iter().for_each(|name| put(name, &sound()));
    (1..=5).for_each(|day| put(&of(day, ""), &sound()));
    put(&of(6, ".age"), b"age-encryption.org/v1\n-> X25519 and so on");
    put(&of(7, ""), &[0; 32]);
    std::fs::create_dir(dir.path().join(of(8, ""))).unwrap();
    std::os::unix::fs::symlink("notes.txt", dir.path().join(of(9, ""))).unwrap();
    let new = of(20, "");
    put(&new, &sound());

    let all = shelf(&dir).tidy(&new, None, &[1, MEMBER]).unwrap();
    assert_eq!((all.kept.len(), all.removed.len(), all.broken), (7, 0, vec![of(7, "")]));
    let tidied = shelf(&dir).tidy(&new, Some(3), &[1, MEMBER]).unwrap();
    assert_eq!(tidied.kept, [new.clone(), of(6, ".age"), of(5, "")]);
    assert_eq!(tidied.removed, [of(4, ""), of(3, ""), of(2, ""), of(1, "")]);
    assert_eq!(there(&dir).len(), 3 + 3 + 3);
    assert_eq!(shelf(&dir).tidy(&new, Some(3), &[1, MEMBER]).unwrap().removed, Vec::<String>::new());
}

/// What a clock that was ahead has dated is not the newest, or each night would remove the last one's.
#[test]
fn what_is_dated_after_the_new_one_does_not_count() {
    let dir = tempfile::tempdir().unwrap();
    let of = |year: u32, day: u32| format!("homelab-{year}-11-{day:02}T023000Z.snapshot");
    let (ahead, own): (Vec<_>, Vec<_>) = (1..=7).map(|day| (of(2027, day), of(2026, day))).unzip();
    ahead.iter().chain(&own).for_each(|name| std::fs::write(dir.path().join(name), sound()).unwrap());
    let tidied = shelf(&dir).tidy(&own[6], Some(7), &[1, MEMBER]).unwrap();
    assert_eq!((tidied.kept.len(), tidied.ahead.len(), tidied.removed.len()), (7, 7, 0));
    let tidied = shelf(&dir).tidy(&own[6], Some(1), &[1, MEMBER]).unwrap();
    assert_eq!((tidied.kept, tidied.removed.len()), (vec![own[6].clone()], 6));
    assert_eq!(there(&dir).len(), 7 + 1);
}

/// Of what stays as many are whole as were asked for.
#[test]
fn what_is_not_whole_does_not_count() {
    let dir = tempfile::tempdir().unwrap();
    let of = |day: u32, end: &str| format!("homelab-2026-11-{day:02}T023000Z.snapshot{end}");
    let put = |name: &str, bytes: &[u8]| std::fs::write(dir.path().join(name), bytes).unwrap();
    (1..=3).for_each(|day| put(&of(day, ""), &sound()));
    let mut torn = sound();
    torn[3] ^= 1;
    put(&of(4, ""), &torn);
    put(&of(5, ""), &[0; 5_000]);
    put(&of(6, ".age"), &[0; 5_000]);
    put(&of(7, ""), &sound());
    let tidied = shelf(&dir).tidy(&of(7, ""), Some(3), &[1, MEMBER]).unwrap();
    assert_eq!(tidied.kept, [of(7, ""), of(3, ""), of(2, "")]);
    assert_eq!((tidied.broken, tidied.removed), (vec![of(6, ".age"), of(5, ""), of(4, "")], vec![of(1, "")]));
}

/// A name tells the cluster's name alone: what another etcd of that name has left is perhaps all that there is of it.
#[test]
fn what_names_no_member_of_this_etcd_neither_counts_nor_goes() {
    let dir = tempfile::tempdir().unwrap();
    let of = |day: u32, end: &str| format!("homelab-2026-11-{day:02}T023000Z.snapshot{end}");
    let put = |name: &str, bytes: &[u8]| std::fs::write(dir.path().join(name), bytes).unwrap();
    let other = made(&[b'7'; 68]);
    let mut torn = other.clone();
    torn[3] ^= 1;
    let mut own_torn = sound();
    own_torn[0] ^= 1;
    put(&of(1, ""), &torn);
    put(&of(2, ""), &own_torn);
    put(&of(3, ""), &other);
    put(&of(4, ".age"), b"age-encryption.org/v1\n-> X25519 and so on");
    put(&of(5, ""), &sound());
    put(&of(6, ""), &other);
    put(&of(7, ""), &sound());
    let tidied = shelf(&dir).tidy(&of(7, ""), Some(2), &[1, MEMBER]).unwrap();
    assert_eq!(tidied.kept, [of(7, ""), of(5, "")]);
    assert_eq!(tidied.foreign, [of(6, ""), of(3, "")]);
    assert_eq!((tidied.broken, tidied.removed), (vec![of(1, "")], vec![of(4, ".age"), of(2, "")]));
    assert_eq!(there(&dir).len(), 5);
    // Where no member is known none but encrypted ones go.
    let tidied = shelf(&dir).tidy(&of(7, ""), Some(1), &[]).unwrap();
    assert_eq!((tidied.foreign.len(), tidied.removed.len(), there(&dir).len()), (3, 0, 5));
}

/// What an empty file is.
fn nothing() -> Pressed {
    Pressed { size: 0, sha256: crate::base::digest::sha256(b"") }
}

#[test]
fn what_is_not_on_the_disk_as_it_was_written_is_not_kept() {
    let dir = tempfile::tempdir().unwrap();
    let partial = shelf(&dir).begin(now(), false).unwrap();
    std::fs::write(&partial.path, "late").unwrap();
    let error = partial.keep(&nothing()).unwrap_err();
    assert!(error.to_string().contains("is not what was written"), "{error}");
    assert_eq!(there(&dir), [""; 0]);
}

#[test]
fn a_partial_goes_unless_it_is_made_a_snapshot() {
    let dir = tempfile::tempdir().unwrap();
    let shelf = shelf(&dir);
    drop(shelf.begin(now(), false).unwrap());
    assert_eq!(there(&dir), [""; 0]);
    let name = "homelab-2026-11-21T223015Z.snapshot";
    let one = shelf.begin(now(), false).unwrap();
    let mode = std::fs::metadata(&one.path).unwrap().mode();
    assert_eq!((one.name.as_str(), mode & 0o777), (name, 0o600));
    assert_eq!(there(&dir), [format!(".{name}.partial")]);
    // In the same second: while it is being written, and afterwards.
    assert_eq!(shelf.begin(now(), false).unwrap().name, "homelab-2026-11-21T223016Z.snapshot");
    assert_eq!(one.keep(&nothing()).unwrap(), dir.path().join(name));
    assert_eq!(shelf.begin(now(), false).unwrap().name, "homelab-2026-11-21T223016Z.snapshot");
    assert_eq!(there(&dir), [name]);
    let gone = shelf.begin(now(), true).unwrap();
    std::fs::remove_file(&gone.path).unwrap();
    assert!(gone.keep(&nothing()).unwrap_err().to_string().contains("somebody removed it"));
    assert_eq!(there(&dir), [name]);
}

#[test]
fn what_a_killed_attempt_left_is_swept_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let shelf = shelf(&dir);
    let dead = ".homelab-2026-11-21T020000Z.snapshot.age.partial";
    let others = [
        ".other-2026-11-21T020000Z.snapshot.partial",
        "homelab-2026-11-21T020000Z.snapshot.partial",
        ".homelab-notes.partial",
        "homelab-2026-11-20T020000Z.snapshot",
    ];
    for name in others.iter().chain([&dead]) {
        std::fs::write(dir.path().join(name), "x").unwrap();
    }
    let alive = shelf.begin(now(), false).unwrap();
    assert_eq!(shelf.sweep().unwrap(), [dead]);
    assert_eq!(there(&dir).len(), others.len() + 1);
    assert!(alive.is_there());
    assert!(shelf.sweep().unwrap().is_empty());
}

#[test]
fn what_the_disk_says_has_a_way_out() {
    let cases = [
        (ErrorKind::StorageFull, "df -h '/my disk'"),
        (ErrorKind::QuotaExceeded, "`--keep`"),
        (ErrorKind::PermissionDenied, "ls -ld '/my disk'"),
        (ErrorKind::ReadOnlyFilesystem, "mounted read-only"),
        (ErrorKind::FileTooLarge, "ulimit -f"),
        (ErrorKind::Other, "findmnt -T"),
    ];
    for (kind, words) in cases {
        let said = format!("{:?}", disk("x", Path::new("/my disk"), &kind.into()));
        assert!(said.contains(words), "{said}");
    }
    assert_eq!(cases.len(), 6);
}

#[test]
fn what_is_no_directory_is_said_before_anything_is_asked() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "x").unwrap();
    for (path, words) in [(dir.path().join("no such"), "there is no directory"), (file, "is no directory")] {
        let error = Shelf::open(&path, "homelab").err().unwrap();
        assert!(error.to_string().contains(words), "{error}");
    }
}
