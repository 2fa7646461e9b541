//! Sets of completion indexes, written as `0-2,5,7`. Pure.

use std::fmt;

/// Indexes as ordered, separate ranges with both ends included.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Indexes(Vec<(i32, i32)>);

impl Indexes {
    /// Reads the text of a status, dropping what is not below `completions`.
    pub(crate) fn parse(text: &str, completions: i32) -> Indexes {
        let mut ranges = Vec::new();
        for part in text.split(',').filter(|part| !part.is_empty()) {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (Ok(first), Ok(last)) = (first.parse::<i32>(), last.parse::<i32>()) else {
                continue;
            };
            if first <= last && first < completions {
                ranges.push((first, last.min(completions - 1)));
            }
        }
        Indexes::joined(ranges)
    }

    /// With more indexes.
    pub(crate) fn with(&self, more: impl IntoIterator<Item = i32>) -> Indexes {
        let more = more.into_iter().map(|index| (index, index));
        Indexes::joined(self.0.iter().copied().chain(more).collect())
    }

    fn joined(mut ranges: Vec<(i32, i32)>) -> Indexes {
        ranges.sort_unstable();
        let mut joined: Vec<(i32, i32)> = Vec::with_capacity(ranges.len());
        for (first, last) in ranges {
            match joined.last_mut() {
                Some(known) if first <= known.1.saturating_add(1) => known.1 = known.1.max(last),
                _ => joined.push((first, last)),
            }
        }
        Indexes(joined)
    }

    pub(crate) fn total(&self) -> i32 {
        self.0.iter().map(|(first, last)| last - first + 1).sum()
    }

    pub(crate) fn contains(&self, index: i32) -> bool {
        let after = self.0.partition_point(|(first, _)| *first <= index);
        after > 0 && self.0[after - 1].1 >= index
    }

    /// How many of `other` are in this set.
    pub(crate) fn common(&self, other: &Indexes) -> i32 {
        let shared = |(first, last): &(i32, i32)| {
            let parts = other.0.iter();
            let parts = parts.map(|(f, l)| (last.min(l) - first.max(f) + 1).max(0));
            parts.sum::<i32>()
        };
        self.0.iter().map(shared).sum()
    }

    /// As a status field: nothing when empty.
    pub(crate) fn text(&self) -> Option<String> {
        Some(self.to_string()).filter(|text| !text.is_empty())
    }
}

impl fmt::Display for Indexes {
    /// Three or more in a row are joined by a hyphen.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (first, last)) in self.0.iter().enumerate() {
            if at > 0 {
                f.write_str(",")?;
            }
            match last - first {
                0 => write!(f, "{first}")?,
                1 => write!(f, "{first},{last}")?,
                _ => write!(f, "{first}-{last}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_three_are_joined() {
        let set = Indexes::default().with([5, 0, 2, 1, 7, 8]);
        assert_eq!(set.to_string(), "0-2,5,7,8");
        assert_eq!(
            (set.total(), set.contains(1), set.contains(3)),
            (6, true, false)
        );
        assert_eq!(Indexes::parse("0-2,5,7,8", 100), set);
        assert_eq!(set.with([3, 4, 6]).to_string(), "0-8");
    }

    #[test]
    fn what_is_beyond_the_completions_does_not_count() {
        assert_eq!(Indexes::parse("1,3-9", 5).to_string(), "1,3,4");
        assert_eq!(Indexes::parse("9,x,4-2", 5).text(), None);
    }

    #[test]
    fn common_members_are_counted() {
        let set = Indexes::parse("0-4,8", 10);
        assert_eq!(set.common(&Indexes::parse("3-8", 10)), 3);
    }
}
