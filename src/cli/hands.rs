//! Hands for a simulated estate: what a run asks a person for is done in the lab.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use crate::base::check::Hands;
use crate::base::clock::Clock;
use crate::base::wait::pause;
use crate::engine::event::{Event, Record};
use crate::engine::store::Store;
use crate::lab::world::Socket;
use crate::lab::{Lab, LabError, Place, World};

use super::out::Out;

/// Does one act in the lab; says what it did.
pub(super) fn act(lab: &Lab, hands: &Hands) -> Result<String, LabError> {
    match hands {
        Hands::Plug { device, host, port, .. } => {
            let port = match port {
                Some(port) => port.clone(),
                None => lab.shared().read(|world| free_socket(world, host))?,
            };
            lab.move_stick(device, Some(Place { host: host.clone(), port: port.clone() }))?;
            Ok(format!("hands: {device} is in {host}, port {port}"))
        }
        Hands::Push { branch, commit, from, .. } => {
            lab.push(Path::new(from), commit, branch)?;
            let short = commit.get(..7).unwrap_or(commit);
            Ok(format!("hands: {short} is pushed to {branch}"))
        }
        Hands::Swap { new, .. } => Ok(format!("hands: {}", lab.swap(new)?)),
        Hands::Drives { node, moves, medium, on } => {
            Ok(format!("hands: {}", lab.hands_on_drives(node, moves, medium.as_deref(), *on)?))
        }
    }
}

/// The first socket of a host that nothing is in, fast ones first.
pub(super) fn free_socket(world: &World, host: &str) -> Result<String, LabError> {
    let no = |text: String| LabError::Hands(text);
    let sockets = &world.hosts.get(host).ok_or_else(|| no(world.no_host(host)))?.sockets;
    let taken =
        |port: &str| world.sticks.values().filter_map(|s| s.at.as_ref()).any(|p| p.host == host && p.port == port);
    let free = |s: &&Socket| !taken(&s.high_speed) && !s.super_speed.as_deref().is_some_and(taken);
    let fast = sockets.iter().filter(|s| s.super_speed.is_some()).find(free);
    let socket = fast.or_else(|| sockets.iter().find(free));
    let socket = socket.ok_or_else(|| no(format!("no socket of `{host}` is free")))?;
    Ok(socket.super_speed.clone().unwrap_or_else(|| socket.high_speed.clone()))
}

/// What a run waits for: it has asked, and nothing has come of that yet.
fn asked(records: &[Record]) -> Option<(u64, Hands)> {
    let last = records.iter().rev().find(|r| !matches!(r.event, Event::Checked { .. }))?;
    match &last.event {
        Event::Asked { hands: Some(hands), .. } => Some((last.seq, hands.clone())),
        _ => None,
    }
}

/// Follows the journals of a state directory and does what they ask for, until dropped.
pub(super) async fn follow(lab: &Lab, store: &Store, out: Out) {
    let mut done: BTreeSet<(String, u64)> = BTreeSet::new();
    let mut refused: BTreeSet<String> = BTreeSet::new();
    loop {
        let runs = store.runs().unwrap_or_else(|error| {
            if refused.insert(error.to_string()) {
                out.say(&format!("hands: the journals cannot be read, so nobody knows what is asked for: {error}"));
            }
            Vec::new()
        });
        for run in runs {
            let Some((seq, hands)) = asked(&run.records) else { continue };
            if done.insert((run.id.clone(), seq)) {
                match act(lab, &hands) {
                    Ok(said) => out.say(&said),
                    Err(error) => out.say(&format!("hands: {error}")),
                }
            }
        }
        pause(Clock::real(), Duration::from_millis(200)).await;
    }
}

#[cfg(test)]
mod tests {
    use crate::base::names::StepKey;
    use crate::lab::{self, LabOptions};

    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn hands_plug_and_push() {
        let dir = tempfile::tempdir().unwrap();
        let world = lab::load("usb-move").unwrap();
        let lab = Lab::start(LabOptions { world, dir: dir.path().to_owned(), speed: 100 }).await.unwrap();
        let plug = Hands::Plug {
            device: "coral".into(),
            ids: Vec::new(),
            serial: None,
            host: "still-fawn".into(),
            port: None,
        };
        assert_eq!(act(&lab, &plug).unwrap(), "hands: coral is in still-fawn, port 2-2");

        let head = |branch: &str| std::fs::read_to_string(lab.dir().join("gitops.git/refs/heads").join(branch));
        let commit = head("main").unwrap().trim().to_owned();
        let push = |commit: &str| Hands::Push {
            checkout: "gitops".into(),
            branch: "asked".into(),
            commit: commit.to_owned(),
            from: lab.dir().join("checkout").display().to_string(),
        };
        assert_eq!(act(&lab, &push(&commit)).unwrap(), format!("hands: {} is pushed to asked", &commit[..7]));
        assert_eq!(head("asked").unwrap().trim(), commit);
        let unknown = "0123456789012345678901234567890123456789";
        assert!(matches!(act(&lab, &push(unknown)), Err(LabError::Hands(_))));
    }

    #[test]
    fn what_came_about_is_not_done_again() {
        let key = StepKey::new("09a-update-manifests", None);
        let hands = |commit: &str| Hands::Push {
            checkout: "gitops".into(),
            branch: "main".into(),
            commit: commit.into(),
            from: "/".into(),
        };
        let ask = |commit: &str| Event::Asked {
            key: key.clone(),
            ask: "push".into(),
            hint: None,
            hands: Some(hands(commit)),
            before: None,
        };
        let checked = Event::Checked { key: key.clone(), answer: "manual".into(), back: false, notes: Vec::new() };
        let applied = Event::Applied { key: key.clone(), notes: Vec::new() };
        let lines = |events: &[&Event]| {
            let line = |(seq, event): (usize, &&Event)| Record {
                v: crate::engine::event::FORMAT,
                seq: seq as u64,
                at: jiff::Timestamp::UNIX_EPOCH,
                event: (*event).clone(),
            };
            asked(&events.iter().enumerate().map(line).collect::<Vec<_>>())
        };
        assert_eq!(lines(&[&checked, &ask("a")]), Some((1, hands("a"))));
        assert_eq!(lines(&[&ask("a"), &checked]), Some((0, hands("a"))));
        assert_eq!(lines(&[&ask("a"), &applied, &checked]), None);
        assert_eq!(lines(&[&ask("a"), &applied, &ask("b"), &checked]), Some((2, hands("b"))));
        assert_eq!(lines(&[]), None);
    }
}
