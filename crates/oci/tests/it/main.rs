//! The store, archives and pulls by their public face. Needs root, as the store does.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod archives;
mod hostile;
mod make;
mod mirrors;
mod registry;
