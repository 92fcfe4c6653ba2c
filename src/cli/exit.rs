//! Exit codes: public, documented, tested.

/// How the program ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// 0: done.
    Done,
    /// 1: a step failed.
    Failed,
    /// 2: the command line or the site file is wrong.
    Usage,
    /// 3: a person must act.
    Manual,
    /// 4: blocked.
    Blocked,
    /// 5: changes are pending (`plan --exit-code`).
    Pending,
    /// 6: an undo went wrong: stuck.
    Stuck,
    /// 7: another run holds the site.
    Held,
    /// 130: interrupted.
    Interrupted,
}

impl Exit {
    /// The number.
    pub fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Manual => 3,
            Self::Blocked => 4,
            Self::Pending => 5,
            Self::Stuck => 6,
            Self::Held => 7,
            Self::Interrupted => 130,
        }
    }
}
