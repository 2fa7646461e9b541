//! `docker push`.

use std::sync::Arc;

use oci::{PushProgress, Reference};
use serde_json::json;
use tokio::sync::mpsc;

use super::auth::credentials;
use super::{event, familiar};
use crate::answer::{self, Answer, Fault};
use crate::call::Call;

/// Progress on its way to a slow client; more is left out, for the next says it again.
const PROGRESS: usize = 256;

/// `POST /images/{name}/push`.
pub(crate) async fn push(call: Call, name: &str) -> Answer {
    let tag = call.query.text("tag");
    let full = match tag {
        "" => super::with_tag(name),
        tag => format!("{name}:{tag}"),
    };
    let reference: Reference = full.parse().map_err(Fault::from)?;
    let repository = reference.name();
    let tagged = reference.tagged().unwrap_or_default();
    let store = call.daemon.engine.images().clone();
    let image = {
        let tagged = tagged.clone();
        super::blocking(move || Ok(store.find(&tagged)?)).await?
    };
    let image = image
        .filter(|image| image.repo_tags.contains(&tagged))
        .ok_or_else(|| {
            Fault::missing(format!(
                "An image does not exist locally with the tag: {}",
                familiar(&repository)
            ))
        })?;
    let credentials = credentials(call.header("x-registry-auth"))?;
    let daemon = Arc::clone(&call.daemon);
    let (pieces, response) = answer::stream("application/json");
    tokio::spawn(async move {
        let refers = format!("The push refers to repository [{repository}]");
        answer::line(&pieces, &json!({ "status": refers })).await;
        let (sender, mut told) = mpsc::channel(PROGRESS);
        let report = Arc::new(move |progress: PushProgress| {
            let _ = sender.try_send(line(&progress));
        });
        let (store, options) = (daemon.engine.images().clone(), daemon.engine.registries());
        let pushing = oci::push(&store, options, &image, &reference, &credentials, report);
        tokio::pin!(pushing);
        let pushed = loop {
            tokio::select! {
                pushed = &mut pushing => break pushed,
                Some(line) = told.recv() => {
                    answer::line(&pieces, &line).await;
                }
                // Nobody waits for it any more.
                () = pieces.closed() => return,
            }
        };
        while let Ok(line) = told.try_recv() {
            answer::line(&pieces, &line).await;
        }
        match pushed {
            Ok(manifest) => {
                let tag = reference.tag.clone().unwrap_or_default();
                let (digest, size) = (manifest.digest, manifest.size);
                let said = format!("{tag}: digest: {digest} size: {size}");
                answer::line(&pieces, &json!({ "status": said })).await;
                let aux = json!({"Tag": tag, "Digest": digest, "Size": size});
                answer::line(&pieces, &json!({"progressDetail": {}, "aux": aux})).await;
                event(&daemon, "push", familiar(&tagged), familiar(&tagged));
            }
            Err(error) => {
                let message = match error {
                    oci::ImageError::Denied(name, why) => {
                        let why = if why.is_empty() {
                            "authentication required"
                        } else {
                            &why
                        };
                        format!("denied: {why}: {name}")
                    }
                    other => other.to_string(),
                };
                let line = json!({"errorDetail": {"message": message}, "error": message});
                answer::line(&pieces, &line).await;
            }
        }
    });
    Ok(response)
}

fn line(progress: &PushProgress) -> serde_json::Value {
    let short = |digest: &oci::Digest| digest.hex().chars().take(12).collect::<String>();
    match progress {
        PushProgress::Preparing(layer) => {
            json!({"status": "Preparing", "progressDetail": {}, "id": short(layer)})
        }
        PushProgress::Present(layer) => {
            json!({"status": "Layer already exists", "progressDetail": {}, "id": short(layer)})
        }
        PushProgress::Mounted(layer, from) => {
            json!({"status": format!("Mounted from {from}"), "progressDetail": {}, "id": short(layer)})
        }
        PushProgress::Sent(layer, current, total) => json!({
            "status": "Pushing", "id": short(layer),
            "progressDetail": {"current": current, "total": total},
        }),
        PushProgress::Pushed(layer) => {
            json!({"status": "Pushed", "progressDetail": {}, "id": short(layer)})
        }
    }
}
