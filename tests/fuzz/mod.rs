//! Every reader of outside data over a corpus and over what is made of it by a seeded hand: the same inputs on every
//! machine, so many and no more. `scripts/fuzz` lets libFuzzer search on from the same corpus.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]

mod seeds;
#[allow(unreachable_pub, reason = "the same file is a module of the fuzz crate")]
mod targets;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use seeds::seeds;
use targets::{TARGETS, Target};

/// Inputs that are made for each target.
const MADE: usize = 3_000;
/// No input is longer.
const LONGEST: usize = 16 << 10;

/// xorshift64*: seeded by the target's name.
struct Hand(u64);

impl Hand {
    fn new(name: &str) -> Self {
        Self(
            name.bytes()
                .fold(0x9E37_79B9_7F4A_7C15, |seed, byte| (seed ^ u64::from(byte)).wrapping_mul(0x100_0000_01B3))
                | 1,
        )
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 16
    }

    fn below(&mut self, end: usize) -> usize {
        if end == 0 { 0 } else { usize::try_from(self.next() % end as u64).unwrap() }
    }

    /// A part of a text, mostly a short one.
    fn part(&mut self, length: usize) -> std::ops::Range<usize> {
        let from = self.below(length + 1);
        let longest = if self.below(4) == 0 { length - from } else { (length - from).min(12) };
        from..from + self.below(longest + 1)
    }

    fn change(&mut self, data: &mut Vec<u8>, words: &[&str], corpus: &[Vec<u8>]) {
        const SIGNS: &[u8] = b"\0\n\t \"'\\:,;=-_/.{}[]()#&*!|>@%0123456789aZ\x7f\xff\xc3";
        let part = self.part(data.len());
        match self.below(9) {
            0 if !data.is_empty() => {
                let at = self.below(data.len());
                data[at] ^= 1 << self.below(8);
            }
            1 if !data.is_empty() => {
                let at = self.below(data.len());
                data[at] = SIGNS[self.below(SIGNS.len())];
            }
            2 => drop(data.drain(part)),
            3 => {
                let copy = data[part.clone()].to_vec();
                data.splice(part.start..part.start, copy);
            }
            4 => {
                let word = words[self.below(words.len())];
                data.splice(part.start..part.start, word.bytes());
            }
            5 => {
                let word = words[self.below(words.len())];
                data.splice(part, word.bytes());
            }
            6 => {
                let other = &corpus[self.below(corpus.len())];
                let from = self.part(other.len());
                data.splice(part, other[from].iter().copied());
            }
            7 => {
                // Lines in another order.
                let mut lines: Vec<Vec<u8>> = data.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
                if lines.len() > 1 {
                    let (a, b) = (self.below(lines.len()), self.below(lines.len()));
                    if self.below(2) == 0 {
                        lines.swap(a, b)
                    } else {
                        lines.insert(b, lines[a].clone())
                    }
                    *data = lines.concat();
                }
            }
            _ => data.truncate(part.start),
        }
        data.truncate(LONGEST);
    }
}

/// The number of inputs that were run.
fn run(target: &Target) -> usize {
    let corpus = seeds(Path::new(env!("CARGO_MANIFEST_DIR")), target.name);
    assert!(corpus.len() >= 3, "{} has {} seeds", target.name, corpus.len());
    let check = |data: &[u8]| {
        if catch_unwind(AssertUnwindSafe(|| (target.run)(data))).is_err() {
            panic!("{} does not hold for {:?}", target.name, String::from_utf8_lossy(data));
        }
    };
    corpus.iter().for_each(|data| check(data));
    let mut hand = Hand::new(target.name);
    for _ in 0..MADE {
        let mut data = corpus[hand.below(corpus.len())].clone();
        for _ in 0..=hand.below(5) {
            hand.change(&mut data, target.words, &corpus);
        }
        check(&data);
    }
    corpus.len() + MADE
}

#[test]
fn no_text_from_outside_breaks_a_reader() {
    let (mut targets, mut inputs) = (0, 0);
    // Two at a time: as many as the smallest machine has processors for.
    for pair in TARGETS.chunks(2) {
        let runs: Vec<_> = pair.iter().map(|target| (target.name, std::thread::spawn(move || run(target)))).collect();
        for (name, run) in runs {
            let count = run.join().unwrap_or_else(|_| panic!("{name}"));
            println!("{name}: {count} inputs");
            assert!(count > MADE);
            targets += 1;
            inputs += count;
        }
    }
    println!("{targets} targets x inputs: {inputs}");
    assert_eq!((targets, TARGETS.len()), (18, 18));
}

/// Nothing here builds what libFuzzer runs: it must at least have every target, by its name.
#[test]
fn libfuzzer_has_the_same_targets() {
    let manifest = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/Cargo.toml")).unwrap();
    let bins = manifest.split("[[bin]]").skip(1);
    let mut named: Vec<_> = bins.filter_map(|bin| bin.split('"').nth(1)).filter(|name| *name != "seeds").collect();
    let mut targets: Vec<_> = TARGETS.iter().map(|target| target.name).collect();
    named.sort_unstable();
    targets.sort_unstable();
    assert_eq!(targets.len(), 18);
    assert_eq!(named, targets);
}

/// What is fed to a target that does not hold is told.
#[test]
fn a_reader_that_breaks_is_found() {
    fn brittle(data: &[u8]) {
        assert!(!data.windows(2).any(|pair| pair == b"=="), "found");
    }
    let target = Target { name: "config-line", run: brittle, words: &["="] };
    let told = catch_unwind(AssertUnwindSafe(|| run(&target))).unwrap_err();
    let told = told.downcast_ref::<String>().unwrap();
    assert!(told.contains("config-line does not hold for") && told.contains("=="), "{told}");
}
