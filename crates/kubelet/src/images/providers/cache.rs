//! What providers said and still holds.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use tokio::time::Instant;

use super::Known;
use crate::images::keyring::Coordinates;

/// Answers of one provider that are kept.
const ANSWERS_MAX: usize = 1_024;

/// For what an answer holds.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    /// An image, a registry, or all.
    pub(super) of: String,
    pub(super) account: Option<Coordinates>,
    pub(super) annotations: BTreeMap<String, String>,
    /// The digest of the token, where the answer holds for no other.
    pub(super) token: Option<[u8; 32]>,
}

/// Answers with their ends.
#[derive(Default)]
pub(super) struct Cache {
    answers: HashMap<Key, (Known, Instant)>,
}

impl Cache {
    pub(super) fn get(&self, key: &Key) -> Option<Known> {
        let (known, until) = self.answers.get(key)?;
        (Instant::now() < *until).then(|| known.clone())
    }

    /// Keeps an answer for so long; when there are too many, the one that ends first goes.
    pub(super) fn put(&mut self, key: Key, known: Known, life: Duration) {
        let now = Instant::now();
        self.answers.retain(|_, (_, until)| now < *until);
        if self.answers.len() >= ANSWERS_MAX && !self.answers.contains_key(&key) {
            let first = self.answers.iter().min_by_key(|(_, (_, until))| *until);
            if let Some(first) = first.map(|(key, _)| key.clone()) {
                self.answers.remove(&first);
            }
        }
        // What is to hold for ages holds for a year.
        let life = life.min(Duration::from_secs(365 * 24 * 3600));
        self.answers.insert(key, (known, now + life));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_to_end_goes_when_there_are_too_many() {
        let mut cache = Cache::default();
        let key = |number: usize| Key {
            of: number.to_string(),
            account: None,
            annotations: BTreeMap::new(),
            token: None,
        };
        for number in 0..=ANSWERS_MAX {
            // The one in the middle ends before all others.
            let life = if number == 500 { 1_000 } else { 2_000 };
            cache.put(key(number), Known::default(), Duration::from_secs(life));
        }
        assert!(cache.get(&key(500)).is_none());
        assert!(cache.get(&key(0)).is_some() && cache.get(&key(ANSWERS_MAX)).is_some());
        assert_eq!(cache.answers.len(), ANSWERS_MAX);
    }
}
