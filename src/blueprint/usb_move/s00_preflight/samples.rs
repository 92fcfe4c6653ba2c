//! Facts for the tests of findings.
