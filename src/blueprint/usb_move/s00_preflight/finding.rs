//! What the preflight finds, in the shape that all preflights share.

pub(super) use crate::blueprint::finding::{Asked, Finding, Findings, Unknown, asked, check};

pub(super) use super::super::on;

#[cfg(test)]
mod tests {
    use super::super::known;
    use super::*;
    use crate::base::check::{Answer, Check};
    use crate::base::permit::System;

    #[test]
    fn all_lines_at_once_by_step_then_by_system() {
        let mut kube = Findings::of(System::Kubernetes);
        kube.problem(&known::NODE_CORDONED, on::DEPLOY, "last", "x");
        kube.problem(&known::WORKLOAD_MISSING, on::RETAIN, "first", "x");
        kube.problem(&known::WORKLOAD_MISSING, on::RETAIN, "first", "x");
        kube.note(on::ADD, "second note");
        let mut pve = Findings::of(System::Proxmox);
        pve.note(on::ADD, "first note");
        let why = Unknown { text: "silence".into(), help: None };
        assert_eq!(pve.need::<()>(on::REMOVE, "vm 105", &Err(why)), None);
        kube.all.extend(pve.all);
        let check: Check<()> = check(kube.all);
        assert_eq!(check.notes, ["first note", "second note"]);
        let Answer::Blocked { problems } = check.answer else { panic!() };
        let shown: Vec<_> =
            problems.iter().map(|p| (p.text.as_str(), p.protects.as_ref().map(|k| k.as_str()))).collect();
        assert_eq!(
            shown,
            [("first", Some(on::RETAIN)), ("cannot ask vm 105: silence", Some(on::REMOVE)), ("last", Some(on::DEPLOY))]
        );
        assert!(super::check::<()>(Vec::new()).is_done());
    }

    #[test]
    fn the_ids_sort_as_the_numbers_do() {
        let ids = [
            on::RETAIN,
            on::SUSPEND,
            on::SCALE,
            on::REMOVE,
            on::UNLABEL,
            on::HOST,
            on::ADD,
            on::DRAIN,
            on::REBOOT,
            on::WAIT,
            on::GUEST,
            on::DRIVERS,
            on::LABEL,
            on::MANIFESTS,
            on::DEPLOY,
            on::CLAIMS,
        ];
        assert!(ids.is_sorted(), "{ids:?}");
    }
}
