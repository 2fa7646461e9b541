//! CRI's `ImageService`, asked.

use std::time::Duration;

use async_trait::async_trait;
use node_api::{AuthConfig, FilesystemUsage, Image, ImageService, RuntimeError};

use super::{Remote, answers};
use crate::wire;

/// The longest pull.
const PULL_TIMEOUT: Duration = Duration::from_secs(3600);

macro_rules! method {
    ($name:literal) => {
        concat!("/runtime.v1.ImageService/", $name)
    };
}

fn named(image: &str) -> Option<wire::ImageSpec> {
    Some(wire::ImageSpec {
        image: image.to_owned(),
        ..wire::ImageSpec::default()
    })
}

impl Remote {
    async fn image(
        &self,
        image: &str,
        verbose: bool,
    ) -> Result<wire::ImageStatusResponse, RuntimeError> {
        let request = wire::ImageStatusRequest {
            image: named(image),
            verbose,
        };
        self.images.call(method!("ImageStatus"), request).await
    }

    async fn file_systems(&self) -> Result<wire::ImageFsInfoResponse, RuntimeError> {
        self.images.call(method!("ImageFsInfo"), ()).await
    }
}

#[async_trait]
impl ImageService for Remote {
    async fn list_images(&self) -> Result<Vec<Image>, RuntimeError> {
        let request = wire::ListImagesRequest::default();
        let told: wire::ListImagesResponse =
            self.images.call(method!("ListImages"), request).await?;
        Ok(told.images.into_iter().map(answers::image).collect())
    }

    async fn image_status(&self, image: &str) -> Result<Option<Image>, RuntimeError> {
        Ok(self.image(image, false).await?.image.map(answers::image))
    }

    async fn pull_image(
        &self,
        image: &str,
        auth: Option<AuthConfig>,
    ) -> Result<String, RuntimeError> {
        let request = wire::PullImageRequest {
            image: named(image),
            auth: auth.map(|auth| wire::AuthConfig {
                username: auth.username,
                password: auth.password,
                identity_token: auth.identity_token,
                registry_token: auth.registry_token,
                ..wire::AuthConfig::default()
            }),
            sandbox_config: None,
        };
        let path = method!("PullImage");
        let pulled = self.images.call_within(path, request, PULL_TIMEOUT);
        pulled.await.map(|answer: wire::Identifier| answer.id)
    }

    async fn remove_image(&self, image: &str) -> Result<(), RuntimeError> {
        let request = wire::RemoveImageRequest {
            image: named(image),
        };
        self.images.call(method!("RemoveImage"), request).await
    }

    async fn image_details(&self, image: &str) -> Result<String, RuntimeError> {
        let mut told = self.image(image, true).await?;
        let info = told.info.remove("info").unwrap_or_default();
        let info: serde_json::Value = serde_json::from_str(&info).unwrap_or_default();
        Ok(info["imageSpec"].to_string())
    }

    async fn image_fs_bytes(&self) -> Result<u64, RuntimeError> {
        let told = self.file_systems().await?.image_filesystems.into_iter();
        Ok(told.map(|one| answers::file_system(one).used_bytes).sum())
    }

    async fn image_fs_info(&self) -> Result<(FilesystemUsage, FilesystemUsage), RuntimeError> {
        let told = self.file_systems().await?;
        let first = |all: Vec<wire::FilesystemUsage>| all.into_iter().next();
        let images = first(told.image_filesystems).map(answers::file_system);
        let images = images.unwrap_or_default();
        // Older runtimes keep containers where images are, and say so by saying nothing.
        let containers = first(told.container_filesystems).map(answers::file_system);
        Ok((images.clone(), containers.unwrap_or(images)))
    }
}
