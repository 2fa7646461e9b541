//! Images on their way: from archives and into them, from registries.

use std::collections::BTreeMap;
use std::sync::Arc;

use oci::{Digest, Progress, Puller};
use parking_lot::Mutex;
use serde_json::json;
use tokio::sync::mpsc;

use super::auth::credentials;
use super::{blocking, event, familiar, with_tag};
use crate::answer::{self, Answer, Fault, PiecesWriter};
use crate::call::Call;

/// Progress on its way to a slow client; more is left out, for the next says it again.
const PROGRESS: usize = 256;

/// `POST /images/load`.
pub(crate) async fn load(call: Call) -> Answer {
    let daemon = Arc::clone(&call.daemon);
    let store = daemon.engine.images().clone();
    let reader = call.reader();
    let images = blocking(move || Ok(oci::load_stream(&store, reader)?)).await?;
    let (pieces, response) = answer::stream("application/json");
    tokio::spawn(async move {
        for image in images {
            let id = image.id.to_string();
            event(&daemon, "load", &id, &id);
            let lines: Vec<String> = match image.repo_tags.is_empty() {
                true => vec![format!("Loaded image ID: {id}\n")],
                false => image
                    .repo_tags
                    .iter()
                    .map(|tag| format!("Loaded image: {}\n", familiar(tag)))
                    .collect(),
            };
            for line in lines {
                answer::line(&pieces, &json!({ "stream": line })).await;
            }
        }
    });
    Ok(response)
}

/// `GET /images/get?names=…` and `GET /images/{name}/get`.
pub(crate) async fn save(call: Call, name: Option<&str>) -> Answer {
    let mut names: Vec<String> = call
        .query
        .all("names")
        .flat_map(|names| names.split(','))
        .map(str::to_owned)
        .collect();
    names.extend(name.map(str::to_owned));
    if names.is_empty() {
        return Err(Fault::bad("no image names are given"));
    }
    for name in &names {
        super::find(&call.daemon, name).await?;
    }
    let store = call.daemon.engine.images().clone();
    let (pieces, response) = answer::stream("application/x-tar");
    tokio::task::spawn_blocking(move || {
        let writer = std::io::BufWriter::with_capacity(64 << 10, PiecesWriter(pieces.clone()));
        if let Err(error) = oci::save(&store, &names, writer) {
            // An answer that breaks off tells the client.
            let _ = pieces.blocking_send(Err(error.into()));
        }
    });
    Ok(response)
}

/// `POST /images/create?fromImage=…&tag=…`.
pub(crate) async fn pull(call: Call) -> Answer {
    let query = &call.query;
    let (image, tag) = (query.text("fromImage"), query.text("tag"));
    let name = match tag {
        "" => with_tag(image),
        digest if digest.contains(':') => format!("{image}@{digest}"),
        tag => format!("{image}:{tag}"),
    };
    let reference: oci::Reference = name.parse().map_err(Fault::from)?;
    let wanted = query.text("platform");
    if !["", "linux", own_platform()].contains(&wanted) {
        return Err(Fault::unable(format!(
            "images for {wanted} are not supported"
        )));
    }
    let credentials = credentials(call.header("x-registry-auth"))?;
    let daemon = Arc::clone(&call.daemon);
    let (pieces, response) = answer::stream("application/json");
    tokio::spawn(async move {
        let before = super::find(&daemon, &name).await.ok();
        let from = json!({
            "status": format!("Pulling from {}", familiar(&reference.name())),
            "id": reference.manifest_name(),
        });
        answer::line(&pieces, &from).await;
        let (sender, mut told) = mpsc::channel(PROGRESS);
        let sizes: Mutex<BTreeMap<Digest, (u64, u64)>> = Mutex::default();
        let report = Arc::new(move |progress: Progress| {
            for line in lines(&sizes, progress) {
                let _ = sender.try_send(line);
            }
        });
        let store = daemon.engine.images().clone();
        let puller = Puller::new(&store, daemon.engine.registries());
        let pulling = puller.pull(&name, &credentials, Some(report));
        tokio::pin!(pulling);
        let pulled = loop {
            tokio::select! {
                pulled = &mut pulling => break pulled,
                Some(line) = told.recv() => {
                    answer::line(&pieces, &line).await;
                }
            }
        };
        while let Ok(line) = told.try_recv() {
            answer::line(&pieces, &line).await;
        }
        match pulled {
            Ok(image) => {
                let digest = image
                    .repo_digests
                    .iter()
                    .find_map(|name| name.split('@').nth(1));
                let digest = digest.unwrap_or(image.manifest.as_str());
                answer::line(&pieces, &json!({ "status": format!("Digest: {digest}") })).await;
                let word = match before.is_some_and(|before| before.id == image.id) {
                    true => "Image is up to date for",
                    false => "Downloaded newer image for",
                };
                let status = format!("Status: {word} {}", familiar(&name));
                answer::line(&pieces, &json!({ "status": status })).await;
                event(&daemon, "pull", familiar(&name), familiar(&name));
            }
            Err(error) => {
                let message = error.to_string();
                let line = json!({"errorDetail": {"message": message}, "error": message});
                answer::line(&pieces, &line).await;
            }
        }
    });
    Ok(response)
}

pub(crate) fn own_platform() -> &'static str {
    match std::env::consts::ARCH {
        "aarch64" => "linux/arm64",
        _ => "linux/amd64",
    }
}

/// One progress in the words of docker's clients.
fn lines(
    sizes: &Mutex<BTreeMap<Digest, (u64, u64)>>,
    progress: Progress,
) -> Vec<serde_json::Value> {
    let short = |digest: &Digest| digest.hex().chars().take(12).collect::<String>();
    let line = |digest: &Digest, status: &str| json!({"status": status, "id": short(digest)});
    match progress {
        Progress::Resolved(layers) => {
            let mut sizes = sizes.lock();
            let mut said = Vec::new();
            for (digest, size) in layers {
                said.push(line(&digest, "Pulling fs layer"));
                sizes.insert(digest, (0, size));
            }
            said
        }
        Progress::Present(digest) => vec![line(&digest, "Already exists")],
        Progress::Arrived(digest, more) => {
            let mut sizes = sizes.lock();
            let (current, total) = sizes.entry(digest.clone()).or_default();
            *current += more;
            let mut said = line(&digest, "Downloading");
            said["progressDetail"] = json!({"current": current, "total": total});
            vec![said]
        }
        Progress::Unpacked(digest) => vec![
            line(&digest, "Download complete"),
            line(&digest, "Pull complete"),
        ],
    }
}
