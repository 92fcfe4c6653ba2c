//! What a person is told to type has to work where it is pasted.

use super::{problems, rig};

const FOLDERS: [&str; 3] = ["node_reboot_test", "node_reboot_test/s00_preflight", "quorum"];

/// Without `-e` a command goes to whatever endpoint the talosconfig names, and a node's name in the site file is no
/// address.
#[test]
fn no_command_to_a_node_is_without_its_address() {
    let (mut read, mut by_hand, mut bare) = (0, 0, Vec::new());
    for folder in FOLDERS {
        let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/blueprint").join(folder);
        for file in std::fs::read_dir(dir).unwrap() {
            let path = file.unwrap().path();
            if path.extension().is_none_or(|extension| extension != "rs") || path.ends_with("tests.rs") {
                continue;
            }
            read += 1;
            let text = std::fs::read_to_string(&path).unwrap();
            let own = text.lines().take_while(|line| !line.starts_with("#[cfg(test)]"));
            for line in own.filter(|line| line.contains("`talosctl ") && !line.trim_start().starts_with("//")) {
                // What is explained of a finding is of no node; a node that waits for its first configuration has its
                // own way in, and what makes a configuration goes to none.
                let general = path.ends_with("known.rs") || line.contains("--insecure") || line.contains("gen config");
                if general {
                    by_hand += 1;
                } else if !line.contains("`talosctl {rest}`") {
                    bare.push(format!("{}: {}", path.display(), line.trim()));
                }
            }
        }
    }
    assert!(read > 15 && by_hand > 5, "{read} {by_hand}");
    assert_eq!(bare, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn steps_name_the_way_of_the_site_file() {
    let rig = rig("talos-three", &["talos-vm"], |_| {}).await;
    let (cluster, node) = rig.site.talos_node("talos-vm").unwrap();
    let config = rig.site.talos[cluster].talosconfig.display();
    let context = rig.site.talos[cluster].context.as_deref().unwrap();
    let at = format!("-e {} -n {}", node.address, node.tls_name.as_deref().unwrap());
    let wanted = format!("`talosctl --talosconfig {config} --context {context} {at} ");
    let mut named = 0;
    for step in &rig.steps {
        for line in step.why().iter().filter(|line| line.contains("`talosctl ")) {
            assert!(line.contains(&wanted), "{}: {line}", step.key());
            named += 1;
        }
    }
    assert!(named >= 4, "{named}");
}

/// The gate's commands, of one node and of all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_gate_names_the_talosconfig_too() {
    let mut helps = Vec::new();
    for (world, node) in [("talos-three-alarm", "talos-vm"), ("talos-three-learner", "talos-mac")] {
        let rig = rig(world, &[node], |_| {}).await;
        let config = rig.site.talos["homelab"].talosconfig.display().to_string();
        let found = problems(&rig, &format!("01-quorum-gate@{node}")).await;
        helps.extend(found.into_iter().map(|problem| (problem.help, format!("`talosctl --talosconfig {config} "))));
    }
    let commands = helps.iter().filter(|(help, _)| help.contains("`talosctl "));
    assert_eq!(commands.clone().find(|(help, wanted)| !help.contains(wanted)), None);
    assert!(commands.count() >= 2, "{helps:#?}");
}
