//! Where results go: into the engine's images, to the client as files or as an archive.

use std::path::PathBuf;
use std::sync::Arc;

use build::Solved;
use tonic::Status;

use crate::jobs::Job;
use crate::wire::{Exporter, Map, Timestamp};
use crate::{Service, fault, transfer};

/// Exporters of one build.
const EXPORTERS_MAX: usize = 16;

/// What a build made, or what was fetched for a client.
#[derive(Clone)]
pub(crate) enum Result {
    Built(Arc<Solved>),
    Folder(Arc<tempfile::TempDir>),
}

impl Result {
    /// Folders of its layers, the lowest first.
    pub(crate) fn folders(&self) -> Vec<PathBuf> {
        match self {
            Result::Built(solved) => solved.folders(),
            Result::Folder(folder) => vec![folder.path().to_owned()],
        }
    }
}

/// Carries a result to all its places; tells what clients want to know of them.
pub(crate) async fn run(
    service: &Arc<Service>,
    job: &Arc<Job>,
    made: &Result,
    exporters: &[Exporter],
) -> std::result::Result<Map, Status> {
    if exporters.len() > EXPORTERS_MAX {
        return Err(Status::invalid_argument("too many exporters"));
    }
    let mut answer = Map::new();
    for (number, exporter) in exporters.iter().enumerate() {
        let title = match exporter.kind.as_str() {
            "moby" | "image" => "exporting to image",
            "local" => "exporting to client directory",
            "tar" => "exporting to client tarball",
            other => {
                return Err(fault::words(format!(
                    "exporter {other:?} is not supported by this engine"
                )));
            }
        };
        let step = Step::begin(job, number, title);
        let done = match title {
            "exporting to image" => image(service, &step, made, &exporter.attrs).await,
            _ => files(service, &step, made, number, title).await,
        };
        let error = done.as_ref().err().map(Status::message);
        job.end(&step.digest, false, error.unwrap_or_default());
        answer.extend(done?);
    }
    Ok(answer)
}

/// A step that is shown.
struct Step<'a> {
    job: &'a Job,
    digest: String,
}

impl Step<'_> {
    fn begin<'a>(job: &'a Job, number: usize, title: &str) -> Step<'a> {
        let digest = job.digest(&format!("export {number}"));
        job.begin(&digest, title);
        Step { job, digest }
    }

    fn part(&self, name: &str, started: Timestamp, done: bool) {
        self.job.part(&self.digest, name, 0, started, done);
    }
}

async fn image(
    service: &Arc<Service>,
    step: &Step<'_>,
    made: &Result,
    attrs: &Map,
) -> std::result::Result<Map, Status> {
    let Result::Built(solved) = made else {
        return Err(fault::words("only what a Dockerfile makes can be an image"));
    };
    let names = attrs.get("name").map(String::as_str).unwrap_or_default();
    let names: Vec<&str> = names.split(',').filter(|name| !name.is_empty()).collect();
    let references = names
        .iter()
        .map(|name| service.backend.reference(name).map_err(fault::words))
        .collect::<std::result::Result<Vec<_>, _>>()?;
    let started = Timestamp::now();
    step.part("exporting layers", started, false);
    let image = solved.image(references.clone()).await;
    let image = image.map_err(fault::words)?;
    step.part("exporting layers", started, true);
    step.part(&format!("writing image {}", image.id), started, true);
    let mut answer = Map::from([
        ("containerimage.digest".to_owned(), image.id.to_string()),
        (
            "containerimage.config.digest".to_owned(),
            image.id.to_string(),
        ),
    ]);
    let mut full = Vec::new();
    for reference in &references {
        let name = reference.tagged().unwrap_or_else(|| reference.name());
        step.part(&format!("naming to {name}"), started, true);
        service.backend.named(&image, reference);
        full.push(name);
    }
    if !full.is_empty() {
        answer.insert("image.name".to_owned(), full.join(","));
    }
    Ok(answer)
}

async fn files(
    service: &Arc<Service>,
    step: &Step<'_>,
    made: &Result,
    number: usize,
    title: &str,
) -> std::result::Result<Map, Status> {
    let session = service.sessions.get(&step.job.session).await?;
    let started = Timestamp::now();
    if title == "exporting to client tarball" {
        step.part("sending tarball", started, false);
        transfer::send_tar(&session, number, made.folders()).await?;
        step.part("sending tarball", started, true);
    } else {
        step.part("copying files", started, false);
        let bytes = transfer::send(&session, number, made.folders()).await?;
        step.job
            .part(&step.digest, "copying files", bytes, started, true);
    }
    Ok(Map::new())
}
