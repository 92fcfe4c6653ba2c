//! Commands of others with what tells them which cluster of the site is meant: without it they would ask whatever cluster
//! is the current one of whoever pastes them.

use std::sync::OnceLock;

use crate::base::names::talosctl_flags;
use crate::site::Site;

use super::words::quoted;

/// A program, and the flags for the only cluster that it can mean.
type Tool = (&'static str, String);

/// One command line a process, and one site to it.
static TOOLS: OnceLock<Vec<Tool>> = OnceLock::new();

/// From now on the commands that are told are those for this site.
pub(super) fn learn(site: &Site) {
    let _the_first_holds = TOOLS.set(tools(site));
}

/// A text whose commands name the site's files and contexts.
pub(super) fn reached(text: &str) -> String {
    with(text, TOOLS.get().map(Vec::as_slice).unwrap_or_default())
}

/// Where a site has several clusters only the step knows which one is meant.
fn tools(site: &Site) -> Vec<Tool> {
    let mut tools = Vec::new();
    let mut clusters = site.kubernetes.values();
    if let (Some(of), None) = (clusters.next(), clusters.next()) {
        let file = quoted(&of.kubeconfig.display().to_string());
        tools.push(("kubectl", format!("--kubeconfig {file} --context {}", quoted(&of.context))));
    }
    let mut clusters = site.talos.values();
    if let (Some(of), None) = (clusters.next(), clusters.next()) {
        let file = quoted(&of.talosconfig.display().to_string());
        tools.push(("talosctl", talosctl_flags(&file, of.context.as_deref())));
    }
    tools
}

/// Those that go to no cluster, or to a machine that is of none yet.
const ELSEWHERE: [&str; 6] = ["gen ", "config ", "validate ", "--insecure", "--kubeconfig", "--talosconfig"];

fn with(text: &str, tools: &[Tool]) -> String {
    let mut text = text.to_owned();
    for (tool, flags) in tools {
        let mut parts = text.split(&format!("`{tool} ")).map(str::to_owned).collect::<Vec<_>>().into_iter();
        let mut told = parts.next().unwrap_or_default();
        for part in parts {
            let command = part.split('`').next().unwrap_or_default();
            let elsewhere = ELSEWHERE.iter().any(|word| match word.ends_with(' ') {
                true => command.starts_with(word),
                false => command.contains(word),
            });
            told.push_str(&if elsewhere { format!("`{tool} {part}") } else { format!("`{tool} {flags} {part}") });
        }
        text = told;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_names_the_cluster_that_it_is_for_and_no_other_one() {
        let tools = [("kubectl", "--kubeconfig k --context c".to_owned()), ("talosctl", "--talosconfig t".to_owned())];
        let cases = [
            ("`kubectl delete node n1`", "`kubectl --kubeconfig k --context c delete node n1`"),
            (
                "see `kubectl get pods`, then `kubectl --kubeconfig x get nodes`; and kubectl says",
                "see `kubectl --kubeconfig k --context c get pods`, then `kubectl --kubeconfig x get nodes`; and kubectl says",
            ),
            ("`talosctl -e a -n a etcd members`", "`talosctl --talosconfig t -e a -n a etcd members`"),
            ("`talosctl get disks --insecure -n a`", "`talosctl get disks --insecure -n a`"),
            (
                "`talosctl gen config x`, `talosctl config contexts`",
                "`talosctl gen config x`, `talosctl config contexts`",
            ),
            ("`talosctl --talosconfig u reset`", "`talosctl --talosconfig u reset`"),
            ("nothing", "nothing"),
        ];
        for (text, wanted) in cases {
            assert_eq!(with(text, &tools), wanted);
            assert_eq!(with(wanted, &tools), wanted, "twice is as once");
            assert_eq!(with(text, &[]), text);
        }
        assert_eq!(cases.len(), 7);
    }
}
