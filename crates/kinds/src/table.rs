//! Columns from a compact text, and the phrases that cells share.

use jiff::Timestamp;
use meta::LabelSelector;
use serde_json::Value;

use crate::row::Column;
use crate::tree::Tree;

/// Reads columns such as `Name, Ready, Revision:integer, Node*`: a type after the colon
/// (a text without one), a star for what only wide output shows.
pub(crate) fn columns(text: &str) -> Vec<Column> {
    text.split(", ").map(column).collect()
}

fn column(text: &str) -> Column {
    let (text, priority) = match text.strip_suffix('*') {
        Some(text) => (text, 1),
        None => (text, 0),
    };
    let (name, kind) = text.split_once(':').unwrap_or((text, "string"));
    Column {
        name: name.into(),
        kind: kind.into(),
        format: if matches!(name, "Name" | "Attacher") {
            "name"
        } else {
            ""
        }
        .into(),
        description: description(name).into(),
        priority,
    }
}

fn description(column: &str) -> &'static str {
    match column {
        "Name" => "The name, unique among objects of its kind and namespace.",
        "Age" => "Time since the object was created.",
        "Created At" => "When the object was created.",
        "Ready" => "How many of the wanted parts are ready.",
        "Status" => "What the object is doing, in one word.",
        "Restarts" => "How often containers were restarted, and when last.",
        "Containers" => "Names of the template's containers.",
        "Images" => "Images of the template's containers.",
        "Selector" => "Labels of the pods it concerns.",
        _ => "",
    }
}

/// The object's name.
pub(crate) fn name(object: &Value) -> Value {
    object.text("metadata.name").into()
}

/// Time since creation, as kubectl shows it.
pub(crate) fn age(object: &Value, now: Timestamp) -> Value {
    since(object.text("metadata.creationTimestamp"), now).into()
}

/// Time since an instant, `<unknown>` without one.
pub(crate) fn since(instant: &str, now: Timestamp) -> String {
    meta::time::age(instant, now)
}

/// `text`, or `<none>`-like `otherwise` when it is empty.
pub(crate) fn or<'a>(text: &'a str, otherwise: &'a str) -> &'a str {
    if text.is_empty() { otherwise } else { text }
}

/// Labels as `a=b,c=d`, or `<none>`.
pub(crate) fn labels(object: &Value, path: &str) -> String {
    let pairs = object
        .fields(path)
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or("")));
    let text = pairs.collect::<Vec<_>>().join(",");
    or(&text, "<none>").to_owned()
}

/// A `LabelSelector` as text, `<none>` when it asks for nothing.
pub(crate) fn selector(object: &Value, path: &str) -> String {
    match LabelSelector::from_value(object.at(path)) {
        Ok(selector) => or(&sorted(selector).to_string(), "<none>").to_owned(),
        Err(_) => "<error>".into(),
    }
}

/// The conditions in the order of their keys, as upstream prints selectors.
pub(crate) fn sorted(mut selector: LabelSelector) -> LabelSelector {
    use meta::selector::Requirement as R;
    selector.requirements.sort_by_cached_key(|one| match one {
        R::In(key, _) | R::NotIn(key, _) | R::Exists(key) | R::Absent(key) => key.clone(),
        R::GreaterThan(key, _) | R::LessThan(key, _) => key.clone(),
        R::Equal(key, _) | R::NotEqual(key, _) => key.clone(),
    });
    selector
}

/// Names and images of the containers of the pod specification at `path`.
pub(crate) fn containers(object: &Value, path: &str) -> [Value; 2] {
    ["name", "image"].map(|field| {
        let parts = object.at(path).list("containers").iter();
        let parts: Vec<_> = parts.map(|container| container.text(field)).collect();
        parts.join(",").into()
    })
}

/// A number or a text, as text.
pub(crate) fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

/// A quantity in canonical form; `0` when absent.
pub(crate) fn quantity(value: &Value) -> String {
    let text = plain(value);
    match meta::Quantity::parse(&text) {
        Ok(quantity) => quantity.to_string(),
        Err(_) => or(&text, "0").to_owned(),
    }
}

/// The cells of a row, each turned into a JSON value.
macro_rules! cells {
    ($($cell:expr),* $(,)?) => { vec![$(serde_json::Value::from($cell)),*] };
}
pub(crate) use cells;
