//! Where containers' output goes: docker's drivers that keep it in files, or not at all.

use runtime::LogRotation;

use crate::answer::Fault;
use crate::shipping::DRIVERS;
use crate::wire::{HostConfig, LogConfig};

const USUAL: &str = "json-file";
const LOCAL: &str = "local";
const NONE: &str = "none";
/// What every driver but `none` understands.
const COMMON: [&str; 5] = [
    "max-file",
    "max-size",
    "compress",
    "mode",
    "max-buffer-size",
];
/// What is said of lines by `json-file`.
const LABELS: [&str; 5] = ["labels", "labels-regex", "env", "env-regex", "tag"];
/// What `local` keeps when nothing is said.
const LOCAL_BYTES: u64 = 20_000_000;
const LOCAL_FILES: u32 = 5;
/// Files of one log.
const FILES_MAX: u32 = 1000;

/// Whether the output is thrown away.
pub(crate) fn is_none(host: &HostConfig) -> bool {
    host.log_config.kind == NONE
}

/// Refuses drivers and options that are none, and puts the usual driver in.
pub(crate) fn check(log: &mut LogConfig) -> Result<(), Fault> {
    if log.kind.is_empty() {
        USUAL.clone_into(&mut log.kind);
    }
    let kind = log.kind.as_str();
    if DRIVERS.contains(&kind) {
        crate::shipping::check(log)?;
        log.config.get_or_insert_default();
        return rotation(log).map(drop);
    }
    if ![USUAL, LOCAL, NONE].contains(&kind) {
        let message = format!("logger: no log driver named '{kind}' is registered");
        return Err(Fault::bad(message));
    }
    let options = log.config.get_or_insert_default();
    let known = |name: &str| {
        (kind != NONE && COMMON.contains(&name)) || (kind == USUAL && LABELS.contains(&name))
    };
    if let Some(name) = options.keys().find(|name| !known(name)) {
        let message = format!("unknown log opt '{name}' for {kind} log driver");
        return Err(Fault::bad(message));
    }
    rotation(log).map(drop)
}

/// How large the log grows; `None` is without end.
pub(crate) fn rotation(log: &LogConfig) -> Result<Option<LogRotation>, Fault> {
    if DRIVERS.contains(&log.kind.as_str()) {
        return rotation(&crate::shipping::rotation(log));
    }
    let option = |name: &str| log.config.as_ref()?.get(name);
    let bytes = match option("max-size").map(String::as_str) {
        None | Some("-1") => None,
        Some(text) => match bytes(text) {
            Some(0) | None => return Err(Fault::bad(format!("invalid size: '{text}'"))),
            some => some,
        },
    };
    let files = match option("max-file") {
        None => None,
        Some(text) => match text.parse() {
            Ok(files @ 1..=FILES_MAX) => Some(files),
            _ => return Err(Fault::bad("max-file cannot be less than 1")),
        },
    };
    match (log.kind.as_str(), bytes, files) {
        (NONE, ..) => Ok(None),
        (LOCAL, bytes, files) => Ok(Some(LogRotation {
            bytes: bytes.unwrap_or(LOCAL_BYTES),
            files: files.unwrap_or(LOCAL_FILES),
        })),
        (_, None, Some(2..)) => {
            let message = "max-file cannot be set without max-size";
            Err(Fault::bad(message))
        }
        (_, bytes, files) => Ok(bytes.map(|bytes| LogRotation {
            bytes,
            files: files.unwrap_or(1),
        })),
    }
}

/// `10m`, `1.5 GB`: thousands, as docker counts here.
fn bytes(text: &str) -> Option<u64> {
    let text = text.trim().to_ascii_lowercase();
    let text = text
        .strip_suffix("ib")
        .or(text.strip_suffix('b'))
        .unwrap_or(&text);
    let (number, unit) = match text.find(|c: char| c.is_ascii_alphabetic()) {
        Some(at) => text.split_at(at),
        None => (text, ""),
    };
    let factor = match unit {
        "" => 1e0,
        "k" => 1e3,
        "m" => 1e6,
        "g" => 1e9,
        "t" => 1e12,
        _ => return None,
    };
    let number: f64 = number.trim().parse().ok()?;
    (number >= 0.0).then_some((number * factor) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(kind: &str, options: &[(&str, &str)]) -> LogConfig {
        let pair = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        LogConfig {
            kind: kind.to_owned(),
            config: Some(options.iter().map(pair).collect()),
        }
    }

    #[test]
    fn sizes_of_logs() {
        let size = [("max-size", "1.5k"), ("max-file", "3")];
        let expect = Some(LogRotation {
            bytes: 1500,
            files: 3,
        });
        assert_eq!(rotation(&log(USUAL, &size)).unwrap(), expect);
        let usual = rotation(&log(LOCAL, &[])).unwrap();
        assert_eq!(usual.map(|usual| usual.files), Some(LOCAL_FILES));
        assert_eq!(rotation(&log(USUAL, &[])).unwrap(), None);
        for text in ["10MB", "10m", "10MiB"] {
            assert_eq!(bytes(text), Some(10_000_000));
        }
    }

    #[test]
    fn what_is_no_driver_is_refused() {
        for (kind, options, words) in [
            ("splunk", &[][..], "no log driver named 'splunk'"),
            (
                USUAL,
                &[("speed", "9")],
                "unknown log opt 'speed' for json-file log driver",
            ),
            (
                NONE,
                &[("max-size", "1m")],
                "unknown log opt 'max-size' for none log driver",
            ),
            (USUAL, &[("max-size", "large")], "invalid size"),
            (USUAL, &[("max-file", "2")], "without max-size"),
            (LOCAL, &[("max-file", "0")], "less than 1"),
        ] {
            let fault = check(&mut log(kind, options)).unwrap_err();
            assert!(fault.message.contains(words), "{fault}");
        }
    }
}
