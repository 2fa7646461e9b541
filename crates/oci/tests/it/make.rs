//! Stores and images made for tests.

use std::path::Path;

use oci::{BinaryImage, Digest, ImageRecord, Store};

pub(crate) fn store() -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("images")).unwrap();
    (folder, store)
}

/// An image around a small file that plays the binary.
pub(crate) fn small_image(store: &Store, folder: &Path, tag: &str) -> ImageRecord {
    let binary = folder.join("binary");
    std::fs::write(&binary, "#!not really a program").unwrap();
    let wishes = BinaryImage {
        path: "/app".to_owned(),
        links: vec!["/bin/app".to_owned()],
        entrypoint: vec!["/app".to_owned()],
        env: vec!["A=b".to_owned()],
        ..Default::default()
    };
    oci::image_from_binary(store, &binary, tag, &wishes).unwrap()
}

/// Everything below the folders of content and temporary files.
pub(crate) fn leftovers(folder: &tempfile::TempDir) -> Vec<String> {
    let mut found = Vec::new();
    for part in ["blobs/sha256", "layers", "tmp"] {
        for entry in std::fs::read_dir(folder.path().join("images").join(part)).unwrap() {
            found.push(entry.unwrap().file_name().to_string_lossy().into_owned());
        }
    }
    found
}

/// A tar entry in the making.
pub(crate) struct Part {
    pub(crate) kind: tar::EntryType,
    pub(crate) path: &'static str,
    pub(crate) link: &'static str,
    pub(crate) text: &'static str,
}

pub(crate) fn file(path: &'static str, text: &'static str) -> Part {
    Part {
        kind: tar::EntryType::Regular,
        path,
        link: "",
        text,
    }
}

pub(crate) fn link(kind: tar::EntryType, path: &'static str, link: &'static str) -> Part {
    Part {
        kind,
        path,
        link,
        text: "",
    }
}

/// An archive whose names are written as they are, however wrong.
pub(crate) fn tarball(parts: &[Part]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for part in parts {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(part.kind);
        header.set_size(part.text.len() as u64);
        header.set_mode(0o755);
        header.set_mtime(7);
        header.set_uid(0);
        header.set_gid(0);
        let raw = header.as_old_mut();
        raw.name[..part.path.len()].copy_from_slice(part.path.as_bytes());
        raw.linkname[..part.link.len()].copy_from_slice(part.link.as_bytes());
        header.set_cksum();
        archive.append(&header, part.text.as_bytes()).unwrap();
    }
    archive.into_inner().unwrap()
}

/// A `docker save` archive around layers; `claim` may lie about the first layer's digest.
pub(crate) fn docker_archive(layers: &[Vec<u8>], tag: &str, claim: Option<Digest>) -> Vec<u8> {
    let mut diff_ids: Vec<Digest> = layers.iter().map(|layer| Digest::of(layer)).collect();
    if let Some(claim) = claim {
        diff_ids[0] = claim;
    }
    let config = serde_json::json!({
        "architecture": "amd64", "os": "linux", "config": {"Cmd": ["/x"]},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    });
    let names: Vec<String> = (0..layers.len())
        .map(|index| format!("l{index}/layer.tar"))
        .collect();
    let manifest =
        serde_json::json!([{"Config": "config.json", "RepoTags": [tag], "Layers": names}]);
    let mut archive = tar::Builder::new(Vec::new());
    let mut add = |name: &str, bytes: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, name, bytes).unwrap();
    };
    for (name, layer) in names.iter().zip(layers) {
        add(name, layer);
    }
    add("config.json", config.to_string().as_bytes());
    add("manifest.json", manifest.to_string().as_bytes());
    archive.into_inner().unwrap()
}
