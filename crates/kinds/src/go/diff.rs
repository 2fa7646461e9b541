//! What differs between two texts, as a unified diff. It finds what Python's difflib and
//! upstream's port of it find: the longest run of equal lines, then those on both its sides.

use std::collections::HashMap;
use std::ops::Range;

/// Equal lines shown around a change.
const CONTEXT: usize = 3;
/// From this many lines on, those that come too often start no run.
const MANY_LINES: usize = 200;

/// A run of equal lines: where it starts in both texts, and its length.
struct Run(usize, usize, usize);

/// Lines that are equal, or replaced by others.
#[derive(Clone)]
struct Piece {
    equal: bool,
    old: Range<usize>,
    new: Range<usize>,
}

/// The unified diff of two texts, empty when they are equal.
pub(super) fn unified(old: &str, new: &str) -> String {
    let old: Vec<_> = old.split('\n').collect();
    let new: Vec<_> = new.split('\n').collect();
    let mut text = String::new();
    for group in groups(pieces(&old, &new)) {
        let (Some(first), Some(last)) = (group.first(), group.last()) else {
            continue;
        };
        let before = range(first.old.start..last.old.end);
        let after = range(first.new.start..last.new.end);
        text.push_str(&format!("@@ -{before} +{after} @@\n"));
        for piece in &group {
            let (sign, removed) = match piece.equal {
                true => (' ', &old[piece.old.clone()]),
                false => ('-', &old[piece.old.clone()]),
            };
            lines(&mut text, sign, removed);
            if !piece.equal {
                lines(&mut text, '+', &new[piece.new.clone()]);
            }
        }
    }
    text
}

fn lines(text: &mut String, sign: char, lines: &[&str]) {
    for line in lines {
        text.push(sign);
        text.push_str(line);
        text.push('\n');
    }
}

fn range(lines: Range<usize>) -> String {
    match lines.len() {
        1 => (lines.start + 1).to_string(),
        0 => format!("{},0", lines.start),
        count => format!("{},{count}", lines.start + 1),
    }
}

/// Where lines stand in the new text.
fn index<'text>(new: &[&'text str]) -> HashMap<&'text str, Vec<usize>> {
    let mut places: HashMap<_, Vec<usize>> = HashMap::new();
    for (place, line) in new.iter().enumerate() {
        places.entry(*line).or_default().push(place);
    }
    if new.len() >= MANY_LINES {
        let most = new.len() / 100 + 1;
        places.retain(|_, places| places.len() <= most);
    }
    places
}

fn pieces(old: &[&str], new: &[&str]) -> Vec<Piece> {
    let places = index(new);
    let mut runs = Vec::new();
    // What is left of a run comes before what is right of it; a run waits for its left side.
    let mut waiting = vec![Err((0..old.len(), 0..new.len()))];
    while let Some(next) = waiting.pop() {
        let (within_old, within_new) = match next {
            Ok(run) => {
                runs.push(run);
                continue;
            }
            Err(ranges) => ranges,
        };
        let run = longest(old, new, &places, within_old.clone(), within_new.clone());
        let Run(start, new_start, length) = run;
        if length == 0 {
            continue;
        }
        let right = (
            start + length..within_old.end,
            new_start + length..within_new.end,
        );
        waiting.push(Err(right));
        waiting.push(Ok(run));
        waiting.push(Err((within_old.start..start, within_new.start..new_start)));
    }
    runs.push(Run(old.len(), new.len(), 0));
    joined(runs)
}

fn joined(runs: Vec<Run>) -> Vec<Piece> {
    let mut pieces: Vec<Piece> = Vec::new();
    let (mut here, mut new_here) = (0, 0);
    for Run(start, new_start, length) in runs {
        if here < start || new_here < new_start {
            pieces.push(Piece {
                equal: false,
                old: here..start,
                new: new_here..new_start,
            });
        }
        (here, new_here) = (start + length, new_start + length);
        match pieces.last_mut() {
            _ if length == 0 => {}
            Some(last) if last.equal => {
                last.old.end = here;
                last.new.end = new_here;
            }
            _ => pieces.push(Piece {
                equal: true,
                old: start..here,
                new: new_start..new_here,
            }),
        }
    }
    pieces
}

/// The longest run of equal lines, and of several the first in the old text.
fn longest(
    old: &[&str],
    new: &[&str],
    places: &HashMap<&str, Vec<usize>>,
    within_old: Range<usize>,
    within_new: Range<usize>,
) -> Run {
    let mut best = Run(within_old.start, within_new.start, 0);
    // How long the run is that ends at a line of the new text and the one looked at.
    let mut lengths: HashMap<usize, usize> = HashMap::new();
    for at in within_old.clone() {
        let mut next = HashMap::new();
        let there = places.get(old[at]).map_or(&[][..], Vec::as_slice);
        for &place in there.iter().filter(|place| within_new.contains(place)) {
            let before = place.checked_sub(1).and_then(|place| lengths.get(&place));
            let length = before.unwrap_or(&0) + 1;
            next.insert(place, length);
            if length > best.2 {
                best = Run(at + 1 - length, place + 1 - length, length);
            }
        }
        lengths = next;
    }
    let Run(mut start, mut new_start, mut length) = best;
    // Lines that come too often start no run, yet lengthen one.
    while start > within_old.start
        && new_start > within_new.start
        && old[start - 1] == new[new_start - 1]
    {
        (start, new_start, length) = (start - 1, new_start - 1, length + 1);
    }
    while start + length < within_old.end
        && new_start + length < within_new.end
        && old[start + length] == new[new_start + length]
    {
        length += 1;
    }
    Run(start, new_start, length)
}

/// Changes with a few equal lines around them; those far apart in groups of their own.
fn groups(mut pieces: Vec<Piece>) -> Vec<Vec<Piece>> {
    if let Some(first) = pieces.first_mut().filter(|piece| piece.equal) {
        first.old.start = first.old.start.max(first.old.end.saturating_sub(CONTEXT));
        first.new.start = first.new.start.max(first.new.end.saturating_sub(CONTEXT));
    }
    if let Some(last) = pieces.last_mut().filter(|piece| piece.equal) {
        last.old.end = last.old.end.min(last.old.start + CONTEXT);
        last.new.end = last.new.end.min(last.new.start + CONTEXT);
    }
    let mut groups = Vec::new();
    let mut group: Vec<Piece> = Vec::new();
    for mut piece in pieces {
        if piece.equal && piece.old.len() > 2 * CONTEXT {
            let mut tail = piece.clone();
            tail.old.end = tail.old.start + CONTEXT;
            tail.new.end = tail.new.start + CONTEXT;
            group.push(tail);
            groups.push(std::mem::take(&mut group));
            piece.old.start = piece.old.end - CONTEXT;
            piece.new.start = piece.new.end - CONTEXT;
        }
        group.push(piece);
    }
    groups.push(group);
    groups.retain(|group| group.iter().any(|piece| !piece.equal));
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_shown_with_what_is_around_them() {
        let lines = |changed: &[(usize, &str)]| {
            let line = |at: usize| {
                let own = changed.iter().find(|(place, _)| *place == at);
                own.map_or(at.to_string(), |(_, text)| (*text).to_owned())
            };
            (1..=20).map(line).collect::<Vec<_>>().join("\n")
        };
        let old = lines(&[]);
        for (new, expected) in [
            (old.clone(), ""),
            (lines(&[(1, "x")]), "@@ -1,4 +1,4 @@\n-1\n+x\n 2\n 3\n 4\n"),
            (
                lines(&[(2, "x"), (19, "y\nz")]),
                "@@ -1,5 +1,5 @@\n 1\n-2\n+x\n 3\n 4\n 5\n@@ -16,5 +16,6 @@\n 16\n 17\n 18\n-19\n+y\n\
                 +z\n 20\n",
            ),
            ("0\n".to_owned() + &old, "@@ -1,3 +1,4 @@\n+0\n 1\n 2\n 3\n"),
        ] {
            assert_eq!(unified(&old, &new), expected);
        }
    }

    #[test]
    fn lines_that_come_often_start_no_run() {
        let many = "a\n".repeat(MANY_LINES);
        let text = unified(&format!("{many}b"), &format!("x\n{many}b"));
        assert!(text.starts_with("@@ -1,3 +1,4 @@\n+x\n a\n"), "{text}");
    }
}
