//! Reads a container's log in CRI's format (`time stream tag text`), and
//! follows it over rotations until the container has ended.

use std::io::{self, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use jiff::Timestamp;
use node_api::ContainerState;
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio::sync::{mpsc, watch};

use crate::pods::PodView;
use base::Notice;

/// Bytes read at once.
const CHUNK: usize = 64 << 10;
/// Longest line kept whole; longer ones are sent in pieces.
const LINE_BYTES_MAX: usize = 1 << 20;

/// What of a log is wanted.
#[derive(Clone, Debug, Default)]
pub(super) struct LogOptions {
    pub(super) follow: bool,
    pub(super) timestamps: bool,
    pub(super) tail_lines: Option<u64>,
    pub(super) limit_bytes: Option<u64>,
    pub(super) since: Option<Timestamp>,
    /// `stdout` or `stderr` alone.
    pub(super) stream: Option<&'static str>,
}

/// Sends one log to one reader.
pub(super) struct LogReader {
    pub(super) path: PathBuf,
    pub(super) container_id: String,
    pub(super) options: LogOptions,
    /// Tells when the container ends; `None` when its pod is gone.
    pub(super) alive: Option<watch::Receiver<PodView>>,
    pub(super) pieces: mpsc::Sender<Bytes>,
}

/// Why reading came to an end before the log did.
enum End {
    /// The reader left, or got as many bytes as it wanted.
    Enough,
    Io(io::Error),
}

impl From<io::Error> for End {
    fn from(error: io::Error) -> End {
        End::Io(error)
    }
}

/// Turns raw lines into what is sent.
struct Filter {
    options: LogOptions,
    left: u64,
    /// The last piece sent did not end a line.
    within_line: bool,
}

impl LogReader {
    pub(super) async fn run(self) {
        if let Err(End::Io(error)) = self.read().await {
            tracing::debug!(%error, path = %self.path.display(), "log not read");
        }
    }

    async fn read(&self) -> Result<(), End> {
        let folder = self.path.parent().unwrap_or(Path::new("/"));
        // Before the file is read, so that no change after it goes unseen.
        let mut notice = match self.options.follow {
            true => Some(Notice::of_folder(folder)?),
            false => None,
        };
        let mut file = File::open(&self.path).await?;
        if let Some(lines) = self.options.tail_lines {
            let from = tail_offset(&mut file, lines).await?;
            file.seek(SeekFrom::Start(from)).await?;
        }
        let mut filter = Filter {
            left: self.options.limit_bytes.unwrap_or(u64::MAX),
            options: self.options.clone(),
            within_line: false,
        };
        let mut rest = Vec::new();
        let mut alive = self.alive.clone();
        loop {
            let ended = !self.is_running(alive.as_mut());
            self.pump(&mut file, &mut rest, &mut filter).await?;
            if let Some(next) = self.next_file(&file).await? {
                // Renamed while we read: what was written until then comes first.
                self.pump(&mut file, &mut rest, &mut filter).await?;
                file = next;
                continue;
            }
            let Some(notice) = notice.as_mut().filter(|_| !ended) else {
                return self.send(filter.convert(&rest)).await;
            };
            self.wait(notice, alive.as_mut()).await?;
        }
    }

    async fn wait(
        &self,
        notice: &mut Notice,
        alive: Option<&mut watch::Receiver<PodView>>,
    ) -> Result<(), End> {
        let state_changed = async {
            match alive {
                Some(alive) => drop(alive.changed().await),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = notice.changed() => Ok(changed?),
            () = state_changed => Ok(()),
            () = self.pieces.closed() => Err(End::Enough),
        }
    }

    fn is_running(&self, alive: Option<&mut watch::Receiver<PodView>>) -> bool {
        alive.is_some_and(|alive| {
            // A sender that is gone belongs to a pod that is gone.
            let known = alive.has_changed().is_ok();
            let view = alive.borrow_and_update();
            let container = view.containers.get(&self.container_id);
            known && container.is_some_and(|c| c.state == ContainerState::Running)
        })
    }

    /// The file that took the place of the one we read, if there is one.
    async fn next_file(&self, file: &File) -> Result<Option<File>, End> {
        let ours = file.metadata().await?.ino();
        match tokio::fs::metadata(&self.path).await {
            Ok(meta) if meta.ino() != ours => Ok(Some(File::open(&self.path).await?)),
            Ok(_) => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Sends all whole lines up to the end of the file as it is now.
    async fn pump(
        &self,
        file: &mut File,
        rest: &mut Vec<u8>,
        filter: &mut Filter,
    ) -> Result<(), End> {
        loop {
            rest.reserve(CHUNK);
            let read = file.take(CHUNK as u64).read_buf(rest).await?;
            if read == 0 {
                return Ok(());
            }
            let whole = match rest.iter().rposition(|byte| *byte == b'\n') {
                Some(at) => at + 1,
                None if rest.len() > LINE_BYTES_MAX => rest.len(),
                None => continue,
            };
            let mut piece = Vec::with_capacity(whole);
            for line in rest[..whole].split_inclusive(|byte| *byte == b'\n') {
                piece.extend_from_slice(&filter.convert(line));
            }
            rest.drain(..whole);
            self.send(piece).await?;
            if filter.left == 0 {
                return Err(End::Enough);
            }
        }
    }

    async fn send(&self, piece: Vec<u8>) -> Result<(), End> {
        if piece.is_empty() {
            return Ok(());
        }
        self.pieces
            .send(piece.into())
            .await
            .map_err(|_| End::Enough)
    }
}

impl Filter {
    /// What of one raw line is sent.
    fn convert(&mut self, line: &[u8]) -> Vec<u8> {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let mut parts = line.splitn(4, |byte| *byte == b' ');
        let (Some(time), Some(stream), Some(tag)) = (parts.next(), parts.next(), parts.next())
        else {
            return Vec::new();
        };
        let text = parts.next().unwrap_or_default();
        let other = self
            .options
            .stream
            .is_some_and(|wanted| wanted.as_bytes() != stream);
        let early = self.options.since.is_some_and(|since| {
            let at = std::str::from_utf8(time).ok().and_then(meta::time::parse);
            at.is_none_or(|at| at < since)
        });
        if other || early {
            return Vec::new();
        }
        let mut out = Vec::with_capacity(line.len());
        if self.options.timestamps && !self.within_line {
            out.extend_from_slice(time);
            out.push(b' ');
        }
        out.extend_from_slice(text);
        let partial = tag.split(|byte| *byte == b':').next() == Some(b"P");
        self.within_line = partial;
        if !partial {
            out.push(b'\n');
        }
        out.truncate(usize::try_from(self.left).unwrap_or(usize::MAX));
        self.left -= out.len() as u64;
        out
    }
}

/// Where the last `lines` lines begin.
async fn tail_offset(file: &mut File, lines: u64) -> io::Result<u64> {
    let length = file.metadata().await?.len();
    if lines == 0 {
        return Ok(length);
    }
    let (mut end, mut found) = (length, 0);
    let mut chunk = vec![0; CHUNK];
    while end > 0 {
        let start = end.saturating_sub(CHUNK as u64);
        let size = usize::try_from(end - start).unwrap_or(CHUNK);
        file.seek(SeekFrom::Start(start)).await?;
        file.read_exact(&mut chunk[..size]).await?;
        for at in (0..size).rev().filter(|at| chunk[*at] == b'\n') {
            // The newline that ends the file begins no line.
            if start + at as u64 + 1 == length {
                continue;
            }
            found += 1;
            if found == lines {
                return Ok(start + at as u64 + 1);
            }
        }
        end = start;
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "2026-01-01T00:00:01.000000000Z stdout F one\n\
                       2026-01-01T00:00:02.000000000Z stderr F two\n\
                       2026-01-01T00:00:03.000000000Z stdout P thr\n\
                       2026-01-01T00:00:03.000000000Z stdout F ee\n";

    async fn read(options: LogOptions) -> String {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("0.log");
        std::fs::write(&path, LOG).unwrap();
        let (pieces, mut body) = mpsc::channel(8);
        let reader = LogReader {
            path,
            container_id: "c".into(),
            options,
            alive: None,
            pieces,
        };
        reader.run().await;
        let mut all = Vec::new();
        while let Some(piece) = body.recv().await {
            all.extend_from_slice(&piece);
        }
        String::from_utf8(all).unwrap()
    }

    #[tokio::test]
    async fn options_choose_what_is_sent() {
        let plain = LogOptions::default();
        assert_eq!(read(plain.clone()).await, "one\ntwo\nthree\n");
        let options = LogOptions {
            tail_lines: Some(3),
            ..plain.clone()
        };
        assert_eq!(read(options).await, "two\nthree\n");
        let options = LogOptions {
            tail_lines: Some(0),
            ..plain.clone()
        };
        assert_eq!(read(options).await, "");
        let options = LogOptions {
            tail_lines: Some(99),
            limit_bytes: Some(5),
            ..plain.clone()
        };
        assert_eq!(read(options).await, "one\nt");
        let options = LogOptions {
            stream: Some("stderr"),
            timestamps: true,
            ..plain.clone()
        };
        assert_eq!(read(options).await, "2026-01-01T00:00:02.000000000Z two\n");
        let since = "2026-01-01T00:00:02Z".parse().ok();
        let options = LogOptions { since, ..plain };
        assert_eq!(read(options).await, "two\nthree\n");
    }

    #[tokio::test]
    async fn a_rotation_loses_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("0.log");
        let line = |text: &str| format!("2026-01-01T00:00:01Z stdout F {text}\n");
        std::fs::write(&path, line("one")).unwrap();
        let mut view = PodView::default();
        let container = serde_json::from_value(serde_json::json!({
            "id": "c", "sandbox_id": "s", "config": node_api::ContainerConfig::default(),
            "state": "Running", "created_at": 1, "started_at": 1, "finished_at": 0,
            "exit_code": 0, "image_id": "", "reason": "", "message": "", "log_path": path,
            "pid": 1,
        }));
        view.containers.insert("c".into(), container.unwrap());
        let (shown, alive) = watch::channel(view);
        let (pieces, mut body) = mpsc::channel(8);
        let options = LogOptions {
            follow: true,
            ..LogOptions::default()
        };
        let reader = LogReader {
            path: path.clone(),
            container_id: "c".into(),
            options,
            alive: Some(alive),
            pieces,
        };
        let task = tokio::spawn(reader.run());
        assert_eq!(&body.recv().await.unwrap()[..], b"one\n");
        let old = folder.path().join("0.log.old");
        std::fs::rename(&path, &old).unwrap();
        use std::io::Write;
        let mut writer = std::fs::OpenOptions::new().append(true).open(&old).unwrap();
        writer.write_all(line("two").as_bytes()).unwrap();
        assert_eq!(&body.recv().await.unwrap()[..], b"two\n");
        std::fs::write(&path, line("three")).unwrap();
        assert_eq!(&body.recv().await.unwrap()[..], b"three\n");
        shown.send_modify(|view| {
            view.containers.get_mut("c").unwrap().state = ContainerState::Exited;
        });
        task.await.unwrap();
        assert!(body.recv().await.is_none());
    }
}
