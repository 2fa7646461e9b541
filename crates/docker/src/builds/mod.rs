//! Building images for docker's clients.

mod cache;
mod host;
mod kit;
mod kit_request;
mod request;
mod tail;

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, OnceLock, Weak};

use build::{BuildError, Builder, Messages, Said, Say};
use http::StatusCode;
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::answer::{self, Answer, Fault, Pieces};
use crate::call::Call;
use crate::daemon::Daemon;
use crate::peer::Peer;

pub(crate) use cache::{prune, usage};
pub(crate) use kit::{calls, session};

/// The builder, and builds that can be told to stop.
pub(crate) struct Builds {
    builder: Arc<Builder>,
    host: Arc<host::EngineHost>,
    running: Mutex<HashMap<String, base::Stop>>,
    /// BuildKit's protocol, from its first use on.
    kit: OnceLock<Arc<buildkit::Service>>,
}

impl Builds {
    pub(crate) fn open(store: &oci::Store, folder: &Path) -> std::io::Result<Builds> {
        let host = Arc::new(host::EngineHost::default());
        std::fs::create_dir_all(folder)?;
        Ok(Builds {
            builder: Arc::new(Builder::new(store, folder, host.clone())?),
            host,
            running: Mutex::default(),
            kit: OnceLock::new(),
        })
    }

    /// A folder for as long as somebody needs it.
    pub(crate) fn work_folder(&self) -> std::io::Result<tempfile::TempDir> {
        self.builder.work_folder()
    }

    /// Tells the builder whose containers it uses.
    pub(crate) fn serve(&self, daemon: Weak<Daemon>) {
        self.host.serve(daemon);
    }
}

/// `POST /build`. Whatever goes wrong before the first step is an answer of its own; later faults
/// are part of the stream.
pub(crate) async fn build(call: Call) -> Answer {
    if call.query.text("version") == "2" {
        return kit::build(call);
    }
    let daemon = Arc::clone(&call.daemon);
    let wish = request::Wish::read(&call)?;
    let peer = call.request.extensions().get::<Peer>().cloned();
    let context = daemon.builds.builder.work_folder()?;
    let (folder, name) = (context.path().to_owned(), wish.dockerfile.clone());
    let remote = match &wish.remote {
        Some(url) => Some(crate::images::fetch(&daemon, url).await?),
        None => None,
    };
    let reader = call.reader();
    let receiving = move || -> Result<String, Fault> {
        let received = match remote {
            Some(file) => build::receive_file(&file.path(), &folder, &name),
            None => build::receive(tail::completed(reader)?, &folder, &name),
        };
        received.map_err(|error| Fault::bad(error.to_string()))
    };
    let text = tokio::task::spawn_blocking(receiving)
        .await
        .map_err(Fault::internal)??;
    build::dockerfile::parse(&text).map_err(|error| Fault::bad(error.to_string()))?;
    let (pieces, response) = answer::stream("application/json");
    tokio::spawn(async move {
        let stop = base::Stop::new();
        if !wish.id.is_empty() {
            let mut running = daemon.builds.running.lock();
            running.insert(wish.id.clone(), stop.clone());
        }
        // A client that goes away ends its build; whatever runs for it goes with the future.
        tokio::select! {
            () = work(&daemon, &wish, text, context.path(), &pieces) => {}
            () = pieces.closed() => tracing::debug!("nobody takes the answer of a build"),
            () = gone(peer) => tracing::debug!("the client of a build is gone"),
            () = stop.raised() => {
                answer::line(&pieces, &fault_line("build cancelled", None)).await;
            }
            () = daemon.stop.raised() => {}
        }
        daemon.builds.running.lock().remove(&wish.id);
        drop(context);
    });
    Ok(response)
}

/// Never comes back where it cannot be told.
async fn gone(peer: Option<Peer>) {
    if let Some(peer) = peer
        && peer.gone().await.is_ok()
    {
        return;
    }
    std::future::pending().await
}

/// `POST /build/cancel`.
pub(crate) async fn cancel(call: Call) -> Answer {
    let id = call.query.text("id");
    if id.is_empty() {
        return Err(Fault::bad("build ID not provided"));
    }
    if let Some(stop) = call.daemon.builds.running.lock().get(id) {
        stop.raise();
    }
    Ok(answer::empty(StatusCode::OK))
}

async fn work(
    daemon: &Arc<Daemon>,
    wish: &request::Wish,
    text: String,
    context: &Path,
    pieces: &Pieces,
) {
    let (say, messages) = Say::channel();
    let builder = &daemon.builds.builder;
    let building = async {
        let built = builder.build(wish.request(text, context), &say).await;
        drop(say);
        built
    };
    let (built, ()) = tokio::join!(building, tell(messages, pieces, wish.quiet));
    let built = match built {
        Ok(built) => built,
        Err(error) => {
            let code = match error {
                BuildError::Command { code, .. } => Some(code),
                _ => None,
            };
            answer::line(pieces, &fault_line(&error.to_string(), code)).await;
            return;
        }
    };
    let id = built.image.id.to_string();
    answer::line(pieces, &json!({"aux": {"ID": id}})).await;
    if !built.unused.is_empty() {
        let text = format!(
            "[Warning] One or more build-args {:?} were not consumed\n",
            built.unused
        );
        answer::line(pieces, &stream_line(&text)).await;
    }
    if wish.quiet {
        answer::line(pieces, &stream_line(&format!("{id}\n"))).await;
    } else {
        let short: String = built.image.id.hex().chars().take(12).collect();
        answer::line(
            pieces,
            &stream_line(&format!("Successfully built {short}\n")),
        )
        .await;
        for tag in &wish.tags {
            let name = tag.tagged().unwrap_or_default();
            let said = format!("Successfully tagged {}\n", crate::images::familiar(&name));
            answer::line(pieces, &stream_line(&said)).await;
        }
    }
    for tag in &wish.tags {
        let name = tag.tagged().unwrap_or_default();
        crate::images::event(daemon, "tag", &id, crate::images::familiar(&name));
    }
}

async fn tell(mut messages: Messages, pieces: &Pieces, quiet: bool) {
    while let Some(said) = messages.recv().await {
        let line = match said {
            _ if quiet => continue,
            Said::Text(text) => stream_line(&text),
            Said::Progress { id, status } => json!({"id": id, "status": status}),
        };
        answer::line(pieces, &line).await;
    }
}

fn stream_line(text: &str) -> Value {
    json!({ "stream": text })
}

fn fault_line(message: &str, code: Option<i32>) -> Value {
    match code {
        Some(code) => json!({"errorDetail": {"code": code, "message": message}, "error": message}),
        None => json!({"errorDetail": {"message": message}, "error": message}),
    }
}
