//! What of a machine configuration may be shown.
//!
//! A value is shown where it is known to be none of the cluster's secrets; every other one is masked, so that a field
//! that a later version brings is masked too. Comments are not shown at all: a former token may stand in one.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::base::redact;
use crate::base::yaml::leaf::{Leaf, comments, leaves};
use crate::base::yaml::path::Part;
use crate::base::yaml::{self, YamlError};

/// What stands in the place of a masked value.
const GONE: &str = "…";

/// Values below these places of the v1alpha1 document are shown.
const SHOWN: &[&str] = &[
    "version",
    "debug",
    "persist",
    "machine.type",
    "machine.certSANs",
    "machine.install",
    "machine.kernel",
    "machine.sysctls",
    "machine.sysfs",
    "machine.time",
    "machine.network",
    "machine.kubelet.image",
    "machine.kubelet.clusterDNS",
    "machine.kubelet.extraMounts",
    "machine.kubelet.nodeIP",
    "machine.nodeLabels",
    "machine.nodeTaints",
    "machine.disks",
    "machine.features",
    "machine.files.path",
    "machine.files.op",
    "machine.files.permissions",
    "cluster.clusterName",
    "cluster.controlPlane.endpoint",
    "cluster.network",
    "cluster.proxy.disabled",
    "cluster.allowSchedulingOnControlPlanes",
    "cluster.apiServer.certSANs",
    "cluster.apiServer.image",
    "cluster.controllerManager.image",
    "cluster.scheduler.image",
    "cluster.discovery.enabled",
    "cluster.etcd.advertisedSubnets",
    "cluster.etcd.image",
    "cluster.inlineManifests.name",
];

/// Documents whose values are shown; of every other one its kind and name are.
const SHOWN_KINDS: &[&str] = &[
    "BondConfig",
    "BridgeConfig",
    "DHCPv4Config",
    "DHCPv6Config",
    "DummyLinkConfig",
    "EthernetConfig",
    "ExistingVolumeConfig",
    "ExternalVolumeConfig",
    "HostnameConfig",
    "KernelModuleConfig",
    "KubeClusterConfig",
    "KubeNetworkConfig",
    "KubeNodeConfig",
    "Layer2VIPConfig",
    "LinkAliasConfig",
    "LinkConfig",
    "OOMConfig",
    "PCIDriverRebindConfig",
    "RawVolumeConfig",
    "ResolverConfig",
    "StaticHostConfig",
    "SwapVolumeConfig",
    "SysctlConfig",
    "SysfsConfig",
    "TimeSyncConfig",
    "UnattendedInstallConfig",
    "UserVolumeConfig",
    "VLANConfig",
    "VolumeConfig",
    "WatchdogTimerConfig",
    "ZswapConfig",
];

/// What is masked below a key whose name has one of these in it, also where values are shown else.
const NEVER: &[&str] = &[
    "annotation",
    "auth",
    "cert",
    "content",
    "cookie",
    "credential",
    "crt",
    "encryption",
    "env",
    "extraargs",
    "extrakernelargs",
    "header",
    "key",
    "parameters",
    "passphrase",
    "passw",
    "psk",
    "secret",
    "ticket",
    "token",
    "url",
    "wireguard",
];

/// Names that have one of those in them and are no secret.
const NO_SECRET: &[&str] = &["certSANs"];

/// A shorter value under a name that says nothing of a secret is no secret.
const SHORTEST: usize = 6;

/// A shorter word of a comment is no former token.
const SHORTEST_OF_COMMENT: usize = 12;

/// What of a configuration must not be shown, to take it out of what others say about that configuration.
#[derive(Clone)]
pub struct Mask {
    /// The longest first: a shorter one may be a part of it.
    secrets: Vec<String>,
}

impl std::fmt::Debug for Mask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mask").field("secrets", &self.secrets.len()).finish()
    }
}

impl Mask {
    /// All values of a configuration that are not shown, and what in its comments may be one. Of a text that is no YAML,
    /// every word.
    pub fn of(config: &str) -> Self {
        let (mut secrets, mut keys) = (BTreeSet::new(), BTreeSet::new());
        let read = yaml::documents(config).and_then(|documents| Ok((documents, comments(config)?)));
        match &read {
            Ok((documents, comments)) => {
                let comments = comments.iter().filter_map(|bytes| config.get(bytes.clone()));
                let words =
                    comments.flat_map(|comment| comment.split(|c: char| c.is_whitespace() || "\"'`,;".contains(c)));
                let odd =
                    |word: &&str| word.len() >= SHORTEST_OF_COMMENT && word.contains(|c: char| c.is_ascii_digit());
                secrets.extend(words.filter(odd).map(str::to_owned));
                for document in documents {
                    gather(document, kind_of(document), &mut Vec::new(), &mut secrets);
                    names(document, &mut keys);
                }
            }
            Err(_) => {
                let words = config.split(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | ',' | '{' | '}'));
                secrets.extend(words.filter(|word| word.len() >= SHORTEST).map(str::to_owned));
            }
        }
        // What is the name of a field as well says nothing where it stands.
        let mut secrets: Vec<String> = secrets.into_iter().filter(|secret| !keys.contains(secret.as_str())).collect();
        secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        Self { secrets }
    }

    /// A text without them, and without what looks like a secret.
    pub fn text(&self, text: &str) -> String {
        let out = self.secrets.iter().fold(text.to_owned(), |text, secret| without(&text, secret));
        redact::text(&out)
    }
}

/// What a node says about a configuration that it was sent, without what must not be shown. A difference of
/// configurations in it goes as a whole: it holds values of one that we do not know.
pub(in crate::talos) fn said(mask: &Mask, text: &str) -> String {
    let marks = ["Config diff:", "diff:", "Diff:"];
    let cut = marks.iter().filter_map(|mark| text.find(mark)).min();
    match cut.and_then(|at| text.get(..at)) {
        Some(head) => mask.text(head.trim_end()),
        None => mask.text(text),
    }
}

fn kind_of(document: &Value) -> Option<&str> {
    document.get("kind").and_then(Value::as_str)
}

fn names<'v>(value: &'v Value, out: &mut BTreeSet<&'v str>) {
    match value {
        Value::Object(map) => map.iter().for_each(|(key, value)| {
            out.insert(key);
            names(value, out);
        }),
        Value::Array(list) => list.iter().for_each(|value| names(value, out)),
        _ => {}
    }
}

fn gather(value: &Value, kind: Option<&str>, path: &mut Vec<Part>, out: &mut BTreeSet<String>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                path.push(Part::Key(key.clone()));
                gather(value, kind, path, out);
                path.pop();
            }
        }
        Value::Array(list) => {
            for (position, value) in list.iter().enumerate() {
                path.push(Part::At(position));
                gather(value, kind, path, out);
                path.pop();
            }
        }
        Value::Null | Value::Bool(_) => {}
        Value::String(_) | Value::Number(_) if is_shown(kind, path) => {}
        Value::Number(number) if path.iter().any(|part| looks_secret(part.text())) => {
            out.insert(number.to_string());
        }
        Value::Number(_) => {}
        Value::String(text) => {
            let secret = path.iter().any(|part| looks_secret(part.text()));
            let long = |part: &&str| part.len() >= SHORTEST || (secret && !part.is_empty());
            // Somebody may quote a line of it, or what stands behind a name in it.
            let lines = text.lines().map(str::trim).chain([text.as_str()]);
            out.extend(lines.flat_map(|line| pieces(line).into_iter().chain([line])).filter(long).map(str::to_owned));
        }
    }
}

/// The values in a line: behind `=` and `:`, and before the `@` of a URL.
fn pieces(line: &str) -> Vec<&str> {
    let ends = |c: char| c.is_whitespace() || "=:&?@/,;\"'".contains(c);
    let mut out = Vec::new();
    let (mut start, mut named) = (0, false);
    for (at, c) in line.char_indices().filter(|(_, c)| ends(*c)).chain([(line.len(), ' ')]) {
        let piece = line.get(start..at).unwrap_or_default();
        let user = c == ':' && line.get(at..).is_some_and(|rest| rest.contains('@'));
        if (named || user || c == '@') && piece.len() >= SHORTEST {
            out.push(piece);
        }
        // A blank or a quote may stand between a name and its value.
        named = matches!(c, '=' | ':') || (named && piece.is_empty() && (c.is_whitespace() || matches!(c, '"' | '\'')));
        start = at + c.len_utf8();
    }
    out
}

/// True for a value that is known to be no secret.
pub(super) fn is_shown(kind: Option<&str>, path: &[Part]) -> bool {
    let keys: Vec<&str> = path.iter().filter(|part| !matches!(part, Part::At(_))).map(Part::text).collect();
    if keys.iter().any(|key| looks_secret(key)) {
        return false;
    }
    match kind {
        None => SHOWN.iter().any(|place| {
            let place: Vec<&str> = place.split('.').collect();
            keys.starts_with(&place)
        }),
        Some(kind) => SHOWN_KINDS.contains(&kind) || matches!(keys.as_slice(), ["apiVersion" | "kind" | "name"]),
    }
}

fn looks_secret(key: &str) -> bool {
    let lower = key.to_ascii_lowercase();
    !NO_SECRET.contains(&key) && NEVER.iter().any(|word| lower.contains(word))
}

/// A text without a value, as it is and as it is quoted. A short one is taken out as a word alone.
fn without(text: &str, secret: &str) -> String {
    use base64::Engine;
    let quoted = Value::from(secret).to_string();
    let quoted = quoted.trim_matches('"').to_owned();
    let coded = base64::engine::general_purpose::STANDARD.encode(secret);
    let mut out = text.to_owned();
    for form in [secret, &quoted, &coded] {
        let mut from = 0;
        while let Some(at) = out.get(from..).and_then(|rest| rest.find(form)).map(|at| from + at) {
            let inside = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric());
            let (head, tail) = (out.get(..at).unwrap_or_default(), out.get(at + form.len()..).unwrap_or_default());
            if form.len() < SHORTEST && (inside(head.chars().next_back()) || inside(tail.chars().next())) {
                from = at + form.len();
                continue;
            }
            out = format!("{head}{GONE}{tail}");
            from = at + GONE.len();
        }
    }
    out
}

/// A configuration line by line, as many lines as it has, with everything masked that must not be shown.
///
/// # Errors
/// [`YamlError`] where it cannot be told what stands where.
pub(super) fn lines(text: &str) -> Result<Vec<String>, YamlError> {
    let documents = yaml::documents(text)?;
    let kind = |leaf: &Leaf| documents.get(leaf.document).and_then(kind_of);
    let many = |leaf: &Leaf| text.get(leaf.bytes.clone()).is_none_or(|raw| raw.trim_end().contains('\n'));
    let masked = leaves(text)?.into_iter().filter(|leaf| many(leaf) || !is_shown(kind(leaf), &leaf.path));
    let mut gone: Vec<_> =
        masked.map(|leaf| leaf.bytes).filter(|bytes| !bytes.is_empty()).chain(comments(text)?).collect();
    gone.sort_by_key(|bytes| (bytes.start, bytes.end));
    let (mut out, mut kept) = (String::new(), 0);
    for bytes in gone {
        let start = bytes.start.max(kept);
        out.push_str(text.get(kept..start).unwrap_or_default());
        let raw = text.get(start..bytes.end).unwrap_or_default();
        for (number, line) in raw.split('\n').enumerate() {
            if number > 0 {
                out.push('\n');
            }
            let blank = line.len() - line.trim_start().len();
            out.push_str(line.get(..blank).unwrap_or_default());
            if !line.trim().is_empty() {
                out.push_str(if line.trim_start().starts_with('#') { "# …" } else { GONE });
            }
        }
        kept = kept.max(bytes.end);
    }
    out.push_str(text.get(kept..).unwrap_or_default());
    let mask = Mask::of(text);
    Ok(out.lines().map(|line| mask.text(line)).collect())
}

/// The difference of two configurations, with three lines around each change, masked. A masked value that changes is a
/// line that goes and one that comes. Empty where there is none.
///
/// # Errors
/// [`YamlError`] where it cannot be told what stands where.
pub fn diff(old: &str, new: &str) -> Result<String, YamlError> {
    if old == new {
        return Ok(String::new());
    }
    let (before, after) = (lines(old)?, lines(new)?);
    let masks = [Mask::of(old), Mask::of(new)];
    let diff = similar::TextDiff::from_lines(old, new);
    let mut out = String::new();
    for group in diff.grouped_ops(3) {
        let first = group.first().map(|op| (op.old_range().start + 1, op.new_range().start + 1)).unwrap_or_default();
        out.push_str(&format!("@@ line {} -> {} @@\n", first.0, first.1));
        for change in group.iter().flat_map(|op| diff.iter_changes(op)) {
            let (sign, line) = match (change.old_index(), change.new_index()) {
                (Some(at), None) => ('-', before.get(at)),
                (_, Some(at)) if change.tag() == similar::ChangeTag::Insert => ('+', after.get(at)),
                (_, at) => (' ', at.and_then(|at| after.get(at))),
            };
            // A value that is a secret in one of them is none to be shown in the other.
            let line = line.map_or(GONE, String::as_str);
            out.push(sign);
            out.push_str(&masks.iter().fold(line.to_owned(), |line, mask| mask.text(&line)));
            out.push('\n');
        }
    }
    Ok(out)
}
