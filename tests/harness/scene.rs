//! Everything outside the process at one moment, to go back to: what a crash at that moment would leave.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use pvemig::base::clock::Clock;
use pvemig::engine::event::{Event, Record};
use pvemig::engine::point::{Point, Watcher};
use pvemig::estate::Estate;
use pvemig::lab::Moment;

use super::estate::{Rig, SPEED};
use super::{How, Run};

/// The lab's world and its time, and all files: state directory, checkout, the repository that Flux follows.
pub struct Scene {
    moment: Moment,
    files: Tree,
}

/// The scenes of a run.
#[derive(Default)]
pub struct Scenes {
    /// At each of its points.
    pub points: Vec<(Point, Scene)>,
    /// After it was opened, and after each step that was settled: where it is the next one's turn.
    pub settled: Vec<Scene>,
}

/// Mode and content by path; no content: a directory.
type Tree = BTreeMap<PathBuf, (u32, Option<Vec<u8>>)>;

/// The log of what the lab was asked stays as it is: it is the one file that counts on.
const KEPT: &str = "requests.jsonl";

fn read(dir: &Path, tree: &mut Tree) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        // What git makes for a moment and takes away again.
        let Ok(meta) = fs::symlink_metadata(&path) else { continue };
        assert!(!meta.is_symlink(), "{} would have to be kept as a link", path.display());
        let mode = meta.permissions().mode();
        if meta.is_dir() {
            tree.insert(path.clone(), (mode, None));
            read(&path, tree);
        } else if meta.is_file() && path.file_name().is_some_and(|name| name != KEPT) {
            let Ok(bytes) = fs::read(&path) else { continue };
            tree.insert(path, (mode, Some(bytes)));
        }
    }
}

fn write(dir: &Path, tree: &Tree) {
    let mut now = Tree::new();
    read(dir, &mut now);
    // Content before the directories that hold it.
    for (path, (_, bytes)) in now.iter().rev().filter(|(path, _)| !tree.contains_key(*path)) {
        if bytes.is_some() { fs::remove_file(path).unwrap() } else { fs::remove_dir(path).unwrap() }
    }
    for (path, (mode, bytes)) in tree.iter().filter(|(path, then)| now.get(*path) != Some(then)) {
        match bytes {
            None => fs::create_dir_all(path).unwrap(),
            Some(bytes) => {
                let fresh = path.with_extension("fresh");
                fs::write(&fresh, bytes).unwrap();
                fs::set_permissions(&fresh, fs::Permissions::from_mode(*mode)).unwrap();
                fs::rename(&fresh, path).unwrap();
            }
        }
    }
}

impl Rig {
    /// Makes everything what it was, and meets it as a new process would.
    pub fn go_back(&mut self, scene: &Scene) {
        write(self.bench.dir(), &scene.files);
        self.lab.shared().go_back(&scene.moment);
        self.estate = Estate::new(self.site.clone(), Clock::fast(SPEED), self.bench.store.dir().to_owned());
        self.mend();
    }

    /// A run to its end, forwards from the beginning (`id` None) or backwards, with its scenes.
    pub async fn watched(&self, id: Option<&str>, how: &How) -> (Run, Scenes) {
        self.watched_as(id, id.is_some(), how).await
    }

    /// The same of a run that goes on.
    pub async fn resume_watched(&self, id: &str, how: &How) -> (Run, Scenes) {
        self.watched_as(Some(id), false, how).await
    }

    async fn watched_as(&self, id: Option<&str>, back: bool, how: &How) -> (Run, Scenes) {
        let scenes: Arc<Mutex<Scenes>> = Arc::default();
        let take = {
            let (lab, dir) = (self.lab.clone(), self.bench.dir().to_owned());
            move || {
                let mut files = Tree::new();
                read(&dir, &mut files);
                Scene { moment: lab.shared().moment(), files }
            }
        };
        let (into, now) = (scenes.clone(), take.clone());
        let watcher = Watcher::new(move |point| into.lock().unwrap().points.push((point.clone(), now())));
        let (into, now) = (scenes.clone(), take);
        let reader = move |record: &Record| {
            if let Event::Opened(_) | Event::Applied { .. } | Event::AlreadySo { .. } = record.event {
                into.lock().unwrap().settled.push(now());
            }
        };
        let how = How { watcher: Some(watcher), reader: Some(Arc::new(reader)), ..how.clone() };
        let run = match id {
            Some(id) if back => self.backward(id, &how).await,
            id => self.forward(id, &how).await,
        };
        let scenes = std::mem::take(&mut *scenes.lock().unwrap());
        (run, scenes)
    }
}
