//! The role of a talosconfig.

use serde_json::{Value, json};

use crate::blueprint::rights::TalosRights;

use super::{Page, numbers};

pub(super) fn print(rights: &TalosRights, page: &mut Page) {
    page.words(&format!("The client certificate of the talosconfig needs the role {}:", rights.role));
    for need in &rights.needs {
        page.hanging("# - ", &format!("{} for {} ({})", need.role, need.purpose, numbers(&need.steps)));
    }
    page.words("With a talosconfig that has it, for a day, into a file that the site file names:");
    let words = ["talosctl", "config", "new", "--roles", rights.role, "--crt-ttl", "24h", "pvemig.talosconfig"];
    page.command("", &words.map(str::to_owned));
}

pub(super) fn json(rights: &TalosRights) -> Value {
    let need = |need: &crate::blueprint::rights::TalosNeed| json!({ "role": need.role, "steps": need.steps, "purpose": need.purpose });
    json!({
        "cluster": rights.cluster, "role": rights.role, "needs": rights.needs.iter().map(need).collect::<Vec<_>>(),
    })
}
