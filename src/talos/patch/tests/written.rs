//! Machine configurations as somebody, or something, might have written them.

use std::fmt::Write;

use proptest::prelude::*;
use serde_json::{Value, json};

/// How a list or a mapping is written.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Look {
    Absent,
    Null,
    Empty,
    Flow,
    Block,
    /// A list whose dashes stand under its key.
    Flush,
}

fn look() -> impl Strategy<Value = Look> {
    prop::sample::select(vec![Look::Absent, Look::Null, Look::Empty, Look::Flow, Look::Block, Look::Flush])
}

#[derive(Debug, Clone)]
pub(super) struct Shape {
    indent: usize,
    /// Names of modules, with a number for the look of each.
    modules: (Look, Vec<(usize, u8)>),
    sysctls: (Look, Vec<(usize, u8)>),
    labels: (Look, Vec<(usize, u8)>),
    links: (Look, Vec<(usize, u8)>),
    install: u8,
    hostname: u8,
    /// Which documents are there.
    documents: u16,
    /// Comments, blank lines, quoted keys, the end.
    marks: u8,
}

pub(super) const MODULES: [&str; 5] = ["nvidia", "nvidia_uvm", "nvme_tcp", "zfs", "drbd"];
pub(super) const SYSCTLS: [&str; 4] = ["vm.nr_hugepages", "net.core.bpf_jit_harden", "kernel.panic", "fs.x"];
pub(super) const LABELS: [&str; 4] = ["openebs.io/engine", "a", "b.c/d_e", "on"];
pub(super) const LINKS: [&str; 3] = ["eth0", "ens18", "bond0"];

pub(super) fn shape() -> impl Strategy<Value = Shape> {
    let some = |count: usize| {
        let one = prop::collection::vec((0..count, any::<u8>()), 0..4).prop_map(|mut all| {
            all.sort_unstable();
            all.dedup_by_key(|(name, _)| *name);
            all
        });
        (look(), one)
    };
    (2usize..6, some(5), some(4), some(4), some(3), any::<u8>(), any::<u8>(), any::<u16>(), any::<u8>()).prop_map(
        |(indent, modules, sysctls, labels, links, install, hostname, documents, marks)| Shape {
            indent,
            modules,
            sysctls,
            labels,
            links,
            install,
            hostname,
            documents,
            marks,
        },
    )
}

impl Shape {
    fn pad(&self, depth: usize) -> String {
        " ".repeat(self.indent * depth)
    }

    fn key(&self, key: &str) -> String {
        match self.marks & 3 {
            1 => format!("\"{key}\""),
            2 => format!("'{key}'"),
            _ => key.to_owned(),
        }
    }

    fn note(&self, what: &str, number: u8) -> String {
        if self.marks & 4 == 4 && number & 1 == 1 { format!("   # about {what}") } else { String::new() }
    }

    fn head(&self, out: &mut String, depth: usize, key: &str, look: Look) -> bool {
        if look == Look::Absent {
            return false;
        }
        let pad = self.pad(depth);
        if self.marks & 8 == 8 {
            writeln!(out, "{pad}# before {key}").unwrap();
        }
        write!(out, "{pad}{}:", self.key(key)).unwrap();
        true
    }

    /// A list of mappings, each with a key of its own and other values.
    fn list(&self, out: &mut String, depth: usize, key: &str, (look, members): (Look, &[Value])) {
        let empty = members.is_empty() && !matches!(look, Look::Null | Look::Absent);
        if !self.head(out, depth, key, look) {
            return;
        }
        match if empty { Look::Empty } else { look } {
            Look::Absent | Look::Null => out.push('\n'),
            Look::Empty => out.push_str(" []\n"),
            Look::Flow => {
                let all: Vec<String> = members.iter().map(flow).collect();
                writeln!(out, " [{}]{}", all.join(",  "), self.note(key, 1)).unwrap();
            }
            Look::Block | Look::Flush => {
                out.push('\n');
                let pad = self.pad(depth) + if look == Look::Flush { "" } else { "  " };
                for (number, member) in members.iter().enumerate() {
                    let mut first = true;
                    for (name, value) in member.as_object().unwrap() {
                        let lead = if first { format!("{pad}- ") } else { format!("{pad}  ") };
                        let note = if first { self.note(key, number as u8) } else { String::new() };
                        first = false;
                        writeln!(out, "{lead}{name}: {}{note}", flow(value)).unwrap();
                    }
                }
            }
        }
    }

    fn map(&self, out: &mut String, depth: usize, key: &str, (look, entries): (Look, &[(&str, String)])) {
        let empty = entries.is_empty() && !matches!(look, Look::Null | Look::Absent);
        if !self.head(out, depth, key, look) {
            return;
        }
        match if empty { Look::Empty } else { look } {
            Look::Absent | Look::Null => out.push('\n'),
            Look::Empty => out.push_str(" {}\n"),
            Look::Flow => {
                let all: Vec<String> =
                    entries.iter().map(|(name, value)| format!("{}: {value}", self.key(name))).collect();
                writeln!(out, " {{ {} }}{}", all.join(", "), self.note(key, 1)).unwrap();
            }
            Look::Block | Look::Flush => {
                out.push('\n');
                for (number, (name, value)) in entries.iter().enumerate() {
                    writeln!(
                        out,
                        "{}{}:  {value}{}",
                        self.pad(depth + 1),
                        self.key(name),
                        self.note(name, number as u8)
                    )
                    .unwrap();
                }
            }
        }
    }

    pub(super) fn text(&self) -> String {
        let mut out = String::from("version: v1alpha1 # the version\nmachine:\n");
        writeln!(out, "{}type: controlplane", self.pad(1)).unwrap();
        let value = |number: u8| ["\"1\"", "'2'", "3", "true", "a b"][usize::from(number) % 5].to_owned();
        if self.modules.0 != Look::Absent {
            writeln!(out, "{}{}:", self.pad(1), self.key("kernel")).unwrap();
            let parameters = |number: u8| (0..number % 3).map(|n| json!(format!("p{n}={number}"))).collect::<Vec<_>>();
            let member = |(name, number): &(usize, u8)| match parameters(*number) {
                none if none.is_empty() => json!({ "name": MODULES[*name] }),
                some => json!({ "name": MODULES[*name], "parameters": some }),
            };
            let members: Vec<Value> = self.modules.1.iter().map(member).collect();
            self.list(&mut out, 2, "modules", (self.modules.0, &members));
        }
        let entries = |names: &[&'static str], all: &[(usize, u8)]| {
            all.iter().map(|(name, number)| (names[*name], value(*number))).collect::<Vec<_>>()
        };
        self.map(&mut out, 1, "sysctls", (self.sysctls.0, &entries(&SYSCTLS, &self.sysctls.1)));
        if self.marks & 16 == 16 {
            out.push_str("\n# a comment at the margin\n\n");
        }
        self.map(&mut out, 1, "nodeLabels", (self.labels.0, &entries(&LABELS, &self.labels.1)));
        if self.links.0 != Look::Absent || self.hostname & 1 == 1 {
            writeln!(out, "{}network:", self.pad(1)).unwrap();
            if self.hostname & 1 == 1 {
                writeln!(out, "{}hostname: 'old-name' # here", self.pad(2)).unwrap();
            }
            let member = |(name, number): &(usize, u8)| {
                let all: Vec<Value> = (0..number % 3).map(|n| json!(format!("10.{n}.0.{number}/24"))).collect();
                json!({ "interface": LINKS[*name], "mtu": 1500, "addresses": all })
            };
            let members: Vec<Value> = self.links.1.iter().map(member).collect();
            self.list(&mut out, 2, "interfaces", (self.links.0, &members));
        }
        match self.install % 4 {
            1 => writeln!(out, "{}install: {{disk: /dev/sda, wipe: false}}", self.pad(1)).unwrap(),
            2 => writeln!(
                out,
                "{0}install:\n{1}diskSelector:\n{2}size: '>= 1GB' # large\n{1}wipe: false",
                self.pad(1),
                self.pad(2),
                self.pad(3)
            )
            .unwrap(),
            3 => writeln!(out, "{}install:", self.pad(1)).unwrap(),
            _ => {}
        }
        out.push_str("cluster:\n  token: not-shown\n  inlineManifests:\n  - name: x\n    contents: |\n      a: b\n\n      # no comment\n      --- no end\n");
        let all = [
            "kind: HostnameConfig\nauto: stable",
            "kind: LinkConfig\nname: eth0\naddresses:\n  - address: 10.0.0.1/24\n    routePriority: 3\nmtu: 1400",
            "kind: KernelModuleConfig\nname: nvidia\nparameters: [x=1] # one",
            "kind: SysctlConfig\nparams:\n    vm.nr_hugepages: \"7\"",
            "kind: UserVolumeConfig\nname: data\nprovisioning:\n  diskSelector:\n    match: |-\n      disk.serial == \"S\"\n  minSize: 1GB",
            "# of tomorrow\nkind: KindOfTomorrow\nname: x\nvalue: [1, {a: 'b'}]",
            "kind: KubeNodeConfig\nlabels: {}",
            "kind: KubeProxyConfig\nenabled: false",
        ];
        for (number, document) in all.iter().enumerate().filter(|(number, _)| self.documents & (1 << number) != 0) {
            writeln!(out, "---{}\napiVersion: v1alpha1\n{document}", if number % 2 == 0 { "" } else { " # next" })
                .unwrap();
        }
        match self.marks >> 5 & 3 {
            1 => out.truncate(out.len() - 1),
            2 => out.push_str("...\n"),
            3 => out.push_str("# the end\n"),
            _ => {}
        }
        out
    }
}

fn flow(value: &Value) -> String {
    match value {
        Value::Object(map) => {
            let all: Vec<String> = map.iter().map(|(key, value)| format!("{key}: {}", flow(value))).collect();
            format!("{{{}}}", all.join(", "))
        }
        Value::Array(all) => format!("[ {} ]", all.iter().map(flow).collect::<Vec<_>>().join(" , ")),
        other => other.to_string(),
    }
}
