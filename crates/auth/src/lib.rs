//! Who are you, may you: identities, certificates, tokens, RBAC.

#![allow(
    clippy::result_large_err,
    reason = "a Status is made for refusals only, and boxing it would burden every caller"
)]

pub mod authenticator;
pub mod authorizer;
pub mod bootstrap;
pub mod certificate;
pub mod identity;
pub mod kubeconfig;
pub mod node;
pub mod pki;
pub mod rbac;
pub mod tls;
pub mod token;

pub use authenticator::Authenticator;
pub use authorizer::Authorizer;
pub use identity::{Attributes, Decision, Identity, forbidden};
pub use kubeconfig::kubeconfig;
pub use pki::Pki;
pub use token::{TokenLookup, TokenSigner, TokenSpec};
