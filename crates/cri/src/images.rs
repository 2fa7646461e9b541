//! Images: pulled, listed, removed.

use node_api::{AuthConfig, FilesystemUsage, Image};
use tonic::Status;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::{Service, missing, refused, stats, wire};

impl Service {
    pub(crate) async fn list_images(
        &self,
        request: wire::ListImagesRequest,
    ) -> Result<wire::ListImagesResponse, Status> {
        let filter = request.filter.and_then(|filter| filter.image);
        let name = filter.map(|spec| spec.image).unwrap_or_default();
        let images = match name.is_empty() {
            true => self.images.list_images().await.map_err(refused)?,
            false => {
                let found = self.images.image_status(&name).await.map_err(refused)?;
                found.into_iter().collect()
            }
        };
        Ok(wire::ListImagesResponse {
            images: images.into_iter().map(image).collect(),
        })
    }

    pub(crate) async fn image_status(
        &self,
        request: wire::ImageStatusRequest,
    ) -> Result<wire::ImageStatusResponse, Status> {
        let name = named(request.image)?;
        // A name that cannot be one is a name of nothing.
        let found = match self.images.image_status(&name).await {
            Err(node_api::RuntimeError::InvalidArgument(_)) => None,
            found => found.map_err(refused)?,
        };
        let mut info = wire::Map::new();
        if let (Some(found), true) = (&found, request.verbose) {
            let text = self
                .images
                .image_details(&found.id)
                .await
                .map_err(refused)?;
            info.insert("info".to_owned(), format!("{{\"imageSpec\":{text}}}"));
        }
        Ok(wire::ImageStatusResponse {
            image: found.map(image),
            info,
        })
    }

    pub(crate) async fn pull_image(
        &self,
        request: wire::PullImageRequest,
    ) -> Result<wire::Identifier, Status> {
        let name = named(request.image)?;
        let auth = request.auth.map(credentials).transpose()?;
        let id = self.images.pull_image(&name, auth).await.map_err(refused)?;
        Ok(wire::Identifier { id })
    }

    /// Removes the image with all its names, whichever was given.
    pub(crate) async fn remove_image(
        &self,
        request: wire::RemoveImageRequest,
    ) -> Result<(), Status> {
        let name = named(request.image)?;
        match self.images.image_status(&name).await.map_err(refused)? {
            Some(found) => self.images.remove_image(&found.id).await.map_err(refused),
            None => Ok(()),
        }
    }

    pub(crate) async fn image_fs_info(&self) -> Result<wire::ImageFsInfoResponse, Status> {
        let (images, containers) = self.images.image_fs_info().await.map_err(refused)?;
        let now = stats::now();
        let usage = |usage: FilesystemUsage| vec![stats::filesystem(usage, now)];
        Ok(wire::ImageFsInfoResponse {
            image_filesystems: usage(images),
            container_filesystems: usage(containers),
        })
    }
}

fn named(image: Option<wire::ImageSpec>) -> Result<String, Status> {
    let name = image.map(|spec| spec.image).unwrap_or_default();
    match name.is_empty() {
        true => Err(missing("image")),
        false => Ok(name),
    }
}

fn image(image: Image) -> wire::Image {
    wire::Image {
        id: image.id,
        repo_tags: image.repo_tags,
        repo_digests: image.repo_digests,
        size: image.size,
        uid: image.uid.map(|value| wire::Int64Value { value }),
        username: image.username,
        spec: None,
        pinned: image.pinned,
    }
}

/// `auth` is user and password in one, as docker's configuration has them.
fn credentials(auth: wire::AuthConfig) -> Result<AuthConfig, Status> {
    let (mut username, mut password) = (auth.username, auth.password);
    if username.is_empty() && !auth.auth.is_empty() {
        let decoded = STANDARD.decode(auth.auth.trim()).ok();
        let text = decoded.and_then(|bytes| String::from_utf8(bytes).ok());
        let pair = text.as_deref().and_then(|text| text.split_once(':'));
        let (user, secret) =
            pair.ok_or_else(|| Status::invalid_argument("auth is not base64 of user:password"))?;
        (username, password) = (user.to_owned(), secret.trim_end_matches('\0').to_owned());
    }
    Ok(AuthConfig {
        username,
        password,
        identity_token: auth.identity_token,
        registry_token: auth.registry_token,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_and_password_may_come_as_one() {
        let auth = |auth: &str| {
            credentials(wire::AuthConfig {
                auth: auth.to_owned(),
                ..wire::AuthConfig::default()
            })
        };
        let both = auth("dXNlcjpzZWNyZXQ=").unwrap();
        assert_eq!(
            (both.username.as_str(), both.password.as_str()),
            ("user", "secret")
        );
        assert!(auth("%%").is_err() && auth("dXNlcg==").is_err());
    }
}
