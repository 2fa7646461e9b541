//! `/metrics/cadvisor`: containers, pods and the machine in cAdvisor's names and labels.

mod families;

use http::{Response, StatusCode};
use node_api::{ContainerFigures, ContainerStats, InterfaceStats, LinuxResources};

use super::gather::{self, PodUse};
use super::page::{PROMETHEUS, Page, labels};
use super::{Body, with_type};
use crate::pod::PodExt;
use crate::resources;
use crate::shared::Shared;

/// One cgroup: of a container, a pod or the machine.
#[derive(Default)]
struct Row {
    id: String,
    name: String,
    image: String,
    namespace: String,
    pod: String,
    container: String,
    stats: ContainerStats,
    /// Nanoseconds since the epoch.
    begun: i64,
    figures: Option<ContainerFigures>,
    spec: Option<LinuxResources>,
    interfaces: Vec<InterfaceStats>,
}

impl Row {
    /// Its labels, and further ones.
    fn labels(&self, more: &[(&str, &str)]) -> String {
        let mut all = vec![
            ("container", self.container.as_str()),
            ("id", &self.id),
            ("image", &self.image),
            ("name", &self.name),
            ("namespace", &self.namespace),
            ("pod", &self.pod),
        ];
        all.extend(more);
        all.sort_unstable();
        labels(&all)
    }
}

/// Answers with the page; what the runtime does not tell is an error on it.
pub(super) async fn answer(shared: &Shared) -> Response<Body> {
    let mut rows = vec![Row {
        id: "/".to_owned(),
        stats: gather::machine(),
        ..Row::default()
    }];
    let mut failed = false;
    match gather::pods(shared).await {
        Ok(pods) => {
            for pod in &pods {
                rows.push(whole(shared, pod));
                for stats in &pod.containers {
                    rows.push(container(shared, pod, stats).await);
                }
            }
        }
        Err(fault) => {
            tracing::warn!(%fault, "containers not measured");
            failed = true;
        }
    }
    let mut page = Page::default();
    families::write(&mut page, &rows);
    let help = "1 if there was an error while getting container metrics, 0 otherwise";
    page.family("container_scrape_error", "gauge", help);
    page.sample(
        "container_scrape_error",
        "",
        f64::from(u8::from(failed)),
        None,
    );
    machine(&mut page, shared);
    with_type(StatusCode::OK, page.into_text(), PROMETHEUS)
}

fn whole(shared: &Shared, pod: &PodUse) -> Row {
    let view = &pod.view;
    let sandbox = pod.sandbox.as_ref();
    let sandboxes = view.sandboxes.values();
    Row {
        id: resources::cgroup_parent(&view.pod, &shared.config),
        namespace: view.pod.namespace().to_owned(),
        pod: view.pod.name().to_owned(),
        stats: pod.total(),
        begun: sandboxes.map(|own| own.created_at).max().unwrap_or(0),
        interfaces: sandbox
            .map(|own| own.interfaces.clone())
            .unwrap_or_default(),
        ..Row::default()
    }
}

async fn container(shared: &Shared, pod: &PodUse, stats: &ContainerStats) -> Row {
    let view = &pod.view;
    let status = pod.status(stats);
    let parent = resources::cgroup_parent(&view.pod, &shared.config);
    Row {
        id: format!("{parent}/{}", stats.id),
        name: stats.id.clone(),
        image: status.map_or_else(String::new, |own| own.config.user_specified_image.clone()),
        namespace: view.pod.namespace().to_owned(),
        pod: view.pod.name().to_owned(),
        container: stats.name.clone(),
        stats: stats.clone(),
        begun: status.map_or(0, |own| own.started_at),
        // It may have ended since it was listed.
        figures: shared.runtime.container_figures(&stats.id).await.ok(),
        spec: status.map(|own| own.config.resources.clone()),
        interfaces: Vec::new(),
    }
}

/// What the machine has.
fn machine(page: &mut Page, shared: &Shared) {
    let machine = &shared.machine;
    let about = labels(&[
        ("boot_id", machine.boot_id.as_str()),
        ("machine_id", &machine.machine_id),
        ("system_uuid", &machine.system_uuid),
    ]);
    let swap = crate::machine::memory("SwapTotal:");
    for (name, help, value) in [
        (
            "machine_cpu_cores",
            "Number of logical CPU cores.",
            machine.milli_cpus / 1_000,
        ),
        (
            "machine_memory_bytes",
            "Amount of memory installed on the machine.",
            machine.memory_bytes,
        ),
        (
            "machine_swap_bytes",
            "Amount of swap memory available on the machine.",
            swap,
        ),
    ] {
        page.family(name, "gauge", help);
        page.sample(name, &about, value as f64, None);
    }
    let help = "1 if there was an error while getting machine metrics, 0 otherwise.";
    page.family("machine_scrape_error", "gauge", help);
    page.sample("machine_scrape_error", "", 0.0, None);
}
