//! Files of a client: it tells of each one in order, we ask for contents, they come in pieces.
//!
//! The folder is ours alone. Every path must lie in a folder that was told of before, so nothing
//! that a client tells can lead out of it.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use nix::sys::stat::{Mode, UtimensatFlags, utimensat};
use nix::sys::time::TimeSpec;
use tokio::sync::mpsc;
use tonic::Status;

use super::bits;
use crate::sessions::{Files, Session};
use crate::wire::{Packet, PacketKind, Stat};

/// Files and folders of one transfer.
const FILES_MAX: usize = 2_000_000;
/// Packets between the connection and the disk.
const PACKETS: usize = 64;

/// What came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Received {
    pub(crate) bytes: u64,
}

/// Receives files into an empty folder. `progress` hears how many bytes there are.
pub(crate) async fn receive(
    session: &Session,
    files: &Files<'_>,
    folder: &Path,
    mut progress: impl FnMut(u64),
) -> Result<Received, Status> {
    // As many as there are files; who tells of too many is refused.
    let (asking, mut asked) = mpsc::unbounded_channel();
    let requests = futures::stream::poll_fn(move |context| asked.poll_recv(context));
    let mut packets = session.files(files, requests).await?;
    let (sender, mut receiver) = mpsc::channel(PACKETS);
    let mut writer = Writer::new(folder, asking);
    let writing = tokio::task::spawn_blocking(move || {
        while let Some(packet) = receiver.blocking_recv() {
            writer.take(packet)?;
        }
        writer.finish()
    });
    let mut bytes = 0;
    let fault = loop {
        match packets.message().await {
            Ok(Some(packet)) => {
                bytes += packet.data.len() as u64;
                progress(bytes);
                let last = packet.kind() == PacketKind::Finish;
                if sender.send(packet).await.is_err() || last {
                    break None;
                }
            }
            Ok(None) => break None,
            Err(status) => break Some(status),
        }
    };
    drop(sender);
    let written = writing
        .await
        .map_err(|error| Status::internal(error.to_string()))?;
    match (written, fault) {
        (_, Some(status)) => Err(status),
        (Err(error), None) => Err(Status::unknown(format!("receiving files: {error}"))),
        (Ok(()), None) => Ok(Received { bytes }),
    }
}

/// Puts files where they belong.
struct Writer {
    folder: PathBuf,
    asking: mpsc::UnboundedSender<Packet>,
    folders: BTreeSet<PathBuf>,
    plain: BTreeSet<PathBuf>,
    /// Of files that are to come, and the one being written.
    awaited: BTreeMap<u32, (PathBuf, Stat)>,
    open: BTreeMap<u32, File>,
    /// Times of folders, set when nothing comes into them any more.
    times: Vec<(PathBuf, Stat)>,
    count: u32,
    all_told: bool,
    finished: bool,
}

impl Writer {
    fn new(folder: &Path, asking: mpsc::UnboundedSender<Packet>) -> Writer {
        Writer {
            folder: folder.to_owned(),
            asking,
            folders: BTreeSet::from([PathBuf::new()]),
            plain: BTreeSet::new(),
            awaited: BTreeMap::new(),
            open: BTreeMap::new(),
            times: Vec::new(),
            count: 0,
            all_told: false,
            finished: false,
        }
    }

    fn take(&mut self, packet: Packet) -> io::Result<()> {
        match packet.kind() {
            PacketKind::Stat => match packet.stat {
                Some(stat) => self.told(stat)?,
                None => self.all_told = true,
            },
            PacketKind::Data => self.data(packet.id, &packet.data)?,
            PacketKind::Error => {
                let text = String::from_utf8_lossy(&packet.data);
                return Err(io::Error::other(format!("error from sender: {text}")));
            }
            PacketKind::Finish => return Ok(()),
            PacketKind::Request => return Err(wrong("a request from the sender")),
        }
        if self.all_told && self.awaited.is_empty() && !self.finished {
            self.finished = true;
            self.say(Packet::of(PacketKind::Finish));
        }
        Ok(())
    }

    fn say(&self, packet: Packet) {
        // A connection that has ended is noticed where packets come in.
        let _ = self.asking.send(packet);
    }

    fn told(&mut self, stat: Stat) -> io::Result<()> {
        let id = self.count;
        self.count += 1;
        if self.count as usize > FILES_MAX {
            return Err(wrong("too many files"));
        }
        let path = PathBuf::from(&stat.path);
        let plain =
            |part: std::path::Component<'_>| matches!(part, std::path::Component::Normal(_));
        let parent = path.parent().unwrap_or(Path::new(""));
        if !path.components().all(plain) || !self.folders.contains(parent) {
            return Err(wrong(&format!("a path out of place: {:?}", stat.path)));
        }
        if path.as_os_str().is_empty() {
            return Ok(());
        }
        let place = self.folder.join(&path);
        match stat.mode & bits::KIND {
            bits::FOLDER => {
                fs::create_dir(&place)?;
                self.folders.insert(path);
                self.times.push((place, stat));
                Ok(())
            }
            bits::SYMLINK => {
                symlink(&stat.linkname, &place)?;
                set_time(&place, &stat)
            }
            0 if !stat.linkname.is_empty() => {
                let source = Path::new(stat.linkname.trim_start_matches('/'));
                if !self.plain.contains(source) {
                    return Err(wrong(&format!("a link to nothing: {:?}", stat.linkname)));
                }
                fs::hard_link(self.folder.join(source), &place)
            }
            0 => {
                let file = File::create_new(&place)?;
                self.plain.insert(path);
                if stat.size == 0 {
                    return complete(&file, &place, &stat);
                }
                self.awaited.insert(id, (place, stat));
                self.say(Packet {
                    id,
                    ..Packet::of(PacketKind::Request)
                });
                Ok(())
            }
            bits::PIPE => {
                nix::unistd::mkfifo(&place, Mode::from_bits_truncate(0o600))?;
                fs::set_permissions(&place, mode(&stat))
            }
            // Sockets and devices are no contents.
            _ => Ok(()),
        }
    }

    fn data(&mut self, id: u32, data: &[u8]) -> io::Result<()> {
        let Some((place, stat)) = self.awaited.get(&id) else {
            return Err(wrong("contents that nobody asked for"));
        };
        let file = match self.open.entry(id) {
            Entry::Occupied(open) => open.into_mut(),
            Entry::Vacant(closed) => closed.insert(File::options().write(true).open(place)?),
        };
        if !data.is_empty() {
            return file.write_all(data);
        }
        complete(file, place, stat)?;
        self.open.remove(&id);
        self.awaited.remove(&id);
        Ok(())
    }

    fn finish(self) -> io::Result<()> {
        if !self.finished {
            return Err(wrong("the transfer ended too early"));
        }
        // Inner ones first, so that none changes those above it.
        for (place, stat) in self.times.iter().rev() {
            fs::set_permissions(place, mode(stat))?;
            set_time(place, stat)?;
        }
        Ok(())
    }
}

fn complete(file: &File, place: &Path, stat: &Stat) -> io::Result<()> {
    file.set_permissions(mode(stat))?;
    set_time(place, stat)
}

fn mode(stat: &Stat) -> fs::Permissions {
    fs::Permissions::from_mode(bits::permissions(stat.mode))
}

fn set_time(place: &Path, stat: &Stat) -> io::Result<()> {
    const SECOND: i64 = 1_000_000_000;
    let time = TimeSpec::new(
        stat.modified.div_euclid(SECOND),
        stat.modified.rem_euclid(SECOND),
    );
    utimensat(
        nix::fcntl::AT_FDCWD,
        place,
        &time,
        &time,
        UtimensatFlags::NoFollowSymlink,
    )?;
    Ok(())
}

fn wrong(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stat(path: &str, mode: u32) -> Packet {
        let stat = Stat {
            path: path.to_owned(),
            mode,
            modified: -1,
            ..Stat::default()
        };
        Packet {
            stat: Some(stat),
            ..Packet::of(PacketKind::Stat)
        }
    }

    fn link(path: &str, mode: u32, to: &str) -> Packet {
        let mut packet = stat(path, mode);
        packet.stat.as_mut().unwrap().linkname = to.to_owned();
        packet
    }

    #[test]
    fn files_come_and_nothing_leads_out() {
        let folder = tempfile::tempdir().unwrap();
        let (asking, mut asked) = mpsc::unbounded_channel();
        let mut writer = Writer::new(folder.path(), asking);
        writer.take(stat("d", bits::FOLDER | 0o500)).unwrap();
        let mut file = stat("d/f", 0o640 | bits::SETGID);
        file.stat.as_mut().unwrap().size = 2;
        writer.take(file).unwrap();
        writer.take(link("d/h", 0o640, "d/f")).unwrap();
        writer.take(link("up", bits::SYMLINK, "/tmp")).unwrap();
        for bad in [
            stat("up/x", 0o644),
            stat("../x", 0o644),
            stat("/x", 0o644),
            stat("no/x", 0o644),
            link("y", 0o644, "up"),
            link("y", 0o644, "/etc/passwd"),
        ] {
            assert!(writer.take(bad.clone()).is_err(), "{bad:?}");
        }
        assert_eq!(asked.try_recv().unwrap().id, 1);
        writer.take(Packet::of(PacketKind::Stat)).unwrap();
        let mut data = Packet::of(PacketKind::Data);
        assert!(writer.take(data.clone()).is_err());
        data.id = 1;
        data.data = bytes::Bytes::from_static(b"hi");
        writer.take(data.clone()).unwrap();
        data.data = bytes::Bytes::new();
        writer.take(data).unwrap();
        assert_eq!(asked.try_recv().unwrap().kind(), PacketKind::Finish);
        writer.finish().unwrap();
        assert_eq!(fs::read(folder.path().join("d/h")).unwrap(), b"hi");
        let found = fs::metadata(folder.path().join("d/f")).unwrap();
        assert_eq!(found.permissions().mode() & 0o7777, 0o2640);
    }

    #[test]
    fn a_transfer_that_breaks_off_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let (asking, _asked) = mpsc::unbounded_channel();
        let mut writer = Writer::new(folder.path(), asking);
        writer.take(stat("f", 0o644)).unwrap();
        assert!(writer.finish().is_err());
    }
}
