//! What must hold of the readers of what is on drives, and of expressions that choose them.

use pvemig::base::cel::{Cel, Value};
use pvemig::base::drives::{boot_entry, gpt};
use pvemig::base::selector;

/// An expression comes to yes, no or a reason. What is written for a drive means that drive, whatever it calls itself.
pub fn disk_expression(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let field = |serial: &str, name: &str| match name {
        "disk.serial" | "disk.model" => Some(Value::Text(serial.to_owned())),
        "disk.size" => Some(Value::Uint(7)),
        "disk.symlinks" => Some(Value::List(vec![Value::Text("/dev/disk/by-id/a".into())])),
        "system_disk" => Some(Value::Bool(false)),
        _ => None,
    };
    match Cel::read(text) {
        Ok(read) => {
            let _moves = read.names("disk.dev_path");
            let again = read.holds(&|name| field("S", name));
            assert_eq!(read.holds(&|name| field("S", name)), again, "{text}");
        }
        Err(why) => assert!(!why.is_empty()),
    }
    let printable: String = text.chars().filter(|c| matches!(c, ' '..='~')).take(40).collect();
    let said = selector::fallback(&printable, &printable, 7);
    let read = Cel::read(&said).unwrap_or_else(|why| panic!("{said}: {why}"));
    let means = |serial: &str| read.holds(&|name| field(serial, name)).unwrap_or_else(|why| panic!("{said}: {why}"));
    assert!(printable.trim().is_empty() || (means(printable.trim()) && !means(&format!("{}x", printable.trim()))));
}

/// A table is believed whole, or refused.
pub fn partition_table(data: &[u8]) {
    let mut drive = vec![0; 512];
    drive.extend(data);
    drive.resize(17_408, 0);
    for bytes in [data, &drive] {
        match gpt::read(bytes) {
            Ok(gpt::Table::Gpt { disk, parts }) => {
                assert_eq!(disk.len(), 36);
                assert!(parts.iter().all(|part| part.uuid.len() == 36 && part.index > 0));
            }
            Ok(_) => {}
            Err(why) => assert!(!why.to_string().is_empty()),
        }
    }
}

/// What is behind an entry's path is of no matter to it.
pub fn boot_entry(data: &[u8]) {
    let _order = boot_entry::order(data);
    match boot_entry::read(data) {
        Ok(entry) => {
            let longer = [data, b"more".as_slice()].concat();
            assert_eq!(boot_entry::read(&longer), Ok(entry));
        }
        Err(why) => assert!(!why.to_string().is_empty()),
    }
}
