//! Upstream's words for autoscalers, devices and the newer events, found by comparing servers.

use meta::Faults;
use serde_json::{Value, json};

fn row_of(group: &str, kind: &str) -> &'static kinds::Row {
    kinds::row(group, kind).expect("a built-in kind")
}

fn check(group: &str, kind: &str, mut object: Value, expected: &[&str]) {
    let row = row_of(group, kind);
    row.strategy.default(&mut object);
    let mut faults = Faults::new();
    row.strategy.validate_create(&object, &mut faults);
    let found: Vec<_> = faults.0.iter().map(ToString::to_string).collect();
    assert_eq!(found, expected, "{kind}");
}

fn fields_of(group: &str, kind: &str, mut object: Value) -> Vec<String> {
    let row = row_of(group, kind);
    row.strategy.default(&mut object);
    let mut faults = Faults::new();
    row.strategy.validate_create(&object, &mut faults);
    faults.0.into_iter().map(|fault| fault.field).collect()
}

#[test]
fn autoscalers() {
    let metric = |metric: Value| {
        let target = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "a"});
        json!({"spec": {"scaleTargetRef": target, "maxReplicas": 2, "metrics": [metric]}})
    };
    let cases = [
        (
            json!({"type": "Pods", "pods": {"metric": {}, "target": {"type": "Value"}}}),
            vec![
                "spec.metrics[0].pods.metric.name",
                "spec.metrics[0].pods.target.averageValue",
            ],
        ),
        (
            json!({"type": "ContainerResource", "containerResource": {"name": "a",
                "container": "-x", "target": {"type": "Utilization", "averageUtilization": 1}}}),
            vec![
                "spec.metrics[0].containerResource.name",
                "spec.metrics[0].containerResource.name",
                "spec.metrics[0].containerResource.container",
            ],
        ),
        (
            json!({"type": "External", "external": {"metric": {"name": "m"},
                "target": {"type": "Value", "value": "-1"}}}),
            vec!["spec.metrics[0].external.target.value"],
        ),
        (json!({"type": "x"}), vec!["spec.metrics[0].type"; 2]),
    ];
    for (given, expected) in cases {
        let found = fields_of("autoscaling", "HorizontalPodAutoscaler", metric(given));
        assert_eq!(found, expected);
    }
    let target = json!({"kind": "Deployment", "name": "a", "apiVersion": "v1"});
    check(
        "autoscaling",
        "HorizontalPodAutoscaler",
        json!({"spec": {"scaleTargetRef": target, "maxReplicas": 2}}),
        &[
            "spec.scaleTargetRef.apiVersion: Invalid value: \"v1\": apiVersion must specify API \
           group",
        ],
    );
}

#[test]
fn devices_are_selected_and_described() {
    let class =
        |expression: &str| json!({"spec": {"selectors": [{"cel": {"expression": expression}}]}});
    let group = "resource.k8s.io";
    check(group, "DeviceClass", class("device.driver == 'a'"), &[]);
    check(
        group,
        "DeviceClass",
        class("1"),
        &[
            "spec.selectors[0].cel.expression: Invalid value: \"1\": must evaluate to bool or the \
           unknown type, not int",
        ],
    );
    let slice = |attribute: Value| {
        json!({"spec": {"driver": "a.b", "nodeName": "n", "pool": {"name": "p",
            "resourceSliceCount": 1}, "devices": [{"name": "d", "attributes": {"a": attribute}}]}})
    };
    check(
        group,
        "ResourceSlice",
        slice(json!({"version": "1.0.0"})),
        &[],
    );
    check(
        group,
        "ResourceSlice",
        slice(json!({"version": "1"})),
        &[
            "spec.devices[0].attributes[a].version: Invalid value: \"1\": must be a string \
           compatible with semver.org spec 2.0.0",
        ],
    );
    check(
        group,
        "ResourceSlice",
        slice(json!({})),
        &[
            "spec.devices[0].attributes[a]: Invalid value: \"\": exactly one value must be \
           specified",
        ],
    );
}

#[test]
fn new_events_say_more() {
    let view = kinds::views()
        .iter()
        .find(|view| view.names.kind == "Event");
    let row = view.and_then(kinds::View::row).expect("events have a view");
    let mut faults = Faults::new();
    let event = json!({"metadata": {"namespace": "default"}, "count": 1, "series": {"count": 1}});
    row.strategy.validate_create(&event, &mut faults);
    let fields: Vec<_> = faults.0.iter().map(|fault| fault.field.as_str()).collect();
    let expected = [
        "series.count",
        "series.lastObservedTime",
        "eventTime",
        "type",
        "count",
    ];
    assert_eq!(fields, expected);
    assert_eq!(fields_of("", "Event", event), Vec::<String>::new());
}

#[test]
fn values_are_shown_as_upstream_shows_them() {
    check(
        "flowcontrol.apiserver.k8s.io",
        "FlowSchema",
        json!({"spec": {"distinguisherMethod": {"type": "x"},
            "priorityLevelConfiguration": {"name": "p"}}}),
        &[
            "spec.distinguisherMethod.type: Unsupported value: {\"Type\":\"x\"}: supported values: \
         \"ByNamespace\", \"ByUser\"",
        ],
    );
    check(
        "networking.k8s.io",
        "ServiceCIDR",
        json!({"spec": {"cidrs": ["10.0.0.0/16", "10.1.0.0/16"]}}),
        &[
            "spec.cidrs: Invalid value: [\"10.0.0.0/16\",\"10.1.0.0/16\"]: may specify no more than \
         one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64",
        ],
    );
    check(
        "apps",
        "ControllerRevision",
        json!({"data": [], "revision": 1}),
        &["data: Required value: data must be a valid JSON object"],
    );
}
