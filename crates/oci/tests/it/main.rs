//! The store, archives and pulls by their public face. Needs root, as the store does.

mod archives;
mod hostile;
mod make;
mod registry;
