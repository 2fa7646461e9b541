//! Printing: aligned tables, YAML, JSON.
#![expect(clippy::print_stdout, reason = "this is a command line's face")]

use std::io::Write;

use anyhow::Result;
use serde_json::Value;

/// Prints one line.
pub(crate) fn line(text: &str) {
    println!("{text}");
}

/// Prints bytes as they are.
pub(crate) fn raw(bytes: &[u8]) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(bytes)?;
    Ok(stdout.flush()?)
}

/// Prints rows in aligned columns, with or without the heading.
pub(crate) fn table(head: &[String], rows: &[Vec<String>], heading: bool) {
    let mut widths: Vec<usize> = head.iter().map(|cell| cell.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let heading = heading.then_some(head);
    for row in heading.into_iter().chain(rows.iter().map(Vec::as_slice)) {
        let last = row.len().saturating_sub(1);
        let cells = row
            .iter()
            .zip(&widths)
            .enumerate()
            .map(|(at, (cell, width))| match at {
                at if at == last => cell.clone(),
                _ => format!("{cell:<width$}   "),
            });
        println!("{}", cells.collect::<String>().trim_end());
    }
}

/// Prints a tree as YAML.
pub(crate) fn yaml(tree: &Value) -> Result<()> {
    print!("{}", serde_saphyr::to_string(tree)?);
    Ok(())
}

/// Prints a tree as indented JSON.
pub(crate) fn json(tree: &Value) -> Result<()> {
    println!("{}", serde_json::to_string_pretty(tree)?);
    Ok(())
}

/// `deployment.apps/web`, as kubectl names what it did something to.
pub(crate) fn name_of(names: &meta::Names, name: &str) -> String {
    match names.group.as_str() {
        "" => format!("{}/{name}", names.singular),
        group => format!("{}.{group}/{name}", names.singular),
    }
}
