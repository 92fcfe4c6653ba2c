//! 03: the old node's member is out of etcd: it leaves where it is alive, and is removed by another one where it is dead.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::base::check::{Change, Check, Problem};
use crate::base::fault::Failure;
use crate::base::permit::{Permit, System};
use crate::blueprint::quorum::{self, Etcd, Leave, Said, leave, look};
use crate::engine::step::{Outlook, Risk, RunInfo, Seen, Step};
use crate::estate::Estate;
use crate::talos::{EtcdMember, Leaving, bolt};

use super::on;
use super::s01_snapshot::FILE;
use super::sight::{Life, life};
use super::swap::Swap;
use super::word;

/// Takes the old member out of etcd.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LeaveEtcd {
    /// What goes and what comes.
    pub swap: Swap,
}

/// The member that there was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Before {
    /// Its id, in 16 hexadecimal digits.
    pub member: String,
    /// Whether its machine was alive: then it leaves by itself.
    pub alive: bool,
}

impl Step<Estate> for LeaveEtcd {
    const ID: &'static str = "03-leave-or-remove";
    const RISK: Risk = Risk::Destroys;
    type Before = Before;

    fn title(&self) -> String {
        format!("{} has no vote in etcd any more", self.swap.goer())
    }

    fn why(&self) -> Vec<String> {
        let name = self.swap.old();
        vec![
            "A member that is dead counts as a voter all the same: with it there, the new one would make four of which one never \
             answers. So it goes first, and only where the others have their majority without it."
                .into(),
            "One that is alive hands its leadership over and leaves by itself, which deletes its data of etcd. It would join again at \
             its next boot: so 04 switches it off right behind it."
                .into(),
            "Talos removes a member of its own name by itself when it joins; it is removed here all the same, while the arithmetic can \
             still be shown and refused."
                .into(),
            "Never from three to two to one: what is left must be two that are well. With two, or one, a control plane is added first \
             (by a `cluster-build`)."
                .into(),
            format!(
                "By hand, alive: {} and {}; dead, asked of another control plane: `talosctl etcd members`, `talosctl etcd \
                 remove-member ID`.",
                self.swap.old.talosctl("etcd forfeit-leadership"),
                self.swap.old.talosctl("etcd leave")
            ),
            format!("It takes `--destroy {}`: a member does not come back, {name} would have to be built anew.", self.swap.member()),
        ]
    }

    fn limit(&self) -> Duration {
        Duration::from_secs(120)
    }

    fn outlook(&self, _cx: &Estate) -> Outlook {
        // A worker has none.
        if self.swap.worker {
            return Outlook { spares: true, ..Outlook::default() };
        }
        let what = format!("the member {} of etcd, where it has one", self.swap.host());
        Outlook {
            destroys: vec![self.swap.member()],
            words: vec![self.swap.off()],
            may_destroy: &["off"],
            ..Outlook::changes(System::Talos, [what])
        }
    }

    async fn check(&self, cx: &Estate, seen: Seen<'_, Before>) -> Result<Check<Before>, Failure> {
        let etcd = look(cx, &self.swap.old.cluster, &self.swap.peers).await;
        let life = life(cx, &self.swap).await?;
        let stood = self.stands(&etcd, &life, seen.since, seen.run);
        Ok(match stood {
            Stood::Out(note) if seen.since.is_some() => Check::done().note(note),
            Stood::Out(note) => Check::not_needed(note),
            Stood::New => {
                Check::not_needed(format!("the member {} of etcd is {}", self.swap.host(), self.swap.comer()))
            }
            Stood::Waits(why) => Check::waiting(why),
            Stood::Shut(problems) => Check::blocked(problems),
            Stood::Goes { member, alive, sum } => {
                let mut notes = vec![sum];
                if !seen.run.consents.contains(&self.swap.member()) {
                    return Ok(Check::blocked(vec![unconsented(&self.swap)]).notes(notes));
                }
                match snapshot(seen.run, &etcd.member_ids(), cx.clock().now()) {
                    Ok(line) => notes.push(line),
                    Err(problem) => return Ok(Check::blocked(vec![problem]).notes(notes)),
                }
                match &life {
                    Life::Off(how) => notes.push(format!("{} is off: {how}", self.swap.goer())),
                    Life::Silent(silence) => notes.push(format!("{} is silent: {}", self.swap.goer(), silence.how)),
                    _ => {}
                }
                let how = if alive { "leaves, and its data of etcd is deleted" } else { "is removed" };
                let change = Change::remove("etcd", format!("member {} ({}) {how}", member.name(), member.hex()));
                Check::todo(vec![change], Before { member: member.hex(), alive }).notes(notes)
            }
        })
    }

    async fn apply(&self, cx: &Estate, seen: Seen<'_, Before>, permit: &Permit) -> Result<(), Failure> {
        let Some(since) = seen.since else { return Ok(()) };
        // Everything once more: from here on there is no way back.
        let etcd = look(cx, &self.swap.old.cluster, &self.swap.peers).await;
        let life = life(cx, &self.swap).await?;
        word::keep(&life, &self.swap, seen.run, permit).await?;
        let member = match self.stands(&etcd, &life, Some(since), seen.run) {
            Stood::Out(_) | Stood::New => return Ok(()),
            Stood::Waits(why) => return Err(Failure::plain(why, None)),
            Stood::Shut(problems) => {
                let (text, help): (Vec<_>, Vec<_>) = problems.into_iter().map(|p| (p.text, p.help)).unzip();
                return Err(Failure::plain(text.join("; "), help.into_iter().next()));
            }
            Stood::Goes { member, .. } => member,
        };
        permit.may_destroy(&self.swap.member())?;
        match life {
            Life::Alive(talos) => {
                quorum::pass(cx, &self.swap.old.cluster, self.swap.old(), &self.swap.peers, permit).await?;
                Ok(talos.etcd_leave(permit, Leaving::ForGood).await?)
            }
            _ => {
                let Some(by) = etcd.voter_beside(self.swap.old()) else {
                    return Err(Failure::plain("no other control plane tells the members of etcd any more", None));
                };
                Ok(cx.talos(by).await?.etcd_remove(permit, &member).await?)
            }
        }
    }

    async fn back(&self, cx: &Estate, before: &Before, _: Seen<'_, Before>) -> Result<Check<()>, Failure> {
        let etcd = look(cx, &self.swap.old.cluster, &self.swap.peers).await;
        if quorum::votes(&etcd).is_none() {
            let why = nobody(&etcd);
            return Err(Failure::plain(why.text, Some(why.help)));
        }
        if etcd.member_ids().contains(&before.member) {
            return Ok(Check::done().note(format!("the member {} is there, as before", before.member)));
        }
        let left = quorum::votes(&etcd).map(|votes| votes.to_string()).unwrap_or_default();
        let change = Change::act(format!(
            "the member {} ({}) is out of etcd and does not come back: etcd has {left}; as long as this run is open `pvemig resume` puts {} in its place, an \
             undo leaves a voter short",
            self.swap.host(),
            before.member,
            self.swap.comer()
        ));
        Ok(Check::todo(vec![change], ()))
    }
}

/// How the member stands.
enum Stood {
    /// It has none.
    Out(String),
    /// The member of that name is the new machine's.
    New,
    Waits(String),
    Shut(Vec<Problem>),
    Goes {
        member: EtcdMember,
        alive: bool,
        sum: String,
    },
}

impl LeaveEtcd {
    fn stands(&self, etcd: &Etcd, life: &Life, since: Option<&Before>, run: &RunInfo) -> Stood {
        let (name, host) = (self.swap.old(), self.swap.host());
        if matches!(life, Life::Replaced) {
            return Stood::New;
        }
        let alive = matches!(life, Life::Alive(_));
        let (member, sum) = match leave(name, host, alive, etcd) {
            Leave::NoMember => return Stood::Out(format!("etcd has no member {host}{}", votes_of(etcd))),
            Leave::NoCluster if since.is_some() => {
                return Stood::Waits("nobody tells the members of etcd at the moment".into());
            }
            Leave::NoCluster => return Stood::Shut(vec![nobody(etcd)]),
            // An election, or members that do not agree yet.
            Leave::Shut(problems) if since.is_some_and(|since| !is_there(etcd, since)) => {
                return Stood::Waits(problems.into_iter().next().map(|p| p.text).unwrap_or_default());
            }
            Leave::Shut(problems) => return Stood::Shut(problems),
            Leave::Open { member, sum, .. } => (member, sum),
        };
        if let Some(since) = since.filter(|since| since.member == member.hex() && since.alive != alive) {
            let (was, is) = if since.alive { ("alive", "does not answer now") } else { ("dead", "answers again") };
            return Stood::Shut(vec![Problem::new(
                format!("{name} was {was} when this step began, and {is}: its member is not touched"),
                "`pvemig abandon` this run, and begin another one, which shows what it would do by now",
            )]);
        }
        match life {
            Life::Alive(_) => Stood::Goes { member, alive, sum },
            Life::Going => Stood::Waits(format!("{name} is going down, by whom is not known")),
            Life::Unknown(why) => Stood::Shut(vec![Problem::new(
                format!("whether {name} is alive is not known: {why}"),
                off_or_on(&self.swap),
            )]),
            // Never the member of a machine that answers.
            _ if runs(etcd, &member) => Stood::Shut(vec![Problem::new(
                format!(
                    "member {host} ({}) of etcd answers, and {name} does not: it is another machine's",
                    member.hex()
                ),
                "`pvemig survey` shows who is who",
            )]),
            _ => match life.unsure(&self.swap, run) {
                Some(problem) => Stood::Shut(vec![problem]),
                None => Stood::Goes { member, alive: false, sum },
            },
        }
    }
}

/// Why nothing goes on behind 03: the old machine is a member, still or again. A plan asks that
/// before anything was done.
pub(super) async fn is_back(cx: &Estate, swap: &Swap, run: &RunInfo) -> Option<Problem> {
    if run.id.is_empty() {
        return None;
    }
    let etcd = look(cx, &swap.old.cluster, &swap.peers).await;
    (!etcd.ids_of(swap.host()).is_empty()).then(|| {
        Problem::new(
            format!(
                "{} is a member of etcd: 03 has not taken it out, or it was started again with its old disk",
                swap.goer()
            ),
            format!(
                "where it was started again, switch it off ({}); then `pvemig step {}{} --destroy {}` takes its member out again, and `pvemig resume` goes on",
                swap.old.talosctl("shutdown --force"),
                on::LEAVE,
                run.migration.as_ref().map(|name| format!(" -m {name}")).unwrap_or_default(),
                swap.member()
            ),
        )
    })
}

/// The snapshot that 01 has kept in this run; else, for this step alone, the newest whole one of this etcd in another run:
/// a line that names it.
fn snapshot(run: &RunInfo, members: &BTreeSet<String>, now: jiff::Timestamp) -> Result<String, Problem> {
    let kept = |files: &Path| files.join(on::SNAPSHOT).join(FILE);
    let none = || {
        let text = "no snapshot of this etcd is kept in this run, nor a whole one in another run of this site: with its members changed \
                    nothing else brings it back";
        let migration = run.migration.as_ref().map(|name| format!(" -m {name}")).unwrap_or_default();
        let help = format!("`pvemig run` takes one first (01), and so does `pvemig step {}{migration}`", on::SNAPSHOT);
        Problem::new(text, help).mended_by(on::SNAPSHOT)
    };
    let own = run.files.as_ref().ok_or_else(none)?;
    // What cannot be asked for is not called absent.
    if kept(own).try_exists().unwrap_or(true) {
        return of_this_etcd(&kept(own), "this run", members, now).map_err(|why| {
            Problem::new(
                format!("the snapshot of this run, {}, does not count: {why}", kept(own).display()),
                "`pvemig abandon` this run, and begin another one, which takes a snapshot of its own",
            )
        });
    }
    let runs = own.parent().and_then(Path::parent).ok_or_else(none)?;
    let mut others: Vec<_> = (run.others.keys())
        .filter_map(|id| {
            let path = kept(&runs.join(id).join("files"));
            Some((std::fs::metadata(&path).ok()?.modified().ok()?, id, path))
        })
        .collect();
    others.sort();
    let whole = |(_, id, path): (_, &String, PathBuf)| of_this_etcd(&path, &format!("run {id}"), members, now).ok();
    others.into_iter().rev().find_map(whole).ok_or_else(none)
}

/// Holds a snapshot against its digest and the members that etcd has: a line with its moment and its age, or why it does
/// not count.
fn of_this_etcd(path: &Path, whose: &str, members: &BTreeSet<String>, now: jiff::Timestamp) -> Result<String, String> {
    let bytes = std::fs::read(path).map_err(|error| error.to_string())?;
    if !bolt::copied(&bytes)?.digest {
        return Err("it has no digest at its end".into());
    }
    // The members are in it by their ids, as etcd writes them.
    if !members.iter().any(|member| names(&bytes, member.trim_start_matches('0').as_bytes())) {
        return Err("it names none of the members that etcd has".into());
    }
    let written = std::fs::metadata(path).and_then(|meta| meta.modified()).map_err(|error| error.to_string())?;
    let at = jiff::Timestamp::try_from(written).map_err(|error| error.to_string())?;
    // A clock that was set back tells no age.
    let age = match now.duration_since(at).as_hours() {
        hours @ 2..48 => format!(" ({hours} hours old)"),
        hours @ 48.. => format!(" ({} days old)", hours / 24),
        _ => String::new(),
    };
    Ok(format!("the snapshot of {whose}, of {at:.0}{age}, is kept: {} ({} bytes)", path.display(), bytes.len()))
}

fn names(bytes: &[u8], word: &[u8]) -> bool {
    !word.is_empty() && bytes.windows(word.len()).any(|part| part == word)
}

/// What to do about a machine of which nobody knows whether it is alive.
pub(super) fn off_or_on(swap: &Swap) -> String {
    match &swap.old.vm {
        Some(vm) => format!("let it answer, or `qm stop {}` once it is certain that it may go", vm.vmid),
        None => "let it answer, or switch it off: a minute later its kubelet is silent, and your word that it is off is asked for".into(),
    }
}

/// The consent that is missing.
pub(super) fn unconsented(swap: &Swap) -> Problem {
    Problem::new(
        format!("the member {} would go from etcd for good", swap.host()),
        format!("add `--destroy {}` where it may", swap.member()),
    )
}

fn nobody(etcd: &Etcd) -> Problem {
    let why: Vec<String> = etcd.silent().map(|(name, why)| format!("{name}: {why}")).collect();
    Problem::new(
        format!("no control plane tells the members of etcd ({})", why.join("; ")),
        "let one of them answer; where they are gone for good, `pvemig explain quorum-recover`",
    )
}

fn votes_of(etcd: &Etcd) -> String {
    quorum::votes(etcd).map(|votes| format!(" ({votes})")).unwrap_or_default()
}

/// Whether the member of the before-image is still there.
fn is_there(etcd: &Etcd, since: &Before) -> bool {
    etcd.member_ids().contains(&since.member)
}

/// Whether a member answers, whoever's it is.
fn runs(etcd: &Etcd, member: &EtcdMember) -> bool {
    etcd.said.iter().any(|(_, said)| matches!(said, Said::View(view) if view.status.member == member.id))
}
