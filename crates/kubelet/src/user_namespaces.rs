//! Which ids of the node a pod with a user namespace of its own gets: a range
//! that no other pod of the node has, kept in the pod's folder.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use node_api::{IdMapping, UserNamespace};
use parking_lot::Mutex;
use serde_json::{Value, json};

/// Ids of one pod; all that its processes can ever name.
const LENGTH: u32 = 65_536;
/// The file in a pod's folder that says which range it has.
const FILE: &str = "userns";

/// The ranges of a node's pods.
#[derive(Debug)]
pub(crate) struct UserNamespaces {
    pods_dir: PathBuf,
    /// Slots by the uids of pods; slot 0 would be the node's own ids.
    taken: Mutex<HashMap<String, u32>>,
    slots: u32,
}

impl UserNamespaces {
    /// Finds out what pods have already.
    pub(crate) fn look(root: &Path, max_pods: u32) -> UserNamespaces {
        let pods_dir = root.join("pods");
        let entries = fs::read_dir(&pods_dir).into_iter().flatten().flatten();
        let known = entries.filter_map(|entry| {
            let slot = read(&entry.path().join(FILE))?;
            Some((entry.file_name().into_string().ok()?, slot))
        });
        UserNamespaces {
            taken: Mutex::new(known.collect()),
            pods_dir,
            // A pod that ends holds its range until nothing of it is left.
            slots: max_pods.saturating_mul(2),
        }
    }

    /// The range of a pod, from now until it is released. The error is for the user.
    pub(crate) fn assign(&self, uid: &str) -> Result<UserNamespace, String> {
        let mut taken = self.taken.lock();
        if let Some(slot) = taken.get(uid) {
            return Ok(mappings(*slot));
        }
        let free = (1..=self.slots).find(|slot| !taken.values().any(|known| known == slot));
        let slot = free.ok_or("could not find an empty slot to allocate a user namespace")?;
        let folder = self.pods_dir.join(uid);
        let ranges = json!([{"hostId": slot * LENGTH, "containerId": 0, "length": LENGTH}]);
        let text = json!({"uidMappings": ranges, "gidMappings": ranges}).to_string();
        let written = fs::create_dir_all(&folder);
        written
            .and_then(|()| fs::write(folder.join(FILE), text))
            .map_err(|error| format!("write user namespace of pod {uid}: {error}"))?;
        taken.insert(uid.to_owned(), slot);
        Ok(mappings(slot))
    }

    /// Nothing of the pod is left.
    pub(crate) fn release(&self, uid: &str) {
        self.taken.lock().remove(uid);
    }
}

fn mappings(slot: u32) -> UserNamespace {
    let range = vec![IdMapping {
        host_id: slot * LENGTH,
        container_id: 0,
        length: LENGTH,
    }];
    UserNamespace {
        uids: range.clone(),
        gids: range,
    }
}

fn read(path: &Path) -> Option<u32> {
    let tree: Value = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
    let first = tree.pointer("/uidMappings/0/hostId")?.as_u64()?;
    u32::try_from(first / u64::from(LENGTH)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_apart_and_outlive_us() {
        let folder = tempfile::tempdir().unwrap();
        let all = UserNamespaces::look(folder.path(), 2);
        let first = |all: &UserNamespaces, uid: &str| all.assign(uid).unwrap().uids[0].host_id;
        assert_eq!(first(&all, "a"), 65_536);
        assert_eq!(first(&all, "b"), 131_072);
        assert_eq!(first(&all, "a"), 65_536);
        let again = UserNamespaces::look(folder.path(), 2);
        assert_eq!(first(&again, "b"), 131_072);
        again.release("a");
        assert_eq!(first(&again, "c"), 65_536);
        first(&again, "d");
        first(&again, "e");
        assert!(again.assign("f").is_err());
    }
}
