//! `pvemig completions SHELL` and `pvemig man`.

use clap::CommandFactory;
use clap_mangen::Man;

use super::args::{Cli, CompletionsArgs};
use super::complete;
use super::exit::Exit;
use super::out::Out;

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
    whole.render_synopsis_section(&mut page)?;
    whole.render_description_section(&mut page)?;
    whole.render_options_section(&mut page)?;
    let mut page = String::from_utf8_lossy(&page).into_owned();
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
    let own = Man::new(own.bin_name(name.to_owned()));
    own.render_synopsis_section(&mut part)?;
    own.render_description_section(&mut part)?;
    own.render_options_section(&mut part)?;
    page.push_str(&format!(".SS \"{name}\"\n"));
    for line in String::from_utf8_lossy(&part).lines() {
        // Its sections are paragraphs here.
        match line.strip_prefix(".SH ") {
            Some(_) => page.push_str(".PP\n"),
            None => page.push_str(&format!("{line}\n")),
        }
    }
    Ok(())
}
