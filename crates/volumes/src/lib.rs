//! The volumes of pods on this node: what a pod names under `spec.volumes`
//! becomes folders under the kubelet's root, kept up to date while it runs.

mod atomic;
mod config_map;
mod downward_api;
mod empty_dir;
pub mod fields;
mod host_path;
mod mounts;
mod ownership;
mod payload;
mod projected;
mod references;
mod secret;
mod sources;
mod subpath;
mod tokens;
mod volumes;

pub use fields::{FieldError, PodFacts};
pub use references::{Reference, references_of};
pub use sources::{Changed, SourceError, Sources};
pub use subpath::Subpaths;
pub use volumes::{Mounted, MountedVolume, Volumes};

/// Why a volume could not be made ready. The texts are what users see in events.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    /// One volume failed: `MountVolume.SetUp failed for volume "x" : why`.
    #[error("MountVolume.SetUp failed for volume \"{volume}\" : {source}")]
    SetUp {
        volume: String,
        source: Box<VolumeError>,
    },
    /// What the volume refers to does not exist or breaks a rule.
    #[error("{0}")]
    Refused(String),
    /// The API could not be asked.
    #[error("{0}")]
    Source(#[from] SourceError),
    /// The file system refused.
    #[error("{attempted} {path}: {source}")]
    Io {
        attempted: &'static str,
        path: String,
        source: std::io::Error,
    },
}

impl VolumeError {
    pub(crate) fn io(
        attempted: &'static str,
        path: &std::path::Path,
    ) -> impl FnOnce(std::io::Error) -> VolumeError {
        let path = path.display().to_string();
        move |source| VolumeError::Io {
            attempted,
            path,
            source,
        }
    }
}
