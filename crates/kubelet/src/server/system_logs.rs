//! `/logs/`: the files of the machine's log folder, and what services said
//! ([`log_query`](super::log_query)).

use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, StreamBody};
use nix::fcntl::{OFlag, OpenHow, ResolveFlag};
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt};

use super::log_query::{self, LogQuery};
use super::path::{Query, decode};
use super::{Body, text, with_type};
use crate::config::SystemLogs;
use crate::shared::Shared;

/// What is read of a file at a time.
const PIECE_BYTES: usize = 64 << 10;
/// What decides whether a file is text.
const SNIFFED_BYTES: usize = 512;
/// Entries of a folder that are shown.
const ENTRIES_MAX: usize = 10_000;

/// Answers by what is switched on.
pub(super) async fn answer<B>(
    shared: &Arc<Shared>,
    query: &Query,
    request: &Request<B>,
) -> Response<Body> {
    let Some(logs) = &shared.config.system_logs else {
        let message = "logs endpoint is disabled.\n".to_owned();
        return text(StatusCode::METHOD_NOT_ALLOWED, message);
    };
    if ![Method::GET, Method::HEAD].contains(request.method()) {
        let message = "405: Method Not Allowed\n".to_owned();
        return text(StatusCode::METHOD_NOT_ALLOWED, message);
    }
    let path = decode(request.uri().path());
    let mut path = path.strip_prefix("/logs").unwrap_or_default().to_owned();
    if logs.query {
        match LogQuery::parse(query) {
            Err(faults) => return text(StatusCode::BAD_REQUEST, faults + "\n"),
            Ok(None) => {}
            Ok(Some(asked)) => {
                if let Err(faults) = asked.check(|file| open(&logs.folder, file).err()) {
                    return text(StatusCode::NOT_ACCEPTABLE, faults + "\n");
                }
                match asked.file() {
                    Some(file) => path = format!("/{}", file.trim_start_matches('/')),
                    None => return log_query::answer(logs, asked),
                }
            }
        }
    }
    serve(logs, &path, request.headers()).await
}

/// Opens a file below a folder, also over links, as long as they stay there.
pub(super) fn open(folder: &Path, path: &str) -> std::io::Result<OwnedFd> {
    let folder = folder.canonicalize()?;
    let whole = folder.join(path.trim_matches('/')).canonicalize()?;
    let beneath = whole.strip_prefix(&folder);
    let beneath = beneath.map_err(|_| std::io::Error::other("path escapes from parent"))?;
    let beneath = match beneath.as_os_str().is_empty() {
        true => Path::new("."),
        false => beneath,
    };
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
    // What was a link has been followed: one that is there now came since.
    let how = OpenHow::new()
        .flags(flags)
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS);
    let root = std::fs::File::open(&folder)?;
    Ok(nix::fcntl::openat2(&root, beneath, how)?)
}

/// A folder as a page of links, a file as it is.
async fn serve(logs: &SystemLogs, path: &str, asked: &HeaderMap) -> Response<Body> {
    let (folder, wanted) = (logs.folder.clone(), path.to_owned());
    let opened = tokio::task::spawn_blocking(move || {
        let file = std::fs::File::from(open(&folder, &wanted)?);
        let facts = file.metadata()?;
        let page = match facts.is_dir() {
            true => Some(listing(&folder.join(wanted.trim_matches('/')))?),
            false => None,
        };
        Ok::<_, std::io::Error>((file, facts, page))
    });
    let (file, facts, page) = match opened.await {
        Ok(Ok(opened)) => opened,
        Ok(Err(error)) => return refuse(&error),
        Err(_) => return text(StatusCode::INTERNAL_SERVER_ERROR, String::new()),
    };
    let name = path.trim_end_matches('/').rsplit('/').next();
    let name = name.unwrap_or_default();
    match page {
        Some(_) if !path.ends_with('/') => moved(&format!("{name}/")),
        Some(page) => with_type(StatusCode::OK, page, "text/html; charset=utf-8"),
        None if path.ends_with('/') => moved(&format!("../{name}")),
        // A pipe or a socket would never end.
        None if !facts.is_file() => text(StatusCode::NOT_FOUND, "404 page not found\n".into()),
        None => send(File::from_std(file), facts.len(), asked).await,
    }
}

fn refuse(error: &std::io::Error) -> Response<Body> {
    let (code, message) = match error.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory => {
            (StatusCode::NOT_FOUND, "404 page not found\n")
        }
        ErrorKind::PermissionDenied => (StatusCode::FORBIDDEN, "403 Forbidden\n"),
        _ => (
            StatusCode::INTERNAL_SERVER_ERROR,
            "500 Internal Server Error\n",
        ),
    };
    text(code, message.to_owned())
}

fn moved(to: &str) -> Response<Body> {
    let mut response = text(StatusCode::MOVED_PERMANENTLY, String::new());
    if let Ok(to) = HeaderValue::from_str(&escape(to)) {
        response.headers_mut().insert(header::LOCATION, to);
    }
    response
}

fn listing(folder: &Path) -> std::io::Result<String> {
    let mut names: Vec<String> = Vec::new();
    for entry in std::fs::read_dir(folder)?.take(ENTRIES_MAX) {
        let entry = entry?;
        let mut name = entry.file_name().to_string_lossy().into_owned();
        if entry.file_type()?.is_dir() {
            name.push('/');
        }
        names.push(name);
    }
    names.sort_unstable();
    let mut page = String::from(
        "<!doctype html>\n<meta name=\"viewport\" content=\"width=device-width\">\n<pre>\n",
    );
    for name in names {
        let shown = name.replace('&', "&amp;").replace('<', "&lt;");
        let shown = shown.replace('>', "&gt;").replace('"', "&#34;");
        page.push_str(&format!("<a href=\"{}\">{shown}</a>\n", escape(&name)));
    }
    page.push_str("</pre>\n");
    Ok(page)
}

/// A name as part of an address.
fn escape(name: &str) -> String {
    let mut shown = String::new();
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' | b'/' => {
                shown.push(char::from(byte));
            }
            _ => shown.push_str(&format!("%{byte:02X}")),
        }
    }
    shown
}

async fn send(mut file: File, size: u64, asked: &HeaderMap) -> Response<Body> {
    let mut start = vec![0; SNIFFED_BYTES];
    let read = file.read(&mut start).await.unwrap_or(0);
    let media = media_type(&start[..read]);
    let range = asked.get(header::RANGE).and_then(|range| {
        let range = range.to_str().ok()?.strip_prefix("bytes=")?;
        part(range, size)
    });
    let (first, length) = range.unwrap_or((0, size));
    if let Err(error) = file.seek(std::io::SeekFrom::Start(first)).await {
        return refuse(&error);
    }
    // What is appended meanwhile is for the next request.
    let reader = file.take(length);
    let pieces = futures::stream::unfold(reader, |mut reader| async {
        let mut piece = Vec::with_capacity(PIECE_BYTES);
        match (&mut reader)
            .take(PIECE_BYTES as u64)
            .read_to_end(&mut piece)
            .await
        {
            Ok(1..) => Some((Ok(http_body::Frame::data(Bytes::from(piece))), reader)),
            Ok(_) | Err(_) => None,
        }
    });
    let mut response = Response::new(StreamBody::new(pieces).boxed_unsync());
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media));
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    if range.is_some()
        && let Ok(value) = format!("bytes {first}-{}/{size}", first + length - 1).try_into()
    {
        headers.insert(header::CONTENT_RANGE, value);
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    }
    response
}

/// The first byte and the count of a range such as `5-`, `5-9`, `-9`.
fn part(range: &str, size: u64) -> Option<(u64, u64)> {
    let (first, last) = range.split_once('-')?;
    let (first, last) = match first.is_empty() {
        true => (
            size.saturating_sub(last.parse().ok()?),
            size.checked_sub(1)?,
        ),
        false if last.is_empty() => (first.parse().ok()?, size.checked_sub(1)?),
        false => (
            first.parse().ok()?,
            last.parse::<u64>().ok()?.min(size.checked_sub(1)?),
        ),
    };
    (first <= last).then(|| (first, last - first + 1))
}

fn media_type(start: &[u8]) -> &'static str {
    let is_control = |byte: &u8| matches!(byte, 0..=8 | 0x0b | 0x0e..=0x1a | 0x1c..=0x1f);
    match start {
        [0x1f, 0x8b, 0x08, ..] => "application/x-gzip",
        start if start.iter().any(is_control) => "application/octet-stream",
        _ => "text/plain; charset=utf-8",
    }
}

/// Where logs of a service may be, the likeliest first.
pub(super) fn files_of(folder: &Path, service: &str) -> Vec<(PathBuf, String)> {
    let names = [
        service.to_owned(),
        format!("{service}.log"),
        format!("{service}/{service}.log"),
    ];
    names.map(|name| (folder.to_owned(), name)).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_and_kinds_of_files() {
        assert_eq!(part("5-", 10), Some((5, 5)));
        assert_eq!(part("2-4", 10), Some((2, 3)));
        assert_eq!(part("8-40", 10), Some((8, 2)));
        assert_eq!(part("-4", 10), Some((6, 4)));
        for bad in ["10-", "4-2", "x-1", "", "5"] {
            assert_eq!(part(bad, 10), None, "{bad}");
        }
        assert_eq!(part("0-", 0), None);
        assert_eq!(media_type(b"a\tline\n"), "text/plain; charset=utf-8");
        assert_eq!(media_type(b"\0\x01"), "application/octet-stream");
    }

    #[test]
    fn links_are_followed_as_long_as_they_stay_below() {
        let folder = tempfile::tempdir().unwrap();
        let below = folder.path().join("log");
        std::fs::create_dir_all(below.join("pods")).unwrap();
        std::fs::write(below.join("pods/a.log"), "a").unwrap();
        std::fs::write(folder.path().join("secret"), "s").unwrap();
        let link = |to: &Path, name: &str| {
            std::os::unix::fs::symlink(to, below.join(name)).unwrap();
        };
        link(&below.join("pods/a.log"), "near");
        link(&folder.path().join("secret"), "far");
        assert!(open(&below, "near").is_ok() && open(&below, "/").is_ok());
        for bad in ["far", "../secret", "pods/../../secret", "absent"] {
            assert!(open(&below, bad).is_err(), "{bad}");
        }
    }
}
