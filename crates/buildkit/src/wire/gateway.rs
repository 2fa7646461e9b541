//! `moby.buildkit.v1.frontend.LLBBridge`.

use std::collections::BTreeMap;

use super::{Definition, Map, RpcStatus, Stat, Worker};

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Pong {
    #[prost(message, repeated, tag = "1")]
    pub(crate) frontend: Vec<Ability>,
    #[prost(message, repeated, tag = "2")]
    pub(crate) llb: Vec<Ability>,
    #[prost(message, repeated, tag = "3")]
    pub(crate) workers: Vec<Worker>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Ability {
    #[prost(string, tag = "1")]
    pub(crate) id: String,
    #[prost(bool, tag = "2")]
    pub(crate) enabled: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct BridgeSolve {
    #[prost(message, optional, tag = "1")]
    pub(crate) definition: Option<Definition>,
    #[prost(string, tag = "2")]
    pub(crate) frontend: String,
    #[prost(btree_map = "string, string", tag = "3")]
    pub(crate) attrs: Map,
    #[prost(btree_map = "string, message", tag = "13")]
    pub(crate) inputs: BTreeMap<String, Definition>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct BridgeSolved {
    #[prost(message, optional, tag = "3")]
    pub(crate) result: Option<BridgeResult>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct BridgeResult {
    #[prost(string, optional, tag = "1")]
    pub(crate) old_reference: Option<String>,
    #[prost(message, optional, tag = "3")]
    pub(crate) reference: Option<Reference>,
    #[prost(message, optional, tag = "4")]
    pub(crate) references: Option<References>,
    #[prost(btree_map = "string, bytes", tag = "10")]
    pub(crate) metadata: BTreeMap<String, Vec<u8>>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Reference {
    #[prost(string, tag = "1")]
    pub(crate) id: String,
    #[prost(message, optional, tag = "2")]
    pub(crate) definition: Option<Definition>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct References {
    #[prost(btree_map = "string, message", tag = "1")]
    pub(crate) references: BTreeMap<String, Reference>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ReturnRequest {
    #[prost(message, optional, tag = "1")]
    pub(crate) result: Option<BridgeResult>,
    #[prost(message, optional, tag = "2")]
    pub(crate) error: Option<RpcStatus>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ReadFileRequest {
    #[prost(string, tag = "1")]
    pub(crate) reference: String,
    #[prost(string, tag = "2")]
    pub(crate) path: String,
    #[prost(message, optional, tag = "3")]
    pub(crate) range: Option<FileRange>,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(crate) struct FileRange {
    #[prost(int64, tag = "1")]
    pub(crate) offset: i64,
    #[prost(int64, tag = "2")]
    pub(crate) length: i64,
}

/// Of folders and of what is asked about one file.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct PathRequest {
    #[prost(string, tag = "1")]
    pub(crate) reference: String,
    #[prost(string, tag = "2")]
    pub(crate) path: String,
}

/// The entries of a folder, or the one file.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Stats {
    #[prost(message, repeated, tag = "1")]
    pub(crate) stats: Vec<Stat>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Inputs {
    #[prost(btree_map = "string, message", tag = "1")]
    pub(crate) definitions: BTreeMap<String, Definition>,
}
