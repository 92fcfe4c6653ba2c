//! What 03 leaves for who cannot ask the machine any more: where its drives were, and who else was up.

use futures::future::join_all;

use crate::base::drives::Layout;
use crate::base::fault::Failure;
use crate::blueprint::backup::kept;
use crate::engine::step::RunInfo;
use crate::estate::Estate;

use super::on;

/// The peers that answered when it went off.
pub(super) const PEERS: &str = "peers.json";

/// The nth file with where the drives were when it went off; it may go off more than once in a run.
pub(super) fn layout_file(n: usize) -> String {
    format!("layout-{n}.json")
}

/// The nth file of when a VM, or a machine whose power nothing sees, was about to go off: the boot that it was in.
pub(super) fn on_file(n: usize) -> String {
    format!("on-{n}.json")
}

/// The same, once it had gone off.
pub(super) fn off_file(n: usize) -> String {
    format!("off-{n}.json")
}

/// The file of 05 that the VM was about to be started after it had gone off the nth time.
pub(super) fn started_file(n: usize) -> String {
    format!("started-{n}.json")
}

/// The nth file of a step that has the node leave etcd: the boot in which it was about to.
pub(super) fn left_file(n: usize) -> String {
    format!("left-{n}.json")
}

/// Whether this run has had the node leave etcd in a boot: that of 02a, or one in which 03 had it leave once more.
///
/// # Errors
/// What was kept cannot be read.
pub(super) fn left_in(run: &RunInfo, boot: &str) -> Result<bool, Failure> {
    for step in [on::LEAVE, on::SHUTDOWN] {
        for n in 0..count(run, step, left_file)? {
            let name = left_file(n);
            if kept(run, step, &name, &name)?.as_deref() == Some(boot.as_bytes()) {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// How many files of such names a step has kept.
pub(super) fn count(run: &RunInfo, step: &str, file: fn(usize) -> String) -> Result<usize, Failure> {
    let mut n = 0;
    while kept(run, step, &file(n), &file(n))?.is_some() {
        n += 1;
    }
    Ok(n)
}

/// How often this run was about to switch the VM off.
pub(super) fn times(run: &RunInfo) -> Result<usize, Failure> {
    count(run, on::SHUTDOWN, on_file)
}

/// This run has switched the VM off, has seen that it went off, and has not started it since.
///
/// # Errors
/// What was kept cannot be read.
pub(super) fn went_off(run: &RunInfo) -> Result<bool, Failure> {
    let Some(last) = times(run)?.checked_sub(1) else { return Ok(false) };
    let (off, started) = (off_file(last), started_file(last));
    let is_off = kept(run, on::SHUTDOWN, &off, &off)?.is_some();
    Ok(is_off && kept(run, on::VERIFY, &started, &started)?.is_none())
}

/// The boot that this run has ended last, by a shutdown that was taken; None: it has not, or has begun another one since.
///
/// # Errors
/// What was kept cannot be read.
pub(super) fn ended_boot(run: &RunInfo) -> Result<Option<String>, Failure> {
    let Some(last) = times(run)?.checked_sub(1) else { return Ok(None) };
    let off = off_file(last);
    let boot = kept(run, on::SHUTDOWN, &off, &off)?;
    Ok(boot.map(|boot| String::from_utf8_lossy(&boot).into_owned()))
}

fn read<T: serde::de::DeserializeOwned>(run: &RunInfo, name: &str) -> Result<Option<T>, Failure> {
    let Some(bytes) = kept(run, on::SHUTDOWN, name, name)? else { return Ok(None) };
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|error| Failure::plain(format!("{name} of this run: {error}"), None))
}

/// How often this run has looked right before it went off, and where the drives were the last time.
pub(super) fn layouts(run: &RunInfo) -> Result<(usize, Option<Layout>), Failure> {
    let (mut count, mut last) = (0, None);
    while let Some(layout) = read(run, &layout_file(count))? {
        (count, last) = (count + 1, Some(layout));
    }
    Ok((count, last))
}

/// Where the drives were when this run switched the machine off last; None: it has not.
///
/// # Errors
/// What was kept cannot be read.
pub(super) fn seen_last(run: &RunInfo) -> Result<Option<Layout>, Failure> {
    Ok(layouts(run)?.1)
}

/// The peers that answered when this run switched the machine off.
///
/// # Errors
/// What was kept cannot be read.
pub(super) fn were_up(run: &RunInfo) -> Result<Vec<String>, Failure> {
    Ok(read(run, PEERS)?.unwrap_or_default())
}

/// Those of these nodes that answer, but this one.
pub(super) async fn answering(cx: &Estate, names: &[String], not: &str) -> Result<Vec<String>, Failure> {
    let ask = |name: &String| {
        let name = name.clone();
        async move {
            let talos = cx.talos(&name).await?;
            // Whatever it says: it is on.
            let silent = match talos.version().await {
                Err(crate::talos::Error::Unreachable { .. } | crate::talos::Error::NoAnswer { .. }) => true,
                Ok(_) | Err(_) => false,
            };
            Ok::<_, Failure>((!silent).then_some(name))
        }
    };
    let all = join_all(names.iter().filter(|name| *name != not).map(ask)).await;
    Ok(all.into_iter().collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_time_that_it_goes_off_has_a_file_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let run = RunInfo { files: Some(dir.path().to_owned()), ..RunInfo::default() };
        assert_eq!(layouts(&run).unwrap(), (0, None));
        let folder = dir.path().join(on::SHUTDOWN);
        std::fs::create_dir(&folder).unwrap();
        for (n, slot) in ["M2_1", "M2_2"].into_iter().enumerate() {
            std::fs::write(folder.join(layout_file(n)), format!("{{\"{slot}\":\"sys\"}}")).unwrap();
        }
        let last: Layout = [("M2_2".to_owned(), "sys".to_owned())].into();
        assert_eq!((layouts(&run).unwrap(), seen_last(&run).unwrap()), ((2, Some(last.clone())), Some(last)));
        assert_eq!(were_up(&run).unwrap(), Vec::<String>::new());
        std::fs::write(folder.join(PEERS), "nonsense").unwrap();
        assert!(were_up(&run).is_err());
    }

    #[test]
    fn a_vm_went_off_where_that_was_seen_and_nothing_came_after() {
        let dir = tempfile::tempdir().unwrap();
        let run = RunInfo { files: Some(dir.path().to_owned()), ..RunInfo::default() };
        let ways = [
            (on::SHUTDOWN, on_file(0), false),
            (on::SHUTDOWN, off_file(0), true),
            (on::VERIFY, started_file(0), false),
            (on::SHUTDOWN, on_file(1), false),
            (on::SHUTDOWN, off_file(1), true),
            // It was cut, and is about to go off once more.
            (on::SHUTDOWN, on_file(2), false),
            (on::SHUTDOWN, on_file(3), false),
            (on::SHUTDOWN, off_file(3), true),
        ];
        assert!(!went_off(&run).unwrap());
        assert_eq!(ways.len(), 8);
        for (step, file, off) in ways {
            std::fs::create_dir_all(dir.path().join(step)).unwrap();
            std::fs::write(dir.path().join(step).join(&file), "b").unwrap();
            assert_eq!(went_off(&run).unwrap(), off, "{step}/{file}");
            let ended = ended_boot(&run).unwrap();
            assert_eq!(ended.as_deref(), (off || step == on::VERIFY).then_some("b"), "{step}/{file}");
        }
    }
}
