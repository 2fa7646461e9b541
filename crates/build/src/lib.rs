//! Images from Dockerfiles: the language, contexts, and a builder that carries Dockerfiles out. What
//! needs a machine (containers, registries, downloads) it asks of its [`Host`].

mod context;
pub mod dockerfile;
mod engine;
mod expand;
mod ignore;
mod settings;

pub use context::{read_dockerfile, receive, receive_file};
pub use engine::{
    Bind, BuildError, Builder, Built, Command, Fetched, Follower, Host, Meaning, Messages, News,
    Pruned, Ran, Request, Said, Say, Solved, StepId, Wishes, context_key, secret_id,
};
pub use expand::{ExpandError, Expander};
pub use ignore::{Ignore, IgnoreError};
pub use settings::apply_changes;
