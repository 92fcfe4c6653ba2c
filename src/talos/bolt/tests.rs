//! Databases that are made page by page, whole and torn.

use super::*;

const PAGE: usize = 4_096;

fn meta(number: u64, root: u64, used: u64, transaction: u64) -> Vec<u8> {
    let mut out = vec![0; HEADER];
    out.extend([MAGIC, VERSION, 4_096, 0].iter().flat_map(|word| word.to_le_bytes()));
    out.extend([root, 0, 2, used, transaction].iter().flat_map(|word: &u64| word.to_le_bytes()));
    let sum = out[HEADER..]
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
    out.extend_from_slice(&sum.to_le_bytes());
    out[0] = u8::try_from(number).unwrap();
    out.resize(PAGE, 0);
    out
}

/// Key, value, and whether that is a bucket.
type Pair = (Vec<u8>, Vec<u8>, bool);

fn header(id: u64, flags: u16, count: usize, over: u32) -> Vec<u8> {
    let mut out = id.to_le_bytes().to_vec();
    out.extend(flags.to_le_bytes());
    out.extend(u16::try_from(count).unwrap().to_le_bytes());
    out.extend(over.to_le_bytes());
    out
}

fn leaf(id: u64, pairs: &[Pair]) -> Vec<u8> {
    let whole = 16 + pairs.iter().map(|(key, value, _)| 16 + key.len() + value.len()).sum::<usize>();
    let over = u32::try_from(whole.div_ceil(PAGE) - 1).unwrap();
    let mut out = header(id, 2, pairs.len(), over);
    let mut data: Vec<u8> = Vec::new();
    for (n, (key, value, bucket)) in pairs.iter().enumerate() {
        let from = 16 * (pairs.len() - n) + data.len();
        out.extend(
            [u32::from(*bucket), u32::try_from(from).unwrap(), key.len() as u32, value.len() as u32]
                .iter()
                .flat_map(|n| n.to_le_bytes()),
        );
        data.extend(key);
        data.extend(value);
    }
    out.extend(data);
    if id != 0 {
        out.resize(whole.next_multiple_of(PAGE), 0);
    }
    out
}

fn branch(id: u64, children: &[(&str, u64)]) -> Vec<u8> {
    let mut out = header(id, 1, children.len(), 0);
    let mut data: Vec<u8> = Vec::new();
    for (n, (key, child)) in children.iter().enumerate() {
        let from = 16 * (children.len() - n) + data.len();
        out.extend([u32::try_from(from).unwrap(), key.len() as u32].iter().flat_map(|n| n.to_le_bytes()));
        out.extend(child.to_le_bytes());
        data.extend(key.as_bytes());
    }
    out.extend(data);
    out.resize(PAGE, 0);
    out
}

fn bucket(name: &str, root: u64) -> Pair {
    let mut value = root.to_le_bytes().to_vec();
    value.extend([0; 8]);
    (name.into(), value, true)
}

fn pair(key: &str, value: &str) -> Pair {
    (key.into(), value.into(), false)
}

fn revision(number: u64, deleted: bool, key: &str, value: &str) -> Pair {
    let mut of = number.to_be_bytes().to_vec();
    of.push(b'_');
    of.extend([0; 8]);
    of.extend(deleted.then_some(b't'));
    let mut written = vec![0x0a, u8::try_from(key.len()).unwrap()];
    written.extend(key.as_bytes());
    written.extend([0x10, 0x96, 0x01]);
    written.extend([0x2a, u8::try_from(value.len()).unwrap()]);
    written.extend(value.as_bytes());
    (of, written, false)
}

/// Two members, three Nodes of which one is deleted, over a branch, a small bucket, and one that overflows.
fn database() -> Vec<u8> {
    let small = [vec![0; 16], leaf(0, &[pair("8e9e05c52164694d", "{}"), pair("b", "{}")])].concat();
    let root = [
        bucket("key", 4),
        ("members".into(), small, true),
        ("members_removed".into(), [vec![0; 16], leaf(0, &[pair("c", "removed")])].concat(), true),
        bucket("meta", 7),
    ];
    let one =
        [revision(1, false, "/registry/minions/cp-1", "UUID ab-1"), revision(2, false, "/registry/minions/x", "")];
    let two = [revision(3, false, "/registry/minions/cp-10", ""), revision(4, true, "/registry/minions/x", "")];
    let long = [("consistent_index".into(), vec![7; 3 * PAGE], false)];
    let at = |number: u64| String::from_utf8(number.to_be_bytes().to_vec()).unwrap();
    [
        meta(0, 3, 11, 8),
        meta(1, 3, 11, 7),
        header(2, 0x10, 0, 0).into_iter().chain(vec![0; PAGE - 16]).collect(),
        leaf(3, &root),
        branch(4, &[(&at(1), 5), (&at(3), 6)]),
        leaf(5, &one),
        leaf(6, &two),
        leaf(7, &long),
    ]
    .concat()
}

#[test]
fn the_whole_tree_of_a_copy_is_read() {
    let whole = database();
    assert_eq!(whole.len(), 11 * PAGE);
    let Copied { digest, transaction, content } = copied(&whole).unwrap();
    assert_eq!((digest, transaction), (false, 8));
    assert_eq!(content.members, [0x8e9e_05c5_2164_694d, 0xb].into());
    assert_eq!(content.removed, [0xc].into());
    // A name is all of it, and what is deleted is not there.
    assert_eq!(content.nodes.keys().collect::<Vec<_>>(), ["cp-1", "cp-10"]);
    assert!(content.knows(0xb) && content.knows(0xc) && !content.knows(0xd));
    assert!(content.node_says("cp-1", "AB-1") && !content.node_says("cp-10", "ab-1") && !content.node_says("cp-1", ""));
    let sealed = [&whole[..], Sha256::digest(&whole).as_slice()].concat();
    assert_eq!(copied(&sealed), Ok(Copied { digest: true, transaction: 8, content: content.clone() }));
    // The same on other pages, by another transaction, is the same.
    let mut later = whole.clone();
    later.splice(..PAGE, meta(0, 3, 11, 9));
    later.resize(13 * PAGE, 0);
    assert_eq!(copied(&later), Ok(Copied { digest: false, transaction: 9, content: content.clone() }));
    let at = later.windows(7).position(|part| part == b"removed").unwrap();
    later[at] = b'R';
    assert_ne!(copied(&later).unwrap().content.sha256, content.sha256);
}

#[test]
fn a_copy_that_is_cut_or_changed_is_none() {
    let whole = database();
    let sealed = [&whole[..], Sha256::digest(&whole).as_slice()].concat();
    let mut broken = sealed.clone();
    broken[9_000] ^= 1;
    let cases = [
        (&whole[..10 * PAGE], "cut short"),
        (&broken, "not that of its content"),
        (&whole[8_192..], "no database of etcd"),
        (b"", "no database of etcd"),
        (&[0; 32], "not that of its content"),
    ];
    assert_eq!(cases.len(), 5);
    for (bytes, part) in cases {
        assert!(copied(bytes).unwrap_err().contains(part), "{part}");
    }
    // One of the first two was being written: the other one counts.
    let mut torn = whole.clone();
    torn[HEADER + 50] ^= 1;
    assert_eq!(copied(&torn).map(|copied| copied.transaction), Ok(7));
}

/// What a file is like that was read while it was written: some of its pages are of before, and some of later.
#[test]
fn a_torn_tree_is_seen_wherever_it_is_torn() {
    let whole = database();
    let torn = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = whole.clone();
        change(&mut bytes);
        copied(&bytes).unwrap_err()
    };
    for page in [3, 4, 5, 6, 7] {
        let error = torn(&|bytes| bytes[page * PAGE..(page + 1) * PAGE].fill(0));
        assert!(error.contains("torn"), "{page}: {error}");
    }
    let cases: [(usize, u8, &str); 8] = [
        (5 * PAGE, 6, "page 5 says that it is another one"),
        (5 * PAGE + 8, 0x10, "page 5 has no keys"),
        (4 * PAGE + 10, 0, "page 4 leads nowhere"),
        (4 * PAGE + 16 + 8, 6, "page 6 has two places"),
        (4 * PAGE + 16 + 8, 99, "page 99 is named, and there is none"),
        (4 * PAGE + 16 + 8, 1, "page 1 is named, and there is none"),
        (7 * PAGE + 12, 4, "page 7 is named, and there is none"),
        (5 * PAGE + 16 + 6, 1, "page 5 ends within its keys"),
    ];
    assert_eq!(cases.len(), 8);
    for (at, value, part) in cases {
        let error = torn(&|bytes| bytes[at] = value);
        assert!(error.contains(part), "{part}: {error}");
    }
    // A leaf of before beside one of later: its keys are not behind those of the one before it.
    let error = torn(&|bytes| {
        let key = 6 * PAGE + 16 + 32 + 7;
        bytes[key] = 1;
    });
    assert!(error.contains("out of their order"), "{error}");
    let error = torn(&|bytes| {
        let at = bytes.windows(16).position(|part| part == b"8e9e05c52164694d").unwrap();
        bytes[at + 1] = b'/';
    });
    assert!(error.contains("its bucket `members` has what is not etcd's"), "{error}");
}
