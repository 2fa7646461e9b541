//! `dockerfile.v0`: what clients ask of a Dockerfile, with the files of their sessions.

mod agents;
mod attrs;
mod files;
mod news;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use build::dockerfile::{self, Dockerfile, Instruction, Mount, MountKind};
use build::{BuildError, Meaning, Request, Say, context_key};
use futures::FutureExt;
use tonic::Status;

use crate::export::Result as Made;
use crate::fault::{self, Place};
use crate::jobs::Job;
use crate::sessions::Session;
use crate::wire::{Definition, Map};
use crate::{Service, bridge};

use attrs::Attrs;
use files::Source;
use news::Reporter;

/// Images that are what this frontend is.
const OWN_SYNTAX: [&str; 2] = ["docker/dockerfile", "docker/dockerfile-upstream"];

/// What is asked of a frontend.
pub(crate) struct Asking {
    pub(crate) frontend: String,
    pub(crate) attrs: Map,
    pub(crate) inputs: BTreeMap<String, Definition>,
}

/// Graphs are refused.
pub(crate) fn no_graphs() -> Status {
    fault::words(
        "graphs of operations (LLB) are not supported by this engine: it builds Dockerfiles",
    )
}

/// Whether a frontend's image is this one in another version.
fn check_syntax(name: &str) -> Result<(), Status> {
    let name = name.split_whitespace().next().unwrap_or_default();
    let path = name.split('@').next().unwrap_or_default();
    let path = match path.rsplit_once(':') {
        Some((path, tag)) if !tag.contains('/') => path,
        _ => path,
    };
    let path = path.strip_prefix("docker.io/").unwrap_or(path);
    match OWN_SYNTAX.contains(&path) {
        true => Ok(()),
        false => Err(fault::words(format!(
            "frontend {name} is not supported by this engine: its own reads what docker/dockerfile does"
        ))),
    }
}

/// The frontend that a Dockerfile's first lines name.
fn syntax_of(text: &str) -> Option<&str> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    for line in text.lines() {
        let (name, value) = line.trim().strip_prefix('#')?.split_once('=')?;
        if name.trim().eq_ignore_ascii_case("syntax") {
            return Some(value.trim());
        }
    }
    None
}

/// Builds what is asked for.
pub(crate) async fn run(
    service: &Arc<Service>,
    job: &Arc<Job>,
    asking: Asking,
) -> Result<Made, Status> {
    match asking.frontend.as_str() {
        "dockerfile.v0" => {}
        "gateway.v0" => check_syntax(asking.attrs.get("source").map_or("", String::as_str))?,
        other => {
            let message = format!("frontend {other} is not supported by this engine");
            return Err(fault::words(message));
        }
    }
    if let Some(name) = asking.attrs.get("requestid") {
        return Err(fault::no_subrequest(name));
    }
    let attrs = Attrs::read(&asking.attrs)?;
    let session = service.sessions.get(&job.session).await?;
    let folder = service
        .backend
        .builder()
        .work_folder()
        .map_err(fault::words)?;
    let source = Source {
        service,
        job,
        session: &session,
        attrs: &attrs,
        folder: folder.path(),
    };
    let definition = source.definition().await?;
    if let Some(name) = syntax_of(&definition.text) {
        check_syntax(name)?;
    }
    let mut place = Place {
        filename: attrs.filename.clone(),
        text: definition.text.clone(),
        ..Place::default()
    };
    let parsed = dockerfile::parse(&definition.text);
    let parsed = parsed.map_err(|error| fault::of_build(&BuildError::Parse(error), &place))?;
    let context = source.context(&definition, &parsed).await?;
    let contexts = meanings(&source, &asking.inputs).await?;
    let secrets = secrets(&session, &parsed).await?;
    let agents = agents::Agents::open(&session, &parsed, folder.path()).await?;
    let reporter = Arc::new(Reporter::new(Arc::clone(job)));
    let asked = Arc::clone(&session);
    let credentials = Arc::new(move |registry: String| {
        let session = Arc::clone(&asked);
        async move { session.credentials(&registry).await }.boxed()
    });
    let request = Request {
        dockerfile: definition.text.clone(),
        context,
        args: attrs.args.clone(),
        target: attrs.target.clone(),
        labels: attrs.labels.clone(),
        no_cache: attrs.no_cache,
        no_cache_stages: attrs.no_cache_stages.clone(),
        pull: attrs.pull,
        network: attrs.network.clone(),
        secrets,
        agents: agents.sockets().clone(),
        contexts,
        follower: reporter.follower(),
        wishes: service.backend.wishes(attrs.extras.clone(), credentials),
        ..Request::default()
    };
    let (say, _) = Say::channel();
    let solved = service.backend.builder().solve(request, &say).await;
    drop(agents);
    match solved {
        Ok(solved) => {
            warn_unused(job, &solved.unused);
            Ok(Made::Built(Arc::new(solved)))
        }
        Err(error) => {
            if let Some((vertex, lines)) = reporter.failed() {
                (place.vertex, place.lines) = (vertex, lines);
            }
            Err(fault::of_build(&error, &place))
        }
    }
}

fn warn_unused(job: &Job, unused: &[String]) {
    let names: Vec<&str> = unused
        .iter()
        .map(String::as_str)
        .filter(|name| !name.starts_with("BUILDKIT_"))
        .collect();
    if names.is_empty() {
        return;
    }
    let text = format!(
        "One or more build-args [{}] were not consumed",
        names.join(" ")
    );
    job.warn(&job.digest("definition"), &text);
}

/// All mounts of a kind.
fn mounts(file: &Dockerfile, kind: MountKind) -> impl Iterator<Item = &Mount> {
    let steps = file.stages.iter().flat_map(|stage| &stage.steps);
    let runs = steps.filter_map(|step| match &step.instruction {
        Instruction::Run(run) => Some(run),
        _ => None,
    });
    runs.flat_map(|run| &run.mounts)
        .filter(move |mount| mount.kind == kind)
}

/// The secrets that steps name, where the client has them.
async fn secrets(
    session: &Session,
    file: &Dockerfile,
) -> Result<BTreeMap<String, Vec<u8>>, Status> {
    let mut found = BTreeMap::new();
    for mount in mounts(file, MountKind::Secret) {
        let id = build::secret_id(mount);
        if !found.contains_key(&id)
            && let Some(secret) = session.secret(&id).await?
        {
            found.insert(id, secret);
        }
    }
    Ok(found)
}

/// What names mean that the client gives a meaning.
async fn meanings(
    source: &Source<'_>,
    inputs: &BTreeMap<String, Definition>,
) -> Result<BTreeMap<String, Meaning>, Status> {
    let mut found = BTreeMap::new();
    for (name, value) in &source.attrs.contexts {
        // One for each platform; there is but one here.
        let key = context_key(name.split("::").next().unwrap_or(name));
        let (kind, rest) = value.split_once(':').unwrap_or(("", value));
        let meaning = match kind {
            "docker-image" => Meaning::Image(rest.trim_start_matches('/').to_owned()),
            "local" => Meaning::Folder(source.named_folder(name, rest).await?),
            "input" => match inputs.get(rest) {
                Some(graph) => match bridge::result_of(source.service, graph).await? {
                    Made::Built(solved) => Meaning::Made(solved),
                    Made::Folder(folder) => Meaning::Folder(folder.path().to_owned()),
                },
                None => return Err(fault::words(format!("invalid input {rest}"))),
            },
            _ => {
                return Err(fault::words(format!(
                    "context {name}: {value} is not supported by this engine"
                )));
            }
        };
        found.insert(key, meaning);
    }
    Ok(found)
}

/// A graph that is one download: the Dockerfile that a client names by its URL.
pub(crate) async fn download(
    service: &Arc<Service>,
    job: &Arc<Job>,
    graph: &Definition,
) -> Result<Made, Status> {
    let source = bridge::only_source(graph).ok_or_else(no_graphs)?;
    let url = &source.identifier;
    if !url.starts_with("http://") && !url.starts_with("https://") {
        return Err(no_graphs());
    }
    let path = url.split(['?', '#']).next().unwrap_or_default();
    let last = path.rsplit('/').next().unwrap_or_default();
    let name = source
        .attrs
        .get("http.filename")
        .map_or(last, String::as_str);
    let name = match name {
        "" | "." | ".." => "index",
        name if name.contains('/') => "index",
        name => name,
    };
    let folder = service
        .backend
        .builder()
        .work_folder()
        .map_err(fault::words)?;
    let digest = job.digest(url);
    job.begin(&digest, url);
    let fetched = service.backend.fetch(url, &folder.path().join(name)).await;
    job.end(
        &digest,
        false,
        fetched.as_ref().err().map_or("", String::as_str),
    );
    fetched.map_err(fault::words)?;
    Ok(Made::Folder(Arc::new(folder)))
}

/// The Dockerfile, and what came with it.
pub(crate) struct DefinitionFile {
    pub(crate) text: String,
    /// Lines of its own file of patterns, if it has one.
    pub(crate) ignore: Option<String>,
    /// Where the context is, if the Dockerfile came with it.
    pub(crate) context: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frontends_by_name() {
        for name in [
            "docker/dockerfile",
            "docker/dockerfile:1.7-labs",
            "docker.io/docker/dockerfile:1@sha256:0",
            "docker/dockerfile-upstream:master cmdline",
        ] {
            assert!(check_syntax(name).is_ok(), "{name}");
        }
        for name in ["", "mine/frontend", "host:5000/docker/dockerfile:1"] {
            assert!(check_syntax(name).is_err(), "{name}");
        }
        let text = "# escape=`\n# syntax = docker/dockerfile:1\nFROM x\n";
        assert_eq!(syntax_of(text), Some("docker/dockerfile:1"));
        assert_eq!(syntax_of("FROM x\n# syntax=y\n"), None);
        assert_eq!(syntax_of("# words\n# syntax=y\n"), None);
    }
}
