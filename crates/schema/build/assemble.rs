//! Joins what the sources say into the compact text that `src/table.rs` reads.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde_json::{Map, Value};

use crate::Fallible;
use crate::annotations::{Annotated, Marks, Message, plain};
use crate::overlay::Overlay;
use crate::published::Published;

/// The table and the documentation it points into.
pub(crate) fn table(
    published: &BTreeMap<String, Published>,
    annotated: &BTreeMap<String, Message>,
    overlay: &Overlay,
) -> Fallible<(String, String)> {
    let annotated = &inline(annotated, overlay)?;
    let mut writer = Writer {
        published,
        annotated,
        overlay,
        table: String::new(),
        docs: String::new(),
        seen: BTreeMap::new(),
    };
    for (name, ty) in published {
        let unstable =
            name.contains(".v1alpha") || name.contains(".v1beta") || name.contains(".v2beta");
        if !unstable {
            writer.structure(name, ty)?;
        }
    }
    Ok((writer.table.trim_end().to_owned(), writer.docs))
}

/// Messages with the fields of those that JSON has inline among their own; inner ones come first
/// in the overlay.
fn inline(
    annotated: &BTreeMap<String, Message>,
    overlay: &Overlay,
) -> Fallible<BTreeMap<String, Message>> {
    let mut all = annotated.clone();
    for (outer, tag, inner) in &overlay.inline {
        let inner = all
            .get(&inner.to_lowercase())
            .ok_or(format!("no message {inner}"))?
            .clone();
        let outer = all
            .get_mut(&outer.to_lowercase())
            .ok_or(format!("no message {outer}"))?;
        for (name, mut field) in inner.fields {
            field.tag = format!("{tag}.{}", field.tag);
            outer.fields.entry(name).or_insert(field);
        }
    }
    Ok(all)
}

/// The shape of types that are not structs.
fn special(name: &str) -> Option<&'static str> {
    const PROPS: &str =
        "?@io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps;";
    let shape = match name.rsplit_once(".v1.").map_or(name, |(_, last)| last) {
        "io.k8s.apimachinery.pkg.api.resource.Quantity" => "q",
        "io.k8s.apimachinery.pkg.util.intstr.IntOrString" => "x",
        "io.k8s.apimachinery.pkg.runtime.RawExtension" => "r",
        "Time" => "t",
        "MicroTime" => "u",
        "FieldsV1" => "f",
        "Patch" => "r",
        "JSON" => "j",
        "JSONSchemaPropsOrArray" => return Some(concat_shape(PROPS, 0)),
        "JSONSchemaPropsOrBool" => return Some(concat_shape(PROPS, 1)),
        "JSONSchemaPropsOrStringArray" => return Some(concat_shape(PROPS, 2)),
        _ => return None,
    };
    Some(shape)
}

fn concat_shape(props: &str, other: usize) -> &'static str {
    let item = props.trim_start_matches('?');
    let tail = [format!("[a]{item}"), "b".into(), "[a]s".into()];
    Box::leak(format!("{props}{}", tail[other]).into_boxed_str())
}

struct Writer<'facts> {
    published: &'facts BTreeMap<String, Published>,
    annotated: &'facts BTreeMap<String, Message>,
    overlay: &'facts Overlay,
    table: String,
    docs: String,
    seen: BTreeMap<String, String>,
}

impl Writer<'_> {
    fn structure(&mut self, name: &str, ty: &Published) -> Fallible<()> {
        let message = self.annotated.get(&name.to_lowercase());
        let atomic = message.is_some_and(|message| is(&message.marks, "structType", "atomic"));
        let doc = self.doc(&ty.schema);
        let kind = ty.kind.clone().unwrap_or_default();
        let flags = if atomic { "a" } else { "" };
        writeln!(self.table, "T\t{name}\t{doc}\t{flags}\t{kind}")?;
        let none = Map::new();
        let properties = ty.schema["properties"].as_object().unwrap_or(&none);
        for (json, schema) in properties {
            let required = ty.schema["required"].as_array();
            let required = required.is_some_and(|names| names.iter().any(|name| name == json));
            // k8s-openapi requires metadata of all kinds, upstream of one.
            let required = required && (json != "metadata" || name == "io.k8s.api.core.v1.Event");
            let key = (name.to_owned(), json.clone());
            let required = self.overlay.required.get(&key).copied().unwrap_or(required);
            self.field(name, json, schema, required)?;
        }
        if let (Some(list_kind), Some(kind)) = (&ty.list_kind, &ty.kind) {
            self.list(name, list_kind, kind)?;
        }
        Ok(())
    }

    /// The list type of a kind, which k8s-openapi has as one generic type.
    fn list(&mut self, name: &str, list_kind: &str, kind: &str) -> Fallible<()> {
        let (module, item) = name.rsplit_once('.').ok_or("no module")?;
        let (group_version, _) = kind.rsplit_once('/').ok_or("no version")?;
        let schema = serde_json::json!({
            "apiVersion": {"type": "string", "description": self.sentence("apiVersion")},
            "items": {"type": "array", "items": {"$ref": name}, "description": format!("List of {item}.")},
            "kind": {"type": "string", "description": self.sentence("kind")},
            "metadata": {
                "$ref": "io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta",
                "description": "Standard list metadata.",
            },
        });
        let doc = self
            .doc(&serde_json::json!({"description": format!("{list_kind} is a list of {item}.")}));
        let list = format!("{module}.{list_kind}");
        writeln!(
            self.table,
            "T\t{list}\t{doc}\t\t{group_version}/{list_kind}"
        )?;
        for (json, schema) in schema.as_object().into_iter().flatten() {
            self.field(&list, json, schema, json == "items")?;
        }
        Ok(())
    }

    /// What all kinds say of `apiVersion` and `kind`.
    fn sentence(&self, field: &str) -> Value {
        let pod = self.published.get("io.k8s.api.core.v1.Pod");
        pod.map_or(Value::Null, |pod| {
            pod.schema["properties"][field]["description"].clone()
        })
    }

    fn field(&mut self, ty: &str, json: &str, schema: &Value, required: bool) -> Fallible<()> {
        let key = (ty.to_owned(), json.to_owned());
        let message = self.annotated.get(&ty.to_lowercase());
        let found = message.and_then(|message| message.fields.get(&plain(json)));
        let unknown = Annotated::default();
        let found = found.unwrap_or(&unknown);
        let mut marks = found.marks.clone();
        for mark in self.overlay.marks.get(&key).into_iter().flatten() {
            let (name, value) = mark.split_once('=').unwrap_or((mark, ""));
            marks
                .entry(name.to_owned())
                .or_default()
                .push(value.to_owned());
        }
        let tag = self
            .overlay
            .tags
            .get(&key)
            .cloned()
            .unwrap_or(found.tag.clone());
        let shape = self.shape(schema, &marks)?;
        let flags = self.flags(&key, &shape, required, &marks);
        let first = |name: &str| marks.get(name).and_then(|values| values.first()).cloned();
        let merge_key = first("patchMergeKey").unwrap_or_default();
        let defaults = marks.get("default").into_iter().flatten();
        let mut defaults = defaults.filter(|own| serde_json::from_str::<Value>(own).is_ok());
        let default = defaults.next().cloned().unwrap_or_default();
        let enumeration: String = marks
            .get("enum")
            .map(|values| values.iter().map(|value| format!("{value}|")).collect())
            .unwrap_or_default();
        let doc = self.doc(schema);
        writeln!(
            self.table,
            "F\t{json}\t{tag}\t{shape}\t{flags}\t{merge_key}\t{default}\t{enumeration}\t{doc}"
        )?;
        Ok(())
    }

    fn flags(&self, key: &(String, String), shape: &str, required: bool, marks: &Marks) -> String {
        let collection = shape.starts_with(['[', '{', 'y', 'j', 'r', 'f']);
        // What is usual; the overlay has the exceptions.
        let guess = match (shape.chars().next(), key.1.as_str()) {
            _ if required => 'w',
            (Some('@'), "metadata" | "spec" | "status") => 'w',
            (Some('t'), "lastTransitionTime" | "lastProbeTime") => 'n',
            (_, "readOnly" | "observedGeneration" | "minReadySeconds" | "readyReplicas") => 'o',
            (Some('s'), _) => 'o',
            _ if collection => 'o',
            _ => 'p',
        };
        let mut flags = String::from(self.overlay.presence.get(key).copied().unwrap_or(guess));
        let strategies = marks
            .get("patchStrategy")
            .map(|values| values.join(","))
            .unwrap_or_default();
        let mut flag = |yes: bool, flag: char| flags.extend(yes.then_some(flag));
        flag(required, 'r');
        flag(
            strategies.split(',').any(|strategy| strategy == "merge"),
            'm',
        );
        flag(
            strategies
                .split(',')
                .any(|strategy| strategy == "retainKeys"),
            'k',
        );
        flag(
            strategies.split(',').any(|strategy| strategy == "replace"),
            'R',
        );
        flags
    }

    /// The prefix code that `read_shape` reads.
    fn shape(&self, schema: &Value, marks: &Marks) -> Fallible<String> {
        if let Some(name) = schema["$ref"].as_str() {
            return Ok(special(name).map_or(format!("@{name};"), str::to_owned));
        }
        let nested = Marks::new();
        let format = schema["format"].as_str().unwrap_or("");
        let code = match schema["type"].as_str().unwrap_or("") {
            "boolean" => "b".into(),
            "integer" if format == "int32" => "i".into(),
            "integer" => "l".into(),
            "number" => "d".into(),
            "string" if format == "byte" => "y".into(),
            "string" if format == "date-time" => "t".into(),
            "string" => "s".into(),
            "array" => {
                let item = self.shape(&schema["items"], &nested)?;
                let keys = marks.get("listMapKey").or(marks.get("k8s:listMapKey"));
                let kind = match list_type(marks) {
                    "set" => "s".to_owned(),
                    "map" => format!("m,{}", keys.map(|keys| keys.join(",")).unwrap_or_default()),
                    _ => "a".to_owned(),
                };
                format!("[{kind}]{item}")
            }
            "object" if schema["additionalProperties"].is_object() => {
                let kind = if is(marks, "mapType", "atomic") {
                    'a'
                } else {
                    'g'
                };
                format!(
                    "{{{kind}}}{}",
                    self.shape(&schema["additionalProperties"], &nested)?
                )
            }
            "object" => "r".into(),
            _ => "j".into(),
        };
        Ok(code)
    }

    /// Where the description stands, put there if it is new.
    fn doc(&mut self, schema: &Value) -> String {
        let text = schema["description"].as_str().unwrap_or("").trim();
        if let Some(place) = self.seen.get(text) {
            return place.clone();
        }
        let place = format!("{}+{}", self.docs.len(), text.len());
        self.docs.push_str(text);
        self.seen.insert(text.to_owned(), place.clone());
        place
    }
}

fn is(marks: &Marks, name: &str, value: &str) -> bool {
    marks
        .get(name)
        .is_some_and(|values| values.iter().any(|found| found == value))
}

fn list_type(marks: &Marks) -> &str {
    let found = marks.get("listType").or(marks.get("k8s:listType"));
    found
        .and_then(|values| values.first())
        .map_or("atomic", String::as_str)
}
