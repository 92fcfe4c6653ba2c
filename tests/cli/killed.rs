//! A real SIGKILL of the binary at the points of a build, a replacement and a recovery where most is at stake: before a
//! call is written down, before it is sent, and before its answer is written down. Each time `resume` goes on.

use std::os::unix::process::ExitStatusExt;

use pvemig::lab::{Lab, LabOptions};
use serde_json::Value;

use super::{Said, Shell, expect, said};
use crate::harness::estate::at_rest;

/// Simulated seconds in a real one.
const SPEED: u32 = 200;
const SIGKILL: i32 = 9;

/// A lab in this process, so that its world can be looked at, and the binary beside it.
struct Place {
    _runtime: tokio::runtime::Runtime,
    lab: Lab,
    shell: Shell,
    /// Where anything may be wiped: serial numbers of disks and names of nodes.
    given: &'static [&'static str],
}

impl Place {
    fn new(world: &str, given: &'static [&'static str]) -> Self {
        let (shell, runtime) = (Shell::new(), tokio::runtime::Runtime::new().unwrap());
        let options = LabOptions { world: at_rest(world), dir: shell.path().join("lab"), speed: SPEED };
        let lab = runtime.block_on(Lab::start(options)).unwrap();
        Self { _runtime: runtime, lab, shell, given }
    }

    fn command(&self, args: &[&str]) -> std::process::Command {
        let mut command = self.shell.command(args);
        command.env("PVEMIG_SITE", self.lab.dir().join("site.yaml")).env("PVEMIG_STATE", self.lab.dir().join("state"));
        command
    }

    fn run(&self, args: &[&str]) -> Said {
        said(self.command(args).output().unwrap())
    }

    /// The changing requests that the lab saw, by what they end in.
    fn changes(&self) -> Vec<String> {
        let log = std::fs::read_to_string(self.lab.dir().join("requests.jsonl")).unwrap();
        let lines = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let changing = lines.filter(|line| line["class"] == "change");
        changing.map(|line| line["path"].as_str().unwrap().rsplit('/').next().unwrap().to_owned()).collect()
    }

    /// One etcd at most, begun once at most, and nothing wiped but what was given, nor that twice.
    fn assert_safe(&self, what: &str) {
        let (clusters, wiped) = self.lab.shared().read(|w| (w.etcd_clusters(), w.talos.wiped.clone()));
        assert!(clusters <= 1, "{what}: {clusters} clusters");
        let begun = self.changes().iter().filter(|call| *call == "Bootstrap").count();
        assert!(begun <= 1, "{what}: {begun} times");
        let given = |name: &str| self.given.contains(&name);
        assert!(wiped.iter().all(|w| given(&w.serial) || given(&w.node)), "{what}: {wiped:#?}");
        let mut serials: Vec<_> = wiped.iter().map(|w| &w.serial).collect();
        serials.sort_unstable();
        serials.dedup();
        assert_eq!(serials.len(), wiped.len(), "{what}: {wiped:#?}");
    }

    /// Begins by `first` and goes on by `resume`, killed at each point in its turn; a point: its name, and how many
    /// changing requests were sent by then.
    fn killed(&self, first: &[&str], points: &[(&str, usize)]) {
        for (n, (point, sent)) in points.iter().enumerate() {
            let mut command = self.command(if n == 0 { first } else { &["resume", "--wait=5m"] });
            let dead = command.env("PVEMIG_CRASH_AT", point).output().unwrap();
            let text = String::from_utf8_lossy(&dead.stderr).into_owned();
            assert_eq!(dead.status.signal(), Some(SIGKILL), "{point}: {:?} {text}", dead.status);
            assert_eq!(self.changes().len(), *sent, "{point}: {:?} {text}", self.changes());
            self.assert_safe(point);
            // Nobody begins beside what is half done.
            if n == 0 {
                expect(&self.run(first), 7, &["is not finished", "resume"]);
            }
        }
        assert!(points.len() >= 6, "{}", points.len());
        let end = self.run(&["resume", "--wait=5m"]);
        expect(&end, 0, &["done"]);
        self.assert_safe("resumed");
    }

    /// Once more, and nothing is to be done.
    fn again(&self, first: &[&str]) {
        let before = self.changes();
        expect(&self.run(first), 0, &["done"]);
        assert_eq!(self.changes(), before, "a second run changes nothing");
    }

    /// The control planes with a vote; none is without.
    fn voters(&self) -> Vec<String> {
        self.lab.shared().read(|w| {
            assert!(w.talos.etcd.leader.is_some() && w.talos.etcd.members.iter().all(|m| !m.learner));
            let mut names: Vec<_> = w.talos.etcd.members.iter().map(|m| m.name.clone()).collect();
            names.sort_unstable();
            names
        })
    }

    /// What a survey finds, by its rules.
    fn findings(&self) -> Vec<String> {
        let said = self.run(&["survey", "--json"]);
        let survey: Value = serde_json::from_str(&said.stdout).unwrap_or_else(|e| panic!("{e}: {}", said.stdout));
        let findings = survey["findings"].as_array().unwrap_or_else(|| panic!("{survey:#}"));
        findings.iter().map(|finding| finding["rule"].as_str().unwrap().to_owned()).collect()
    }
}

fn with(args: &[&'static str], things: &[&'static str]) -> Vec<&'static str> {
    args.iter().copied().chain(things.iter().flat_map(|thing| ["--destroy", *thing])).collect()
}

#[test]
fn a_build_that_is_killed_is_resumed_and_etcd_begins_once() {
    let place = Place::new("talos-fresh", &["S5GXNF0R601234", "talos-vm-root", "S2ZRNYAH500749"]);
    let disks = ["disk/S5GXNF0R601234", "disk/talos-vm-root", "disk/S2ZRNYAH500749"];
    let run = with(&["run", "build", "--yes", "--wait=5m"], &disks);
    place.killed(
        &run,
        &[
            ("02-apply-config@talos-nuc applied before", 1),
            ("04-bootstrap call before", 1),
            ("04-bootstrap call sent", 1),
            ("04-bootstrap applied before", 2),
            ("02-apply-config@talos-vm applied before", 3),
            // Whether it was sent is watched for a minute.
            ("02-apply-config@talos-mac call sent", 3),
        ],
    );
    let calls = place.changes();
    assert_eq!(calls, ["ApplyConfiguration", "Bootstrap", "ApplyConfiguration", "ApplyConfiguration"]);
    assert_eq!(place.voters(), ["talos-mac", "talos-nuc", "talos-vm"]);
    assert_eq!(place.findings(), [""; 0]);
    place.again(&run);
}

#[test]
fn a_replacement_that_is_killed_is_resumed_and_one_disk_is_wiped() {
    let place = Place::new("talos-dead-node", &["S2ZRNYAH500750"]);
    let things = ["disk/S2ZRNYAH500750", "etcd/talos-mac", "node/talos-mac", "off/talos-mac"];
    let run = with(&["run", "replace-mac", "--yes", "--wait=5m"], &things);
    place.killed(
        &run,
        &[
            ("03-leave-or-remove call before", 1),
            ("03-leave-or-remove call sent", 1),
            ("03-leave-or-remove applied before", 2),
            ("06-apply call sent", 2),
            ("06-apply applied before", 3),
            ("08-node-object call sent", 3),
            ("08-node-object applied before", 4),
        ],
    );
    let calls = place.changes();
    assert_eq!(calls[1..], ["EtcdRemoveMemberByID", "ApplyConfiguration", "talos-mac"]);
    assert_eq!(place.voters(), ["talos-mac2", "talos-nuc", "talos-vm"]);
    assert_eq!(place.lab.shared().read(|w| w.talos.wiped.len()), 1);
    place.again(&run);
}

#[test]
fn a_recovery_that_is_killed_is_resumed_and_etcd_begins_once() {
    let place = Place::new("talos-no-quorum", &["talos-nuc"]);
    let things = ["etcd/talos-nuc", "gone/talos-mac", "gone/talos-vm"];
    let run = with(&["run", "recover", "--yes", "--wait=5m"], &things);
    place.killed(
        &run,
        &[
            ("02-wipe-etcd@talos-nuc call sent", 0),
            ("02-wipe-etcd@talos-nuc applied before", 1),
            ("03-recover call sent", 1),
            ("03-recover call before 2", 2),
            ("03-recover call sent 2", 3),
            ("03-recover applied before", 5),
        ],
    );
    let calls = place.changes();
    assert_eq!(calls, ["Reset", "EtcdRecover", "EtcdRecover", "EtcdRecover", "Bootstrap"]);
    assert_eq!(place.voters(), ["talos-nuc"]);
    assert_eq!(place.lab.shared().read(|w| w.talos.wiped.len()), 1);
    place.again(&run);
}
