//! An image in the making.

use oci::{Digest, History, ImageConfig, ImageDocument, ImageRecord, LayerRecord, RootFs};

use super::BuildError;

/// What a stage has so far.
#[derive(Clone, Debug)]
pub(super) struct State {
    pub(super) document: ImageDocument,
    pub(super) layers: Vec<LayerRecord>,
    /// Digest of the document as it stands.
    pub(super) id: Digest,
}

impl State {
    pub(super) fn of(
        document: ImageDocument,
        layers: Vec<LayerRecord>,
    ) -> Result<State, BuildError> {
        let id = Digest::of(&document.bytes()?);
        Ok(State {
            document,
            layers,
            id,
        })
    }

    /// Notes a step that is done.
    pub(super) fn add(
        &mut self,
        created: String,
        created_by: String,
        layer: Option<LayerRecord>,
    ) -> Result<(), BuildError> {
        self.document.created = Some(created.clone());
        self.document.history.push(History {
            created: Some(created),
            created_by,
            author: self.document.author.clone(),
            comment: String::new(),
            empty_layer: layer.is_none(),
        });
        if let Some(layer) = layer {
            self.document.rootfs.diff_ids.push(layer.diff_id.clone());
            self.layers.push(layer);
        }
        self.id = Digest::of(&self.document.bytes()?);
        Ok(())
    }

    pub(super) fn short_id(&self) -> &str {
        self.id.hex().get(..12).unwrap_or_default()
    }

    /// As an image that only its user knows.
    pub(super) fn record(&self) -> ImageRecord {
        ImageRecord {
            id: self.id.clone(),
            manifest: self.id.clone(),
            repo_tags: Default::default(),
            repo_digests: Default::default(),
            layers: self.layers.clone(),
            config: ImageConfig {
                architecture: self.document.architecture.clone(),
                os: self.document.os.clone(),
                rootfs: RootFs {
                    kind: "layers".to_owned(),
                    diff_ids: self.document.rootfs.diff_ids.clone(),
                },
                ..ImageConfig::default()
            },
            pinned: false,
        }
    }
}
