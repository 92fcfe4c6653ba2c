//! `pvemig completions SHELL` and `pvemig man`.

use std::ffi::OsString;

use clap::CommandFactory;
use clap_mangen::Man;

use super::args::{Cli, CompletionsArgs};
use super::complete;
use super::exit::Exit;
use super::out::Out;

/// A variable of the environment that says something.
pub(super) fn variable(name: &str) -> Option<OsString> {
    #[expect(clippy::disallowed_methods, reason = "cli reads the environment")]
    std::env::var_os(name).filter(|value| !value.is_empty())
}

/// Whether a variable is there, and says nothing.
pub(super) fn is_empty(name: &str) -> bool {
    #[expect(clippy::disallowed_methods, reason = "cli reads the environment")]
    std::env::var_os(name).is_some_and(|value| value.is_empty())
}

pub(super) fn completions(args: &CompletionsArgs, out: &Out) -> anyhow::Result<Exit> {
    if let Some(script) = complete::script(args.shell) {
        out.data(script)?;
        return Ok(Exit::Done);
    }
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "pvemig", &mut script);
    out.data(&String::from_utf8_lossy(&script))?;
    Ok(Exit::Done)
}

/// One page: the program, every verb with its options, the exit codes. Other pages are not there to be referred to.
pub(super) fn man(out: &Out) -> anyhow::Result<Exit> {
    let mut cli = Cli::command().after_help(None::<&str>);
    cli.build();
    let mut page = Vec::new();
    let whole = Man::new(cli.clone());
    whole.render_title(&mut page)?;
    whole.render_name_section(&mut page)?;
    let mut page = String::from_utf8_lossy(&page).into_owned();
    page.push_str(&format!(".SH SYNOPSIS\n{}", synopsis("pvemig", &cli)));
    let mut rest = Vec::new();
    whole.render_description_section(&mut rest)?;
    whole.render_options_section(&mut rest)?;
    page.push_str(&String::from_utf8_lossy(&rest));
    page.push_str(".SH VERBS\n");
    for verb in cli.get_subcommands().filter(|verb| !verb.is_hide_set()) {
        verb_section(&format!("pvemig {}", verb.get_name()), verb, &mut page)?;
    }
    page.push_str(".SH \"EXIT STATUS\"\n");
    for (exit, what) in Exit::ALL {
        page.push_str(&format!(".TP\n\\fB{}\\fR\n{}\n", exit.code(), what.replace('-', "\\-")));
    }
    out.data(&page)?;
    Ok(Exit::Done)
}

/// A verb, or each of its own verbs, as a section of its own within the page's.
fn verb_section(name: &str, verb: &clap::Command, page: &mut String) -> std::io::Result<()> {
    if verb.get_subcommands().next().is_some() {
        return verb
            .get_subcommands()
            .try_for_each(|own| verb_section(&format!("{name} {}", own.get_name()), own, page));
    }
    // The options of every verb stand at the beginning of the page.
    let global: Vec<_> = verb.get_arguments().filter(|a| a.is_global_set()).map(|a| a.get_id().clone()).collect();
    let own = global.into_iter().fold(verb.clone(), |verb, id| verb.mut_arg(id, |arg| arg.hide(true)));
    let mut part = Vec::new();
    let synopsis = synopsis(name, &own);
    let own = Man::new(own.bin_name(name.to_owned()));
    own.render_description_section(&mut part)?;
    own.render_options_section(&mut part)?;
    page.push_str(&format!(".SS \"{name}\"\n.PP\n{synopsis}"));
    for line in String::from_utf8_lossy(&part).lines() {
        // Its sections are paragraphs here.
        match line.strip_prefix(".SH ") {
            Some(_) => page.push_str(".PP\n"),
            None => page.push_str(&format!("{line}\n")),
        }
    }
    Ok(())
}

/// The usage of a verb with the values of its options, as the help has it.
fn synopsis(name: &str, verb: &clap::Command) -> String {
    let usage = verb.clone().bin_name(name.to_owned()).render_usage().to_string();
    let rest = usage.trim_start_matches("Usage: ").trim_start_matches(name).replace('-', "\\-");
    format!("\\fB{name}\\fR{rest}\n")
}
