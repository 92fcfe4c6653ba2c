//! Each binary is the target of its own name.

#![no_main]

#[allow(unreachable_pub, dead_code, reason = "the same file is a module of the ordinary test")]
#[path = "../tests/fuzz/targets.rs"]
mod targets;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let target = targets::TARGETS.iter().find(|target| target.name == env!("CARGO_BIN_NAME"));
    (target.expect("a target of this binary's name").run)(data);
});
