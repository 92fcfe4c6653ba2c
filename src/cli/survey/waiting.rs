//! The machines that wait for their first configuration.

use console::style;

use crate::base::check::bytes;
use crate::base::survey::{Disk, Layer, Node, Survey, Volume, Waiting};

use super::mended::Next;
use super::screen::{FEW, Paper};

impl Paper {
    /// The machines that wait for their first configuration: what they say of themselves, and what is next.
    pub(super) fn waiting(&mut self, survey: &Survey, next: &[Next]) {
        let all: Vec<(&Node, &Waiting)> =
            survey.nodes.iter().filter_map(|node| Some((node, node.waiting.as_ref()?))).collect();
        if all.is_empty() {
            return;
        }
        self.line("");
        let head = match all.len() {
            1 => "1 machine waits for its first configuration; what it says of itself:".to_owned(),
            n => format!("{n} machines wait for their first configuration; what they say of themselves:"),
        };
        self.laid("", &head, 2);
        for (node, it) in all {
            self.line(format!("  {}", style(&node.name).bold()));
            let tag = it.version.known().map_or("not told", String::as_str);
            self.laid("      ", &format!("Talos {tag} at {}", node.address.as_deref().unwrap_or("its address")), 6);
            match it.disks.known() {
                Some(disks) if disks.is_empty() => self.laid("      ", "no disk that could be written to", 6),
                Some(disks) => disks.iter().for_each(|disk| self.laid("      ", &said(disk, &it.volumes), 8)),
                None => {
                    self.laid("      ", &format!("disks not known: {}", it.disks.reason().unwrap_or("not told")), 6)
                }
            }
        }
        for Next { nodes, help } in next {
            let whose = if next.len() > 1 { format!("{}: ", nodes.join(", ")) } else { String::new() };
            self.help(&format!("{whose}{help}"));
        }
    }
}

/// A disk of a machine that waits, by what a person knows it by, and what is found on it.
fn said(disk: &Disk, volumes: &Layer<Vec<Volume>>) -> String {
    let serial = if disk.serial.is_empty() { "no serial number".to_owned() } else { format!("serial {}", disk.serial) };
    let parts = [disk.id.as_str(), &disk.model, &bytes(disk.size), &disk.transport, &serial].map(str::to_owned);
    let of = parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(", ");
    let Some(volumes) = volumes.known() else { return format!("{of}; what is on it is not known") };
    let mut held: Vec<String> = volumes
        .iter()
        .filter(|volume| volume.disk() == disk.id)
        // A table without partitions is nothing that could be missed.
        .filter(|volume| !(volume.parent.is_empty() && matches!(volume.content.as_str(), "" | "gpt")))
        .map(|volume| {
            let label = [&volume.partition_label, &volume.label].into_iter().find(|label| !label.is_empty());
            match (label, volume.content.as_str()) {
                (Some(label), "") => label.clone(),
                (Some(label), content) => format!("{label} ({content})"),
                (None, "") => volume.id.clone(),
                (None, content) => format!("{} ({content})", volume.id),
            }
        })
        .collect();
    let more = held.len().saturating_sub(FEW);
    held.truncate(FEW);
    match (held.is_empty(), more) {
        (true, _) => format!("{of}; nothing known on it"),
        (false, 0) => format!("{of}; holds {}", held.join(", ")),
        (false, more) => format!("{of}; holds {} and {more} more", held.join(", ")),
    }
}
