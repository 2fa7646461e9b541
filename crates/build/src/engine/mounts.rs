//! `RUN --mount`: folders and files that a command has besides its image.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use linux::root::Root;
use oci::{Digest, View};
use parking_lot::Mutex;
use tokio::sync::OwnedMutexGuard;

use super::host::Bind;
use super::sources::{Tree, open_layers};
use super::{BuildError, Builder, blocking};
use crate::dockerfile::{Mount, MountKind, Sharing};
use crate::ignore::Ignore;

/// The agent of keys that needs no naming.
const DEFAULT_AGENT: &str = "default";
/// Where programs look for one.
const AGENT: &str = "SSH_AUTH_SOCK=";

/// Caches that are in use, by their ids.
pub(super) type Caches = Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>;

/// Everything a command mounts, as long as it runs.
#[derive(Default)]
pub(super) struct Mounted {
    pub(super) binds: Vec<Bind>,
    pub(super) tmpfs: Vec<(String, String)>,
    pub(super) env: Vec<String>,
    _locks: Vec<OwnedMutexGuard<()>>,
}

impl Mounted {
    pub(super) async fn add(
        &mut self,
        builder: &Builder,
        mount: &Mount,
        tree: Option<Tree>,
        secret: Option<&[u8]>,
        agents: &BTreeMap<String, PathBuf>,
        folder: &Path,
    ) -> Result<(), BuildError> {
        match mount.kind {
            MountKind::Tmpfs => {
                let options = match mount.size {
                    0 => "mode=1777,exec".to_owned(),
                    size => format!("mode=1777,exec,size={size}"),
                };
                self.tmpfs.push((mount.target.clone(), options));
                Ok(())
            }
            MountKind::Secret => self.secret(mount, secret, folder),
            MountKind::Ssh => self.agent(mount, agents),
            MountKind::Cache => self.cache(builder, mount, tree, folder).await,
            MountKind::Bind => {
                let (mount, folder) = (mount.clone(), folder.to_owned());
                let tree =
                    tree.ok_or_else(|| BuildError::other("a bind mount without a source"))?;
                let bind = blocking(move || bind(&mount, &tree, &folder)).await?;
                self.binds.push(bind);
                Ok(())
            }
        }
    }

    fn secret(
        &mut self,
        mount: &Mount,
        secret: Option<&[u8]>,
        folder: &Path,
    ) -> Result<(), BuildError> {
        let id = secret_id(mount);
        let Some(secret) = secret else {
            return match mount.required {
                true => Err(BuildError::Other(format!("secret {id}: not found"))),
                false => Ok(()),
            };
        };
        if let Some(name) = &mount.env {
            let value = String::from_utf8_lossy(secret);
            self.env.push(format!("{name}={value}"));
            if mount.target.is_empty() {
                return Ok(());
            }
        }
        let source = folder.join(format!("secret-{}", Digest::of(id.as_bytes()).hex()));
        let mode = fs::Permissions::from_mode(mount.mode.unwrap_or(0o400));
        let written = fs::write(&source, secret)
            .and_then(|()| fs::set_permissions(&source, mode))
            .and_then(|()| chown(&source, Some(mount.uid), Some(mount.gid)));
        written.map_err(BuildError::other)?;
        self.binds.push(Bind {
            source,
            target: match mount.target.as_str() {
                "" => format!("/run/secrets/{id}"),
                target => target.to_owned(),
            },
            readonly: true,
        });
        Ok(())
    }

    /// A socket of the client's agent of keys.
    fn agent(
        &mut self,
        mount: &Mount,
        agents: &BTreeMap<String, PathBuf>,
    ) -> Result<(), BuildError> {
        let id = mount.id.as_deref().unwrap_or(DEFAULT_AGENT);
        let Some(source) = agents.get(id) else {
            return match mount.required {
                true => Err(BuildError::Other(format!("unset ssh forward key {id}"))),
                false => Ok(()),
            };
        };
        let mode = fs::Permissions::from_mode(mount.mode.unwrap_or(0o600));
        fs::set_permissions(source, mode)
            .and_then(|()| chown(source, Some(mount.uid), Some(mount.gid)))
            .map_err(BuildError::other)?;
        let target = match mount.target.as_str() {
            "" => format!("/run/buildkit/ssh_agent.{}", self.binds.len()),
            target => target.to_owned(),
        };
        if !self.env.iter().any(|pair| pair.starts_with(AGENT)) {
            self.env.push(format!("{AGENT}{target}"));
        }
        self.binds.push(Bind {
            source: source.clone(),
            target,
            readonly: false,
        });
        Ok(())
    }

    async fn cache(
        &mut self,
        builder: &Builder,
        mount: &Mount,
        tree: Option<Tree>,
        folder: &Path,
    ) -> Result<(), BuildError> {
        let id = mount.id.clone().unwrap_or_else(|| mount.target.clone());
        let lock = Arc::clone(builder.caches.lock().entry(id.clone()).or_default());
        let mut source = builder
            .folder
            .join("mounts")
            .join(Digest::of(id.as_bytes()).hex());
        match mount.sharing {
            Sharing::Shared => {}
            Sharing::Locked => self._locks.push(lock.lock_owned().await),
            Sharing::Private => match lock.try_lock_owned() {
                Ok(lock) => self._locks.push(lock),
                // Somebody else has it: this one begins empty and does not last.
                Err(_) => source = folder.join(format!("cache-{}", self.binds.len())),
            },
        }
        let (wish, place, folder) = (mount.clone(), source.clone(), folder.to_owned());
        blocking(move || fill_cache(&wish, &place, tree, &folder)).await?;
        self.binds.push(Bind {
            source,
            target: mount.target.clone(),
            readonly: mount.readonly,
        });
        Ok(())
    }
}

/// The name a secret is asked for by.
pub fn secret_id(mount: &Mount) -> String {
    let last = mount.target.rsplit('/').next().unwrap_or_default();
    mount.id.clone().unwrap_or_else(|| last.to_owned())
}

/// A cache that is new begins with what its source has.
fn fill_cache(
    mount: &Mount,
    place: &Path,
    tree: Option<Tree>,
    folder: &Path,
) -> Result<(), BuildError> {
    if place.is_dir() {
        return Ok(());
    }
    let fresh = tempfile::tempdir_in(folder)
        .map_err(BuildError::other)?
        .keep();
    if let Some(tree) = tree.filter(|_| mount.from.is_some()) {
        copy_out(&tree, &mount.source, &fresh, folder)?;
    }
    let mode = fs::Permissions::from_mode(mount.mode.unwrap_or(0o755));
    let made = fs::set_permissions(&fresh, mode)
        .and_then(|()| chown(&fresh, Some(mount.uid), Some(mount.gid)))
        .and_then(|()| fs::rename(&fresh, place));
    match made {
        // Another step made it meanwhile.
        Err(_) if place.is_dir() => Ok(()),
        other => other.map_err(BuildError::other),
    }
}

/// A folder or file that is there; a copy where it may be written to, for nothing of that stays.
fn bind(mount: &Mount, tree: &Tree, folder: &Path) -> Result<Bind, BuildError> {
    let missing = |error: io::Error| {
        BuildError::Other(format!("failed to mount {:?}: {error}", mount.source))
    };
    let direct = match tree {
        Tree::Context(folder) => Some(folder.clone()),
        Tree::Layers(layers) => match layers.as_slice() {
            [only] => Some(only.clone()),
            _ => None,
        },
    };
    let source = match direct.filter(|_| mount.readonly) {
        Some(top) => {
            let held = Root::open(&top).and_then(|root| root.handle(Path::new(&mount.source)));
            let held = held.map_err(missing)?;
            fs::read_link(format!("/proc/self/fd/{}", held.as_raw_fd())).map_err(missing)?
        }
        None => {
            let fresh = tempfile::tempdir_in(folder).map_err(missing)?.keep();
            copy_out(tree, &mount.source, &fresh, folder)?
        }
    };
    Ok(Bind {
        source,
        target: mount.target.clone(),
        readonly: mount.readonly,
    })
}

/// Copies a folder's contents, or one file, out of a tree; tells where it is.
fn copy_out(tree: &Tree, path: &str, target: &Path, folder: &Path) -> Result<PathBuf, BuildError> {
    let fault = |error: io::Error| BuildError::Other(format!("{path}: {error}"));
    let view = match tree {
        Tree::Context(folder) => {
            View::of_layers(std::slice::from_ref(folder), None).map_err(fault)?
        }
        Tree::Layers(layers) => open_layers(layers, folder)?,
    };
    let (_held, source) = view.open(Path::new(path)).map_err(fault)?;
    let root = Root::open(target).map_err(fault)?;
    let copier = super::files::Copier {
        root: &root,
        owner: None,
        mode: None,
        exclude: &Ignore::default(),
    };
    if fs::metadata(&source).map_err(fault)?.is_dir() {
        copier.folder(&source, Path::new("/"), "").map_err(fault)?;
        return Ok(target.to_owned());
    }
    copier
        .leaf(&source, Path::new("/file"), true)
        .map_err(fault)?;
    Ok(target.join("file"))
}
