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
    /// Every exit with what it means, for the help and the manual page.
    pub(super) const ALL: [(Self, &'static str); 9] = [
        (Self::Done, "done"),
        (Self::Failed, "a step failed"),
        (Self::Usage, "the command line or the site file is wrong"),
        (Self::Manual, "a person must act (`--wait` waits for them)"),
        (Self::Blocked, "blocked: waiting will not help"),
        (Self::Pending, "changes are pending (`plan --exit-code`)"),
        (Self::Stuck, "an undo went wrong: stuck"),
        (Self::Held, "another run holds the site"),
        (Self::Interrupted, "interrupted, or the answer to a question was no"),
    ];

    /// The exit codes as lines of the help.
    pub(super) fn table() -> String {
        let line = |(exit, what): &(Self, &str)| format!("\n  {:>3}  {what}", exit.code());
        format!("Exit codes:{}", Self::ALL.iter().map(line).collect::<String>())
    }

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
