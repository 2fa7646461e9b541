//! `/healthz`, `/livez` and `/readyz`: all checks of one, or one check.

use std::sync::atomic::Ordering;

use base::metrics::Counters;
use http::header::X_CONTENT_TYPE_OPTIONS;
use http::{HeaderValue, StatusCode};
use meta::Status;

use crate::chain::Call;
use crate::respond::{self, Answer};
use crate::server::Core;

/// What is waited for after the start.
const START: &str = "poststarthook/bootstrap";

/// The checks behind a path, in order, and whether each passes.
fn checks(core: &Core, kind: &str) -> Vec<(&'static str, bool)> {
    let started = core.started.load(Ordering::Acquire);
    // The store is part of this process: it answers as long as we do.
    let mut checks = vec![("ping", true), ("log", true), ("etcd", true)];
    if kind == "readyz" {
        checks.push(("etcd-readiness", true));
        checks.push(("informer-sync", started));
    }
    checks.push((START, started || kind == "livez"));
    if let Some(encryption) = core.config.encryption.as_ref().filter(|_| kind != "livez") {
        checks.push(("kms-providers", encryption.unhealthy().is_none()));
    }
    if kind == "readyz" {
        let leaves = core.config.leaving.is_raised() || core.stop.is_raised();
        checks.push(("shutdown", !leaves));
    }
    checks
}

/// How each check ends now, and how often it ended how when somebody looked.
pub(crate) fn slis(core: &Core) -> Answer {
    static RESULTS: Counters = Counters::new(
        "kubernetes_healthchecks_total",
        "[STABLE] This metric records the results of all healthcheck.",
        &["name", "status", "type"],
    );
    let name = "kubernetes_healthcheck";
    let mut lines = format!(
        "# HELP {name} [STABLE] This metric records the result of a single healthcheck.\n\
         # TYPE {name} gauge\n"
    );
    for kind in ["healthz", "livez", "readyz"] {
        for (check, passed) in checks(core, kind) {
            let status = if passed { "success" } else { "error" };
            RESULTS.add(&[check, status, kind], 1);
            let result = u8::from(passed);
            let labels = format!("name=\"{check}\",type=\"{kind}\"");
            lines.push_str(&format!("{name}{{{labels}}} {result}\n"));
        }
    }
    lines.push_str(&RESULTS.page());
    let media = "text/plain; version=0.0.4; charset=utf-8";
    respond::plain(StatusCode::OK, media, lines)
}

/// The paths of single checks.
pub(crate) fn paths(core: &Core) -> impl Iterator<Item = String> {
    let kinds = ["healthz", "livez", "readyz"].into_iter();
    kinds.flat_map(|kind| {
        let own = checks(core, kind).into_iter();
        own.map(move |(name, _)| format!("/{kind}/{name}"))
    })
}

/// Answers one of the paths; `rest` names a single check.
pub(crate) fn answer(
    core: &Core,
    call: &Call,
    kind: &str,
    rest: &[&str],
) -> Result<Answer, Status> {
    let checks = checks(core, kind);
    if rest.is_empty() {
        return Ok(all(call, kind, &checks));
    }
    let wanted = rest.join("/");
    let check = checks.iter().find(|(name, _)| *name == wanted);
    let Some((name, passed)) = check else {
        return Ok(crate::pages::not_found());
    };
    Ok(match passed {
        true => text(StatusCode::OK, "ok".into()),
        false => text(
            StatusCode::INTERNAL_SERVER_ERROR,
            format!("internal server error: {name} failed\n"),
        ),
    })
}

fn all(call: &Call, kind: &str, checks: &[(&'static str, bool)]) -> Answer {
    let excluded: Vec<&str> = call.query.all("exclude").collect();
    let mut lines = String::new();
    let mut good = true;
    for (name, passed) in checks {
        lines.push_str(&match (excluded.contains(name), passed) {
            (true, _) => format!("[+]{name} excluded: ok\n"),
            (false, true) => format!("[+]{name} ok\n"),
            (false, false) => format!("[-]{name} failed: reason withheld\n"),
        });
        good &= *passed || excluded.contains(name);
    }
    let is_check = |name: &&&str| checks.iter().any(|(own, _)| *own == **name);
    let unknown: Vec<String> = excluded
        .iter()
        .filter(|name| !is_check(name))
        .map(|name| format!("{name:?}"))
        .collect();
    if !unknown.is_empty() {
        let names = unknown.join(",");
        lines.push_str(&format!(
            "warn: some health checks cannot be excluded: no matches for {names}\n"
        ));
    }
    if !good {
        let code = StatusCode::INTERNAL_SERVER_ERROR;
        return text(code, format!("{lines}{kind} check failed\n"));
    }
    match call.query.all("verbose").next() {
        Some(_) => text(StatusCode::OK, format!("{lines}{kind} check passed\n")),
        None => text(StatusCode::OK, "ok".into()),
    }
}

fn text(code: StatusCode, body: String) -> Answer {
    let mut answer = respond::plain(code, "text/plain; charset=utf-8", body);
    let nosniff = HeaderValue::from_static("nosniff");
    answer.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, nosniff);
    answer
}
