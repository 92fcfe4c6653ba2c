//! The lab's Kubernetes front, asked by programs that nobody here wrote: kubectl and the crate `kube`.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot be set up has failed")]

mod client;
mod drives;
mod kubectl;

use std::path::Path;
use std::process::Command;

use pvemig::lab::kube::kinds;
use pvemig::lab::{Lab, LabOptions, load};

/// kubectl against a lab. The Debian package `kubernetes-client` (1.20) has it; later ones do too.
struct Kubectl {
    folder: tempfile::TempDir,
}

struct Output {
    ok: bool,
    out: String,
    err: String,
}

impl Kubectl {
    fn new(lab: &Lab) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("kubeconfig"), &lab.reach().kubernetes.kubeconfig).unwrap();
        Self { folder }
    }

    fn file(&self, name: &str, text: &str) -> String {
        let path = self.folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    }

    async fn run(&self, line: &str) -> Output {
        let args: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        self.args(args).await
    }

    async fn args(&self, args: Vec<String>) -> Output {
        let folder = self.folder.path().to_owned();
        tokio::task::spawn_blocking(move || kubectl(&folder, &args)).await.unwrap()
    }

    async fn refused(&self, line: &str) -> String {
        let said = self.run(line).await;
        assert!(!said.ok, "kubectl {line} was not refused: {}", said.out);
        said.err
    }

    async fn ok(&self, line: &str) -> String {
        let said = self.run(line).await;
        assert!(said.ok, "kubectl {line}: {}{}", said.out, said.err);
        said.out
    }
}

#[expect(clippy::disallowed_methods, reason = "the real kubectl is what the lab is held against")]
fn kubectl(folder: &Path, args: &[String]) -> Output {
    // Another version than the one on the path: KUBECTL=/opt/kubectl-1.20 cargo test --test all lab_kube::
    let program = std::env::var_os("KUBECTL").unwrap_or_else(|| "kubectl".into());
    let output = Command::new(program)
        .args(["--kubeconfig".into(), folder.join("kubeconfig").display().to_string()])
        .args(["--cache-dir".into(), folder.join("cache").display().to_string()])
        .args(args)
        .env_clear()
        .env("HOME", folder)
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        .output()
        .unwrap_or_else(|e| panic!("kubectl does not start ({e}): install the package `kubernetes-client`"));
    Output {
        ok: output.status.success(),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

async fn lab(speed: u32) -> (Lab, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let world = load("usb-move").unwrap();
    let lab = Lab::start(LabOptions { world, dir: dir.path().to_owned(), speed }).await.unwrap();
    (lab, dir)
}

/// A lab whose Flux rests: it would put back what a test changes, when its time comes.
async fn lab_without_flux(speed: u32) -> (Lab, tempfile::TempDir) {
    let (lab, dir) = lab(speed).await;
    lab.shared().change(|w| {
        for name in ["flux-system", "apps"] {
            let kind = kinds::kustomizations();
            let mut object = serde_json::Value::clone(w.kube.store.get(kind, "flux-system", name).unwrap());
            object["spec"]["suspend"] = true.into();
            w.kube.store.replace(kind, object, None);
        }
    });
    (lab, dir)
}

/// How many requests of a class the Kubernetes front has answered.
fn count(lab: &Lab, class: pvemig::lab::Class) -> usize {
    lab.shared().log.count(pvemig::lab::Front::Kubernetes, class)
}

#[expect(clippy::disallowed_methods, reason = "the real git is what the lab is held against")]
fn git(folder: &Path, args: &[&str]) -> bool {
    let who = ["-c", "user.name=t", "-c", "user.email=t@localhost"];
    Command::new("git").current_dir(folder).args(who).args(args).output().unwrap().status.success()
}

/// How many pushes the followed repository has noted in the request log.
fn pushes(dir: &Path) -> usize {
    let log = std::fs::read_to_string(dir.join("requests.jsonl")).unwrap();
    let lines = log.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    lines.filter(|line| line["front"] == "checkout" && line["method"] == "push").count()
}

#[tokio::test(flavor = "multi_thread")]
async fn flux_follows_what_is_pushed() {
    let (lab, dir) = lab(100).await;
    let kubectl = Kubectl::new(&lab);
    let (checkout, bare) = (dir.path().join("checkout"), dir.path().join("gitops.git"));
    let file = checkout.join("apps/frigate/configmap.yaml");
    let edit = |from: &str, to: &str| {
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(text.contains(from));
        std::fs::write(&file, text.replace(from, to)).unwrap();
        assert!(git(&checkout, &["commit", "-qam", to]));
    };
    edit("preset-nvidia-h264", "preset-vaapi");
    std::fs::write(bare.join("refuse"), "the remote is read-only\n").unwrap();
    assert!(!git(&checkout, &["push", "-q", "origin", "main"]));
    assert_eq!(pushes(dir.path()), 0);
    std::fs::remove_file(bare.join("refuse")).unwrap();
    assert!(git(&checkout, &["push", "-q", "origin", "main"]));
    assert_eq!(pushes(dir.path()), 1);
    // By its interval; then at once, because it is asked, and by hand.
    let applied = |w: &pvemig::lab::World| {
        let map = w.kube.store.get(kinds::configmaps(), "frigate", "frigate-config")?;
        map["data"]["config.yml"].as_str()?.contains("preset-vaapi").then_some(())
    };
    lab.shared().until(std::time::Duration::from_secs(3_600), applied).await.unwrap();
    let value = "get cm -n frigate frigate-config -o jsonpath={.data}";
    assert!(kubectl.ok(value).await.contains("preset-vaapi"));
    edit("preset-vaapi", "preset-intel-qsv-h264");
    let tip = pvemig::lab::kube::push(lab.shared(), dir.path()).await.unwrap();
    for (what, kind) in [("gitrepo/flux-system", kinds::repositories()), ("ks/apps", kinds::kustomizations())] {
        kubectl.ok(&format!("annotate -n flux-system {what} reconcile.fluxcd.io/requestedAt=t1 --overwrite")).await;
        let name = what.split('/').nth(1).unwrap();
        let handled = |w: &pvemig::lab::World| {
            let object = w.kube.store.get(kind, "flux-system", name)?;
            (object["status"]["lastHandledReconcileAt"] == "t1").then_some(())
        };
        lab.shared().until(std::time::Duration::from_secs(3_600), handled).await.unwrap();
    }
    assert!(kubectl.ok(value).await.contains("preset-intel-qsv-h264"));
    assert!(kubectl.ok("get ks -n flux-system apps").await.contains(&tip));
    assert_eq!(pushes(dir.path()), 2);
}
