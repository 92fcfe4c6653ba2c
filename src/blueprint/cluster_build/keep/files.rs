//! The files by which the cluster is reached: site file, talosconfig, kubeconfig.

use std::path::Path;

use jiff::Timestamp;

use crate::base::fault::{Failure, Fault};
use crate::base::private;
use crate::base::survey::renewal;
use crate::estate::Estate;
use crate::talos::{ClientCertificate, Dates};

use super::super::kubeconfig::Entry;
use super::Kept;
use crate::blueprint::install::Wanted;

/// The site file: the patches of the configurations, disks and addresses stand there alone.
pub(in super::super) fn site(path: &Path) -> Kept {
    let shown = path.display();
    match std::fs::read(path) {
        Ok(bytes) => {
            let kept = Kept::good(format!("site file {shown}: disks, addresses and patches of the nodes"));
            kept.copied("site.yaml", bytes, shown.to_string())
        }
        Err(error) => Kept::amiss(format!("site file {shown} cannot be read: {error}"), format!("put {shown} back")),
    }
}

/// A file that only its owner may read.
fn private(what: &str, path: &Path, ask: &str) -> Result<Vec<u8>, Kept> {
    private::read(path).map_err(|error| {
        let help = if error.is_wide() { error.help() } else { None };
        Kept::amiss(format!("{what}: {error}"), help.unwrap_or_else(|| ask.to_owned()))
    })
}

/// How the dates of a client certificate stand; Err: it is of no use.
fn dates(certificate: &ClientCertificate, now: Timestamp) -> Result<String, String> {
    let ClientCertificate { from, until, .. } = certificate;
    match certificate.dates(now) {
        Dates::Good => Ok(format!("its certificate ends on {}", until.strftime("%Y-%m-%d"))),
        Dates::NearEnd => Ok(format!("its certificate ends soon, on {}", until.strftime("%Y-%m-%d"))),
        Dates::Ended => Err(format!("its certificate ended on {until}")),
        Dates::Early => Err(format!("its certificate holds only from {from} on: is the clock of this machine right?")),
    }
}

/// The talosconfig: its authority is the cluster's, and its certificate holds.
pub(in super::super) fn talosconfig(cx: &Estate, cluster: &str, path: &Path, wanted: &Wanted) -> Kept {
    let shown = path.display();
    let ask = format!(
        "put the cluster's talosconfig at {shown} (mode 0600); its secrets make one: `talosctl gen config --with-secrets \
         secrets.yaml --output-types talosconfig NAME ENDPOINT`"
    );
    let bytes = match private("talosconfig", path, &ask) {
        Ok(bytes) => bytes,
        Err(kept) => return kept,
    };
    let context = match cx.talosconfig(cluster) {
        Ok(context) => context,
        Err(error) => {
            let failure = Failure::from(error);
            return Kept::amiss(format!("talosconfig: {failure}"), failure.fault().help().unwrap_or(ask));
        }
    };
    let whose = format!("talosconfig {shown}, context {}", context.name);
    if !wanted.ca.as_deref().is_some_and(|ca| context.is_of(ca)) {
        return Kept::amiss(format!("{whose}: its authority is not that of {cluster}"), ask);
    }
    match dates(&context.certificate, cx.clock().now()) {
        Err(why) => Kept::amiss(format!("{whose}: {why}"), ask),
        Ok(until) => {
            let near = matches!(context.certificate.dates(cx.clock().now()), Dates::NearEnd);
            let anew = renewal(&shown.to_string(), Some(&context.name), &context.certificate.roles);
            let anew =
                if near { format!("; `talosctl -n CONTROL-PLANE {anew}` makes another one") } else { String::new() };
            let roles = context.certificate.roles.join(", ");
            let kept = Kept::good(format!("{whose}: of the authority of {cluster}, {roles}; {until}{anew}"));
            kept.copied("talosconfig", bytes, shown.to_string())
        }
    }
}

/// The kubeconfig: its context's authority is the cluster's, and its certificate holds.
pub(in super::super) fn kubeconfig(cx: &Estate, path: &Path, context: &str, by_hand: &str, wanted: &Wanted) -> Kept {
    let shown = path.display();
    let ask = format!("get it anew: {by_hand}");
    let bytes = match private("kubeconfig", path, &ask) {
        Ok(bytes) => bytes,
        Err(kept) => return kept,
    };
    let whose = format!("kubeconfig {shown}, context {context}");
    let text = std::str::from_utf8(&bytes).map_err(|_| "it is no text".to_owned());
    let entry = match text.and_then(|text| Entry::named(text, context)) {
        Ok(entry) => entry,
        Err(why) => return Kept::amiss(format!("{whose}: {why}"), ask),
    };
    if wanted.kube_ca.as_deref().map(str::trim) != Some(entry.authority().trim()) {
        return Kept::amiss(format!("{whose}: its authority is not the cluster's"), ask);
    }
    let until = match entry.certificate().map(|certificate| dates(&certificate, cx.clock().now())) {
        Some(Err(why)) => return Kept::amiss(format!("{whose}: {why}"), ask),
        Some(Ok(until)) => until,
        None => "no client certificate stands in it, so that its end is not known".into(),
    };
    let kept = Kept::good(format!("{whose}: of the cluster's authority; {until}"));
    kept.copied("kubeconfig", bytes, shown.to_string())
}
