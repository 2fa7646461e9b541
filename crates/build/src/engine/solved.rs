//! The result of a build, before it is an image.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use oci::{ImageDocument, ImageRecord, LayerRecord, Reference};

use super::state::State;
use super::{BuildError, Builder, blocking};

/// What stages made. Its layers stay as long as this does.
pub struct Solved {
    state: Arc<State>,
    /// Build arguments that nothing asked for.
    pub unused: Vec<String>,
    running: Running,
}

impl Solved {
    pub(super) fn new(state: Arc<State>, unused: Vec<String>, running: Running) -> Solved {
        Solved {
            state,
            unused,
            running,
        }
    }

    pub fn document(&self) -> &ImageDocument {
        &self.state.document
    }

    pub fn layers(&self) -> &[LayerRecord] {
        &self.state.layers
    }

    /// Folders of the layers, the lowest first.
    pub fn folders(&self) -> Vec<PathBuf> {
        let store = &self.running.builder.store;
        let layers = self.state.layers.iter();
        layers
            .map(|layer| store.layer_folder(&layer.diff_id))
            .collect()
    }

    /// Makes an image of it.
    pub async fn image(&self, names: Vec<Reference>) -> Result<ImageRecord, BuildError> {
        let store = self.running.builder.store.clone();
        let (document, layers) = (self.state.document.clone(), self.state.layers.clone());
        blocking(move || Ok(store.ingest()?.image(document, layers, &names)?)).await
    }
}

impl std::fmt::Debug for Solved {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_tuple("Solved")
            .field(&self.state.id)
            .finish()
    }
}

/// A build that runs or whose result is in use, for those who clean up.
pub(super) struct Running {
    builder: Arc<Builder>,
    number: u64,
}

impl Running {
    pub(super) fn begin(builder: &Arc<Builder>) -> Running {
        let mut running = builder.running.lock();
        let number = running.keys().next_back().map_or(0, |last| last + 1);
        running.insert(number, SystemTime::now());
        Running {
            builder: Arc::clone(builder),
            number,
        }
    }

    /// The name under which the build keeps layers of base images.
    pub(super) fn lease(&self) -> String {
        format!("front-build-{}-{}", std::process::id(), self.number)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.builder.running.lock().remove(&self.number);
        for lease in self.builder.store.leases().unwrap_or_default() {
            if lease.starts_with(&format!("{}.", self.lease()))
                && let Err(error) = self.builder.store.release(&lease)
            {
                tracing::warn!(%error, lease, "layers of a build are not released");
            }
        }
    }
}
