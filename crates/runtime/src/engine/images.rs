//! CRI's `ImageService` on the image store.

use std::sync::Arc;

use async_trait::async_trait;
use node_api::{AuthConfig, FilesystemUsage, Image, ImageService, RuntimeError};
use oci::{ImageError, ImageRecord};

use super::{Engine, blocking, internal};

pub(super) fn explain(error: ImageError) -> RuntimeError {
    match error {
        ImageError::NotFound(_) => RuntimeError::NotFound(error.to_string()),
        ImageError::Reference(..) => RuntimeError::InvalidArgument(error.to_string()),
        ImageError::Conflict(_) => RuntimeError::FailedPrecondition(error.to_string()),
        _ => RuntimeError::Internal(error.to_string()),
    }
}

fn image(record: ImageRecord) -> Image {
    let user = record
        .config
        .config
        .user
        .split(':')
        .next()
        .unwrap_or_default();
    let uid = user.parse::<i64>().ok();
    Image {
        id: record.id.to_string(),
        size: record.size(),
        repo_tags: record.repo_tags.into_iter().collect(),
        repo_digests: record.repo_digests.into_iter().collect(),
        // An empty user is root, which the kubelet must know to check runAsNonRoot.
        uid: if user.is_empty() { Some(0) } else { uid },
        username: if uid.is_none() {
            user.to_owned()
        } else {
            String::new()
        },
        pinned: record.pinned,
    }
}

#[async_trait]
impl ImageService for Engine {
    async fn list_images(&self) -> Result<Vec<Image>, RuntimeError> {
        let store = self.store.clone();
        let images = blocking(move || store.list().map_err(explain)).await?;
        Ok(images.into_iter().map(image).collect())
    }

    async fn image_status(&self, name: &str) -> Result<Option<Image>, RuntimeError> {
        let (store, name) = (self.store.clone(), name.to_owned());
        let found = blocking(move || store.find(&name).map_err(explain)).await?;
        Ok(found.map(image))
    }

    async fn pull_image(
        &self,
        name: &str,
        auth: Option<AuthConfig>,
    ) -> Result<String, RuntimeError> {
        let auth = auth.unwrap_or_default();
        let credentials = oci::Credentials {
            username: auth.username,
            password: auth.password,
            identity_token: auth.identity_token,
            registry_token: auth.registry_token,
        };
        // Pods that start together often want the same image: one pulls, the others find it.
        let turn = self
            .pulls
            .lock()
            .entry(name.to_owned())
            .or_default()
            .clone();
        let _turn = turn.lock().await;
        let puller = oci::Puller::new(&self.store, &self.registries);
        let record = puller
            .pull(name, &credentials, None)
            .await
            .map_err(explain)?;
        self.pulls
            .lock()
            .retain(|_, turn| Arc::strong_count(turn) > 2);
        Ok(record.id.to_string())
    }

    async fn remove_image(&self, name: &str) -> Result<(), RuntimeError> {
        let (store, name) = (self.store.clone(), name.to_owned());
        blocking(move || match store.remove(&name) {
            Ok(_) | Err(ImageError::NotFound(_)) => Ok(()),
            Err(error) => Err(internal(error)),
        })
        .await
    }

    async fn image_details(&self, name: &str) -> Result<String, RuntimeError> {
        let (store, name) = (self.store.clone(), name.to_owned());
        blocking(move || {
            let record = store.get(&name).map_err(explain)?;
            std::fs::read_to_string(store.blob_path(&record.id)).map_err(internal)
        })
        .await
    }

    async fn image_fs_bytes(&self) -> Result<u64, RuntimeError> {
        let store = self.store.clone();
        blocking(move || store.disk_bytes().map_err(explain)).await
    }

    async fn image_fs_info(&self) -> Result<(FilesystemUsage, FilesystemUsage), RuntimeError> {
        let store = self.store.clone();
        let images = blocking(move || {
            let (used_bytes, inodes_used) = store.disk_usage().map_err(explain)?;
            Ok(FilesystemUsage {
                mountpoint: store.layers_folder(),
                used_bytes,
                inodes_used,
            })
        });
        let images = images.await?;
        Ok((images, self.all_written().await?))
    }
}
