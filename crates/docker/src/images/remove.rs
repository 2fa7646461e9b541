//! Images that go: by name, or because nobody uses them.

use std::collections::BTreeSet;
use std::sync::Arc;

use oci::Reference;
use serde_json::{Value, json};

use super::{blocking, created, event, familiar, find};
use crate::answer::{self, Answer, Fault};
use crate::call::Call;
use crate::daemon::Daemon;

/// `DELETE /images/{name}`.
pub(crate) async fn remove(call: Call, name: &str) -> Answer {
    let daemon = Arc::clone(&call.daemon);
    let gone = take_away(&daemon, name, call.query.flag("force")).await?;
    answer::ok(&gone)
}

/// Untags, and with the last name removes the image; tells what was done.
async fn take_away(daemon: &Daemon, name: &str, force: bool) -> Result<Vec<Value>, Fault> {
    let image = find(daemon, name).await?;
    let id = image.id.to_string();
    let tag = name
        .parse::<Reference>()
        .ok()
        .and_then(|name| name.tagged());
    let tag = tag.filter(|tag| image.repo_tags.contains(tag));
    let last = image.repo_tags.len() <= 1;
    let user = daemon.all().into_iter().find_map(|container| {
        let record = container.record.read();
        (record.image_id == id).then(|| (record.short_id().to_owned(), record.state.is_up()))
    });
    if let Some((user, up)) = user {
        let short: String = image.id.hex().chars().take(12).collect();
        let refuse = |how: &str, what: &str| {
            Err(Fault::conflict(format!(
                "conflict: unable to {} ({how}) - {what}",
                match &tag {
                    Some(_) => format!("remove repository reference \"{name}\""),
                    None => format!("delete {short}"),
                }
            )))
        };
        if tag.is_none() && up {
            let what = format!("image is being used by running container {user}");
            return refuse("cannot be forced", &what);
        }
        if !force && (tag.is_none() || last) {
            let what = match tag {
                Some(_) => format!("container {user} is using its referenced image {short}"),
                None => format!("image is being used by stopped container {user}"),
            };
            return refuse("must force", &what);
        }
    }
    if tag.is_none() && image.repo_tags.len() > 1 && !force {
        let short: String = image.id.hex().chars().take(12).collect();
        return Err(Fault::conflict(format!(
            "conflict: unable to delete {short} (must be forced) - image is referenced in multiple repositories"
        )));
    }
    let untagged: Vec<String> = match &tag {
        Some(tag) => vec![tag.clone()],
        None => image.repo_tags.iter().cloned().collect(),
    };
    let mut gone: Vec<Value> = untagged
        .iter()
        .map(|tag| json!({ "Untagged": familiar(tag) }))
        .collect();
    let store = daemon.engine.images().clone();
    let target = tag.clone().unwrap_or_else(|| id.clone());
    let deleted = blocking(move || Ok(store.remove(&target)?)).await?;
    for tag in &untagged {
        event(daemon, "untag", &id, familiar(tag));
    }
    if deleted {
        for digest in &image.repo_digests {
            gone.push(json!({ "Untagged": familiar(digest) }));
        }
        gone.push(json!({ "Deleted": id }));
        event(daemon, "delete", &id, &id);
    }
    Ok(gone)
}

/// `POST /images/prune`: images without a name, or with `dangling=false` all that no container has.
pub(crate) async fn prune(call: Call) -> Answer {
    let filters = call.query.filters()?;
    filters.only(&["dangling", "label", "label!", "until"])?;
    let nameless = filters.truth("dangling", true);
    let until = match filters.get("until").first() {
        Some(text) => crate::containers::until_moment(text)? / 1_000_000_000,
        None => i64::MAX,
    };
    let daemon = &call.daemon;
    let used: BTreeSet<String> = daemon
        .all()
        .iter()
        .map(|container| container.record.read().image_id.clone())
        .collect();
    let store = daemon.engine.images().clone();
    let images = blocking(move || Ok(store.list()?)).await?;
    let (mut gone, mut bytes) = (Vec::new(), 0);
    for image in images {
        let id = image.id.to_string();
        let wanted = (!nameless || image.repo_tags.is_empty())
            && created(&image) <= until
            && filters.labels(&image.config.config.labels);
        if wanted && !used.contains(&id) {
            bytes += image.size();
            gone.extend(take_away(daemon, &id, true).await?);
        }
    }
    answer::ok(&json!({"ImagesDeleted": gone, "SpaceReclaimed": bytes}))
}
