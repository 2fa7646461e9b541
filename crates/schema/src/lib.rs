//! The shape of every kind as data, and what follows from it: strict decoding, patches,
//! server-side apply and the published OpenAPI documents.

pub mod apply;
pub mod check;
pub mod custom;
pub mod openapi;
pub mod parse;
pub mod patch;
pub mod protobuf;
pub mod table;
pub mod types;

pub use apply::{
    ApplyError, ApplyOptions, Conflict, Unconverted, UpdateOptions, Versions, apply, apply_between,
    update_managed_fields, update_managed_fields_between,
};
pub use check::{Dropped, TypeError, check, check_telling, fill_status};
pub use parse::{ParseError, Parsed, parse_json};
pub use patch::{PatchError, json_patch, merge_patch, strategic_merge_patch};
pub use table::{builtin, named};
pub use types::{Field, Kind, ListKind, MapKind, PatchStrategy, Presence, Shape, Type, TypeRef};
