//! What log drivers understand, and what is said of a container's lines beside their text.

use std::collections::BTreeMap;

use regex::Regex;

use crate::answer::Fault;
use crate::record::Record;
use crate::wire::{HostConfig, Labels, LogConfig};

/// Those that send output elsewhere.
pub(crate) const DRIVERS: [&str; 4] = ["fluentd", "gelf", "journald", "syslog"];
/// What all of them understand.
const COMMON: [&str; 10] = [
    "mode",
    "max-buffer-size",
    "tag",
    "labels",
    "labels-regex",
    "env",
    "env-regex",
    "cache-max-size",
    "cache-max-file",
    "cache-compress",
];
const CACHE: &str = "cache-disabled";
const SYSLOG: [&str; 3] = ["syslog-address", "syslog-facility", "syslog-format"];
const GELF: [&str; 5] = [
    "gelf-address",
    "gelf-compression-type",
    "gelf-compression-level",
    "gelf-tcp-max-reconnect",
    "gelf-tcp-reconnect-delay",
];
const FLUENTD: [&str; 9] = [
    "fluentd-address",
    "fluentd-async",
    "fluentd-async-connect",
    "fluentd-async-reconnect-interval",
    "fluentd-buffer-limit",
    "fluentd-max-retries",
    "fluentd-retry-wait",
    "fluentd-sub-second-precision",
    "fluentd-write-timeout",
];

/// Refuses options that a driver does not have.
pub(crate) fn check(log: &LogConfig) -> Result<(), Fault> {
    let kind = log.kind.as_str();
    let own: &[&str] = match kind {
        "syslog" => &SYSLOG,
        "gelf" => &GELF,
        "fluentd" => &FLUENTD,
        _ => &[],
    };
    for name in log.config.iter().flatten().map(|(name, _)| name.as_str()) {
        if !COMMON.contains(&name) && !own.contains(&name) && name != CACHE {
            let message = format!("unknown log opt '{name}' for {kind} log driver");
            return Err(Fault::bad(message));
        }
    }
    match kind {
        "syslog" => super::syslog::check(log),
        "gelf" => super::gelf::check(log),
        _ => Ok(()),
    }
}

pub(super) fn option<'a>(log: &'a LogConfig, name: &str) -> &'a str {
    let value = log.config.as_ref().and_then(|options| options.get(name));
    value.map_or("", String::as_str)
}

/// Whether `docker logs` may read the engine's own file.
pub(crate) fn is_readable(host: &HostConfig) -> bool {
    option(&host.log_config, CACHE) != "true"
}

/// Size and count of the files that `docker logs` reads, as these drivers call them.
pub(crate) fn rotation(log: &LogConfig) -> LogConfig {
    let mut options = Labels::new();
    for (from, to) in [
        ("cache-max-size", "max-size"),
        ("cache-max-file", "max-file"),
    ] {
        let value = option(log, from);
        if !value.is_empty() {
            options.insert(to.to_owned(), value.to_owned());
        }
    }
    LogConfig {
        kind: "local".to_owned(),
        config: Some(options),
    }
}

/// The name of a container for the other side: a template of docker's, of plain fields only.
pub(super) fn tag(record: &Record) -> Result<String, Fault> {
    let template = match option(&record.host.log_config, "tag") {
        "" => "{{.ID}}",
        template => template,
    };
    let image = record.image_id.trim_start_matches("sha256:");
    let fields = [
        ("ID", record.short_id()),
        ("FullID", record.id.as_str()),
        ("Name", record.name.as_str()),
        ("ImageID", image.get(..12).unwrap_or(image)),
        ("ImageFullID", record.image_id.as_str()),
        ("ImageName", record.config.image.as_str()),
        ("DaemonName", "docker"),
    ];
    let (mut out, mut rest) = (String::new(), template);
    while let Some((before, after)) = rest.split_once("{{") {
        let (inner, behind) = after.split_once("}}").unwrap_or((after, ""));
        let name = inner.trim().trim_start_matches('.');
        let Some((_, value)) = fields.iter().find(|(field, _)| *field == name) else {
            let message = format!("failed to parse log tag: {template:?}");
            return Err(Fault::bad(message));
        };
        out.push_str(before);
        out.push_str(value);
        rest = behind;
    }
    Ok(out + rest)
}

/// Labels and variables that go along.
pub(super) fn attributes(record: &Record) -> Result<BTreeMap<String, String>, Fault> {
    let log = &record.host.log_config;
    let wanted = |list: &str, regex: &str| -> Result<_, Fault> {
        let names: Vec<String> = option(log, list).split(',').map(str::to_owned).collect();
        let pattern = match option(log, regex) {
            "" => None,
            text => Some(
                Regex::new(text)
                    .map_err(|error| Fault::bad(format!("invalid {regex}: {error}")))?,
            ),
        };
        Ok(move |name: &str| {
            names.iter().any(|known| known == name)
                || pattern
                    .as_ref()
                    .is_some_and(|pattern| pattern.is_match(name))
        })
    };
    let mut found = BTreeMap::new();
    let of_labels = wanted("labels", "labels-regex")?;
    for (name, value) in record
        .config
        .labels
        .iter()
        .filter(|(name, _)| of_labels(name))
    {
        found.insert(name.clone(), value.clone());
    }
    let of_env = wanted("env", "env-regex")?;
    for pair in &record.config.env {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        if of_env(name) {
            found.insert(name.to_owned(), value.to_owned());
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::super::tests::record;
    use super::*;

    #[test]
    fn tags_and_attributes() {
        let named = record("syslog", &[("tag", "{{.Name}}/{{ .ID }}-{{.ImageID}}")]);
        assert_eq!(tag(&named).unwrap(), "web/0123456789ab-fedcba987654");
        assert_eq!(tag(&record("syslog", &[])).unwrap(), "0123456789ab");
        assert!(tag(&record("syslog", &[("tag", "{{.Weather}}")])).is_err());
        let more = record("gelf", &[("labels", "team,none"), ("env-regex", "^COL")]);
        let more = attributes(&more).unwrap();
        let shown: Vec<String> = more.iter().map(|(a, b)| format!("{a}={b}")).collect();
        assert_eq!(shown, ["COLOUR=red", "team=a"]);
        assert!(attributes(&record("gelf", &[("env-regex", "(")])).is_err());
    }

    #[test]
    fn options_of_drivers() {
        for (kind, option, value, good) in [
            ("syslog", "syslog-facility", "local0", true),
            ("syslog", "syslog-facility", "elsewhere", false),
            ("syslog", "syslog-address", "udp://log:1514", true),
            ("syslog", "syslog-address", "carrier://pigeon", false),
            ("syslog", "syslog-format", "rfc5424micro", true),
            ("syslog", "syslog-format", "rfc1", false),
            ("gelf", "gelf-address", "udp://log:12201", true),
            ("gelf", "gelf-address", "http://log", false),
            ("gelf", "tag", "x", false),
            ("fluentd", "fluentd-async", "true", true),
            ("fluentd", "syslog-format", "x", false),
            ("journald", "labels", "team", true),
        ] {
            let checked = check(&record(kind, &[(option, value)]).host.log_config);
            assert_eq!(checked.is_ok(), good, "{kind} {option}={value}");
        }
        let sized = rotation(&record("gelf", &[("cache-max-size", "1m")]).host.log_config);
        assert_eq!(sized.config.unwrap()["max-size"], "1m");
        assert!(!is_readable(&record("gelf", &[(CACHE, "true")]).host));
    }
}
