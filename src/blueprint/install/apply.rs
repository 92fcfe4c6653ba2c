//! A machine that waits is given its configuration, which has it install itself: what the steps that do it share.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::base::check::{Answer, Change, Check, Problem};
use crate::base::digest::sha256;
use crate::base::fault::Failure;
use crate::base::names::StepKey;
use crate::base::permit::{Permit, System, Thing};
use crate::blueprint::quorum::{Etcd, Join, Peer, join, living, look};
use crate::blueprint::stand::may_pass;
use crate::engine::step::{Outlook, RunInfo, Seen};
use crate::estate::Estate;
use crate::talos::{ApplyMode, Error, Service, Talos, Which};

use super::asked::{chosen, other_data, unconsented};
use super::bare::{Bare, Stand, still_waits};
use super::disk::is_talos;
use super::own_etcd::{self, in_the_way, lives};
use super::source::Wanted;

/// The image is pulled and written, and the machine goes through its firmware.
pub const LIMIT: Duration = Duration::from_secs(1_200);

/// How long a machine that has taken its configuration may still say that it waits for one.
const LEAVES: Duration = Duration::from_secs(60);

/// After this an installation is mostly through, and the machine up from its disk.
const LATE: Duration = Duration::from_secs(300);

/// How the run files are called that tell when it was sent, each with its second of the epoch behind it.
const SENT: &str = "sent-";

/// One machine that is given its configuration.
#[derive(Debug)]
pub struct Apply<'a> {
    /// The step that does it.
    pub key: StepKey,
    /// The machine.
    pub bare: &'a Bare,
    /// All nodes of its cluster.
    pub peers: &'a [Peer],
    /// It is the one on which etcd begins: before it there is none to join, which all others have to show.
    pub first: bool,
    /// The other machines of the migration.
    pub others: &'a [Bare],
    /// What leads back, where it is no reset of the whole machine.
    pub way_back: Option<&'a str>,
}

/// What it was like. An installation is not taken back.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Before {
    /// The disk, in words.
    pub disk: String,
    /// What was on it.
    pub holds: Vec<String>,
    /// SHA-256 of the configuration that it is given.
    pub config: String,
}

fn asks_who(failure: &Failure) -> bool {
    matches!(failure.downcast_ref::<Error>(), Some(Error::ClientRefused { certain: true, .. }))
}

/// Lines for `explain`.
pub fn why(bare: &Bare) -> Vec<String> {
    vec![
            format!("The configuration is {} with what the site says of the node merged in.", bare.source.shown()),
            "A machine that waits proves to nobody who it is, and the configuration has the secrets of the cluster: its disk \
             must be there, a VM must have the uuid of the site's, and `fingerprint` pins what its console shows."
                .into(),
            "A control plane joins etcd by itself as soon as it is up, as a learner first. So it is not given its configuration \
             before every voter is well and no other learner waits: two at once, and a majority may never be had."
                .into(),
            "The node checks the configuration before it takes it (a dry run). It is sent in the mode `auto`, the one that every \
             version takes while it waits."
                .into(),
    ]
}

/// What one would type, for `explain`.
pub fn by_hand(bare: &Bare) -> String {
    format!("By hand: `talosctl apply-config --insecure -n {} -f FILE`.", bare.waits_at())
}

/// What one would type to take it back, for `explain`: not for a machine with anything else on its disks.
pub fn reset(bare: &Bare) -> String {
    format!(
        "To take it back: {}, which wipes its disks, and where it votes takes its vote out of etcd.",
        bare.machine.talosctl("reset")
    )
}

/// What can be said beforehand.
pub fn outlook(bare: &Bare) -> Outlook {
    let what = format!("{} installs itself on disk {}", bare.name(), bare.disk);
    Outlook { destroys: vec![Thing::disk(&bare.disk)], ..Outlook::changes(System::Talos, [what]) }
}

impl Apply<'_> {
    /// Whether it has its configuration.
    ///
    /// # Errors
    /// What keeps the machine, or its file, from telling.
    pub async fn check(&self, cx: &Estate, seen: Seen<'_, Before>) -> Result<Check<Before>, Failure> {
        let looked = match self.look(cx, &seen).await {
            // It took its configuration while it was asked, and wants to know who asks from then on.
            Err(failure) if asks_who(&failure) => self.look(cx, &seen).await,
            looked => looked,
        };
        match looked {
            // It goes down and comes up while it is asked.
            Err(failure) if seen.since.is_some() && may_pass(&failure) => Ok(Check::waiting(failure.to_string())),
            other => other,
        }
    }

    /// Sends it.
    ///
    /// # Errors
    /// What keeps the machine, or its file, from telling.
    pub async fn apply(&self, cx: &Estate, seen: Seen<'_, Before>, permit: &Permit) -> Result<(), Failure> {
        let Some(since) = seen.since else { return Ok(()) };
        let sent = self.sent(seen.run)?.is_some();
        let (talos, wanted) = match self.to_send(cx, &seen, since, permit).await {
            Ok(Some(found)) => found,
            Ok(None) => return Ok(()),
            // What was sent before has it go down while it is asked: the check says what becomes of that.
            Err(failure) if sent && (may_pass(&failure) || asks_who(&failure)) => return Ok(()),
            Err(failure) => return Err(failure),
        };
        permit.file(&format!("{SENT}{}", cx.clock().now().as_second()), b"")?;
        let applied = match talos.apply_config(permit, wanted.expose(), ApplyMode::Auto).await {
            // It is on its way with what it was sent before: the check says what becomes of that.
            Err(error) if sent && error.is_down() => return Ok(()),
            applied => applied?,
        };
        applied.warnings.iter().for_each(|warning| permit.progress(warning));
        Ok(())
    }

    /// Whom to send what, once all of it was looked at once more; None: there is nothing to send.
    async fn to_send(
        &self,
        cx: &Estate,
        seen: &Seen<'_, Before>,
        since: &Before,
        permit: &Permit,
    ) -> Result<Option<(Arc<Talos>, Wanted)>, Failure> {
        let Stand::Waits(talos) = self.bare.stand(cx).await? else { return Ok(None) };
        // Everything once more: from here on there is no way back.
        let refused = |problem: Problem| Failure::plain(problem.text, Some(problem.help));
        let now = match self.ahead(cx, &talos, seen).await?.answer {
            Answer::Todo { before, .. } => before,
            Answer::Blocked { problems } => {
                let (text, help): (Vec<_>, Vec<_>) = problems.into_iter().map(|p| (p.text, p.help)).unzip();
                return Err(Failure::plain(text.join("; "), help.into_iter().next()));
            }
            Answer::Waiting { reason, .. } => return Err(Failure::plain(reason, None)),
            Answer::Done | Answer::Manual { .. } => return Ok(None),
        };
        // The very text that is sent: the file may change between two looks at it.
        let wanted = self.bare.wanted().await?;
        if [now.config, sha256(wanted.expose().as_bytes())].iter().any(|config| *config != since.config) {
            let text = format!("{} is not what it was when this run looked at it first", self.bare.source.shown());
            let help = "`pvemig abandon` this run and begin another one, which shows what it is by now";
            return Err(refused(Problem::new(text, help)));
        }
        // The consent was to what was there; only what an installation of this run left is nobody's.
        if now.holds != since.holds && !(self.sent(seen.run)?.is_some() && is_talos(&now.holds)) {
            let text = format!(
                "disk {} of {} does not hold what it held when this run looked at it first: {}",
                self.bare.disk,
                self.bare.name(),
                now.holds.join("; ")
            );
            let help = "`pvemig abandon` this run and begin another one, which shows what is on it by now";
            return Err(refused(Problem::new(text, help)));
        }
        permit.may_destroy(&Thing::disk(&self.bare.disk))?;
        talos.dry_run(wanted.expose(), ApplyMode::Auto).await?;
        Ok(Some((talos, wanted)))
    }

    /// Whether it waits as before.
    ///
    /// # Errors
    /// What keeps the machine, or its file, from telling.
    pub async fn back(&self, cx: &Estate, before: &Before, _: Seen<'_, Before>) -> Result<Check<()>, Failure> {
        let name = self.bare.name();
        let stand = match self.bare.stand(cx).await? {
            Stand::Waits(talos) if still_waits(&talos).await? => {
                return Ok(Check::done().note(format!("{name} waits for a configuration, as before")));
            }
            Stand::Silent(why) => format!("{name} does not answer ({why}), and may be installed on {}", before.disk),
            Stand::Waits(_) => format!("{name} installs itself on {}", before.disk),
            Stand::Ours(_) | Stand::Foreign => format!("{name} is installed on {}", before.disk),
        };
        let lost = before.holds.iter().map(|part| Change::remove(format!("{} had", before.disk), part));
        let way = self
            .way_back
            .map_or_else(|| format!("only {} makes it wait again", self.bare.machine.talosctl("reset")), str::to_owned);
        let change = Change::act(format!("{stand}: {way}, and what was on the disk is gone"));
        Ok(Check::todo(std::iter::once(change).chain(lost).collect(), ()))
    }

    async fn look(&self, cx: &Estate, seen: &Seen<'_, Before>) -> Result<Check<Before>, Failure> {
        let name = self.bare.name();
        match self.bare.stand(cx).await? {
            Stand::Ours(talos) => self.is_what_it_should_be(&talos, seen.since).await,
            Stand::Foreign => Ok(Check::blocked(vec![self.bare.foreign()])),
            Stand::Silent(why) if seen.since.is_some() => {
                let late = self.sent(seen.run)?.is_some_and(|at| at + cx.clock().scaled(LATE) <= cx.clock().now());
                let medium = late.then(|| {
                    let help = self.bare.boot_its_disk();
                    format!("; its firmware may have started the medium again, where Talos halts once it is installed: {help}")
                });
                let medium = medium.unwrap_or_default();
                Ok(Check::waiting(format!("{name} installs itself and comes up again: {why}{medium}")))
            }
            Stand::Silent(why) => {
                let (ask, hint) = self.bare.start_it();
                let text = format!("{name} does not wait for a configuration: {why}");
                Ok(Check::blocked(vec![Problem::new(text, format!("{ask}; {hint}"))]))
            }
            Stand::Waits(talos) => match self.sent(seen.run)? {
                Some(at) if !still_waits(&talos).await? || at + cx.clock().scaled(LEAVES) > cx.clock().now() => {
                    Ok(Check::waiting(format!(
                        "{name} was given its configuration, or was about to be: it is to install itself"
                    )))
                }
                // It has come back to where it was: its console says why, and it may be tried again.
                Some(at) => {
                    let again = format!(
                        "{name} was given its configuration at {at:.0} and waits for one again: its console says why"
                    );
                    Ok(self.ahead(cx, &talos, seen).await?.note(again))
                }
                None => self.ahead(cx, &talos, seen).await,
            },
        }
    }

    /// When this run sent it last, or was about to.
    fn sent(&self, run: &RunInfo) -> Result<Option<Timestamp>, Failure> {
        let key = &self.key;
        let Some(files) = &run.files else { return Ok(None) };
        let unread = |error| Failure::plain(format!("the run's files of {key} cannot be read: {error}"), None);
        let entries = match std::fs::read_dir(files.join(key.as_str())) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(unread(error)),
        };
        let at = |name: &str| Timestamp::from_second(name.strip_prefix(SENT)?.parse().ok()?).ok();
        let mut last = None;
        for entry in entries {
            let name = entry.map_err(unread)?.file_name();
            last = last.max(name.to_str().and_then(at));
        }
        Ok(last)
    }

    /// A node that has a configuration of this cluster: it must be the one of its file.
    async fn is_what_it_should_be(&self, talos: &Arc<Talos>, since: Option<&Before>) -> Result<Check<Before>, Failure> {
        let (name, wanted) = (self.bare.name(), self.bare.wanted().await?);
        let Some(now) = talos.machine_config(Which::Persistent).await? else {
            return Ok(Check::waiting(format!("{name} has not written its configuration to its disk yet")));
        };
        let differs = wanted.differs(now.expose());
        Ok(match differs {
            Ok(None) => Check::done(),
            // What this run sent is there; what has come to it since is somebody else's, and no reason to go back.
            Ok(Some(_)) if since.is_some_and(|since| sha256(now.expose().as_bytes()) == since.config) => Check::done(),
            Ok(Some(lines)) => Check::blocked(vec![Problem::new(
                format!(
                    "the machine configuration of {name} is not what {} comes to:\n{}",
                    self.bare.source.shown(),
                    lines.trim_end()
                ),
                format!(
                    "a node that has its configuration is not installed again, and nothing is applied to it here. It may be newer than \
                     the file (an upgrade of Kubernetes, a patch): then carry that into {}",
                    self.bare.source.shown()
                ),
            )]),
            Err(why) => Check::blocked(vec![Problem::new(
                format!("whether {name} has the configuration of {} cannot be told: {why}", self.bare.source.shown()),
                format!("look at it: {}", self.bare.machine.talosctl("get machineconfig persistent -o yaml")),
            )]),
        })
    }

    /// A machine that waits: what is in the way, or what would be done.
    async fn ahead(&self, cx: &Estate, talos: &Talos, seen: &Seen<'_, Before>) -> Result<Check<Before>, Failure> {
        let (name, wanted) = (self.bare.name(), self.bare.wanted().await?);
        let found = match chosen(self.bare, talos).await? {
            Ok(found) => found,
            Err(problem) => return Ok(Check::blocked(vec![problem])),
        };
        let mut problems = self.amiss(cx, talos, &wanted).await?;
        problems.extend(other_data(self.bare, talos).await?);
        problems.extend(unconsented(self.bare, &found, |thing| seen.run.consents.contains(thing)));
        let mut notes = Vec::new();
        if wanted.is_control_plane() {
            let etcd = look(cx, &self.bare.machine.cluster, self.peers).await;
            match join(name, &etcd) {
                Join::NoCluster if self.first => {
                    let others = own_etcd::all(cx, self.others, |thing| seen.run.consents.contains(thing)).await;
                    problems.extend(in_the_way(self.bare, &etcd, &others));
                    // It would join that one by itself, past the gate.
                    let said = living(cx, &self.bare.machine.node.cluster).await;
                    problems.extend(said.map(|said| lives(self.bare, &said)));
                }
                Join::NoCluster => match self.none_to_join(cx, &etcd).await {
                    Some(problem) => problems.push(problem),
                    // Without a leader its members are not told: nobody knows what one more would come to.
                    None => {
                        let why: Vec<_> = etcd.silent().map(|(peer, why)| format!("{peer}: {why}")).collect();
                        let text = format!("{name} joins etcd once somebody tells its members ({})", why.join("; "));
                        return Ok(Check::waiting(text));
                    }
                },
                Join::Open(sum) => notes.push(sum),
                Join::Wait(why) => return Ok(Check::waiting(format!("{name} joins etcd after that: {why}"))),
                Join::Shut(why) => problems.extend(why),
            }
        }
        if !problems.is_empty() {
            return Ok(Check::blocked(problems).notes(notes));
        }
        let image = wanted.facts.image.clone();
        let image =
            image.unwrap_or_else(|| "Talos' default installer, which has no extensions: it names no image".into());
        let mut changes = vec![Change::add(format!("{name} machine configuration"), self.bare.source.shown())];
        changes.push(Change::add(format!("{name} installation on {}", found.named), image));
        changes.extend(found.holds.iter().map(|part| Change::remove(format!("disk {}", self.bare.disk), part)));
        changes.push(Change::act(format!("{name} reboots from its disk")));
        let config = sha256(wanted.expose().as_bytes());
        Ok(Check::todo(changes, Before { disk: found.named, holds: found.holds, config }).notes(notes))
    }

    /// There is no etcd to be joined, and none comes by itself: of the other nodes none has its configuration, or the etcd of
    /// one waits to be begun.
    async fn none_to_join(&self, cx: &Estate, etcd: &Etcd) -> Option<Problem> {
        let name = self.bare.name();
        let mut any = false;
        for peer in self.peers.iter().filter(|peer| peer.name != name) {
            let Ok(talos) = cx.talos(&peer.name).await else { continue };
            let Ok(services) = talos.services().await else { continue };
            any = true;
            let begins = |service: &Service| service.id == "etcd" && service.state == "Preparing";
            if services.iter().any(begins) {
                let text = format!("{name} has no etcd to join: that of {} waits to be begun (0 voters)", peer.name);
                let help = "`pvemig step 04-bootstrap` of a `cluster-build` begins it, or `pvemig run` of the whole of it, in its order";
                return Some(Problem::new(text, help));
            }
        }
        if any {
            return None;
        }
        let why: Vec<_> = etcd.silent().map(|(peer, why)| format!("{peer}: {why}")).collect();
        let text = format!(
            "{name} has no etcd to join: no other node of {} answers (0 voters, 0 healthy; {})",
            self.bare.machine.cluster,
            why.join("; ")
        );
        let help = "`pvemig run` of the whole `cluster-build` begins with the first machine; where there is an etcd already, let one of its \
                    members answer: `pvemig survey`";
        Some(Problem::new(text, help))
    }

    /// Why this machine is not to be given that configuration.
    async fn amiss(&self, cx: &Estate, talos: &Talos, wanted: &Wanted) -> Result<Vec<Problem>, Failure> {
        let context = cx.talosconfig(&self.bare.machine.cluster)?;
        let (name, mut problems) = (self.bare.name(), self.bare.is_another(cx, talos).await?);
        // Once it is installed there is no other way to it.
        let ours = wanted.ca.as_deref().is_some_and(|ca| context.is_of(ca));
        if !ours {
            problems.push(Problem::new(
                format!(
                    "the configuration of {name} names no authority that the talosconfig of {} is of",
                    self.bare.machine.cluster
                ),
                "take the talosconfig and the configuration that were made from the same secrets",
            ));
        }
        if self.first && !wanted.is_control_plane() {
            let text = format!("the configuration of {name} is no control plane's, and etcd is to begin on it");
            problems.push(Problem::new(text, "put a control plane first in `nodes` of the parameters"));
        }
        problems.extend(super::image::amiss(self.bare, talos, wanted).await?);
        Ok(problems)
    }
}
