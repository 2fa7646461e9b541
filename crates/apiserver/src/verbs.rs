//! What can be done with the objects of any resource. Verbs know no kinds.

pub(crate) mod collection;
pub(crate) mod create;
pub(crate) mod delete;
pub(crate) mod get;
pub(crate) mod given;
pub(crate) mod list;
pub(crate) mod options;
pub(crate) mod page;
mod parts;
pub(crate) mod patch;
mod patch_shown;
mod pieces;
mod sent;
mod unfit;
pub(crate) mod update;
pub(crate) mod watch;
pub(crate) mod write;

pub(crate) use pieces::untyped;
