//! Profiles in the format of pprof: messages whose texts stand in one table.

use std::collections::HashMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use linux::profile::{HERTZ, Samples};

use super::symbols::Symbols;

const PERIOD_NANOSECONDS: u64 = 1_000_000_000 / HERTZ as u64;

/// Gives each text and each place a number.
struct Profile<'own> {
    symbols: &'own Symbols,
    texts: HashMap<String, u64>,
    table: Vec<String>,
    places: HashMap<usize, u64>,
    functions: HashMap<u64, u64>,
    /// Messages of places and functions.
    out: Vec<u8>,
}

/// The message that `go tool pprof` reads, before it is compressed.
pub(super) fn profile(
    samples: &Samples,
    symbols: &Symbols,
    begun: SystemTime,
    lasted: Duration,
) -> Vec<u8> {
    let mut profile = Profile {
        symbols,
        texts: HashMap::new(),
        table: Vec::new(),
        places: HashMap::new(),
        functions: HashMap::new(),
        out: Vec::new(),
    };
    profile.text("");
    let mut counts: HashMap<&[usize], u64> = HashMap::new();
    for stack in samples.stacks.iter().filter(|stack| !stack.is_empty()) {
        *counts.entry(stack).or_default() += 1;
    }
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_unstable();
    let mut out = Vec::new();
    for (kind, unit) in [("samples", "count"), ("cpu", "nanoseconds")] {
        let own = profile.kind(kind, unit);
        message(&mut out, 1, &own);
    }
    for (stack, count) in counts {
        let places: Vec<u64> = stack.iter().map(|place| profile.place(*place)).collect();
        let mut own = Vec::new();
        packed(&mut own, 1, &places);
        packed(&mut own, 2, &[count, count * PERIOD_NANOSECONDS]);
        message(&mut out, 2, &own);
    }
    let own = profile.mapping();
    message(&mut out, 3, &own);
    out.append(&mut profile.out);
    let period = profile.kind("cpu", "nanoseconds");
    let comment = match samples.lost {
        0 => None,
        lost => Some(profile.text(&format!("{lost} samples had no room"))),
    };
    for text in &profile.table {
        message(&mut out, 6, text.as_bytes());
    }
    let begun = begun.duration_since(UNIX_EPOCH).unwrap_or_default();
    let nanoseconds = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    field(&mut out, 9, nanoseconds(begun));
    field(&mut out, 10, nanoseconds(lasted));
    message(&mut out, 11, &period);
    field(&mut out, 12, PERIOD_NANOSECONDS);
    comment
        .into_iter()
        .for_each(|text| field(&mut out, 13, text));
    out
}

impl Profile<'_> {
    fn text(&mut self, text: &str) -> u64 {
        if let Some(known) = self.texts.get(text) {
            return *known;
        }
        let new = self.table.len() as u64;
        self.table.push(text.to_owned());
        self.texts.insert(text.to_owned(), new);
        new
    }

    fn kind(&mut self, kind: &str, unit: &str) -> Vec<u8> {
        let mut own = Vec::new();
        field(&mut own, 1, self.text(kind));
        field(&mut own, 2, self.text(unit));
        own
    }

    fn mapping(&mut self) -> Vec<u8> {
        let mapping = self.symbols.mapping.clone();
        let mut own = Vec::new();
        let file = self.text(&mapping.file);
        let named = u64::from(!self.functions.is_empty());
        let fields = [1, mapping.start, mapping.limit, mapping.offset, file];
        for (tag, value) in (1..).zip(fields).chain([(7, named)]) {
            field(&mut own, tag, value);
        }
        own
    }

    fn place(&mut self, address: usize) -> u64 {
        if let Some(known) = self.places.get(&address) {
            return *known;
        }
        let new = self.places.len() as u64 + 1;
        self.places.insert(address, new);
        let mut own = Vec::new();
        field(&mut own, 1, new);
        let mapping = &self.symbols.mapping;
        let inside = (mapping.start..mapping.limit).contains(&(address as u64));
        field(&mut own, 2, u64::from(inside));
        field(&mut own, 3, address as u64);
        let symbols = self.symbols;
        if let Some(name) = symbols.find(address as u64) {
            let mut line = Vec::new();
            field(&mut line, 1, self.function(name));
            message(&mut own, 4, &line);
        }
        message(&mut self.out, 4, &own);
        new
    }

    fn function(&mut self, name: &str) -> u64 {
        let text = self.text(name);
        if let Some(known) = self.functions.get(&text) {
            return *known;
        }
        let new = self.functions.len() as u64 + 1;
        self.functions.insert(text, new);
        let mut own = Vec::new();
        // Readers make something readable of the linker's name where both are the same.
        for (tag, value) in [(1, new), (2, text), (3, text)] {
            field(&mut own, tag, value);
        }
        message(&mut self.out, 5, &own);
        new
    }
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// A number, unless it is zero.
fn field(out: &mut Vec<u8>, tag: u64, value: u64) {
    if value > 0 {
        varint(out, tag << 3);
        varint(out, value);
    }
}

fn message(out: &mut Vec<u8>, tag: u64, content: &[u8]) {
    varint(out, tag << 3 | 2);
    varint(out, content.len() as u64);
    out.extend_from_slice(content);
}

fn packed(out: &mut Vec<u8>, tag: u64, values: &[u64]) {
    let mut own = Vec::new();
    values.iter().for_each(|value| varint(&mut own, *value));
    message(out, tag, &own);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_stacks_are_counted_together() {
        let samples = Samples {
            stacks: vec![vec![0x10, 0x20], vec![0x30], vec![0x10, 0x20], vec![]],
            lost: 3,
        };
        let symbols = Symbols::default();
        let lasted = Duration::from_secs(1);
        let message = profile(&samples, &symbols, UNIX_EPOCH, lasted);
        // Sample: places 1 and 2; twice, 20 milliseconds.
        let sample = [0x12, 11, 0x0a, 2, 1, 2, 0x12, 5, 2, 0x80, 0xda, 0xc4, 0x09];
        assert!(
            message.windows(sample.len()).any(|part| part == sample),
            "{message:x?}"
        );
        let text = String::from_utf8_lossy(&message);
        assert!(text.contains("3 samples had no room"));
    }
}
