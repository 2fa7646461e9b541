//! The operations on a kind. kubectl looks here for the query parameters that a server knows.

use meta::{GroupVersion, Names};
use serde_json::{Map, Value, json};

use super::schemas::Schemas;
use super::{KindDoc, connect};

pub(super) const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";
/// How a watch may be streamed, besides what a list may be.
pub(super) const STREAMS: [&str; 2] = [
    "application/json;stream=watch",
    "application/vnd.kubernetes.protobuf;stream=watch",
];
pub(super) const BODIES: [&str; 3] = [
    "application/json",
    "application/yaml",
    "application/vnd.kubernetes.protobuf",
];
/// What is published of the bodies that are sent.
const ANY_BODY: [&str; 1] = ["*/*"];
const PATCHES: [&str; 4] = [
    "application/apply-patch+yaml",
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
];

const CREATED: (&str, &str) = ("201", "Created");
const ACCEPTED: (&str, &str) = ("202", "Accepted");
/// Kinds whose deletion answers the object, and not a status.
const SHOWN_WHEN_DELETED: [&str; 18] = [
    "CSIDriver",
    "CSINode",
    "DeviceClass",
    "DeviceTaintRule",
    "PersistentVolume",
    "PersistentVolumeClaim",
    "Pod",
    "PodTemplate",
    "ResourceClaim",
    "ResourceClaimTemplate",
    "ResourcePoolStatusRequest",
    "ResourceQuota",
    "ResourceSlice",
    "Service",
    "ServiceAccount",
    "StorageClass",
    "VolumeAttachment",
    "VolumeAttributesClass",
];

/// Name, type and meaning of a query parameter.
pub(super) type Parameter = (&'static str, &'static str, &'static str);

pub(super) const NAME: Parameter = ("name", "string", "name of the object");
pub(super) const NAMESPACE: Parameter = (
    "namespace",
    "string",
    "object name and auth scope, such as for teams and projects",
);
const DRY_RUN: Parameter = (
    "dryRun",
    "string",
    "Report what would be done without doing it; the only value is All.",
);
const FIELD_MANAGER: Parameter = (
    "fieldManager",
    "string",
    "Name of the actor that makes the change.",
);
const FIELD_VALIDATION: Parameter = (
    "fieldValidation",
    "string",
    "What to do with unknown and duplicate fields: Ignore, Warn or Strict.",
);
const FORCE: Parameter = (
    "force",
    "boolean",
    "Take fields from other managers; only for apply.",
);
pub(super) const PRETTY: Parameter = (
    "pretty",
    "string",
    "If true, the answer is printed with line breaks.",
);
pub(super) const LIST: [Parameter; 11] = [
    (
        "allowWatchBookmarks",
        "boolean",
        "Send bookmarks in a watch.",
    ),
    ("continue", "string", "Where the last page ended."),
    ("fieldSelector", "string", "Only objects with these fields."),
    ("labelSelector", "string", "Only objects with these labels."),
    (
        "limit",
        "integer",
        "Largest number of objects in one answer.",
    ),
    ("resourceVersion", "string", "How old the answer may be."),
    (
        "resourceVersionMatch",
        "string",
        "How resourceVersion is meant.",
    ),
    (
        "sendInitialEvents",
        "boolean",
        "Begin a watch with what there is.",
    ),
    (
        "shardSelector",
        "string",
        "Only objects of one shard; ignored where shards are not served.",
    ),
    (
        "timeoutSeconds",
        "integer",
        "Longest duration of the request.",
    ),
    ("watch", "boolean", "Answer with changes as they happen."),
];
/// What a list has and the deletion of a collection has not.
const LIST_ONLY: [&str; 2] = ["allowWatchBookmarks", "watch"];
const DELETE: [Parameter; 5] = [
    DRY_RUN,
    (
        "gracePeriodSeconds",
        "integer",
        "Seconds until the object is removed.",
    ),
    (
        "ignoreStoreReadErrorWithClusterBreakingPotential",
        "boolean",
        "Delete an object that cannot be read from the store.",
    ),
    (
        "orphanDependents",
        "boolean",
        "Deprecated: use propagationPolicy.",
    ),
    (
        "propagationPolicy",
        "string",
        "What becomes of dependents: Orphan, Background or Foreground.",
    ),
];
const WRITE: [Parameter; 3] = [DRY_RUN, FIELD_MANAGER, FIELD_VALIDATION];

/// Adds all operations of a kind.
pub(super) fn add(
    paths: &mut Map<String, Value>,
    kind: &KindDoc<'_>,
    ty: &str,
    schemas: &mut Schemas,
) {
    let names = kind.names;
    let namespaced = names.is_namespaced();
    let collection = names.path(namespaced.then_some("{namespace}"), None);
    let object = names.path(namespaced.then_some("{namespace}"), Some("{name}"));
    let gvk = json!({"group": names.group, "version": names.version, "kind": names.kind});
    let list_type = ty
        .rsplit_once('.')
        .map(|(module, _)| format!("{module}.{}", names.list_kind));
    let scope = if namespaced { "Namespaced" } else { "" };
    let mut writer = Writer {
        schemas,
        gvk,
        tag: tag(&names.group, &names.version),
        ty: ty.to_owned(),
        list_type,
        name: format!("{scope}{}", names.kind),
        kind: names.kind.clone(),
        part: String::new(),
    };
    let has = |verb: &str| kind.verbs.contains(&verb);
    let item = writer.item(
        kind,
        &[
            ("get", "list", Writer::list),
            ("post", "create", |own| own.write("post", "create")),
            ("delete", "deletecollection", |own| own.delete(true)),
        ],
    );
    insert(paths, collection, item, namespaced, false);
    let item = writer.item(
        kind,
        &[
            ("get", "get", Writer::read),
            ("put", "update", |own| own.write("put", "replace")),
            ("patch", "patch", Writer::patch),
            ("delete", "delete", |own| own.delete(false)),
        ],
    );
    insert(paths, object.clone(), item, namespaced, true);
    if namespaced && has("list") {
        let mut item = Map::new();
        writer.name = format!("{}ForAllNamespaces", names.kind);
        item.insert("get".into(), writer.list());
        insert(paths, names.path(None, None), item, false, false);
    }
    for subresource in kind.subresources {
        let item = writer.subresource(subresource, &names.kind, scope);
        let path = format!("{object}/{subresource}");
        if *subresource == "proxy" {
            let below = connect::below(&item);
            insert(paths, format!("{path}/{{path}}"), below, namespaced, true);
        }
        insert(paths, path, item, namespaced, true);
    }
}

/// The path at which bindings are made, which no kind stands behind.
pub(super) fn add_bindings(paths: &mut Map<String, Value>, schemas: &mut Schemas) {
    let names = Names::namespaced("", "v1", "Binding", "bindings");
    let kind = KindDoc {
        names: &names,
        subresources: &[],
        verbs: &["create"],
    };
    add(paths, &kind, "io.k8s.api.core.v1.Binding", schemas);
}

/// The path that names the resources of the group and version.
pub(super) fn add_resources(
    paths: &mut Map<String, Value>,
    group_version: &GroupVersion,
    schemas: &mut Schemas,
) {
    let GroupVersion { group, version } = group_version;
    let tag = tag(group, version);
    let words = words(&tag);
    let schema = schemas.reference(&format!("{META}.APIResourceList"));
    let media = BODIES
        .iter()
        .map(|media| ((*media).to_owned(), json!({"schema": schema})));
    let content = Value::Object(media.collect());
    let get = json!({
        "tags": [tag], "description": "get available resources",
        "operationId": format!("get{words}APIResources"),
        "responses": {
            "200": {"description": "OK", "content": content},
            "401": {"description": "Unauthorized"},
        },
    });
    let path = match group.as_str() {
        "" => format!("/api/{version}/"),
        group => format!("/apis/{group}/{version}/"),
    };
    paths.insert(path, json!({"get": get}));
}

/// `core_v1` or `rbacAuthorization_v1`.
pub(super) fn tag(group: &str, version: &str) -> String {
    format!("{}_{version}", group_tag(group))
}

/// `core` or `rbacAuthorization`.
pub(super) fn group_tag(group: &str) -> String {
    let group = group.trim_end_matches(".k8s.io");
    let mut words = group.split('.');
    let first = words
        .next()
        .filter(|word| !word.is_empty())
        .unwrap_or("core")
        .to_owned();
    words.fold(first, |group, word| group + &capital(word))
}

/// A tag as operation ids have it: `CoreV1`.
pub(super) fn words(tag: &str) -> String {
    tag.split('_').map(capital).collect()
}

fn capital(word: &str) -> String {
    let mut letters = word.chars();
    let first = letters.next().map(|letter| letter.to_ascii_uppercase());
    first.into_iter().chain(letters).collect()
}

fn insert(
    paths: &mut Map<String, Value>,
    path: String,
    mut item: Map<String, Value>,
    namespaced: bool,
    named: bool,
) {
    if item.is_empty() {
        return;
    }
    let mut parameters = Vec::new();
    let first = item.values().next().cloned().unwrap_or_default();
    if named {
        let kind = &first["x-kubernetes-group-version-kind"]["kind"];
        parameters.push(name_of(kind.as_str().unwrap_or("object")));
    }
    if namespaced {
        parameters.push(in_path(&NAMESPACE));
    }
    if first["x-kubernetes-action"] != "connect" {
        parameters.push(query(&PRETTY));
    }
    parameters.extend(take_shared(&mut item));
    // That of the path comes before one of the query with the same name.
    let place = |one: &Value| (text(one, "name"), text(one, "in"));
    parameters.sort_by_key(place);
    item.insert("parameters".into(), parameters.into());
    paths.insert(path, Value::Object(item));
}

fn text(tree: &Value, field: &str) -> String {
    tree[field].as_str().unwrap_or("").to_owned()
}

/// Parameters of all operations of a path stand with the path.
fn take_shared(item: &mut Map<String, Value>) -> Vec<Value> {
    let list = |operation: &Value| operation["parameters"].as_array().cloned();
    let mut shared = item.values().next().and_then(list).unwrap_or_default();
    for operation in item.values() {
        let own = list(operation).unwrap_or_default();
        shared.retain(|one| own.contains(one));
    }
    for operation in item.values_mut() {
        let Some(own) = operation.as_object_mut() else {
            continue;
        };
        if let Some(Value::Array(parameters)) = own.get_mut("parameters") {
            parameters.retain(|one| !shared.contains(one));
            if parameters.is_empty() {
                own.remove("parameters");
            }
        }
    }
    shared
}

/// The last part of a path to an object of this kind.
pub(super) fn name_of(kind: &str) -> Value {
    let mut parameter = in_path(&NAME);
    parameter["description"] = format!("name of the {kind}").into();
    parameter
}

/// A parameter that is a part of the path.
pub(super) fn in_path((name, kind, text): &Parameter) -> Value {
    json!({
        "name": name, "in": "path", "required": true, "description": text,
        "schema": {"type": kind, "uniqueItems": true},
    })
}

/// A parameter that stands in the query.
pub(super) fn query((name, kind, text): &Parameter) -> Value {
    json!({
        "name": name, "in": "query", "description": text,
        "schema": {"type": kind, "uniqueItems": true},
    })
}

/// Makes one operation.
type Make<'s> = fn(&mut Writer<'s>) -> Value;

/// Makes operations of one kind.
struct Writer<'s> {
    schemas: &'s mut Schemas,
    gvk: Value,
    tag: String,
    ty: String,
    list_type: Option<String>,
    /// What follows the verb in operation ids.
    name: String,
    kind: String,
    /// The subresource, while its operations are made.
    part: String,
}

impl<'s> Writer<'s> {
    /// The operations of a path, by method, that the verbs of the kind allow.
    fn item(&mut self, kind: &KindDoc<'_>, all: &[(&str, &str, Make<'s>)]) -> Map<String, Value> {
        let mut item = Map::new();
        for (method, verb, make) in all {
            if kind.verbs.contains(verb) {
                item.insert((*method).into(), make(self));
            }
        }
        item
    }

    /// `verb` and `within` stand before and behind the group in the operation's id.
    fn operation(
        &self,
        (verb, within): (&str, &str),
        action: &str,
        parameters: &[Parameter],
    ) -> Map<String, Value> {
        let group = words(&self.tag);
        let operation = json!({
            "tags": [self.tag],
            "description": self.description(action, within),
            "operationId": format!("{verb}{group}{within}{}", self.name),
            "parameters": parameters.iter().map(query).collect::<Vec<Value>>(),
            "x-kubernetes-action": action,
            "x-kubernetes-group-version-kind": self.gvk,
        });
        match operation {
            Value::Object(map) => map,
            _ => Map::new(),
        }
    }

    fn description(&self, action: &str, within: &str) -> String {
        let kind = &self.kind;
        let part = match self.part.as_str() {
            "" => String::new(),
            part => format!("{part} of "),
        };
        match action {
            "list" => format!("list or watch objects of kind {kind}"),
            "get" => format!("read {part}the specified {kind}"),
            "put" => format!("replace {part}the specified {kind}"),
            "patch" => format!("partially update {part}the specified {kind}"),
            "post" => format!("create {part}{} {kind}", article(kind)),
            "delete" => format!("delete {} {kind}", article(kind)),
            "deletecollection" => format!("delete collection of {kind}"),
            _ => format!("connect {} requests to {part}{kind}", within.to_uppercase()),
        }
    }

    fn content(&mut self, name: &str, media: &[&str]) -> Value {
        let schema = self.schemas.reference(name);
        let entries = media
            .iter()
            .map(|media| ((*media).to_owned(), json!({"schema": schema})));
        json!({"content": Value::Object(entries.collect())})
    }

    /// Adds what a successful operation answers, with these codes besides 200.
    fn answer(
        &mut self,
        mut operation: Map<String, Value>,
        name: &str,
        others: &[(&str, &str)],
    ) -> Value {
        let mut media = BODIES.to_vec();
        if operation["x-kubernetes-action"] == "list" {
            media.extend(STREAMS);
        }
        let mut ok = self.content(name, &media);
        let mut responses = json!({"401": {"description": "Unauthorized"}});
        for (code, word) in [("200", "OK")].iter().chain(others) {
            ok["description"] = (*word).into();
            responses[*code] = ok.clone();
        }
        operation.insert("responses".into(), responses);
        Value::Object(operation)
    }

    fn list(&mut self) -> Value {
        let operation = self.operation(("list", ""), "list", &LIST);
        let list = self.list_type.clone().unwrap_or(self.ty.clone());
        self.answer(operation, &list, &[])
    }

    fn read(&mut self) -> Value {
        let operation = self.operation(("read", ""), "get", &[]);
        let ty = self.ty.clone();
        self.answer(operation, &ty, &[])
    }

    fn write(&mut self, action: &str, verb: &str) -> Value {
        let mut operation = self.operation((verb, ""), action, &WRITE);
        let ty = self.ty.clone();
        let mut body = self.content(&ty, &ANY_BODY);
        body["required"] = true.into();
        operation.insert("requestBody".into(), body);
        match action {
            "post" => self.answer(operation, &ty, &[CREATED, ACCEPTED]),
            _ => self.answer(operation, &ty, &[CREATED]),
        }
    }

    fn patch(&mut self) -> Value {
        let mut operation = self.operation(
            ("patch", ""),
            "patch",
            &[DRY_RUN, FIELD_MANAGER, FIELD_VALIDATION, FORCE],
        );
        let mut body = self.content(&format!("{META}.Patch"), &PATCHES);
        body["required"] = true.into();
        operation.insert("requestBody".into(), body);
        let ty = self.ty.clone();
        self.answer(operation, &ty, &[CREATED])
    }

    fn delete(&mut self, collection: bool) -> Value {
        let selectors = LIST
            .iter()
            .filter(|(name, ..)| collection && !LIST_ONLY.contains(name));
        let mut parameters: Vec<Parameter> = DELETE.iter().chain(selectors).copied().collect();
        parameters.sort_by_key(|(name, ..)| *name);
        let mut operation = match collection {
            true => self.operation(("delete", "Collection"), "deletecollection", &parameters),
            false => self.operation(("delete", ""), "delete", &parameters),
        };
        let body = self.content(&format!("{META}.DeleteOptions"), &ANY_BODY);
        operation.insert("requestBody".into(), body);
        let status = format!("{META}.Status");
        match collection {
            true => self.answer(operation, &status, &[]),
            false if SHOWN_WHEN_DELETED.contains(&self.kind.as_str()) => {
                let ty = self.ty.clone();
                self.answer(operation, &ty, &[ACCEPTED])
            }
            false => self.answer(operation, &status, &[ACCEPTED]),
        }
    }

    /// Requests that are passed on, and answered with whatever comes.
    fn connect(&self, method: &str) -> Value {
        let mut operation = self.operation(
            ("connect", &capital(method)),
            "connect",
            connect::parameters(&self.options()),
        );
        let responses = json!({
            "200": {"description": "OK", "content": {"*/*": {"schema": {"type": "string"}}}},
            "401": {"description": "Unauthorized"},
        });
        operation.insert("responses".into(), responses);
        Value::Object(operation)
    }

    /// The kind of the options that a passed on request has in its query.
    fn options(&self) -> String {
        self.gvk["kind"].as_str().unwrap_or("").to_owned()
    }

    /// `status` and `scale` are read, replaced and patched; the others are verbs of their own.
    fn subresource(&mut self, subresource: &str, kind: &str, scope: &str) -> Map<String, Value> {
        let own = (self.gvk.clone(), self.ty.clone());
        self.name = format!("{scope}{kind}{}", capital(subresource));
        self.part = subresource.to_owned();
        let of = |kind: &str, group: &str, version: &str| json!({"group": group, "version": version, "kind": kind});
        let core = |end: &str| of(&format!("{kind}{end}"), "", "v1");
        let (gvk, ty) = match subresource {
            "scale" => (
                of("Scale", "autoscaling", "v1"),
                "io.k8s.api.autoscaling.v1.Scale",
            ),
            "eviction" => (
                of("Eviction", "policy", "v1"),
                "io.k8s.api.policy.v1.Eviction",
            ),
            "binding" => (of("Binding", "", "v1"), "io.k8s.api.core.v1.Binding"),
            "token" => (
                of("TokenRequest", "authentication.k8s.io", "v1"),
                "io.k8s.api.authentication.v1.TokenRequest",
            ),
            "exec" => (core("ExecOptions"), ""),
            "attach" => (core("AttachOptions"), ""),
            "portforward" => (core("PortForwardOptions"), ""),
            "proxy" => (core("ProxyOptions"), ""),
            _ => (own.0.clone(), own.1.as_str()),
        };
        (self.gvk, self.ty) = (gvk, ty.to_owned());
        let mut item = Map::new();
        let methods: &[&str] = match subresource {
            "exec" | "attach" | "portforward" => &["get", "post"],
            "proxy" => &["get", "put", "post", "delete", "options", "head", "patch"],
            _ => &[],
        };
        for method in methods {
            item.insert((*method).into(), self.connect(method));
        }
        match subresource {
            _ if !methods.is_empty() => {}
            "eviction" | "binding" | "token" => {
                item.insert("post".into(), self.write("post", "create"));
            }
            "finalize" => drop(item.insert("put".into(), self.write("put", "replace"))),
            "log" => {
                let parameters = connect::parameters("PodLogOptions");
                let mut read = self.operation(("read", ""), "get", parameters);
                read.insert("responses".into(), connect::texts());
                item.insert("get".into(), Value::Object(read));
            }
            _ => {
                item.insert("get".into(), self.read());
                item.insert("put".into(), self.write("put", "replace"));
                item.insert("patch".into(), self.patch());
            }
        }
        (self.gvk, self.ty) = own;
        self.part.clear();
        item
    }
}

fn article(kind: &str) -> &'static str {
    match kind.chars().next() {
        Some('A' | 'E' | 'I' | 'O' | 'U') => "an",
        _ => "a",
    }
}
