//! How a node comes to its certificates: by a bootstrap token at first, by the certificate it has
//! from then on. They lie in files as upstream's kubelet has them, and are replaced in use.

mod bootstrap;
mod request;
mod rotation;
mod store;
mod swap;

use std::path::PathBuf;

pub use bootstrap::{Bootstrap, access_of, is_still_valid};
pub use request::{CLIENT, SERVING, Signing, Template, certificate};
pub use rotation::{Rotation, Used, deadline};
pub use store::PairStore;
pub use swap::Swap;

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{path}")]
    File {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("expected {0:?} to be a symlink but it is a file")]
    NoLink(PathBuf),
    #[error("unable to load bootstrap kubeconfig: {0}")]
    Kubeconfig(#[from] client::kubeconfig::KubeconfigError),
    #[error("couldn't create client: {0}")]
    Client(#[from] client::remote::RemoteError),
    #[error("cannot create certificate signing request: {0}")]
    Api(meta::Status),
    #[error("unable to generate certificate request: {0}")]
    Request(#[from] rcgen::Error),
    #[error("retrieved csr is not compatible: {0}")]
    Foreign(&'static str),
    #[error("certificate signing request is denied, reason: {reason}, message: {message}")]
    Denied { reason: String, message: String },
    #[error("certificate signing request failed, reason: {reason}, message: {message}")]
    Failed { reason: String, message: String },
    #[error("csr {0:?} changed UID")]
    Replaced(String),
    #[error("timed out waiting for the condition")]
    TimedOut,
    #[error("certificate or key cannot be used: {0}")]
    Pair(String),
}
