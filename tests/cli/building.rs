//! `cluster-build` as an operator meets it before anything is installed.

use super::*;

#[test]
fn what_is_typed_is_answered_before_anything_is_installed() {
    let up = Up::new("talos-fresh", "auto");
    // 06 makes the kubeconfig: that it is not there yet is no mistake of the file.
    let check = up.run(&["site", "check"]);
    expect(&check, 0, &["good (", "06 of cluster-build makes it"]);
    let blocked = up.run(&["plan", "build"]);
    let each = ["S5GXNF0R601234", "talos-vm-root", "S2ZRNYAH500749"].map(|disk| format!("`--destroy disk/{disk}`"));
    expect(&blocked, 4, &each.each_ref().map(String::as_str));
    let words = blocked.stdout.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(words.contains("none of them before 00-preflight is no longer blocked"), "{words}");

    let run = |things: &[&str]| {
        let given = things.iter().flat_map(|thing| ["--destroy", *thing]);
        up.run(&["run", "build", "--yes"].into_iter().chain(given).collect::<Vec<_>>())
    };
    let known = "`--destroy disk/S5GXNF0R601234`";
    expect(&run(&["disk/NOSUCH"]), 2, &["`--destroy disk/NOSUCH` names nothing that this run can destroy", known]);
    expect(&run(&["disk/talos-vm-root", "disk/S2ZRNYAH500748"]), 2, &["did you mean `disk/S2ZRNYAH500749`?"]);
    expect(&run(&["pvc/frigate/media"]), 2, &["names nothing that this run can destroy"]);
    expect(&up.run(&["plan", "build", "--destroy", "disk"]), 2, &["names nothing that this run can destroy"]);

    // A machine alone has nothing to join.
    let alone = ["step", "02-apply-config", "--node", "talos-mac", "--yes", "--destroy", "disk/S2ZRNYAH500749"];
    let said = up.run(&alone);
    let words = [said.stdout.as_str(), &said.stderr].concat().split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(said.code, 4, "{words}");
    assert!(words.contains("talos-mac has no etcd to join") && words.contains("0 voters, 0 healthy"), "{words}");
    expect(&up.run(&["explain", "04-bootstrap"]), 0, &["changes things, and an undo leaves them"]);
    let keep = up.run(&["explain", "08-safekeeping"]);
    expect(&keep, 0, &["may ask a person to act", "etcd snapshot homelab"]);
}

#[test]
fn the_steps_of_a_build_are_explained_without_a_site() {
    let shell = Shell::new();
    let steps = [
        "00",
        "01-check-disks",
        "02-apply-config",
        "03-wait-installed",
        "04-bootstrap",
        "05-join",
        "06-kubeconfig",
        "07-verify",
        "08-safekeeping",
    ];
    for step in &steps[1..] {
        expect(&shell.run(&["explain", step]), 0, &["example: done when ", "  - ", "By hand"]);
    }
    assert_eq!(steps.len(), 9);
}
