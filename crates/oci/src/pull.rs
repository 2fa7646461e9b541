//! Pulling an image: manifest, configuration, and its layers in parallel, each
//! hashed and unpacked while it arrives.

use std::io::{self, Read};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use http_body_util::BodyExt;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

use crate::digest::Digest;
use crate::error::{Context, ImageError};
use crate::ingest::{Ingest, Layer};
use crate::manifest::{Descriptor, ImageConfig, LAYER_LIMIT, Manifest, Platform};
use crate::reference::Reference;
use crate::registry::{Client, Credentials, Endpoint, RegistryOptions};
use crate::store::{ImageRecord, Store};

/// Layers fetched at a time.
const PARALLEL: usize = 3;
/// Pieces of a layer on their way from the network to the disk.
const PIECES: usize = 16;
/// How often a broken connection is resumed where it broke.
const RESUMES: usize = 4;
const PIECE_TIMEOUT: Duration = Duration::from_secs(60);
/// How deep indexes may be nested.
const INDEX_DEPTH: usize = 3;

/// What happens during a pull.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The manifest is known: its layers with their sizes.
    Resolved(Vec<(Digest, u64)>),
    /// The layer was in the store already.
    Present(Digest),
    /// So many more bytes of a layer have come.
    Arrived(Digest, u64),
    /// The layer is complete, checked and unpacked.
    Unpacked(Digest),
}

/// Called on every progress; must not block.
pub type Report = Arc<dyn Fn(Progress) + Send + Sync>;

/// Pulls into one store.
pub struct Puller {
    store: Store,
    options: RegistryOptions,
}

impl Puller {
    /// A puller for `store`.
    pub fn new(store: &Store, options: &RegistryOptions) -> Puller {
        Puller {
            store: store.clone(),
            options: options.clone(),
        }
    }

    /// Pulls the image for this machine; what is in the store already is not fetched again.
    pub async fn pull(
        &self,
        name: &str,
        credentials: &Credentials,
        report: Option<Report>,
    ) -> Result<ImageRecord, ImageError> {
        let name: Reference = name.parse()?;
        let report = report.unwrap_or_else(|| Arc::new(|_| ()));
        let mut endpoints = self.options.endpoints(&name, credentials).into_iter();
        let mut next = endpoints.next();
        loop {
            let Some(endpoint) = next else {
                return Err(ImageError::NotFound(name.to_string()));
            };
            next = endpoints.next();
            let (said, report) = (endpoint.to_string(), Arc::clone(&report));
            match self.pull_from(endpoint, &name, report).await {
                Err(error) if next.is_some() && error.is_of_registry() => {
                    tracing::warn!(%error, mirror = said, "image not pulled there, asking the next");
                }
                ended => return ended,
            }
        }
    }

    async fn pull_from(
        &self,
        endpoint: Endpoint,
        name: &Reference,
        report: Report,
    ) -> Result<ImageRecord, ImageError> {
        let client = Arc::new(Client::new(endpoint)?);
        let (top, manifest_digest, bytes) = resolve(&client, name).await?;
        let manifest: Manifest = from_json(&bytes, "manifest")?;
        let config = manifest
            .config
            .ok_or_else(|| ImageError::Corrupt("manifest without configuration".to_owned()))?;
        if manifest.layers.len() > LAYER_LIMIT {
            return Err(ImageError::Hostile(format!(
                "{} layers",
                manifest.layers.len()
            )));
        }
        let config_bytes = document(&client, name, &config).await?;
        let parsed: ImageConfig = from_json(&config_bytes, "configuration")?;
        check_platform(name, &parsed)?;
        if parsed.rootfs.diff_ids.len() != manifest.layers.len() {
            return Err(ImageError::Corrupt(
                "manifest and configuration differ in their layers".to_owned(),
            ));
        }
        let sizes = manifest
            .layers
            .iter()
            .map(|layer| (layer.digest.clone(), layer.size));
        report(Progress::Resolved(sizes.collect()));
        let ingest = Arc::new(self.store.ingest()?);
        ingest.document(&config_bytes, &config.media_type, Some(&config.digest))?;
        ingest.document(&bytes, &manifest.media_type, Some(&manifest_digest))?;
        let wanted: Vec<(Descriptor, Digest)> = manifest
            .layers
            .into_iter()
            .zip(parsed.rootfs.diff_ids)
            .collect();
        let layers = match fetch_layers(&client, name, &ingest, wanted, &report).await {
            Err(error @ ImageError::Registry(_)) => {
                // What has come need not come again, from there or from the next mirror.
                ingest.keep_begun()?;
                return Err(error);
            }
            ended => ended?,
        };
        let ingest = Arc::into_inner(ingest)
            .ok_or_else(|| ImageError::Conflict("ingest still in use".to_owned()))?;
        let names = [name.clone()];
        let commit = move || ingest.commit(&config_bytes, &manifest_digest, &top, layers, &names);
        let committed = tokio::task::spawn_blocking(commit).await;
        let record = committed.map_err(io::Error::other).context("commit")??;
        // A registry has it still, should the machine go down now.
        self.store.settle_behind();
        Ok(record)
    }
}

/// Follows indexes down to the manifest for this machine: the digest the name stands for, the
/// manifest's, and its bytes.
async fn resolve(client: &Client, name: &Reference) -> Result<(Digest, Digest, Bytes), ImageError> {
    let (_, mut bytes) = client.manifest(name, name.manifest_name()).await?;
    let top = Digest::of(&bytes);
    if let Some(expected) = &name.digest {
        expected.check(&top, "manifest")?;
    }
    let mut digest = top.clone();
    for _ in 0..INDEX_DEPTH {
        let manifest: Manifest = from_json(&bytes, "manifest")?;
        if manifest.config.is_some() {
            return Ok((top, digest, bytes));
        }
        let none =
            || ImageError::NotFound(format!("{name} for linux/{}", Platform::own_architecture()));
        digest = manifest.for_this_machine().ok_or_else(none)?.digest.clone();
        (_, bytes) = client.manifest(name, digest.as_str()).await?;
        digest.check(&Digest::of(&bytes), "manifest")?;
    }
    Err(ImageError::Corrupt(format!(
        "{name}: indexes nested too deeply"
    )))
}

fn check_platform(name: &Reference, config: &ImageConfig) -> Result<(), ImageError> {
    let own = Platform::own_architecture();
    if config.architecture.is_empty() || config.architecture == own {
        return Ok(());
    }
    let message = format!(
        "{name} is for {}/{}, this machine is linux/{own}",
        config.os, config.architecture
    );
    Err(ImageError::NotFound(message))
}

async fn document(
    client: &Client,
    name: &Reference,
    descriptor: &Descriptor,
) -> Result<Vec<u8>, ImageError> {
    let response = client.blob(name, descriptor.digest.as_str(), 0).await?;
    let limit = usize::try_from(crate::manifest::DOCUMENT_LIMIT).unwrap_or(usize::MAX);
    let body = http_body_util::Limited::new(response.into_body(), limit)
        .collect()
        .await;
    let bytes = body
        .map_err(|error| ImageError::Registry(error.to_string()))?
        .to_bytes();
    descriptor
        .digest
        .check(&Digest::of(&bytes), "configuration")?;
    Ok(bytes.to_vec())
}

async fn fetch_layers(
    client: &Arc<Client>,
    name: &Reference,
    ingest: &Arc<Ingest>,
    wanted: Vec<(Descriptor, Digest)>,
    report: &Report,
) -> Result<Vec<Layer>, ImageError> {
    let permits = Arc::new(Semaphore::new(PARALLEL));
    let stop = base::Stop::new();
    let mut tasks = JoinSet::new();
    let mut layers: Vec<Option<Layer>> = vec![None; wanted.len()];
    for (index, (blob, diff_id)) in wanted.into_iter().enumerate() {
        if let Some(layer) = ingest.present_layer(&blob, &diff_id) {
            report(Progress::Present(blob.digest));
            layers[index] = Some(layer);
            continue;
        }
        let (client, name, ingest) = (Arc::clone(client), name.clone(), Arc::clone(ingest));
        let (report, permits, stop) = (Arc::clone(report), Arc::clone(&permits), stop.clone());
        tasks.spawn(async move {
            // The semaphore is never closed.
            let _permit = permits.acquire().await;
            let layer = fetch_layer(&client, &name, ingest, &blob, diff_id, &report, &stop).await;
            (index, layer)
        });
    }
    let mut fault = None;
    while let Some(done) = tasks.join_next().await {
        match done {
            Ok((index, Ok(layer))) => layers[index] = Some(layer),
            Ok((_, Err(error))) => fault = fault.or(Some(error)),
            Err(error) => fault = fault.or(Some(ImageError::Registry(error.to_string()))),
        }
        if fault.is_some() {
            // The others are told and waited for: nobody may hold the ingest when it is dropped.
            stop.raise();
        }
    }
    match fault {
        Some(error) => Err(error),
        None => Ok(layers.into_iter().flatten().collect()),
    }
}

async fn fetch_layer(
    client: &Client,
    name: &Reference,
    ingest: Arc<Ingest>,
    blob: &Descriptor,
    diff_id: Digest,
    report: &Report,
    stop: &base::Stop,
) -> Result<Layer, ImageError> {
    let (sender, receiver) = mpsc::channel(PIECES);
    let (media_type, digest) = (blob.media_type.clone(), blob.digest.clone());
    let begun = ingest.begun(blob)?;
    let done = begun.as_ref().map_or(0, |(_, length)| *length);
    if done > 0 {
        report(Progress::Arrived(blob.digest.clone(), done));
    }
    let unpacking = tokio::task::spawn_blocking(move || {
        let pieces = Pieces {
            receiver,
            current: Bytes::new(),
        };
        let (media_type, digest, diff_id) = (&media_type, Some(&digest), Some(&diff_id));
        match begun {
            None => ingest.layer(pieces, media_type, digest, diff_id),
            Some((file, _)) => ingest.layer(file.chain(pieces), media_type, digest, diff_id),
        }
    });
    let fetched = tokio::select! {
        fetched = feed(client, name, blob, done, &sender, report) => fetched,
        () = stop.raised() => Err(ImageError::Conflict("another layer failed".to_owned())),
    };
    if let Err(error) = fetched {
        // The unpacker is told, so that it does not take the silence for the end.
        let _ = sender.send(Err(error.into())).await;
    }
    drop(sender);
    let layer = unpacking
        .await
        .map_err(io::Error::other)
        .context("unpacking")??;
    report(Progress::Unpacked(blob.digest.clone()));
    Ok(layer)
}

/// Sends a blob's bytes on as they come, from `done` on; resumes where the connection breaks.
async fn feed(
    client: &Client,
    name: &Reference,
    blob: &Descriptor,
    mut done: u64,
    sender: &mpsc::Sender<io::Result<Bytes>>,
    report: &Report,
) -> Result<(), ImageError> {
    let mut last = String::new();
    for _ in 0..=RESUMES {
        if done > 0 && done == blob.size {
            return Ok(());
        }
        let response = match client.blob(name, blob.digest.as_str(), done).await {
            Err(ImageError::Registry(message)) => {
                last = message;
                continue;
            }
            other => other?,
        };
        let mut skip = if response.status() == StatusCode::PARTIAL_CONTENT {
            0
        } else {
            done
        };
        let mut body = response.into_body();
        loop {
            let frame = match tokio::time::timeout(PIECE_TIMEOUT, body.frame()).await {
                Err(_) => {
                    last = "nothing came for a minute".to_owned();
                    break;
                }
                // Whether it is too much is for its digest to say.
                Ok(None) if done >= blob.size => return Ok(()),
                Ok(None) => {
                    last = format!("only {done} of {} bytes came", blob.size);
                    break;
                }
                Ok(Some(Err(error))) => {
                    last = error.to_string();
                    break;
                }
                Ok(Some(Ok(frame))) => frame,
            };
            let Ok(mut data) = frame.into_data() else {
                continue;
            };
            let skipped = skip.min(data.len() as u64);
            skip -= skipped;
            let data = data.split_off(usize::try_from(skipped).unwrap_or(usize::MAX));
            let fresh = data.len() as u64;
            done += fresh;
            if sender.send(Ok(data)).await.is_err() {
                // The unpacker has seen enough and knows why.
                return Ok(());
            }
            report(Progress::Arrived(blob.digest.clone(), fresh));
        }
    }
    Err(ImageError::Registry(format!(
        "{name}: layer {}: {last}",
        blob.digest
    )))
}

/// What comes over the channel, as a reader for the unpacking thread.
struct Pieces {
    receiver: mpsc::Receiver<io::Result<Bytes>>,
    current: Bytes,
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            match self.receiver.blocking_recv() {
                Some(piece) => self.current = piece?,
                None => return Ok(0),
            }
        }
        let length = self.current.len().min(buffer.len());
        buffer[..length].copy_from_slice(&self.current.split_to(length));
        Ok(length)
    }
}

fn from_json<T: serde::de::DeserializeOwned>(bytes: &[u8], what: &str) -> Result<T, ImageError> {
    serde_json::from_slice(bytes).map_err(|error| ImageError::Corrupt(format!("{what}: {error}")))
}
