//! The lab's Kubernetes front, asked by programs that nobody here wrote: kubectl and the crate `kube`.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot be set up has failed")]

use std::path::Path;
use std::process::Command;

use pvemig::lab::{Lab, LabOptions, load};

/// kubectl against a lab. It is the Debian package `kubernetes-client`, or any later one.
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

    async fn run(&self, line: &str) -> Output {
        let args: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        self.args(args).await
    }

    async fn args(&self, args: Vec<String>) -> Output {
        let folder = self.folder.path().to_owned();
        tokio::task::spawn_blocking(move || kubectl(&folder, &args)).await.unwrap()
    }

    async fn ok(&self, line: &str) -> String {
        let said = self.run(line).await;
        assert!(said.ok, "kubectl {line}: {}{}", said.out, said.err);
        said.out
    }
}

#[expect(clippy::disallowed_methods, reason = "the real kubectl is what the lab is held against")]
fn kubectl(folder: &Path, args: &[String]) -> Output {
    let output = Command::new("kubectl")
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

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_gets_tables() {
    let (lab, _dir) = lab(50).await;
    let kubectl = Kubectl::new(&lab);
    let nodes = kubectl.ok("get nodes -o wide").await;
    println!("{nodes}");
    println!("{}", kubectl.ok("get nodes -o yaml").await);
    println!("{}", kubectl.ok("describe node k3s-vm-still-fawn").await);
    println!("{}", kubectl.ok("get ns,sc,runtimeclass,lease -A").await);
    println!("{}", kubectl.ok("api-resources").await);
    println!("{}", kubectl.ok("version").await);
    assert_eq!(nodes.lines().count(), 4, "{nodes}");
}
