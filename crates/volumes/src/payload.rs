//! The files of a volume made of content.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::KeyToPath;

use crate::VolumeError;

/// Permission bits when a volume names none.
pub(crate) const MODE_DEFAULT: u32 = 0o644;
/// Most bytes one volume may project; an object holds at most 3 MiB, a projection few objects.
const PAYLOAD_BYTES_MAX: usize = 64 << 20;

/// One file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct File {
    pub(crate) data: Vec<u8>,
    pub(crate) mode: u32,
    /// Owner other than root.
    pub(crate) uid: Option<u32>,
}

/// Files by relative path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Payload {
    pub(crate) files: BTreeMap<String, File>,
    /// When the content should be made anew although nothing changed.
    pub(crate) refresh_at: Option<jiff::Timestamp>,
}

impl Payload {
    /// Adds a file; later files replace earlier ones, as in upstream's projections.
    pub(crate) fn add(&mut self, path: &str, data: Vec<u8>, mode: u32) -> Result<(), VolumeError> {
        self.add_owned(path, data, mode, None)
    }

    /// Adds a file with an owner.
    pub(crate) fn add_owned(
        &mut self,
        path: &str,
        data: Vec<u8>,
        mode: u32,
        uid: Option<u32>,
    ) -> Result<(), VolumeError> {
        check_path(path)?;
        self.files.insert(path.to_owned(), File { data, mode, uid });
        let bytes: usize = self.files.values().map(|file| file.data.len()).sum();
        if bytes > PAYLOAD_BYTES_MAX {
            return Err(VolumeError::Refused(format!(
                "volume content exceeds {PAYLOAD_BYTES_MAX} bytes"
            )));
        }
        Ok(())
    }

    /// Adds keys of an object: all of them, or those `items` picks. `missing` words the fault
    /// of a key that is not there.
    pub(crate) fn add_keys(
        &mut self,
        data: BTreeMap<String, Vec<u8>>,
        items: Option<&Vec<KeyToPath>>,
        mode: u32,
        optional: bool,
        missing: &str,
    ) -> Result<(), VolumeError> {
        let Some(items) = items.filter(|items| !items.is_empty()) else {
            for (key, bytes) in data {
                self.add(&key, bytes, mode)?;
            }
            return Ok(());
        };
        for item in items {
            match data.get(&item.key) {
                Some(bytes) => {
                    let mode = item.mode.map_or(mode, |mode| mode as u32);
                    self.add(&item.path, bytes.clone(), mode)?;
                }
                None if optional => {}
                None => return Err(VolumeError::Refused(format!("{missing}: {}", item.key))),
            }
        }
        Ok(())
    }
}

/// The bits of an optional mode field.
pub(crate) fn mode_or(mode: Option<i32>, default: u32) -> u32 {
    mode.map_or(default, |mode| mode as u32 & 0o7777)
}

fn check_path(path: &str) -> Result<(), VolumeError> {
    let bad = path.is_empty()
        || path.starts_with('/')
        || path.starts_with("..")
        || path.split('/').any(|part| part == ".." || part.is_empty());
    match bad {
        true => Err(VolumeError::Refused(format!(
            "invalid path in volume: {path:?}"
        ))),
        false => Ok(()),
    }
}
