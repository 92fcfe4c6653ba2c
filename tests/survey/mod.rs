//! What a survey tells of labs: node by node, and where a system does not answer.

#![expect(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods, reason = "a test may panic and spawn")]

mod dead;
mod hardware;
mod lost;
mod requests;
mod rows;
mod shown;
mod sick;
mod slow;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use pvemig::base::clock::Clock;
use pvemig::base::survey::Survey;
use pvemig::estate::Estate;
use pvemig::lab::{Class, FaultEffect, FaultRule, Front, Lab, LabOptions, World};
use pvemig::site::Site;

use crate::harness::estate::at_rest;

/// A question is given up after this, and where a system hangs, sooner: the test waits for it.
const PATIENCE: Duration = Duration::from_secs(20);
const IMPATIENCE: Duration = Duration::from_secs(6);

/// A lab in this process, and its site.
struct Bench {
    lab: Lab,
    site: Arc<Site>,
    hangs: Cell<bool>,
    _dir: tempfile::TempDir,
}

impl Bench {
    async fn new(world: &str) -> Self {
        Self::of(at_rest(world)).await
    }

    /// In real time: what is looked at stays as it is.
    async fn of(world: World) -> Self {
        Self::at(1, world).await
    }

    /// At a speed at which something comes about before it is looked at.
    async fn at(speed: u32, world: World) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let lab = Lab::start(LabOptions { world, dir: dir.path().to_owned(), speed }).await.unwrap();
        let site = Arc::new(Site::load(&lab.dir().join("site.yaml")).unwrap());
        Self { lab, site, hangs: Cell::new(false), _dir: dir }
    }

    /// A survey of a lab in which nobody has changed anything.
    async fn survey(&self, only: &[&str]) -> Survey {
        let survey = self.look(only).await;
        assert_eq!(self.changes(), 0, "a survey changes nothing");
        survey
    }

    /// A survey, by an estate that has asked nothing before; it goes through JSON and back, as a reader's would.
    async fn look(&self, only: &[&str]) -> Survey {
        let changes = self.changes();
        let only: Vec<String> = only.iter().map(|name| (*name).to_owned()).collect();
        let state = self.lab.dir().join("nowhere");
        let patience = if self.hangs.get() { IMPATIENCE } else { PATIENCE };
        let estate = Estate::new(self.site.clone(), Clock::fast(10), state.clone()).deadlines(patience, patience);
        let survey = estate.survey(&only).await.unwrap();
        assert!(!state.exists(), "a survey makes nothing");
        assert_eq!(self.changes(), changes, "a survey changes nothing");
        let text = serde_json::to_string(&survey).unwrap();
        assert_eq!(serde_json::from_str::<Survey>(&text).unwrap(), survey);
        survey
    }

    fn fault(&self, front: Front, path: &str, effect: FaultEffect) {
        self.hangs.set(self.hangs.get() || effect == FaultEffect::Hang);
        self.lab.fault(FaultRule::on(front, effect).path(path));
    }

    fn changes(&self) -> usize {
        let seen = self.lab.shared().log.seen();
        seen.iter().filter(|seen| seen.class == Class::Change).count()
    }

    /// A client of the lab's cluster that knows nothing of pvemig's own.
    async fn cluster(&self) -> kube::Client {
        let file = kube::config::Kubeconfig::from_yaml(&self.lab.reach().kubernetes.kubeconfig).unwrap();
        let config = kube::Config::from_custom_kubeconfig(file, &Default::default()).await.unwrap();
        kube::Client::try_from(config).unwrap()
    }

    /// How often each question was asked since `from`, without later pages of lists.
    fn asked(&self, from: usize) -> BTreeMap<String, usize> {
        let mut asked = BTreeMap::new();
        for seen in self.lab.shared().log.seen().into_iter().skip(from) {
            if !seen.line.contains("continue=") {
                *asked.entry(format!("{:?} {}", seen.front, seen.line)).or_default() += 1;
            }
        }
        asked
    }

    /// The program against it: exit code and what it prints.
    fn run(&self, args: &[&str]) -> (Option<i32>, String) {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_pvemig"));
        command.args(args).env_clear().env("HOME", self.lab.dir()).env("PATH", std::env::var("PATH").unwrap());
        command.args(["--site".as_ref(), self.lab.dir().join("site.yaml").as_os_str()]);
        let output = command.current_dir(self.lab.dir()).stdin(std::process::Stdio::null()).output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(text).unwrap())
    }
}
