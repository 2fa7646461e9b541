//! Images: references, manifests, a content-addressed store with layers
//! unpacked once for overlayfs, archives in and out, and pulls from registries.

mod access;
mod archive;
mod build;
mod diff;
mod digest;
mod document;
mod error;
mod ingest;
mod kept;
mod manifest;
mod pipe;
mod pull;
mod push;
mod reference;
mod registry;
mod save;
mod settle;
mod store;
mod unpack;
mod view;

pub use access::{Look, download, login, look};
pub use archive::{load, load_stream};
pub use build::{BinaryImage, image_from_binary};
pub use diff::Changes;
pub use digest::Digest;
pub use document::{HealthSettings, History, ImageDocument, Settings};
pub use error::ImageError;
pub use ingest::{Ingest, Layer, is_archive, unpack_archive};
pub use kept::{Kept, Listed};
pub use manifest::{Descriptor, ImageConfig, Platform, RootFs, RunConfig};
pub use pull::{Progress, Puller, Report};
pub use push::{PushProgress, PushReport, push};
pub use reference::Reference;
pub use registry::{Auth, Credentials, Mirror, RegistryOptions, Server, Tls};
pub use save::save;
pub use store::{ImageRecord, LayerRecord, Store};
pub use view::{Owner, View, forget_mount};
