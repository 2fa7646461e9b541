//! How registries are spoken to, in the words of k3s' `registries.yaml`: mirrors to ask first, and
//! what each server wants to see.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use regex::Regex;
use serde::Deserialize;

use super::Credentials;
use crate::error::ImageError;
use crate::reference::Reference;

/// Stands for every registry that has no mirrors of its own.
const ANY: &str = "*";
const DOCKER: &str = "docker.io";
/// Where `docker.io` answers.
const DOCKER_HOST: &str = "registry-1.docker.io";
/// Mirrors of one registry.
const MIRRORS_MAX: usize = 16;

/// How registries are spoken to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RegistryOptions {
    /// By registry, or by `*` for all others: who is asked before it.
    pub mirrors: BTreeMap<String, Mirror>,
    /// By host, with its port where that is not TLS' own.
    pub configs: BTreeMap<String, Server>,
    /// Registries (host and port) without TLS, beyond k3s' words. This machine's own are so anyway.
    pub insecure: Vec<String>,
}

/// Mirrors of one registry.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(from = "Written")]
pub struct Mirror {
    /// In the order in which they are asked: `https://host:port/path`, or a host.
    pub endpoint: Vec<String>,
    /// Patterns of repositories, and what they are called there.
    pub rewrite: BTreeMap<String, String>,
}

/// The ways to write a mirror: nothing, one address, or all of it.
#[derive(Deserialize)]
#[serde(untagged)]
enum Written {
    Nothing(()),
    Address(String),
    Whole {
        #[serde(default)]
        endpoint: Vec<String>,
        #[serde(default)]
        rewrite: BTreeMap<String, String>,
    },
}

impl From<Written> for Mirror {
    fn from(written: Written) -> Mirror {
        match written {
            Written::Nothing(()) => Mirror::default(),
            Written::Address(address) => Mirror {
                endpoint: vec![address],
                ..Mirror::default()
            },
            Written::Whole { endpoint, rewrite } => Mirror { endpoint, rewrite },
        }
    }
}

/// One server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Server {
    pub auth: Option<Auth>,
    pub tls: Tls,
}

/// Who we are to a server.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Auth {
    pub username: String,
    pub password: String,
    /// User and password with a colon, in base64.
    pub auth: String,
    pub identity_token: String,
}

impl fmt::Debug for Auth {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Passwords have no business in logs.
        write!(formatter, "Auth({:?}, ..)", self.username)
    }
}

/// Whom we trust, and by which certificate we are known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tls {
    pub ca_file: Option<PathBuf>,
    pub cert_file: Option<PathBuf>,
    pub key_file: Option<PathBuf>,
    pub insecure_skip_verify: bool,
}

/// A server that may have a registry's images.
#[derive(Clone)]
pub(crate) struct Endpoint {
    /// Where its API begins, with the last slash.
    pub(super) top: String,
    pub(super) credentials: Credentials,
    pub(super) tls: Tls,
    /// The registry that it is a mirror of.
    pub(super) mirror_of: Option<String>,
    rewrite: Vec<(Regex, String)>,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.top.trim_end_matches('/'))
    }
}

impl Endpoint {
    /// What a repository is called there.
    pub(super) fn repository(&self, name: &str) -> String {
        let fits = self.rewrite.iter().find(|(from, _)| from.is_match(name));
        fits.map_or_else(
            || name.to_owned(),
            |(from, to)| from.replace(name, to.as_str()).into_owned(),
        )
    }
}

impl RegistryOptions {
    /// Takes what a file says; texts that mean nothing are faults here, not with the first pull.
    pub fn from_tree(tree: serde_json::Value) -> Result<RegistryOptions, ImageError> {
        let fault = |words: String| ImageError::Registry(format!("registries: {words}"));
        if tree.is_null() {
            return Ok(RegistryOptions::default());
        }
        let options: RegistryOptions =
            serde_json::from_value(tree).map_err(|error| fault(error.to_string()))?;
        for (registry, mirror) in &options.mirrors {
            patterns(&mirror.rewrite).map_err(|error| fault(format!("{registry}: {error}")))?;
            if mirror.endpoint.len() > MIRRORS_MAX {
                return Err(fault(format!(
                    "{registry}: more than {MIRRORS_MAX} mirrors"
                )));
            }
        }
        for (host, server) in &options.configs {
            if server
                .auth
                .as_ref()
                .is_some_and(|auth| auth.credentials().is_none())
            {
                return Err(fault(format!(
                    "{host}: auth is not user:password in base64"
                )));
            }
        }
        Ok(options)
    }

    /// Who is asked for an image, one after the other; the registry itself is the last. What the
    /// caller knows of itself is for the registry alone.
    pub(crate) fn endpoints(&self, name: &Reference, credentials: &Credentials) -> Vec<Endpoint> {
        let own = self.own(&name.registry, credentials);
        let mirror = self.mirrors.get(&name.registry);
        let Some(mirror) = mirror.or_else(|| self.mirrors.get(ANY)) else {
            return vec![own];
        };
        let rewrite = patterns(&mirror.rewrite).unwrap_or_default();
        let tops = mirror.endpoint.iter().map(|address| self.top(address));
        let others = tops.filter(|top| *top != own.top).map(|top| Endpoint {
            credentials: self.known_as(host_of(&top)).unwrap_or_default(),
            tls: self.tls_of(host_of(&top)),
            mirror_of: Some(name.registry.clone()),
            rewrite: rewrite.clone(),
            top,
        });
        let mut all: Vec<Endpoint> = others.collect();
        all.push(own);
        all
    }

    /// A registry itself.
    pub(crate) fn own(&self, registry: &str, credentials: &Credentials) -> Endpoint {
        let host = match registry {
            DOCKER => DOCKER_HOST,
            host => host,
        };
        // A registry may be named as its own mirror: so that it is spoken to without TLS.
        let listed = self.mirrors.get(registry).into_iter();
        let mut listed = listed.flat_map(|mirror| &mirror.endpoint);
        let listed = listed
            .find(|address| host_of(&self.top(address)) == host)
            .map_or(host, String::as_str);
        let known = || self.known_as(host).or_else(|| self.known_as(registry));
        let credentials = match *credentials == Credentials::default() {
            true => known().unwrap_or_default(),
            false => credentials.clone(),
        };
        let named = if self.configs.contains_key(host) {
            host
        } else {
            registry
        };
        Endpoint {
            top: self.top(listed),
            tls: self.tls_of(named),
            credentials,
            mirror_of: None,
            rewrite: Vec::new(),
        }
    }

    fn known_as(&self, host: &str) -> Option<Credentials> {
        self.configs.get(host)?.auth.as_ref()?.credentials()
    }

    fn tls_of(&self, host: &str) -> Tls {
        let server = self.configs.get(host);
        server.map(|server| server.tls.clone()).unwrap_or_default()
    }

    /// Where the API of a written address begins.
    fn top(&self, address: &str) -> String {
        let with_scheme = match address.contains("://") {
            true => address.to_owned(),
            false if self.is_plain(address) => format!("http://{address}"),
            false => format!("https://{address}"),
        };
        let trimmed = with_scheme.trim_end_matches('/');
        let path = trimmed.split_once("://").map_or("", |(_, rest)| rest);
        match path.contains('/') {
            true => format!("{trimmed}/"),
            false => format!("{trimmed}/v2/"),
        }
    }

    /// Whether a registry is spoken to without TLS.
    pub fn is_plain(&self, host: &str) -> bool {
        let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
        let local = name == "localhost" || name == "[::1]" || name.starts_with("127.");
        local || self.insecure.iter().any(|known| known == host)
    }
}

impl Auth {
    fn credentials(&self) -> Option<Credentials> {
        let (mut username, mut password) = (self.username.clone(), self.password.clone());
        if !self.auth.is_empty() {
            let decoded = BASE64.decode(self.auth.trim()).ok()?;
            let decoded = String::from_utf8(decoded).ok()?;
            let (user, word) = decoded.split_once(':')?;
            (username, password) = (user.to_owned(), word.trim_end_matches('\0').to_owned());
        }
        Some(Credentials {
            username,
            password,
            identity_token: self.identity_token.clone(),
            ..Credentials::default()
        })
    }
}

fn host_of(top: &str) -> &str {
    let rest = top.split_once("://").map_or(top, |(_, rest)| rest);
    rest.split('/').next().unwrap_or_default()
}

fn patterns(rewrite: &BTreeMap<String, String>) -> Result<Vec<(Regex, String)>, regex::Error> {
    let compile = |(from, to): (&String, &String)| Ok((Regex::new(from)?, to.clone()));
    rewrite.iter().map(compile).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn tops(options: &RegistryOptions, name: &str) -> Vec<String> {
        let all = options.endpoints(&name.parse().unwrap(), &Credentials::default());
        all.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn only_local_and_named_registries_are_plain() {
        let options = RegistryOptions {
            insecure: vec!["reg.lan:5000".to_owned()],
            ..Default::default()
        };
        for plain in ["127.0.0.1:5000", "localhost", "reg.lan:5000"] {
            assert!(options.is_plain(plain), "{plain}");
        }
        assert!(!options.is_plain("reg.lan") && !options.is_plain("localhost.evil.org"));
    }

    #[test]
    fn mirrors_come_before_their_registry() {
        let options = RegistryOptions::from_tree(json!({
            "mirrors": {
                "docker.io": {"endpoint": ["https://one.lan:5000", "http://two.lan/v2/proxy"],
                    "rewrite": {"^library/(.*)": "hub/$1"}},
                "plain.lan": {"endpoint": ["http://plain.lan"]},
                "short.lan": "localhost:5000", "quiet.lan": null, "*": {"endpoint": ["any.lan"]},
            },
            "configs": {"one.lan:5000": {"auth": {"auth": "bWU6c2VjcmV0"},
                "tls": {"insecure_skip_verify": true}},
                "docker.io": {"auth": {"username": "hub", "password": "pass"}}},
        }))
        .unwrap();
        let docker = [
            "https://one.lan:5000/v2",
            "http://two.lan/v2/proxy",
            "https://registry-1.docker.io/v2",
        ];
        assert_eq!(tops(&options, "busybox"), docker);
        assert_eq!(tops(&options, "plain.lan/a"), ["http://plain.lan/v2"]);
        assert_eq!(
            tops(&options, "short.lan/a"),
            ["http://localhost:5000/v2", "https://short.lan/v2"]
        );
        assert_eq!(tops(&options, "quiet.lan/a"), ["https://quiet.lan/v2"]);
        assert_eq!(
            tops(&options, "other.lan/a"),
            ["https://any.lan/v2", "https://other.lan/v2"]
        );
        let own = Credentials {
            username: "mine".into(),
            ..Credentials::default()
        };
        let all = options.endpoints(&"busybox".parse().unwrap(), &own);
        let users: Vec<_> = all
            .iter()
            .map(|one| one.credentials.username.as_str())
            .collect();
        assert_eq!(
            users,
            ["me", "", "mine"],
            "a caller's password is for the registry only"
        );
        assert_eq!(all[0].repository("library/busybox"), "hub/busybox");
        assert_eq!(all[0].repository("team/app"), "team/app");
        assert_eq!(all[2].repository("library/busybox"), "library/busybox");
        assert!(all[0].tls.insecure_skip_verify && !all[2].tls.insecure_skip_verify);
        let known = options.own("docker.io", &Credentials::default());
        assert_eq!(known.credentials.password, "pass");
        assert!(!format!("{options:?}").contains("pass\""));
    }

    #[test]
    fn what_means_nothing_is_refused() {
        for wrong in [
            json!({"mirors": {}}),
            json!({"mirrors": {"a": {"endpoint": [], "rewrite": {"(": ""}}}}),
            json!({"configs": {"a": {"auth": {"auth": "!"}}}}),
            json!({"configs": {"a": {"tls": {"cafile": "x"}}}}),
        ] {
            assert!(
                RegistryOptions::from_tree(wrong.clone()).is_err(),
                "{wrong}"
            );
        }
        let nothing = RegistryOptions::from_tree(serde_json::Value::Null).unwrap();
        assert_eq!(nothing, RegistryOptions::default());
    }
}
