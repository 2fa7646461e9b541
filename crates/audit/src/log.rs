//! The log backend: one line per event, of JSON as a rule, in files that are rotated.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use jiff::Timestamp;
use parking_lot::Mutex;

use crate::{Backend, legacy};

/// Size at which a file is rotated when none is named, as upstream has it.
const SIZE_DEFAULT: u64 = 100 << 20;
/// At the end of the names of compressed files.
const COMPRESSED: &str = ".gz";
/// In the names of rotated files, between stem and extension.
const NAME_TIME: &str = "%Y-%m-%dT%H-%M-%S%.3f";

/// Where lines go and when files are rotated.
#[derive(Clone, Debug, Default)]
pub struct LogConfig {
    /// `-` for the standard output.
    pub path: PathBuf,
    /// Rotated before it is larger; 0: 100 MiB.
    pub size_max: u64,
    /// Rotated files kept; 0: all.
    pub backups_max: usize,
    /// Rotated files older than this go.
    pub age_max: Option<Duration>,
    /// Whether rotated files are compressed by gzip.
    pub compress: bool,
    /// Whether events are lines of text, as of old, instead of JSON.
    pub legacy: bool,
}

/// The log.
pub struct Log {
    config: LogConfig,
    sink: Mutex<Sink>,
    /// The time in the newest rotated file's name: later ones must sort after it.
    rotated: Mutex<Timestamp>,
    /// Compresses what was rotated last.
    compressing: Mutex<Option<JoinHandle<()>>>,
}

enum Sink {
    Output(io::Stdout),
    File { file: File, size: u64 },
}

impl Log {
    /// Opens the file, and goes on at its end.
    pub fn open(config: LogConfig) -> io::Result<Log> {
        let sink = match config.path.as_os_str() == "-" {
            true => Sink::Output(io::stdout()),
            false => {
                if let Some(folder) = config.path.parent() {
                    std::fs::create_dir_all(folder)?;
                }
                open(&config.path)?
            }
        };
        Ok(Log {
            config,
            sink: Mutex::new(sink),
            rotated: Mutex::new(Timestamp::UNIX_EPOCH),
            compressing: Mutex::default(),
        })
    }

    fn write(&self, event: &[u8]) -> io::Result<()> {
        let mut line = Vec::with_capacity(event.len() + 1);
        line.extend_from_slice(event);
        line.push(b'\n');
        let mut sink = self.sink.lock();
        let limit = match self.config.size_max {
            0 => SIZE_DEFAULT,
            limit => limit,
        };
        if let Sink::File { size, .. } = &*sink
            && *size > 0
            && *size + line.len() as u64 > limit
        {
            self.rotate()?;
            *sink = open(&self.config.path)?;
        }
        match &mut *sink {
            Sink::Output(output) => output.lock().write_all(&line),
            Sink::File { file, size } => {
                file.write_all(&line)?;
                *size += line.len() as u64;
                Ok(())
            }
        }
    }

    fn rotate(&self) -> io::Result<()> {
        let path = &self.config.path;
        let (stem, extension) = parts(path);
        let mut newest = self.rotated.lock();
        let mut now = Timestamp::now().max(*newest + Duration::from_millis(1));
        loop {
            let target = format!("{stem}-{}{extension}", now.strftime(NAME_TIME));
            let target = path.with_file_name(target);
            if !target.exists() {
                std::fs::rename(path, &target)?;
                self.compress(target);
                break;
            }
            now += Duration::from_millis(1);
        }
        *newest = now;
        self.prune()
    }

    /// Compresses a rotated file beside the requests that go on; one at a time.
    fn compress(&self, path: PathBuf) {
        if !self.config.compress {
            return;
        }
        let mut compressing = self.compressing.lock();
        let before = compressing.take();
        *compressing = Some(std::thread::spawn(move || {
            before.map(JoinHandle::join);
            if let Err(error) = compressed(&path) {
                tracing::error!(%error, path = %path.display(), "audit log is not compressed");
            }
        }));
    }

    fn prune(&self) -> io::Result<()> {
        let path = &self.config.path;
        let (stem, extension) = parts(path);
        let folder = path
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty());
        let mut backups = Vec::new();
        for entry in std::fs::read_dir(folder.unwrap_or(Path::new(".")))? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let middle = name.strip_prefix(&format!("{stem}-"));
            let middle = middle.and_then(|rest| {
                let plain = rest.strip_suffix(COMPRESSED).unwrap_or(rest);
                plain.strip_suffix(&extension)
            });
            if middle.is_some_and(|time| time.len() == 23 && time.as_bytes()[10] == b'T') {
                backups.push((name, entry.path(), entry.metadata()?.modified()?));
            }
        }
        // Names hold the time: the newest last.
        backups.sort();
        let now = SystemTime::now();
        let keep = match self.config.backups_max {
            0 => usize::MAX,
            keep => keep,
        };
        let count = backups.len();
        for (at, (_, path, modified)) in backups.into_iter().enumerate() {
            let many = count - at > keep;
            let age = now.duration_since(modified).unwrap_or_default();
            if many || self.config.age_max.is_some_and(|limit| age > limit) {
                std::fs::remove_file(path)?;
            }
        }
        Ok(())
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.compressing.lock().take().map(JoinHandle::join);
    }
}

/// Replaces a file by its compressed form.
fn compressed(path: &Path) -> io::Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(COMPRESSED);
    let target = PathBuf::from(name);
    let mut options = OpenOptions::new();
    let file = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&target)?;
    let mut sink = GzEncoder::new(file, Compression::default());
    let done = File::open(path)
        .and_then(|mut plain| io::copy(&mut plain, &mut sink))
        .and_then(|_| sink.finish()?.sync_all());
    // One of the two goes: the old one if the new one is whole, else the new one.
    std::fs::remove_file(if done.is_ok() { path } else { &target })?;
    done
}

impl Backend for Log {
    fn name(&self) -> &'static str {
        "log"
    }

    fn take(&self, event: Bytes) -> Result<(), String> {
        let written = match self.config.legacy {
            false => self.write(&event),
            true => legacy::line(&event)
                .map_err(io::Error::from)
                .and_then(|line| self.write(line.as_bytes())),
        };
        written.map_err(|error| error.to_string())
    }
}

fn open(path: &Path) -> io::Result<Sink> {
    let mut options = OpenOptions::new();
    let file = options.append(true).create(true).mode(0o600).open(path)?;
    let size = file.metadata()?.len();
    Ok(Sink::File { file, size })
}

/// `audit` and `.log` of `/var/log/audit.log`.
fn parts(path: &Path) -> (String, String) {
    let text = |part: Option<&std::ffi::OsStr>| {
        part.map(|part| part.to_string_lossy().into_owned())
            .unwrap_or_default()
    };
    let extension = match text(path.extension()) {
        extension if extension.is_empty() => extension,
        extension => format!(".{extension}"),
    };
    (text(path.file_stem()), extension)
}
