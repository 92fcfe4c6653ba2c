//! The `pvemig` binary: parse, call [`pvemig::cli`], turn the outcome into an exit code.

fn main() -> std::process::ExitCode {
    std::process::ExitCode::from(pvemig::cli::main().code())
}
