//! The files and variables that a site names, looked at without using them.

use std::path::Path;

use crate::base::fault::Fault;

use super::document::{Problem, join};
use super::secret::SecretRef;
use super::types::{ProxmoxAuth, Site, Ssh, TrustSource};

impl Site {
    /// Looks at the files and variables that the site names: they are there, and secret ones are private. Commands
    /// are not run.
    pub fn check_references(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut secret = |path: String, secret: &SecretRef| {
            if let Err(error) = secret.look() {
                let help = error.help().unwrap_or_default();
                let why = std::error::Error::source(&error).map(|e| format!(": {e}")).unwrap_or_default();
                problems.push(Problem::new(path, format!("{error}{why}"), help));
            }
        };
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
            files.push((format!("{}.kubeconfig", join("kubernetes", name)), &cluster.kubeconfig));
        }
        for (name, checkout) in &self.checkouts {
            files.push((format!("{}.path", join("checkouts", name)), &checkout.path));
        }
        for (at, path) in files {
            if let Err(error) = std::fs::metadata(path) {
                let text = format!("{} cannot be found: {error}", path.display());
                problems.push(Problem::new(at, text, "create it, or correct the path (it starts at the site file)"));
            }
        }
        self.document.sort(&mut problems);
        problems
    }
}
