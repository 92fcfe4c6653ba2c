//! A node of a site file, opened by the estate.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use pvemig::base::clock::Clock;
use pvemig::base::fault::{Effect, Failure};
use pvemig::estate::Estate;
use pvemig::site::Site;

use super::fake::{Fake, Says, msg};
use super::pki::{NOW, Pki, talosconfig, write};
use super::{decent, machine};

/// A site with one Talos cluster, whose nodes are these lines.
fn estate(dir: &Path, context: &str, nodes: &str) -> Estate {
    let text = format!(
        "version: 1\nname: homelab\nkubernetes: {{ k: {{ kubeconfig: ./kubeconfig, context: k }} }}\n\
         talos:\n  homelab: {{ talosconfig: ./talosconfig, kubernetes: k, context: {context}, nodes: {{ {nodes} }} }}\n"
    );
    let path = dir.join("site.yaml");
    std::fs::write(&path, text).unwrap();
    let site = Site::load(&path).unwrap();
    Estate::new(Arc::new(site), Clock::fast(50), dir.join("state"))
}

#[tokio::test]
async fn a_node_of_the_site_is_asked_at_its_own_address_and_kept_open() {
    let (pki, dir) = (Pki::new(), tempfile::tempdir().unwrap());
    let mut opened = 0;
    // Each with a certificate for its own name alone; the one is reached at another address than its own.
    let fakes = [Fake::default(), Fake::default()];
    let own = fakes[0].serve(pki.serving(&pki.server(&["127.0.0.1"], NOW))).await;
    let forwarded = fakes[1].serve(pki.serving(&pki.server(&["10.10.0.49"], NOW))).await;
    let nodes = format!(
        "a: {{ address: \"127.0.0.1:{own}\" }}, b: {{ address: \"127.0.0.1:{forwarded}\", tls_name: 10.10.0.49 }}, \
         c: {{ address: \"localhost:{forwarded}\" }}"
    );
    write(&dir, &talosconfig(&pki.pem(), &pki.client("os:admin", NOW)));
    let estate = estate(dir.path(), "home", &nodes).deadlines(Duration::from_secs(9), Duration::from_secs(3));
    for (name, fake) in ["a", "b"].into_iter().zip(&fakes) {
        fake.on(&machine("SystemStat"), Says::Ok(vec![msg(1, &[vec![0x10, 7]])]));
        let talos = estate.talos(name).await.unwrap();
        assert_eq!((talos.node().name.as_str(), talos.boot_time().await.unwrap()), (name, 7));
        assert!(Arc::ptr_eq(&talos, &estate.talos(name).await.unwrap()), "opened twice");
        let asked = fake.asked();
        assert_eq!(asked.len(), 1);
        decent(&asked[0]);
        opened += 1;
    }
    let error = estate.talos("c").await.unwrap().boot_time().await.unwrap_err();
    assert!(error.to_string().contains("not trusted"), "{error}");
    assert_eq!((opened, fakes[1].asked().len()), (2, 1));
}

#[tokio::test]
async fn what_keeps_a_node_from_being_opened_is_said_with_what_to_do() {
    let (pki, dir) = (Pki::new(), tempfile::tempdir().unwrap());
    let text = talosconfig(&pki.pem(), &pki.client("os:reader", NOW));
    let path = write(&dir, &text);
    let node = "a: { address: 10.10.0.20 }";
    let open = async |context: &str, node: &str| -> Failure {
        let failure = estate(dir.path(), context, "a: { address: 10.10.0.20 }").talos(node).await.unwrap_err();
        assert_eq!(failure.fault().effect(), Effect::None);
        failure
    };
    assert!(estate(dir.path(), "home", node).talos("a").await.is_ok());
    let wide = || std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
    let mut failures = vec![open("home", "b").await, open("work", "a").await];
    std::fs::write(&path, text.replace("        key: ", "        kee: ")).unwrap();
    failures.push(open("home", "a").await);
    std::fs::write(&path, "contexts: 7").unwrap();
    failures.push(open("home", "a").await);
    wide();
    failures.push(open("home", "a").await);
    std::fs::remove_file(&path).unwrap();
    failures.push(open("home", "a").await);
    let cannot = "the nodes of Talos cluster `homelab` cannot be asked";
    let expected = [
        ("has no Talos node `b`", "", "it has `a`"),
        (cannot, "has no context `work`: it has home", "talosctl config contexts"),
        (cannot, "context `home`: `key` is missing", "gen config --with-secrets"),
        (cannot, "is no talosconfig", "talosctl gen config"),
        (cannot, "can be read by others (mode 0640)", "chmod 600"),
        (cannot, "there is no such file", "create "),
    ];
    assert_eq!(failures.len(), expected.len());
    for (failure, (first, why, help)) in failures.iter().zip(expected) {
        let (text, said) = (failure.to_string(), failure.fault().help().unwrap());
        assert!(text.contains(first) && text.contains(why) && said.contains(help), "{text}: {said}");
    }
}
