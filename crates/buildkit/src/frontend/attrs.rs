//! What clients say of a build, as names and texts.

use std::collections::BTreeMap;

use tonic::Status;

use crate::wire::Map;
use crate::{Extras, fault};

/// Attributes, read.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Attrs {
    pub(super) filename: String,
    /// An address of the context; empty: it is a folder of the client's.
    pub(super) context: String,
    /// The folder with the Dockerfile, where that is not the context's.
    pub(super) dockerfile_key: String,
    /// Sessions of folders that are not in the build's own.
    pub(super) sessions: BTreeMap<String, String>,
    /// Names with a meaning.
    pub(super) contexts: BTreeMap<String, String>,
    pub(super) args: BTreeMap<String, String>,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) target: String,
    pub(super) no_cache: bool,
    pub(super) no_cache_stages: Vec<String>,
    pub(super) pull: bool,
    pub(super) network: String,
    pub(super) extras: Extras,
}

impl Attrs {
    pub(super) fn read(map: &Map) -> Result<Attrs, Status> {
        let mut attrs = Attrs {
            filename: "Dockerfile".to_owned(),
            ..Attrs::default()
        };
        for (name, value) in map {
            match name.split_once(':') {
                Some((kind, rest)) => attrs.of_kind(kind, rest, value)?,
                None => attrs.plain(name, value)?,
            }
        }
        Ok(attrs)
    }

    fn of_kind(&mut self, kind: &str, name: &str, value: &str) -> Result<(), Status> {
        let into = match kind {
            "build-arg" => &mut self.args,
            "label" => &mut self.labels,
            "context" => &mut self.contexts,
            "local-sessionid" => &mut self.sessions,
            "attest" => {
                let message = format!("attestation {name} is not supported by this engine");
                return Err(fault::words(message));
            }
            // Hints, such as by what name a folder is known.
            _ => return Ok(()),
        };
        into.insert(name.to_owned(), value.to_owned());
        Ok(())
    }

    fn plain(&mut self, name: &str, value: &str) -> Result<(), Status> {
        match name {
            "filename" if !value.is_empty() => value.clone_into(&mut self.filename),
            "context" => value.clone_into(&mut self.context),
            "dockerfilekey" => value.clone_into(&mut self.dockerfile_key),
            "target" => value.clone_into(&mut self.target),
            "no-cache" if value.is_empty() => self.no_cache = true,
            "no-cache" => self.no_cache_stages = value.split(',').map(str::to_owned).collect(),
            "image-resolve-mode" => self.pull = matches!(value, "pull" | "force-pull"),
            "force-network-mode" => match value {
                "" | "sandbox" => {}
                "host" | "none" => value.clone_into(&mut self.network),
                other => return Err(fault::words(format!("invalid network mode {other}"))),
            },
            "cgroup-parent" => value.clone_into(&mut self.extras.cgroup_parent),
            "shm-size" => self.extras.shm_size = number("shm-size", value)?,
            "add-hosts" => self.extras.hosts = hosts(value)?,
            "ulimit" => self.extras.ulimits = ulimits(value)?,
            "platform" => platform(value)?,
            "multi-platform" if value == "true" => {
                return Err(fault::words(
                    "images of several platforms are not supported",
                ));
            }
            _ => {}
        }
        Ok(())
    }
}

fn number(name: &str, value: &str) -> Result<i64, Status> {
    let parsed = value.parse();
    parsed.map_err(|_| fault::words(format!("invalid {name}: {value}")))
}

/// `name=address,…`.
fn hosts(text: &str) -> Result<Vec<String>, Status> {
    let pair = |text: &str| match text.split_once('=') {
        Some((name, address)) => Ok(format!("{name}:{address}")),
        None => Err(fault::words(format!("invalid host {text}"))),
    };
    text.split(',')
        .filter(|text| !text.is_empty())
        .map(pair)
        .collect()
}

/// `nofile=1024:2048,…`.
fn ulimits(text: &str) -> Result<Vec<(String, i64, i64)>, Status> {
    let one = |text: &str| {
        let wrong = || fault::words(format!("invalid ulimit {text}"));
        let (name, limits) = text.split_once('=').ok_or_else(wrong)?;
        let (soft, hard) = limits.split_once(':').unwrap_or((limits, limits));
        Ok((
            name.to_owned(),
            number("ulimit", soft)?,
            number("ulimit", hard)?,
        ))
    };
    text.split(',')
        .filter(|text| !text.is_empty())
        .map(one)
        .collect()
}

fn platform(text: &str) -> Result<(), Status> {
    let own = format!("linux/{}", oci::ImageDocument::scratch().architecture);
    match text {
        "" | "linux" => Ok(()),
        text if text == own => Ok(()),
        other => Err(fault::words(format!(
            "images for {other} are not supported: this machine is {own}"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<Attrs, Status> {
        let pairs = pairs.iter();
        Attrs::read(
            &pairs
                .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()))
                .collect(),
        )
    }

    #[test]
    fn attributes_are_read() {
        let attrs = read(&[
            ("build-arg:A", "1"),
            ("label:a:b", "c"),
            ("context:base", "docker-image://x"),
            ("no-cache", "one,two"),
            ("image-resolve-mode", "pull"),
            ("force-network-mode", "none"),
            ("add-hosts", "a=1.2.3.4,b=::1"),
            ("ulimit", "nofile=1:2,core=3"),
            ("shm-size", "64"),
            ("platform", "linux"),
        ])
        .unwrap();
        assert_eq!(attrs.args["A"], "1");
        assert_eq!(attrs.labels["a:b"], "c");
        assert_eq!(attrs.contexts["base"], "docker-image://x");
        assert_eq!(attrs.no_cache_stages, ["one", "two"]);
        assert!(attrs.pull && !attrs.no_cache && attrs.network == "none");
        assert_eq!(attrs.extras.hosts, ["a:1.2.3.4", "b:::1"]);
        let limits = [("nofile".to_owned(), 1, 2), ("core".to_owned(), 3, 3)];
        assert_eq!(attrs.extras.ulimits, limits);
        assert!(read(&[("no-cache", "")]).unwrap().no_cache);
        assert!(read(&[("platform", "linux/s390x")]).is_err());
        assert!(read(&[("attest:sbom", "")]).is_err());
        assert!(read(&[("ulimit", "nofile")]).is_err());
    }
}
