//! Deletes what has lost its last owner, in the order that deletions ask for.
//!
//! Every resource that can be listed, watched and deleted is followed, metadata only; the graph
//! keeps who owns whom, and names what is worth a look when something changes.

mod graph;
mod judge;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use base::{Backoff, Crew, Stop};
use parking_lot::Mutex;
use reconcile::Queue;
use tokio::sync::Notify;

use super::discovery::{self, Resource, Served};
use super::monitor::{self, ItemMeta, Sink};
use super::worker::employ;
use crate::context::Context;
use judge::Collector;

const NAME: &str = "generic-garbage-collector";
const WORKERS: usize = 20;
/// How long work waits for resources that cannot be listed at the start.
const SYNC_PATIENCE: Duration = Duration::from_secs(30);
/// Safety net: changes of what is served are seen as changes of definitions.
const REDISCOVER: Duration = Duration::from_secs(300);
/// A definition is served a little after it was stored.
const SETTLE: Duration = Duration::from_secs(1);
/// What has no owners worth following and changes all the time.
const IGNORED: [&str; 2] = ["events", "events.events.k8s.io"];
/// Resources that define what is served.
const DEFINITIONS: [&str; 2] = [
    "customresourcedefinitions.apiextensions.k8s.io",
    "apiservices.apiregistration.k8s.io",
];

/// Brings the objects of monitors into the graph.
struct Intake {
    collector: Arc<Collector>,
    /// Group resources whose first list is in the graph.
    listed: Mutex<HashSet<String>>,
    list_arrived: Notify,
}

/// Starts the controller.
pub(crate) fn start(context: &Context) {
    let collector = Arc::new(Collector {
        client: context.client(NAME),
        graph: Default::default(),
        queue: Queue::new(context.crew.stop()),
        kinds: Default::default(),
        rediscover: Notify::new(),
        absent: Default::default(),
        released: Default::default(),
    });
    let intake = Arc::new(Intake {
        collector,
        listed: Mutex::default(),
        list_arrived: Notify::new(),
    });
    let crew = context.crew.clone();
    context.crew.spawn(NAME, run(intake, crew));
}

async fn run(intake: Arc<Intake>, crew: Crew) {
    let stop = crew.stop();
    let collector = intake.collector.clone();
    let mut followed: HashMap<Arc<Resource>, Stop> = HashMap::new();
    let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(30));
    let mut working = false;
    while !stop.is_raised() {
        let pause = match discovery::served(&collector.client).await {
            Ok(found) => {
                backoff.reset();
                follow_all(&intake, found, &mut followed, &crew);
                if !working {
                    working = true;
                    intake.first_lists(&followed, &stop).await;
                    employ(NAME, &collector, &collector.queue, WORKERS, &crew);
                }
                REDISCOVER
            }
            Err(status) => {
                tracing::debug!(error = %status, "resources not discovered");
                backoff.next_delay()
            }
        };
        tokio::select! {
            () = collector.rediscover.notified() => tokio::time::sleep(SETTLE).await,
            () = tokio::time::sleep(pause) => {}
            () = stop.raised() => return,
        }
    }
}

/// Follows what is served now, and no more what was before.
fn follow_all(
    intake: &Arc<Intake>,
    found: Served,
    followed: &mut HashMap<Arc<Resource>, Stop>,
    crew: &Crew,
) {
    let collector = &intake.collector;
    let (found, complete) = (found.resources, found.complete);
    let kinds = found
        .iter()
        .map(|one| ((one.group.clone(), one.kind.clone()), one.clone()));
    *collector.kinds.write() = kinds.collect();
    let wanted: HashSet<Arc<Resource>> = found
        .into_iter()
        .filter(|one| one.can(&["list", "watch", "delete"]))
        .filter(|one| !IGNORED.contains(&one.group_resource().as_str()))
        .collect();
    followed.retain(|resource, stop| {
        let stays = !complete || wanted.contains(resource);
        if !stays {
            stop.raise();
            intake.replace(resource, Vec::new());
            intake.listed.lock().remove(&resource.group_resource());
        }
        stays
    });
    for resource in wanted {
        followed.entry(resource).or_insert_with_key(|resource| {
            let stop = crew.stop().child();
            let client = collector.client.clone();
            let task = monitor::follow(client, resource.clone(), intake.clone(), stop.clone());
            crew.spawn(format!("{NAME} follows {}", resource.plural), task);
            stop
        });
    }
}

impl Intake {
    /// Waits until everything was listed once, so that absence means something.
    async fn first_lists(&self, followed: &HashMap<Arc<Resource>, Stop>, stop: &Stop) {
        let all = async {
            while self.listed.lock().len() < followed.len() {
                self.list_arrived.notified().await;
            }
        };
        tokio::select! {
            () = all => {}
            () = tokio::time::sleep(SYNC_PATIENCE) => {}
            () = stop.raised() => {}
        }
        let objects = self.collector.graph.read().len();
        tracing::debug!(objects, "garbage collector has seen everything");
    }

    fn note_definition(&self, resource: &Resource) {
        if DEFINITIONS.contains(&resource.group_resource().as_str()) {
            self.collector.rediscover.notify_one();
        }
    }
}

impl Sink for Intake {
    fn replace(&self, resource: &Arc<Resource>, items: Vec<ItemMeta>) {
        let tasks = self.collector.graph.write().replace(resource, items);
        self.collector.enqueue(tasks);
        self.listed.lock().insert(resource.group_resource());
        self.list_arrived.notify_one();
    }

    fn put(&self, resource: &Arc<Resource>, item: ItemMeta) {
        let tasks = self.collector.graph.write().put(resource, item);
        self.collector.enqueue(tasks);
        self.note_definition(resource);
    }

    fn remove(&self, resource: &Arc<Resource>, item: ItemMeta) {
        let tasks = self.collector.graph.write().remove(&item.uid);
        self.collector.enqueue(tasks);
        self.note_definition(resource);
    }
}
