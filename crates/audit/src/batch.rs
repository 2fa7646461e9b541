//! A backend that gathers events and passes them on in batches: to a webhook as `EventList`, or
//! to the log.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use base::Crew;
use bytes::{BufMut, Bytes, BytesMut};
use client::remote::RemoteError;
use client::{Access, Client};
use http::Method;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::Backend;

/// How often a batch is tried.
const ATTEMPTS_MAX: u32 = 5;
/// How long one try may take.
const SEND_TIMEOUT: Duration = Duration::from_secs(30);

/// Upstream's `--audit-webhook-batch-*`, with its defaults.
#[derive(Clone, Debug)]
pub struct BatchConfig {
    /// Events that wait; more are dropped.
    pub buffer: usize,
    /// Events in one batch.
    pub size_max: usize,
    /// Bytes of the events in one batch; `None`: any.
    pub bytes_max: Option<usize>,
    /// How long a batch waits to become full.
    pub wait_max: Duration,
    /// Batches per second; `None`: no limit.
    pub throttle: Option<f64>,
    /// Batches that may be sent at once before the limit holds.
    pub burst: u32,
    /// Before the second try; doubled for each further one.
    pub initial_backoff: Duration,
}

impl Default for BatchConfig {
    fn default() -> BatchConfig {
        BatchConfig {
            buffer: 10_000,
            size_max: 400,
            bytes_max: None,
            wait_max: Duration::from_secs(30),
            throttle: Some(10.0),
            burst: 15,
            initial_backoff: Duration::from_secs(10),
        }
    }
}

type Sent = Pin<Box<dyn Future<Output = Result<(), String>> + Send>>;
type Deliver = Arc<dyn Fn(Vec<Bytes>) -> Sent + Send + Sync>;

impl BatchConfig {
    /// What the log has in mode `batch`: each event as soon as may be.
    pub fn of_log() -> BatchConfig {
        BatchConfig {
            size_max: 1,
            wait_max: Duration::ZERO,
            throttle: None,
            burst: 0,
            ..BatchConfig::default()
        }
    }
}

/// The backend; a task of the crew sends what it takes.
pub struct Batch {
    name: &'static str,
    queue: mpsc::Sender<Bytes>,
    lost: Arc<AtomicU64>,
}

impl Batch {
    /// Sends to the server that a kubeconfig names.
    pub fn to(access: &Access, config: BatchConfig, crew: &Crew) -> Result<Batch, RemoteError> {
        let client = Client::remote(access)?;
        let rest = access.server.split_once("://").map_or("", |(_, rest)| rest);
        let path = rest.find('/').map_or("/", |at| &rest[at..]).to_owned();
        let send = move |batch: Vec<Bytes>| -> Sent {
            let (client, path) = (client.clone(), path.clone());
            Box::pin(async move {
                let media_type = Some("application/json");
                let body = client::full(list(&batch));
                let request = client::request::request(Method::POST, &path, media_type, body);
                let request = request.map_err(|error| error.to_string())?;
                let sent = tokio::time::timeout(SEND_TIMEOUT, client.bytes(request)).await;
                match sent {
                    Ok(Ok(_)) => Ok(()),
                    Ok(Err(status)) => Err(status.message),
                    Err(_) => Err("no answer in time".into()),
                }
            })
        };
        Ok(Batch::new("webhook", Arc::new(send), config, crew))
    }

    /// Writes to a log, while requests go on.
    pub fn log(log: crate::Log, config: BatchConfig, crew: &Crew) -> Batch {
        let log = Arc::new(log);
        let send = move |batch: Vec<Bytes>| -> Sent {
            let log = Arc::clone(&log);
            Box::pin(async move {
                let written = tokio::task::spawn_blocking(move || {
                    batch.into_iter().try_for_each(|event| log.take(event))
                });
                written.await.map_err(|error| error.to_string())?
            })
        };
        Batch::new("log", Arc::new(send), config, crew)
    }

    pub(crate) fn new(
        name: &'static str,
        send: Deliver,
        config: BatchConfig,
        crew: &Crew,
    ) -> Batch {
        let (queue, taken) = mpsc::channel(config.buffer.max(1));
        let lost = Arc::new(AtomicU64::new(0));
        let sender = Sender {
            queue: taken,
            send,
            allowance: f64::from(config.burst),
            counted: Instant::now(),
            lost: Arc::clone(&lost),
            held: None,
            config,
        };
        crew.spawn(format!("audit {name}"), sender.run(crew.stop()));
        Batch { name, queue, lost }
    }

    /// Events that were given up after they had been taken.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}

impl Backend for Batch {
    fn name(&self) -> &'static str {
        self.name
    }

    fn take(&self, event: Bytes) -> Result<(), String> {
        self.queue
            .try_send(event)
            .map_err(|_| "audit buffer queue blocked, or closed".into())
    }
}

struct Sender {
    queue: mpsc::Receiver<Bytes>,
    send: Deliver,
    config: BatchConfig,
    /// Batches that may be sent now, as of `counted`.
    allowance: f64,
    counted: Instant,
    lost: Arc<AtomicU64>,
    /// The event that did not fit into the last batch.
    held: Option<Bytes>,
}

impl Sender {
    async fn run(mut self, stop: base::Stop) {
        while let Some(batch) = self.batch(&stop).await {
            self.throttle(&stop).await;
            if let Err(why) = self.deliver(&batch, &stop).await {
                self.lost.fetch_add(batch.len() as u64, Ordering::Relaxed);
                tracing::error!(why, events = batch.len(), "audit events lost");
            }
        }
    }

    /// The next batch: full, or as old as may be; after the stop what is left, then none.
    async fn batch(&mut self, stop: &base::Stop) -> Option<Vec<Bytes>> {
        let first = match self.held.take() {
            Some(held) => Some(held),
            None => tokio::select! {
                biased;
                first = self.queue.recv() => first,
                () = stop.raised() => self.queue.try_recv().ok(),
            },
        };
        let mut batch = vec![first?];
        let mut bytes = batch.iter().map(Bytes::len).sum::<usize>();
        let due = Instant::now() + self.config.wait_max;
        while batch.len() < self.config.size_max {
            let next = tokio::select! {
                biased;
                next = self.queue.recv() => next,
                () = tokio::time::sleep_until(due) => None,
                () = stop.raised() => None,
            };
            let Some(event) = next else {
                break;
            };
            bytes += event.len();
            if self.config.bytes_max.is_some_and(|most| bytes > most) {
                self.held = Some(event);
                break;
            }
            batch.push(event);
        }
        Some(batch)
    }

    async fn throttle(&mut self, stop: &base::Stop) {
        let Some(rate) = self.config.throttle.filter(|rate| *rate > 0.0) else {
            return;
        };
        let now = Instant::now();
        let gained = now.duration_since(self.counted).as_secs_f64() * rate;
        self.allowance = (self.allowance + gained).min(f64::from(self.config.burst.max(1)));
        self.counted = now;
        if self.allowance < 1.0 {
            let pause = Duration::from_secs_f64((1.0 - self.allowance) / rate);
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = stop.raised() => {}
            }
        }
        self.allowance -= 1.0;
    }

    async fn deliver(&self, batch: &[Bytes], stop: &base::Stop) -> Result<(), String> {
        let mut pause = self.config.initial_backoff;
        let mut attempt = 1;
        loop {
            let why = match (self.send)(batch.to_vec()).await {
                Ok(()) => return Ok(()),
                Err(why) => why,
            };
            if attempt == ATTEMPTS_MAX || stop.is_raised() {
                return Err(why);
            }
            attempt += 1;
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = stop.raised() => {}
            }
            pause *= 2;
        }
    }
}

/// `EventList` of encoded events.
pub(crate) fn list(batch: &[Bytes]) -> Bytes {
    let size: usize = batch.iter().map(Bytes::len).sum();
    let mut body = BytesMut::with_capacity(size + batch.len() + 96);
    body.put_slice(b"{\"kind\":\"EventList\",\"apiVersion\":\"audit.k8s.io/v1\",\"metadata\":{},");
    body.put_slice(b"\"items\":[");
    for (at, event) in batch.iter().enumerate() {
        if at > 0 {
            body.put_u8(b',');
        }
        body.put_slice(event);
    }
    body.put_slice(b"]}");
    body.freeze()
}
