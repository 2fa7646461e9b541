//! What every request passes before a verb sees it: panic guard, request info,
//! authentication, impersonation, limits, authorization.

pub(crate) mod accept;
pub(crate) mod audited;
pub(crate) mod flow;
pub(crate) mod impersonate;
pub(crate) mod inflight;
pub(crate) mod info;
pub(crate) mod query;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use http::HeaderMap;
use http::header::{CONTENT_TYPE, USER_AGENT};
use parking_lot::Mutex;
use serde_json::Value;

use auth::{Answers, Authorizer, Identity};

pub(crate) use accept::Accept;
pub(crate) use info::RequestInfo;
pub(crate) use query::Query;

/// The other end of a request's connection; set by the listener.
#[derive(Clone, Debug)]
pub(crate) struct Connection(pub(crate) Arc<auth::Peer>);

/// One authenticated request, as the verbs see it.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) info: RequestInfo,
    pub(crate) query: Query,
    pub(crate) accept: Accept,
    pub(crate) user: Identity,
    pub(crate) headers: HeaderMap,
    /// Its record on the audit trail, if there is to be one.
    pub(crate) audit: Option<Arc<audit::Record>>,
    /// What webhooks say about rights, if such webhooks decide.
    pub(crate) answers: Option<Arc<Answers>>,
    warnings: Mutex<Vec<String>>,
    /// Lists and maps that the body has empty, by where they stand: as good as absent, but shown.
    empty: Mutex<Vec<(String, Value)>>,
    refused_by_webhook: AtomicBool,
    /// Nanoseconds that were spent waiting for a seat and for webhooks.
    waited: AtomicU64,
}

impl Call {
    pub(crate) fn new(
        info: RequestInfo,
        query: Query,
        accept: Accept,
        user: Identity,
        headers: HeaderMap,
    ) -> Call {
        Call {
            info,
            query,
            accept,
            user,
            headers,
            audit: None,
            answers: None,
            warnings: Mutex::new(Vec::new()),
            empty: Mutex::new(Vec::new()),
            refused_by_webhook: AtomicBool::new(false),
            waited: AtomicU64::new(0),
        }
    }

    /// Notes time that says nothing about how fast this server is.
    pub(crate) fn note_wait(&self, time: Duration) {
        let nanoseconds = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.waited.fetch_add(nanoseconds, Ordering::Relaxed);
    }

    /// All such time.
    pub(crate) fn waited(&self) -> Duration {
        Duration::from_nanos(self.waited.load(Ordering::Relaxed))
    }

    /// Notes that a webhook has said no, or could not be asked.
    pub(crate) fn refuse_by_webhook(&self) {
        self.refused_by_webhook.store(true, Ordering::Relaxed);
    }

    /// Whether a webhook has ended this call.
    pub(crate) fn refused_by_webhook(&self) -> bool {
        self.refused_by_webhook.load(Ordering::Relaxed)
    }

    /// Asks webhooks about the rights that the work just done has asked about in vain. If there
    /// were any, that work is to be done again.
    pub(crate) async fn find_answers(&self, authorizer: &Authorizer) -> bool {
        match &self.answers {
            Some(answers) if answers.are_missing() => {
                answers.find(authorizer).await;
                true
            }
            _ => false,
        }
    }

    /// Whether what is being done will be done again.
    fn is_draft(&self) -> bool {
        let answers = self.answers.as_ref();
        answers.is_some_and(|answers| answers.are_missing())
    }

    /// Tells the user something that is no failure.
    pub(crate) fn warn(&self, text: impl Into<String>) {
        /// More warnings than this help nobody.
        const WARNINGS_MAX: usize = 64;
        let mut warnings = self.warnings.lock();
        let text = text.into();
        if warnings.len() < WARNINGS_MAX && !warnings.contains(&text) {
            warnings.push(text);
        }
    }

    /// Keeps in mind what the body has empty.
    pub(crate) fn note_empty(&self, empty: Vec<(String, Value)>) {
        if !empty.is_empty() {
            *self.empty.lock() = empty;
        }
    }

    /// Takes what the body has empty.
    pub(crate) fn take_empty(&self) -> Vec<(String, Value)> {
        std::mem::take(&mut self.empty.lock())
    }

    /// Adds to the request's record on the audit trail.
    pub(crate) fn annotate(&self, key: &str, value: impl Into<String>) {
        if let Some(record) = &self.audit {
            record.annotate(key, value);
        }
    }

    /// All warnings so far, each as a header value.
    pub(crate) fn take_warnings(&self) -> Vec<String> {
        std::mem::take(&mut *self.warnings.lock())
    }

    /// The media type of the body, without parameters.
    pub(crate) fn content_type(&self) -> &str {
        let value = self.headers.get(CONTENT_TYPE);
        let text = value.and_then(|value| value.to_str().ok()).unwrap_or("");
        text.split(';').next().unwrap_or("").trim()
    }

    /// Who owns the fields that this request sets.
    pub(crate) fn field_manager(&self) -> String {
        /// Upstream cuts names taken from user agents here.
        const NAME_CHARACTERS_MAX: usize = 128;
        if let Some(manager) = self.query.get("fieldManager") {
            return manager.to_owned();
        }
        let agent = self.headers.get(USER_AGENT);
        let agent = agent.and_then(|value| value.to_str().ok()).unwrap_or("");
        let name = agent.split('/').next().unwrap_or("");
        match name {
            // Calls within the process have no user agent but a telling name.
            "" => match self.user.name.strip_prefix("system:") {
                Some(own) => own.rsplit(':').next().unwrap_or(own).to_owned(),
                None => "unknown".to_owned(),
            },
            name => name.chars().take(NAME_CHARACTERS_MAX).collect(),
        }
    }
}

impl admission::Notes for Call {
    fn warn(&self, text: String) {
        if !self.is_draft() {
            Call::warn(self, text);
        }
    }

    fn annotate(&self, key: &str, value: &str) {
        if !self.is_draft() {
            Call::annotate(self, key, value);
        }
    }

    fn answers(&self) -> Option<Arc<Answers>> {
        self.answers.clone()
    }
}
