//! Who is who and who may what, through the crate's public face.

#![allow(
    clippy::unwrap_used,
    clippy::result_large_err,
    reason = "helpers of tests may panic as tests do"
)]

mod escalation;
mod oidc;
mod rbac;
mod requests;
mod server;
mod tls;
mod tokens;
mod webhooks;
