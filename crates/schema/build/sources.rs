//! Where cargo keeps the sources that the table is made from.

use std::env;
use std::path::PathBuf;
use std::process::Command;

use crate::Fallible;

pub(crate) struct Sources {
    /// Folder of `k8s-openapi`.
    pub(crate) openapi: PathBuf,
    /// Folder of `k8s-pb`.
    pub(crate) protobuf: PathBuf,
}

/// Asks cargo. Both are in the lock file, so nothing is downloaded.
pub(crate) fn find() -> Fallible<Sources> {
    let output = Command::new(env::var("CARGO")?)
        .args([
            "metadata",
            "--offline",
            "--format-version",
            "1",
            "--filter-platform",
        ])
        .arg(env::var("TARGET")?)
        .current_dir(env::var("CARGO_MANIFEST_DIR")?)
        .output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into());
    }
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let folder = |name: &str| -> Fallible<PathBuf> {
        let packages = metadata["packages"].as_array().into_iter().flatten();
        let found = packages.filter(|package| package["name"] == name).last();
        let manifest = found.and_then(|package| package["manifest_path"].as_str());
        let manifest = PathBuf::from(manifest.ok_or(format!("no package {name}"))?);
        Ok(manifest.parent().ok_or("no folder")?.to_owned())
    };
    Ok(Sources {
        openapi: folder("k8s-openapi")?,
        protobuf: folder("k8s-pb")?,
    })
}
