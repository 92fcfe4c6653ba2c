//! The pages of bbolt, from the one that its meta page names to every leaf (go.etcd.io/bbolt `internal/common/page.go`,
//! `bucket.go`): each is what it says that it is, lies where there is one, belongs to one place alone, and has its keys in
//! their order. A file that was read while it was written breaks one of these, sooner or later.

use super::{HEADER, Meta, long, short, word};

const BRANCH: u16 = 1;
const LEAF: u16 = 2;
/// What a page's header, and each of its elements, takes.
const ELEMENT: usize = 16;
/// An element of a leaf that is a bucket itself.
const BUCKET: u32 = 1;
/// More than any tree of etcd has: three levels have millions of keys.
const DEEPEST: usize = 48;

/// Who is told what is in the leaves, in order.
pub(super) trait Reader {
    /// Behind this come the keys of a bucket.
    fn bucket(&mut self, name: &[u8]);
    /// A key of the bucket of before, and its value.
    fn pair(&mut self, key: &[u8], value: &[u8]);
}

/// Walks all of it.
pub(super) fn walk(pages: &[u8], meta: &Meta, reader: &mut impl Reader) -> Result<(), String> {
    let count = usize::try_from(meta.used).map_err(|_| "it has more pages than there are".to_owned())?;
    let mut walk = Walk { pages, size: meta.size, taken: vec![false; count], reader };
    walk.at(meta.root, &mut None, 0)
}

struct Walk<'w, R> {
    pages: &'w [u8],
    size: usize,
    /// The pages that have their place already.
    taken: Vec<bool>,
    reader: &'w mut R,
}

impl<'w, R: Reader> Walk<'w, R> {
    /// A page with what overflows behind it.
    fn page(&mut self, id: u64) -> Result<&'w [u8], String> {
        let none = || format!("it is torn: page {id} is named, and there is none");
        let first = usize::try_from(id).ok().filter(|first| *first >= 2).ok_or_else(none)?;
        let start = first.checked_mul(self.size).ok_or_else(none)?;
        let header = self.pages.get(start..).ok_or_else(none)?;
        if long(header, 0) != Some(id) {
            return Err(format!("it is torn: page {id} says that it is another one"));
        }
        let over = word(header, 12).and_then(|over| usize::try_from(over).ok()).ok_or_else(none)?;
        let last = first.checked_add(over).ok_or_else(none)?;
        let own = self.taken.get_mut(first..=last).ok_or_else(none)?;
        if own.iter().any(|taken| *taken) {
            return Err(format!("it is torn: page {id} has two places"));
        }
        own.fill(true);
        over.checked_add(1).and_then(|count| header.get(..count.checked_mul(self.size)?)).ok_or_else(none)
    }

    fn at(&mut self, id: u64, last: &mut Option<&'w [u8]>, depth: usize) -> Result<(), String> {
        let page = self.page(id)?;
        self.read(id, page, last, depth)
    }

    /// What is on a page, or in a bucket that is so small that it has none of its own.
    fn read(&mut self, id: u64, page: &'w [u8], last: &mut Option<&'w [u8]>, depth: usize) -> Result<(), String> {
        let torn = |what: &str| format!("it is torn: page {id} {what}");
        let (flags, count) = (short(page, 8).unwrap_or_default(), short(page, 10).unwrap_or_default());
        if depth > DEEPEST {
            return Err(torn("is deeper than any tree"));
        }
        if !matches!(flags, BRANCH | LEAF) {
            return Err(torn("has no keys"));
        }
        if flags == BRANCH && count == 0 {
            return Err(torn("leads nowhere"));
        }
        for n in 0..usize::from(count) {
            let cut = || torn("ends within its keys");
            let at = HEADER + n * ELEMENT;
            let number = |from: usize| word(page, at + from).map(|number| number as usize);
            let part = |from: Option<usize>, length: Option<usize>| {
                let from = at.checked_add(from?)?;
                page.get(from..from.checked_add(length?)?)
            };
            if flags == BRANCH {
                part(number(0), number(4)).ok_or_else(cut)?;
                let child = long(page, at + 8).ok_or_else(cut)?;
                self.at(child, last, depth + 1)?;
                continue;
            }
            let key = part(number(4), number(8)).ok_or_else(cut)?;
            let behind = number(4).zip(number(8)).and_then(|(from, length)| from.checked_add(length));
            let value = part(behind, number(12)).ok_or_else(cut)?;
            if last.is_some_and(|last| last >= key) {
                return Err(torn("has its keys out of their order"));
            }
            *last = Some(key);
            if word(page, at).is_some_and(|flags| flags & BUCKET != 0) {
                self.bucket(id, key, value, depth)?;
            } else {
                self.reader.pair(key, value);
            }
        }
        Ok(())
    }

    fn bucket(&mut self, id: u64, name: &'w [u8], value: &'w [u8], depth: usize) -> Result<(), String> {
        self.reader.bucket(name);
        let cut = || format!("it is torn: page {id} has a bucket without a beginning");
        match long(value, 0).ok_or_else(cut)? {
            0 => self.read(id, value.get(HEADER..).ok_or_else(cut)?, &mut None, depth + 1),
            root => self.at(root, &mut None, depth + 1),
        }
    }
}
