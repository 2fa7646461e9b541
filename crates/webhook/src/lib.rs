//! The client of every webhook that the API server calls: admission, conversion, TokenReview,
//! SubjectAccessReview, audit. It posts a JSON body and hands back a JSON body; what the two
//! mean is the caller's business.
//!
//! - [`Webhooks`] makes clients from a `clientConfig` (`url` or `service`, `caBundle`); equal
//!   configurations share their connections.
//! - [`Webhook::from_kubeconfig`] makes the client of a webhook that a file configures.
//! - [`Webhook::call`] posts, within a time, and words failures as upstream does.

mod connect;
mod error;
mod target;
mod tls;
mod webhook;
mod webhooks;

pub use error::{CallError, ConfigError};
pub use target::ClientConfig;
pub use tls::config as trusting;
pub use webhook::{CALL_TIMEOUT, RESPONSE_BYTES_MAX, Webhook, decode};
pub use webhooks::{Resolve, Webhooks};
