//! The pages of a file, by redb's documented layout (`docs/design.md` of redb). The module knows the type byte, the
//! offsets and the checksums of pages, and the commit slots of the header. It does not know what the rows mean.

use std::cell::Cell;
use std::fs::File;
use std::io;
use std::ops::Bound;
use std::path::Path;

use redb::StorageBackend;
use redb::backends::FileBackend;
use xxhash_rust::xxh3::xxh3_128;

/// The size of a page of order 0. A page of order n has 2^n times this size.
pub(super) const PAGE_BYTES: usize = 4096;
/// The size of a region. Every file that this program makes has regions of this size and without a header.
const REGION_BYTES: u64 = 4 << 30;
/// The largest page that is read. The largest row, which is one of the journal, is smaller.
const MAX_PAGE_BYTES: usize = 256 << 20;
/// The largest page whose flipped bits are searched for. The time rises with the square of the size.
const MAX_MENDED_BYTES: usize = 4 * PAGE_BYTES;
/// The maximum number of pages whose flipped bits are searched for. Each search takes some milliseconds.
const MAX_SEARCHES: u32 = 10_000;

/// The first bytes of a file.
const MAGIC: [u8; 9] = *b"redb\x1A\x0A\xA9\x0D\x0A";
/// Where the header has its flags. The lowest bit names the slot of the latest commit; the next one says that the file
/// was not closed in order.
const FLAGS_AT: usize = 9;
/// Where the header has its two commit slots.
const SLOTS_AT: [usize; 2] = [64, 192];
const SLOT_BYTES: usize = 128;
const SLOT_CHECKSUM_AT: usize = 112;
const TRANSACTION_ID_AT: usize = 104;
/// Where a commit slot says whether each of its two trees of tables has a page, and where it has the pointers to them: the
/// tree of the store's tables, and that of redb's own tables.
const HAS_ROOT_AT: [usize; 2] = [1, 2];
const ROOT_AT: [usize; 2] = [8, 40];

const LEAF: u8 = 1;
const BRANCH: u8 = 2;
/// The bytes of a branch before its checksums, and of each child: its checksum and its page number.
const BRANCH_HEAD_BYTES: usize = 8;
const CHILD_BYTES: usize = 24;
/// The bytes of a leaf before its offsets.
const LEAF_HEAD_BYTES: usize = 4;
const OFFSET_BYTES: usize = 4;

/// The widths of the keys and the values of a table; `None` if they vary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Widths {
    pub(super) key: Option<usize>,
    pub(super) value: Option<usize>,
}

/// The number of a page, and the checksum that the page had when the pointer was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pointer {
    number: u64,
    checksum: u128,
}

/// The root of a tree of tables.
#[derive(Debug, Clone, Copy)]
pub(super) enum Root {
    /// No commit slot can be trusted.
    Unknown,
    /// There are no tables.
    Empty,
    At(Pointer),
}

fn number<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

fn offset(page: &[u8], at: usize) -> Option<usize> {
    usize::try_from(u32::from_le_bytes(number(page, at)?)).ok()
}

impl Pointer {
    /// Reads a page number that a checksum follows, as roots of trees are written.
    pub(super) fn read(bytes: &[u8], at: usize) -> Option<Self> {
        let checksum = u128::from_le_bytes(number(bytes, at + size_of::<u64>())?);
        Some(Self { number: u64::from_le_bytes(number(bytes, at)?), checksum })
    }

    /// Returns where the page begins and its size. `None` if a damaged number names a page that is too large.
    fn place(self) -> Option<(u64, usize)> {
        // The number has 5 bits of the order, 20 bits of the region, and in the rest the index within the region.
        let order = u32::try_from(self.number >> 59).ok()?;
        let (region, index) = ((self.number >> 20) & 0xf_ffff, self.number & (0xf_ffff_u64 >> order));
        let bytes = PAGE_BYTES.checked_shl(order).filter(|bytes| *bytes <= MAX_PAGE_BYTES)?;
        Some((PAGE_BYTES as u64 + region * REGION_BYTES + index * bytes as u64, bytes))
    }
}

/// Returns the number of entries of a leaf, or of keys of a branch.
fn count(page: &[u8]) -> Option<usize> {
    Some(u16::from_le_bytes(number(page, 2)?).into())
}

/// Returns the number of bytes of a page that its checksum covers.
fn used_bytes(page: &[u8], widths: Widths) -> Option<usize> {
    let count = count(page).filter(|count| *count > 0)?;
    let end = match *page.first()? {
        LEAF => Leaf { page, count, widths }.value_end(count - 1)?,
        BRANCH => {
            let keys = BRANCH_HEAD_BYTES + CHILD_BYTES * (count + 1);
            match widths.key {
                Some(width) => keys + width * count,
                None => offset(page, keys + OFFSET_BYTES * (count - 1))?,
            }
        }
        _ => return None,
    };
    (end <= page.len()).then_some(end)
}

fn is_sound(page: &[u8], widths: Widths, checksum: u128) -> bool {
    used_bytes(page, widths).is_some_and(|end| xxh3_128(&page[..end]) == checksum)
}

/// Flips each bit until `is_right` returns true. Returns whether it did; if not, the bytes are as before.
fn mend(bytes: &mut [u8], is_right: impl Fn(&[u8]) -> bool) -> bool {
    for at in 0..bytes.len() {
        for bit in 0..8 {
            bytes[at] ^= 1 << bit;
            if is_right(bytes) {
                return true;
            }
            bytes[at] ^= 1 << bit;
        }
    }
    false
}

/// A page, as it is in the file or with one bit flipped back.
pub(super) struct Read {
    pub(super) page: Vec<u8>,
    /// Whether the page has the checksum of the pointer that led to it.
    pub(super) is_sound: bool,
    /// The number of the first block of `PAGE_BYTES`, and the number of blocks.
    pub(super) blocks: (u64, u64),
}

/// A file whose pages are read one by one.
pub(in crate::store::redb::maintenance::check) struct PageFile {
    file: FileBackend,
    len: u64,
    searches_left: Cell<u32>,
    has_mended: Cell<bool>,
}

impl PageFile {
    /// Opens a file, and keeps other processes away from it if the file system has locks.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let file = File::options().read(true).write(true).open(path)?;
        let len = file.metadata()?.len();
        let file = FileBackend::new(file).map_err(io::Error::other)?;
        // The caller has seen that no other process has the file open. A lock that a panic of redb has left is no
        // reason not to read the file.
        let _ = file.try_lock_range(Bound::Unbounded, Bound::Unbounded);
        Ok(Self { file, len, searches_left: Cell::new(MAX_SEARCHES), has_mended: Cell::new(false) })
    }

    /// Returns whether the file begins as every file of redb does.
    pub(super) fn has_magic(&self) -> io::Result<bool> {
        Ok(self.read(0, MAGIC.len())? == MAGIC)
    }

    /// Returns the number of blocks of [`PAGE_BYTES`]. The last one may be cut short.
    pub(super) fn blocks(&self) -> u64 {
        self.len.div_ceil(PAGE_BYTES as u64)
    }

    /// Reads bytes. Beyond the end of the file they are zeros.
    pub(super) fn read(&self, at: u64, bytes: usize) -> io::Result<Vec<u8>> {
        let mut read = vec![0; bytes];
        let there = usize::try_from(self.len.saturating_sub(at)).unwrap_or(bytes).min(bytes);
        self.file.read(at, &mut read[..there])?;
        Ok(read)
    }

    fn search(&self, bytes: &mut [u8], is_right: impl Fn(&[u8]) -> bool) -> bool {
        let left = self.searches_left.get();
        self.searches_left.set(left.saturating_sub(1));
        let is_mended = left > 0 && bytes.len() <= MAX_MENDED_BYTES && mend(bytes, is_right);
        self.has_mended.set(self.has_mended.get() || is_mended);
        is_mended
    }

    /// Returns whether a flipped bit was found.
    pub(super) fn has_mended(&self) -> bool {
        self.has_mended.get()
    }

    /// Reads the page of a pointer. `None` if the pointer leads out of the file. If the page is damaged by one flipped
    /// bit, this flips it back: no other page has the checksum of the pointer.
    pub(super) fn page(&self, pointer: Pointer, widths: Widths) -> io::Result<Option<Read>> {
        let Some(mut read) = self.page_as_it_is(pointer, widths)? else { return Ok(None) };
        read.is_sound = read.is_sound || self.search(&mut read.page, |page| is_sound(page, widths, pointer.checksum));
        Ok(Some(read))
    }

    /// Like [`PageFile::page`], without a search for a flipped bit.
    pub(super) fn page_as_it_is(&self, pointer: Pointer, widths: Widths) -> io::Result<Option<Read>> {
        let Some((at, bytes)) = pointer.place().filter(|(at, bytes)| at + *bytes as u64 <= self.len) else {
            return Ok(None);
        };
        let page = self.read(at, bytes)?;
        let is_sound = is_sound(&page, widths, pointer.checksum);
        Ok(Some(Read { page, is_sound, blocks: (at / PAGE_BYTES as u64, (bytes / PAGE_BYTES) as u64) }))
    }

    /// Returns the roots of the tree of the store's tables and of the tree of redb's own tables, as the latest commit has
    /// them.
    pub(super) fn roots(&self) -> io::Result<[Root; 2]> {
        let Some(slot) = self.latest_slot()? else { return Ok([Root::Unknown; 2]) };
        let root = |tree: usize| {
            let is_empty = slot[HAS_ROOT_AT[tree]] == 0;
            if is_empty { Root::Empty } else { Pointer::read(&slot, ROOT_AT[tree]).map_or(Root::Unknown, Root::At) }
        };
        Ok([0, 1].map(root))
    }

    /// Returns the commit slot of the latest commit, if need be with a bit flipped back. `None` if it cannot be trusted.
    fn latest_slot(&self) -> io::Result<Option<Vec<u8>>> {
        let header = self.read(0, SLOTS_AT[1] + SLOT_BYTES)?;
        let flags = header[FLAGS_AT];
        let mut slots = SLOTS_AT.map(|at| {
            let mut slot = header[at..at + SLOT_BYTES].to_vec();
            let is_right = |slot: &[u8]| {
                number(slot, SLOT_CHECKSUM_AT).map(u128::from_le_bytes) == Some(xxh3_128(&slot[..SLOT_CHECKSUM_AT]))
            };
            (is_right(&slot) || self.search(&mut slot, is_right)).then_some(slot)
        });
        let id = |slot: &Vec<u8>| number(slot, TRANSACTION_ID_AT).map(u64::from_le_bytes);
        let [named, other] = [usize::from(flags & 1), usize::from(flags & 1 == 0)];
        // After an orderly end the latest commit is the one with the higher number, whatever the flag says. Otherwise a
        // higher number may be of a commit that was cut short. If the slot is damaged, the other slot is no substitute:
        // the tree of the commit before would lack rows without a sign.
        let was_closed = flags & 2 == 0;
        let is_other = was_closed && slots[other].as_ref().and_then(id) > slots[named].as_ref().and_then(id);
        let latest = if is_other && slots[named].is_some() { other } else { named };
        Ok(slots[latest].take())
    }
}

/// A child of a branch, and the bounds of the keys in it.
pub(super) struct Child {
    pub(super) pointer: Pointer,
    /// Every key of the child is above this one.
    pub(super) above: Option<Vec<u8>>,
    /// No key of the child is above this one.
    pub(super) up_to: Option<Vec<u8>>,
}

pub(super) fn is_leaf(page: &[u8]) -> bool {
    page.first() == Some(&LEAF)
}

/// Returns the children of a sound branch.
pub(super) fn children(page: &[u8], widths: Widths) -> Vec<Child> {
    let Some(keys) = count(page) else { return Vec::new() };
    let start = BRANCH_HEAD_BYTES + CHILD_BYTES * (keys + 1);
    let key = |nth: usize| {
        let (from, to) = if let Some(width) = widths.key {
            (start + width * nth, start + width * (nth + 1))
        } else {
            let end = |nth: usize| offset(page, start + OFFSET_BYTES * nth);
            let first = start + OFFSET_BYTES * keys;
            (if nth == 0 { first } else { end(nth - 1)? }, end(nth)?)
        };
        page.get(from..to).map(<[u8]>::to_vec)
    };
    let child = |nth: usize| {
        let pointer = pointer_of(page, keys, nth)?;
        let above = nth.checked_sub(1).and_then(key);
        let up_to = if nth < keys { key(nth) } else { None };
        Some(Child { pointer, above, up_to })
    };
    (0..=keys).filter_map(child).collect()
}

fn pointer_of(page: &[u8], keys: usize, nth: usize) -> Option<Pointer> {
    let checksum = u128::from_le_bytes(number(page, BRANCH_HEAD_BYTES + 16 * nth)?);
    let number = u64::from_le_bytes(number(page, BRANCH_HEAD_BYTES + 16 * (keys + 1) + 8 * nth)?);
    Some(Pointer { number, checksum })
}

/// Returns the pointers of a page that was a branch before it was damaged. Each may be wrong; a page that has the
/// checksum of its pointer is right.
pub(super) fn pointers_of_damaged(page: &[u8]) -> Vec<Pointer> {
    let most = page.len().saturating_sub(BRANCH_HEAD_BYTES) / CHILD_BYTES;
    let keys = count(page).filter(|keys| *keys < most);
    keys.map_or_else(Vec::new, |keys| (0..=keys).filter_map(|nth| pointer_of(page, keys, nth)).collect())
}

/// A page, read as a leaf. Damaged offsets lead to wrong entries or to none, and never out of the page.
#[derive(Clone, Copy)]
pub(super) struct Leaf<'a> {
    page: &'a [u8],
    count: usize,
    widths: Widths,
}

impl<'a> Leaf<'a> {
    pub(super) fn of(page: &'a [u8], widths: Widths) -> Self {
        Self { page, count: count(page).unwrap_or(0), widths }
    }

    fn keys_start(self) -> usize {
        let offsets = usize::from(self.widths.key.is_none()) + usize::from(self.widths.value.is_none());
        LEAF_HEAD_BYTES + OFFSET_BYTES * self.count * offsets
    }

    fn key_end(self, nth: usize) -> Option<usize> {
        match self.widths.key {
            Some(width) => Some(self.keys_start() + width * (nth + 1)),
            None => offset(self.page, LEAF_HEAD_BYTES + OFFSET_BYTES * nth),
        }
    }

    fn value_end(self, nth: usize) -> Option<usize> {
        if let Some(width) = self.widths.value {
            return Some(self.key_end(self.count.checked_sub(1)?)? + width * (nth + 1));
        }
        let key_offsets = if self.widths.key.is_none() { self.count } else { 0 };
        offset(self.page, LEAF_HEAD_BYTES + OFFSET_BYTES * (key_offsets + nth))
    }

    fn entry(self, nth: usize) -> Option<(&'a [u8], &'a [u8])> {
        let (key_start, value_start) = match nth.checked_sub(1) {
            None => (self.keys_start(), self.key_end(self.count - 1)?),
            Some(before) => (self.key_end(before)?, self.value_end(before)?),
        };
        Some((self.page.get(key_start..self.key_end(nth)?)?, self.page.get(value_start..self.value_end(nth)?)?))
    }

    /// Returns the keys and the values that can be found.
    pub(super) fn entries(self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
        (0..self.count).filter_map(move |nth| self.entry(nth))
    }

    /// If the offsets rise as those of a leaf do and end behind the bytes of this page, returns where they end. So the
    /// leaf is a page of a higher order.
    pub(super) fn end_beyond(self) -> Option<usize> {
        if self.count == 0 || self.widths.value.is_some() {
            return None;
        }
        let mut before = self.keys_start();
        let keys = (0..self.count).filter(|_| self.widths.key.is_none()).map(|nth| self.key_end(nth));
        let last_key = std::iter::once(self.key_end(self.count - 1));
        for end in keys.chain(last_key).chain((0..self.count).map(|nth| self.value_end(nth))) {
            before = end.filter(|end| *end >= before)?;
        }
        (before > self.page.len() && before <= MAX_PAGE_BYTES).then_some(before)
    }
}
