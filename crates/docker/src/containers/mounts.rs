//! What is mounted into a container: binds, volumes, file systems in memory.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::path::{Component, Path};

use linux::root::Root;
use oci::{ImageRecord, View};

use crate::answer::Fault;
use crate::daemon::Daemon;
use crate::record::Record;
use crate::remap::{self, Remap};
use crate::volumes::CreateRequest;
use crate::wire::{MountPoint, MountWish};

type Points = BTreeMap<String, MountPoint>;

impl Daemon {
    /// Decides what is mounted where, and makes the volumes it takes.
    pub(crate) fn plan_mounts(&self, record: &Record) -> Result<Vec<MountPoint>, Fault> {
        let mut points = Points::new();
        for from in record.host.volumes_from.iter().flatten() {
            let (name, mode) = from.split_once(':').unwrap_or((from, "rw"));
            let other = self.find(name)?;
            for point in &other.record.read().mounts {
                let mut point = point.clone();
                point.rw &= mode != "ro";
                points.insert(point.destination.clone(), point);
            }
        }
        for bind in record.host.binds.iter().flatten() {
            let point = self.bind(bind)?;
            points.insert(point.destination.clone(), point);
        }
        for wish in record.host.mounts.iter().flatten() {
            let point = self.mount(wish)?;
            points.insert(point.destination.clone(), point);
        }
        for (path, options) in record.host.tmpfs.iter().flatten() {
            let point = in_memory(path, options);
            points.insert(point.destination.clone(), point);
        }
        for path in record.config.volumes.iter().flatten().map(|(path, _)| path) {
            let path = clean(path)?;
            if let Entry::Vacant(place) = points.entry(path) {
                let point = self.volume("", place.key(), "", true)?;
                place.insert(point);
            }
        }
        Ok(points.into_values().collect())
    }

    /// `source:/target[:options]`.
    fn bind(&self, text: &str) -> Result<MountPoint, Fault> {
        let parts: Vec<&str> = text.split(':').collect();
        let (source, target, mode) = match parts.as_slice() {
            [target] => ("", *target, ""),
            [source, target] => (*source, *target, ""),
            [source, target, mode] => (*source, *target, *mode),
            _ => {
                return Err(Fault::bad(format!(
                    "invalid volume specification: '{text}'"
                )));
            }
        };
        let target = clean(target).map_err(|fault| {
            Fault::bad(format!("invalid volume specification: '{text}': {fault}"))
        })?;
        let (mut rw, mut propagation) = (true, "");
        for option in mode.split(',').filter(|option| !option.is_empty()) {
            match option {
                "ro" => rw = false,
                "rw" | "z" | "Z" | "nocopy" | "cached" | "delegated" | "consistent" => {}
                "private" | "rprivate" | "shared" | "rshared" | "slave" | "rslave" => {
                    propagation = option;
                }
                _ => {
                    let message =
                        format!("invalid volume specification: '{text}': invalid mode: {mode}");
                    return Err(Fault::bad(message));
                }
            }
        }
        if !source.starts_with('/') {
            return self.volume(source, &target, mode, rw);
        }
        // As ever: a source that is not there becomes a folder.
        if !Path::new(source).exists() {
            self.make_source(source)?;
        }
        Ok(MountPoint {
            kind: "bind".to_owned(),
            source: source.to_owned(),
            destination: target,
            mode: mode.to_owned(),
            rw,
            propagation: if propagation.is_empty() {
                "rprivate"
            } else {
                propagation
            }
            .to_owned(),
            ..MountPoint::default()
        })
    }

    /// A folder of the machine for containers; what is missing of it belongs to their root.
    fn make_source(&self, source: &str) -> Result<(), Fault> {
        let ids = self.remap.as_ref().map(Remap::namespace);
        let machine = Root::open(Path::new("/"))?.owned_by(remap::root_of(ids));
        machine.make_folders(Path::new(source), 0o755)?;
        Ok(())
    }

    fn mount(&self, wish: &MountWish) -> Result<MountPoint, Fault> {
        let target = clean(&wish.target)?;
        match wish.kind.as_str() {
            "bind" => {
                let options = wish.bind_options.clone().unwrap_or_default();
                if !Path::new(&wish.source).exists() {
                    if !options.create_mountpoint {
                        return Err(Fault::bad(format!(
                            "invalid mount config for type \"bind\": bind source path does not exist: {}",
                            wish.source
                        )));
                    }
                    self.make_source(&wish.source)?;
                }
                let propagation = match options.propagation.as_str() {
                    "" => "rprivate",
                    propagation => propagation,
                };
                Ok(MountPoint {
                    kind: "bind".to_owned(),
                    source: wish.source.clone(),
                    destination: target,
                    rw: !wish.read_only,
                    propagation: propagation.to_owned(),
                    ..MountPoint::default()
                })
            }
            "volume" => {
                let options = wish.volume_options.clone().unwrap_or_default();
                let driver = options.driver_config.unwrap_or_default();
                let mut name = wish.source.clone();
                if !name.is_empty() || driver.options.is_some() {
                    let request = CreateRequest {
                        name,
                        labels: options.labels,
                        driver: driver.name,
                        driver_opts: driver.options.unwrap_or_default(),
                    };
                    name = self.volumes.ensure(&request)?.0.name;
                }
                let mode = if options.no_copy { "nocopy" } else { "z" };
                let point = self.volume(&name, &target, mode, !wish.read_only)?;
                Ok(MountPoint {
                    subpath: plain(&options.subpath)?,
                    ..point
                })
            }
            "image" => {
                let options = wish.image_options.clone().unwrap_or_default();
                let image = self.engine.images().get(&wish.source)?;
                Ok(MountPoint {
                    kind: "image".to_owned(),
                    name: wish.source.clone(),
                    source: image.id.to_string(),
                    destination: target,
                    subpath: plain(&options.subpath)?,
                    propagation: "rprivate".to_owned(),
                    ..MountPoint::default()
                })
            }
            "tmpfs" => {
                let options = wish.tmpfs_options.clone().unwrap_or_default();
                let mut text = Vec::new();
                if options.size_bytes > 0 {
                    text.push(format!("size={}", options.size_bytes));
                }
                if options.mode > 0 {
                    text.push(format!("mode={:o}", options.mode));
                }
                if wish.read_only {
                    text.push("ro".to_owned());
                }
                Ok(in_memory(&target, &text.join(",")))
            }
            other => Err(Fault::unable(format!(
                "mount type {other:?} is not supported"
            ))),
        }
    }

    fn volume(&self, name: &str, target: &str, mode: &str, rw: bool) -> Result<MountPoint, Fault> {
        let request = CreateRequest {
            name: name.to_owned(),
            ..CreateRequest::default()
        };
        let (volume, _) = self.volumes.ensure(&request)?;
        Ok(MountPoint {
            kind: "volume".to_owned(),
            source: self.volumes.data(&volume.name).display().to_string(),
            name: volume.name,
            destination: target.to_owned(),
            driver: "local".to_owned(),
            mode: mode.to_owned(),
            rw,
            ..MountPoint::default()
        })
    }

    /// What the image has where an empty volume is mounted goes into the volume.
    pub(crate) async fn fill_volumes(
        &self,
        record: &Record,
        image: &ImageRecord,
    ) -> Result<(), Fault> {
        let wanted: Vec<MountPoint> = record
            .mounts
            .iter()
            .filter(|point| point.kind == "volume" && !point.mode.contains("nocopy"))
            // What it is a part of was there before.
            .filter(|point| point.subpath.is_empty())
            .filter(|point| is_empty(Path::new(&point.source)))
            .cloned()
            .collect();
        if wanted.is_empty() {
            return Ok(());
        }
        self.attach_volumes(record).await?;
        let wanted: Vec<MountPoint> = wanted
            .into_iter()
            .filter(|point| is_empty(Path::new(&point.source)))
            .collect();
        let layers: Vec<_> = image
            .layers
            .iter()
            .map(|layer| self.engine.images().layer_folder(&layer.diff_id))
            .collect();
        let ids = self.user_namespace(record);
        let work = move || -> Result<(), Fault> {
            let view = View::of_layers(&layers, None)?;
            let owner = |owner| remap::on_node(ids.as_ref(), owner);
            for point in wanted {
                let target = Path::new(&point.source);
                if let Some((uid, gid)) = remap::root_of(ids.as_ref()) {
                    std::os::unix::fs::chown(target, Some(uid), Some(gid))?;
                }
                view.copy_out(Path::new(&point.destination), target, &owner)?;
            }
            Ok(())
        };
        tokio::task::spawn_blocking(work)
            .await
            .map_err(Fault::internal)?
    }
}

fn is_empty(folder: &Path) -> bool {
    std::fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_none())
}

fn in_memory(path: &str, options: &str) -> MountPoint {
    MountPoint {
        kind: "tmpfs".to_owned(),
        destination: path.trim_end_matches('/').to_owned(),
        mode: options.to_owned(),
        rw: !options.split(',').any(|option| option == "ro"),
        ..MountPoint::default()
    }
}

/// A path that stays below where it begins.
fn plain(path: &str) -> Result<String, Fault> {
    let stays = |part| matches!(part, Component::Normal(_) | Component::CurDir);
    match Path::new(path).components().all(stays) {
        true => Ok(path.to_owned()),
        false => Err(Fault::bad(format!(
            "subpath must be a relative path within the volume: {path}"
        ))),
    }
}

/// An absolute path without a slash at its end.
fn clean(path: &str) -> Result<String, Fault> {
    let shorter = path.trim_end_matches('/');
    if !path.starts_with('/') {
        let message = format!("invalid mount path: '{path}' mount path must be absolute");
        return Err(Fault::bad(message));
    }
    if shorter.is_empty() {
        return Err(Fault::bad(
            "invalid specification: destination can't be '/'",
        ));
    }
    Ok(shorter.to_owned())
}
