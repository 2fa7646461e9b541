//! What a `clientConfig` says, and the address that follows from it.

use base64::Engine;
use http::Uri;
use serde_json::Value;

use crate::error::ConfigError;

/// The port of a service or URL that names none.
const HTTPS_PORT: u16 = 443;

/// A webhook's `clientConfig`: where it is and whom to trust there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ClientConfig {
    /// Such as `https://hooks.example.com/deny`.
    pub url: Option<String>,
    /// In place of `url`.
    pub service: Option<ServiceReference>,
    /// PEM certificates; empty: those that the system trusts.
    pub ca_bundle: Vec<u8>,
}

/// A Service of the cluster that a webhook stands behind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ServiceReference {
    pub namespace: String,
    pub name: String,
    pub path: String,
    pub port: u16,
}

impl ClientConfig {
    /// Reads `clientConfig` of a webhook configuration or of a definition's conversion.
    pub fn from_value(tree: &Value) -> ClientConfig {
        let text = |tree: &Value, field: &str| tree[field].as_str().unwrap_or("").to_owned();
        let service = tree.get("service").filter(|service| service.is_object());
        let bundle = base64::engine::general_purpose::STANDARD
            .decode(text(tree, "caBundle"))
            .unwrap_or_default();
        ClientConfig {
            url: tree["url"].as_str().map(str::to_owned),
            service: service.map(|service| ServiceReference {
                namespace: text(service, "namespace"),
                name: text(service, "name"),
                path: text(service, "path"),
                port: service["port"]
                    .as_u64()
                    .and_then(|port| u16::try_from(port).ok())
                    .filter(|port| *port > 0)
                    .unwrap_or(HTTPS_PORT),
            }),
            // White space only is as good as nothing.
            ca_bundle: match bundle.iter().all(u8::is_ascii_whitespace) {
                true => Vec::new(),
                false => bundle,
            },
        }
    }

    pub(crate) fn target(&self) -> Result<Target, ConfigError> {
        match (&self.service, &self.url) {
            (Some(service), _) => Ok(Target::service(service)),
            (None, Some(url)) => Target::url(url),
            (None, None) => Err(ConfigError::NoTarget),
        }
    }
}

/// An address to post to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    /// Without query.
    pub(crate) url: String,
    /// Name in the certificate, and to dial unless there is a service.
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) tls: bool,
    /// Namespace and name, to be resolved when dialing.
    pub(crate) service: Option<(String, String)>,
    /// Whether requests may share a connection at one time. Behind a service they may not, so
    /// that several backends get their share.
    pub(crate) http2: bool,
}

impl Target {
    fn service(service: &ServiceReference) -> Target {
        let host = format!("{}.{}.svc", service.name, service.namespace);
        let path = clean(&service.path);
        Target {
            url: format!("https://{host}:{}{path}", service.port),
            host,
            port: service.port,
            tls: true,
            service: Some((service.namespace.clone(), service.name.clone())),
            http2: false,
        }
    }

    pub(crate) fn url(url: &str) -> Result<Target, ConfigError> {
        let bad = |why: &dyn std::fmt::Display| ConfigError::Url(format!("parse {url:?}: {why}"));
        let uri: Uri = url.parse().map_err(|error| bad(&error))?;
        let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return Err(bad(&"scheme and host are needed"));
        };
        let tls = scheme != "http";
        let host = authority.host().trim_matches(['[', ']']).to_owned();
        let port = authority.port_u16();
        Ok(Target {
            url: format!("{scheme}://{authority}{}", clean(uri.path())),
            port: port.unwrap_or(if tls { HTTPS_PORT } else { 80 }),
            tls,
            service: None,
            http2: tls && is_local(&host),
            host,
        })
    }
}

/// A path with a leading and without a trailing slash.
fn clean(path: &str) -> String {
    format!("/{}", path.trim_matches('/'))
}

fn is_local(host: &str) -> bool {
    let address = host.parse::<std::net::IpAddr>();
    host.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_service_is_named_in_full_and_a_url_is_kept() {
        let config = json!({"service": {"namespace": "ns", "name": "hook", "path": "/deny"},
            "caBundle": "Cgo="});
        let config = ClientConfig::from_value(&config);
        let target = config.target().unwrap();
        assert_eq!(target.url, "https://hook.ns.svc:443/deny");
        assert!(config.ca_bundle.is_empty() && !target.http2);
        let target = |url: &str| {
            ClientConfig::from_value(&json!({ "url": url }))
                .target()
                .unwrap()
        };
        let local = target("https://127.0.0.1:8443/mutate/");
        assert_eq!(local.url, "https://127.0.0.1:8443/mutate");
        assert_eq!((local.port, local.http2), (8443, true));
        let far = target("https://hooks.example.com");
        assert_eq!(far.url, "https://hooks.example.com/");
        assert_eq!((far.port, far.http2), (443, false));
        assert_eq!(ClientConfig::default().target(), Err(ConfigError::NoTarget));
    }
}
