//! The worlds that come with the lab.

use serde_json::Value;

use super::LabError;
use super::world::World;

/// The name of a world that comes with the lab.
pub type WorldName = str;

/// Name and text. A world that says `extends` is another one with a merge patch (RFC 7386).
const WORLDS: &[(&str, &str)] = &[
    ("usb-move", include_str!("worlds/usb-move.yaml")),
    ("usb-move-old", include_str!("worlds/usb-move-old.yaml")),
    ("usb-move-token", include_str!("worlds/usb-move-token.yaml")),
    ("usb-move-token-cannot", include_str!("worlds/usb-move-token-cannot.yaml")),
    ("talos-three", include_str!("worlds/talos-three.yaml")),
    ("talos-three-no-modules", include_str!("worlds/talos-three-no-modules.yaml")),
    ("talos-three-wrong-image", include_str!("worlds/talos-three-wrong-image.yaml")),
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
    let base = value.as_object_mut().and_then(|map| map.remove("extends"));
    match base.as_ref().and_then(Value::as_str) {
        None => Ok(value),
        Some(base) => {
            let mut whole = merged(text(base)?)?;
            merge(&mut whole, value);
            Ok(whole)
        }
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
        assert_eq!(names().len(), 7);
        for (name, about) in names() {
            let world = load(name).unwrap_or_else(|e| panic!("{name}: {e}"));
            assert_eq!(world.name, name);
            assert!(!about.is_empty(), "{name}");
        }
        assert!(matches!(load("nowhere"), Err(LabError::NoWorld { .. })));
    }
}
