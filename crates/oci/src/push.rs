//! Pushing an image: what the registry lacks goes there in pieces that can be resumed, layers
//! compressed, the manifest last.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_RANGE, CONTENT_TYPE, RANGE};
use http::{Method, Response, StatusCode};
use hyper::body::Incoming;

use crate::build::manifest_bytes;
use crate::digest::Digest;
use crate::error::{Context, ImageError};
use crate::ingest::Ingest;
use crate::manifest::{Descriptor, OCI_CONFIG, OCI_LAYER, OCI_MANIFEST};
use crate::reference::Reference;
use crate::registry::{Client, Credentials, RegistryOptions, location, refusal, whole};
use crate::store::{ImageRecord, LayerRecord, Store};

/// Bytes of one piece.
const PIECE: usize = 8 << 20;
/// How often a broken upload is resumed where it broke.
const RESUMES: usize = 4;

/// What happens during a push; layers are called by their uncompressed digests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PushProgress {
    Preparing(Digest),
    /// The registry has it.
    Present(Digest),
    /// The registry took it from another of its repositories.
    Mounted(Digest, String),
    /// So many bytes of all have gone.
    Sent(Digest, u64, u64),
    Pushed(Digest),
}

/// Called on every progress; must not block.
pub type PushReport = Arc<dyn Fn(PushProgress) + Send + Sync>;

/// Pushes an image under a name; returns the descriptor of its manifest there.
pub async fn push(
    store: &Store,
    options: &RegistryOptions,
    image: &ImageRecord,
    name: &Reference,
    credentials: &Credentials,
    report: PushReport,
) -> Result<Descriptor, ImageError> {
    let others = other_repositories(image, name);
    let mut scopes = vec![format!("repository:{}:pull,push", name.repository)];
    scopes.extend(
        others
            .iter()
            .map(|other| format!("repository:{other}:pull")),
    );
    let client = Client::new(options.own(&name.registry, credentials))?.with_scopes(scopes);
    let pusher = Pusher {
        client,
        name,
        others,
    };
    let spool = Arc::new(store.ingest()?);
    let mut blobs = Vec::new();
    for layer in &image.layers {
        report(PushProgress::Preparing(layer.diff_id.clone()));
    }
    for layer in &image.layers {
        blobs.push(pusher.layer(store, &spool, layer, &report).await?);
    }
    let config_path = store.blob_path(&image.id);
    let config = std::fs::read(&config_path).at(&config_path)?;
    let config_blob = Descriptor::new(OCI_CONFIG, image.id.clone(), config.len() as u64);
    if !pusher.has(&config_blob.digest).await? {
        let file = File::open(&config_path).at(&config_path)?;
        pusher.upload(&config_blob, Arc::new(file), &|_| ()).await?;
    }
    let own: Vec<&Descriptor> = image.layers.iter().map(|layer| &layer.blob).collect();
    // An image that came from a registry as it is goes out with its own manifest.
    let bytes = match own.iter().copied().eq(blobs.iter()) {
        true => {
            let path = store.blob_path(&image.manifest);
            std::fs::read(&path).at(&path)?
        }
        false => manifest_bytes(config_blob, blobs)?,
    };
    let digest = pusher.manifest(&bytes).await?;
    store.change(|images| {
        if let Some(record) = images.get_mut(&image.id) {
            record.repo_digests.insert(name.with_digest(&digest));
        }
        Ok(())
    })?;
    Ok(Descriptor::new(OCI_MANIFEST, digest, bytes.len() as u64))
}

/// Repositories of the same registry that the image came from or went to.
fn other_repositories(image: &ImageRecord, name: &Reference) -> Vec<String> {
    let names = image
        .repo_digests
        .iter()
        .filter_map(|known| known.parse::<Reference>().ok());
    let same = names.filter(|known| known.registry == name.registry);
    let mut others: Vec<String> = same.map(|known| known.repository).collect();
    others.retain(|other| *other != name.repository);
    others.dedup();
    others
}

struct Pusher<'a> {
    client: Client,
    name: &'a Reference,
    others: Vec<String>,
}

impl Pusher<'_> {
    async fn layer(
        &self,
        store: &Store,
        spool: &Arc<Ingest>,
        layer: &LayerRecord,
        report: &PushReport,
    ) -> Result<Descriptor, ImageError> {
        let path = store.blob_path(&layer.blob.digest);
        let (blob, file) = match layer.blob.media_type == OCI_LAYER {
            true => {
                let (spool, path) = (Arc::clone(spool), path.clone());
                tokio::task::spawn_blocking(move || compress(&spool, &path))
                    .await
                    .map_err(io::Error::other)
                    .context("compressing a layer")??
            }
            false => (layer.blob.clone(), File::open(&path).at(&path)?),
        };
        let id = &layer.diff_id;
        if self.has(&blob.digest).await? {
            report(PushProgress::Present(id.clone()));
            return Ok(blob);
        }
        let total = blob.size;
        let sent = |bytes| report(PushProgress::Sent(id.clone(), bytes, total));
        match self.upload(&blob, Arc::new(file), &sent).await? {
            Some(from) => report(PushProgress::Mounted(id.clone(), from)),
            None => report(PushProgress::Pushed(id.clone())),
        }
        Ok(blob)
    }

    async fn has(&self, digest: &Digest) -> Result<bool, ImageError> {
        let url = self.client.url(self.name, &format!("blobs/{digest}"));
        let response = self.send(Method::HEAD, &url, &[], Bytes::new()).await?;
        match response.status() {
            StatusCode::OK => Ok(true),
            StatusCode::NOT_FOUND => Ok(false),
            // Some redirect to where the content is.
            status if status.is_redirection() => Ok(true),
            _ => Err(self.refused(response).await),
        }
    }

    /// Uploads a blob; tells the repository it was taken from instead, if it was.
    async fn upload(
        &self,
        blob: &Descriptor,
        file: Arc<File>,
        sent: &(dyn Fn(u64) + Sync),
    ) -> Result<Option<String>, ImageError> {
        for other in &self.others {
            let path = format!("blobs/uploads/?mount={}&from={other}", blob.digest);
            let url = self.client.url(self.name, &path);
            let response = self.send(Method::POST, &url, &[], Bytes::new()).await?;
            match response.status() {
                StatusCode::CREATED => return Ok(Some(other.clone())),
                // Not there: an upload has begun instead.
                StatusCode::ACCEPTED => {
                    let place = location(&url, &response)?;
                    return self.pieces(place, blob, file, sent).await.map(|()| None);
                }
                _ => {}
            }
        }
        let url = self.client.url(self.name, "blobs/uploads/");
        let response = self.send(Method::POST, &url, &[], Bytes::new()).await?;
        if response.status() != StatusCode::ACCEPTED {
            return Err(self.refused(response).await);
        }
        let place = location(&url, &response)?;
        self.pieces(place, blob, file, sent).await.map(|()| None)
    }

    async fn pieces(
        &self,
        mut place: String,
        blob: &Descriptor,
        file: Arc<File>,
        sent: &(dyn Fn(u64) + Sync),
    ) -> Result<(), ImageError> {
        let mut done = 0;
        let mut resumes = 0;
        while done < blob.size {
            let piece = read_piece(&file, done, blob.size).await?;
            let last = done + piece.len() as u64 - 1;
            let range = format!("{done}-{last}");
            let headers = [
                (CONTENT_TYPE, "application/octet-stream"),
                (CONTENT_RANGE, range.as_str()),
            ];
            match self.send(Method::PATCH, &place, &headers, piece).await {
                Ok(response) if response.status().is_success() => {
                    place = location(&place, &response)?;
                    done = last + 1;
                }
                Ok(response) if response.status() != StatusCode::RANGE_NOT_SATISFIABLE => {
                    return Err(self.refused(response).await);
                }
                // Broken, or the registry has more or less than we know.
                other if resumes == RESUMES => {
                    return Err(match other {
                        Ok(response) => self.refused(response).await,
                        Err(error) => error,
                    });
                }
                _ => {
                    resumes += 1;
                    (place, done) = self.progress(&place).await?;
                }
            }
            sent(done);
        }
        let separator = if place.contains('?') { '&' } else { '?' };
        let url = format!("{place}{separator}digest={}", blob.digest);
        let response = self.send(Method::PUT, &url, &[], Bytes::new()).await?;
        match response.status().is_success() {
            true => Ok(()),
            false => Err(self.refused(response).await),
        }
    }

    /// How far an upload has come, and where it goes on.
    async fn progress(&self, place: &str) -> Result<(String, u64), ImageError> {
        let response = self.send(Method::GET, place, &[], Bytes::new()).await?;
        if !response.status().is_success() {
            return Err(self.refused(response).await);
        }
        let range = response
            .headers()
            .get(RANGE)
            .and_then(|range| range.to_str().ok());
        let last = range.and_then(|range| range.rsplit('-').next()?.parse::<u64>().ok());
        // An empty upload has no range, or one that ends at 0.
        let done = last.filter(|last| *last > 0).map_or(0, |last| last + 1);
        Ok((
            location(place, &response).unwrap_or_else(|_| place.to_owned()),
            done,
        ))
    }

    async fn manifest(&self, bytes: &[u8]) -> Result<Digest, ImageError> {
        let tag = self.name.tag.as_deref().unwrap_or("latest");
        let url = self.client.url(self.name, &format!("manifests/{tag}"));
        let kind: crate::manifest::Manifest = serde_json::from_slice(bytes)
            .map_err(|error| ImageError::Corrupt(format!("manifest: {error}")))?;
        let media_type = match kind.media_type.as_str() {
            "" => OCI_MANIFEST,
            media_type => media_type,
        };
        let headers = [(CONTENT_TYPE, media_type)];
        let body = Bytes::copy_from_slice(bytes);
        let response = self.send(Method::PUT, &url, &headers, body).await?;
        match response.status().is_success() {
            true => Ok(Digest::of(bytes)),
            false => Err(self.refused(response).await),
        }
    }

    async fn send(
        &self,
        method: Method,
        url: &str,
        headers: &[(http::HeaderName, &str)],
        body: Bytes,
    ) -> Result<Response<Incoming>, ImageError> {
        self.client
            .request(self.name, method, url, headers, body)
            .await
    }

    async fn refused(&self, response: Response<Incoming>) -> ImageError {
        let status = response.status();
        let body = whole(response).await.unwrap_or_default();
        refusal(self.name, status, &body)
    }
}

/// The layer as gzip; the same bytes give the same digest.
fn compress(spool: &Ingest, path: &Path) -> Result<(Descriptor, File), ImageError> {
    let mut source = File::open(path).at(path)?;
    let target = spool.spool_file()?;
    let mut writer =
        flate2::write::GzEncoder::new(io::BufWriter::new(&target), flate2::Compression::fast());
    io::copy(&mut source, &mut writer).at(path)?;
    let buffered = writer.finish().at(path)?;
    buffered
        .into_inner()
        .map_err(io::IntoInnerError::into_error)
        .at(path)?;
    let size = target.metadata().at(path)?.len();
    let digest = Digest::of_file(FromStart(&target, 0))?;
    let media_type = format!("{OCI_LAYER}+gzip");
    Ok((Descriptor::new(&media_type, digest, size), target))
}

/// A file read from its beginning, wherever it is written.
struct FromStart<'a>(&'a File, u64);

impl Read for FromStart<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.0.read_at(buffer, self.1)?;
        self.1 += length as u64;
        Ok(length)
    }
}

async fn read_piece(file: &Arc<File>, from: u64, size: u64) -> Result<Bytes, ImageError> {
    let file = Arc::clone(file);
    let length = usize::try_from(size - from)
        .unwrap_or(usize::MAX)
        .min(PIECE);
    let read = move || {
        let mut piece = vec![0; length];
        file.read_exact_at(&mut piece, from)?;
        Ok::<_, io::Error>(Bytes::from(piece))
    };
    let read = tokio::task::spawn_blocking(read).await;
    read.map_err(io::Error::other)
        .and_then(|read| read)
        .context("reading a layer")
}
