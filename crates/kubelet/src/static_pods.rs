//! Pods that files of this node describe, read when the folder changes; and the mirror pods that
//! show static pods of all sources in the API.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base::Stop;
use client::{DeleteOptions, Informer};
use k8s_openapi::api::core::v1::{Node, Pod, PodStatus, Toleration};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{OwnerReference, Time};
use meta::Status;
use sha2::{Digest, Sha256};
use tokio::sync::watch;

use crate::pod::{CONFIG_HASH, CONFIG_MIRROR, CONFIG_SEEN, CONFIG_SOURCE, PodExt};
use crate::pods::{StaticPods, Statics};
use crate::shared::Shared;
use base::Notice;

/// Largest manifest that is read, in bytes.
const MANIFEST_BYTES_MAX: u64 = 10 << 20;
/// Editors write in several steps; a folder is read when it was quiet so long.
const QUIET: Duration = Duration::from_millis(50);
/// Pause before a folder that cannot be watched, or an API that refused, is tried again.
const RETRY: Duration = Duration::from_secs(5);

/// Reads the folder now and whenever it changes; ends when the process stops.
pub(crate) async fn follow(
    folder: PathBuf,
    node_name: String,
    pods: watch::Sender<Option<StaticPods>>,
    stop: Stop,
) {
    loop {
        let watched = watch_folder(&folder, &node_name, &pods);
        tokio::select! {
            Err(error) = watched => {
                tracing::warn!(%error, folder = %folder.display(), "static pods not watched");
            }
            () = stop.raised() => return,
        }
        pods.send_if_modified(|known| known.replace(known.clone().unwrap_or_default()).is_none());
        tokio::select! {
            () = tokio::time::sleep(RETRY) => {}
            () = stop.raised() => return,
        }
    }
}

async fn watch_folder(
    folder: &Path,
    node_name: &str,
    pods: &watch::Sender<Option<StaticPods>>,
) -> std::io::Result<()> {
    fs::create_dir_all(folder)?;
    let mut notice = Notice::of_folder(folder)?;
    loop {
        let fresh = read_folder(folder, node_name);
        pods.send_if_modified(|known| replace(known, fresh));
        notice.changed().await?;
        while tokio::time::timeout(QUIET, notice.changed()).await.is_ok() {}
    }
}

/// Takes over what a source says now. Tells whether it says something else than before.
pub(crate) fn replace(known: &mut Option<StaticPods>, fresh: StaticPods) -> bool {
    let same = known
        .as_ref()
        .is_some_and(|known| known.keys().eq(fresh.keys()));
    if !same {
        *known = Some(fresh);
    }
    !same
}

/// Puts what the two sources say together, as long as one of them may say more.
pub(crate) async fn join(
    mut files: watch::Receiver<Option<StaticPods>>,
    mut url: watch::Receiver<Option<StaticPods>>,
    all: watch::Sender<Statics>,
) {
    loop {
        let (of_files, of_url) = (
            files.borrow_and_update().clone(),
            url.borrow_and_update().clone(),
        );
        all.send_replace(Statics {
            complete: of_files.is_some() && of_url.is_some(),
            pods: of_files.into_iter().chain(of_url).flatten().collect(),
        });
        tokio::select! {
            Ok(()) = files.changed() => {}
            Ok(()) = url.changed() => {}
            else => return,
        }
    }
}

fn read_folder(folder: &Path, node_name: &str) -> StaticPods {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut pods = StaticPods::new();
    for entry in entries {
        let path = entry.path();
        let hidden = entry.file_name().to_string_lossy().starts_with('.');
        let fits = entry
            .metadata()
            .is_ok_and(|m| m.is_file() && m.len() <= MANIFEST_BYTES_MAX);
        if hidden || !fits {
            continue;
        }
        let read = fs::read_to_string(&path).map_err(|error| error.to_string());
        match read.and_then(|text| parse(&text, node_name)) {
            Ok(pod) => drop(pods.insert(pod.uid().to_owned(), Arc::new(pod))),
            Err(error) => tracing::warn!(error, path = %path.display(), "not a pod's manifest"),
        }
    }
    pods
}

/// A pod out of YAML or JSON.
fn parse(text: &str, node_name: &str) -> Result<Pod, String> {
    let tree: serde_json::Value =
        serde_saphyr::from_str(text).map_err(|error| error.to_string())?;
    if tree["kind"] != "Pod" {
        return Err("kind is not Pod".to_owned());
    }
    complete(tree, text, node_name, Source::File)
}

/// Where a static pod is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    File,
    Http,
}

/// A pod, completed as upstream completes static pods. Its uid is by `salt`.
pub(crate) fn complete(
    tree: serde_json::Value,
    salt: &str,
    node_name: &str,
    source: Source,
) -> Result<Pod, String> {
    let mut pod: Pod = serde_json::from_value(tree).map_err(|error| error.to_string())?;
    let name = pod.name().to_owned();
    let spec = pod.spec.as_mut().filter(|spec| !spec.containers.is_empty());
    let spec = spec.ok_or("spec.containers is empty")?;
    if name.is_empty() {
        return Err("metadata.name is empty".to_owned());
    }
    spec.node_name = Some(node_name.to_owned());
    spec.tolerations.get_or_insert_default().push(Toleration {
        operator: Some("Exists".into()),
        effect: Some("NoExecute".into()),
        ..Toleration::default()
    });
    spec.restart_policy.get_or_insert_with(|| "Always".into());
    let digest = Sha256::digest(format!("{node_name}\n{salt}"));
    let hash: String = digest
        .iter()
        .take(16)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    pod.metadata.name = Some(format!("{name}-{node_name}"));
    pod.metadata
        .namespace
        .get_or_insert_with(|| "default".into());
    pod.metadata.uid = Some(hash.clone());
    pod.metadata.creation_timestamp = Some(Time(jiff::Timestamp::now()));
    let annotations = pod.metadata.annotations.get_or_insert_default();
    let source = match source {
        Source::File => "file",
        Source::Http => "http",
    };
    annotations.extend([
        (CONFIG_SOURCE.to_owned(), source.to_owned()),
        (CONFIG_HASH.to_owned(), hash),
        (CONFIG_SEEN.to_owned(), meta::time::now()),
    ]);
    pod.status = Some(PodStatus {
        phase: Some("Pending".into()),
        ..PodStatus::default()
    });
    Ok(pod)
}

/// Keeps one mirror pod per static pod in the API; ends when the process stops.
pub(crate) async fn keep_mirrors(
    shared: Arc<Shared>,
    informer: Informer<Pod>,
    mut statics: watch::Receiver<Statics>,
    stop: Stop,
) {
    tokio::select! {
        () = informer.synced() => {}
        () = stop.raised() => return,
    }
    let mut changes = informer.subscribe();
    loop {
        let wanted = statics.borrow_and_update().clone();
        let mut pause = Duration::MAX;
        if let Err(status) = settle(&shared, &informer, &wanted).await {
            tracing::debug!(error = %status, "mirror pods not settled");
            pause = RETRY;
        }
        loop {
            tokio::select! {
                Ok(()) = statics.changed() => break,
                change = changes.next() => match change {
                    None => return,
                    Some(change) => {
                        let (old, new) = (change.old.as_ref(), change.new.as_ref());
                        // Status updates of mirrors come by here as well; they change nothing.
                        let lost = old.is_some_and(|pod| pod.is_mirror()) && new.is_none();
                        let strange = new.is_some_and(|pod| {
                            pod.is_mirror() && (old.is_none() || pod.is_deleting())
                        });
                        if lost || strange {
                            break;
                        }
                    }
                },
                () = tokio::time::sleep(pause.min(Duration::from_secs(86_400))) => break,
                () = stop.raised() => return,
            }
        }
    }
}

async fn settle(shared: &Shared, informer: &Informer<Pod>, wanted: &Statics) -> Result<(), Status> {
    let by_name: BTreeMap<(&str, &str), &Arc<Pod>> = wanted
        .pods
        .values()
        .map(|pod| ((pod.namespace(), pod.name()), pod))
        .collect();
    for mirror in informer.list().into_iter().filter(|pod| pod.is_mirror()) {
        let pod = by_name.get(&(mirror.namespace(), mirror.name()));
        let same = pod.is_some_and(|pod| mirror.annotation(CONFIG_MIRROR) == Some(pod.uid()));
        // Someone who deletes a mirror pod only makes us show it anew.
        let stale = !same && wanted.complete;
        if stale || mirror.is_deleting() {
            let options = DeleteOptions {
                grace_period_seconds: Some(0),
                ..DeleteOptions::uid(mirror.uid())
            };
            let api = shared.client.beside(mirror.as_ref());
            match api.delete(mirror.name(), &options).await {
                Err(status) if !status.is_not_found() => return Err(status),
                _ => {}
            }
        }
    }
    for pod in wanted.pods.values() {
        let known = informer.get(pod.namespace(), pod.name());
        let same = known.is_some_and(|known| known.annotation(CONFIG_MIRROR) == Some(pod.uid()));
        if same {
            continue;
        }
        let mirror = mirror_of(shared, pod).await?;
        match shared.client.beside(&mirror).create(&mirror).await {
            Err(status) if !status.is_already_exists() => return Err(status),
            _ => {}
        }
    }
    Ok(())
}

async fn mirror_of(shared: &Shared, pod: &Pod) -> Result<Pod, Status> {
    let node_name = &shared.config.node_name;
    let node = shared.client.all::<Node>().get(node_name).await?;
    let mut mirror = pod.clone();
    mirror.metadata.uid = None;
    mirror.metadata.creation_timestamp = None;
    mirror.metadata.owner_references = Some(vec![OwnerReference {
        api_version: "v1".into(),
        kind: "Node".into(),
        name: node_name.clone(),
        uid: node.metadata.uid.unwrap_or_default(),
        controller: Some(true),
        ..OwnerReference::default()
    }]);
    let annotations = mirror.metadata.annotations.get_or_insert_default();
    annotations.insert(CONFIG_MIRROR.to_owned(), pod.uid().to_owned());
    mirror.status = None;
    Ok(mirror)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_becomes_a_pod_of_this_node() {
        let text = "apiVersion: v1\nkind: Pod\nmetadata:\n  name: web\nspec:\n  containers:\n  - name: c\n    image: x\n";
        let pod = parse(text, "n1").unwrap();
        assert_eq!((pod.name(), pod.namespace()), ("web-n1", "default"));
        assert!(pod.is_static() && !pod.is_mirror());
        assert_eq!(pod.spec().node_name.as_deref(), Some("n1"));
        assert_eq!(parse(text, "n1").unwrap().uid(), pod.uid());
        assert_ne!(
            parse(&text.replace("image: x", "image: z"), "n1")
                .unwrap()
                .uid(),
            pod.uid()
        );
        assert!(parse("kind: Deployment", "n1").is_err());
        assert!(parse(":::", "n1").is_err());
    }
}
