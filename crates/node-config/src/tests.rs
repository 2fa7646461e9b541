//! The configuration as a whole: upstream's examples and messages.

use serde_json::json;

use super::*;

const HEAD: &str = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n";

fn layers(text: &str) -> Layers {
    Layers {
        file: Some(Source {
            path: "/etc/kubelet/config.yaml".into(),
            text: format!("{HEAD}{text}"),
        }),
        ..Layers::default()
    }
}

fn read(text: &str) -> Result<Configuration, String> {
    Configuration::read(&layers(text)).map_err(|error| error.to_string())
}

fn fault(text: &str) -> String {
    read(text).unwrap_err()
}

const LOAD: &str = "failed to load kubelet config file, path: /etc/kubelet/config.yaml, error: ";
const INVALID: &str = "failed to validate kubelet configuration, error: invalid configuration: ";

#[test]
fn nothing_said_is_upstreams_defaults() {
    let config = Configuration::read(&Layers::default()).unwrap();
    let shown = config.shown();
    assert_eq!(shown, read("").unwrap().shown());
    for (path, value) in [
        ("kind", json!("KubeletConfiguration")),
        ("maxPods", json!(110)),
        ("podPidsLimit", json!(-1)),
        ("streamingConnectionIdleTimeout", json!("4h0m0s")),
        ("authentication.webhook.cacheTTL", json!("2m0s")),
        ("authentication.x509", json!({})),
        ("memorySwap", json!({})),
        ("serializeImagePulls", json!(true)),
        ("shutdownGracePeriod", json!("0s")),
        ("logging.verbosity", json!(0)),
    ] {
        assert_eq!(at(shown, path).unwrap_or(&Value::Null), &value, "{path}");
    }
    assert_eq!(shown["evictionHard"]["nodefs.inodesFree"], "5%");
    // What Go leaves out.
    for path in [
        "staticPodPath",
        "readOnlyPort",
        "evictionSoft",
        "userNamespaces",
    ] {
        assert_eq!(at(shown, path), None, "{path}");
    }
    assert!(config.warnings().is_empty());
}

#[test]
fn the_decoder_is_strict_and_speaks_as_upstreams() {
    for (text, why) in [
        (
            "maxPod: 3\nauthentication:\n  x509: {caFile: x}\n",
            "failed to decode: strict decoding error: unknown field \
             \"authentication.x509.caFile\", unknown field \"maxPod\"",
        ),
        (
            "maxPods: 3\nmaxPods: 4\n",
            "failed to decode: strict decoding error: yaml: unmarshal errors:\n  line 4: key \
             \"maxPods\" already set in map",
        ),
        (
            "maxPods: many\n",
            "failed to decode: json: cannot unmarshal string into Go struct field \
             KubeletConfiguration.maxPods of type int32",
        ),
        (
            "authentication: {anonymous: {enabled: 1}}\n",
            "failed to decode: json: cannot unmarshal number into Go struct field \
             KubeletAnonymousAuthentication.authentication.anonymous.enabled of type bool",
        ),
        (
            "syncFrequency: 10\n",
            "failed to decode: json: cannot unmarshal number into Go value of type string",
        ),
        (
            "syncFrequency: \"10\"\n",
            "failed to decode: time: missing unit in duration \"10\"",
        ),
        (
            "reservedMemory: [{numaNode: 0, limit: {}}]\n",
            "failed to decode: strict decoding error: unknown field \"reservedMemory[0].limit\"",
        ),
    ] {
        assert_eq!(fault(text), format!("{LOAD}{why}"));
    }
    let bare = |text: &str| {
        let mut all = layers("");
        all.file.as_mut().unwrap().text = text.to_owned();
        Configuration::read(&all).unwrap_err().to_string()
    };
    let empty = "kubelet config file \"/etc/kubelet/config.yaml\" was empty";
    assert_eq!(bare(""), format!("{LOAD}{empty}"));
    let why = "failed to decode: Object 'Kind' is missing in 'maxPods: 3'";
    assert_eq!(bare("maxPods: 3"), format!("{LOAD}{why}"));
    assert!(
        bare("kind: Pod\napiVersion: v1\n")
            .contains("no kind \"Pod\" is registered for version \"v1\"")
    );
}

#[test]
fn checks_are_upstreams() {
    for (text, why) in [
        (
            "nodeLeaseDurationSeconds: -1",
            "nodeLeaseDurationSeconds must be greater than 0",
        ),
        (
            "imageGCHighThresholdPercent: 70",
            "imageGCLowThresholdPercent (--image-gc-low-threshold) 80 must be less than \
             imageGCHighThresholdPercent (--image-gc-high-threshold) 70",
        ),
        (
            "port: 70000",
            "port (--port) 70000 must be between 1 and 65535, inclusive",
        ),
        (
            "maxPods: -1",
            "maxPods (--max-pods) -1 must not be a negative number",
        ),
        (
            "topologyManagerPolicy: best",
            "topologyManagerPolicy (--topology-manager-policy) \"best\" must be one of: [\"none\" \
             \"best-effort\" \"restricted\" \"single-numa-node\"]",
        ),
        (
            "shutdownGracePeriodCriticalPods: 10s",
            "shutdownGracePeriodCriticalPods {10s} must be <= shutdownGracePeriod {0s}",
        ),
        (
            "serializeImagePulls: true\nmaxParallelImagePulls: 2",
            "maxParallelImagePulls cannot be larger than 1 unless SerializeImagePulls \
             (--serialize-image-pulls) is set to false",
        ),
        (
            "containerLogMaxFiles: 1",
            "containerLogMaxFiles must be greater than 1",
        ),
        (
            "crashLoopBackOff: {maxContainerRestartPeriod: 500ms}",
            "CrashLoopBackOff.MaxContainerRestartPeriod (got: 0.5 seconds) must be set between 1s \
             and 300s",
        ),
        (
            "imagePullCredentialsVerificationPolicy: Sometimes",
            "option \"Sometimes\" specified for imagePullCredentialsVerificationPolicy. Valid \
             options are \"NeverVerify\", \"NeverVerifyPreloadedImages\", \
             \"NeverVerifyAllowlistedImages\" or \"AlwaysVerify\"",
        ),
        (
            "preloadedImagesVerificationAllowlist: [quay.io/*]",
            "can't set `preloadedImagesVerificationAllowlist` if \
             `imagePullCredentialsVertificationPolicy` is not \"NeverVerifyAllowlistedImages\"",
        ),
        (
            "featureGates: {KubeletEnsureSecretPulledImages: false}\n\
             imagePullCredentialsVerificationPolicy: AlwaysVerify",
            "`imagePullCredentialsVerificationPolicy` must not be set if \
             KubeletEnsureSecretPulledImages feature gate is not enabled",
        ),
        (
            "readOnlyPort: 70000",
            "readOnlyPort (--read-only-port) 70000 must be between 0 and 65535, inclusive",
        ),
        (
            "memorySwap: {swapBehavior: UnlimitedSwap}",
            "memorySwap.swapBehavior \"UnlimitedSwap\" must be one of: \"\", \"LimitedSwap\" or \
             \"NoSwap\"",
        ),
        (
            "enforceNodeAllocatable: [system-reserved]",
            "systemReservedCgroup (--system-reserved-cgroup) must be specified when \
             \"system-reserved\" or \"system-reserved-compressible\" included in \
             enforceNodeAllocatable (--enforce-node-allocatable)",
        ),
        (
            "enforceNodeAllocatable: [kube-reserved, kube-reserved-compressible]\n\
             kubeReservedCgroup: /kube",
            "both \"kube-reserved\" and \"kube-reserved-compressible\" cannot be specified together \
             in enforceNodeAllocatable (--enforce-node-allocatable)",
        ),
        (
            "enforceNodeAllocatable: [none, pods]",
            "enforceNodeAllocatable (--enforce-node-allocatable) may not contain additional \
             enforcements when \"none\" is specified",
        ),
        (
            "cgroupsPerQOS: false",
            "cgroupsPerQOS (--cgroups-per-qos) must be set to true when \"pods\" contained in \
             enforceNodeAllocatable (--enforce-node-allocatable)",
        ),
        (
            "memoryReservationPolicy: TieredReservation",
            "memoryReservationPolicy \"TieredReservation\" requires MemoryQoS feature gate to be \
             enabled",
        ),
        (
            "memoryReservationPolicy: Some",
            "option \"Some\" specified for memoryReservationPolicy. Valid options are \"None\" or \
             \"TieredReservation\"",
        ),
        (
            "tracing: {samplingRatePerMillion: 1}",
            "tracing {\"samplingRatePerMillion\":1} is not supported",
        ),
    ] {
        assert_eq!(fault(text), format!("{INVALID}{why}"));
    }
    let listed = |pattern: &str| {
        format!(
            "imagePullCredentialsVerificationPolicy: NeverVerifyAllowlistedImages\n\
             preloadedImagesVerificationAllowlist: [{pattern:?}]"
        )
    };
    for (pattern, why) in [
        (" quay.io/a", "leading/trailing spaces are not allowed"),
        ("", "the supplied pattern is too short"),
        ("quay.io/*/a", "not a valid wildcard pattern"),
        ("quay.io*", "not a valid wildcard pattern"),
        ("/*", "at least registry hostname is required"),
        ("quay.io/a:1", "neither tag nor digest is accepted"),
        ("quay.io/A", "failed to parse as an image name"),
    ] {
        let fault = fault(&listed(pattern));
        assert!(fault.contains(why), "{fault}");
    }
    for pattern in ["quay.io:5000/a/b", "nginx", "quay.io/*"] {
        assert!(read(&listed(pattern)).is_ok(), "{pattern}");
    }
    let two = fault("maxPods: -1\npodsPerCore: -1");
    assert!(
        two.contains("error: [invalid configuration: maxPods"),
        "{two}"
    );
    let gate = fault("featureGates: {SidecarContainers: false}");
    let why = "cannot set feature gate SidecarContainers to false, feature is locked to true";
    assert!(gate.ends_with(why), "{gate}");
}

#[test]
fn a_list_that_says_nothing_is_none() {
    let of = |text: &str| {
        let config = read(text).unwrap();
        config.settings().enforce_node_allocatable.clone()
    };
    assert_eq!(of(""), ["pods"]);
    assert_eq!(of("enforceNodeAllocatable: null"), ["pods"]);
    assert!(of("enforceNodeAllocatable: []\ncgroupsPerQOS: false").is_empty());
    let both = "enforceNodeAllocatable: [pods, system-reserved]\nsystemReservedCgroup: /system";
    assert_eq!(of(both), ["pods", "system-reserved"]);
}

#[test]
fn what_changes_nothing_is_named() {
    let text = "registryBurst: 3\nregistryPullQPS: 9\nsyncFrequency: 60s\n\
                featureGates: {GenericWorkload: true, NoSuch: true, PodLevelResources: true}\n";
    assert_eq!(
        read(text).unwrap().warnings(),
        [
            "registryPullQPS has no effect here",
            "registryBurst has no effect here",
            "featureGates.GenericWorkload has no effect here: it is false",
            "unrecognized feature gate: NoSuch",
        ]
    );
}

#[test]
fn later_layers_win() {
    let mut all =
        layers("maxPods: 20\npodsPerCore: 5\nstaticPodPath: pods\nclusterDNS: [10.0.0.1]\n");
    all.own = json!({"serializeImagePulls": false, "maxParallelImagePulls": 4, "port": 10251,
        "containerRuntimeEndpoint": "", "evictionHard": {"imagefs.available": "5%"}});
    assert_eq!(
        Configuration::read(&all).unwrap().settings().eviction_hard["imagefs.available"],
        "5%"
    );
    let dropin = |name: &str, text: &str| Source {
        path: name.into(),
        text: format!("{HEAD}{text}"),
    };
    all.dropins = vec![
        dropin(
            "/d/10.conf",
            "maxPods: 30\nevictionHard: {memory.available: 1Gi}\n",
        ),
        dropin(
            "/d/20.conf",
            "podsPerCore: null\nmaxPods: 40\nclusterDNS: [10.0.0.2]\n",
        ),
    ];
    let config = Configuration::read(&all).unwrap();
    let settings = config.settings();
    assert_eq!((settings.max_pods, settings.pods_per_core), (40, 0));
    // Nothing is a default, too.
    assert_eq!(settings.container_runtime_endpoint, "");
    assert_eq!(at(config.shown(), "containerRuntimeEndpoint"), None);
    assert_eq!(settings.static_pod_path, "/etc/kubelet/pods");
    assert_eq!(settings.cluster_dns, ["10.0.0.2"]);
    assert_eq!(
        (settings.port, settings.max_parallel_image_pulls),
        (10251, Some(4))
    );
    assert_eq!(settings.eviction_hard.len(), 1);
    all.given = json!({"maxPods": 45, "port": 1});
    let flag = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    all.flags = vec![
        flag("max-pods", "50"),
        flag("eviction-hard", "nodefs.available<5%"),
        flag("serialize-image-pulls", "true"),
        flag("reserved-cpus", "0"),
        flag("manifest-url", "http://pods.example/"),
        flag("manifest-url-header", "X-A:1,X-B:x:y,X-A:2"),
    ];
    let config = Configuration::read(&all).unwrap();
    let settings = config.settings();
    assert_eq!((settings.max_pods, settings.port), (50, 1));
    assert_eq!(settings.eviction_hard["nodefs.available"], "5%");
    assert_eq!(settings.eviction_hard.len(), 1);
    assert!(settings.serialize_image_pulls);
    assert_eq!(settings.max_parallel_image_pulls, None);
    assert_eq!(settings.reserved_system_cpus, "0");
    assert_eq!(settings.static_pod_url, "http://pods.example/");
    assert_eq!(settings.http_check_frequency.to_string(), "20s");
    let headers = &settings.static_pod_url_header;
    assert_eq!(
        (&headers["X-A"], &headers["X-B"]),
        (&vec!["1".into(), "2".into()], &vec!["x:y".into()])
    );
    all.flags = vec![flag("max-pots", "50")];
    let error = Configuration::read(&all).unwrap_err().to_string();
    assert_eq!(
        error,
        "failed to parse kubelet flag: unknown flag: --max-pots"
    );
    all.flags = vec![flag("max-pods", "some")];
    let error = Configuration::read(&all).unwrap_err().to_string();
    let why = "invalid argument \"some\" for \"--max-pods\" flag: strconv.ParseInt: parsing \"some\": \
               invalid syntax";
    assert!(error.ends_with(why), "{error}");
    all.flags.clear();
    all.dropins[0].text = "maxPods: 3".into();
    let error = Configuration::read(&all).unwrap_err().to_string();
    let why = "failed to load kubelet dropin file, path: /d/10.conf, no apiVersion/kind";
    assert_eq!(error, why);
}
