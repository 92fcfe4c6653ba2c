//! A toy estate with one step of every kind, for the engine's own proof.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use pvemig::base::check::{Change, Check, Hands, Problem};
use pvemig::base::fault::{Effect, Failure, Fault};
use pvemig::base::permit::{Handle, Note, Permit, Refused, System};
use pvemig::engine::step::{AnyStep, Lost, Risk, Seen, Settle, Settled, Standing, Step};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct World {
    pub policy: String,
    pub replicas: u32,
    pub mark: Option<Value>,
    pub stick_at: String,
    pub slots: BTreeMap<String, String>,
    pub running: BTreeMap<String, String>,
    pub label: bool,
}

pub struct Estate {
    world: Mutex<World>,
    pub changing: Mutex<Vec<String>>,
    pub boots: Mutex<u32>,
    booting: Mutex<u32>,
    /// The how-manieth changing request fails, and whether its effect happens all the same.
    pub fault: Mutex<Option<(usize, bool)>>,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("toy: {0} was refused by rule")]
    Refused(String),
    #[error("toy: no answer to {0}")]
    Lost(String),
    #[error("the permit was refused")]
    Permit(#[from] Refused),
}

impl Fault for Error {
    fn effect(&self) -> Effect {
        if matches!(self, Self::Lost(_)) { Effect::Maybe } else { Effect::None }
    }
}

impl Estate {
    pub fn new() -> Arc<Self> {
        let slots: BTreeMap<_, _> = [("usb3".to_owned(), "tablet".to_owned())].into();
        let world = World {
            policy: "delete".into(),
            replicas: 2,
            mark: None,
            stick_at: "old".into(),
            running: slots.clone(),
            slots,
            label: false,
        };
        Arc::new(Self {
            world: Mutex::new(world),
            changing: Mutex::default(),
            boots: Mutex::default(),
            booting: Mutex::default(),
            fault: Mutex::default(),
        })
    }

    pub fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap()
    }

    pub fn picture(&self) -> Value {
        serde_json::to_value(&*self.world()).unwrap()
    }

    pub fn changes(&self) -> usize {
        self.changing.lock().unwrap().len()
    }

    fn call(&self, permit: &Permit, note: Note, effect: impl FnOnce(&mut World)) -> Result<(), Error> {
        let id = permit.note(&note)?;
        let n = {
            let mut changing = self.changing.lock().unwrap();
            changing.push(note.text.clone());
            changing.len()
        };
        let fault = self.fault.lock().unwrap().filter(|(at, _)| *at == n);
        match fault {
            Some((_, false)) => return Err(Error::Refused(note.text)),
            Some((_, true)) => {
                effect(&mut self.world());
                return Err(Error::Lost(note.text));
            }
            None => effect(&mut self.world()),
        }
        permit.got(id, &Handle::new("toy", format!("{n}")))?;
        Ok(())
    }

    /// The boot takes a few looks to become visible.
    fn boot(&self) {
        *self.boots.lock().unwrap() += 1;
        *self.booting.lock().unwrap() = 3;
    }

    fn look_at_boot(&self) -> bool {
        let mut booting = self.booting.lock().unwrap();
        if *booting > 0 {
            *booting -= 1;
            if *booting == 0 {
                let mut world = self.world();
                world.running = world.slots.clone();
            }
        }
        *booting == 0
    }
}

impl Settle for Estate {
    async fn settle(&self, lost: &Lost) -> Result<Settled, Failure> {
        if *self.booting.lock().unwrap() == 0
            && lost.handle.is_none()
            && !self.changing.lock().unwrap().contains(&lost.note.text)
        {
            return Ok(Settled::NoTrace);
        }
        while !self.look_at_boot() {}
        Ok(Settled::Over("it booted".into()))
    }
}

fn note(text: &str) -> Note {
    Note::safe(System::Toy, text)
}

/// A reading step: nothing to do, nothing to undo.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Look {
    pub in_the_way: Option<String>,
}

impl Step<Estate> for Look {
    const ID: &'static str = "00-look";
    const RISK: Risk = Risk::Reads;
    type Before = ();
    fn title(&self) -> String {
        "look at everything".into()
    }
    fn why(&self) -> Vec<String> {
        vec!["all findings at once".into()]
    }
    async fn check(&self, _: &Estate, _: Seen<'_, ()>) -> Result<Check<()>, Failure> {
        Ok(match &self.in_the_way {
            Some(key) => Check::blocked(vec![Problem::new("it rains", "wait").protects(key.as_str())]),
            None => Check::done(),
        })
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Keep;

impl Step<Estate> for Keep {
    const ID: &'static str = "01-keep";
    const RISK: Risk = Risk::Reverts;
    type Before = String;
    fn title(&self) -> String {
        "keep the volume".into()
    }
    fn why(&self) -> Vec<String> {
        Vec::new()
    }
    async fn check(&self, cx: &Estate, _: Seen<'_, String>) -> Result<Check<String>, Failure> {
        let policy = cx.world().policy.clone();
        Ok(if policy == "retain" {
            Check::done()
        } else {
            Check::todo(vec![Change::set("policy", &policy, "retain")], policy)
        })
    }
    async fn apply(&self, cx: &Estate, _: Seen<'_, String>, permit: &Permit) -> Result<(), Failure> {
        Ok(cx.call(permit, note("set policy"), |w| w.policy = "retain".into())?)
    }
    async fn back(&self, cx: &Estate, before: &String, _: Seen<'_, String>) -> Result<Check<()>, Failure> {
        Ok(if cx.world().policy == *before { Check::done() } else { Check::todo(vec![], ()) })
    }
    async fn undo(&self, cx: &Estate, before: &String, _: Seen<'_, String>, permit: &Permit) -> Result<(), Failure> {
        Ok(cx.call(permit, note("restore policy"), |w| w.policy = before.clone())?)
    }
}

/// A hold: scaled to zero, with a mark, until 06.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Pause;

impl Step<Estate> for Pause {
    const ID: &'static str = "02-pause";
    const RISK: Risk = Risk::Reverts;
    const HOLDS_UNTIL: Option<&'static str> = Some("06-resume");
    type Before = u32;
    fn title(&self) -> String {
        "scale to zero".into()
    }
    fn why(&self) -> Vec<String> {
        Vec::new()
    }
    async fn check(&self, cx: &Estate, seen: Seen<'_, u32>) -> Result<Check<u32>, Failure> {
        let world = cx.world();
        let mark = world.mark.clone();
        if let Some(mark) = &mark {
            let run = mark["run"].as_str().unwrap();
            if run != seen.run.id {
                let was = u32::try_from(mark["was"].as_u64().unwrap()).unwrap();
                return Ok(match seen.run.others.get(run) {
                    Some(Standing::Abandoned) => Check::todo(vec![Change::set("mark", run, &seen.run.id)], was),
                    _ => Check::blocked(vec![Problem::new(format!("held by run {run}"), "look there")]),
                });
            }
        }
        Ok(if world.replicas == 0 && mark.is_some() {
            Check::done()
        } else {
            Check::todo(vec![Change::set("replicas", world.replicas.to_string(), "0")], world.replicas).note("somebody")
        })
    }
    async fn apply(&self, cx: &Estate, seen: Seen<'_, u32>, permit: &Permit) -> Result<(), Failure> {
        let mark = json!({ "run": seen.run.id, "was": seen.since.unwrap() });
        cx.call(permit, note("pause"), |w| {
            w.replicas = 0;
            w.mark = Some(mark);
        })?;
        Ok(())
    }
    async fn back(&self, cx: &Estate, before: &u32, _: Seen<'_, u32>) -> Result<Check<()>, Failure> {
        let world = cx.world();
        Ok(if world.replicas == *before && world.mark.is_none() { Check::done() } else { Check::todo(vec![], ()) })
    }
    async fn undo(&self, cx: &Estate, before: &u32, _: Seen<'_, u32>, permit: &Permit) -> Result<(), Failure> {
        cx.call(permit, note("unpause"), |w| {
            w.replicas = *before;
            w.mark = None;
        })?;
        Ok(())
    }
}

/// A person moves the stick.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Carry;

fn carry(to: &str, before: Option<String>) -> Check<String> {
    let hands = Hands::Plug { device: "stick".into(), ids: vec![], serial: None, host: to.into(), port: None };
    let mut check = Check::manual(format!("carry the stick to {to}"), None, Some(hands));
    if let pvemig::base::check::Answer::Manual { before: b, .. } = &mut check.answer {
        *b = before;
    }
    check
}

impl Step<Estate> for Carry {
    const ID: &'static str = "03-carry";
    const RISK: Risk = Risk::Reads;
    type Before = String;
    fn title(&self) -> String {
        "the stick is at the new host".into()
    }
    fn why(&self) -> Vec<String> {
        Vec::new()
    }
    async fn check(&self, cx: &Estate, _: Seen<'_, String>) -> Result<Check<String>, Failure> {
        let at = cx.world().stick_at.clone();
        Ok(if at == "new" { Check::done() } else { carry("new", Some(at)) })
    }
    async fn back(&self, cx: &Estate, before: &String, _: Seen<'_, String>) -> Result<Check<()>, Failure> {
        if cx.world().stick_at == *before {
            return Ok(Check::done());
        }
        carry(before, None).try_map(|_| Ok(()))
    }
}

/// Two calls.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Attach;

impl Step<Estate> for Attach {
    const ID: &'static str = "04-attach";
    const RISK: Risk = Risk::Reverts;
    type Before = BTreeMap<String, String>;
    fn title(&self) -> String {
        "two slots for the stick".into()
    }
    fn why(&self) -> Vec<String> {
        Vec::new()
    }
    async fn check(&self, cx: &Estate, _: Seen<'_, Self::Before>) -> Result<Check<Self::Before>, Failure> {
        let world = cx.world();
        if world.stick_at != "new" {
            return Ok(Check::blocked(vec![Problem::new("no stick", "carry it").mended_by("03-carry")]));
        }
        let both = ["usb0", "usb1"].iter().all(|s| world.slots.contains_key(*s));
        Ok(if both {
            Check::done()
        } else {
            Check::todo(vec![Change::add("usb0", "stick"), Change::add("usb1", "stick")], world.slots.clone())
        })
    }
    async fn apply(&self, cx: &Estate, _: Seen<'_, Self::Before>, permit: &Permit) -> Result<(), Failure> {
        for slot in ["usb0", "usb1"] {
            if !cx.world().slots.contains_key(slot) {
                cx.call(permit, note(&format!("set {slot}")), |w| {
                    w.slots.insert(slot.into(), "stick".into());
                })?;
            }
        }
        Ok(())
    }
    async fn back(&self, cx: &Estate, b: &Self::Before, _: Seen<'_, Self::Before>) -> Result<Check<()>, Failure> {
        Ok(if cx.world().slots == *b { Check::done() } else { Check::todo(vec![], ()) })
    }
    async fn undo(&self, cx: &Estate, b: &Self::Before, _: Seen<'_, Self::Before>, p: &Permit) -> Result<(), Failure> {
        let extra: Vec<_> = cx.world().slots.keys().filter(|k| !b.contains_key(*k)).cloned().collect();
        for slot in extra {
            cx.call(p, note(&format!("clear {slot}")), |w| {
                w.slots.remove(&slot);
            })?;
        }
        Ok(())
    }
}

/// A reboot: must not be sent twice, and shows late.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Boot;

impl Step<Estate> for Boot {
    const ID: &'static str = "05-boot";
    const RISK: Risk = Risk::Reverts;
    type Before = u32;
    fn title(&self) -> String {
        "run what is configured".into()
    }
    fn why(&self) -> Vec<String> {
        Vec::new()
    }
    async fn check(&self, cx: &Estate, _: Seen<'_, u32>) -> Result<Check<u32>, Failure> {
        if !cx.look_at_boot() {
            return Ok(Check::waiting("it boots"));
        }
        let boots = *cx.boots.lock().unwrap();
        let world = cx.world();
        Ok(if world.running == world.slots { Check::done() } else { Check::todo(vec![Change::act("reboot")], boots) })
    }
    async fn apply(&self, cx: &Estate, _: Seen<'_, u32>, permit: &Permit) -> Result<(), Failure> {
        if *cx.booting.lock().unwrap() > 0 {
            return Ok(());
        }
        let n = *cx.boots.lock().unwrap();
        cx.call(permit, Note::once(System::Toy, format!("boot {n}")), |_| cx.boot())?;
        Ok(())
    }
    async fn back(&self, cx: &Estate, _: &u32, _: Seen<'_, u32>) -> Result<Check<()>, Failure> {
        Ok(if cx.look_at_boot() { Check::done().note("runs") } else { Check::waiting("it boots") })
    }
}

/// The closer.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Resume;

impl Step<Estate> for Resume {
    const ID: &'static str = "06-resume";
    const RISK: Risk = Risk::Reverts;
    type Before = Value;
    fn title(&self) -> String {
        "replicas as they were".into()
    }
    fn why(&self) -> Vec<String> {
        Vec::new()
    }
    async fn check(&self, cx: &Estate, seen: Seen<'_, Value>) -> Result<Check<Value>, Failure> {
        let held = seen.held.get("02-pause").cloned();
        let world = cx.world();
        if world.label && world.mark.is_none() {
            return Ok(Check::done());
        }
        let was = world.mark.as_ref().map(|m| m["was"].clone()).or(held);
        Ok(Check::todo(vec![Change::act("scale up")], json!({ "was": was, "label": world.label })))
    }
    async fn apply(&self, cx: &Estate, seen: Seen<'_, Value>, permit: &Permit) -> Result<(), Failure> {
        if !cx.world().label {
            cx.call(permit, note("label"), |w| w.label = true)?;
        }
        if cx.world().mark.is_some() {
            let was = u32::try_from(seen.since.unwrap()["was"].as_u64().unwrap()).unwrap();
            cx.call(permit, note("scale up"), |w| {
                w.replicas = was;
                w.mark = None;
            })?;
        }
        Ok(())
    }
    async fn back(&self, cx: &Estate, before: &Value, _: Seen<'_, Value>) -> Result<Check<()>, Failure> {
        Ok(if cx.world().label == before["label"].as_bool().unwrap() { Check::done() } else { Check::todo(vec![], ()) })
    }
    async fn undo(&self, cx: &Estate, before: &Value, _: Seen<'_, Value>, p: &Permit) -> Result<(), Failure> {
        let label = before["label"].as_bool().unwrap();
        Ok(cx.call(p, note("unlabel"), |w| w.label = label)?)
    }
}

pub fn steps() -> Vec<Box<dyn AnyStep<Estate>>> {
    vec![
        Box::new(Look { in_the_way: None }),
        Box::new(Keep),
        Box::new(Pause),
        Box::new(Carry),
        Box::new(Attach),
        Box::new(Boot),
        Box::new(Resume),
    ]
}
