//! What a pod specification means where it is silent; for pods and for templates.

use meta::Quantity;
use serde_json::{Map, Value};

use crate::tree::Tree;

/// The permissions of files that volumes hold: rw-r--r--.
const FILE_MODE: i64 = 0o644;
/// How long projected tokens live.
const TOKEN_SECONDS: i64 = 3600;
const GRACE_PERIOD_SECONDS: i64 = 30;
const TERMINATION_MESSAGE_PATH: &str = "/dev/termination-log";
/// The lists of a specification that hold containers.
pub(crate) const CONTAINER_LISTS: [&str; 3] =
    ["initContainers", "containers", "ephemeralContainers"];

/// Defaults of a pod, beyond those that its specification shares with templates.
pub(super) fn default_pod(pod: &mut Value) {
    default_spec_at(pod, "spec");
    for list in ["spec.containers", "spec.initContainers"] {
        for container in pod.list_mut(list) {
            default_requests(container);
        }
    }
    default_pod_requests(pod);
    // Pods, not their templates, say at once what a negative grace comes to.
    if pod.int("spec.terminationGracePeriodSeconds") < 0 {
        pod.set("spec.terminationGracePeriodSeconds", 1);
    }
    pod.fill("spec.enableServiceLinks", true);
    if pod.flag("spec.hostNetwork") {
        for list in ["spec.containers", "spec.initContainers"] {
            for container in pod.list_mut(list) {
                for port in container.list_mut("ports") {
                    let number = port.int("containerPort");
                    port.fill_zero("hostPort", number);
                }
            }
        }
    }
}

/// Defaults of the pod specification at `path`, such as `spec.template.spec`.
pub(crate) fn default_spec_at(object: &mut Value, path: &str) {
    object.fill_map(path);
    let Some(spec) = object.at_mut(path) else {
        return;
    };
    spec.fill_text("dnsPolicy", "ClusterFirst");
    spec.fill_text("restartPolicy", "Always");
    spec.fill_map("securityContext");
    spec.fill("terminationGracePeriodSeconds", GRACE_PERIOD_SECONDS);
    spec.fill_text("schedulerName", "default-scheduler");
    sync_service_account(spec);
    if let Some(overhead) = spec.at_mut("overhead") {
        canonical_quantities(overhead);
    }
    for volume in spec.list_mut("volumes") {
        default_volume(volume);
    }
    for list in CONTAINER_LISTS {
        for container in spec.list_mut(list) {
            default_container(container);
        }
    }
}

/// Keeps the old and the new name of the service account's field the same.
pub(crate) fn sync_service_account(spec: &mut Value) {
    if spec.text("serviceAccountName").is_empty() && !spec.text("serviceAccount").is_empty() {
        let name = spec.at("serviceAccount").clone();
        spec.set("serviceAccountName", name);
    }
    if !spec.text("serviceAccountName").is_empty() {
        let name = spec.at("serviceAccountName").clone();
        spec.set("serviceAccount", name);
    }
}

fn default_container(container: &mut Value) {
    if container.text("imagePullPolicy").is_empty() {
        let policy = pull_policy(container.text("image"));
        container.set("imagePullPolicy", policy);
    }
    container.fill_text("terminationMessagePath", TERMINATION_MESSAGE_PATH);
    container.fill_text("terminationMessagePolicy", "File");
    container.fill_map("resources");
    for path in ["resources.limits", "resources.requests"] {
        if let Some(list) = container.at_mut(path) {
            canonical_quantities(list);
        }
    }
    for port in container.list_mut("ports") {
        port.fill_text("protocol", "TCP");
    }
    for variable in container.list_mut("env") {
        default_field_ref(variable, "valueFrom.fieldRef");
        if let Some(file) = variable.at_mut("valueFrom.fileKeyRef") {
            file.fill("optional", false);
        }
        default_divisor(variable, "valueFrom.resourceFieldRef");
    }
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(probe) = container.at_mut(name).filter(|probe| probe.is_object()) {
            default_probe(probe);
        }
    }
    for hook in ["lifecycle.postStart.httpGet", "lifecycle.preStop.httpGet"] {
        default_http_get(container, hook);
    }
}

/// Always for `:latest` (said or meant), else only when absent.
fn pull_policy(image: &str) -> &'static str {
    match super::image::tag(image) {
        Some("latest") => "Always",
        _ => "IfNotPresent",
    }
}

fn default_probe(probe: &mut Value) {
    probe.fill_zero("timeoutSeconds", 1);
    probe.fill_zero("periodSeconds", 10);
    probe.fill_zero("successThreshold", 1);
    probe.fill_zero("failureThreshold", 3);
    default_http_get(probe, "httpGet");
    if let Some(grpc) = probe.at_mut("grpc").filter(|grpc| grpc.is_object()) {
        grpc.fill("service", "");
    }
}

fn default_http_get(parent: &mut Value, path: &str) {
    if let Some(get) = parent.at_mut(path).filter(|get| get.is_object()) {
        get.fill_text("path", "/");
        get.fill_text("scheme", "HTTP");
    }
}

fn default_field_ref(parent: &mut Value, path: &str) {
    if let Some(field) = parent.at_mut(path).filter(|field| field.is_object()) {
        field.fill_text("apiVersion", "v1");
    }
}

/// A divisor is always shown, `0` meaning the resource's usual unit.
fn default_divisor(parent: &mut Value, path: &str) {
    if let Some(field) = parent.at_mut(path).filter(|field| field.is_object()) {
        field.fill("divisor", "0");
        canonical_quantity(field, "divisor");
    }
}

fn default_volume(volume: &mut Value) {
    let sourceless = volume
        .fields("")
        .all(|(field, value)| field == "name" || value.is_null());
    if sourceless && volume.is_object() {
        volume.fill_map("emptyDir");
    }
    for source in ["secret", "configMap", "downwardAPI", "projected"] {
        if let Some(source) = volume.at_mut(source).filter(|source| source.is_object()) {
            source.fill("defaultMode", FILE_MODE);
        }
    }
    for item in volume.list_mut("downwardAPI.items") {
        default_field_ref(item, "fieldRef");
        default_divisor(item, "resourceFieldRef");
    }
    crate::spot::null_if_empty(volume, "projected", "sources");
    for source in volume.list_mut("projected.sources") {
        for item in source.list_mut("downwardAPI.items") {
            default_field_ref(item, "fieldRef");
            default_divisor(item, "resourceFieldRef");
        }
        let token = source.at_mut("serviceAccountToken");
        if let Some(token) = token.filter(|token| token.is_object()) {
            token.fill("expirationSeconds", TOKEN_SECONDS);
        }
    }
    canonical_quantity(volume, "emptyDir.sizeLimit");
    if let Some(path) = volume.at_mut("hostPath").filter(|path| path.is_object()) {
        path.fill("type", "");
    }
    if let Some(image) = volume.at_mut("image").filter(|image| image.is_object()) {
        let policy = pull_policy(image.text("reference"));
        image.fill_text("pullPolicy", policy);
    }
    if let Some(iscsi) = volume.at_mut("iscsi").filter(|iscsi| iscsi.is_object()) {
        iscsi.fill_text("iscsiInterface", "default");
    }
    if let Some(claim) = volume.at_mut("ephemeral.volumeClaimTemplate.spec") {
        crate::core::default_claim_spec(claim);
    }
}

/// Requests are the limits where they are not given; only pods do this, not templates.
fn default_requests(container: &mut Value) {
    let Value::Object(limits) = container.at("resources.limits").clone() else {
        return;
    };
    container.fill_map("resources.requests");
    if let Some(Value::Object(requests)) = container.at_mut("resources.requests") {
        for (resource, limit) in limits {
            requests.entry(resource).or_insert(limit);
        }
    }
}

/// The pod's own requests, where it has limits of its own: what its containers ask for
/// together, else the pod's limit.
fn default_pod_requests(pod: &mut Value) {
    let Value::Object(limits) = pod.at("spec.resources.limits").clone() else {
        return;
    };
    if limits.is_empty() {
        return;
    }
    let mut requests = match pod.at("spec.resources.requests") {
        Value::Object(requests) => requests.clone(),
        _ => Map::new(),
    };
    for resource in ["cpu", "memory"] {
        if let Some(sum) = container_requests(pod, resource) {
            let sum = Value::from(sum.to_string());
            requests.entry(resource.to_owned()).or_insert(sum);
        }
    }
    for (resource, limit) in limits {
        let supported = resource == "cpu" || resource == "memory";
        if supported || resource.starts_with("hugepages-") {
            requests.entry(resource).or_insert(limit);
        }
    }
    if !requests.is_empty() {
        pod.set("spec.resources.requests", requests);
    }
}

/// What a pod's containers need of a resource at once; `None` when none says.
pub(crate) fn container_requests(pod: &Value, resource: &str) -> Option<Quantity> {
    let request = |container: &Value| {
        let amount = container.at("resources.requests").get(resource)?;
        Quantity::parse(&crate::table::plain(amount)).ok()
    };
    let (mut running, mut peak): (Option<Quantity>, Option<Quantity>) = (None, None);
    let add = |sum: Option<Quantity>, amount| Some(sum.map_or(amount, |sum| sum + amount));
    let mut sidecars = None;
    for container in pod.list("spec.initContainers") {
        let Some(amount) = request(container) else {
            continue;
        };
        if container.text("restartPolicy") == "Always" {
            sidecars = add(sidecars, amount);
            peak = peak.max(sidecars);
        } else {
            peak = peak.max(add(sidecars, amount));
        }
    }
    for amount in pod.list("spec.containers").iter().filter_map(request) {
        running = add(running, amount);
    }
    let together = match (running, sidecars) {
        (Some(running), Some(sidecars)) => Some(running + sidecars),
        (running, sidecars) => running.or(sidecars),
    };
    together.max(peak)
}

/// Writes each quantity in its canonical form, thousandths being the finest.
pub(crate) fn canonical_quantities(list: &mut Value) {
    let Value::Object(list) = list else { return };
    for amount in list.values_mut() {
        if let Ok(quantity) = Quantity::parse(&crate::table::plain(amount)) {
            *amount = match quantity.nano() % 1_000_000 {
                0 => quantity.to_string(),
                _ => Quantity::from_milli(quantity.milli()).to_string(),
            }
            .into();
        }
    }
}

/// The same for a single quantity, where there is one.
fn canonical_quantity(tree: &mut Value, path: &str) {
    let Some(amount) = tree.at_mut(path).filter(|amount| !amount.is_null()) else {
        return;
    };
    if let Ok(quantity) = Quantity::parse(&crate::table::plain(amount)) {
        *amount = quantity.to_string().into();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(spec: Value, path: &str, expected: Value) {
        let mut pod = json!({ "spec": spec });
        default_pod(&mut pod);
        let once = pod.clone();
        default_pod(&mut pod);
        assert_eq!(pod, once, "defaulting twice changes nothing");
        assert_eq!(pod.at(path), &expected, "{path} in {pod}");
    }

    #[test]
    fn a_specification_is_filled() {
        check(
            json!({"containers": [{"name": "a", "image": "nginx:1", "ports": [{"containerPort": 80}]}]}),
            "spec",
            json!({
                "containers": [{
                    "name": "a", "image": "nginx:1", "imagePullPolicy": "IfNotPresent",
                    "ports": [{"containerPort": 80, "protocol": "TCP"}], "resources": {},
                    "terminationMessagePath": "/dev/termination-log",
                    "terminationMessagePolicy": "File",
                }],
                "dnsPolicy": "ClusterFirst", "enableServiceLinks": true,
                "restartPolicy": "Always", "schedulerName": "default-scheduler",
                "securityContext": {}, "terminationGracePeriodSeconds": 30,
            }),
        );
    }

    #[test]
    fn a_negative_grace_is_the_least() {
        let grace = "spec.terminationGracePeriodSeconds";
        check(
            json!({"terminationGracePeriodSeconds": -5}),
            grace,
            json!(1),
        );
        check(json!({"terminationGracePeriodSeconds": 0}), grace, json!(0));
    }

    #[test]
    fn pull_policy_follows_the_tag() {
        for (image, policy) in [
            ("nginx", "Always"),
            ("nginx:latest", "Always"),
            ("nginx:1", "IfNotPresent"),
            ("localhost:5000/nginx", "Always"),
            ("localhost:5000/nginx:1", "IfNotPresent"),
            ("nginx@sha256:00", "IfNotPresent"),
            ("", "IfNotPresent"),
        ] {
            assert_eq!(pull_policy(image), policy, "{image}");
        }
    }

    #[test]
    fn requests_follow_limits() {
        check(
            json!({"containers": [{"resources": {
                "limits": {"cpu": "0.5", "memory": "1024Mi"}, "requests": {"cpu": 1}}}]}),
            "spec.containers",
            json!([{"imagePullPolicy": "IfNotPresent",
                "terminationMessagePath": "/dev/termination-log",
                "terminationMessagePolicy": "File",
                "resources": {"limits": {"cpu": "500m", "memory": "1Gi"},
                    "requests": {"cpu": "1", "memory": "1Gi"}}}]),
        );
    }

    #[test]
    fn volumes_and_probes_are_filled() {
        check(
            json!({"volumes": [{"name": "a"}, {"name": "b", "secret": {"secretName": "s"}},
                {"name": "c", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}}]}),
            "spec.volumes",
            json!([{"name": "a", "emptyDir": {}},
                {"name": "b", "secret": {"secretName": "s", "defaultMode": 420}},
                {"name": "c", "projected": {"defaultMode": 420, "sources": [
                    {"serviceAccountToken": {"path": "t", "expirationSeconds": 3600}}]}}]),
        );
        let mut probe = json!({"httpGet": {"port": 80}});
        default_probe(&mut probe);
        let expected = json!({"httpGet": {"port": 80, "path": "/", "scheme": "HTTP"},
            "timeoutSeconds": 1, "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3});
        assert_eq!(probe, expected);
    }

    #[test]
    fn host_network_opens_host_ports() {
        check(
            json!({"hostNetwork": true, "containers": [{"ports": [{"containerPort": 80}]}]}),
            "spec.containers",
            json!([{"imagePullPolicy": "IfNotPresent", "resources": {},
                "terminationMessagePath": "/dev/termination-log",
                "terminationMessagePolicy": "File",
                "ports": [{"containerPort": 80, "hostPort": 80, "protocol": "TCP"}]}]),
        );
    }
}
