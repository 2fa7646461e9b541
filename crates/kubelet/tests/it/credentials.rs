//! Credentials of images: from pull secrets and from programs.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use kubelet::{Config, CredentialProviders};
use node_config::{CredentialProvider, Source};
use serde_json::{Value, json};

use crate::rig::{Rig, wait};

const REQUESTS: &str = "credentialprovider.kubelet.k8s.io/v1";

/// Notes how it was run and what it was asked, and says what lies beside it.
const ANSWERING: &str = r#"cat >> "$0.asked"
echo "$* $MODE" >> "$0.runs"
cat "$0.answer""#;

/// A folder of programs.
struct Programs<'a> {
    rig: &'a Rig,
    providers: Vec<Value>,
}

impl<'a> Programs<'a> {
    fn of(rig: &'a Rig) -> Programs<'a> {
        std::fs::create_dir_all(rig.folder.path().join("bin")).unwrap();
        Programs {
            rig,
            providers: Vec::new(),
        }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.rig.folder.path().join("bin").join(name)
    }

    /// Adds a program for images of `*.test`; `more` is merged over its settings.
    fn add(&mut self, name: &str, script: &str, more: Value) {
        // Another process writes it: a program that is open for writing in this one, or in one it
        // has just forked, could not be run.
        let mut writer = Command::new("sh")
            .args(["-c", r#"cat > "$0" && chmod 755 "$0""#])
            .arg(self.file(name))
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let text = format!("#!/bin/sh\n{script}\n");
        let mut input = writer.stdin.take().unwrap();
        input.write_all(text.as_bytes()).unwrap();
        drop(input);
        assert!(writer.wait().unwrap().success());
        let mut settings = json!({
            "name": name, "matchImages": ["*.test"], "defaultCacheDuration": "1h",
            "apiVersion": REQUESTS,
        });
        for (key, value) in more.as_object().unwrap() {
            settings[key] = value.clone();
        }
        self.providers.push(settings);
    }

    /// Sets what an answering program says.
    fn answer(&self, name: &str, more: Value) {
        let mut answer = json!({
            "kind": "CredentialProviderResponse", "apiVersion": REQUESTS, "cacheKeyType": "Image",
            "auth": {"*.test": {"username": name, "password": "secret"}},
        });
        for (key, value) in more.as_object().unwrap() {
            answer[key] = value.clone();
        }
        let path = self.file(&format!("{name}.answer"));
        std::fs::write(path, answer.to_string()).unwrap();
    }

    fn config(&self) -> Config {
        let file = json!({
            "apiVersion": "kubelet.config.k8s.io/v1", "kind": "CredentialProviderConfig",
            "providers": self.providers,
        });
        let file = Source {
            path: "providers.json".into(),
            text: file.to_string(),
        };
        let mut config = self.rig.config();
        config.credential_providers = Some(CredentialProviders {
            folder: self.rig.folder.path().join("bin"),
            providers: CredentialProvider::read(&[file], true).unwrap(),
        });
        config
    }
}

/// The lines of what a program noted.
fn noted(rig: &Rig, file: &str) -> Vec<String> {
    let text = std::fs::read_to_string(rig.folder.path().join("bin").join(file));
    let text = text.unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

/// Starts a pod and waits until it runs.
async fn run(rig: &Rig, name: &str, image: &str, spec: Value) {
    let mut whole = json!({"containers": [
        {"name": "main", "image": image, "imagePullPolicy": "Always"},
    ]});
    for (key, value) in spec.as_object().unwrap() {
        whole[key] = value.clone();
    }
    rig.create(name, whole);
    rig.wait_phase(name, "Running").await;
}

#[tokio::test]
async fn programs_are_asked_for_credentials() {
    let mut rig = Rig::new().await;
    let mut programs = Programs::of(&rig);
    let settings = json!({"args": ["get", "it"], "env": [{"name": "MODE", "value": "fast"}]});
    programs.add("knowing", ANSWERING, settings);
    programs.answer("knowing", json!({}));
    let config = programs.config();
    rig.restart_with(config).await;
    run(&rig, "web", "a.test/app:1", json!({})).await;
    run(&rig, "again", "a.test/app:2", json!({})).await;
    run(&rig, "other", "a.example/app:1", json!({})).await;
    let pulls = [
        "a.test/app:1 knowing:secret",
        "a.test/app:2 knowing:secret",
        "a.example/app:1 -",
    ];
    assert_eq!(rig.runtime.pulls(), pulls);
    assert_eq!(noted(&rig, "knowing.runs"), ["get it fast"]);
    let asked: Value = serde_json::from_str(&noted(&rig, "knowing.asked")[0]).unwrap();
    let request = json!({
        "kind": "CredentialProviderRequest", "apiVersion": REQUESTS, "image": "a.test/app",
    });
    assert_eq!(asked, request);
    let count = "kubelet_credential_provider_plugin_duration_count{plugin_name=\"knowing\"} 1";
    assert!(base::metrics::page().contains(count));
}

#[tokio::test]
async fn answers_hold_for_what_they_say() {
    for (name, more, runs) in [
        ("by-image", json!({"cacheKeyType": "Image"}), 3),
        ("by-registry", json!({"cacheKeyType": "Registry"}), 2),
        (
            "for-all",
            json!({"cacheKeyType": "Global", "cacheDuration": "5m"}),
            1,
        ),
        (
            "for-now",
            json!({"cacheKeyType": "Global", "cacheDuration": "0s"}),
            4,
        ),
    ] {
        let mut rig = Rig::new().await;
        let mut programs = Programs::of(&rig);
        programs.add(name, ANSWERING, json!({}));
        programs.answer(name, more);
        let config = programs.config();
        rig.restart_with(config).await;
        for (pod, image) in [
            ("one", "a.test/app:1"),
            ("two", "a.test/app:1"),
            ("three", "a.test/other:1"),
            ("four", "b.test/app:1"),
        ] {
            run(&rig, pod, image, json!({})).await;
        }
        assert_eq!(noted(&rig, &format!("{name}.runs")).len(), runs, "{name}");
    }
}

#[tokio::test]
async fn secrets_come_first_and_then_programs_in_their_order() {
    let mut rig = Rig::new().await;
    let mut programs = Programs::of(&rig);
    programs.add("first", ANSWERING, json!({}));
    programs.add("second", ANSWERING, json!({}));
    programs.answer("first", json!({}));
    let closer = json!({"auth": {"a.test/app": {"username": "closer", "password": "x"}}});
    programs.answer("second", closer);
    let config = programs.config();
    rig.restart_with(config).await;
    rig.put_login("login", "a.test", "own", "pw");
    rig.runtime.set_login("a.test", "first:secret");
    let secrets = json!({"imagePullSecrets": [{"name": "login"}]});
    run(&rig, "web", "a.test/app:1", secrets).await;
    let pulls = [
        "a.test/app:1 own:pw",
        "a.test/app:1 closer:x",
        "a.test/app:1 first:secret",
    ];
    assert_eq!(rig.runtime.pulls(), pulls);
}

#[tokio::test]
async fn programs_that_fail_are_passed_over() {
    let mut rig = Rig::new().await;
    let mut programs = Programs::of(&rig);
    programs.add("failing", "echo no luck >&2; exit 3", json!({}));
    programs.add("babbling", ANSWERING, json!({}));
    programs.answer("babbling", json!({"apiVersion": "v1"}));
    programs.add("keyless", ANSWERING, json!({}));
    programs.answer("keyless", json!({"cacheKeyType": "Planet"}));
    programs.add("good", ANSWERING, json!({}));
    programs.answer("good", json!({}));
    let config = programs.config();
    rig.restart_with(config).await;
    run(&rig, "web", "a.test/app:1", json!({})).await;
    assert_eq!(rig.runtime.pulls(), ["a.test/app:1 good:secret"]);
    let page = base::metrics::page();
    let errors = "kubelet_credential_provider_plugin_errors_total{plugin_name=";
    assert!(page.contains(&format!("{errors}\"failing\"}} 1")), "{page}");
    // It ran well; what it said is another matter.
    assert!(!page.contains(&format!("{errors}\"babbling\"}}")), "{page}");
}

#[tokio::test]
async fn a_program_that_hangs_is_ended() {
    let mut rig = Rig::new().await;
    let mut programs = Programs::of(&rig);
    let hanging = r#"echo $$ > "$0.pid"; exec sleep 1000000"#;
    programs.add("hanging", hanging, json!({}));
    let config = programs.config();
    rig.restart_with(config).await;
    let container = json!({"name": "main", "image": "a.test/app:1"});
    rig.create("web", json!({"containers": [container]}));
    let pid = wait("its start", || noted(&rig, "hanging.pid").first().cloned()).await;
    // The minute it has passes at once.
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(61)).await;
    tokio::time::resume();
    rig.wait_phase("web", "Running").await;
    assert_eq!(rig.runtime.pulls(), ["a.test/app:1 -"]);
    let process = PathBuf::from(format!("/proc/{pid}"));
    wait("its end", || (!process.exists()).then_some(())).await;
}

/// A program that says nothing until its gate is opened.
fn add_waiting(programs: &mut Programs<'_>) -> PathBuf {
    let waiting = format!("cat \"$0.gate\" > /dev/null\n{ANSWERING}");
    programs.add("waiting", &waiting, json!({}));
    programs.answer("waiting", json!({}));
    let gate = programs.file("waiting.gate");
    nix::unistd::mkfifo(&gate, nix::sys::stat::Mode::S_IRWXU).unwrap();
    gate
}

/// Waits until the program is at its gate, and opens it.
async fn open(gate: PathBuf) {
    let open = tokio::task::spawn_blocking(move || std::fs::write(gate, "open"));
    let opened = tokio::time::timeout(Duration::from_secs(30), open).await;
    opened.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn who_asks_the_same_waits_for_one_answer() {
    let mut rig = Rig::new().await;
    let mut programs = Programs::of(&rig);
    let gate = add_waiting(&mut programs);
    let config = programs.config();
    rig.restart_with(config).await;
    let containers = json!([
        {"name": "main", "image": "a.test/app:1", "imagePullPolicy": "Always"},
    ]);
    for pod in ["one", "two", "three"] {
        rig.create(pod, json!({"containers": containers}));
    }
    wait("all pull", || {
        (rig.api.events_of("Pulling").len() == 3).then_some(())
    })
    .await;
    open(gate).await;
    for pod in ["one", "two", "three"] {
        rig.wait_phase(pod, "Running").await;
    }
    assert_eq!(noted(&rig, "waiting.runs").len(), 1);
    assert_eq!(rig.runtime.pulls(), ["a.test/app:1 waiting:secret"; 3]);
}

#[tokio::test]
async fn who_waits_for_a_program_holds_up_nobody_elses_pull() {
    let mut rig = Rig::new().await;
    let mut programs = Programs::of(&rig);
    let gate = add_waiting(&mut programs);
    let mut config = programs.config();
    config.image_pulls_max = 1;
    rig.restart_with(config).await;
    let container = json!({"name": "main", "image": "a.test/app:1"});
    rig.create("slow", json!({"containers": [container]}));
    wait("its pull", || {
        (rig.api.events_of("Pulling").len() == 1).then_some(())
    })
    .await;
    run(&rig, "quick", "a.example/app:1", json!({})).await;
    assert_eq!(rig.runtime.pulls(), ["a.example/app:1 -"]);
    open(gate).await;
    rig.wait_phase("slow", "Running").await;
}

#[tokio::test]
async fn programs_are_told_tokens_of_service_accounts() {
    let mut rig = Rig::new().await;
    let mut programs = Programs::of(&rig);
    let token = |cache_type: &str| {
        json!({"tokenAttributes": {
            "serviceAccountTokenAudience": "registry", "cacheType": cache_type,
            "requireServiceAccount": true, "requiredServiceAccountAnnotationKeys": ["a.io/role"],
            "optionalServiceAccountAnnotationKeys": ["a.io/zone", "a.io/none"],
        }})
    };
    programs.add("trusted", ANSWERING, token("ServiceAccount"));
    programs.answer("trusted", json!({"cacheKeyType": "Global"}));
    // It may not give back the token as a password for all of the account.
    programs.add("echo", ANSWERING, token("ServiceAccount"));
    let echoed = json!({"auth": {"a.test": {"username": "echo", "password": "a-token"}}});
    programs.answer("echo", echoed);
    let config = programs.config();
    rig.restart_with(config).await;
    let account = |name: &str, annotations: Value| {
        let path = format!("/api/v1/namespaces/default/serviceaccounts/{name}");
        let metadata = json!({"name": name, "namespace": "default", "annotations": annotations});
        rig.api.put(&path, json!({"metadata": metadata}))
    };
    let own = account(
        "own",
        json!({"a.io/role": "puller", "a.io/zone": "z", "b": "c"}),
    );
    account("plain", json!({"a.io/zone": "z"}));
    for (pod, account) in [("one", "own"), ("two", "own"), ("three", "plain")] {
        let spec = json!({"serviceAccountName": account});
        run(&rig, pod, &format!("a.test/{pod}:1"), spec).await;
    }
    run(&rig, "four", "a.test/four:1", json!({})).await;
    let pulls = [
        "a.test/one:1 trusted:secret",
        "a.test/two:1 trusted:secret",
        "a.test/three:1 -",
        "a.test/four:1 -",
    ];
    assert_eq!(rig.runtime.pulls(), pulls);
    let asked = noted(&rig, "trusted.asked");
    assert_eq!(asked.len(), 1, "{asked:?}");
    let asked: Value = serde_json::from_str(&asked[0]).unwrap();
    assert_eq!(asked["serviceAccountToken"], "a-token");
    let told = json!({"a.io/role": "puller", "a.io/zone": "z"});
    assert_eq!(asked["serviceAccountAnnotations"], told);
    let wished = &rig.api.token_requests()[0];
    assert_eq!(wished["metadata"]["uid"], own["metadata"]["uid"]);
    assert_eq!(wished["spec"]["audiences"], json!(["registry"]));
    let bound = &wished["spec"]["boundObjectRef"];
    assert_eq!(
        (&bound["kind"], &bound["name"]),
        (&json!("Pod"), &json!("one"))
    );
    assert_eq!(noted(&rig, "echo.runs").len(), 2);
}

#[tokio::test]
async fn a_kubelet_whose_programs_are_missing_does_not_start() {
    let rig = Rig::new().await;
    let mut programs = Programs::of(&rig);
    programs.add("gone", ANSWERING, json!({}));
    std::fs::remove_file(programs.file("gone")).unwrap();
    let crew = base::Crew::new();
    let started = kubelet::run(rig.api.client(), rig.parts(), programs.config(), &crew).await;
    let fault = started.unwrap_err().to_string();
    assert!(fault.ends_with("bin/gone did not exist"), "{fault}");
    std::fs::remove_dir(rig.folder.path().join("bin")).unwrap();
    let started = kubelet::run(rig.api.client(), rig.parts(), programs.config(), &crew).await;
    let fault = started.unwrap_err().to_string();
    assert!(fault.ends_with("bin did not exist"), "{fault}");
}
