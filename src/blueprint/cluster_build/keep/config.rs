//! The machine configurations: the files that they come from, what the nodes run, and the secrets behind them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::Value;

use crate::base::fault::Failure;
use crate::blueprint::stand::may_pass;
use crate::estate::Estate;
use crate::site::SecretRef;
use crate::talos::Which;

use super::{Found, Keep, Kept};
use crate::blueprint::install::Bare;
use crate::blueprint::install::source::{Wanted, encrypted};

/// The configurations of all nodes: each file once, and each node against it. `key`: the recipient of the age key.
pub(in super::super) async fn configs(
    cx: &Estate,
    keep: &Keep,
    machines: &[(Bare, Result<Wanted, Failure>)],
    key: Option<&str>,
) -> Vec<Kept> {
    let (mut all, mut files, mut names) = (Vec::new(), BTreeSet::new(), BTreeMap::new());
    for (bare, wanted) in machines {
        if !files.insert(&bare.source.file) {
            continue;
        }
        all.push(match wanted {
            Ok(_) => source(keep, bare, key, &mut names),
            Err(why) => {
                let help = why.fault().help().unwrap_or_default();
                let ask = format!(
                    "put {} right{}",
                    bare.source.shown(),
                    if help.is_empty() { help } else { format!(": {help}") }
                );
                Kept::amiss(why.to_string(), ask)
            }
        });
    }
    for (bare, wanted) in machines {
        if let Ok(wanted) = wanted {
            all.push(running(cx, keep, bare, wanted).await);
        }
    }
    all
}

/// A file as it is, encrypted or not.
fn source(keep: &Keep, bare: &Bare, key: Option<&str>, names: &mut BTreeMap<String, ()>) -> Kept {
    let file = &bare.source.file;
    let shown = file.display();
    let bytes = match std::fs::read(file) {
        Ok(bytes) => bytes,
        Err(error) => return Kept::amiss(format!("{shown} cannot be read: {error}"), format!("put {shown} back")),
    };
    let text = String::from_utf8_lossy(&bytes);
    let words = match opened_by(&text, keep, key) {
        Ok(words) => words,
        Err((why, ask)) => return Kept::amiss(format!("machine configuration {shown}: {why}"), ask),
    };
    let own = file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let name = if names.contains_key(&own) { format!("config-{}-{own}", bare.name()) } else { format!("config-{own}") };
    names.insert(own, ());
    Kept::good(format!("machine configuration {shown}: {words}")).copied(name, bytes, shown.to_string())
}

/// What opens a file, in words; Err: it cannot be told that anything does, and what to do.
fn opened_by(text: &str, keep: &Keep, key: Option<&str>) -> Result<String, (String, String)> {
    let to = recipients(text);
    match (encrypted(text), key) {
        (None, _) => Ok("in the clear, for its owner alone".into()),
        (Some(_), _) if to.is_empty() => Ok("encrypted, to whom cannot be told; `decrypt` opens it today".into()),
        (Some(_), Some(key)) if to.iter().any(|one| one == key) => Ok(format!("encrypted to the age key, {key}")),
        (Some(_), Some(key)) => Err((
            format!("it is encrypted to {}, and not to the age key that is kept ({key})", to.join(", ")),
            "name the age key that opens it as `age-key` of `keep`, or add that one: `sops updatekeys FILE`".into(),
        )),
        (Some(_), None) if keep.age_key.is_some() => {
            Ok(format!("encrypted to {}; whether the age key is that one cannot be told", to.join(", ")))
        }
        (Some(_), None) => Err((
            format!("it is encrypted to {}, and no age key is named to be looked at", to.join(", ")),
            "name the key file as `age-key` of `keep` in the parameters".into(),
        )),
    }
}

/// To whom sops has encrypted a file with age; its list stands in the clear.
fn recipients(text: &str) -> Vec<String> {
    let all: Vec<Value> = serde_saphyr::from_multiple(text).unwrap_or_default();
    let lists = all.iter().filter_map(|document| document.pointer("/sops/age")?.as_array());
    lists.flatten().filter_map(|one| one.get("recipient")?.as_str().map(str::to_owned)).collect()
}

/// What a node runs is what its file comes to, or is kept besides.
async fn running(cx: &Estate, keep: &Keep, bare: &Bare, wanted: &Wanted) -> Kept {
    let name = bare.name();
    let asked = async {
        let talos = bare.machine.open(cx).await?;
        Ok::<_, Failure>(talos.machine_config(Which::Persistent).await?)
    };
    let now = match asked.await {
        Ok(Some(now)) => now,
        Ok(None) => return yet(format!("{name} has not written its configuration to its disk yet")),
        Err(failure) if may_pass(&failure) => return yet(failure.to_string()),
        Err(failure) => {
            let help = failure.fault().help().unwrap_or_else(|| "`pvemig survey` shows how it does".into());
            return Kept::amiss(format!("what {name} runs cannot be read: {failure}"), help);
        }
    };
    let shown = bare.source.shown();
    // What a command decrypts does not come to lie in the clear by way of the node.
    let sealed = !bare.source.decrypt.is_empty();
    match wanted.differs(now.expose()) {
        Ok(None) => Kept::good(format!("{name} runs what {shown} and the site file come to")),
        differs if keep.to.is_some() && !sealed => {
            let why = if differs.is_err() { "cannot be compared with" } else { "is another one than that of" };
            let text = format!("{name}: the configuration that it runs {why} {shown}, and is exported");
            let from = format!("what {name} runs, in the clear");
            Kept::good(text).copied(format!("running-{name}.yaml"), now.expose().as_bytes().to_vec(), from)
        }
        differs => {
            if let (Err(why), true) = (&differs, sealed) {
                let text = format!(
                    "{name}: the configuration that it runs cannot be compared with what {shown} comes to: {why}"
                );
                let help = "mend what keeps it from being compared; it is not exported, since that file is encrypted and the export \
                            would not be";
                return Kept::amiss(text, help);
            }
            let why = if differs.is_err() { "cannot be compared with what" } else { "is not what" };
            let otherwise = if sealed {
                "; it is not exported, since that file is encrypted and the export would not be"
            } else {
                ", or name a directory `to` of `keep`, into which it is exported"
            };
            Kept::amiss(
                format!("{name}: the configuration that it runs {why} {shown} comes to"),
                format!(
                    "carry into {} what {name} has otherwise (`pvemig plan` shows it at 02){otherwise}",
                    bare.source.file.display()
                ),
            )
        }
    }
}

fn yet(why: String) -> Kept {
    Kept { found: Found::Yet(why), copy: None }
}

/// The secrets that the configurations were made from: of the same authority and cluster id.
pub(in super::super) async fn secrets(path: &Path, decrypt: &[String], wanted: &Wanted) -> Kept {
    let shown = path.display();
    let ask = format!(
        "put the secrets of this cluster at {shown} (mode 0600); a machine configuration of a control plane makes them anew: \
         `talosctl gen secrets --from-controlplane-config FILE -o {shown}`"
    );
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) => return Kept::amiss(format!("secrets: {shown} cannot be read: {error}"), ask),
    };
    let sealed = encrypted(&String::from_utf8_lossy(&bytes)).is_some();
    let copied = |kept: Kept| kept.copied("secrets.yaml", bytes.clone(), shown.to_string());
    if sealed && decrypt.is_empty() {
        let text =
            format!("secrets {shown}: encrypted; whether they are this cluster's cannot be told without `decrypt`");
        return copied(Kept::good(text));
    }
    let from = if sealed {
        SecretRef::Command(decrypt.iter().cloned().chain([shown.to_string()]).collect())
    } else {
        SecretRef::File(path.to_owned())
    };
    let text = match from.resolve().await {
        Ok(text) => text,
        Err(error) => {
            let failure = Failure::from(error);
            return Kept::amiss(format!("secrets: {failure}"), failure.fault().help().unwrap_or(ask));
        }
    };
    match held(text.expose(), wanted) {
        Ok(()) => copied(Kept::good(format!(
            "secrets {shown}: of this cluster{}",
            if sealed { ", encrypted" } else { ", in the clear" }
        ))),
        Err(why) => Kept::amiss(format!("secrets {shown}: {why}"), ask),
    }
}

/// Whether a bundle of secrets is that of a configuration (siderolabs/talos `generate/secrets`, `Bundle`).
fn held(text: &str, wanted: &Wanted) -> Result<(), String> {
    let all: Value = serde_saphyr::from_str(text).map_err(|_| "they are no YAML".to_owned())?;
    let at = |pointer: &str| all.pointer(pointer).and_then(Value::as_str).filter(|text| !text.is_empty());
    let parts =
        ["/cluster/id", "/cluster/secret", "/trustdinfo/token", "/certs/os/key", "/certs/etcd/key", "/certs/k8s/key"];
    if let Some(lacks) = parts.iter().find(|part| at(part).is_none()) {
        return Err(format!("they have no {}", lacks.trim_start_matches('/').replace('/', ".")));
    }
    let same_id = at("/cluster/id") == wanted.cluster.as_deref();
    let same_ca = at("/certs/k8s/crt").map(str::trim) == wanted.kube_ca.as_deref().map(str::trim);
    if same_id && same_ca { Ok(()) } else { Err("they are another cluster's: id or authority differ".into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whom_a_file_is_encrypted_to_is_told() {
        let file = "machine: ENC[x]\nsops:\n    age:\n        - recipient: age1one\n          enc: |\n            xx\n        - recipient: age1two\n    version: 3.9\n";
        assert_eq!(recipients(file), ["age1one", "age1two"]);
        let (none, named) = (Keep::default(), Keep { age_key: Some("k".into()), ..Keep::default() });
        let good = [
            ("machine: {}\n", &none, None, "in the clear"),
            (file, &named, Some("age1two"), "to the age key, age1two"),
            (file, &named, None, "cannot be told"),
            ("sops:\n    pgp: []\n", &none, None, "to whom cannot be told"),
        ];
        for (text, keep, key, words) in good {
            assert!(opened_by(text, keep, key).unwrap().contains(words), "{words}");
        }
        for (keep, key, words) in
            [(&named, Some("age1x"), "and not to the age key"), (&none, None, "no age key is named")]
        {
            assert!(opened_by(file, keep, key).unwrap_err().0.contains(words), "{words}");
        }
    }
}
