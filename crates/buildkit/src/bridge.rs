//! `moby.buildkit.v1.frontend.LLBBridge`: the client drives a build by asking for results, looking
//! into them, and saying which one it wants.

use std::collections::BTreeMap;
use std::io::{self, Read, Seek};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use grpc::{Answer, Asked, one};
use oci::View;
use parking_lot::Mutex;
use prost::Message;
use tokio::sync::watch;
use tonic::Status;

use crate::export::Result as Made;
use crate::frontend::{self, Asking};
use crate::jobs::Job;
use crate::wire::{
    Ability, BridgeResult, BridgeSolve, BridgeSolved, Definition, Input, Inputs, Map, Nothing, Op,
    PathRequest, Piece, Pong, ReadFileRequest, Reference, ReturnRequest, SourceOp, Stat, Stats,
};
use crate::{Service, control, fault};

/// Where a call says which build it belongs to.
const BUILD: &str = "buildkit-controlapi-buildid";
/// Results of one build.
const RESULTS_MAX: usize = 64;
/// Bytes of a file that is read.
const FILE_MAX: u64 = 8 << 20;
/// Entries of a folder that is read.
const ENTRIES_MAX: usize = 100_000;
/// What stands for a result in graphs: only we know what it is.
const RESULT: &str = "sampan-result://";

/// What clients may ask for here.
const ABILITIES: [&str; 14] = [
    "solve.base",
    "solve.inlinereturn",
    "readfile",
    "readdir",
    "statfile",
    "return",
    "returnmap",
    "proto.refarray",
    "reference.output",
    "frontend.inputs",
    "gateway.solve.metadata",
    "gateway.solve.evaluate",
    "gateway.evaluate",
    "importcaches",
];
/// Operations and exporters that are understood.
const OPERATIONS: [&str; 12] = [
    "source.image",
    "source.local",
    "source.local.sessionid",
    "source.local.includepatterns",
    "source.local.followpaths",
    "source.local.excludepatterns",
    "source.local.sharedkeyhint",
    "source.http",
    "constraints",
    "platform",
    "meta.description",
    "exporter.multiple",
];

type Returned = Option<Result<Option<Made>, Status>>;

/// The client's part in a build.
pub(crate) struct Bridge {
    results: Mutex<BTreeMap<String, Made>>,
    returned: watch::Sender<Returned>,
}

impl Default for Bridge {
    fn default() -> Bridge {
        Bridge {
            results: Mutex::default(),
            returned: watch::Sender::new(None),
        }
    }
}

impl Bridge {
    /// What the client wants, when it has said so.
    pub(crate) async fn returned(&self) -> Result<Option<Made>, Status> {
        let mut returned = self.returned.subscribe();
        let said = returned.wait_for(Option::is_some).await;
        match said.ok().and_then(|said| said.clone()) {
            Some(result) => result,
            None => Err(Status::cancelled("the build was given up")),
        }
    }

    /// Lets go of what the build made.
    pub(crate) fn close(&self) {
        self.results.lock().clear();
        self.returned.send_replace(None);
    }

    fn find(&self, id: &str) -> Result<Made, Status> {
        let found = self.results.lock().get(id).cloned();
        found.ok_or_else(|| Status::unknown(format!("no such ref: {id}")))
    }

    /// Keeps a result; tells its name.
    fn add(&self, made: Made) -> Result<String, Status> {
        let mut results = self.results.lock();
        if results.len() >= RESULTS_MAX {
            return Err(Status::resource_exhausted("too many results of one build"));
        }
        let id = uuid::Uuid::new_v4().simple().to_string();
        results.insert(id.clone(), made);
        Ok(id)
    }
}

pub(crate) async fn answer(
    service: &Arc<Service>,
    method: &str,
    mut asked: Asked,
) -> Result<Answer, Status> {
    if method == "Ping" {
        let able = |id: &&str| Ability {
            id: (*id).to_owned(),
            enabled: true,
        };
        return Ok(one(&Pong {
            frontend: ABILITIES.iter().map(able).collect(),
            llb: OPERATIONS.iter().map(able).collect(),
            workers: vec![control::worker(service)],
        }));
    }
    let reference = asked.text(BUILD).unwrap_or_default().to_owned();
    let job = service.jobs.find(&reference).await?;
    match method {
        "Solve" => Ok(one(&solve(service, &job, asked.one().await?).await?)),
        // Whatever has a name is there already.
        "Evaluate" | "Warn" => Ok(one(&Nothing {})),
        "Inputs" => Ok(one(&Inputs::default())),
        "Return" => {
            let said = returned(&job, asked.one().await?);
            job.bridge.returned.send_replace(Some(said));
            Ok(one(&Nothing {}))
        }
        "ReadFile" => {
            let request: ReadFileRequest = asked.one().await?;
            let made = job.bridge.find(&request.reference)?;
            let data = looking(made, move |view| read(view, &request)).await?;
            Ok(one(&Piece { data: data.into() }))
        }
        "StatFile" => {
            let request: PathRequest = asked.one().await?;
            let made = job.bridge.find(&request.reference)?;
            let stat = looking(made, move |view| stat(view, Path::new(&request.path))).await?;
            Ok(one(&Stats { stats: vec![stat] }))
        }
        "ReadDir" => {
            let request: PathRequest = asked.one().await?;
            let made = job.bridge.find(&request.reference)?;
            let stats = looking(made, move |view| list(view, Path::new(&request.path))).await?;
            Ok(one(&Stats { stats }))
        }
        _ => Err(Status::unimplemented(format!(
            "{method} is not supported by this engine"
        ))),
    }
}

async fn solve(
    service: &Arc<Service>,
    job: &Arc<Job>,
    request: BridgeSolve,
) -> Result<BridgeSolved, Status> {
    let graph = request.definition.unwrap_or_default();
    let made = match request.frontend.as_str() {
        "" if graph.def.is_empty() => {
            return Ok(BridgeSolved {
                result: Some(BridgeResult {
                    reference: Some(Reference::default()),
                    ..BridgeResult::default()
                }),
            });
        }
        "" => frontend::download(service, job, &graph).await?,
        _ => {
            let asking = Asking {
                frontend: request.frontend,
                attrs: request.attrs,
                inputs: request.inputs,
            };
            frontend::run(service, job, asking).await?
        }
    };
    let mut metadata = BTreeMap::new();
    if let Made::Built(solved) = &made
        && let Ok(document) = solved.document().bytes()
    {
        metadata.insert("containerimage.config".to_owned(), document);
    }
    let id = job.bridge.add(made)?;
    let definition = graph_of(&format!("{RESULT}{}/{id}", job.reference));
    Ok(BridgeSolved {
        result: Some(BridgeResult {
            reference: Some(Reference {
                id,
                definition: Some(definition),
            }),
            metadata,
            ..BridgeResult::default()
        }),
    })
}

fn returned(job: &Job, request: ReturnRequest) -> Result<Option<Made>, Status> {
    if let Some(error) = request.error {
        return Err(fault::of_rpc(error));
    }
    let result = request.result.unwrap_or_default();
    let mut several = result.references.unwrap_or_default().references;
    if several.len() > 1 {
        return Err(Status::unknown(
            "results for several platforms are not supported",
        ));
    }
    let one = several.pop_first().map(|(_, reference)| reference);
    let id = one.or(result.reference).map(|reference| reference.id);
    match id.or(result.old_reference).filter(|id| !id.is_empty()) {
        Some(id) => job.bridge.find(&id).map(Some),
        None => Ok(None),
    }
}

/// A graph of one source.
fn graph_of(identifier: &str) -> Definition {
    let source = Op {
        source: Some(SourceOp {
            identifier: identifier.to_owned(),
            attrs: Map::new(),
        }),
        ..Op::default()
    }
    .encode_to_vec();
    let digest = oci::Digest::of(&source).to_string();
    let end = Op {
        inputs: vec![Input {
            digest: digest.clone(),
            index: 0,
        }],
        ..Op::default()
    };
    Definition {
        def: vec![source, end.encode_to_vec()],
        metadata: BTreeMap::from([(digest, Nothing {})]),
    }
}

/// The one source of a graph that is nothing else.
pub(crate) fn only_source(graph: &Definition) -> Option<SourceOp> {
    let mut found = None;
    for bytes in &graph.def {
        let op = Op::decode(bytes.as_slice()).ok()?;
        match op.source {
            Some(_) if found.is_some() => return None,
            Some(source) => found = Some(source),
            None if op.inputs.len() == 1 => {}
            None => return None,
        }
    }
    found
}

/// The result that a graph stands for.
pub(crate) async fn result_of(service: &Service, graph: &Definition) -> Result<Made, Status> {
    let source = only_source(graph).ok_or_else(frontend::no_graphs)?;
    let (reference, id) = source
        .identifier
        .strip_prefix(RESULT)
        .and_then(|rest| rest.rsplit_once('/'))
        .ok_or_else(frontend::no_graphs)?;
    service.jobs.find(reference).await?.bridge.find(id)
}

async fn looking<T: Send + 'static>(
    made: Made,
    look: impl FnOnce(&View) -> io::Result<T> + Send + 'static,
) -> Result<T, Status> {
    let work = move || {
        let nothing = tempfile::tempdir()?;
        let mut folders = made.folders();
        if folders.is_empty() {
            folders.push(nothing.path().to_owned());
        }
        look(&View::of_layers(&folders, None)?)
    };
    let looked = tokio::task::spawn_blocking(work).await;
    let looked = looked.map_err(|error| Status::internal(error.to_string()))?;
    looked.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => Status::not_found(error.to_string()),
        _ => fault::words(error),
    })
}

fn read(view: &View, request: &ReadFileRequest) -> io::Result<Vec<u8>> {
    let (_held, place) = view.open(Path::new(&request.path))?;
    let mut file = std::fs::File::open(place)?;
    let mut limit = FILE_MAX;
    if let Some(range) = &request.range {
        let start = u64::try_from(range.offset).unwrap_or(0);
        file.seek(io::SeekFrom::Start(start))?;
        if range.length > 0 {
            limit = limit.min(range.length.unsigned_abs());
        }
    }
    let mut bytes = Vec::new();
    file.take(limit).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn stat(view: &View, path: &Path) -> io::Result<Stat> {
    let (_held, place) = view.open(path)?;
    let metadata = std::fs::metadata(place)?;
    let name = path.file_name().unwrap_or_default();
    Ok(stat_of(name.to_string_lossy().into_owned(), &metadata))
}

fn stat_of(path: String, metadata: &std::fs::Metadata) -> Stat {
    Stat {
        path,
        mode: crate::transfer::mode_of(metadata),
        uid: metadata.uid(),
        gid: metadata.gid(),
        size: i64::try_from(metadata.len()).unwrap_or(i64::MAX),
        modified: metadata.mtime() * 1_000_000_000 + metadata.mtime_nsec(),
        ..Stat::default()
    }
}

fn list(view: &View, path: &Path) -> io::Result<Vec<Stat>> {
    let (_held, place) = view.open(path)?;
    let mut stats = Vec::new();
    for entry in std::fs::read_dir(place)?.take(ENTRIES_MAX) {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        stats.push(stat_of(name, &entry.metadata()?));
    }
    stats.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(stats)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_pass_through_graphs() {
        let graph = graph_of("sampan-result://build/1");
        assert_eq!(
            only_source(&graph).unwrap().identifier,
            "sampan-result://build/1"
        );
        let mut twice = graph.clone();
        twice.def.push(graph.def[0].clone());
        assert!(only_source(&twice).is_none());
        assert!(only_source(&Definition::default()).is_none());
    }
}
