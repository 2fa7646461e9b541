//! Images: what is there, under which names, and how it comes and goes.

mod auth;
mod import;
mod push;
mod remove;
mod search;
mod transfer;

use std::collections::{BTreeMap, BTreeSet};

use http::StatusCode;
use oci::ImageRecord;
use serde_json::{Value, json};

use crate::answer::{self, Answer, Fault};
use crate::call::{Call, Filters};
use crate::daemon::Daemon;
use crate::record::parse_moment;

pub(crate) use auth::{Auth, BASE64, distribution, login};
pub(crate) use import::{fetch, import};
pub(crate) use push::push;
pub(crate) use remove::{prune, remove};
pub(crate) use search::search;
pub(crate) use transfer::{load, own_platform, pull, save};

/// A name as people write it: without the registry that needs no naming.
pub(crate) fn familiar(name: &str) -> &str {
    let short = name.strip_prefix("docker.io/").unwrap_or(name);
    short.strip_prefix("library/").unwrap_or(short)
}

/// With `:latest` where neither tag nor digest is said.
pub(crate) fn with_tag(name: &str) -> String {
    let last = name.rsplit('/').next().unwrap_or(name);
    match last.contains([':', '@']) {
        true => name.to_owned(),
        false => format!("{name}:latest"),
    }
}

/// Runs work on the store where it may block.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Fault> + Send + 'static,
) -> Result<T, Fault> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(Fault::internal)?
}

/// The image of this name, id or beginning of an id.
pub(crate) async fn find(daemon: &Daemon, name: &str) -> Result<ImageRecord, Fault> {
    if name.is_empty() {
        return Err(Fault::bad("invalid reference format"));
    }
    let (store, name) = (daemon.engine.images().clone(), name.to_owned());
    let found = {
        let name = name.clone();
        blocking(move || Ok(store.find(&name)?)).await?
    };
    found.ok_or_else(|| Fault::missing(format!("No such image: {}", with_tag(&name))))
}

/// The image's configuration as it came.
pub(crate) async fn details(daemon: &Daemon, image: &ImageRecord) -> Result<Value, Fault> {
    let path = daemon.engine.images().blob_path(&image.id);
    blocking(move || {
        let bytes = std::fs::read(&path)?;
        serde_json::from_slice(&bytes).map_err(Fault::internal)
    })
    .await
}

fn short_names(names: &BTreeSet<String>) -> Vec<&str> {
    names.iter().map(|name| familiar(name)).collect()
}

fn created(image: &ImageRecord) -> i64 {
    let nanos = image.config.created.as_deref().and_then(parse_moment);
    nanos.unwrap_or(0) / 1_000_000_000
}

/// `GET /images/json`.
pub(crate) async fn list(call: Call) -> Answer {
    let filters = call.query.filters()?;
    filters.only(&[
        "before",
        "dangling",
        "label",
        "label!",
        "reference",
        "since",
        "until",
    ])?;
    let daemon = &call.daemon;
    answer::ok(&shown(daemon, &filters).await?)
}

/// What a list of images shows.
pub(crate) async fn shown(daemon: &Daemon, filters: &Filters) -> Result<Vec<Value>, Fault> {
    let store = daemon.engine.images().clone();
    let mut images = blocking(move || Ok(store.list()?)).await?;
    images.sort_by_key(|image| std::cmp::Reverse(created(image)));
    let edge = async |name: &str| -> Result<Option<i64>, Fault> {
        match filters.get(name).first() {
            Some(name) => Ok(Some(created(&find(daemon, name).await?))),
            None => Ok(None),
        }
    };
    let (before, since) = (edge("before").await?, edge("since").await?);
    let mut users: BTreeMap<String, u64> = BTreeMap::new();
    for container in daemon.all() {
        *users
            .entry(container.record.read().image_id.clone())
            .or_default() += 1;
    }
    let fits = |image: &ImageRecord| {
        filters.fits("reference", |wish| {
            image
                .repo_tags
                .iter()
                .any(|tag| name_fits(familiar(tag), wish))
        }) && filters.fits("dangling", |wish| {
            matches!(wish, "1" | "true") == image.repo_tags.is_empty()
        }) && filters.labels(&image.config.config.labels)
            && before.is_none_or(|before| created(image) < before)
            && since.is_none_or(|since| created(image) > since)
    };
    let show = |image: &ImageRecord| {
        let id = image.id.to_string();
        json!({
            "Containers": users.get(&id).copied().unwrap_or(0),
            "Created": created(image),
            "Labels": image.config.config.labels,
            "ParentId": "",
            "RepoDigests": short_names(&image.repo_digests),
            "RepoTags": short_names(&image.repo_tags),
            "SharedSize": -1,
            "Size": image.size(),
            "Id": id,
        })
    };
    Ok(images
        .iter()
        .filter(|image| fits(image))
        .map(show)
        .collect())
}

/// Whether `busybox:1.36` is one of `busybox`, `busy*`, `busybox:1*`.
fn name_fits(tag: &str, wish: &str) -> bool {
    let (name, _) = tag.rsplit_once(':').unwrap_or((tag, ""));
    let like = |text: &str| {
        let pattern = regex::escape(wish)
            .replace(r"\*", "[^/]*")
            .replace(r"\?", "[^/]");
        regex::Regex::new(&format!("^{pattern}$")).is_ok_and(|wish| wish.is_match(text))
    };
    like(tag) || like(name)
}

/// The first version of the API without `ContainerConfig`.
const NO_CONTAINER_CONFIG: (u32, u32) = (1, 45);
/// A client that recreates no container without it, whatever version it speaks.
const OLD_COMPOSE: &str = "docker-compose/1.";

/// `GET /images/{name}/json`.
pub(crate) async fn inspect(call: Call, name: &str) -> Answer {
    let daemon = &call.daemon;
    let image = find(daemon, name).await?;
    let details = details(daemon, &image).await?;
    let layers: Vec<String> = image
        .layers
        .iter()
        .map(|layer| layer.diff_id.to_string())
        .collect();
    let config = match &details["config"] {
        Value::Null => json!({}),
        config => config.clone(),
    };
    let text = |name: &str| details[name].as_str().unwrap_or_default();
    let mut shown = json!({
        "Id": image.id.to_string(),
        "RepoTags": short_names(&image.repo_tags),
        "RepoDigests": short_names(&image.repo_digests),
        "Parent": "",
        "Comment": text("comment"),
        "Created": details["created"],
        "DockerVersion": text("docker_version"),
        "Author": text("author"),
        "Config": config,
        "Architecture": image.config.architecture,
        "Variant": text("variant"),
        "Os": image.config.os,
        "Size": image.size(),
        "VirtualSize": image.size(),
        "GraphDriver": {"Name": "overlay2", "Data": null},
        "RootFS": {"Type": "layers", "Layers": layers},
        "Metadata": {"LastTagTime": "0001-01-01T00:00:00Z"},
        "Descriptor": {
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": image.manifest.to_string(),
        },
    });
    let agent = call.header("user-agent").unwrap_or_default();
    if call.version < NO_CONTAINER_CONFIG || agent.starts_with(OLD_COMPOSE) {
        // What the image was made with; older clients take it to be there.
        shown["ContainerConfig"] = shown["Config"].clone();
        shown["Container"] = json!("");
    }
    answer::ok(&shown)
}

/// `GET /images/{name}/history`.
pub(crate) async fn history(call: Call, name: &str) -> Answer {
    let daemon = &call.daemon;
    let image = find(daemon, name).await?;
    let details = details(daemon, &image).await?;
    let mut layers = image.layers.iter();
    let mut shown = Vec::new();
    let steps = details["history"].as_array().cloned().unwrap_or_default();
    for step in &steps {
        let empty = step["empty_layer"].as_bool() == Some(true);
        let layer = if empty { None } else { layers.next() };
        let moment = step["created"].as_str().and_then(parse_moment).unwrap_or(0);
        shown.push(json!({
            "Id": "<missing>",
            "Created": moment / 1_000_000_000,
            "CreatedBy": step["created_by"].as_str().unwrap_or_default(),
            "Tags": null,
            "Size": layer.map_or(0, |layer| layer.unpacked),
            "Comment": step["comment"].as_str().unwrap_or_default(),
        }));
    }
    // Whoever built it need not have told how.
    for layer in layers {
        shown.push(json!({
            "Id": "<missing>", "Created": created(&image), "CreatedBy": "", "Tags": null,
            "Size": layer.unpacked, "Comment": "",
        }));
    }
    shown.reverse();
    if let Some(first) = shown.first_mut() {
        first["Id"] = json!(image.id.to_string());
        first["Tags"] = json!(short_names(&image.repo_tags));
    }
    answer::ok(&shown)
}

/// `POST /images/{name}/tag`.
pub(crate) async fn tag(call: Call, name: &str) -> Answer {
    let daemon = &call.daemon;
    let image = find(daemon, name).await?;
    let (repo, tag) = (call.query.text("repo"), call.query.text("tag"));
    let target = match tag {
        "" => with_tag(repo),
        tag => format!("{repo}:{tag}"),
    };
    let (store, id) = (daemon.engine.images().clone(), image.id.to_string());
    let named = target.clone();
    blocking(move || Ok(store.tag(&id, &named)?)).await?;
    event(daemon, "tag", &image.id.to_string(), &target);
    Ok(answer::empty(StatusCode::CREATED))
}

pub(crate) fn event(daemon: &Daemon, action: &str, id: &str, name: &str) {
    let attributes = BTreeMap::from([("name".to_owned(), name.to_owned())]);
    daemon.events.tell("image", action, id, attributes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_long_and_short() {
        assert_eq!(
            familiar("docker.io/library/busybox:latest"),
            "busybox:latest"
        );
        assert_eq!(familiar("docker.io/me/tool:1"), "me/tool:1");
        assert_eq!(familiar("localhost:5000/x:1"), "localhost:5000/x:1");
        assert_eq!(with_tag("localhost:5000/x"), "localhost:5000/x:latest");
        assert_eq!(with_tag("x@sha256:aa"), "x@sha256:aa");
        for wish in ["busybox", "busybox:1.36", "busy*", "busybox:1*"] {
            assert!(name_fits("busybox:1.36", wish), "{wish}");
        }
        assert!(!name_fits("me/busybox:1.36", "busy*"));
    }
}
