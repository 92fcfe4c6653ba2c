//! The cells of the table: a word for each layer of a node, and a longer form where there is room.

use console::{Style, measure_text_width};

use crate::base::check::bytes;
use std::time::Duration;

use jiff::Timestamp;

use crate::base::survey::{
    Agent, EtcdSeat, Fact, Guest, Kubelet, Layer, Node, Presence, Stage, Talos, Vm, Waiting, Workloads,
};
use crate::base::wait::show;
use crate::lint::Finding;

/// How it stands with what a cell is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Mark {
    /// There is no such thing.
    Absent,
    /// As it should be.
    Good,
    /// At work, and a rule has something to say of it.
    Noted,
    /// Not known.
    Unknown,
    /// Not as it should be.
    Wrong,
}

impl Mark {
    /// What stands before a word, so that colour is not all that tells.
    fn sign(self) -> &'static str {
        match self {
            Self::Absent | Self::Good | Self::Noted => "",
            Self::Unknown => "?",
            Self::Wrong => "! ",
        }
    }

    /// The sign of a whole row.
    pub(super) fn row(self) -> &'static str {
        match self {
            Self::Absent | Self::Good => "✓",
            Self::Noted => "~",
            Self::Unknown => "?",
            Self::Wrong => "!",
        }
    }

    pub(super) fn style(self) -> Style {
        match self {
            Self::Absent => Style::new().dim(),
            Self::Good => Style::new(),
            Self::Noted | Self::Unknown => Style::new().yellow(),
            Self::Wrong => Style::new().red().bold(),
        }
    }
}

/// A cell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cell {
    pub(super) mark: Mark,
    /// The word.
    short: String,
    /// With what is worth knowing besides.
    long: String,
}

impl Cell {
    fn good(short: impl Into<String>, long: impl Into<String>) -> Self {
        Self { mark: Mark::Good, short: short.into(), long: long.into() }
    }

    fn wrong(short: impl Into<String>, long: impl Into<String>) -> Self {
        Self { mark: Mark::Wrong, short: short.into(), long: long.into() }
    }

    pub(super) fn text(&self, long: bool) -> String {
        format!("{}{}", self.mark.sign(), if long { &self.long } else { &self.short })
    }

    pub(super) fn width(&self, long: bool) -> usize {
        measure_text_width(&self.text(long))
    }
}

/// The rule that blames a missing channel of the agent.
const NO_CHANNEL: &str = "L04";

/// The columns.
pub(super) const COLUMNS: [&str; 8] = ["VM", "AGENT", "GUEST", "TALOS", "KUBELET", "ETCD", "PODS", "FOUND"];

/// The cells of a node at the time of its survey, in the order of the columns.
pub(super) fn of(node: &Node, findings: &[Finding], at: Timestamp) -> [Cell; 8] {
    let blamed = findings.iter().any(|finding| finding.rule == NO_CHANNEL && finding.what == node.name);
    [
        cell(&node.vm, |it| vm(it, node)),
        // An image to install from has no agent.
        if node.waiting.is_some() { absent() } else { cell(&node.agent, |it| agent(it, blamed)) },
        cell(&node.guest, guest),
        of_talos(node, at),
        match node.waiting {
            Some(_) if is_no_node(node) => absent(),
            Some(_) => cell(&node.kubelet, |_| outdated()),
            None => cell(&node.kubelet, kubelet),
        },
        cell(&node.etcd, etcd),
        cell(&node.workloads, |it| if node.waiting.is_some() && it.pods > 0 { outdated() } else { pods(it) }),
        found(node, findings),
    ]
}

/// The rules that have something to say of it.
fn found(node: &Node, findings: &[Finding]) -> Cell {
    let mut rules: Vec<&str> = findings.iter().filter(|f| f.what == node.name).map(|f| f.rule).collect();
    rules.dedup();
    let text = |most: usize| match rules.len().saturating_sub(most) {
        0 => rules.join(" "),
        more => format!("{} +{more}", rules.get(..most).unwrap_or_default().join(" ")),
    };
    let mark = if rules.is_empty() { Mark::Absent } else { Mark::Noted };
    Cell { mark, short: text(2), long: text(6) }
}

fn cell<T>(layer: &Layer<T>, of: impl FnOnce(&T) -> Cell) -> Cell {
    match layer {
        Layer::Known(value) => of(value),
        Layer::Unknown { .. } => Cell { mark: Mark::Unknown, short: String::new(), long: String::new() },
        Layer::Absent => absent(),
    }
}

fn absent() -> Cell {
    Cell { mark: Mark::Absent, short: "-".into(), long: "-".into() }
}

/// What waits for its first configuration runs nothing, whatever is written of it.
fn outdated() -> Cell {
    Cell { mark: Mark::Unknown, short: " of before".into(), long: " of before".into() }
}

fn is_no_node(node: &Node) -> bool {
    node.kubelet().is_some_and(|kubelet| !kubelet.registered)
}

/// Talos' own account, or what is known of a machine that gives none.
fn of_talos(node: &Node, at: Timestamp) -> Cell {
    match (&node.waiting, node.presence(at)) {
        (Some(it), _) => waits(it),
        // That it does not answer us alone is no death.
        (None, Presence::Dead { unheard }) => {
            let minutes = Duration::from_secs(unheard.as_secs() / 60 * 60);
            Cell::wrong("dead", format!("dead, {}", show(minutes)))
        }
        _ => cell(&node.talos, talos),
    }
}

fn waits(waiting: &Waiting) -> Cell {
    let tag = waiting.version.known().map(|tag| format!(" {tag}")).unwrap_or_default();
    Cell { mark: Mark::Noted, short: "waits".into(), long: format!("waits{tag}") }
}

fn vm(vm: &Vm, node: &Node) -> Cell {
    let place = node.place.as_ref().map(|place| format!(" ({} on {})", place.vmid, vm.host)).unwrap_or_default();
    let with = |word: &str| (word.to_owned(), format!("{word}{place}"));
    let (short, long) = match (&vm.qemu, &vm.lock) {
        _ if !vm.is_running() => with(&vm.power),
        (Some(word), _) if word != "running" => with(word),
        (_, Some(lock)) => with(lock),
        _ if !vm.pending.is_empty() => with("pending"),
        _ => {
            let (short, long) = with("running");
            return Cell::good(short, long);
        }
    };
    Cell::wrong(short, long)
}

/// `blamed`: that it has no channel is what a rule finds to be the trouble.
fn agent(agent: &Agent, blamed: bool) -> Cell {
    let unknown = |fact: &Fact| matches!(fact, Fact::Unknown { .. });
    if !agent.wrong().is_empty() {
        let short = if agent.ping.is_no() { "silent" } else { "no exec" };
        return Cell::wrong(short, short);
    }
    if unknown(&agent.channel) || unknown(&agent.ping) {
        return Cell { mark: Mark::Unknown, short: String::new(), long: String::new() };
    }
    if agent.ping.is_yes() && unknown(&agent.exec) {
        return Cell { mark: Mark::Unknown, short: " ping".into(), long: " ping, not exec".into() };
    }
    match (agent.ping.is_yes(), agent.exec.is_yes()) {
        (_, true) => Cell::good("exec", "ping, exec"),
        (true, false) => Cell::good("ping", "ping"),
        // Without a channel nobody can answer; whether there ought to be one a rule says.
        (false, false) => {
            let mark = if blamed { Mark::Noted } else { Mark::Absent };
            Cell { mark, short: "off".into(), long: "off".into() }
        }
    }
}

fn guest(guest: &Guest) -> Cell {
    // The ways behind the first that answers are not tried.
    let tried: Vec<&str> = guest.others.iter().filter_map(|other| Some(other.split_once(": ")?.0)).collect();
    let long =
        if tried.is_empty() { guest.route.clone() } else { format!("{}, not {}", guest.route, tried.join(", ")) };
    Cell::good(&guest.route, long)
}

fn talos(talos: &Talos) -> Cell {
    let tag = &talos.version.tag;
    match talos.stage.known() {
        None => Cell { mark: Mark::Unknown, short: String::new(), long: format!(" {tag}") },
        // Booted, and rules are blind to what it does not tell us.
        Some(Stage::Running) if talos.ready && talos.wrong().is_empty() && !talos.unknown().is_empty() => {
            Cell { mark: Mark::Unknown, short: " running".into(), long: format!(" running {tag}") }
        }
        Some(Stage::Running) if talos.ready && talos.wrong().is_empty() => {
            Cell::good("running", format!("running {tag}"))
        }
        Some(Stage::Running) if talos.ready => Cell::wrong("running", format!("running {tag}")),
        Some(Stage::Running) => Cell::wrong("not ready", format!("not ready {tag}")),
        Some(stage) => Cell::wrong(stage.to_string(), format!("{stage} {tag}")),
    }
}

fn kubelet(kubelet: &Kubelet) -> Cell {
    let version = &kubelet.version;
    let word = match kubelet {
        _ if !kubelet.registered => return Cell::wrong("none", "no such node"),
        _ if !kubelet.ready => "NotReady",
        _ if kubelet.cordoned => "cordoned",
        _ if !kubelet.pressures.is_empty() => "pressure",
        _ => return Cell::good("Ready", format!("Ready {version}")),
    };
    Cell::wrong(word, format!("{word} {version}"))
}

fn etcd(seat: &EtcdSeat) -> Cell {
    let size = bytes(seat.db_size);
    let word = match seat {
        _ if seat.leader.is_none() => "no leader".to_owned(),
        _ if seat.wrong().is_empty() => {
            let word = seat.seat.to_string();
            return Cell::good(&word, format!("{word}, {size}"));
        }
        _ => seat.seat.to_string(),
    };
    Cell::wrong(&word, format!("{word}, {size}"))
}

fn pods(workloads: &Workloads) -> Cell {
    let (bad, all) = (workloads.not_ready.len(), workloads.pods);
    if bad == 0 {
        return Cell::good(all.to_string(), format!("{all} ready"));
    }
    let text = format!("{} of {all}", all - bad.min(all));
    Cell::wrong(&text, format!("{text} ready"))
}

#[cfg(test)]
mod tests;
