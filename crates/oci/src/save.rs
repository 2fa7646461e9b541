//! Saving images: one archive that is an OCI layout and docker's form at once.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Write};

use crate::archive::{DockerEntry, NAME_ANNOTATIONS, blob_name};
use crate::digest::Digest;
use crate::error::{Context, ImageError};
use crate::manifest::{Descriptor, Manifest, OCI_INDEX, OCI_MANIFEST};
use crate::reference::Reference;
use crate::store::Store;

/// Writes the named images, with every name they have among `names`.
pub fn save(store: &Store, names: &[String], output: impl Write) -> Result<(), ImageError> {
    let mut archive = tar::Builder::new(output);
    let mut written = BTreeSet::new();
    let (mut entries, mut manifests) = (Vec::new(), Vec::new());
    for name in names {
        let image = store.get(name)?;
        let tag = name
            .parse::<Reference>()
            .ok()
            .and_then(|name| name.tagged());
        let tag = tag.filter(|tag| image.repo_tags.contains(tag));
        let mut descriptor = Descriptor::new(OCI_MANIFEST, image.manifest.clone(), 0);
        if let Some(tag) = &tag {
            descriptor
                .annotations
                .insert(NAME_ANNOTATIONS[0].to_owned(), tag.clone());
        }
        descriptor.size = blob(store, &mut archive, &image.manifest, &mut written)?;
        blob(store, &mut archive, &image.id, &mut written)?;
        for layer in &image.layers {
            blob(store, &mut archive, &layer.blob.digest, &mut written)?;
        }
        manifests.push(descriptor);
        entries.push(DockerEntry {
            config: blob_name(&image.id),
            repo_tags: tag.map(|tag| vec![tag]),
            layers: image
                .layers
                .iter()
                .map(|layer| blob_name(&layer.blob.digest))
                .collect(),
        });
    }
    let index = Manifest {
        schema_version: 2,
        media_type: OCI_INDEX.to_owned(),
        config: None,
        layers: Vec::new(),
        manifests,
    };
    document(
        &mut archive,
        "oci-layout",
        br#"{"imageLayoutVersion":"1.0.0"}"#,
    )?;
    document(&mut archive, "index.json", &to_json(&index)?)?;
    document(&mut archive, "manifest.json", &to_json(&entries)?)?;
    archive
        .into_inner()
        .and_then(|mut output| output.flush())
        .context("archive")
}

fn blob<W: Write>(
    store: &Store,
    archive: &mut tar::Builder<W>,
    digest: &Digest,
    written: &mut BTreeSet<Digest>,
) -> Result<u64, ImageError> {
    let path = store.blob_path(digest);
    let file = File::open(&path).at(&path)?;
    let size = file.metadata().at(&path)?.len();
    if written.insert(digest.clone()) {
        archive
            .append_data(&mut header(size), blob_name(digest), file)
            .at(&path)?;
    }
    Ok(size)
}

fn document<W: Write>(
    archive: &mut tar::Builder<W>,
    name: &str,
    bytes: &[u8],
) -> Result<(), ImageError> {
    archive
        .append_data(&mut header(bytes.len() as u64), name, bytes)
        .context(name)
}

fn header(size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_size(size);
    header.set_mode(0o644);
    header.set_mtime(0);
    header
}

fn to_json<T: serde::Serialize>(value: &T) -> Result<Vec<u8>, ImageError> {
    serde_json::to_vec(value)
        .map_err(io::Error::other)
        .context("archive")
}
