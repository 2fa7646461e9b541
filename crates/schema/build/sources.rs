//! Where cargo keeps the sources that the table is made from.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use crate::Fallible;

pub(crate) struct Sources {
    /// Folder of `k8s-openapi`.
    pub(crate) openapi: PathBuf,
    /// Folder of `k8s-pb`.
    pub(crate) protobuf: PathBuf,
}

/// Both are dependencies of this crate, so cargo has them unpacked somewhere.
pub(crate) fn find() -> Fallible<Sources> {
    let manifest = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?);
    let lock = manifest.ancestors().map(|folder| folder.join("Cargo.lock"));
    let lock = lock
        .into_iter()
        .find(|lock| lock.exists())
        .ok_or("no Cargo.lock")?;
    println!("cargo:rerun-if-changed={}", lock.display());
    let lock = fs::read_to_string(lock)?;
    Ok(Sources {
        openapi: folder(&lock, "k8s-openapi")?,
        protobuf: folder(&lock, "k8s-pb")?,
    })
}

/// The registry's folder; `cargo metadata` would know best, but it also wants the dependencies of
/// other platforms and of all tests, so it is asked only when sources are kept elsewhere.
fn folder(lock: &str, name: &str) -> Fallible<PathBuf> {
    let (_, rest) = lock
        .split_once(&format!("name = \"{name}\"\n"))
        .ok_or("not in Cargo.lock")?;
    let version = rest.split('"').nth(1).ok_or("no version in Cargo.lock")?;
    let home = env::var("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|_| env::var("HOME").map(|home| Path::new(&home).join(".cargo")))?;
    let registries = fs::read_dir(home.join("registry/src"))
        .into_iter()
        .flatten();
    let folders = registries
        .flatten()
        .map(|entry| entry.path().join(format!("{name}-{version}")));
    match folders.into_iter().find(|folder| folder.is_dir()) {
        Some(folder) => Ok(folder),
        None => from_metadata(name),
    }
}

fn from_metadata(name: &str) -> Fallible<PathBuf> {
    let output = Command::new(env::var("CARGO")?)
        .args(["metadata", "--format-version", "1", "--filter-platform"])
        .arg(env::var("TARGET")?)
        .current_dir(env::var("CARGO_MANIFEST_DIR")?)
        .output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into());
    }
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let mut packages = metadata["packages"].as_array().into_iter().flatten();
    let found = packages.find(|package| package["name"] == name);
    let manifest = found.and_then(|package| package["manifest_path"].as_str());
    let manifest = PathBuf::from(manifest.ok_or(format!("no package {name}"))?);
    Ok(manifest.parent().ok_or("no folder")?.to_owned())
}
