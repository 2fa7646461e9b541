//! One version of a custom kind, as the strategy that the generic path asks.

use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};

use jiff::Timestamp;
use kinds::{Cells, Column, Strategy};
use meta::{FaultKind, Faults, naming};
use serde_json::Value;

use crate::columns::{Columns, JsonPath};
use crate::rules::{self, Rules, Run};
use crate::structural::Structural;
use crate::{check, defaults, embedded, lists, prune};

/// Finalizers that need no domain.
const PLAIN_FINALIZERS: [&str; 3] = ["orphan", "foregroundDeletion", "kubernetes"];

/// The behaviour of one version of a custom kind.
pub struct CustomStrategy {
    schema: Arc<Structural>,
    columns: Columns,
    has_status: bool,
    scale: Option<Scale>,
    expressions: Option<Expressions>,
    kept: Option<Kept>,
    /// Fields that selectors may name, without the leading dot.
    selectable: Vec<(String, JsonPath)>,
}

/// The rules of a schema that has any, compiled at first use.
struct Expressions {
    schema: Value,
    rules: OnceLock<Option<Rules>>,
}

/// How objects are kept that were written before this was the version to keep them in.
struct Kept {
    api_version: String,
    /// They stay as they are: only the webhook can convert them.
    by_webhook: bool,
}

/// Paths of the scale subresource, as written.
struct Scale {
    spec: String,
    status: String,
    selector: String,
}

impl CustomStrategy {
    /// From an entry of `spec.versions`.
    pub fn new(version: &Value) -> CustomStrategy {
        let null = Value::Null;
        let schema = version.pointer("/schema/openAPIV3Schema").unwrap_or(&null);
        let selectable = version.get("selectableFields").and_then(Value::as_array);
        let selectable = selectable.into_iter().flatten();
        let paths = selectable.filter_map(|field| field.get("jsonPath")?.as_str());
        let scale = version.pointer("/subresources/scale").map(|scale| {
            let path = |field: &str| {
                scale
                    .get(field)
                    .and_then(Value::as_str)
                    .unwrap_or("")
                    .into()
            };
            Scale {
                spec: path("specReplicasPath"),
                status: path("statusReplicasPath"),
                selector: path("labelSelectorPath"),
            }
        });
        CustomStrategy {
            schema: Arc::new(Structural::read_root(schema)),
            columns: Columns::of(version),
            expressions: rules::has_rules(schema).then(|| Expressions {
                schema: schema.clone(),
                rules: OnceLock::new(),
            }),
            kept: None,
            has_status: version.pointer("/subresources/status").is_some(),
            scale,
            selectable: paths
                .map(|path| (path.trim_start_matches('.').into(), JsonPath::read(path)))
                .collect(),
        }
    }

    /// The same for the version that objects are kept in.
    pub fn keeping(self, api_version: String, by_webhook: bool) -> CustomStrategy {
        CustomStrategy {
            kept: Some(Kept {
                api_version,
                by_webhook,
            }),
            ..self
        }
    }

    /// The schema of the version's objects.
    pub fn schema(&self) -> &Arc<Structural> {
        &self.schema
    }

    /// The columns of its tables.
    pub fn columns(&self) -> Vec<Column> {
        self.columns.definitions()
    }

    fn validate(&self, object: &Value, old: Option<&Value>, faults: &mut Faults) {
        check::validate(&self.schema, object, old, "", faults);
        if let Some(scale) = &self.scale {
            scale.validate_spec(object, faults);
            scale.validate_status(object, faults);
        }
        embedded::validate(&self.schema, object, faults);
        self.validate_lists(object, old, faults);
        self.ask_rules(object, old, faults);
    }

    /// Rules are asked of values that are sound otherwise.
    fn ask_rules(&self, object: &Value, old: Option<&Value>, faults: &mut Faults) {
        let Some(expressions) = &self.expressions else {
            return;
        };
        if is_blocked(faults) {
            let text = "some validation rules were not checked because the object was invalid; \
                        correct the existing errors to complete validation";
            return faults.invalid("<nil>", Value::Null, text);
        }
        let rules = expressions
            .rules
            .get_or_init(|| Rules::read(&expressions.schema));
        if let Some(rules) = rules {
            Run::all(rules, object, old, faults);
        }
    }

    /// Lists that held something twice already may go on so.
    fn validate_lists(&self, object: &Value, old: Option<&Value>, faults: &mut Faults) {
        let mut found = Faults::new();
        lists::validate(&self.schema, object, &mut found);
        if found.is_empty() {
            return;
        }
        let mut before = Faults::new();
        if let Some(old) = old {
            lists::validate(&self.schema, old, &mut before);
        }
        if before.is_empty() {
            faults.0.extend(found.0);
        }
    }
}

impl Strategy for CustomStrategy {
    fn default(&self, object: &mut Value) {
        defaults::fill(&self.schema, object);
    }

    fn has_free_finalizers(&self) -> bool {
        true
    }

    fn validate_create(&self, object: &Value, faults: &mut Faults) {
        self.validate(object, None, faults);
    }

    fn validate_update(&self, object: &Value, old: &Value, faults: &mut Faults) {
        self.validate(object, Some(old), faults);
    }

    fn validate_status(&self, object: &Value, old: &Value, faults: &mut Faults) {
        if let (Some(status), Some(schema)) =
            (object.get("status"), self.schema.properties.get("status"))
        {
            check::validate(schema, status, old.get("status"), "status", faults);
        }
        if let Some(scale) = &self.scale {
            scale.validate_status(object, faults);
        }
        self.validate_lists(object, Some(old), faults);
        self.ask_rules(object, Some(old), faults);
    }

    fn moves_generation(&self, object: &Value, old: &Value) -> bool {
        let own = |name: &String| {
            name != "metadata" && name != "apiVersion" && !(self.has_status && name == "status")
        };
        let (Some(object), Some(old)) = (object.as_object(), old.as_object()) else {
            return object != old;
        };
        let before = old.iter().filter(|(name, _)| own(name));
        let after = object.iter().filter(|(name, _)| own(name));
        !before.eq(after)
    }

    fn reshapes(&self) -> bool {
        true
    }

    fn reshape(&self, object: &mut Value) {
        if let Some(kept) = &self.kept
            && object["apiVersion"] != *kept.api_version
        {
            if kept.by_webhook {
                return;
            }
            object["apiVersion"] = kept.api_version.as_str().into();
        }
        prune::prune(&self.schema, object);
        prune::drop_nulls(&self.schema, object);
        defaults::fill(&self.schema, object);
    }

    fn custom_field(&self, object: &Value, path: &str) -> Option<String> {
        let (_, steps) = self.selectable.iter().find(|(own, _)| own == path)?;
        Some(match steps.first(object) {
            None => String::new(),
            Some(Value::String(text)) => text.clone(),
            Some(other) => other.to_string(),
        })
    }

    fn has_custom_field(&self, path: &str) -> bool {
        self.selectable.iter().any(|(own, _)| own == path)
    }

    fn warnings(&self, object: &Value) -> Vec<String> {
        finalizer_warnings(object, &Value::Null)
    }

    fn warnings_update(&self, object: &Value, old: &Value) -> Vec<String> {
        finalizer_warnings(object, old)
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Cells {
        self.columns.cells(object, now)
    }
}

fn finalizer_warnings(object: &Value, old: &Value) -> Vec<String> {
    const PATH: &str = "metadata.finalizers";
    let list = |object: &Value| -> BTreeSet<String> {
        let list = object
            .pointer("/metadata/finalizers")
            .and_then(Value::as_array);
        let names = list.into_iter().flatten().filter_map(Value::as_str);
        names.map(str::to_owned).collect()
    };
    let mut warnings = Vec::new();
    for name in list(object).difference(&list(old)) {
        for rule in naming::qualified_name(name) {
            warnings.push(format!("{PATH}: {name:?}: {rule}"));
        }
        if name.contains('/') || PLAIN_FINALIZERS.contains(&name.as_str()) {
            continue;
        }
        let how = match name.contains('.') {
            true => "a domain-qualified finalizer name including a path (/)",
            false => "a domain-qualified finalizer name",
        };
        warnings.push(format!(
            "{PATH}: {name:?}: prefer {how} to avoid accidental conflicts with other finalizer \
             writers"
        ));
    }
    warnings
}

impl Scale {
    fn validate_spec(&self, object: &Value, faults: &mut Faults) {
        replicas(object, &self.spec, faults);
    }

    fn validate_status(&self, object: &Value, faults: &mut Faults) {
        replicas(object, &self.status, faults);
        if self.selector.is_empty() {
            return;
        }
        match nested(object, &self.selector) {
            Ok(Some(Value::String(_)) | None) => {}
            Ok(Some(other)) => {
                let why = not_of_type(&self.selector, other, "string");
                faults.invalid(self.selector.as_str(), "", why);
            }
            Err(why) => faults.invalid(self.selector.as_str(), "", why),
        }
    }
}

/// What upstream says of a field that is of another type.
fn not_of_type(path: &str, value: &Value, wanted: &str) -> String {
    let (shown, kind) = match value {
        Value::Null => ("<nil>".to_owned(), "<nil>"),
        Value::Bool(set) => (set.to_string(), "bool"),
        Value::Number(number) if number.is_i64() => (number.to_string(), "int64"),
        Value::Number(number) => (number.to_string(), "float64"),
        Value::String(text) => (text.clone(), "string"),
        Value::Array(_) => (value.to_string(), "[]interface {}"),
        Value::Object(_) => (value.to_string(), "map[string]interface {}"),
    };
    format!("{path} accessor error: {shown} is of the type {kind}, expected {wanted}")
}

fn nested<'a>(object: &'a Value, path: &str) -> Result<Option<&'a Value>, String> {
    let mut here = object;
    let mut walked = String::new();
    for step in path.trim_start_matches('.').split('.') {
        let Some(map) = here.as_object() else {
            return Err(not_of_type(&walked, here, "map[string]interface{}"));
        };
        walked = format!("{walked}.{step}");
        match map.get(step) {
            Some(below) => here = below,
            None => return Ok(None),
        }
    }
    Ok(Some(here))
}

fn replicas(object: &Value, path: &str, faults: &mut Faults) {
    let count = match nested(object, path) {
        Ok(None) => return,
        Ok(Some(value)) => match value.as_i64() {
            Some(count) => count,
            None => return faults.invalid(path, 0, not_of_type(path, value, "int64")),
        },
        Err(why) => return faults.invalid(path, 0, why),
    };
    let most = i64::from(i32::MAX);
    if count < 0 {
        faults.invalid(path, count, "should be a non-negative integer");
    } else if count > most {
        faults.invalid(
            path,
            count,
            format!("should be less than or equal to {most}"),
        );
    }
}

/// Faults after which rules that need sound values are not asked.
fn is_blocked(faults: &Faults) -> bool {
    use FaultKind::{NotSupported, Required, TooLong, TooMany, TypeInvalid};
    let blocking = |kind: FaultKind| {
        matches!(
            kind,
            NotSupported | Required | TooLong | TooMany | TypeInvalid
        )
    };
    faults.0.iter().any(|fault| blocking(fault.kind))
}
