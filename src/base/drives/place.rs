//! Which slot each drive is in, held against a layout.

use std::collections::BTreeMap;

use super::matching::{Found, Known, Sight, Unasked, recognise};
use super::{Drive, Inventory, Layout, Link, Odd, Plan, Port};

/// Which of an inventory's drives the plan means: by serial number, or by the partition that it names. A new drive need not
/// be there. In what is found no slot is filled in.
///
/// # Errors
/// As for [`recognise`].
pub fn name(plan: &Plan, inventory: &Inventory) -> Result<Sight, Unasked> {
    let drives: Vec<(&String, Drive)> = plan.drives.iter().map(|(name, wanted)| (name, wanted.drive())).collect();
    let known = known(plan, &drives, &BTreeMap::new(), &plan.current);
    let mut sight = recognise(&known, &inventory.drives)?;
    let is_new = |name: &str| plan.drives.get(name).is_some_and(|wanted| wanted.new);
    sight.odd.retain(|odd| !matches!(odd, Odd::Missing { name, .. } if is_new(name)));
    Ok(sight)
}

/// The ports of the slots: from the site file, else from what was in them when the machine was as in `plan.current`. A slot
/// in which nothing was ever seen is not among them.
pub fn ports(plan: &Plan, named: &Sight, before: &Inventory) -> BTreeMap<String, Port> {
    let seen = |slot: &str| {
        let found = named.of(plan.current.get(slot)?)?;
        before.drives.get(found.at)?.port()
    };
    let of = |slot: &super::Slot| Some((slot.name.clone(), slot.port.clone().or_else(|| seen(&slot.name))?));
    plan.slots.iter().filter_map(of).collect()
}

/// Recognises the plan's drives among those that the machine has now, and says where each is and whether it belongs there.
/// `before` is the inventory of when the machine was as in `plan.current`, an empty one where there is none; `layout` is
/// how the drives are to be: the target, or on the way back what was before.
///
/// # Errors
/// As for [`recognise`].
pub fn placed(plan: &Plan, layout: &Layout, before: &Inventory, live: &Inventory) -> Result<Sight, Unasked> {
    let named = name(plan, before)?;
    let mut ports = ports(plan, &named, before);
    let was = |name: &str| before.drives.get(named.of(name)?.at);
    let drives: Vec<(&String, Drive)> =
        plan.drives.iter().map(|(name, wanted)| (name, was(name).cloned().unwrap_or_else(|| wanted.drive()))).collect();
    let mut sight = recognise(&known(plan, &drives, &ports, layout), &live.drives)?;
    for found in &mut sight.found {
        let Some(drive) = live.drives.get(found.at) else { continue };
        found.notes.extend(was(&found.name).and_then(|was| narrower(was, drive)));
        let odd = settle(plan, layout, &mut ports, found, drive);
        sight.odd.extend(odd);
    }
    // A drive that is not in the layout is rightly missing.
    sight.odd.retain(|odd| !matches!(odd, Odd::Missing { name, .. } if Plan::slot_of(layout, name).is_none()));
    let odd = std::mem::take(&mut sight.odd);
    sight.odd = odd.into_iter().map(|odd| where_missing(odd, layout, &ports, before, live, &sight.found)).collect();
    Ok(sight)
}

fn known<'d>(
    plan: &Plan,
    drives: &'d [(&'d String, Drive)],
    ports: &BTreeMap<String, Port>,
    layout: &Layout,
) -> Vec<Known<'d>> {
    let of = |(name, drive): &'d (&'d String, Drive)| {
        let slots = [&plan.current, layout].into_iter().filter_map(|layout| Plan::slot_of(layout, name));
        Known {
            name,
            drive,
            new: plan.drives.get(*name).is_some_and(|wanted| wanted.new),
            ports: slots.filter_map(|slot| ports.get(slot).cloned()).collect(),
        }
    };
    drives.iter().map(of).collect()
}

/// Fills in the slot of a drive that was found; what is wrong with it, if anything.
fn settle(
    plan: &Plan,
    layout: &Layout,
    ports: &mut BTreeMap<String, Port>,
    found: &mut Found,
    drive: &Drive,
) -> Option<Odd> {
    let name = found.name.clone();
    let port = drive.port();
    found.slot = port.as_ref().and_then(|port| slot_at(ports, port));
    let unseen: Vec<&str> =
        plan.slots.iter().map(|slot| slot.name.as_str()).filter(|slot| !ports.contains_key(*slot)).collect();
    let guess = match unseen.as_slice() {
        [only] => format!(" (perhaps {only})"),
        _ => String::new(),
    };
    let place = || found.slot.clone().or(port.as_ref().map(|port| format!("the slot at {port}{guess}")));
    let Some(should) = Plan::slot_of(layout, &name) else { return Some(Odd::StillIn { name, is: place() }) };
    let Some(at) = &port else { return Some(Odd::NoPlace { name, live: found.at }) };
    if found.slot.as_deref() == Some(should) {
        return None;
    }
    if found.slot.is_some() || ports.contains_key(should) {
        let is = place().unwrap_or_default();
        return Some(Odd::WrongSlot { name, is, should: should.to_owned() });
    }
    found.notes.push(match unseen.as_slice() {
        [_] => format!("{should} is the slot at {at}: nothing was seen in it before, and it is the only one of these"),
        several => format!(
            "{should} is taken to be the slot at {at}; which of {} it is cannot be told, as nothing was seen in them before",
            several.join(" and ")
        ),
    });
    ports.insert(should.to_owned(), at.clone());
    found.slot = Some(should.to_owned());
    None
}

fn slot_at(ports: &BTreeMap<String, Port>, port: &Port) -> Option<String> {
    ports.iter().find(|(_, of)| *of == port).map(|(slot, _)| slot.clone())
}

/// What can be said of the slot of a drive that is missing.
fn where_missing(
    odd: Odd,
    layout: &Layout,
    ports: &BTreeMap<String, Port>,
    before: &Inventory,
    live: &Inventory,
    found: &[Found],
) -> Odd {
    let Odd::Missing { name, .. } = odd else { return odd };
    let Some(slot) = Plan::slot_of(layout, &name) else { return Odd::missing(&name) };
    // One that never brought up a drive is none of ours.
    let idle = |port: &Port| before.controllers_without_a_disk.iter().any(|one| one.port.as_ref() == Some(port));
    let here = |port: &Port| match ports.get(slot) {
        Some(own) => own == port,
        None => slot_at(ports, port).is_none() && !idle(port),
    };
    if let Some(dead) = live.controllers_without_a_disk.iter().find(|one| one.port.as_ref().is_some_and(here)) {
        return Odd::Dead { name, slot: slot.to_owned(), controller: dead.address.clone() };
    }
    let holds = found.iter().find(|one| one.slot.as_deref() == Some(slot)).map(|one| one.name.clone());
    Odd::Missing { name, slot: Some(slot.to_owned()), known: ports.contains_key(slot), holds }
}

/// A link that goes slower than it did.
fn narrower(was: &Drive, now: &Drive) -> Option<String> {
    let (was, now) = (was.link.as_ref()?, now.link.as_ref()?);
    let speed = |link: &Link| link.speed.split(' ').next().and_then(|number| number.parse::<f64>().ok());
    let slower = speed(was).zip(speed(now)).is_some_and(|(was, now)| now < was);
    (slower || now.width < was.width)
        .then(|| format!("its link has {} lanes at {}, and had {} at {}", now.width, now.speed, was.width, was.speed))
}
