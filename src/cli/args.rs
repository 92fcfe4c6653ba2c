//! The command line's shape.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use super::etcd::EtcdArgs;
use super::exit::Exit;

/// Infrastructure migrations as numbered steps that survive a crash, can be undone, and can be rehearsed.
#[derive(Debug, Parser)]
#[command(name = "pvemig", version, max_term_width = 100, disable_help_subcommand = true, after_help = Exit::table())]
pub(super) struct Cli {
    #[command(flatten)]
    pub(super) global: Global,
    /// JSON on stdout: of run, step, resume, undo, abandon and rehearse the run's events, a line each; of plan, status,
    /// report, survey, etcd snapshot, explain and privileges one value
    #[arg(long, global = true)]
    pub(super) json: bool,
    /// Say more (twice: every check; three times: every request as well, and what the libraries say)
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(super) verbose: u8,
    #[command(subcommand)]
    pub(super) verb: Verb,
}

#[derive(Debug, Args)]
pub(super) struct Global {
    /// The site file [default: ./site.yaml, then the configuration directory]
    #[arg(long, global = true, env = "PVEMIG_SITE", value_name = "FILE")]
    pub(super) site: Option<PathBuf>,
    /// Where journals are kept [default: what the site file says, then the XDG state directory]
    #[arg(long, global = true, env = "PVEMIG_STATE", value_name = "DIR")]
    pub(super) state: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Run a migration of the site file, step by step
    Run(RunArgs),
    /// Show what a migration would do; changes nothing
    Plan(PlanArgs),
    /// Run one step alone, by id, number or script name
    Step(StepArgs),
    /// Go on with a run that stopped
    Resume(ResumeArgs),
    /// Take back what a run has done
    Undo(UndoArgs),
    /// Give a run up as it stands
    Abandon(AbandonArgs),
    /// Show the runs of the site and the holds that are up
    Status(StatusArgs),
    /// Render a run's journal
    Report(ReportArgs),
    /// Show every node across all layers, what contradicts itself, and the next command; changes nothing
    Survey(SurveyArgs),
    /// Take a snapshot of a Talos cluster's etcd, verified and on request encrypted; changes nothing in the cluster
    Etcd(EtcdArgs),
    /// Say what a step does or what a finding means, what can go wrong, and what one would type by hand
    Explain(ExplainArgs),
    /// Print the least that a migration has to be allowed: Proxmox roles and Kubernetes rules, ready to be pasted
    Privileges(PrivilegesArgs),
    /// Run a blueprint against the embedded simulated estate
    Rehearse(RehearseArgs),
    /// The embedded simulated estate
    Lab(LabArgs),
    /// Check the site file, or print a commented example
    Site(SiteArgs),
    /// Print a completion script
    Completions(CompletionsArgs),
    /// Print the manual page, with every verb
    Man,
    /// Print what may stand at the cursor; the completion scripts ask for it
    #[command(name = "__complete", hide = true)]
    Complete(CompleteArgs),
}

/// What running and undoing have in common.
#[derive(Debug, Args)]
pub(super) struct Going {
    /// Consent to the loss of a thing (pvc/NAMESPACE/NAME, pv/NAME, disk/SERIAL, etcd/NODE, node/NODE, ephemeral/NODE), or say
    /// that a machine is off or gone (off/NODE, gone/NODE); may be repeated
    #[arg(long, value_name = "THING")]
    pub(super) destroy: Vec<String>,
    /// Where a person must act, wait (for at most so long) instead of stopping
    #[arg(long, value_name = "DURATION", num_args = 0..=1, require_equals = true, default_missing_value = "forever", value_parser = wait)]
    pub(super) wait: Option<Wait>,
}

/// How long to wait for a person.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wait {
    Forever,
    For(Duration),
}

fn wait(text: &str) -> Result<Wait, String> {
    if text == "forever" {
        return Ok(Wait::Forever);
    }
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: u64 = digits.parse().map_err(|_| "write a duration like 30s, 5m or 2h".to_owned())?;
    let unit = match &text[digits.len()..] {
        "" | "s" => 1,
        "m" | "min" => 60,
        "h" => 3600,
        other => return Err(format!("unknown unit `{other}`: write a duration like 30s, 5m or 2h")),
    };
    Ok(Wait::For(Duration::from_secs(number.saturating_mul(unit))))
}

#[derive(Debug, Args)]
pub(super) struct RunArgs {
    /// The migration's name in the site file
    pub(super) migration: String,
    /// Begin without asking; needed where nobody can be asked
    #[arg(long, short)]
    pub(super) yes: bool,
    #[command(flatten)]
    pub(super) going: Going,
}

#[derive(Debug, Args)]
pub(super) struct PlanArgs {
    /// The migration's name in the site file
    pub(super) migration: String,
    /// Exit with 5 where changes are pending, 3 where a person must act (4 where something is in the way, as always)
    #[arg(long)]
    pub(super) exit_code: bool,
    /// Show it as with this consent (see `run`); may be repeated
    #[arg(long, value_name = "THING")]
    pub(super) destroy: Vec<String>,
}

#[derive(Debug, Args)]
pub(super) struct StepArgs {
    /// The step: id, number, or script name
    pub(super) step: String,
    /// The migration that it belongs to [default: the only one that fits]
    #[arg(short, long, value_name = "NAME")]
    pub(super) migration: Option<String>,
    /// The VM of this step
    #[arg(long, value_name = "VMID")]
    pub(super) vmid: Option<u32>,
    /// The device, by its name in the site file
    #[arg(long)]
    pub(super) device: Option<String>,
    /// The Kubernetes node of this step
    #[arg(long)]
    pub(super) node: Option<String>,
    /// The workload's namespace
    #[arg(long, short)]
    pub(super) namespace: Option<String>,
    /// The workload's name
    #[arg(long)]
    pub(super) workload: Option<String>,
    /// How the VM gets the device
    #[arg(long, value_parser = ["id", "port", "mapping"])]
    pub(super) attach: Option<String>,
    /// The VM that had the device
    #[arg(long, value_name = "VMID")]
    pub(super) from: Option<u32>,
    /// The label that the workload selects its node by; KEY alone where it is taken away
    #[arg(long, value_name = "KEY=VALUE")]
    pub(super) label: Option<String>,
    /// In 05: pull the plug where the guest does not power off in time
    #[arg(long)]
    pub(super) force_off: bool,
    /// Begin without asking (off a terminal nobody is asked)
    #[arg(long, short)]
    pub(super) yes: bool,
    #[command(flatten)]
    pub(super) going: Going,
}

#[derive(Debug, Args)]
pub(super) struct ResumeArgs {
    /// The run, or the beginning of its id [default: the only open one]
    pub(super) run: Option<String>,
    /// Without effect: what was begun is gone on with, and nobody is asked
    #[arg(long, short)]
    pub(super) yes: bool,
    #[command(flatten)]
    pub(super) going: Going,
}

#[derive(Debug, Args)]
pub(super) struct UndoArgs {
    /// The run, or the beginning of its id [default: the newest one that changed something]
    pub(super) run: Option<String>,
    /// Pass a step that cannot be undone, or a run that came after; may be repeated
    #[arg(long, value_name = "ID")]
    pub(super) past: Vec<String>,
    /// Undo without asking; needed where nobody can be asked
    #[arg(long, short)]
    pub(super) yes: bool,
    #[command(flatten)]
    pub(super) going: Going,
}

#[derive(Debug, Args)]
pub(super) struct AbandonArgs {
    /// The run, or the beginning of its id [default: the only open one]
    pub(super) run: Option<String>,
    /// Why; kept in the journal
    #[arg(long)]
    pub(super) comment: String,
}

#[derive(Debug, Args)]
pub(super) struct StatusArgs {
    /// Show the runs that are over, too
    #[arg(long, short)]
    pub(super) all: bool,
}

/// A report's format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// For a terminal
    Text,
    /// For a wiki or a ticket
    Markdown,
    /// For a program
    Json,
}

#[derive(Debug, Args)]
pub(super) struct ReportArgs {
    /// The run, or the beginning of its id [default: the newest]
    pub(super) run: Option<String>,
    /// The format [default: text, with `--json` json]
    #[arg(long, value_enum)]
    pub(super) format: Option<Format>,
}

#[derive(Debug, Args)]
#[command(after_help = "Exit codes: 0 it could be shown, whatever it shows, with what is not known; 1 it could not;\n\
                        2 the command line or the site file is wrong; 130 interrupted")]
pub(super) struct SurveyArgs {
    /// The nodes, by their names in the site file [default: all]
    #[arg(value_name = "NODE")]
    pub(super) nodes: Vec<String>,
    /// Look again every so many seconds: on a terminal in place, elsewhere one screen (with `--json` one line) a round
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, require_equals = true, default_missing_value = "5",
          value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub(super) watch: Option<u64>,
    /// Say what the Talos nodes are made of instead, and what is in Proxmox hosts that have `slots`, as YAML: board, memory,
    /// slots, and every drive with what it is for
    #[arg(long, conflicts_with = "watch")]
    pub(super) hardware: bool,
    /// Write that into a new file
    #[arg(long, value_name = "FILE", requires = "hardware")]
    pub(super) to: Option<PathBuf>,
    /// Write over a file that is there
    #[arg(long, requires = "to")]
    pub(super) force: bool,
}

#[derive(Debug, Args)]
pub(super) struct ExplainArgs {
    /// A step (id, number or script name), a finding as it stands in brackets, a rule of the survey (`L07`), or `lints` for
    /// all of those [default: list all]
    #[arg(value_name = "STEP|FINDING|RULE")]
    pub(super) what: Option<String>,
}

/// A system that rights are given in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum System {
    /// Commands of `pveum`
    Proxmox,
    /// Manifests for `kubectl apply`
    Kubernetes,
    /// The role of a talosconfig
    Talos,
}

#[derive(Debug, Args)]
pub(super) struct PrivilegesArgs {
    /// The migration's name in the site file
    pub(super) migration: String,
    /// The major version of Proxmox VE [default: both, where they differ]
    #[arg(long, value_name = "8|9", value_parser = clap::value_parser!(u32).range(8..=9))]
    pub(super) pve: Option<u32>,
    /// One system alone: what is printed can then be piped
    #[arg(long, value_enum, value_name = "SYSTEM")]
    pub(super) only: Option<System>,
    /// Also what it can do without, and what only some estates take: else that is in comments
    #[arg(long)]
    pub(super) with_optional: bool,
}

#[derive(Debug, Args)]
pub(super) struct RehearseArgs {
    /// The blueprint
    pub(super) blueprint: String,
    /// The world to start from [default: the blueprint's own]
    #[arg(long)]
    pub(super) world: Option<String>,
    /// Simulated seconds in one real second
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=2000))]
    pub(super) speed: u32,
    /// Undo it afterwards
    #[arg(long)]
    pub(super) undo: bool,
    /// Keep the simulated estate's files and the journal here
    #[arg(long, value_name = "DIR")]
    pub(super) dir: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct LabArgs {
    #[command(subcommand)]
    pub(super) verb: LabVerb,
}

/// Who does what a run asks a person for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Who {
    /// The lab does what the journals of its state directory ask for
    Auto,
    /// You do, with `pvemig lab move` and `pvemig lab power`
    Manual,
}

#[derive(Debug, Subcommand)]
pub(super) enum LabVerb {
    /// Start a simulated estate and keep it up until Ctrl-C
    Up {
        /// The world
        #[arg(long, default_value = "usb-move")]
        world: String,
        /// Folder for the site file, kubeconfig, keys and journals
        #[arg(long)]
        dir: PathBuf,
        /// Simulated seconds in one real second
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=2000))]
        speed: u32,
        /// Who does what a run asks a person for
        #[arg(long, value_enum, default_value = "manual")]
        hands: Who,
    },
    /// Move a stick to a host of a running lab, or a drive to a slot
    Move {
        /// The stick; of a drive its serial number, or NODE:SLOT where two have the same
        #[arg(value_name = "STICK|SERIAL")]
        stick: String,
        /// The host, and a port where it matters: still-fawn or still-fawn:2-3; of a drive the slot, of a stick with Talos its node, or `bench`
        #[arg(long, value_name = "HOST[:PORT]|SLOT")]
        to: String,
        /// The lab's folder
        #[arg(long)]
        dir: PathBuf,
    },
    /// Press the power button of a Talos node of a running lab
    Power {
        /// The node
        node: String,
        /// The lab's folder
        #[arg(long)]
        dir: PathBuf,
    },
    /// Put another machine in the place of a Talos node of a running lab, and start it from its stick
    Swap {
        /// The node
        node: String,
        /// The lab's folder
        #[arg(long)]
        dir: PathBuf,
    },
    /// List the worlds
    Worlds,
}

#[derive(Debug, Args)]
pub(super) struct SiteArgs {
    #[command(subcommand)]
    pub(super) verb: SiteVerb,
}

#[derive(Debug, Clone, Copy, Subcommand)]
pub(super) enum SiteVerb {
    /// Report every problem of the site file at once; touches no system
    Check,
    /// Print a commented example
    Example,
}

#[derive(Debug, Args)]
pub(super) struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    pub(super) shell: clap_complete::Shell,
}

#[derive(Debug, Args)]
pub(super) struct CompleteArgs {
    /// The words up to the cursor, without the program's name; the last one is the word at the cursor
    #[arg(last = true, allow_hyphen_values = true)]
    pub(super) words: Vec<String>,
}
