//! A machine's NVMe drives: the questions and their answers, by each way in.

use pvemig::base::drives::Inventory;
use pvemig::base::survey::Layer;
use pvemig::guest::{Guest, nvme_drives, quote};
use pvemig::lab::Class;
use pvemig::lab::world::NvmeDrive;

use super::lab::{Bench, HOST, VM};
use super::table::gpt;
use super::*;

const UUIDS: [&str; 2] = ["5b1c6f0e-0102-4304-8506-0708090a0b0c", "6c2d7f1f-1112-4314-9516-1718191a1b1c"];

/// Name, serial number, port and the partitions of each.
fn shown(inventory: &Inventory) -> Vec<String> {
    let one = |drive: &pvemig::base::drives::Drive| {
        let parts = match &drive.parts {
            Layer::Known(parts) => {
                parts.iter().map(|part| format!(" {}:{}:{}", part.index, part.label, part.uuid)).collect()
            }
            Layer::Unknown { reason, .. } => format!(" unknown: {reason}"),
            Layer::Absent => " not asked".to_owned(),
        };
        format!("{} {} {}{parts}", drive.id, drive.serial, drive.port().unwrap())
    };
    inventory.drives.iter().map(one).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn drives_and_what_is_on_them_are_seen_by_each_way() {
    let bench = Bench::start().await;
    let dir = tempfile::tempdir().unwrap();
    let drive = |name: &str, addr, bytes: &[u8]| {
        let file = dir.path().join(name);
        std::fs::write(&file, bytes).unwrap();
        std::fs::File::options().write(true).open(&file).unwrap().set_len(64 << 20).unwrap();
        NvmeDrive { file, serial: name.to_uppercase(), addr, name: String::new() }
    };
    let parts = [(UUIDS[0], "EFI", 2048, 22_527), (UUIDS[1], "u-media", 22_528, 63_487)];
    let table = gpt(64 << 20, "00000000-0000-4000-8000-00000000000a", &parts);
    let drives = vec![drive("late", 0x12, &[]), drive("first", 0x10, &table), drive("pool", 0x11, b"SPDKBLOB")];
    bench.lab.shared().change(|world| world.vms.get_mut(&VM).unwrap().guest.drives = drives);
    let expected = [
        format!("nvme0n1 FIRST 0000:00:10.0 1:EFI:{} 2:u-media:{}", UUIDS[0], UUIDS[1]),
        // Something is on it, and nobody knows what.
        "nvme1n1 POOL 0000:00:11.0 0::".to_owned(),
        "nvme2n1 LATE 0000:00:12.0".to_owned(),
    ];
    let mut ways = 0;
    for guest in [bench.direct(LONG), bench.through_host()] {
        let seen = guest.drives().await.unwrap().value;
        assert_eq!(shown(&seen), expected);
        assert!(seen.drives.iter().all(|drive| drive.size == 64 << 20 && drive.transport == "nvme"));
        let blank: Vec<bool> = seen.drives.iter().map(|drive| drive.is_blank()).collect();
        assert_eq!((blank, seen.controllers_without_a_disk.len()), (vec![false, false, true], 0));
        ways += 1;
    }
    // The list twice, so that no other drives came in between, and the first blocks of each.
    assert_eq!((ways, bench.count(Class::Look), bench.count(Class::Change)), (2, 2 * (2 + 3), 0));

    // What goes to a shell comes out of it as it is.
    let list = Look::NvmeList.argv().unwrap();
    let output = bench.ssh(bench.port(), &quote(&list)).await;
    assert_eq!(String::from_utf8(output.stdout).unwrap().lines().count(), 3 * 6);
    let none = bench.ssh(bench.lab.reach().ssh.hosts[HOST], &quote(&list)).await;
    assert_eq!((none.status.code(), none.stdout.len()), (Some(0), 0), "a host without such drives");

    // One that went: its file is away, and so are its bytes.
    std::fs::remove_file(dir.path().join("pool")).unwrap();
    let seen = bench.direct(LONG).drives().await.unwrap().value;
    let lines = shown(&seen);
    assert!(lines[1].contains("unknown: ") && lines[1].contains("/dev/nvme1n1: No such file"), "{lines:?}");
    assert_eq!((lines.len(), &lines[0]), (3, &expected[0]));
}

/// The programs of this machine.
#[tokio::test(flavor = "multi_thread")]
async fn a_real_kernels_list_is_read() {
    let place = Place::new();
    let sshd = Sshd::start(&place, "");
    let guest = guest(vec![Route::Ssh(place.target(sshd.port, LONG))]);
    let answer = guest.look(&Look::NvmeList).await.unwrap().value;
    let here = nvme_drives(&answer).unwrap();
    let local = |entry: std::io::Result<std::fs::DirEntry>| {
        std::fs::canonicalize(entry.unwrap().path()).unwrap().to_str().unwrap().contains("/nvme/")
    };
    let classed = std::fs::read_dir("/sys/class/nvme").map_or(0, |all| all.map(local).filter(|is| *is).count());
    assert!(here.drives.len() + here.controllers_without_a_disk.len() >= classed, "{here:?}");
}

const DRIVE: &str = "/sys/devices/pci0000:00/0000:00:10.0/nvme/nvme0";

fn list(serial: &str) -> String {
    format!("{DRIVE}/serial:{serial}\n{DRIVE}/model:m\n{DRIVE}/firmware_rev:f\n{DRIVE}/nvme0n1/size:8\n")
}

async fn scripted(place: &Place, lists: &[String]) -> (Guest, Arc<std::sync::Mutex<Vec<String>>>) {
    let (port, asked) = Scripted::start(place, Manner::Drives(lists.to_vec().leak())).await;
    (Guest::new("vm 108", vec![Route::Ssh(place.target(port, LONG))], Clock::fast(1_000)), asked)
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_change_hands_meanwhile_are_no_answer() {
    let place = Place::new();
    let (guest, asked) = scripted(&place, &[list("A"), list("B")]).await;
    let error = guest.drives().await.unwrap_err();
    assert_eq!(error.to_string(), "the list of NVMe drives: other drives were there once they had been read");
    let asked = asked.lock().unwrap();
    let words: Vec<&str> = asked.iter().map(|line| line.split(' ').next().unwrap()).collect();
    assert_eq!(words, ["find", "od", "find"]);
    assert_eq!(asked[1], "od -A n -v -t x1 -N 69632 /dev/nvme0n1");
    let wanted = "find /sys/devices -type f '(' -name class -o -path '*/nvme/nvme*' '(' -name serial -o -name model \
                  -o -name firmware_rev -o -name wwid -o -name size ')' ')' -exec grep -H '^' '{}' +";
    assert_eq!(asked[0], wanted);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drive_that_is_coming_is_looked_at_again() {
    let place = Place::new();
    let half = format!("{DRIVE}/serial:A\n");
    let (guest, asked) = scripted(&place, &[half, list("A")]).await;
    let seen = guest.drives().await.unwrap().value;
    assert_eq!(shown(&seen), ["nvme0n1 A 0000:00:10.0"]);
    assert_eq!(asked.lock().unwrap().len(), 4);
    let (guest, asked) = scripted(&place, &[String::new()]).await;
    assert_eq!((guest.drives().await.unwrap().value, asked.lock().unwrap().len()), (Inventory::default(), 1));
}
