//! Upstream's words for changes that it does not allow: how often it says something, what it
//! compares, and how it shows what differs.

use meta::Faults;
use serde_json::{Value, json};

/// Faults of changing one object into another, as the server finds them.
fn update(group: &str, kind: &str, old: &Value, new: &Value) -> Vec<String> {
    let row = kinds::row(group, kind).expect("a built-in kind");
    let (mut old, mut new) = (old.clone(), new.clone());
    for object in [&mut old, &mut new] {
        for (field, value) in [("name", "web"), ("uid", "u-1"), ("namespace", "default")] {
            if field != "namespace" || row.names.is_namespaced() {
                object["metadata"][field] = json!(value);
            }
        }
        row.strategy.default(object);
    }
    row.strategy.prepare_update(&mut new, &old);
    let mut faults = Faults::new();
    kinds::metadata::validate_update(&row.names, &new, &old, &*row.strategy, true, &mut faults);
    row.strategy.validate_update(&new, &old, &mut faults);
    faults.0.iter().map(ToString::to_string).collect()
}

fn changed(object: &Value, pointer: &str, value: Value) -> Value {
    let mut object = object.clone();
    let (parent, field) = pointer.rsplit_once('/').expect("a path");
    object.pointer_mut(parent).expect("its parent")[field] = value;
    object
}

#[test]
fn metadata_is_judged_as_often_as_upstream_does() {
    let sound = json!({"metadata": {"labels": {}}});
    let broken = changed(&sound, "/metadata/labels", json!({"a": "-"}));
    for (group, kind, times) in [("", "ConfigMap", 4), ("coordination.k8s.io", "Lease", 3)] {
        let faults = update(group, kind, &sound, &broken);
        let of_labels = faults
            .iter()
            .filter(|fault| fault.starts_with("metadata.labels"));
        assert_eq!(of_labels.count(), times, "{kind}");
    }
    let faults = update("", "Event", &json!({}), &broken);
    let of_labels = faults
        .iter()
        .filter(|fault| fault.starts_with("metadata.labels"));
    assert_eq!(of_labels.count(), 2, "Event");
}

#[test]
fn what_changed_in_a_pod_is_shown() {
    let pod = json!({"spec": {"containers": [{"name": "a", "image": "x"}], "nodeName": "n"}});
    let faults = update(
        "",
        "Pod",
        &pod,
        &changed(&pod, "/spec/nodeName", json!("m")),
    );
    let shown = "@@ -42,7 +42,7 @@\n  \"NodeSelector\": null,\n  \"ServiceAccountName\": \"\",\n  \
                 \"AutomountServiceAccountToken\": null,\n- \"NodeName\": \"n\",\n+ \"NodeName\": \"m\",\n  \
                 \"SecurityContext\": {\n   \"HostNetwork\": false,\n   \"HostPID\": false,\n";
    assert_eq!(faults.len(), 1, "{faults:?}");
    assert!(faults[0].ends_with(shown), "{}", faults[0]);
    let image = changed(
        &pod,
        "/spec/containers",
        json!([{"name": "a", "image": "y"}]),
    );
    assert_eq!(update("", "Pod", &pod, &image), Vec::<String>::new());
}

#[test]
fn what_changed_in_a_volume_is_shown() {
    let volume = json!({"spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"],
        "hostPath": {"path": "/a"}, "nodeAffinity": {"required": {"nodeSelectorTerms": [
            {"matchExpressions": [{"key": "beta.kubernetes.io/os", "operator": "Exists"}]}]}}}});
    let faults = update(
        "",
        "PersistentVolume",
        &volume,
        &changed(&volume, "/spec/hostPath/path", json!("/b")),
    );
    let expected = "spec.persistentvolumesource: Forbidden: spec.persistentvolumesource is immutable after \
         creation\n@@ -2,7 +2,7 @@\n  \"GCEPersistentDisk\": null,\n  \"AWSElasticBlockStore\": null,\n  \
         \"HostPath\": {\n-  \"Path\": \"/a\",\n+  \"Path\": \"/b\",\n   \"Type\": \"\"\n  },\n  \
         \"Glusterfs\": null,\n";
    assert_eq!(faults, [expected]);
    let key = "/spec/nodeAffinity/required/nodeSelectorTerms/0/matchExpressions/0/key";
    let renamed = changed(&volume, key, json!("kubernetes.io/os"));
    assert_eq!(
        update("", "PersistentVolume", &volume, &renamed),
        Vec::<String>::new()
    );
    let other = changed(&volume, key, json!("a"));
    let expected = "nodeAffinity: Invalid value: {\"Required\":{\"NodeSelectorTerms\":[{\"MatchExpressions\":\
         [{\"Key\":\"a\",\"Operator\":\"Exists\",\"Values\":null}],\"MatchFields\":null}]}}: field is \
         immutable, except for updating from beta label to GA";
    assert_eq!(update("", "PersistentVolume", &volume, &other), [expected]);
}

#[test]
fn a_changed_claim_is_shown() {
    let claim = json!({"spec": {"accessModes": ["ReadWriteOnce"], "volumeName": "v",
        "resources": {"requests": {"storage": "1Gi"}}}});
    let faults = update(
        "",
        "PersistentVolumeClaim",
        &claim,
        &changed(&claim, "/spec/volumeName", json!("w")),
    );
    let expected = "spec: Forbidden: spec is immutable after creation except resources.requests and \
         volumeAttributesClassName for bound claims\n@@ -9,7 +9,7 @@\n    \"storage\": \"1Gi\"\n   }\n  },\n- \
         \"VolumeName\": \"v\",\n+ \"VolumeName\": \"w\",\n  \"StorageClassName\": null,\n  \
         \"VolumeMode\": \"Filesystem\",\n  \"DataSource\": null,\n";
    assert_eq!(faults, [expected]);
}

#[test]
fn addresses_of_services_are_judged_by_themselves() {
    for (spec, expected) in [
        (
            json!({"clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.2"]}),
            "spec.clusterIPs: Invalid value: [\"10.0.0.2\"]: first value must match `clusterIP`",
        ),
        (
            json!({"clusterIP": "None", "clusterIPs": ["None", "None"]}),
            "spec.clusterIPs: Invalid value: [\"None\",\"None\"]: 'None' must be the first and only value",
        ),
        (
            json!({"ipFamilies": ["x"]}),
            "spec.ipFamilies[0]: Unsupported value: \"x\": supported values: \"IPv4\", \"IPv6\"",
        ),
    ] {
        let mut faults = Faults::new();
        kinds::validate_service_addresses(&json!({"spec": spec}), &mut faults);
        let first = faults.0.first().map(ToString::to_string);
        assert_eq!(first.as_deref(), Some(expected));
    }
}

#[test]
fn what_may_change_may_be_absent_too() {
    let check = |group: &str, kind: &str, old: &Value, new: &Value| {
        assert_eq!(
            update(group, kind, old, new),
            Vec::<String>::new(),
            "{kind}"
        );
    };
    let pod = json!({"spec": {"containers": [{"name": "a", "image": "x"}],
        "schedulingGates": [{"name": "g"}]}});
    let nodes = json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {
        "nodeSelectorTerms": [{"matchExpressions": [{"key": "a", "operator": "Exists"}]}]}}});
    check("", "Pod", &pod, &pod);
    check(
        "",
        "Pod",
        &pod,
        &changed(&pod, "/spec/affinity", nodes.clone()),
    );
    let template = json!({"metadata": {"labels": {"a": "b"}},
        "spec": {"restartPolicy": "Never", "containers": [{"name": "a", "image": "x"}]}});
    let job = json!({"spec": {"suspend": true, "manualSelector": true, "template": template,
        "selector": {"matchLabels": {"a": "b"}}}});
    let placed = changed(&job, "/spec/template/spec/affinity", nodes);
    check("batch", "Job", &job, &job);
    check("batch", "Job", &job, &placed);
    check("batch", "Job", &placed, &job);
    let claim = json!({"spec": {"accessModes": ["ReadWriteOnce"], "volumeName": "v",
        "resources": {"requests": {"storage": "1Gi"}}}, "status": {"phase": "Bound"}});
    let larger = changed(&claim, "/spec/resources/requests/storage", json!("2Gi"));
    check("", "PersistentVolumeClaim", &claim, &claim);
    check("", "PersistentVolumeClaim", &claim, &larger);
}

#[test]
fn changes_are_judged_in_upstreams_order() {
    let slice = json!({"spec": {"driver": "d.example.com", "nodeName": "n", "pool": {"name": "p",
        "resourceSliceCount": 1, "generation": 1}, "devices": []}});
    let mut moved = slice.clone();
    moved["spec"]
        .as_object_mut()
        .expect("a map")
        .remove("nodeName");
    let only = "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is \
                required";
    assert_eq!(
        update("resource.k8s.io", "ResourceSlice", &slice, &moved),
        [
            "spec.nodeName: Invalid value: null: field is immutable".to_owned(),
            format!("spec: Required value: {only}"),
        ]
    );
    let node = json!({"spec": {"podCIDRs": ["10.1.0.0/24"]}});
    let faults = update(
        "",
        "Node",
        &node,
        &changed(&node, "/spec/podCIDRs", json!(["10.1.0.0/24", "a"])),
    );
    let wrong = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";
    assert_eq!(
        faults,
        [
            format!("spec.podCIDRs[1]: Invalid value: \"a\": {wrong}"),
            "spec.podCIDRs: Internal error: invalid PodCIDRs. failed to check with dual stack with \
             error:invalid CIDR[1]: <nil> (invalid CIDR address: a)"
                .to_owned(),
            "spec.podCIDRs: Invalid value: [\"10.1.0.0/24\",\"a\"]: may specify no more than one \
             CIDR for each IP family"
                .to_owned(),
            "spec.podCIDRs: Forbidden: node updates may not change podCIDR except from \"\" to \
             valid"
                .to_owned(),
        ]
    );
}

#[test]
fn what_means_the_same_may_change() {
    let quota = json!({"spec": {"hard": {"pods": "1"}, "scopes": ["BestEffort"]}});
    let twice = changed(&quota, "/spec/scopes", json!(["BestEffort", "BestEffort"]));
    assert_eq!(
        update("", "ResourceQuota", &quota, &twice),
        Vec::<String>::new()
    );
    let set = json!({"spec": {"selector": {"matchLabels": {"a": "b"}}, "serviceName": "s",
        "template": {"metadata": {"labels": {"a": "b"}},
            "spec": {"containers": [{"name": "c", "image": "i"}]}},
        "volumeClaimTemplates": [{"metadata": {"name": "v"}, "kind": "PersistentVolumeClaim",
            "spec": {"accessModes": ["ReadWriteOnce"],
                "resources": {"requests": {"storage": "1Gi"}}}}]}});
    let renamed = changed(&set, "/spec/volumeClaimTemplates/0/kind", json!("Other"));
    assert_eq!(
        update("apps", "StatefulSet", &set, &renamed),
        Vec::<String>::new()
    );
    let range = json!({"spec": {"cidrs": ["10.0.0.0/24"]}});
    assert_eq!(
        update(
            "networking.k8s.io",
            "ServiceCIDR",
            &range,
            &json!({"spec": {}})
        ),
        ["spec.cidrs: Invalid value: null: field is immutable"]
    );
    let shrunk = "spec.resources.requests.storage: Forbidden: field can not be less than \
                  status.capacity";
    let claim = json!({"spec": {"accessModes": ["ReadWriteOnce"], "volumeName": "v",
        "dataSource": {"kind": "PersistentVolumeClaim", "name": "x"},
        "dataSourceRef": {"kind": "PersistentVolumeClaim", "name": "x"},
        "resources": {"requests": {"storage": "1Gi"}}},
        "status": {"phase": "Bound", "capacity": {"storage": "1Gi"}}});
    let faults = update(
        "",
        "PersistentVolumeClaim",
        &claim,
        &changed(&claim, "/spec/resources", json!({})),
    );
    assert_eq!(faults.last().map(String::as_str), Some(shrunk));
    let mut once = claim.clone();
    once["spec"]
        .as_object_mut()
        .expect("a map")
        .remove("dataSource");
    assert_eq!(
        update("", "PersistentVolumeClaim", &claim, &once),
        Vec::<String>::new()
    );
}

#[test]
fn volumes_are_looked_at_as_a_whole() {
    let volume = json!({"spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"],
        "hostPath": {"path": "/x"}}});
    let faults = update(
        "",
        "PersistentVolume",
        &volume,
        &changed(&volume, "/metadata", json!({"finalizers": ["-x"]})),
    );
    let fields: Vec<&str> = faults
        .iter()
        .filter_map(|fault| fault.split(':').next())
        .collect();
    let (list, item) = ("metadata.finalizers", "metadata.finalizers[0]");
    assert_eq!(fields, [list, list, item, list, item]);
}

#[test]
fn daemon_sets_count_their_templates_in_numbers() {
    let row = kinds::row("apps", "DaemonSet").expect("a built-in kind");
    let misread = |text: &str| {
        let note = "deprecated.daemonset.template.generation";
        row.strategy
            .misread(&json!({"metadata": {"annotations": {note: text}}}))
    };
    assert_eq!(misread("7"), None);
    assert_eq!(
        misread("a").as_deref(),
        Some("strconv.ParseInt: parsing \"a\": invalid syntax")
    );
    assert_eq!(row.strategy.misread(&json!({})), None);
}
