//! The kubelet on a container runtime of another process, by CRI alone: our own engine, which stands
//! for any.

use std::fs::OpenOptions;
use std::process::{Child, Stdio};

use crate::cluster::{Cluster, eventually_or};
use crate::kubectl::{IMAGE, Kubectl, kubectls};

/// An engine, ended with the test.
struct Engine(Child);

impl Engine {
    fn start(cluster: &Cluster) -> Engine {
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(cluster.log_path())
            .unwrap();
        let mut command = cluster.namespace.command(env!("CARGO_BIN_EXE_sampan"));
        command
            .arg("engine")
            .arg("--data-dir")
            .arg(cluster.folder.path())
            .arg("--cri-socket")
            .arg(cluster.folder.path().join("cri.sock"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        Engine(command.spawn().unwrap())
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

fn with<'c>(cluster: &'c Cluster) -> Kubectl<'c> {
    Kubectl {
        cluster,
        binary: kubectls().remove(0),
        namespace: "default".into(),
    }
}

const POD: &str = "apiVersion: v1\nkind: Pod\nmetadata: {name: web, labels: {app: web}}\nspec:\n  \
    terminationGracePeriodSeconds: 1\n  containers:\n  - name: main\n    image: IMAGE\n    \
    args: [demo-app, serve]\n    resources: {limits: {memory: 64Mi}}\n    \
    readinessProbe: {exec: {command: [/sampan, demo-app, fetch, 'http://127.0.0.1:8080/']}}\n";

#[test]
fn the_kubelet_runs_pods_on_a_runtime_behind_a_socket() {
    let mut cluster = Cluster::cold();
    let engine = Engine::start(&cluster);
    let socket = format!("unix://{}/cri.sock", cluster.folder.path().display());
    let arguments = [
        "--container-runtime-endpoint",
        &socket,
        "--node-ip",
        "10.244.0.1",
    ];
    cluster.boot_with(&arguments);
    cluster.make_image(IMAGE);
    with(&cluster).ok_with("apply -f -", &POD.replace("IMAGE", IMAGE));
    with(&cluster).ok("wait --for=condition=Ready pod/web --timeout=60s");
    assert!(with(&cluster).ok("logs web").contains("listening"));
    let output = with(&cluster).output(
        "exec -i web -- /sampan demo-app fetch http://127.0.0.1:8080/",
        "",
    );
    assert!(String::from_utf8_lossy(&output.stdout).contains("from web"));
    let failed = with(&cluster).output("exec web -- /sampan no-such-command", "");
    assert_eq!(
        failed.status.code(),
        Some(2),
        "the exit code of the command"
    );
    with(&cluster).ok("expose pod web --port=80 --target-port=8080 --cluster-ip=10.96.7.7");
    let fetch = ["demo-app", "fetch", "http://10.96.7.7/"];
    eventually_or(
        "an answer of the service",
        || cluster.log(),
        || {
            cluster
                .sampan(&fetch)
                .output()
                .unwrap()
                .status
                .success()
                .then_some(())
        },
    );
    // A kubelet that dies finds its pods again; one that ends is told by the runtime.
    let id = "get pod web -o 'jsonpath={.status.containerStatuses[0].containerID}'";
    let before = with(&cluster).ok(id);
    cluster.kill();
    cluster.boot_with(&arguments);
    with(&cluster).ok("wait --for=condition=Ready pod/web --timeout=60s");
    assert_eq!(with(&cluster).ok(id), before);
    let done = format!("run done --image={IMAGE} --restart=Never -- /sampan no-such-command");
    with(&cluster).ok(&done);
    let phase = "wait --for=jsonpath={.status.phase}=Failed pod/done --timeout=60s";
    with(&cluster).ok(phase);
    let code = "get pod done -o jsonpath={.status.containerStatuses[0].state.terminated.exitCode}";
    assert_eq!(with(&cluster).ok(code), "2");
    with(&cluster).ok("delete pod web done --timeout=60s");
    cluster.terminate();
    drop(engine);
}
