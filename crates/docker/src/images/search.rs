//! `docker search`: the old search of registries, which a few still answer.

use serde::{Deserialize, Serialize};

use crate::answer::{self, Answer, Fault};
use crate::call::Call;

const INDEX: &str = "index.docker.io";
/// Results that are asked for when nobody says how many, and at the most.
const LIMIT: u32 = 25;
const LIMIT_MAX: u32 = 100;

#[derive(Deserialize)]
struct Found {
    #[serde(default)]
    results: Vec<One>,
}

#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct One {
    name: String,
    description: String,
    star_count: i64,
    is_official: bool,
    is_automated: bool,
}

/// `GET /images/search`.
pub(crate) async fn search(call: Call) -> Answer {
    let term = call.query.text("term");
    let limit = match call.query.number::<u32>("limit")? {
        None | Some(0) => LIMIT,
        Some(limit @ 1..=LIMIT_MAX) => limit,
        Some(limit) => {
            let message = format!("limit {limit} is outside the range of [1, {LIMIT_MAX}]");
            return Err(Fault::bad(message));
        }
    };
    let filters = call.query.filters()?;
    filters.only(&["is-automated", "is-official", "stars"])?;
    let (registry, words) = split(term);
    if words.is_empty() {
        return Err(Fault::bad("invalid repository name: it is empty"));
    }
    let scheme = match call.daemon.engine.registries().is_plain(registry) {
        true => "http",
        false => "https",
    };
    let words = escaped(words);
    let url = format!("{scheme}://{registry}/v1/search?q={words}&n={limit}");
    let text = ask(&call, &url).await?;
    let found: Found = serde_json::from_str(&text)
        .map_err(|error| Fault::internal(format!("{registry}: no search results: {error}")))?;
    let fits = |one: &One| {
        let least = |stars: &str| {
            stars
                .parse::<i64>()
                .is_ok_and(|least| one.star_count >= least)
        };
        filters.fits("stars", least)
            && filters.fits("is-official", |wish| (wish == "true") == one.is_official)
            && filters.fits("is-automated", |wish| (wish == "true") == one.is_automated)
    };
    let shown: Vec<One> = found.results.into_iter().filter(fits).collect();
    answer::ok(&shown)
}

async fn ask(call: &Call, url: &str) -> Result<String, Fault> {
    let folder = tempfile::tempdir()?;
    let target = folder.path().join("found");
    let fetched = oci::download(call.daemon.engine.registries(), url, &target).await;
    fetched.map_err(|error| Fault::internal(format!("error during search: {error}")))?;
    Ok(tokio::fs::read_to_string(target).await?)
}

/// The registry that a term names, and the rest.
fn split(term: &str) -> (&str, &str) {
    match term.split_once('/') {
        Some(("docker.io", rest)) => (INDEX, rest),
        Some((host, rest)) if host.contains(['.', ':']) || host == "localhost" => (host, rest),
        _ => (INDEX, term),
    }
}

fn escaped(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~/".contains(&byte);
    let one = |byte| match plain(byte) {
        true => char::from(byte).to_string(),
        false => format!("%{byte:02X}"),
    };
    text.bytes().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whom_to_ask_for_what() {
        assert_eq!(split("busybox"), (INDEX, "busybox"));
        assert_eq!(split("some/one"), (INDEX, "some/one"));
        assert_eq!(split("localhost:5000/a/b"), ("localhost:5000", "a/b"));
        assert_eq!(escaped("a b&c"), "a%20b%26c");
        let text = r#"{"results":[{"name":"busybox","star_count":3,"is_official":true}]}"#;
        let found: Found = serde_json::from_str(text).unwrap();
        assert_eq!(
            (found.results[0].star_count, found.results[0].is_official),
            (3, true)
        );
    }
}
