//! What goes wrong in the world: crashes, wrong input, lack of room.

use std::process::Stdio;
use std::time::Duration;

use crate::cluster::{Cluster, eventually_or};
use crate::kubectl::{IMAGE, Kubectl, kubectls};

fn with<'c>(cluster: &'c Cluster) -> Kubectl<'c> {
    Kubectl {
        cluster,
        binary: kubectls().remove(0),
        namespace: "default".into(),
    }
}

/// A pod that runs the application with these arguments.
fn pod(name: &str, args: &str, more: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  restartPolicy: Never\n  \
         terminationGracePeriodSeconds: 1\n  containers:\n  - name: main\n    image: {IMAGE}\n    \
         args: {args}\n{more}"
    )
}

#[test]
fn kill_nine_at_ten_moments_loses_nothing() {
    let mut cluster = Cluster::start();
    cluster.make_image(IMAGE);
    with(&cluster).ok_with("apply -f -", &pod("steady", "[demo-app, serve]", ""));
    with(&cluster).ok("wait --for=condition=Ready pod/steady --timeout=60s");
    let id = "get pod steady -o 'jsonpath={.status.containerStatuses[0].containerID}'";
    let before = with(&cluster).ok(id);
    let acknowledged = cluster.folder.path().join("acknowledged");
    for round in 0..10_u32 {
        // Writers that note each name once the server has said yes.
        let script = format!(
            "for i in $(seq 1 500); do \
               {kubectl} create configmap round-{round}-$i --from-literal=i=$i >/dev/null 2>&1 \
               && echo round-{round}-$i >> {file} || exit 0; done",
            kubectl = kubectls()[0].display(),
            file = acknowledged.display(),
        );
        let mut writer = cluster
            .namespace
            .command("/bin/sh")
            .args(["-c", &script])
            .env("KUBECONFIG", cluster.kubeconfig())
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(300 + u64::from(round) * 97));
        cluster.kill();
        writer.wait().unwrap();
        cluster.boot();
    }
    let names = with(&cluster).ok("get configmaps -o name");
    let wanted = std::fs::read_to_string(&acknowledged).unwrap();
    assert!(
        wanted.lines().count() >= 10,
        "the writers wrote next to nothing: {wanted}"
    );
    let lost: Vec<&str> = wanted
        .lines()
        .filter(|name| !names.contains(&format!("configmap/{name}\n")))
        .collect();
    assert!(lost.is_empty(), "acknowledged, but lost: {lost:?}");
    assert_eq!(
        with(&cluster).ok(id),
        before,
        "the container is another one"
    );
    assert_eq!(
        with(&cluster)
            .ok("get pod steady -o 'jsonpath={.status.containerStatuses[0].restartCount}'"),
        "0"
    );
}

/// A reboot leaves what is on disks, and neither processes nor what the engine knew of them.
#[test]
fn pods_come_back_after_a_reboot() {
    let mut cluster = Cluster::start();
    cluster.make_image(IMAGE);
    let steady = pod("steady", "[demo-app, serve]", "").replace("Never", "Always");
    with(&cluster).ok_with("apply -f -", &steady);
    with(&cluster).ok("wait --for=condition=Ready pod/steady --timeout=60s");
    let told = |cluster: &Cluster, path: &str| {
        with(cluster).ok(&format!("get pod steady -o 'jsonpath={{{path}}}'"))
    };
    let id = ".status.containerStatuses[0].containerID";
    let (uid, before) = (told(&cluster, ".metadata.uid"), told(&cluster, id));
    cluster.kill();
    let state = state_of(&uid);
    for sandbox in std::fs::read_dir(&state).unwrap().flatten() {
        let Ok(pid) = std::fs::read_to_string(sandbox.path().join("pid")) else {
            continue;
        };
        let pid = nix::unistd::Pid::from_raw(pid.trim().parse().unwrap());
        // Its containers die with it.
        nix::sys::signal::kill(pid, nix::sys::signal::SIGKILL).unwrap();
    }
    std::fs::remove_dir_all(&state).unwrap();
    cluster.boot();
    let kubectl = with(&cluster);
    kubectl.until(
        "get pod steady -o jsonpath={.status.containerStatuses[0].restartCount}",
        "1",
    );
    kubectl.ok("wait --for=condition=Ready pod/steady --timeout=60s");
    assert_eq!(told(&cluster, ".metadata.uid"), uid);
    assert_ne!(told(&cluster, id), before);
    assert!(kubectl.ok("logs steady").contains("listening on"));
}

/// Where the engine that runs a pod keeps what it knows of running ones: clusters beside have theirs.
fn state_of(uid: &str) -> std::path::PathBuf {
    let states = std::fs::read_dir("/run/sampan").unwrap().flatten();
    let holds = |state: &std::path::PathBuf| {
        let sandboxes = std::fs::read_dir(state).into_iter().flatten().flatten();
        let records = sandboxes.map(|one| std::fs::read_to_string(one.path().join("sandbox.json")));
        records.flatten().any(|record| record.contains(uid))
    };
    let mut states = states.map(|state| state.path());
    states.find(holds).expect("a sandbox of the pod")
}

#[test]
fn an_exit_while_no_server_runs_keeps_its_code() {
    let mut cluster = Cluster::start();
    cluster.make_image(IMAGE);
    let sleeper = pod("sleeper", "[demo-app, exit, --code=7, --after-ms=1500]", "");
    with(&cluster).ok_with("apply -f -", &sleeper);
    with(&cluster).until("get pod sleeper", "Running");
    cluster.kill();
    std::thread::sleep(Duration::from_millis(2500));
    cluster.boot();
    with(&cluster).ok("wait --for=jsonpath='{.status.phase}'=Failed pod/sleeper --timeout=30s");
    let state = "jsonpath={.status.containerStatuses[0].state.terminated.exitCode}";
    assert_eq!(
        with(&cluster).ok(&format!("get pod sleeper -o '{state}'")),
        "7"
    );
    assert!(with(&cluster).ok("logs sleeper").contains("leaving with 7"));
}

#[test]
fn containers_end_for_the_reasons_upstream_names() {
    let cluster = Cluster::start();
    cluster.make_image(IMAGE);
    let kubectl = with(&cluster);
    let limit = "    resources: {limits: {memory: 32Mi}}\n";
    kubectl.ok_with(
        "apply -f -",
        &pod("glutton", "[demo-app, eat, --mib=256]", limit),
    );
    kubectl.ok_with(
        "apply -f -",
        &pod("seven", "[demo-app, exit, --code=7]", ""),
    );
    kubectl.ok_with("apply -f -", &pod("well", "[demo-app, exit, --code=0]", ""));
    let typo = pod("typo", "[]", "    command: [/no/such/file]\n");
    kubectl.ok_with("apply -f -", &typo);
    let ended = |name: &str, phase: &str, wanted: &str| {
        kubectl.ok(&format!(
            "wait --for=jsonpath='{{.status.phase}}'={phase} pod/{name} --timeout=60s"
        ));
        let state = "{.status.containerStatuses[0].state.terminated";
        let path = format!("{state}.reason}} {state}.exitCode}}");
        assert_eq!(
            kubectl.ok(&format!("get pod {name} -o 'jsonpath={path}'")),
            wanted,
            "{name}"
        );
    };
    ended("glutton", "Failed", "OOMKilled 137");
    ended("seven", "Failed", "Error 7");
    ended("well", "Succeeded", "Completed 0");
    ended("typo", "Failed", "StartError 128");
    assert!(
        kubectl
            .ok("describe pod typo")
            .contains("no such file or directory")
    );
    kubectl.ok("run lost --image=localhost:1/nothing:v1 --restart=Never");
    kubectl.until("get pod lost", "ImagePullBackOff");
    let events = kubectl.ok("events --for pod/lost");
    assert!(events.contains("Failed to pull image"), "{events}");
}

/// Whether a process with this word among its arguments runs.
fn runs(word: &str) -> bool {
    let all = std::fs::read_dir("/proc").unwrap().flatten();
    all.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok())
        .any(|line| {
            line.split(|byte| *byte == 0)
                .any(|one| one == word.as_bytes())
        })
}

#[test]
fn a_node_short_of_memory_ends_what_runs_on_it() {
    let mut cluster = Cluster::start();
    cluster.make_image(IMAGE);
    // A number that no other process knows.
    let word = format!("--after-ms={}", 86_400_000 + u64::from(std::process::id()));
    let vital = "  priorityClassName: system-node-critical\n";
    let kubectl = with(&cluster);
    kubectl.ok_with(
        "apply -f -",
        &pod("idle", &format!("[demo-app, exit, --code=0, {word}]"), ""),
    );
    let stays = pod("vital", "[demo-app, serve]", vital);
    kubectl.ok_with("apply -n kube-system -f -", &stays);
    kubectl.ok("wait --for=condition=Ready pod/idle --timeout=60s");
    kubectl.ok("wait -n kube-system --for=condition=Ready pod/vital --timeout=60s");
    assert!(runs(&word));
    cluster.terminate();
    assert!(runs(&word), "pods outlive the server");
    // No machine has so much to spare.
    cluster.boot_with(&["--kubelet-arg", "eviction-hard=memory.available<100%"]);
    let kubectl = with(&cluster);
    kubectl.ok("wait --for=jsonpath='{.status.phase}'=Failed pod/idle --timeout=60s");
    let told = kubectl.ok("get pod idle -o 'jsonpath={.status.reason}: {.status.message}'");
    assert!(
        told.starts_with("Evicted: The node was low on resource: memory. Threshold quantity: "),
        "{told}"
    );
    assert!(!runs(&word));
    kubectl.until(
        "get node node-1 -o 'jsonpath={.spec.taints[*].key}'",
        "node.kubernetes.io/memory-pressure",
    );
    kubectl.ok_with(
        "apply -f -",
        &pod("late", "[demo-app, serve]", "  nodeName: node-1\n"),
    );
    kubectl.until("get pod late -o 'jsonpath={.status.reason}'", "Evicted");
    let phase = "get pod -n kube-system vital -o 'jsonpath={.status.phase}'";
    assert_eq!(kubectl.ok(phase), "Running");
}

#[test]
fn bad_requests_get_clear_answers() {
    let cluster = Cluster::start();
    let kubectl = with(&cluster);
    assert!(kubectl.fails("create -f -", "{nonsense").contains("error"));
    let wrong =
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d}\nspec: {replicas: many}\n";
    let refused = kubectl.fails("create --validate=false -f -", wrong);
    assert!(
        refused.contains("cannot unmarshal") || refused.contains("unmarshal"),
        "{refused}"
    );
    let large = format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: large}}\ndata: {{a: {}}}\n",
        "x".repeat(1_100_000)
    );
    assert!(kubectl.fails("create -f -", &large).contains("Too long"));
    kubectl.ok("create configmap shared --from-literal=a=1");
    let old = kubectl.ok("get configmap shared -o yaml");
    kubectl.ok("label configmap shared touched=yes");
    let conflict = kubectl.fails("replace -f -", &old.replace("a: \"1\"", "a: \"2\""));
    assert!(
        conflict.contains("the object has been modified"),
        "{conflict}"
    );
    let path = "get --raw '/api/v1/namespaces/default/configmaps?limit=1&continue=nonsense'";
    assert!(
        kubectl
            .fails(path, "")
            .contains("continue key is not valid")
    );
    let token = "--kubeconfig=/dev/null --server=https://127.0.0.1:6443 --insecure-skip-tls-verify --token=wrong get pods";
    let unauthorized = kubectl.fails(token, "");
    assert!(
        unauthorized.contains("Unauthorized") || unauthorized.contains("logged in"),
        "{unauthorized}"
    );
    let future = "get --raw '/api/v1/namespaces/default/configmaps?resourceVersion=999999999'";
    assert!(
        kubectl
            .fails(future, "")
            .contains("Too large resource version")
    );
    assert!(
        kubectl
            .fails("create namespace Bad", "")
            .contains("RFC 1123 label")
    );
    assert!(
        kubectl
            .fails("delete namespace default", "")
            .contains("may not be deleted")
    );
}

#[test]
fn a_second_server_is_refused_and_the_first_ends_cleanly() {
    let mut cluster = Cluster::start();
    cluster.make_image(IMAGE);
    with(&cluster).ok_with("apply -f -", &pod("steady", "[demo-app, serve]", ""));
    with(&cluster).ok("wait --for=condition=Ready pod/steady --timeout=60s");
    let folder = cluster.folder.path().display().to_string();
    let second = cluster
        .sampan(&["server", "--data-dir", &folder])
        .output()
        .unwrap();
    let complaint = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(
        !second.status.success() && complaint.contains("in use"),
        "{complaint}"
    );

    let other = tempfile::tempdir().unwrap();
    let other_folder = other.path().display().to_string();
    let clash = cluster
        .sampan(&["server", "--data-dir", &other_folder])
        .output()
        .unwrap();
    let complaint = String::from_utf8_lossy(&clash.stderr).into_owned();
    assert!(
        !clash.status.success() && complaint.contains("cannot listen on"),
        "{complaint}"
    );

    let ip = with(&cluster).ok("get pod steady -o 'jsonpath={.status.podIP}'");
    let (took, well) = cluster.terminate();
    assert!(
        well && took < Duration::from_secs(15),
        "SIGTERM: {well} after {took:?}\n{}",
        cluster.log()
    );
    let url = format!("http://{ip}:8080/");
    let answer = cluster
        .sampan(&["demo-app", "fetch", &url])
        .output()
        .unwrap();
    assert!(answer.status.success(), "the pod went down with the server");
    cluster.boot();
    eventually_or(
        "the pod to be known again",
        || cluster.log(),
        || {
            let phase = with(&cluster).ok("get pod steady -o 'jsonpath={.status.phase} {.status.containerStatuses[0].restartCount}'");
            (phase == "Running 0").then_some(())
        },
    );
}
