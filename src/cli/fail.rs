//! How an error and a stop are told: what, why, whether anything changed, and what to do now.

use console::style;

use crate::base::check::Problem;
use crate::base::fault::{Effect, Failure};
use crate::base::names::StepKey;
use crate::base::wait;
use crate::blueprint;
use crate::engine::fold::SITE_FILE;
use crate::engine::recorder::RecordError;
use crate::engine::run::{Ended, Stop, Why};
use crate::engine::state::{Phase, RunState, Stage};
use crate::engine::store::StoreError;
use crate::report;
use crate::site::SiteError;

use super::damaged;
use super::exit::Exit;
use super::left;
use super::out::Out;
use super::plan;
use super::session::Session;
use super::stands::{Undo, offers_undo, takes_back, undo_of};
use super::undo::Past;

/// An error in words, with its exit code.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
pub(super) struct Words {
    text: String,
    causes: Vec<String>,
    help: Vec<String>,
    exit: Exit,
}

impl Words {
    /// A wrong command line or site file.
    pub(super) fn usage(text: impl Into<String>, help: impl Into<String>) -> Self {
        Self { text: text.into(), causes: Vec::new(), help: vec![help.into()], exit: Exit::Usage }
    }

    /// Anything else.
    pub(super) fn new(exit: Exit, text: impl Into<String>, help: Vec<String>) -> Self {
        Self { text: text.into(), causes: Vec::new(), help, exit }
    }

    /// With what led to it, a line each.
    pub(super) fn because(self, causes: Vec<String>) -> Self {
        Self { causes, ..self }
    }
}

/// A provider's failure outside of a run.
pub(super) fn failure(failure: Failure) -> Words {
    let mut chain = failure.chain().into_iter();
    let text = chain.next().unwrap_or_default();
    Words { text, causes: chain.collect(), help: failure.fault().help().into_iter().collect(), exit: Exit::Failed }
}

/// A site file with problems.
pub(super) fn site_error(error: &SiteError, width: usize) -> Words {
    let (text, causes, help) = match error {
        SiteError::Invalid(invalid) => (invalid.render(width), Vec::new(), Vec::new()),
        SiteError::Unreadable { source, .. } => {
            (error.to_string(), vec![source.to_string()], vec!["`--site FILE` names another".to_owned()])
        }
    };
    Words { text, causes, help, exit: Exit::Usage }
}

/// Prints an error and gives its exit code.
pub(super) fn show(out: &Out, error: &anyhow::Error) -> Exit {
    if let Some(words) = error.downcast_ref::<Words>() {
        tell(out, &words.text, &words.causes, None, &words.help);
        return words.exit;
    }
    if let Some(StoreError::Held { holder, .. }) = error.downcast_ref() {
        let help = vec![
            format!("wait for it, or stop it (process {} on {})", holder.pid, holder.host),
            "`pvemig status` shows how far it is".to_owned(),
        ];
        tell(out, &error.to_string(), &[], None, &help);
        return Exit::Held;
    }
    let causes: Vec<_> = error.chain().skip(1).map(ToString::to_string).collect();
    let help = match (error.downcast_ref::<StoreError>(), error.downcast_ref::<RecordError>()) {
        (Some(error), _) => damaged::help(error),
        (_, Some(RecordError::Journal(_) | RecordError::File(_))) => {
            vec!["make room or rights in the state directory; nothing is changed without a journal".to_owned()]
        }
        _ => Vec::new(),
    };
    tell(out, &error.to_string(), &causes, None, &help);
    match error.downcast_ref::<StoreError>() {
        Some(StoreError::NoRun { .. } | StoreError::Ambiguous { .. } | StoreError::Empty { .. }) => Exit::Usage,
        _ => Exit::Failed,
    }
}

fn tell(out: &Out, text: &str, causes: &[String], effect: Option<&str>, help: &[String]) {
    let head = format!("{} ", style("error:").for_stderr().red().bold());
    match text.strip_prefix("error: ") {
        // A site file's problems are rendered whole, each with its own `error:`.
        Some(rendered) => out.say(&out.commands(&format!("{head}{rendered}"))),
        None => out.tell(&head, text, 2),
    }
    for cause in causes {
        out.tell("  caused by: ", cause, 4);
    }
    if let Some(effect) = effect {
        out.tell("  ", effect, 4);
    }
    for line in help {
        out.tell(&format!("  {}", helps()), line, 4);
    }
}

fn helps() -> String {
    format!("{} ", style("help:").for_stderr().cyan())
}

fn tell_problem(out: &Out, (problem, at): (&Problem, String)) {
    let first = problem.mended_by.as_ref().map(|id| format!(" (step {id} mends it)")).unwrap_or_default();
    let tag = problem.tag().map(|tag| format!(" {tag}")).unwrap_or_default();
    out.tell("  - ", &format!("{}{at}{first}{tag}", problem.text), 4);
    out.tell(&format!("    {}", helps()), &problem.help, 6);
}

/// Why a run is not begun at all, last on the screen.
pub(super) fn not_begun(out: &Out, barred: &[(&StepKey, Vec<&Problem>)]) -> Exit {
    let keys: Vec<_> = barred.iter().map(|(key, _)| key.to_string()).collect();
    let (word, is) = if keys.len() == 1 { ("step", "is") } else { ("steps", "are") };
    let text = format!("{word} {} {is} blocked, so nothing is begun", keys.join(" and "));
    tell(out, &text, &[], Some("nothing was changed"), &[]);
    let problems = || barred.iter().flat_map(|(_, problems)| problems.iter().copied());
    plan::alike(problems()).into_iter().for_each(|problem| tell_problem(out, problem));
    if problems().any(|problem| problem.finding.is_some()) {
        out.tell("  ", plan::MORE, 4);
    }
    Exit::Blocked
}

/// A run that is told about at its end in this process.
pub(super) struct Told<'a> {
    pub(super) session: &'a Session,
    pub(super) state: &'a RunState,
    pub(super) id: &'a str,
    /// What its undo passes.
    pub(super) past: &'a Past,
    /// This process was to undo it.
    pub(super) back: bool,
}

impl Told<'_> {
    /// How it ended and what is possible now; gives the exit code.
    pub(super) fn ended(&self, ended: &Ended) -> anyhow::Result<Exit> {
        match ended {
            Ended::Done => {
                self.held();
                self.summed_up()?;
                Ok(Exit::Done)
            }
            Ended::Undone => {
                let run = self.session.store.run(self.id)?.read()?;
                let mut stays: Vec<_> = report::stays(&run.records).map(|(key, why)| format!("{key}: {why}")).collect();
                stays.extend(self.past.runs.iter().map(|id| format!("run {id}: passed by `--past {id}`")));
                let (runs, _) = self.session.store.every_run()?;
                let left = left::beside(&runs, &run).into_iter().filter(|left| !self.past.runs.contains(left.run()));
                let left: Vec<_> = left.map(|left| left.sentence()).collect();
                let whole = if left.is_empty() { "everything" } else { "what this run did" };
                let passed = run.state.steps.values().any(|step| step.passed);
                let out = &self.session.out;
                out.say(&match (passed, stays.is_empty()) {
                    (true, _) => "undone as far as that can be, and not as it was before; what stays:".to_owned(),
                    (false, true) => format!("undone: {whole} is back as it was"),
                    (false, false) => "undone, but for what stays:".to_owned(),
                });
                stays.iter().for_each(|line| out.tell("  ", line, 4));
                if passed {
                    out.tell("  ", &on_from_here(&run.state), 4);
                }
                if !left.is_empty() {
                    self.session.out.say("not back is what other runs did:");
                    left.iter().for_each(|line| self.session.out.tell("  ", line, 4));
                }
                Ok(Exit::Done)
            }
            Ended::Stopped(stop) => {
                let exit = stopped(&self.session.out, self.state, stop);
                self.afterwards(Some(&stop.why));
                Ok(exit)
            }
        }
    }

    /// How long it was down, and where the whole is to be had; after a rehearsal the report follows by itself.
    fn summed_up(&self) -> anyhow::Result<()> {
        let run = self.session.store.run(self.id)?.read()?;
        if self.session.passing || self.session.out.json || !run.state.changed {
            return Ok(());
        }
        if run.state.opened.single {
            if let Some(back) = takes_back(&run.state).filter(|_| offers_undo(&run.state)) {
                let (_, steps) = self.session.steps_of(&run.state)?;
                let stays = steps.iter().find_map(|step| step.outlook(&self.session.estate).stays);
                let what = stays.map_or_else(|| back.clone(), |stays| format!("{back}, and leaves {stays}"));
                self.session.out.tell("  ", &format!("`pvemig undo {}` {what}", self.id), 4);
            }
            return Ok(());
        }
        let (runs, _) = self.session.store.every_run()?;
        for outage in self.session.outages(&runs, &run) {
            let took = match (outage.elapsed, &outage.began) {
                (Some(elapsed), report::Began::InRun(first)) => {
                    format!("was down for {}, from run {first} on", wait::show(elapsed))
                }
                (Some(elapsed), _) => format!("was down for {}", wait::show(elapsed)),
                (None, report::Began::Before) => "was down before this run began".to_owned(),
                (None, _) => "is down by what is written".to_owned(),
            };
            let line = match &outage.end {
                report::End::Unsure => {
                    format!("{} may have been down before: {} failed on the way", outage.what, outage.by)
                }
                report::End::LetBack(by) => {
                    format!("{} {took}, until {by} let it back, and then as long as it took to start", outage.what)
                }
                _ => format!("{} {took}", outage.what),
            };
            self.session.out.tell("  ", &line, 4);
        }
        if let Some(blueprint) = blueprint::named(&run.state.opened.blueprint) {
            for fold in blueprint.fold_back(&run.state, &[]).iter().filter(|fold| fold.owner.starts_with(SITE_FILE)) {
                let out = &self.session.out;
                out.say(&format!("what {} must say now:", fold.owner));
                fold.why.iter().for_each(|line| out.tell("  - ", line, 4));
                fold.lines.iter().for_each(|line| out.say(&format!("  {line}")));
            }
        }
        let report = format!("`pvemig report {} --format markdown`", self.id);
        self.session.out.tell(
            "  ",
            &format!(
                "{report} has it for a ticket, with what Terraform, Ansible and git must say by the runs of this site"
            ),
            4,
        );
        Ok(())
    }

    /// What is still held, and the commands that are possible now.
    pub(super) fn afterwards(&self, why: Option<&Why>) {
        self.held();
        if self.session.passing {
            return;
        }
        self.session.out.say("");
        self.possible(why).iter().for_each(|line| self.session.out.say(line));
    }

    /// The holds that are up, with the step that takes each back.
    fn held(&self) {
        let up: Vec<_> = self.state.holds_up().iter().map(ToString::to_string).collect();
        if !up.is_empty() {
            self.session.out.tell("  still held: ", &up.join(", "), 4);
        }
    }

    fn possible(&self, why: Option<&Why>) -> Vec<String> {
        let (id, phase) = (self.id, self.state.phase);
        let mut commands = Vec::new();
        if let Some(Why::Consent { things, past: further, .. }) = why {
            // Behind what does not come back the way leads on.
            if further.is_some() && phase == Phase::Forward {
                commands.push((format!("pvemig resume {id}"), "finish it, now that this cannot be undone"));
            }
            let further: Vec<_> = further.iter().map(ToString::to_string).collect();
            let things: Vec<_> = things.iter().map(ToString::to_string).collect();
            let what = match further.as_slice() {
                [] => "go on with it",
                _ => "undo the others, and leave this as it is",
            };
            commands.push((self.past.left(self.state).again(id, &further, &things), what));
        } else {
            if phase == Phase::Forward {
                let what = if self.back { "go forwards again: nothing is taken back yet" } else { "go on from here" };
                commands.push((format!("pvemig resume {id}"), what));
            }
            // An undo that has begun goes on, whatever is left of it.
            let owes = self.state.steps.values().any(|step| step.owes());
            if owes && (phase != Phase::Forward || undo_of(self.state) != Undo::Nothing) {
                let what = match undo_of(self.state) {
                    _ if self.back && phase == Phase::Forward => "go on with the undo",
                    Undo::Whole | Undo::Nothing => "take everything back",
                    Undo::But(_) => "take back what can be: some of it stays",
                    Undo::UpTo(_) => "take back what can be, up to what is destroyed",
                };
                // What was wanted comes first.
                let at = if self.back { 0 } else { commands.len() };
                commands.insert(at, (self.past.left(self.state).again(id, &[], &[]), what));
            }
        }
        if phase != Phase::Done {
            commands.push((format!("pvemig abandon {id} --comment '...'"), "leave it as it stands"));
        }
        let commands: Vec<_> = commands.iter().map(|(c, what)| (self.session.out.commands(c), *what)).collect();
        // A long command stands alone and unbroken, so that it can be copied.
        let width = commands.iter().map(|(c, _)| c.len()).filter(|n| *n <= 40).max().unwrap_or(0);
        let lines = |(command, what): &(String, &str)| match command.len() {
            0..=40 => vec![format!("  {command:width$}   {what}")],
            _ => vec![format!("  {command}"), format!("  {:width$}   {what}", "")],
        };
        commands.iter().flat_map(lines).collect()
    }
}

/// What to look at, and what goes on, where an undo has left the estate as it was never before.
fn on_from_here(state: &RunState) -> String {
    let plan = state.opened.migration.as_ref().map(|name| format!(", `pvemig plan {name}` what a new run would do"));
    format!("next: `pvemig survey` shows how it stands now{}", plan.unwrap_or_default())
}

/// `--past` for each.
pub(super) fn flags(past: &[String]) -> String {
    past.iter().map(|id| format!(" --past {id}")).collect()
}

fn stopped(out: &Out, state: &RunState, stop: &Stop) -> Exit {
    let step = format!("step {}", stop.key);
    match &stop.why {
        // A title is what is to be so: behind an error it would read as if it were.
        Why::Failed { error, effect, help } => {
            tell(out, &format!("{step} failed"), error, Some(effect_words(*effect)), help);
            Exit::Failed
        }
        Why::Blocked(problems) => {
            let effect = effect_words(state.effect(&stop.key, Effect::None));
            tell(out, &format!("{step} is blocked"), &[], Some(effect), &[]);
            plan::alike(problems).into_iter().for_each(|problem| tell_problem(out, problem));
            if problems.iter().any(|problem| problem.finding.is_some()) {
                out.tell("  ", plan::MORE, 4);
            }
            Exit::Blocked
        }
        Why::Manual { ask, hint, .. } => {
            let head = format!("{} ", style("waiting:").for_stderr().yellow().bold());
            // Its question stands above, with all that helps; nobody has read that who reads JSON.
            if out.json {
                out.tell(&head, &format!("{step} needs you: {ask}"), 2);
                hint.iter().for_each(|hint| out.tell("  ", hint, 4));
            } else {
                out.tell(&head, &format!("{step} needs you, for what it asks for above"), 2);
            }
            Exit::Manual
        }
        Why::HoldFell { holder, changes, notes } => {
            let causes: Vec<_> = changes.iter().map(ToString::to_string).chain(notes.iter().cloned()).collect();
            let so = if state.stage(&stop.key) == Stage::Begun { "does not go on" } else { "was not begun" };
            let text = format!("hold {holder} does not stand any more, so {} {so}", stop.key);
            let help = "find out what took it down; the next command below puts it up again".to_owned();
            tell(out, &text, &causes, None, &[help]);
            Exit::Failed
        }
        Why::Stuck { error, help } => {
            tell(out, &format!("the undo of {step} failed"), error, None, help);
            Exit::Stuck
        }
        Why::Consent { past, notes, .. } => {
            let text = match past {
                Some(key) => format!("{key} cannot be undone"),
                None => "the undo would destroy what has been written since".to_owned(),
            };
            tell(out, &text, &[], Some("nothing was changed"), &[]);
            // A change has its own sign.
            let signed = |note: &str| ["+ ", "- ", "~ ", "! "].iter().any(|sign| note.starts_with(sign));
            notes.iter().for_each(|note| out.tell(if signed(note) { "  " } else { "  - " }, note, 4));
            Exit::Blocked
        }
        Why::Interrupted => {
            tell(out, &format!("interrupted in {step}"), &[], Some("what was begun is in the journal"), &[]);
            Exit::Interrupted
        }
    }
}

fn effect_words(effect: Effect) -> &'static str {
    match effect {
        Effect::None => "nothing was changed by it",
        Effect::Maybe => "it may have changed something; resume and undo look first",
        Effect::Partial => "some of it may have been changed; resume and undo look first",
    }
}
