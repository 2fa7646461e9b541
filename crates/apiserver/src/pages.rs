//! Everything that is no resource: health, version, metrics, discovery, OpenAPI, token keys.

use std::sync::Arc;

use http::header::X_CONTENT_TYPE_OPTIONS;
use http::{HeaderValue, StatusCode};
use meta::Status;
use serde_json::{Value, json};

use crate::chain::{Accept, Call};
use crate::dispatch::no_such_resource;
use crate::respond::{self, Answer};
use crate::server::Core;
use crate::{discovery, health, openapi, profile, zpages};

/// Paths that `/` names, besides those of groups and health checks.
const PATHS: [&str; 18] = [
    "/.well-known/openid-configuration",
    "/api",
    "/api/v1",
    "/apis",
    "/apis/",
    "/flagz",
    "/healthz",
    "/livez",
    "/metrics",
    "/metrics/slis",
    "/openapi/v2",
    "/openapi/v3",
    "/openapi/v3/",
    "/openid/v1/jwks",
    "/readyz",
    "/statusz",
    "/version",
    "/version/",
];

/// Answers a path that is no resource's.
pub(crate) async fn answer(core: &Arc<Core>, call: &Call) -> Result<Answer, Status> {
    let path = call.info.path.trim_end_matches('/');
    let segments: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    if !is_answered(call.info.verb, &segments) {
        return match leads_somewhere(segments[0]) {
            true => Err(crate::registry::method_not_allowed()),
            false => Ok(not_found()),
        };
    }
    match segments.as_slice() {
        [""] => Ok(index(core, call)),
        ["version"] => match Accept::refused_by_router(&call.headers, &["application/json"]) {
            Some(refused) => Err(refused),
            None => Ok(json(call, &version_of(core))),
        },
        ["statusz"] => zpages::statusz(core, call),
        ["flagz"] => zpages::flagz(core, call),
        ["metrics"] => Ok(metrics(core)),
        ["metrics", "slis"] => Ok(health::slis(core)),
        [kind @ ("healthz" | "livez" | "readyz"), rest @ ..] => {
            health::answer(core, call, kind, rest)
        }
        ["debug", "pprof", page @ ..] => profile::answer(core, call, page).await,
        ["debug", "api_priority_and_fairness", page] => {
            let text = match *page {
                "dump_priority_levels" => core.fairness.dump_priority_levels(),
                "dump_queues" => core.fairness.dump_queues(),
                "dump_requests" => core.fairness.dump_requests(),
                _ => return Err(no_such_resource()),
            };
            let media_type = "text/plain; charset=utf-8";
            Ok(respond::plain(StatusCode::OK, media_type, text))
        }
        ["api" | "apis", ..] => discovery::answer(core, call, &segments),
        ["openapi", rest @ ..] => openapi::answer(core, call, rest).await,
        ["openid", "v1", "jwks"] => {
            let keys = core.signer.key_set().to_string();
            Ok(respond::plain(
                StatusCode::OK,
                "application/jwk-set+json",
                keys,
            ))
        }
        [".well-known", "openid-configuration"] => {
            let host = match core.config.advertise_address {
                Some(address) => std::net::SocketAddr::new(address, core.config.port).to_string(),
                None => format!("127.0.0.1:{}", core.config.port),
            };
            let document = core.signer.discovery(&host);
            document
                .map(|document| json(call, &document))
                .ok_or_else(no_such_resource)
        }
        _ => Ok(not_found()),
    }
}

/// Whether a page answers requests of this verb. Some pages of upstream do not look at it.
fn is_answered(verb: &str, segments: &[&str]) -> bool {
    match segments {
        ["healthz" | "livez" | "readyz", ..] | ["apis"] | ["openapi", "v2"] => true,
        ["api" | "apis" | "version", ..] => verb == "get",
        _ => matches!(verb, "get" | "head"),
    }
}

fn leads_somewhere(first: &str) -> bool {
    let of_page = |path: &&str| path.trim_start_matches('/').split('/').next() == Some(first);
    first == "debug" || PATHS.iter().any(of_page)
}

/// 404 for a path that is nobody's, in the words of Go's own server.
pub(crate) fn not_found() -> Answer {
    let media_type = "text/plain; charset=utf-8";
    let mut answer = respond::plain(StatusCode::NOT_FOUND, media_type, "404 page not found\n");
    let nosniff = HeaderValue::from_static("nosniff");
    answer.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, nosniff);
    answer
}

/// All paths that lead somewhere.
pub(crate) fn paths(core: &Core) -> Vec<String> {
    let resources = core.registry.now();
    let mut paths: Vec<String> = PATHS.iter().map(|path| (*path).to_owned()).collect();
    for group_version in resources.group_versions() {
        if !group_version.group.is_empty() {
            paths.push(format!("/apis/{}", group_version.group));
            paths.push(format!("/apis/{group_version}"));
        }
    }
    paths.extend(health::paths(core));
    paths.sort_unstable();
    paths.dedup();
    paths
}

/// Pages that are JSON whatever the client accepts.
fn json(call: &Call, tree: &Value) -> Answer {
    let text = tree.to_string().into_bytes();
    let text = match call.accept.pretty {
        true => crate::pretty::indent(&text),
        false => text,
    };
    respond::plain(StatusCode::OK, "application/json", text)
}

fn index(core: &Core, call: &Call) -> Answer {
    json(call, &json!({"paths": paths(core)}))
}

/// What `/version` says.
pub(crate) fn version_of(core: &Core) -> Value {
    let config = &core.config;
    let mut numbers = config.git_version.trim_start_matches('v').split('.');
    let (major, minor) = (
        numbers.next().unwrap_or("1"),
        numbers.next().unwrap_or("36"),
    );
    let before = minor
        .parse()
        .map_or(35, |minor: u32| minor.saturating_sub(1));
    json!({
        "major": major, "minor": minor, "emulationMajor": major, "emulationMinor": minor,
        "minCompatibilityMajor": major, "minCompatibilityMinor": before.to_string(),
        "gitVersion": config.git_version, "gitCommit": config.git_commit,
        "gitTreeState": "clean", "buildDate": config.build_date,
        "goVersion": "none", "compiler": "rustc",
        "platform": format!("{}/{}", std::env::consts::OS, go_arch()),
    })
}

fn go_arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn metrics(core: &Core) -> Answer {
    let mut text = core.metrics.render();
    let (mutating, reading) = core.inflight.counts();
    let name = "apiserver_current_inflight_requests";
    text.push_str(&format!(
        "# HELP {name} [STABLE] Maximal number of currently used inflight request limit of this \
         apiserver per request kind in last second.\n# TYPE {name} gauge\n"
    ));
    for (kind, count) in [("mutating", mutating), ("readOnly", reading)] {
        text.push_str(&format!("{name}{{request_kind=\"{kind}\"}} {count}\n"));
    }
    text.push_str(&core.fairness.metrics());
    if let Some(audit) = &core.config.audit {
        text.push_str(&audit.metrics());
    }
    let address = core.config.advertise_address.map(|own| own.to_string());
    let server = format!("{}:{}", address.unwrap_or_default(), core.config.port);
    text.push_str(&core.reloads.metrics(&server));
    let (name, newer) = ("apiserver_storage_objects", "apiserver_resource_objects");
    let (mut stored, mut named) = (String::new(), String::new());
    for resource in core.registry.now().all() {
        if let (Some(cache), None) = (&resource.cache, &resource.seen) {
            let names = &resource.row.names;
            let (count, own) = (cache.len(), names.group_resource());
            stored.push_str(&format!("{name}{{resource=\"{own}\"}} {count}\n"));
            let (group, plural) = (&names.group, &names.plural);
            let labels = format!("group=\"{group}\",resource=\"{plural}\"");
            named.push_str(&format!("{newer}{{{labels}}} {count}\n"));
        }
    }
    text.push_str(&format!(
        "# HELP {name} [STABLE] Number of stored objects at the time of last check split by \
         kind.\n# TYPE {name} gauge\n{stored}# HELP {newer} Number of stored objects split by \
         group and resource.\n# TYPE {newer} gauge\n{named}"
    ));
    let (name, bytes) = ("apiserver_storage_size_bytes", core.store.size_bytes());
    text.push_str(&format!(
        "# HELP {name} [STABLE] Size of the storage database file physically allocated in \
         bytes.\n# TYPE {name} gauge\n{name}{{storage_cluster_id=\"etcd-0\"}} {bytes}\n"
    ));
    let name = "aggregator_unavailable_apiservice";
    text.push_str(&format!(
        "# HELP {name} [ALPHA] Gauge of APIServices which are marked as unavailable broken down \
         by APIService name.\n# TYPE {name} gauge\n"
    ));
    for (service, there) in core.aggregate.availability() {
        let gone = u8::from(!there);
        text.push_str(&format!("{name}{{name=\"{service}\"}} {gone}\n"));
    }
    text.push_str(&base::metrics::page());
    text.push_str(&crate::process::metrics());
    let version = version_of(core);
    let labels = [
        ("build_date", "buildDate"),
        ("compiler", "compiler"),
        ("git_commit", "gitCommit"),
        ("git_tree_state", "gitTreeState"),
        ("git_version", "gitVersion"),
        ("go_version", "goVersion"),
        ("major", "major"),
        ("minor", "minor"),
        ("platform", "platform"),
    ];
    let labels = labels.map(|(label, field)| format!("{label}={}", version[field]));
    let (info, begun) = ("kubernetes_build_info", core.begun.as_second());
    text.push_str(&format!(
        "# TYPE {info} gauge\n{info}{{{}}} 1\n# TYPE process_start_time_seconds gauge\n\
         process_start_time_seconds {begun}\n",
        labels.join(",")
    ));
    respond::plain(
        StatusCode::OK,
        "text/plain; version=0.0.4; charset=utf-8",
        text,
    )
}
