//! Controllers of storage.

pub mod protection;
