//! The name of a pve task: `UPID:NODE:PID:PSTART:STARTTIME:TYPE:ID:USER:`, numbers in hex (PVE::Tools).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::base::names::BadName;

/// A pve task's name. The node in it is the one to ask, whichever node was called.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Upid {
    /// The node that runs it.
    pub node: String,
    /// The worker's process id.
    pub pid: u32,
    /// The worker's start in clock ticks since boot.
    pub pstart: u64,
    /// Seconds since the epoch by the node's clock.
    pub started: u64,
    /// `qmstart`, `qmshutdown`, ...
    pub kind: String,
    /// What it is about: the VM id for guests; may be empty.
    pub id: String,
    /// Who asked: `root@pam`, or `root@pam!token`.
    pub user: String,
}

impl FromStr for Upid {
    type Err = BadName;
    fn from_str(s: &str) -> Result<Self, BadName> {
        let bad = || BadName {
            value: s.to_owned(),
            expected: "a UPID like `UPID:pve:0000AB12:0012CD34:68F0A1B2:qmstart:108:root@pam:`",
        };
        let parts: Vec<&str> = s.split(':').collect();
        let ["UPID", node, pid, pstart, started, kind, id, user, ""] = parts.as_slice() else { return Err(bad()) };
        let word = |w: &str| !w.is_empty() && w.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b));
        let hex = |h: &str| if h.len() >= 8 { u64::from_str_radix(h, 16).map_err(|_| bad()) } else { Err(bad()) };
        if !word(node) || !word(kind) || user.is_empty() || s.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return Err(bad());
        }
        Ok(Self {
            node: (*node).to_owned(),
            pid: u32::try_from(hex(pid)?).map_err(|_| bad())?,
            pstart: hex(pstart)?,
            started: hex(started)?,
            kind: (*kind).to_owned(),
            id: (*id).to_owned(),
            user: (*user).to_owned(),
        })
    }
}

impl fmt::Display for Upid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { node, pid, pstart, started, kind, id, user } = self;
        write!(f, "UPID:{node}:{pid:08X}:{pstart:08X}:{started:08X}:{kind}:{id}:{user}:")
    }
}

impl TryFrom<String> for Upid {
    type Error = BadName;
    fn try_from(s: String) -> Result<Self, BadName> {
        s.parse()
    }
}

impl From<Upid> for String {
    fn from(upid: Upid) -> Self {
        upid.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn upids_as_nodes_write_them() {
        for text in [
            "UPID:still-fawn:0010C3F2:0A1B2C3D:68F0A1B2:qmshutdown:108:root@pam:",
            "UPID:pve-1:0010C3F2:1A1B2C3D4:68F0A1B2:qmconfig:108:root@pam!pvemig:",
            "UPID:pve:00000001:00000002:68F0A1B2:srvreload::root@pam:",
        ] {
            assert_eq!(text.parse::<Upid>().unwrap().to_string(), text);
        }
        let upid: Upid = "UPID:still-fawn:0010C3F2:0A1B2C3D:68F0A1B2:qmstart:108:root@pam!x:".parse().unwrap();
        assert_eq!((upid.node.as_str(), upid.id.as_str(), upid.user.as_str()), ("still-fawn", "108", "root@pam!x"));
        assert_eq!(upid.started, 0x68F0_A1B2);
        for bad in [
            "",
            "UPID",
            "UPID:a:b:c:d:e:f:g:",
            "UPID:pve:0010C3F2:0A1B2C3D:68F0A1B2:qmstart:108:root@pam",
            "UPID:p/e:0010C3F2:0A1B2C3D:68F0A1B2:qmstart:108:root@pam:",
            "UPID:pve:1:0A1B2C3D:68F0A1B2:qmstart:108:root@pam:",
            "UPID:pve:0010C3F2:0A1B2C3D:68F0A1B2:qmstart:108::",
        ] {
            assert!(bad.parse::<Upid>().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn a_upid_round_trips(
            node in "[a-z][a-z0-9-]{0,12}", pid: u32, pstart in 0u64..0xF_FFFF_FFFF, started in 0u64..0xFFFF_FFFF,
            kind in "[a-z]{2,10}", id in "[0-9]{0,4}", user in "[a-z]{1,8}@pam(![a-z]{1,8})?",
        ) {
            let upid = Upid { node, pid, pstart, started, kind, id, user };
            prop_assert_eq!(upid.to_string().parse::<Upid>().unwrap(), upid);
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in "(UPID:)?\\PC{0,60}") {
            let _upid = text.parse::<Upid>();
        }
    }
}
