use meta::Names;
use serde_json::Value;

use super::*;

fn apps() -> Value {
    let names = Names::namespaced("apps", "v1", "Deployment", "deployments");
    let kind = KindDoc {
        names: &names,
        subresources: &["status", "scale"],
        verbs: &[
            "create",
            "delete",
            "deletecollection",
            "get",
            "list",
            "patch",
            "update",
            "watch",
        ],
    };
    document(&names.group_version(), &[kind])
}

#[test]
fn every_reference_leads_somewhere() {
    fn walk(value: &Value, schemas: &Value, count: &mut usize) {
        match value {
            Value::Object(map) => {
                if let Some(Value::String(target)) = map.get("$ref") {
                    let name = target.strip_prefix("#/components/schemas/").unwrap();
                    assert!(schemas[name].is_object(), "{name}");
                    *count += 1;
                }
                map.values().for_each(|value| walk(value, schemas, count));
            }
            Value::Array(items) => items.iter().for_each(|value| walk(value, schemas, count)),
            _ => {}
        }
    }
    let document = apps();
    let mut count = 0;
    walk(&document, &document["components"]["schemas"], &mut count);
    assert!(count > 200, "{count}");
}

#[test]
fn schemas_carry_what_kubectl_reads() {
    let document = apps();
    let schemas = &document["components"]["schemas"];
    let deployment = &schemas["io.k8s.api.apps.v1.Deployment"];
    assert_eq!(
        deployment["x-kubernetes-group-version-kind"],
        json!([{"group": "apps", "version": "v1", "kind": "Deployment"}])
    );
    let containers = &schemas["io.k8s.api.core.v1.PodSpec"]["properties"]["containers"];
    assert_eq!(containers["x-kubernetes-list-map-keys"], json!(["name"]));
    assert_eq!(containers["x-kubernetes-list-type"], "map");
    assert_eq!(containers["x-kubernetes-patch-merge-key"], "name");
    assert_eq!(containers["x-kubernetes-patch-strategy"], "merge");
    assert_eq!(
        schemas["io.k8s.api.core.v1.PodSpec"]["required"],
        json!(["containers"])
    );
    assert_eq!(
        schemas["io.k8s.apimachinery.pkg.util.intstr.IntOrString"]["format"],
        "int-or-string"
    );
    assert!(schemas["io.k8s.api.apps.v1.DeploymentList"]["properties"]["items"].is_object());
}

#[test]
fn what_is_published_of_single_fields() {
    let check = |ty: &str, field: &str, facts: Value| {
        let mut schemas = Schemas::default();
        schemas.reference(ty);
        let all = schemas.finish();
        let property = &all[ty]["properties"][field];
        for (key, value) in facts.as_object().unwrap() {
            assert_eq!(&property[key], value, "{ty}.{field}");
        }
    };
    let core = |ty: &str| format!("io.k8s.api.core.v1.{ty}");
    let usages = "io.k8s.api.certificates.v1.CertificateSigningRequestSpec";
    let own = |target: &str| json!({"$ref": format!("#/components/schemas/{target}")});
    // Always written, hence with a default; required and yet left out, hence without.
    check(&core("NodeRuntimeHandler"), "name", json!({"default": ""}));
    check(
        &core("ContainerRestartRule"),
        "action",
        json!({"default": null}),
    );
    check(
        &core("AzureDiskVolumeSource"),
        "cachingMode",
        json!({"default": "ReadWrite", "enum": ["None", "ReadOnly", "ReadWrite"]}),
    );
    check(
        &core("ServiceSpec"),
        "ipFamilies",
        json!({"items": {"type": "string", "enum": ["", "IPv4", "IPv6"]}}),
    );
    let claim = core("PersistentVolumeClaimStatus");
    check(
        &claim,
        "allocatedResourceStatuses",
        json!({"x-kubernetes-map-type": "granular"}),
    );
    // A reference stands alone unless something is said beside it.
    let rule = "io.k8s.api.networking.v1.HTTPIngressRuleValue";
    check("io.k8s.api.networking.v1.IngressRule", "http", own(rule));
    let spec = core("PodSpec");
    check(
        &core("Pod"),
        "spec",
        json!({"$ref": null, "allOf": [own(&spec)]}),
    );
    let mut schemas = Schemas::default();
    schemas.reference(usages);
    schemas.reference("io.k8s.api.flowcontrol.v1.Subject");
    let all = schemas.finish();
    let values = &all[usages]["properties"]["usages"]["items"]["enum"];
    assert!(
        values.as_array().unwrap().contains(&json!("client auth")),
        "{values}"
    );
    let union = &all["io.k8s.api.flowcontrol.v1.Subject"]["x-kubernetes-unions"][0];
    assert_eq!(union["discriminator"], "kind");
}

#[test]
fn requests_that_are_passed_on_name_their_options() {
    let pods = Names::namespaced("", "v1", "Pod", "pods");
    let kind = KindDoc {
        names: &pods,
        subresources: &["exec", "log", "proxy"],
        verbs: &["get"],
    };
    let document = document(&pods.group_version(), &[kind]);
    let pod = "/api/v1/namespaces/{namespace}/pods/{name}";
    let names = |path: &str| {
        let item = &document["paths"][path]["parameters"];
        let own = item.as_array().unwrap().iter();
        let own = own.map(|one| (one["name"].as_str().unwrap(), one["in"].as_str().unwrap()));
        own.map(|(name, place)| format!("{name}:{place}"))
            .collect::<Vec<_>>()
    };
    assert_eq!(
        names(&format!("{pod}/exec")).first().unwrap(),
        "command:query"
    );
    assert_eq!(names(&format!("{pod}/log")).len(), 12);
    let below = names(&format!("{pod}/proxy/{{path}}"));
    assert_eq!(
        below,
        ["name:path", "namespace:path", "path:path", "path:query"]
    );
    let exec = &document["paths"][format!("{pod}/exec")];
    assert_eq!(
        exec["parameters"][2]["description"],
        "name of the PodExecOptions"
    );
    assert_eq!(exec["get"]["x-kubernetes-action"], "connect");
    // What nobody may do is not there, nor are the types that it would need.
    assert!(document["paths"][pod].get("delete").is_none());
    assert!(document["paths"]["/api/v1/namespaces/{namespace}/bindings"]["post"].is_object());
}

#[test]
fn patches_name_their_parameters() {
    let document = apps();
    let patch =
        &document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"];
    let names: Vec<&str> = patch["parameters"]
        .as_array()
        .unwrap()
        .iter()
        .map(|parameter| parameter["name"].as_str().unwrap())
        .collect();
    assert_eq!(
        names,
        ["dryRun", "fieldManager", "fieldValidation", "force"]
    );
    assert_eq!(
        patch["x-kubernetes-group-version-kind"]["kind"],
        "Deployment"
    );
    assert_eq!(patch["operationId"], "patchAppsV1NamespacedDeployment");
    let scale = &document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}/scale"]
        ["patch"];
    assert_eq!(scale["x-kubernetes-group-version-kind"]["kind"], "Scale");
    assert!(document["paths"]["/apis/apps/v1/deployments"]["get"].is_object());
}

#[test]
fn the_older_document_says_the_same() {
    let mut builder = v2::Builder::default();
    builder.add(apps());
    let document = builder.finish("v1.36.2");
    let tree: Value = serde_json::from_slice(&document.json).unwrap();
    let own = &tree["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"];
    assert_eq!(own["patch"]["consumes"].as_array().unwrap().len(), 4);
    assert_eq!(own["get"]["produces"][1], "application/yaml");
    let parameters = own["put"]["parameters"].as_array().unwrap();
    assert_eq!(
        parameters[0]["schema"]["$ref"],
        "#/definitions/io.k8s.api.apps.v1.Deployment"
    );
    assert_eq!(parameters[1]["type"], "string");
    assert_eq!(
        own["get"]["responses"]["200"]["schema"]["$ref"],
        "#/definitions/io.k8s.api.apps.v1.Deployment"
    );
    let definitions = &tree["definitions"];
    let spec = &definitions["io.k8s.api.apps.v1.Deployment"]["properties"]["spec"];
    assert_eq!(
        spec["$ref"],
        "#/definitions/io.k8s.api.apps.v1.DeploymentSpec"
    );
    assert!(spec["description"].is_string() && spec.get("allOf").is_none());
    let containers = &definitions["io.k8s.api.core.v1.PodSpec"]["properties"]["containers"];
    assert_eq!(containers["x-kubernetes-patch-merge-key"], "name");
    assert_eq!(
        definitions["io.k8s.apimachinery.pkg.util.intstr.IntOrString"]["type"],
        "string"
    );
    let text = String::from_utf8(document.json).unwrap();
    assert!(!text.contains("#/components/") && !text.contains("\"oneOf\""));
}

/// The messages under a tag.
fn under(bytes: &[u8], tag: u32) -> Vec<&[u8]> {
    let mut reader = crate::protobuf::wire::Reader::new(bytes);
    let mut found = Vec::new();
    while let Some((own, field)) = reader.next().unwrap() {
        match field {
            crate::protobuf::wire::Field::Bytes(bytes) if own == tag => found.push(bytes),
            _ => {}
        }
    }
    found
}

#[test]
fn both_documents_have_a_message_form() {
    let mut builder = v2::Builder::default();
    builder.add(apps());
    let document = builder.finish("v1.36.2").protobuf;
    assert_eq!(under(&document, 1), [b"2.0"]);
    let definitions = under(under(&document, 9)[0], 1);
    let deployment = definitions
        .iter()
        .find(|named| under(named, 1) == [b"io.k8s.api.apps.v1.Deployment"]);
    let schema = under(deployment.unwrap(), 2)[0];
    assert_eq!(under(under(schema, 22)[0], 1), [b"object"]);
    let extension = under(schema, 31)[0];
    assert_eq!(under(extension, 1), [b"x-kubernetes-group-version-kind"]);
    let yaml = under(under(extension, 2)[0], 2)[0];
    assert!(yaml.starts_with(br#"[{"group":"apps""#));
    let properties: Vec<&[u8]> = under(under(schema, 25)[0], 1)
        .into_iter()
        .map(|named| under(named, 1)[0])
        .collect();
    assert_eq!(
        properties,
        [&b"apiVersion"[..], b"kind", b"metadata", b"spec", b"status"]
    );
    let paths = under(under(&document, 8)[0], 2);
    let scale = b"/apis/apps/v1/namespaces/{namespace}/deployments/{name}/scale";
    let scale = paths
        .iter()
        .find(|named| under(named, 1) == [scale])
        .unwrap();
    let patch = under(under(scale, 2)[0], 8)[0];
    // Parameter, not body, in the query, its name.
    let names: Vec<&[u8]> = under(patch, 8)
        .into_iter()
        .filter_map(|item| under(under(item, 1)[0], 2).first().copied())
        .map(|other| under(under(other, 3)[0], 4)[0])
        .collect();
    assert_eq!(
        names,
        [
            &b"dryRun"[..],
            b"fieldManager",
            b"fieldValidation",
            b"force"
        ]
    );
    let third = document_protobuf(&apps());
    assert_eq!(under(&third, 1), [b"3.0.0"]);
    let schemas = under(under(under(&third, 5)[0], 1)[0], 1);
    assert_eq!(schemas.len(), definitions.len());
}

#[test]
fn the_older_watches_are_named() {
    let document = apps();
    let paths = document["paths"].as_object().unwrap();
    let watches = paths.iter().filter(|(path, _)| path.contains("/watch/"));
    let named: Vec<(&str, &str, &str)> = watches
        .map(|(path, item)| {
            let get = &item["get"];
            let text = |field: &str| get[field].as_str().unwrap();
            (
                path.as_str(),
                text("operationId"),
                text("x-kubernetes-action"),
            )
        })
        .collect();
    let of = "/apis/apps/v1/watch/namespaces/{namespace}/deployments";
    let one = format!("{of}/{{name}}");
    assert_eq!(
        named,
        [
            (
                "/apis/apps/v1/watch/deployments",
                "watchAppsV1DeploymentListForAllNamespaces",
                "watchlist"
            ),
            (of, "watchAppsV1NamespacedDeploymentList", "watchlist"),
            (&one, "watchAppsV1NamespacedDeployment", "watch"),
        ]
    );
    let parameters = paths[&one]["parameters"].as_array().unwrap();
    assert_eq!(parameters.len(), 14);
    assert_eq!(parameters[5]["in"], "path");
}

#[test]
fn paths_of_no_version_have_documents() {
    for path in ROOTS.iter().copied().chain(["apis/apps"]) {
        let document = root(path).unwrap();
        let paths = document["paths"].as_object().unwrap();
        assert!(paths.contains_key(&format!("/{path}/")), "{path}");
    }
    let group = root("apis/rbac.authorization.k8s.io").unwrap();
    let get = &group["paths"]["/apis/rbac.authorization.k8s.io/"]["get"];
    assert_eq!(get["operationId"], "getRbacAuthorizationAPIGroup");
    let names: Vec<&String> = group["components"]["schemas"]
        .as_object()
        .unwrap()
        .keys()
        .collect();
    assert_eq!(names.len(), 3, "{names:?}");
    assert!(root("nowhere").is_none());
}

#[test]
fn another_servers_definitions_are_merged() {
    let to = |name: &str| json!({"$ref": format!("#/definitions/{name}")});
    let meta = "io.k8s.apimachinery.pkg.apis.meta.v1";
    let (version, owner) = (format!("{meta}.FieldsV1"), format!("{meta}.OwnerReference"));
    let mut builder = v2::Builder::default();
    builder.add(apps());
    let tree: Value = serde_json::from_slice(&builder.finish("v1").json).unwrap();
    let mut known = tree["definitions"][&version].clone();
    known["x-kubernetes-group-version-kind"] = json!([{"group": "g", "kind": "K", "version": "v"}]);
    let other = json!({
        "paths": {
            "/apis/g/v1/ships": {"get": {"responses": {"200": {"schema": to(&owner)}}}},
            "/apis/apps/v1/deployments": {"get": {}},
        },
        "definitions": {&version: known, &owner: {"properties": {"x": to(&version)}}},
    });
    let mut builder = v2::Builder::default();
    builder.add(apps());
    builder.add_other(other);
    let document = builder.finish("v1");
    let merged: Value = serde_json::from_slice(&document.json).unwrap();
    let definitions = &merged["definitions"];
    let renamed = format!("{owner}_v2");
    assert_eq!(definitions[&owner], tree["definitions"][&owner]);
    assert_eq!(definitions[&renamed]["properties"]["x"], to(&version));
    let kinds = &definitions[&version]["x-kubernetes-group-version-kind"];
    assert_eq!(kinds[0]["kind"], "K");
    let ships = &merged["paths"]["/apis/g/v1/ships"]["get"]["responses"]["200"];
    assert_eq!(ships["schema"], to(&renamed));
    let deployments = "/apis/apps/v1/deployments";
    assert_eq!(merged["paths"][deployments], tree["paths"][deployments]);
    let names: Vec<&[u8]> = under(under(&document.protobuf, 9)[0], 1)
        .into_iter()
        .map(|named| under(named, 1)[0])
        .collect();
    assert!(names.contains(&renamed.as_bytes()));
}
