//! A configuration as it was: stored before the first change, applied back to the byte.

use std::sync::{Arc, Mutex};

use pvemig::base::permit::{CallId, Handle, Ledger, Note, Permit, Refused, Thing};
use pvemig::talos::patch::{Patch, patch};
use pvemig::talos::{ApplyMode, KeptConfig, MachineConfig};

use super::Wire;
use super::fake::{num, text as field};

/// Remembers files, as a run does.
#[derive(Default)]
struct Files(Mutex<Vec<(String, Vec<u8>)>>);

impl Ledger for Files {
    fn note(&self, _: &Note) -> Result<CallId, Refused> {
        Ok(CallId(0))
    }
    fn got(&self, _: CallId, _: &Handle) -> Result<(), Refused> {
        Ok(())
    }
    fn progress(&self, _: &str) {}
    fn file(&self, name: &str, bytes: &[u8]) -> Result<(), Refused> {
        self.0.lock().unwrap().push((name.to_owned(), bytes.to_vec()));
        Ok(())
    }
    fn may_destroy(&self, _: &Thing) -> Result<(), Refused> {
        Ok(())
    }
}

#[tokio::test]
async fn what_was_there_comes_back_to_the_byte() {
    let text = "version: v1alpha1 # as it was \r\nmachine: {token: sesame-open,  type: worker}\n\n...\n";
    let found = MachineConfig::new("7", text);
    let before = found.kept("config-talos-20.yaml");
    // It goes through the journal, and the journal has nothing of the text.
    let line = serde_json::to_string(&before).unwrap();
    assert!(!line.contains("sesame") && line.contains("\"version\":\"7\""), "{line}");
    let before: KeptConfig = serde_json::from_str(&line).unwrap();

    let files = Arc::new(Files::default());
    let permit = Permit::mint(files.clone());
    assert_eq!(before.store(&permit, &found), Ok(true));
    let labels = [Patch::NodeLabel { name: "a".into(), value: "b".into() }];
    let changed = MachineConfig::new("8", patch(text, &labels).unwrap().text);
    assert!(before.is(&found) && !before.is(&changed));
    // After a crash: the node has the changed one, and the first stays.
    assert_eq!(before.store(&permit, &changed), Ok(false));
    let stored = files.0.lock().unwrap().clone();
    assert_eq!(stored, [("config-talos-20.yaml".to_owned(), text.as_bytes().to_vec())]);

    let back = before.restore(Some(stored[0].1.clone())).unwrap();
    assert_eq!((back.expose(), back.version.as_str()), (text, "7"));
    assert!(!format!("{back:?} {before:?}").contains("sesame"));
    let wire = Wire::start().await;
    wire.says("ApplyConfiguration", &[num(3, 2), field(4, "Applied configuration without a reboot")]);
    wire.talos.apply_config(&wire.permit, back.expose(), ApplyMode::NoReboot).await.unwrap();
    assert_eq!(wire.change().0.messages, [[field(1, text), num(4, 2)].concat()]);

    let missing = before.restore(None).unwrap_err();
    assert!(missing.to_string().contains("config-talos-20.yaml with the former machine configuration is not there"));
    let other = before.restore(Some(b"machine: {token: sesame-open}".to_vec())).unwrap_err();
    assert!(other.to_string().contains("its digest is another one") && !other.to_string().contains("sesame"));
}
