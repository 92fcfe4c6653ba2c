//! How a whole run looks on terminals of other widths, and whether the README's picture and commands are of this program.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Stdio};

use super::seen::{on_terminal, without_styles};
use super::{Shell, Up, expect, said};

/// The rows that a rehearsal leaves on a terminal of `columns`, and the codes of its colours.
fn rehearsal(columns: usize) -> (Vec<String>, BTreeSet<String>) {
    let shell = Shell::new();
    let line = format!(
        "export TERM=xterm-256color; stty cols {columns} rows 50; exec {} rehearse usb-move",
        env!("CARGO_BIN_EXE_pvemig")
    );
    let (code, text) = on_terminal(&shell.command(&[]), &line);
    assert_eq!(code, Some(0), "{text}");
    let codes = text.split("\x1b[").skip(1).filter_map(|part| {
        let code = part.split_once(|c: char| c.is_ascii_alphabetic())?.0;
        part[code.len()..].starts_with('m').then(|| code.to_owned())
    });
    let codes = codes.collect();
    // A row that moves is taken back before the next one is written.
    let rows = text.split("\r\n").map(|row| without_styles(row.rsplit("\x1b[2K").next().unwrap()));
    (rows.collect(), codes)
}

#[test]
fn a_whole_run_fits_a_narrow_and_uses_a_wide_terminal() {
    let mut counts = Vec::new();
    for columns in [80, 200] {
        let (rows, codes) = rehearsal(columns);
        let wide: Vec<_> = rows.iter().filter(|row| row.chars().count() > columns).collect();
        // A path or an id is not broken: it has to be copied.
        let broken = |row: &&&String| row.split_whitespace().all(|word| word.chars().count() < columns / 2);
        assert_eq!(wide.iter().filter(broken).count(), 0, "{wide:#?}");
        let ended = |row: &&String| {
            // The report below begins its rows with the mark.
            let Some(row) = row.strip_prefix("  ") else { return false };
            let mut words = row.split(' ');
            matches!(words.next(), Some("✓" | "=")) && words.next().is_some_and(|id| id.as_bytes()[0].is_ascii_digit())
        };
        assert_eq!(rows.iter().filter(ended).count(), 18, "{rows:#?}");
        assert!(rows.iter().any(|row| row.contains("please: plug coral")), "{rows:#?}");
        // The terminal's own colours alone, which its owner chose for its ground; none of white, black, or a ground.
        let known = ["0", "1", "2", "22", "31", "32", "33", "34", "35", "36", "39"];
        assert!(codes.len() > 3 && codes.iter().all(|code| known.contains(&code.as_str())), "{codes:?}");
        counts.push(rows.len());
    }
    assert!(counts[0] > 80 && counts[1] < counts[0], "{counts:?}");
    println!("width: {} rows at 80 columns, {} at 200", counts[0], counts[1]);
}

/// What a picture says of each step and of each change, without what is another every time.
fn told(svg: &str) -> Vec<String> {
    let text = |line: &str| {
        let text = line.strip_prefix("<text")?.split_once('>')?.1.strip_suffix("</text>")?;
        Some(text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"))
    };
    let of = |text: &String| ["= ", "▸ ", "✓ ", "~ ", "+ ", "- "].iter().any(|mark| text.starts_with(mark));
    let plain = |text: String| text.chars().filter(|c| !c.is_ascii_hexdigit()).collect();
    svg.lines().filter_map(text).filter(of).map(plain).collect()
}

#[test]
fn the_picture_in_the_readme_is_of_this_program() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let shell = Shell::new();
    let mut draw = Command::new("python3");
    draw.arg(root.join("scripts/svg"))
        .arg(env!("CARGO_BIN_EXE_pvemig"))
        .envs(shell.command(&[]).get_envs().filter_map(|(name, value)| Some((name, value?))));
    let drawn = said(draw.stdin(Stdio::null()).output().unwrap());
    assert_eq!(drawn.code, 0, "{}", drawn.stderr);
    let kept = std::fs::read_to_string(root.join("docs/rehearsal.svg")).unwrap();
    let (now, then) = (told(&drawn.stdout), told(&kept));
    assert!(now.len() > 40, "{now:?}");
    assert_eq!(then, now, "`cargo build --release && scripts/svg > docs/rehearsal.svg` draws it anew");
}

/// Every command of the README outside its session: those of the blocks are run, those in the text are ones that exist.
#[test]
fn the_commands_of_the_readme_are_right() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = std::fs::read_to_string(root.join("README.md")).unwrap();
    let blocks: Vec<&str> = readme.split("```sh\n").skip(1).map(|part| part.split("```").next().unwrap()).collect();
    let lines: Vec<&str> =
        blocks.iter().flat_map(|block| block.lines()).map(|l| l.split(" #").next().unwrap().trim()).collect();
    let (up, own) = (Up::new("usb-move", "auto"), Shell::new());
    for line in &lines {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["./scripts/test"] => assert!(root.join("scripts/test").exists()),
            ["cargo", "run", "--release", "--", ref args @ ..] => {
                expect(&own.run(args), 0, &["steps: 11 done, 1 there now, 6 already so"])
            }
            // That is how `Up` begins it, in a directory of its own.
            ["pvemig", "lab", "up", "--world", "usb-move", "--dir", "/tmp/lab", "--hands", "auto"] => {}
            ["pvemig", "site", "example", ">", file] => {
                std::fs::write(own.path().join(file), own.run(&["site", "example"]).stdout).unwrap();
            }
            // Offline, with that file; the others ask an estate.
            // The example names files that are for its reader to make.
            ["pvemig", "site", "check"] => {
                expect(&own.run(&words[1..]), 2, &["pve-root-ca.pem cannot be found", "help: create it"]);
            }
            ["pvemig", "privileges", _] => expect(&own.run(&words[1..]), 0, &["pveum role add"]),
            ["pvemig", "plan", name] => expect(&up.run(&["plan", name]), 0, &["17 of 18 steps"]),
            ["pvemig", "run", name] => expect(&up.run(&["run", name, "--yes", "--wait=5m"]), 0, &["was down for"]),
            _ => panic!("`{line}`: nobody runs it"),
        }
    }
    assert_eq!(lines.len(), 8, "{lines:?}");

    // With `--help` at its end a command is read, and not done.
    let spans = readme.split("```").step_by(2).flat_map(|text| text.split('`').skip(1).step_by(2));
    let commands = spans.filter_map(|span| span.split_once("pvemig ").map(|(_, command)| command));
    let mut read = 0;
    for command in commands {
        let args = command.split(['|', ')']).next().unwrap().split_whitespace().chain(["--help"]);
        expect(&own.run(&args.collect::<Vec<_>>()), 0, &["Usage: pvemig "]);
        read += 1;
    }
    assert!(read >= 10, "{read}");
    println!("readme: {} commands run, {read} read", lines.len());
}
