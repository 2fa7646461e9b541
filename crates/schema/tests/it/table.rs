//! The table against facts of the published 1.36 API.

use schema::{ListKind, Presence, Shape, Type};

fn field(ty: &str, json: &str) -> &'static schema::Field {
    let ty: &'static Type = schema::named(ty).unwrap_or_else(|| panic!("{ty}"));
    ty.field(json).unwrap_or_else(|| panic!("{json}"))
}

#[test]
fn kinds_are_found_by_group_version_and_kind() {
    for (group, version, kind) in [
        ("", "v1", "Pod"),
        ("", "v1", "PodList"),
        ("", "v1", "Binding"),
        ("apps", "v1", "Deployment"),
        ("apps", "v1", "ControllerRevision"),
        ("batch", "v1", "CronJob"),
        ("autoscaling", "v1", "Scale"),
        ("autoscaling", "v2", "HorizontalPodAutoscaler"),
        ("discovery.k8s.io", "v1", "EndpointSlice"),
        ("coordination.k8s.io", "v1", "Lease"),
        ("rbac.authorization.k8s.io", "v1", "ClusterRoleBinding"),
        ("events.k8s.io", "v1", "Event"),
        ("authentication.k8s.io", "v1", "TokenReview"),
        ("authentication.k8s.io", "v1", "TokenRequest"),
        ("authorization.k8s.io", "v1", "SubjectAccessReview"),
        ("policy", "v1", "Eviction"),
        ("policy", "v1", "PodDisruptionBudget"),
        ("scheduling.k8s.io", "v1", "PriorityClass"),
        ("storage.k8s.io", "v1", "CSINode"),
        ("networking.k8s.io", "v1", "Ingress"),
        ("node.k8s.io", "v1", "RuntimeClass"),
        ("certificates.k8s.io", "v1", "CertificateSigningRequest"),
        (
            "admissionregistration.k8s.io",
            "v1",
            "ValidatingAdmissionPolicy",
        ),
        ("apiextensions.k8s.io", "v1", "CustomResourceDefinition"),
        ("flowcontrol.apiserver.k8s.io", "v1", "FlowSchema"),
        ("apiregistration.k8s.io", "v1", "APIService"),
    ] {
        assert!(
            schema::builtin(group, version, kind).is_some(),
            "{group}/{version} {kind}"
        );
    }
    assert!(schema::builtin("apps", "v1beta1", "Deployment").is_none());
}

#[test]
fn every_type_reads_and_its_fields_are_ordered() {
    let mut fields = 0;
    for name in schema::table::names() {
        let ty = schema::named(name).unwrap();
        assert!(
            ty.fields.is_sorted_by(|one, two| one.json < two.json),
            "{name}"
        );
        assert!(
            !ty.doc.is_empty() || ty.fields.is_empty() || name.ends_with("Info"),
            "{name}"
        );
        for field in &ty.fields {
            assert!(ty.field(&field.json).is_some(), "{name} {}", field.json);
        }
        fields += ty.fields.len();
    }
    assert!(fields > 2_400, "{fields}");
}

#[test]
fn lists_know_how_they_merge() {
    let keys = |ty: &str, json: &str| match &field(ty, json).shape {
        Shape::List(_, ListKind::Map { keys }) => keys.iter().map(|key| key.to_string()).collect(),
        _ => Vec::new(),
    };
    assert_eq!(
        keys("io.k8s.api.core.v1.Container", "ports"),
        ["containerPort", "protocol"]
    );
    assert_eq!(
        keys("io.k8s.api.core.v1.ServiceSpec", "ports"),
        ["port", "protocol"]
    );
    assert_eq!(keys("io.k8s.api.core.v1.PodSpec", "volumes"), ["name"]);
    assert_eq!(
        keys("io.k8s.api.core.v1.PodSpec", "topologySpreadConstraints"),
        ["topologyKey", "whenUnsatisfiable"]
    );
    assert_eq!(
        keys(
            "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta",
            "ownerReferences"
        ),
        ["uid"]
    );
    let finalizers = field(
        "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta",
        "finalizers",
    );
    assert!(matches!(finalizers.shape, Shape::List(_, ListKind::Set)) && finalizers.patch.merge);
    let ports = field("io.k8s.api.core.v1.Container", "ports");
    assert_eq!(ports.patch_merge_key.as_deref(), Some("containerPort"));
    let protocol = field("io.k8s.api.core.v1.ContainerPort", "protocol");
    assert_eq!(protocol.default, Some("TCP".into()));
    assert!(
        field("io.k8s.api.apps.v1.DeploymentSpec", "strategy")
            .patch
            .retain_keys
    );
    assert!(
        schema::named("io.k8s.api.core.v1.ObjectReference")
            .unwrap()
            .atomic
    );
}

#[test]
fn pointers_and_values_differ() {
    let presence = |ty: &str, json: &str| field(ty, json).presence;
    assert_eq!(
        presence("io.k8s.api.apps.v1.DeploymentSpec", "replicas"),
        Presence::Pointer
    );
    assert_eq!(
        presence("io.k8s.api.apps.v1.DeploymentSpec", "minReadySeconds"),
        Presence::OmitEmpty
    );
    assert_eq!(
        presence("io.k8s.api.apps.v1.DeploymentSpec", "strategy"),
        Presence::Always
    );
    assert_eq!(
        presence("io.k8s.api.apps.v1.DeploymentSpec", "selector"),
        Presence::Nullable
    );
    assert_eq!(
        presence("io.k8s.api.core.v1.Container", "resources"),
        Presence::Always
    );
    assert_eq!(
        presence("io.k8s.api.core.v1.PodSpec", "hostNetwork"),
        Presence::OmitEmpty
    );
    assert_eq!(
        presence("io.k8s.api.core.v1.PodSpec", "containers"),
        Presence::Always
    );
}

#[test]
fn protobuf_tags_are_there_for_all_that_has_them() {
    assert_eq!(field("io.k8s.api.core.v1.PodSpec", "containers").tag, 2);
    let empty_dir = field("io.k8s.api.core.v1.Volume", "emptyDir");
    assert_eq!((empty_dir.within.as_slice(), empty_dir.tag), (&[2][..], 2));
    let groups = field(
        "io.k8s.api.admissionregistration.v1.NamedRuleWithOperations",
        "apiGroups",
    );
    assert_eq!((groups.within.as_slice(), groups.tag), (&[2, 2][..], 1));
    // TypeMeta travels in the envelope; a few types have no protobuf form at all.
    let without = |name: &str| {
        let ty = schema::named(name).unwrap();
        let fields = ty.fields.iter().filter(|field| field.tag == 0);
        let names = fields.map(|field| format!("{} {}", ty.short_name(), field.json));
        names
            .filter(|name| !name.ends_with(" apiVersion") && !name.ends_with(" kind"))
            .collect::<Vec<_>>()
    };
    let mut missing: Vec<String> = schema::table::names().flat_map(without).collect();
    missing.retain(|name| !name.starts_with("Info ") && !name.starts_with("WatchEvent "));
    assert_eq!(missing, Vec::<String>::new());
}
