//! The rules of every built-in kind: names, defaults, preparation, validation,
//! printer columns. A kind is a [`Row`]: data plus a [`Strategy`]. Verbs know
//! no kinds and kinds know no verbs; custom resources make rows at run time.

pub mod row;

pub use row::{Cells, Column, Row, ScalePaths, Strategy, Verbs};
