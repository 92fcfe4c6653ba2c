//! Talos' clock, its load, and the certificate that we show it.

use jiff::{SignedDuration, Unit};

use crate::base::survey::{Node, Stage, Survey, renewal};

use super::{Explain, Out, Rule, each, talosctl};

pub(super) const RULES: &[Rule] = &[
    Rule {
        number: "L11",
        title: "the talosconfig's client certificate is near its end",
        explain: Explain {
            wrong: "It holds for a year from when it was made. Once it is over no node lets us in any more, and a new one cannot be \
                    asked for; only the cluster's secrets can make one then.",
            shows: "`talosctl config info` under Certificate expires; later `tls: expired certificate` for each call.",
            by_hand: "`talosctl --context NAME -n NODE config new FILE --roles os:admin` while the old one still holds.",
            source: "Talos, managing access: client certificates, a year unless `--crt-ttl` says otherwise",
        },
        silences: &[],
        look: certificates,
    },
    Rule {
        number: "L22",
        title: "a clock is off",
        explain: Explain {
            wrong: "Certificates are not yet valid or over, etcd complains of its peers, leases end early. Talos' own certificates \
                    hold for a day: a VM that comes back from a snapshot of last week lets nobody in until its clock is set.",
            shows: "`talosctl time`; `x509: certificate has expired or is not yet valid`.",
            by_hand: "`talosctl get timeservers`, and a time server that the node can reach; on this machine `timedatectl`. Never take a \
                      control plane back to a snapshot of its VM: its member of etcd would forget what it has told the others.",
            source: "siderolabs/talos `time.SyncController`; etcd, clock drift",
        },
        silences: &["L25"],
        look: clocks,
    },
    Rule {
        number: "L23",
        title: "a control plane has too little for what runs on it",
        explain: Explain {
            wrong: "Etcd needs an answer from its disk and memory within milliseconds. On a machine that swaps pages or is full it \
                    misses heartbeats, leaders change, and the Kubernetes API stalls for everybody.",
            shows: "`talosctl logs etcd`: `apply request took too long`; `kubectl top node`; `talosctl memory`.",
            by_hand: "Move what is heavy off it (taint, or allowSchedulingOnControlPlanes: false), or give it more memory.",
            source: "etcd hardware recommendations; etcd `maxGapBetweenApplyAndCommitIndex` (5000)",
        },
        silences: &[],
        look: |survey, out| each(survey, out, load),
    },
];

const NEAR: SignedDuration = SignedDuration::from_hours(30 * 24);

fn certificates(survey: &Survey, out: &mut Out) {
    for cluster in &survey.talos {
        let Some(certificate) = out.need(&cluster.name, &cluster.certificate) else { continue };
        let left = certificate.until.duration_since(survey.at);
        if left > NEAR {
            continue;
        }
        let until = certificate.until.strftime("%Y-%m-%d %H:%M UTC");
        let (text, help) = if left.is_positive() {
            let days = left.as_hours() / 24;
            let control = survey.talos_nodes(&cluster.name).find(|node| node.seat().is_some());
            let rest = renewal(&cluster.talosconfig, cluster.context.as_deref(), &certificate.roles);
            let help =
                control.map_or_else(|| format!("`talosctl -n CONTROL-PLANE {rest}`"), |node| talosctl(node, &rest));
            (format!("the client certificate in {} ends in {days} days, on {until}", cluster.talosconfig), help)
        } else {
            let help = "`talosctl gen config --with-secrets secrets.yaml --output-types talosconfig NAME ENDPOINT`, with the cluster's secrets";
            (
                format!("the client certificate in {} is over since {until}: no node lets us in", cluster.talosconfig),
                help.to_owned(),
            )
        };
        out.find(&cluster.name, text, help);
    }
}

/// In seconds; the reading is exact to two, however long the answer took.
const OFF: u64 = 5;

fn clocks(survey: &Survey, out: &mut Out) {
    let mut known: Vec<(&Node, i64)> = Vec::new();
    let mut unset: Vec<&Node> = Vec::new();
    for node in &survey.nodes {
        let Some(talos) = out.need(&node.name, &node.talos) else { continue };
        let settled = matches!(talos.stage.known(), Some(Stage::Running | Stage::Booting));
        if settled && out.need(&node.name, &talos.time_synced) == Some(&false) {
            unset.push(node);
        }
        known.extend(out.need(&node.name, &talos.ahead_s).map(|ahead| (node, *ahead)));
    }
    let off = |ahead: i64| ahead.unsigned_abs() > OFF;
    let (first, last) = (known.iter().map(|k| k.1).min(), known.iter().map(|k| k.1).max());
    // All of them by the same: it is not theirs.
    let ours =
        known.len() > 1 && known.iter().all(|k| off(k.1)) && first.zip(last).is_some_and(|(a, b)| b.abs_diff(a) <= OFF);
    if let (true, Some(ahead)) = (ours, first) {
        let text =
            format!("the clock of this machine is {} that of all {} nodes", way(ahead.saturating_neg()), known.len());
        out.find("this machine", text, "`timedatectl set-ntp true`");
    }
    for node in &survey.nodes {
        let ahead =
            known.iter().find(|(other, _)| other.name == node.name).map(|k| k.1).filter(|ahead| off(*ahead) && !ours);
        let unset = unset.iter().any(|other| other.name == node.name);
        let text = match (unset, ahead) {
            (true, Some(ahead)) => format!("its clock is not set, and {} ours", way(ahead)),
            (true, None) => "its clock is not set: it reaches none of its time servers".to_owned(),
            (false, Some(ahead)) => format!("its clock is {} ours", way(ahead)),
            (false, None) => continue,
        };
        out.find(&node.name, text, talosctl(node, "time"));
    }
}

fn way(ahead: i64) -> String {
    let by = SignedDuration::from_secs(ahead.saturating_abs()).round(Unit::Second);
    let by = by.map_or_else(|_| "very long".to_owned(), |by| format!("{by:#}"));
    format!("{by} {}", if ahead < 0 { "behind" } else { "ahead of" })
}

/// What etcd lets a member lag behind before it refuses requests.
const GAP: u64 = 5_000;
const SLOW_MS: u64 = 1_000;
const MIB: u64 = 1 << 20;

fn load(node: &Node, out: &mut Out) -> Option<()> {
    let control = node.seat().is_some() || node.kubelet().is_some_and(|kubelet| kubelet.control_plane);
    if !control {
        return None;
    }
    let mut wrong = Vec::new();
    if node.is_talos()
        && let Some(talos) = out.need(&node.name, &node.talos)
        && let Some(memory) = out.need(&node.name, &talos.memory)
    {
        // Huge pages are taken whether anybody uses them or not.
        if memory.total > 0 && memory.available < (memory.total / 10).clamp(256 * MIB, 1024 * MIB) {
            wrong.push(format!("{} of {} MiB of its memory are left", memory.available / MIB, memory.total / MIB));
        }
    }
    let pressures = node.kubelet().map(|kubelet| kubelet.pressures.as_slice()).unwrap_or_default();
    wrong.extend(pressures.iter().map(|pressure| format!("the kubelet reports {pressure}")));
    if let Some(seat) = out.need(&node.name, &node.etcd) {
        // One that is only just coming up has its time.
        let settled = node.talos().is_some_and(|talos| talos.stage.known() == Some(&Stage::Running));
        if settled && seat.answered_ms > SLOW_MS {
            wrong.push(format!("its etcd took {} ms to answer us", seat.answered_ms));
        }
        let gap = seat.raft_index.saturating_sub(seat.raft_applied);
        if gap > GAP {
            wrong.push(format!("its etcd is {gap} entries behind"));
        }
    }
    if wrong.is_empty() {
        return None;
    }
    let pods = node.workloads.known().map(|w| format!("; {} pods run on it", w.pods)).unwrap_or_default();
    let text = format!("it is a control plane, and {}{pods}", wrong.join(", and "));
    out.find(&node.name, text, format!("`kubectl get pods -A --field-selector spec.nodeName={}`", node.node_name));
    Some(())
}
