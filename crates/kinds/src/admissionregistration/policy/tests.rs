//! What upstream says of policies and bindings that are not as they should be.

use serde_json::json;

use super::super::binding::Bindings;
use super::*;

fn none(_: &Value, _: Timestamp) -> Cells {
    Vec::new()
}

fn policy(spec: Value) -> Value {
    let mut object = json!({"metadata": {"name": "p.example.com"}, "spec": {
        "matchConstraints": {"resourceRules": [{"apiGroups": ["a"], "apiVersions": ["b"],
            "operations": ["CREATE"], "resources": ["c"]}]},
        "validations": [{"expression": "true"}],
        "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression":
            "[JSONPatch{op: 'test', path: '/a', value: 1}]"}}],
        "reinvocationPolicy": "Never"}});
    for (field, value) in spec.as_object().unwrap() {
        object["spec"][field] = value.clone();
    }
    object
}

fn told(strategy: &dyn Strategy, mut object: Value) -> Vec<String> {
    strategy.default(&mut object);
    let mut faults = Faults::new();
    strategy.validate_create(&object, &mut faults);
    faults.0.iter().map(ToString::to_string).collect()
}

fn check(mutating: bool, spec: Value, expect: &[&str]) {
    let strategy = Policies {
        mutating,
        cells: none,
    };
    assert_eq!(told(&strategy, policy(spec)), expect);
}

#[test]
fn constraints_are_checked() {
    check(false, json!({}), &[]);
    check(true, json!({}), &[]);
    check(
        false,
        json!({"failurePolicy": "Other", "matchConstraints": null}),
        &[
            "spec.failurePolicy: Unsupported value: \"Other\": supported values: \"Fail\", \
             \"Ignore\"",
            "spec.matchConstraints: Required value",
        ],
    );
    let path = "spec.matchConstraints";
    let rule = json!({"apiGroups": ["a", "*"], "apiVersions": ["b"], "operations": ["DELETE"],
        "resources": ["c"], "resourceNames": ["n", "n", "x/y"]});
    check(
        true,
        json!({"matchConstraints": {"matchPolicy": "x", "resourceRules": [rule]}}),
        &[
            &format!(
                "{path}.matchPolicy: Unsupported value: \"x\": supported values: \
                 \"Equivalent\", \"Exact\""
            ),
            &format!("{path}.resourceRules[0].resourceNames[1]: Duplicate value: \"n\""),
            &format!(
                "{path}.resourceRules[0].resourceNames[2]: Invalid value: \"x/y\": may not \
                 contain '/'"
            ),
            &format!(
                "{path}.resourceRules[0].apiGroups: Invalid value: [\"a\",\"*\"]: if '*' is \
                 present, must not specify other API groups"
            ),
            &format!(
                "{path}.resourceRules.operations: Unsupported value: \"DELETE\": supported \
                 values: \"*\", \"CONNECT\", \"CREATE\", \"UPDATE\""
            ),
        ],
    );
    check(
        false,
        json!({"matchConstraints": {"resourceRules": []}}),
        &["spec.matchConstraints.resourceRules: Required value"],
    );
}

#[test]
fn kinds_of_parameters_are_named_well() {
    let kind =
        |version: &str, kind: &str| json!({"paramKind": {"apiVersion": version, "kind": kind}});
    check(false, kind("rules.example.com/v1", "ReplicaLimit"), &[]);
    check(
        false,
        kind("", ""),
        &[
            "spec.paramKind.apiVersion: Required value",
            "spec.paramKind.kind: Required value",
        ],
    );
    check(
        false,
        kind("a/b/c", "Kind"),
        &[
            "spec.paramKind.apiVersion: Invalid value: \"a/b/c\": unexpected GroupVersion \
             string: a/b/c",
        ],
    );
    check(
        false,
        kind("apps/", "Kind"),
        &["spec.paramKind.apiVersion: Invalid value: \"apps/\": version must be specified"],
    );
    let broken = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', \
                  start with an alphabetic character, and end with an alphanumeric character \
                  (e.g. 'my-name',  or 'abc-123', regex used for validation is \
                  '[a-z]([-a-z0-9]*[a-z0-9])?')";
    check(
        false,
        kind("apps/v1", "Ki_nd"),
        &[&format!(
            "spec.paramKind.kind: Invalid value: \"Ki_nd\": may have mixed case, but should \
             otherwise match: {broken}"
        )],
    );
}

#[test]
fn rules_are_checked() {
    check(
        false,
        json!({"validations": [{"expression": " ", "message": "a\rb", "reason": "Other"},
            {"expression": "true", "message": " ", "messageExpression": " "}]}),
        &[
            "spec.validations[0].expression: Required value: expression is not specified",
            "spec.validations[0].message: Invalid value: \"a\\rb\": must not contain line breaks",
            "spec.validations[0].reason: Unsupported value: \"Other\": supported values: \
             \"Forbidden\", \"Invalid\", \"RequestEntityTooLarge\"",
            "spec.validations[1].messageExpression: Invalid value: \" \": must be non-empty if \
             specified",
            "spec.validations[1].message: Invalid value: \" \": must be non-empty if specified",
        ],
    );
    check(
        false,
        json!({"variables": [{"name": "4ever", "expression": "1"}, {"name": " ", "expression": ""}]}),
        &[
            "spec.variables[0].name: Invalid value: \"4ever\": must be a valid CEL identifier",
            "spec.variables[1].name: Required value: name is not specified",
            "spec.variables[1].expression: Required value: expression is not specified",
        ],
    );
    // Messages ask nobody for rights, and there are no variables where there are none.
    let rules = json!([{"expression": "variables.a", "messageExpression":
        "authorizer.path('/').check('get').reason()"}]);
    let faults = told(
        &Policies {
            mutating: false,
            cells: none,
        },
        policy(json!({ "validations": rules })),
    );
    assert!(
        faults[0].contains("undeclared reference to 'variables'"),
        "{faults:?}"
    );
    assert!(
        faults[1].contains("undeclared reference to 'authorizer'"),
        "{faults:?}"
    );
    check(
        true,
        json!({"mutations": [{"patchType": "JSONPatch", "applyConfiguration": {"expression": "1"}},
            {"patchType": "Other"}], "reinvocationPolicy": "Sometimes"}),
        &[
            "spec.mutations[0].jsonPatch: Required value: must be specified when patchType is \
             JSONPatch",
            "spec.mutations[0].applyConfiguration: Invalid value: \"{applyConfiguration}\": must \
             not be specified when patchType is JSONPatch",
            "spec.mutations[1].patchType: Unsupported value: \"Other\": supported values: \
             \"ApplyConfiguration\", \"JSONPatch\"",
            "spec.reinvocationPolicy: Unsupported value: \"Sometimes\": supported values: \
             \"IfNeeded\", \"Never\"",
        ],
    );
}

#[test]
fn annotations_have_keys_and_bounds() {
    check(
        false,
        json!({"validations": [], "auditAnnotations": [
            {"key": "a", "valueExpression": "'x'"}, {"key": "a", "valueExpression": "null"},
            {"key": "b", "valueExpression": format!("'{}'", "x".repeat(5 * 1024))},
            {"key": "c", "valueExpression": "1"}]}),
        &[
            "spec.auditAnnotations[1].key: Duplicate value: \"a\"",
            "spec.auditAnnotations[2].valueExpression: Required value: must not exceed 5120 \
             bytes in length",
            "spec.auditAnnotations[3].valueExpression: Invalid value: \"1\": must evaluate to \
             one of [string null_type] but got int",
        ],
    );
}

#[test]
fn an_update_keeps_the_conditions_it_had() {
    let strategy = Policies {
        mutating: false,
        cells: none,
    };
    let conditions = json!([{"name": "a", "expression": "nope"}]);
    let old = policy(json!({ "matchConditions": conditions }));
    let check = |change: &dyn Fn(&mut Value), count: usize| {
        let mut new = old.clone();
        strategy.default(&mut new);
        change(&mut new);
        let mut faults = Faults::new();
        strategy.validate_update(&new, &old, &mut faults);
        assert_eq!(faults.0.len(), count, "{}", faults.summary());
    };
    check(&|new| new["spec"]["failurePolicy"] = "Ignore".into(), 0);
    check(
        &|new| new["spec"]["matchConditions"][0]["name"] = "b".into(),
        1,
    );
}

#[test]
fn bindings_are_checked() {
    let told = |mutating: bool, spec: Value| {
        let strategy = Bindings {
            mutating,
            cells: none,
        };
        told(&strategy, json!({"metadata": {"name": "b"}, "spec": spec}))
    };
    let whole = json!({"policyName": "p", "validationActions": ["Deny", "Audit"], "paramRef":
        {"selector": {}, "parameterNotFoundAction": "Allow"}});
    assert_eq!(told(false, whole), [""; 0]);
    let broken = json!({"policyName": "", "validationActions": ["Deny", "Warn", "Deny", "x"],
        "paramRef": {"name": "a", "selector": {}, "parameterNotFoundAction": "x"}});
    let actions = "spec.validationActions";
    assert_eq!(
        told(false, broken),
        [
            "spec.policyName: Required value",
            "spec.paramRef.name: Forbidden: name and selector are mutually exclusive",
            "spec.paramRef.selector: Forbidden: name and selector are mutually exclusive",
            "spec.paramRef.parameterNotFoundAction: Unsupported value: \"x\": supported values: \
             \"Deny\", \"Allow\"",
            &format!("{actions}[2]: Duplicate value: \"Deny\""),
            &format!(
                "{actions}[3]: Unsupported value: \"x\": supported values: \"Audit\", \"Deny\", \
                 \"Warn\""
            ),
            &format!(
                "{actions}: Invalid value: [\"Deny\",\"Warn\",\"Deny\",\"x\"]: must not contain \
                 both Deny and Warn (repeating the same validation failure information in the \
                 API response and headers serves no purpose)"
            ),
        ]
    );
    let empty = json!({"policyName": "p", "paramRef": {}});
    assert_eq!(
        told(false, empty),
        [
            "spec.paramRef: Required value: one of name or selector must be specified",
            "spec.paramRef.parameterNotFoundAction: Required value",
            "spec.validationActions: Required value: at least one validation action is required",
        ]
    );
}
