//! Pods, workloads and namespaces against labels and configuration.

use meta::Object;
use serde_json::{Value, json};

use super::*;
use crate::testing::{Asked, World, object, request};

fn world(labels: Value) -> World {
    World::default().with(
        "namespaces",
        json!({"metadata": {"name": "default", "labels": labels}}),
    )
}

fn label(name: &str) -> String {
    format!("pod-security.kubernetes.io/{name}")
}

/// What the plugin says of an object: the refusal or nothing, and all notes.
fn judged(
    plugin: &PodSecurity,
    world: &World,
    asked: &Asked,
    given: &Object,
) -> (String, Vec<String>) {
    let refusal = plugin.validate(&asked.borrow(), Some(given), world);
    let refusal = refusal
        .err()
        .map_or_else(String::new, |status| status.message);
    (refusal, std::mem::take(&mut *asked.notes.0.lock()))
}

fn pod(spec: Value) -> Object {
    object(json!({"metadata": {"name": "web"}, "spec": spec}))
}

/// What enforcing a standard says of a pod.
fn check(level: &str, version: &str, given: Object, expected: &str) {
    let world = world(json!({label("enforce"): level, label("enforce-version"): version}));
    let asked = request(Operation::Create, "pods", "web");
    let (refusal, _) = judged(&PodSecurity::default(), &world, &asked, &given);
    let prefix = format!("pods \"web\" is forbidden: violates PodSecurity \"{level}:{version}\": ");
    let says = refusal.strip_prefix(&prefix).unwrap_or(&refusal);
    assert_eq!(says, expected, "{given:?}");
}

fn hardened() -> Value {
    json!({"allowPrivilegeEscalation": false, "runAsNonRoot": true,
        "capabilities": {"drop": ["ALL"]}, "seccompProfile": {"type": "RuntimeDefault"}})
}

#[test]
fn a_plain_pod_is_not_restricted() {
    let plain = || pod(json!({"containers": [{"name": "x"}]}));
    check("baseline", "latest", plain(), "");
    check(
        "restricted",
        "latest",
        plain(),
        "allowPrivilegeEscalation != false (container \"x\" must set \
         securityContext.allowPrivilegeEscalation=false), unrestricted capabilities (container \
         \"x\" must set securityContext.capabilities.drop=[\"ALL\"]), runAsNonRoot != true (pod or \
         container \"x\" must set securityContext.runAsNonRoot=true), seccompProfile (pod or \
         container \"x\" must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \
         \"Localhost\")",
    );
    check(
        "restricted",
        "v1.7",
        plain(),
        "runAsNonRoot != true (pod or container \"x\" must set securityContext.runAsNonRoot=true)",
    );
    let good = json!({"containers": [{"name": "x", "securityContext": hardened()}]});
    check("restricted", "latest", pod(good), "");
}

#[test]
fn every_way_out_is_named() {
    let spec = json!({
        "hostNetwork": true, "hostPID": true,
        "securityContext": {"sysctls": [{"name": "net.ipv4.tcp_rmem"}, {"name": "kernel.x"}],
            "seLinuxOptions": {"type": "spc_t", "user": "u"},
            "seccompProfile": {"type": "Unconfined"}, "windowsOptions": {"hostProcess": true},
            "appArmorProfile": {"type": "Unconfined"}},
        "volumes": [{"name": "a", "hostPath": {"path": "/"}}, {"name": "b", "nfs": {}}],
        "initContainers": [{"name": "i", "securityContext": {"privileged": true,
            "procMount": "Unmasked", "capabilities": {"add": ["NET_RAW", "CHOWN", "BPF"]}}}],
        "containers": [{"name": "c", "ports": [{"hostPort": 80}, {"hostPort": 8080}],
            "livenessProbe": {"httpGet": {"host": "h"}},
            "securityContext": {"runAsUser": 0, "capabilities": {"add": ["NET_RAW"]}}}],
    });
    check(
        "baseline",
        "latest",
        pod(spec.clone()),
        "forbidden AppArmor profile (pod must not set AppArmor profile type to \"Unconfined\"), \
         non-default capabilities (containers \"i\", \"c\" must not include \"BPF\", \"NET_RAW\" \
         in securityContext.capabilities.add), host namespaces (hostNetwork=true, hostPID=true), \
         hostPath volumes (volume \"a\"), hostPort (container \"c\" uses hostPorts 80, 8080), \
         probe or lifecycle host (container \"c\" uses probe or lifecycle host \"h\"), privileged \
         (container \"i\" must not set securityContext.privileged=true), procMount (container \
         \"i\" must not set securityContext.procMount to \"Unmasked\"), seLinuxOptions (pod set \
         forbidden securityContext.seLinuxOptions: type \"spc_t\"; user may not be set), \
         seccompProfile (pod must not set securityContext.seccompProfile.type to \"Unconfined\"), \
         forbidden sysctls (kernel.x), hostProcess (pod must not set \
         securityContext.windowsOptions.hostProcess=true)",
    );
    let world = world(json!({label("warn"): "restricted"}));
    let asked = request(Operation::Create, "pods", "web");
    let (refusal, notes) = judged(&PodSecurity::default(), &world, &asked, &pod(spec));
    assert_eq!(refusal, "");
    assert_eq!(
        notes[0],
        "pod-security.kubernetes.io/enforce-policy=privileged:latest"
    );
    let warned = &notes[1];
    assert!(
        warned.starts_with("would violate PodSecurity \"restricted:latest\": forbidden AppArmor")
    );
    let restricted = "restricted volume types (volumes \"a\", \"b\" use restricted volume types \
         \"hostPath\", \"nfs\")";
    assert!(warned.contains(restricted), "{warned}");
    assert!(warned.contains("runAsUser=0 (container \"c\" must not set runAsUser=0)"));
    assert!(!warned.contains("hostPath volumes"), "{warned}");
}

#[test]
fn releases_differ() {
    let sysctl = |name: &str| pod(json!({"securityContext": {"sysctls": [{"name": name}]}}));
    check(
        "baseline",
        "v1.31",
        sysctl("net.ipv4.tcp_rmem"),
        "forbidden sysctls (net.ipv4.tcp_rmem)",
    );
    check("baseline", "v1.32", sysctl("net.ipv4.tcp_rmem"), "");
    let own_users = || {
        let mut spec = json!({"hostUsers": false, "securityContext": {"runAsUser": 0}});
        spec["containers"] = json!([{"name": "x", "securityContext": {
            "procMount": "Unmasked", "runAsNonRoot": false}}]);
        pod(spec)
    };
    check("baseline", "v1.35", own_users(), "");
    let mount =
        "procMount (container \"x\" must not set securityContext.procMount to \"Unmasked\")";
    check("baseline", "v1.34", own_users(), mount);
    let mut annotated = pod(json!({"containers": [{"name": "x"}]}));
    let key = "seccomp.security.alpha.kubernetes.io/pod";
    annotated.0["metadata"]["annotations"] = json!({key: "unconfined"});
    check(
        "baseline",
        "v1.18",
        annotated,
        "seccompProfile (forbidden annotation seccomp.security.alpha.kubernetes.io/pod=\"unconfined\")",
    );
}

#[test]
fn workloads_are_only_warned_of() {
    let world = world(json!({label("enforce"): "baseline"}));
    let template = json!({"spec": {"hostIPC": true}});
    let asked = request(Operation::Create, "deployments.apps", "web");
    let given = object(json!({"spec": {"template": template}}));
    let plugin = PodSecurity::default();
    let (refusal, notes) = judged(&plugin, &world, &asked, &given);
    assert_eq!(refusal, "");
    assert_eq!(
        notes,
        ["would violate PodSecurity \"baseline:latest\": host namespaces (hostIPC=true)"]
    );
    let asked = request(Operation::Create, "cronjobs.batch", "web");
    let given = object(json!({"spec": {"jobTemplate": {"spec": {"template": template}}}}));
    assert_eq!(judged(&plugin, &world, &asked, &given).1.len(), 1);
}

#[test]
fn namespaces_are_told_of_their_pods() {
    let asked = |operation, old: Value| {
        let mut asked = request(operation, "namespaces", "default");
        asked.old = Some(object(old));
        asked
    };
    let namespace = |labels: Value| json!({"metadata": {"name": "default", "labels": labels}});
    let world = World::default();
    for (name, owner) in [("b", "1"), ("a", "1"), ("c", "2")] {
        let owner = json!([{"controller": true, "uid": owner}]);
        let metadata = json!({"name": name, "namespace": "default", "ownerReferences": owner});
        world.put(
            "pods",
            json!({"metadata": metadata, "spec": {"hostPID": true}}),
        );
    }
    let plugin = PodSecurity::default();
    let strict = object(namespace(json!({label("enforce"): "baseline"})));
    let update = asked(Operation::Update, namespace(json!({})));
    let (refusal, notes) = judged(&plugin, &world, &update, &strict);
    assert_eq!(refusal, "");
    assert_eq!(
        notes,
        [
            "existing pods in namespace \"default\" violate the new PodSecurity enforce level \
             \"baseline:latest\"",
            "a (and 2 other pods): host namespaces",
        ]
    );
    let odd = object(namespace(json!({label("enforce"): "x"})));
    let (refusal, _) = judged(&plugin, &world, &update, &odd);
    assert!(
        refusal.ends_with("must be one of privileged, baseline, restricted"),
        "{refusal}"
    );
    let unchanged = asked(Operation::Update, odd.0.clone());
    assert_eq!(judged(&plugin, &world, &unchanged, &odd).0, "");
}

#[test]
fn configuration_sets_defaults_and_exempts() {
    let config = json!({
        "apiVersion": "pod-security.admission.config.k8s.io/v1",
        "kind": "PodSecurityConfiguration",
        "defaults": {"enforce": "baseline", "enforce-version": "v1.30"},
        "exemptions": {"usernames": ["jane"], "runtimeClasses": ["box"]},
    });
    let plugin = PodSecurity::new(&config).expect("a configuration");
    let world = world(json!({}));
    let mut asked = request(Operation::Create, "pods", "web");
    let bad = pod(json!({"hostPID": true}));
    let (refusal, notes) = judged(&plugin, &world, &asked, &bad);
    assert_eq!((refusal.as_str(), notes.len()), ("", 1), "jane is exempt");
    asked.user = auth::Identity::user("joe", &[]);
    let (refusal, _) = judged(&plugin, &world, &asked, &bad);
    assert!(
        refusal.contains("\"baseline:v1.30\": host namespaces"),
        "{refusal}"
    );
    let boxed = pod(json!({"hostPID": true, "runtimeClassName": "box"}));
    assert_eq!(judged(&plugin, &world, &asked, &boxed).0, "");
    let mut wrong = config;
    wrong["defaults"]["enforce"] = json!("strict");
    let error = PodSecurity::new(&wrong)
        .err()
        .map(|error| error.to_string());
    assert_eq!(
        error.as_deref(),
        Some(
            "admission plugin PodSecurity: defaults.enforce: Invalid value: \"strict\": must be \
             one of privileged, baseline, restricted"
        )
    );
}
