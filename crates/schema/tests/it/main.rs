//! Tests of the crate's public face.

mod apply;
mod check;
mod random;
mod table;
mod update;
