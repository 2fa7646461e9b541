//! What a builder needs of the machine it runs on.

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use oci::{Changes, ImageRecord};

use super::say::Say;

/// What whoever asks for a build tells the host, past the builder.
pub type Wishes = Option<Arc<dyn std::any::Any + Send + Sync>>;

/// Base images, containers and downloads.
#[async_trait]
pub trait Host: Send + Sync + 'static {
    /// The image of this name; from its registry if it is not here, or if `pull` asks for it.
    async fn image(
        &self,
        name: &str,
        pull: bool,
        wishes: &Wishes,
        say: &Say,
    ) -> Result<ImageRecord, String>;

    /// Runs a command to its end; what it says goes to `say`. Dropping the future ends it.
    async fn run(&self, command: Command, say: &Say) -> Result<Ran, String>;

    /// Removes what is left of a container.
    async fn discard(&self, ran: Ran);

    /// Downloads a file.
    async fn fetch(&self, url: &str, target: &std::path::Path) -> Result<Fetched, String>;
}

/// A container for one command.
#[derive(Clone, Debug)]
pub struct Command {
    /// Its layers; not necessarily an image of the store.
    pub image: ImageRecord,
    pub args: Vec<String>,
    pub env: Vec<String>,
    pub working_dir: String,
    pub user: String,
    /// `none`, `host`, a network's name; empty is the host's default.
    pub network: String,
    pub binds: Vec<Bind>,
    /// Targets and mount options.
    pub tmpfs: Vec<(String, String)>,
    pub wishes: Wishes,
}

/// Something of the machine in a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bind {
    pub source: PathBuf,
    pub target: String,
    pub readonly: bool,
}

/// How a command ended.
pub struct Ran {
    pub code: i32,
    pub changes: Changes,
    /// Ends and removes the container when dropped.
    pub hold: Box<dyn std::any::Any + Send + Sync>,
}

/// What came with a download.
#[derive(Clone, Debug, Default)]
pub struct Fetched {
    /// Seconds since the epoch, where the server says when the file changed.
    pub modified: Option<i64>,
}
