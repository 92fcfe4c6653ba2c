//! The checkout against real git: repositories in temp dirs, a bare remote, a person's checkout.

#![expect(clippy::unwrap_used, reason = "a test that cannot set its ground up fails")]

use std::path::{Path, PathBuf};
use std::process::Command;

use pvemig::base::fault::{Effect, Fault};
use pvemig::base::permit::{Notebook, Permit, System};
use pvemig::checkout::{Checkout, CheckoutError, Edit, Found, Made, Reverted};
use serde_json::json;

const FILE: &str = include_str!("../fixtures/checkout/frigate.yaml");

struct Ground {
    dir: tempfile::TempDir,
    checkout: Checkout,
    permit: Permit,
    notebook: std::sync::Arc<Notebook>,
}

/// Runs git as a person would; their configuration is this directory's.
#[expect(clippy::disallowed_methods, reason = "the tests play the person and the remote")]
fn git(dir: &Path, args: &[&str]) -> String {
    let output = Command::new("git")
        .args(["-c", "user.name=Person", "-c", "user.email=person@localhost", "-c", "init.defaultBranch=main"])
        .args(args)
        .current_dir(dir)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_SYSTEM", "/dev/null")
        .output()
        .unwrap();
    assert!(output.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
}

impl Ground {
    /// A bare remote with one commit on `main`, and a person's checkout of it.
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        git(root, &["init", "--quiet", "--bare", "remote.git"]);
        git(&root.join("remote.git"), &["config", "core.logAllRefUpdates", "always"]);
        git(root, &["clone", "--quiet", "remote.git", "work"]);
        let work = root.join("work");
        git(&work, &["checkout", "--quiet", "-B", "main"]);
        std::fs::create_dir_all(work.join("apps/frigate")).unwrap();
        std::fs::write(work.join("apps/frigate/all.yaml"), FILE).unwrap();
        std::fs::write(work.join("apps/frigate/run.sh"), "#!/bin/sh\n").unwrap();
        std::fs::write(work.join("README"), "hello\n").unwrap();
        std::os::unix::fs::symlink("README", work.join("link")).unwrap();
        git(&work, &["add", "."]);
        git(&work, &["commit", "--quiet", "-m", "first"]);
        git(&work, &["push", "--quiet", "-u", "origin", "main"]);
        let checkout = Checkout {
            path: work,
            remote: "origin".into(),
            branch: "main".into(),
            push: true,
            author: ("pvemig".into(), "pvemig@localhost".into()),
            state_clone: root.join("state/clones/gitops.git"),
            lender: None,
        };
        let (permit, notebook) = Notebook::permit();
        Self { dir, checkout, permit, notebook }
    }

    fn remote(&self) -> PathBuf {
        self.dir.path().join("remote.git")
    }

    fn work(&self) -> &Path {
        &self.checkout.path
    }

    /// Every byte of the person's checkout and of its git directory.
    fn fingerprint(&self) -> Vec<(PathBuf, Vec<u8>)> {
        fn walk(dir: &Path, out: &mut Vec<(PathBuf, Vec<u8>)>) {
            for entry in std::fs::read_dir(dir).unwrap().map(Result::unwrap) {
                let path = entry.path();
                if entry.file_type().unwrap().is_dir() {
                    walk(&path, out);
                } else {
                    out.push((path.clone(), std::fs::read(&path).unwrap()));
                }
            }
        }
        let mut out = Vec::new();
        walk(self.work(), &mut out);
        out.sort();
        assert!(out.len() > 10);
        out
    }

    /// Somebody else changes a file and pushes.
    fn somebody_pushes(&self, file: &str, text: &str) -> String {
        let other = self.dir.path().join("other");
        if !other.exists() {
            git(self.dir.path(), &["clone", "--quiet", "-b", "main", "remote.git", "other"]);
        }
        git(&other, &["pull", "--quiet", "--ff-only"]);
        std::fs::write(other.join(file), text).unwrap();
        git(&other, &["add", "."]);
        git(&other, &["commit", "--quiet", "-m", "other"]);
        git(&other, &["push", "--quiet"]);
        git(&other, &["rev-parse", "HEAD"])
    }

    /// Pushes that the remote saw, from its reflog.
    fn pushes(&self) -> usize {
        git(&self.remote(), &["reflog", "show", "main"]).lines().count()
    }

    /// Commits that were made in our clone, from the reflogs of its branches.
    fn commits(&self) -> usize {
        let logs = self.checkout.state_clone.join("logs/refs/heads/pvemig");
        let files =
            std::fs::read_dir(logs).map(|dir| dir.map(|f| f.unwrap().path()).collect::<Vec<_>>()).unwrap_or_default();
        files.iter().map(|file| std::fs::read_to_string(file).unwrap().lines().count()).sum()
    }

    fn notes(&self) -> Vec<String> {
        assert!(self.notebook.notes().iter().all(|note| note.system == System::Checkout));
        self.notebook.notes().into_iter().map(|note| note.text).collect()
    }

    async fn commit(&self, edits: &[Edit], label: &str) -> Option<Made> {
        self.checkout.commit(edits, "Move frigate\n\nRun x\n", label, &self.permit).await.unwrap()
    }
}

fn edits() -> Vec<Edit> {
    let edit = |object: &str| Edit {
        file: "apps/frigate/all.yaml".into(),
        object: object.parse().unwrap(),
        set: vec![],
        remove: vec![],
        replace: vec![],
    };
    let mut deployment = edit("Deployment/frigate/frigate");
    deployment.remove = vec!["spec.template.spec.runtimeClassName".parse().unwrap()];
    deployment.set = vec![("spec.template.spec.nodeSelector".parse().unwrap(), json!({"coral": "true"}))];
    let mut config = edit("ConfigMap/frigate/frigate-config");
    config.replace = vec![("data[config.yml]".parse().unwrap(), "preset-nvidia-h264".into(), "preset-vaapi".into())];
    vec![deployment, config]
}

#[tokio::test]
async fn fetch_and_read_leave_the_checkout_as_it_is() {
    let ground = Ground::new();
    let before = ground.fingerprint();
    let tip = ground.checkout.fetch().await.unwrap();
    assert_eq!(tip, git(&ground.remote(), &["rev-parse", "main"]));
    assert_eq!(ground.checkout.fetched().await.unwrap(), Some(tip.clone()));
    assert_eq!(ground.checkout.read(&tip, "apps/frigate/all.yaml").await.unwrap().as_deref(), Some(FILE));
    assert_eq!(ground.checkout.read(&tip, "apps/none.yaml").await.unwrap(), None);
    for (file, what) in [("link", "a symbolic link"), ("apps", "a directory")] {
        let error = ground.checkout.read(&tip, file).await.unwrap_err();
        assert!(error.to_string().contains(what), "{error}");
    }
    assert_eq!(ground.checkout.list(&tip, "apps").await.unwrap(), ["apps/frigate/all.yaml", "apps/frigate/run.sh"]);
    assert_eq!(ground.checkout.list(&tip, "").await.unwrap().len(), 4);
    assert!(ground.checkout.is_in_tip(&tip).await.unwrap());
    assert!(!ground.checkout.is_in_tip("0123456789012345678901234567890123456789").await.unwrap());

    // A file of the index with a new time: a plain `git status` would write the index.
    std::fs::write(ground.work().join("README"), "hello\n").unwrap();
    let status = ground.checkout.status().await.unwrap();
    assert!(status.is_clean() && status.branch.as_deref() == Some("main"), "{status:?}");
    assert_eq!((status.ahead, status.behind), (0, 0));
    assert_eq!(ground.fingerprint(), before);
    assert_eq!((ground.notes().len(), ground.pushes(), ground.commits()), (0, 1, 0));
}

#[tokio::test]
async fn status_names_what_differs() {
    let ground = Ground::new();
    ground.somebody_pushes("README", "other\n");
    std::fs::write(ground.work().join("mine"), "x").unwrap();
    git(ground.work(), &["add", "mine"]);
    git(ground.work(), &["commit", "--quiet", "-m", "mine"]);
    git(ground.work(), &["mv", "mine", "ours"]);
    std::fs::write(ground.work().join("new file"), "x").unwrap();
    ground.checkout.fetch().await.unwrap();
    let status = ground.checkout.status().await.unwrap();
    assert_eq!(status.dirty, ["ours", "new file"]);
    assert_eq!((status.ahead, status.behind), (1, 1));
    git(ground.work(), &["checkout", "--quiet", "--detach"]);
    assert_eq!(ground.checkout.status().await.unwrap().branch, None);
}

#[tokio::test]
async fn edits_are_committed_pushed_and_taken_back_beside_a_dirty_checkout() {
    let ground = Ground::new();
    std::fs::write(ground.work().join("apps/frigate/all.yaml"), "half done: [").unwrap();
    std::fs::write(ground.work().join("README"), "staged\n").unwrap();
    git(ground.work(), &["add", "README"]);
    let before = ground.fingerprint();
    let first = ground.checkout.fetch().await.unwrap();

    let diff = ground.checkout.diff(&first, &edits()).await.unwrap();
    assert!(diff.starts_with("--- a/apps/frigate/all.yaml\n+++ b/apps/frigate/all.yaml\n@@"), "{diff}");
    assert_eq!(diff.lines().filter(|l| l.starts_with('-') && !l.starts_with("---")).count(), 4, "{diff}");
    assert_eq!(diff.lines().filter(|l| l.starts_with('+') && !l.starts_with("+++")).count(), 3, "{diff}");

    let made = ground.commit(&edits(), "7k2").await.unwrap();
    assert_eq!((made.parent.as_str(), made.branch.as_str()), (first.as_str(), "pvemig/7k2"));
    assert_eq!(ground.checkout.made("7k2").await.unwrap(), Some(made.clone()));
    assert_eq!(ground.checkout.made("other").await.unwrap(), None);
    assert_eq!(ground.commit(&edits(), "7k2").await, Some(made.clone()), "again: the same commit");
    assert_eq!((ground.notes().len(), ground.pushes(), ground.commits()), (1, 1, 1));
    assert!(!ground.checkout.is_in_tip(&made.id).await.unwrap());
    assert_eq!(ground.checkout.reverted(&made).await.unwrap(), Reverted::Already, "it never got there");

    ground.checkout.push(&made, &ground.permit).await.unwrap();
    assert_eq!(git(&ground.remote(), &["rev-parse", "main"]), made.id);
    let shown = git(&ground.remote(), &["show", "--stat", "--format=%an <%ae>|%cn|%s|%b", "main"]);
    assert!(shown.starts_with("pvemig <pvemig@localhost>|pvemig|Move frigate|Run x"), "{shown}");
    assert!(shown.contains("1 file changed, 3 insertions(+), 4 deletions(-)"), "{shown}");
    assert!(ground.checkout.is_in_tip(&made.id).await.unwrap());
    ground.checkout.push(&made, &ground.permit).await.unwrap();
    let text = ground.checkout.read(&made.id, "apps/frigate/all.yaml").await.unwrap().unwrap();
    assert!(edits().iter().all(|edit| edit.contained_in(&text).unwrap() == Found::Already));
    assert_eq!(ground.commit(&edits(), "7k3").await, None, "the tip has all of them");
    assert_eq!((ground.notes().len(), ground.pushes(), ground.commits()), (3, 2, 1));

    // Somebody else's change to another file is kept; the former contents come back byte for byte.
    ground.somebody_pushes("README", "other\n");
    let tip = ground.checkout.fetch().await.unwrap();
    assert_eq!(ground.checkout.reverted(&made).await.unwrap(), Reverted::Todo(vec!["apps/frigate/all.yaml".into()]));
    let back = ground.checkout.revert(&made, "Take it back\n", "7k2-undo", &ground.permit).await.unwrap().unwrap();
    assert_eq!(back.parent, tip);
    ground.checkout.push(&back, &ground.permit).await.unwrap();
    assert_eq!(ground.checkout.read(&back.id, "apps/frigate/all.yaml").await.unwrap().as_deref(), Some(FILE));
    assert_eq!(ground.checkout.read(&back.id, "README").await.unwrap().as_deref(), Some("other\n"));
    assert_eq!(ground.checkout.reverted(&made).await.unwrap(), Reverted::Already);
    assert_eq!(ground.checkout.revert(&made, "x", "y", &ground.permit).await.unwrap(), None);
    // Pushes: the first, ours, the other one's, the way back. A push of what is there already leaves no trace.
    assert_eq!((ground.notes().len(), ground.pushes(), ground.commits()), (5, 4, 2));
    assert_eq!(ground.fingerprint(), before);
    assert!(!ground.checkout.state_clone.join("pvemig.index").exists());
}

#[tokio::test]
async fn a_fetch_that_was_killed_does_not_keep_the_next_one_from_it() {
    let ground = Ground::new();
    let first = ground.checkout.fetch().await.unwrap();
    let theirs = ground.somebody_pushes("README", "other\n");
    let lock = ground.checkout.state_clone.join("refs/pvemig/tip.lock");
    std::fs::write(&lock, "").unwrap();
    assert_ne!(first, theirs);
    assert_eq!(ground.checkout.fetch().await.unwrap(), theirs);
    assert!(!lock.exists());
}

#[tokio::test]
async fn a_push_behind_somebody_else_is_refused_and_the_edits_are_made_again() {
    let ground = Ground::new();
    ground.checkout.fetch().await.unwrap();
    let made = ground.commit(&edits(), "r").await.unwrap();
    let theirs = ground.somebody_pushes("README", "other\n");
    let error = ground.checkout.push(&made, &ground.permit).await.unwrap_err();
    assert!(matches!(&error, CheckoutError::NotFastForward { .. }), "{error:?}");
    assert_eq!((error.effect(), error.retryable()), (Effect::None, false));
    assert!(error.to_string().contains("branch `main` of ") && error.to_string().contains("has moved on"), "{error}");
    assert_eq!(git(&ground.remote(), &["rev-parse", "main"]), theirs);
    assert_eq!(ground.pushes(), 2);

    assert_eq!(ground.checkout.fetch().await.unwrap(), theirs);
    let again = ground.commit(&edits(), "r").await.unwrap();
    assert_eq!(again.parent, theirs);
    ground.checkout.push(&again, &ground.permit).await.unwrap();
    assert_eq!((ground.notes().len(), ground.pushes(), ground.commits()), (4, 3, 2));
}

#[tokio::test]
async fn a_remote_that_refuses_says_why() {
    let ground = Ground::new();
    let hook = ground.remote().join("hooks/pre-receive");
    std::fs::create_dir_all(hook.parent().unwrap()).unwrap();
    std::fs::write(&hook, "#!/bin/sh\necho 'main is protected' >&2\nexit 1\n").unwrap();
    std::fs::set_permissions(&hook, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    ground.checkout.fetch().await.unwrap();
    let made = ground.commit(&edits(), "r").await.unwrap();
    let error = ground.checkout.push(&made, &ground.permit).await.unwrap_err();
    assert!(matches!(&error, CheckoutError::PushRefused { .. }), "{error:?}");
    assert!(error.to_string().contains("main is protected"), "{error}");
    assert_eq!((error.effect(), ground.pushes()), (Effect::None, 1));
}

#[tokio::test]
async fn where_pushing_is_not_allowed_a_person_does_it_with_the_command_that_is_said() {
    let mut ground = Ground::new();
    ground.checkout.push = false;
    ground.checkout.fetch().await.unwrap();
    let made = ground.commit(&edits(), "7k2").await.unwrap();
    let error = ground.checkout.push(&made, &ground.permit).await.unwrap_err();
    assert!(matches!(&error, CheckoutError::PushNotAllowed { .. }), "{error:?}");
    assert_eq!((ground.notes().len(), ground.pushes()), (1, 1));

    let command = ground.checkout.push_by_hand(&made);
    assert_eq!(error.help(), Some(command.clone()));
    let mut ran = 0;
    for part in command.split(" && ") {
        let words: Vec<&str> = part.split(' ').skip(1).collect();
        git(ground.dir.path(), &words);
        ran += 1;
    }
    assert_eq!(ran, 2);
    assert_eq!(git(&ground.remote(), &["rev-parse", "main"]), made.id);
    ground.checkout.fetch().await.unwrap();
    assert!(ground.checkout.is_in_tip(&made.id).await.unwrap());
    assert_eq!(ground.pushes(), 2);
}

#[tokio::test]
async fn what_somebody_else_changed_is_not_taken_back() {
    let ground = Ground::new();
    ground.checkout.fetch().await.unwrap();
    let made = ground.commit(&edits(), "r").await.unwrap();
    ground.checkout.push(&made, &ground.permit).await.unwrap();
    ground.somebody_pushes("apps/frigate/all.yaml", &FILE.replace("replicas: 1", "replicas: 2"));
    ground.checkout.fetch().await.unwrap();
    assert_eq!(ground.checkout.reverted(&made).await.unwrap(), Reverted::Changed(vec!["apps/frigate/all.yaml".into()]));
    let error = ground.checkout.revert(&made, "x", "y", &ground.permit).await.unwrap_err();
    assert!(matches!(&error, CheckoutError::ChangedSince { files, .. } if files.len() == 1), "{error:?}");
    assert!(error.help().is_some());
    assert_eq!((ground.notes().len(), ground.commits()), (2, 1));
}

#[tokio::test]
async fn an_executable_file_stays_one_and_a_left_over_index_is_no_obstacle() {
    let ground = Ground::new();
    std::fs::write(ground.work().join("run.yaml"), "kind: K\nmetadata: {name: it}\na: 1\n").unwrap();
    std::fs::set_permissions(ground.work().join("run.yaml"), std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .unwrap();
    git(ground.work(), &["add", "."]);
    git(ground.work(), &["commit", "--quiet", "-m", "x"]);
    git(ground.work(), &["push", "--quiet"]);
    ground.checkout.fetch().await.unwrap();
    for left in ["pvemig.index", "pvemig.index.lock"] {
        std::fs::write(ground.checkout.state_clone.join(left), "rubbish").unwrap();
    }
    let edit = Edit {
        file: "run.yaml".into(),
        object: "K/it".parse().unwrap(),
        set: vec![("a".parse().unwrap(), json!(2))],
        remove: vec![],
        replace: vec![],
    };
    let made = ground.commit(&[edit], "r").await.unwrap();
    let entry = git(&ground.checkout.state_clone, &["ls-tree", &made.id, "run.yaml"]);
    assert!(entry.starts_with("100755 blob"), "{entry}");
}

#[tokio::test]
async fn each_cause_has_its_error() {
    let ground = Ground::new();
    let with = |change: &dyn Fn(&mut Checkout)| {
        let mut checkout = ground.checkout.clone();
        change(&mut checkout);
        checkout
    };
    let errors = [
        with(&|c| c.path = ground.dir.path().join("none")).fetch().await.unwrap_err(),
        with(&|c| c.path = ground.dir.path().to_owned()).fetch().await.unwrap_err(),
        with(&|c| c.remote = "upstream".into()).fetch().await.unwrap_err(),
        with(&|c| c.branch = "release".into()).fetch().await.unwrap_err(),
    ];
    let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
    assert!(matches!(errors[0], CheckoutError::NotACheckout { .. }), "{texts:?}");
    assert!(matches!(errors[1], CheckoutError::NotACheckout { .. }), "{texts:?}");
    assert!(matches!(errors[2], CheckoutError::NoRemote { .. }), "{texts:?}");
    assert!(matches!(errors[3], CheckoutError::NoBranch { .. }), "{texts:?}");
    assert!(errors.iter().all(|error| error.effect() == Effect::None && error.help().is_some()));

    git(ground.work(), &["remote", "set-url", "origin", "http://me:hunter2@127.0.0.1:1/x.git"]);
    let error = ground.checkout.fetch().await.unwrap_err();
    assert!(matches!(error, CheckoutError::Unreachable { .. }), "{error:?}");
    assert!(error.retryable() && !format!("{error} {error:?}").contains("hunter2"), "{error:?}");

    git(ground.work(), &["remote", "set-url", "origin", "../remote.git"]);
    let tip = ground.checkout.fetch().await.unwrap();
    let mut missing = edits();
    missing[0].file = "none.yaml".into();
    let error = ground.checkout.commit(&missing, "x", "r", &ground.permit).await.unwrap_err();
    assert!(matches!(error, CheckoutError::NoFile { .. }), "{error:?}");
    git(ground.work(), &["remote", "set-url", "origin", ground.dir.path().join("gone.git").to_str().unwrap()]);
    let made = ground.commit(&edits(), "r").await.unwrap();
    assert_eq!(made.parent, tip);
    let error = ground.checkout.push(&made, &ground.permit).await.unwrap_err();
    assert!(matches!(error, CheckoutError::Unreachable { .. }), "{error:?}");
    assert_eq!((error.effect(), ground.pushes(), ground.commits()), (Effect::None, 1, 1));
}
