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
use crate::talos::{EtcdMember, bolt};

use super::on;
use super::s01_snapshot::FILE;
use super::sight::{Life, life};
use super::swap::Swap;

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
                match snapshot(seen.run, &etcd.member_ids()) {
                    Some(Kept::Own) => {}
                    Some(Kept::Damaged(path)) => {
                        let text = format!("the snapshot of this run is not whole any more: {}", path.display());
                        let help =
                            "`pvemig abandon` this run, and begin another one, which takes a snapshot of its own";
                        return Ok(Check::blocked(vec![Problem::new(text, help)]).notes(notes));
                    }
                    Some(Kept::Other(line)) => notes.push(line),
                    None => {
                        let text = "no snapshot of this etcd is kept in this run, nor in another one of this site: with its members \
                                    changed nothing else brings it back";
                        let help = "`pvemig run` takes one first (01), and so does `pvemig step 01-snapshot`";
                        let problem = Problem::new(text, help).mended_by(on::SNAPSHOT);
                        return Ok(Check::blocked(vec![problem]).notes(notes));
                    }
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
                Ok(talos.etcd_leave(permit).await?)
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
            "the member {} ({}) is out of etcd and does not come back: etcd has {left}; a `pvemig resume` puts {} in its place, an \
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

/// A snapshot of etcd that is kept.
enum Kept {
    /// 01 of this run has it, and it is whole.
    Own,
    /// 01 of this run had it, and it is not whole any more: its file.
    Damaged(PathBuf),
    /// 01 of another run has it, and it is whole: which one.
    Other(String),
}

/// The snapshot that 01 has kept in this run; else, for this step alone, the newest whole one of this etcd in another run.
fn snapshot(run: &RunInfo, members: &BTreeSet<String>) -> Option<Kept> {
    let kept = |files: &Path| files.join(on::SNAPSHOT).join(FILE);
    let own = run.files.as_ref()?;
    let is_whole = |bytes: &[u8]| bolt::copied(bytes).is_ok_and(|copied| copied.digest);
    match std::fs::read(kept(own)) {
        Ok(bytes) if is_whole(&bytes) => return Some(Kept::Own),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        _ => return Some(Kept::Damaged(kept(own))),
    }
    let runs = own.parent()?.parent()?;
    let mut others: Vec<_> = (run.others.keys())
        .filter_map(|id| {
            let path = kept(&runs.join(id).join("files"));
            Some((std::fs::metadata(&path).ok()?.modified().ok()?, id, path))
        })
        .collect();
    others.sort();
    others.into_iter().rev().find_map(|(at, id, path)| {
        let bytes = std::fs::read(&path).ok()?;
        let whole = is_whole(&bytes);
        // The members are in it by their ids, as etcd writes them.
        let ours = members.iter().any(|member| names(&bytes, member.trim_start_matches('0').as_bytes()));
        let at = jiff::Timestamp::try_from(at).ok()?;
        (whole && ours).then(|| {
            Kept::Other(format!(
                "the snapshot of run {id}, of {at:.0}, is kept: {} ({} bytes)",
                path.display(),
                bytes.len()
            ))
        })
    })
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
