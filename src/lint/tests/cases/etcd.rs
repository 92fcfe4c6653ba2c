//! Etcd.

use crate::base::survey::{EtcdAlarm, EtcdMember, Layer, Seat};

use super::super::estate::{at, members, seat_of};
use super::{Case, away, learner, silent};

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
        help: "add a third control plane",
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
        text: &["sees no leader"],
        help: "logs etcd",
    },
    Case {
        name: "a cluster of its own",
        rule: "L16",
        what: "mac",
        change: |survey| {
            let own = EtcdMember { id: "0f".into(), name: "mac".into(), learner: false };
            let seat = seat_of(survey, "mac");
            (seat.id, seat.leader) = ("0f".into(), Some("0f".into()));
            seat.members = Layer::Known(vec![own]);
        },
        text: &["no member in common with that of nuc"],
        help: "etcd members",
    },
];
