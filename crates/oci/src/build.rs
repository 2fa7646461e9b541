//! An image from one static binary, made on the spot: no registry, no archive.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use crate::digest::Digest;
use crate::error::{Context, ImageError};
use crate::manifest::{
    Descriptor, ImageConfig, Manifest, OCI_CONFIG, OCI_LAYER, OCI_MANIFEST, Platform, RootFs,
    RunConfig,
};
use crate::reference::Reference;
use crate::store::{ImageRecord, Store};

/// What the image shall be.
#[derive(Clone, Debug, Default)]
pub struct BinaryImage {
    /// Where the binary stands in the image, such as `/sampan`.
    pub path: String,
    /// Further names of it, as links, such as `/bin/sh` for a busybox.
    pub links: Vec<String>,
    pub entrypoint: Vec<String>,
    pub cmd: Vec<String>,
    pub env: Vec<String>,
    pub labels: BTreeMap<String, String>,
    /// User to run as; empty is root.
    pub user: String,
    pub working_dir: String,
}

const PASSWD: &str = "root:x:0:0:root:/:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n";
const GROUP: &str = "root:x:0:\nnobody:x:65534:\n";

/// Puts an image into the store whose one layer holds the binary, `/etc/passwd`, `/etc/group`, `/tmp`
/// and the folders that file systems are mounted at. The same binary and wishes give the same image id.
pub fn image_from_binary(
    store: &Store,
    binary: &Path,
    tag: &str,
    wishes: &BinaryImage,
) -> Result<ImageRecord, ImageError> {
    let name: Reference = tag.parse()?;
    let file = File::open(binary).at(binary)?;
    let size = file.metadata().at(binary)?.len();
    let ingest = store.ingest()?;
    let (reader, writer) = io::pipe().context("pipe")?;
    let layer = std::thread::scope(|scope| {
        let written = scope.spawn(move || write_layer(writer, file, size, wishes));
        let layer = ingest.layer(reader, OCI_LAYER, None, None);
        // A reader that gave up breaks the writer's pipe: its own error is the cause.
        match (layer, written.join()) {
            (Err(error), _) => Err(error),
            (Ok(layer), Ok(Ok(()))) => Ok(layer),
            (Ok(_), Ok(Err(error))) => Err(ImageError::Io("building the layer".to_owned(), error)),
            (Ok(_), Err(_)) => Err(ImageError::Conflict(
                "building the layer panicked".to_owned(),
            )),
        }
    })?;
    let config = ImageConfig {
        architecture: Platform::own_architecture().to_owned(),
        os: "linux".to_owned(),
        config: RunConfig {
            user: wishes.user.clone(),
            env: wishes.env.clone(),
            entrypoint: wishes.entrypoint.clone(),
            cmd: wishes.cmd.clone(),
            working_dir: wishes.working_dir.clone(),
            stop_signal: String::new(),
            labels: wishes.labels.clone(),
        },
        rootfs: RootFs {
            kind: "layers".to_owned(),
            diff_ids: vec![layer.0.diff_id.clone()],
        },
        created: None,
    };
    let config_bytes = serde_json::to_vec(&config)
        .map_err(io::Error::other)
        .context("configuration")?;
    let config_blob = ingest.document(&config_bytes, OCI_CONFIG, None)?;
    let manifest = manifest_bytes(config_blob, vec![layer.0.blob.clone()])?;
    let digest: Digest = ingest.document(&manifest, OCI_MANIFEST, None)?.digest;
    let record = ingest.commit(&config_bytes, &digest, &digest, vec![layer], &[name])?;
    store.settle_behind();
    Ok(record)
}

/// The manifest of an image whose parts are known.
pub(crate) fn manifest_bytes(
    config: Descriptor,
    layers: Vec<Descriptor>,
) -> Result<Vec<u8>, ImageError> {
    let manifest = Manifest {
        schema_version: 2,
        media_type: OCI_MANIFEST.to_owned(),
        config: Some(config),
        layers,
        manifests: Vec::new(),
    };
    serde_json::to_vec(&manifest)
        .map_err(io::Error::other)
        .context("manifest")
}

fn write_layer(
    output: impl Write,
    binary: File,
    size: u64,
    wishes: &BinaryImage,
) -> io::Result<()> {
    let mut archive = tar::Builder::new(output);
    for folder in ["bin/", "dev/", "etc/", "proc/", "sys/", "tmp/"] {
        let mode = if folder == "tmp/" { 0o1777 } else { 0o755 };
        let mut header = header(tar::EntryType::Directory, mode, 0);
        archive.append_data(&mut header, folder, io::empty())?;
    }
    for (path, text) in [("etc/passwd", PASSWD), ("etc/group", GROUP)] {
        let mut header = header(tar::EntryType::Regular, 0o644, text.len() as u64);
        archive.append_data(&mut header, path, text.as_bytes())?;
    }
    let path = wishes.path.trim_start_matches('/');
    let mut entry = header(tar::EntryType::Regular, 0o755, size);
    archive.append_data(&mut entry, path, binary.take(size))?;
    for link in &wishes.links {
        let mut entry = header(tar::EntryType::Symlink, 0o777, 0);
        archive.append_link(&mut entry, link.trim_start_matches('/'), format!("/{path}"))?;
    }
    archive.into_inner()?.flush()
}

fn header(kind: tar::EntryType, mode: u32, size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header
}
