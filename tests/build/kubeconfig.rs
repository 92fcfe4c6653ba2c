//! The site's kubeconfig is somebody's: what is in it stays, and what was in it comes back.

use super::*;
use pvemig::base::private;

const OTHER: &str = "# by hand\napiVersion: v1\nkind: Config\nclusters:\n- name: lab\n  cluster: { server: 'https://10.9.9.9:6443', certificate-authority-data: b3RoZXI= }\n\
                     users:\n- name: lab\n  user: { token: of-another }\ncontexts:\n- name: NAME\n  context: { cluster: lab, user: lab }\ncurrent-context: NAME\n";

fn put(rig: &Rig, name: &str) -> (std::path::PathBuf, String) {
    let (path, text) = (rig.dir().join("kubeconfig"), OTHER.replace("NAME", name));
    std::fs::write(&path, &text).unwrap();
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    (path, text)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_context_of_another_cluster_is_not_written_over_and_the_file_comes_back() {
    let mut rig = fresh().await;
    let (run, Scenes { settled, .. }) = rig.watched(None, &consenting()).await;
    assert_done(&run, "undisturbed");
    let turn = rig.steps.iter().position(|step| step.id() == "06-kubeconfig").unwrap();
    rig.go_back(&settled[turn]);
    let (path, text) = put(&rig, "lab");
    let stopped = rig.forward(Some(&run.id), &How::default()).await;
    let (key, said) = why(&stopped);
    assert_eq!(key, "06-kubeconfig", "{said}");
    assert!(
        said.contains("leads to another cluster (https://10.9.9.9:6443)") && said.contains("delete-context lab"),
        "{said}"
    );
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
    // Beside a context of another name it is merged in, and that one stays the current one.
    rig.go_back(&settled[turn]);
    let (path, text) = put(&rig, "work");
    let talosconfig = rig.dir().join("talosconfig");
    let former = format!("# by hand\n{}", std::fs::read_to_string(&talosconfig).unwrap());
    private::write(&talosconfig, former.as_bytes()).unwrap();
    assert_done(&rig.forward(Some(&run.id), &How::default()).await, "beside another one");
    let merged = std::fs::read_to_string(&path).unwrap();
    assert!(
        merged.starts_with(OTHER.split("users:").next().unwrap()) && merged.contains("current-context: work"),
        "{merged}"
    );
    // Every line of the talosconfig is there, and the nodes with them; another context has none.
    let addressed = std::fs::read_to_string(&talosconfig).unwrap();
    assert!(former.lines().all(|line| addressed.lines().any(|now| now == line)), "{addressed}");
    let config: Value = serde_saphyr::from_str(&addressed).unwrap();
    assert_eq!(config["contexts"]["lab"]["nodes"].as_array().map(Vec::len), Some(3), "{addressed}");
    assert_eq!(config["contexts"]["lab"]["endpoints"].as_array().map(Vec::len), Some(3), "{addressed}");
    assert!(config["contexts"]["reader"]["nodes"].is_null(), "{addressed}");
    let past = rig.steps.iter().filter(|step| step.id() == "02-apply-config").map(|step| step.key().to_string());
    let undo = How { past: past.collect(), ..How::default() };
    assert!(matches!(rig.backward(&run.id, &undo).await.ended, Ok(Ended::Undone)));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
    assert_eq!(std::fs::read_to_string(&talosconfig).unwrap(), former);
    assert!(!rig.dir().join("safe").exists());
}
