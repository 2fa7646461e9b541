//! The ordered index: every key with the history of its versions, in memory.
//!
//! Keys lie in blocks of at most [`BLOCK_KEYS`], a B+ tree of two levels. Each
//! block counts its live keys and remembers its newest change, so that a range
//! is counted block by block, not key by key, also at an older revision as
//! long as the block has not changed since.

use bytes::Bytes;

use crate::api::KeyRange;

/// Most keys in one block; a fuller block is split in halves.
const BLOCK_KEYS: usize = 256;

/// Where a version stands in the store's history: the revision of its
/// transaction, and its place among that transaction's changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Rev {
    pub(crate) main: i64,
    pub(crate) sub: u32,
}

/// One version of one key, without its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Version {
    pub(crate) rev: Rev,
    pub(crate) create: i64,
    /// Counts from 1; 0 marks a deletion.
    pub(crate) version: i64,
    pub(crate) lease: i64,
}

impl Version {
    pub(crate) fn is_live(&self) -> bool {
        self.version != 0
    }
}

#[derive(Debug)]
struct Entry {
    key: Bytes,
    /// Oldest first; never empty.
    history: Vec<Version>,
}

impl Entry {
    /// The version visible at revision `main`, unless the key is absent then.
    fn at(&self, main: i64) -> Option<&Version> {
        let newer = self
            .history
            .iter()
            .rev()
            .take_while(|version| version.rev.main > main)
            .count();
        let visible = self.history.len().checked_sub(newer + 1)?;
        self.history
            .get(visible)
            .filter(|version| version.is_live())
    }
}

#[derive(Debug, Default)]
struct Block {
    entries: Vec<Entry>,
    /// Keys whose newest version is not a deletion.
    live: usize,
    /// Revision of the block's newest change.
    newest: i64,
    /// Whether compaction may find something to drop.
    garbage: bool,
}

impl Block {
    fn of(entries: Vec<Entry>) -> Block {
        let last = |entry: &Entry| entry.history.last().copied();
        Block {
            live: entries
                .iter()
                .filter_map(last)
                .filter(Version::is_live)
                .count(),
            newest: entries
                .iter()
                .filter_map(last)
                .map(|version| version.rev.main)
                .max()
                .unwrap_or(0),
            garbage: entries.iter().any(|entry| {
                entry.history.len() > 1 || entry.history.iter().any(|version| !version.is_live())
            }),
            entries,
        }
    }

    fn first_key(&self) -> &[u8] {
        self.entries.first().map_or(&[], |entry| &entry.key)
    }

    fn find(&self, key: &[u8]) -> Result<usize, usize> {
        self.entries
            .binary_search_by(|entry| entry.key.as_ref().cmp(key))
    }
}

/// A place in the index: block, entry. Either points at an entry or is the end.
type Position = (usize, usize);

/// All keys and their versions.
#[derive(Debug, Default)]
pub(crate) struct Index {
    /// Never holds an empty block.
    blocks: Vec<Block>,
}

impl Index {
    /// The newest live version of `key`, with the index's own copy of the key.
    pub(crate) fn newest(&self, key: &[u8]) -> Option<(&Bytes, &Version)> {
        let entry = self.entry(key)?;
        let version = entry.history.last().filter(|version| version.is_live())?;
        Some((&entry.key, version))
    }

    /// The live version of `key` that `rev` replaced, if it is still known.
    pub(crate) fn before(&self, key: &[u8], rev: Rev) -> Option<&Version> {
        let history = &self.entry(key)?.history;
        let older = history.partition_point(|version| version.rev < rev);
        history
            .get(older.checked_sub(1)?)
            .filter(|version| version.is_live())
    }

    /// Adds the newest version of `key`; returns the index's copy of the key.
    pub(crate) fn push(&mut self, key: &Bytes, version: Version) -> Bytes {
        if self.blocks.is_empty() {
            self.blocks.push(Block::default());
        }
        let at = self.block_of(key);
        let block = &mut self.blocks[at];
        block.newest = block.newest.max(version.rev.main);
        let (place, was_live) = match block.find(key) {
            Ok(place) => {
                let history = &mut block.entries[place].history;
                let was_live = history.last().is_some_and(Version::is_live);
                history.push(version);
                block.garbage = true;
                (place, was_live)
            }
            Err(place) => {
                // Exactly one long: most keys never get a second version.
                let history = vec![version];
                let key = key.clone();
                block.garbage |= !version.is_live();
                block.entries.insert(place, Entry { key, history });
                (place, false)
            }
        };
        match (was_live, version.is_live()) {
            (false, true) => block.live += 1,
            (true, false) => block.live -= 1,
            _ => {}
        }
        let key = block.entries[place].key.clone();
        if block.entries.len() > BLOCK_KEYS {
            let upper = block.entries.split_off(BLOCK_KEYS / 2);
            let lower = std::mem::take(&mut block.entries);
            self.blocks[at] = Block::of(lower);
            self.blocks.insert(at + 1, Block::of(upper));
        }
        key
    }

    /// The live keys of `keys` at revision `main`, in order.
    pub(crate) fn walk(
        &self,
        keys: &KeyRange,
        main: i64,
    ) -> impl Iterator<Item = (&Bytes, &Version)> {
        let (from, to) = self.bounds(keys);
        let blocks = self.blocks.iter().enumerate().skip(from.0);
        blocks
            .take_while(move |(at, _)| (*at, 0) < to)
            .flat_map(move |(at, block)| {
                let (low, high) = Self::slice_of(block, at, from, to);
                block.entries[low..high].iter()
            })
            .filter_map(move |entry| entry.at(main).map(|version| (&entry.key, version)))
    }

    /// How many keys of `keys` live at revision `main`.
    pub(crate) fn count(&self, keys: &KeyRange, main: i64) -> usize {
        let (from, to) = self.bounds(keys);
        let mut sum = 0;
        for (at, block) in self.blocks.iter().enumerate().skip(from.0) {
            if (at, 0) >= to {
                break;
            }
            let (low, high) = Self::slice_of(block, at, from, to);
            sum += if high - low == block.entries.len() && block.newest <= main {
                block.live
            } else {
                let entries = &block.entries[low..high];
                entries.iter().filter(|e| e.at(main).is_some()).count()
            };
        }
        sum
    }

    /// Drops every version that no read at or above revision `main` can see;
    /// returns what was dropped. A deletion made by `main` itself is kept, for
    /// watches that start there.
    pub(crate) fn compact(&mut self, main: i64) -> Vec<Rev> {
        let mut dropped = Vec::new();
        for block in self.blocks.iter_mut().filter(|block| block.garbage) {
            let mut entries = std::mem::take(&mut block.entries);
            entries.retain_mut(|entry| {
                let history = &mut entry.history;
                let older = history.partition_point(|version| version.rev.main <= main);
                let mut gone = older.saturating_sub(1);
                let visible = history.get(gone).filter(|_| older > 0);
                if visible.is_some_and(|version| !version.is_live() && version.rev.main < main) {
                    gone += 1;
                }
                dropped.extend(history.drain(..gone).map(|version| version.rev));
                history.shrink_to_fit();
                !history.is_empty()
            });
            *block = Block {
                newest: block.newest,
                ..Block::of(entries)
            };
        }
        self.blocks.retain(|block| !block.entries.is_empty());
        dropped
    }

    fn entry(&self, key: &[u8]) -> Option<&Entry> {
        let block = self.blocks.get(self.block_of(key))?;
        block
            .find(key)
            .ok()
            .and_then(|place| block.entries.get(place))
    }

    /// The block in which `key` is or belongs.
    fn block_of(&self, key: &[u8]) -> usize {
        self.blocks
            .partition_point(|block| block.first_key() <= key)
            .saturating_sub(1)
    }

    /// The first entry at or above `key`.
    fn position(&self, key: &[u8]) -> Position {
        let at = self.block_of(key);
        let Some(block) = self.blocks.get(at) else {
            return (0, 0);
        };
        match block.find(key) {
            Err(place) if place == block.entries.len() => (at + 1, 0),
            Ok(place) | Err(place) => (at, place),
        }
    }

    fn bounds(&self, keys: &KeyRange) -> (Position, Position) {
        let (start, end) = match keys {
            KeyRange::One(key) => {
                let mut after = key.to_vec();
                after.push(0);
                (key, self.position(&after))
            }
            KeyRange::Span(start, end) => (start, self.position(end)),
            KeyRange::From(start) => (start, (self.blocks.len(), 0)),
        };
        (self.position(start), end)
    }

    fn slice_of(block: &Block, at: usize, from: Position, to: Position) -> (usize, usize) {
        let high = if at == to.0 {
            to.1
        } else {
            block.entries.len()
        };
        let low = if at == from.0 { from.1 } else { 0 };
        (low.min(high), high)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn live(main: i64) -> Version {
        Version {
            rev: Rev { main, sub: 0 },
            create: main,
            version: 1,
            lease: 0,
        }
    }

    fn dead(main: i64) -> Version {
        Version {
            version: 0,
            ..live(main)
        }
    }

    fn key(number: usize) -> Bytes {
        format!("{number:06}").into()
    }

    /// 2,000 keys inserted out of order, every third one deleted later.
    fn sample() -> Index {
        let mut index = Index::default();
        for step in 0..2_000 {
            index.push(&key(step * 7 % 2_000), live(2 + step as i64));
        }
        for number in (0..2_000).step_by(3) {
            index.push(&key(number), dead(3_000 + number as i64));
        }
        index
    }

    #[test]
    fn counts_agree_with_walks() {
        let index = sample();
        let spans = [
            (0, 2_000),
            (0, 1),
            (1, 1),
            (7, 1_301),
            (1_990, 2_500),
            (9, 3),
        ];
        for (low, high) in spans {
            let keys = KeyRange::Span(key(low), key(high));
            for main in [1, 2, 500, 2_001, 3_100, 9_000] {
                let walked = index.walk(&keys, main).count();
                assert_eq!(index.count(&keys, main), walked, "{low}..{high} at {main}");
            }
        }
        assert_eq!(index.count(&KeyRange::prefix(""), 9_000), 1_333);
        assert_eq!(index.count(&KeyRange::One(key(1)), 9_000), 1);
        assert_eq!(index.count(&KeyRange::One(key(3)), 9_000), 0);
    }

    #[test]
    fn walks_in_key_order() {
        let index = sample();
        let all = KeyRange::prefix("");
        let keys: Vec<_> = index.walk(&all, 2_001).map(|(key, _)| key).collect();
        assert_eq!(keys.len(), 2_000);
        assert!(keys.is_sorted());
    }

    #[test]
    fn compaction_keeps_what_can_be_read() {
        let mut index = sample();
        let all = KeyRange::prefix("");
        let before: Vec<_> = index.walk(&all, 3_500).map(|(k, _)| k.clone()).collect();
        let dropped = index.compact(3_501);
        // 501 is deleted by 3_501 itself: its deletion stays, its life goes.
        assert_eq!(dropped.len(), 167 * 2 + 1);
        let after: Vec<_> = index.walk(&all, 3_501).map(|(k, _)| k.clone()).collect();
        assert_eq!(before.len(), after.len() + 1);
        assert!(index.entry(&key(501)).is_some());
        assert!(index.entry(&key(498)).is_none());
        assert_eq!(index.compact(9_999).len(), 500 * 2 - 1);
        assert_eq!(index.count(&all, 9_999), 1_333);
    }
}
