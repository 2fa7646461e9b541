//! Plugins come, tell of their devices, and go.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base::Stop;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::table::{Ids, Resource, Table};
use super::{Devices, SOCKET};
use crate::grpc::Caller;
use crate::wire::device_plugin::*;

/// How long a plugin may take to accept us.
const CONNECT_MAX: Duration = Duration::from_secs(10);
/// Resources a node may have.
const RESOURCES_MAX: usize = 256;

/// A plugin that was just accepted.
pub(super) struct Connected {
    resource: String,
    generation: u64,
    caller: Caller,
}

impl Devices {
    /// Looks after all plugins; ends when the process stops.
    pub(super) async fn follow_all(
        self: Arc<Self>,
        mut plugins: mpsc::Receiver<Connected>,
        waiting: Vec<String>,
        stop: Stop,
    ) {
        let mut following = JoinSet::new();
        for resource in waiting {
            following.spawn(self.clone().retire_later(resource, 0));
        }
        loop {
            tokio::select! {
                Some(plugin) = plugins.recv() => {
                    following.spawn(self.clone().follow(plugin));
                }
                Some(_) = following.join_next() => {}
                () = self.stale.notified() => self.save().await,
                () = stop.raised() => return,
            }
        }
    }

    /// Listens to one plugin for as long as it is there.
    async fn follow(self: Arc<Self>, plugin: Connected) {
        let Connected {
            resource,
            generation,
            caller,
        } = plugin;
        let called = caller.stream(LIST_AND_WATCH, Empty {}).await;
        match called {
            Ok(mut stream) => loop {
                match stream.message().await {
                    Ok(Some(list)) => {
                        if !self.update(&resource, generation, list).await {
                            return;
                        }
                    }
                    Ok(None) => break,
                    Err(error) => {
                        tracing::info!(resource, %error, "a device plugin went");
                        break;
                    }
                }
            },
            Err(error) => tracing::warn!(resource, %error, "a device plugin lists no devices"),
        }
        if self.disconnect(&resource, generation) {
            self.retire_later(resource, generation).await;
        }
    }

    /// Takes a new list of devices. Returns whether the plugin is still the one in charge.
    async fn update(&self, resource: &str, generation: u64, list: ListAndWatchResponse) -> bool {
        let holders = {
            let mut table = self.table.lock();
            let Some(known) = current(&mut table, resource, generation) else {
                return false;
            };
            let old = std::mem::take(&mut known.devices);
            let mut turned = Ids::new();
            for device in list.devices {
                let before = old.get(&device.id).map(|before| before.health == HEALTHY);
                if before != Some(device.health == HEALTHY) {
                    turned.insert(device.id.clone());
                }
                known.devices.insert(device.id.clone(), device);
            }
            known.connected = true;
            table.holders(resource, &turned)
        };
        self.save().await;
        self.changed.send_modify(|count| *count += 1);
        for uid in holders {
            (self.told)(&uid);
        }
        true
    }

    fn disconnect(&self, resource: &str, generation: u64) -> bool {
        {
            let mut table = self.table.lock();
            let Some(known) = current(&mut table, resource, generation) else {
                return false;
            };
            known.connected = false;
        }
        self.callers.lock().remove(resource);
        self.changed.send_modify(|count| *count += 1);
        true
    }

    /// Waits whether the plugin comes back; if it does not, the node has none of its devices.
    async fn retire_later(self: Arc<Self>, resource: String, generation: u64) {
        tokio::time::sleep(self.grace).await;
        {
            let mut table = self.table.lock();
            let Some(known) = current(&mut table, &resource, generation) else {
                return;
            };
            known.retired = true;
            known.devices.clear();
        }
        self.save().await;
        self.changed.send_modify(|count| *count += 1);
    }

    /// Accepts a plugin that registered: connects to it, and asks for its options.
    pub(super) async fn accept(&self, resource: &str, endpoint: &str) -> Result<(), String> {
        let socket = self.folder.join(endpoint);
        let dial = async {
            let caller = Caller::connect(&socket).await;
            let caller = caller.map_err(|error| {
                format!(
                    "failed to dial device plugin with socketPath {}: {error}",
                    socket.display()
                )
            })?;
            let options = caller
                .call::<_, DevicePluginOptions>(GET_OPTIONS, Empty {})
                .await;
            let options = options.map_err(|status| {
                format!("failed to get device plugin options: {}", status.message())
            })?;
            Ok::<_, String>((caller, options))
        };
        let dialled = tokio::time::timeout(CONNECT_MAX, dial).await;
        let (caller, options) = dialled.map_err(|_| "the device plugin does not answer")??;
        let generation = {
            let mut table = self.table.lock();
            if table.resources.len() >= RESOURCES_MAX && !table.resources.contains_key(resource) {
                return Err(format!("there are {RESOURCES_MAX} resources already"));
            }
            let known = table.resources.entry(resource.to_owned()).or_default();
            known.generation += 1;
            known.connected = false;
            known.retired = false;
            known.options = options;
            known.generation
        };
        self.callers
            .lock()
            .insert(resource.to_owned(), caller.clone());
        let connected = Connected {
            resource: resource.to_owned(),
            generation,
            caller,
        };
        let sent = self.connected.send(connected).await;
        sent.map_err(|_| "the kubelet is stopping".to_owned())
    }
}

/// The resource as long as this plugin is the one in charge of it.
fn current<'t>(table: &'t mut Table, resource: &str, generation: u64) -> Option<&'t mut Resource> {
    let known = table.resources.get_mut(resource);
    known.filter(|known| known.generation == generation)
}

/// Listens where plugins register.
pub(super) fn listen(folder: &Path) -> std::io::Result<tokio::net::UnixListener> {
    use std::os::unix::fs::FileTypeExt;
    std::fs::create_dir_all(folder)?;
    // Sockets of plugins of before: each plugin makes its own anew when it sees ours appear.
    for entry in std::fs::read_dir(folder)?.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_socket()) {
            std::fs::remove_file(entry.path())?;
        }
    }
    base::listener::replace(&folder.join(SOCKET))
}
