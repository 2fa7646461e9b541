//! Faults in probes and lifecycle hooks.

use meta::{Faults, naming};
use serde_json::Value;

use crate::spot::{Spot, not_negative, required, rules, unsupported};
use crate::tree::Tree;

/// Faults in `lifecycle`.
pub(super) fn validate_lifecycle(container: &Spot<'_>, spec: &Spot<'_>, faults: &mut Faults) {
    for hook in ["lifecycle.postStart", "lifecycle.preStop"] {
        if let Some(hook) = container.some(hook) {
            validate_handler(&hook, spec, faults);
        }
    }
    if let Some(signal) = container.some("lifecycle.stopSignal") {
        if !spec.has("os") {
            let rule = "may not be set for containers with empty `spec.os.name`";
            faults.forbidden(signal.path, rule);
        } else if spec.text("os.name") == "linux" {
            let name = signal.as_str().unwrap_or("");
            let real_time = name.starts_with("SIGRTMIN") || name.starts_with("SIGRTMAX");
            if !naming::SIGNALS.contains(&name) && !real_time {
                unsupported(faults, signal.path.clone(), name, &naming::SIGNALS);
            }
        }
    }
}

/// Faults in the three probes.
pub(super) fn validate_probes(container: &Spot<'_>, spec: &Spot<'_>, faults: &mut Faults) {
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        let Some(probe) = container.some(name) else {
            continue;
        };
        validate_handler(&probe, spec, faults);
        for field in [
            "initialDelaySeconds",
            "timeoutSeconds",
            "periodSeconds",
            "successThreshold",
            "failureThreshold",
        ] {
            not_negative(&probe, field, faults);
        }
        let grace = probe.maybe_int("terminationGracePeriodSeconds");
        if let Some(grace) = grace.filter(|grace| *grace <= 0) {
            let path = probe.path("terminationGracePeriodSeconds");
            faults.invalid(path, grace, "must be greater than 0");
        }
        let success = probe.int("successThreshold");
        if name != "readinessProbe" && success != 1 {
            faults.invalid(probe.path("successThreshold"), success, "must be 1");
        }
        if let (true, Some(grace)) = (name == "readinessProbe", grace) {
            let path = probe.path("terminationGracePeriodSeconds");
            faults.invalid(path, grace, "must not be set for readinessProbes");
        }
    }
}

fn validate_handler(handler: &Spot<'_>, spec: &Spot<'_>, faults: &mut Faults) {
    let kinds = ["exec", "httpGet", "tcpSocket", "grpc", "sleep"];
    let mut found = kinds
        .iter()
        .filter_map(|kind| Some((*kind, handler.some(kind)?)));
    let Some((kind, action)) = found.next() else {
        return faults.required(handler.path.clone(), "must specify a handler type");
    };
    match kind {
        "exec" if action.count("command") == 0 => faults.required(action.path("command"), ""),
        "exec" => {}
        "httpGet" => validate_http(&action, faults),
        "sleep" => validate_sleep(&action, spec, faults),
        _ => validate_port(&action, faults),
    }
    for (kind, _) in found {
        faults.forbidden(
            handler.path(kind),
            "may not specify more than 1 handler type",
        );
    }
}

fn validate_http(get: &Spot<'_>, faults: &mut Faults) {
    required(get, "path", faults);
    validate_port(get, faults);
    let scheme = get.text("scheme");
    if !matches!(scheme, "HTTP" | "HTTPS") {
        unsupported(faults, get.path("scheme"), scheme, &["HTTP", "HTTPS"]);
    }
    for header in get.items("httpHeaders") {
        let name = header.text("name");
        rules(
            faults,
            get.path("httpHeaders"),
            name,
            naming::http_header(name),
        );
    }
}

fn validate_port(action: &Spot<'_>, faults: &mut Faults) {
    match action.at("port") {
        Value::String(name) => {
            rules(
                faults,
                action.path("port"),
                name.as_str(),
                naming::port_name(name),
            );
        }
        number => {
            let number = number.as_i64().unwrap_or(0);
            rules(
                faults,
                action.path("port"),
                number,
                naming::port_number(number),
            );
        }
    }
}

fn validate_sleep(sleep: &Spot<'_>, spec: &Spot<'_>, faults: &mut Faults) {
    let Some(grace) = spec.maybe_int("terminationGracePeriodSeconds") else {
        return;
    };
    let seconds = sleep.int("seconds");
    if seconds < 0 || seconds > grace {
        let rule =
            format!("must be non-negative and less than terminationGracePeriodSeconds ({grace})");
        faults.invalid(sleep.path.clone(), seconds, rule);
    }
}
