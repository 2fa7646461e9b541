//! Sees to it that a container's image is on the node: pull policies, pull
//! secrets, bounded parallelism, back-off.

mod credentials;
mod reference;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Pod};
use node_api::{AuthConfig, Image, ImageService, RuntimeError};
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use volumes::Sources;

use crate::backoff::CrashBackoff;
use crate::events::{Kind, Recorder};
use crate::pod::PodExt;

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
        sources: Sources,
        recorder: Recorder,
        pulls_max: usize,
    ) -> Puller {
        Puller {
            images,
            sources,
            recorder,
            slots: Semaphore::new(pulls_max.max(1)),
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
            if let Some(present) = present {
                let message = format!(
                    "Container image {wanted:?} already present on machine and can be accessed by the pod"
                );
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
        let permit = self.slots.acquire().await;
        let pulling = Instant::now();
        let pulled = self.pull_with_secrets(pod, image).await;
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

    async fn pull_with_secrets(&self, pod: &Pod, image: &str) -> Result<Image, RuntimeError> {
        let mut fault = None;
        for auth in self.credentials(pod, image).await {
            match self.images.pull_image(image, auth).await {
                Ok(id) => return self.found(image, &id).await,
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

    /// The credentials to try in turn; nobody's when no secret names the registry.
    async fn credentials(&self, pod: &Pod, image: &str) -> Vec<Option<AuthConfig>> {
        let mut found = Vec::new();
        for reference in pod.spec().image_pull_secrets.iter().flatten() {
            match self.sources.secret(pod.namespace(), &reference.name).await {
                Ok(Some(secret)) => found.extend(credentials::of_secret(&secret, image)),
                Ok(None) => tracing::debug!(secret = reference.name, "pull secret not found"),
                Err(error) => tracing::debug!(%error, secret = reference.name, "pull secret"),
            }
        }
        match found.is_empty() {
            true => vec![None],
            false => found.into_iter().map(Some).collect(),
        }
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
