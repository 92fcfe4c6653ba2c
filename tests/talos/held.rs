//! What a node tells of its disk: the messages that are sent, and errors that stand inside of an answer that is OK.

use pvemig::talos::Error;

use super::fake::{Says, msg, num, text};
use super::reading::sent;
use super::{Wire, machine};

/// An entry of a list: its path, its size, what is said of it, and its path from the root on.
fn info(name: &str, size: u64, error: &str, relative: &str) -> Vec<u8> {
    let error = if error.is_empty() { Vec::new() } else { text(7, error) };
    [text(2, name), num(3, size), num(5, 1_700_000_000), error, text(9, relative)].concat()
}

#[tokio::test]
async fn a_directory_is_listed_one_deep_with_what_could_not_be_looked_at() {
    let wire = Wire::start().await;
    let root = [text(2, "/var/lib"), num(6, 1), text(9, ".")].concat();
    let lib = [text(2, "/var/lib/etcd"), num(3, 4096), num(5, 1_700_000_000), num(6, 1), text(9, "etcd")].concat();
    let answers = vec![
        root.clone(),
        lib,
        info("/var/lib/db", 20_480, "", "db"),
        info("/var/lib/films", 0, "lstat /var/lib/films: input/output error", "films"),
        info("/var/lib/gone", 0, "lstat /var/lib/gone: no such file or directory", "gone"),
        info("/var/lib/etcd/member", 7, "", "etcd/member"),
    ];
    wire.fake.on(&machine("List"), Says::Ok(answers));
    let entries = wire.talos.dir("/var/lib").await.unwrap();
    // Its path, that it goes into what is below, and how deep.
    let message = [text(1, "/var/lib"), num(2, 1), num(3, 1)].concat();
    assert_eq!(sent(&wire.one()), (machine("List").as_str(), message.as_slice()));
    let seen: Vec<_> = entries.iter().map(|e| (e.name.as_str(), e.size, e.is_dir, e.error.as_deref())).collect();
    let broken = Some("lstat /var/lib/films: input/output error");
    assert_eq!(seen, [("etcd", 4096, true, None), ("db", 20_480, false, None), ("films", 0, false, broken)]);
    assert_eq!(entries[1].modified.unwrap().as_second(), 1_700_000_000);

    // Of the directory itself: that it is not there, and that nobody knows.
    let of_root = |error: &str| Says::Ok(vec![info("/var/lib", 0, error, ".")]);
    let cases = [
        (of_root("lstat /var/lib: no such file or directory"), true),
        (Says::Ok(vec![[msg(1, &[text(2, "open /var/lib: no such file or directory")])].concat()]), true),
        (Says::Status(Vec::new(), 2, "lstat /var/lib: no such file or directory"), true),
        (of_root("open /var/lib: permission denied"), false),
        (Says::Ok(vec![root, msg(1, &[text(2, "readdir: input/output error")])]), false),
        (Says::Ok(Vec::new()), false),
    ];
    for (says, gone) in cases.clone() {
        let wire = Wire::start().await;
        wire.fake.on(&machine("List"), says.clone());
        let error = wire.talos.dir("/var/lib").await.unwrap_err();
        assert_eq!(matches!(error, Error::NotFound { .. }), gone, "{says:?}: {error:?}");
    }
    assert_eq!(cases.len(), 6);
}

#[tokio::test]
async fn how_much_a_directory_holds_is_told_only_where_all_of_it_was_counted() {
    let usage = |name: &str, size: u64, error: &str| {
        let error = if error.is_empty() { Vec::new() } else { text(4, error) };
        [text(2, name), num(3, size), error, text(5, ".")].concat()
    };
    let wire = Wire::start().await;
    let below = usage("/var/local/films", 4096, "");
    let went = usage("/var/local/tmp", 0, "lstat /var/local/tmp: no such file or directory");
    wire.fake.on(&machine("DiskUsage"), Says::Ok(vec![below.clone(), went, usage("/var/local", 9000, "")]));
    assert_eq!(wire.talos.disk_usage("/var/local").await.unwrap(), 9000);
    let message = [num(1, 1), text(4, "/var/local")].concat();
    assert_eq!(sent(&wire.one()), (machine("DiskUsage").as_str(), message.as_slice()));

    let cases = [
        (vec![usage("/var/local", 0, "lstat /var/local: no such file or directory")], true, ""),
        (vec![usage("/var/local", 0, "open /var/local: permission denied")], false, "permission denied"),
        // Its sum is there, and too small.
        (
            vec![usage("/var/local/films", 0, "readdirent: input/output error"), usage("/var/local", 4096, "")],
            false,
            "/var/local/films: readdirent: input/output error",
        ),
        (vec![msg(1, &[text(2, "i/o timeout")])], false, "i/o timeout"),
        (vec![below], false, "the directory itself is not in it"),
        (Vec::new(), false, "the directory itself is not in it"),
    ];
    for (answers, gone, words) in cases.clone() {
        let wire = Wire::start().await;
        wire.fake.on(&machine("DiskUsage"), Says::Ok(answers));
        let error = wire.talos.disk_usage("/var/local").await.unwrap_err();
        assert_eq!(matches!(error, Error::NotFound { .. }), gone, "{words}: {error:?}");
        assert!(error.to_string().contains(words), "{words}: {error}");
    }
    assert_eq!(cases.len(), 6);
}
