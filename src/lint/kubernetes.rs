//! What Kubernetes says of nodes and of what runs on them.

use std::collections::BTreeMap;

use crate::base::survey::{KubernetesCluster, Node, Stranger, Survey};

use super::{Explain, Out, Rule, each, identity, minor, nvidia, quoted, talosctl};

pub(super) const RULES: &[Rule] = &[
    Rule {
        number: "L17",
        title: "versions are too far apart",
        explain: Explain {
            wrong: "Talos goes one minor version at a time, and nodes that stay behind meet features and etcd versions that they \
                    do not know. A kubelet newer than the API server, or more than three minor versions older, is not \
                    supported.",
            shows: "`talosctl version` differs from node to node; `kubectl get nodes` under VERSION.",
            by_hand: "`talosctl upgrade` of the node that stayed behind; `talosctl upgrade-k8s`.",
            source: "Talos, upgrading; Kubernetes, version skew policy",
        },
        silences: &[],
        look: versions,
    },
    Rule {
        number: "L18",
        title: "a PodDisruptionBudget can never be met",
        explain: Explain {
            wrong: "No pod that it counts can ever be evicted: each drain waits for it until it gives up, and a shutdown by Talos \
                    with it.",
            shows: "`kubectl drain` repeats `Cannot evict pod as it would violate the pod's disruption budget`.",
            by_hand: "`kubectl edit pdb`: fewer wanted than there are replicas, or `maxUnavailable: 1`.",
            source: "Kubernetes, registry/core/pod/storage/eviction.go",
        },
        silences: &[],
        look: |survey, out| clusters(survey, out, budgets),
    },
    Rule {
        number: "L20",
        title: "huge pages are configured and pods cannot have them",
        explain: Explain {
            wrong: "The kubelet counts huge pages once, when it starts; and the kernel makes them only where memory is free in one \
                    piece. Pods that ask for them (Mayastor's io-engine) stay Pending.",
            shows: "`kubectl describe node` has hugepages-2Mi 0 under Allocatable, and `vm.nr_hugepages` is set.",
            by_hand: "`talosctl service kubelet restart`; a reboot where the kernel has fewer than asked for.",
            source: "Kubernetes, manage huge pages; kernel, admin-guide/mm/hugetlbpage",
        },
        silences: &[],
        look: |survey, out| each(survey, out, huge_pages),
    },
    Rule {
        number: "L31",
        title: "Kubernetes has nodes that the site does not know",
        explain: Explain {
            wrong: "Nothing here looks at them: no survey, no gate counts them, and a control plane among them has a vote that \
                    nobody asked.",
            shows: "`kubectl get nodes` lists more than the site file.",
            by_hand: "Add them to the site file; `kubectl delete node` for one whose machine is known to be off for good: the pods of one \
                      that is only cut off go on writing to their volumes.",
            source: "the site file against `kubectl get nodes`",
        },
        silences: &[],
        look: |survey, out| clusters(survey, out, |cluster, out| strangers(survey, cluster, out)),
    },
    Rule {
        number: "L32",
        title: "the site has a node that Kubernetes does not know",
        explain: Explain {
            wrong: "Its kubelet never registered, or somebody deleted the Node object: no pod is placed there, and volumes bound \
                    to it have no node.",
            shows: "`kubectl get node NAME`: NotFound.",
            by_hand: "Where its machine is up, a restart of its kubelet registers it again; `node_name` in the site file where it has \
                      another name. One that is not there any more is taken out of the site file.",
            source: "the site file against `kubectl get nodes`",
        },
        silences: &["L25"],
        look: |survey, out| each(survey, out, |node, out| unregistered(survey, node, out)),
    },
    Rule {
        number: "L33",
        title: "a node is cordoned, and nothing may take that back",
        explain: Explain {
            wrong: "No pod is placed there, and nothing takes the cordon back by itself: a drain that failed leaves one, and so do \
                    one that was forgotten and a run that was broken off. On the last node with a device or a volume its pods stay Pending.",
            shows: "`kubectl get nodes` says SchedulingDisabled; the node has no `talos.dev/cordoned`, and `pvemig.io/hold` names a run \
                    that nobody goes on with, or is not there.",
            by_hand: "`pvemig status` on the host of the run; `kubectl uncordon NODE`, once it is known why it was cordoned.",
            source: "kubectl drain (a failed one does not uncordon); siderolabs/talos AnnotationCordonedKey",
        },
        silences: &[],
        look: |survey, out| each(survey, out, cordoned),
    },
];

fn clusters(survey: &Survey, out: &mut Out, look: impl Fn(&KubernetesCluster, &mut Out) -> Option<()>) {
    for cluster in &survey.kubernetes {
        let _ = look(cluster, out);
    }
}

fn versions(survey: &Survey, out: &mut Out) {
    for cluster in &survey.talos {
        let mut by_minor: BTreeMap<(u32, u32), Vec<&Node>> = BTreeMap::new();
        for node in survey.talos_nodes(&cluster.name) {
            let known = out.need(&node.name, &node.talos).and_then(|talos| talos.version.minor());
            known.into_iter().for_each(|minor| by_minor.entry(minor).or_default().push(node));
        }
        let (Some((_, oldest)), Some((newest, of))) = (by_minor.first_key_value(), by_minor.last_key_value()) else {
            continue;
        };
        let (Some(behind), true) = (oldest.first(), by_minor.len() > 1) else { continue };
        let told: Vec<String> = by_minor
            .iter()
            .map(|((major, minor), nodes)| {
                let names: Vec<&str> = nodes.iter().map(|node| node.name.as_str()).collect();
                format!("{major}.{minor} on {}", names.join(", "))
            })
            .collect();
        let tag = of.first().and_then(|node| node.talos()).map_or("", |talos| talos.version.tag.as_str());
        let text = format!("its nodes run different minor versions of Talos: {}", told.join("; "));
        let (major, old) = by_minor.keys().next().copied().unwrap_or_default();
        // One minor version at a time.
        let next = (major, old + 1) == *newest;
        let to = if next { tag.to_owned() } else { format!("v{major}.{}.PATCH", old + 1) };
        let runs = behind.talos().and_then(|talos| Some(nvidia::image(talos, talos.schematic.known()?, &to)));
        let image = runs.unwrap_or_else(|| "IMAGE".to_owned());
        out.find(
            &cluster.name,
            text,
            format!("upgrade {}: {}", behind.name, talosctl(behind, &format!("upgrade --image {image}"))),
        );
    }
    for cluster in &survey.kubernetes {
        let Some(server) = out.need(&cluster.name, &cluster.version) else { continue };
        let Some((major, newest)) = minor(server) else { continue };
        for node in survey.kubernetes_nodes(&cluster.name) {
            let Some(kubelet) = out.need(&node.name, &node.kubelet).filter(|kubelet| kubelet.registered) else {
                continue;
            };
            let Some((_, own)) = minor(&kubelet.version).filter(|(own, _)| *own == major) else { continue };
            let how = if own > newest {
                "newer than"
            } else if newest - own > 3 {
                "more than three minor versions older than"
            } else {
                continue;
            };
            let text = format!("its kubelet is {}, {how} the API server's {server}", kubelet.version);
            let help = match (node.is_talos(), own > newest) {
                (true, _) => talosctl(
                    node,
                    &format!("upgrade-k8s --to {}", if own > newest { &kubelet.version } else { server }),
                ),
                (false, true) => format!("upgrade the control plane to {} first", kubelet.version),
                (false, false) => {
                    format!("upgrade its kubelet to {server}, no more than three minor versions at a time")
                }
            };
            out.find(&node.name, text, help);
        }
    }
}

fn budgets(cluster: &KubernetesCluster, out: &mut Out) -> Option<()> {
    for budget in out.need(&cluster.name, &cluster.never_met)? {
        let text = format!(
            "PodDisruptionBudget {}/{} lets no pod go, however many are healthy ({})",
            budget.namespace, budget.name, budget.figures
        );
        out.find(&cluster.name, text, format!("`kubectl -n {} edit pdb {}`", budget.namespace, budget.name));
    }
    Some(())
}

/// Bytes of a quantity as Kubernetes writes those of huge pages.
fn quantity(text: &str) -> Option<u64> {
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let factor = match unit {
        "" => 1,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        "Ti" => 1 << 40,
        "k" => 1_000,
        "M" => 1_000_000,
        "G" => 1_000_000_000,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

fn huge_pages(node: &Node, out: &mut Out) -> Option<()> {
    let talos = out.need(&node.name, &node.talos)?;
    let wanted = out.need(&node.name, &talos.config)?.huge_pages.filter(|pages| *pages > 0)?;
    let kubelet = out.need(&node.name, &node.kubelet).filter(|kubelet| kubelet.registered)?;
    let memory = out.need(&node.name, &talos.memory)?;
    let page = if memory.huge_page_size > 0 { memory.huge_page_size } else { 2 << 20 };
    let mut have: u64 = 0;
    for (name, amount) in kubelet.allocatable.iter().filter(|(name, _)| name.starts_with("hugepages-")) {
        let Some(bytes) = quantity(amount) else {
            out.cannot(&node.name, format!("its allocatable {name} is {amount}, which cannot be read"));
            return None;
        };
        have = have.saturating_add(bytes);
    }
    if have >= wanted.saturating_mul(page) {
        return None;
    }
    let made = memory.huge_pages;
    let (why, help) = if made < wanted {
        let why = format!("the kernel could make {made} of them: no more memory was free in one piece");
        (why, talosctl(node, "reboot"))
    } else {
        ("the kubelet counted them before they were there".to_owned(), talosctl(node, "service kubelet restart"))
    };
    let text = format!(
        "its configuration asks for {wanted} huge pages of {} MiB, and pods can have {} MiB: {why}",
        page >> 20,
        have >> 20
    );
    out.find(&node.name, text, help);
    Some(())
}

/// What a node's own machine says that it is.
fn own_uuid(node: &Node) -> Option<&str> {
    let own = match node.talos() {
        Some(talos) => talos.system_uuid.known().map(String::as_str),
        None if node.waiting.is_some() => {
            node.waiting.as_ref().and_then(|it| it.system_uuid.known()).map(String::as_str)
        }
        None => node.vm().and_then(|vm| vm.smbios_uuid.as_deref()),
    };
    own.filter(|uuid| identity::told(uuid))
}

/// A node of the site that Kubernetes has none of.
fn is_missing(node: &Node) -> bool {
    node.kubelet().is_some_and(|kubelet| !kubelet.registered)
}

/// The name by which Kubernetes has the machine of a node of the site, where it has none by the site's.
fn known_as<'s>(survey: &'s Survey, node: &Node) -> Option<&'s Stranger> {
    let own = own_uuid(node).filter(|_| is_missing(node))?;
    let cluster = survey.kubernetes.iter().find(|cluster| cluster.name == node.kubernetes)?;
    cluster.strangers.known()?.iter().find(|other| identity::same(&other.system_uuid, own))
}

fn strangers(survey: &Survey, cluster: &KubernetesCluster, out: &mut Out) -> Option<()> {
    let all = out.need(&cluster.name, &cluster.strangers)?;
    let nodes: Vec<&Node> = survey.kubernetes_nodes(&cluster.name).collect();
    let dark = nodes.iter().find(|node| node.kubelet.is_unknown() || (is_missing(node) && own_uuid(node).is_none()));
    if let (Some(node), false) = (dark, all.is_empty()) {
        out.cannot(&cluster.name, format!("whether one of its nodes is {} is not known", node.name));
        return None;
    }
    // Who is known by another name is told of that node.
    let meant: Vec<&Stranger> = nodes.iter().filter_map(|node| known_as(survey, node)).collect();
    let others: Vec<&Stranger> = all.iter().filter(|other| !meant.contains(other)).collect();
    let first = others.iter().find(|other| !other.ready).or(others.first())?;
    let text = format!(
        "Kubernetes has {}, of which the site file says nothing",
        quoted(others.iter().map(|other| other.name.as_str()))
    );
    let name = &first.name;
    let mut help = format!("`kubectl get node {name} -o wide` says what it is: add it to the site file");
    // One that works is nothing to be thrown away.
    if !first.ready {
        help.push_str(&format!("; where its machine is off for good, `kubectl delete node {name}`"));
    }
    out.find(&cluster.name, text, help);
    Some(())
}

/// What helps where nothing is there that could be a node; a site's own migration is named in its place.
pub const BY_JOIN: &str =
    "switch it on where it is to be a node; where it is not to be one any more, take it out of the site file";

fn unregistered(survey: &Survey, node: &Node, out: &mut Out) -> Option<()> {
    // It is to become a node.
    if node.waiting.is_some() {
        return None;
    }
    if out.need(&node.name, &node.kubelet)?.registered {
        return None;
    }
    let mut text = format!("Kubernetes has no node {}", node.node_name);
    let others = survey.kubernetes.iter().find(|cluster| cluster.name == node.kubernetes);
    let ready = others.and_then(|cluster| cluster.strangers.known()?.iter().find(|other| other.ready));
    let help = if let Some(other) = known_as(survey, node) {
        text.push_str(&format!("; it knows its machine as {}", other.name));
        format!("set `node_name: {}` for it in the site file", other.name)
    } else if let Some(other) = ready.filter(|_| own_uuid(node).is_none()) {
        format!(
            "is it {}? `kubectl get node {} -o wide` tells; then set `node_name` in the site file",
            other.name, other.name
        )
    } else if node.is_talos() && node.talos_silent {
        text.push_str(", and its machine does not answer either");
        BY_JOIN.to_owned()
    } else if node.is_talos() {
        talosctl(node, "service kubelet restart")
    } else {
        "`kubectl get nodes` says which there are".to_owned()
    };
    out.find(&node.name, text, help);
    Some(())
}

fn cordoned(node: &Node, out: &mut Out) -> Option<()> {
    let kubelet = out.need(&node.name, &node.kubelet)?;
    if !kubelet.registered || !kubelet.cordoned {
        return None;
    }
    let uncordon = format!("`kubectl uncordon {}`", node.node_name);
    let (text, help) = match kubelet.cordon_mark.as_deref() {
        // It takes that back by itself.
        Some(TALOS) => return None,
        Some(run) => (
            format!("it is cordoned by {run} of pvemig's: no pod is placed on it until that run takes it back"),
            format!("`pvemig status` there says whether it is at work; where nobody knows that run any more, {uncordon}"),
        ),
        None => (
            "it is cordoned, neither by a hold of pvemig's nor by Talos: no pod is placed on it until somebody takes that \
             back"
                .to_owned(),
            format!("{uncordon}, once it is known why"),
        ),
    };
    out.find(&node.name, text, help);
    Some(())
}

/// How a survey names Talos as the one who cordoned.
const TALOS: &str = "Talos";
