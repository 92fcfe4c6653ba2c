use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::*;
use crate::base::fault::Fault;

const MANY: &str = include_str!("../../fixtures/site/many.yaml");

fn parse(text: &str) -> Result<Site, SiteError> {
    Site::parse(text, Path::new("/etc/pvemig/site.yaml"), Some(PathBuf::from("/home/me")))
}

fn invalid(text: &str) -> Box<Invalid> {
    match parse(text) {
        Err(SiteError::Invalid(invalid)) => invalid,
        other => panic!("expected problems, got {other:?}"),
    }
}

/// `path: text` of each problem.
pub(super) fn problems(text: &str) -> Vec<String> {
    let problems = invalid(text).problems;
    assert!(problems.iter().all(|p| !p.help.is_empty()), "a problem without help");
    problems.into_iter().map(|p| format!("{}: {}", p.path, p.text)).collect()
}

/// The example with one piece of text replaced; the piece must be there.
pub(super) fn with(from: &str, to: &str) -> String {
    assert!(example().contains(from), "the example has no `{from}`");
    example().replacen(from, to, 1)
}

#[test]
fn the_example_passes_and_is_resolved() {
    let site = parse(example()).unwrap();
    assert_eq!((site.name.as_str(), site.patience), ("homelab", Duration::from_secs(600)));
    assert_eq!(site.digest.len(), 64);
    let home = &site.proxmox["home"];
    assert_eq!(home.urls, ["https://192.168.4.122:8006", "https://192.168.4.17:8006"]);
    assert!(matches!(&home.trust, TrustSource::Ca(path) if path == Path::new("/etc/pvemig/pve-root-ca.pem")));
    let ProxmoxAuth::Ticket { user, password } = &home.auth else { panic!() };
    assert_eq!((user.as_str(), password.shown().as_str()), ("root@pam", "/etc/pvemig/pve-password"));
    let ssh = home.hosts["pumped-piglet"].ssh.as_ref().unwrap();
    assert_eq!((ssh.port, ssh.known_hosts.as_path()), (22, Path::new("/home/me/.ssh/known_hosts")));
    assert!(home.hosts["still-fawn"].ssh.is_none());
    let node = &site.nodes["k3s-vm-pumped-piglet"];
    assert_eq!((node.vmid, node.node_name.as_str()), (105, "k3s-vm-pumped-piglet"));
    assert_eq!(node.access, [Access::Ssh, Access::Agent, Access::HostSsh]);
    let coral = &site.devices["coral"];
    assert_eq!(coral.ids.iter().map(ToString::to_string).collect::<Vec<_>>(), ["1a6e:089a", "18d1:9302"]);
    assert_eq!(coral.ports["still-fawn"].sibling.as_ref().unwrap().to_string(), "1-3");
    assert!(!site.checkouts["gitops"].push);
    assert_eq!(site.kubernetes["k3s"].gitops.as_ref().unwrap().checkout, "gitops");
    assert_eq!(site.migrations["frigate-coral"].params["label"]["value"], "true");
    let talos = &site.talos["homelab"];
    assert_eq!(
        (talos.talosconfig.as_path(), talos.context.as_deref()),
        (Path::new("/home/me/.talos/config"), Some("homelab"))
    );
    assert_eq!((talos.kubernetes.as_str(), talos.nodes.len(), site.talos_node_names.len()), ("homelab", 3, 3));
    let (cluster, mac) = site.talos_node("talos-mac").unwrap();
    assert_eq!((cluster, mac.address.as_str(), mac.node_name.as_str()), ("homelab", "127.0.0.1:50049", "talos-49"));
    assert_eq!((mac.tls_name.as_deref(), &mac.vm), (Some("192.168.4.49"), &None));
    let vm = site.talos_node("talos-vm").unwrap().1;
    assert_eq!((vm.node_name.as_str(), &vm.tls_name), ("talos-vm", &None));
    assert_eq!(vm.vm, Some(VmRef { proxmox: "home".into(), vmid: 223 }));
    assert!(site.is_whole() && site.talos_node("k3s-vm-still-fawn").is_none());
}

#[test]
fn a_file_with_many_problems_shows_all_of_them_in_order() {
    let found = problems(MANY);
    let expected = [
        "nam: unknown key `nam`",
        ": `name` is missing",
        "version: `version` is to be a whole number from 1 to 1, not `2`",
        "patience: `soon` is not a length of time",
        "proxmox.home.urls[0]: this does not start with `https://`",
        "proxmox.home.urls[1]: `https://b` has no port",
        "proxmox.home.urls[2]: this is not the base URL of a Proxmox API",
        "proxmox.home.fingerprint: `AA:BB` is not a SHA-256 fingerprint of 32 pairs like `AA:BB:..`",
        "proxmox.home.auth.ticket.user: `root` has no realm",
        "proxmox.home.auth.ticket.password: a secret stands in the site file only as a reference",
        "proxmox.home.hosts.still-fawn.ssh: `address` is missing in `proxmox.home.hosts.still-fawn.ssh`",
        "proxmox.home.hosts.still-fawn.ssh.adress: unknown key `adress`",
        "proxmox.home.hosts.still-fawn.ssh: `key` is missing in `proxmox.home.hosts.still-fawn.ssh`",
        "proxmox.home.hosts.still-fawn.ssh.port: `port` is to be a whole number from 1 to 65535, not `70000`",
        "kubernetes.k3s: `context` is missing in `kubernetes.k3s`",
        "kubernetes.k3s.gitops.kind: `fluxx` is not possible here",
        "kubernetes.k3s.gitops.checkout: `gitopz` is not a checkout of this file",
        "kubernetes.k3s.gitops.source: `name` is missing in `kubernetes.k3s.gitops.source`",
        "checkouts.gitops.branch: `-f` is not a name that git takes",
        "checkouts.gitops.push: `push` is to be true or false, not `maybe`",
        "checkouts.gitops.author.name: a name or address has no `<`, `>` or line break",
        "nodes.one.proxmox: `hom` is not a Proxmox cluster of this file",
        "nodes.one.vmid: `vmid` is to be a whole number from 100 to 999999999, not `12`",
        "nodes.one.access[0]: the node has no `ssh`",
        "nodes.one.access[1]: `agnet` is not possible here",
        "nodes.one.access[3]: `agent` is there twice",
        "nodes.two words: `two words` is not a name",
        "nodes.three.colour: unknown key `colour`",
        "nodes.four: `four` and `three` are the same Kubernetes node",
        "devices.coral.ids[1]: `1a6e` is not a USB id like `1a6e:089a`",
        "devices.coral.ports.still-fwan: `still-fwan` is not a Proxmox host of this file",
        "devices.coral.ports.still-fwan.port: `2-0` is not a USB port like `2-1` or `2-1.4`",
        "devices.coral.min_speed: `min_speed` is to be a whole number from 1 to 80000, not `fast`",
        "migrations.m: `blueprint` is missing in `migrations.m`",
        "migrations.m.params: `params` is to be a mapping, not a list",
    ];
    for line in &expected {
        assert!(found.iter().any(|f| f == line), "not found: {line}\nfound:\n{}", found.join("\n"));
    }
    assert_eq!(found.len(), expected.len(), "{}", found.join("\n"));
    let text = invalid(MANY).render(100);
    assert_eq!(text.matches("error: ").count(), expected.len());
    assert_eq!(text.matches("help: ").count(), expected.len());
    assert_eq!(invalid(MANY).to_string(), "35 problems in /etc/pvemig/site.yaml");
    let lines: Vec<usize> = text
        .lines()
        .filter_map(|l| l.split("site.yaml:").nth(1))
        .filter_map(|l| l.split(':').next()?.parse().ok())
        .collect();
    assert!(lines.len() > 30 && lines.is_sorted(), "{lines:?}");
}

#[test]
fn a_problem_shows_line_caret_key_and_help() {
    let invalid = invalid(&with("vmid: 108\n    kubernetes: k3s", "vmid: 108\n    kubernetes: k4s"));
    assert_eq!(
        invalid.render(80),
        "error: `k4s` is not a Kubernetes cluster of this file\n  \
         --> /etc/pvemig/site.yaml:71:17 (nodes.k3s-vm-still-fawn.kubernetes)\n   \
         |\n71 |     kubernetes: k4s\n   |                 ^^^\n  help: did you mean `k3s`?\n"
    );
}

#[test]
fn secrets_typed_into_the_file_are_never_shown() {
    let texts = [
        with("{ file: ./pve-password }", "hunter2"),
        with("ticket: { user: root@pam, password: { file: ./pve-password } }", "token: root@pam!x=hunter2"),
        with(
            "ticket: { user: root@pam, password: { file: ./pve-password } }",
            "token: { id: \"root@pam!x=hunter2\", secret: { env: X } }",
        ),
        with("    auth:", "    pasword: hunter2\n    auth:"),
        with("https://192.168.4.17:8006", "https://root:hunter2@192.168.4.17:8006"),
        with("{ file: ./pve-password }", "[hunter2]"),
        with("{ file: ./pve-password }", "hunter2: x: y"),
    ];
    for text in &texts {
        let invalid = invalid(text);
        assert!(!format!("{:?}", invalid.problems).contains("hunter2"), "{:?}", invalid.problems);
        if !text.contains("pasword") {
            // A misspelt key is shown with its line: nobody can know what it was meant to be.
            assert!(!invalid.render(120).contains("hunter2"), "{}", invalid.render(120));
        }
    }
    assert_eq!(texts.len(), 7);
    assert!(invalid(&with("name: homelab", "name: hunter2 x")).render(120).contains("hunter2"), "positive control");
}

#[test]
fn what_is_no_yaml_ends_early_with_its_place() {
    for (text, line, part) in [
        ("version: 1\nname: a\nname: b\n", 3, "duplicate"),
        ("version: 1\nname: [a\nproxmox: {}\n", 3, "not valid YAML"),
        ("version: 1\n---\nversion: 1\n", 3, "multiple YAML documents"),
        ("a: *x\n", 1, "anchor"),
    ] {
        let invalid = invalid(text);
        assert_eq!(invalid.problems.len(), 1);
        let shown = invalid.render(100);
        assert!(shown.contains(part) && shown.contains(&format!("site.yaml:{line}:")), "{shown}");
    }
    for (text, part) in [("", "this is empty"), ("- a\n", "this is a list"), ("hello\n", "this is a text")] {
        assert!(problems(text)[0].contains(part), "{:?}", problems(text));
    }
}

#[test]
fn single_problems() {
    let cases = [
        (with("    ca: ./pve-root-ca.pem\n", ""), "proxmox.home: `fingerprint` is missing in `proxmox.home`"),
        (
            with("    ca: ./pve-root-ca.pem\n", "    ca: x\n    fingerprints: []\n"),
            "proxmox.home.fingerprints: `ca` and fingerprints exclude each other",
        ),
        (
            with("    ca: ./pve-root-ca.pem\n", "    fingerprints: []\n"),
            "proxmox.home.fingerprints: `fingerprints` is an empty list",
        ),
        (
            with("    urls:", "    url: https://a:8006\n    urls:"),
            "proxmox.home.urls: `url` and `urls` exclude each other",
        ),
        (
            with("{ file: ./pve-password }", "{ file: x, env: Y }"),
            "proxmox.home.auth.ticket.password: a secret has one place",
        ),
        (
            with("{ file: ./pve-password }", "{}"),
            "proxmox.home.auth.ticket.password: the reference to the secret is empty",
        ),
        (
            with("{ file: ./pve-password }", "{ command: [] }"),
            "proxmox.home.auth.ticket.password.command: `command` is an empty list",
        ),
        (
            with("      ticket: { user: root@pam, password: { file: ./pve-password } }\n", "      {}\n"),
            "proxmox.home.auth: `auth` has neither a ticket nor a token",
        ),
        (with("ca: ./pve-root-ca.pem", "ca: \"\""), "proxmox.home.ca: `ca` is empty"),
        (with("access: [agent]", "access: []"), "nodes.k3s-vm-still-fawn.access: there is no way into the guest"),
        (
            with("vmid: 108", "vmid: 105"),
            "nodes.k3s-vm-still-fawn: `k3s-vm-still-fawn` and `k3s-vm-pumped-piglet` are the same vm 105",
        ),
        (
            with("address: 192.168.4.210", "address: root@192.168.4.210"),
            "nodes.k3s-vm-pumped-piglet.ssh.address: `root@192.168.4.210` is not an address",
        ),
        (with("patience: 10m", "patience: 0s"), "patience: `0s` is not a length of time"),
        (with("ids: [\"1a6e:089a\", \"18d1:9302\"]", "ids: []"), "devices.coral.ids: a device has at least one id"),
        (with("version: 1", "version:"), "version: `version` has no value"),
        (with("branch: main", "branch: a b"), "checkouts.gitops.branch: `a b` is not a name that git takes"),
    ];
    assert_eq!(cases.len(), 16);
    for (text, expected) in cases {
        assert_eq!(problems(&text), [expected]);
    }
    let no_key =
        with("address: 192.168.4.210, user: root, key: { file: ~/.ssh/id_ed25519 },", "address: 192.168.4.210,");
    let missing = "nodes.k3s-vm-pumped-piglet.ssh: `key` is missing in `nodes.k3s-vm-pumped-piglet.ssh`";
    assert_eq!(problems(&no_key), [missing]);
    let shown = invalid(&no_key).render(120);
    assert!(shown.contains("site.yaml:65:") && shown.contains("key: { file: ~/.ssh/id_ed25519 }"), "{shown}");
    let no_host = with(
        "        ssh: { address: 192.168.4.122, user: root, key: { file: ~/.ssh/id_ed25519 }, known_hosts: ~/.ssh/known_hosts }\n",
        "",
    );
    assert_eq!(problems(&no_host), ["nodes.k3s-vm-pumped-piglet.access[2]: no host of the node's cluster has `ssh`"]);
    let Err(SiteError::Invalid(none)) = Site::parse(example(), Path::new("/s/site.yaml"), None) else { panic!() };
    assert_eq!(none.problems.len(), 8, "{}", none.render(100));
}

#[test]
fn a_file_with_every_section_passes() {
    let site = parse(include_str!("../../fixtures/site/whole.yaml")).map_err(|error| match error {
        SiteError::Invalid(invalid) => invalid.render(100),
        other => other.to_string(),
    });
    let site = site.unwrap();
    assert_eq!(site.devices["coral"].mapping.as_deref(), Some("coral"));
    assert_eq!(site.checkouts["gitops"].path, Path::new("/etc/pvemig/checkout"));
    assert_eq!(site.nodes["k3s-vm-still-fawn"].access.len(), 3);
}

#[test]
fn other_spellings_are_taken() {
    let pin = (0..32).map(|i| format!("{i:02X}")).collect::<Vec<_>>().join(":");
    let token = with(
        "ticket: { user: root@pam, password: { file: ./pve-password } }",
        "token: { id: \"a@pve!t\", secret: { command: [pass, show] } }",
    );
    let site = parse(&token.replace("ca: ./pve-root-ca.pem", &format!("fingerprint: \"{pin}\""))).unwrap();
    assert!(matches!(&site.proxmox["home"].trust, TrustSource::Pins(pins) if pins.len() == 1));
    assert!(matches!(&site.proxmox["home"].auth, ProxmoxAuth::Token { id, .. } if id == "a@pve!t"));
    assert_eq!(parse(&with("name: homelab", "name: no")).unwrap().name, "no");
    assert_eq!(
        problems(&with("push: false", "push: no")),
        ["checkouts.gitops.push: `push` is to be true or false, not `no`"]
    );
    let site = parse(&with("      still-fawn: {}", "      still-fawn:")).unwrap();
    assert_eq!(site.proxmox["home"].hosts.len(), 3);
    let site = parse(&example().replace("    min_speed: 5000", "    serial: null\n    min_speed: 5000")).err();
    assert!(site.is_none());
}

#[test]
fn a_blueprint_reports_its_parameters_with_their_place() {
    let site = parse(example()).unwrap();
    let at = site.locate("migrations.frigate-coral.params.device").unwrap();
    let line = example().lines().nth(at.line - 1).unwrap();
    assert_eq!(&line[at.column - 1..at.column - 1 + at.length], "coral");
    let at = site.locate("migrations.frigate-coral.params.manifests[0].remove[1]").unwrap();
    assert!(example().lines().nth(at.line - 1).unwrap().contains("nvidia.com/gpu"));
    assert!(
        site.locate("migrations.frigate-coral.params.manifests[0].set[spec.template.spec.nodeSelector].coral")
            .is_some()
    );
    assert!(site.locate("migrations.frigate-coral.params.nothing").is_none());

    let sink = fields::Sink::new();
    let params = site.params("frigate-coral", &sink).unwrap();
    let fields = params.fields(&["device", "frm"]);
    assert!(fields.need("device", "x").unwrap().name_of("a device", ["corral"].into_iter()).is_none());
    assert!(fields.need("absent", "add it").is_none());
    let problems = sink.into_problems();
    assert_eq!(problems.len(), 13, "11 unknown keys, a wrong name, a missing key");
    let SiteError::Invalid(invalid) = site.invalid(problems) else { panic!() };
    let text = invalid.render(100);
    assert!(text.contains("unknown key `from`") && text.contains("did you mean `frm`?"), "{text}");
    assert!(text.contains("did you mean `corral`?"), "{text}");
}

#[test]
fn long_lines_are_cropped_around_the_caret_and_words_wrap() {
    let long = with("access: [agent]", &format!("access: [agent] # {}", "x".repeat(300)));
    let long = long.replace("access: [agent] #", "access: [agnt] #");
    let text = invalid(&long).render(60);
    assert!(text.lines().all(|line| line.chars().count() <= 60 || line.contains("-->")), "{text}");
    let (source, caret) = (text.lines().nth(3).unwrap(), text.lines().nth(4).unwrap());
    let column = caret.find('^').unwrap();
    assert_eq!(&source[column..column + 4], "agnt");
    assert_eq!(caret.matches('^').count(), 4);
}

#[test]
fn references_are_looked_at_without_being_used() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("site.yaml");
    std::fs::write(&path, example().replace("~/", "./")).unwrap();
    let site = Site::load(&path).unwrap();
    let problems = site.check_references();
    let paths: Vec<&str> = problems.iter().map(|p| p.path.as_str()).collect();
    assert_eq!(
        paths,
        [
            "proxmox.home.ca",
            "proxmox.home.auth.ticket.password",
            "proxmox.home.hosts.pumped-piglet.ssh.key",
            "proxmox.home.hosts.pumped-piglet.ssh.known_hosts",
            "kubernetes.k3s.kubeconfig",
            "kubernetes.homelab.kubeconfig",
            "checkouts.gitops.path",
            "nodes.k3s-vm-pumped-piglet.ssh.key",
            "nodes.k3s-vm-pumped-piglet.ssh.known_hosts",
            "talos.homelab.talosconfig",
        ]
    );
    let password = dir.path().join("pve-password");
    std::fs::write(&password, "x\n").unwrap();
    std::fs::set_permissions(&password, std::fs::Permissions::from_mode(0o640)).unwrap();
    let problem = site.check_references().into_iter().find(|p| p.path.ends_with("password")).unwrap();
    assert_eq!(problem.help, format!("chmod 600 {}", password.display()));
    let text = site.render(&problem, 200);
    assert!(text.contains("can be read by others (mode 0640)") && text.contains("^^^^"), "{text}");
    std::fs::create_dir(dir.path().join(".talos")).unwrap();
    std::fs::write(dir.path().join(".talos/config"), "x\n").unwrap();
    std::fs::set_permissions(dir.path().join(".talos/config"), std::fs::Permissions::from_mode(0o644)).unwrap();
    let wide: Vec<String> = site.wide_files().into_iter().map(|p| p.path).collect();
    assert_eq!(wide, ["proxmox.home.auth.ticket.password", "talos.homelab.talosconfig"]);
    assert!(matches!(Site::load(&dir.path().join("none.yaml")), Err(SiteError::Unreadable { .. })));
}

#[tokio::test]
async fn secrets_are_resolved_and_never_repeated() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &[u8], mode: u32| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        SecretRef::File(path)
    };
    let sh = |script: &str| SecretRef::Command(vec!["sh".into(), "-c".into(), script.into()]);
    assert_eq!(file("a", b"hunter2\n", 0o600).resolve().await.unwrap().expose(), "hunter2");
    assert_eq!(file("key", b"line\nline\n", 0o400).resolve().await.unwrap().expose(), "line\nline\n");
    assert_eq!(sh("echo hunter2").resolve().await.unwrap().expose(), "hunter2");
    assert!(SecretRef::Env("PATH".into()).resolve().await.is_ok());

    let failures = [
        (file("b", b"hunter2", 0o604).resolve().await, "can be read by others (mode 0604)"),
        (file("c", b"\n", 0o600).resolve().await, "is empty"),
        (file("d", b"hunter2\xff", 0o600).resolve().await, "is not text"),
        (SecretRef::File(dir.path().join("none")).resolve().await, "cannot be read"),
        (SecretRef::Env("PVEMIG_NOT_SET_ANYWHERE".into()).resolve().await, "is not set"),
        (sh("echo hunter2; exit 3").resolve().await, "`sh` ended with exit status: 3"),
        (SecretRef::Command(vec!["/nonexistent/program".into()]).resolve().await, "cannot be started"),
    ];
    assert_eq!(failures.len(), 7);
    for (result, part) in failures {
        let error = result.unwrap_err();
        assert!(error.to_string().contains(part), "{error}");
        assert!(!format!("{error:?} {:?}", error.help()).contains("hunter2"));
        assert!(error.help().is_some());
    }
}
