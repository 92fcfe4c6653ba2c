//! Every call of the provider, in one table: by which method it is made, where it goes, and what a node says to it where
//! all is well. The tests of what may go wrong go through it; `table.rs` holds it against the protos and the source.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use pvemig::base::clock::Clock;
use pvemig::base::permit::{CallId, Handle, Ledger, Note, Permit, Refused, Thing};
use pvemig::talos::kind::{DISKS, MACHINE_STATUS, VERSION};
use pvemig::talos::{
    ApplyMode, Error, EtcdMember, EtcdVolume, Fetched, Leaving, Limits, RebootMode, Reset, Talos, Which, Wipe,
};

use super::fake::{Fake, Says, msg, num, raw, text};
use super::pki::{NOW, Pair, Pki};
use super::{context_of, decent, machine, node};

pub(super) const READ: &str = "/machine.MachineService/Read";
pub(super) const GET: &str = "/cosi.resource.State/Get";
pub(super) const LIST: &str = "/cosi.resource.State/List";
const WATCH: &str = "/cosi.resource.State/Watch";
const APPLY: &str = "/machine.MachineService/ApplyConfiguration";

/// How an answer is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// One message with a list of one message for each node in it.
    Envelope,
    /// One message.
    Bare,
    /// Messages as they come.
    Stream,
}

/// A method of the provider and the call that it makes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Call {
    pub(super) method: &'static str,
    pub(super) path: &'static str,
    pub(super) shape: Shape,
}

const fn call(method: &'static str, path: &'static str, shape: Shape) -> Call {
    Call { method, path, shape }
}

/// Each method that takes a permit.
pub(super) const CHANGES: [Call; 15] = [
    call("apply_config", APPLY, Shape::Envelope),
    call("bootstrap", "/machine.MachineService/Bootstrap", Shape::Envelope),
    call("etcd_forfeit", "/machine.MachineService/EtcdForfeitLeadership", Shape::Envelope),
    call("etcd_leave", "/machine.MachineService/EtcdLeaveCluster", Shape::Envelope),
    call("etcd_recover", "/machine.MachineService/EtcdRecover", Shape::Envelope),
    call("etcd_remove", "/machine.MachineService/EtcdRemoveMemberByID", Shape::Envelope),
    call("fetch", "/machine.ImageService/Pull", Shape::Stream),
    call("put", "/machine.LifecycleService/Upgrade", Shape::Stream),
    call("reboot", "/machine.MachineService/Reboot", Shape::Envelope),
    call("reset", "/machine.MachineService/Reset", Shape::Envelope),
    call("roll_back", "/machine.MachineService/Rollback", Shape::Envelope),
    call("shutdown", "/machine.MachineService/Shutdown", Shape::Envelope),
    call("shutdown_for_good", "/machine.MachineService/Shutdown", Shape::Envelope),
    call("upgrade", "/machine.MachineService/Upgrade", Shape::Envelope),
    call("wipe_etcd", "/machine.MachineService/Reset", Shape::Envelope),
];

/// Each method that takes none.
pub(super) const QUESTIONS: [Call; 25] = [
    call("boot_id", READ, Shape::Stream),
    call("boot_time", "/machine.MachineService/SystemStat", Shape::Envelope),
    call("dir", "/machine.MachineService/List", Shape::Stream),
    call("disk_usage", "/machine.MachineService/DiskUsage", Shape::Stream),
    call("dmesg", "/machine.MachineService/Dmesg", Shape::Stream),
    call("dry_run", APPLY, Shape::Envelope),
    call("etcd_alarms", "/machine.MachineService/EtcdAlarmList", Shape::Envelope),
    call("etcd_database", READ, Shape::Stream),
    call("etcd_members", "/machine.MachineService/EtcdMemberList", Shape::Envelope),
    call("etcd_snapshot", "/machine.MachineService/EtcdSnapshot", Shape::Stream),
    call("etcd_snapshot_into", "/machine.MachineService/EtcdSnapshot", Shape::Stream),
    call("etcd_status", "/machine.MachineService/EtcdStatus", Shape::Envelope),
    call("events", "/machine.MachineService/Events", Shape::Stream),
    call("file", READ, Shape::Stream),
    call("get", GET, Shape::Bare),
    call("kubeconfig", "/machine.MachineService/Kubeconfig", Shape::Stream),
    call("list", LIST, Shape::Stream),
    call("machine_config", GET, Shape::Bare),
    call("memory", "/machine.MachineService/Memory", Shape::Envelope),
    call("sequence_began", "/machine.MachineService/Events", Shape::Stream),
    call("services", "/machine.MachineService/ServiceList", Shape::Envelope),
    call("single", GET, Shape::Bare),
    call("this_boot", READ, Shape::Stream),
    call("version", "/machine.MachineService/Version", Shape::Envelope),
    call("watch", WATCH, Shape::Stream),
];

impl Call {
    /// Asked again where nothing came of it; a stream that may be long is begun anew by who reads it.
    pub(super) fn is_asked_again(&self) -> bool {
        !matches!(
            self.method,
            "etcd_database" | "etcd_snapshot" | "etcd_snapshot_into" | "events" | "sequence_began" | "watch"
        )
    }

    /// By what its events are known is in the answer.
    pub(super) fn has_actor(&self) -> bool {
        matches!(self.method, "reboot" | "reset" | "shutdown" | "shutdown_for_good" | "upgrade" | "wipe_etcd")
    }

    /// The answer of a node where all is well.
    pub(super) fn good(&self) -> Vec<Vec<u8>> {
        let data = |pieces: [&[u8]; 2]| pieces.map(|piece| raw(2, piece)).to_vec();
        let event = |action: u64| {
            let kind = text(1, "talos/runtime/machine.SequenceEvent");
            [msg(2, &[kind, msg(2, &[text(1, "reboot"), num(2, action)])]), text(4, "0b5c")].concat()
        };
        match self.method {
            "reboot" | "reset" | "shutdown" | "shutdown_for_good" | "wipe_etcd" => vec![msg(1, &[text(2, "0b5c")])],
            "upgrade" => vec![msg(1, &[text(3, "0b5c")])],
            "fetch" => vec![msg(2, &[text(1, "sha256:aa"), msg(2, &[num(1, 2)])]), text(1, "reg/installer@sha256:bb")],
            "put" => vec![msg(1, &[text(1, "writing")]), msg(1, &[num(2, 0)])],
            "etcd_forfeit" => vec![msg(1, &[text(2, "talos-49")])],
            "apply_config" | "dry_run" => vec![msg(1, &[num(3, 2)])],
            "bootstrap" | "etcd_leave" | "etcd_recover" | "etcd_remove" | "roll_back" => vec![msg(1, &[])],
            "boot_time" => vec![msg(1, &[num(2, 1_700_000_000)])],
            "etcd_alarms" => vec![msg(1, &[msg(2, &[num(1, 255), num(2, 1)])])],
            "etcd_members" => vec![msg(1, &[msg(3, &[num(2, 255), text(3, "talos-20")])])],
            "etcd_status" => vec![msg(1, &[msg(2, &[num(4, 255), num(10, 255)])])],
            "memory" => vec![msg(1, &[msg(2, &[num(1, 4096)])])],
            "services" => vec![msg(1, &[msg(2, &[text(1, "kubelet"), text(2, "Running")])])],
            "version" => vec![version("v1.11.5")],
            "boot_id" | "etcd_database" | "file" | "this_boot" => data([b"6f1c", b"-aa\n"]),
            "dir" => {
                let lib = [text(2, "/var/lib"), num(3, 4096), num(5, 1_700_000_000), num(6, 1), text(9, "lib")];
                vec![[text(2, "/var"), num(6, 1), text(9, ".")].concat(), lib.concat()]
            }
            "disk_usage" => vec![[text(2, "/var/local"), num(3, 4096), text(5, ".")].concat()],
            "dmesg" => data([b"kern: info: a\n", b"b\n"]),
            "kubeconfig" => {
                let archive = archive();
                data([&archive[..20], &archive[20..]])
            }
            "etcd_snapshot" | "etcd_snapshot_into" => {
                use sha2::{Digest, Sha256};
                let content: Vec<u8> = (0..1000_u32).flat_map(u32::to_be_bytes).collect();
                data([&content, &Sha256::digest(&content)])
            }
            "get" | "single" => vec![raw(1, &resource("machine", "stage: running\nversion: v1.11.5\n"))],
            "machine_config" => {
                let spec = msg(2, &[msg(1, &[text(1, "machine: {type: worker}\n")])]);
                vec![msg(1, &[msg(1, &[text(3, "v1alpha1")]), spec])]
            }
            "list" => ["sda", "sdb"].map(|id| raw(1, &disk(id))).to_vec(),
            "watch" => {
                let there = msg(1, &[raw(1, &resource("machine", "stage: running\n")), num(2, 0)]);
                vec![there, msg(1, &[num(2, 3)])]
            }
            "events" => vec![event(1), event(2)],
            "sequence_began" => vec![text(3, "hello"), event(1)],
            _ => Vec::new(),
        }
    }

    /// The answer without its last message.
    pub(super) fn begun(&self) -> Vec<Vec<u8>> {
        let mut good = self.good();
        good.pop().unwrap();
        good
    }
}

pub(super) fn version(tag: &str) -> Vec<u8> {
    msg(1, &[msg(2, &[text(1, tag)])])
}

fn resource(id: &str, yaml: &str) -> Vec<u8> {
    [msg(1, &[text(3, id), text(4, "1"), text(6, "running")]), msg(2, &[text(2, yaml)])].concat()
}

fn disk(id: &str) -> Vec<u8> {
    resource(id, &format!("dev_path: /dev/{id}\nserial: \"S-{id}\"\ntransport: virtio\n"))
}

/// A kubeconfig as a node packs it.
fn archive() -> Vec<u8> {
    let mut tar = vec![0_u8; 1024];
    tar[..10].copy_from_slice(b"kubeconfig");
    tar[124..135].copy_from_slice(b"00000000015");
    tar[156] = b'0';
    tar[512..525].copy_from_slice(b"kind: Config\n");
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut gz, &tar).unwrap();
    gz.finish().unwrap()
}

/// A ledger that consents to everything, and knows what had come to the node when something was noted.
#[derive(Default)]
pub(super) struct Diary {
    fake: Fake,
    notes: Mutex<Vec<(Note, usize)>>,
    /// Nothing can be written down.
    pub(super) full: AtomicBool,
    /// What a call left cannot be written down.
    pub(super) torn: AtomicBool,
}

impl Diary {
    /// What was noted, each with the number of requests that had come by then.
    pub(super) fn notes(&self) -> Vec<(Note, usize)> {
        self.notes.lock().unwrap().clone()
    }
}

fn unless(broken: &AtomicBool) -> Result<(), Refused> {
    if broken.load(Ordering::SeqCst) { Err(Refused::Journal("no space left on device".into())) } else { Ok(()) }
}

impl Ledger for Diary {
    fn note(&self, note: &Note) -> Result<CallId, Refused> {
        unless(&self.full)?;
        self.notes.lock().unwrap().push((note.clone(), self.fake.asked().len()));
        Ok(CallId(0))
    }
    fn got(&self, _: CallId, _: &Handle) -> Result<(), Refused> {
        unless(&self.torn)
    }
    fn progress(&self, _: &str) {}
    fn file(&self, _: &str, _: &[u8]) -> Result<(), Refused> {
        Ok(())
    }
    fn may_destroy(&self, _: &Thing) -> Result<(), Refused> {
        Ok(())
    }
}

/// A node, a client, and all that the methods take.
pub(super) struct Bench {
    pub(super) fake: Fake,
    pub(super) diary: Arc<Diary>,
    talos: Talos,
    permit: Permit,
    dir: tempfile::TempDir,
    turns: AtomicUsize,
}

impl Bench {
    pub(super) async fn start(limits: Limits) -> Self {
        Self::shown(limits, |pki| pki.client("os:admin", NOW)).await
    }

    /// The same, with another client certificate.
    pub(super) async fn shown(limits: Limits, client: impl FnOnce(&Pki) -> Pair) -> Self {
        let (pki, fake, dir) = (Pki::new(), Fake::default(), tempfile::tempdir().unwrap());
        let port = fake.serve(pki.serving(&pki.server(&["127.0.0.1"], NOW))).await;
        let context = context_of(&pki, &client(&pki));
        let talos = Talos::connect(node(port), &context, Clock::fast(50)).unwrap().limits(limits);
        let diary = Arc::new(Diary { fake: fake.clone(), ..Diary::default() });
        let bench = Self { permit: Permit::mint(diary.clone()), fake, diary, talos, dir, turns: AtomicUsize::new(0) };
        bench.snapshot(100_000);
        bench
    }

    /// What else a method asks before its own call is answered well; its own call is, too.
    pub(super) fn ready(&self, call: &Call) {
        let good = |method: &str| QUESTIONS.iter().find(|question| question.method == method).unwrap().good();
        for method in ["etcd_status", "etcd_members", "list"] {
            let question = QUESTIONS.iter().find(|question| question.method == method).unwrap();
            self.fake.instead(question.path, Says::Ok(good(method)));
        }
        self.fake.instead(GET, Says::Ok(vec![raw(1, &resource("system-disk", "diskID: sda\ndevPath: /dev/sda\n"))]));
        let tag = if call.method == "upgrade" { "v1.12.11" } else { "v1.13.9" };
        self.fake.instead(&machine("Version"), Says::Ok(vec![version(tag)]));
        self.fake.instead(call.path, Says::Ok(call.good()));
    }

    /// The snapshot that is sent to a node has this size.
    pub(super) fn snapshot(&self, size: usize) {
        std::fs::write(self.dir.path().join("snapshot"), vec![7; size]).unwrap();
    }

    /// Makes a call; its outcome, shown.
    pub(super) async fn make(&self, call: &Call) -> Result<String, Error> {
        fn shown<T: std::fmt::Debug>(outcome: Result<T, Error>) -> Result<String, Error> {
            outcome.map(|answer| format!("{answer:?}"))
        }
        let (talos, permit) = (&self.talos, &self.permit);
        let config = "machine: {type: worker}\n";
        let image = "reg/installer:v1.13.9";
        match call.method {
            "apply_config" => shown(talos.apply_config(permit, config, ApplyMode::NoReboot).await),
            "bootstrap" => shown(talos.bootstrap(permit, false, false).await),
            "etcd_forfeit" => shown(talos.etcd_forfeit(permit).await),
            "etcd_leave" => shown(talos.etcd_leave(permit, Leaving::ForGood).await),
            "etcd_recover" => shown(talos.etcd_recover(permit, &self.dir.path().join("snapshot")).await),
            "etcd_remove" => {
                let (peer_urls, client_urls) = (Vec::new(), Vec::new());
                let member =
                    EtcdMember { id: 3, hostname: "talos-49".into(), peer_urls, client_urls, is_learner: false };
                shown(talos.etcd_remove(permit, &member).await)
            }
            "fetch" => shown(talos.fetch(permit, image).await),
            "put" => shown(talos.put(permit, &Fetched::Pulled { name: image.into() }).await),
            "reboot" => shown(talos.reboot(permit, RebootMode::PowerCycle).await),
            "reset" => {
                shown(talos.reset(permit, &Reset { graceful: true, reboot: true, wipe: Wipe::SystemDisk }).await)
            }
            "roll_back" => shown(talos.roll_back(permit).await),
            "shutdown" => shown(talos.shutdown(permit, false).await),
            "shutdown_for_good" => shown(talos.shutdown_for_good(permit).await),
            "upgrade" => shown(talos.upgrade(permit, image).await),
            "wipe_etcd" => {
                let things = [Thing::member("talos-20"), Thing::ephemeral("talos-20")];
                shown(talos.wipe_etcd(permit, EtcdVolume::Ephemeral, &things).await)
            }
            "boot_id" => shown(talos.boot_id().await),
            "boot_time" => shown(talos.boot_time().await),
            "dir" => shown(talos.dir("/var").await),
            "disk_usage" => shown(talos.disk_usage("/var/local").await),
            "dmesg" => shown(talos.dmesg().await),
            "dry_run" => shown(talos.dry_run(config, ApplyMode::NoReboot).await),
            "etcd_alarms" => shown(talos.etcd_alarms().await),
            "etcd_database" => shown(talos.etcd_database().await),
            "etcd_members" => shown(talos.etcd_members(false).await),
            "etcd_snapshot" => {
                let to = self.dir.path().join(format!("snapshot-{}", self.turns.fetch_add(1, Ordering::SeqCst)));
                let outcome = talos.etcd_snapshot(&to).await;
                assert_eq!(to.exists(), outcome.is_ok(), "{outcome:?}");
                shown(outcome)
            }
            "etcd_snapshot_into" => shown(talos.etcd_snapshot_into(&mut Vec::new(), self.dir.path()).await),
            "etcd_status" => shown(talos.etcd_status().await),
            "events" => {
                let (mut events, mut all) = (talos.events(0, None).await?, Vec::new());
                while let Some(event) = events.next().await? {
                    all.push(event);
                }
                shown(Ok(all))
            }
            "file" => shown(talos.file("/proc/version").await),
            "get" => shown(talos.get(&VERSION.kind, "version").await),
            "kubeconfig" => shown(talos.kubeconfig().await),
            "list" => shown(talos.list(&DISKS).await),
            "machine_config" => shown(talos.machine_config(Which::Active).await),
            "memory" => shown(talos.memory().await),
            "sequence_began" => shown(talos.sequence_began("0b5c", super::LIMITS.change).await),
            "services" => shown(talos.services().await),
            "single" => shown(talos.single(&MACHINE_STATUS).await),
            "this_boot" => shown(talos.this_boot().await),
            "version" => shown(talos.version().await),
            "watch" => {
                let (mut watch, mut all) = (talos.watch(&MACHINE_STATUS.kind).await?, Vec::new());
                while let Some(change) = watch.next().await? {
                    all.push(change);
                }
                shown(Ok(all))
            }
            other => Err(Error::Setup { at: other.into(), why: "it is not made".into() }),
        }
    }

    /// How often its path was asked; each time decently.
    pub(super) fn times(&self, call: &Call) -> usize {
        self.fake.asked().iter().for_each(decent);
        self.fake.times(call.path)
    }
}
