//! Everything that is no resource: health, version, metrics, discovery, OpenAPI, token keys.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use http::StatusCode;
use meta::Status;
use serde_json::json;

use crate::chain::Call;
use crate::dispatch::no_such_resource;
use crate::respond::{self, Answer};
use crate::server::Core;
use crate::{discovery, openapi};

/// Paths that `/` names, besides those of groups.
const PATHS: [&str; 15] = [
    "/.well-known/openid-configuration",
    "/api",
    "/api/v1",
    "/apis",
    "/healthz",
    "/healthz/ping",
    "/livez",
    "/livez/ping",
    "/metrics",
    "/openapi/v2",
    "/openapi/v3",
    "/openid/v1/jwks",
    "/readyz",
    "/readyz/poststarthook/bootstrap",
    "/version",
];

/// Answers a path that is no resource's.
pub(crate) async fn answer(core: &Arc<Core>, call: &Call) -> Result<Answer, Status> {
    if !matches!(call.info.verb, "get" | "head") {
        return Err(crate::registry::method_not_allowed());
    }
    let path = call.info.path.trim_end_matches('/');
    let segments: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    match segments.as_slice() {
        [""] => index(core, call),
        ["version"] => version(core, call),
        ["metrics"] => Ok(metrics(core)),
        [kind @ ("healthz" | "livez" | "readyz"), rest @ ..] => health(core, call, kind, rest),
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
            respond::value(call, StatusCode::OK, &core.signer.discovery(&host))
        }
        _ => Err(no_such_resource()),
    }
}

fn index(core: &Core, call: &Call) -> Result<Answer, Status> {
    let resources = core.registry.now();
    let mut paths: Vec<String> = PATHS.iter().map(|path| (*path).to_owned()).collect();
    for group_version in resources.group_versions() {
        if !group_version.group.is_empty() {
            paths.push(format!("/apis/{}", group_version.group));
            paths.push(format!("/apis/{group_version}"));
        }
    }
    paths.sort_unstable();
    paths.dedup();
    respond::value(call, StatusCode::OK, &json!({"paths": paths}))
}

fn version(core: &Core, call: &Call) -> Result<Answer, Status> {
    let config = &core.config;
    let mut numbers = config.git_version.trim_start_matches('v').split('.');
    let (major, minor) = (
        numbers.next().unwrap_or("1"),
        numbers.next().unwrap_or("36"),
    );
    let tree = json!({
        "major": major, "minor": minor, "emulationMajor": major, "emulationMinor": minor,
        "minCompatibilityMajor": major, "minCompatibilityMinor": "35",
        "gitVersion": config.git_version, "gitCommit": config.git_commit,
        "gitTreeState": "clean", "buildDate": config.build_date,
        "goVersion": "none", "compiler": "rustc",
        "platform": format!("{}/{}", std::env::consts::OS, go_arch()),
    });
    respond::value(call, StatusCode::OK, &tree)
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
    text.push_str("# TYPE apiserver_current_inflight_requests gauge\n");
    for (kind, count) in [("mutating", mutating), ("readOnly", reading)] {
        let name = "apiserver_current_inflight_requests";
        text.push_str(&format!("{name}{{request_kind=\"{kind}\"}} {count}\n"));
    }
    text.push_str("# TYPE apiserver_storage_objects gauge\n");
    for resource in core.registry.now().all() {
        if let Some(cache) = &resource.cache {
            let name = resource.row.names.group_resource();
            let count = cache.len();
            text.push_str(&format!(
                "apiserver_storage_objects{{resource=\"{name}\"}} {count}\n"
            ));
        }
    }
    respond::plain(
        StatusCode::OK,
        "text/plain; version=0.0.4; charset=utf-8",
        text,
    )
}

fn health(core: &Core, call: &Call, kind: &str, rest: &[&str]) -> Result<Answer, Status> {
    let started = core.started.load(Ordering::Acquire);
    let alive = !core.stop.is_raised();
    let mut checks = vec![("ping", true), ("etcd", true)];
    if kind == "readyz" {
        checks.push(("informer-sync", true));
        checks.push(("shutdown", alive));
    }
    checks.push(("poststarthook/bootstrap", started || kind == "livez"));
    match rest {
        [] => {}
        parts => {
            let wanted = parts.join("/");
            checks.retain(|(name, _)| *name == wanted);
            if checks.is_empty() {
                return Err(no_such_resource());
            }
        }
    }
    let excluded: Vec<&str> = call.query.all("exclude").collect();
    let failed = |(name, good): &(&str, bool)| !good && !excluded.contains(name);
    let good = !checks.iter().any(failed);
    if good && !call.query.flag("verbose") {
        return Ok(respond::plain(
            StatusCode::OK,
            "text/plain; charset=utf-8",
            "ok",
        ));
    }
    let mut text = String::new();
    for (name, passed) in &checks {
        text.push_str(&match (excluded.contains(name), passed) {
            (true, _) => format!("[+]{name} excluded: ok\n"),
            (false, true) => format!("[+]{name} ok\n"),
            (false, false) => format!("[-]{name} failed: reason withheld\n"),
        });
    }
    let (code, word) = match good {
        true => (StatusCode::OK, "passed"),
        false => (StatusCode::INTERNAL_SERVER_ERROR, "failed"),
    };
    text.push_str(&format!("{kind} check {word}\n"));
    Ok(respond::plain(code, "text/plain; charset=utf-8", text))
}
