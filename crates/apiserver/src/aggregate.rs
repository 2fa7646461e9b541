//! Groups and versions that other servers answer for (`APIService`s with a service).
//!
//! ```text
//!   APIServices ─▶ follow ─▶ a route each ─▶ keeper: looks whether the server is there, writes
//!                    │                        the condition, remembers what discovery says
//!                    ▼
//!            one APIService for each group and version of our own
//! ```
//!
//! Requests look for a route before they look for a resource; without APIServices that name a
//! service, that is one atomic load.

mod delegate;
mod discover;
mod follow;
mod keeper;
mod pass;
mod pool;
mod priorities;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::{ArcSwap, ArcSwapOption};
use base64::Engine;
use bytes::Bytes;
use client::Access;
use http::HeaderValue;
use meta::Status;
use serde_json::{Value, json};

use crate::chain::Call;
use crate::stream::{Channel, Target};
use crate::verbs::write::text;
use pool::Pool;

pub use delegate::Delegate;
pub(crate) use follow::run;
pub(crate) use pass::answer;

/// All routes, and how services are found.
pub(crate) struct Aggregate {
    routes: ArcSwap<Vec<Arc<Route>>>,
    /// Who of this process answers where there is no route.
    delegates: Vec<Delegate>,
    resolver: Arc<dyn webhook::Resolve>,
}

/// One group and version, and the service that answers for it.
pub(crate) struct Route {
    name: String,
    pub(crate) group: String,
    pub(crate) version: String,
    address: Arc<Address>,
    pool: Pool,
    priority: (i64, i64),
    available: AtomicBool,
    listed: ArcSwapOption<Listed>,
}

/// Where a service is, and how it is spoken to.
struct Address {
    namespace: String,
    service: String,
    port: u16,
    /// Whom to trust, and the certificate that says that we are the front proxy.
    tls: Result<Arc<rustls::ClientConfig>, String>,
    resolver: Arc<dyn webhook::Resolve>,
}

/// What the server said of its resources when it was last asked.
#[derive(Clone)]
pub(crate) struct Listed {
    /// As aggregated discovery shows them.
    resources: Vec<Value>,
    /// Whether it did not answer since.
    stale: bool,
    /// Where its OpenAPI v3 document is.
    openapi: Option<String>,
    /// What it says of itself in OpenAPI v2.
    swagger: Option<Arc<Swagger>>,
}

/// What another server's OpenAPI v2 document says of one group and version.
pub(crate) struct Swagger {
    /// Changes with the document.
    pub(crate) tag: String,
    /// As the server named this state of its document.
    etag: Option<HeaderValue>,
    /// Compressed.
    json: Bytes,
}

impl Swagger {
    /// The document.
    pub(crate) fn read(&self) -> Result<Value, Status> {
        let reader = flate2::read::GzDecoder::new(&self.json[..]);
        serde_json::from_reader(reader).map_err(Status::internal)
    }
}

impl Aggregate {
    pub(crate) fn new(resolver: Arc<dyn webhook::Resolve>, delegates: Vec<Delegate>) -> Aggregate {
        Aggregate {
            routes: ArcSwap::default(),
            delegates,
            resolver,
        }
    }

    /// The route of a request, if another server answers it.
    pub(crate) fn route(&self, call: &Call) -> Option<Arc<Route>> {
        let routes = self.routes.load();
        if routes.is_empty() {
            return None;
        }
        let (group, version) = group_version(call)?;
        let mut fitting = routes.iter();
        fitting
            .find(|route| route.group == group && route.version == version)
            .cloned()
    }

    /// Groups that others answer for, the most important first, with their versions in order.
    pub(crate) fn groups(&self) -> Vec<(String, Vec<String>)> {
        let routes = self.routes.load();
        let mut groups: BTreeMap<&str, Vec<&Arc<Route>>> = BTreeMap::new();
        for route in routes.iter() {
            groups.entry(&route.group).or_default().push(route);
        }
        let mut groups: Vec<_> = groups.into_iter().collect();
        let rank = |routes: &[&Arc<Route>]| routes.iter().map(|route| route.priority.0).max();
        groups.sort_by_key(|(_, routes)| std::cmp::Reverse(rank(routes)));
        let versions = |mut routes: Vec<&Arc<Route>>| -> Vec<String> {
            routes.sort_by_key(|route| {
                let order = crate::custom::resources::version_order(&route.version);
                (std::cmp::Reverse(route.priority.1), order)
            });
            routes.iter().map(|route| route.version.clone()).collect()
        };
        let groups = groups.into_iter();
        let groups = groups.map(|(group, routes)| (group.to_owned(), versions(routes)));
        let mut groups: Vec<(String, Vec<String>)> = groups.collect();
        for own in &self.delegates {
            match groups.iter_mut().find(|(group, _)| *group == own.group) {
                Some((_, versions)) if versions.contains(&own.version) => {}
                Some((_, versions)) => versions.push(own.version.clone()),
                None => groups.push((own.group.clone(), vec![own.version.clone()])),
            }
        }
        groups
    }

    /// A version as aggregated discovery shows it.
    pub(crate) fn version(&self, group: &str, version: &str) -> Option<Value> {
        let routes = self.routes.load();
        let mut fitting = routes.iter();
        let route = fitting.find(|own| own.group == group && own.version == version);
        let Some(route) = route else {
            return self.delegate_of(group, version).map(Delegate::shown);
        };
        let listed = route.listed.load();
        let mut tree = json!({"version": version, "freshness": "Stale"});
        if let Some(listed) = listed.as_ref() {
            tree["resources"] = listed.resources.clone().into();
            if !listed.stale {
                tree["freshness"] = "Current".into();
            }
        }
        Some(tree)
    }

    /// What others say of themselves in OpenAPI v2, the most important first.
    pub(crate) fn swaggers(&self) -> Vec<Arc<Swagger>> {
        let routes = self.routes.load();
        let mut routes: Vec<&Arc<Route>> = routes.iter().collect();
        routes.sort_by_key(|route| std::cmp::Reverse(route.priority));
        let swagger = |route: &Arc<Route>| route.listed.load().as_ref()?.swagger.clone();
        routes.into_iter().filter_map(swagger).collect()
    }

    /// The names of APIServices that name a service, and whether it is there.
    pub(crate) fn availability(&self) -> Vec<(String, bool)> {
        let routes = self.routes.load();
        let one = |route: &Arc<Route>| (route.name.clone(), route.is_available());
        routes.iter().map(one).collect()
    }

    /// Where the OpenAPI v3 documents of others are, by path.
    pub(crate) fn documents(&self) -> Vec<(String, String)> {
        let routes = self.routes.load();
        let document = |route: &Arc<Route>| {
            let url = route.listed.load().as_ref()?.openapi.clone()?;
            Some((format!("apis/{}/{}", route.group, route.version), url))
        };
        routes.iter().filter_map(document).collect()
    }
}

/// The group and version that a request is about.
fn group_version(call: &Call) -> Option<(&str, &str)> {
    if call.info.is_resource {
        return Some((&call.info.group, &call.info.version));
    }
    let path = call.info.path.trim_matches('/');
    let path = path.strip_prefix("openapi/v3/").unwrap_or(path);
    path.strip_prefix("apis/")?.split_once('/')
}

impl Route {
    /// The route that an APIService asks for; `None` for those that this server answers.
    fn new(
        tree: &Value,
        proxy: &Arc<auth::tls::ClientCertificate>,
        resolver: &Arc<dyn webhook::Resolve>,
    ) -> Option<Route> {
        let service = tree
            .pointer("/spec/service")
            .filter(|one| one.is_object())?;
        let bundle = base64::engine::general_purpose::STANDARD
            .decode(text(tree, "/spec/caBundle"))
            .unwrap_or_default();
        let access = Access {
            ca: Some(bundle),
            insecure: tree.pointer("/spec/insecureSkipTLSVerify") == Some(&json!(true)),
            ..Access::default()
        };
        let tls = tls_config(&access).map(|mut tls| {
            tls.alpn_protocols = vec![b"http/1.1".to_vec()];
            tls.client_auth_cert_resolver = Arc::clone(proxy) as _;
            Arc::new(tls)
        });
        let number = |path: &str| tree.pointer(path).and_then(Value::as_i64).unwrap_or(0);
        let port = service["port"].as_u64().unwrap_or(443);
        let address = Arc::new(Address {
            namespace: text(service, "/namespace").to_owned(),
            service: text(service, "/name").to_owned(),
            port: u16::try_from(port).unwrap_or(443),
            tls,
            resolver: Arc::clone(resolver),
        });
        Some(Route {
            name: text(tree, "/metadata/name").to_owned(),
            group: text(tree, "/spec/group").to_owned(),
            version: text(tree, "/spec/version").to_owned(),
            pool: Pool::new(Arc::clone(&address)),
            address,
            priority: (
                number("/spec/groupPriorityMinimum"),
                number("/spec/versionPriority"),
            ),
            available: AtomicBool::new(is_available(tree)),
            listed: ArcSwapOption::empty(),
        })
    }

    fn is_available(&self) -> bool {
        self.available.load(Ordering::Acquire)
    }
}

/// Shows the front proxy's certificate. Without authorities those of the system are trusted.
fn tls_config(access: &Access) -> Result<rustls::ClientConfig, String> {
    let own = client::remote::tls_config(access).map_err(|error| error.to_string())?;
    if access.insecure {
        return Ok(own);
    }
    let bundle = access.ca.as_deref().unwrap_or_default();
    let mut trusting = webhook::trusting(bundle).map_err(|error| error.to_string())?;
    trusting.client_auth_cert_resolver = own.client_auth_cert_resolver;
    Ok(trusting)
}

/// Why a route leads nowhere.
enum Failure {
    Tls(String),
    Resolve(String),
}

impl From<Failure> for String {
    fn from(failure: Failure) -> String {
        match failure {
            Failure::Tls(text) | Failure::Resolve(text) => text,
        }
    }
}

impl Address {
    /// Where it leads right now.
    fn target(&self) -> Result<Target, Failure> {
        let tls = self.tls.clone().map_err(Failure::Tls)?;
        let (host, port) = self
            .resolver
            .resolve(&self.namespace, &self.service, self.port)
            .map_err(Failure::Resolve)?;
        let name = format!("{}.{}.svc", self.service, self.namespace);
        Ok(Target {
            host,
            port,
            channel: Channel::Named(tls, name),
        })
    }
}

/// Whether the condition says that an APIService is available.
fn is_available(tree: &Value) -> bool {
    condition(tree).is_some_and(|own| own["status"] == "True")
}

fn condition(tree: &Value) -> Option<&Value> {
    let list = tree
        .pointer("/status/conditions")
        .and_then(Value::as_array)?;
    list.iter().find(|own| own["type"] == "Available")
}
