//! Asking registries without pulling: whether credentials are right, what a name stands for; and
//! plain downloads.

use std::path::Path;

use bytes::Bytes;
use http::header::LAST_MODIFIED;
use http::{Method, StatusCode};
use http_body_util::BodyExt;

use crate::digest::Digest;
use crate::error::{Context, ImageError};
use crate::manifest::{Descriptor, Manifest, Platform};
use crate::reference::Reference;
use crate::registry::{Client, Credentials, Endpoint, RegistryOptions};

/// A download larger than this is refused.
const DOWNLOAD_LIMIT: u64 = 64 << 30;

/// What a name stands for in its registry.
#[derive(Clone, Debug)]
pub struct Look {
    pub descriptor: Descriptor,
    pub platforms: Vec<Platform>,
}

/// Whether a registry accepts credentials; `server` is a host, or a URL of it.
pub async fn login(
    options: &RegistryOptions,
    server: &str,
    credentials: &Credentials,
) -> Result<(), ImageError> {
    let host = server
        .trim_start_matches("https://")
        .trim_start_matches("http://");
    let host = match host.split('/').next().unwrap_or_default() {
        "index.docker.io" | "docker.io" => "docker.io",
        host => host,
    };
    // A name as good as any: only the registry counts.
    let name: Reference = format!("{host}/login").parse()?;
    let client = Client::new(options.own(&name.registry, credentials))?.with_scopes(Vec::new());
    let url = client.top().to_owned();
    let denied = |why: String| ImageError::Denied(url.clone(), why);
    let response = client
        .request(&name, Method::GET, &url, &[], Bytes::new())
        .await;
    let response = response.map_err(|error| match error {
        ImageError::Denied(_, why) => denied(why),
        other => other,
    })?;
    match response.status() {
        status if status.is_success() => Ok(()),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(denied(String::new())),
        status => Err(ImageError::Registry(format!(
            "{url}: the registry answers {status}"
        ))),
    }
}

/// Asks a registry for a manifest, and for which machines it is.
pub async fn look(
    options: &RegistryOptions,
    name: &Reference,
    credentials: &Credentials,
) -> Result<Look, ImageError> {
    let mut last = None;
    for endpoint in options.endpoints(name, credentials) {
        match look_at(endpoint, name).await {
            Ok(look) => return Ok(look),
            Err(error) => last = Some(error),
        }
    }
    Err(last.unwrap_or_else(|| ImageError::NotFound(name.to_string())))
}

async fn look_at(endpoint: Endpoint, name: &Reference) -> Result<Look, ImageError> {
    let client = Client::new(endpoint)?;
    let (media_type, bytes) = client.manifest(name, name.manifest_name()).await?;
    let manifest: Manifest = serde_json::from_slice(&bytes)
        .map_err(|error| ImageError::Corrupt(format!("manifest: {error}")))?;
    let platforms = match &manifest.config {
        None => manifest
            .manifests
            .into_iter()
            .filter_map(|entry| entry.platform)
            .collect(),
        Some(config) => {
            let response = client.blob(name, config.digest.as_str(), 0).await?;
            let bytes = crate::registry::whole(response).await?;
            let platform: Platform = serde_json::from_slice(&bytes)
                .map_err(|error| ImageError::Corrupt(format!("configuration: {error}")))?;
            vec![platform]
        }
    };
    Ok(Look {
        descriptor: Descriptor::new(&media_type, Digest::of(&bytes), bytes.len() as u64),
        platforms,
    })
}

fn host_of(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.split('/').next().unwrap_or_default()
}

/// Downloads a file; tells when it changed, as its server says.
pub async fn download(
    options: &RegistryOptions,
    url: &str,
    target: &Path,
) -> Result<Option<String>, ImageError> {
    use tokio::io::AsyncWriteExt;
    let client = Client::new(options.own(host_of(url), &Credentials::default()))?;
    let mut response = client.follow(url, "*/*", 0).await?;
    if !response.status().is_success() {
        let status = response.status();
        return Err(ImageError::Registry(format!(
            "{url}: the server answers {status}"
        )));
    }
    let modified = response.headers().get(LAST_MODIFIED);
    let modified = modified
        .and_then(|value| value.to_str().ok())
        .map(str::to_owned);
    let mut file = tokio::fs::File::create_new(target).await.at(target)?;
    let mut bytes = 0;
    while let Some(frame) = response.frame().await {
        let frame = frame.map_err(|error| ImageError::Registry(format!("{url}: {error}")))?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        bytes += data.len() as u64;
        if bytes > DOWNLOAD_LIMIT {
            return Err(ImageError::Hostile(format!(
                "{url}: more than {DOWNLOAD_LIMIT} bytes"
            )));
        }
        file.write_all(&data).await.at(target)?;
    }
    file.flush().await.at(target)?;
    Ok(modified)
}
