//! What a person watches: a line for each step as it settles, and under it one line that says what is going on now.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use console::{Style, measure_text_width, style, truncate_str};

use crate::base::check::{Symbol, not_needed};
use crate::base::clock::Clock;
use crate::base::names::StepKey;
use crate::base::wait::show;
use crate::blueprint;
use crate::engine::event::{Event, Outcome, Record};
use crate::engine::recorder::Ear;
use crate::report::THERE_NOW;

use super::out::Out;
use super::words::{fresh, lay, one_line};

/// Where the words below a step's line begin: under its last column, or on a narrow terminal further left.
const INDENT: &str = "                               ";
const NARROW: &str = "      ";

/// The mark of a hold that is not up because nothing needs it.
const NOT_NEEDED: (&str, &str) = ("·", "not needed");

/// So many notes of a step are shown on a terminal; of more only the number.
const FEW: usize = 4;

/// What a step's last line takes besides what it says: symbol, key, word, and the time at its end.
const BESIDE: usize = 52;

/// The display.
pub(super) struct Live {
    out: Out,
    clock: Clock,
    inner: Mutex<Inner>,
    hands: Mutex<Option<Arc<dyn Ear>>>,
}

#[derive(Default)]
struct Inner {
    run: String,
    titles: BTreeMap<StepKey, String>,
    /// The plan's steps.
    order: Vec<StepKey>,
    settled: Option<Instant>,
    asked: BTreeSet<StepKey>,
    /// The step whose title stands above already, by the line that says that it begins.
    begun: Option<StepKey>,
    now: Option<Now>,
    drawn: bool,
    /// What was said last below a step, where there is no moving line.
    below: String,
    /// The step whose line stands above: what another one says needs its name.
    above: Option<StepKey>,
    /// What the present step has waited for, each part of a reason said once.
    reasons: BTreeSet<String>,
    /// What the step that was found to be blocked has said besides; its stop shows it.
    blocked: Option<(StepKey, Vec<String>)>,
    /// What is said as soon as an undo begins.
    heading: Option<String>,
}

struct Now {
    key: StepKey,
    text: String,
    since: Instant,
}

impl Live {
    pub(super) fn new(out: Out, clock: Clock) -> Self {
        Self { out, clock, inner: Mutex::default(), hands: Mutex::default() }
    }

    /// From here on the first step's time counts.
    fn started(inner: &mut Inner, now: Instant) {
        inner.settled.get_or_insert(now);
    }

    fn with(&self, f: impl FnOnce(&mut Inner)) {
        if let Ok(mut inner) = self.inner.lock() {
            f(&mut inner);
        }
    }

    /// Hears every event after the display has shown it.
    pub(super) fn hands(&self, ear: Arc<dyn Ear>) {
        if let Ok(mut hands) = self.hands.lock() {
            *hands = Some(ear);
        }
    }

    /// The run has an id now.
    pub(super) fn run(&self, id: &str) {
        let now = self.clock.instant();
        self.with(|inner| {
            inner.run = id.to_owned();
            Self::started(inner, now);
        });
    }

    /// The titles of the steps, for a run that is gone on with.
    pub(super) fn titles(&self, titles: impl IntoIterator<Item = (StepKey, String)>) {
        self.with(|inner| {
            for (key, title) in titles {
                inner.order.push(key.clone());
                inner.titles.insert(key, title);
            }
        });
    }

    /// The steps for which a person was asked before this process.
    pub(super) fn asked(&self, keys: impl IntoIterator<Item = StepKey>) {
        self.with(|inner| inner.asked.extend(keys));
    }

    /// From here on the order of the plan says nothing about what comes next.
    pub(super) fn backwards(&self) {
        self.with(|inner| {
            inner.order.clear();
            inner.heading = Some(format!("run {} is being undone", inner.run));
        });
    }

    /// A step that is being asked, which may take its time where a system does not answer.
    pub(super) fn looks(&self, key: &StepKey) {
        self.with(|inner| self.busy(inner, key, "looks"));
    }

    /// A line besides.
    pub(super) fn note(&self, text: &str) {
        self.with(|inner| self.wrapped(inner, "", text, &Style::new()));
    }

    /// The moving line again, with the time that has passed.
    pub(super) fn tick(&self) {
        self.with(|inner| self.draw(inner));
    }

    /// A line below the step at work.
    pub(super) fn aside(&self, text: &str) {
        self.with(|inner| self.below(inner, text));
    }

    /// No more of it: the moving line goes away.
    pub(super) fn end(&self) {
        self.with(|inner| {
            inner.now = None;
            self.clear(inner);
        });
    }

    fn clear(&self, inner: &mut Inner) {
        if inner.drawn {
            self.out.write("\r\x1b[2K");
            inner.drawn = false;
        }
    }

    fn line(&self, inner: &mut Inner, text: &str) {
        self.clear(inner);
        if !self.out.json {
            self.out.say(text);
        }
        self.draw(inner);
    }

    /// One row, however long the text is: a terminal cannot take back more. The time comes first, since the text is cut.
    fn draw(&self, inner: &mut Inner) {
        let Some(now) = inner.now.as_ref().filter(|_| self.out.live) else { return };
        let elapsed = show(whole(self.clock.instant().duration_since(now.since)));
        let at = inner.order.iter().position(|key| *key == now.key).filter(|_| inner.order.len() > 1);
        let at = at.map(|at| format!("{}/{}  ", at + 1, inner.order.len())).unwrap_or_default();
        let text = format!("  … {:<24} {elapsed:<11} {at}{}", now.key.to_string(), one_line(&now.text));
        // A terminal shows Ctrl-C as two more characters, and they must not begin another row.
        let text = truncate_str(&text, self.out.room().saturating_sub(2), "…").into_owned();
        self.out.write(&format!("\r\x1b[2K{}", style(text).for_stderr().dim()));
        inner.drawn = true;
    }

    /// A step's last line: symbol, key, word, what there is to say, and the time since the step before it settled.
    fn settled(&self, inner: &mut Inner, key: &StepKey, (symbol, word): (&str, &str), colour: &Style, what: &str) {
        let now = self.clock.instant();
        let elapsed =
            inner.settled.replace(now).map_or_else(String::new, |since| show(whole(now.duration_since(since))));
        inner.now = None;
        inner.above = None;
        inner.reasons.clear();
        let head = format!("  {symbol} {:<24} {word:<11} ", key.to_string());
        let what = one_line(what);
        let (what, pad) = if what.is_empty() {
            (what, String::new())
        } else if self.out.live {
            let room = self.out.width().saturating_sub(measure_text_width(&head) + measure_text_width(&elapsed) + 2);
            let what = truncate_str(&what, room, "…").into_owned();
            let pad = " ".repeat(room.saturating_sub(measure_text_width(&what)) + 1);
            (what, pad)
        } else {
            (what, "  ".to_owned())
        };
        self.line(inner, format!("{}{what}{pad}{elapsed}", colour.apply_to(&head)).trim_end());
    }

    /// A step's last line where its title is so now, with what its check said besides.
    fn so(&self, inner: &mut Inner, key: &StepKey, mark: (&str, &str), colour: &Style, notes: &[String]) {
        // Where moving lines are all that came in between, the title still stands above.
        let above = self.out.live && inner.begun.as_ref() == Some(key);
        let title = if above { None } else { inner.titles.get(key).cloned() };
        self.settled(inner, key, mark, colour, &title.unwrap_or_default());
        if self.out.live && self.out.verbose == 0 && notes.len() > FEW {
            self.below(inner, &format!("{} notes, all of them in the report (`-v` shows them here)", notes.len()));
            return;
        }
        notes.iter().for_each(|note| self.below(inner, note));
    }

    /// A hold's last line where it is not put up: the reason in place of its title, and never cut.
    fn because(&self, inner: &mut Inner, key: &StepKey, mark: (&str, &str), notes: &[String]) {
        let why = notes.join("; ");
        let why = why.strip_prefix("not needed: ").unwrap_or(&why);
        let fits = BESIDE + measure_text_width(why) <= self.out.room();
        self.settled(inner, key, mark, &colour().dim(), if fits { why } else { "" });
        if !fits {
            self.below(inner, why);
        }
    }

    /// A line that belongs to the step above it.
    fn below(&self, inner: &mut Inner, text: &str) {
        self.styled_below(inner, text, &colour().dim());
    }

    fn styled_below(&self, inner: &mut Inner, text: &str, style: &Style) {
        let indent = if self.out.live && self.out.width() < 100 { NARROW } else { INDENT };
        self.wrapped(inner, indent, text, style);
    }

    /// A line with its beginning, broken where a terminal would break it.
    fn wrapped(&self, inner: &mut Inner, head: &str, text: &str, style: &Style) {
        // Below a step the rest of a line hangs under its words, not under its symbol.
        let hang = measure_text_width(head) + if head.trim().is_empty() { 2 } else { 0 };
        for part in lay(head, &self.out.commands(text), hang, self.out.room()) {
            self.line(inner, &format!("{}", style.apply_to(part)));
        }
    }

    /// The turn of the step behind `key` comes.
    fn next(&self, inner: &mut Inner, key: Option<&StepKey>) {
        let at = key.map_or(Some(0), |key| inner.order.iter().position(|k| k == key).map(|at| at + 1));
        if let Some(next) = at.and_then(|at| inner.order.get(at)).cloned() {
            self.busy(inner, &next, "looks");
        }
    }

    fn busy(&self, inner: &mut Inner, key: &StepKey, text: &str) {
        let now = self.clock.instant();
        let since = inner.now.as_ref().filter(|n| n.key == *key && n.text == text).map_or(now, |n| n.since);
        inner.now = Some(Now { key: key.clone(), text: text.to_owned(), since });
        self.draw(inner);
    }
}

fn whole(elapsed: std::time::Duration) -> std::time::Duration {
    let millis = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
    std::time::Duration::from_millis(if millis < 100 { millis } else { millis / 100 * 100 })
}

impl Ear for Live {
    fn event(&self, record: &Record) {
        if self.out.json
            && let Ok(line) = serde_json::to_string(record)
        {
            let mut stdout = io::stdout().lock();
            let _nobody_listens = writeln!(stdout, "{line}").and_then(|()| stdout.flush());
        }
        let (green, yellow, red, dim) = (colour().green(), colour().yellow(), colour().red(), colour().dim());
        self.with(|inner| {
            // An undo that is refused before it takes anything back does not begin.
            let begins = matches!(
                record.event,
                Event::Applying { .. } | Event::Asked { .. } | Event::Undoing { .. } | Event::Undone { .. }
            );
            if let Some(heading) = inner.heading.take_if(|_| begins) {
                self.line(inner, &heading);
            }
        });
        self.with(|inner| match &record.event {
            Event::Opened(opened) => {
                inner.titles.extend(opened.plan.iter().map(|p| (p.key.clone(), p.title.clone())));
                inner.order = opened.plan.iter().map(|p| p.key.clone()).collect();
                let what = opened.migration.as_deref().unwrap_or(&opened.blueprint);
                let text = format!("run {} of {what}, site {}", inner.run, opened.site);
                self.line(inner, &text);
                self.next(inner, None);
            }
            Event::Consented { thing } => self.line(inner, &format!("  ! may be destroyed: {thing}")),
            Event::Checked { key, answer, notes, back } => {
                // A preflight's notes stand in the plan, and are many.
                let counts = answer == "blocked" && !key.id().starts_with("00-");
                inner.blocked = counts.then(|| (key.clone(), notes.clone()));
                if self.out.verbose >= 2 {
                    let twin = if *back { "back" } else { "check" };
                    let text = format!("    {key} {twin}: {answer} {}", notes.join("; "));
                    self.line(inner, text.trim_end());
                }
            }
            // A step that asked a person changed nothing itself, and yet it was not "already so".
            Event::AlreadySo { key, notes, .. } if inner.asked.contains(key) => {
                self.so(inner, key, ("✓", THERE_NOW), &green, notes);
                self.next(inner, Some(key));
            }
            // Its title is not so, and need not be.
            Event::AlreadySo { key, needless: true, notes } => {
                self.because(inner, key, NOT_NEEDED, notes);
                self.next(inner, Some(key));
            }
            Event::AlreadySo { key, notes, .. } if not_needed(notes).is_some() => {
                self.because(inner, key, NOT_NEEDED, notes);
                self.next(inner, Some(key));
            }
            // Whoever says why a hold is not put up: its title is the state that it would bring about.
            Event::AlreadySo { key, notes, .. } if blueprint::is_hold(key.id()) && !notes.is_empty() => {
                self.because(inner, key, ("=", "already so"), notes);
                self.next(inner, Some(key));
            }
            Event::AlreadySo { key, notes, .. } => {
                self.so(inner, key, ("=", "already so"), &dim, notes);
                self.next(inner, Some(key));
            }
            Event::Applied { key, notes } => {
                self.so(inner, key, ("✓", "done"), &green, notes);
                self.next(inner, Some(key));
            }
            Event::Undone { key, notes, passed: true, .. } => self.so(inner, key, ("↶", "stays"), &yellow, notes),
            Event::Undone { key, notes, .. } => {
                self.settled(inner, key, ("↶", "undone"), &green, "");
                notes.iter().for_each(|note| self.below(inner, note));
            }
            Event::Applying { key, changes, .. } => {
                let title = inner.titles.get(key).cloned().unwrap_or_default();
                self.wrapped(inner, &format!("  ▸ {:<24} {:<11} ", key.to_string(), "begins"), &title, &colour());
                for change in changes {
                    self.styled_below(inner, &change.to_string(), &of_change(change.symbol));
                }
                inner.begun = Some(key.clone());
                inner.above = Some(key.clone());
                // As long as nothing of it is done, the wait for it has nothing to add.
                for change in changes {
                    fresh(&mut inner.reasons, &change.to_string(), true);
                }
                self.busy(inner, key, "begins");
            }
            Event::Undoing { key } => self.busy(inner, key, "is being taken back"),
            Event::Call { key, note, .. } => {
                if self.out.verbose >= 1 {
                    self.below(inner, &format!("> {}", note.text));
                }
                self.busy(inner, key, &note.text);
            }
            Event::Asked { key, ask, hint, .. } => {
                inner.asked.insert(key.clone());
                self.wrapped(inner, &format!("  ? {:<24} ", key.to_string()), &format!("please: {ask}"), &yellow);
                inner.above = Some(key.clone());
                if let Some(hint) = hint {
                    self.below(inner, hint);
                }
                self.busy(inner, key, "waits for you");
            }
            Event::HoldFell { key, .. } => self.line(inner, &format!("  ! {key:<24} does not stand any more")),
            Event::Failed { key, .. } => {
                self.settled(inner, key, ("✗", "stopped"), &red, "");
                let blocked = inner.blocked.take().filter(|(of, _)| of == key && self.out.verbose < 2);
                blocked.into_iter().flat_map(|(_, notes)| notes).for_each(|note| self.below(inner, &note));
            }
            Event::UndoFailed { key, .. } => self.settled(inner, key, ("✗", "undo failed"), &red, ""),
            Event::Interrupted { key } => self.settled(inner, key, ("✗", "interrupted"), &yellow, ""),
            Event::Closed { outcome: Outcome::Done } => self.line(inner, "done"),
            // What stays is said with it, at the very end.
            Event::Closed { outcome: Outcome::Undone }
            | Event::Got { .. }
            | Event::Filed { .. }
            | Event::Abandoned { .. } => {}
        });
        let hands = self.hands.lock().ok().and_then(|hands| hands.clone());
        if let Some(hands) = hands {
            hands.event(record);
        }
    }

    fn progress(&self, key: &StepKey, text: &str) {
        self.with(|inner| {
            if self.out.live {
                self.busy(inner, key, text);
            } else if inner.below != text {
                if inner.above.as_ref() != Some(key) {
                    // The line above is of the step before it.
                    let begun = if inner.order.is_empty() { "is being taken back" } else { "looks" };
                    self.line(inner, &format!("  … {:<24} {begun}", key.to_string()));
                    inner.above = Some(key.clone());
                }
                self.below(inner, text);
                inner.below = text.to_owned();
            }
        });
    }

    fn waiting(&self, key: &StepKey, word: &'static str, why: &str) {
        self.with(|inner| {
            // What is asked of a person is said by its event; what a step set out to do stands above a moving line.
            let said = word == "manual" || (word == "todo" && self.out.live);
            let part = if said { None } else { fresh(&mut inner.reasons, why, self.out.verbose > 0) };
            if let Some(part) = part {
                let head = format!("  … {:<24} {:<11} ", key.to_string(), word);
                let narrow = self.out.live && self.out.width() < 100;
                if narrow && measure_text_width(&head) + part.chars().count() > self.out.room() {
                    self.line(inner, head.trim_end());
                    self.wrapped(inner, NARROW, &part, &colour());
                } else {
                    self.wrapped(inner, &head, &part, &colour());
                }
                inner.above = Some(key.clone());
            }
            self.busy(inner, key, why);
        });
    }
}

/// The colour of a change, by what it does.
fn of_change(symbol: Symbol) -> Style {
    match symbol {
        Symbol::Add => colour().green(),
        Symbol::Remove => colour().red(),
        Symbol::Change => colour().yellow(),
        Symbol::Act => colour().cyan(),
    }
}

fn colour() -> Style {
    Style::new().for_stderr()
}
