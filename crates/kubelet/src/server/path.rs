//! Paths and queries of requests to the server.

/// What `enableDebuggingHandlers` is about.
const DEBUGGING: [&str; 8] = [
    "run",
    "exec",
    "attach",
    "portForward",
    "containerLogs",
    "runningpods",
    "logs",
    "debug",
];

/// What the server without TLS shows.
const FOR_EVERYBODY: [&str; 4] = ["healthz", "pods", "stats", "metrics"];

/// The subresources of `nodes` that a path stands for.
pub(super) fn subresources(path: &str) -> &'static [&'static str] {
    match path.trim_start_matches('/').split('/').next() {
        Some("pods" | "runningpods") => &["pods", "proxy"],
        Some("healthz") => &["healthz", "proxy"],
        Some("configz") => &["configz", "proxy"],
        Some("stats") => &["stats"],
        Some("metrics") => &["metrics"],
        Some("logs") => &["log"],
        Some("checkpoint") => &["checkpoint"],
        _ => &["proxy"],
    }
}

/// Whether a path is one of those that may be switched off as a whole.
pub(super) fn is_debugging(path: &str) -> bool {
    let first = path.trim_start_matches('/').split('/').next();
    first.is_some_and(|first| DEBUGGING.contains(&first))
}

/// Whether a path is shown to everybody, where there is a server for them.
pub(super) fn is_for_everybody(path: &str) -> bool {
    let first = path.trim_start_matches('/').split('/').next();
    first.is_some_and(|first| FOR_EVERYBODY.contains(&first))
}

/// Undoes percent-encoding.
pub(super) fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let code = after
            .get(..2)
            .and_then(|pair| std::str::from_utf8(pair).ok());
        match code.and_then(|code| u8::from_str_radix(code, 16).ok()) {
            Some(byte) if *first == b'%' => {
                bytes.push(byte);
                rest = &after[2..];
            }
            _ => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The parameters of a query, in order.
#[derive(Debug, Default)]
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    pub(super) fn parse(text: &str) -> Query {
        let pairs = text.split('&').filter(|pair| !pair.is_empty());
        let pairs = pairs.map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (
                decode(&key.replace('+', " ")),
                decode(&value.replace('+', " ")),
            )
        });
        Query(pairs.collect())
    }

    pub(super) fn get(&self, key: &str) -> Option<&str> {
        let found = self.0.iter().find(|(name, _)| name == key);
        found.map(|(_, value)| value.as_str())
    }

    pub(super) fn all<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        let named = self.0.iter().filter(move |(name, _)| name == key);
        named.map(|(_, value)| value.as_str())
    }

    /// Whether any of the keys says yes.
    pub(super) fn has(&self, keys: &[&str]) -> bool {
        let said = keys.iter().filter_map(|key| self.get(key));
        said.into_iter()
            .any(|value| matches!(value, "1" | "true" | "True" | "t"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_decoded() {
        let query = Query::parse("command=sh&command=-c&command=echo%20a%2Bb+c&tty=1&x");
        let command: Vec<_> = query.all("command").collect();
        assert_eq!(command, ["sh", "-c", "echo a+b c"]);
        assert!(query.has(&["tty"]) && !query.has(&["input", "stdin"]));
        assert_eq!(decode("100%"), "100%");
        assert_eq!(subresources("/metrics/resource"), ["metrics"]);
        assert_eq!(subresources("/healthz/ping"), ["healthz", "proxy"]);
        assert_eq!(subresources("/exec/a/b/c"), ["proxy"]);
    }
}
