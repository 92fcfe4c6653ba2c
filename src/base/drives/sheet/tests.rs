use proptest::prelude::*;

use super::*;

fn row(serial: &str, bus: &str) -> Row {
    let drive = Drive {
        id: "nvme0n1".into(),
        serial: serial.into(),
        transport: "nvme".into(),
        bus_path: bus.into(),
        ..Drive::default()
    };
    Row::of(drive, None, None)
}

#[test]
fn a_slot_is_called_empty_only_where_nothing_else_can_be() {
    let port = |text: &str| Some(text.parse::<Port>().unwrap());
    let slot = |at: Option<&str>| Slot { name: "M2_1".into(), position: "p".into(), port: at.and_then(port) };
    let idle = |at: Option<&str>| Controller { address: "0000:02:00.0".into(), port: at.and_then(port) };
    let one = || Told::Is(vec![row(" S1 ", "/pci0000:00/0000:00:1d.0/0000:04:00.0/nvme")]);
    let virtual_one = Told::Is(vec![row("S2", "/virtual/nvme-subsystem/nvme-subsys0")]);
    let said = |slot: Slot, drives: &Told<Vec<Row>>, controllers: &Told<Vec<Controller>>| {
        let seat = seats(&[slot], drives, controllers, Some("denied")).remove(0);
        match seat.drive {
            Told::Is(drive) => drive,
            Told::Not(why) => format!("? {}", why.unknown),
        }
    };
    let (here, there) = (Some("0000:00:1d.0"), Some("0000:00:06.0"));
    let none = Told::Is(Vec::new());
    let cases = [
        (said(slot(here), &one(), &none), "S1"),
        (said(slot(there), &one(), &none), "none"),
        (said(slot(None), &one(), &none), "? the site file has no port of it"),
        (said(slot(there), &Told::not("refused"), &none), "? refused"),
        (said(slot(there), &one(), &Told::not("denied")), "? denied"),
        // What is seen in it is in it, whatever else could not be asked.
        (said(slot(here), &one(), &Told::not("denied")), "S1"),
        (
            said(slot(there), &one(), &Told::Is(vec![idle(there)])),
            "? its controller 0000:02:00.0 is there without a disk",
        ),
        (said(slot(there), &one(), &Told::Is(vec![idle(Some("0000:00:1b.0"))])), "none"),
        (
            said(slot(there), &one(), &Told::Is(vec![idle(None)])),
            "? controller 0000:02:00.0 is without a disk, and its port is not known: denied",
        ),
        (said(slot(there), &virtual_one, &none), "? nvme0n1 does not tell where it is plugged in"),
    ];
    assert_eq!(cases.len(), 10);
    for (said, wanted) in cases {
        assert_eq!(said, wanted);
    }
}

#[test]
fn a_reason_is_no_value_and_no_value_is_a_reason() {
    let read = |text: &str| serde_saphyr::from_str::<Told<Vec<Cpu>>>(text).unwrap();
    assert_eq!(read("[]"), Told::Is(Vec::new()));
    assert_eq!(read("{ unknown: denied }"), Told::not("denied"));
    // A board of which every field could be left out would be read out of anything.
    assert!(serde_saphyr::from_str::<Told<Board>>("{ unknwon: denied }").is_err());
    assert_eq!(Told::<u8>::from(Layer::Absent), Told::not("it does not tell"));
    let back: Layer<u8> = Told::<u8>::from(Layer::unknown("w")).into();
    assert_eq!(back, Layer::unknown("w"));
}

fn sheet(text: &str, number: u64, why: &str) -> Sheet {
    let part = Part { uuid: text.into(), label: text.into(), index: 1, size: number, content: "xfs".into() };
    let drive = Drive {
        id: text.into(),
        serial: text.into(),
        model: text.into(),
        size: number,
        transport: "nvme".into(),
        bus_path: "/pci0000:00/0000:00:1d.0/0000:04:00.0/nvme".into(),
        symlinks: vec![text.into()],
        parts: Layer::Known(vec![part]),
        purposes: vec![Purpose::System, Purpose::Local("pv-1".into())],
        ..Drive::default()
    };
    let known = Row::of(
        drive.clone(),
        Some(Told::Is(text.into())),
        Some(Told::Is(Link { speed: "8.0 GT/s PCIe".into(), width: 4 })),
    );
    let blind = Drive { parts: Layer::unknown(why), ..drive };
    let blind = Row::of(blind, Some(Told::not(why)), Some(Told::not(why)));
    let slot = Slot { name: "M2_1".into(), position: text.into(), port: known.port.clone() };
    let (drives, none) = (Told::Is(vec![known, blind]), Told::Is(Vec::new()));
    let bays = Bays {
        slots: seats(&[slot], &drives, &none, None),
        drives,
        controllers_without_a_disk: none,
        no_ports: None,
        not_asked: vec![why.into()],
        on_no_drive: Vec::new(),
    };
    let module = Module { slot: text.into(), size_mib: 1, speed: 0, product: text.into(), serial: text.into() };
    let machine = Machine {
        talos: text.into(),
        board: Told::not(why),
        cpu: Told::Is(vec![Cpu { socket: text.into(), product: text.into(), cores: 4, threads: 8 }]),
        memory: Memory { bytes: Told::Is(number), modules: Told::Is(vec![module]) },
        bays: bays.clone(),
    };
    Sheet {
        pvemig: FORMAT,
        site: text.into(),
        taken: "2026-11-22T16:00:00Z".parse().unwrap(),
        nodes: [("n".to_owned(), Told::Is(machine)), ("off".to_owned(), Told::not(why))].into(),
        hosts: [("h".to_owned(), Told::Is(bays))].into(),
    }
}

fn back(sheet: &Sheet) {
    let yaml = serde_saphyr::to_string(sheet).unwrap();
    assert_eq!(&serde_saphyr::from_str::<Sheet>(&yaml).unwrap_or_else(|e| panic!("{e}\n{yaml}")), sheet, "{yaml}");
    let json = serde_json::to_string(sheet).unwrap();
    assert_eq!(&serde_json::from_str::<Sheet>(&json).unwrap(), sheet, "{json}");
}

#[test]
fn what_looks_like_something_else_is_read_back_as_the_text_that_it_is() {
    let texts =
        ["0001", "22471806", "1e5", "0x1f", "null", "~", "yes", "true", "1.0", "-", "- a", "a: b", "#", "'\"", ""];
    assert_eq!(texts.len(), 15);
    for text in texts {
        back(&sheet(text, 2_000_398_934_016, "not known: `x` takes os:admin"));
    }
}

#[test]
fn an_inventory_is_what_was_written_and_none_where_drives_could_not_be_asked() {
    let sheet = sheet("S1", 7, "denied");
    let Told::Is(machine) = &sheet.nodes["n"] else { panic!() };
    let inventory = machine.bays.inventory().unwrap();
    assert_eq!((inventory.drives.len(), inventory.not_asked.len()), (2, 1));
    assert_eq!((inventory.drives[0].firmware.as_str(), inventory.drives[1].firmware.as_str()), ("S1", ""));
    assert_eq!(inventory.drives[0].link.as_ref().map(|link| link.width), Some(4));
    assert!(inventory.drives[1].parts.is_unknown() && inventory.drives[1].link.is_none());
    let blind = Bays { controllers_without_a_disk: Told::not("denied"), ..machine.bays.clone() };
    assert_eq!(blind.inventory().unwrap_err().unknown, "denied");
}

proptest! {
    #[test]
    fn any_text_is_read_back(text in "[ -~]{0,12}", number in any::<u64>(), why in "[ -~]{1,20}") {
        back(&sheet(text.trim(), number, &why));
    }
}
