//! `docker commit`: a container's changes become a layer on its image.

use std::path::PathBuf;
use std::sync::Arc;

use http::StatusCode;
use oci::{Changes, HealthSettings, History, Layer, Reference, Settings};
use serde_json::json;

use crate::answer::{self, Answer, Fault};
use crate::call::Call;
use crate::daemon::{Container, Daemon};
use crate::images::{self, blocking};
use crate::record::{Record, Status};
use crate::translate::WRITABLE;
use crate::wire::Config;

/// `POST /commit`.
pub(crate) async fn commit(mut call: Call) -> Answer {
    let given: Option<Config> = call.body::<Option<Config>>().await?;
    let query = &call.query;
    let daemon = Arc::clone(&call.daemon);
    let container = daemon.find(query.text("container"))?;
    let record = container.snapshot();
    let name = match (query.text("repo"), query.text("tag")) {
        ("", _) => None,
        (repo, "") => Some(images::with_tag(repo)),
        (repo, tag) => Some(format!("{repo}:{tag}")),
    };
    let name: Option<Reference> = match name {
        Some(name) => Some(name.parse().map_err(Fault::from)?),
        None => None,
    };
    let mut settings = settings(&record.config, given);
    // Several lines in one parameter, or one parameter each.
    let changes = query.all("changes").flat_map(str::lines);
    let changes: Vec<String> = changes
        .filter(|line| !line.is_empty())
        .map(str::to_owned)
        .collect();
    build::apply_changes(&mut settings, &changes).map_err(Fault::bad)?;
    let pause = query.get("pause").is_none() || query.flag("pause");
    let paused = pause && record.state.status == Status::Running;
    if paused {
        daemon
            .engine
            .freeze_container(&record.state.inner, true)
            .await?;
    }
    let words = (
        query.text("author").to_owned(),
        query.text("comment").to_owned(),
    );
    let made = make(&daemon, &container, record.clone(), settings, words, name).await;
    if paused {
        daemon
            .engine
            .freeze_container(&record.state.inner, false)
            .await?;
    }
    let image = made?;
    let id = image.id.to_string();
    let more = [
        ("comment", query.text("comment").to_owned()),
        ("imageID", id.clone()),
    ];
    daemon.events.container(&record, "commit", &more);
    Ok(answer::json(StatusCode::CREATED, &json!({ "Id": id })))
}

async fn make(
    daemon: &Arc<Daemon>,
    container: &Arc<Container>,
    record: Record,
    settings: Settings,
    (author, comment): (String, String),
    name: Option<Reference>,
) -> Result<oci::ImageRecord, Fault> {
    let store = daemon.engine.images().clone();
    let mut ours = super::our_places();
    ours.extend(
        record
            .mounts
            .iter()
            .map(|point| PathBuf::from(&point.destination)),
    );
    let changes = Changes {
        folder: container.folder.join(WRITABLE).join("upper"),
        ours,
        latest: None,
    };
    // No start comes in between.
    let disposal = Arc::clone(&container.disposal).lock_owned().await;
    blocking(move || {
        let base = store.get(&record.image_id)?;
        let mut document = store.document(&base)?;
        let ingest = store.ingest()?;
        let mut layers = base.layers;
        let empty = changes.are_none()?;
        if !empty {
            let Layer(layer) = ingest.changes(&changes)?;
            layers.push(layer);
        }
        drop(disposal);
        let now = format!("{:.9}", jiff::Timestamp::now());
        document.created = Some(now.clone());
        document.author.clone_from(&author);
        document.comment.clone_from(&comment);
        document.config = settings;
        document.history.push(History {
            created: Some(now),
            created_by: record.args().join(" "),
            author,
            comment,
            empty_layer: empty,
        });
        let names: Vec<Reference> = name.into_iter().collect();
        Ok(ingest.image(document, layers, &names)?)
    })
    .await
}

/// What the container was created with, but for what the request says otherwise.
fn settings(own: &Config, given: Option<Config>) -> Settings {
    let given = given.unwrap_or_default();
    let text = |given: &String, own: &String| match given.is_empty() {
        true => own.clone(),
        false => given.clone(),
    };
    let mut env = given.env.clone();
    for pair in &own.env {
        let name = pair.split('=').next();
        if !env.iter().any(|known| known.split('=').next() == name) {
            env.push(pair.clone());
        }
    }
    let mut labels = own.labels.clone();
    labels.extend(given.labels.clone());
    let check = given.healthcheck.as_ref().or(own.healthcheck.as_ref());
    let mut ports = own.exposed_ports.clone();
    ports.extend(given.exposed_ports.clone());
    let mut volumes = own.volumes.clone().unwrap_or_default();
    volumes.extend(given.volumes.clone().unwrap_or_default());
    let or = |given: &Option<Vec<String>>, own: &Option<Vec<String>>| {
        let given = given.clone().filter(|words| !words.is_empty());
        given.or_else(|| own.clone())
    };
    Settings {
        user: text(&given.user, &own.user),
        exposed_ports: ports,
        env,
        entrypoint: or(&given.entrypoint, &own.entrypoint),
        cmd: or(&given.cmd, &own.cmd),
        volumes,
        working_dir: text(&given.working_dir, &own.working_dir),
        labels,
        stop_signal: given
            .stop_signal
            .or_else(|| own.stop_signal.clone())
            .unwrap_or_default(),
        healthcheck: check.map(|check| HealthSettings {
            test: check.test.clone(),
            interval: check.interval,
            timeout: check.timeout,
            start_period: check.start_period,
            start_interval: check.start_interval,
            retries: check.retries,
        }),
        on_build: given
            .on_build
            .or_else(|| own.on_build.clone())
            .unwrap_or_default(),
        shell: or(&given.shell, &own.shell),
    }
}
