//! Custom resources: what a definition may say, and what follows from it for its instances
//! (pruning, defaults, validation, columns). No verbs and no I/O.

mod check;
mod columns;
mod defaults;
pub mod definition;
mod embedded;
mod formats;
mod go_regex;
mod lists;
mod path;
mod prune;
pub mod publish;
mod rules;
mod strategy;
mod structural;

use serde_json::Value;

pub use embedded::Unreadable;
pub use strategy::CustomStrategy;
pub use structural::Structural;

/// Brings what a client sent into the shape of its schema, as a decoder would: unknown fields go
/// (their paths are returned), and so does `null` where it may not stand.
pub fn coerce(schema: &Structural, object: &mut Value) -> Result<Vec<String>, Unreadable> {
    let mut unknown = embedded::coerce_metadata(object)?;
    unknown.extend(prune::prune(schema, object));
    prune::drop_nulls(schema, object);
    unknown.extend(embedded::coerce(schema, object)?);
    Ok(unknown)
}
