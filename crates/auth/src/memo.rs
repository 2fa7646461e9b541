//! Answers that are remembered for a while, and not more than so many.

use std::collections::HashMap;
use std::hash::Hash;

use jiff::Timestamp;
use parking_lot::Mutex;

/// Answers by question. Two generations: a full young one becomes the old one, and what is used
/// moves to the young one; so twice the limit is the most that is held.
pub(crate) struct Memo<K, V> {
    limit: usize,
    generations: Mutex<Generations<K, V>>,
}

type Answers<K, V> = HashMap<K, (V, Timestamp)>;

struct Generations<K, V> {
    young: Answers<K, V>,
    old: Answers<K, V>,
}

impl<K: Hash + Eq, V: Clone> Memo<K, V> {
    pub(crate) fn new(limit: usize) -> Memo<K, V> {
        Memo {
            limit,
            generations: Mutex::new(Generations {
                young: HashMap::new(),
                old: HashMap::new(),
            }),
        }
    }

    /// The answer, if it is known and holds still.
    pub(crate) fn get(&self, key: &K, now: Timestamp) -> Option<V> {
        let mut generations = self.generations.lock();
        if let Some((value, until)) = generations.young.get(key) {
            return (now < *until).then(|| value.clone());
        }
        let (key, (value, until)) = generations.old.remove_entry(key)?;
        if now >= until {
            return None;
        }
        self.insert(&mut generations, key, (value.clone(), until));
        Some(value)
    }

    /// Remembers an answer until a point in time.
    pub(crate) fn put(&self, key: K, value: V, until: Timestamp) {
        self.insert(&mut self.generations.lock(), key, (value, until));
    }

    fn insert(&self, generations: &mut Generations<K, V>, key: K, answer: (V, Timestamp)) {
        if generations.young.len() >= self.limit {
            generations.old = std::mem::take(&mut generations.young);
        }
        generations.young.insert(key, answer);
    }
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::*;

    #[test]
    fn answers_fade_and_are_few() {
        let memo = Memo::new(2);
        let now = Timestamp::UNIX_EPOCH;
        let at = |seconds| now + SignedDuration::from_secs(seconds);
        for key in 0..5 {
            memo.put(key, key, at(10));
        }
        let known: Vec<i32> = (0..5).filter(|key| memo.get(key, now).is_some()).collect();
        assert!(known.len() <= 4 && known.contains(&4), "{known:?}");
        assert_eq!(memo.get(&4, at(10)), None);
    }
}
