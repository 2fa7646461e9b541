//! Policies, stages, what events hold, rotation, batches.

use std::sync::Mutex;
use std::time::Duration;

use serde_json::{Value, json};

use super::*;

#[derive(Default)]
struct Kept(Mutex<Vec<Value>>);

impl Backend for Kept {
    fn name(&self) -> &'static str {
        "log"
    }
    fn take(&self, event: Bytes) -> Result<(), String> {
        self.0
            .lock()
            .unwrap()
            .push(serde_json::from_slice(&event).unwrap());
        Ok(())
    }
}

const POLICY: &str = "
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
omitManagedFields: true
rules:
- {level: None, users: [quiet]}
- {level: None, nonResourceURLs: ['/healthz*']}
- {level: Metadata, resources: [{group: '', resources: [secrets, 'pods/*']}]}
- {level: Request, userGroups: [writers], verbs: [create], namespaces: [a, '']}
- {level: RequestResponse, resources: [{group: '*', resources: ['*/scale'], resourceNames: [x]}]}
- {level: RequestResponse, verbs: [update], omitManagedFields: false, omitStages: [Panic]}
";

fn resource<'a>(verb: &'a str, resource: &'a str, subresource: &'a str) -> Asked<'a> {
    Asked {
        user: "jane",
        verb,
        is_resource: true,
        namespace: "a",
        resource,
        subresource,
        name: "x",
        ..Asked::default()
    }
}

#[test]
fn the_first_rule_that_matches_decides() {
    let policy = Policy::parse(POLICY).unwrap();
    let level = |asked: Asked<'_>| policy.evaluate(&asked).level;
    let quiet = Asked {
        user: "quiet",
        ..resource("update", "secrets", "")
    };
    assert_eq!(level(quiet), Level::None);
    let path = |path| Asked {
        verb: "get",
        path,
        ..Asked::default()
    };
    assert_eq!(level(path("/healthz/ping")), Level::None);
    assert_eq!(level(path("/version")), Level::None, "no rule matches");
    assert_eq!(level(resource("update", "secrets", "")), Level::Metadata);
    assert_eq!(
        level(resource("update", "secrets", "status")),
        Level::RequestResponse
    );
    assert_eq!(level(resource("create", "pods", "exec")), Level::Metadata);
    let groups = ["writers".to_owned()];
    let writer = Asked {
        groups: &groups,
        ..resource("create", "configmaps", "")
    };
    assert_eq!(level(writer), Level::Request);
    assert_eq!(
        level(Asked {
            namespace: "b",
            ..writer
        }),
        Level::None
    );
    assert_eq!(
        level(resource("get", "deployments", "scale")),
        Level::RequestResponse
    );
    let other = Asked {
        name: "y",
        ..resource("get", "deployments", "scale")
    };
    assert_eq!(level(other), Level::None);
    let ruling = policy.evaluate(&resource("update", "configmaps", ""));
    assert!(ruling.omits(Stage::RequestReceived) && ruling.omits(Stage::Panic));
    assert!(!ruling.omits(Stage::ResponseComplete) && !ruling.omit_managed_fields);
}

#[test]
fn faults_are_told_all_at_once() {
    let text = Policy::parse(
        "apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [Never]\nrules:\n\
         - {level: Much}\n- {nonResourceURLs: [a, '/*/b'], namespaces: [c]}\n\
         - {level: None, resources: [{group: 'A/b'}, {resourceNames: [x]}]}\n",
    );
    let text = text.unwrap_err().to_string();
    for part in [
        "omitStages[0]: Invalid value: \"Never\": allowed stages are",
        "rules[0].level: Unsupported value: \"Much\"",
        "rules[1].level: Required value",
        "must begin with a '/' character",
        "'*' must be the final character",
        "rules cannot apply to both",
        "rules[2].resources.group: Invalid value",
        "using resourceNames requires at least one resource",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
    assert!(Policy::parse("kind: Policy\nrules: []\n").is_err());
}

fn event() -> Event {
    Event {
        audit_id: "id".into(),
        verb: "update".into(),
        object_ref: Some(ObjectReference {
            resource: "configmaps".into(),
            ..ObjectReference::default()
        }),
        ..Event::default()
    }
}

#[test]
fn events_hold_what_their_level_says() {
    let kept = Arc::new(Kept::default());
    let policy = Policy::parse(POLICY).unwrap();
    let audit = Audit::new(
        policy,
        vec![Sink::new(Arc::clone(&kept) as Arc<dyn Backend>)],
    );
    let object = json!({"metadata": {"name": "x", "uid": "u", "managedFields": [1]}, "data": 1});
    let record = audit
        .begin(&resource("update", "configmaps", ""), event)
        .unwrap();
    record.request_object(&object);
    record.annotate("authorization.k8s.io/decision", "allow");
    record.annotate("authorization.k8s.io/decision", "forbid");
    record.response_object(&object);
    record.response_status(200, None);
    record.stage(Stage::ResponseComplete);
    drop(record);
    let record = audit
        .begin(&resource("update", "secrets", ""), event)
        .unwrap();
    record.request_object(&object);
    record.response_object(&object);
    drop(record);
    let groups = ["writers".to_owned()];
    let asked = Asked {
        groups: &groups,
        ..resource("create", "configmaps", "")
    };
    let record = audit.begin(&asked, event).unwrap();
    record.request_object(&object);
    let failure = json!({"status": "Failure", "message": "no", "code": 403});
    record.response_status(403, Some(&failure));
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
        let _record = record;
        std::panic::resume_unwind(Box::new(()));
    }));
    assert!(panicked.is_err());
    let events = kept.0.lock().unwrap();
    let [full, metadata, request] = &events[..] else {
        panic!("{events:?}");
    };
    assert_eq!(full["stage"], "ResponseComplete");
    assert_eq!(full["requestObject"], object);
    assert_eq!(full["responseObject"], object);
    assert_eq!(
        full["objectRef"],
        json!({"resource": "configmaps", "name": "x", "uid": "u"})
    );
    assert_eq!(
        full["annotations"],
        json!({"authorization.k8s.io/decision": "allow"})
    );
    assert_eq!(full["responseStatus"], json!({"metadata": {}, "code": 200}));
    assert_eq!(metadata.get("requestObject"), None);
    assert_eq!(
        metadata["responseStatus"]["message"],
        "Connection closed early"
    );
    assert_eq!(request["stage"], "Panic");
    assert_eq!(
        request["requestObject"]["metadata"],
        json!({"name": "x", "uid": "u"})
    );
    assert_eq!(request["responseStatus"]["code"], 500);
    assert!(audit.metrics().contains("apiserver_audit_event_total 3\n"));
    assert!(
        audit
            .metrics()
            .contains("apiserver_audit_level_total{level=\"Request\"} 1\n")
    );
}

#[test]
fn files_are_rotated_and_old_ones_go() {
    let folder = tempfile::tempdir().unwrap();
    let config = LogConfig {
        path: folder.path().join("audit.log"),
        size_max: 25,
        backups_max: 2,
        ..LogConfig::default()
    };
    let log = Log::open(config.clone()).unwrap();
    for line in 0..9 {
        log.take(format!("line-{line}---").into()).unwrap();
    }
    drop(log);
    let log = Log::open(config).unwrap();
    log.take("line-9".into()).unwrap();
    let mut names: Vec<_> = std::fs::read_dir(folder.path())
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    names.sort();
    let texts: Vec<_> = names
        .iter()
        .map(|path| std::fs::read_to_string(path).unwrap())
        .collect();
    assert_eq!(
        texts,
        [
            "line-4---\nline-5---\n",
            "line-6---\nline-7---\n",
            "line-8---\nline-9\n"
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn batches_are_bounded_and_tried_again() {
    let crew = base::Crew::new();
    let sent: Arc<Mutex<Vec<Value>>> = Arc::default();
    let tries = Arc::new(AtomicU64::new(0));
    let (own, count) = (Arc::clone(&sent), Arc::clone(&tries));
    let send = move |batch: Vec<Bytes>| -> std::pin::Pin<Box<dyn Future<Output = _> + Send>> {
        let first = count.fetch_add(1, Ordering::Relaxed) == 0;
        if !first {
            own.lock()
                .unwrap()
                .push(serde_json::from_slice(&super::batch::list(&batch)).unwrap());
        }
        Box::pin(std::future::ready(match first {
            true => Err("not now".to_owned()),
            false => Ok(()),
        }))
    };
    let config = BatchConfig {
        buffer: 3,
        size_max: 2,
        wait_max: Duration::from_secs(5),
        initial_backoff: Duration::from_secs(10),
        ..BatchConfig::default()
    };
    let batch = Batch::new("webhook", Arc::new(send), config, &crew);
    for at in 0..3 {
        batch.take(format!("{{\"at\":{at}}}").into()).unwrap();
    }
    assert!(batch.take("{}".into()).is_err(), "the queue is full");
    tokio::time::sleep(Duration::from_secs(60)).await;
    batch.take("{\"at\":3}".into()).unwrap();
    crew.stop().raise();
    crew.finished().await.unwrap();
    let sent = sent.lock().unwrap();
    let items: Vec<_> = sent.iter().map(|list| list["items"].clone()).collect();
    assert_eq!(
        items,
        [
            json!([{"at": 0}, {"at": 1}]),
            json!([{"at": 2}]),
            json!([{"at": 3}])
        ]
    );
    assert_eq!(
        (sent[0]["kind"].as_str(), batch.lost()),
        (Some("EventList"), 0)
    );
    assert_eq!(tries.load(Ordering::Relaxed), 4);
}

/// Takes nothing.
struct Broken;

impl Backend for Broken {
    fn name(&self) -> &'static str {
        "log"
    }
    fn take(&self, _event: Bytes) -> Result<(), String> {
        Err("disk full".into())
    }
}

#[test]
fn large_events_are_cut_and_strict_sinks_must_have_theirs() {
    let kept = Arc::new(Kept::default());
    let small = Sink::new(Arc::clone(&kept) as Arc<dyn Backend>).truncating(Some(600));
    let policy = "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: RequestResponse}]\n";
    let audit = Audit::new(Policy::parse(policy).unwrap(), vec![small]);
    let large = json!({"data": "x".repeat(1000)});
    let record = audit
        .begin(&resource("update", "configmaps", ""), event)
        .unwrap();
    record.request_object(&large);
    record.stage(Stage::ResponseComplete);
    let cut = kept.0.lock().unwrap().pop().unwrap();
    assert_eq!(
        cut["annotations"],
        json!({"audit.k8s.io/truncated": "true"})
    );
    assert_eq!(cut.get("requestObject"), None);
    record.annotate("long", "x".repeat(1000));
    assert!(!record.is_lost());
    for (strict, lost) in [(false, false), (true, true)] {
        let broken = Sink::new(Arc::new(Broken)).strict(strict);
        let audit = Audit::new(Policy::parse(policy).unwrap(), vec![broken]);
        let record = audit.begin(&resource("get", "pods", ""), event).unwrap();
        assert_eq!(record.is_lost(), lost);
        let metrics = audit.metrics();
        assert!(
            metrics.contains("apiserver_audit_error_total{plugin=\"log\"} 1"),
            "{metrics}"
        );
    }
}

#[test]
fn rotated_files_are_compressed() {
    use std::io::Read;
    let folder = tempfile::tempdir().unwrap();
    let config = LogConfig {
        path: folder.path().join("audit.log"),
        size_max: 25,
        backups_max: 2,
        compress: true,
        ..LogConfig::default()
    };
    let log = Log::open(config).unwrap();
    for line in 0..9 {
        log.take(format!("line-{line}---").into()).unwrap();
    }
    drop(log);
    let names = std::fs::read_dir(folder.path()).unwrap();
    let mut names: Vec<_> = names.map(|entry| entry.unwrap().path()).collect();
    names.sort();
    let text = |path: &std::path::Path| {
        let mut text = String::new();
        let file = std::fs::File::open(path).unwrap();
        flate2::read::GzDecoder::new(file)
            .read_to_string(&mut text)
            .unwrap();
        text
    };
    let [old @ .., current] = names.as_slice() else {
        panic!("no files");
    };
    assert!(
        old.iter()
            .all(|path| path.to_string_lossy().ends_with(".log.gz")),
        "{old:?}"
    );
    assert_eq!(text(old.last().unwrap()), "line-6---\nline-7---\n");
    assert_eq!(std::fs::read_to_string(current).unwrap(), "line-8---\n");
}

#[tokio::test]
async fn a_log_in_batches_has_all_at_the_end() {
    let crew = base::Crew::new();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.log");
    let config = LogConfig {
        path: path.clone(),
        ..LogConfig::default()
    };
    let log = Log::open(config).unwrap();
    let limits = BatchConfig {
        size_max: 100,
        bytes_max: Some(10),
        ..BatchConfig::of_log()
    };
    let batch = Batch::log(log, limits, &crew);
    for line in 0..5 {
        batch.take(format!("line-{line}").into()).unwrap();
    }
    crew.stop().raise();
    crew.finished().await.unwrap();
    let text = std::fs::read_to_string(path).unwrap();
    assert_eq!(text, "line-0\nline-1\nline-2\nline-3\nline-4\n");
}
