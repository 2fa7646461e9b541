//! Sees to it that a container's image is on the node: pull policies, pull
//! secrets, credential providers, bounded parallelism, back-off.

mod credentials;
mod keyring;
mod providers;
mod records;
mod reference;
mod verification;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use client::Client;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod};
use node_api::{Image, ImageService, RuntimeError};
use parking_lot::Mutex;
use tokio::sync::{OnceCell, Semaphore};
use tokio::time::Instant;
use volumes::{Sources, Volumes};

use crate::backoff::CrashBackoff;
use crate::config::Config;
use crate::events::{Kind, Recorder};
use crate::pod::PodExt;
use keyring::{Credentials, Keyring};
pub use providers::CredentialProviders;
use providers::Providers;
pub(crate) use records::folders;
use records::{Access, Records};
pub use verification::ImageVerification;

/// Why a container could not be started: reason and message of its waiting state.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}: {message}")]
pub(crate) struct StartError {
    pub(crate) reason: &'static str,
    pub(crate) message: String,
    /// When to try again.
    pub(crate) retry_at: Option<Instant>,
}

/// How long the facts of an image that is there are trusted without asking again.
const FORGET_AFTER: Duration = Duration::from_secs(30 * 60);

/// The first and the longest wait before an image that does not come is asked for again.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(300));

/// Pulls images for all pods of the node.
pub(crate) struct Puller {
    images: Arc<dyn ImageService>,
    sources: Sources,
    providers: Providers,
    /// `None`: an image that is there is everybody's.
    verification: Option<ImageVerification>,
    records: Records,
    /// What an earlier kubelet left of its pulls has been seen to.
    adopted: OnceCell<()>,
    recorder: Recorder,
    slots: Semaphore,
    failures: Mutex<HashMap<(String, String), Failure>>,
}

struct Failure {
    backoff: CrashBackoff,
    failed_at: Instant,
    message: String,
}

impl Puller {
    pub(crate) fn new(
        images: Arc<dyn ImageService>,
        volumes: &Volumes,
        client: Client,
        sources: Sources,
        recorder: Recorder,
        config: &Config,
    ) -> Puller {
        let providers = config.credential_providers.as_ref();
        Puller {
            images,
            providers: Providers::new(providers, client, volumes.clone()),
            verification: config.image_verification.clone(),
            records: Records::new(&config.root_dir, config.clock.clone()),
            adopted: OnceCell::new(),
            sources,
            recorder,
            slots: Semaphore::new(config.image_pulls_max.max(1)),
            failures: Mutex::default(),
        }
    }

    /// The image of a container, pulled if its policy says so. Safe to cancel.
    pub(crate) async fn ensure(
        &self,
        pod: &Pod,
        container: &Container,
    ) -> Result<Image, StartError> {
        let wanted = container.image.as_deref().unwrap_or_default();
        let name = container.name.as_str();
        let warn = |reason: &str, message: &str| {
            self.recorder
                .pod(pod, Some(name), Kind::Warning, reason, message);
        };
        let image = reference::with_default_tag(wanted).map_err(|fault| {
            let message = format!("Failed to apply default image tag {wanted:?}: {fault}");
            warn("InspectFailed", &message);
            self.refused(pod, name, "InvalidImageName", message)
        })?;
        let policy = container
            .image_pull_policy
            .as_deref()
            .unwrap_or("IfNotPresent");
        if policy != "Always" {
            let present = self.images.image_status(&image).await.map_err(|fault| {
                let message = format!("Failed to inspect image {image:?}: {fault}");
                warn("InspectFailed", &message);
                self.refused(pod, name, "ImageInspectError", message)
            })?;
            // Who may not use it is not to learn that it is there.
            if let Some(present) = present
                && self.may_use(pod, wanted, &image, &present.id).await
            {
                let may = match self.verification {
                    Some(_) => " and can be accessed by the pod",
                    None => "",
                };
                let message = format!("Container image {wanted:?} already present on machine{may}");
                self.recorder
                    .pod(pod, Some(name), Kind::Normal, "Pulled", message);
                return Ok(present);
            }
            if policy == "Never" {
                let message =
                    format!("Container image {wanted:?} is not present with pull policy of Never");
                warn("ErrImageNeverPull", &message);
                return Err(self.refused(pod, name, "ErrImageNeverPull", message));
            }
        }
        self.pull(pod, name, wanted, &image).await
    }

    fn refused(&self, pod: &Pod, name: &str, reason: &'static str, message: String) -> StartError {
        let told = format!("Error: {reason}");
        self.recorder
            .pod(pod, Some(name), Kind::Warning, "Failed", told);
        StartError {
            reason,
            message,
            retry_at: Some(Instant::now() + Duration::from_secs(10)),
        }
    }

    async fn pull(
        &self,
        pod: &Pod,
        name: &str,
        wanted: &str,
        image: &str,
    ) -> Result<Image, StartError> {
        let slot = (pod.uid().to_owned(), image.to_owned());
        if let Some(waiting) = self.backing_off(pod, name, wanted, &slot) {
            return Err(waiting);
        }
        let began = Instant::now();
        let message = format!("Pulling image {wanted:?}");
        self.recorder
            .pod(pod, Some(name), Kind::Normal, "Pulling", message);
        // Before there is a place for the pull: a provider may take its time.
        let credentials = self.credentials(pod, image).await;
        let permit = self.slots.acquire().await;
        let pulling = Instant::now();
        let pulled = self.pull_and_note(wanted, image, credentials).await;
        drop(permit);
        match pulled {
            Ok(found) => {
                self.failures.lock().remove(&slot);
                let now = Instant::now();
                let message = format!(
                    "Successfully pulled image {wanted:?} in {} ({} including waiting). Image size: {} bytes.",
                    go_duration(now.duration_since(pulling)),
                    go_duration(now.duration_since(began)),
                    found.size
                );
                self.recorder
                    .pod(pod, Some(name), Kind::Normal, "Pulled", message);
                Ok(found)
            }
            Err(fault) => Err(self.failed(pod, name, wanted, slot, &fault)),
        }
    }

    fn backing_off(
        &self,
        pod: &Pod,
        name: &str,
        wanted: &str,
        slot: &(String, String),
    ) -> Option<StartError> {
        let failures = self.failures.lock();
        let failure = failures.get(slot)?;
        let (_, until) = failure.backoff.waiting(failure.failed_at, Instant::now())?;
        let told = format!("Back-off pulling image {wanted:?}");
        self.recorder
            .pod(pod, Some(name), Kind::Normal, "BackOff", told.clone());
        let error = "Error: ImagePullBackOff";
        self.recorder
            .pod(pod, Some(name), Kind::Warning, "Failed", error);
        Some(StartError {
            reason: "ImagePullBackOff",
            message: format!("{told}: ErrImagePull: {}", failure.message),
            retry_at: Some(until),
        })
    }

    fn failed(
        &self,
        pod: &Pod,
        name: &str,
        wanted: &str,
        slot: (String, String),
        fault: &RuntimeError,
    ) -> StartError {
        let told = format!("Failed to pull image {wanted:?}: {fault}");
        self.recorder
            .pod(pod, Some(name), Kind::Warning, "Failed", told);
        let error = "Error: ErrImagePull";
        self.recorder
            .pod(pod, Some(name), Kind::Warning, "Failed", error);
        let now = Instant::now();
        let mut failures = self.failures.lock();
        failures.retain(|_, failure| now.duration_since(failure.failed_at) < FORGET_AFTER);
        let failure = failures.entry(slot).or_insert_with(|| Failure {
            backoff: CrashBackoff::default(),
            failed_at: now,
            message: String::new(),
        });
        failure.backoff.attempt(now, now, BACKOFF);
        failure.failed_at = now;
        failure.message = fault.to_string();
        StartError {
            reason: "ErrImagePull",
            message: fault.to_string(),
            // Shown as an error first; a moment later the back-off is what is shown.
            retry_at: Some(now + Duration::from_secs(1)),
        }
    }

    /// Pulls, and notes who may use the image from now on.
    async fn pull_and_note(
        &self,
        wanted: &str,
        image: &str,
        credentials: Vec<Credentials>,
    ) -> Result<Image, RuntimeError> {
        if self.verification.is_none() {
            return Ok(self.pull_with(image, credentials).await?.0);
        }
        self.adopt().await;
        let pull = self.records.begin(wanted).map_err(|error| {
            RuntimeError::Internal(format!(
                "Failed to record image pull intent for container image {wanted:?}: {error}"
            ))
        })?;
        match self.pull_with(image, credentials).await {
            Ok((found, used)) => {
                pull.succeeded(&found.id, Access::by(used.as_ref()));
                Ok(found)
            }
            Err(fault) => {
                pull.over();
                Err(fault)
            }
        }
    }

    /// Tries credentials in turn, or none where there are none; tells which were right.
    async fn pull_with(
        &self,
        image: &str,
        credentials: Vec<Credentials>,
    ) -> Result<(Image, Option<Credentials>), RuntimeError> {
        let mut ways: Vec<_> = credentials.into_iter().map(Some).collect();
        if ways.is_empty() {
            ways.push(None);
        }
        let mut fault = None;
        for way in ways {
            let auth = way.as_ref().map(|way| way.auth.clone());
            match self.images.pull_image(image, auth).await {
                Ok(id) => return Ok((self.found(image, &id).await?, way)),
                Err(error) => fault = Some(error),
            }
        }
        Err(fault.unwrap_or_else(|| RuntimeError::Internal("no credentials to try".into())))
    }

    async fn found(&self, image: &str, id: &str) -> Result<Image, RuntimeError> {
        for name in [image, id] {
            if let Some(found) = self.images.image_status(name).await? {
                return Ok(found);
            }
        }
        Err(RuntimeError::NotFound(format!(
            "image {image} vanished after it was pulled"
        )))
    }

    /// Whether a pod may use an image that is there without pulling it.
    async fn may_use(&self, pod: &Pod, wanted: &str, image: &str, id: &str) -> bool {
        let Some(verification) = &self.verification else {
            return true;
        };
        self.adopt().await;
        let known = self.records.find(wanted, id).inspect_err(|error| {
            tracing::error!(%error, image = wanted, "record of an image not read");
        });
        let by_kubelet = known.as_ref().is_ok_and(|known| known.by_kubelet);
        if !verification.is_asked_for(wanted, by_kubelet || known.is_err()) {
            return true;
        }
        let Ok(Some(access)) = known.map(|known| known.access) else {
            return false;
        };
        if access.is_open() || access.is_closed() {
            return access.is_open();
        }
        let (may, learnt) = access.admits(&self.credentials(pod, image).await);
        if let Some(learnt) = learnt
            && let Err(error) = self.records.note(wanted, id, Some(learnt))
        {
            tracing::error!(%error, image = wanted, "record of an image not written");
        }
        may
    }

    /// Sees to what an earlier kubelet left of its pulls, once.
    async fn adopt(&self) {
        let adopt = || async {
            match self.images.list_images().await {
                Ok(images) => self.records.adopt(&images),
                Err(error) => tracing::error!(%error, "pulls of before are not looked at"),
            }
        };
        self.adopted.get_or_init(adopt).await;
    }

    /// Forgets who pulled images that are gone; `images` are those that were there at `since`.
    pub(crate) fn forget_gone(&self, images: &[Image], since: Timestamp) {
        if self.verification.is_some() {
            self.records.prune(images, since);
        }
    }

    /// The credentials to try in turn, those of pull secrets first; none where nobody knows any.
    async fn credentials(&self, pod: &Pod, image: &str) -> Vec<Credentials> {
        let mut of_secrets = Keyring::default();
        for reference in pod.spec().image_pull_secrets.iter().flatten() {
            match self.sources.secret(pod.namespace(), &reference.name).await {
                Ok(Some(secret)) => credentials::add_secret(&secret, &mut of_secrets),
                Ok(None) => tracing::debug!(secret = reference.name, "pull secret not found"),
                Err(error) => tracing::debug!(%error, secret = reference.name, "pull secret"),
            }
        }
        let repository = reference::repository(image);
        let mut found = of_secrets.lookup(&repository);
        found.extend(self.providers.lookup(pod, &repository).await);
        found
    }
}

/// A duration as Go prints it: `1.234s`, `56ms`.
fn go_duration(duration: Duration) -> String {
    let millis = duration.as_millis();
    match millis {
        0..1_000 => format!("{millis}ms"),
        1_000..60_000 => {
            let text = format!("{}.{:03}", millis / 1_000, millis % 1_000);
            format!("{}s", text.trim_end_matches('0').trim_end_matches('.'))
        }
        _ => format!("{}m{}s", millis / 60_000, millis % 60_000 / 1_000),
    }
}
