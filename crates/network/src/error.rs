//! What can go wrong in a pod network.

use std::io;
use std::path::PathBuf;

use node_api::RuntimeError;

/// A fault of the pod network.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{action}: {source}")]
    Link {
        action: String,
        source: rtnetlink::Error,
    },
    #[error("{action}: {source}")]
    Io { action: String, source: io::Error },
    #[error("packet filter: {0}")]
    Firewall(#[from] netfilter::Error),
    #[error("no address left in the pod range {0}")]
    Exhausted(base::Ipv4Cidr),
    #[error(
        "pod range {0} is too small: it needs a network, a gateway, a broadcast and a pod address"
    )]
    RangeTooSmall(base::Ipv4Cidr),
    #[error("sandbox id {0:?} cannot name a file")]
    BadSandboxId(String),
    #[error("host port {0} is taken by another pod")]
    HostPortTaken(String),
    #[error("protocol {0:?} of a host port is none of TCP, UDP, SCTP")]
    BadProtocol(String),
    #[error("interface {name} is missing in {netns}")]
    NoInterface { name: String, netns: PathBuf },
    #[error("invalid subinterface vlan name {0}, example formatting is eth0.10")]
    BadParent(String),
    #[error("a network task ended before its time")]
    Interrupted,
}

impl Error {
    pub(crate) fn io(action: impl Into<String>) -> impl FnOnce(io::Error) -> Error {
        let action = action.into();
        move |source| Error::Io { action, source }
    }

    pub(crate) fn link(action: impl Into<String>) -> impl FnOnce(rtnetlink::Error) -> Error {
        let action = action.into();
        move |source| Error::Link { action, source }
    }
}

impl From<Error> for RuntimeError {
    fn from(error: Error) -> RuntimeError {
        let message = error.to_string();
        match error {
            Error::BadSandboxId(_) | Error::BadProtocol(_) => {
                RuntimeError::InvalidArgument(message)
            }
            Error::HostPortTaken(_) | Error::Exhausted(_) => {
                RuntimeError::FailedPrecondition(message)
            }
            _ => RuntimeError::Internal(message),
        }
    }
}
