//! Things that one owner has at a time.

use std::collections::HashMap;
use std::hash::Hash;

/// Who has what: as the cache says, and as writes in flight have reserved.
pub(crate) struct Pool<T> {
    owners: HashMap<T, String>,
    owned: HashMap<String, Vec<T>>,
    reserved: HashMap<T, usize>,
}

impl<T> Default for Pool<T> {
    fn default() -> Pool<T> {
        Pool {
            owners: HashMap::new(),
            owned: HashMap::new(),
            reserved: HashMap::new(),
        }
    }
}

impl<T: Clone + Eq + Hash> Pool<T> {
    /// Whether anybody has it.
    pub(crate) fn is_taken(&self, one: &T) -> bool {
        self.owners.contains_key(one) || self.reserved.contains_key(one)
    }

    /// Who has it, as the cache says.
    pub(crate) fn owner(&self, one: &T) -> Option<&str> {
        self.owners.get(one).map(String::as_str)
    }

    /// All that is owned, and by whom.
    pub(crate) fn owners(&self) -> impl Iterator<Item = (&T, &str)> {
        self.owners.iter().map(|(one, owner)| (one, owner.as_str()))
    }

    /// Holds one for a write in flight.
    pub(crate) fn reserve(&mut self, one: T) {
        *self.reserved.entry(one).or_default() += 1;
    }

    /// Lets go of what was reserved.
    pub(crate) fn release(&mut self, one: &T) {
        if let Some(count) = self.reserved.get_mut(one) {
            *count -= 1;
            if *count == 0 {
                self.reserved.remove(one);
            }
        }
    }

    /// All that an owner has from now on.
    pub(crate) fn set(&mut self, owner: &str, now: Vec<T>) {
        for before in self.owned.remove(owner).unwrap_or_default() {
            if self.owners.get(&before).is_some_and(|own| own == owner) {
                self.owners.remove(&before);
            }
        }
        for one in &now {
            self.owners.insert(one.clone(), owner.to_owned());
        }
        if !now.is_empty() {
            self.owned.insert(owner.to_owned(), now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reservation_outlives_an_older_view() {
        let mut pool = Pool::default();
        pool.reserve(7);
        pool.set("a", vec![]);
        assert!(pool.is_taken(&7));
        pool.set("a", vec![7]);
        pool.release(&7);
        assert!(pool.is_taken(&7));
        pool.set("a", vec![]);
        assert!(!pool.is_taken(&7));
    }
}
