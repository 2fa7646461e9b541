//! Tests of the crate's public face.

#![allow(clippy::unwrap_used, reason = "helpers of tests may fail the test")]

mod apply;
mod check;
mod custom;
mod every_field;
mod protobuf;
mod random;
mod table;
mod update;
