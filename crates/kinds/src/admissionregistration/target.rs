//! Where a webhook is: the rules for URLs and services, shared by all that call webhooks.

use meta::{Faults, naming};

use crate::spot::Spot;
use crate::tree::Tree;

const FORM: &str = "; desired format: https://host[/path]";

/// `clientConfig.url`.
pub(crate) fn url(spot: &Spot<'_>, faults: &mut Faults) {
    let text = spot.as_str().unwrap_or("");
    let path = spot.path.clone();
    let (rest, fragment) = text.split_once('#').unwrap_or((text, ""));
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (scheme, rest) = rest.split_once("://").unwrap_or(("", rest));
    if scheme != "https" {
        let rule = format!("'https' is the only allowed URL scheme{FORM}");
        faults.invalid(path.clone(), scheme, rule);
    }
    let authority = match scheme {
        "" => "",
        _ => rest.split('/').next().unwrap_or(""),
    };
    let (user, host) = authority.rsplit_once('@').unwrap_or(("", authority));
    if host.is_empty() {
        let rule = format!("host must be specified{FORM}");
        faults.invalid(path.clone(), host, rule);
    }
    let rest = [
        (user, "user information is not permitted in the URL"),
        (fragment, "fragments are not permitted in the URL"),
        (query, "query parameters are not permitted in the URL"),
    ];
    for (part, rule) in rest {
        if !part.is_empty() {
            faults.invalid(path.clone(), part, rule);
        }
    }
}

/// `clientConfig.service`.
pub(crate) fn service(spot: &Spot<'_>, faults: &mut Faults) {
    // Upstream takes one for the other here.
    for (field, named) in [("namespace", "name"), ("name", "namespace")] {
        if spot.text(field).is_empty() {
            faults.required(spot.path(named), "");
        }
    }
    let port = spot.maybe_int("port").unwrap_or(443);
    let broken = naming::port_number(port);
    if !broken.is_empty() {
        let rule = format!("port is not valid: {}", broken.join(", "));
        faults.invalid(spot.path("port"), port, rule);
    }
    let (path, text) = (spot.path("path"), spot.text("path"));
    if text == "/" || text.is_empty() {
        return;
    }
    if text == "//" {
        return faults.invalid(path, text, "segment[0] may not be empty");
    }
    if !text.starts_with('/') {
        faults.invalid(path.clone(), text, "must start with a '/'");
    }
    // As upstream: the first character goes, whatever it is.
    let steps = text.chars().skip(1).collect::<String>();
    let steps = steps.strip_suffix('/').unwrap_or(&steps);
    for (at, step) in steps.split('/').enumerate() {
        if step.is_empty() {
            let rule = format!("segment[{at}] may not be empty");
            faults.invalid(path.clone(), text, rule);
            continue;
        }
        for broken in naming::dns1123_subdomain(step) {
            faults.invalid(path.clone(), text, format!("segment[{at}]: {broken}"));
        }
    }
}
