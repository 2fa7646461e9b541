//! The older way to watch: paths of its own, for built-in kinds.

use serde_json::{Map, Value, json};

use super::KindDoc;
use super::paths::{
    BODIES, LIST, META, NAME, NAMESPACE, PRETTY, Parameter, STREAMS, in_path, name_of, query, tag,
    words,
};
use super::schemas::Schemas;

const OF_LIST: &str = "deprecated: use the 'watch' parameter with a list operation instead.";
const OF_ONE: &str = "deprecated: use the 'watch' parameter with a list operation instead, \
                      filtered to a single item with the 'fieldSelector' parameter.";

/// Adds the watches of a kind that is listed.
pub(super) fn add(paths: &mut Map<String, Value>, kind: &KindDoc<'_>, schemas: &mut Schemas) {
    if !kind.verbs.contains(&"watch") {
        return;
    }
    let names = kind.names;
    let namespace = names.is_namespaced().then_some("{namespace}");
    let scope = if namespace.is_some() {
        "Namespaced"
    } else {
        ""
    };
    let word = &names.kind;
    let mut put = |path: String, in_path: &[Parameter], name: String| {
        let one = path.ends_with("{name}");
        let get = operation(kind, &name, one, schemas);
        let item = json!({"get": get, "parameters": parameters(word, in_path)});
        paths.insert(older(&path), item);
    };
    let of: &[Parameter] = match namespace {
        Some(_) => &[NAME, NAMESPACE],
        None => &[NAME],
    };
    let collection = names.path(namespace, None);
    put(collection, &of[1..], format!("{scope}{word}List"));
    let object = names.path(namespace, Some("{name}"));
    put(object, of, format!("{scope}{word}"));
    if namespace.is_some() {
        let name = format!("{word}ListForAllNamespaces");
        put(names.path(None, None), &[], name);
    }
}

/// `/api/v1/pods` as `/api/v1/watch/pods`.
fn older(path: &str) -> String {
    let depth = if path.starts_with("/api/") { 3 } else { 4 };
    let mut parts: Vec<&str> = path.split('/').collect();
    parts.insert(depth, "watch");
    parts.join("/")
}

fn operation(kind: &KindDoc<'_>, name: &str, one: bool, schemas: &mut Schemas) -> Value {
    let names = kind.names;
    let tag = tag(&names.group, &names.version);
    let schema = schemas.reference(&format!("{META}.WatchEvent"));
    let media = BODIES.iter().chain(&STREAMS);
    let content: Map<String, Value> = media
        .map(|media| ((*media).to_owned(), json!({"schema": schema})))
        .collect();
    let word = &names.kind;
    let (action, text) = match one {
        true => (
            "watch",
            format!("watch changes to an object of kind {word}. {OF_ONE}"),
        ),
        false => (
            "watchlist",
            format!("watch individual changes to a list of {word}. {OF_LIST}"),
        ),
    };
    json!({
        "tags": [tag], "description": text,
        "operationId": format!("watch{}{name}", words(&tag)),
        "responses": {
            "200": {"description": "OK", "content": content},
            "401": {"description": "Unauthorized"},
        },
        "x-kubernetes-action": action,
        "x-kubernetes-group-version-kind":
            {"group": names.group, "version": names.version, "kind": names.kind},
    })
}

fn parameters(kind: &str, parts: &[Parameter]) -> Vec<Value> {
    let path = |part: &Parameter| match part {
        part if *part == NAME => name_of(kind),
        part => in_path(part),
    };
    let mut all: Vec<Value> = parts.iter().map(path).collect();
    all.extend(LIST.iter().chain([&PRETTY]).map(query));
    all.sort_by(|a, b| a["name"].as_str().cmp(&b["name"].as_str()));
    all
}
