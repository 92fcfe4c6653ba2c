//! What the verb prints.

use pvemig::lab::{FaultEffect, Front, Lab, load};
use serde_json::Value;

use super::Bench;

/// The row of a node in the table.
pub(super) fn row<'t>(text: &'t str, node: &str) -> Vec<&'t str> {
    let line = text.lines().find(|line| line.split_whitespace().nth(1) == Some(node));
    line.unwrap_or_else(|| panic!("no row of {node}:\n{text}")).split_whitespace().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_table_and_the_json_say_the_same() {
    let mut world = load("talos-three-no-modules").unwrap();
    world.talos.timing.stuck = 1_000_000_000;
    let mac = &mut world.talos.nodes.get_mut("talos-mac").unwrap().config;
    *mac = mac.replace("/dev/disk/by-id/ata-APPLE_SSD_SM0256G_S2ZRNYAH500749", "/dev/sda");
    let bench = Bench::of(Lab::at_rest(world, tempfile::tempdir().unwrap().path()).unwrap()).await;
    let (code, text) = bench.run(&["survey"]);
    assert_eq!(code, Some(0), "{text}");
    assert_eq!(&row(&text, "talos-nuc")[..2], ["!", "talos-nuc"]);
    for words in ["booting v1.11.5", "ext-nvidia-persistenced waiting: ", "Ready v1.34.1", "help: "] {
        assert!(text.contains(words), "`{words}` is not in:\n{text}");
    }
    // It is at work, and a rule has something to say of it, by whose number it is found below.
    let mac = row(&text, "talos-mac");
    assert_eq!((mac[0], mac.last()), ("~", Some(&"L06")), "{text}");
    assert!(text.contains("\nL06 talos-mac\n"), "{text}");
    assert!(row(&text, "talos-vm").contains(&"(223"), "{text}");
    // No guest has a shell: a column that says nothing is left out.
    assert!(!text.contains("GUEST") && text.contains("ETCD"), "{text}");

    let (code, text) = bench.run(&["survey", "--json"]);
    let json: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((code, json["site"].as_str()), (Some(0), Some("homelab")));
    let nuc = &json["nodes"][1];
    assert_eq!(
        (nuc["name"].as_str(), nuc["talos"]["known"]["stage"]["known"].as_str()),
        (Some("talos-nuc"), Some("booting"))
    );
    assert_eq!((nuc["vm"].as_str(), nuc["kubelet"]["known"]["ready"].as_bool()), (Some("absent"), Some(true)));
    assert!(json["findings"].as_array().is_some_and(|findings| !findings.is_empty()), "{json}");
    // No secret of the machine configurations, and of the talosconfig only roles and dates.
    for secret in ["k1v9qe.1x0d8s7m2c4b6n3z", "i2t4w8", "PRIVATE KEY"] {
        assert!(!text.contains(secret), "{secret}");
    }
    assert_eq!(bench.changes(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_column_of_the_guilty_layer_is_there() {
    let bench = Bench::new("talos-three-agent").await;
    let (code, text) = bench.run(&["survey"]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains(" AGENT ") && row(&text, "talos-vm").contains(&"off"), "{text}");
    assert!(text.contains("L04 talos-vm") && text.contains("it reboots the node"), "{text}");
}

/// Mended by a migration it can be undone, and nobody types at a control plane.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_migration_mends_is_left_to_it() {
    let mut looked = 0;
    for (world, rule, node, by_hand) in [
        ("talos-three-no-modules", "L01", "talos-nuc", " patch mc "),
        ("talos-three-wrong-image", "L02", "talos-vm", " upgrade --image "),
    ] {
        let bench = Bench::new(world).await;
        for repair in [true, false] {
            let file = bench.lab.dir().join("site.yaml");
            let mut site: Value = serde_saphyr::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
            site["migrations"]["reboots"]["params"]["repair"] = repair.into();
            std::fs::write(&file, serde_saphyr::to_string(&site).unwrap()).unwrap();
            let (code, text) = bench.run(&["survey", "--json"]);
            let json: Value = serde_json::from_str(&text).unwrap();
            let findings = json["findings"].as_array().unwrap();
            let found = findings.iter().find(|found| found["rule"] == rule).unwrap();
            let help = found["help"].as_str().unwrap();
            assert_eq!((code, found["what"].as_str()), (Some(0), Some(node)), "{found}");
            assert_eq!((help.contains("`pvemig plan reboots`"), help.contains(by_hand)), (repair, !repair), "{help}");
            looked += 1;
        }
    }
    assert_eq!(looked, 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_known_is_shown_with_its_reason() {
    let bench = Bench::new("talos-three").await;
    bench.fault(Front::Kubernetes, "*", FaultEffect::Refuse);
    let (code, text) = bench.run(&["survey", "talos-mac", "talos-vm"]);
    assert_eq!(code, Some(0), "{text}");
    assert_eq!(row(&text, "talos-mac")[0], "?", "{text}");
    assert_eq!(row(&text, "talos-mac").iter().filter(|cell| **cell == "?").count(), 3, "{text}");
    assert!(!text.lines().any(|line| line.split_whitespace().nth(1) == Some("talos-nuc")), "{text}");
    // One reason, once, with all that it is the reason for.
    assert_eq!(text.matches("? not known: ").count(), 1, "{text}");
    assert!(text.contains("kubelet, workloads of talos-mac, talos-vm; version, "), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_off_a_terminal_is_a_screen_a_round_and_ends_with_its_reader() {
    use std::io::{BufRead, BufReader};
    let bench = Bench::new("talos-three").await;
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_pvemig"));
    command.args(["survey", "--watch=1", "--json", "talos-mac"]).env_clear().env("HOME", bench.lab.dir());
    command.env("PVEMIG_SITE", bench.lab.dir().join("site.yaml")).stdin(std::process::Stdio::null());
    let mut watch = command.stdout(std::process::Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines().map(|line| line.unwrap());
    let rounds: Vec<Value> = lines.by_ref().take(2).map(|line| serde_json::from_str(&line).unwrap()).collect();
    assert_eq!(rounds.len(), 2);
    assert_ne!(rounds[0]["at"], rounds[1]["at"]);
    drop(lines);
    // A reader that has gone is no error.
    assert_eq!(watch.wait().unwrap().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_misspelt_is_a_wrong_command_line() {
    let bench = Bench::new("talos-three").await;
    let (code, text) = bench.run(&["survey", "talos-muc"]);
    assert_eq!(code, Some(2), "{text}");
    assert!(text.contains("no node `talos-muc`") && text.contains("talos-mac"), "{text}");
}

/// What a terminal of so many columns shows, and the same without what colours it.
pub(super) fn on_terminal(bench: &Bench, columns: usize, args: &str, colours: bool) -> (String, String) {
    let line = format!("stty cols {columns} rows 50; exec {} {args}", env!("CARGO_BIN_EXE_pvemig"));
    let mut terminal = std::process::Command::new("script");
    terminal.args(["-qec", &line, "/dev/null"]).env_clear().env("PATH", std::env::var("PATH").unwrap());
    terminal.env("HOME", bench.lab.dir()).env("TERM", "xterm").env("PVEMIG_SITE", bench.lab.dir().join("site.yaml"));
    if !colours {
        terminal.env("NO_COLOR", "1");
    }
    let shown = terminal.stdin(std::process::Stdio::null()).output().unwrap();
    assert!(shown.status.success(), "{shown:?}");
    let raw = String::from_utf8(shown.stdout).unwrap();
    // What is asked is said meanwhile, and taken back.
    let screen = raw.rsplit("\x1b[2K").next().unwrap().replace('\r', "");
    let mut parts = screen.split("\x1b[");
    let first = parts.next().unwrap().to_owned();
    let plain = parts.fold(first, |text, part| text + part.split_once('m').map_or(part, |(_, rest)| rest));
    (screen, plain)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_has_room_for_all_of_it_and_colour_is_not_all_that_tells() {
    let mut world = load("talos-three-no-modules").unwrap();
    world.talos.timing.stuck = 1_000_000_000;
    let bench = Bench::of(Lab::at_rest(world, tempfile::tempdir().unwrap().path()).unwrap()).await;
    for (columns, words) in [(80, "! booting"), (200, "! booting v1.11.5")] {
        let (screen, plain) = on_terminal(&bench, columns, "survey", true);
        // A command that is longer than a line is not broken: it is to be copied.
        let lines = plain.lines().filter(|line| !line.starts_with("      talosctl "));
        let widths: Vec<usize> = lines.map(|line| line.chars().count()).collect();
        assert!(widths.len() > 8 && widths.iter().all(|width| *width < columns), "{widths:?}\n{plain}");
        assert!(plain.contains(words) && screen.contains("\x1b[31m"), "{screen}");
        let (screen, bare) = on_terminal(&bench, columns, "survey", false);
        assert!(!screen.contains("\x1b[3") && bare.contains(words), "{screen}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_on_a_terminal_is_drawn_in_place_until_it_is_interrupted() {
    use std::io::{Read, Write};
    use std::process::Stdio;
    let bench = Bench::new("talos-three").await;
    // The tests may run where Ctrl-C is ignored, and a shell cannot take that back.
    let line = format!(
        "stty cols 60 rows 9; exec env --default-signal=INT {} survey --watch=1 talos-mac",
        env!("CARGO_BIN_EXE_pvemig")
    );
    let mut terminal = std::process::Command::new("script");
    terminal.args(["-qec", &line, "/dev/null"]).env_clear().env("PATH", std::env::var("PATH").unwrap());
    terminal.env("HOME", bench.lab.dir()).env("TERM", "xterm").env("PVEMIG_SITE", bench.lab.dir().join("site.yaml"));
    terminal.env("NO_COLOR", "1").stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut terminal = terminal.spawn().unwrap();
    let (mut keyboard, mut screen) = (terminal.stdin.take().unwrap(), terminal.stdout.take().unwrap());
    let (mut raw, mut byte) = (Vec::new(), [0_u8]);
    // A page ends with the rest of the screen made empty.
    while String::from_utf8_lossy(&raw).matches("\x1b[J\r").count() < 2 {
        assert_eq!(screen.read(&mut byte).unwrap(), 1, "{}", String::from_utf8_lossy(&raw));
        raw.push(byte[0]);
    }
    keyboard.write_all(b"\x03").unwrap();
    screen.read_to_end(&mut raw).unwrap();
    let text = String::from_utf8(raw).unwrap();
    assert_eq!(terminal.wait().unwrap().code(), Some(130), "{text}");
    let pages: Vec<&str> = text.split("\x1b[H").skip(1).collect();
    assert!(pages.len() >= 2 && text.matches("\x1b[2J").count() == 1, "{text:?}");
    let mut drawn = 0;
    for page in &pages[..2] {
        let (page, _) = page.split_once("\x1b[J\r").unwrap();
        let rows: Vec<&str> = page.split("\r\n").map(|row| row.trim_end_matches('\r')).collect();
        assert!(rows.len() < 9 && rows.iter().all(|row| row.ends_with("\x1b[K")), "{rows:?}");
        assert!(rows.iter().any(|row| row.starts_with("~ talos-mac ")), "{rows:?}");
        assert!(rows.last().unwrap().ends_with("more below; every 1 s; Ctrl-C ends it\x1b[K"), "{rows:?}");
        drawn += 1;
    }
    assert_eq!(drawn, 2);
}
