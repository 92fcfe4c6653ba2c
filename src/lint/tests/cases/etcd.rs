//! Etcd.

use crate::base::survey::{EtcdAlarm, EtcdMember, Layer, Seat};

use super::super::estate::{at, kubelet_of, members, seat_of};
use super::{Case, away, dead, leaderless, learner, silent, waits_for_its_configuration};

pub(super) const WRONG: &[Case] = &[
    Case {
        name: "two voters",
        rule: "L12",
        what: "homelab",
        change: |survey| {
            members(survey, |all| all.retain(|member| member.id != "0c"));
            at(survey, "mac").etcd = Layer::Absent;
        },
        text: &["`nuc` and `tvm` are its only voters"],
        help: "a third control plane gives it one to spare: write a migration of the blueprint node-replace",
    },
    Case {
        name: "two voters, as a run has the third one off",
        rule: "L12",
        what: "homelab",
        change: |survey| {
            members(survey, |all| all.retain(|member| member.id != "0c"));
            at(survey, "mac").etcd = Layer::Absent;
            at(survey, "mac").held_off = Some("held off by run 0007".into());
        },
        text: &["`nuc` and `tvm` are its only voters"],
        help: "mac is held off by run 0007",
    },
    Case {
        name: "two voters, as the third one waits for its configuration",
        rule: "L12",
        what: "homelab",
        change: |survey| {
            members(survey, |all| all.retain(|member| member.id != "0c"));
            waits_for_its_configuration(survey, "mac");
        },
        text: &["`nuc` and `tvm` are its only voters"],
        help: "mac waits for its configuration, and may vote again with it: `pvemig status` says whether a run installs it",
    },
    Case {
        name: "one voter of three control planes",
        rule: "L41",
        what: "homelab",
        change: |survey| {
            members(survey, |all| all.truncate(1));
            for name in ["tvm", "mac"] {
                at(survey, name).etcd = Layer::Absent;
            }
        },
        text: &["nuc is its only voter, and none can be spared", "are control planes without a vote"],
        help: "a snapshot of etcd first (`pvemig etcd snapshot --to DIR`), then write a migration of the blueprint node-replace",
    },
    Case {
        name: "no vote",
        rule: "L13",
        what: "mac",
        change: |survey| {
            learner(survey, "0c");
            seat_of(survey, "mac").seat = Seat::Learner;
        },
        text: &["(0c) is a learner", "2 voters beside it"],
        help: "`talosctl -e 192.168.4.49 -n 192.168.4.49 logs etcd`",
    },
    Case {
        name: "a learner that is gone",
        rule: "L13",
        what: "mac",
        change: |survey| {
            learner(survey, "0c");
            silent(survey, "mac");
            away(survey, "mac");
        },
        text: &["is a learner"],
        help: "gone for good, `talosctl -e 192.168.4.20 -n 192.168.4.20 etcd remove-member 0c`",
    },
    Case {
        name: "a learner that refuses us",
        rule: "L13",
        what: "mac",
        change: |survey| {
            learner(survey, "0c");
            at(survey, "mac").talos = Layer::unknown("the certificate is over");
        },
        text: &["is a learner"],
        help: "why Talos cannot be asked there, says `talosctl -e 192.168.4.49 -n 192.168.4.49 version`",
    },
    Case {
        name: "no space",
        rule: "L14",
        what: "tvm",
        change: |survey| {
            let alarm = EtcdAlarm { member: "0b".into(), alarm: "NOSPACE".into() };
            seat_of(survey, "nuc").alarms = Layer::Known(vec![alarm]);
            seat_of(survey, "tvm").errors = vec!["memberID:11 alarm:NOSPACE".into()];
        },
        text: &["it takes no more writes"],
        help: "`talosctl -e 192.168.4.223 -n 192.168.4.223 etcd defrag`",
    },
    Case {
        name: "corrupt",
        rule: "L14",
        what: "nuc",
        change: |survey| {
            let alarm = EtcdAlarm { member: "0a".into(), alarm: "CORRUPT".into() };
            seat_of(survey, "nuc").alarms = Layer::Known(vec![alarm]);
        },
        text: &["CORRUPT"],
        help: "`talosctl -e 192.168.4.223 -n 192.168.4.223 etcd snapshot etcd.db`",
    },
    Case {
        name: "a member that is nobody",
        rule: "L15",
        what: "homelab",
        change: |survey| {
            members(survey, |all| all.push(EtcdMember { id: "0d".into(), name: "old".into(), learner: false }));
        },
        text: &["old (0d)", "one of 4 voters, of which 3 must be there"],
        help: "`talosctl -e 192.168.4.20 -n 192.168.4.20 etcd remove-member 0d`",
    },
    Case {
        name: "a member that never started",
        rule: "L15",
        what: "homelab",
        change: |survey| {
            members(survey, |all| all.push(EtcdMember { id: "0e".into(), name: String::new(), learner: true }));
        },
        text: &["0e (it never started)", "it has no vote"],
        help: "etcd remove-member 0e",
    },
    Case {
        name: "no leader",
        rule: "L16",
        what: "mac",
        change: |survey| seat_of(survey, "mac").leader = None,
        text: &["sees no leader; etcd has 3 voters, 2 healthy, 2 needed: none to spare"],
        help: "logs etcd",
    },
    Case {
        name: "a cluster of its own",
        rule: "L40",
        what: "homelab",
        change: |survey| {
            let own = EtcdMember { id: "0f".into(), name: "mac".into(), learner: false };
            let seat = seat_of(survey, "mac");
            (seat.id, seat.leader) = ("0f".into(), Some("0f".into()));
            seat.members = Layer::Known(vec![own]);
        },
        text: &["in 2 etcds with no member in common", "mac (1 voter, 1 healthy, 1 needed"],
        help: "reset nothing: a snapshot of each first: ",
    },
    Case {
        name: "two of three have lost their disks",
        rule: "L37",
        what: "homelab",
        change: |survey| {
            leaderless(survey);
            waits_for_its_configuration(survey, "tvm");
            waits_for_its_configuration(survey, "mac");
        },
        text: &[
            "1 of 2 or 3 voters answers, 2 needed; nothing is written any more; there: nuc; not there: tvm (its machine waits",
            "Reset, bootstrap and remove nothing",
        ],
        help: "write a migration of the blueprint quorum-recover (`pvemig explain quorum-recover`)",
    },
    Case {
        name: "two do not answer, which is no proof that they are gone",
        rule: "L37",
        what: "homelab",
        change: |survey| {
            leaderless(survey);
            for name in ["tvm", "mac"] {
                silent(survey, name);
                let node = at(survey, name);
                (node.etcd, node.kubelet, node.vm) =
                    (Layer::unknown("refused"), Layer::unknown("timed out"), Layer::unknown("not asked"));
            }
        },
        text: &["1 of 2 or 3 voters answers", "mac (it does not answer, which is not known to be more)"],
        help: "loses nothing: switch on tvm or mac; where that machine is gone for good, write a migration",
    },
    Case {
        name: "two do not answer, and an open run holds one of them off",
        rule: "L37",
        what: "homelab",
        change: |survey| {
            leaderless(survey);
            for name in ["tvm", "mac"] {
                silent(survey, name);
                let node = at(survey, name);
                (node.etcd, node.kubelet, node.vm) =
                    (Layer::unknown("refused"), Layer::unknown("timed out"), Layer::unknown("not asked"));
            }
            at(survey, "tvm").held_off = Some("held off by run s8w".into());
        },
        text: &["1 of 2 or 3 voters answers"],
        help: "loses nothing: switch on mac; where that machine is gone for good, write a migration of the blueprint \
               quorum-recover (`pvemig explain quorum-recover`); tvm is held off by run s8w",
    },
    Case {
        name: "two are off, and an open run holds both so",
        rule: "L37",
        what: "homelab",
        change: |survey| {
            leaderless(survey);
            for name in ["tvm", "mac"] {
                silent(survey, name);
                let node = at(survey, name);
                (node.etcd, node.kubelet, node.vm) =
                    (Layer::unknown("refused"), Layer::unknown("timed out"), Layer::unknown("not asked"));
                node.held_off = Some("held off by run s8w".into());
            }
        },
        text: &["1 of 2 or 3 voters answers"],
        help: "loses nothing: tvm is held off by run s8w; mac is held off by run s8w",
    },
    Case {
        name: "all are there and do not hear each other",
        rule: "L37",
        what: "homelab",
        change: leaderless,
        text: &["3 of 3 voters answer, 2 needed", "all of them answer here, and do not hear each other"],
        help: "why they do not hear each other, says `talosctl",
    },
    Case {
        name: "two voters, and one of them stands still",
        rule: "L37",
        what: "homelab",
        change: |survey| {
            leaderless(survey);
            seat_of(survey, "mac").seat = Seat::Learner;
            waits_for_its_configuration(survey, "tvm");
        },
        text: &["1 of 2 voters answers, 2 needed", "there: nuc, mac (a learner)"],
        help: "quorum-recover",
    },
    Case {
        name: "behind the others",
        rule: "L38",
        what: "homelab",
        change: |survey| {
            let seat = seat_of(survey, "mac");
            (seat.raft_index, seat.raft_applied) = (7_000, 7_000);
        },
        text: &["3 voters, 2 healthy, 2 needed: none to spare; mac: 2000 entries behind the others"],
        help: "reboot nothing else before it is well: `talosctl -e 192.168.4.49 -n 192.168.4.49 logs etcd`",
    },
    Case {
        name: "a member that is not the one that runs",
        rule: "L38",
        what: "homelab",
        change: |survey| seat_of(survey, "mac").id = "0f".into(),
        text: &["none to spare; mac: another member runs on its node"],
        help: "logs etcd",
    },
    Case {
        name: "a voter whose machine is dead",
        rule: "L39",
        what: "mac",
        change: |survey| dead(survey, "mac", "2026-11-22T00:58:30Z"),
        text: &[
            "dead, nothing heard of it for 1 h 1 min",
            "(0c) still counts: 3 voters, 2 healthy, 2 needed: none to spare",
        ],
        help: "switch it on, with its disk; where it is gone for good, write a migration of the blueprint node-replace",
    },
    Case {
        name: "a voter whose machine waits for a configuration",
        rule: "L39",
        what: "mac",
        change: |survey| waits_for_its_configuration(survey, "mac"),
        text: &[
            "waits for a configuration: what its member had is lost",
            "3 voters, 2 healthy, 2 needed: none to spare",
        ],
        help: "write a migration of the blueprint node-replace (`pvemig explain node-replace`)",
    },
    Case {
        name: "one that waits though Kubernetes knows it",
        rule: "L39",
        what: "mac",
        change: |survey| {
            let kubelet = kubelet_of(survey, "mac").clone();
            waits_for_its_configuration(survey, "mac");
            at(survey, "mac").kubelet = Layer::Known(kubelet);
            away(survey, "mac");
        },
        text: &["what its member had is lost"],
        help: "node-replace",
    },
];
