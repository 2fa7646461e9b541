//! The same parts in five processes that meet at the API only.

use std::fs::OpenOptions;
use std::process::{Child, Stdio};

use crate::cluster::{Cluster, ON_ANY_DISK};
use crate::kubectl::{IMAGE, Kubectl, kubectls};

/// Processes that are ended, by their pids, when the test ends.
#[derive(Default)]
pub(crate) struct Parts(Vec<Child>);

impl Drop for Parts {
    fn drop(&mut self) {
        for part in &mut self.0 {
            part.kill().unwrap();
            part.wait().unwrap();
        }
    }
}

pub(crate) fn start(cluster: &Cluster, parts: &mut Parts, role: &str, more: &[String]) {
    let log = OpenOptions::new()
        .create(true)
        .append(true)
        .open(cluster.log_path())
        .unwrap();
    let mut command = cluster.namespace.command(env!("CARGO_BIN_EXE_sampan"));
    command
        .args([
            "server",
            "--role",
            role,
            "--node-name",
            "node-1",
            "--node-ip",
            "10.244.0.1",
        ])
        .args(if role == "kubelet" {
            &ON_ANY_DISK[..]
        } else {
            &[]
        })
        .args(more)
        .env_remove("KUBECONFIG")
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log);
    parts.0.push(command.spawn().unwrap());
}

#[test]
fn five_processes_make_a_cluster() {
    let cluster = Cluster::cold();
    let mut parts = Parts(Vec::new());
    let folder = cluster.folder.path().display().to_string();
    let api = ["--data-dir", &folder, "--bind-address", "0.0.0.0"].map(str::to_owned);
    start(&cluster, &mut parts, "apiserver", &api);
    let kubectl = Kubectl {
        cluster: &cluster,
        binary: kubectls().remove(0),
        namespace: "default".into(),
    };
    kubectl.until("get --raw /readyz", "ok");

    let part = |role: &str| {
        let config = format!("{folder}/{role}.kubeconfig");
        let data = format!("{folder}/{role}");
        vec![
            "--kubeconfig".to_owned(),
            config,
            "--data-dir".to_owned(),
            data,
        ]
    };
    for role in ["scheduler", "controller-manager", "proxy"] {
        start(&cluster, &mut parts, role, &part(role));
    }
    // The node keeps its containers where `purge` will look for them.
    let mut kubelet = part("kubelet");
    kubelet.truncate(2);
    let pki = format!("{folder}/pki");
    for (flag, value) in [
        ("--data-dir", folder.clone()),
        ("--tls-cert-file", format!("{pki}/kubelet.crt")),
        ("--tls-private-key-file", format!("{pki}/kubelet.key")),
        ("--client-ca-file", format!("{pki}/ca.crt")),
    ] {
        kubelet.extend([flag.to_owned(), value]);
    }
    start(&cluster, &mut parts, "kubelet", &kubelet);
    kubectl.until("get nodes --no-headers", " Ready ");

    cluster.make_image(IMAGE);
    kubectl.ok(&format!(
        "create deployment web --image={IMAGE} --replicas=2 -- /sampan demo-app serve"
    ));
    kubectl.ok("rollout status deployment/web --timeout=60s");
    kubectl.ok("expose deployment web --port=80 --target-port=8080 --cluster-ip=10.96.7.7");
    kubectl.until(
        "get endpointslices -l kubernetes.io/service-name=web",
        "10.244.",
    );
    let answer = crate::cluster::eventually_or(
        "an answer",
        || cluster.log(),
        || {
            let output = cluster
                .sampan(&["demo-app", "fetch", "http://10.96.7.7/"])
                .output()
                .unwrap();
            output
                .status
                .success()
                .then(|| String::from_utf8_lossy(&output.stdout).into_owned())
        },
    );
    assert!(answer.contains("from web-"), "{answer}");
    assert!(kubectl.ok("logs deployment/web").contains("listening"));
    kubectl.ok("delete deployment web --wait=true");
    kubectl.ok("wait --for=delete pod -l app=web --timeout=60s");
}
