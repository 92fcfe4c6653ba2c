//! What a checkout and its remote say.

use std::path::{Path, PathBuf};

use crate::base::redact;

use super::error::{CheckoutError, quoted, unwritable};
use super::git::{Git, REMOTE};

/// A git checkout of the site, and our own clone of its remote.
///
/// Calls of the same clone must not overlap in two processes; the engine's site lock sees to that.
#[derive(Debug, Clone)]
pub struct Checkout {
    /// The person's checkout; only read.
    pub path: PathBuf,
    /// The remote in it.
    pub remote: String,
    /// The branch that is deployed.
    pub branch: String,
    /// Whether pvemig may push.
    pub push: bool,
    /// Name and mail address of author and committer.
    pub author: (String, String),
    /// Our own bare clone under the state directory; made when it is first needed.
    pub state_clone: PathBuf,
    /// A clone of the same remote, which is only read: what it has need not be fetched into one that is made now.
    pub lender: Option<PathBuf>,
}

/// The state of the person's checkout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// The branch that is checked out; None: none (a detached head).
    pub branch: Option<String>,
    /// Files that differ from the last commit, untracked ones included; at most 20.
    pub dirty: Vec<String>,
    /// How many commits the checkout has that the remote's tip has not.
    pub ahead: u32,
    /// How many commits the remote's tip has that the checkout has not.
    pub behind: u32,
}

impl Status {
    /// True where nothing differs from the last commit.
    pub fn is_clean(&self) -> bool {
        self.dirty.is_empty()
    }
}

/// The ref in our clone that holds what was last fetched.
const TIP: &str = "refs/pvemig/tip";

impl Checkout {
    /// Fetches the branch into our own clone and answers the id of its tip. Reading: neither the person's checkout nor
    /// the remote changes.
    ///
    /// # Errors
    /// [`CheckoutError`]; nothing was changed in any case.
    pub async fn fetch(&self) -> Result<String, CheckoutError> {
        let url = self.url(false).await?;
        self.clone_exists().await?;
        self.clear(&[&format!("{TIP}.lock")])?;
        let refspec = format!("+refs/heads/{}:{TIP}", self.branch);
        // Run in the checkout, because a remote's path may be relative to it.
        let git_dir = self.git_dir();
        let args = [git_dir.as_str(), "fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--", REMOTE, &refspec];
        let ssh = self.ssh_command().await?;
        let output = Git::new(&self.path, &args).remote(&url).env("GIT_SSH_COMMAND", ssh).run().await?;
        if !output.good {
            // A fetch writes nowhere but here.
            let own = unwritable(&self.state_clone, &own_lines(&output.err), &output.complaint());
            return Err(own.unwrap_or_else(|| self.remote_error(&url, &output.complaint(), &output.err)));
        }
        self.rev(TIP).await
    }

    /// Takes away what a git that was killed may have left in our clone: the site lock says that nobody else is at work
    /// there.
    pub(super) fn clear(&self, names: &[&str]) -> Result<(), CheckoutError> {
        for path in names.iter().map(|name| self.state_clone.join(name)) {
            match std::fs::remove_file(&path) {
                Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                    return Err(CheckoutError::State { path, source });
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// The tip as it was last fetched; None: nothing was fetched yet.
    ///
    /// # Errors
    /// [`CheckoutError`].
    pub async fn fetched(&self) -> Result<Option<String>, CheckoutError> {
        if !self.state_clone.join("HEAD").exists() {
            return Ok(None);
        }
        self.find(TIP).await
    }

    /// The state of the person's checkout, against the tip that was fetched last (fetched now where there is none).
    ///
    /// # Errors
    /// [`CheckoutError`].
    pub async fn status(&self) -> Result<Status, CheckoutError> {
        let tip = match self.fetched().await? {
            Some(tip) => tip,
            None => self.fetch().await?,
        };
        let output =
            Git::new(&self.path, &["status", "--porcelain=v1", "-z", "--untracked-files=normal"]).good().await?;
        let text = String::from_utf8_lossy(&output.out).into_owned();
        let mut dirty = Vec::new();
        let mut entries = text.split('\0').filter(|entry| !entry.is_empty());
        while let Some(entry) = entries.next() {
            // `XY NAME`; for a renamed file its former name is an entry of its own.
            if entry.starts_with(['R', 'C']) {
                entries.next();
            }
            if dirty.len() < 20 {
                dirty.push(entry.get(3..).unwrap_or(entry).to_owned());
            }
        }
        let branch = Git::new(&self.path, &["symbolic-ref", "--quiet", "--short", "HEAD"]).run().await?;
        let branch = branch.good.then(|| branch.text());
        // The tip's commits are in our clone alone; git may look there without writing anything.
        let objects = self.state_clone.join("objects");
        let range = format!("HEAD...{tip}");
        let count = Git::new(&self.path, &["rev-list", "--left-right", "--count", &range])
            .env("GIT_ALTERNATE_OBJECT_DIRECTORIES", objects)
            .good()
            .await?
            .text();
        let mut numbers = count.split_whitespace().map(str::parse::<u32>);
        let (Some(Ok(ahead)), Some(Ok(behind))) = (numbers.next(), numbers.next()) else {
            return Err(CheckoutError::Git { command: "rev-list".into(), text: format!("it counted `{count}`") });
        };
        Ok(Status { branch, dirty, ahead, behind })
    }

    /// The text of a file at a revision of our clone; None where the revision has no such file.
    ///
    /// # Errors
    /// It is a link, a directory or no text.
    pub async fn read(&self, revision: &str, file: &str) -> Result<Option<String>, CheckoutError> {
        let Some(blob) = self.blob(revision, file).await? else { return Ok(None) };
        let bytes = self.git(&["cat-file", "blob", &blob.id]).good().await?.out;
        String::from_utf8(bytes).map(Some).map_err(|_| self.not_a_file(revision, file, "not text"))
    }

    /// The files at a revision of our clone under a directory (`""`: all), in git's order.
    ///
    /// # Errors
    /// [`CheckoutError`].
    pub async fn list(&self, revision: &str, directory: &str) -> Result<Vec<String>, CheckoutError> {
        let mut args = vec!["ls-tree", "-r", "-z", "--full-tree", "--name-only", revision];
        let directory = format!("{}/", directory.trim_end_matches('/'));
        if directory != "/" {
            args.extend(["--", directory.as_str()]);
        }
        let output = self.git(&args).good().await?;
        Ok(String::from_utf8_lossy(&output.out)
            .split('\0')
            .filter(|name| !name.is_empty())
            .map(str::to_owned)
            .collect())
    }

    /// True where the fetched tip contains the commit.
    ///
    /// # Errors
    /// [`CheckoutError`].
    pub async fn is_in_tip(&self, commit: &str) -> Result<bool, CheckoutError> {
        if self.find(commit).await?.is_none() {
            return Ok(false);
        }
        Ok(self.git(&["merge-base", "--is-ancestor", commit, TIP]).run().await?.good)
    }

    /// The command with which a person brings a commit of our clone to the remote, through their own checkout.
    pub fn push_by_hand(&self, made: &super::commit::Made) -> String {
        let (path, clone) = (quoted(&self.path), quoted(&self.state_clone));
        format!(
            "git -C {path} fetch {clone} {} && git -C {path} push {} {}:refs/heads/{}",
            made.branch, self.remote, made.id, self.branch
        )
    }

    /// The command that shows what a commit of our clone did to a file.
    pub fn show(&self, made: &super::commit::Made, file: &str) -> String {
        format!("git -C {} show {} -- {}", quoted(&self.state_clone), made.id, quoted(Path::new(file)))
    }

    /// The command that shows a commit that our clone has no more, through the person's own checkout.
    pub fn show_fetched(&self, commit: &str) -> String {
        let path = quoted(&self.path);
        format!("git -C {path} fetch {} && git -C {path} show {commit}", self.remote)
    }

    /// The remote's URL, with whatever credentials are in it: never to be shown.
    pub(super) async fn url(&self, push: bool) -> Result<String, CheckoutError> {
        let inside = match Git::new(&self.path, &["rev-parse", "--git-dir"]).run().await {
            Ok(output) => output,
            // A missing directory is not a missing git.
            Err(CheckoutError::NoGit(error)) if !self.path.is_dir() => {
                return Err(CheckoutError::NotACheckout { path: self.path.clone(), text: error.to_string() });
            }
            Err(error) => return Err(error),
        };
        if !inside.good {
            return Err(CheckoutError::NotACheckout { path: self.path.clone(), text: inside.complaint() });
        }
        let mut args = vec!["remote", "get-url"];
        args.extend(push.then_some("--push"));
        args.extend(["--", &self.remote]);
        let output = Git::new(&self.path, &args).run().await?;
        if output.good {
            return Ok(output.text());
        }
        Err(CheckoutError::NoRemote { path: self.path.clone(), remote: self.remote.clone() })
    }

    /// How git is to call ssh: as the person configured it, else without questions.
    pub(super) async fn ssh_command(&self) -> Result<String, CheckoutError> {
        #[expect(clippy::disallowed_methods, reason = "the person's own way to call ssh")]
        if let Ok(command) = std::env::var("GIT_SSH_COMMAND") {
            return Ok(command);
        }
        let output = Git::new(&self.path, &["config", "--get", "core.sshCommand"]).run().await?;
        Ok(if output.good { output.text() } else { "ssh -o BatchMode=yes".into() })
    }

    /// A call of git in our clone.
    pub(super) fn git(&self, args: &[&str]) -> Git {
        Git::new(&self.state_clone, args)
            .env("GIT_DIR", &self.state_clone)
            .env("GIT_AUTHOR_NAME", &self.author.0)
            .env("GIT_AUTHOR_EMAIL", &self.author.1)
            .env("GIT_COMMITTER_NAME", &self.author.0)
            .env("GIT_COMMITTER_EMAIL", &self.author.1)
    }

    pub(super) fn git_dir(&self) -> String {
        format!("--git-dir={}", self.state_clone.display())
    }

    /// The id of a commit that must be there.
    pub(super) async fn rev(&self, name: &str) -> Result<String, CheckoutError> {
        self.find(name).await?.ok_or_else(|| CheckoutError::Git {
            command: "rev-parse".into(),
            text: format!("there is no commit `{name}` in {}", self.state_clone.display()),
        })
    }

    /// The id of a commit, where there is one.
    pub(super) async fn find(&self, name: &str) -> Result<Option<String>, CheckoutError> {
        let name = format!("{name}^{{commit}}");
        let output = self.git(&["rev-parse", "--verify", "--quiet", "--end-of-options", &name]).run().await?;
        Ok(output.good.then(|| output.text()))
    }

    /// Sets the tip after a push that went through.
    pub(super) async fn set_tip(&self, commit: &str) -> Result<(), CheckoutError> {
        self.git(&["update-ref", TIP, commit]).good().await.map(drop)
    }

    pub(super) async fn blob(&self, revision: &str, file: &str) -> Result<Option<Blob>, CheckoutError> {
        let output = self.git(&["ls-tree", "-z", "--full-tree", revision, "--", file]).good().await?;
        let text = String::from_utf8_lossy(&output.out).into_owned();
        // `MODE TYPE ID\tNAME`
        let Some((head, name)) = text.trim_end_matches('\0').split_once('\t') else { return Ok(None) };
        let mut parts = head.split(' ');
        let (mode, kind, id) = (parts.next(), parts.next(), parts.next());
        match (mode, kind, id) {
            (Some(mode @ ("100644" | "100755" | "100664")), Some("blob"), Some(id)) if name == file => {
                Ok(Some(Blob { mode: mode.to_owned(), id: id.to_owned() }))
            }
            (Some("120000"), ..) => Err(self.not_a_file(revision, file, "a symbolic link")),
            (_, Some("tree"), _) => Err(self.not_a_file(revision, file, "a directory")),
            _ => Err(self.not_a_file(revision, file, "not a plain file")),
        }
    }

    fn not_a_file(&self, revision: &str, file: &str, what: &'static str) -> CheckoutError {
        CheckoutError::NotAFile { file: file.to_owned(), revision: revision.to_owned(), what }
    }

    async fn clone_exists(&self) -> Result<(), CheckoutError> {
        if self.state_clone.join("HEAD").exists() {
            return Ok(());
        }
        let state = |source| CheckoutError::State { path: self.state_clone.clone(), source };
        std::fs::create_dir_all(&self.state_clone).map_err(state)?;
        // No templates: they may bring hooks. The log of refs is how commits are counted.
        let init = Git::new(&self.state_clone, &["init", "--bare", "--quiet", "--template=", "--initial-branch=none"]);
        init.arg(self.state_clone.as_os_str()).good().await?;
        self.git(&["config", "core.logAllRefUpdates", "always"]).good().await?;
        let lent = self.lender.as_ref().map(|lender| lender.join("objects")).filter(|objects| objects.is_dir());
        let Some(objects) = lent else { return Ok(()) };
        std::fs::write(self.state_clone.join("objects/info/alternates"), format!("{}\n", objects.display()))
            .map_err(state)
    }

    /// A failure of fetch or push, by its cause.
    pub(super) fn remote_error(&self, url: &str, complaint: &str, all: &str) -> CheckoutError {
        let url = redact::text(url);
        let own = own_lines(all).to_ascii_lowercase();
        let has = |words: &[&str]| words.iter().any(|word| own.contains(word));
        let text = complaint.to_owned();
        if has(&["couldn't find remote ref"]) {
            CheckoutError::NoBranch { url, branch: self.branch.clone() }
        } else if has(&[
            "permission denied",
            "authentication failed",
            "host key verification failed",
            "could not read username",
            "could not read password",
            // curl's words and those of git's remote-curl.c.
            "returned error: 403",
            "http 403",
        ]) {
            CheckoutError::NoAccess { url, path: self.path.clone(), text }
        } else {
            CheckoutError::Unreachable { url, path: self.path.clone(), text }
        }
    }
}

/// The lines of git and of what it started. Those of the remote (`remote: ..`) are anybody's words: its hooks run when
/// it has taken a push.
pub(super) fn own_lines(err: &str) -> String {
    err.lines().filter(|line| !line.trim_start().starts_with("remote:")).collect::<Vec<_>>().join("\n")
}

/// A file in a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Blob {
    pub(super) mode: String,
    pub(super) id: String,
}
