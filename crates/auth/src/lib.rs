//! Who are you, may you: identities, certificates, tokens, RBAC.

#![allow(
    clippy::result_large_err,
    reason = "a Status is made for refusals only, and boxing it would burden every caller"
)]

pub mod abac;
pub mod access_webhook;
pub mod answers;
pub mod authenticator;
pub mod authorization;
pub mod authorizer;
pub mod bootstrap;
pub mod bootstrap_token;
pub mod certificate;
pub mod ciphers;
pub mod csr;
mod der;
pub mod front_proxy;
pub mod identity;
pub mod jwk;
pub mod jwt;
mod keys;
pub mod kubeconfig;
mod memo;
pub mod node;
pub mod peer;
pub mod pki;
pub mod rbac;
pub mod tls;
pub mod token;
pub mod token_webhook;

pub use answers::Answers;
pub use authenticator::{Anonymous, Authenticator, ForeignTokens};
pub use authorizer::{Authorizer, Mode};
pub use front_proxy::RequestHeaders;
pub use identity::{Attributes, Decision, Identity, forbidden};
pub use kubeconfig::kubeconfig;
pub use peer::{Peer, Trust};
pub use pki::Pki;
pub use token::{TokenLookup, TokenSigner, TokenSpec};
