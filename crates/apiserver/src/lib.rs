//! The Kubernetes API over a store: one generic path for all kinds.
//!
//! A request passes panic guard, request info, authentication, impersonation, limits and
//! authorization (`chain`), then a verb (`verbs`), which lets admission judge writes and keeps
//! objects in the store (`keep`). Reads and watches are served from caches (`cache`).

mod aggregate;
mod allocate;
mod body;
mod cache;
mod chain;
mod claim_rights;
mod compact;
mod components;
mod config;
mod custom;
mod device_rights;
mod discovery;
mod dispatch;
mod flowcontrol;
mod forget;
mod health;
mod keep;
mod listen;
mod lookup;
mod measure;
mod metrics;
mod openapi;
mod pages;
mod policy_rights;
mod policy_status;
mod pretty;
mod process;
mod profile;
mod protobuf;
mod registry;
mod reload;
mod respond;
mod review_selectors;
mod reviews;
mod runtime_config;
mod selectors;
mod server;
mod socket;
mod start;
mod stream;
mod subresource;
mod table;
mod verbs;
mod webhooks;
mod zpages;

pub use aggregate::Delegate;
pub use config::{Authentication, Config};
pub use listen::{Patience, listen, listen_with};
pub use reload::Reloaded;
pub use runtime_config::{RuntimeConfig, RuntimeConfigError};
pub use server::ApiServer;
pub use start::{BuildError, build};
