//! How long things take, beside what the wire alone costs in the same run and beside a shell script that asks the same:
//! `cargo bench --bench speed`, or only some of it: `cargo bench --bench speed -- preflight delay`.
//!
//! The program runs as a process against a lab in this one. Every connection goes through a relay that adds a round
//! trip, so a handshake costs what it costs there. Without `--bench` (as `cargo test --bench speed` runs it) each
//! measurement is made once and in small, and only its counts mean something: requests, connections, durable writes.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a benchmark measures, spawns, and says what it saw"
)]

mod bed;
mod delay;
mod durable;
mod preflight;
mod process;
mod resume;
mod script;
mod second_run;
mod start;
mod survey;
mod wire;

/// What there is to measure, by the name that selects it.
const NAMES: [&str; 7] = ["start", "second-run", "preflight", "survey", "delay", "resume", "durable"];

/// How much is measured.
#[derive(Debug, Clone, Copy)]
struct Scale {
    /// False: once and in small; times are printed, and mean nothing.
    whole: bool,
}

impl Scale {
    /// How often a measurement is made; its median counts.
    fn times(self) -> usize {
        if self.whole { 7 } else { 1 }
    }
}

#[tokio::main]
async fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let scale = Scale { whole: args.iter().any(|arg| arg == "--bench") };
    let chosen: Vec<&String> = args.iter().filter(|arg| !arg.starts_with('-')).collect();
    let known = chosen.iter().all(|name| NAMES.contains(&name.as_str()));
    assert!(known, "there is no such measurement among {chosen:?}; there are: {}", NAMES.join(", "));
    if !scale.whole {
        println!("in small: the counts are asserted, the times are those of this build and mean nothing");
    }
    let mut made = 0;
    for name in NAMES.into_iter().filter(|name| chosen.is_empty() || chosen.iter().any(|it| it == name)) {
        match name {
            "start" => start::measure(scale).await,
            "second-run" => second_run::measure(scale).await,
            "preflight" => preflight::measure(scale).await,
            "survey" => survey::measure(scale).await,
            "delay" => delay::measure(scale).await,
            "resume" => resume::measure(scale).await,
            _ => durable::measure().await,
        }
        made += 1;
    }
    println!("\n{made} measurements");
    assert!(made > 0);
}
