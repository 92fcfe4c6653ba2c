//! The commented example.

/// A site file with every section and a comment to each; it passes the check.
pub fn example() -> &'static str {
    include_str!("../../fixtures/site/example.yaml")
}
