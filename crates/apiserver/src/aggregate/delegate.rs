//! Groups and versions that another part of this process answers for, as a server behind an
//! APIService does; until an APIService names such a server.

use std::sync::Arc;

use client::{Body, BoxError, Transport};
use futures::future::BoxFuture;
use http::Request;
use http::request::Parts;
use meta::{GroupVersion, Names, Status};
use schema::openapi::KindDoc;
use schema::{Kind, Type, TypeRef};
use serde_json::{Value, json};
use tower::ServiceExt;

use super::{Aggregate, discover};
use crate::chain::Call;
use crate::respond::Answer;
use crate::stream;

/// A part of this process that answers for one group and version.
#[derive(Clone)]
pub struct Delegate {
    pub group: String,
    pub version: String,
    /// `groupPriorityMinimum` and `versionPriority`.
    pub priority: (i64, i64),
    /// Its `APIResourceList`.
    pub resources: Value,
    /// Its kinds with their schemas, as a CustomResourceDefinition has them; without one it has no
    /// document of OpenAPI.
    pub schemas: Vec<(String, Value)>,
    /// Answers requests of those who may ask.
    pub service: Transport,
}

impl Delegate {
    /// Its version as aggregated discovery shows it.
    pub(super) fn shown(&self) -> Value {
        json!({
            "version": self.version, "freshness": "Current",
            "resources": discover::resources(&self.resources, &self.group, &self.version),
        })
    }

    /// Its document of OpenAPI v3.
    pub(crate) fn document(&self) -> Value {
        let group_version = GroupVersion {
            group: self.group.clone(),
            version: self.version.clone(),
        };
        let resources = self.resources["resources"].as_array();
        let kinds: Vec<(Names, Vec<&str>)> = resources
            .into_iter()
            .flatten()
            .filter_map(|resource| {
                let (plural, kind) = (resource["name"].as_str()?, resource["kind"].as_str()?);
                let names = match resource["namespaced"] == true {
                    true => Names::namespaced(&self.group, &self.version, kind, plural),
                    false => Names::cluster(&self.group, &self.version, kind, plural),
                };
                let verbs = resource["verbs"].as_array().into_iter().flatten();
                Some((names, verbs.filter_map(Value::as_str).collect()))
            })
            .collect();
        let kinds = kinds.iter().map(|(names, verbs)| KindDoc {
            names,
            subresources: &[],
            verbs,
        });
        let type_of = |names: &Names| {
            let (_, schema) = self.schemas.iter().find(|(kind, _)| *kind == names.kind)?;
            let kind = Kind {
                group: names.group.clone().into(),
                version: names.version.clone().into(),
                kind: names.kind.clone().into(),
            };
            let described = Type::from_openapi(kind, schema);
            Some(TypeRef::Owned(Arc::new(described)))
        };
        let kinds: Vec<KindDoc<'_>> = kinds.collect();
        schema::openapi::document_with(&group_version, &kinds, &type_of)
    }

    /// What says in the API that there is this group and version; users may let it name a service.
    pub(super) fn api_service(&self) -> (String, Value) {
        let name = format!("{}.{}", self.version, self.group);
        let tree = json!({
            "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
            "metadata": {"name": name},
            "spec": {
                "group": self.group, "version": self.version,
                "groupPriorityMinimum": self.priority.0, "versionPriority": self.priority.1,
            },
        });
        (name, tree)
    }

    /// Answers a request; what it needs of that is taken over at once.
    pub(crate) fn answer(
        &self,
        call: &Call,
        parts: Parts,
        body: Body,
    ) -> BoxFuture<'static, Result<Answer, Status>> {
        let query = parts.uri.query().map(|query| format!("?{query}"));
        let uri = format!("{}{}", call.info.path, query.unwrap_or_default());
        let request = Request::builder().method(parts.method).uri(uri).body(body);
        let mut request = match request {
            Ok(request) => request,
            Err(error) => {
                let status = Status::bad_request(format!("invalid request: {error}"));
                return Box::pin(std::future::ready(Err(status)));
            }
        };
        *request.headers_mut() = stream::passed_headers(&call.headers);
        // Boxed here, where its type is plain.
        let answer: BoxFuture<'static, Result<Answer, BoxError>> =
            Box::pin(self.service.clone().oneshot(request));
        Box::pin(async move { answer.await.map_err(Status::internal) })
    }
}

impl Aggregate {
    /// Who of this process answers a request; asked when there is no route.
    pub(crate) fn delegate(&self, call: &Call) -> Option<&Delegate> {
        // Their documents are made from what they say, as our own are.
        if self.delegates.is_empty() || call.info.path.starts_with("/openapi/") {
            return None;
        }
        let (group, version) = super::group_version(call)?;
        self.delegate_of(group, version)
    }

    /// Those that say what they are in OpenAPI, but for those whose place another server has.
    pub(crate) fn described(&self) -> Vec<Delegate> {
        let routes = self.routes.load();
        let taken = |own: &Delegate| {
            let mut routes = routes.iter();
            routes.any(|route| route.group == own.group && route.version == own.version)
        };
        let delegates = self.delegates.iter();
        let described = delegates.filter(|own| !own.schemas.is_empty() && !taken(own));
        described.cloned().collect()
    }

    pub(super) fn delegate_of(&self, group: &str, version: &str) -> Option<&Delegate> {
        let mut delegates = self.delegates.iter();
        delegates.find(|own| own.group == group && own.version == version)
    }
}
