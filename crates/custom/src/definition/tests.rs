use super::*;

fn definition(schema: Value) -> Value {
    let mut object = json!({"metadata": {"name": "boats.sea.example.com"}, "spec": {
        "group": "sea.example.com", "scope": "Namespaced",
        "names": {"plural": "boats", "kind": "Boat"},
        "versions": [{"name": "v1", "served": true, "storage": true,
            "schema": {"openAPIV3Schema": schema}}]}});
    DefinitionStrategy.default(&mut object);
    DefinitionStrategy.prepare_create(&mut object);
    object
}

fn faults(object: &Value) -> Vec<String> {
    let mut faults = Faults::new();
    DefinitionStrategy.validate_create(object, &mut faults);
    faults.0.iter().map(ToString::to_string).collect()
}

#[track_caller]
fn check(schema: Value, expect: &[&str]) {
    assert_eq!(faults(&definition(schema)), expect);
}

fn spec(node: Value) -> Value {
    json!({"type": "object", "properties": {"spec": node}})
}

const ROOT: &str = "spec.validation.openAPIV3Schema";

#[test]
fn defaults_and_stored_versions_are_filled_in() {
    let object = definition(json!({"type": "object"}));
    assert_eq!(object["spec"]["names"]["listKind"], "BoatList");
    assert_eq!(object["spec"]["names"]["singular"], "boat");
    assert_eq!(object["spec"]["conversion"]["strategy"], "None");
    assert_eq!(object["status"]["storedVersions"], json!(["v1"]));
    assert_eq!(faults(&object), [""; 0]);
}

#[test]
fn schemas_must_be_structural() {
    check(
        json!({}),
        &[&format!(
            "{ROOT}.type: Required value: must not be empty at the root"
        )],
    );
    check(
        spec(json!({})),
        &[&format!(
            "{ROOT}.properties[spec].type: Required value: must not be empty for specified object fields"
        )],
    );
    check(
        json!({"type": "object", "anyOf": [{"properties": {"a": {"type": "string"}}}]}),
        &[
            &format!(
                "{ROOT}.anyOf[0].properties[a].type: Forbidden: must be empty to be structural"
            ),
            &format!(
                "{ROOT}.properties[a]: Required value: because it is defined in {ROOT}.anyOf[0].properties[a]"
            ),
        ],
    );
    check(
        spec(json!({"x-kubernetes-int-or-string": true,
            "anyOf": [{"type": "integer"}, {"type": "string"}]})),
        &[],
    );
    check(
        spec(json!({"type": "array"})),
        &[&format!(
            "{ROOT}.properties[spec].items: Required value: must be specified"
        )],
    );
}

#[test]
fn forbidden_features_are_named() {
    check(
        spec(json!({"type": "array", "uniqueItems": true, "items": {"type": "string"}})),
        &[&format!(
            "{ROOT}.properties[spec].uniqueItems: Forbidden: uniqueItems cannot be set to true since the runtime complexity becomes quadratic"
        )],
    );
    check(
        spec(json!({"type": "string", "$ref": "x"})),
        &[&format!(
            "{ROOT}.properties[spec].$ref: Forbidden: $ref is not supported"
        )],
    );
    check(
        spec(json!({"type": "array", "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["a"],
            "items": {"type": "object", "properties": {"a": {"type": "string"}}}})),
        &[&format!(
            "{ROOT}.properties[spec].items.properties[a].default: Required value: this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property"
        )],
    );
}

#[test]
fn defaults_must_validate_and_be_pruned() {
    check(
        spec(json!({"type": "object", "properties": {"a": {"type": "integer", "default": "x"}}})),
        &[&format!(
            "{ROOT}.properties[spec].properties[a].default: Invalid value: \"string\":  in body must be of type integer: \"string\""
        )],
    );
    check(
        spec(
            json!({"type": "object", "default": {"b": 1}, "properties": {"a": {"type": "string"}}}),
        ),
        &[&format!(
            "{ROOT}.properties[spec].default: Invalid value: {{\"b\":1}}: must not have unknown fields"
        )],
    );
}

#[test]
fn defaults_must_satisfy_rules() {
    let at = format!("{ROOT}.properties[spec].properties[a].default");
    let with = |rule: Value, default: i64| {
        spec(
            json!({"type": "object", "properties": {"a": {"type": "integer", "default": default,
            "x-kubernetes-validations": [rule]}}}),
        )
    };
    let small = json!({"rule": "self < 5", "message": "too big"});
    check(with(small.clone(), 4), &[]);
    check(
        with(small, 5),
        &[&format!("{at}: Invalid value: 5: too big")],
    );
    // A rule about changes is asked as if the default had always been there, and as if it came.
    let grows = json!({"rule": "self > oldSelf", "message": "must grow"});
    check(
        with(grows, 1),
        &[&format!("{at}: Invalid value: 1: must grow")],
    );
    let comes = json!({"rule": "oldSelf.hasValue()", "optionalOldSelf": true, "message": "new"});
    check(with(comes, 1), &[&format!("{at}: Invalid value: 1: new")]);
    let below = spec(
        json!({"type": "object", "properties": {"a": {"type": "object",
        "default": {"b": "x"}, "properties": {"b": {"type": "string", "maxLength": 9,
        "x-kubernetes-validations": [{"rule": "self == 'y'", "message": "not y"}]}}}}}),
    );
    check(below, &[&format!("{at}.b: Invalid value: \"x\": not y")]);
}

#[test]
fn names_versions_and_columns_have_rules() {
    let mut object = definition(json!({"type": "object"}));
    object["metadata"]["name"] = "x".into();
    object["spec"]["names"]["kind"] = "Bo_at".into();
    object["spec"]["versions"][0]["storage"] = false.into();
    object["spec"]["versions"][0]["additionalPrinterColumns"] =
        json!([{"name": "A", "type": "any", "jsonPath": "x"}]);
    object["spec"]["versions"][0]["selectableFields"] = json!([{"jsonPath": ".spec.none"}]);
    let found = faults(&object);
    let fields: Vec<&str> = found
        .iter()
        .filter_map(|one| one.split(": ").next())
        .collect();
    assert_eq!(
        fields,
        [
            "metadata.name",
            "spec.versions",
            "spec.names.kind",
            "spec.additionalPrinterColumns[0].type",
            "spec.additionalPrinterColumns[0].JSONPath",
            "spec.selectableFields[0].jsonPath"
        ],
        "{found:?}"
    );
}

#[test]
fn protected_groups_need_approval() {
    let mut object = definition(json!({"type": "object"}));
    object["spec"]["group"] = "sea.k8s.io".into();
    object["metadata"]["name"] = "boats.sea.k8s.io".into();
    assert_eq!(
        faults(&object),
        [
            "metadata.annotations[api-approved.kubernetes.io]: Required value: protected groups must have approval annotation \"api-approved.kubernetes.io\", see https://github.com/kubernetes/enhancements/pull/1111"
        ]
    );
    object["metadata"]["annotations"] = json!({"api-approved.kubernetes.io": "https://a.b/pull/1"});
    assert_eq!(faults(&object), [""; 0]);
    assert_eq!(
        approval_condition(&object),
        Some((
            "True",
            "ApprovedAnnotation",
            "approved in https://a.b/pull/1".into()
        ))
    );
}

#[test]
fn a_version_that_holds_objects_stays() {
    let mut object = definition(json!({"type": "object"}));
    object["status"]["storedVersions"] = json!(["v0", "v1"]);
    let found = faults(&object);
    assert!(
        found[0].starts_with(
            "status.storedVersions[0]: Invalid value: \"v0\": missing from spec.versions; v0 was"
        ),
        "{found:?}"
    );
}

#[test]
fn expressions_must_compile_and_be_cheap() {
    let rules = |rule: &str, node: Value| {
        let mut node = node;
        node["x-kubernetes-validations"] = json!([{"rule": rule}]);
        node
    };
    let object = json!({"type": "object", "properties": {"x": {"type": "integer"}}});
    let found = faults(&definition(spec(rules("self.z == 100", object.clone()))));
    assert!(found[0].contains("undefined field 'z'"), "{found:?}");
    assert!(found[0].starts_with(&format!(
        "{ROOT}.properties[spec].x-kubernetes-validations[0].rule"
    )));
    let found = faults(&definition(spec(rules("self = 42", object.clone()))));
    assert!(found[0].contains("Syntax error"), "{found:?}");
    assert_eq!(
        faults(&definition(spec(rules("self.x == 1", object)))),
        [""; 0]
    );
    let texts = json!({"type": "array", "items": {"type": "string"}});
    let dear =
        json!({"type": "array", "items": rules("self.all(s, s == 'string constant')", texts)});
    let found = faults(&definition(spec(
        json!({"type": "object", "properties": {"x": dear}}),
    )));
    assert!(
        found[0].contains("estimated rule cost exceeds budget"),
        "{found:?}"
    );
    let text = json!({"type": "string", "maxLength": 5});
    let list = json!({"type": "array", "maxItems": 3, "items": rules("self != oldSelf", text)});
    let found = faults(&definition(spec(list)));
    assert!(found[0].ends_with(&format!(
        "oldSelf cannot be used on the uncorrelatable portion of the schema within {ROOT}.properties[spec]"
    )), "{found:?}");
}

#[test]
fn a_known_schema_keeps_its_dear_rules() {
    let rule = json!([{"rule": "self.all(a, self.all(b, a == b))"}]);
    let old = definition(spec(json!({"type": "array", "items": {"type": "string"},
        "x-kubernetes-validations": rule})));
    let refused = faults(&old);
    assert!(
        refused[0].contains("estimated rule cost exceeds budget"),
        "{refused:?}"
    );
    let update = |new: &Value| {
        let mut faults = Faults::new();
        DefinitionStrategy.validate_update(new, &old, &mut faults);
        let all: Vec<String> = faults.0.iter().map(ToString::to_string).collect();
        all.iter()
            .filter(|one| one.contains("estimated rule cost exceeds"))
            .count()
    };
    assert_eq!(update(&old), 0);
    let mut new = old.clone();
    new["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["maxItems"] =
        1_000_000.into();
    assert_eq!(update(&new), 1);
}

#[test]
fn a_served_definition_keeps_a_bundle_that_can_be_read() {
    let with = |bundle: &str| {
        let mut object = definition(json!({"type": "object"}));
        object["spec"]["conversion"] = json!({"strategy": "Webhook", "webhook": {
            "conversionReviewVersions": ["v1"],
            "clientConfig": {"url": "https://a.b/c", "caBundle": bundle}}});
        object["status"]["conditions"] = json!([{"type": "Established", "status": "True"}]);
        object
    };
    // A certificate's frame, and text that is none.
    let (sound, broken) = ("LS0tLS1CRUdJTiBYLS0tLS0KLS0tLS1FTkQgWC0tLS0tCg==", "bm8=");
    assert!(faults(&with(broken)).is_empty());
    let told = |new: &Value, old: &Value| {
        let mut faults = Faults::new();
        DefinitionStrategy.validate_update(new, old, &mut faults);
        faults.0.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(told(&with(broken), &with(broken)), [""; 0]);
    assert_eq!(
        told(&with(broken), &with(sound)),
        [
            "spec.conversion.webhookClientConfig.caBundle: Invalid value: \"bm8=\": unable to load \
          root certificates: unable to parse bytes as PEM block"
        ]
    );
}

#[test]
fn what_is_wrong_is_shown_as_upstream_shows_it() {
    let mut object = definition(json!({"type": "object"}));
    assert_eq!(object["status"]["conditions"], Value::Null);
    object["spec"]["versions"][0]["name"] = "V1".into();
    object["spec"]["versions"][0]["storage"] = false.into();
    object["spec"]["versions"][0]["selectableFields"] =
        json!([{"jsonPath": ".spec"}, {"jsonPath": "1.2"}, {"jsonPath": ".a['b']"}]);
    object["status"]["storedVersions"] = json!([]);
    let found = faults(&object);
    let broken = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', \
                  start with an alphabetic character, and end with an alphanumeric character \
                  (e.g. 'my-name',  or 'abc-123', regex used for validation is \
                  '[a-z]([-a-z0-9]*[a-z0-9])?')";
    let at = "spec.selectableFields";
    assert_eq!(
        found,
        [
            format!("spec.versions[0].name: Invalid value: \"V1\": {broken}"),
            "spec.versions: Invalid value: [{\"Name\":\"V1\",\"Served\":true,\"Storage\":false,\
             \"Deprecated\":false,\"DeprecationWarning\":null,\"Schema\":null,\
             \"Subresources\":null,\"AdditionalPrinterColumns\":null,\
             \"SelectableFields\":null}]: must have exactly one version marked as storage version"
                .to_owned(),
            format!("spec.version: Invalid value: \"V1\": {broken}"),
            format!(
                "{at}[0].jsonPath: Invalid value: \".spec\": is an invalid path: does not refer to \
                 a valid field"
            ),
            format!(
                "{at}[1].jsonPath: Invalid value: \"1.2\": is an invalid path: expected [ or . but \
                 got: 1"
            ),
            format!(
                "{at}[2].jsonPath: Invalid value: \".a['b']\": is an invalid path: does not refer \
                 to a valid field"
            ),
            "status.storedVersions: Invalid value: null: must have at least one stored version"
                .to_owned(),
        ]
    );
    check(
        spec(json!({"type": "array", "x-kubernetes-list-type": "x",
            "items": {"type": "string"}})),
        &[&format!(
            "{ROOT}.properties[spec].x-kubernetes-list-type: Unsupported value: \"x\": supported \
             values: \"atomic\", \"set\", \"map\""
        )],
    );
    check(
        spec(json!({"type": "string",
            "x-kubernetes-validations": [{"rule": "1", "message": "m"}]})),
        &[&format!(
            "{ROOT}.properties[spec].x-kubernetes-validations[0].rule: Invalid value: \
             {{\"Rule\":\"1\",\"Message\":\"m\",\"MessageExpression\":\"\",\"Reason\":null,\
             \"FieldPath\":\"\",\"OptionalOldSelf\":null}}: cel expression must evaluate to a bool"
        )],
    );
}
