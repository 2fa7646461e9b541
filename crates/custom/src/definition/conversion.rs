//! How objects get from one version to another.

use std::collections::BTreeSet;

use meta::{Faults, naming};
use serde_json::Value;

use super::{is_true, list, text};

/// Versions of ConversionReview that this server speaks.
const REVIEW_VERSIONS: [&str; 2] = ["v1", "v1beta1"];
const PATH: &str = "spec.conversion";

/// Faults of `spec.conversion`.
pub(super) fn validate(definition: &Value, old: Option<&Value>, faults: &mut Faults) {
    let Some(conversion) = definition.pointer("/spec/conversion") else {
        return;
    };
    let strategy = text(conversion, "/strategy");
    match strategy {
        "" => faults.required(format!("{PATH}.strategy"), ""),
        "None" | "Webhook" => {}
        other => {
            faults.not_supported(format!("{PATH}.strategy"), other, &["None", "Webhook"]);
        }
    }
    let config = conversion.pointer("/webhook/clientConfig");
    let versions = list(conversion, "/webhook/conversionReviewVersions");
    if strategy == "Webhook" {
        validate_config(config, faults);
        if old.is_some_and(|old| is_true(old, "Established") && !has_broken_bundle(old)) {
            validate_bundle(bundle(definition), faults);
        }
        let known = |list: &[Value]| {
            let mut own = list.iter().filter_map(Value::as_str);
            list.is_empty() || own.any(|own| REVIEW_VERSIONS.contains(&own))
        };
        let before = old.map(list_of_old);
        let needs_known = before.is_none_or(known);
        validate_versions(versions, needs_known, faults);
        return;
    }
    let rule = "should not be set when strategy is not set to Webhook";
    if config.is_some() {
        faults.forbidden(format!("{PATH}.webhookClientConfig"), rule);
    }
    if !versions.is_empty() {
        faults.forbidden(format!("{PATH}.conversionReviewVersions"), rule);
    }
}

fn list_of_old(old: &Value) -> &[Value] {
    list(old, "/spec/conversion/webhook/conversionReviewVersions")
}

fn validate_config(config: Option<&Value>, faults: &mut Faults) {
    let at = format!("{PATH}.webhookClientConfig");
    let Some(config) = config else {
        return faults.required(at, "required when strategy is set to Webhook");
    };
    match (config.get("url"), config.get("service")) {
        (Some(url), None) => validate_url(url.as_str().unwrap_or(""), &at, faults),
        (None, Some(service)) => validate_service(service, &format!("{at}.service"), faults),
        _ => faults.required(at, "exactly one of url or service is required"),
    }
}

fn bundle(definition: &Value) -> &str {
    text(definition, "/spec/conversion/webhook/clientConfig/caBundle")
}

/// Whether a bundle holds no certificate, as far as its form tells.
fn is_broken(bundle: &str) -> bool {
    use base64::Engine as _;
    let decoded = base64::engine::general_purpose::STANDARD.decode(bundle);
    let text = decoded.ok().and_then(|bytes| String::from_utf8(bytes).ok());
    !text.is_some_and(|text| {
        let begins = text.find("-----BEGIN ");
        begins.is_some_and(|at| text[at..].contains("-----END "))
    })
}

fn has_broken_bundle(old: &Value) -> bool {
    let before = bundle(old);
    !before.is_empty() && is_broken(before)
}

/// Once a definition is served, its webhook must not be lost.
fn validate_bundle(bundle: &str, faults: &mut Faults) {
    if !bundle.is_empty() && is_broken(bundle) {
        let rule = "unable to load root certificates: unable to parse bytes as PEM block";
        faults.invalid(format!("{PATH}.webhookClientConfig.caBundle"), bundle, rule);
    }
}

fn validate_url(url: &str, at: &str, faults: &mut Faults) {
    const FORM: &str = "; desired format: https://host[/path]";
    let at = format!("{at}.url");
    let mut refuse = |rule: &str| faults.invalid(at.as_str(), url, format!("{rule}{FORM}"));
    let Some(rest) = url.strip_prefix("https://") else {
        return refuse("'https' is the only allowed URL scheme");
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or("");
    if authority.is_empty() {
        refuse("host must be specified");
    }
    if authority.contains('@') {
        refuse("user information is not permitted in the URL");
    }
    if rest.contains('#') {
        refuse("fragments are not permitted in the URL");
    }
    if rest.contains('?') {
        refuse("query parameters are not permitted in the URL");
    }
}

fn validate_service(service: &Value, at: &str, faults: &mut Faults) {
    for field in ["name", "namespace"] {
        if text(service, &format!("/{field}")).is_empty() {
            faults.required(
                format!("{at}.{field}"),
                format!("service {field} is required"),
            );
        }
    }
    let port = service.get("port").and_then(Value::as_i64).unwrap_or(443);
    for rule in naming::port_number(port) {
        let rule = format!("port is not valid: {rule}");
        faults.invalid(format!("{at}.port"), port, rule);
    }
    let path = text(service, "/path");
    if path.is_empty() || path == "/" {
        return;
    }
    let at = format!("{at}.path");
    let Some(rest) = path.strip_prefix('/') else {
        return faults.invalid(at, path, "must start with a '/'");
    };
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    for (step, part) in rest.split('/').enumerate() {
        if part.is_empty() {
            let rule = format!("segment[{step}] may not be empty");
            faults.invalid(at.as_str(), path, rule);
        }
        for rule in naming::dns1123_subdomain(part) {
            if !part.is_empty() {
                let rule = format!("segment[{step}]: {rule}");
                faults.invalid(at.as_str(), path, rule);
            }
        }
    }
}

fn validate_versions(versions: &[Value], needs_known: bool, faults: &mut Faults) {
    let at = format!("{PATH}.conversionReviewVersions");
    if versions.is_empty() {
        return faults.required(at, "");
    }
    let mut seen = BTreeSet::new();
    for (index, version) in versions.iter().enumerate() {
        let version = version.as_str().unwrap_or("");
        if !seen.insert(version) {
            faults.invalid(format!("{at}[{index}]"), version, "duplicate version");
            continue;
        }
        for rule in naming::dns1035_label(version) {
            faults.invalid(format!("{at}[{index}]"), version, rule);
        }
    }
    if needs_known && !seen.iter().any(|own| REVIEW_VERSIONS.contains(own)) {
        let rule = format!(
            "must include at least one of {}",
            REVIEW_VERSIONS.join(", ")
        );
        faults.invalid(at, versions.to_vec(), rule);
    }
}
