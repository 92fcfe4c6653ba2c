//! Commits in our own clone, and bringing them to the remote.

use std::collections::BTreeMap;

use crate::base::fault::Effect;
use crate::base::permit::{CallId, Handle, Note, Permit, System};
use crate::base::redact;

use super::edit::{Edit, diff};
use super::error::CheckoutError;
use super::git::{Git, REMOTE};
use super::read::{Blob, Checkout, own_lines};

/// A commit that was made in our clone.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Made {
    /// Its id.
    pub id: String,
    /// The commit on which it stands: the remote's tip when it was made.
    pub parent: String,
    /// The branch of our clone that holds it: `pvemig/LABEL`.
    pub branch: String,
}

/// How far a commit of ours is taken back on the fetched tip.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reverted {
    /// The files are as they were before it (or it never got there).
    Already,
    /// These files are as it made them.
    Todo(Vec<String>),
    /// These files are neither as it made them nor as they were: somebody else changed them.
    Changed(Vec<String>),
}

impl Checkout {
    /// What edits would change at a revision: for each file its former text and the new one, unchanged ones left out.
    ///
    /// # Errors
    /// A file is not there, or an edit cannot be made.
    pub async fn preview(
        &self,
        revision: &str,
        edits: &[Edit],
    ) -> Result<BTreeMap<String, (String, String)>, CheckoutError> {
        let mut files: BTreeMap<String, (String, String)> = BTreeMap::new();
        for edit in edits {
            let (old, text) = match files.get(&edit.file) {
                Some(known) => known.clone(),
                None => {
                    let text = self.read(revision, &edit.file).await?.ok_or_else(|| CheckoutError::NoFile {
                        file: edit.file.clone(),
                        revision: revision.to_owned(),
                    })?;
                    (text.clone(), text)
                }
            };
            files.insert(edit.file.clone(), (old, edit.apply(&text)?));
        }
        files.retain(|_, (old, new)| old != new);
        Ok(files)
    }

    /// The edits at a revision as one unified diff; empty where there is nothing to do.
    ///
    /// # Errors
    /// As [`Checkout::preview`].
    pub async fn diff(&self, revision: &str, edits: &[Edit]) -> Result<String, CheckoutError> {
        let files = self.preview(revision, edits).await?;
        Ok(files.iter().map(|(file, (old, new))| diff(file, old, new)).collect())
    }

    /// The commit that was made under a label, if there is one.
    ///
    /// # Errors
    /// [`CheckoutError`].
    pub async fn made(&self, label: &str) -> Result<Option<Made>, CheckoutError> {
        let branch = format!("pvemig/{label}");
        if !self.state_clone.join("HEAD").exists() {
            return Ok(None);
        }
        let Some(id) = self.find(&format!("refs/heads/{branch}")).await? else { return Ok(None) };
        let parent = self.rev(&format!("{id}^")).await?;
        Ok(Some(Made { id, parent, branch }))
    }

    /// Commits the edits in our clone on top of the fetched tip. The same edits on the same tip under the same label
    /// give the commit that is there already. None: the tip has all of them.
    ///
    /// # Errors
    /// As [`Checkout::preview`]; nothing was changed then.
    pub async fn commit(
        &self,
        edits: &[Edit],
        message: &str,
        label: &str,
        permit: &Permit,
    ) -> Result<Option<Made>, CheckoutError> {
        let tip = self.tip().await?;
        let mut blobs = BTreeMap::new();
        for (file, (_, new)) in self.preview(&tip, edits).await? {
            let id = self.git(&["hash-object", "-w", "--stdin"]).input(new.into_bytes()).good().await?.text();
            let mode = self.blob(&tip, &file).await?.map_or_else(|| "100644".into(), |blob| blob.mode);
            blobs.insert(file, Some(Blob { mode, id }));
        }
        self.commit_blobs(&tip, blobs, message, label, permit).await
    }

    /// How far a commit of ours is taken back on the fetched tip.
    ///
    /// # Errors
    /// [`CheckoutError`].
    pub async fn reverted(&self, made: &Made) -> Result<Reverted, CheckoutError> {
        let (mut ours, mut others) = (Vec::new(), Vec::new());
        for (file, before, after, now) in self.files_of(made).await? {
            if now == after {
                ours.push(file);
            } else if now != before {
                others.push(file);
            }
        }
        Ok(match (ours.is_empty(), others.is_empty()) {
            (_, false) => Reverted::Changed(others),
            (false, true) => Reverted::Todo(ours),
            (true, true) => Reverted::Already,
        })
    }

    /// Commits, on top of the fetched tip, exactly the files that were there before a commit of ours. None: they are
    /// there already.
    ///
    /// # Errors
    /// [`CheckoutError::ChangedSince`] where somebody else changed one of the files.
    pub async fn revert(
        &self,
        made: &Made,
        message: &str,
        label: &str,
        permit: &Permit,
    ) -> Result<Option<Made>, CheckoutError> {
        match self.reverted(made).await? {
            Reverted::Already => Ok(None),
            Reverted::Changed(files) => Err(CheckoutError::ChangedSince { commit: short(&made.id), files }),
            Reverted::Todo(_) => {
                let files = self.files_of(made).await?;
                let blobs = files.into_iter().map(|(file, before, ..)| (file, before)).collect();
                let tip = self.tip().await?;
                self.commit_blobs(&tip, blobs, message, label, permit).await
            }
        }
    }

    /// Brings a commit of our clone to the remote's branch, never by force.
    ///
    /// # Errors
    /// [`CheckoutError::NotFastForward`] where somebody pushed in between: nothing was changed.
    pub async fn push(&self, made: &Made, permit: &Permit) -> Result<(), CheckoutError> {
        let url = self.url(true).await?;
        let shown = redact::text(&url);
        if !self.push {
            return Err(CheckoutError::PushNotAllowed { url: shown, by_hand: self.push_by_hand(made) });
        }
        let refspec = format!("{}:refs/heads/{}", made.id, self.branch);
        let git_dir = self.git_dir();
        let args = [git_dir.as_str(), "push", "--porcelain", "--no-follow-tags", "--no-verify", "--", REMOTE, &refspec];
        let ssh = self.ssh_command().await?;
        let text = format!("git push {shown} {}:{}", short(&made.id), self.branch);
        let call = permit.note(&Note::safe(System::Checkout, text))?;
        let git = Git::new(&self.path, &args).remote(&url).env("GIT_SSH_COMMAND", ssh).effect(Effect::Maybe);
        let output = git.run().await?;
        if output.good {
            record(permit, call, &made.id)?;
            return self.set_tip(&made.id).await;
        }
        // `!\tFROM:TO\t[rejected] (fetch first)`; the remote says so itself and has taken nothing.
        let answer = output.text();
        let rejected = answer.lines().find_map(|line| line.strip_prefix("!\t")?.split('\t').nth(1));
        Err(match rejected {
            Some(why)
                if ["(fetch first)", "(non-fast-forward)", "(stale info)", "cannot lock ref"]
                    .iter()
                    .any(|w| why.contains(w)) =>
            {
                CheckoutError::NotFastForward { url: shown, branch: self.branch.clone(), commit: short(&made.id) }
            }
            Some(why) if why.starts_with("[remote rejected]") || why.starts_with("[rejected]") => {
                let said: Vec<&str> =
                    output.err.lines().filter_map(|line| line.strip_prefix("remote: ")).map(str::trim).collect();
                let text = format!("{why} {}", said.join(" ")).trim().to_owned();
                CheckoutError::PushRefused { url: shown, commit: short(&made.id), text }
            }
            _ => match self.remote_error(&url, &output.complaint(), &output.err) {
                error @ CheckoutError::NoAccess { .. } => error,
                // Nothing was sent where no connection came about.
                error @ CheckoutError::Unreachable { .. } if never_connected(&output.err) => error,
                _ => CheckoutError::PushUnknown { url: shown, commit: short(&made.id), text: output.complaint() },
            },
        })
    }

    async fn tip(&self) -> Result<String, CheckoutError> {
        match self.fetched().await? {
            Some(tip) => Ok(tip),
            None => self.fetch().await,
        }
    }

    /// The files of a commit of ours: before it, after it, and on the fetched tip.
    async fn files_of(
        &self,
        made: &Made,
    ) -> Result<Vec<(String, Option<Blob>, Option<Blob>, Option<Blob>)>, CheckoutError> {
        let tip = self.tip().await?;
        let names = self
            .git(&["diff-tree", "-r", "-z", "--no-commit-id", "--name-only", "--no-renames", &made.parent, &made.id])
            .good()
            .await?;
        let mut out = Vec::new();
        for file in String::from_utf8_lossy(&names.out).split('\0').filter(|name| !name.is_empty()) {
            let before = self.blob(&made.parent, file).await?;
            let after = self.blob(&made.id, file).await?;
            let now = self.blob(&tip, file).await?;
            out.push((file.to_owned(), before, after, now));
        }
        Ok(out)
    }

    /// A commit on top of `tip` in which these files are these blobs (None: not there).
    async fn commit_blobs(
        &self,
        tip: &str,
        blobs: BTreeMap<String, Option<Blob>>,
        message: &str,
        label: &str,
        permit: &Permit,
    ) -> Result<Option<Made>, CheckoutError> {
        let tree = self.tree(tip, &blobs).await?;
        if tree == self.git(&["rev-parse", &format!("{tip}^{{tree}}")]).good().await?.text() {
            return Ok(None);
        }
        if let Some(made) = self.made(label).await?
            && made.parent == tip
            && tree == self.git(&["rev-parse", &format!("{}^{{tree}}", made.id)]).good().await?.text()
        {
            return Ok(Some(made));
        }
        let branch = format!("pvemig/{label}");
        let files: Vec<&str> = blobs.keys().map(String::as_str).collect();
        let call =
            permit.note(&Note::safe(System::Checkout, format!("git commit {} on {}", files.join(" "), short(tip))))?;
        let commit =
            self.git(&["commit-tree", "--no-gpg-sign", &tree, "-p", tip, "-F", "-"]).input(message.as_bytes().to_vec());
        let id = commit.good().await?.text();
        let reference = format!("refs/heads/{branch}");
        self.git(&["update-ref", "-m", "pvemig: commit", &reference, &id]).good().await?;
        record(permit, call, &id)?;
        Ok(Some(Made { id, parent: tip.to_owned(), branch }))
    }

    /// The tree of `tip` with these files, made in an index file of its own.
    async fn tree(&self, tip: &str, blobs: &BTreeMap<String, Option<Blob>>) -> Result<String, CheckoutError> {
        let index = self.state_clone.join("pvemig.index");
        self.clear(&["pvemig.index", "pvemig.index.lock"])?;
        self.git(&["read-tree", tip]).env("GIT_INDEX_FILE", &index).good().await?;
        let mut lines = Vec::new();
        for (file, blob) in blobs {
            // `MODE ID\tNAME`; mode 0 takes the name out.
            let (mode, id) =
                blob.as_ref().map_or(("0", "0000000000000000000000000000000000000000"), |b| (&b.mode, &b.id));
            lines.extend(format!("{mode} {id}\t{file}\0").into_bytes());
        }
        self.git(&["update-index", "-z", "--index-info"]).env("GIT_INDEX_FILE", &index).input(lines).good().await?;
        let tree = self.git(&["write-tree"]).env("GIT_INDEX_FILE", &index).good().await?.text();
        std::fs::remove_file(&index).map_err(|source| CheckoutError::State { path: index, source })?;
        Ok(tree)
    }
}

fn short(id: &str) -> String {
    id.get(..10).unwrap_or(id).to_owned()
}

fn never_connected(err: &str) -> bool {
    let words = [
        "Could not resolve",
        "Connection refused",
        "does not appear to be a git repository",
        "No route to host",
        "Repository not found",
    ];
    let own = own_lines(err);
    // `repository '%s' not found`: the answer to git's first question over http (remote-curl.c, discover_refs).
    let missing = |line: &str| line.starts_with("fatal: repository '") && line.ends_with("' not found");
    words.iter().any(|word| own.contains(word)) || own.lines().any(missing)
}

/// Writes down which commit a call left.
fn record(permit: &Permit, call: CallId, commit: &str) -> Result<(), CheckoutError> {
    let kept = permit.got(call, &Handle::new("commit", commit));
    kept.map_err(|source| CheckoutError::NotRecorded { commit: short(commit).to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::fault::Fault;

    #[test]
    fn only_a_refusal_of_the_connection_itself_is_one() {
        let checkout = Checkout {
            path: "/none".into(),
            remote: "origin".into(),
            branch: "main".into(),
            push: true,
            author: ("pvemig".into(), "pvemig@localhost".into()),
            state_clone: "/none".into(),
            lender: None,
        };
        let error = |err: &str| checkout.remote_error("https://git.lan/ops.git", err, err);
        let unclear = [
            "remote: main is at 4b40351 now\nfatal: the remote end hung up unexpectedly",
            "fatal: unable to access 'https://git.lan/ops-403.git/': Empty reply from server",
            "remote: deploy: HTTP 403 from the web hook\nfatal: the remote end hung up unexpectedly",
            "remote: notify: permission denied\nsend-pack: unexpected disconnect while reading sideband packet",
        ];
        for err in unclear {
            assert!(matches!(error(err), CheckoutError::Unreachable { .. }), "{err}");
            assert!(!never_connected(err), "{err}");
        }
        let refused = [
            "fatal: unable to access 'https://git.lan/ops.git/': The requested URL returned error: 403",
            "error: RPC failed; HTTP 403 curl 22 The requested URL returned error: 403",
            "remote: Permission to ops denied to me.\nfatal: unable to access 'https://git.lan/ops.git/': The requested URL returned error: 403",
            "git@git.lan: Permission denied (publickey).\nfatal: Could not read from remote repository.",
        ];
        for err in refused {
            assert!(matches!(error(err), CheckoutError::NoAccess { .. }), "{err}");
        }
        let help = error(unclear[0]).help().unwrap_or_default();
        assert!(help.contains("`git -C /none ls-remote`"), "{help}");
        for err in [
            "remote: deploy.sh: line 3: kubectl: not found\nfatal: the remote end hung up unexpectedly",
            "remote: notify: Connection refused\nfatal: the remote end hung up unexpectedly",
        ] {
            assert!(!never_connected(err), "{err}");
        }
        let never = [
            "remote: Repository not found.\nfatal: repository 'https://git.lan/ops.git/' not found",
            "ERROR: Repository not found.\nfatal: Could not read from remote repository.",
            "fatal: unable to access 'https://git.lan/ops.git/': Could not resolve host: git.lan",
            "fatal: '/srv/ops.git' does not appear to be a git repository",
        ];
        for err in never {
            assert!(never_connected(err), "{err}");
        }
        assert_eq!((unclear.len(), refused.len(), never.len()), (4, 4, 4));
    }
}
