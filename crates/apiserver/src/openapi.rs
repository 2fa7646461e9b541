//! `/openapi/v2` and `/openapi/v3`: documents are made when somebody asks, kept compressed, and
//! forgotten when nobody does.

use std::collections::BTreeMap;
use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ::custom::publish::{OpenApi, definition_name};
use bytes::Bytes;
use http::header::{
    ACCEPT, CACHE_CONTROL, CONTENT_ENCODING, ETAG, EXPIRES, IF_NONE_MATCH, LOCATION, VARY,
};
use http::{HeaderValue, StatusCode};
use jiff::Timestamp;
use meta::{GroupVersion, Status};
use parking_lot::Mutex;
use schema::openapi::{KindDoc, ROOTS};
use serde_json::{Map, Value, json};

use crate::aggregate::Delegate;
use crate::chain::Call;
use crate::discovery;
use crate::dispatch::no_such_resource;
use crate::registry::{Resource, Resources};
use crate::respond::{self, Answer};
use crate::server::Core;
use crate::subresource;

/// The name of the v2 document among those that are kept.
const V2: &str = "v2";
const JSON: &str = "application/json";
const V2_PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
const V3_PROTOBUF: &str = "application/com.github.proto-openapi.spec.v3.v1.0+protobuf";
/// How long clients may keep a document whose address has its hash.
const YEAR: jiff::SignedDuration = jiff::SignedDuration::from_hours(365 * 24);

/// Documents that somebody asked for lately: one per group and version, and that of all.
#[derive(Default)]
pub(crate) struct Documents {
    kept: Mutex<BTreeMap<String, Arc<Document>>>,
    /// Held while a document is made: it takes a processor for a while, and once is enough.
    making: tokio::sync::Mutex<()>,
}

/// One document, compressed.
struct Document {
    tag: String,
    json: Bytes,
    protobuf: Bytes,
    used: AtomicBool,
}

impl Document {
    fn new(tag: &str, json: &[u8], protobuf: &[u8]) -> Result<Document, Status> {
        Ok(Document {
            tag: tag.to_owned(),
            json: respond::compress(json)?.into(),
            protobuf: respond::compress(protobuf)?.into(),
            used: AtomicBool::new(true),
        })
    }
}

impl Documents {
    /// Forgets what nobody asked for since the last call.
    pub(crate) fn forget(&self) {
        let used = |document: &Document| document.used.swap(false, Ordering::Relaxed);
        self.kept.lock().retain(|_, document| used(document));
    }

    fn get(&self, name: &str, tag: &str) -> Option<Arc<Document>> {
        let kept = self.kept.lock().get(name).cloned();
        kept.filter(|document| document.tag == tag)
    }

    /// The document of this name and state, made by `make` if it is not there.
    async fn get_or_make(
        &self,
        name: String,
        tag: &str,
        make: impl FnOnce() -> Result<Document, Status> + Send + 'static,
    ) -> Result<Arc<Document>, Status> {
        if let Some(document) = self.get(&name, tag) {
            document.used.store(true, Ordering::Relaxed);
            return Ok(document);
        }
        let _making = self.making.lock().await;
        if let Some(document) = self.get(&name, tag) {
            return Ok(document);
        }
        let made = tokio::task::spawn_blocking(make).await;
        let document = Arc::new(made.map_err(Status::internal)??);
        self.kept.lock().insert(name, Arc::clone(&document));
        Ok(document)
    }
}

/// Answers `/openapi` and what is below.
pub(crate) async fn answer(core: &Core, call: &Call, path: &[&str]) -> Result<Answer, Status> {
    let resources = Arc::clone(&core.registry.now());
    match path {
        ["v2"] => all(core, call, resources).await,
        ["v3"] => index(core, &resources, call),
        ["v3", "api", version] => versioned(core, call, resources, "", version).await,
        ["v3", "apis", group, version] => versioned(core, call, resources, group, version).await,
        ["v3", rest @ ..] => root(core, call, &resources, &rest.join("/")).await,
        _ => Err(no_such_resource()),
    }
}

/// Path, tag and address of a document of v3.
struct Place {
    path: String,
    tag: String,
}

impl Place {
    fn of(core: &Core, resources: &Resources, group_version: &GroupVersion) -> Place {
        Place {
            path: match group_version.group.as_str() {
                "" => format!("api/{}", group_version.version),
                _ => format!("apis/{group_version}"),
            },
            tag: tag(core, resources, group_version),
        }
    }

    /// That of a path of no version, which changes with this program only.
    fn root(core: &Core, path: String) -> Place {
        let tag = discovery::hash(format!("{}{path}", program(core)).as_bytes());
        Place { path, tag }
    }

    /// That of a group and version that another part of this process answers for: the same.
    fn delegate(core: &Core, delegate: &Delegate) -> Place {
        Place::root(
            core,
            format!("apis/{}/{}", delegate.group, delegate.version),
        )
    }

    fn url(&self) -> String {
        format!("/openapi/v3/{}?hash={}", self.path, self.tag)
    }
}

/// Paths of no version that have a document: those of built-in groups among them.
fn roots(resources: &Resources) -> Vec<String> {
    let mut paths: Vec<String> = ROOTS.iter().map(|path| (*path).to_owned()).collect();
    for GroupVersion { group, version } in resources.group_versions() {
        let own = resources.of(&group, &version).unwrap_or_default();
        if !group.is_empty() && own.iter().any(|resource| !resource.custom) {
            paths.push(format!("apis/{group}"));
        }
    }
    paths.sort_unstable();
    paths.dedup();
    paths
}

fn index(core: &Core, resources: &Resources, call: &Call) -> Result<Answer, Status> {
    let mut paths = Map::new();
    for group_version in resources.group_versions() {
        let place = Place::of(core, resources, &group_version);
        let url = place.url();
        paths.insert(place.path, json!({"serverRelativeURL": url}));
    }
    let roots = roots(resources).into_iter();
    let roots = roots.map(|path| Place::root(core, path));
    let delegates = core.aggregate.described().into_iter();
    let delegates = delegates.map(|own| Place::delegate(core, &own));
    for place in roots.chain(delegates) {
        let url = place.url();
        paths.insert(place.path, json!({"serverRelativeURL": url}));
    }
    for (path, url) in core.aggregate.documents() {
        paths.insert(path, json!({"serverRelativeURL": url}));
    }
    let json = json!({"paths": paths}).to_string();
    let tag = format!("\"{}\"", discovery::hash(json.as_bytes()));
    if is_known(call, &tag) {
        return Ok(unchanged(JSON, &tag));
    }
    let mut answer = respond::plain(StatusCode::OK, JSON, json);
    set_tag(&mut answer, &tag);
    Ok(answer)
}

/// Changes whenever the document may: with the names of its kinds, and with this program.
fn tag(core: &Core, resources: &Resources, group_version: &GroupVersion) -> String {
    let own = resources.of(&group_version.group, &group_version.version);
    let own = own.unwrap_or_default().iter();
    let text: String = own
        .map(|resource| format!("{:?}{}", resource.row.names, resource.stamp))
        .collect();
    discovery::hash(format!("{}{group_version}{text}", program(core)).as_bytes())
}

fn program(core: &Core) -> String {
    let config = &core.config;
    format!("{}{}", config.git_version, config.git_commit)
}

async fn all(core: &Core, call: &Call, resources: Arc<Resources>) -> Result<Answer, Status> {
    let Some(protobuf) = wants_protobuf(call, "v2") else {
        return Ok(respond::plain(StatusCode::NOT_ACCEPTABLE, JSON, ""));
    };
    let group_versions: Vec<GroupVersion> = resources.group_versions().collect();
    let tags = group_versions.iter().map(|own| tag(core, &resources, own));
    let others = core.aggregate.swaggers();
    let delegates = core.aggregate.described();
    let tags = tags.chain(delegates.iter().map(|own| Place::delegate(core, own).tag));
    let tags = tags.chain(others.iter().map(|other| other.tag.clone()));
    let tag = discovery::hash(tags.collect::<String>().as_bytes());
    let own = tag.clone();
    let make = move || {
        let mut builder = schema::openapi::v2::Builder::default();
        for group_version in &group_versions {
            let own = resources.of(&group_version.group, &group_version.version);
            builder.add(document(
                group_version,
                own.unwrap_or_default(),
                OpenApi::V2,
            ));
        }
        for path in roots(&resources) {
            schema::openapi::root(&path)
                .into_iter()
                .for_each(|root| builder.add(root));
        }
        for delegate in delegates {
            builder.add(delegate.document());
        }
        for other in others {
            builder.add_other(other.read()?);
        }
        let document = builder.finish(schema::openapi::VERSION);
        Document::new(&own, &document.json, &document.protobuf)
    };
    if is_known(call, &format!("\"{tag}\"")) {
        return Ok(unchanged(JSON, &format!("\"{tag}\"")));
    }
    let document = core.documents.get_or_make(V2.into(), &tag, make).await?;
    let media = if protobuf { V2_PROTOBUF } else { JSON };
    send(call, &document, protobuf, media)
}

async fn versioned(
    core: &Core,
    call: &Call,
    resources: Arc<Resources>,
    group: &str,
    version: &str,
) -> Result<Answer, Status> {
    let group_version = GroupVersion {
        group: group.into(),
        version: version.into(),
    };
    if resources.of(group, version).is_none() {
        let mut delegates = core.aggregate.described().into_iter();
        let found = delegates.find(|own| own.group == group && own.version == version);
        let delegate = found.ok_or_else(no_such_resource)?;
        let place = Place::delegate(core, &delegate);
        return one(core, call, place, move || delegate.document()).await;
    }
    let place = Place::of(core, &resources, &group_version);
    let make = move || {
        let own = resources.of(&group_version.group, &group_version.version);
        document(&group_version, own.unwrap_or_default(), OpenApi::V3)
    };
    one(core, call, place, make).await
}

async fn root(
    core: &Core,
    call: &Call,
    resources: &Resources,
    path: &str,
) -> Result<Answer, Status> {
    if !roots(resources).iter().any(|own| own == path) {
        return Err(no_such_resource());
    }
    let path = path.to_owned();
    let make = {
        let path = path.clone();
        move || schema::openapi::root(&path).unwrap_or_default()
    };
    one(core, call, Place::root(core, path), make).await
}

/// A document of v3; one that is asked for by its hash may be kept for ever.
async fn one(
    core: &Core,
    call: &Call,
    place: Place,
    make: impl FnOnce() -> Value + Send + 'static,
) -> Result<Answer, Status> {
    let Some(protobuf) = wants_protobuf(call, "v3") else {
        return Ok(respond::plain(StatusCode::NOT_ACCEPTABLE, JSON, ""));
    };
    let media = if protobuf { V3_PROTOBUF } else { JSON };
    let url = place.url();
    let Place { path, tag } = place;
    let asked = call.query.get("hash");
    if asked.is_some_and(|asked| asked != tag) {
        let mut moved = respond::plain(StatusCode::MOVED_PERMANENTLY, JSON, "");
        if let Ok(url) = HeaderValue::from_str(&url) {
            moved.headers_mut().insert(LOCATION, url);
        }
        return Ok(moved);
    }
    let quoted = format!("\"{tag}\"");
    let mut answer = match is_known(call, &quoted) {
        true => unchanged(media, &quoted),
        false => {
            let own = tag.clone();
            let make = move || {
                let tree = make();
                let protobuf = schema::openapi::document_protobuf(&tree);
                Document::new(&own, tree.to_string().as_bytes(), &protobuf)
            };
            let document = core.documents.get_or_make(path, &tag, make).await?;
            send(call, &document, protobuf, media)?
        }
    };
    if asked.is_some() {
        let headers = answer.headers_mut();
        let for_ever = HeaderValue::from_static("public, immutable");
        headers.insert(CACHE_CONTROL, for_ever);
        let until = (Timestamp::now() + YEAR).strftime("%a, %d %b %Y %H:%M:%S GMT");
        if let Ok(until) = HeaderValue::from_str(&until.to_string()) {
            headers.insert(EXPIRES, until);
        }
    }
    Ok(answer)
}

/// Whether the message form is wanted more than JSON; `None` when it is neither.
fn wants_protobuf(call: &Call, version: &str) -> Option<bool> {
    let texts = call.headers.get_all(ACCEPT).iter();
    let texts: Vec<&str> = texts.filter_map(|text| text.to_str().ok()).collect();
    let text = texts.join(",");
    let text = if text.is_empty() { "*/*" } else { &text };
    let mut best: Option<(f32, bool)> = None;
    for clause in text.split(',') {
        let mut parts = clause.split(';').map(str::trim);
        let protobuf = match parts.next().unwrap_or("") {
            JSON | "*/*" | "application/*" | "*" => false,
            other => {
                let other = other.strip_prefix("application/com.github.proto-openapi.spec.");
                let other = other.and_then(|other| other.strip_suffix("+protobuf"));
                match other.and_then(|other| other.strip_prefix(version)) {
                    Some(".v1.0" | "@v1.0") => true,
                    _ => continue,
                }
            }
        };
        let mut quality = parts.filter_map(|part| part.strip_prefix("q="));
        let quality = quality.next().and_then(|text| text.parse().ok());
        let quality: f32 = quality.unwrap_or(1.0);
        if best.is_none_or(|(best, _)| quality > best) {
            best = Some((quality, protobuf));
        }
    }
    best.map(|(_, protobuf)| protobuf)
}

fn is_known(call: &Call, tag: &str) -> bool {
    let known = call.headers.get(IF_NONE_MATCH);
    let known = known.and_then(|known| known.to_str().ok()).unwrap_or("");
    known.split(',').any(|known| known.trim() == tag)
}

fn unchanged(media: &'static str, tag: &str) -> Answer {
    let mut answer = respond::plain(StatusCode::NOT_MODIFIED, media, "");
    set_tag(&mut answer, tag);
    answer
}

fn set_tag(answer: &mut Answer, tag: &str) {
    if let Ok(tag) = HeaderValue::from_str(tag) {
        answer.headers_mut().insert(ETAG, tag);
    }
    let headers = answer.headers_mut();
    headers.append(VARY, HeaderValue::from_static("Accept"));
}

fn send(
    call: &Call,
    document: &Document,
    protobuf: bool,
    media: &'static str,
) -> Result<Answer, Status> {
    let zipped = match protobuf {
        true => &document.protobuf,
        false => &document.json,
    };
    let mut answer = if call.accept.gzip {
        let mut answer = respond::plain(StatusCode::OK, media, zipped.clone());
        let headers = answer.headers_mut();
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        headers.append(VARY, HeaderValue::from_static("Accept-Encoding"));
        answer
    } else {
        let mut whole = Vec::new();
        let mut reader = flate2::read::GzDecoder::new(&zipped[..]);
        reader.read_to_end(&mut whole).map_err(Status::internal)?;
        respond::plain(StatusCode::OK, media, whole)
    };
    set_tag(&mut answer, &format!("\"{}\"", document.tag));
    Ok(answer)
}

fn document(group_version: &GroupVersion, own: &[Arc<Resource>], form: OpenApi) -> Value {
    let subresources: Vec<Vec<&str>> = own
        .iter()
        .map(|resource| subresource::of(resource).map(|sub| sub.name).collect())
        .collect();
    let kinds: Vec<KindDoc<'_>> = own
        .iter()
        .zip(&subresources)
        .map(|(resource, subresources)| KindDoc {
            names: &resource.row.names,
            subresources,
            verbs: discovery::verbs(resource),
        })
        .collect();
    let mut tree = schema::openapi::document_with(group_version, &kinds, &|names| {
        let mut found = own.iter().filter(|resource| resource.row.names == *names);
        found.next().and_then(|resource| resource.ty.clone())
    });
    publish(&mut tree, own, form);
    tree
}

/// Custom resources are described by the schemas that their definitions have.
fn publish(document: &mut Value, own: &[Arc<Resource>], form: OpenApi) {
    let schemas = document.pointer_mut("/components/schemas");
    let Some(schemas) = schemas.and_then(Value::as_object_mut) else {
        return;
    };
    for resource in own {
        let Some(published) = &resource.published else {
            continue;
        };
        let names = &resource.row.names;
        let name = |kind: &str| definition_name(names, kind);
        schemas.insert(name(&names.kind), published.kind(names, form));
        schemas.insert(name(&names.list_kind), published.list(names));
    }
}
