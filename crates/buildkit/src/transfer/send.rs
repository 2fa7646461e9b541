//! Files for a client: a tree it mirrors in a folder of its own, or one archive.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use oci::View;
use tokio::sync::mpsc;
use tonic::Status;

use super::bits;
use crate::sessions::{Session, stream_of};
use crate::wire::{Packet, PacketKind, Piece, Stat};

/// Bytes of one piece.
const CHUNK: usize = 128 << 10;
/// Pieces between the disk and the connection.
const PIECES: usize = 16;

/// Sends a tree of layers (the lowest first); the client keeps what it wants of it.
pub(crate) async fn send(
    session: &Session,
    exporter: usize,
    layers: Vec<PathBuf>,
) -> Result<u64, Status> {
    let (sender, receiver) = mpsc::channel::<Packet>(PIECES);
    let (asking, asked) = mpsc::unbounded_channel();
    let sending = tokio::task::spawn_blocking(move || {
        let sent = send_tree(&layers, &sender, asked);
        if let Err(error) = &sent {
            let mut packet = Packet::of(PacketKind::Error);
            packet.data = Bytes::from(error.to_string());
            // The client may be gone.
            let _ = sender.blocking_send(packet);
        }
        sent
    });
    // The client's first word may come after all of ours.
    let mut packets = session
        .target::<Packet, Packet>(exporter, stream_of(receiver))
        .await?;
    let fault = loop {
        match packets.message().await {
            Ok(Some(packet)) => match packet.kind() {
                PacketKind::Request => {
                    if asking.send(packet.id).is_err() {
                        break None;
                    }
                }
                PacketKind::Finish => break None,
                PacketKind::Error => {
                    let text = String::from_utf8_lossy(&packet.data).into_owned();
                    break Some(Status::unknown(format!("error from receiver: {text}")));
                }
                _ => break Some(Status::unknown("an answer out of place")),
            },
            Ok(None) => break None,
            Err(status) => break Some(status),
        }
    };
    drop(asking);
    let sent = sending
        .await
        .map_err(|error| Status::internal(error.to_string()))?;
    if let Some(status) = fault {
        return Err(status);
    }
    let bytes = sent.map_err(|error| Status::unknown(format!("sending files: {error}")))?;
    // The client ends the call when everything is in its place.
    while packets.message().await?.is_some() {}
    Ok(bytes)
}

fn send_tree(
    layers: &[PathBuf],
    sender: &mpsc::Sender<Packet>,
    mut asked: mpsc::UnboundedReceiver<u32>,
) -> io::Result<u64> {
    let nothing = tempfile::tempdir()?;
    let view = open(layers, nothing.path())?;
    let (_held, root) = view.open(Path::new("/"))?;
    let mut tree = Tree {
        root: &root,
        sender,
        files: Vec::new(),
    };
    tree.walk(Path::new(""))?;
    let files = std::mem::take(&mut tree.files);
    say(sender, Packet::of(PacketKind::Stat))?;
    let mut bytes = 0;
    let mut chunk = vec![0; CHUNK];
    while let Some(id) = asked.blocking_recv() {
        let path = files
            .get(id as usize)
            .and_then(Option::as_ref)
            .ok_or_else(|| io::Error::other(format!("invalid file id {id}")))?;
        let mut file = File::open(root.join(path))?;
        loop {
            let length = file.read(&mut chunk)?;
            bytes += length as u64;
            let mut packet = Packet::of(PacketKind::Data);
            packet.id = id;
            packet.data = Bytes::copy_from_slice(&chunk[..length]);
            say(sender, packet)?;
            if length == 0 {
                break;
            }
        }
    }
    say(sender, Packet::of(PacketKind::Finish))?;
    Ok(bytes)
}

fn say(sender: &mpsc::Sender<Packet>, packet: Packet) -> io::Result<()> {
    let sent = sender.blocking_send(packet);
    sent.map_err(|_| io::ErrorKind::BrokenPipe.into())
}

struct Tree<'a> {
    root: &'a Path,
    sender: &'a mpsc::Sender<Packet>,
    /// By their numbers; only those that have contents.
    files: Vec<Option<PathBuf>>,
}

impl Tree<'_> {
    /// Tells of everything in a folder, in the order of names.
    fn walk(&mut self, folder: &Path) -> io::Result<()> {
        let mut entries: Vec<_> =
            fs::read_dir(self.root.join(folder))?.collect::<Result<_, _>>()?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let path = folder.join(entry.file_name());
            let metadata = entry.metadata()?;
            let stat = stat(&entry.path(), &path, &metadata)?;
            self.files.push(metadata.is_file().then(|| path.clone()));
            say(
                self.sender,
                Packet {
                    stat: Some(stat),
                    ..Packet::of(PacketKind::Stat)
                },
            )?;
            if metadata.is_dir() {
                self.walk(&path)?;
            }
        }
        Ok(())
    }
}

/// Kind and permissions, as Go has them.
pub(crate) fn mode_of(metadata: &fs::Metadata) -> u32 {
    let kind = metadata.file_type();
    let bits = match () {
        () if kind.is_dir() => bits::FOLDER,
        () if kind.is_symlink() => bits::SYMLINK,
        () if kind.is_char_device() => bits::DEVICE | bits::CHARACTERS,
        () if kind.is_block_device() => bits::DEVICE,
        () if kind.is_fifo() => bits::PIPE,
        () if kind.is_socket() => bits::SOCKET,
        () => 0,
    };
    bits | bits::of_permissions(metadata.mode())
}

fn stat(place: &Path, path: &Path, metadata: &fs::Metadata) -> io::Result<Stat> {
    let (kind, mode) = (metadata.file_type(), mode_of(metadata));
    let linkname = match kind.is_symlink() {
        true => fs::read_link(place)?.to_string_lossy().into_owned(),
        false => String::new(),
    };
    let device = match mode & bits::DEVICE {
        0 => 0,
        _ => metadata.rdev(),
    };
    Ok(Stat {
        path: path.to_string_lossy().into_owned(),
        mode,
        uid: metadata.uid(),
        gid: metadata.gid(),
        size: match kind.is_file() {
            true => i64::try_from(metadata.len()).unwrap_or(i64::MAX),
            false => 0,
        },
        modified: metadata.mtime() * 1_000_000_000 + metadata.mtime_nsec(),
        linkname,
        devmajor: i64::try_from(nix::sys::stat::major(device)).unwrap_or(0),
        devminor: i64::try_from(nix::sys::stat::minor(device)).unwrap_or(0),
        ..Stat::default()
    })
}

/// Sends a tree of layers as one archive.
pub(crate) async fn send_tar(
    session: &Session,
    exporter: usize,
    layers: Vec<PathBuf>,
) -> Result<(), Status> {
    let (sender, receiver) = mpsc::channel::<Piece>(PIECES);
    let packing = tokio::task::spawn_blocking(move || {
        let nothing = tempfile::tempdir()?;
        let view = open(&layers, nothing.path())?;
        let (_held, root) = view.open(Path::new("/"))?;
        let output = io::BufWriter::with_capacity(CHUNK, Output(sender));
        let mut archive = tar::Builder::new(output);
        archive.follow_symlinks(false);
        pack(&mut archive, &root, Path::new(""))?;
        archive.into_inner()?.flush()
    });
    let mut answers = session
        .target::<Piece, Piece>(exporter, stream_of(receiver))
        .await?;
    let packed = packing
        .await
        .map_err(|error| Status::internal(error.to_string()))?;
    // A client that refuses says why; our own words are that it did not listen.
    while answers.message().await?.is_some() {}
    packed.map_err(|error| Status::unknown(format!("sending an archive: {error}")))
}

/// Everything in a folder, in the order of names.
fn pack(archive: &mut tar::Builder<impl Write>, root: &Path, folder: &Path) -> io::Result<()> {
    let mut entries: Vec<_> = fs::read_dir(root.join(folder))?.collect::<Result<_, _>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let path = folder.join(entry.file_name());
        let kind = entry.file_type()?;
        if kind.is_socket() {
            continue;
        }
        if kind.is_dir() {
            archive.append_dir(&path, entry.path())?;
            pack(archive, root, &path)?;
        } else {
            archive.append_path_with_name(entry.path(), &path)?;
        }
    }
    Ok(())
}

/// Layers as one tree; none at all are an empty one.
fn open(layers: &[PathBuf], nothing: &Path) -> io::Result<View> {
    match layers.is_empty() {
        true => View::of_layers(&[nothing.to_owned()], None),
        false => View::of_layers(layers, None),
    }
}

struct Output(mpsc::Sender<Piece>);

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let piece = Piece {
            data: Bytes::copy_from_slice(bytes),
        };
        let sent = self.0.blocking_send(piece);
        sent.map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
