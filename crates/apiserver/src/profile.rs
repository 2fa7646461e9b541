//! `/debug/pprof`: where this process spends processor time, as Go's tools ask for it. What only
//! Go's runtime knows (goroutines, blocked channels, its heap) has no page.

mod encode;
mod symbols;

use std::io;
use std::time::{Duration, Instant, SystemTime};

use http::StatusCode;
use http::header::{CONTENT_DISPOSITION, HeaderValue};
use linux::profile::{Profile, Samples};
use meta::Status;

use crate::chain::Call;
use crate::dispatch::no_such_resource;
use crate::respond::{self, Answer};
use crate::server::Core;
use symbols::Symbols;

const TEXT: &str = "text/plain; charset=utf-8";
/// How long is looked when nobody says how long.
const SECONDS: u64 = 30;
/// The longest profile, whatever the time limit of requests is.
const SECONDS_MAX: u64 = 600;
/// Addresses that one request may ask names for.
const ADDRESSES_MAX: usize = 1024;
const PAGES: [(&str, &str); 3] = [
    (
        "cmdline",
        "The command line of this process, its words separated by NUL.",
    ),
    (
        "profile",
        "Where processor time is spent; ?seconds= says for how long to look. Read it with go tool \
         pprof.",
    ),
    (
        "symbol",
        "Names of functions around addresses, which follow the question mark, separated by +.",
    ),
];

/// Answers what stands below `/debug/pprof`.
pub(crate) async fn answer(core: &Core, call: &Call, page: &[&str]) -> Result<Answer, Status> {
    if !core.config.profiling {
        return Err(no_such_resource());
    }
    match page {
        [] => Ok(index()),
        ["cmdline"] => {
            let words = std::fs::read("/proc/self/cmdline").map_err(Status::internal)?;
            let words = words.strip_suffix(b"\0").unwrap_or(&words).to_vec();
            Ok(respond::plain(StatusCode::OK, TEXT, words))
        }
        ["symbol"] => symbol(call).await,
        ["profile"] => profile(call).await,
        _ => Ok(refusal(StatusCode::NOT_FOUND, "Unknown profile\n")),
    }
}

fn index() -> Answer {
    let rows = PAGES.map(|(name, text)| format!("<li><a href='{name}'>{name}</a>: {text}</li>\n"));
    let text = format!(
        "<html>\n<head>\n<title>/debug/pprof/</title>\n</head>\n<body>\n/debug/pprof/\n<ul>\n{}\
         </ul>\n</body>\n</html>\n",
        rows.concat()
    );
    respond::plain(StatusCode::OK, "text/html; charset=utf-8", text)
}

async fn symbol(call: &Call) -> Result<Answer, Status> {
    // A plus sign is a space to whoever reads queries.
    let asked = call.query.pairs().flat_map(|(key, _)| key.split(' '));
    let parse = |word: &str| u64::from_str_radix(word.strip_prefix("0x")?, 16).ok();
    let asked: Vec<u64> = asked.filter_map(parse).take(ADDRESSES_MAX).collect();
    let mut text = String::from("num_symbols: 1\n");
    if !asked.is_empty() {
        let symbols = tokio::task::spawn_blocking(Symbols::own).await;
        let symbols = symbols.map_err(Status::internal)?;
        for address in asked {
            if let Some(name) = symbols.find(address) {
                text.push_str(&format!("{address:#x} {name}\n"));
            }
        }
    }
    Ok(respond::plain(StatusCode::OK, TEXT, text))
}

async fn profile(call: &Call) -> Result<Answer, Status> {
    let seconds = call.query.get("seconds").and_then(|own| own.parse().ok());
    let seconds = seconds
        .filter(|own| *own > 0)
        .unwrap_or(SECONDS)
        .min(SECONDS_MAX);
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let room = usize::try_from(seconds).unwrap_or(usize::MAX);
    let (begun, start) = (SystemTime::now(), Instant::now());
    let profile = match Profile::start(room, processors) {
        Ok(profile) => profile,
        Err(error) => {
            let error = match error.kind() {
                io::ErrorKind::ResourceBusy => "cpu profiling already in use".to_owned(),
                _ => error.to_string(),
            };
            let text = format!("Could not enable CPU profiling: {error}\n");
            return Ok(refusal(StatusCode::INTERNAL_SERVER_ERROR, &text));
        }
    };
    // Whoever goes away ends the profile: it is dropped with this future.
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let lasted = start.elapsed();
    let encode = move || zipped(&profile.finish(), begun, lasted);
    let bytes = tokio::task::spawn_blocking(encode).await;
    let bytes = bytes.map_err(Status::internal)??;
    let mut answer = respond::plain(StatusCode::OK, "application/octet-stream", bytes);
    let name = HeaderValue::from_static("attachment; filename=\"profile\"");
    answer.headers_mut().insert(CONTENT_DISPOSITION, name);
    Ok(answer)
}

fn zipped(samples: &Samples, begun: SystemTime, lasted: Duration) -> Result<Vec<u8>, Status> {
    let symbols = Symbols::own();
    respond::compress(&encode::profile(samples, &symbols, begun, lasted))
}

/// As Go's own pages refuse.
fn refusal(code: StatusCode, text: &str) -> Answer {
    let mut answer = respond::plain(code, TEXT, text.to_owned());
    let mark = HeaderValue::from_static("1");
    answer.headers_mut().insert("x-go-pprof", mark);
    answer
}
