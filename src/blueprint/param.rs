//! The parameters of a blueprint: the one table by which they are read and by which `explain` tells them.

/// A parameter, by its key in the site file.
#[derive(Debug)]
pub struct Param {
    /// Its key.
    pub name: &'static str,
    /// What it says, in one line.
    pub what: &'static str,
    /// What may stand there.
    pub example: &'static str,
    /// What holds where it is left out; None: it has to be there.
    pub default: Option<&'static str>,
    /// The keys below it.
    pub of: &'static [Self],
}

impl Param {
    /// One that has to be there.
    pub const fn need(name: &'static str, what: &'static str, example: &'static str) -> Self {
        Self { name, what, example, default: None, of: &[] }
    }

    /// One that may be left out.
    pub const fn may(name: &'static str, what: &'static str, example: &'static str, default: &'static str) -> Self {
        Self { name, what, example, default: Some(default), of: &[] }
    }

    /// With keys below it.
    #[must_use]
    pub const fn of(mut self, of: &'static [Self]) -> Self {
        self.of = of;
        self
    }
}

/// The keys, for the reader.
pub fn keys(params: &[Param]) -> Vec<&'static str> {
    params.iter().map(|param| param.name).collect()
}
