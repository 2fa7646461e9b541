//! From an authorized request to the verb, subresource or page that answers it.

use std::sync::Arc;

use client::Body;
use http::Method;
use http::request::Parts;
use hyper::upgrade::OnUpgrade;
use kinds::Verbs;
use meta::{Reason, Status};

use crate::chain::Call;
use crate::registry::{Resource, method_not_allowed};
use crate::respond::Answer;
use crate::server::Core;
use crate::{
    aggregate, components, discovery, measure, pages, reviews, socket, subresource, verbs,
};

/// Answers an authorized request.
pub(crate) async fn dispatch(
    core: &Arc<Core>,
    call: &Call,
    parts: Parts,
    body: Body,
) -> Result<Answer, Status> {
    let info = &call.info;
    if let Some(route) = core.aggregate.route(call) {
        return Box::pin(aggregate::answer(core, call, &route, parts, body)).await;
    }
    if let Some(delegate) = core.aggregate.delegate(call) {
        return delegate.answer(call, parts, body).await;
    }
    if !info.is_resource {
        return pages::answer(core, call).await;
    }
    let resource = core
        .registry
        .now()
        .find(&info.group, &info.version, &info.resource);
    let resource = match resource {
        Some(resource) => resource,
        None if subresource::is_rootless(info) => {
            return subresource::rootless(core, call, body).await;
        }
        None if discovery::is_built_in(&info.group) => return Err(no_such_resource()),
        None => return Ok(pages::not_found()),
    };
    if parts.method == Method::HEAD && !resource.custom {
        return Err(method_not_allowed());
    }
    check_scope(call, &resource)?;
    check_target(call, &resource)?;
    check_name(&info.name)?;
    // Nobody is warned of what there is not.
    let is_known = || {
        let mut all = subresource::of(&resource);
        info.subresource.is_empty() || all.any(|own| own.name == info.subresource)
    };
    if let Some(text) = resource.deprecation.as_ref().filter(|_| is_known()) {
        call.warn(text.clone());
        measure::deprecated(info);
    }
    if !info.subresource.is_empty() {
        return subresource::answer(core, call, &resource, parts, body).await;
    }
    if resource.row.verbs == Verbs::CreateOnly {
        return match info.verb {
            _ if !info.name.is_empty() => Err(no_such_resource()),
            "create" => reviews::answer(core, call, &resource, body).await,
            _ => Err(method_not_allowed()),
        };
    }
    if resource.row.verbs == Verbs::Read {
        return components::answer(core, call, &resource).await;
    }
    // Boxed one by one, so that the future of one verb is not as large as that of the largest.
    match info.verb {
        "get" => verbs::get::get(core, call, &resource).await,
        "list" => verbs::list::list(core, call, &resource).await,
        "watch" => {
            let answer = verbs::watch::watch(core, call, &resource).await?;
            match socket::is_asked(&call.headers) {
                true => {
                    let upgrade = parts.extensions.get::<OnUpgrade>().cloned();
                    socket::watch(call, upgrade, answer, core.dialer.crew())
                }
                false => Ok(answer),
            }
        }
        "create" => Box::pin(verbs::create::create(core, call, &resource, body)).await,
        "update" => Box::pin(verbs::update::update(core, call, &resource, body)).await,
        "patch" => Box::pin(verbs::patch::patch(core, call, &resource, body)).await,
        "delete" => Box::pin(verbs::delete::delete(core, call, &resource, body)).await,
        "deletecollection" => {
            Box::pin(verbs::collection::delete_collection(
                core, call, &resource, body,
            ))
            .await
        }
        _ => Err(method_not_allowed()),
    }
}

/// Objects of namespaced kinds are read and written in a namespace, others in none.
fn check_scope(call: &Call, resource: &Resource) -> Result<(), Status> {
    let info = &call.info;
    let names = &resource.row.names;
    let is_namespaces = names.group.is_empty() && names.plural == "namespaces";
    if names.is_namespaced() {
        let collection = matches!(info.verb, "list" | "watch");
        if info.namespace.is_empty() && !collection {
            let named = info.verb != "create" && !info.name.is_empty();
            return Err(match named {
                true => no_such_resource(),
                false => method_not_allowed(),
            });
        }
    } else if !info.namespace.is_empty() && !is_namespaces {
        return Err(no_such_resource());
    }
    Ok(())
}

/// Objects are made where there are many of them, and changed where there is one.
fn check_target(call: &Call, resource: &Resource) -> Result<(), Status> {
    let info = &call.info;
    let fits = match info.verb {
        _ if resource.custom || !info.subresource.is_empty() => true,
        // Questions have no names at all.
        _ if resource.row.verbs == Verbs::CreateOnly => true,
        "create" => info.name.is_empty(),
        "update" | "patch" => !info.name.is_empty(),
        _ => true,
    };
    if fits {
        Ok(())
    } else {
        Err(method_not_allowed())
    }
}

/// 400 for a name that no object can have, since it is no part of a path.
fn check_name(name: &str) -> Result<(), Status> {
    let rules = match name {
        "" => return Ok(()),
        name => meta::naming::path_segment(name),
    };
    match rules.is_empty() {
        true => Ok(()),
        false => Err(Status::bad_request(format!(
            "Name parameter invalid: {name:?}: {}",
            rules.join(";")
        ))),
    }
}

/// 404 for a path that leads nowhere.
pub(crate) fn no_such_resource() -> Status {
    Status::new(
        Reason::NotFound,
        "the server could not find the requested resource",
    )
}
