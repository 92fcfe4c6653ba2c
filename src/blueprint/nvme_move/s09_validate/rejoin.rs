//! Why a node does not come back into its cluster: what it says of itself, by the rules of `diagnose`.

use serde_json::Value;

use crate::base::fault::Failure;
use crate::blueprint::machine::Machine;
use crate::estate::Estate;
use crate::talos::kind;
use crate::talos::{Error, Service, Talos, Which};

use super::super::diagnose::{Rejoin, will_not_rejoin};

/// The signs, a line each with its command. What cannot be asked is said.
pub(super) async fn signs(cx: &Estate, machine: &Machine) -> Vec<String> {
    let (rejoin, mut unasked) = match machine.open(cx).await {
        Ok(talos) => ask(&talos).await,
        Err(failure) => (Rejoin { certificate: certificate(&failure), ..Rejoin::default() }, Vec::new()),
    };
    let mut lines = will_not_rejoin(&rejoin, |rest| machine.talosctl(rest));
    lines.append(&mut unasked);
    lines
}

async fn ask(talos: &Talos) -> (Rejoin, Vec<String>) {
    let (services, time, addresses, config) = futures::join!(
        talos.services(),
        talos.single(&kind::TIME),
        talos.list(&kind::ADDRESSES),
        talos.machine_config(Which::Active),
    );
    let (mut rejoin, mut unasked) = (Rejoin::default(), Vec::new());
    match services {
        Ok(services) => {
            rejoin.services = services.iter().filter(|one| one.id != "etcd").filter_map(not_through).collect();
            rejoin.etcd = services.iter().find(|one| one.id == "etcd").and_then(not_through);
        }
        Err(error) => {
            rejoin.certificate = of_certificate(&error);
            unasked.push(format!("its services cannot be asked: {error}"));
        }
    }
    match time {
        Ok(status) => rejoin.time = status.map(|status| status.spec.synced),
        Err(error) => unasked.push(format!("its time cannot be asked: {error}")),
    }
    match (addresses, config) {
        (Ok(has), Ok(Some(config))) => {
            let has: Vec<&str> = has.iter().map(|one| one.spec.address.as_str()).collect();
            rejoin.addresses = wanted(config.expose()).into_iter().filter(|one| !has.contains(&one.as_str())).collect();
        }
        (Err(error), _) | (_, Err(error)) => unasked.push(format!("its addresses cannot be asked: {error}")),
        (Ok(_), Ok(None)) => {}
    }
    // What one refusal explains is not said four times.
    unasked.truncate(1);
    (rejoin, unasked)
}

/// A service that is not through, with what it said last.
fn not_through(service: &Service) -> Option<String> {
    let waits = service.is_pending() || service.healthy == Some(false);
    waits.then(|| format!("{} is {} ({})", service.id, service.state, service.message))
}

fn certificate(failure: &Failure) -> Option<String> {
    failure.downcast_ref::<Error>().and_then(of_certificate)
}

fn of_certificate(error: &Error) -> Option<String> {
    let is = matches!(
        error,
        Error::UnknownIssuer { .. } | Error::OutOfDate { .. } | Error::Untrusted { .. } | Error::ClientRefused { .. }
    );
    is.then(|| error.to_string())
}

/// The addresses that a machine configuration asks for, of either form.
fn wanted(config: &str) -> Vec<String> {
    // What is no YAML has been read by others, who say so.
    let documents: Vec<Value> = serde_saphyr::from_multiple(config).unwrap_or_default();
    let mut all = Vec::new();
    for document in &documents {
        let list = |value: &Value, pointer: &str| {
            value.pointer(pointer).and_then(Value::as_array).cloned().unwrap_or_default()
        };
        for link in list(document, "/machine/network/interfaces") {
            all.extend(list(&link, "/addresses").iter().filter_map(Value::as_str).map(str::to_owned));
        }
        if document.get("kind").and_then(Value::as_str) == Some("LinkConfig") {
            let of = |one: &Value| one.get("address").and_then(Value::as_str).map(str::to_owned);
            all.extend(list(document, "/addresses").iter().filter_map(of));
        }
    }
    // Without a prefix length it cannot be held against what the node tells.
    all.retain(|address| address.contains('/'));
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_from_either_form_and_services_that_are_through_are_no_sign() {
        let config = "machine:\n  network:\n    interfaces:\n      - { interface: eth0, addresses: [10.0.0.5/24, 10.0.0.6] }\n---\n\
                      apiVersion: v1alpha1\nkind: LinkConfig\nname: eth1\naddresses: [{ address: 10.1.0.5/24 }]\n";
        assert_eq!(wanted(config), ["10.0.0.5/24", "10.1.0.5/24"]);
        assert_eq!(wanted("a: ["), Vec::<String>::new());
        let service = |state: &str, healthy| Service {
            id: "kubelet".into(),
            state: state.into(),
            healthy,
            message: "for a mount".into(),
        };
        assert_eq!(not_through(&service("Running", Some(true))), None);
        assert_eq!(not_through(&service("Waiting", None)).unwrap(), "kubelet is Waiting (for a mount)");
        let issuer = Error::UnknownIssuer { at: "n".into(), why: "w".into() };
        assert!(of_certificate(&issuer).unwrap().contains("authority"));
        assert_eq!(of_certificate(&Error::NoAnswer { at: "n".into(), why: "w".into() }), None);
    }
}
