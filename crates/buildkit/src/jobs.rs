//! Builds that run or ran lately, and what they told: each listener hears everything from the start.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use parking_lot::Mutex;
use prost::Message;
use tokio::sync::watch;
use tonic::Status;

use crate::bridge::Bridge;
use crate::wire::{
    HistoryRecord, StatusResponse, Timestamp, Vertex, VertexLog, VertexStatus, VertexWarning,
};

/// Builds at one time.
const JOBS_MAX: usize = 256;
/// Builds that are remembered when they have ended.
const ENDED_MAX: usize = 64;
/// Bytes that one build may tell, and that all that ended may have told together.
const TOLD_MAX: usize = 8 << 20;
const ENDED_BYTES_MAX: usize = 32 << 20;
/// Who asks for a build that has not begun waits this long.
const PATIENCE: Duration = Duration::from_secs(5);

/// One build.
pub(crate) struct Job {
    pub(crate) reference: String,
    /// The session of whoever asked for it.
    pub(crate) session: String,
    told: Mutex<Told>,
    news: watch::Sender<usize>,
    pub(crate) bridge: Bridge,
}

#[derive(Default)]
struct Told {
    pieces: Vec<Bytes>,
    bytes: usize,
    clipped: bool,
    ended: bool,
    vertexes: BTreeMap<String, Vertex>,
    record: HistoryRecord,
}

impl Job {
    fn new(reference: &str, session: &str) -> Arc<Job> {
        let mut told = Told::default();
        told.record.reference = reference.to_owned();
        told.record.created = Some(Timestamp::now());
        Arc::new(Job {
            reference: reference.to_owned(),
            session: session.to_owned(),
            told: Mutex::new(told),
            news: watch::Sender::new(0),
            bridge: Bridge::default(),
        })
    }

    /// A name for a step of this build.
    pub(crate) fn digest(&self, name: &str) -> String {
        oci::Digest::of(format!("{} {name}", self.reference).as_bytes()).to_string()
    }

    fn tell(&self, told: &mut Told, response: &StatusResponse, needed: bool) {
        let bytes = Bytes::from(response.encode_to_vec());
        if told.bytes + bytes.len() > TOLD_MAX && !needed {
            if !std::mem::replace(&mut told.clipped, true) {
                tracing::warn!(
                    build = self.reference,
                    "a build says too much: not all is kept"
                );
            }
            return;
        }
        told.bytes += bytes.len();
        told.pieces.push(bytes);
        self.news.send_replace(told.pieces.len());
    }

    /// A step begins.
    pub(crate) fn begin(&self, digest: &str, name: &str) {
        let vertex = Vertex {
            digest: digest.to_owned(),
            name: name.to_owned(),
            started: Some(Timestamp::now()),
            ..Vertex::default()
        };
        let mut told = self.told.lock();
        told.vertexes.insert(digest.to_owned(), vertex.clone());
        told.record.total_steps += 1;
        self.tell_vertex(&mut told, vertex);
    }

    /// Whether a step of this name has begun.
    pub(crate) fn knows(&self, digest: &str) -> bool {
        self.told.lock().vertexes.contains_key(digest)
    }

    /// A step ends; an empty error is none.
    pub(crate) fn end(&self, digest: &str, cached: bool, error: &str) {
        let mut told = self.told.lock();
        let Some(vertex) = told.vertexes.get_mut(digest) else {
            return;
        };
        vertex.cached = cached;
        vertex.completed = Some(Timestamp::now());
        error.clone_into(&mut vertex.error);
        let vertex = vertex.clone();
        told.record.completed_steps += 1;
        told.record.cached_steps += i32::from(cached);
        self.tell_vertex(&mut told, vertex);
    }

    fn tell_vertex(&self, told: &mut Told, vertex: Vertex) {
        let response = StatusResponse {
            vertexes: vec![vertex],
            ..StatusResponse::default()
        };
        self.tell(told, &response, true);
    }

    /// A step says something.
    pub(crate) fn log(&self, digest: &str, text: &str) {
        let log = VertexLog {
            vertex: digest.to_owned(),
            timestamp: Some(Timestamp::now()),
            stream: 1,
            text: text.as_bytes().to_vec(),
        };
        let response = StatusResponse {
            logs: vec![log],
            ..StatusResponse::default()
        };
        self.tell(&mut self.told.lock(), &response, false);
    }

    /// A part of a step: how far it is, and whether it is done.
    pub(crate) fn part(
        &self,
        digest: &str,
        id: &str,
        current: u64,
        started: Timestamp,
        done: bool,
    ) {
        let now = Timestamp::now();
        let status = VertexStatus {
            id: id.to_owned(),
            vertex: digest.to_owned(),
            current: i64::try_from(current).unwrap_or(i64::MAX),
            timestamp: Some(now),
            started: Some(started),
            completed: done.then_some(now),
        };
        let response = StatusResponse {
            statuses: vec![status],
            ..StatusResponse::default()
        };
        self.tell(&mut self.told.lock(), &response, false);
    }

    pub(crate) fn warn(&self, digest: &str, text: &str) {
        let warning = VertexWarning {
            vertex: digest.to_owned(),
            level: 1,
            short: text.as_bytes().to_vec(),
        };
        let response = StatusResponse {
            warnings: vec![warning],
            ..StatusResponse::default()
        };
        self.tell(&mut self.told.lock(), &response, false);
    }

    /// Changes what is remembered of the build.
    pub(crate) fn record(&self, change: impl FnOnce(&mut HistoryRecord)) {
        change(&mut self.told.lock().record);
    }

    pub(crate) fn remembered(&self) -> (bool, HistoryRecord) {
        let told = self.told.lock();
        (told.ended, told.record.clone())
    }

    fn finish(&self) {
        let mut told = self.told.lock();
        let now = Some(Timestamp::now());
        let open: Vec<Vertex> = told
            .vertexes
            .values()
            .filter(|vertex| vertex.completed.is_none())
            .cloned()
            .collect();
        for mut vertex in open {
            vertex.completed = now;
            "context canceled".clone_into(&mut vertex.error);
            self.tell_vertex(&mut told, vertex);
        }
        told.vertexes.clear();
        told.record.completed = now;
        told.ended = true;
        self.news.send_replace(usize::MAX);
        self.bridge.close();
    }

    /// Everything the build tells, until it ends.
    pub(crate) fn follow(self: &Arc<Job>) -> impl Stream<Item = Result<Bytes, Status>> + use<> {
        let news = self.news.subscribe();
        let state = (Arc::clone(self), news, 0);
        futures::stream::unfold(state, |(job, mut news, at)| async move {
            loop {
                {
                    let told = job.told.lock();
                    if let Some(piece) = told.pieces.get(at).cloned() {
                        drop(told);
                        return Some((Ok(piece), (job, news, at + 1)));
                    }
                    if told.ended {
                        return None;
                    }
                }
                news.changed().await.ok()?;
            }
        })
    }
}

/// All builds.
#[derive(Default)]
pub(crate) struct Jobs {
    jobs: Mutex<Known>,
    came: tokio::sync::Notify,
}

#[derive(Default)]
struct Known {
    running: BTreeMap<String, Arc<Job>>,
    ended: VecDeque<Arc<Job>>,
}

/// A build under way; ends with its owner.
pub(crate) struct Running {
    jobs: Arc<Jobs>,
    pub(crate) job: Arc<Job>,
    /// Whether anybody shall hear of it later.
    pub(crate) internal: bool,
}

impl Jobs {
    /// A build begins.
    pub(crate) fn begin(
        self: &Arc<Jobs>,
        reference: &str,
        session: &str,
        internal: bool,
    ) -> Result<Running, Status> {
        if reference.is_empty() {
            return Err(Status::invalid_argument("a build needs a reference"));
        }
        let job = Job::new(reference, session);
        let mut known = self.jobs.lock();
        if known.running.len() >= JOBS_MAX {
            return Err(Status::resource_exhausted("too many builds at one time"));
        }
        if known.running.contains_key(reference) {
            return Err(Status::already_exists(format!("job {reference} exists")));
        }
        known.ended.retain(|job| job.reference != reference);
        known.running.insert(reference.to_owned(), Arc::clone(&job));
        drop(known);
        self.came.notify_waiters();
        Ok(Running {
            jobs: Arc::clone(self),
            job,
            internal,
        })
    }

    /// A build of this name, running or not; waits for it for a while.
    pub(crate) async fn find(&self, reference: &str) -> Result<Arc<Job>, Status> {
        let wait = async {
            loop {
                let came = self.came.notified();
                tokio::pin!(came);
                came.as_mut().enable();
                let found = {
                    let known = self.jobs.lock();
                    let ended = || known.ended.iter().find(|job| job.reference == reference);
                    known.running.get(reference).or_else(ended).cloned()
                };
                if let Some(job) = found {
                    return job;
                }
                came.await;
            }
        };
        let found = tokio::time::timeout(PATIENCE, wait).await;
        found.map_err(|_| Status::not_found(format!("no such job {reference}")))
    }

    /// Those that are remembered, and those that run.
    pub(crate) fn all(&self) -> Vec<Arc<Job>> {
        let known = self.jobs.lock();
        known
            .ended
            .iter()
            .chain(known.running.values())
            .cloned()
            .collect()
    }

    pub(crate) fn forget(&self, reference: &str) {
        let mut known = self.jobs.lock();
        known.ended.retain(|job| job.reference != reference);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.job.finish();
        let mut known = self.jobs.jobs.lock();
        known.running.remove(&self.job.reference);
        if self.internal {
            self.job.record(|record| record.frontend.clear());
        }
        known.ended.push_back(Arc::clone(&self.job));
        let bytes = |job: &Arc<Job>| job.told.lock().bytes;
        while known.ended.len() > ENDED_MAX
            || known.ended.iter().map(bytes).sum::<usize>() > ENDED_BYTES_MAX
        {
            known.ended.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;

    use super::*;

    #[tokio::test]
    async fn who_comes_late_hears_everything() {
        let jobs = Arc::new(Jobs::default());
        let early = tokio::spawn({
            let jobs = Arc::clone(&jobs);
            async move { jobs.find("a").await.unwrap().follow().count().await }
        });
        tokio::task::yield_now().await;
        let running = jobs.begin("a", "", false).unwrap();
        assert!(jobs.begin("a", "", false).is_err());
        let digest = running.job.digest("step");
        running.job.begin(&digest, "[1/1] RUN x");
        running.job.log(&digest, "hello\n");
        running.job.end(&digest, false, "");
        running.job.begin("never", "ended");
        drop(running);
        assert_eq!(early.await.unwrap(), 5);
        let job = jobs.find("a").await.unwrap();
        let told: Vec<_> = job.follow().collect().await;
        let last = StatusResponse::decode(told[4].clone().unwrap()).unwrap();
        assert_eq!(last.vertexes[0].error, "context canceled");
        assert_eq!(job.remembered().1.completed_steps, 1);
        jobs.forget("a");
        assert!(jobs.all().is_empty());
    }
}
