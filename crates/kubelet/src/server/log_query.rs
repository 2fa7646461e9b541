//! `/logs/?query=…`: what services of the machine said, as the journal has it, or a file that is
//! named like the service.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Response, header};
use http_body_util::{BodyExt, StreamBody};
use jiff::Timestamp;
use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;
use tokio::sync::mpsc;

use super::Body;
use super::path::Query;
use super::system_logs::{files_of, open};
use crate::config::SystemLogs;

const TAIL_LINES_MAX: i64 = 100_000;
const SERVICE_BYTES_MAX: usize = 256;
const SERVICES_MAX: usize = 4;
/// All of an answer is given in this time.
const DEADLINE: Duration = Duration::from_secs(30);
const PIECE_BYTES: usize = 32 << 10;
/// Pieces on their way to a slow reader.
const PIECES_MAX: usize = 8;

/// What somebody wants to see.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct LogQuery {
    services: Vec<String>,
    files: Vec<String>,
    options: Options,
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Options {
    since: Option<Timestamp>,
    until: Option<Timestamp>,
    tail: Option<i64>,
    boot: Option<i64>,
    pattern: String,
}

fn invalid(field: &str, value: &serde_json::Value, why: &str) -> String {
    format!("{field}: Invalid value: {value}: {why}")
}

/// Several faults as one text.
fn aggregate(faults: &[String]) -> String {
    match faults {
        [only] => only.clone(),
        all => format!("[{}]", all.join(", ")),
    }
}

impl LogQuery {
    /// Reads the parameters; `None` where none of them is there.
    pub(super) fn parse(query: &Query) -> Result<Option<LogQuery>, String> {
        let mut faults = Vec::new();
        let mut asked = LogQuery::default();
        let queries: Vec<&str> = query.all("query").collect();
        for one in &queries {
            if one.contains(['/', '\\']) {
                asked.files.push((*one).to_owned());
            } else if !one.trim().is_empty() {
                asked.services.push((*one).to_owned());
            }
        }
        if !queries.is_empty() && asked.files.is_empty() && asked.services.is_empty() {
            faults.push(invalid("query", &json!(queries), "query cannot be empty"));
        }
        let mut time = |field: &str| {
            let text = query.get(field).filter(|text| !text.is_empty())?;
            let time = meta::time::parse(text);
            if time.is_none() {
                faults.push(invalid(field, &json!(text), "invalid time format"));
            }
            time
        };
        asked.options.since = time("sinceTime");
        asked.options.until = time("untilTime");
        let mut number = |field: &str| {
            let text = query.get(field).filter(|text| !text.is_empty())?;
            let number = text.parse();
            if number.is_err() {
                let why = format!("strconv.Atoi: parsing {text:?}: invalid syntax");
                faults.push(invalid(field, &json!(text), &why));
            }
            number.ok()
        };
        asked.options.boot = number("boot");
        asked.options.tail = number("tailLines");
        asked.options.pattern = query.get("pattern").unwrap_or_default().to_owned();
        match faults.as_slice() {
            [] => Ok((asked != LogQuery::default()).then_some(asked)),
            faults => Err(aggregate(faults)),
        }
    }

    /// Whether it can be answered; `missing` says what is wrong with a file.
    pub(super) fn check(
        &self,
        missing: impl Fn(&str) -> Option<std::io::Error>,
    ) -> Result<(), String> {
        let mut faults = Vec::new();
        for service in &self.services {
            let is_safe = |c: char| c.is_ascii_alphanumeric() || "-_.:@".contains(c);
            let why = match service {
                long if long.len() > SERVICE_BYTES_MAX => "length must be less than 256",
                odd if !odd.chars().all(is_safe) => "input contains unsupported characters",
                _ => continue,
            };
            faults.push(invalid("query", &json!(service), why));
        }
        if self.services.len() > SERVICES_MAX {
            let count = self.services.len();
            faults.push(format!(
                "query: Too many: {count}: must have at most {SERVICES_MAX} items"
            ));
        }
        match (self.files.as_slice(), self.services.as_slice()) {
            ([], []) => faults.push("query: Required value: cannot be empty with options".into()),
            ([_, ..], [_, ..]) => {
                let value = format!("[{}], [{}]", self.files.join(" "), self.services.join(" "));
                let why = "cannot specify a file and service";
                faults.push(invalid("query", &json!(value), why));
            }
            ([_, _, ..], []) => {
                let why = "cannot specify more than one file";
                faults.push(invalid("query", &json!(self.files), why));
            }
            ([_], []) if self.options != Options::default() => {
                let why = "cannot specify file with options";
                faults.push(invalid("query", &json!(self.files), why));
            }
            ([file], []) => {
                let fault = missing(file).map(|why| why.to_string());
                faults.extend(fault.map(|why| invalid("query", &json!(self.files), &why)));
            }
            ([], _) => {}
        }
        faults.extend(self.options.faults());
        match faults.as_slice() {
            [] => Ok(()),
            faults => Err(aggregate(faults)),
        }
    }

    /// The file that is meant, where one is.
    pub(super) fn file(&self) -> Option<&str> {
        self.files.first().map(String::as_str)
    }
}

impl Options {
    fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        if let (Some(since), Some(until)) = (self.since, self.until)
            && since > until
        {
            let until = json!(meta::time::rfc3339(until));
            faults.push(invalid("untilTime", &until, "must be after `sinceTime`"));
        }
        if let Some(boot) = self.boot.filter(|boot| *boot > 0) {
            faults.push(invalid("boot", &json!(boot), "must be less than 1"));
        }
        if let Some(tail) = self.tail
            && !(0..=TAIL_LINES_MAX).contains(&tail)
        {
            let why = "must be between 0 and 100000, inclusive";
            faults.push(invalid("tailLines", &json!(tail), why));
        }
        faults
    }

    /// What `journalctl` is called with.
    fn words(&self, services: &[String]) -> Vec<String> {
        let day = |at: Timestamp| at.strftime("%Y-%m-%d %H:%M:%S").to_string();
        let words = ["--utc", "--no-pager", "--output=short-precise"];
        let mut words: Vec<String> = words.map(str::to_owned).into();
        words.extend(self.since.map(|at| format!("--since={}", day(at))));
        words.extend(self.until.map(|at| format!("--until={}", day(at))));
        if let Some(tail) = self.tail {
            words.extend(["--pager-end".to_owned(), format!("--lines={tail}")]);
        }
        words.extend(services.iter().map(|service| format!("--unit={service}")));
        if !self.pattern.is_empty() {
            words.push(format!("--grep={}", self.pattern));
        }
        if let Some(boot) = self.boot {
            words.extend(["--boot".to_owned(), boot.to_string()]);
        }
        words
    }
}

/// Sends what the services said.
pub(super) fn answer(logs: &SystemLogs, asked: LogQuery) -> Response<Body> {
    let (pieces, body) = mpsc::channel(PIECES_MAX);
    let logs = logs.clone();
    // Ends when the reader goes away, since then its channel closes.
    tokio::spawn(async move {
        let told = tokio::time::timeout(DEADLINE, tell(&logs, &asked, &pieces)).await;
        if told.is_err() {
            tracing::debug!("a query of the machine's logs took too long");
        }
    });
    let frames = futures::stream::unfold(body, |mut body| async {
        let piece: Bytes = body.recv().await?;
        Some((Ok(http_body::Frame::data(piece)), body))
    });
    let mut response = Response::new(StreamBody::new(frames).boxed_unsync());
    let kind = HeaderValue::from_static("text/plain;charset=UTF-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

type Pieces = mpsc::Sender<Bytes>;

/// `None`: nobody listens any more.
async fn say(pieces: &Pieces, text: String) -> Option<()> {
    pieces.send(text.into()).await.ok()
}

async fn tell(logs: &SystemLogs, asked: &LogQuery, pieces: &Pieces) -> Option<()> {
    let known = units(&logs.journalctl).await;
    let (native, by_file): (Vec<String>, Vec<String>) = asked
        .services
        .iter()
        .cloned()
        .partition(|service| known.contains(&format!("{service}.service")));
    if !native.is_empty() {
        journal(&logs.journalctl, asked.options.words(&native), pieces).await?;
    }
    if by_file.is_empty() {
        return Some(());
    }
    if asked.options != Options::default() {
        let listed = by_file.join(" ");
        let message = format!(
            "\noptions present and query resolved to log files for [{listed}]\ntry without \
             specifying options\n"
        );
        return say(pieces, message).await;
    }
    for service in &by_file {
        copy(&logs.folder, service, pieces).await?;
    }
    Some(())
}

/// The units the journal knows; none where there is no journal.
async fn units(journalctl: &Path) -> String {
    let mut command = Command::new(journalctl);
    command.args(["--field", "_SYSTEMD_UNIT"]);
    command.stdin(Stdio::null()).kill_on_drop(true);
    match command.output().await {
        Ok(output) if output.status.success() => {
            String::from_utf8_lossy(&output.stdout).into_owned()
        }
        Ok(_) | Err(_) => String::new(),
    }
}

async fn journal(journalctl: &Path, words: Vec<String>, pieces: &Pieces) -> Option<()> {
    let mut command = Command::new(journalctl);
    command.args(words).stdin(Stdio::null()).kill_on_drop(true);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let Ok(mut child) = command.spawn() else {
        return say(pieces, "\nerror: journal output not available\n".into()).await;
    };
    let (stdout, stderr) = (child.stdout.take()?, child.stderr.take()?);
    let (out, err) = tokio::join!(send(stdout, pieces), send(stderr, pieces));
    out.and(err)?;
    child.wait().await.ok().map(drop)
}

async fn send(mut from: impl AsyncRead + Unpin, pieces: &Pieces) -> Option<()> {
    loop {
        let mut piece = Vec::with_capacity(PIECE_BYTES);
        match from.read_buf(&mut piece).await {
            Ok(1..) => pieces.send(piece.into()).await.ok()?,
            Ok(_) | Err(_) => return Some(()),
        }
    }
}

/// Sends the first file that is named like the service.
async fn copy(folder: &Path, service: &str, pieces: &Pieces) -> Option<()> {
    for (folder, name) in files_of(folder, service) {
        let opened = tokio::task::spawn_blocking(move || {
            let file = std::fs::File::from(open(&folder, &name)?);
            let is_file = file.metadata()?.is_file();
            Ok::<_, std::io::Error>(is_file.then_some(file))
        });
        match opened.await.ok()? {
            Ok(Some(file)) => return send(tokio::fs::File::from_std(file), pieces).await,
            Ok(None) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => {
                let message = format!("\nerror getting log for {service}: {error}\n");
                return say(pieces, message).await;
            }
        }
    }
    say(pieces, format!("\nlog not found for {service}\n")).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(query: &str) -> Result<Option<LogQuery>, String> {
        let asked = LogQuery::parse(&Query::parse(query))?;
        if let Some(asked) = &asked {
            asked.check(|file| (file != "/a.log").then(|| std::io::Error::other("not there")))?;
        }
        Ok(asked)
    }

    #[test]
    fn queries_are_checked_as_upstream_does() {
        assert_eq!(check("").unwrap(), None);
        assert_eq!(
            check("query=/a.log").unwrap().unwrap().file(),
            Some("/a.log")
        );
        assert!(check("query=kubelet&query=cron.d@1&boot=-1&tailLines=5").is_ok());
        for (query, fault) in [
            (
                "query=%20",
                "query: Invalid value: [\" \"]: query cannot be empty",
            ),
            (
                "query=a&sinceTime=x",
                "sinceTime: Invalid value: \"x\": invalid time format",
            ),
            (
                "query=a&boot=x",
                "boot: Invalid value: \"x\": strconv.Atoi: parsing \"x\": invalid syntax",
            ),
            (
                "boot=0",
                "query: Required value: cannot be empty with options",
            ),
            (
                "query=a&boot=1",
                "boot: Invalid value: 1: must be less than 1",
            ),
            (
                "query=a;b&tailLines=-1",
                "[query: Invalid value: \"a;b\": input contains unsupported characters, \
                 tailLines: Invalid value: -1: must be between 0 and 100000, inclusive]",
            ),
            (
                "query=/b.log",
                "query: Invalid value: [\"/b.log\"]: not there",
            ),
            (
                "query=/a.log&boot=0",
                "query: Invalid value: [\"/a.log\"]: cannot specify file with options",
            ),
            (
                "query=/a.log&query=b",
                "query: Invalid value: \"[/a.log], [b]\": cannot specify a file and service",
            ),
            (
                "query=a&query=b&query=c&query=d&query=e",
                "query: Too many: 5: must have at most 4 items",
            ),
        ] {
            assert_eq!(check(query).unwrap_err(), fault, "{query}");
        }
    }

    #[test]
    fn the_journal_is_asked_as_upstream_does() {
        let asked = "query=a&sinceTime=2026-01-02T03:04:05Z&untilTime=2026-01-03T00:00:00Z\
                     &tailLines=3&pattern=x.y&boot=-1";
        let asked = check(asked).unwrap().unwrap();
        let words = asked.options.words(&asked.services).join(" ");
        assert_eq!(
            words,
            "--utc --no-pager --output=short-precise --since=2026-01-02 03:04:05 \
             --until=2026-01-03 00:00:00 --pager-end --lines=3 --unit=a --grep=x.y --boot -1"
        );
    }
}
