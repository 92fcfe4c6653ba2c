//! How the drives of a machine stand against a layout, and what a run remembers of how they stood.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use crate::base::check::Problem;
use crate::base::drives::sheet::{Machine as Facts, Sheet, Told};
use crate::base::drives::{
    By, Found, Inventory, Layout, Odd, Plan, Port, Purpose, Sight, Unasked, name, placed, ports,
};
use crate::base::fault::Failure;
use crate::base::wait::pause;
use crate::blueprint::backup::kept;
use crate::blueprint::machine::Machine;
use crate::blueprint::off::{Off, two_ways};
use crate::engine::step::RunInfo;
use crate::estate::Estate;
use crate::talos::Talos;
use crate::talos::kind::Stage;

use super::anew::Anew;
use super::behind;
use super::diagnose;
use super::on;
use super::remembered::seen_last;
use super::s01_backup::{INVENTORY, STANDS};
use super::stands::{Placed, Stands, stands, with_ports};
use super::way_out::ONCE_MORE;

/// How the drives were when nothing had been moved yet.
pub(super) struct Known {
    /// The plan, with the ports that are known, and as `current` what `before` shows.
    pub(super) plan: Plan,
    /// Its drives then; empty where that is not known.
    pub(super) before: Inventory,
    /// Which of the two layouts it was in is a guess: nothing is proven by it.
    pub(super) guessed: bool,
}

/// How long a machine that boots, or waits, may take to find its drives, and to look at what is on them.
const DISCOVERS: Duration = Duration::from_secs(10);

/// How a machine and its drives stand.
pub(super) enum Stand {
    /// Each drive is where it belongs: what is worth to be said.
    There(Vec<String>),
    /// It answers, and these are not as they should be.
    Amiss(Vec<Problem>, Vec<String>),
    /// It waits for its configuration, booted from a medium, and these are not as they should be; none: each drive is where it
    /// belongs.
    Waits(Arc<Talos>, Vec<Problem>, Vec<String>),
    /// It is on its way by itself.
    Between(String),
    /// Somebody else answers at its address.
    Other(String),
    /// It is off, as two ways show.
    Off(String),
    /// It is on and does not answer: it boots, or stays in its firmware.
    Deaf(String),
}

/// What the run has kept of the machine before: 01's inventory, as a sheet.
///
/// # Errors
/// It is there and cannot be read.
pub(super) fn facts(machine: &Machine, run: &RunInfo) -> Result<Option<Facts>, Failure> {
    let Some(bytes) = kept(run, on::BACKUP, INVENTORY, "the inventory")? else { return Ok(None) };
    let unread = |why: String| {
        let help = "`pvemig abandon` this run, and begin another one".to_owned();
        Failure::plain(format!("the inventory of this run cannot be read: {why}"), Some(help))
    };
    let text = String::from_utf8(bytes).map_err(|error| unread(error.to_string()))?;
    let mut sheet: Sheet = serde_saphyr::from_str(&text).map_err(|error| unread(error.to_string()))?;
    match sheet.nodes.remove(&machine.name) {
        Some(Told::Is(facts)) => Ok(Some(facts)),
        Some(Told::Not(why)) => Err(unread(why.unknown)),
        None => Err(unread(format!("{} is not in it", machine.name))),
    }
}

/// The ports of the slots that earlier runs of this site have learned; the newest one's count.
///
/// # Errors
/// What was kept cannot be read.
pub(super) fn learned(cx: &Estate, machine: &Machine, run: &RunInfo) -> Result<BTreeMap<String, Port>, Failure> {
    let runs = cx.journals().join("runs");
    let failed = |path: &std::path::Path, why: String| {
        let help = "`pvemig runs` names the run; a damaged one is put aside by hand".to_owned();
        Failure::plain(format!("{} cannot be read: {why}", path.display()), Some(help))
    };
    let entries = match fs::read_dir(&runs) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(BTreeMap::new()),
        Err(error) => return Err(failed(&runs, error.to_string())),
    };
    let mut newest: Option<Stands> = None;
    for entry in entries {
        let entry = entry.map_err(|error| failed(&runs, error.to_string()))?;
        let path = entry.path().join("files").join(on::BACKUP).join(STANDS);
        if entry.file_name().to_string_lossy() == run.id.as_str() {
            continue;
        }
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => continue,
            Err(error) => return Err(failed(&path, error.to_string())),
        };
        let stands: Stands = serde_json::from_slice(&bytes).map_err(|error| failed(&path, error.to_string()))?;
        let newer = newest.as_ref().is_none_or(|other| other.taken < stands.taken);
        if stands.node == machine.name && newer && !stands.guessed {
            newest = Some(stands);
        }
    }
    Ok(newest.map(|stands| stands.ports).unwrap_or_default())
}

/// What is known of how the drives were. `live`: how they are, for a step that stands alone.
///
/// # Errors
/// What was kept cannot be read, or what is on a drive would have to be known and is not.
pub(super) fn known(
    cx: &Estate,
    machine: &Machine,
    plan: &Plan,
    run: &RunInfo,
    live: Option<&Inventory>,
) -> Result<Known, Failure> {
    let (at, before) = match (facts(machine, run)?, kept(run, on::BACKUP, STANDS, "the inventory")?) {
        (Some(facts), Some(bytes)) => {
            let at: Stands = serde_json::from_slice(&bytes)
                .map_err(|error| Failure::plain(format!("{STANDS} of this run cannot be read: {error}"), None))?;
            let before = facts.bays.inventory();
            let before = before.map_err(|why| Failure::plain(why.unknown.clone(), why.help.clone()))?;
            (Placed { layout: at.layout, ports: at.ports, guessed: at.guessed }, before)
        }
        _ => {
            let learned = learned(cx, machine, run)?;
            match live {
                Some(live) => (stands(plan, &learned, live).map_err(unasked)?, live.clone()),
                None => (Placed { ports: learned, ..Placed::default() }, Inventory::default()),
            }
        }
    };
    let Placed { layout, ports, guessed } = at;
    let mut plan = with_ports(plan, &ports);
    if layout.is_empty() {
        return Ok(Known { plan, before: Inventory::default(), guessed });
    }
    plan.current = layout;
    Ok(Known { plan, before, guessed })
}

/// Where it was guessed how the drives were, nothing says that they are where they belong.
fn not_a_guess(machine: &Machine, known: &Known) -> Result<(), Failure> {
    if !known.guessed {
        return Ok(());
    }
    let text =
        format!("whether the drives of {} were moved already cannot be told: no port tells their slots", machine.name);
    let help = "`pvemig plan` says of which slot one is needed, and where to look; then a new run".to_owned();
    Err(Failure::plain(text, Some(help)))
}

/// What would have to be known and is not.
pub(super) fn unasked(why: Unasked) -> Failure {
    Failure::plain(why.to_string(), Some("the node may still be booting; `pvemig resume` asks again".into()))
}

/// How a machine and its drives stand against a layout. `anew`: it may wait for its configuration.
///
/// # Errors
/// What keeps the machine from telling.
pub(super) async fn stand(
    cx: &Estate,
    machine: &Machine,
    plan: &Plan,
    run: &RunInfo,
    layout: &Layout,
    anew: Option<&Anew>,
) -> Result<Stand, Failure> {
    let ways = two_ways(cx, machine).await?;
    let may_wait =
        !matches!(ways, Off::Between(_)) && !matches!(ways, Off::On(_, stage) if stage != Stage::Maintenance);
    // Also of one that is off, as both ways say: it may wait at another address.
    if let Some(anew) = anew.filter(|_| may_wait)
        && let Some(talos) = anew.waits(cx).await?
    {
        return waiting(cx, machine, plan, run, layout, (anew, talos)).await;
    }
    let (talos, stage) = match ways {
        Off::On(_, Stage::Maintenance) => {
            return Ok(Stand::Other(format!("{} waits for a configuration", machine.name)));
        }
        Off::On(talos, stage) => (talos, stage),
        Off::Between(why) => return Ok(Stand::Between(why)),
        Off::Other(why) => return Ok(Stand::Other(why)),
        Off::Off(how) => return Ok(Stand::Off(how)),
        Off::Deaf(why) => return Ok(Stand::Deaf(why)),
        Off::Silent(why) => return Ok(Stand::Between(why)),
    };
    let mut looked = false;
    loop {
        let live = behind::inventory(cx, machine).await?;
        let known = known(cx, machine, plan, run, Some(&live))?;
        not_a_guess(machine, &known)?;
        let sight = match placed(&known.plan, layout, &known.before, &live) {
            Ok(sight) => sight,
            Err(why) if stage != Stage::Running => {
                return Ok(Stand::Between(format!("{} boots: {why}", machine.name)));
            }
            Err(why) => return Err(unasked(why)),
        };
        let Some(first) = sight.odd.first() else {
            return judged(machine, &known.plan, layout, &sight, &live, Some(stage)).map(|judged| match judged {
                Judged::So(mut notes) => {
                    notes.extend(to_write(plan, &sight, &live));
                    Stand::There(notes)
                }
                Judged::Not(problems, notes) => Stand::Amiss(problems, notes),
                Judged::Between(why) => Stand::Between(why),
            });
        };
        // What is on a drive shows only once the node has looked: until then one may look empty, or like none of ours.
        if stage != Stage::Running && sight.odd.iter().any(by_content) {
            return Ok(Stand::Between(format!("{} boots: {}", machine.name, first.text(&known.plan, &live))));
        }
        // A drive may take seconds to come up.
        if stage != Stage::Running && !looked {
            looked = true;
            pause(cx.clock(), DISCOVERS).await;
            continue;
        }
        let problems = sight.odd.iter().map(|odd| told(machine, odd, &known.plan, &live));
        return Ok(Stand::Amiss(problems.collect(), causes(&talos, &known.plan, &sight, &live).await));
    }
}

/// A drive that is not as it should be. One that hands put right is put right with the machine off; in a VM's host nothing can
/// be looked at before.
fn told(machine: &Machine, odd: &Odd, plan: &Plan, live: &Inventory) -> Problem {
    let problem = Problem::new(odd.text(plan, live), odd.help(plan));
    let by_hand = matches!(
        odd,
        Odd::Missing { .. } | Odd::Dead { .. } | Odd::WrongSlot { .. } | Odd::StillIn { .. } | Odd::TwoOfOne { .. }
    );
    match (by_hand, &machine.vm) {
        (true, _) => problem.mended_by(on::SHUTDOWN),
        (false, Some(_)) => {
            let help = format!("{}; then {ONCE_MORE}", problem.help);
            Problem { help, ..problem }.mended_by(on::SHUTDOWN)
        }
        (false, None) => problem,
    }
}

/// What tells a drive by what is on it.
fn by_content(odd: &Odd) -> bool {
    matches!(odd, Odd::Stranger { .. } | Odd::Wiped { .. } | Odd::Alike { .. } | Odd::TwoOfOne { .. })
}

/// The drives of a machine that waits for its configuration.
async fn waiting(
    cx: &Estate,
    machine: &Machine,
    plan: &Plan,
    run: &RunInfo,
    layout: &Layout,
    (anew, talos): (&Anew, Arc<Talos>),
) -> Result<Stand, Failure> {
    let another = anew.another(cx, run, &talos).await?;
    if !another.is_empty() {
        return Ok(Stand::Waits(talos, another, Vec::new()));
    }
    let mut looked = false;
    loop {
        let live = Box::pin(cx.inventory_waiting(&machine.name, &talos)).await?;
        let known = known(cx, machine, plan, run, Some(&live))?;
        not_a_guess(machine, &known)?;
        let sight = placed(&known.plan, layout, &known.before, &live);
        // It answers as soon as it is up, and may not have looked at each drive by then.
        let early = sight.as_ref().map_or(true, |sight| sight.odd.iter().any(by_content));
        if early && !looked {
            looked = true;
            pause(cx.clock(), DISCOVERS).await;
            continue;
        }
        let sight = sight.map_err(unasked)?;
        if sight.odd.is_empty() {
            return Ok(match judged(machine, &known.plan, layout, &sight, &live, None)? {
                Judged::So(notes) => Stand::Waits(talos, Vec::new(), notes),
                Judged::Not(problems, notes) => Stand::Waits(talos, problems, notes),
                Judged::Between(why) => Stand::Between(why),
            });
        }
        let problems = sight.odd.iter().map(|odd| told(machine, odd, &known.plan, &live));
        return Ok(Stand::Waits(talos, problems.collect(), Vec::new()));
    }
}

/// What drives that are where they belong come to.
enum Judged {
    So(Vec<String>),
    Not(Vec<Problem>, Vec<String>),
    Between(String),
}

/// Every drive is where it belongs; is it what it is for? `stage`: None of one that waits, and runs from none of them.
fn judged(
    machine: &Machine,
    plan: &Plan,
    layout: &Layout,
    sight: &Sight,
    live: &Inventory,
    stage: Option<Stage>,
) -> Result<Judged, Failure> {
    let mut problems = Vec::new();
    let mut notes = Vec::new();
    for found in &sight.found {
        let (Some(drive), Some(wanted)) = (live.drives.get(found.at), plan.drives.get(&found.name)) else { continue };
        let slot = found.slot.as_deref().unwrap_or("?");
        notes.push(format!("{} is {} in {slot}, by {}", found.name, drive.shown(), by(&found.by)));
        notes.extend(found.notes.iter().map(|note| format!("{}: {note}", found.name)));
        let of_no_matter = wanted.new || wanted.purposes == [Purpose::Spare];
        if found.by == By::Place && !of_no_matter {
            let text = format!(
                "that {} is in {slot} nothing proves: it is blank, and its serial number is others' too",
                found.name
            );
            let help = format!("it is to hold {}: find out which drive that is on", purposes(&wanted.purposes));
            problems.push(Problem::new(text, help));
        }
        let system = plan.system_in(layout).is_some_and(|(name, _)| name == found.name);
        if let Some(stage) = stage.filter(|_| system && !drive.purposes.contains(&Purpose::System)) {
            if let Some(why) = live.not_asked.iter().find(|line| line.starts_with("which disk it is installed on")) {
                return Err(Failure::plain(format!("{}: {why}", machine.name), None));
            }
            if stage != Stage::Running {
                return Ok(Judged::Between(format!("{} boots: it does not tell its system disk yet", machine.name)));
            }
            let text = format!("{} runs, and not from {} ({})", machine.name, found.name, drive.shown());
            let help = "see the boot order of its firmware, and what else is plugged in".to_owned();
            problems.push(Problem::new(text, help));
        }
    }
    Ok(if problems.is_empty() { Judged::So(notes) } else { Judged::Not(problems, notes) })
}

/// The ports of the slots that the site file has none of: with them nobody has to learn which slot is which.
fn to_write(plan: &Plan, sight: &Sight, live: &Inventory) -> Option<String> {
    let one = |found: &Found| {
        let slot = plan.slots.iter().find(|slot| Some(&slot.name) == found.slot.as_ref() && slot.port.is_none())?;
        Some(format!("{} is at `port: \"{}\"`", slot.name, live.drives.get(found.at)?.port()?))
    };
    let all: Vec<String> = sight.found.iter().filter_map(one).collect();
    (!all.is_empty()).then(|| format!("the site file has no port of these slots: {}", all.join(", ")))
}

fn purposes(all: &[Purpose]) -> String {
    all.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn by(by: &By) -> &'static str {
    match by {
        By::Serial => "its serial number",
        By::Partitions { .. } => "what is on it",
        By::Wwid => "its World Wide Name",
        By::Kind => "its model and size",
        By::Place => "its place alone",
    }
}

/// What the kernel says of drives that are not seen.
async fn causes(talos: &Talos, plan: &Plan, sight: &Sight, live: &Inventory) -> Vec<String> {
    let unseen = |odd: &&Odd| matches!(odd, Odd::Missing { .. } | Odd::Dead { .. });
    if !sight.odd.iter().any(|odd| unseen(&odd)) {
        return Vec::new();
    }
    match talos.dmesg().await {
        Ok(log) => {
            sight.odd.iter().filter(unseen).flat_map(|odd| diagnose::not_detected(plan, odd, live, &log)).collect()
        }
        Err(error) => vec![format!("the kernel's log could not be read: {error}")],
    }
}

/// Where the drives were when the machine answered last.
///
/// # Errors
/// What was kept cannot be read.
pub(super) fn last(known: &Known, run: &RunInfo) -> Result<Layout, Failure> {
    Ok(seen_last(run)?.unwrap_or_else(|| known.plan.current.clone()))
}

/// Which drive is in which slot now, as far as it is recognised. `waits`: it is asked there, as it waits for its configuration.
///
/// # Errors
/// What keeps the machine from telling.
pub(super) async fn layout_now(
    cx: &Estate,
    machine: &Machine,
    plan: &Plan,
    run: &RunInfo,
    waits: Option<&Talos>,
) -> Result<Layout, Failure> {
    let live = match waits {
        Some(talos) => Box::pin(cx.inventory_waiting(&machine.name, talos)).await?,
        None => behind::inventory(cx, machine).await?,
    };
    let known = known(cx, machine, plan, run, Some(&live))?;
    seats(&known, &plan.target, &live).map_err(unasked)
}

/// Which drive is in which slot. Of a slot in which nothing was seen before, the layout that is wanted tells; where it is the
/// only such slot, that.
pub(super) fn seats(known: &Known, target: &Layout, live: &Inventory) -> Result<Layout, Unasked> {
    let sight = placed(&known.plan, target, &known.before, live)?;
    let mut out: Layout = BTreeMap::new();
    let mut left = Vec::new();
    for found in &sight.found {
        match &found.slot {
            Some(slot) => drop(out.insert(slot.clone(), found.name.clone())),
            None => left.push(found),
        }
    }
    let ports = ports(&known.plan, &name(&known.plan, &known.before)?, &known.before);
    let unseen: Vec<&String> = known
        .plan
        .slots
        .iter()
        .map(|slot| &slot.name)
        .filter(|slot| !ports.contains_key(*slot) && !out.contains_key(*slot))
        .collect();
    if let ([slot], [one]) = (unseen.as_slice(), left.as_slice()) {
        out.insert((*slot).clone(), one.name.clone());
    }
    Ok(out)
}
