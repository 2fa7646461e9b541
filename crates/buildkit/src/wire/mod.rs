//! BuildKit's messages, by their numbers: only those and only the fields that are used.

mod control;
mod gateway;
mod session;

use std::collections::BTreeMap;

pub use control::*;
pub(crate) use gateway::*;
pub use session::*;

pub type Map = BTreeMap<String, String>;

#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct Timestamp {
    #[prost(int64, tag = "1")]
    pub seconds: i64,
    #[prost(int32, tag = "2")]
    pub nanos: i32,
}

impl Timestamp {
    pub(crate) fn of(time: std::time::SystemTime) -> Timestamp {
        let since = time
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap_or_default();
        Timestamp {
            seconds: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
            nanos: i32::try_from(since.subsec_nanos()).unwrap_or(0),
        }
    }

    pub(crate) fn now() -> Timestamp {
        Timestamp::of(std::time::SystemTime::now())
    }
}

/// A message without fields.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct Nothing {}

/// A piece of a stream of bytes.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Piece {
    #[prost(bytes = "bytes", tag = "1")]
    pub data: bytes::Bytes,
}

/// `google.rpc.Status`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct RpcStatus {
    #[prost(int32, tag = "1")]
    pub code: i32,
    #[prost(string, tag = "2")]
    pub message: String,
    #[prost(message, repeated, tag = "3")]
    pub details: Vec<Any>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Any {
    #[prost(string, tag = "1")]
    pub type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    pub value: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Platform {
    #[prost(string, tag = "1")]
    pub(crate) architecture: String,
    #[prost(string, tag = "2")]
    pub(crate) os: String,
}

/// A graph of operations.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Definition {
    #[prost(bytes = "vec", repeated, tag = "1")]
    pub def: Vec<Vec<u8>>,
    /// About each operation, by its digest; clients take no graph without.
    #[prost(btree_map = "string, message", tag = "2")]
    pub metadata: BTreeMap<String, Nothing>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Op {
    #[prost(message, repeated, tag = "1")]
    pub(crate) inputs: Vec<Input>,
    #[prost(message, optional, tag = "3")]
    pub(crate) source: Option<SourceOp>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Input {
    #[prost(string, tag = "1")]
    pub(crate) digest: String,
    #[prost(int64, tag = "2")]
    pub(crate) index: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct SourceOp {
    #[prost(string, tag = "1")]
    pub(crate) identifier: String,
    #[prost(btree_map = "string, string", tag = "2")]
    pub(crate) attrs: Map,
}
