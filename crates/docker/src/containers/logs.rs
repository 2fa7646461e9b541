//! Logs: the engine's file, line by line, and what is added to it while somebody follows.

use std::collections::VecDeque;
use std::io::{self, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;

use base::Notice;
use bytes::Bytes;
use node_api::Writer;
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt, AsyncWriteExt};

use crate::answer::{self, Answer, Fault, Pieces};
use crate::call::Call;
use crate::daemon::Container;
use crate::frames::{self, STDERR, STDOUT};
use crate::record::parse_moment;

/// Bytes read at once.
const CHUNK: usize = 64 << 10;
/// Lines that `tail` may keep in memory.
const TAIL_MAX: usize = 1 << 20;

/// What of a log is wanted.
#[derive(Clone, Debug, Default)]
pub(super) struct LogWish {
    pub(super) stdout: bool,
    pub(super) stderr: bool,
    pub(super) timestamps: bool,
    pub(super) since: Option<i64>,
    pub(super) until: Option<i64>,
    pub(super) tail: Option<usize>,
}

/// `GET /containers/{id}/logs`.
pub(crate) async fn logs(call: Call, name: &str) -> Answer {
    let container = call.daemon.find(name)?;
    let query = &call.query;
    let moment = |name: &str| match query.text(name) {
        "" | "0" => Ok(None),
        text => parse_moment(text)
            .map(Some)
            .ok_or_else(|| Fault::bad(format!("invalid value for {name:?}: {text:?}"))),
    };
    let wish = LogWish {
        stdout: query.flag("stdout"),
        stderr: query.flag("stderr"),
        timestamps: query.flag("timestamps"),
        since: moment("since")?,
        until: moment("until")?,
        // Docker takes what is no number for "all".
        tail: query.text("tail").parse().ok(),
    };
    if !wish.stdout && !wish.stderr {
        let message = "Bad parameters: you must choose at least one stream";
        return Err(Fault::bad(message));
    }
    let readable = {
        let record = container.record.read();
        !crate::drivers::is_none(&record.host) && crate::shipping::is_readable(&record.host)
    };
    if !readable {
        let message = "configured logging driver does not support reading";
        return Err(Fault::unable(message));
    }
    let tty = container.record.read().config.tty;
    let kind = match tty || call.version < (1, 42) {
        true => frames::RAW,
        false => frames::MULTIPLEXED,
    };
    let follow = query.flag("follow");
    let (pieces, response) = answer::stream(kind);
    tokio::spawn(async move {
        if let Err(error) = send(&container, wish, follow, &pieces).await {
            // The client learns it by an answer that breaks off.
            let _ = pieces.send(Err(error)).await;
        }
    });
    Ok(response)
}

/// Writes what there is so far.
pub(super) async fn replay(
    container: &Container,
    wish: &LogWish,
    output: &mut Writer,
) -> io::Result<()> {
    let mut lines = Lines::new(container, wish.clone());
    let mut files = LogFiles::new(container.log_path());
    while files.next().await? {
        while let Some(file) = &mut files.open
            && let Some(piece) = lines.read(file).await?
        {
            output.write_all(&piece).await?;
        }
    }
    output.write_all(&lines.rest()).await
}

async fn send(
    container: &Arc<Container>,
    wish: LogWish,
    follow: bool,
    pieces: &Pieces,
) -> io::Result<()> {
    let mut progress = container.progress.subscribe();
    // Before the file is read, so that no change after it goes unseen.
    let mut notice = follow
        .then(|| Notice::of_folder(&container.folder))
        .transpose()?;
    let mut lines = Lines::new(container, wish);
    let mut files = LogFiles::new(container.log_path());
    loop {
        let over = {
            let progress = progress.borrow_and_update();
            !progress.up || progress.removed
        };
        loop {
            while let Some(file) = &mut files.open
                && let Some(piece) = lines.read(file).await?
            {
                if !piece.is_empty() && pieces.send(Ok(piece)).await.is_err() {
                    return Ok(());
                }
            }
            if !files.next().await? {
                break;
            }
        }
        if files.open.is_some() {
            let rest = lines.rest();
            if !rest.is_empty() && pieces.send(Ok(rest)).await.is_err() {
                return Ok(());
            }
        }
        let Some(notice) = notice.as_mut().filter(|_| !over && !lines.past_end) else {
            return Ok(());
        };
        tokio::select! {
            changed = notice.changed() => changed?,
            changed = progress.changed() => if changed.is_err() { return Ok(()) },
            () = pieces.closed() => return Ok(()),
        }
    }
}

/// The files of a log in their order, however they are renamed while they are read.
pub(crate) struct LogFiles {
    path: PathBuf,
    /// Where to begin, when it is still there.
    known: u64,
    pub(crate) open: Option<File>,
    /// What is next, when the rest of the open one has been read.
    after: Option<File>,
}

impl LogFiles {
    fn new(path: PathBuf) -> LogFiles {
        LogFiles::from(path, 0)
    }

    /// Begins with the file of this inode, or with the oldest.
    pub(crate) fn from(path: PathBuf, known: u64) -> LogFiles {
        LogFiles {
            path,
            known,
            open: None,
            after: None,
        }
    }

    /// Goes on to the file behind the open one, which was read to its end; false when there is
    /// nothing more. The first time it only looks: more may have come before the file was left.
    pub(crate) async fn next(&mut self) -> io::Result<bool> {
        if let Some(after) = self.after.take() {
            self.open = Some(after);
            return Ok(true);
        }
        let mut current = None;
        if let Some(open) = &self.open {
            current = Some(open.metadata().await?.ino());
        }
        // The youngest first, until the one that is known comes up.
        let mut younger = None;
        for place in 0.. {
            let mut name = self.path.as_os_str().to_owned();
            if place > 0 {
                name.push(format!(".{place}"));
            }
            let file = match File::open(PathBuf::from(name)).await {
                // Between two renamings there may be no first.
                Err(error) if error.kind() == io::ErrorKind::NotFound && place == 0 => continue,
                Err(error) if error.kind() == io::ErrorKind::NotFound => break,
                other => other?,
            };
            let inode = file.metadata().await?.ino();
            if Some(inode) == current {
                break;
            }
            younger = Some(file);
            if self.open.is_none() && inode == self.known {
                break;
            }
        }
        let found = younger.is_some();
        match self.open {
            None => self.open = younger,
            Some(_) => self.after = younger,
        }
        Ok(found)
    }
}

/// Turns the file into what is sent.
struct Lines {
    wish: LogWish,
    raw: bool,
    /// The beginning of a line whose end has not come.
    start: Vec<u8>,
    /// With `tail`, until the end of the file is first reached: what may have to be sent.
    kept: Option<VecDeque<Bytes>>,
    within_line: [bool; 2],
    past_end: bool,
}

impl Lines {
    fn new(container: &Container, wish: LogWish) -> Lines {
        Lines {
            raw: container.record.read().config.tty,
            kept: wish.tail.map(|_| VecDeque::new()),
            wish,
            start: Vec::new(),
            within_line: [false; 2],
            past_end: false,
        }
    }

    /// The next piece to be sent; `None` at the end of the file as it is now.
    async fn read(&mut self, file: &mut File) -> io::Result<Option<Bytes>> {
        let mut chunk = vec![0; CHUNK];
        let length = file.read(&mut chunk).await?;
        if length == 0 {
            // What follows is read from here.
            file.seek(SeekFrom::Current(0)).await?;
            return Ok(None);
        }
        self.start.extend_from_slice(&chunk[..length]);
        let Some(end) = self.start.iter().rposition(|byte| *byte == b'\n') else {
            return Ok(Some(Bytes::new()));
        };
        let rest = self.start.split_off(end + 1);
        let whole = std::mem::replace(&mut self.start, rest);
        let mut out = Vec::new();
        for line in whole.split_inclusive(|byte| *byte == b'\n') {
            let Some(piece) = self.convert(line) else {
                continue;
            };
            match (&mut self.kept, self.wish.tail) {
                (Some(kept), Some(tail)) => {
                    kept.push_back(piece);
                    if kept.len() > tail.min(TAIL_MAX) {
                        kept.pop_front();
                    }
                }
                _ => out.extend_from_slice(&piece),
            }
        }
        Ok(Some(out.into()))
    }

    /// The last lines, once.
    fn rest(&mut self) -> Bytes {
        let kept = self.kept.take().into_iter().flatten();
        kept.flatten().collect::<Vec<u8>>().into()
    }

    fn convert(&mut self, line: &[u8]) -> Option<Bytes> {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let mut parts = line.splitn(4, |byte| *byte == b' ');
        let (time, stream, tag) = (parts.next()?, parts.next()?, parts.next()?);
        let text = parts.next().unwrap_or_default();
        let (index, stream, wanted) = match stream {
            b"stderr" => (1, STDERR, self.wish.stderr),
            _ => (0, STDOUT, self.wish.stdout),
        };
        let moment = std::str::from_utf8(time).ok().and_then(parse_moment)?;
        if self.wish.until.is_some_and(|until| moment > until) {
            self.past_end = true;
            return None;
        }
        if !wanted || self.wish.since.is_some_and(|since| moment < since) {
            return None;
        }
        let mut out = Vec::with_capacity(line.len());
        if self.wish.timestamps && !self.within_line[index] {
            out.extend_from_slice(time);
            out.push(b' ');
        }
        out.extend_from_slice(text);
        self.within_line[index] = tag == b"P";
        if tag != b"P" {
            out.push(b'\n');
        }
        Some(frames::piece(stream, self.raw, &out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(wish: LogWish) -> Lines {
        Lines {
            kept: wish.tail.map(|_| VecDeque::new()),
            wish,
            raw: true,
            start: Vec::new(),
            within_line: [false; 2],
            past_end: false,
        }
    }

    async fn read(wish: LogWish) -> String {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let text = "1970-01-01T00:00:01.0Z stdout F one\n1970-01-01T00:00:02.0Z stderr F two\n\
                    1970-01-01T00:00:03.0Z stdout P thr\n1970-01-01T00:00:03.0Z stdout F ee\n";
        std::fs::write(&path, text).unwrap();
        let mut file = File::open(&path).await.unwrap();
        let mut lines = lines(wish);
        let mut all = Vec::new();
        while let Some(piece) = lines.read(&mut file).await.unwrap() {
            all.extend_from_slice(&piece);
        }
        all.extend_from_slice(&lines.rest());
        String::from_utf8(all).unwrap()
    }

    #[tokio::test]
    async fn nothing_is_missed_where_files_are_rotated() {
        async fn rest(files: &mut LogFiles) -> String {
            let mut text = String::new();
            let open = files.open.as_mut().unwrap();
            open.read_to_string(&mut text).await.unwrap();
            text
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let older = |place: u32| folder.path().join(format!("log.{place}"));
        let mut files = LogFiles::new(path.clone());
        std::fs::write(&path, "one ").unwrap();
        assert!(files.next().await.unwrap());
        assert_eq!(rest(&mut files).await, "one ");
        assert!(!files.next().await.unwrap());
        std::fs::write(&path, "one two").unwrap();
        std::fs::rename(&path, older(1)).unwrap();
        std::fs::write(&path, "three").unwrap();
        std::fs::rename(older(1), older(2)).unwrap();
        std::fs::rename(&path, older(1)).unwrap();
        std::fs::write(&path, "four").unwrap();
        for expect in ["two", "three", "", "four"] {
            assert!(files.next().await.unwrap());
            assert_eq!(rest(&mut files).await, expect);
        }
        assert!(!files.next().await.unwrap());
    }

    #[tokio::test]
    async fn what_is_asked_for_is_sent() {
        let both = LogWish {
            stdout: true,
            stderr: true,
            ..LogWish::default()
        };
        assert_eq!(read(both.clone()).await, "one\ntwo\nthree\n");
        let err = LogWish {
            stdout: false,
            timestamps: true,
            ..both.clone()
        };
        assert_eq!(read(err).await, "1970-01-01T00:00:02.0Z two\n");
        let middle = LogWish {
            since: Some(2_000_000_000),
            until: Some(2_500_000_000),
            ..both.clone()
        };
        assert_eq!(read(middle).await, "two\n");
        let last = LogWish {
            tail: Some(2),
            ..both
        };
        assert_eq!(read(last).await, "three\n");
    }
}
