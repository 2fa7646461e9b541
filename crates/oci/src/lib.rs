//! Images: references, manifests, a content-addressed store with layers
//! unpacked once for overlayfs, archives in and out, and pulls from registries.

mod archive;
mod build;
mod digest;
mod error;
mod ingest;
mod manifest;
mod pull;
mod reference;
mod registry;
mod save;
mod store;
mod unpack;

pub use archive::{load, load_stream};
pub use build::{BinaryImage, image_from_binary};
pub use digest::Digest;
pub use error::ImageError;
pub use ingest::{Ingest, Layer};
pub use manifest::{Descriptor, ImageConfig, RunConfig};
pub use pull::{Progress, Puller, Report};
pub use reference::Reference;
pub use registry::{Credentials, RegistryOptions};
pub use save::save;
pub use store::{ImageRecord, LayerRecord, Store};
