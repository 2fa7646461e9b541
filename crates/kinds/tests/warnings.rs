//! Upstream's words for what works, but not as one might think, or not for much longer.

use serde_json::{Value, json};

fn check(group: &str, kind: &str, object: Value, expected: &[&str]) {
    let row = kinds::row(group, kind).expect("a built-in kind");
    assert_eq!(row.strategy.warnings(&object), expected, "{kind}");
}

fn check_update(group: &str, kind: &str, object: Value, old: Value, expected: &[&str]) {
    let row = kinds::row(group, kind).expect("a built-in kind");
    let found = row.strategy.warnings_update(&object, &old);
    assert_eq!(found, expected, "{kind}");
}

#[test]
fn services() {
    check(
        "",
        "Service",
        json!({
            "metadata": {"annotations": {"service.kubernetes.io/topology-aware-hints": "auto"}},
            "spec": {"type": "ClusterIP", "clusterIP": "2001:DB8::1",
                "clusterIPs": ["2001:DB8::1"], "externalIPs": ["10.0.0.1"],
                "trafficDistribution": "PreferClose"}}),
        &[
            "annotation service.kubernetes.io/topology-aware-hints is deprecated, please use \
             service.kubernetes.io/topology-mode instead",
            "spec.clusterIPs[0]: IPv6 address \"2001:DB8::1\" should be in RFC 5952 canonical \
             format (\"2001:db8::1\")",
            "spec.externalIPs is deprecated and may no longer be implemented in some clusters",
            "spec.trafficDistribution: \"PreferClose\" is deprecated; use \"PreferSameZone\"",
        ],
    );
    check(
        "",
        "Service",
        json!({"spec": {"type": "ClusterIP", "clusterIP": "None", "clusterIPs": ["None"],
            "externalIPs": ["10.0.0.1"], "sessionAffinity": "None"}}),
        &["spec.externalIPs is ignored for headless services"],
    );
}

#[test]
fn storage() {
    check(
        "",
        "PersistentVolume",
        json!({
            "metadata": {"annotations": {"volume.beta.kubernetes.io/mount-options": "ro"}},
            "spec": {"persistentVolumeReclaimPolicy": "Recycle", "rbd": {},
                "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [
                    {"key": "beta.kubernetes.io/arch"}]}]}}}}),
        &[
            "metadata.annotations[volume.beta.kubernetes.io/mount-options]: deprecated since \
             v1.31; use \"mountOptions\" attribute instead",
            "spec.persistentVolumeReclaimPolicy: The Recycle reclaim policy is deprecated. \
             Instead, the recommended approach is to use dynamic provisioning.",
            "spec.nodeAffinity.required.nodeSelectorTerms[0].matchExpressions[0].key: \
             beta.kubernetes.io/arch is deprecated since v1.14; use \"kubernetes.io/arch\" instead",
            "spec.rbd: deprecated in v1.28, non-functional in v1.31+",
        ],
    );
    let size = json!({"resources": {"requests": {"storage": "1500m"}}});
    check(
        "",
        "PersistentVolumeClaim",
        json!({"spec": size}),
        &[
            "spec.resources.requests[storage]: fractional byte value \"1500m\" is invalid, must \
             be an integer",
        ],
    );
    let set =
        json!({"spec": {"revisionHistoryLimit": -1, "volumeClaimTemplates": [{"spec": size}]}});
    let history = "spec.revisionHistoryLimit: a negative value retains all historical revisions; \
                   a value >= 0 is recommended";
    let fraction = "resources.requests[storage]: fractional byte value \"1500m\" is invalid, \
                    must be an integer";
    let claim = |spec: &str| format!("spec.volumeClaimTemplates[0].{spec}.{fraction}");
    check(
        "apps",
        "StatefulSet",
        set.clone(),
        &[&claim("spec"), history],
    );
    let changed = [claim("Spec")];
    check_update(
        "apps",
        "StatefulSet",
        set.clone(),
        set,
        &[&changed[0], history],
    );
    let tokens = json!({"spec": {"tokenRequests": [{"audience": "a"}]}});
    check_update(
        "storage.k8s.io",
        "CSIDriver",
        tokens.clone(),
        tokens.clone(),
        &[],
    );
    check(
        "storage.k8s.io",
        "CSIDriver",
        tokens,
        &[
            "spec.serviceAccountTokenInSecrets is unset; if supported by this CSI driver, set to \
             true to prevent possible logging of tokens in volume attributes",
        ],
    );
    check(
        "storage.k8s.io",
        "StorageClass",
        json!({"allowedTopologies": [{"matchLabelExpressions": [
            {"key": "failure-domain.beta.kubernetes.io/zone"}]}]}),
        &[
            "allowedTopologies[0].matchLabelExpressions[0].key: deprecated since v1.17; use \
             \"topology.kubernetes.io/zone\" instead",
        ],
    );
}

#[test]
fn templates_are_looked_at_where_they_change() {
    let deployment = |generation: i64| {
        json!({"metadata": {"name": "a.b", "generation": generation},
            "spec": {"template": {"spec": {"terminationGracePeriodSeconds": -1}}}})
    };
    let grace = "spec.template.spec.terminationGracePeriodSeconds: must be >= 0; negative values \
                 are invalid and will be treated as 1";
    let row = kinds::row("apps", "Deployment").expect("a built-in kind");
    let new = row.strategy.warnings(&deployment(1));
    assert!(new.len() == 2 && new[0].starts_with("metadata.name:") && new[1] == grace);
    let (one, two) = (deployment(1), deployment(2));
    check_update("apps", "Deployment", two, one.clone(), &[grace]);
    check_update("apps", "Deployment", one.clone(), one, &[]);
    let pod = json!({"metadata": {"name": "p"}, "spec": {"volumes": [{"rbd": {}}]}});
    check_update("", "Pod", pod.clone(), pod, &[]);
    let job = json!({"metadata": {"name": "j"}, "spec": {"completionMode": "Indexed",
        "completions": 100_001, "parallelism": 10_001}});
    check(
        "batch",
        "Job",
        job,
        &[
            "spec: In Indexed Jobs with a number of completions higher than 10^5 and a \
             parallelism higher than 10^4, Kubernetes might not be able to track completedIndexes \
             when a big number of indexes fail",
        ],
    );
    let cron = json!({"metadata": {"name": "c"}, "spec": {"schedule": "TZ=UTC * * * * *"}});
    check("batch", "CronJob", cron.clone(), &[]);
    check_update(
        "batch",
        "CronJob",
        cron.clone(),
        cron,
        &[
            "cannot use TZ or CRON_TZ in spec.spec.schedule, use timeZone instead, see \
             https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/ for more details",
        ],
    );
}

#[test]
fn the_cluster() {
    check(
        "",
        "Node",
        json!({"spec": {"configSource": {}, "externalID": "x", "podCIDRs": ["2001:DB8::/64"]}}),
        &[
            "spec.configSource: the feature is removed",
            "spec.externalID: this field is deprecated, and is unused by Kubernetes",
            "spec.podCIDRs[0]: IPv6 CIDR value \"2001:DB8::/64\" should be in RFC 5952 canonical \
             format (\"2001:db8::/64\")",
        ],
    );
    let quota = json!({"spec": {"hard": {"cpu": "2", "limits.cpu": "1", "requests.memory": "1Gi",
        "limits.memory": "2Gi"}}});
    let above = "ResourceQuota cpu (2) should be less than limits.cpu (1)";
    check("", "ResourceQuota", quota.clone(), &[above]);
    check_update("", "ResourceQuota", quota.clone(), quota, &[]);
    let marked = json!({"metadata": {"annotations":
        {"kubernetes.io/enforce-mountable-secrets": "true"}}});
    let mountable = "metadata.annotations[kubernetes.io/enforce-mountable-secrets]: deprecated in \
                     v1.32+; prefer separate namespaces to isolate access to mounted secrets";
    check("", "ServiceAccount", marked.clone(), &[mountable]);
    check_update(
        "",
        "ServiceAccount",
        marked.clone(),
        json!({}),
        &[mountable],
    );
    check_update("", "ServiceAccount", marked.clone(), marked, &[]);
    let secret = |certificate: &str| json!({"type": "kubernetes.io/tls", "data": {"tls.crt": certificate, "tls.key": ""}});
    let missing = "tls: failed to find any PEM data in certificate input";
    check("", "Secret", secret("YWJj"), &[missing]);
    let missing = "tls: failed to find any PEM data in key input";
    check("", "Secret", secret("LS0tLS1CRUdJTiBYLS0tLS0="), &[missing]);
    check(
        "node.k8s.io",
        "RuntimeClass",
        json!({"scheduling": {"nodeSelector": {"node-role.kubernetes.io/master": ""}}}),
        &["scheduling.nodeSelector: use \"node-role.kubernetes.io/control-plane\" instead"],
    );
    check(
        "resource.k8s.io",
        "ResourceSlice",
        json!({"spec": {"driver": "GPU.example.com"}}),
        &[
            "spec.driver: driver names should be lowercase; \"GPU.example.com\" contains \
             uppercase characters",
        ],
    );
    check(
        "admissionregistration.k8s.io",
        "ValidatingWebhookConfiguration",
        json!({"metadata": {"name": "a.static.k8s.io"}}),
        &[
            "metadata.name: names ending with \".static.k8s.io\" are reserved for static \
             manifest-based configurations and cannot be managed via the API",
        ],
    );
}

#[test]
fn networks() {
    let block = json!({"ipBlock": {"cidr": "2001:DB8::/64", "except": ["2001:db8:0::/80"]}});
    let odd = |path: &str, text: &str, better: &str| {
        format!(
            "spec.ingress[0].from[0].ipBlock.{path}: IPv6 CIDR value \"{text}\" should be in RFC \
             5952 canonical format (\"{better}\")"
        )
    };
    check(
        "networking.k8s.io",
        "NetworkPolicy",
        json!({"spec": {"ingress": [{"from": [block]}]}}),
        &[
            &odd("cidr", "2001:DB8::/64", "2001:db8::/64"),
            &odd("except[0]", "2001:db8:0::/80", "2001:db8::/80"),
        ],
    );
    let classed = json!({"metadata": {"annotations": {"kubernetes.io/ingress.class": "x"}}});
    let deprecated = "annotation \"kubernetes.io/ingress.class\" is deprecated, please use \
                      'spec.ingressClassName' instead";
    check(
        "networking.k8s.io",
        "Ingress",
        classed.clone(),
        &[deprecated],
    );
    check_update(
        "networking.k8s.io",
        "Ingress",
        classed.clone(),
        classed,
        &[],
    );
    let slice = |manager: &str| {
        json!({"metadata": {"labels": {"endpointslice.kubernetes.io/managed-by": manager}},
            "addressType": "IPv6", "endpoints": [{"addresses": ["2001:DB8::1"]}]})
    };
    let address = "endpoints[0].addresses[0]: IPv6 address \"2001:DB8::1\" should be in RFC 5952 \
                   canonical format (\"2001:db8::1\")";
    check("discovery.k8s.io", "EndpointSlice", slice("me"), &[address]);
    check(
        "discovery.k8s.io",
        "EndpointSlice",
        slice("endpointslice-controller.k8s.io"),
        &[],
    );
    check(
        "discovery.k8s.io",
        "EndpointSlice",
        json!({"addressType": "FQDN"}),
        &["spec.addressType: FQDN endpoints are deprecated"],
    );
    let row = kinds::row("", "Endpoints").expect("a built-in kind");
    assert_eq!(
        row.deprecation,
        Some("v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice")
    );
}
