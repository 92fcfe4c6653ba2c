//! The command line: one file per verb; the only module that prints, reads the environment, prompts and exits.

mod abandon;
mod args;
mod complete;
mod damaged;
mod down;
mod etcd;
mod exit;
mod explain;
mod fail;
mod foot;
mod given;
mod hands;
mod lab;
mod left;
mod live;
mod out;
mod outages;
mod plan;
mod privileges;
mod reach;
mod rehearse;
mod report;
mod resume;
mod run;
mod scratch;
mod session;
mod shell;
mod site;
mod stands;
mod status;
mod step;
mod survey;
mod undo;
mod usually;
mod words;
mod work;

pub use exit::Exit;

use clap::parser::ValueSource;
use clap::{ArgMatches, Command, CommandFactory, FromArgMatches};

use args::{Cli, LabVerb, SiteVerb, Verb};
use fail::Words;
use out::Out;

/// Of a thread, in bytes: in an unoptimised build the futures of the steps need more than the usual 2 MiB.
const STACK: usize = 16 << 20;

/// Parses the command line, does what it says, and tells how it ended.
pub fn main() -> Exit {
    crate::base::tls::init();
    let parsed = command().try_get_matches().and_then(|m| Ok((Cli::from_arg_matches(&m)?, options(&m))));
    let (cli, options) = match parsed {
        Ok(parsed) => parsed,
        Err(error) => {
            let usage = error.use_stderr();
            // Help and version go to stdout, and a closed pipe is no error.
            let _closed_pipe = error.print();
            return if usage { Exit::Usage } else { Exit::Done };
        }
    };
    let out = Out::new(cli.json, cli.verbose, options);
    out::log_to_stderr(cli.verbose);
    let mut threads = tokio::runtime::Builder::new_multi_thread();
    threads.worker_threads(4).thread_stack_size(STACK).enable_all();
    let runtime = match threads.build() {
        Ok(runtime) => runtime,
        Err(error) => return fail::show(&out, &anyhow::Error::new(error).context("cannot start the runtime")),
    };
    let ended = runtime.block_on(dispatch(cli, &out));
    match ended {
        Ok(exit) => exit,
        Err(error) => fail::show(&out, &error),
    }
}

/// The command line's shape, for this environment.
fn command() -> Command {
    // What is there and empty is as good as not there: `PVEMIG_SITE= pvemig` means what `unset` would.
    let kept = |cli: Command, (id, name): (&'static str, &'static str)| {
        if shell::is_empty(name) { cli.mut_arg(id, |arg| arg.env(None::<&'static str>)) } else { cli }
    };
    let mut cli = [("site", "PVEMIG_SITE"), ("state", "PVEMIG_STATE")].into_iter().fold(Cli::command(), kept);
    cli.build();
    with_usage(cli)
}

/// Every verb with its usage as it is: an error's own would show what the environment sets as if it had to be given.
fn with_usage(cli: Command) -> Command {
    cli.mut_subcommands(|mut verb| {
        let usage = verb.render_usage().to_string();
        with_usage(verb.override_usage(usage.trim_start_matches("Usage: ").to_owned()))
    })
}

/// The options that choose the site and its journals, where they were given on the command line: a command that is
/// suggested needs them as well. The environment is still there for it.
fn options(matches: &ArgMatches) -> String {
    let given = |name: &&str| matches.value_source(name) == Some(ValueSource::CommandLine);
    let path = |name: &str| matches.get_one::<std::path::PathBuf>(name).map(|p| words::quoted(&p.to_string_lossy()));
    ["site", "state"].into_iter().filter(given).filter_map(|name| Some(format!(" --{name} {}", path(name)?))).collect()
}

/// A verb that has nothing to say in JSON.
fn without_json(verb: &Verb) -> Option<&'static str> {
    match verb {
        Verb::Lab(args) => Some(match args.verb {
            LabVerb::Up { .. } => "lab up",
            LabVerb::Move { .. } => "lab move",
            LabVerb::Power { .. } => "lab power",
            LabVerb::Swap { .. } => "lab swap",
            LabVerb::Worlds => "lab worlds",
        }),
        Verb::Site(args) => Some(match args.verb {
            SiteVerb::Check => "site check",
            SiteVerb::Example => "site example",
        }),
        Verb::Completions(_) => Some("completions"),
        Verb::Man => Some("man"),
        _ => None,
    }
}

/// A verb that goes by no site of the operator's.
fn with_own_estate(verb: &Verb) -> Option<&'static str> {
    match verb {
        Verb::Rehearse(_) => Some("rehearse"),
        Verb::Lab(_) => Some("lab"),
        _ => None,
    }
}

async fn dispatch(cli: Cli, out: &Out) -> anyhow::Result<Exit> {
    let global = &cli.global;
    if let Some(verb) = without_json(&cli.verb).filter(|_| out.json) {
        return Err(Words::usage(format!("`{verb}` prints no JSON"), "leave `--json` out").into());
    }
    if let Some(verb) = with_own_estate(&cli.verb).filter(|_| out.chooses()) {
        let text = format!("`{verb}` has a site and a state directory of its own");
        return Err(Words::usage(text, "leave `--site` and `--state` out; `--dir` says where its files are").into());
    }
    match cli.verb {
        Verb::Run(args) => run::run(global, &args, out).await,
        Verb::Plan(args) => plan::plan(global, &args, out).await,
        Verb::Step(args) => step::step(global, &args, out).await,
        Verb::Resume(args) => resume::resume(global, &args, out).await,
        Verb::Undo(args) => undo::undo(global, &args, out).await,
        Verb::Abandon(args) => abandon::abandon(global, &args, out),
        Verb::Status(args) => status::status(global, &args, out),
        Verb::Report(args) => report::report(global, &args, out),
        Verb::Survey(args) => survey::survey(global, &args, out).await,
        Verb::Etcd(args) => etcd::etcd(global, &args, out).await,
        Verb::Explain(args) => explain::explain(global, &args, out),
        Verb::Privileges(args) => privileges::privileges(global, &args, out),
        Verb::Rehearse(args) => rehearse::rehearse(&args, out).await,
        Verb::Lab(args) => lab::lab(args, out).await,
        Verb::Site(args) => site::site(global, &args, out),
        Verb::Completions(args) => shell::completions(&args, out),
        Verb::Man => shell::man(out),
        Verb::Complete(args) => complete::complete(&args, out),
    }
}
