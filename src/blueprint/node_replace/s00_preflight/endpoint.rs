//! The addresses that everybody reaches the cluster by: none of them may be the machine that goes.

use std::net::IpAddr;
use std::time::Duration;

use crate::base::wait::within;
use crate::blueprint::finding::Findings;
use crate::estate::Estate;

use super::super::swap::Swap;
use super::super::{known, on};
use super::ask::Facts;

/// Where something points.
pub(super) struct Point {
    /// What points there.
    who: &'static str,
    /// As it stands there.
    text: String,
    /// How it is moved to another place.
    help: String,
    leads: Leads,
}

/// Where an address leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leads {
    /// To the old machine alone.
    There,
    /// To it, and to others.
    Also,
    Elsewhere,
    /// Nobody knows the name here.
    Unknown,
}

/// How long the addresses of a name are waited for.
const LOOK_UP: Duration = Duration::from_secs(10);

/// Asks what everybody points to; `wanted`: the endpoint of the new configuration.
pub(super) async fn points(cx: &Estate, swap: &Swap, wanted: Option<&str>) -> Vec<Point> {
    let taken = swap.new.machine.dial.host == swap.old.dial.host;
    if taken {
        return Vec::new();
    }
    let old = &swap.old.dial.host;
    let own = addresses(old).await;
    let mut points = Vec::new();
    if let Some(endpoint) = wanted {
        let help = format!(
            "give `new` that address too, or move the endpoint to a name or a virtual address first, in the configurations of all \
             nodes ({})",
            swap.old.talosctl("patch machineconfig")
        );
        points.push(("the control plane's endpoint", endpoint.to_owned(), help));
    }
    let cluster = &swap.old.node.cluster;
    if let Ok(kube) = cx.kubernetes(cluster).await {
        let help = format!(
            "let the kubeconfig of {cluster} in the site file name another server (`kubectl config set-cluster`): one that \
             stays, a name, or a virtual address"
        );
        points.push(("the server of the kubeconfig", kube.server().to_owned(), help));
    }
    let mut all = Vec::new();
    for (who, text, help) in points {
        let leads = leads(host_of(&text), &addresses(host_of(&text)).await, old, &own);
        all.push(Point { who, text, help, leads });
    }
    // Whoever has several asks the next one: pvemig itself asks each node.
    if let Ok(context) = cx.talosconfig(&swap.old.cluster) {
        let mut leads_there = false;
        for text in &context.endpoints {
            let at = addresses(host_of(text)).await;
            leads_there |= matches!(leads(host_of(text), &at, old, &own), Leads::There | Leads::Also);
        }
        let (who, text) = ("the endpoints of the talosconfig", context.endpoints.join(", "));
        let leads = if leads_there { Leads::Also } else { Leads::Elsewhere };
        all.push(Point { who, text, help: "`talosctl config endpoint` names others".into(), leads });
    }
    all
}

pub(super) fn findings(swap: &Swap, facts: &Facts, out: &mut Findings) {
    for Point { who, text, help, leads } in &facts.points {
        match leads {
            Leads::There => out.problem(
                &known::ENDPOINT,
                on::SHUTDOWN,
                format!("{who} is {text}, which is {} itself: every kubelet and kubeconfig points there", swap.goer()),
                help.clone(),
            ),
            Leads::Also => out.note(
                on::SHUTDOWN,
                format!("{who} ({text}) leads to {} too, which does not answer any more then: {help}", swap.goer()),
            ),
            Leads::Unknown => out.note(
                on::SHUTDOWN,
                format!(
                    "where {who} ({text}) leads cannot be told from here, where nobody knows that name: look that it is not {} alone",
                    swap.goer()
                ),
            ),
            Leads::Elsewhere => {}
        }
    }
}

/// The addresses of a name; none: nobody knows it here, or nobody says so in time.
async fn addresses(host: &str) -> Vec<IpAddr> {
    if let Ok(address) = host.parse() {
        return vec![address];
    }
    let asked = within(LOOK_UP, tokio::net::lookup_host((host, 0))).await;
    asked.ok().and_then(Result::ok).map(|all| all.map(|at| at.ip()).collect()).unwrap_or_default()
}

fn leads(host: &str, at: &[IpAddr], old: &str, own: &[IpAddr]) -> Leads {
    let there = at.iter().filter(|at| own.contains(at)).count();
    match there {
        _ if host == old => Leads::There,
        0 if at.is_empty() || own.is_empty() => Leads::Unknown,
        0 => Leads::Elsewhere,
        n if n == at.len() => Leads::There,
        _ => Leads::Also,
    }
}

/// `192.168.4.20` of `https://192.168.4.20:6443`, `[fd00::20]:50000` and `192.168.4.20`.
fn host_of(endpoint: &str) -> &str {
    let rest = endpoint.split_once("://").map_or(endpoint, |(_, rest)| rest);
    let rest = rest.split('/').next().unwrap_or(rest);
    match rest.strip_prefix('[') {
        Some(inner) => inner.split(']').next().unwrap_or(inner),
        // Several colons are an address without a port.
        None => match rest.split_once(':') {
            Some((host, port)) if !port.contains(':') => host,
            _ => rest,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_held_against_an_address() {
        let cases = [
            ("https://192.168.4.20:6443", "192.168.4.20"),
            ("https://[fd00::20]:6443", "fd00::20"),
            ("https://cluster.lan:6443/", "cluster.lan"),
            ("https://cluster.lan", "cluster.lan"),
            ("192.168.4.20:50000", "192.168.4.20"),
            ("192.168.4.20", "192.168.4.20"),
            ("fd00::20", "fd00::20"),
        ];
        assert_eq!(cases.len(), 7);
        for (endpoint, host) in cases {
            assert_eq!(host_of(endpoint), host);
        }
    }

    #[test]
    fn a_name_is_held_against_where_it_leads() {
        let at = |all: &[&str]| -> Vec<IpAddr> { all.iter().map(|at| at.parse().unwrap()).collect() };
        let own = at(&["192.168.4.20"]);
        let cases = [
            ("nuc.lan", at(&["192.168.4.20"]), Leads::There),
            ("cluster.lan", at(&["192.168.4.20", "192.168.4.49"]), Leads::Also),
            ("vip.lan", at(&["192.168.4.9"]), Leads::Elsewhere),
            ("cp.lan", Vec::new(), Leads::Unknown),
        ];
        assert_eq!(cases.len(), 4);
        for (host, to, is) in cases {
            assert_eq!(leads(host, &to, "192.168.4.20", &own), is, "{host}");
        }
        assert_eq!(leads("cp.lan", &[], "cp.lan", &[]), Leads::There);
    }
}
