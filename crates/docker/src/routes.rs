//! Which request is answered by what.

use std::sync::Arc;

use http::{Method, Request, StatusCode};
use hyper::body::Incoming;

use crate::answer::{Answer, Fault};
use crate::call::{Call, Query, decode};
use crate::daemon::Daemon;
use crate::{builds, containers, events, exec, images, networks, system, volumes};

const NEWEST: (u32, u32) = (1, 51);
const OLDEST: (u32, u32) = (1, 24);
pub(crate) const NEWEST_TEXT: &str = "1.51";
pub(crate) const OLDEST_TEXT: &str = "1.24";

/// Takes `/v1.47` from a path.
fn version(path: &str) -> Result<((u32, u32), &str), Fault> {
    let Some(rest) = path.strip_prefix("/v") else {
        return Ok((NEWEST, path));
    };
    let (number, rest) = rest.split_once('/').unwrap_or((rest, ""));
    let parsed = number
        .split_once('.')
        .and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)));
    match parsed {
        // A path that only looks like a version.
        None => Ok((NEWEST, path)),
        Some(version) if version > NEWEST => Err(Fault::bad(format!(
            "client version {number} is too new. Maximum supported API version is {NEWEST_TEXT}"
        ))),
        Some(version) if version < OLDEST => Err(Fault::bad(format!(
            "client version {number} is too old. Minimum supported API version is {OLDEST_TEXT}, \
             please upgrade your client to a newer version"
        ))),
        Some(version) => Ok((version, rest)),
    }
}

/// Answers one request.
pub(crate) async fn dispatch(daemon: Arc<Daemon>, request: Request<Incoming>) -> Answer {
    let path = request.uri().path().to_owned();
    let (version, rest) = version(&path)?;
    let parts: Vec<String> = rest
        .split('/')
        .filter(|part| !part.is_empty())
        .map(decode)
        .collect();
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    let method = request.method().clone();
    let call = Call {
        daemon,
        query: Query::parse(request.uri().query()),
        request,
        version,
    };
    match parts.as_slice() {
        ["_ping"] => system::ping(method == Method::HEAD),
        ["version"] => system::version().await,
        ["info"] => system::info(call).await,
        ["events"] => events::events(call).await,
        ["system", "df"] => system::usage(call).await,
        ["containers", rest @ ..] => of_containers(&method, rest, call).await,
        ["exec", id, verb] => of_exec(&method, id, verb, call).await,
        ["images", rest @ ..] => of_images(&method, rest, call).await,
        ["volumes", rest @ ..] => of_volumes(&method, rest, call).await,
        ["networks", rest @ ..] => of_networks(&method, rest, call).await,
        ["build"] if method == Method::POST => builds::build(call).await,
        ["build", "prune"] if method == Method::POST => builds::prune(call).await,
        ["build", "cancel"] if method == Method::POST => builds::cancel(call).await,
        ["session"] if method == Method::POST => builds::session(call),
        ["grpc"] if method == Method::POST => builds::calls(call),
        ["commit"] if method == Method::POST => containers::commit(call).await,
        ["auth"] if method == Method::POST => images::login(call).await,
        ["distribution", name @ .., "json"] if method == Method::GET => {
            images::distribution(call, &name.join("/")).await
        }
        [
            "swarm" | "nodes" | "services" | "tasks" | "secrets" | "configs",
            ..,
        ] => Err(Fault::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "This node is not a swarm manager. Swarm mode is not supported.",
        )),
        ["plugins"] => crate::answer::ok::<[u8]>(&[]),
        _ => Err(Fault::missing("page not found")),
    }
}

async fn of_containers(method: &Method, path: &[&str], call: Call) -> Answer {
    let get = method == Method::GET;
    let post = method == Method::POST;
    match path {
        ["json"] if get => containers::list(call).await,
        ["create"] if post => containers::create(call).await,
        ["prune"] if post => containers::prune(call).await,
        [id] if method == Method::DELETE => containers::remove(call, id).await,
        // A link, by the name of who uses it and what that calls it.
        [_, _] if method == Method::DELETE => containers::remove(call, &path.join("/")).await,
        [id, "archive"] if get => containers::get_archive(call, id).await,
        [id, "archive"] if method == Method::HEAD => containers::head_archive(call, id).await,
        [id, "archive"] if method == Method::PUT => containers::put_archive(call, id).await,
        [id, verb] if get => match *verb {
            "json" => containers::inspect(call, id).await,
            "logs" => containers::logs(call, id).await,
            "stats" => containers::stats(call, id).await,
            "top" => containers::top(call, id).await,
            "changes" => containers::changes(call, id).await,
            "export" => containers::export(call, id).await,
            _ => Err(Fault::missing("page not found")),
        },
        [id, verb] if post => match *verb {
            "start" => containers::start(call, id).await,
            "stop" => containers::stop(call, id).await,
            "restart" => containers::restart(call, id).await,
            "kill" => containers::kill(call, id).await,
            "pause" => containers::pause(call, id).await,
            "unpause" => containers::unpause(call, id).await,
            "wait" => containers::wait(call, id).await,
            "attach" => containers::attach(call, id).await,
            "resize" => containers::resize(call, id).await,
            "rename" => containers::rename(call, id).await,
            "update" => containers::update(call, id).await,
            "exec" => exec::create(call, id).await,
            _ => Err(Fault::missing("page not found")),
        },
        _ => Err(Fault::missing("page not found")),
    }
}

async fn of_exec(method: &Method, id: &str, verb: &str, call: Call) -> Answer {
    match (method, verb) {
        (&Method::POST, "start") => exec::start(call, id).await,
        (&Method::POST, "resize") => exec::resize(call, id).await,
        (&Method::GET, "json") => exec::inspect(call, id).await,
        _ => Err(Fault::missing("page not found")),
    }
}

async fn of_images(method: &Method, path: &[&str], call: Call) -> Answer {
    let get = method == Method::GET;
    let post = method == Method::POST;
    match path {
        ["json"] if get => images::list(call).await,
        ["create"] if post && call.query.get("fromSrc").is_some() => images::import(call).await,
        ["create"] if post => images::pull(call).await,
        ["search"] if get => images::search(call).await,
        ["load"] if post => images::load(call).await,
        ["prune"] if post => images::prune(call).await,
        ["get"] if get => images::save(call, None).await,
        [name @ .., "get"] if get => images::save(call, Some(&name.join("/"))).await,
        [name @ .., "json"] if get => images::inspect(call, &name.join("/")).await,
        [name @ .., "history"] if get => images::history(call, &name.join("/")).await,
        [name @ .., "tag"] if post => images::tag(call, &name.join("/")).await,
        [name @ .., "push"] if post && !name.is_empty() => {
            images::push(call, &name.join("/")).await
        }
        name if method == Method::DELETE && !name.is_empty() => {
            images::remove(call, &name.join("/")).await
        }
        _ => Err(Fault::missing("page not found")),
    }
}

async fn of_volumes(method: &Method, path: &[&str], call: Call) -> Answer {
    match (method, path) {
        (&Method::GET, []) => volumes::list(call).await,
        (&Method::POST, ["create"]) => volumes::create(call).await,
        (&Method::POST, ["prune"]) => volumes::prune(call).await,
        (&Method::GET, [name]) => volumes::inspect(call, name).await,
        (&Method::DELETE, [name]) => volumes::remove(call, name).await,
        _ => Err(Fault::missing("page not found")),
    }
}

async fn of_networks(method: &Method, path: &[&str], call: Call) -> Answer {
    match (method, path) {
        (&Method::GET, []) => networks::list(call).await,
        (&Method::POST, ["prune"]) => networks::prune(call).await,
        (&Method::GET, [id]) => networks::inspect(call, id).await,
        (&Method::POST, ["create"]) => networks::create(call).await,
        (&Method::POST, [id, "connect"]) => networks::connect(call, id).await,
        (&Method::POST, [id, "disconnect"]) => networks::disconnect(call, id).await,
        (&Method::DELETE, [id]) => networks::remove(call, id).await,
        _ => Err(Fault::missing("page not found")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_taken_from_paths() {
        assert_eq!(version("/v1.47/info").unwrap(), ((1, 47), "info"));
        assert_eq!(version("/info").unwrap(), (NEWEST, "/info"));
        assert_eq!(version("/volumes/x").unwrap(), (NEWEST, "/volumes/x"));
        assert!(
            version("/v1.99/info")
                .unwrap_err()
                .message
                .contains("too new")
        );
        assert!(
            version("/v1.12/info")
                .unwrap_err()
                .message
                .contains("too old")
        );
    }
}
