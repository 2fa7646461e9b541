//! `/metrics/cadvisor`: containers, pods and the machine in cAdvisor's names and labels.

mod families;

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use http::{Response, StatusCode};
use nix::sys::stat;
use node_api::{ContainerFigures, ContainerStats, InterfaceStats, LinuxResources};

use super::gather::{self, PodUse};
use super::page::{PROMETHEUS, Page, labels};
use super::{Body, with_type};
use crate::machine::{self, Disk};
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
    space: Option<Space>,
}

/// What something takes of a file system, and how large that is.
struct Space {
    device: String,
    used: i64,
    disk: Disk,
}

impl Space {
    /// Of the file system a path is on; `used` tells what of it counts.
    fn of(path: &Path, used: impl FnOnce(&Disk) -> i64) -> Option<Space> {
        let disk = machine::disk(path)?;
        let number = std::fs::metadata(path).ok()?.dev();
        let (major, minor) = (stat::major(number), stat::minor(number));
        Some(Space {
            device: machine::device(major, minor),
            used: used(&disk),
            disk,
        })
    }
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
        space: Space::of(&shared.config.root_dir, |disk| disk.total - disk.available),
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
    whole_machine(&mut page, shared);
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
    let layer = shared.measures.layer(shared, &stats.id).await;
    let used = i64::try_from(layer.used_bytes).unwrap_or(i64::MAX);
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
        // It has no place where the runtime does not tell.
        space: Space::of(&layer.mountpoint, |_| used),
    }
}

/// What the machine has.
fn whole_machine(page: &mut Page, shared: &Shared) {
    let all = &shared.machine;
    let about = labels(&[
        ("boot_id", all.boot_id.as_str()),
        ("machine_id", &all.machine_id),
        ("system_uuid", &all.system_uuid),
    ]);
    let swap = machine::memory("SwapTotal:");
    for (name, help, value) in [
        (
            "machine_cpu_cores",
            "Number of logical CPU cores.",
            all.milli_cpus / 1_000,
        ),
        (
            "machine_memory_bytes",
            "Amount of memory installed on the machine.",
            all.memory_bytes,
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
