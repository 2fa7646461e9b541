//! The demonstration, step by step.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use client::{Client, Kind, ListOptions, Patch, WriteOptions};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Node, Pod, Service};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

use super::cluster::Cluster;
use super::{Script, manifests};
use crate::demo_app::fetch;

/// Longest wait for anything in the cluster.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long the application is watched while no server runs.
const WITHOUT_SERVER: Duration = Duration::from_secs(2);
const NAMESPACE: &str = "demo";

type Facts = Vec<(String, String)>;

/// All steps; returns facts for the summary.
pub(crate) async fn all(script: &mut Script, cluster: &mut Cluster) -> Result<Facts> {
    let begin = Instant::now();
    let client = script
        .step("Start a cluster", "sampan server &", async {
            start(cluster).await
        })
        .await?;
    script
        .step("Make an image of this very binary", "", async {
            make_image(cluster)
        })
        .await?;
    script
        .step(
            "Deploy an application",
            "kubectl apply -f demo.yaml",
            apply(cluster),
        )
        .await?;
    let first = script
        .step(
            "First answer",
            "curl http://<cluster ip>/",
            first_answer(&client, begin),
        )
        .await?;
    let wait = "kubectl -n demo rollout status deployment/web\nkubectl -n demo wait --for=condition=Ready pod/client";
    script
        .step("Wait for the roll-out", wait, roll_out(&client, 3, "v1"))
        .await?;
    let ways = "curl http://<cluster ip>/\ncurl http://localhost:30080/\nkubectl -n demo exec client -- /sampan demo-app fetch http://web.demo.svc.cluster.local/";
    script
        .step("Every way in", ways, every_way(&client, cluster))
        .await?;
    let more = "kubectl -n demo scale deployment/web --replicas=5";
    script.step("Scale to five", more, scale(&client)).await?;
    let change = "kubectl -n demo set env deployment/web VERSION=v2\nkubectl -n demo rollout status deployment/web";
    script
        .step("Roll to v2 while a client counts", change, update(&client))
        .await?;
    let logs = "kubectl -n demo logs client --tail=1";
    let (requests, failures) = script
        .step("What the client counted", logs, count(&client))
        .await?;
    if failures != 0 {
        bail!("{failures} of {requests} requests failed during scaling and roll-out");
    }
    script
        .step(
            "Kill a container",
            "kill -9 <its process>",
            kill_container(&client),
        )
        .await?;
    let gap = script
        .step("Kill the server", "kill -9 <sampan server>", async {
            kill_server(&client, cluster).await
        })
        .await?;
    Ok(vec![
        (
            "first answer after".into(),
            format!("{:.2} s from an empty folder", first.as_secs_f64()),
        ),
        (
            "failed requests during scaling and roll-out".into(),
            format!("0 of {requests}"),
        ),
        (
            "longest silence of the application without a server".into(),
            format!("{} ms", gap.as_millis()),
        ),
    ])
}

async fn start(cluster: &mut Cluster) -> Result<(Client, String)> {
    let client = cluster.start().await?;
    let node = until::<Node>(&client, None, "demo", node_is_ready).await?;
    let info = node.status.and_then(|status| status.node_info);
    let version = info.map(|info| info.kubelet_version).unwrap_or_default();
    Ok((client, format!("node demo is Ready, {version}")))
}

fn make_image(cluster: &Cluster) -> Result<((), String)> {
    crate::image::from_own_binary(cluster.folder(), cluster.binary(), manifests::IMAGE)?;
    Ok(((), manifests::IMAGE.to_owned()))
}

async fn apply(cluster: &Cluster) -> Result<((), String)> {
    let path = cluster.folder().join("demo.yaml");
    std::fs::write(&path, manifests::APPLICATION)?;
    let output = tokio::process::Command::new(cluster.binary())
        .args(["apply", "-f"])
        .arg(&path)
        .arg("--kubeconfig")
        .arg(cluster.kubeconfig())
        .output()
        .await?;
    if !output.status.success() {
        bail!("{}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(((), String::from_utf8_lossy(&output.stdout).into_owned()))
}

async fn first_answer(client: &Client, begin: Instant) -> Result<(Duration, String)> {
    let url = cluster_url(client).await?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        match fetch(&url).await {
            Ok(answer) => return Ok((begin.elapsed(), answer)),
            Err(error) if Instant::now() > deadline => return Err(error),
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

async fn roll_out(client: &Client, replicas: i32, version: &str) -> Result<((), String)> {
    until::<Deployment>(client, Some(NAMESPACE), "web", |one| {
        is_rolled_out(one, replicas)
    })
    .await?;
    until::<Pod>(client, Some(NAMESPACE), "client", pod_is_ready).await?;
    let lines: Vec<String> = web_pods(client).await?.iter().map(describe).collect();
    Ok((
        (),
        format!("{version}: {}\n{}", lines.len(), lines.join("\n")),
    ))
}

async fn every_way(client: &Client, cluster: &Cluster) -> Result<((), String)> {
    let mut lines = Vec::new();
    let cluster_url = cluster_url(client).await?;
    let nodes = client
        .all::<Node>()
        .list(&ListOptions::default())
        .await?
        .items;
    let addresses = nodes
        .first()
        .and_then(|node| node.status.as_ref()?.addresses.clone());
    let internal = addresses
        .into_iter()
        .flatten()
        .find(|one| one.type_ == "InternalIP");
    let node_ip = internal.context("node has no address")?.address;
    let urls = [
        ("ClusterIP", cluster_url),
        ("NodePort", format!("http://{node_ip}:30080/")),
        (
            "localhost",
            format!("http://{}:30080/", Ipv4Addr::LOCALHOST),
        ),
    ];
    for (way, url) in urls {
        let answer = fetch(&url).await.with_context(|| format!("{way} {url}"))?;
        lines.push(format!("{way:<10} {url:<28} {}", answer.trim()));
    }
    let name = "http://web.demo.svc.cluster.local/";
    let answer = exec_in_client(cluster, &["/sampan", "demo-app", "fetch", name]).await?;
    lines.push(format!("{:<10} {name} {}", "DNS", answer.trim()));
    Ok(((), lines.join("\n")))
}

async fn exec_in_client(cluster: &Cluster, command: &[&str]) -> Result<String> {
    let output = tokio::process::Command::new(cluster.binary())
        .args(["exec", "-n", NAMESPACE, "client", "--kubeconfig"])
        .arg(cluster.kubeconfig())
        .arg("--")
        .args(command)
        .output()
        .await?;
    if !output.status.success() {
        bail!("exec: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

async fn scale(client: &Client) -> Result<((), String)> {
    let api = client.namespaced::<Deployment>(NAMESPACE);
    let patch = Patch::Merge(json!({"spec": {"replicas": 5}}));
    api.patch("web", &patch, &WriteOptions::default()).await?;
    roll_out(client, 5, "v1").await
}

async fn update(client: &Client) -> Result<((), String)> {
    let api = client.namespaced::<Deployment>(NAMESPACE);
    let env = json!([{"name": "VERSION", "value": "v2"}]);
    let patch =
        json!({"spec": {"template": {"spec": {"containers": [{"name": "web", "env": env}]}}}});
    api.patch("web", &Patch::Strategic(patch), &WriteOptions::default())
        .await?;
    roll_out(client, 5, "v2").await?;
    let answer = fetch(&cluster_url(client).await?).await?;
    if !answer.contains("version v2") {
        bail!("expected version v2, got {answer:?}");
    }
    Ok(((), answer))
}

/// The last line of the counting client's log.
async fn count(client: &Client) -> Result<((u64, u64), String)> {
    // The client prints once a second; wait for a line from after the roll-out.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let path = format!("/api/v1/namespaces/{NAMESPACE}/pods/client/log");
    let request = client::request::request(http::Method::GET, &path, None, client::empty())?;
    let log = client.bytes(request).await?;
    let log = String::from_utf8_lossy(&log);
    let line = log
        .lines()
        .rev()
        .find(|line| line.starts_with("requests="))
        .context("client says nothing")?;
    let number = |name: &str| {
        let word = line
            .split_whitespace()
            .find_map(|word| word.strip_prefix(name));
        word.and_then(|number| number.parse::<u64>().ok())
            .context("client's line is odd")
    };
    let failures: Vec<&str> = log
        .lines()
        .filter(|line| line.starts_with("failure"))
        .take(3)
        .collect();
    let note = format!("{line}\n{}", failures.join("\n"));
    Ok(((number("requests=")?, number("failures=")?), note))
}

async fn kill_container(client: &Client) -> Result<((), String)> {
    let pods = web_pods(client).await?;
    let victim = pods.first().context("no pods")?;
    let name = victim.metadata.name.clone().unwrap_or_default();
    let (id, restarts) = container(victim).context("pod has no container")?;
    let pid = process_of(&id)?;
    kill(Pid::from_raw(pid), Signal::SIGKILL)?;
    let killed = Instant::now();
    let restarted =
        |pod: &Pod| pod_is_ready(pod) && container(pod).is_some_and(|(_, now)| now > restarts);
    until::<Pod>(client, Some(NAMESPACE), &name, restarted).await?;
    let took = killed.elapsed().as_secs_f64();
    let answer = fetch(&cluster_url(client).await?).await?;
    Ok((
        (),
        format!(
            "{name} was restarted and is Ready again after {took:.2} s\n{}",
            answer.trim()
        ),
    ))
}

async fn kill_server(client: &Client, cluster: &mut Cluster) -> Result<(Duration, String)> {
    let before = containers(client).await?;
    let url = cluster_url(client).await?;
    let listener = tokio::spawn(longest_silence(url));
    cluster.kill().await?;
    tokio::time::sleep(WITHOUT_SERVER).await;
    let begin = Instant::now();
    let client = cluster.start().await?;
    until::<Node>(&client, None, "demo", node_is_ready).await?;
    until::<Deployment>(&client, Some(NAMESPACE), "web", |one| is_rolled_out(one, 5)).await?;
    let back = begin.elapsed().as_secs_f64();
    let after = containers(&client).await?;
    if before != after {
        bail!("containers changed over the crash:\n{before:?}\n{after:?}");
    }
    let gap = listener.await??;
    let note = format!(
        "the application answered all the time, longest silence {} ms\n\
         the cluster was back after {back:.2} s with the same {} containers, none restarted",
        gap.as_millis(),
        after.len()
    );
    Ok((gap, note))
}

/// Asks the application for some seconds; returns the longest time between two answers.
async fn longest_silence(url: String) -> Result<Duration> {
    let end = Instant::now() + WITHOUT_SERVER + Duration::from_secs(2);
    let (mut last, mut longest) = (Instant::now(), Duration::ZERO);
    while Instant::now() < end {
        fetch(&url)
            .await
            .context("the application stopped answering")?;
        longest = longest.max(last.elapsed());
        last = Instant::now();
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(longest)
}

/// Names, container ids and restart counts of the application's pods.
async fn containers(client: &Client) -> Result<BTreeMap<String, (String, i32)>> {
    let pods = web_pods(client).await?;
    let entry = |pod: &Pod| Some((pod.metadata.name.clone()?, container(pod)?));
    Ok(pods.iter().filter_map(entry).collect())
}

fn container(pod: &Pod) -> Option<(String, i32)> {
    let status = pod.status.as_ref()?.container_statuses.as_ref()?.first()?;
    let id = status.container_id.as_ref()?.rsplit('/').next()?.to_owned();
    Some((id, status.restart_count))
}

/// The process in whose cgroup's path the container's id stands; the oldest is its first.
fn process_of(container_id: &str) -> Result<i32> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        if groups.contains(container_id) {
            found.push(pid);
        }
    }
    found
        .into_iter()
        .min()
        .with_context(|| format!("no process of container {container_id}"))
}

async fn cluster_url(client: &Client) -> Result<String> {
    let service: Service = client.namespaced(NAMESPACE).get("web").await?;
    let ip = service
        .spec
        .and_then(|spec| spec.cluster_ip)
        .context("service has no address")?;
    Ok(format!("http://{ip}/"))
}

async fn web_pods(client: &Client) -> Result<Vec<Pod>> {
    let options = ListOptions {
        label_selector: Some("app=web".into()),
        ..ListOptions::default()
    };
    let mut pods = client
        .namespaced::<Pod>(NAMESPACE)
        .list(&options)
        .await?
        .items;
    pods.retain(|pod| pod.metadata.deletion_timestamp.is_none());
    Ok(pods)
}

fn describe(pod: &Pod) -> String {
    let status = pod.status.as_ref();
    let ip = status
        .and_then(|status| status.pod_ip.as_deref())
        .unwrap_or_default();
    let phase = status
        .and_then(|status| status.phase.as_deref())
        .unwrap_or_default();
    format!(
        "  {:<24} {phase:<8} {ip}",
        pod.metadata.name.as_deref().unwrap_or_default()
    )
}

fn node_is_ready(node: &Node) -> bool {
    let conditions = node
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_ref());
    conditions
        .into_iter()
        .flatten()
        .any(|one| one.type_ == "Ready" && one.status == "True")
}

fn pod_is_ready(pod: &Pod) -> bool {
    let conditions = pod
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_ref());
    conditions
        .into_iter()
        .flatten()
        .any(|one| one.type_ == "Ready" && one.status == "True")
}

fn is_rolled_out(deployment: &Deployment, replicas: i32) -> bool {
    let Some(status) = &deployment.status else {
        return false;
    };
    status.observed_generation == deployment.metadata.generation
        && [
            status.replicas,
            status.updated_replicas,
            status.available_replicas,
        ]
        .into_iter()
        .all(|count| count == Some(replicas))
}

/// Watches one object until `enough` says so.
async fn until<K: Kind>(
    client: &Client,
    namespace: Option<&str>,
    name: &str,
    enough: impl Fn(&K) -> bool,
) -> Result<K> {
    let api = match namespace {
        Some(namespace) => client.namespaced::<K>(namespace),
        None => client.all::<K>(),
    };
    match tokio::time::timeout(PATIENCE, api.until(name, enough)).await {
        Ok(found) => Ok(found?),
        Err(_) => bail!("{} {name} did not get there within {PATIENCE:?}", K::KIND),
    }
}
