//! An ordered map whose clones are snapshots: chunks of entries, shared until one side changes.

use std::sync::Arc;

use super::entry::Entry;

/// Greatest number of entries of one chunk.
const CHUNK_ENTRIES_MAX: usize = 128;

type Chunk = Arc<Vec<Arc<Entry>>>;

/// Entries by key. Cloning costs one reference count; a change copies one chunk at most
/// (and the list of chunks), and nothing at all while no clone exists.
#[derive(Clone, Default)]
pub(crate) struct Map {
    chunks: Arc<Vec<Chunk>>,
    len: usize,
}

impl Map {
    /// How many entries there are.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The entry of that key.
    pub(crate) fn get(&self, key: &str) -> Option<&Arc<Entry>> {
        let chunk = self.chunks.get(self.chunk_of(key))?;
        let found = chunk.binary_search_by(|entry| (*entry.key).cmp(key));
        found.ok().map(|at| &chunk[at])
    }

    /// Adds an entry; returns the one it replaces.
    pub(crate) fn insert(&mut self, entry: Arc<Entry>) -> Option<Arc<Entry>> {
        let at = self.chunk_of(&entry.key);
        let chunks = Arc::make_mut(&mut self.chunks);
        let Some(chunk) = chunks.get_mut(at) else {
            chunks.push(Arc::new(vec![entry]));
            self.len += 1;
            return None;
        };
        let chunk = Arc::make_mut(chunk);
        match chunk.binary_search_by(|own| own.key.cmp(&entry.key)) {
            Ok(found) => Some(std::mem::replace(&mut chunk[found], entry)),
            Err(place) => {
                chunk.insert(place, entry);
                self.len += 1;
                if chunk.len() > CHUNK_ENTRIES_MAX {
                    let upper = chunk.split_off(CHUNK_ENTRIES_MAX / 2);
                    chunks.insert(at + 1, Arc::new(upper));
                }
                None
            }
        }
    }

    /// Removes the entry of that key.
    pub(crate) fn remove(&mut self, key: &str) -> Option<Arc<Entry>> {
        let at = self.chunk_of(key);
        let chunk = self.chunks.get(at)?;
        let found = chunk.binary_search_by(|entry| (*entry.key).cmp(key)).ok()?;
        let chunks = Arc::make_mut(&mut self.chunks);
        let chunk = Arc::make_mut(&mut chunks[at]);
        let removed = chunk.remove(found);
        if chunk.is_empty() {
            chunks.remove(at);
        }
        self.len -= 1;
        Some(removed)
    }

    /// Entries from `start` (inclusive) on, in order of keys.
    pub(crate) fn range(&self, start: &str) -> impl Iterator<Item = &Arc<Entry>> {
        let at = self.chunk_of(start);
        let first = self.chunks.get(at).map_or(&[][..], |chunk| {
            &chunk[chunk.partition_point(|entry| *entry.key < *start)..]
        });
        let rest = self.chunks.iter().skip(at + 1);
        first.iter().chain(rest.flat_map(|chunk| chunk.iter()))
    }

    /// Entries whose keys begin with `prefix`.
    pub(crate) fn prefixed<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = &'a Arc<Entry>> {
        self.range(prefix)
            .take_while(move |entry| entry.key.starts_with(prefix))
    }

    /// The chunk that holds `key`, or would.
    fn chunk_of(&self, key: &str) -> usize {
        let after = self
            .chunks
            .partition_point(|chunk| chunk.first().is_some_and(|first| *first.key <= *key));
        after.saturating_sub(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Nothing;
    impl kinds::Strategy for Nothing {
        fn cells(&self, _: &serde_json::Value, _: jiff::Timestamp) -> kinds::Cells {
            Vec::new()
        }
    }

    fn entry(key: &str) -> Arc<Entry> {
        let stored = br#"{"kind":"A","apiVersion":"v1","metadata":{"name":"a"}}"#;
        Arc::new(Entry::read(key, stored, None, (1, 0), &Nothing).unwrap())
    }

    #[test]
    fn behaves_as_an_ordered_map() {
        let mut model = std::collections::BTreeSet::new();
        let mut map = Map::default();
        for step in 0..3000_u32 {
            let key = format!("ns{}/{}", step % 3, step.wrapping_mul(2_654_435_761) % 700);
            if step % 4 == 3 {
                assert_eq!(map.remove(&key).is_some(), model.remove(&key));
            } else {
                assert_eq!(map.insert(entry(&key)).is_none(), model.insert(key));
            }
            assert_eq!(map.len(), model.len());
        }
        let keys: Vec<&str> = map.range("").map(|entry| &*entry.key).collect();
        assert_eq!(keys, model.iter().map(String::as_str).collect::<Vec<_>>());
        let from: Vec<&str> = map.range("ns1/3").map(|entry| &*entry.key).collect();
        let wanted: Vec<&str> = model
            .range("ns1/3".to_owned()..)
            .map(String::as_str)
            .collect();
        assert_eq!(from, wanted);
        let own = model.iter().filter(|key| key.starts_with("ns1/")).count();
        assert_eq!(map.prefixed("ns1/").count(), own);
    }

    #[test]
    fn a_clone_is_a_snapshot() {
        let mut map = Map::default();
        for number in 0..500 {
            map.insert(entry(&format!("{number:04}")));
        }
        let before = map.clone();
        map.remove("0007");
        map.insert(entry("0007a"));
        assert!(before.get("0007").is_some() && before.get("0007a").is_none());
        assert!(map.get("0007").is_none() && map.get("0007a").is_some());
    }
}
