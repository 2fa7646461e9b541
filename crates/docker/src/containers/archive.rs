//! Files in and out of containers (`docker cp`), all of them (`export`), and what has changed.

use std::fs::Permissions;
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderValue, StatusCode};
use nix::sys::stat::{major, minor};
use node_api::UserNamespace;
use oci::View;
use serde_json::{Value, json};

use crate::answer::{self, Answer, Fault, PiecesWriter};
use crate::call::Call;
use crate::daemon::{Container, Daemon};
use crate::record::{Record, moment};
use crate::remap;
use crate::translate::WRITABLE;

const STAT_HEADER: &str = "x-docker-container-path-stat";
const TAR: &str = "application/x-tar";
/// What every container has mounted.
const OUR_PLACES: [&str; 6] = [
    "/dev",
    "/etc/hostname",
    "/etc/hosts",
    "/etc/resolv.conf",
    "/proc",
    "/sys",
];

/// Places that only mounts make.
pub(crate) fn our_places() -> Vec<PathBuf> {
    OUR_PLACES.iter().map(PathBuf::from).collect()
}

/// A container's files, now. A stopped one is mounted for as long as the view is held.
fn view(
    daemon: &Daemon,
    container: &Container,
    record: &Record,
    ids: Option<&UserNamespace>,
) -> Result<View, Fault> {
    if record.state.is_up() && record.state.pid > 0 {
        return Ok(View::of_process(record.state.pid, remap::root_of(ids))?);
    }
    let store = daemon.engine.images();
    let image = store.get(&record.image_id)?;
    let layers: Vec<PathBuf> = image
        .layers
        .iter()
        .map(|layer| store.layer_folder(&layer.diff_id))
        .collect();
    Ok(View::of_layers(
        &layers,
        Some(&container.folder.join(WRITABLE)),
    )?)
}

/// Runs work that blocks on a container's files, which may show owners as they are on the node and
/// not as the container sees them; no start comes in between.
async fn with_view<T: Send + 'static>(
    daemon: &Arc<Daemon>,
    container: &Arc<Container>,
    work: impl FnOnce(View, Option<UserNamespace>) -> Result<T, Fault> + Send + 'static,
) -> Result<T, Fault> {
    let (daemon, container) = (Arc::clone(daemon), Arc::clone(container));
    let disposal = Arc::clone(&container.disposal).lock_owned().await;
    let record = container.snapshot();
    let ids = daemon.present_user_namespace(&record).await?;
    let run = move || {
        let view = view(&daemon, &container, &record, ids.as_ref())?;
        let result = work(view, ids);
        drop(disposal);
        result
    };
    tokio::task::spawn_blocking(run)
        .await
        .map_err(Fault::internal)?
}

fn wanted(call: &Call) -> Result<PathBuf, Fault> {
    match call.query.text("path") {
        "" => Err(Fault::bad("bad parameter: path cannot be empty")),
        path => Ok(Path::new("/").join(path)),
    }
}

fn missing(container: &Container, path: &Path) -> impl Fn(io::Error) -> Fault + use<> {
    let message = format!(
        "Could not find the file {} in container {}",
        path.display(),
        container.id
    );
    move |error| match error.kind() {
        io::ErrorKind::NotFound => Fault::missing(message.clone()),
        _ => Fault::internal(error),
    }
}

/// What a path is, in the form of the header.
fn stat(view: &View, path: &Path) -> io::Result<Value> {
    let (_parent, name) = link_name(view, path)?;
    let metadata = std::fs::symlink_metadata(&name)?;
    let kind = metadata.file_type();
    // Go's own bits for the kinds of files.
    let bits: u32 = match () {
        () if kind.is_dir() => 1 << 31,
        () if kind.is_symlink() => 1 << 27,
        () if kind.is_char_device() => 1 << 26 | 1 << 21,
        () if kind.is_block_device() => 1 << 26,
        () if kind.is_fifo() => 1 << 25,
        () if kind.is_socket() => 1 << 24,
        () => 0,
    };
    let target = match kind.is_symlink() {
        true => std::fs::read_link(&name)?,
        false => PathBuf::new(),
    };
    Ok(json!({
        "name": base_name(path),
        "size": metadata.len(),
        "mode": bits | metadata.mode() & 0o777,
        "mtime": moment(metadata.mtime() * 1_000_000_000 + metadata.mtime_nsec()),
        "linkTarget": target,
    }))
}

fn base_name(path: &Path) -> String {
    let name = path.file_name().unwrap_or(path.as_os_str());
    name.to_string_lossy().into_owned()
}

/// A path by which the last component can be looked at, even when it is a link.
fn link_name(view: &View, path: &Path) -> io::Result<(std::os::fd::OwnedFd, PathBuf)> {
    match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) => {
            let (handle, folder) = view.open(parent)?;
            Ok((handle, folder.join(name)))
        }
        _ => view.open(path),
    }
}

fn stat_header(stat: &Value) -> Result<HeaderValue, Fault> {
    let text = STANDARD.encode(stat.to_string());
    HeaderValue::from_str(&text).map_err(Fault::internal)
}

/// `HEAD /containers/{id}/archive`.
pub(crate) async fn head(call: Call, name: &str) -> Answer {
    let container = call.daemon.find(name)?;
    let path = wanted(&call)?;
    let fault = missing(&container, &path);
    let stat = with_view(&call.daemon, &container, move |view, _| {
        stat(&view, &path).map_err(fault)
    });
    let mut response = answer::empty(StatusCode::OK);
    let header = stat_header(&stat.await?)?;
    response.headers_mut().insert(STAT_HEADER, header);
    Ok(response)
}

/// `GET /containers/{id}/archive`.
pub(crate) async fn get(call: Call, name: &str) -> Answer {
    let container = call.daemon.find(name)?;
    let path = wanted(&call)?;
    let (asked, fault) = (path.clone(), missing(&container, &path));
    let stat = with_view(&call.daemon, &container, move |view, _| {
        stat(&view, &asked).map_err(fault)
    });
    let header = stat_header(&stat.await?)?;
    let (pieces, mut response) = answer::stream(TAR);
    response.headers_mut().insert(STAT_HEADER, header);
    let daemon = Arc::clone(&call.daemon);
    tokio::spawn(async move {
        let writer = PiecesWriter(pieces.clone());
        let packed = with_view(&daemon, &container, move |view, ids| {
            let (_parent, source) = link_name(&view, &path)?;
            let name = match path.file_name() {
                Some(name) => PathBuf::from(name),
                None => PathBuf::from("."),
            };
            Ok(pack(&source, &name, writer, ids.as_ref())?)
        });
        tell(packed.await, &pieces).await;
    });
    Ok(response)
}

/// An answer that breaks off tells the client that something went wrong.
async fn tell(result: Result<(), Fault>, pieces: &answer::Pieces) {
    if let Err(fault) = result {
        tracing::debug!(%fault, "archive not sent");
        let _ = pieces.send(Err(io::Error::other(fault))).await;
    }
}

fn pack(
    source: &Path,
    name: &Path,
    writer: PiecesWriter,
    ids: Option<&UserNamespace>,
) -> io::Result<()> {
    let mut archive = tar::Builder::new(io::BufWriter::with_capacity(64 << 10, writer));
    match name.as_os_str().is_empty() {
        // All that is in the root, without a name for the root itself.
        true => append_folder(&mut archive, source, name, ids)?,
        false => append(&mut archive, source, name, ids)?,
    }
    io::Write::flush(&mut archive.into_inner()?)
}

fn append_folder(
    archive: &mut tar::Builder<impl io::Write>,
    source: &Path,
    name: &Path,
    ids: Option<&UserNamespace>,
) -> io::Result<()> {
    for entry in std::fs::read_dir(source)? {
        let entry = entry?;
        append(archive, &entry.path(), &name.join(entry.file_name()), ids)?;
    }
    Ok(())
}

fn append(
    archive: &mut tar::Builder<impl io::Write>,
    source: &Path,
    name: &Path,
    ids: Option<&UserNamespace>,
) -> io::Result<()> {
    let metadata = std::fs::symlink_metadata(source)?;
    let kind = metadata.file_type();
    let mut header = tar::Header::new_gnu();
    header.set_metadata(&metadata);
    header.set_size(0);
    let (uid, gid) = remap::inside(ids, (metadata.uid(), metadata.gid()));
    header.set_uid(uid.into());
    header.set_gid(gid.into());
    if kind.is_dir() {
        archive.append_data(&mut header, name, io::empty())?;
        return append_folder(archive, source, name, ids);
    }
    if kind.is_symlink() {
        return archive.append_link(&mut header, name, std::fs::read_link(source)?);
    }
    if kind.is_file() {
        let (file, length) = (std::fs::File::open(source)?, metadata.len());
        header.set_size(length);
        // One that changes meanwhile takes the room that was told all the same.
        let content = file.chain(io::repeat(0)).take(length);
        return archive.append_data(&mut header, name, content);
    }
    // A socket is nothing without its program.
    if kind.is_socket() {
        return Ok(());
    }
    if !kind.is_fifo() {
        header
            .set_device_major(u32::try_from(major(metadata.rdev())).map_err(io::Error::other)?)?;
        header
            .set_device_minor(u32::try_from(minor(metadata.rdev())).map_err(io::Error::other)?)?;
    }
    archive.append_data(&mut header, name, io::empty())
}

/// `GET /containers/{id}/export`.
pub(crate) async fn export(call: Call, name: &str) -> Answer {
    let container = call.daemon.find(name)?;
    let (pieces, response) = answer::stream(TAR);
    let daemon = Arc::clone(&call.daemon);
    daemon
        .events
        .container(&container.snapshot(), "export", &[]);
    tokio::spawn(async move {
        let writer = PiecesWriter(pieces.clone());
        let store = daemon.engine.images().clone();
        let work = {
            let container = Arc::clone(&container);
            move |_: View, _| {
                // Without what is mounted over it, also while it runs.
                let image = store.get(&container.record.read().image_id.clone())?;
                let mut folders: Vec<PathBuf> = image
                    .layers
                    .iter()
                    .map(|layer| store.layer_folder(&layer.diff_id))
                    .collect();
                folders.push(container.folder.join(WRITABLE).join("upper"));
                let view = View::of_layers(&folders, None)?;
                let (_handle, root) = view.open(Path::new("/"))?;
                Ok(pack(&root, Path::new(""), writer, None)?)
            }
        };
        tell(with_view(&daemon, &container, work).await, &pieces).await;
    });
    Ok(response)
}

/// `PUT /containers/{id}/archive`.
pub(crate) async fn put(call: Call, name: &str) -> Answer {
    let daemon = Arc::clone(&call.daemon);
    let container = daemon.find(name)?;
    let path = wanted(&call)?;
    if container.record.read().host.readonly_rootfs {
        return Err(Fault::new(
            StatusCode::FORBIDDEN,
            "container rootfs is marked read-only",
        ));
    }
    let keep_kinds = call.query.flag("noOverwriteDirNonDir");
    let fault = missing(&container, &path);
    let reader = call.reader();
    with_view(&daemon, &container, move |view, ids| {
        let (_handle, folder) = view.open(&path).map_err(&fault)?;
        if !std::fs::metadata(&folder)?.is_dir() {
            return Err(Fault::bad(format!(
                "extraction point {} is not a directory",
                path.display()
            )));
        }
        Ok(unpack(&view, &path, reader, keep_kinds, ids.as_ref())?)
    })
    .await?;
    Ok(answer::empty(StatusCode::OK))
}

/// Unpacks an archive (plain or gzip) below a folder of the container. Every path is resolved inside.
fn unpack(
    view: &View,
    base: &Path,
    reader: impl Read,
    keep_kinds: bool,
    ids: Option<&UserNamespace>,
) -> io::Result<()> {
    let mut reader = io::BufReader::new(reader);
    let start = io::BufRead::fill_buf(&mut reader)?;
    let plain: Box<dyn Read> = match start.starts_with(&[0x1f, 0x8b]) {
        true => Box::new(flate2::bufread::MultiGzDecoder::new(reader)),
        false => Box::new(reader),
    };
    let mut archive = tar::Archive::new(plain);
    archive.set_preserve_permissions(true);
    archive.set_preserve_ownerships(ids.is_none());
    for entry in archive.entries()? {
        let mut entry = entry?;
        let name = inside(&entry.path()?);
        let path = base.join(&name);
        let Some(last) = path.file_name().filter(|_| !name.as_os_str().is_empty()) else {
            continue;
        };
        let owner = mapped_owner(entry.header(), ids)?;
        let parent = path.parent().unwrap_or(Path::new("/"));
        let folder = view.root().make_folders(parent, 0o755)?;
        let target = PathBuf::from(format!("/proc/self/fd/{}", folder.as_raw_fd())).join(last);
        let kind = entry.header().entry_type();
        if let Ok(there) = std::fs::symlink_metadata(&target) {
            if there.is_dir() != kind.is_dir() {
                if keep_kinds {
                    let message = format!(
                        "cannot overwrite {} by another kind of file",
                        path.display()
                    );
                    return Err(io::Error::new(io::ErrorKind::AlreadyExists, message));
                }
                remove_any(&target, there.is_dir())?;
            } else if !there.is_dir() {
                remove_any(&target, false)?;
            }
        }
        if kind.is_hard_link() {
            let link = entry.link_name()?.unwrap_or_default();
            let (_held, source) = link_name(view, &base.join(inside(&link)))?;
            std::fs::hard_link(source, &target)?;
        } else {
            entry.unpack(&target)?;
            if let Some(owner) = owner {
                give(&target, entry.header(), owner)?;
            }
        }
    }
    Ok(())
}

/// Who an entry is to belong to, where that is not what it says.
fn mapped_owner(
    header: &tar::Header,
    ids: Option<&UserNamespace>,
) -> io::Result<Option<(u32, u32)>> {
    if ids.is_none() {
        return Ok(None);
    }
    let id = |id: u64| u32::try_from(id).map_err(io::Error::other);
    remap::on_node(ids, (id(header.uid()?)?, id(header.gid()?)?)).map(Some)
}

/// What was unpacked gets its owner, which takes some bits of the mode away.
fn give(path: &Path, header: &tar::Header, (uid, gid): (u32, u32)) -> io::Result<()> {
    std::os::unix::fs::lchown(path, Some(uid), Some(gid))?;
    if header.entry_type().is_symlink() {
        return Ok(());
    }
    std::fs::set_permissions(path, Permissions::from_mode(header.mode()? & 0o7777))
}

fn remove_any(path: &Path, folder: bool) -> io::Result<()> {
    match folder {
        true => std::fs::remove_dir_all(path),
        false => std::fs::remove_file(path),
    }
}

/// A path without anything that leads upwards.
fn inside(path: &Path) -> PathBuf {
    let plain = |part: &Component<'_>| matches!(part, Component::Normal(_));
    path.components().filter(plain).collect()
}

/// `GET /containers/{id}/changes`.
pub(crate) async fn changes(call: Call, name: &str) -> Answer {
    let container = call.daemon.find(name)?;
    let store = call.daemon.engine.images().clone();
    let upper = container.folder.join(WRITABLE).join("upper");
    let record = container.snapshot();
    let image = record.image_id.clone();
    // Places that only a mount made are no changes.
    let mut ours = our_places();
    ours.extend(
        record
            .mounts
            .iter()
            .map(|point| PathBuf::from(&point.destination)),
    );
    let work = move || -> Result<Vec<Value>, Fault> {
        let image = store.get(&image)?;
        let layers: Vec<PathBuf> = image
            .layers
            .iter()
            .map(|layer| store.layer_folder(&layer.diff_id))
            .collect();
        let lower = View::of_layers(&layers, None)?;
        let mut found = Vec::new();
        compare(&upper, Path::new("/"), &lower, &ours, &mut found)?;
        Ok(found)
    };
    let found = tokio::task::spawn_blocking(work)
        .await
        .map_err(Fault::internal)??;
    answer::ok(&found)
}

/// Lists what is different in a folder; tells whether anything but our places was in it.
fn compare(
    folder: &Path,
    at: &Path,
    lower: &View,
    ours: &[PathBuf],
    found: &mut Vec<Value>,
) -> io::Result<bool> {
    const MODIFIED: u8 = 0;
    const ADDED: u8 = 1;
    const DELETED: u8 = 2;
    let mut entries: Vec<_> = std::fs::read_dir(folder)?.collect::<Result<_, _>>()?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    let mut others = entries.is_empty();
    for entry in entries {
        let path = at.join(entry.file_name());
        if ours.contains(&path) {
            continue;
        }
        let metadata = entry.metadata()?;
        let gone = metadata.file_type().is_char_device() && metadata.rdev() == 0;
        let known = link_name(lower, &path)
            .and_then(|(_held, name)| std::fs::symlink_metadata(name))
            .is_ok();
        let kind = match (gone, known) {
            (true, _) => DELETED,
            (false, true) => MODIFIED,
            (false, false) => ADDED,
        };
        let place = found.len();
        found.push(json!({"Path": path, "Kind": kind}));
        if metadata.is_dir() && !compare(&entry.path(), &path, lower, ours, found)? {
            found.remove(place);
            continue;
        }
        others = true;
    }
    Ok(others)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archives_stay_below_their_folder() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("root");
        std::fs::create_dir_all(root.join("data")).unwrap();
        std::os::unix::fs::symlink("/", root.join("data/up")).unwrap();
        let mut archive = tar::Builder::new(Vec::new());
        for name in ["plain", "up/outside", "deep/er"] {
            let mut header = tar::Header::new_gnu();
            header.set_size(2);
            header.set_mode(0o640);
            header.set_uid(0);
            header.set_gid(0);
            header.set_mtime(0);
            archive.append_data(&mut header, name, &b"hi"[..]).unwrap();
        }
        let bytes = archive.into_inner().unwrap();
        let view = View::of_layers(std::slice::from_ref(&root), None).unwrap();
        unpack(&view, Path::new("/data"), bytes.as_slice(), false, None).unwrap();
        assert_eq!(std::fs::read(root.join("data/plain")).unwrap(), b"hi");
        // The link leads to the container's own root, not ours.
        assert_eq!(std::fs::read(root.join("outside")).unwrap(), b"hi");
        assert_eq!(std::fs::read(root.join("data/deep/er")).unwrap(), b"hi");
        assert_eq!(inside(Path::new("/../a/./b")), Path::new("a/b"));
        let stat = stat(&view, Path::new("/data/up")).unwrap();
        assert_eq!(
            (stat["linkTarget"].as_str(), stat["name"].as_str()),
            (Some("/"), Some("up"))
        );
    }
}
