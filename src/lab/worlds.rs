//! The worlds that come with the lab.

use serde::Deserialize;
use serde_json::Value;

use super::LabError;
use super::world::World;

/// The name of a world that comes with the lab.
pub type WorldName = str;

/// Name and text. A world that says `extends` is another one with a merge patch (RFC 7386), and with `edits` of the texts
/// in it: machine configurations, which a patch could only write anew.
const WORLDS: &[(&str, &str)] = &[
    ("usb-move", include_str!("worlds/usb-move.yaml")),
    ("usb-move-old", include_str!("worlds/usb-move-old.yaml")),
    ("usb-move-token", include_str!("worlds/usb-move-token.yaml")),
    ("usb-move-token-cannot", include_str!("worlds/usb-move-token-cannot.yaml")),
    ("talos-three", include_str!("worlds/talos-three.yaml")),
    ("talos-three-no-modules", include_str!("worlds/talos-three-no-modules.yaml")),
    ("talos-three-wrong-image", include_str!("worlds/talos-three-wrong-image.yaml")),
    ("talos-three-agent", include_str!("worlds/talos-three-agent.yaml")),
    ("talos-three-stick", include_str!("worlds/talos-three-stick.yaml")),
    ("talos-three-stick-boots", include_str!("worlds/talos-three-stick-boots.yaml")),
    ("talos-three-old-disk", include_str!("worlds/talos-three-old-disk.yaml")),
    ("talos-three-boot-order", include_str!("worlds/talos-three-boot-order.yaml")),
    ("talos-three-two-voters", include_str!("worlds/talos-three-two-voters.yaml")),
    ("talos-three-learner", include_str!("worlds/talos-three-learner.yaml")),
    ("talos-three-alarm", include_str!("worlds/talos-three-alarm.yaml")),
    ("talos-three-equal-serials", include_str!("worlds/talos-three-equal-serials.yaml")),
    ("talos-three-hugepages", include_str!("worlds/talos-three-hugepages.yaml")),
    ("talos-fresh", include_str!("worlds/talos-fresh.yaml")),
    ("talos-dead-node", include_str!("worlds/talos-dead-node.yaml")),
    ("talos-replace", include_str!("worlds/talos-replace.yaml")),
    ("talos-no-quorum", include_str!("worlds/talos-no-quorum.yaml")),
    ("talos-deadlock", include_str!("worlds/talos-deadlock.yaml")),
    ("nvme-data", include_str!("worlds/nvme-data.yaml")),
    ("nvme-data-by-path", include_str!("worlds/nvme-data-by-path.yaml")),
    ("nvme-data-two-match", include_str!("worlds/nvme-data-two-match.yaml")),
    ("nvme-data-renames", include_str!("worlds/nvme-data-renames.yaml")),
    ("nvme-data-dead", include_str!("worlds/nvme-data-dead.yaml")),
    ("nvme-data-alike", include_str!("worlds/nvme-data-alike.yaml")),
    ("nvme-data-cheap", include_str!("worlds/nvme-data-cheap.yaml")),
    ("nvme-data-clone", include_str!("worlds/nvme-data-clone.yaml")),
    ("nvme-data-rebuild", include_str!("worlds/nvme-data-rebuild.yaml")),
    ("nvme-data-pdb", include_str!("worlds/nvme-data-pdb.yaml")),
    ("nvme-data-only-replica", include_str!("worlds/nvme-data-only-replica.yaml")),
    ("nvme-data-vm", include_str!("worlds/nvme-data-vm.yaml")),
    ("nvme-data-vm-mapped", include_str!("worlds/nvme-data-vm-mapped.yaml")),
    ("nvme-system", include_str!("worlds/nvme-system.yaml")),
    ("nvme-system-slot-entry", include_str!("worlds/nvme-system-slot-entry.yaml")),
    ("nvme-system-replaced", include_str!("worlds/nvme-system-replaced.yaml")),
    ("nvme-replaced-known-volume", include_str!("worlds/nvme-replaced-known-volume.yaml")),
    ("nvme-single", include_str!("worlds/nvme-single.yaml")),
];

/// Names and one line about each.
pub fn names() -> Vec<(&'static str, String)> {
    WORLDS.iter().map(|(name, _)| (*name, load(name).map(|w| w.about).unwrap_or_default())).collect()
}

/// A world that comes with the lab.
///
/// # Errors
/// [`LabError::NoWorld`], or [`LabError::BadWorld`] where its file does not fit.
pub fn load(name: &WorldName) -> Result<World, LabError> {
    read(text(name)?)
}

/// A world from the text of a world file.
///
/// # Errors
/// As [`load`].
pub fn read(text: &str) -> Result<World, LabError> {
    let value = merged(text)?;
    serde_json::from_value(value).map_err(|e| LabError::BadWorld(e.to_string()))
}

fn text(name: &str) -> Result<&'static str, LabError> {
    WORLDS.iter().find(|(n, _)| *n == name).map(|(_, text)| *text).ok_or_else(|| LabError::NoWorld {
        name: name.to_owned(),
        known: WORLDS.iter().map(|(n, _)| *n).collect::<Vec<_>>().join(", "),
    })
}

fn merged(world: &str) -> Result<Value, LabError> {
    let mut value: Value = serde_saphyr::from_str(world).map_err(|e| LabError::BadWorld(e.to_string()))?;
    let mut take = |key: &str| value.as_object_mut().and_then(|map| map.remove(key)).unwrap_or_default();
    let (base, edits) = (take("extends"), take("edits"));
    if let Some(base) = base.as_str() {
        let mut whole = merged(text(base)?)?;
        merge(&mut whole, value);
        value = whole;
    }
    let edits: Option<Vec<Edit>> = serde_json::from_value(edits).map_err(|e| LabError::BadWorld(e.to_string()))?;
    for edit in edits.unwrap_or_default() {
        edit.make(&mut value)?;
    }
    Ok(value)
}

/// A change of a text of the world that is extended.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Edit {
    /// The text, as a JSON pointer: `/talos/nodes/NAME/config`.
    at: String,
    /// What is in it, once.
    from: String,
    /// What comes in its place.
    to: String,
}

impl Edit {
    fn make(&self, world: &mut Value) -> Result<(), LabError> {
        let bad = |what: String| LabError::BadWorld(format!("edits: {}: {what}", self.at));
        let Some(Value::String(text)) = world.pointer_mut(&self.at) else { return Err(bad("there is no text".into())) };
        match text.matches(&self.from).count() {
            1 => *text = text.replace(&self.from, &self.to),
            times => return Err(bad(format!("`{}` is in it {times} times, and once is meant", self.from))),
        }
        Ok(())
    }
}

/// Merges `patch` into `target` (RFC 7386): null removes.
pub(super) fn merge(target: &mut Value, patch: Value) {
    match (target, patch) {
        (Value::Object(target), Value::Object(patch)) => {
            for (key, value) in patch {
                if value.is_null() {
                    target.remove(&key);
                } else {
                    merge(target.entry(key).or_insert(Value::Null), value);
                }
            }
        }
        (target, patch) => *target = patch,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_world_loads_under_its_own_name() {
        assert_eq!(names().len(), 40);
        for (name, about) in names() {
            let world = load(name).unwrap_or_else(|e| panic!("{name}: {e}"));
            assert_eq!(world.name, name);
            assert!(!about.is_empty(), "{name}");
        }
        assert!(matches!(load("nowhere"), Err(LabError::NoWorld { .. })));
    }
    #[test]
    fn a_text_is_edited_where_what_is_meant_is_in_it_once() {
        let mac = |world: &World| world.talos.nodes["talos-mac"].config.clone();
        let edit = |from: &str| {
            read(&format!(
                "extends: talos-three\nedits: [{{ at: /talos/nodes/talos-mac/config, from: '{from}', to: 'type: worker' }}]\n"
            ))
        };
        let old = mac(&load("talos-three").unwrap());
        assert_eq!(mac(&edit("type: controlplane").unwrap()), old.replace("type: controlplane", "type: worker"));
        for (from, times) in [("type: master", "0 times"), ("192.168.4.", "3 times")] {
            let said = edit(from).unwrap_err().to_string();
            assert!(said.contains(times) && said.contains("/talos/nodes/talos-mac/config"), "{said}");
        }
        let said = read("extends: talos-three\nedits: [{ at: /talos/nodes/nobody/config, from: a, to: b }]\n");
        assert!(said.unwrap_err().to_string().contains("there is no text"));
    }
}
