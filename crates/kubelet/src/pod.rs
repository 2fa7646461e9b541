//! Short words for what is asked of a pod's object again and again.

use std::borrow::Cow;
use std::path::PathBuf;

use k8s_openapi::api::core::v1::{
    Container, EphemeralContainer, ImageVolumeSource, Pod, PodSpec, PodStatus,
};

/// Annotation with where a pod came from: `api` or `file`.
pub(crate) const CONFIG_SOURCE: &str = "kubernetes.io/config.source";
/// Annotation with the hash of a static pod's manifest.
pub(crate) const CONFIG_HASH: &str = "kubernetes.io/config.hash";
/// Annotation that marks the API's image of a static pod.
pub(crate) const CONFIG_MIRROR: &str = "kubernetes.io/config.mirror";
/// Annotation with when this node saw the pod first.
pub(crate) const CONFIG_SEEN: &str = "kubernetes.io/config.seen";

/// Grace when a pod names none, in seconds.
const GRACE_SECONDS_DEFAULT: i64 = 30;

/// Priority of what the cluster cannot do without (`system-cluster-critical`).
pub(crate) const CRITICAL_PRIORITY: i32 = 2_000_000_000;

static EMPTY_SPEC: std::sync::LazyLock<PodSpec> = std::sync::LazyLock::new(PodSpec::default);
static EMPTY_STATUS: std::sync::LazyLock<PodStatus> = std::sync::LazyLock::new(PodStatus::default);

/// What a container is to its pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Runs to its end before the next.
    Init,
    /// Starts among the init containers and keeps running.
    Sidecar,
    Main,
    /// Put into the running pod by somebody who looks for a fault; never started again.
    Ephemeral,
}

/// A port of the node that a pod takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HostPort {
    protocol: String,
    address: String,
    number: i32,
}

impl HostPort {
    /// Whether two cannot be had at one time.
    pub(crate) fn clashes(&self, other: &HostPort) -> bool {
        let everywhere = |port: &HostPort| matches!(port.address.as_str(), "0.0.0.0" | "::");
        (&self.protocol, self.number) == (&other.protocol, other.number)
            && (self.address == other.address || everywhere(self) || everywhere(other))
    }
}

/// Reads a pod.
pub(crate) trait PodExt {
    fn uid(&self) -> &str;
    fn name(&self) -> &str;
    fn namespace(&self) -> &str;
    fn spec(&self) -> &PodSpec;
    fn status(&self) -> &PodStatus;
    fn annotation(&self, key: &str) -> Option<&str>;
    /// `name_namespace(uid)`, as events name pods.
    fn display(&self) -> String;
    fn init_containers(&self) -> &[Container];
    /// All but ephemeral containers with their roles, in the order they start.
    fn all_containers(&self) -> Vec<(Role, &Container)>;
    /// Containers put into the running pod, in the order they came.
    fn ephemeral_containers(&self) -> Vec<Container>;
    /// Any container, ephemeral ones too.
    fn container(&self, name: &str) -> Option<(Role, Cow<'_, Container>)>;
    /// The container whose processes an ephemeral one is to see.
    fn target_of(&self, name: &str) -> Option<&str>;
    fn restart_policy(&self) -> &str;
    fn host_network(&self) -> bool;
    /// The node's ports it takes.
    fn host_ports(&self) -> Vec<HostPort>;
    /// Whether its ids are not the node's.
    fn has_user_namespace(&self) -> bool;
    /// The image a volume is.
    fn image_volume(&self, name: &str) -> Option<&ImageVolumeSource>;
    /// Whether it came from a file of this node.
    fn is_static(&self) -> bool;
    fn is_mirror(&self) -> bool;
    /// Whether the cluster cannot do without it.
    fn is_critical(&self) -> bool;
    fn is_deleting(&self) -> bool;
    /// Whether the API has it as Succeeded or Failed.
    fn is_terminal(&self) -> bool;
    /// Seconds the containers have to end.
    fn grace_seconds(&self) -> i64;
    /// `<namespace>_<name>_<uid>`, the folder of the logs.
    fn log_folder(&self) -> PathBuf;
}

/// The role of an init container.
pub(crate) fn init_role(container: &Container) -> Role {
    match container.restart_policy.as_deref() {
        Some("Always") => Role::Sidecar,
        _ => Role::Init,
    }
}

/// An ephemeral container as any other.
fn plain(ephemeral: &EphemeralContainer) -> Container {
    Container {
        args: ephemeral.args.clone(),
        command: ephemeral.command.clone(),
        env: ephemeral.env.clone(),
        env_from: ephemeral.env_from.clone(),
        image: ephemeral.image.clone(),
        image_pull_policy: ephemeral.image_pull_policy.clone(),
        name: ephemeral.name.clone(),
        security_context: ephemeral.security_context.clone(),
        stdin: ephemeral.stdin,
        stdin_once: ephemeral.stdin_once,
        termination_message_path: ephemeral.termination_message_path.clone(),
        termination_message_policy: ephemeral.termination_message_policy.clone(),
        tty: ephemeral.tty,
        volume_devices: ephemeral.volume_devices.clone(),
        volume_mounts: ephemeral.volume_mounts.clone(),
        working_dir: ephemeral.working_dir.clone(),
        // What else an ephemeral container has, the API refuses.
        ..Container::default()
    }
}

impl PodExt for Pod {
    fn uid(&self) -> &str {
        self.metadata.uid.as_deref().unwrap_or_default()
    }

    fn name(&self) -> &str {
        self.metadata.name.as_deref().unwrap_or_default()
    }

    fn namespace(&self) -> &str {
        self.metadata.namespace.as_deref().unwrap_or_default()
    }

    fn spec(&self) -> &PodSpec {
        self.spec.as_ref().unwrap_or(&EMPTY_SPEC)
    }

    fn status(&self) -> &PodStatus {
        self.status.as_ref().unwrap_or(&EMPTY_STATUS)
    }

    fn annotation(&self, key: &str) -> Option<&str> {
        let annotations = self.metadata.annotations.as_ref()?;
        annotations.get(key).map(String::as_str)
    }

    fn display(&self) -> String {
        format!("{}_{}({})", self.name(), self.namespace(), self.uid())
    }

    fn init_containers(&self) -> &[Container] {
        self.spec().init_containers.as_deref().unwrap_or_default()
    }

    fn all_containers(&self) -> Vec<(Role, &Container)> {
        let inits = self.init_containers().iter().map(|c| (init_role(c), c));
        let mains = self.spec().containers.iter().map(|c| (Role::Main, c));
        inits.chain(mains).collect()
    }

    fn ephemeral_containers(&self) -> Vec<Container> {
        let all = self.spec().ephemeral_containers.iter().flatten();
        all.map(plain).collect()
    }

    fn container(&self, name: &str) -> Option<(Role, Cow<'_, Container>)> {
        let all = self.all_containers().into_iter();
        let mut named = all.filter(|(_, container)| container.name == name);
        if let Some((role, container)) = named.next() {
            return Some((role, Cow::Borrowed(container)));
        }
        let mut ephemeral = self.spec().ephemeral_containers.iter().flatten();
        let found = ephemeral.find(|container| container.name == name)?;
        Some((Role::Ephemeral, Cow::Owned(plain(found))))
    }

    fn target_of(&self, name: &str) -> Option<&str> {
        let mut all = self.spec().ephemeral_containers.iter().flatten();
        let found = all.find(|container| container.name == name)?;
        let target = found.target_container_name.as_deref();
        target.filter(|target| !target.is_empty())
    }

    fn restart_policy(&self) -> &str {
        self.spec().restart_policy.as_deref().unwrap_or("Always")
    }

    fn host_network(&self) -> bool {
        self.spec().host_network == Some(true)
    }

    fn host_ports(&self) -> Vec<HostPort> {
        let lasting = self.all_containers().into_iter();
        let lasting = lasting.filter(|(role, _)| *role != Role::Init);
        let ports = lasting.flat_map(|(_, container)| container.ports.iter().flatten());
        let taken = ports.filter_map(|port| {
            let address = port.host_ip.clone().filter(|ip| !ip.is_empty());
            Some(HostPort {
                protocol: port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()),
                address: address.unwrap_or_else(|| "0.0.0.0".to_owned()),
                number: port.host_port.filter(|number| *number > 0)?,
            })
        });
        taken.collect()
    }

    fn has_user_namespace(&self) -> bool {
        self.spec().host_users == Some(false)
    }

    fn image_volume(&self, name: &str) -> Option<&ImageVolumeSource> {
        let mut all = self.spec().volumes.iter().flatten();
        all.find(|volume| volume.name == name)?.image.as_ref()
    }

    fn is_static(&self) -> bool {
        self.annotation(CONFIG_SOURCE)
            .is_some_and(|source| source != "api")
            && !self.is_mirror()
    }

    fn is_mirror(&self) -> bool {
        self.annotation(CONFIG_MIRROR).is_some()
    }

    fn is_critical(&self) -> bool {
        self.is_static() || self.spec().priority >= Some(CRITICAL_PRIORITY)
    }

    fn is_deleting(&self) -> bool {
        self.metadata.deletion_timestamp.is_some()
    }

    fn is_terminal(&self) -> bool {
        matches!(self.status().phase.as_deref(), Some("Succeeded" | "Failed"))
    }

    fn grace_seconds(&self) -> i64 {
        let deletion = self.metadata.deletion_grace_period_seconds;
        let grace = deletion.or(self.spec().termination_grace_period_seconds);
        grace.unwrap_or(GRACE_SECONDS_DEFAULT).max(1)
    }

    fn log_folder(&self) -> PathBuf {
        PathBuf::from(format!(
            "{}_{}_{}",
            self.namespace(),
            self.name(),
            self.uid()
        ))
    }
}

/// Nanoseconds since the epoch as an instant.
pub(crate) fn instant(nanos: i64) -> jiff::Timestamp {
    jiff::Timestamp::from_nanosecond(i128::from(nanos)).unwrap_or(jiff::Timestamp::UNIX_EPOCH)
}

/// The same as the API has it; `None` for zero.
pub(crate) fn api_time(nanos: i64) -> Option<k8s_openapi::apimachinery::pkg::apis::meta::v1::Time> {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    // The API writes whole seconds; what is compared must be what comes back.
    (nanos != 0).then(|| Time(whole_seconds(instant(nanos))))
}

/// An instant without its fraction of a second, as the API keeps it.
pub(crate) fn whole_seconds(at: jiff::Timestamp) -> jiff::Timestamp {
    jiff::Timestamp::from_second(at.as_second()).unwrap_or(at)
}
