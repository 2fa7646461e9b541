//! The whole configuration document of an image, for those who make images.

use std::collections::BTreeMap;
use std::io;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::build::manifest_bytes;
use crate::error::{Context, ImageError};
use crate::ingest::{Ingest, Layer};
use crate::manifest::{OCI_CONFIG, OCI_MANIFEST, Platform, RootFs, or_null};
use crate::reference::Reference;
use crate::store::{ImageRecord, LayerRecord};

/// What an image says of itself. Members nobody here knows are kept.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ImageDocument {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub author: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub comment: String,
    #[serde(default)]
    pub architecture: String,
    #[serde(default)]
    pub os: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub variant: String,
    #[serde(default, deserialize_with = "or_null")]
    pub config: Settings,
    pub rootfs: RootFs,
    #[serde(default, deserialize_with = "or_null")]
    pub history: Vec<History>,
}

/// How containers of the image run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Settings {
    #[serde(deserialize_with = "or_null", skip_serializing_if = "String::is_empty")]
    pub user: String,
    #[serde(
        deserialize_with = "or_null",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub exposed_ports: BTreeMap<String, Value>,
    #[serde(deserialize_with = "or_null", skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cmd: Option<Vec<String>>,
    #[serde(
        deserialize_with = "or_null",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub volumes: BTreeMap<String, Value>,
    #[serde(deserialize_with = "or_null", skip_serializing_if = "String::is_empty")]
    pub working_dir: String,
    #[serde(
        deserialize_with = "or_null",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub labels: BTreeMap<String, String>,
    #[serde(deserialize_with = "or_null", skip_serializing_if = "String::is_empty")]
    pub stop_signal: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<HealthSettings>,
    #[serde(deserialize_with = "or_null", skip_serializing_if = "Vec::is_empty")]
    pub on_build: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shell: Option<Vec<String>>,
}

/// How to tell whether a container is well. Times are nanoseconds, 0 is the default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct HealthSettings {
    pub test: Vec<String>,
    #[serde(skip_serializing_if = "is_zero")]
    pub interval: i64,
    #[serde(skip_serializing_if = "is_zero")]
    pub timeout: i64,
    #[serde(skip_serializing_if = "is_zero")]
    pub start_period: i64,
    #[serde(skip_serializing_if = "is_zero")]
    pub start_interval: i64,
    #[serde(skip_serializing_if = "is_zero")]
    pub retries: i64,
}

fn is_zero(number: &i64) -> bool {
    *number == 0
}

/// One step of how it came about.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct History {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub created_by: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub author: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub comment: String,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub empty_layer: bool,
}

impl ImageDocument {
    /// Of an image for this machine without layers.
    pub fn scratch() -> ImageDocument {
        ImageDocument {
            architecture: Platform::own_architecture().to_owned(),
            os: "linux".to_owned(),
            rootfs: RootFs {
                kind: "layers".to_owned(),
                diff_ids: Vec::new(),
            },
            ..ImageDocument::default()
        }
    }

    /// As it is stored; the same document gives the same bytes.
    pub fn bytes(&self) -> Result<Vec<u8>, ImageError> {
        serde_json::to_vec(self)
            .map_err(io::Error::other)
            .context("configuration")
    }
}

impl crate::Store {
    /// The whole document of an image.
    pub fn document(&self, image: &ImageRecord) -> Result<ImageDocument, ImageError> {
        let path = self.blob_path(&image.id);
        let bytes = std::fs::read(&path).at(&path)?;
        let mut document: ImageDocument = serde_json::from_slice(&bytes)
            .map_err(|error| ImageError::Corrupt(format!("configuration: {error}")))?;
        // Whoever made it need not have told how; what is told from now on is of later layers.
        let told = document.history.iter().filter(|step| !step.empty_layer);
        let untold = image.layers.len().saturating_sub(told.count());
        let step = History {
            created: document.created.clone(),
            ..History::default()
        };
        let steps = std::iter::repeat_n(step, untold);
        document.history.splice(0..0, steps);
        Ok(document)
    }
}

impl Ingest {
    /// Makes an image of a document and its layers, whose own digests go into the document. It is on
    /// the disk afterwards, for nobody else may have it.
    pub fn image(
        self,
        mut document: ImageDocument,
        layers: Vec<LayerRecord>,
        names: &[Reference],
    ) -> Result<ImageRecord, ImageError> {
        document.rootfs.diff_ids = layers.iter().map(|layer| layer.diff_id.clone()).collect();
        let config = document.bytes()?;
        let config_blob = self.document(&config, OCI_CONFIG, None)?;
        let blobs = layers.iter().map(|layer| layer.blob.clone()).collect();
        let manifest = manifest_bytes(config_blob, blobs)?;
        let digest = self.document(&manifest, OCI_MANIFEST, None)?.digest;
        let layers = layers.into_iter().map(Layer).collect();
        let store = self.store().clone();
        let record = self.commit_local(&config, &digest, layers, names)?;
        store.settle()?;
        Ok(record)
    }
}
