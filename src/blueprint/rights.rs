//! What a migration needs to be allowed: the one list that the preflight asks by and that `pvemig privileges` prints.

use crate::k8s::access::Right;

/// How much a right is needed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Weight {
    /// A step cannot do its work without it.
    Needed,
    /// It can, and this is lost.
    Optional(String),
    /// Needed where this is so, which a site file does not tell.
    If(String),
}

/// A privilege of Proxmox VE, by its name up to version 8 and from version 9 on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Privilege {
    /// Up to version 8.
    pub old: &'static str,
    /// From version 9 on.
    pub new: &'static str,
}

impl Privilege {
    /// One that is called the same in every version.
    pub const fn same(name: &'static str) -> Self {
        Self { old: name, new: name }
    }

    /// Its name in a major version.
    pub const fn of(self, major: u32) -> &'static str {
        if major <= 8 { self.old } else { self.new }
    }

    /// The names of which one will do; both where the version is not known.
    pub fn names(self, major: Option<u32>) -> Vec<&'static str> {
        match major {
            Some(major) => vec![self.of(major)],
            None if self.old == self.new => vec![self.new],
            None => vec![self.new, self.old],
        }
    }
}

/// A privilege that is needed in Proxmox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PveNeed {
    /// The ids of the steps that use it; the first is the one to protect.
    pub steps: Vec<&'static str>,
    /// `/vms/108`.
    pub path: String,
    /// The privilege.
    pub privilege: Privilege,
    /// For what, to be read behind "for".
    pub purpose: String,
    /// How much.
    pub weight: Weight,
}

/// A right that is needed in Kubernetes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KubeNeed {
    /// The ids of the steps that use it; the first is the one to protect.
    pub steps: Vec<&'static str>,
    /// The right.
    pub right: Right,
    /// For what, to be read behind "for".
    pub purpose: String,
    /// How much.
    pub weight: Weight,
}

/// All that a migration needs, as far as the site file tells.
#[derive(Debug, Clone)]
pub struct Rights {
    /// The Proxmox cluster's name in the site file; None: nothing is asked of one.
    pub proxmox: Option<String>,
    /// What is needed there of a token.
    pub pve: Vec<PveNeed>,
    /// What cannot be given to a token, and what the site file does not tell, a line each.
    pub pve_notes: Vec<String>,
    /// The Kubernetes cluster's name in the site file.
    pub kubernetes: String,
    /// The namespace of the workload.
    pub namespace: String,
    /// What is needed there.
    pub kube: Vec<KubeNeed>,
    /// What the site file does not tell, a line each.
    pub kube_notes: Vec<String>,
    /// What is needed of Talos, where it is asked.
    pub talos: Option<TalosRights>,
}

/// A role that is needed in Talos.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TalosNeed {
    /// The ids of the steps that use it.
    pub steps: Vec<&'static str>,
    /// The least role, `os:operator`.
    pub role: &'static str,
    /// For what, to be read behind "for".
    pub purpose: String,
}

/// What is needed in Talos.
#[derive(Debug, Clone)]
pub struct TalosRights {
    /// The Talos cluster's name in the site file.
    pub cluster: String,
    /// The role that a client certificate needs for all of it.
    pub role: &'static str,
    /// What for.
    pub needs: Vec<TalosNeed>,
}

/// Puts what is needed more than once together: the same right is asked for once and printed once, with every step, and
/// with its heaviest weight.
pub fn merged(needs: Vec<KubeNeed>) -> Vec<KubeNeed> {
    let mut all: Vec<KubeNeed> = Vec::new();
    for need in needs {
        match all.iter_mut().find(|known| known.right == need.right) {
            Some(known) => {
                add_steps(&mut known.steps, &need.steps);
                if need.weight == Weight::Needed && known.weight != Weight::Needed {
                    (known.weight, known.purpose) = (need.weight, need.purpose);
                } else {
                    add_purpose(&mut known.purpose, &need.purpose);
                }
            }
            None => all.push(need),
        }
    }
    // What one may do everywhere, or to every object, need not be given once more for one place or one object.
    let wider = |need: &KubeNeed| {
        let at = |namespace: &str, name: &str| {
            let right = Right { namespace: namespace.into(), name: name.into(), ..need.right.clone() };
            all.iter().position(|known| known.weight == Weight::Needed && known.right == right)
        };
        let (namespace, name) = (need.right.namespace.as_str(), need.right.name.as_str());
        [at("", ""), at(namespace, ""), at("", name)].into_iter().flatten().find(|at| all[*at].right != need.right)
    };
    let covered: Vec<Option<usize>> = all.iter().map(wider).collect();
    for (at, by) in covered.iter().enumerate() {
        let (steps, purpose) = (all[at].steps.clone(), all[at].purpose.clone());
        if let Some(by) = by.and_then(|by| all.get_mut(by)) {
            add_steps(&mut by.steps, &steps);
            add_purpose(&mut by.purpose, &purpose);
        }
    }
    let mut covered = covered.into_iter();
    all.retain(|_| covered.next().flatten().is_none());
    all
}

/// As [`merged`], of Proxmox.
pub fn merged_pve(needs: Vec<PveNeed>) -> Vec<PveNeed> {
    let mut all: Vec<PveNeed> = Vec::new();
    for need in needs {
        match all.iter_mut().find(|known| (&known.path, known.privilege) == (&need.path, need.privilege)) {
            Some(known) => {
                add_steps(&mut known.steps, &need.steps);
                add_purpose(&mut known.purpose, &need.purpose);
                if need.weight == Weight::Needed {
                    known.weight = need.weight;
                }
            }
            None => all.push(need),
        }
    }
    all
}

fn add_purpose(known: &mut String, more: &str) {
    if !known.split("; ").any(|purpose| purpose == more) {
        *known = format!("{known}; {more}");
    }
}

fn add_steps(known: &mut Vec<&'static str>, more: &[&'static str]) {
    for step in more {
        if !known.contains(step) {
            known.push(step);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn need(step: &'static str, verb: &str, namespace: &str, name: &str, weight: Weight) -> KubeNeed {
        let right = Right::new(verb, "", "pods", namespace).named(name);
        KubeNeed { steps: vec![step], right, purpose: step.into(), weight }
    }

    #[test]
    fn a_right_is_given_once_and_where_it_reaches_furthest() {
        let lost = Weight::Optional("less".into());
        let all = merged(vec![
            need("a", "get", "ns", "x", Weight::Needed),
            need("b", "get", "ns", "", Weight::Needed),
            need("c", "get", "ns", "x", lost.clone()),
            need("d", "list", "ns", "", Weight::Needed),
            need("e", "list", "", "", lost.clone()),
            need("f", "watch", "ns", "x", lost.clone()),
            need("g", "watch", "ns", "x", Weight::Needed),
        ]);
        let shown: Vec<_> = all.iter().map(|n| (n.right.to_string(), n.steps.clone(), n.weight.clone())).collect();
        // An optional right stands for no other.
        let expected = [
            ("get pods in ns".to_owned(), vec!["b", "a", "c"], Weight::Needed),
            ("list pods in ns".to_owned(), vec!["d"], Weight::Needed),
            ("list pods".to_owned(), vec!["e"], lost),
            ("watch pods x in ns".to_owned(), vec!["f", "g"], Weight::Needed),
        ];
        assert_eq!(shown, expected);
    }

    #[test]
    fn a_privilege_has_its_name_by_the_version() {
        let exec = Privilege { old: "VM.Monitor", new: "VM.GuestAgent.Unrestricted" };
        assert_eq!((exec.of(7), exec.of(8), exec.of(9)), (exec.old, exec.old, exec.new));
        assert_eq!(exec.names(None), [exec.new, exec.old]);
        assert_eq!(Privilege::same("VM.Audit").names(None), ["VM.Audit"]);
    }
}
