//! What is said of a rule.

/// Why a rule matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Explain {
    /// What goes wrong.
    pub wrong: &'static str,
    /// How it shows.
    pub shows: &'static str,
    /// What a person would type by hand.
    pub by_hand: &'static str,
    /// Where it is from.
    pub source: &'static str,
}

impl Explain {
    /// The four with their heads.
    pub fn lines(&self) -> [(&'static str, &'static str); 4] {
        [("wrong", self.wrong), ("shows", self.shows), ("by hand", self.by_hand), ("source", self.source)]
    }
}
