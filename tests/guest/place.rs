//! A directory with keys, and OpenSSH's server in it.

use std::net::TcpListener as StdListener;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pvemig::guest::{KeySource, SshTarget};
use russh::keys::key::safe_rng;
use russh::keys::ssh_key::LineEnding;
use russh::keys::{Algorithm, PrivateKey};

#[expect(clippy::disallowed_methods, reason = "the other side of these tests are real programs")]
pub(crate) fn program(name: &str) -> Command {
    assert!(Path::new("/usr/sbin/sshd").exists(), "these tests need OpenSSH: install the package openssh-server");
    Command::new(name)
}

pub(crate) fn new_key() -> PrivateKey {
    PrivateKey::random(&mut safe_rng(), Algorithm::Ed25519).unwrap()
}

/// `ssh-ed25519 AAAA..`
pub(crate) fn public(key: &PrivateKey) -> String {
    let line = key.public_key().to_openssh().unwrap();
    line.split_whitespace().take(2).collect::<Vec<_>>().join(" ")
}

pub(crate) fn write_key(path: &Path, key: &PrivateKey) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::write(path, key.to_openssh(LineEnding::LF).unwrap().as_bytes()).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

pub(crate) fn user() -> String {
    let output = program("id").arg("-un").output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// A directory with a client key, a host key, and known_hosts.
pub(crate) struct Place {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) host: PrivateKey,
}

impl Place {
    pub(crate) fn new() -> Self {
        let place = Self { dir: tempfile::tempdir().unwrap(), host: new_key() };
        let client = new_key();
        write_key(&place.path("id"), &client);
        write_key(&place.path("host"), &place.host);
        std::fs::write(place.path("authorized_keys"), public(&client)).unwrap();
        place
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn known(&self, text: &str) {
        std::fs::write(self.path("known_hosts"), text).unwrap();
    }

    /// A target whose host key is recorded.
    pub(crate) fn target(&self, port: u16, limit: Duration) -> SshTarget {
        self.known(&format!("[127.0.0.1]:* {}\n", public(&self.host)));
        self.plain_target(port, limit)
    }

    pub(crate) fn plain_target(&self, port: u16, limit: Duration) -> SshTarget {
        let key = KeySource::File(self.path("id"));
        let target = SshTarget::new("127.0.0.1", port, user(), key, self.path("known_hosts"));
        SshTarget { login_limit: limit, ..target }
    }
}

/// OpenSSH's server, one process for each connection: no port to pick, no start to wait for.
pub(crate) struct Sshd {
    pub(crate) port: u16,
    running: Arc<Mutex<Vec<Child>>>,
}

impl Sshd {
    pub(crate) fn start(place: &Place, more: &str) -> Self {
        Self::after(place, more, ":")
    }

    /// One whose processes take the connection and stop before they say anything.
    pub(crate) fn stopped(place: &Place) -> Self {
        Self::after(place, "", "kill -STOP $$")
    }

    /// `first` is what the shell does that becomes the server.
    fn after(place: &Place, more: &str, first: &str) -> Self {
        // Needed by a server that runs as root; another one has no use for it.
        let _only_root = std::fs::create_dir_all("/run/sshd");
        let config = format!(
            "HostKey {}\nAuthorizedKeysFile {}\nUsePAM no\nStrictModes no\nPidFile none\n{more}\n",
            place.path("host").display(),
            place.path("authorized_keys").display()
        );
        std::fs::write(place.path("sshd_config"), config).unwrap();
        // One that cannot start here would leave whoever waits for its answers waiting for ever.
        let tried = program("/usr/sbin/sshd").arg("-t").arg("-f").arg(place.path("sshd_config")).output().unwrap();
        assert!(tried.status.success(), "{}", String::from_utf8_lossy(&tried.stderr));
        let listener = StdListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let running: Arc<Mutex<Vec<Child>>> = Arc::default();
        let script = format!("{first}; exec /usr/sbin/sshd -i -f \"$0\" -E \"$1\"");
        let (config, log, children) = (place.path("sshd_config"), place.path("sshd.log"), running.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let stdio = || Stdio::from(OwnedFd::from(stream.try_clone().unwrap()));
                let mut sshd = program("/bin/sh");
                sshd.arg("-c").arg(&script).arg(&config).arg(&log).stdin(stdio()).stdout(stdio());
                children.lock().unwrap().push(sshd.spawn().unwrap());
            }
        });
        Self { port, running }
    }

    pub(crate) fn connections(&self) -> usize {
        self.running.lock().unwrap().len()
    }

    /// Waits until the server's side of every connection has ended by itself.
    pub(crate) fn ended(&self) {
        for child in self.running.lock().unwrap().iter_mut() {
            child.wait().unwrap();
        }
    }

    /// Kills the server's side of every connection.
    pub(crate) fn kill(&self) {
        for child in self.running.lock().unwrap().iter_mut() {
            let _ended = child.kill();
            child.wait().unwrap();
        }
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        self.kill();
    }
}
