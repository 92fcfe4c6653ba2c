//! From the text of a site file to a [`Site`], with every problem at once.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::base::digest::sha256;

use super::document::{Document, Problem};
use super::fields::{Item, Sink};
use super::slots::slots;
use super::twins;
use super::types::{
    Access, Author, Checkout, Device, Gitops, GitopsKind, Host, Kubernetes, Migration, Node, PortPair, Proxmox,
    ProxmoxAuth, Site, SiteError, Ssh, TrustSource,
};
use super::values::{Places, SECRET, duration, keys, one_or_more, plain_name, ref_name, section, transpose, url};

/// What `~/` at the start of a path stands for; None: such paths are a problem.
pub type Home = Option<PathBuf>;

impl Site {
    /// Checks the text of a site file. `path` is where it is (relative paths in it start there); nothing is read from
    /// disk and nothing is asked over the network.
    ///
    /// # Errors
    /// [`SiteError::Invalid`] with every problem.
    pub fn parse(text: &str, path: &Path, home: Home) -> Result<Self, SiteError> {
        let (site, problems) = Self::partly(text, path, home)?;
        if problems.is_empty() { Ok(site) } else { Err(site.invalid(problems)) }
    }

    /// What of a text can be read, and every problem of the rest.
    fn partly(text: &str, path: &Path, home: Home) -> Result<(Self, Vec<Problem>), SiteError> {
        let (document, value) = Document::read(path, text).map_err(|invalid| SiteError::Invalid(Box::new(invalid)))?;
        let sink = Sink::new();
        let reader = Reader { places: Places { dir: path.parent().map(Path::to_owned).unwrap_or_default(), home } };
        let site = reader.site(&Item::new(&value, "", &sink), text, &document);
        Ok((site, sink.into_problems()))
    }

    /// Reads and checks a site file.
    ///
    /// # Errors
    /// [`SiteError`].
    pub fn load(path: &Path) -> Result<Self, SiteError> {
        let (site, problems) = Self::inspect(path)?;
        if problems.is_empty() { Ok(site) } else { Err(site.invalid(problems)) }
    }

    /// Reads a site file as far as it can be read, with every problem of the rest: so that the parameters of its
    /// migrations can be looked at all the same.
    ///
    /// # Errors
    /// It cannot be read at all, or is no YAML.
    pub fn inspect(path: &Path) -> Result<(Self, Vec<Problem>), SiteError> {
        let unreadable = |source| SiteError::Unreadable { path: path.to_owned(), source };
        let path = std::path::absolute(path).map_err(unreadable)?;
        let text = std::fs::read_to_string(&path).map_err(unreadable)?;
        Self::partly(&text, &path, home())
    }
}

#[expect(clippy::disallowed_methods, reason = "paths of the site file may start with ~/")]
fn home() -> Home {
    std::env::var("HOME").ok().filter(|home| home.starts_with('/')).map(PathBuf::from)
}

pub(super) struct Reader {
    pub(super) places: Places,
}

impl Reader {
    /// What cannot be read is empty, and a problem in the sink.
    fn site(&self, root: &Item<'_>, text: &str, document: &Document) -> Site {
        let known = [
            "version",
            "name",
            "state",
            "patience",
            "proxmox",
            "kubernetes",
            "checkouts",
            "nodes",
            "talos",
            "devices",
            "migrations",
        ];
        let fields = root.fields(&known);
        let _only_one: Option<u32> = fields.need("version", "add the line `version: 1`").and_then(|v| v.number(1..=1));
        let name = fields.need("name", "add a line like `name: homelab`").and_then(|v| plain_name(&v, v.text()?));
        let patience = match fields.get("patience") {
            None => Some(Duration::from_secs(600)),
            Some(item) => duration(&item),
        };
        let state = fields.get("state").map_or(Some(None), |item| self.places.path(&item).map(Some));
        let proxmox = section(&fields, "proxmox", |_, item| self.proxmox(item));
        let checkouts = section(&fields, "checkouts", |_, item| self.checkout(item));
        // References are checked against the keys of the file, not against what was read: a cluster with a problem in
        // it is still there.
        let clusters = keys(&fields, "proxmox");
        let kubes = keys(&fields, "kubernetes");
        let repos = keys(&fields, "checkouts");
        let mut hosts = Vec::new();
        let mut with_ssh = Vec::new();
        for (name, cluster) in fields.get("proxmox").and_then(|item| item.value().as_object()).into_iter().flatten() {
            let of_cluster = cluster.get("hosts").and_then(|hosts| hosts.as_object());
            if of_cluster.is_some_and(|hosts| hosts.values().any(|host| host.get("ssh").is_some_and(|s| !s.is_null())))
            {
                with_ssh.push(name.clone());
            }
            hosts.extend(of_cluster.into_iter().flat_map(|hosts| hosts.keys().cloned()));
        }
        let kubernetes = section(&fields, "kubernetes", |_, item| self.kubernetes(item, &repos));
        let nodes = section(&fields, "nodes", |name, item| self.node(name, item, &clusters, &kubes, &with_ssh));
        let talos = section(&fields, "talos", |_, item| self.talos(item, &clusters, &kubes));
        let devices = section(&fields, "devices", |_, item| device(item, &hosts));
        let migrations = section(&fields, "migrations", |_, item| migration(item));
        let talos_node_names = twins::look(&fields, &nodes, &talos);
        Site {
            name: name.unwrap_or_default(),
            digest: sha256(text.as_bytes()),
            path: document.path().to_owned(),
            state: state.flatten(),
            patience: patience.unwrap_or_default(),
            proxmox,
            kubernetes,
            checkouts,
            nodes,
            talos,
            devices,
            migrations,
            node_names: keys(&fields, "nodes"),
            talos_node_names,
            device_names: keys(&fields, "devices"),
            document: document.clone(),
            places: self.places.clone(),
        }
    }

    fn proxmox(&self, item: &Item<'_>) -> Option<Proxmox> {
        let fields = item.fields(&["url", "urls", "fingerprint", "fingerprints", "ca", "auth", "hosts"]);
        let urls =
            one_or_more(&fields, "url", "urls", "add a line like `url: https://pve1.lan:8006`", |item| url(item));
        let pins = "`openssl x509 -noout -fingerprint -sha256 -in /etc/pve/local/pve-ssl.pem` on the host shows it";
        let trust = match fields.get("ca") {
            Some(ca) => {
                for other in ["fingerprint", "fingerprints"] {
                    if let Some(other) = fields.get(other) {
                        other.problem("`ca` and fingerprints exclude each other", "keep the one that you want to hold");
                    }
                }
                self.places.path(&ca).map(TrustSource::Ca)
            }
            None => {
                let help = format!("add `ca: ./pve-root-ca.pem` or `fingerprint: \"AA:BB:..\"`; {pins}");
                one_or_more(&fields, "fingerprint", "fingerprints", &help, |item| item.parse(pins))
                    .map(TrustSource::Pins)
            }
        };
        let auth = fields.need("auth", "add `auth:` with a `ticket:` or a `token:`").and_then(|auth| self.auth(&auth));
        let hosts = section(&fields, "hosts", |_, item| {
            let fields = item.fields(&["ssh", "slots"]);
            let ssh = transpose(fields.get("ssh").map(|ssh| self.ssh(&ssh)));
            let slots = slots(&fields);
            Some(Host { ssh: ssh?, slots: slots? })
        });
        Some(Proxmox { urls: urls?, trust: trust?, auth: auth?, hosts })
    }

    fn auth(&self, item: &Item<'_>) -> Option<ProxmoxAuth> {
        let fields = item.fields(&["ticket", "token"]);
        match (fields.get("ticket"), fields.get("token")) {
            (Some(ticket), None) => {
                let fields = ticket.fields(&["user", "password"]);
                let user = fields.need("user", "add `user: root@pam`").and_then(|item| {
                    let user = item.text()?;
                    if user.split_once('@').is_some_and(|(name, realm)| !name.is_empty() && !realm.is_empty()) {
                        return Some(user.to_owned());
                    }
                    item.problem(format!("`{user}` has no realm"), "write it as `root@pam`");
                    None
                });
                let password = fields.need("password", SECRET).and_then(|item| self.places.secret(&item));
                Some(ProxmoxAuth::Ticket { user: user?, password: password? })
            }
            (None, Some(token)) => {
                let fields = token.fields(&["id", "secret"]);
                let id = fields.need("id", "add `id: \"root@pam!pvemig\"`").and_then(|item| {
                    let id = item.text()?;
                    let good = id.split_once('!').is_some_and(|(user, name)| user.contains('@') && !name.is_empty());
                    if good && !id.contains('=') {
                        return Some(id.to_owned());
                    }
                    // What stands behind `=` is the secret: it is not repeated.
                    item.problem("this is not a token id", "write it as `root@pam!pvemig`, without the secret");
                    None
                });
                let secret = fields.need("secret", SECRET).and_then(|item| self.places.secret(&item));
                Some(ProxmoxAuth::Token { id: id?, secret: secret? })
            }
            (Some(_), Some(token)) => {
                token.problem("`ticket` and `token` exclude each other", "keep one of them");
                None
            }
            (None, None) => {
                if fields.is_mapping() {
                    fields.problem("`auth` has neither a ticket nor a token", "add `ticket:` or `token:`");
                }
                None
            }
        }
    }

    fn ssh(&self, item: &Item<'_>) -> Option<Ssh> {
        let fields = item.fields(&["address", "port", "user", "key", "known_hosts"]);
        let address = fields.need("address", "add `address:` with a host name or an IP address").and_then(|item| {
            let text = item.text()?;
            if text.contains(['@', '/', ' ']) || text.starts_with('-') {
                item.problem(
                    format!("`{text}` is not an address"),
                    "write the name or IP address alone; `user` and `port` are keys of their own",
                );
                return None;
            }
            Some(text.to_owned())
        });
        let port = fields.get("port").map_or(Some(22), |item| item.number(1..=65535));
        let user = fields.get("user").map_or(Some("root"), |item| item.text()).map(str::to_owned);
        let help = "add `key: { file: ~/.ssh/id_ed25519 }`, an Ed25519 or ECDSA key without a passphrase";
        let key = fields.need("key", help).and_then(|item| self.places.secret(&item));
        let help = "add `known_hosts: ~/.ssh/known_hosts`, or a file that `ssh-keyscan` wrote and you have compared";
        let known_hosts = fields.need("known_hosts", help).and_then(|item| self.places.path(&item));
        Some(Ssh {
            address: address?,
            port: u16::try_from(port?).ok()?,
            user: user?,
            key: key?,
            known_hosts: known_hosts?,
        })
    }

    fn kubernetes(&self, item: &Item<'_>, checkouts: &[String]) -> Option<Kubernetes> {
        let fields = item.fields(&["kubeconfig", "context", "gitops"]);
        let kubeconfig =
            fields.need("kubeconfig", "add `kubeconfig: ~/.kube/config`").and_then(|item| self.places.path(&item));
        let context = fields.need("context", "`kubectl config get-contexts` lists them").and_then(|item| item.text());
        let gitops = transpose(fields.get("gitops").map(|item| {
            let fields = item.fields(&["kind", "checkout", "source"]);
            let kind =
                fields.need("kind", "add `kind: flux`").and_then(|item| item.one_of(&[("flux", GitopsKind::Flux)]));
            let checkout = fields
                .need("checkout", "name one of the `checkouts` of this file")
                .and_then(|item| item.name_of("a checkout", checkouts.iter().map(String::as_str)));
            let source =
                fields.need("source", "add `source: { namespace: flux-system, name: flux-system }`").and_then(|item| {
                    let fields = item.fields(&["namespace", "name"]);
                    let namespace =
                        fields.need("namespace", "the namespace of the source object").and_then(|i| i.text());
                    let name = fields.need("name", "the name of the source object").and_then(|i| i.text());
                    Some((namespace?.to_owned(), name?.to_owned()))
                });
            let (namespace, name) = source?;
            Some(Gitops { kind: kind?, checkout: checkout?, namespace, name })
        }));
        Some(Kubernetes { kubeconfig: kubeconfig?, context: context?.to_owned(), gitops: gitops? })
    }

    fn checkout(&self, item: &Item<'_>) -> Option<Checkout> {
        let fields = item.fields(&["path", "remote", "branch", "push", "author"]);
        let path = fields.need("path", "add `path:` of your checkout").and_then(|item| self.places.path(&item));
        let remote = fields.get("remote").map_or(Some("origin".to_owned()), |item| ref_name(&item));
        let branch =
            fields.need("branch", "add the branch that is deployed, `branch: main`").and_then(|i| ref_name(&i));
        let push = fields.get("push").map_or(Some(false), |item| item.flag());
        let author = fields.need("author", "add `author: { name: NAME, email: ADDRESS }`").and_then(|item| {
            let fields = item.fields(&["name", "email"]);
            // `<`, `>` and line breaks would end the field inside a commit.
            let clean = |item: Item<'_>| {
                let text = item.text()?;
                if text.contains(['<', '>', '\n']) {
                    item.problem("a name or address has no `<`, `>` or line break", "write it without them");
                    return None;
                }
                Some(text.to_owned())
            };
            let name = fields.need("name", "the author's name").and_then(clean);
            let email = fields.need("email", "the author's mail address").and_then(clean);
            Some(Author { name: name?, email: email? })
        });
        Some(Checkout { path: path?, remote: remote?, branch: branch?, push: push?, author: author? })
    }

    fn node(
        &self,
        name: &str,
        item: &Item<'_>,
        clusters: &[String],
        kubes: &[String],
        with_ssh: &[String],
    ) -> Option<Node> {
        let fields = item.fields(&["proxmox", "vmid", "kubernetes", "node_name", "ssh", "access"]);
        let proxmox = fields
            .need("proxmox", "name one of the clusters under `proxmox`")
            .and_then(|item| item.name_of("a Proxmox cluster", clusters.iter().map(String::as_str)));
        let vmid =
            fields.need("vmid", "add the VM's number, `vmid: 108`").and_then(|item| item.number(100..=999_999_999));
        let kubernetes = fields
            .need("kubernetes", "name one of the clusters under `kubernetes`")
            .and_then(|item| item.name_of("a Kubernetes cluster", kubes.iter().map(String::as_str)));
        let node_name = fields.get("node_name").map_or(Some(name.to_owned()), |item| plain_name(&item, item.text()?));
        let given = fields.get("ssh");
        let ssh = transpose(given.as_ref().map(|ssh| self.ssh(ssh)));
        let words = [("ssh", Access::Ssh), ("agent", Access::Agent), ("host-ssh", Access::HostSsh)];
        let access = match fields.get("access") {
            None if given.is_some() => Some(vec![Access::Ssh, Access::Agent]),
            None => Some(vec![Access::Agent]),
            Some(list) => {
                let items = list.list()?;
                if items.is_empty() {
                    list.problem("there is no way into the guest", "write at least one of `ssh`, `agent`, `host-ssh`");
                }
                let mut routes = Vec::new();
                for item in &items {
                    let Some(route) = item.one_of(&words) else { continue };
                    if routes.contains(&route) {
                        item.problem(format!("`{}` is there twice", route.word()), "each route is tried once");
                    }
                    if route == Access::Ssh && given.is_none() {
                        item.problem(
                            "the node has no `ssh`",
                            "add `ssh: { address: .. }` to the node, or leave this route out",
                        );
                    }
                    if route == Access::HostSsh && proxmox.as_ref().is_some_and(|name| !with_ssh.contains(name)) {
                        item.problem(
                            "no host of the node's cluster has `ssh`",
                            "add `ssh` to the hosts, or leave this route out",
                        );
                    }
                    routes.push(route);
                }
                (routes.len() == items.len() && !routes.is_empty()).then_some(routes)
            }
        };
        Some(Node {
            proxmox: proxmox?,
            vmid: vmid?,
            kubernetes: kubernetes?,
            node_name: node_name?,
            ssh: ssh?,
            access: access?,
        })
    }
}

fn device(item: &Item<'_>, hosts: &[String]) -> Option<Device> {
    let fields = item.fields(&["ids", "serial", "min_speed", "ports", "mapping"]);
    let help = "add `ids: [\"1a6e:089a\"]`; `lsusb` shows them";
    let ids = fields.need("ids", help).and_then(|item| {
        let list = item.list()?;
        if list.is_empty() {
            item.problem("a device has at least one id", help);
        }
        let ids: Vec<_> = list.iter().filter_map(|item| item.parse("`lsusb` shows it")).collect();
        (!ids.is_empty() && ids.len() == list.len()).then_some(ids)
    });
    let serial = transpose(fields.get("serial").map(|item| item.text().map(str::to_owned)));
    let min_speed = transpose(fields.get("min_speed").map(|item| item.number(1..=80_000)));
    let mut names: Vec<(String, Item<'_>)> = Vec::new();
    let ports = section(&fields, "ports", |host, item| {
        let fields = item.fields(&["port", "sibling"]);
        names.push((host.to_owned(), item.clone()));
        let help = "`lsusb -t` on the host shows it";
        let port = fields.need("port", help).and_then(|item| item.parse(help));
        let sibling = transpose(fields.get("sibling").map(|item| item.parse(help)));
        Some(PortPair { port: port?, sibling: sibling? })
    });
    for (host, item) in names.iter().filter(|(host, _)| !hosts.contains(host)) {
        let near = super::fields::near(host, hosts.iter().map(String::as_str));
        let help =
            near.map_or("list the host under `proxmox: .. hosts:`".into(), |near| format!("did you mean `{near}`?"));
        item.problem(format!("`{host}` is not a Proxmox host of this file"), help);
    }
    let mapping = transpose(fields.get("mapping").map(|item| plain_name(&item, item.text()?)));
    Some(Device { ids: ids?, serial: serial?, min_speed: min_speed?, ports, mapping: mapping? })
}

fn migration(item: &Item<'_>) -> Option<Migration> {
    let fields = item.fields(&["blueprint", "params"]);
    let blueprint = fields.need("blueprint", "add `blueprint: usb-move`").and_then(|item| item.text());
    let params = match fields.get("params") {
        None => serde_json::json!({}),
        Some(item) => {
            item.entries();
            item.value().clone()
        }
    };
    Some(Migration { blueprint: blueprint?.to_owned(), params })
}
