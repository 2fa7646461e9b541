//! Numbers for the words of rules, and for whatever else comes and goes.

use std::collections::HashMap;
use std::sync::Arc;

/// The number of `*`, which is always there.
pub(super) const ALL: u32 = 0;
/// The number of a word that no rule has.
pub(super) const UNKNOWN: u32 = u32::MAX;

/// Things by number; numbers of what is gone are given out again.
#[derive(Default)]
pub(super) struct Slab<T> {
    items: Vec<T>,
    free: Vec<u32>,
}

impl<T: Default> Slab<T> {
    /// Keeps a thing under a new number.
    pub(super) fn add(&mut self, item: T) -> u32 {
        if let Some(number) = self.free.pop() {
            self.items[number as usize] = item;
            return number;
        }
        self.items.push(item);
        (self.items.len() - 1) as u32
    }

    pub(super) fn get(&self, number: u32) -> &T {
        &self.items[number as usize]
    }

    pub(super) fn get_mut(&mut self, number: u32) -> &mut T {
        &mut self.items[number as usize]
    }

    pub(super) fn remove(&mut self, number: u32) -> T {
        self.free.push(number);
        std::mem::take(&mut self.items[number as usize])
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.items.len() - self.free.len()
    }
}

struct Word {
    text: Arc<str>,
    uses: usize,
}

impl Default for Word {
    fn default() -> Word {
        Word {
            text: "".into(),
            uses: 0,
        }
    }
}

/// The words of all rules, each kept once, for as long as a rule has it.
pub(super) struct Words {
    numbers: HashMap<Arc<str>, u32>,
    words: Slab<Word>,
}

impl Default for Words {
    fn default() -> Words {
        let mut words = Words {
            numbers: HashMap::new(),
            words: Slab::default(),
        };
        words.take("*");
        words
    }
}

impl Words {
    /// The number of a word, for one more use of it.
    pub(super) fn take(&mut self, text: &str) -> u32 {
        if let Some(number) = self.numbers.get(text) {
            self.words.get_mut(*number).uses += 1;
            return *number;
        }
        let text: Arc<str> = text.into();
        let number = self.words.add(Word {
            text: Arc::clone(&text),
            uses: 1,
        });
        self.numbers.insert(text, number);
        number
    }

    /// One use less.
    pub(super) fn release(&mut self, number: u32) {
        let word = self.words.get_mut(number);
        word.uses -= 1;
        if word.uses == 0 {
            let word = self.words.remove(number);
            self.numbers.remove(&word.text);
        }
    }

    pub(super) fn number(&self, text: &str) -> u32 {
        self.numbers.get(text).copied().unwrap_or(UNKNOWN)
    }

    pub(super) fn text(&self, number: u32) -> &str {
        &self.words.get(number).text
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.words.len()
    }
}
