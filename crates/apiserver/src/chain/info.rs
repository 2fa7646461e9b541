//! What a request is about, read off its method and path (upstream's request info).

use auth::Attributes;
use http::Method;
use meta::{FieldSelector, LabelSelector, Status};

use super::query::{Query, decode};

/// Longest path, in bytes.
const PATH_BYTES_MAX: usize = 8192;

/// What a request is about.
#[derive(Clone, Debug, Default)]
pub(crate) struct RequestInfo {
    /// `get`, `list`, `watch`, `create`, … or the lower-case method for other paths.
    pub(crate) verb: &'static str,
    /// The path as sent, without query.
    pub(crate) path: String,
    pub(crate) is_resource: bool,
    pub(crate) group: String,
    pub(crate) version: String,
    pub(crate) namespace: String,
    /// The plural.
    pub(crate) resource: String,
    pub(crate) name: String,
    pub(crate) subresource: String,
    /// What follows the subresource, as for proxies.
    pub(crate) tail: String,
    pub(crate) field_selector: FieldSelector,
    pub(crate) label_selector: LabelSelector,
}

impl RequestInfo {
    /// Reads method, path and query.
    pub(crate) fn parse(method: &Method, path: &str, query: &Query) -> Result<RequestInfo, Status> {
        if path.len() > PATH_BYTES_MAX {
            return Err(Status::bad_request("path is too long"));
        }
        let mut info = RequestInfo {
            path: path.to_owned(),
            verb: method_word(method),
            ..RequestInfo::default()
        };
        let segments: Vec<&str> = path.trim_matches('/').split('/').collect();
        let rest = match segments.as_slice() {
            ["api", version, rest @ ..] if !rest.is_empty() => {
                info.version = (*version).to_owned();
                rest
            }
            ["apis", group, version, rest @ ..] if !rest.is_empty() => {
                info.group = (*group).to_owned();
                info.version = (*version).to_owned();
                rest
            }
            _ => return Ok(info),
        };
        info.is_resource = true;
        // The older way to say `?watch=1`.
        let old_watch = match rest {
            ["watch", rest @ ..] if !rest.is_empty() => Some(rest),
            _ => None,
        };
        info.read_resource(old_watch.unwrap_or(rest))?;
        info.verb = match old_watch {
            Some(_) => "watch",
            None => resource_verb(method, &info, query),
        };
        let named = std::mem::take(&mut info.name);
        if matches!(info.verb, "list" | "watch" | "deletecollection") {
            info.read_selector(query)?;
        }
        if !named.is_empty() {
            if old_watch.is_some() {
                let only = ("metadata.name".to_owned(), true, named.clone());
                info.field_selector.requirements.push(only);
            }
            info.name = named;
        }
        Ok(info)
    }

    fn read_resource(&mut self, rest: &[&str]) -> Result<(), Status> {
        let rest = match rest {
            // About the namespace itself.
            ["namespaces", namespace] | ["namespaces", namespace, "status" | "finalize"] => {
                self.namespace = decode(namespace, false)?;
                rest
            }
            ["namespaces", namespace, rest @ ..] => {
                self.namespace = decode(namespace, false)?;
                rest
            }
            rest => rest,
        };
        let part = |at: usize| decode(rest.get(at).copied().unwrap_or_default(), false);
        self.resource = part(0)?;
        self.name = part(1)?;
        self.subresource = part(2)?;
        self.tail = rest.get(3..).unwrap_or_default().join("/");
        Ok(())
    }

    fn read_selector(&mut self, query: &Query) -> Result<(), Status> {
        if let Some(text) = query.get("fieldSelector") {
            let selector = FieldSelector::parse(text)
                .map_err(|error| Status::bad_request(error.to_string()))?;
            if let Some(name) = selector.required_value("metadata.name") {
                self.name = name.to_owned();
            }
            self.field_selector = selector;
        }
        // A selector that does not parse is refused later, and narrows nothing here.
        if let Some(text) = query.get("labelSelector") {
            self.label_selector = LabelSelector::parse(text).unwrap_or_default();
        }
        Ok(())
    }

    /// The same as an authorizer wants it.
    pub(crate) fn attributes(&self) -> Attributes {
        Attributes {
            verb: self.verb.to_owned(),
            namespace: self.namespace.clone(),
            group: self.group.clone(),
            version: self.version.clone(),
            resource: self.resource.clone(),
            subresource: self.subresource.clone(),
            name: self.name.clone(),
            path: match self.is_resource {
                true => String::new(),
                false => self.path.clone(),
            },
            field_selector: self.field_selector.clone(),
            label_selector: self.label_selector.clone(),
        }
    }

    /// Whether the request may last: watches, logs and streams have no timeout.
    pub(crate) fn is_long_running(&self) -> bool {
        self.verb == "watch"
            || matches!(
                self.subresource.as_str(),
                "log" | "exec" | "attach" | "portforward" | "proxy"
            )
    }
}

fn method_word(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "get",
        "HEAD" => "head",
        "POST" => "post",
        "PUT" => "put",
        "PATCH" => "patch",
        "DELETE" => "delete",
        "OPTIONS" => "options",
        _ => "unknown",
    }
}

fn resource_verb(method: &Method, info: &RequestInfo, query: &Query) -> &'static str {
    match method.as_str() {
        "GET" | "HEAD" if info.name.is_empty() && query.flag("watch") => "watch",
        "GET" | "HEAD" if info.name.is_empty() => "list",
        "GET" | "HEAD" => "get",
        "POST" => "create",
        "PUT" => "update",
        "PATCH" => "patch",
        "DELETE" if info.name.is_empty() => "deletecollection",
        "DELETE" => "delete",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(method: &str, url: &str, expect: &str) {
        let (path, query) = url.split_once('?').unwrap_or((url, ""));
        let query = Query::parse(query).unwrap();
        let method = method.parse().unwrap();
        let info = RequestInfo::parse(&method, path, &query).unwrap();
        let shown = format!(
            "{} {}/{} ns={} {}/{}/{}",
            info.verb,
            info.group,
            info.version,
            info.namespace,
            info.resource,
            info.name,
            info.subresource
        );
        assert_eq!(shown, expect, "{url}");
    }

    #[test]
    fn paths_are_understood_as_upstream_does() {
        check("GET", "/api/v1/pods", "list /v1 ns= pods//");
        check("GET", "/api/v1/pods?watch=true", "watch /v1 ns= pods//");
        check("GET", "/api/v1/pods?watch=false", "list /v1 ns= pods//");
        check(
            "GET",
            "/api/v1/namespaces/a/pods/b/log",
            "get /v1 ns=a pods/b/log",
        );
        check("GET", "/api/v1/namespaces/a", "get /v1 ns=a namespaces/a/");
        check(
            "PUT",
            "/api/v1/namespaces/a/finalize",
            "update /v1 ns=a namespaces/a/finalize",
        );
        check(
            "PUT",
            "/api/v1/namespaces/status/status",
            "update /v1 ns=status namespaces/status/status",
        );
        check("GET", "/api/v1/namespaces", "list /v1 ns= namespaces//");
        check(
            "DELETE",
            "/apis/apps/v1/namespaces/a/deployments",
            "deletecollection apps/v1 ns=a deployments//",
        );
        check(
            "POST",
            "/apis/apps/v1/namespaces/a/deployments",
            "create apps/v1 ns=a deployments//",
        );
        check(
            "PATCH",
            "/api/v1/nodes/n/status",
            "patch /v1 ns= nodes/n/status",
        );
        check("GET", "/healthz", "get / ns= //");
        check(
            "GET",
            "/api/v1/watch/namespaces/a/pods",
            "watch /v1 ns=a pods//",
        );
        check(
            "GET",
            "/apis/apps/v1/watch/namespaces/a/deployments/b",
            "watch apps/v1 ns=a deployments/b/",
        );
        check("GET", "/apis/apps/v1", "get / ns= //");
        check(
            "GET",
            "/api/v1/pods?fieldSelector=metadata.name%3Dx",
            "list /v1 ns= pods/x/",
        );
    }
}
