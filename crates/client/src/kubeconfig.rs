//! Reading kubeconfig files: enough to reach one cluster as one user.

use std::path::{Path, PathBuf};

use base64::Engine;
use serde::Deserialize;

/// How to reach an API server, and as whom.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Access {
    /// Such as `https://127.0.0.1:6443`.
    pub server: String,
    /// PEM certificates to trust.
    pub ca: Option<Vec<u8>>,
    /// Do not verify the server's certificate.
    pub insecure: bool,
    /// PEM certificate chain and key of the user.
    pub certificate: Option<(Vec<u8>, Vec<u8>)>,
    pub token: Option<String>,
    /// Namespace of the context, or `default`.
    pub namespace: String,
}

impl std::fmt::Debug for Access {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Access")
            .field("server", &self.server)
            .finish_non_exhaustive()
    }
}

/// A kubeconfig that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KubeconfigError {
    #[error("cannot read kubeconfig {path}")]
    Read {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("kubeconfig {path} is not valid: {message}")]
    Parse { path: PathBuf, message: String },
    #[error("kubeconfig {path} has no {what} named {name:?}")]
    Missing {
        path: PathBuf,
        what: &'static str,
        name: String,
    },
    #[error("kubeconfig {path}: {field} is not valid base64")]
    Base64 { path: PathBuf, field: &'static str },
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "kebab-case", default)]
struct File {
    #[serde(rename = "current-context")]
    current_context: String,
    clusters: Vec<NamedCluster>,
    users: Vec<NamedUser>,
    contexts: Vec<NamedContext>,
}

#[derive(Deserialize)]
struct NamedCluster {
    name: String,
    cluster: Cluster,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "kebab-case", default)]
struct Cluster {
    server: String,
    certificate_authority: Option<PathBuf>,
    certificate_authority_data: Option<String>,
    insecure_skip_tls_verify: bool,
}

#[derive(Deserialize)]
struct NamedUser {
    name: String,
    #[serde(default)]
    user: User,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "kebab-case", default)]
struct User {
    client_certificate: Option<PathBuf>,
    client_certificate_data: Option<String>,
    client_key: Option<PathBuf>,
    client_key_data: Option<String>,
    token: Option<String>,
    #[serde(rename = "tokenFile")]
    token_file: Option<PathBuf>,
}

#[derive(Deserialize)]
struct NamedContext {
    name: String,
    context: Context,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Context {
    cluster: String,
    user: String,
    namespace: Option<String>,
}

/// Reads `path`; `context` overrides the file's current one.
pub fn load(path: &Path, context: Option<&str>) -> Result<Access, KubeconfigError> {
    let read = |path: &Path| {
        std::fs::read(path).map_err(|source| KubeconfigError::Read {
            path: path.to_owned(),
            source,
        })
    };
    let bytes = read(path)?;
    let parse = |message: String| KubeconfigError::Parse {
        path: path.to_owned(),
        message,
    };
    let text = std::str::from_utf8(&bytes).map_err(|error| parse(error.to_string()))?;
    let file: File = serde_saphyr::from_str(text).map_err(|error| parse(error.to_string()))?;
    let wanted = context.unwrap_or(&file.current_context);
    let missing = |what, name: &str| KubeconfigError::Missing {
        path: path.to_owned(),
        what,
        name: name.to_owned(),
    };
    let context = file.contexts.iter().find(|context| context.name == wanted);
    let context = &context.ok_or_else(|| missing("context", wanted))?.context;
    let cluster = file
        .clusters
        .iter()
        .find(|cluster| cluster.name == context.cluster);
    let cluster = &cluster
        .ok_or_else(|| missing("cluster", &context.cluster))?
        .cluster;
    let user = file.users.iter().find(|user| user.name == context.user);
    let user = &user.ok_or_else(|| missing("user", &context.user))?.user;

    // Relative paths are relative to the kubeconfig, as kubectl has it.
    let beside = |file: &Path| path.parent().unwrap_or(Path::new("")).join(file);
    let blob = |data: &Option<String>, file: &Option<PathBuf>, field| match (data, file) {
        (Some(data), _) => base64::engine::general_purpose::STANDARD
            .decode(data)
            .map(Some)
            .map_err(|_| KubeconfigError::Base64 {
                path: path.to_owned(),
                field,
            }),
        (None, Some(file)) => read(&beside(file)).map(Some),
        (None, None) => Ok(None),
    };
    let certificate = blob(
        &user.client_certificate_data,
        &user.client_certificate,
        "client-certificate-data",
    )?;
    let key = blob(&user.client_key_data, &user.client_key, "client-key-data")?;
    let token = match (&user.token, &user.token_file) {
        (Some(token), _) => Some(token.clone()),
        (None, Some(file)) => Some(
            String::from_utf8_lossy(&read(&beside(file))?)
                .trim()
                .to_owned(),
        ),
        (None, None) => None,
    };
    Ok(Access {
        server: cluster.server.trim_end_matches('/').to_owned(),
        ca: blob(
            &cluster.certificate_authority_data,
            &cluster.certificate_authority,
            "certificate-authority-data",
        )?,
        insecure: cluster.insecure_skip_tls_verify,
        certificate: certificate.zip(key),
        token,
        namespace: context
            .namespace
            .clone()
            .unwrap_or_else(|| "default".into()),
    })
}
