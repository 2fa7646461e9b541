//! Runs a provider: the request goes to its input, the answer comes from its output.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use base::metrics::{Counters, Histograms};
use node_api::AuthConfig;
use node_config::{CredentialProvider, GoDuration};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;
use tokio::time::Instant;

use super::Known;

/// A program has so long to answer.
const TIMEOUT: Duration = Duration::from_secs(60);
/// Bytes of an answer.
const ANSWER_BYTES_MAX: u64 = 1 << 20;
/// Bytes of what a program says of its fault.
const WORDS_BYTES_MAX: u64 = 4 << 10;

static DURATION: Histograms = Histograms::new(
    "kubelet_credential_provider_plugin_duration",
    "Duration of execution in seconds for credential provider plugin",
    &["plugin_name"],
    &[
        0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
    ],
);
static ERRORS: Counters = Counters::new(
    "kubelet_credential_provider_plugin_errors_total",
    "Number of errors from credential provider plugin",
    &["plugin_name"],
);

/// What a program is asked.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Request {
    pub(super) image: String,
    /// Empty: none.
    pub(super) token: String,
    pub(super) annotations: BTreeMap<String, String>,
}

/// What it says.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) cache_key_type: CacheKeyType,
    pub(super) cache_duration: Option<GoDuration>,
    /// By server.
    pub(super) auth: Known,
}

/// For what else an answer holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CacheKeyType {
    Image,
    Registry,
    Global,
}

/// A program and how it is run.
pub(super) struct Program {
    name: String,
    path: PathBuf,
    args: Vec<String>,
    env: Vec<(String, String)>,
    api_version: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Response {
    #[serde(rename = "apiVersion")]
    _version: String,
    #[serde(rename = "kind")]
    _kind: String,
    #[serde(default)]
    cache_key_type: String,
    cache_duration: Option<GoDuration>,
    auth: Option<BTreeMap<String, User>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct User {
    username: String,
    password: String,
}

impl Program {
    pub(super) fn new(folder: &Path, settings: &CredentialProvider) -> Program {
        Program {
            name: settings.name.clone(),
            path: folder.join(&settings.name),
            args: settings.args.clone(),
            env: settings.env.clone(),
            api_version: settings.api_version.clone(),
        }
    }

    /// Runs the program. Who drops this ends it.
    pub(super) async fn ask(&self, request: &Request) -> Result<Answer, String> {
        let began = Instant::now();
        let output = match tokio::time::timeout(TIMEOUT, self.run(request)).await {
            Ok(output) => output,
            Err(_) => Err("context deadline exceeded: ".into()),
        };
        DURATION.observe_time(&[&self.name], began.elapsed());
        let output = output.map_err(|why| {
            ERRORS.add(&[&self.name], 1);
            let (name, image) = (&self.name, &request.image);
            format!("error execing credential provider plugin {name} for image {image}: {why}")
        })?;
        self.read(&output)
    }

    async fn run(&self, request: &Request) -> Result<Vec<u8>, String> {
        let mut command = Command::new(&self.path);
        command
            .args(&self.args)
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let words = |error: std::io::Error| format!("{error}: ");
        let mut child = command.spawn().map_err(words)?;
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        let stderr = child.stderr.take();
        let question = self.question(request);
        let tell = async move {
            if let Some(mut stdin) = stdin
                && let Err(error) = stdin.write_all(&question).await
            {
                // It need not read what it does not want to know.
                tracing::debug!(%error, "request not read");
            }
        };
        let (answer, fault, ()) = tokio::join!(
            read_some(stdout, ANSWER_BYTES_MAX),
            read_some(stderr, WORDS_BYTES_MAX),
            tell
        );
        let status = child.wait().await.map_err(words)?;
        let (answer, is_whole) = answer.map_err(words)?;
        let (fault, _) = fault.map_err(words)?;
        let fault = String::from_utf8_lossy(&fault);
        match (status.success(), is_whole) {
            (true, true) => Ok(answer),
            (true, false) => Err(format!(
                "answer of more than {ANSWER_BYTES_MAX} bytes: {fault}"
            )),
            (false, _) => Err(match status.code() {
                Some(code) => format!("exit status {code}: {fault}"),
                None => format!("{status}: {fault}"),
            }),
        }
    }

    fn question(&self, request: &Request) -> Vec<u8> {
        let mut tree = json!({
            "kind": "CredentialProviderRequest", "apiVersion": self.api_version,
            "image": request.image,
        });
        if !request.token.is_empty() {
            tree["serviceAccountToken"] = json!(request.token);
        }
        if !request.annotations.is_empty() {
            tree["serviceAccountAnnotations"] = json!(request.annotations);
        }
        let mut text = tree.to_string();
        text.push('\n');
        text.into_bytes()
    }

    /// What an output says. Errors do not show it: there may be passwords in it.
    fn read(&self, output: &[u8]) -> Result<Answer, String> {
        let tree: Value = serde_json::from_slice(output).map_err(|_| {
            "error reading GVK from response: couldn't get version/kind; json parse error"
                .to_owned()
        })?;
        let said = |name: &str| tree.get(name).and_then(Value::as_str).unwrap_or_default();
        let (version, wanted) = (said("apiVersion"), &self.api_version);
        if version != wanted {
            return Err(format!(
                "apiVersion from credential plugin response did not match expected \
                 apiVersion:{wanted}, actual apiVersion:{version}"
            ));
        }
        let decoding =
            || "error decoding credential provider plugin response from stdout".to_owned();
        if said("kind") != "CredentialProviderResponse" {
            return Err(decoding());
        }
        let response = Response::deserialize(tree).map_err(|_| decoding())?;
        let cache_key_type = match response.cache_key_type.as_str() {
            "Image" => CacheKeyType::Image,
            "Registry" => CacheKeyType::Registry,
            "Global" => CacheKeyType::Global,
            other => {
                return Err(format!(
                    "credential provider plugin did not return a valid cacheKeyType: {other}"
                ));
            }
        };
        let users = response.auth.unwrap_or_default().into_iter();
        let users = users.map(|(server, user)| {
            let auth = AuthConfig {
                username: user.username,
                password: user.password,
                ..AuthConfig::default()
            };
            (server, auth)
        });
        Ok(Answer {
            cache_key_type,
            cache_duration: response.cache_duration,
            auth: Arc::new(users.collect()),
        })
    }
}

/// The beginning of a stream, and whether that was all; the rest is read and forgotten, so that the
/// program can end.
async fn read_some(
    stream: Option<impl AsyncRead + Unpin>,
    bytes_max: u64,
) -> std::io::Result<(Vec<u8>, bool)> {
    let mut bytes = Vec::new();
    let Some(mut stream) = stream else {
        return Ok((bytes, true));
    };
    (&mut stream)
        .take(bytes_max)
        .read_to_end(&mut bytes)
        .await?;
    let rest = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await?;
    Ok((bytes, rest == 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_strictly() {
        let program = Program {
            name: "p".into(),
            path: PathBuf::new(),
            args: Vec::new(),
            env: Vec::new(),
            api_version: "credentialprovider.kubelet.k8s.io/v1".into(),
        };
        let whole = r#"{"kind":"CredentialProviderResponse","apiVersion":"credentialprovider.kubelet.k8s.io/v1","cacheKeyType":"Registry","cacheDuration":"5m","auth":{"a.io":{"username":"u","password":"p"}}}"#;
        let answer = program.read(whole.as_bytes()).unwrap();
        assert_eq!(answer.cache_key_type, CacheKeyType::Registry);
        assert_eq!(answer.cache_duration.unwrap().nanos, 300_000_000_000);
        assert_eq!(answer.auth["a.io"].password, "p");
        for (change, why) in [
            (
                ("io/v1", "io/v1beta1"),
                "did not match expected apiVersion:cred",
            ),
            (
                ("Response", "Request"),
                "error decoding credential provider plugin response",
            ),
            (
                ("auth", "auths"),
                "error decoding credential provider plugin response",
            ),
            (
                ("5m", "5"),
                "error decoding credential provider plugin response",
            ),
            (
                ("Registry", "Host"),
                "did not return a valid cacheKeyType: Host",
            ),
            (("{\"kind", "kind"), "error reading GVK from response"),
        ] {
            let fault = program.read(whole.replace(change.0, change.1).as_bytes());
            let fault = fault.unwrap_err();
            assert!(fault.contains(why) && !fault.contains("\"p\""), "{fault}");
        }
    }
}
