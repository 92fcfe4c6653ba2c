//! `pvemig completions SHELL` and `pvemig man`.

use clap::CommandFactory;

use super::args::{Cli, CompletionsArgs};
use super::exit::Exit;
use super::out::Out;

pub(super) fn completions(args: &CompletionsArgs, out: &Out) -> anyhow::Result<Exit> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "pvemig", &mut script);
    out.data(&String::from_utf8_lossy(&script))?;
    Ok(Exit::Done)
}

pub(super) fn man(out: &Out) -> anyhow::Result<Exit> {
    let mut page = Vec::new();
    clap_mangen::Man::new(Cli::command()).render(&mut page)?;
    out.data(&String::from_utf8_lossy(&page))?;
    Ok(Exit::Done)
}
