//! What `POST /build?version=2` asks for, as a build of BuildKit's.

use std::collections::BTreeMap;

use buildkit::wire::{Exporter, SolveRequest};
use serde::Deserialize;

use super::request::json;
use crate::answer::Fault;
use crate::call::Call;
use crate::wire::Ulimit;

/// Where the context is when it is in the session.
const SESSION: &str = "client-session";

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Output {
    #[serde(rename = "Type")]
    kind: String,
    attrs: Option<BTreeMap<String, String>>,
}

/// Reads a request; a build without a name gets one.
pub(super) fn read(call: &Call) -> Result<SolveRequest, Fault> {
    let query = &call.query;
    let mut attrs = BTreeMap::new();
    let mut put = |name: &str, value: &str| {
        if !value.is_empty() {
            attrs.insert(name.to_owned(), value.to_owned());
        }
    };
    match query.text("remote") {
        SESSION => {}
        "" | "upload-request" => {
            return Err(Fault::unable(
                "a context in the request is the classic builder's",
            ));
        }
        url => put("context", url),
    }
    for (name, attr) in [
        ("dockerfile", "filename"),
        ("target", "target"),
        ("platform", "platform"),
        ("cgroupparent", "cgroup-parent"),
        ("shmsize", "shm-size"),
    ] {
        put(attr, query.text(name));
    }
    match query.text("networkmode") {
        "default" => {}
        mode => put("force-network-mode", mode),
    }
    if query.flag("pull") {
        put("image-resolve-mode", "pull");
    }
    let ulimits: Vec<Ulimit> = json(call, "ulimits")?;
    let ulimits = ulimits.iter();
    let ulimits = ulimits.map(|one| format!("{}={}:{}", one.name, one.soft, one.hard));
    put("ulimit", &ulimits.collect::<Vec<_>>().join(","));
    let hosts = query.text("extrahosts");
    let hosts = hosts.split(',').map(|host| host.replacen(':', "=", 1));
    put("add-hosts", &hosts.collect::<Vec<_>>().join(","));
    if query.flag("nocache") {
        attrs.insert("no-cache".to_owned(), String::new());
    }
    let args: BTreeMap<String, Option<String>> = json(call, "buildargs")?;
    for (name, value) in args {
        if let Some(value) = value {
            attrs.insert(format!("build-arg:{name}"), value);
        }
    }
    let labels: BTreeMap<String, String> = json(call, "labels")?;
    for (name, value) in labels {
        attrs.insert(format!("label:{name}"), value);
    }
    Ok(SolveRequest {
        reference: match query.text("buildid") {
            "" => crate::names::fresh_id(),
            id => id.to_owned(),
        },
        session: query.text("session").to_owned(),
        frontend: "dockerfile.v0".to_owned(),
        frontend_attrs: attrs,
        exporters: exporters(call)?,
        ..SolveRequest::default()
    })
}

/// Where the result goes: where nobody says, into the engine's images.
fn exporters(call: &Call) -> Result<Vec<Exporter>, Fault> {
    let outputs: Vec<Output> = json(call, "outputs")?;
    let tags = call.query.all("t").filter(|tag| !tag.is_empty());
    let names = tags.collect::<Vec<_>>().join(",");
    let image = || Exporter {
        kind: "moby".to_owned(),
        attrs: BTreeMap::from([("name".to_owned(), names.clone())]),
    };
    if outputs.is_empty() {
        return Ok(vec![image()]);
    }
    let exporter = |output: Output| match output.kind.as_str() {
        "image" | "moby" => image(),
        kind => Exporter {
            kind: kind.to_owned(),
            attrs: output.attrs.unwrap_or_default(),
        },
    };
    let outputs = outputs
        .into_iter()
        .filter(|output| output.kind != "cacheonly");
    Ok(outputs.map(exporter).collect())
}
