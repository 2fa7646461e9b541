//! Images: references, manifests, a content-addressed store with layers
//! unpacked once for overlayfs, archives in and out, and pulls from registries.

mod build;
mod digest;
mod error;
mod ingest;
mod manifest;
mod reference;
mod registry;
mod store;
mod unpack;

pub use build::{BinaryImage, image_from_binary};
pub use digest::Digest;
pub use error::ImageError;
pub use ingest::{Ingest, Layer};
pub use manifest::{Descriptor, ImageConfig, RunConfig};
pub use reference::Reference;
pub use registry::{Credentials, RegistryOptions};
pub use store::{ImageRecord, LayerRecord, Store};
