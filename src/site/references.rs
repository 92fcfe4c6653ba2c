//! The files and variables that a site names, looked at without using them.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::base::fault::Fault;

use super::document::{Problem, join};
use super::fields::NamedFile;
use super::secret::{SecretError, SecretRef};
use super::types::{ProxmoxAuth, Site, Ssh, TrustSource};

/// What is wrong with a secret, and where it is named.
type Wrong = (String, SecretError);

impl Site {
    /// Looks at the files and variables that the site names: they are there, and secret ones are private. Commands
    /// are not run.
    pub fn check_references(&self) -> Vec<Problem> {
        let (secrets, files) = self.references();
        let mut problems: Vec<_> = secrets.iter().map(problem).collect();
        problems.extend(files.into_iter().filter_map(|(at, path)| absent(&at, path)));
        self.document.sort(&mut problems);
        problems
    }

    /// The secret files that others than their owner may read. No run uses any of them.
    pub fn wide_files(&self) -> Vec<Problem> {
        let is_wide = |wrong: &&Wrong| matches!(&wrong.1, SecretError::File(error) if error.is_wide());
        let mut problems: Vec<_> = self.references().0.iter().filter(is_wide).map(problem).collect();
        self.document.sort(&mut problems);
        problems
    }

    /// What is wrong with the secrets, and the other files by the place where they are named.
    fn references(&self) -> (Vec<Wrong>, Vec<(String, &Path)>) {
        let mut wrong = Vec::new();
        let mut secret = |path: String, secret: &SecretRef| wrong.extend(secret.look().err().map(|e| (path, e)));
        let mut files: Vec<(String, &Path)> = Vec::new();
        let mut logins: Vec<(String, &Ssh)> = Vec::new();
        for (name, cluster) in &self.proxmox {
            let at = join("proxmox", name);
            match &cluster.auth {
                ProxmoxAuth::Ticket { password, .. } => secret(format!("{at}.auth.ticket.password"), password),
                ProxmoxAuth::Token { secret: token, .. } => secret(format!("{at}.auth.token.secret"), token),
            }
            if let TrustSource::Ca(path) = &cluster.trust {
                files.push((format!("{at}.ca"), path));
            }
            for (host, found) in &cluster.hosts {
                let at = join(&format!("{at}.hosts"), host);
                logins.extend(found.ssh.as_ref().map(|ssh| (format!("{at}.ssh"), ssh)));
            }
        }
        for (name, node) in &self.nodes {
            let at = join("nodes", name);
            logins.extend(node.ssh.as_ref().map(|ssh| (format!("{at}.ssh"), ssh)));
        }
        for (at, ssh) in logins {
            secret(format!("{at}.key"), &ssh.key);
            files.push((format!("{at}.known_hosts"), &ssh.known_hosts));
        }
        for (name, cluster) in &self.kubernetes {
            let at = format!("{}.kubeconfig", join("kubernetes", name));
            for path in private_files(&cluster.kubeconfig) {
                secret(at.clone(), &SecretRef::File(path));
            }
            files.push((at, &cluster.kubeconfig));
        }
        for (name, cluster) in &self.talos {
            let at = format!("{}.talosconfig", join("talos", name));
            secret(at, &SecretRef::File(cluster.talosconfig.clone()));
        }
        for (name, checkout) in &self.checkouts {
            files.push((format!("{}.path", join("checkouts", name)), &checkout.path));
        }
        (wrong, files)
    }
}

impl NamedFile {
    /// What is wrong with it, by a look that does not read it.
    pub fn problem(&self) -> Option<Problem> {
        let Self { at, path, secret } = self;
        if !secret {
            return absent(at, path);
        }
        let error = SecretRef::File(path.clone()).look().err()?;
        Some(problem(&(at.clone(), error)))
    }
}

fn absent(at: &str, path: &Path) -> Option<Problem> {
    let error = std::fs::metadata(path).err()?;
    let text = format!("{} cannot be found: {error}", path.display());
    Some(Problem::new(at, text, "create it, or correct the path (it starts at the site file)"))
}

fn problem((path, error): &Wrong) -> Problem {
    let why = std::error::Error::source(error).map(|e| format!(": {e}")).unwrap_or_default();
    Problem::new(path, format!("{error}{why}"), error.help().unwrap_or_default())
}

/// In these places of a kubeconfig's user the secret itself stands (client-go, `clientcmd/api/v1` `AuthInfo`); what a
/// plugin is given in its environment may be one.
const INLINE: [&str; 5] = ["/token", "/password", "/client-key-data", "/auth-provider/config", "/exec/env/0"];
/// In these the path of a file with it; a relative one starts at the kubeconfig.
const FILES: [&str; 2] = ["/tokenFile", "/client-key"];

/// The files of a kubeconfig that must be private: itself where credentials stand in it, and those that it names for
/// them. What cannot be read is left to whoever opens it.
fn private_files(kubeconfig: &Path) -> Vec<PathBuf> {
    // To read a pipe would wait for somebody who writes.
    let is_file = std::fs::metadata(kubeconfig).is_ok_and(|found| found.is_file());
    let text = if is_file { std::fs::read_to_string(kubeconfig).unwrap_or_default() } else { String::new() };
    let value: Value = serde_saphyr::from_str(&text).unwrap_or_default();
    let users = value.get("users").and_then(Value::as_array).into_iter().flatten().filter_map(|user| user.get("user"));
    let mut out = Vec::new();
    for user in users {
        if INLINE.iter().any(|place| user.pointer(place).is_some_and(|value| !value.is_null() && value != "")) {
            out.push(kubeconfig.to_owned());
        }
        let named = FILES.iter().filter_map(|place| user.pointer(place)?.as_str());
        out.extend(named.map(|file| kubeconfig.parent().unwrap_or(Path::new("")).join(file)));
    }
    out.dedup();
    out
}
