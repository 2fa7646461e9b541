//! What this server counts besides its requests, under upstream's names and in its buckets.

mod guards;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use admission::Operation;
use base::metrics::{Counters, Gauges, Histogram, Histograms, exponential};

pub(crate) use guards::{conditions, impersonated, impersonation_check};

/// Of everything that is as long as a request.
const REQUEST: [f64; 23] = [
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0,
    10.0, 15.0, 20.0, 30.0, 45.0, 60.0,
];
const GUARD: [f64; 15] = exponential(0.001, 2.0);

static AUTHENTICATED: Counters = Counters::new(
    "authenticated_user_requests",
    "[ALPHA] Counter of authenticated requests broken out by username.",
    &["username"],
);
static AUTHENTICATIONS: Counters = Counters::new(
    "authentication_attempts",
    "[ALPHA] Counter of authenticated attempts.",
    &["result"],
);
static AUTHENTICATION_TIME: Histograms = Histograms::new(
    "authentication_duration_seconds",
    "[ALPHA] Authentication duration in seconds broken out by result.",
    &["result"],
    &GUARD,
);
static AUTHORIZATIONS: Counters = Counters::new(
    "authorization_attempts_total",
    "[ALPHA] Counter of authorization attempts broken down by result. It can be either \
     'allowed', 'denied', 'no-opinion' or 'error'.",
    &["result"],
);
static AUTHORIZATION_TIME: Histograms = Histograms::new(
    "authorization_duration_seconds",
    "[ALPHA] Authorization duration in seconds broken out by result.",
    &["result"],
    &GUARD,
);
static STORE_REQUESTS: Counters = Counters::new(
    "etcd_requests_total",
    "[ALPHA] Etcd request counts for each operation and object type.",
    &["group", "operation", "resource"],
);
static STORE_ERRORS: Counters = Counters::new(
    "etcd_request_errors_total",
    "[ALPHA] Etcd failed request counts for each operation and object type.",
    &["group", "operation", "resource"],
);
static STORE_TIME: Histograms = Histograms::new(
    "etcd_request_duration_seconds",
    "[ALPHA] Etcd request latency in seconds for each operation and object type.",
    &["group", "operation", "resource"],
    &REQUEST,
);
static STORE_EVENTS: Counters = Counters::new(
    "apiserver_storage_events_received_total",
    "[BETA] Number of etcd events received split by kind.",
    &["group", "resource"],
);
static CACHE_EVENTS: Counters = Counters::new(
    "apiserver_watch_cache_events_received_total",
    "[ALPHA] Counter of events received in watch cache broken by resource type.",
    &["group", "resource"],
);
static WATCH_EVENTS: Counters = Counters::new(
    "apiserver_watch_events_total",
    "[ALPHA] Number of events sent in watch clients",
    &["group", "resource", "version"],
);
static WATCH_SIZES: Histograms = Histograms::new(
    "apiserver_watch_events_sizes",
    "[ALPHA] Watch event size distribution in bytes",
    &["group", "resource", "version"],
    &exponential::<8>(1024.0, 2.0),
);
static WATCH_LIST: Histograms = Histograms::new(
    "apiserver_watch_list_duration_seconds",
    "[BETA] Response latency distribution in seconds for watch list requests broken by group, \
     version, resource and scope.",
    &["group", "resource", "scope", "version"],
    &[
        0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 2.0, 4.0, 6.0, 8.0, 10.0, 15.0, 20.0, 30.0, 45.0, 60.0,
    ],
);
static DEPRECATED: Gauges = Gauges::new(
    "apiserver_requested_deprecated_apis",
    "[STABLE] Gauge of deprecated APIs that have been requested, broken out by API group, \
     version, resource, subresource, and removed_release.",
    &[
        "group",
        "removed_release",
        "resource",
        "subresource",
        "version",
    ],
);
static STEP_TIME: Histograms = Histograms::new(
    "apiserver_admission_step_admission_duration_seconds",
    "[STABLE] Admission sub-step latency histogram in seconds, broken out for each operation and \
     API resource and step type (validate or admit).",
    &["operation", "rejected", "type"],
    &[0.005, 0.025, 0.1, 0.5, 1.0, 2.5],
);
static WEBHOOK_TIME: Histograms = Histograms::new(
    "apiserver_admission_webhook_admission_duration_seconds",
    "[STABLE] Admission webhook latency histogram in seconds, identified by name and broken out \
     for each operation and API resource and type (validate or admit).",
    &["name", "operation", "rejected", "type"],
    &[0.005, 0.025, 0.1, 0.5, 1.0, 2.5, 10.0, 25.0],
);
static WEBHOOK_REQUESTS: Counters = Counters::new(
    "apiserver_admission_webhook_request_total",
    "[ALPHA] Admission webhook request total, identified by name and broken out for each \
     admission type (validating or admit) and operation. Additional labels specify whether the \
     request was rejected or not and an HTTP status code.",
    &["code", "name", "operation", "rejected", "type"],
);
static WEBHOOK_REJECTIONS: Counters = Counters::new(
    "apiserver_admission_webhook_rejection_count",
    "[ALPHA] Admission webhook rejection count, identified by name and broken out for each \
     admission type (validating or admit) and operation.",
    &["error_type", "name", "operation", "rejection_code", "type"],
);
static WEBHOOK_OPEN: Counters = Counters::new(
    "apiserver_admission_webhook_fail_open_count",
    "[ALPHA] Admission webhook fail open count, identified by name and broken out for each \
     admission type (validating or admit).",
    &["name", "type"],
);

/// Somebody said who they are; `None`: it is not believed.
pub(crate) fn authenticated(name: Option<&str>, took: Duration) {
    let result = match name {
        Some(name) => {
            AUTHENTICATED.add(&[known_name(name)], 1);
            "success"
        }
        None => "failure",
    };
    AUTHENTICATIONS.add(&[result], 1);
    AUTHENTICATION_TIME.observe_time(&[result], took);
}

/// As few names as upstream tells apart.
fn known_name(name: &str) -> &str {
    match name {
        "admin" | "client" | "kube_proxy" | "kubelet" => name,
        "system:serviceaccount:kube-system:default" => name,
        name if name.contains('@') => "email_id",
        _ => "other",
    }
}

/// A right was asked for.
pub(crate) fn authorized(decision: &auth::Decision, took: Duration) {
    let result = match decision {
        auth::Decision::Allow(_) => "allowed",
        auth::Decision::Deny(_) => "denied",
        auth::Decision::NoOpinion(_) => "no-opinion",
    };
    AUTHORIZATIONS.add(&[result], 1);
    AUTHORIZATION_TIME.observe_time(&[result], took);
}

/// What a resource's store is asked to do.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Stores {
    Create,
    Update,
    Delete,
}

/// What is counted of one resource's store; found once, since there are many series.
#[derive(Default)]
pub(crate) struct Stored {
    writes: [OnceLock<(Arc<AtomicU64>, Arc<Histogram>)>; 3],
    events: OnceLock<[Arc<AtomicU64>; 2]>,
}

impl Stored {
    /// A cache took in what the store told.
    pub(crate) fn received(&self, (group, resource): (&str, &str), count: usize) {
        let labels = [group, resource];
        let series = || [STORE_EVENTS.of(&labels), CACHE_EVENTS.of(&labels)];
        for series in self.events.get_or_init(series) {
            series.fetch_add(count as u64, Ordering::Relaxed);
        }
    }

    /// The store was written.
    pub(crate) fn count(
        &self,
        what: Stores,
        (group, resource): (&str, &str),
        good: bool,
        took: Duration,
    ) {
        let word = match what {
            Stores::Create => "create",
            Stores::Update => "update",
            Stores::Delete => "delete",
        };
        let labels = [group, word, resource];
        let series = || (STORE_REQUESTS.of(&labels), STORE_TIME.of(&labels));
        let (requests, times) = self.writes[what as usize].get_or_init(series);
        requests.fetch_add(1, Ordering::Relaxed);
        times.observe(took.as_secs_f64());
        if !good {
            STORE_ERRORS.add(&labels, 1);
        }
    }
}

/// What one watch has told; counted when it rests and when it ends, since many tell at once.
pub(crate) struct Told {
    labels: [String; 3],
    sizes: Vec<usize>,
    /// Where it is counted, once there was something to count.
    rows: Option<(Arc<AtomicU64>, Arc<Histogram>)>,
}

impl Told {
    /// Events that are counted at once.
    const EVENTS_MAX: usize = 256;

    pub(crate) fn new(names: &meta::Names) -> Told {
        let [group, plural, version] = [&names.group, &names.plural, &names.version];
        Told {
            labels: [group, plural, version].map(|name| name.to_string()),
            sizes: Vec::new(),
            rows: None,
        }
    }

    /// One event of this size.
    pub(crate) fn add(&mut self, size: usize) {
        self.sizes.push(size);
        if self.sizes.len() >= Told::EVENTS_MAX {
            self.count();
        }
    }

    /// Counts what was told since the last time.
    pub(crate) fn count(&mut self) {
        if self.sizes.is_empty() {
            return;
        }
        let labels = &self.labels;
        let (events, sizes) = self.rows.get_or_insert_with(|| {
            let labels = labels.each_ref().map(String::as_str);
            (WATCH_EVENTS.of(&labels), WATCH_SIZES.of(&labels))
        });
        events.fetch_add(self.sizes.len() as u64, Ordering::Relaxed);
        self.sizes
            .drain(..)
            .for_each(|size| sizes.observe(size as f64));
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        self.count();
    }
}

/// A watch told all that there was when it began.
pub(crate) fn watch_listed(names: &meta::Names, scope: &str, took: Duration) {
    let (group, plural, version) = (&*names.group, &*names.plural, &*names.version);
    WATCH_LIST.observe_time(&[group, plural, scope, version], took);
}

/// Something was asked for that is on its way out.
pub(crate) fn deprecated(info: &crate::chain::RequestInfo) {
    let (group, version) = (info.group.as_str(), info.version.as_str());
    let (resource, subresource) = (info.resource.as_str(), info.subresource.as_str());
    DEPRECATED.set(&[group, "", resource, subresource, version], 1);
}

/// A write passed admission's first step (`admit`) or its second (`validate`).
pub(crate) fn admitted(step: &str, operation: Operation, refused: bool, took: Duration) {
    let operation = match operation {
        Operation::Create => "CREATE",
        Operation::Update => "UPDATE",
        Operation::Delete => "DELETE",
        Operation::Connect => "CONNECT",
    };
    let rejected = if refused { "true" } else { "false" };
    STEP_TIME.observe_time(&[operation, rejected, step], took);
}

/// One question to a webhook.
pub(crate) struct WebhookCall<'a> {
    pub(crate) name: &'a str,
    pub(crate) operation: &'static str,
    pub(crate) mutating: bool,
}

/// How a webhook's answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    Allowed,
    /// With this code.
    Refused(u16),
    /// It could not be asked, or cannot be understood.
    Failed,
}

impl WebhookCall<'_> {
    /// Greatest code that has a label of its own.
    const CODE_MAX: u16 = 600;

    fn kind(&self) -> &'static str {
        match self.mutating {
            true => "admit",
            false => "validating",
        }
    }

    /// It was asked; `open`: a failure does not count.
    pub(crate) fn heard(&self, heard: Heard, open: bool, took: Duration) {
        let (name, operation, kind) = (self.name, self.operation, self.kind());
        let (code, refused) = match heard {
            Heard::Allowed => (200, false),
            Heard::Refused(code) => (code, true),
            Heard::Failed => (500, !open),
        };
        let rejected = if refused { "true" } else { "false" };
        WEBHOOK_TIME.observe_time(&[name, operation, rejected, kind], took);
        let code = code.min(WebhookCall::CODE_MAX).to_string();
        WEBHOOK_REQUESTS.add(&[&code, name, operation, rejected, kind], 1);
        match heard {
            Heard::Allowed => {}
            Heard::Failed if open => WEBHOOK_OPEN.add(&[name, kind], 1),
            Heard::Failed => {
                let labels = ["calling_webhook_error", name, operation, "0", kind];
                WEBHOOK_REJECTIONS.add(&labels, 1);
            }
            Heard::Refused(_) => {
                let labels = ["no_error", name, operation, &code, kind];
                WEBHOOK_REJECTIONS.add(&labels, 1);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn webhooks_are_counted_by_how_they_ended() {
        let call = WebhookCall {
            name: "counted.example.com",
            operation: "CREATE",
            mutating: false,
        };
        let took = Duration::from_millis(1);
        call.heard(Heard::Refused(403), false, took);
        call.heard(Heard::Failed, true, took);
        let page = base::metrics::page();
        for line in [
            "apiserver_admission_webhook_request_total{code=\"403\",name=\"counted.example.com\",\
             operation=\"CREATE\",rejected=\"true\",type=\"validating\"} 1",
            "apiserver_admission_webhook_fail_open_count{name=\"counted.example.com\",\
             type=\"validating\"} 1",
            "apiserver_admission_webhook_rejection_count{error_type=\"no_error\",\
             name=\"counted.example.com\",operation=\"CREATE\",rejection_code=\"403\",\
             type=\"validating\"} 1",
        ] {
            assert!(page.lines().any(|own| own == line), "{line}\n{page}");
        }
    }

    #[test]
    fn few_names_are_told_apart() {
        assert_eq!(known_name("admin"), "admin");
        assert_eq!(known_name("a@b"), "email_id");
        assert_eq!(known_name("system:serviceaccount:a:b"), "other");
    }
}
