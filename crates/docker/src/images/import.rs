//! `docker import`: an archive of files becomes an image of one layer.

use std::path::PathBuf;
use std::sync::Arc;

use oci::{ImageDocument, Ingest, Layer, Reference};
use serde_json::json;

use super::{blocking, event, familiar, with_tag};
use crate::answer::{self, Answer, Fault};
use crate::call::Call;
use crate::daemon::Daemon;

/// A file that was downloaded; it goes with this.
pub(crate) struct Fetched(tempfile::TempDir);

impl Fetched {
    pub(crate) fn path(&self) -> PathBuf {
        self.0.path().join("file")
    }
}

/// Downloads a file for as long as somebody needs it.
pub(crate) async fn fetch(daemon: &Daemon, url: &str) -> Result<Fetched, Fault> {
    let fetched = Fetched(daemon.builds.work_folder()?);
    let options = daemon.engine.registries();
    let downloaded = oci::download(options, url, &fetched.path()).await;
    downloaded.map_err(|error| Fault::bad(format!("{url}: {error}")))?;
    Ok(fetched)
}

/// `POST /images/create?fromSrc=-`, or with an address.
pub(crate) async fn import(call: Call) -> Answer {
    let daemon = Arc::clone(&call.daemon);
    let query = &call.query;
    let source = query.text("fromSrc").to_owned();
    let fetched = match source.as_str() {
        "-" => None,
        // As ever, an address without a scheme is one of HTTP.
        url if !url.contains("://") => Some(super::fetch(&daemon, &format!("http://{url}")).await?),
        url => Some(super::fetch(&daemon, url).await?),
    };
    let platform = query.text("platform");
    if !["", "linux", super::own_platform()].contains(&platform) {
        return Err(Fault::unable(format!(
            "images for {platform} are not supported"
        )));
    }
    let name = match (query.text("repo"), query.text("tag")) {
        ("", _) => None,
        (repo, "") => Some(with_tag(repo)),
        (repo, tag) => Some(format!("{repo}:{tag}")),
    };
    let name: Option<Reference> = match name {
        Some(name) => Some(name.parse().map_err(Fault::from)?),
        None => None,
    };
    let mut document = ImageDocument::scratch();
    let changes: Vec<String> = query.all("changes").map(str::to_owned).collect();
    build::apply_changes(&mut document.config, &changes).map_err(Fault::bad)?;
    let message = match query.text("message") {
        "" => format!("Imported from {source}"),
        message => message.to_owned(),
    };
    let now = format!("{:.9}", jiff::Timestamp::now());
    document.created = Some(now.clone());
    document.comment.clone_from(&message);
    document.history.push(oci::History {
        created: Some(now),
        comment: message,
        ..oci::History::default()
    });
    let store = daemon.engine.images().clone();
    let reader = call.reader();
    let names: Vec<Reference> = name.clone().into_iter().collect();
    let image = blocking(move || {
        let ingest: Ingest = store.ingest()?;
        let Layer(layer) = match &fetched {
            Some(file) => ingest.plain_layer(std::fs::File::open(file.path())?)?,
            None => ingest.plain_layer(reader)?,
        };
        Ok(ingest.image(document, vec![layer], &names)?)
    })
    .await?;
    let id = image.id.to_string();
    let tag = name.and_then(|name| name.tagged());
    event(
        &daemon,
        "import",
        &id,
        tag.as_deref().map_or(id.as_str(), familiar),
    );
    let (pieces, response) = answer::stream("application/json");
    tokio::spawn(async move { answer::line(&pieces, &json!({ "status": id })).await });
    Ok(response)
}
