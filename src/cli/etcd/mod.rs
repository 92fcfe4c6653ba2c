//! `pvemig etcd snapshot [TALOS] --to DIR`: etcd's data, verified, on this machine's disk. It only reads: no permit, no
//! journal, nobody's lock.

mod args;
mod member;
mod press;
mod schedule;
mod shelf;
mod told;

use std::path::PathBuf;

use crate::base::age::Recipient;
use crate::base::check::bytes;
use crate::base::clock::Clock;
use crate::site::Site;
use crate::talos::{Error, Snapshot};

use super::args::Global;
use super::exit::Exit;
use super::fail::{self, Words};
use super::out::Out;
use super::plan::stopped;
use super::session::Session;
use super::words::quoted;

use args::{EtcdVerb, SnapshotArgs};
use member::{Heard, Member};
use press::{Press, Pressed};
use shelf::{Partial, Shelf, Tidied};
use told::Told;

pub(super) use args::EtcdArgs;

/// The role that a snapshot takes at least.
const ROLE: &str = "os:etcd:backup";

/// How a snapshot is put to use again.
pub(super) const RESTORE: &str = "\
Restoring: a snapshot is for a cluster that has lost its quorum for good; while a majority of the members lives it \
takes back everything since. Decrypt it (`age -d -i KEYFILE -o etcd.snapshot FILE.age`) and name it as `snapshot:` in a \
migration of the blueprint quorum-recover: `pvemig explain quorum-recover` says how. That keeps a copy of what each \
control plane still has, wipes etcd there with your consent alone, and begins once. By hand it is Talos' \"Disaster \
Recovery\": empty etcd on every control plane (`talosctl -n NODE reset --graceful=false --reboot \
--system-labels-to-wipe=EPHEMERAL`, with `,ETCD` where that is a volume of its own), wait until `talosctl -n NODE service etcd` says Preparing on each, and begin on one \
of them: `talosctl -n NODE bootstrap --recover-from=etcd.snapshot`. The secrets of the cluster's machine configurations \
are not in it: keep those too.";

pub(super) async fn etcd(global: &Global, args: &EtcdArgs, out: &Out) -> anyhow::Result<Exit> {
    let EtcdVerb::Snapshot(args) = &args.verb;
    if args.schedule.is_some() && out.json {
        return Err(Words::usage("`--schedule` prints no JSON", "leave `--json` out").into());
    }
    let recipients = recipients(args)?;
    let session = Session::surveying(global, out)?;
    let cluster = cluster(&session.site, args.talos.as_deref())?;
    // What is not whole yet goes with the work that is broken off.
    let ended = tokio::select! {
        ended = async {
            match args.schedule {
                Some(part) => schedule::print(&session, &cluster, args, part, out).await,
                None => take(&session, &cluster, args, &recipients, out).await,
            }
        } => ended,
        () = stopped() => {
            out.say("interrupted: no snapshot was taken, and nothing is left of it");
            Ok(Exit::Interrupted)
        }
    };
    session.estate.farewell().await;
    ended
}

/// The cluster that was named, else the only one.
fn cluster(site: &Site, named: Option<&str>) -> anyhow::Result<String> {
    let all: Vec<_> = site.talos.keys().map(|name| format!("`{name}`")).collect();
    let there = || if all.is_empty() { "add it under `talos:`".into() } else { format!("there is {}", all.join(", ")) };
    match (named, all.len()) {
        (Some(name), _) if site.talos.contains_key(name) => Ok(name.to_owned()),
        (Some(name), _) => Err(Words::usage(format!("the site file has no Talos cluster `{name}`"), there()).into()),
        (None, 1) => Ok(site.talos.keys().next().cloned().unwrap_or_default()),
        (None, 0) => Err(Words::usage("the site file has no Talos cluster", there()).into()),
        (None, _) => {
            Err(Words::usage("the site file has several Talos clusters", format!("name one: {}", there())).into())
        }
    }
}

/// Whom the snapshot is for. A text that is none is not repeated: it may be a secret key.
fn recipients(args: &SnapshotArgs) -> anyhow::Result<Vec<Recipient>> {
    let mut all = Vec::new();
    for (at, text) in args.recipient.iter().enumerate() {
        let bad = |why| Words::usage(format!("the {} `--recipient` cannot be used", nth(at + 1)), format!("{why}"));
        all.push(text.trim().parse().map_err(bad)?);
    }
    for path in &args.recipients_file {
        let shown = path.display();
        let text = std::fs::read_to_string(path).map_err(|error| {
            Words::usage(
                format!("the recipients file {shown} cannot be read: {error}"),
                "name a text file that you can read",
            )
        })?;
        let before = all.len();
        for (at, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty() && !line.starts_with('#'))
        {
            let bad = |why| Words::usage(format!("{shown}:{}: this is no recipient", at + 1), format!("{why}"));
            all.push(line.trim().parse().map_err(bad)?);
        }
        if all.len() == before {
            // Nobody would expect the content in the clear.
            return Err(Words::usage(format!("there is no recipient in {shown}"), "write one a line, `age1..`").into());
        }
    }
    Ok(all)
}

fn nth(n: usize) -> String {
    match n {
        1 => "first".into(),
        2 => "second".into(),
        3 => "third".into(),
        n => format!("{n}th"),
    }
}

/// Takes one of the first member that gives it whole.
async fn take(
    session: &Session,
    cluster: &str,
    args: &SnapshotArgs,
    to: &[Recipient],
    out: &Out,
) -> anyhow::Result<Exit> {
    let shelf = Shelf::open(&args.to, cluster)?;
    let dir = shelf.dir().to_owned();
    let failed = |what: &str, error: &std::io::Error| shelf::disk(&format!("{}: {what}", dir.display()), &dir, error);
    for name in shelf.sweep().map_err(|error| failed("it cannot be listed", &error))? {
        out.notice(&format!("removed {name}, which an attempt that was killed had left"));
    }
    // Where nothing can be written nobody need be asked.
    let begin = || shelf.begin(Clock::real().now(), !to.is_empty());
    let mut first = Some(begin()?);
    let Heard { members, mut others, denied } = member::ask(session, cluster).await.map_err(fail::failure)?;
    // Its leader is one of them, whoever did not answer. No id is 0: that is one that was not told.
    let ids = members.iter().flat_map(|member| [member.status.member, member.status.leader]);
    let ids: Vec<u64> = ids.filter(|id| *id != 0).collect();
    if members.iter().all(|member| member.status.leader == 0) && !members.is_empty() {
        out.notice("etcd has no leader: what its members have not agreed on any more is not in the snapshot");
    }
    let mut got = None;
    for member in members {
        let partial = match first.take() {
            Some(partial) => partial,
            None => begin()?,
        };
        if out.live {
            out.write(&format!("  … {} sends {} or so", member.node, bytes(member.status.size)));
        }
        let copied = copy(&member, &partial, to).await;
        if out.live {
            out.write("\r\x1b[2K");
        }
        match copied {
            Ok(copied) => {
                got = Some((member, partial, copied));
                break;
            }
            Err(Error::Denied { at, roles, why }) => {
                return Err(no_role(session, cluster, &Error::Denied { at, roles, why }).into());
            }
            Err(Error::File { source, .. }) => return Err(failed("the snapshot cannot be written", &source).into()),
            Err(error) => {
                let why = error.to_string();
                out.notice(&format!("no snapshot from {}: {why}", member.node));
                others.push((member.node, why));
            }
        }
    }
    let Some((member, partial, (snapshot, pressed))) = got else {
        return Err(match denied {
            Some(error) => no_role(session, cluster, &error).into(),
            None => nobody(cluster, &others).into(),
        });
    };
    let name = partial.name.clone();
    let file = partial.keep(&pressed).map_err(|error| failed("the snapshot cannot be kept", &error))?;
    // From here on it is safe, whatever becomes of the older ones.
    // One without a leader may be behind those that are kept.
    let keep = args.keep.filter(|_| member.status.leader != 0);
    if keep != args.keep {
        out.notice("no older snapshot is removed: without a leader this one may be behind them");
    }
    let tidied = shelf.tidy(&name, keep, &ids);
    let empty = Tidied::default();
    let told = Told { cluster, file: &file, member: &member, snapshot: &snapshot, pressed: &pressed, others: &others };
    told.tell(tidied.as_ref().unwrap_or(&empty), to.len(), keep.is_some(), out)?;
    let safe = format!("the snapshot {} is safe, but older ones", file.display());
    match tidied {
        Err(error) => Err(failed(&format!("{safe} cannot be listed"), &error).into()),
        Ok(tidied) => {
            let mut failed_ones = tidied.failed.iter();
            let Some((name, error)) = failed_ones.next() else { return Ok(Exit::Done) };
            failed_ones
                .for_each(|(name, error)| out.notice(&format!("{name} cannot be looked at or removed: {error}")));
            Err(failed(&format!("{safe} cannot be looked at or removed: {name}"), error).into())
        }
    }
}

/// Copies the data of a member to the disk.
async fn copy(member: &Member, partial: &Partial, to: &[Recipient]) -> Result<(Snapshot, Pressed), Error> {
    let path = PathBuf::from(&partial.name);
    let failed = |source| Error::File { path: path.clone(), source };
    let mut press = partial.writer().and_then(|file| Press::new(file, to)).map_err(failed)?;
    let snapshot = member.talos.etcd_snapshot_into(&mut press, &path).await?;
    let pressed = press.finish().await.map_err(failed)?;
    Ok((snapshot, pressed))
}

/// The role of the talosconfig is not enough.
fn no_role(session: &Session, cluster: &str, error: &Error) -> Words {
    let file = session.site.talos.get(cluster).map(|c| quoted(&c.talosconfig.to_string_lossy())).unwrap_or_default();
    let help = format!(
        "a snapshot takes the role {ROLE} (or os:operator, or os:admin), which {file} has not; who is os:admin makes a \
         talosconfig with it: `talosctl -n CONTROL-PLANE config new etcd-backup.talosconfig --roles {ROLE} --crt-ttl 8760h`; \
         name that as `talos.{cluster}.talosconfig`"
    );
    Words::new(Exit::Failed, error.to_string(), vec![help])
}

/// No member gave one.
fn nobody(cluster: &str, said: &[(String, String)]) -> Words {
    let text = format!("no control plane of Talos cluster `{cluster}` gave a snapshot, and no file was made");
    if said.is_empty() {
        let help = "all its nodes in the site file are workers: add the control planes under `nodes:`";
        return Words::new(Exit::Failed, text, vec![help.to_owned()]);
    }
    let help = "`pvemig survey` shows how the nodes and their etcd do".to_owned();
    let causes = said.iter().map(|(node, why)| format!("{node}: {why}")).collect();
    Words::new(Exit::Failed, text, vec![help]).because(causes)
}
