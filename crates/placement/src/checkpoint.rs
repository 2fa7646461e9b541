//! What a manager writes down in the kubelet's folder, so that it counts for the next process.

use std::io::ErrorKind;
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// A file of assignments, with upstream's names.
pub(crate) trait Checkpoint: Serialize + DeserializeOwned {
    /// What begins each message about it.
    const WHO: &'static str;

    /// The policy it was written by.
    fn policy(&self) -> &str;
}

/// The file, if there is one; it must be of this policy.
pub(crate) fn read<C: Checkpoint>(path: &Path, policy: &str) -> Result<Option<C>, String> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.to_string()),
    };
    let file: C = serde_json::from_slice(&bytes).map_err(|error| error.to_string())?;
    match file.policy() == policy {
        true => Ok(Some(file)),
        false => Err(format!(
            "{}configured policy {policy:?} differs from state checkpoint policy {:?}",
            C::WHO,
            file.policy()
        )),
    }
}

/// Writes the file.
pub(crate) fn write<C: Checkpoint>(path: &Path, file: &C) {
    let bytes = serde_json::to_vec(file).unwrap_or_default();
    if let Err(error) = base::files::write_atomic(path, &bytes, 0o600) {
        tracing::error!(%error, path = %path.display(), "assignments are not written");
    }
}
