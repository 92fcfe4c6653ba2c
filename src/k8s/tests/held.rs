use std::os::unix::fs::PermissionsExt;

use super::super::Kubernetes;
use crate::base::clock::Clock;
use crate::base::redact;

/// What stands in the files that a kubeconfig names, and what it gives a plugin, is known as long as the cluster is.
#[tokio::test]
async fn the_secrets_beside_a_kubeconfig_are_held() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        path
    };
    write("token-file", "zugspitze 2962\n");
    write("key", "-----BEGIN PRIVATE KEY-----\nwatzmann hochkalter 2713\n-----END PRIVATE KEY-----\n");
    let plugin = r#"{"apiVersion": "client.authentication.k8s.io/v1", "command": "no-such-plugin",
        "interactiveMode": "Never", "env": [{"name": "PLUGIN_KEY", "value": "hoher goell 2522"},
        {"name": "AWS_PROFILE", "value": "schneibstein"}]}"#;
    let text = format!(
        "apiVersion: v1\nkind: Config\nclusters:\n- name: c\n  cluster: {{server: 'http://127.0.0.1:1'}}\n\
         contexts:\n- name: lab\n  context: {{cluster: c, user: a}}\nusers:\n\
         - name: a\n  user: {{tokenFile: token-file}}\n- name: b\n  user: {{client-key: key}}\n\
         - name: c\n  user: {{exec: {}}}\n\
         - name: d\n  user: {{auth-provider: {{name: oidc, config: {{client-id: hochkalter, \
         refresh-token: kehlstein 1881, client-secret: untersberg 1972}}}}}}\n",
        plugin.split_whitespace().collect::<Vec<_>>().join(" ")
    );
    let kube = Kubernetes::open("k3s", &write("kubeconfig", &text), "lab", Clock::real()).await.unwrap();
    let given = "<zugspitze 2962> <watzmann hochkalter 2713> <hoher goell 2522> <schneibstein> <kehlstein 1881> \
                 <untersberg 1972> <hochkalter>";
    assert_eq!(redact::text(given), "<…> <…> <…> <schneibstein> <…> <…> <hochkalter>");
    drop(kube);
    // Another thread that takes something out just now holds all of them for that moment.
    assert!((0..10_000).any(|_| redact::text(given) == given));
}
