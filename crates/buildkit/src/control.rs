//! `moby.buildkit.v1.Control`: builds and what they tell, what is kept, what was built lately.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures::{FutureExt, StreamExt};
use grpc::{Answer, Asked, Serve, one};
use oci::Listed;
use prost::Message;
use tokio::sync::mpsc;
use tonic::Status;

use crate::export::{self, Result as Made};
use crate::frontend::{self, Asking};
use crate::jobs::{Job, Running};
use crate::wire::{
    HistoryEvent, HistoryRequest, InfoResponse, Map, Nothing, Platform, PruneRequest, RpcStatus,
    SolveRequest, SolveResponse, StatusRequest, Timestamp, UpdateHistory, UsageRecord,
    UsageRequest, UsageResponse, Version, Worker, WorkersResponse,
};
use crate::{Service, bridge};

/// The version of BuildKit whose behaviour this is.
const VERSION: &str = "v0.22.0";
const CONTROL: &str = "/moby.buildkit.v1.Control/";
const BRIDGE: &str = "/moby.buildkit.v1.frontend.LLBBridge/";

/// Who answers which call.
pub(crate) fn dispatch(service: Arc<Service>) -> Serve {
    Arc::new(move |asked| answer(Arc::clone(&service), asked).boxed())
}

async fn answer(service: Arc<Service>, mut asked: Asked) -> Result<Answer, Status> {
    let path = asked.path.clone();
    if let Some(method) = path.strip_prefix(BRIDGE) {
        return bridge::answer(&service, method, asked).await;
    }
    match path.strip_prefix(CONTROL) {
        Some("Solve") => {
            let response = solve(&service, asked.one().await?).await?;
            Ok(one(&response))
        }
        Some("Status") => {
            let request: StatusRequest = asked.one().await?;
            let job = service.jobs.find(&request.reference).await?;
            Ok(job.follow().boxed())
        }
        Some("Session") => service.sessions.tunnel(asked),
        Some("Info") => Ok(one(&InfoResponse {
            version: Some(version()),
        })),
        Some("ListWorkers") => Ok(one(&WorkersResponse {
            records: vec![worker(&service)],
        })),
        Some("DiskUsage") => {
            let request: UsageRequest = asked.one().await?;
            usage(&service, &request.filter).await
        }
        Some("Prune") => prune(&service, asked.one().await?).await,
        Some("ListenBuildHistory") => Ok(history(&service, &asked.one().await?)),
        Some("UpdateBuildHistory") => {
            let request: UpdateHistory = asked.one().await?;
            if request.delete {
                service.jobs.forget(&request.reference);
            }
            Ok(one(&Nothing {}))
        }
        _ => Err(Status::unimplemented(format!("unknown method {path}"))),
    }
}

fn version() -> Version {
    Version {
        package: "github.com/moby/buildkit".to_owned(),
        version: VERSION.to_owned(),
    }
}

pub(crate) fn worker(service: &Service) -> Worker {
    let labels = [
        (
            "org.mobyproject.buildkit.worker.executor",
            "containers".to_owned(),
        ),
        ("org.mobyproject.buildkit.worker.hostname", String::new()),
        (
            "org.mobyproject.buildkit.worker.moby.host-gateway-ip",
            service.backend.gateway(),
        ),
    ];
    Worker {
        id: "sampan".to_owned(),
        labels: labels.map(|(name, value)| (name.to_owned(), value)).into(),
        platforms: vec![Platform {
            architecture: oci::ImageDocument::scratch().architecture,
            os: "linux".to_owned(),
        }],
        version: Some(version()),
    }
}

/// One build from its begin to its end. When the client gives it up, the future is dropped, and
/// with it everything that runs for it.
async fn solve(service: &Arc<Service>, request: SolveRequest) -> Result<SolveResponse, Status> {
    let jobs = &service.jobs;
    let running = jobs.begin(&request.reference, &request.session, request.internal)?;
    let job = Arc::clone(&running.job);
    let frontend = match request.frontend.as_str() {
        "" => "dockerfile.v0",
        other => other,
    };
    job.record(|record| {
        record.frontend = frontend.to_owned();
        record.frontend_attrs = request.frontend_attrs.clone();
    });
    let solved = solve_in(service, &running, request).await;
    if let Err(status) = &solved {
        let error = RpcStatus::decode(status.details()).ok();
        job.record(|record| {
            record.error = Some(error.unwrap_or_else(|| RpcStatus {
                code: status.code() as i32,
                message: status.message().to_owned(),
                details: Vec::new(),
            }));
        });
    }
    let exporter_response = solved?;
    job.record(|record| record.exporter_response = exporter_response.clone());
    Ok(SolveResponse { exporter_response })
}

/// A build, and everything it tells.
pub(crate) async fn build(
    service: &Arc<Service>,
    request: SolveRequest,
    tell: mpsc::Sender<Bytes>,
) -> Result<SolveResponse, Status> {
    let reference = request.reference.clone();
    let telling = async {
        let job = service.jobs.find(&reference).await?;
        let mut pieces = std::pin::pin!(job.follow());
        while let Some(Ok(piece)) = pieces.next().await {
            if tell.send(piece).await.is_err() {
                break;
            }
        }
        Ok::<(), Status>(())
    };
    let (solved, told) = tokio::join!(solve(service, request), telling);
    let solved = solved?;
    told.map(|()| solved)
}

async fn solve_in(
    service: &Arc<Service>,
    running: &Running,
    request: SolveRequest,
) -> Result<Map, Status> {
    let job = &running.job;
    let made: Option<Made> = match request.frontend.as_str() {
        "" if request
            .definition
            .as_ref()
            .is_some_and(|graph| !graph.def.is_empty()) =>
        {
            return Err(frontend::no_graphs());
        }
        // The client drives the build, and says in the end which result it is.
        "" => job.bridge.returned().await?,
        _ => {
            let asking = Asking {
                frontend: request.frontend.clone(),
                attrs: request.frontend_attrs.clone(),
                inputs: request.frontend_inputs.clone(),
            };
            Some(frontend::run(service, job, asking).await?)
        }
    };
    refuse_caches(job, &request);
    let mut exporters = request.exporters;
    if exporters.is_empty() && !request.old_exporter.is_empty() {
        exporters.push(crate::wire::Exporter {
            kind: request.old_exporter,
            attrs: request.old_exporter_attrs,
        });
    }
    match made {
        Some(made) => export::run(service, job, &made, &exporters).await,
        None => Ok(Map::new()),
    }
}

/// Says which caches are left alone.
fn refuse_caches(job: &Arc<Job>, request: &SolveRequest) {
    let Some(cache) = &request.cache else { return };
    let exports = cache.exports.iter().filter(|entry| entry.kind != "inline");
    let kinds: Vec<&str> = exports
        .chain(&cache.imports)
        .map(|entry| entry.kind.as_str())
        .collect();
    if kinds.is_empty() {
        return;
    }
    let digest = job.digest("caches");
    job.begin(&digest, "[internal] caches of other places");
    let text = format!(
        "caches of type {} are neither read nor written: what this engine keeps is used",
        kinds.join(", ")
    );
    job.warn(&digest, &text);
    job.end(&digest, false, "");
}

fn nanos(time: SystemTime) -> Duration {
    time.duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
}

fn usage_record(listed: &Listed, bytes: u64) -> UsageRecord {
    UsageRecord {
        id: listed.key.get(..25).unwrap_or(&listed.key).to_owned(),
        size: i64::try_from(bytes).unwrap_or(i64::MAX),
        created: Some(Timestamp::of(listed.used)),
        used: Some(Timestamp::of(listed.used)),
        usage_count: 1,
        description: listed.kept.about.clone(),
        kind: "regular".to_owned(),
    }
}

/// What filters such as `id==abc` and `description~=RUN` say of one entry.
fn fits(filters: &[String], listed: &Listed) -> bool {
    let value = |name: &str| match name {
        "id" => Some(listed.key.as_str()),
        "description" => Some(listed.kept.about.as_str()),
        "type" => Some("regular"),
        _ => None,
    };
    let holds = |term: &str| -> bool {
        for (sign, same) in [("==", true), ("~=", false), ("!=", true)] {
            if let Some((name, wanted)) = term.split_once(sign) {
                let found = value(name.trim()).unwrap_or_default();
                let fits = match same {
                    true if name == "id" => found.starts_with(wanted),
                    true => found == wanted,
                    false => found.contains(wanted),
                };
                return fits != (sign == "!=");
            }
        }
        false
    };
    let all = |text: &String| text.split(',').filter(|term| !term.is_empty()).all(holds);
    filters.is_empty() || filters.iter().any(all)
}

async fn usage(service: &Arc<Service>, filters: &[String]) -> Result<Answer, Status> {
    let kept = service.backend.builder().kept().await;
    let kept = kept.map_err(crate::fault::words)?;
    let fitting = kept.iter().filter(|(listed, _)| fits(filters, listed));
    let records = fitting.map(|(listed, bytes)| usage_record(listed, *bytes));
    Ok(one(&UsageResponse {
        records: records.collect(),
    }))
}

async fn prune(service: &Arc<Service>, request: PruneRequest) -> Result<Answer, Status> {
    let builder = service.backend.builder();
    let before = builder.kept().await.map_err(crate::fault::words)?;
    let age = Duration::from_nanos(u64::try_from(request.keep_duration).unwrap_or(0));
    let latest = nanos(SystemTime::now()).saturating_sub(age);
    let wanted = |listed: &Listed| nanos(listed.used) <= latest && fits(&request.filter, listed);
    let keep = request.reserved_space.max(request.max_used_space);
    let keep = u64::try_from(keep).unwrap_or(0);
    let pruned = builder.prune(wanted, keep).await;
    let pruned = pruned.map_err(crate::fault::words)?;
    let gone = before
        .into_iter()
        .filter(|(listed, _)| pruned.keys.contains(&listed.key))
        .map(|(listed, bytes)| Ok(Bytes::from(usage_record(&listed, bytes).encode_to_vec())));
    Ok(futures::stream::iter(gone.collect::<Vec<_>>()).boxed())
}

/// Builds that run and ran; without an end only what is known now is told, too, for builds to come
/// have nobody who waits for them.
fn history(service: &Arc<Service>, request: &HistoryRequest) -> Answer {
    let mut events = Vec::new();
    for job in service.jobs.all() {
        let (ended, record) = job.remembered();
        let wanted = request.reference.is_empty() || request.reference == record.reference;
        if wanted && !record.frontend.is_empty() && !(request.active_only && ended) {
            let event = HistoryEvent {
                kind: i32::from(ended),
                record: Some(record),
            };
            events.push(Ok(Bytes::from(event.encode_to_vec())));
        }
    }
    futures::stream::iter(events).boxed()
}
