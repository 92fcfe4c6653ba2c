//! The repository that Flux follows: a real bare repository, read and made with `git`.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::lab::LabError;

/// Files by path.
pub(crate) type Tree = BTreeMap<String, String>;

/// Runs `git` in a folder and returns what it printed.
#[expect(clippy::disallowed_methods, reason = "the lab's Flux reads a real git repository")]
fn git(folder: &Path, args: &[&str], input: &[u8], env: &[(&str, &str)]) -> Result<Vec<u8>, String> {
    let mut command = Command::new("git");
    command.current_dir(folder).args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    for name in ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_CONFIG"] {
        command.env_remove(name);
    }
    // Nobody's own settings (signing, hooks, default branch) may change what the lab makes.
    for (name, value) in [("GIT_CONFIG_NOSYSTEM", "1"), ("GIT_CONFIG_GLOBAL", "/dev/null"), ("LC_ALL", "C")] {
        command.env(name, value);
    }
    for (name, value) in env {
        command.env(name, value);
    }
    let said = |e: std::io::Error| format!("git {}: {e}", args.first().unwrap_or(&""));
    let mut child = command.spawn().map_err(said)?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that ends without reading all of its input says by its exit code whether that was right.
        let _unread = stdin.write_all(input);
    }
    let output = child.wait_with_output().map_err(said)?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let text = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(format!("git {}: {text}", args.join(" ")))
}

fn line(bytes: Vec<u8>) -> String {
    String::from_utf8_lossy(&bytes).trim().to_owned()
}

/// Who made the first commit, and when.
const PERSON: &str = "Homelab <ops@homelab.local> 1767600000 +0000";

/// Refuses every push while there is a file `refuse` beside it, with that file's text. Else a line of the request log
/// for each commit that arrives on the branch, and one for the push itself: what changes a checkout is seen here first.
/// `LAB_HANDS` names what of it the lab's hands did: that is no request of a program.
const RECEIVE: &str = r#"#!/bin/sh
if [ -e refuse ]; then cat refuse >&2; exit 1; fi
line() {
    class=change
    case " $LAB_HANDS " in *" $1 "*) class=hand ;; esac
    printf '{"front":"checkout","class":"%s","method":"%s","path":"%s","status":0}\n' "$class" "$1" "$2" \
        >> ../requests.jsonl
}
while read -r old new ref; do
    [ "$ref" = refs/heads/main ] || continue
    for commit in $(git rev-list "$old..$new"); do line commit "$commit"; done
    line push "$new"
done
"#;

/// Makes the bare repository with one commit on `main`, and a checkout of it.
pub(crate) fn create(bare: &Path, checkout: &Path, tree: &[(&str, &str)]) -> Result<(), LabError> {
    use std::os::unix::fs::PermissionsExt;
    for old in [bare, checkout] {
        if old.exists() {
            std::fs::remove_dir_all(old)?;
        }
    }
    std::fs::create_dir_all(bare)?;
    let failed = |text: String| LabError::Io(std::io::Error::other(text));
    git(bare, &["init", "-q", "--bare", "-b", "main", "."], b"", &[]).map_err(failed)?;
    std::fs::create_dir_all(bare.join("hooks"))?;
    let hook = bare.join("hooks/pre-receive");
    std::fs::write(&hook, RECEIVE)?;
    std::fs::set_permissions(&hook, std::fs::Permissions::from_mode(0o755))?;
    commit(bare, tree, "Set up the cluster").map_err(failed)?;
    let parent = bare.parent().unwrap_or(bare);
    let (from, to) = (bare.display().to_string(), checkout.display().to_string());
    git(parent, &["clone", "-q", &from, &to], b"", &[]).map_err(failed)?;
    Ok(())
}

/// Makes the first commit on `main`, in the bare repository itself.
fn commit(bare: &Path, files: &[(&str, &str)], message: &str) -> Result<(), String> {
    let data = |text: &str| format!("data {}\n{text}\n", text.len());
    let mut stream = format!("commit refs/heads/main\nauthor {PERSON}\ncommitter {PERSON}\n{}", data(message));
    for (path, text) in files {
        stream.push_str(&format!("M 100644 inline {path}\n{}", data(text)));
    }
    git(bare, &["fast-import", "--quiet"], stream.as_bytes(), &[]).map(drop)
}

/// The commit at the tip of a branch.
pub(crate) fn tip(bare: &Path, branch: &str) -> Result<String, String> {
    // Flux looks often, and a reference is mostly a file of its own.
    if let Ok(commit) = std::fs::read_to_string(bare.join("refs/heads").join(branch)) {
        return Ok(commit.trim().to_owned());
    }
    let reference = format!("refs/heads/{branch}^{{commit}}");
    git(bare, &["rev-parse", "--verify", "-q", &reference], b"", &[])
        .map(line)
        .map_err(|text| format!("{text}couldn't find remote ref \"refs/heads/{branch}\""))
}

/// All text files of a commit.
pub(crate) fn read(bare: &Path, commit: &str) -> Result<Tree, String> {
    let listed = git(bare, &["ls-tree", "-r", "-z", "--name-only", commit], b"", &[])?;
    let listed = String::from_utf8_lossy(&listed).into_owned();
    let paths: Vec<&str> = listed.split('\0').filter(|p| !p.is_empty()).collect();
    let asked: String = paths.iter().map(|p| format!("{commit}:{p}\n")).collect();
    let answer = git(bare, &["cat-file", "--batch"], asked.as_bytes(), &[])?;
    let mut rest = answer.as_slice();
    let mut tree = Tree::new();
    for path in paths {
        let broken = || format!("git cat-file says nothing of {path}");
        let end = rest.iter().position(|b| *b == b'\n').ok_or_else(broken)?;
        let (head, body) = rest.split_at(end + 1);
        let size = String::from_utf8_lossy(head).trim().rsplit(' ').next().and_then(|n| n.parse::<usize>().ok());
        let size = size.filter(|n| *n < body.len()).ok_or_else(broken)?;
        let (text, after) = body.split_at(size);
        rest = after.get(1..).unwrap_or_default();
        if let Ok(text) = std::str::from_utf8(text) {
            tree.insert(path.to_owned(), text.to_owned());
        }
    }
    Ok(tree)
}

/// Pushes a checkout's commits to the branch `main`, as a person would. Returns the tip.
pub(crate) fn push(checkout: &Path, bare: &Path) -> Result<String, String> {
    git(checkout, &["push", "-q", "origin", "HEAD:main"], b"", &[("LAB_HANDS", "commit push")])?;
    tip(bare, "main")
}

/// Pushes a commit that a program made in a repository of its own, as a person would whom it asks for that. Returns the
/// tip.
pub(crate) fn push_from(
    checkout: &Path,
    bare: &Path,
    from: &Path,
    commit: &str,
    branch: &str,
) -> Result<String, String> {
    let from = from.display().to_string();
    git(checkout, &["fetch", "-q", "--no-tags", &from, "+refs/heads/*:refs/remotes/asked-for/*"], b"", &[])?;
    let refspec = format!("{commit}:refs/heads/{branch}");
    git(checkout, &["push", "-q", "origin", &refspec], b"", &[("LAB_HANDS", "push")])?;
    tip(bare, branch)
}
