//! The screen: one table, under it what is wrong and what is not known, then the findings.

use std::collections::{BTreeMap, BTreeSet};

use console::{Style, measure_text_width, style, truncate_str};

use crate::base::survey::{Ballot, KubernetesCluster, Layer, Majority, Node, Survey, Votes};
use crate::base::wait::show;
use crate::lint::{Blind, Finding};

use super::super::out::Out;
use super::super::session::plural;
use super::super::words::{lay, one_line};
use super::cells::{self, COLUMNS, Cell, Mark};
use super::mended::Next;
use super::past::Past;
use super::runs::Open;

/// So many lines of one layer of a node are shown; of more only the number.
pub(super) const FEW: usize = 4;
/// What stands between two columns.
const GAP: usize = 2;
/// The rule that finds one voter where there are more control planes.
const ONLY_ONE: &str = "L41";
/// A name is cut to no fewer columns than this.
const NAME: usize = 12;

/// What is being written on.
pub(super) struct Paper {
    out: Out,
    width: usize,
    lines: Vec<String>,
    /// The reasons that were given for what is not known.
    reasons: BTreeSet<String>,
}

/// Something that is not known, by why: what it is of each node.
type Unknown<'a> = BTreeMap<(&'a str, Option<&'a str>), BTreeMap<&'a str, Vec<&'a str>>>;

impl Paper {
    pub(super) fn new(out: Out, width: usize) -> Self {
        Self { out, width, lines: Vec::new(), reasons: BTreeSet::new() }
    }

    pub(super) fn text(self) -> String {
        self.lines.iter().map(|line| format!("{}\n", line.trim_end())).collect()
    }

    pub(super) fn line(&mut self, line: impl Into<String>) {
        self.lines.push(line.into());
    }

    /// Words behind a head, which is as wide as `hang`.
    pub(super) fn laid(&mut self, head: &str, words: &str, hang: usize) {
        // At the end of a terminal's line the cursor would stand on the next one.
        let width = if self.width == usize::MAX { usize::MAX } else { self.width - 1 };
        self.lines.extend(lay(head, &self.out.commands(words), hang, width));
    }

    /// What to do. A command that is longer than a line stands alone and unbroken, so that it can be copied.
    pub(super) fn help(&mut self, text: &str) {
        let text = self.out.commands(text);
        let room = self.width.saturating_sub(12);
        let mut head = format!("    {}", helps());
        let mut words = String::new();
        for (n, part) in text.split('`').enumerate() {
            let command = n % 2 == 1;
            if command && part.chars().count() > room {
                if !words.trim().is_empty() {
                    self.laid(&head, words.trim(), 6);
                } else if !head.trim().is_empty() {
                    self.line(head.trim_end());
                }
                self.line(format!("      {part}"));
                (head, words) = (" ".repeat(6), String::new());
            } else if command {
                words.push_str(&format!("`{part}`"));
            } else {
                words.push_str(part);
            }
        }
        // Behind a command that stands alone no comma is wanted.
        let rest = words.trim_start_matches([',', ';', '.', ':']).trim();
        if !rest.is_empty() {
            self.laid(&head, rest, 6);
        }
    }

    pub(super) fn survey(
        &mut self,
        survey: &Survey,
        (runs, past, blind): (&[Open], &[Past], &[String]),
        findings: &[Finding],
        etcd: &[Ballot],
        next: &[Next],
    ) {
        self.head(survey);
        self.runs(runs, past, blind);
        let lonely = |of: &str| findings.iter().any(|finding| finding.rule == ONLY_ONE && finding.what == of);
        self.etcd(etcd, lonely);
        if survey.nodes.is_empty() {
            self.laid(
                "",
                "the site file names no nodes: `nodes:` and `talos:` are for them (`pvemig site example`)",
                2,
            );
            return;
        }
        let rows: Vec<(&str, [Cell; COLUMNS.len()])> =
            survey.nodes.iter().map(|node| (node.name.as_str(), cells::of(node, findings, survey.at))).collect();
        self.table(&rows);
        self.wrong(survey);
        self.waiting(survey, next);
        self.unknown(survey, etcd);
    }

    fn head(&mut self, survey: &Survey) {
        let took = show(std::time::Duration::from_millis(survey.took_ms));
        let at = survey.at.strftime("%Y-%m-%d %H:%M:%S UTC");
        let nodes = plural(survey.nodes.len(), "node");
        let some = if survey.partial { " of the site's" } else { "" };
        self.line(format!("{}  {nodes}{some} at {at}, in {took}", style(&survey.site).bold()));
    }

    /// The votes of each etcd; `lonely` says of which cluster a rule finds that one voter is too few.
    fn etcd(&mut self, all: &[Ballot], lonely: impl Fn(&str) -> bool) {
        for ballot in all {
            let spare = ballot.votes.and_then(Votes::left);
            let mark = match ballot.majority {
                Majority::Lost => Mark::Wrong,
                Majority::Electing | Majority::Unknown => Mark::Unknown,
                // One or two voters can never spare one.
                Majority::Held if spare == Some(0) && (ballot.voters().count() > 2 || lonely(&ballot.cluster)) => {
                    Mark::Noted
                }
                Majority::NotBegun => Mark::Noted,
                Majority::Held => Mark::Good,
            };
            let head = format!("{} ", mark.style().apply_to(mark.row()));
            self.laid(&head, &ballot.text(), 4);
        }
        self.line("");
    }

    /// One row a node; a column that says nothing of any of them is left out.
    fn table(&mut self, rows: &[(&str, [Cell; COLUMNS.len()])]) {
        let told =
            |column: usize| rows.iter().any(|(_, cells)| cells.get(column).is_some_and(|c| c.mark != Mark::Absent));
        let columns: Vec<usize> = (0..COLUMNS.len()).filter(|column| told(*column)).collect();
        let name = rows.iter().map(|(name, _)| measure_text_width(name)).max().unwrap_or(0).max("NODE".len());
        let widths = |long: bool| -> Vec<usize> {
            let of = |column: &usize| {
                let cells = rows.iter().filter_map(|(_, cells)| Some(cells.get(*column)?.width(long)));
                let title = COLUMNS.get(*column).map_or(0, |title| title.len());
                cells.max().unwrap_or(0).max(title)
            };
            columns.iter().map(of).collect()
        };
        let whole = |widths: &[usize], gap: usize| 2 + name + widths.iter().map(|width| gap + width).sum::<usize>();
        let long = whole(&widths(true), GAP) < self.width;
        let widths = widths(long);
        let gap = if whole(&widths, GAP) < self.width { GAP } else { 1 };
        let over = (whole(&widths, gap) + 1).saturating_sub(self.width);
        let name = name.saturating_sub(over).max(NAME);
        let pad =
            |text: &str, width: usize| format!("{text}{}", " ".repeat(width.saturating_sub(measure_text_width(text))));
        // What is wider all the same goes on in further tables.
        let mut tables: Vec<Vec<(usize, usize)>> = Vec::new();
        for (column, width) in columns.iter().copied().zip(widths) {
            let fits = |table: &&mut Vec<(usize, usize)>| {
                2 + name + table.iter().map(|(_, width)| gap + width).sum::<usize>() + gap + width < self.width
            };
            match tables.last_mut().filter(fits) {
                Some(table) => table.push((column, width)),
                None => tables.push(vec![(column, width)]),
            }
        }
        for table in tables {
            let mut line = format!("  {}", pad("NODE", name));
            for (column, width) in &table {
                let title = COLUMNS.get(*column).copied().unwrap_or_default();
                line.push_str(&format!("{}{}", " ".repeat(gap), pad(title, *width)));
            }
            self.line(style(line.trim_end()).dim().to_string());
            for (node, cells) in rows {
                let mark = cells.iter().map(|cell| cell.mark).max().unwrap_or(Mark::Good);
                let colour = if mark <= Mark::Good { Style::new().green() } else { mark.style() };
                let node = pad(&truncate_str(node, name, "…"), name);
                let mut line = format!("{} {node}", colour.apply_to(mark.row()));
                for (column, width) in &table {
                    let Some(cell) = cells.get(*column) else { continue };
                    let text = pad(&cell.text(long), *width);
                    line.push_str(&format!("{}{}", " ".repeat(gap), cell.mark.style().apply_to(text)));
                }
                self.line(line);
            }
        }
    }

    /// What the layers themselves say of what is not as it should be.
    fn wrong(&mut self, survey: &Survey) {
        let mut all: Vec<(&str, &str, String)> = Vec::new();
        for node in &survey.nodes {
            let wrong = node.wrong();
            for of_layer in wrong.chunk_by(|a, b| a.0 == b.0) {
                all.extend(of_layer.iter().take(FEW).map(|(layer, text)| (&*node.name, *layer, one_line(text))));
                // Where they are, and not below what another layer says.
                if let (Some((layer, _)), more @ 1..) = (of_layer.first(), of_layer.len().saturating_sub(FEW)) {
                    all.push((&node.name, layer, format!("and {more} more (`--json` has them)")));
                }
            }
        }
        for cluster in &survey.kubernetes {
            all.extend(of_cluster(cluster).into_iter().map(|(layer, text)| (cluster.name.as_str(), layer, text)));
        }
        if all.is_empty() {
            return;
        }
        self.line("");
        let name = all.iter().map(|(name, ..)| measure_text_width(name)).max().unwrap_or(0).min(24);
        let (mut last, mut over) = (None, None);
        for (node, layer, text) in &all {
            // A name and a layer are said once.
            let (named, layered) = (last == Some(*node), last == Some(*node) && over == Some(*layer));
            let node_word = if named { "" } else { node };
            let layer_word = if layered { "" } else { layer };
            let head = format!("  {:<name$}  {layer_word:<9} ", truncate_str(node_word, name, "…"));
            let hang = measure_text_width(&head);
            self.laid(&head, text, hang);
            (last, over) = (Some(*node), Some(*layer));
        }
    }

    /// What is not known, each reason once, with what it is the reason for.
    fn unknown(&mut self, survey: &Survey, etcd: &[Ballot]) {
        let mut all: Unknown = BTreeMap::new();
        // Without a majority nobody tells them, which stands at the head.
        let leaderless = |node: &Node| {
            let mut lost = etcd.iter().filter(|ballot| ballot.majority == Majority::Lost);
            lost.any(|ballot| ballot.member_of(&node.name).is_some())
        };
        for node in &survey.nodes {
            for (layer, reason, help) in node.unknown() {
                all.entry((reason, help)).or_default().entry(&node.name).or_default().push(layer);
            }
            let talos = node.talos().map(|talos| talos.unknown()).unwrap_or_default();
            let mut etcd = node.seat().map(|seat| seat.unknown()).unwrap_or_default();
            if leaderless(node) {
                self.reasons.extend(etcd.drain(..).map(|(_, reason, _)| reason.to_owned()));
            }
            for (part, reason, help) in talos.into_iter().chain(etcd) {
                all.entry((reason, help)).or_default().entry(&node.name).or_default().push(part);
            }
        }
        for cluster in &survey.kubernetes {
            for (part, reason, help) in parts(cluster) {
                all.entry((reason, help)).or_default().entry(&cluster.name).or_default().push(part);
            }
        }
        for cluster in &survey.talos {
            if let Layer::Unknown { reason, help } = &cluster.certificate {
                let of = all.entry((reason, help.as_deref())).or_default().entry(&cluster.name).or_default();
                of.push("client certificate");
            }
        }
        if all.is_empty() {
            return;
        }
        self.line("");
        for ((reason, help), of) in all {
            // Where the same parts of several nodes are not known, they are named once.
            let mut by: BTreeMap<Vec<&str>, Vec<&str>> = BTreeMap::new();
            for (name, parts) in of {
                by.entry(parts).or_default().push(name);
            }
            let whose: Vec<_> =
                by.into_iter().map(|(parts, names)| format!("{} of {}", parts.join(", "), names.join(", "))).collect();
            let head = format!("{} ", Mark::Unknown.style().apply_to("? not known:"));
            self.laid(&head, &format!("{}: {}", whose.join("; "), one_line(reason)), 4);
            help.into_iter().for_each(|help| self.help(help));
            self.reasons.insert(reason.to_owned());
        }
    }

    /// The rules that could not look, with each reason that does not stand above.
    fn blind(&mut self, blind: &[Blind]) {
        let mut by: BTreeMap<Option<&str>, (Vec<&str>, Vec<&str>)> = BTreeMap::new();
        for Blind { what, reason, rules } in blind {
            let reason = Some(reason.as_str()).filter(|reason| !self.reasons.contains(*reason));
            let (whose, numbers) = by.entry(reason).or_default();
            whose.push(what);
            numbers.extend(rules);
        }
        for (reason, (whose, rules)) in by {
            let (whose, rules) = (once(whose), once(rules));
            let head = format!("{} could not look", plural(rules.len(), "rule"));
            let text = match reason {
                None => format!("{head} everywhere, for what is not known: {}", rules.join(" ")),
                Some(why) => format!("{head} at {}: {} ({})", whose.join(", "), rules.join(" "), one_line(why)),
            };
            self.laid("", &text, 2);
        }
    }

    pub(super) fn findings(&mut self, findings: &[Finding], blind: &[Blind]) {
        self.line("");
        if findings.is_empty() {
            let word = if blind.is_empty() { "nothing contradicts itself" } else { "no findings in what is known" };
            self.line(style(word).green().to_string());
        } else {
            self.line(style(plural(findings.len(), "finding")).bold().to_string());
        }
        for Finding { rule, what, text, help } in findings {
            self.line(format!("{} {}", Mark::Wrong.style().apply_to(rule), style(what).bold()));
            self.laid("    ", text, 4);
            self.help(help);
        }
        self.blind(blind);
        if !findings.is_empty() {
            self.laid("", "`pvemig explain NUMBER` says more of a finding", 2);
        }
    }

    /// What is no finding, and explains what stands above.
    pub(super) fn notes(&mut self, notes: &[String]) {
        notes.iter().for_each(|note| self.laid("", note, 2));
    }
}

fn once(mut all: Vec<&str>) -> Vec<&str> {
    all.sort_unstable();
    all.dedup();
    all
}

fn helps() -> String {
    format!("{} ", style("help:").cyan())
}

/// What is wrong with a cluster as a whole, beside what the rules find.
fn of_cluster(cluster: &KubernetesCluster) -> Vec<(&'static str, String)> {
    let waiting = cluster.unscheduled.known().map(Vec::as_slice).unwrap_or_default();
    let mut lines: Vec<_> = waiting
        .iter()
        .take(FEW)
        .map(|pod| ("workloads", format!("{}/{}: {}", pod.owner.namespace, pod.pod, one_line(&pod.why))))
        .collect();
    if waiting.len() > FEW {
        lines.push(("workloads", format!("and {} more (`--json` has them)", waiting.len() - FEW)));
    }
    lines
}

/// The parts of a cluster that are not known.
fn parts(cluster: &KubernetesCluster) -> Vec<(&'static str, &str, Option<&str>)> {
    fn of<'a, T>(part: &'static str, layer: &'a Layer<T>) -> Option<(&'static str, &'a str, Option<&'a str>)> {
        match layer {
            Layer::Unknown { reason, help } => Some((part, reason, help.as_deref())),
            Layer::Known(_) | Layer::Absent => None,
        }
    }
    let all = [
        of("version", &cluster.version),
        of("other nodes", &cluster.strangers),
        of("budgets", &cluster.never_met),
        of("waiting pods", &cluster.unscheduled),
    ];
    all.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn without_styles(line: &str) -> String {
        let mut parts = line.split("\x1b[");
        let first = parts.next().unwrap_or_default().to_owned();
        parts.fold(first, |line, part| line + part.split_once('m').map_or(part, |(_, rest)| rest))
    }

    #[test]
    fn a_long_command_stands_alone_and_unbroken() {
        let mut paper = Paper::new(Out::new(false, 0, String::new()), 40);
        let long = "talosctl -e 10.10.0.20 patch mc --patch '{\"machine\":{}}'";
        paper.help(&format!("first `ls`, then `{long}`, and look again"));
        paper.help("`pvemig site check`");
        let text = paper.text();
        let lines: Vec<_> = text.lines().map(without_styles).collect();
        let wanted = [
            "    help: first `ls`, then",
            &format!("      {long}"),
            "      and look again",
            "    help: `pvemig site check`",
        ];
        assert_eq!(lines, wanted);
    }
}
