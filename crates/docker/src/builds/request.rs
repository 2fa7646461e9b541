//! What `POST /build` asks for.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use base64::Engine as _;
use oci::{Credentials, Reference};
use serde::de::DeserializeOwned;

use crate::answer::Fault;
use crate::call::Call;
use crate::wire::{HostConfig, Ulimit};

/// One build.
pub(super) struct Wish {
    pub(super) dockerfile: String,
    pub(super) tags: Vec<Reference>,
    pub(super) quiet: bool,
    /// Where the context is instead of in the request.
    pub(super) remote: Option<String>,
    /// The client's name of the build, to cancel it by.
    pub(super) id: String,
    args: BTreeMap<String, String>,
    labels: BTreeMap<String, String>,
    target: String,
    no_cache: bool,
    pull: bool,
    network: String,
    beyond: Arc<Beyond>,
}

/// What the builder passes on without a look.
pub(super) struct Beyond {
    /// For containers of `RUN`.
    pub(super) host: HostConfig,
    /// By registry.
    pub(super) credentials: BTreeMap<String, Credentials>,
    /// Who else may know some.
    pub(super) ask: Option<buildkit::AskCredentials>,
}

impl Wish {
    pub(super) fn read(call: &Call) -> Result<Wish, Fault> {
        let query = &call.query;
        if query.flag("squash") {
            return Err(Fault::bad(
                "squash is only supported with experimental mode",
            ));
        }
        let platform = query.text("platform");
        if !["", "linux", crate::images::own_platform()].contains(&platform) {
            return Err(Fault::unable(format!(
                "images for {platform} are not supported"
            )));
        }
        let tags = query.all("t").filter(|tag| !tag.is_empty()).map(|tag| {
            let parsed = crate::images::with_tag(tag).parse::<Reference>();
            parsed.map_err(|error| Fault::bad(format!("invalid reference format: {error}")))
        });
        let args: BTreeMap<String, Option<String>> = json(call, "buildargs")?;
        let network = match query.text("networkmode") {
            "default" => "",
            other => other,
        };
        Ok(Wish {
            dockerfile: match query.text("dockerfile") {
                "" => "Dockerfile".to_owned(),
                name => name.to_owned(),
            },
            tags: tags.collect::<Result<_, _>>()?,
            quiet: query.flag("q"),
            remote: remote(query.text("remote"))?,
            id: query.text("buildid").to_owned(),
            // One without a value is not set on the client's side either.
            args: args
                .into_iter()
                .filter_map(|(name, value)| Some((name, value?)))
                .collect(),
            labels: json(call, "labels")?,
            target: query.text("target").to_owned(),
            no_cache: query.flag("nocache"),
            pull: query.flag("pull"),
            network: network.to_owned(),
            beyond: Arc::new(Beyond {
                host: host(call)?,
                credentials: credentials(call)?,
                ask: None,
            }),
        })
    }

    pub(super) fn request(&self, dockerfile: String, context: &Path) -> build::Request {
        build::Request {
            dockerfile,
            context: context.to_owned(),
            args: self.args.clone(),
            target: self.target.clone(),
            labels: self.labels.clone(),
            tags: self.tags.clone(),
            no_cache: self.no_cache,
            pull: self.pull,
            network: self.network.clone(),
            wishes: Some(self.beyond.clone()),
            ..build::Request::default()
        }
    }
}

/// An address of an archive or a Dockerfile.
fn remote(text: &str) -> Result<Option<String>, Fault> {
    let path = text.split(['#', '?']).next().unwrap_or_default();
    let url = text.starts_with("http://") || text.starts_with("https://");
    match text {
        "" => Ok(None),
        _ if url && !path.ends_with(".git") => Ok(Some(text.to_owned())),
        _ => Err(Fault::unable(
            "contexts of git repositories are not supported: let the client fetch them",
        )),
    }
}

/// A parameter that is a document.
pub(super) fn json<T: DeserializeOwned + Default>(call: &Call, name: &str) -> Result<T, Fault> {
    match call.query.text(name) {
        "" | "null" => Ok(T::default()),
        text => serde_json::from_str(text)
            .map_err(|error| Fault::bad(format!("error reading {name}: {error}"))),
    }
}

fn host(call: &Call) -> Result<HostConfig, Fault> {
    let query = &call.query;
    let mut host = HostConfig {
        cgroup_parent: query.text("cgroupparent").to_owned(),
        shm_size: query.number("shmsize")?.unwrap_or(0),
        ..HostConfig::default()
    };
    let hosts: Vec<String> = match query.text("extrahosts") {
        text if text.starts_with('[') => json(call, "extrahosts")?,
        _ => query.all("extrahosts").map(str::to_owned).collect(),
    };
    host.extra_hosts = Some(hosts).filter(|hosts| !hosts.is_empty());
    let limits = &mut host.limits;
    limits.memory = query.number("memory")?.unwrap_or(0);
    limits.memory_swap = query.number("memswap")?.unwrap_or(0);
    limits.cpu_shares = query.number("cpushares")?.unwrap_or(0);
    limits.cpu_period = query.number("cpuperiod")?.unwrap_or(0);
    limits.cpu_quota = query.number("cpuquota")?.unwrap_or(0);
    query.text("cpusetcpus").clone_into(&mut limits.cpuset_cpus);
    query.text("cpusetmems").clone_into(&mut limits.cpuset_mems);
    let ulimits: Vec<Ulimit> = json(call, "ulimits")?;
    limits.ulimits = Some(ulimits).filter(|limits| !limits.is_empty());
    Ok(host)
}

/// `X-Registry-Config`: base64 of credentials by registry.
fn credentials(call: &Call) -> Result<BTreeMap<String, Credentials>, Fault> {
    let text = call.header("x-registry-config").unwrap_or_default();
    if text.is_empty() {
        return Ok(BTreeMap::new());
    }
    let wrong = |error: &dyn std::fmt::Display| {
        Fault::bad(format!("invalid X-Registry-Config header: {error}"))
    };
    let bytes = crate::images::BASE64
        .decode(text)
        .map_err(|error| wrong(&error))?;
    let all: BTreeMap<String, crate::images::Auth> =
        serde_json::from_slice(&bytes).map_err(|error| wrong(&error))?;
    let own = |(server, auth): (String, crate::images::Auth)| {
        let host = server
            .trim_start_matches("https://")
            .trim_start_matches("http://");
        let host = host.split('/').next().unwrap_or_default();
        let host = match host {
            "index.docker.io" => "docker.io",
            host => host,
        };
        (host.to_owned(), auth.into_credentials())
    };
    Ok(all.into_iter().map(own).collect())
}
