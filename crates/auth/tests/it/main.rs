//! Who is who and who may what, through the crate's public face.

mod escalation;
mod rbac;
mod tls;
mod tokens;
