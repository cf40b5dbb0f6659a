//! Walks the trees of a file from the header down, and proves with the checksums of the pointers which pages belong to
//! the latest commit.

use std::cmp::Ordering;

use super::pages::{Leaf, PageFile, Pointer, Root, Widths, children, is_leaf, pointers_of_damaged};
use crate::store::redb::tables::failure::Failure;

/// The maximum depth of a tree. Real trees are a few pages deep; a damaged one may lead in a circle.
const MAX_DEPTH: usize = 32;

/// A table whose rows are wanted.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    pub(super) name: String,
    pub(super) widths: Widths,
}

/// The widths of the tree of tables: names and definitions.
const OF_TABLES: Widths = Widths { key: None, value: None };
/// Where the definition of a table says whether it has a root, and where it has the pointer to the root.
const HAS_ROOT_AT: usize = 9;
const ROOT_AT: usize = 10;
/// Where it says whether its keys and its values have a fixed width. The width follows, in four bytes.
const WIDTHS_AT: [usize; 2] = [42, 47];

/// A part of a table that the walk could not reach: the rows with keys above `above` and up to `up_to`.
#[derive(Debug, Clone)]
struct Gap {
    table: String,
    above: Option<Vec<u8>>,
    up_to: Option<Vec<u8>>,
}

impl Gap {
    fn whole(table: &str) -> Self {
        Self { table: table.to_owned(), above: None, up_to: None }
    }
}

/// What a walk has reached.
pub(super) struct Reached {
    /// One bit for each block of the file. It is set if the block belongs to a page of the latest commit.
    blocks: Vec<u64>,
    gaps: Vec<Gap>,
}

impl Reached {
    fn nothing_of(file: &PageFile) -> Self {
        let words = usize::try_from(file.blocks().div_ceil(64)).unwrap_or(0);
        Self { blocks: vec![0; words], gaps: Vec::new() }
    }

    pub(super) fn has_block(&self, number: u64) -> bool {
        let word = usize::try_from(number / 64).ok().and_then(|word| self.blocks.get(word));
        word.is_some_and(|word| word >> (number % 64) & 1 == 1)
    }

    fn mark(&mut self, (first, count): (u64, u64)) {
        for number in first..first + count {
            if let Some(word) = usize::try_from(number / 64).ok().and_then(|word| self.blocks.get_mut(word)) {
                *word |= 1 << (number % 64);
            }
        }
    }

    /// Returns whether rows of the table could not be reached.
    pub(super) fn lacks(&self, table: &str) -> bool {
        self.gaps.iter().any(|gap| gap.table == table)
    }

    /// Returns whether any rows could not be reached.
    pub(super) fn is_whole(&self) -> bool {
        self.gaps.is_empty()
    }

    /// Returns whether the row with this key is in a part of the table that could not be reached.
    pub(super) fn lacks_key(&self, table: &str, key: &[u8], compare: fn(&[u8], &[u8]) -> Ordering) -> bool {
        self.gaps.iter().filter(|gap| gap.table == table).any(|gap| {
            gap.above.as_ref().is_none_or(|above| compare(key, above).is_gt())
                && gap.up_to.as_ref().is_none_or(|up_to| compare(key, up_to).is_le())
        })
    }

    /// Returns whether the end of the table could not be reached. Then there may have been further rows.
    pub(super) fn lacks_end(&self, table: &str) -> bool {
        self.gaps.iter().any(|gap| gap.table == table && gap.up_to.is_none())
    }
}

/// Takes a leaf of a table. The flag says whether the leaf is proved to be of the table: each page from the header down to it
/// has the checksum of its pointer.
pub(super) type TakeLeaf<'a> = dyn FnMut(&str, Leaf<'_>, bool) -> Result<(), Failure> + 'a;

/// A row of a tree of tables.
struct Definition {
    name: Vec<u8>,
    bytes: Vec<u8>,
    /// Whether the row is in a page that is proved to be of the tree.
    is_sound: bool,
}

impl Definition {
    /// Returns the pointer to the root of the table. `None` if the table is empty.
    fn root(&self) -> Option<Pointer> {
        let has_root = self.bytes.get(HAS_ROOT_AT).is_some_and(|flag| *flag != 0);
        Pointer::read(&self.bytes, ROOT_AT).filter(|_| has_root)
    }

    fn widths(&self) -> Widths {
        let width = |at: usize| {
            let (flag, width) = self.bytes.get(at..)?.split_first()?;
            usize::try_from(u32::from_le_bytes(*width.first_chunk()?)).ok().filter(|_| *flag != 0)
        };
        let [key, value] = WIDTHS_AT.map(width);
        Widths { key, value }
    }
}

/// Returns what the tree of tables with this root has. Its gaps are added to those of `reached`.
fn definitions(file: &PageFile, root: Root, reached: &mut Reached) -> Result<Vec<Definition>, Failure> {
    let mut definitions = Vec::new();
    match root {
        Root::At(root) => {
            let mut take = |_: &str, leaf: Leaf<'_>, is_sound: bool| -> Result<(), Failure> {
                definitions.extend(leaf.entries().map(|(name, bytes)| Definition {
                    name: name.to_vec(),
                    bytes: bytes.to_vec(),
                    is_sound,
                }));
                Ok(())
            };
            let mut walk = Walk { file, widths: OF_TABLES, is_proved: true, reached, take: &mut take };
            walk.descend(root, &Gap::whole(""), 0)?;
        }
        Root::Empty => {}
        Root::Unknown => reached.gaps.push(Gap::whole("")),
    }
    Ok(definitions)
}

/// Walks the trees of these tables.
pub(super) fn walk(file: &PageFile, wanted: &[Wanted], take: &mut TakeLeaf<'_>) -> Result<Reached, Failure> {
    let mut reached = Reached::nothing_of(file);
    let [root, _] = file.roots().map_err(disk)?;
    let definitions = definitions(file, root, &mut reached)?;
    let lacks_definitions = !std::mem::take(&mut reached.gaps).is_empty();
    for Wanted { name, widths } in wanted {
        let definition = definitions.iter().find(|definition| definition.name == name.as_bytes());
        match definition.map(|definition| (definition.root(), definition.is_sound)) {
            Some((Some(root), is_sound)) => {
                // The damaged page may be one of an earlier commit, and then the table that it defines is of that time too.
                if !is_sound {
                    reached.gaps.push(Gap::whole(name));
                }
                if is_sound || file.page_as_it_is(root, *widths).map_err(disk)?.is_some_and(|read| read.is_sound) {
                    let mut walk = Walk { file, widths: *widths, is_proved: is_sound, reached: &mut reached, take };
                    walk.descend(root, &Gap::whole(name), 0)?;
                }
            }
            Some((None, true)) => {}
            None if !lacks_definitions => {}
            _ => reached.gaps.push(Gap::whole(name)),
        }
    }
    Ok(reached)
}

/// Walks all trees of the latest commit, also those of redb's own tables. Returns whether every page has the checksum of
/// its pointer, if need be after a flipped bit was flipped back. If one has not, redb goes back to an earlier commit.
pub(super) fn reaches_all(file: &PageFile) -> Result<bool, Failure> {
    let mut reached = Reached::nothing_of(file);
    for root in file.roots().map_err(disk)? {
        for definition in definitions(file, root, &mut reached)? {
            let (widths, take): (_, &mut TakeLeaf<'_>) = (definition.widths(), &mut |_, _, _| Ok(()));
            if let Some(root) = definition.root() {
                let mut walk = Walk { file, widths, is_proved: true, reached: &mut reached, take };
                walk.descend(root, &Gap::whole(""), 0)?;
            }
        }
    }
    Ok(reached.is_whole())
}

pub(super) fn disk(error: std::io::Error) -> Failure {
    redb::StorageError::Io(error).into()
}

/// The walk of one tree.
struct Walk<'a, 'b> {
    file: &'a PageFile,
    widths: Widths,
    /// Whether every page above has the checksum of its pointer. A page below another one is sound, and may be of another
    /// table or of an earlier time: the damaged page may be a page that an earlier commit wrote there.
    is_proved: bool,
    reached: &'a mut Reached,
    take: &'a mut TakeLeaf<'b>,
}

impl Walk<'_, '_> {
    /// Walks the tree below a pointer that is right. `part` is the part of the table that the tree has.
    fn descend(&mut self, pointer: Pointer, part: &Gap, depth: usize) -> Result<(), Failure> {
        let read = self.file.page(pointer, self.widths).map_err(disk)?;
        let Some(read) = read.filter(|_| depth < MAX_DEPTH) else {
            self.reached.gaps.push(part.clone());
            return Ok(());
        };
        // Other pages may be of another table or of an earlier time, so they are read like all pages that nothing leads to.
        if self.is_proved && read.is_sound {
            self.reached.mark(read.blocks);
        }
        if !read.is_sound {
            self.reached.gaps.push(part.clone());
            return self.damaged(&read.page, part, depth);
        }
        if is_leaf(&read.page) {
            return (self.take)(&part.table, Leaf::of(&read.page, self.widths), self.is_proved);
        }
        for child in children(&read.page, self.widths) {
            let above = child.above.or_else(|| part.above.clone());
            let up_to = child.up_to.or_else(|| part.up_to.clone());
            self.descend(child.pointer, &Gap { table: part.table.clone(), above, up_to }, depth + 1)?;
        }
        Ok(())
    }

    /// Takes what is left of a damaged page: the children that have the checksums of their pointers or, if there are
    /// none, the rows of a leaf.
    fn damaged(&mut self, page: &[u8], part: &Gap, depth: usize) -> Result<(), Failure> {
        let mut is_branch = false;
        for pointer in pointers_of_damaged(page) {
            let child = self.file.page_as_it_is(pointer, self.widths).map_err(disk)?;
            if child.is_some_and(|child| child.is_sound) {
                is_branch = true;
                let was_proved = std::mem::replace(&mut self.is_proved, false);
                self.descend(pointer, part, depth + 1)?;
                self.is_proved = was_proved;
            }
        }
        if is_branch { Ok(()) } else { (self.take)(&part.table, Leaf::of(page, self.widths), false) }
    }
}

/// Reads the pages that a walk has not reached, and calls `take` with the first block of each. `take` gets the same
/// page again with more bytes if it returns that the page is longer.
pub(super) fn scan(
    file: &PageFile,
    reached: &Reached,
    mut take: impl FnMut(&[u8]) -> Result<Option<usize>, Failure>,
) -> Result<(), Failure> {
    // The first block is the header.
    for number in (1..file.blocks()).filter(|number| !reached.has_block(*number)) {
        let at = number * super::pages::PAGE_BYTES as u64;
        let page = file.read(at, super::pages::PAGE_BYTES).map_err(disk)?;
        if page.iter().all(|byte| *byte == 0) {
            continue;
        }
        if let Some(bytes) = take(&page)? {
            take(&file.read(at, bytes).map_err(disk)?)?;
        }
    }
    Ok(())
}
