//! 06 where the system disk is replaced: the configuration fits the machine that waits for it, before anything is written.

use std::sync::Arc;

use crate::base::check::{Check, Problem};
use crate::base::drives::Plan;
use crate::base::fault::Failure;
use crate::blueprint::install::asked::runs_from;
use crate::blueprint::install::bare::still_waits;
use crate::blueprint::install::{Stand, Wanted};
use crate::engine::step::RunInfo;
use crate::estate::{Estate, surveyed};
use crate::talos::{ApplyMode, Error, Talos, kind};

use crate::blueprint::nvme_move::anew::{Anew, forgotten, selectors};
use crate::blueprint::nvme_move::on;
use crate::blueprint::nvme_move::sight::facts;

/// What the step is about.
pub(super) fn why(anew: &Anew) -> Vec<String> {
    let bare = &anew.bare;
    vec![
            format!("The configuration is {} with what the site says of the node merged in.", bare.source.shown()),
            "The machine checks it (a dry run), and each of its selectors is evaluated on the drives that are there: the installation \
             means exactly one disk, by its serial number, and a volume no two."
                .into(),
            "Volumes on drives that stay have their documents in it, else they would not be mounted any more.".into(),
            "Nothing is sent yet that the machine keeps: 06a does that.".into(),
            format!("By hand: `talosctl apply-config --insecure --dry-run -n {} -f FILE`.", bare.waits_at()),
        ]
}

/// Whether the configuration may be sent: Done, Blocked or Waiting.
///
/// # Errors
/// What keeps the machine, or its file, from telling.
pub(super) async fn check<B>(cx: &Estate, anew: &Anew, plan: &Plan, run: &RunInfo) -> Result<Check<B>, Failure> {
    let (bare, name) = (&anew.bare, anew.bare.name());
    Ok(match bare.stand(cx).await? {
        Stand::Ours(talos) => match runs_from(&talos).await? {
            Some((_, serial)) if serial == bare.disk => {
                Check::not_needed(format!("{name} runs from disk {serial}, with its configuration"))
            }
            Some((id, serial)) => Check::blocked(vec![
                Problem::new(
                    format!("{name} runs from {id} ({serial}), and does not wait for its configuration"),
                    "its former system disk is to be out of it, and it is to be booted from the medium; `pvemig resume` asks again",
                )
                .mended_by(on::MOVE),
            ]),
            None => Check::waiting(format!("{name} has its configuration, and does not run from its disk yet")),
        },
        Stand::Foreign => Check::blocked(vec![bare.foreign()]),
        Stand::Silent(why) => Check::waiting(format!("{name} does not wait for its configuration: {why}")),
        Stand::Waits(talos) if !still_waits(&talos).await? => Check::waiting(format!("{name} installs itself")),
        Stand::Waits(talos) => {
            let wanted = bare.wanted().await?;
            let mut problems = anew.another(cx, run, &talos).await?;
            problems.extend(amiss(cx, anew, plan, run, (&talos, &wanted)).await?);
            if problems.is_empty() {
                problems.extend(refused(anew, &talos, &wanted).await?);
            }
            if problems.is_empty() {
                Check::done().note(format!("{} fits: {name} is to be installed on disk {}", bare.source.shown(), bare.disk))
            } else {
                Check::blocked(problems)
            }
        }
    })
}

/// What the machine itself has against it.
async fn refused(anew: &Anew, waits: &Talos, wanted: &Wanted) -> Result<Option<Problem>, Failure> {
    match waits.dry_run(wanted.expose(), ApplyMode::Auto).await {
        Ok(_) => Ok(None),
        Err(error @ Error::Invalid { .. }) => Ok(Some(Problem::new(
            format!("{} does not take {}: {error}", anew.bare.name(), anew.bare.source.shown()),
            "correct the file, or `patches` of the migration: `talosctl validate -m metal -c FILE`",
        ))),
        Err(error) => Err(error.into()),
    }
}

/// What of the drives speaks against it.
async fn amiss(
    cx: &Estate,
    anew: &Anew,
    plan: &Plan,
    run: &RunInfo,
    (waits, wanted): (&Arc<Talos>, &Wanted),
) -> Result<Vec<Problem>, Failure> {
    let (bare, shown) = (&anew.bare, anew.bare.source.shown());
    let disks: Vec<_> = waits.list(&kind::DISKS).await?.into_iter().filter(|disk| disk.spec.is_hardware()).collect();
    let disks: Vec<_> = disks.into_iter().map(surveyed).collect();
    let mut problems = selectors(&shown, &wanted.facts, &bare.disk, &disks);
    let live = Box::pin(cx.inventory_waiting(bare.name(), waits)).await?;
    problems.extend(anew.in_use(run, &live)?);
    if let Some(facts) = facts(&bare.machine, run)? {
        let before = facts.bays.inventory();
        let before = before.map_err(|why| Failure::plain(why.unknown.clone(), why.help.clone()))?;
        problems.extend(forgotten(bare.name(), &shown, &wanted.facts, plan, &before));
    }
    Ok(problems)
}
