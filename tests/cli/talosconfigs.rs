//! What `site check` says of talosconfigs: their modes, contexts, certificates and dates.

use std::os::unix::fs::PermissionsExt;

use super::{Said, Shell, expect};
use crate::talos::pki::{NOW, Pair, Pki, talosconfig};

/// Writes a site with one Talos cluster and its files.
fn site(shell: &Shell, context: &str, config: &str, mode: u32) {
    let text = format!(
        "version: 1\nname: homelab\nkubernetes: {{ k: {{ kubeconfig: ./kubeconfig, context: k }} }}\n\
         talos:\n  homelab:\n    talosconfig: ./talosconfig\n    kubernetes: k\n{context}    \
         nodes: {{ a: {{ address: 10.10.0.20 }} }}\n"
    );
    for (name, text, mode) in
        [("site.yaml", text.as_str(), 0o644), ("kubeconfig", "{}\n", 0o644), ("talosconfig", config, mode)]
    {
        let path = shell.path().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    }
}

#[test]
fn site_check_tells_of_modes_contexts_and_dates() {
    let (shell, pki) = (Shell::new(), Pki::new());
    let said = |context: &str, pair: &Pair, mode: u32| -> Said {
        site(&shell, context, &talosconfig(&pki.pem(), pair), mode);
        shell.run(&["site", "check"])
    };
    let good = pki.client("os:admin", NOW);
    let fine = said("", &good, 0o600);
    expect(&fine, 0, &["good (", "1 Kubernetes cluster, 0 nodes, 1 Talos node,"]);
    assert_eq!(fine.stderr, "");
    expect(&said("    context: home\n", &good, 0o600), 0, &["good ("]);
    expect(&said("    context: hom\n", &good, 0o600), 2, &["has no context `hom`", "site.yaml:8:14", "it has home"]);
    expect(
        &said("", &good, 0o644),
        2,
        &["can be read by others (mode 0644)", "chmod 600", "(talos.homelab.talosconfig)"],
    );
    let other = Pair { certificate: good.certificate.clone(), key: pki.client("os:admin", NOW).key };
    expect(&said("", &other, 0o600), 2, &["does not belong to the certificate", "site.yaml:6:18"]);

    let near = said("", &pki.client_between("os:admin", (-300, 10)), 0o600);
    expect(
        &near,
        0,
        &["good (", "notice: the client certificate of context `home`", "ends in ", "config new FILE --roles os:admin"],
    );
    let fresh = said("", &pki.client_between("os:admin", (-300, 33)), 0o600);
    assert_eq!((fresh.code, fresh.stderr.as_str()), (0, ""));
    let ended = said("", &pki.client_between("os:admin", (-365, -1)), 0o600);
    expect(&ended, 2, &["ended on ", "talosctl gen config", "(talos.homelab.talosconfig)"]);
    let early = said("", &pki.client_between("os:admin", (2, 365)), 0o600);
    expect(&early, 2, &["holds only from ", "`date -u` shows it"]);

    // What is no talosconfig, and what is not there.
    site(&shell, "", "contexts: 7", 0o600);
    expect(&shell.run(&["site", "check"]), 2, &["is no talosconfig, see line 1"]);
    std::fs::remove_file(shell.path().join("talosconfig")).unwrap();
    let said = shell.run(&["site", "check"]);
    expect(&said, 2, &["cannot be read: there", "with mode 0600"]);
    assert_eq!(said.stderr.matches("error: ").count(), 1, "{}", said.stderr);
}
