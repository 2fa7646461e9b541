//! Coming back: whatever the state folder tells of is found again, alive or dead.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use node_api::{NamespaceMode, SandboxState};
use parking_lot::Mutex;

use super::sandbox::remove_folder;
use super::{ContainerRecord, Engine, Entry, OpenError, Pod, SandboxRecord};
use crate::spec::{Status, file, read_json};

impl Engine {
    pub(super) async fn adopt(&self) -> Result<(), OpenError> {
        for name in names_in(&self.config.state)? {
            let folder = self.config.state.join(&name);
            match read_json::<SandboxRecord>(&folder.join(file::SANDBOX)) {
                Ok(record) => self.adopt_pod(record, &folder).await?,
                Err(error) => {
                    // It died while it was made; nothing was promised yet.
                    tracing::info!(%error, sandbox = name, "removing an unfinished sandbox");
                    self.discard(&name);
                }
            }
        }
        self.sweep()?;
        let live: Vec<String> = self.pods.read().keys().cloned().collect();
        if let Err(error) = self.network.gc(&live).await {
            tracing::warn!(%error, "pod network not swept");
        }
        Ok(())
    }

    async fn adopt_pod(&self, record: SandboxRecord, folder: &Path) -> Result<(), OpenError> {
        let network = read_json(&folder.join(file::NETWORK));
        // Without a network result the pod was never finished.
        let complete = network.is_ok() || record.config.namespaces.network == NamespaceMode::Node;
        let id = record.id.clone();
        let pod = Arc::new(Pod {
            record,
            folder: folder.to_owned(),
            state: Mutex::new(SandboxState::NotReady),
            network: Mutex::new(network.unwrap_or_default()),
            link: Mutex::default(),
            first: Mutex::default(),
            change: Default::default(),
        });
        self.pods.write().insert(id.clone(), Arc::clone(&pod));
        self.found_in_slice(&pod).await;
        self.adopt_containers(&pod)?;
        if folder.join(file::STOPPED).exists() {
            self.settle_containers(&pod);
            return Ok(());
        }
        match self.connect(&pod) {
            Ok(()) => {
                // What ended while nobody listened is in the files; what ends from now on is news.
                self.refresh(&pod);
                if complete {
                    *pod.state.lock() = SandboxState::Ready;
                }
            }
            Err(error) => {
                tracing::warn!(%error, sandbox = id, "the supervisor is gone, ending its containers");
                self.bury(&pod).await;
            }
        }
        Ok(())
    }

    fn adopt_containers(&self, pod: &Pod) -> Result<(), OpenError> {
        let folder = pod.folder.join(file::CONTAINERS);
        for name in names_in(&folder)? {
            let folder = folder.join(&name);
            match read_json::<ContainerRecord>(&folder.join(file::CONTAINER)) {
                Ok(record) => {
                    let status =
                        read_json(&folder.join(file::STATUS)).unwrap_or_else(|_| Status::created());
                    let entry = Arc::new(Entry::new(record, folder, status));
                    self.containers.write().insert(name, entry);
                }
                Err(error) => {
                    tracing::info!(%error, container = name, "removing an unfinished container");
                    remove_folder(&folder).map_err(|error| OpenError::Io(folder, error))?;
                }
            }
        }
        Ok(())
    }

    /// Reads the status files of a pod's containers again.
    fn refresh(&self, pod: &Pod) {
        for entry in self.containers_of(&pod.record.id) {
            if let Ok(status) = read_json(&entry.folder.join(file::STATUS)) {
                entry.set_status(status);
            }
        }
    }

    /// Removes writable parts and leases of containers nobody knows.
    fn sweep(&self) -> Result<(), OpenError> {
        let known: BTreeSet<String> = self.containers.read().keys().cloned().collect();
        let folder = self.config.root.join("containers");
        for name in names_in(&folder)? {
            if !known.contains(&name) {
                let path = folder.join(name);
                remove_folder(&path).map_err(|error| OpenError::Io(path, error))?;
            }
        }
        for lease in self.store.leases()? {
            if !lease.starts_with(super::extra::FOREIGN_LEASE) && !known.contains(&lease) {
                self.store.release(&lease)?;
            }
        }
        Ok(())
    }
}

/// The folders in a folder; one that is gone has none, for its removal may have been cut short.
fn names_in(folder: &Path) -> Result<Vec<String>, OpenError> {
    let fault = |error| OpenError::Io(folder.to_owned(), error);
    let mut names = Vec::new();
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(names),
        other => other.map_err(fault)?,
    };
    for entry in entries {
        let entry = entry.map_err(fault)?;
        if entry.file_type().map_err(fault)?.is_dir() {
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    Ok(names)
}
