//! Sets of processors, written as the kernel writes them: `0-3,8`.

use std::collections::BTreeSet;
use std::fmt;

/// Processors by their numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CpuSet(BTreeSet<usize>);

/// Processors of the largest machine the kernel is built for.
const CPUS_MAX: usize = 8192;

impl CpuSet {
    /// Reads the kernel's notation.
    pub fn parse(text: &str) -> Option<CpuSet> {
        let mut set = BTreeSet::new();
        for part in text.trim().split(',').filter(|part| !part.is_empty()) {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (
                first.trim().parse::<usize>().ok()?,
                last.trim().parse().ok()?,
            );
            if first > last || last >= CPUS_MAX {
                return None;
            }
            set.extend(first..=last);
        }
        Some(CpuSet(set))
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// In rising order.
    pub fn iter(&self) -> impl Iterator<Item = usize> {
        self.0.iter().copied()
    }

    pub fn contains(&self, cpu: usize) -> bool {
        self.0.contains(&cpu)
    }

    pub fn union(&self, other: &CpuSet) -> CpuSet {
        CpuSet(self.0.union(&other.0).copied().collect())
    }

    pub fn without(&self, other: &CpuSet) -> CpuSet {
        CpuSet(self.0.difference(&other.0).copied().collect())
    }

    pub fn common(&self, other: &CpuSet) -> CpuSet {
        CpuSet(self.0.intersection(&other.0).copied().collect())
    }

    pub fn is_disjoint(&self, other: &CpuSet) -> bool {
        self.0.is_disjoint(&other.0)
    }
}

impl FromIterator<usize> for CpuSet {
    fn from_iter<I: IntoIterator<Item = usize>>(cpus: I) -> CpuSet {
        CpuSet(cpus.into_iter().collect())
    }
}

impl fmt::Display for CpuSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0.iter().copied().peekable();
        let mut first_range = true;
        while let Some(first) = rest.next() {
            let mut last = first;
            while rest.next_if_eq(&(last + 1)).is_some() {
                last += 1;
            }
            if !std::mem::take(&mut first_range) {
                f.write_str(",")?;
            }
            match first == last {
                true => write!(f, "{first}")?,
                false => write!(f, "{first}-{last}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::CpuSet;

    #[test]
    fn sets_read_and_write_the_kernels_notation() {
        for (text, shown) in [("0-3,8", "0-3,8"), ("3,1,2\n", "1-3"), ("", ""), ("7", "7")] {
            assert_eq!(CpuSet::parse(text).unwrap().to_string(), shown);
        }
        for bad in ["a", "3-1", "0-99999", "1-"] {
            assert_eq!(CpuSet::parse(bad), None, "{bad}");
        }
    }
}
