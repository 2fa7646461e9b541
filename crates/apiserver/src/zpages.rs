//! `/statusz` and `/flagz`: what this process is and how it was told to behave, for people; and as
//! `config.k8s.io` objects for those who name them in `Accept`.

use http::StatusCode;
use http::header::ACCEPT;
use jiff::Timestamp;
use meta::{Reason, Status};
use serde_json::{Map, Value, json};

use crate::chain::Call;
use crate::chain::accept::{Accept, Media};
use crate::pages;
use crate::respond::{self, Answer};
use crate::server::Core;

const COMPONENT: &str = "kube-apiserver";
const WARNING: &str = "Warning: This endpoint is not meant to be machine parseable, has no \
                       formatting compatibility guarantees and is for debugging purposes only.";

/// What is asked for: text, or an object of this version.
enum Form {
    Text,
    Object(Media, &'static str),
}

/// `/statusz`.
pub(crate) fn statusz(core: &Core, call: &Call) -> Result<Answer, Status> {
    let (now, begun) = (Timestamp::now(), core.begun);
    let uptime = now.as_second() - begun.as_second();
    let version = pages::version_of(core);
    let text = |field: &str| version[field].as_str().unwrap_or("").to_owned();
    let emulated = format!("{}.{}", text("emulationMajor"), text("emulationMinor"));
    let paths = pages::paths(core);
    match form(call, "Statusz")? {
        Form::Text => plain(&format!(
            "\n{COMPONENT} statusz\n{WARNING}\n\nStarted: {}\nUp: {}\nGo version: {}\n\
             Binary version: {}\nEmulation version: {emulated}\nPaths: {}\n",
            begun.strftime("%a %b %e %H:%M:%S UTC %Y"),
            duration(uptime),
            text("goVersion"),
            text("gitVersion"),
            paths.join(" ")
        )),
        Form::Object(media, api_version) => object(
            media,
            &json!({
                "kind": "Statusz", "apiVersion": api_version, "metadata": {"name": COMPONENT},
                "startTime": meta::time::rfc3339(begun), "uptimeSeconds": uptime,
                "goVersion": text("goVersion"), "binaryVersion": text("gitVersion"),
                "emulationVersion": emulated, "paths": paths,
            }),
        ),
    }
}

/// `/flagz`.
pub(crate) fn flagz(core: &Core, call: &Call) -> Result<Answer, Status> {
    let flags = flags(core);
    match form(call, "Flagz")? {
        Form::Text => {
            let lines = flags
                .iter()
                .map(|(name, value)| format!("{name}={}\n", value.as_str().unwrap_or("")));
            let lines: String = lines.collect();
            plain(&format!("\n{COMPONENT} flagz\n{WARNING}\n\n{lines}"))
        }
        Form::Object(media, api_version) => object(
            media,
            &json!({"kind": "Flagz", "apiVersion": api_version, "metadata": {"name": COMPONENT},
                "flags": flags}),
        ),
    }
}

/// Settings under the names of upstream's flags, in order.
fn flags(core: &Core) -> Map<String, Value> {
    let config = &core.config;
    let ports = &config.node_port_range;
    let address = config.advertise_address.map(|address| address.to_string());
    let flags = [
        ("advertise-address", address.unwrap_or_default()),
        (
            "anonymous-auth",
            config.authentication.anonymous.enabled.to_string(),
        ),
        ("event-ttl", format!("{}s", config.event_ttl.as_secs())),
        (
            "max-mutating-requests-inflight",
            config.max_mutating_requests_inflight.to_string(),
        ),
        (
            "max-requests-inflight",
            config.max_requests_inflight.to_string(),
        ),
        ("profiling", config.profiling.to_string()),
        (
            "request-timeout",
            format!("{}s", config.request_timeout.as_secs()),
        ),
        ("secure-port", config.port.to_string()),
        ("service-account-issuer", core.signer.issuer().to_owned()),
        ("service-cluster-ip-range", config.service_cidr.clone()),
        (
            "service-node-port-range",
            format!("{}-{}", ports.start(), ports.end()),
        ),
    ];
    let flags = flags.into_iter();
    flags
        .map(|(name, value)| (name.to_owned(), value.into()))
        .collect()
}

/// The first form in `Accept` that is known here.
fn form(call: &Call, kind: &str) -> Result<Form, Status> {
    let accept = call.headers.get(ACCEPT);
    let accept = accept.and_then(|text| text.to_str().ok()).unwrap_or("");
    if accept.trim().is_empty() {
        return Ok(Form::Text);
    }
    for clause in accept.split(',') {
        let mut parts = clause.split(';').map(str::trim);
        let media = match parts.next().unwrap_or("") {
            "text/plain" | "text/*" | "*/*" => return Ok(Form::Text),
            "application/json" => Media::Json,
            "application/yaml" => Media::Yaml,
            _ => continue,
        };
        let parts: Vec<&str> = parts.collect();
        let own = [format!("as={kind}"), "g=config.k8s.io".into()];
        if !own.iter().all(|part| parts.contains(&part.as_str())) {
            continue;
        }
        for (word, api_version) in [
            ("v=v1beta1", "config.k8s.io/v1beta1"),
            ("v=v1alpha1", "config.k8s.io/v1alpha1"),
        ] {
            if parts.contains(&word) {
                return Ok(Form::Object(media, api_version));
            }
        }
    }
    Err(Status::new(
        Reason::NotAcceptable,
        "only the following media types are accepted: application/json, application/yaml, \
         text/plain",
    ))
}

fn plain(text: &str) -> Result<Answer, Status> {
    let media = "text/plain; charset=utf-8";
    Ok(respond::plain(StatusCode::OK, media, text.to_owned()))
}

fn object(media: Media, tree: &Value) -> Result<Answer, Status> {
    let accept = Accept {
        media,
        ..Accept::default()
    };
    respond::value_as(&accept, StatusCode::OK, tree)
}

/// Such as `3 hr 12 min 05 sec`.
fn duration(seconds: i64) -> String {
    let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
    format!("{hours} hr {minutes:02} min {:02} sec", seconds % 60)
}
