//! All pods of this node: which ones there should be, by the API and by files,
//! each with its worker; and what is left of pods nobody wants any more.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use base::Stop;
use client::{Change, Informer};
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use node_api::{ContainerEvent, ContainerEventKind, ContainerStatus, PodSandboxStatus};
use parking_lot::RwLock;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;

use crate::inbox::{Inbox, News};
use crate::orphans;
use crate::pod::PodExt;
use crate::shared::Shared;
use crate::worker::{Worker, WorkerParts};

/// What the server shows of a pod.
#[derive(Clone, Debug, Default)]
pub(crate) struct PodView {
    pub(crate) pod: Arc<Pod>,
    pub(crate) status: PodStatus,
    pub(crate) sandboxes: BTreeMap<String, PodSandboxStatus>,
    pub(crate) containers: BTreeMap<String, ContainerStatus>,
    /// The API knows all this.
    pub(crate) is_told: bool,
}

/// One pod with a worker.
#[derive(Debug)]
struct Entry {
    inbox: Arc<Inbox>,
    shown: Arc<watch::Sender<PodView>>,
    is_static: bool,
}

/// The pods with workers, by uid.
#[derive(Debug, Default)]
pub(crate) struct Pods {
    entries: RwLock<HashMap<String, Entry>>,
}

/// Pods by uid, as a source of this node's own has them.
pub(crate) type StaticPods = BTreeMap<String, Arc<Pod>>;

/// The pods of all such sources.
#[derive(Clone, Debug, Default)]
pub(crate) struct Statics {
    pub(crate) pods: StaticPods,
    /// Every source has been read.
    pub(crate) complete: bool,
}

impl Pods {
    /// Tells a pod's worker something; nothing happens when there is none.
    pub(crate) fn tell(&self, uid: &str, add: impl FnOnce(&mut News)) {
        if let Some(entry) = self.entries.read().get(uid) {
            entry.inbox.tell(add);
        }
    }

    /// All pods as the server shows them.
    pub(crate) fn all(&self) -> Vec<PodView> {
        let entries = self.entries.read();
        entries
            .values()
            .map(|entry| entry.shown.borrow().clone())
            .collect()
    }

    /// A pod by name; the newest incarnation.
    pub(crate) fn by_name(&self, namespace: &str, name: &str) -> Option<PodView> {
        let entries = self.entries.read();
        let shown = entries.values().map(|entry| entry.shown.borrow());
        let named = shown.filter(|v| v.pod.namespace() == namespace && v.pod.name() == name);
        named
            .max_by_key(|view| view.pod.metadata.creation_timestamp.clone())
            .map(|v| v.clone())
    }

    /// The same, followed from now on.
    pub(crate) fn follow(&self, uid: &str) -> Option<watch::Receiver<PodView>> {
        let entries = self.entries.read();
        entries.get(uid).map(|entry| entry.shown.subscribe())
    }

    /// Whether a pod has a worker.
    pub(crate) fn contains(&self, uid: &str) -> bool {
        self.entries.read().contains_key(uid)
    }

    fn static_uid(&self, namespace: &str, name: &str) -> Option<String> {
        let entries = self.entries.read();
        let mut found = entries.iter().filter(|(_, entry)| {
            let shown = entry.shown.borrow();
            entry.is_static && shown.pod.namespace() == namespace && shown.pod.name() == name
        });
        found.next().map(|(uid, _)| uid.clone())
    }
}

/// Starts and ends workers as pods come and go; ends when the process stops.
pub(crate) struct Driver {
    pub(crate) shared: Arc<Shared>,
    pub(crate) informer: Informer<Pod>,
    pub(crate) statics: watch::Receiver<Statics>,
    pub(crate) events: mpsc::Receiver<ContainerEvent>,
    pub(crate) stop: Stop,
}

impl Driver {
    pub(crate) async fn run(mut self) {
        let mut workers: JoinSet<String> = JoinSet::new();
        let mut changes = self.informer.subscribe();
        let mut known_statics = StaticPods::new();
        let (mut swept, mut statics_known) = (false, false);
        let strange = Arc::new(Notify::new());
        self.statics.mark_changed();
        loop {
            if self.informer.is_synced() && statics_known && !swept {
                // Every pod the API has must have its worker before the rest is swept away.
                while let Some(change) = changes.try_next() {
                    self.pod_changed(change, &mut workers);
                }
                swept = true;
                let pods = self.shared.pods.clone();
                self.shared.placement.retain(|uid| pods.contains(uid));
                let (shared, stop) = (self.shared.clone(), self.stop.clone());
                let cleaning = orphans::keep_clean(shared, strange.clone(), stop);
                workers.spawn(async {
                    cleaning.await;
                    // No worker ended with it.
                    String::new()
                });
            }
            let synced = async {
                match self.informer.is_synced() {
                    true => std::future::pending::<()>().await,
                    false => self.informer.synced().await,
                }
            };
            tokio::select! {
                change = changes.next() => match change {
                    Some(change) => self.pod_changed(change, &mut workers),
                    None => return,
                },
                event = self.events.recv() => match event {
                    Some(event) => self.happened(&event, &strange),
                    None => return,
                },
                Ok(()) = self.statics.changed() => {
                    let wanted = self.statics.borrow_and_update().clone();
                    statics_known |= wanted.complete;
                    self.statics_changed(&known_statics, &wanted.pods, &mut workers);
                    known_statics = wanted.pods;
                }
                Some(ended) = workers.join_next() => self.ended(ended),
                () = synced => {}
                () = self.stop.raised() => return,
            }
        }
    }

    fn ended(&self, ended: Result<String, tokio::task::JoinError>) {
        match ended {
            Ok(uid) => drop(self.shared.pods.entries.write().remove(&uid)),
            Err(fault) => tracing::error!(%fault, "a pod's worker panicked"),
        }
    }

    fn happened(&self, event: &ContainerEvent, strange: &Notify) {
        let begins = [ContainerEventKind::Created, ContainerEventKind::Started];
        if begins.contains(&event.kind) && !self.shared.pods.contains(&event.pod_uid) {
            strange.notify_one();
        }
        if event.kind == ContainerEventKind::Resync {
            strange.notify_one();
            for entry in self.shared.pods.entries.read().values() {
                entry.inbox.tell(|news| news.resync = true);
            }
            return;
        }
        self.shared.pods.tell(&event.pod_uid, |news| {
            news.dirty
                .insert((event.sandbox_id.clone(), event.container_id.clone()));
        });
    }

    fn pod_changed(&self, change: Change<Pod>, workers: &mut JoinSet<String>) {
        let new_uid = change.new.as_ref().map(|pod| pod.uid().to_owned());
        let pods = &self.shared.pods;
        if let Some(old) = change
            .old
            .filter(|old| Some(old.uid()) != new_uid.as_deref())
        {
            match old.is_mirror() {
                true => self.mirror_changed(&old, None),
                false => pods.tell(old.uid(), |news| news.gone = true),
            }
        }
        let Some(pod) = change.new else {
            return;
        };
        if pod.is_mirror() {
            return self.mirror_changed(&pod, Some(pod.clone()));
        }
        match pods.contains(pod.uid()) {
            true => pods.tell(pod.uid(), |news| news.pod = Some(pod.clone())),
            false => self.start(pod, false, workers),
        }
    }

    fn mirror_changed(&self, pod: &Pod, mirror: Option<Arc<Pod>>) {
        let pods = &self.shared.pods;
        if let Some(uid) = pods.static_uid(pod.namespace(), pod.name()) {
            pods.tell(&uid, |news| news.mirror = Some(mirror));
        }
    }

    fn statics_changed(
        &self,
        known: &StaticPods,
        wanted: &StaticPods,
        workers: &mut JoinSet<String>,
    ) {
        for uid in known.keys().filter(|uid| !wanted.contains_key(*uid)) {
            self.shared.pods.tell(uid, |news| news.gone = true);
        }
        for (uid, pod) in wanted {
            if !self.shared.pods.contains(uid) {
                self.start(pod.clone(), true, workers);
                let mirror = self.informer.get(pod.namespace(), pod.name());
                if let Some(mirror) = mirror.filter(|mirror| mirror.is_mirror()) {
                    self.mirror_changed(pod, Some(mirror));
                }
            }
        }
    }

    fn start(&self, pod: Arc<Pod>, is_static: bool, workers: &mut JoinSet<String>) {
        let uid = pod.uid().to_owned();
        let shown = PodView {
            status: pod.status().clone(),
            pod: pod.clone(),
            ..PodView::default()
        };
        let entry = Entry {
            inbox: Arc::default(),
            shown: Arc::new(watch::Sender::new(shown)),
            is_static,
        };
        let worker = Worker::new(WorkerParts {
            shared: self.shared.clone(),
            pod,
            inbox: entry.inbox.clone(),
            shown: entry.shown.clone(),
            stop: self.stop.clone(),
        });
        self.shared.pods.entries.write().insert(uid.clone(), entry);
        workers.spawn(async move {
            worker.run().await;
            uid
        });
    }
}
