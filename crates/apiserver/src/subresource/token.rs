//! `/token`: a signed token for a service account, perhaps bound to an object.

use std::sync::Arc;

use admission::Operation;
use auth::TokenSpec;
use auth::token::{Bound, MAX_SECONDS, MIN_SECONDS, Ref};
use client::Body;
use http::StatusCode;
use jiff::Timestamp;
use meta::{Faults, Names, Status};
use serde_json::{Value, json};

use super::face;
use crate::body;
use crate::cache::encode;
use crate::chain::Call;
use crate::registry::Resource;
use crate::respond::{self, Answer};
use crate::server::Core;
use crate::verbs::get::newest;
use crate::verbs::write::{Write, metadata, place, text};
use crate::webhooks;

const KIND: (&str, &str, &str) = ("authentication.k8s.io", "v1", "TokenRequest");
const DEFAULT_SECONDS: i64 = 3600;

/// Signs a token.
pub(crate) async fn request(
    core: &Arc<Core>,
    call: &Call,
    accounts: &Resource,
    body: Body,
) -> Result<Answer, Status> {
    let bytes = body::read(body).await?;
    let write = Write::of(core, call, accounts)?;
    let mut request = body::object(call, &face::TOKEN_REQUEST, &bytes)?;
    let (namespace, name) = (call.info.namespace.as_str(), call.info.name.as_str());
    place(write.names(), namespace, &mut request)?;
    check_name(&request, name)?;
    let account = newest(core, accounts, namespace, name).await?;
    check_uid(&request, name, &account.uid)?;
    check(&request)?;
    request = webhooks::ask_about(&write, Operation::Create, name, KIND, request).await?;
    check(&request)?;
    let seconds = seconds_of(&request);
    let audiences = request.pointer("/spec/audiences").and_then(Value::as_array);
    let audiences = audiences.into_iter().flatten().filter_map(Value::as_str);
    let mut audiences: Vec<String> = audiences.map(str::to_owned).collect();
    if audiences.is_empty() {
        audiences.extend_from_slice(core.signer.own());
    }
    let bound = match request.pointer("/spec/boundObjectRef").cloned() {
        Some(wanted) if !wanted.is_null() => Some(bound_to(core, namespace, name, &wanted)?),
        _ => None,
    };
    let longest = core.signer.seconds_max().unwrap_or(MAX_SECONDS);
    if seconds > longest {
        call.warn(format!(
            "requested expiration of {seconds} seconds shortened to {longest} seconds"
        ));
    }
    let seconds = seconds.min(longest);
    let spec = TokenSpec {
        namespace: namespace.to_owned(),
        service_account: Ref {
            name: name.to_owned(),
            uid: account.uid.to_string(),
        },
        audiences: audiences.clone(),
        expiration_seconds: seconds,
        bound,
    };
    let (token, end) = core
        .signer
        .sign(&spec, Timestamp::now())
        .map_err(Status::internal)?;
    let metadata = metadata(&mut request);
    metadata.insert("name".into(), name.into());
    metadata.insert("creationTimestamp".into(), meta::time::now().into());
    metadata.insert("uid".into(), account.uid.to_string().into());
    for field in SYSTEM_FIELDS {
        metadata.remove(*field);
    }
    request["spec"]["audiences"] = json!(audiences);
    request["spec"]["expirationSeconds"] = seconds.into();
    request["status"] = json!({"token": token, "expirationTimestamp": meta::time::rfc3339(end)});
    let face = &face::TOKEN_REQUEST;
    respond::object(call, face, StatusCode::CREATED, encode(&request).into())
}

/// What nobody may choose of something that is created.
const SYSTEM_FIELDS: &[&str] = &[
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "managedFields",
    "selfLink",
];

/// 422 about a request for a token.
fn refused(name: &str, faults: &Faults) -> Result<(), Status> {
    match faults.is_empty() {
        true => Ok(()),
        false => Err(Status::invalid(
            &face::TOKEN_REQUEST.row.names,
            name,
            faults,
        )),
    }
}

/// A request may name the account that its path names, and no other.
fn check_name(request: &Value, name: &str) -> Result<(), Status> {
    let mut faults = Faults::new();
    let own = text(request, "/metadata/name");
    if !own.is_empty() && own != name {
        let rule = "must match the service account name if specified";
        faults.invalid("metadata.name", own, rule);
    }
    refused(name, &faults)
}

fn seconds_of(request: &Value) -> i64 {
    let seconds = request.pointer("/spec/expirationSeconds");
    seconds.and_then(Value::as_i64).unwrap_or(DEFAULT_SECONDS)
}

/// The account that is meant may have gone, and another come by its name.
fn check_uid(request: &Value, name: &str, account: &str) -> Result<(), Status> {
    let own = text(request, "/metadata/uid");
    if own.is_empty() || own == account {
        return Ok(());
    }
    let names = Names::namespaced(KIND.0, KIND.1, KIND.2, KIND.2);
    let why = format!(
        "the UID in the token request ({own}) does not match the UID of the service account \
         ({account})"
    );
    Err(Status::conflict(&names, name, &why))
}

fn check(request: &Value) -> Result<(), Status> {
    let mut faults = Faults::new();
    let (field, seconds) = ("spec.expirationSeconds", seconds_of(request));
    if seconds < MIN_SECONDS {
        let rule = "may not specify a duration less than 10 minutes";
        faults.invalid(field, seconds, rule);
    } else if seconds > MAX_SECONDS {
        let rule = "may not specify a duration larger than 2^32 seconds";
        faults.invalid(field, seconds, rule);
    }
    refused("", &faults)
}

fn bound_to(core: &Core, namespace: &str, account: &str, wanted: &Value) -> Result<Bound, Status> {
    use admission::Lookup as _;
    let (kind, name, uid) = (
        text(wanted, "/kind"),
        text(wanted, "/name"),
        text(wanted, "/uid"),
    );
    let version = text(wanted, "/apiVersion");
    let (group, plain) = version.split_once('/').unwrap_or(("", version));
    let (plural, namespace) = match (group, kind) {
        ("", "Pod") => ("pods", namespace),
        ("", "Secret") => ("secrets", namespace),
        ("", "Node") => ("nodes", ""),
        _ => {
            return Err(Status::bad_request(format!(
                "cannot bind token to object of type {group}/{plain}, Kind={kind}"
            )));
        }
    };
    if name.is_empty() {
        return Err(Status::bad_request("Name parameter required."));
    }
    let names = match namespace {
        "" => Names::cluster("", "v1", kind, plural),
        _ => Names::namespaced("", "v1", kind, plural),
    };
    let found = core.lookup.get(plural, namespace, name);
    let found = found.ok_or_else(|| Status::not_found(&names, name))?;
    if kind == "Pod" && found.text("/spec/serviceAccountName") != account {
        return Err(Status::bad_request(format!(
            "cannot bind token for serviceaccount {account:?} to pod running with different \
             serviceaccount name."
        )));
    }
    if !uid.is_empty() && uid != found.uid() {
        let why = format!(
            "the UID in the bound object reference ({uid}) does not match the UID in record. The \
             object might have been deleted and then recreated"
        );
        // Upstream names the kind here.
        let names = Names {
            plural: kind.to_owned(),
            ..names
        };
        return Err(Status::conflict(&names, name, &why));
    }
    let own = Ref {
        name: name.to_owned(),
        uid: found.uid().to_owned(),
    };
    if kind == "Secret" {
        return Ok(Bound::Secret(own));
    }
    if kind == "Node" {
        return Ok(Bound::Node(own));
    }
    let node = found.text("/spec/nodeName");
    let node = (!node.is_empty()).then(|| Ref {
        name: node.to_owned(),
        uid: core
            .lookup
            .get("nodes", "", node)
            .map_or_else(String::new, |node| node.uid().into()),
    });
    Ok(Bound::Pod { pod: own, node })
}
