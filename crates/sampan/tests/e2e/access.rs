//! The API server alone, started with flags about who is let in, who may do what, what is kept
//! secret and what is recorded: each flag is proven by what the server does.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use auth::token::Ref;
use auth::{Pki, TokenSigner, TokenSpec};
use client::{Access, Client};
use http::Method;
use serde_json::{Value, json};

use crate::cluster::PATIENCE;

#[path = "../../../auth/tests/it/server.rs"]
mod server;

use server::Server;

const WHO: &str = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
const SECRETS: &str = "/api/v1/namespaces/default/secrets";
const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";
/// What must not be found in the store, and what shows that one looks in the right place.
const SECRET: &str = "a-secret-that-nobody-may-read";
const PLAIN: &str = "a-setting-that-everybody-may-read";

/// An API server process, and the files that its flags name.
struct Process {
    folder: tempfile::TempDir,
    child: Child,
    port: u16,
    /// By whom the serving certificate is signed, if not by the cluster's authority.
    ca: Option<String>,
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _killed = self.child.kill();
        self.child.wait().unwrap();
    }
}

fn write(folder: &Path, name: &str, text: &str) -> String {
    let path = folder.join(name);
    // Whole or not at all: the server may be looking.
    let new = folder.join(format!("{name}.new"));
    std::fs::write(&new, text).unwrap();
    std::fs::rename(new, &path).unwrap();
    path.display().to_string()
}

impl Process {
    async fn start(folder: tempfile::TempDir, flags: &[String], ca: Option<String>) -> Process {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let log = std::fs::File::create(folder.path().join("server.log")).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_sampan"))
            .args(["server", "--role", "apiserver", "--node-name", "node-1"])
            .args(["--https-listen-port", &port.to_string()])
            .arg("--data-dir")
            .arg(folder.path().join("data"))
            .args(flags)
            .env_remove("KUBECONFIG")
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let process = Process {
            folder,
            child,
            port,
            ca,
        };
        process
            .until("a ready server", async || {
                let admin = process.admin()?;
                page(&admin, "/readyz").await.ok()
            })
            .await;
        process
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn write(&self, name: &str, text: &str) -> String {
        write(self.folder.path(), name, text)
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("server.log")).unwrap_or_default()
    }

    /// Looks again and again until there is something.
    async fn until<T>(&self, what: &str, look: impl AsyncFn() -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(found) = look().await {
                return found;
            }
            assert!(
                Instant::now() < deadline,
                "waited in vain for {what}\n{}",
                self.log()
            );
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    }

    fn access(&self) -> Option<Access> {
        let config = self.data().join("admin.kubeconfig");
        let mut access = client::kubeconfig::load(&config, None).ok()?;
        if let Some(ca) = &self.ca {
            access.ca = Some(ca.clone().into_bytes());
        }
        Some(access)
    }

    fn admin(&self) -> Option<Client> {
        Client::remote(&self.access()?).ok()
    }

    fn bearer(&self, token: &str) -> Client {
        let access = Access {
            certificate: None,
            token: Some(token.to_owned()),
            ..self.access().unwrap()
        };
        Client::remote(&access).unwrap()
    }

    /// Whom the server takes the bearer of a token for.
    async fn who(&self, token: &str) -> Result<Value, u16> {
        let client = self.bearer(token);
        let answer = client.send_value(Method::POST, WHO, &json!({})).await;
        let answer = answer.map_err(|status| status.code)?;
        Ok(answer["status"]["userInfo"].clone())
    }

    async fn metric(&self, name: &str, label: &str) -> String {
        let text = page(&self.admin().unwrap(), "/metrics").await.unwrap();
        let line = text
            .lines()
            .find(|line| line.starts_with(name) && line.contains(label));
        let value = line.and_then(|line| line.rsplit(' ').next());
        value.unwrap_or_default().to_owned()
    }
}

async fn page(client: &Client, path: &str) -> Result<String, u16> {
    let request = client::request::request(Method::GET, path, None, client::empty()).unwrap();
    let answer = client.bytes(request).await;
    let bytes = answer.map_err(|status| status.code)?;
    Ok(String::from_utf8(bytes.to_vec()).unwrap())
}

/// An issuer of tokens: a server with its documents, and the key that signs.
struct Issuer {
    server: Server,
    signer: TokenSigner,
}

impl Issuer {
    async fn start() -> Issuer {
        let documents = Arc::new(Mutex::new((Value::Null, Value::Null)));
        let shown = Arc::clone(&documents);
        let server = Server::start(Arc::new(move |path, _| {
            let (discovery, keys) = shown.lock().unwrap().clone();
            match path {
                "/.well-known/openid-configuration" => (200, discovery),
                "/keys" => (200, keys),
                _ => (404, Value::Null),
            }
        }))
        .await;
        let key = auth::certificate::new_key().unwrap();
        let signer = TokenSigner::new(&key, &server.url).unwrap();
        let signer = signer.keys_at(Some(format!("{}/keys", server.url)));
        let discovery = signer.discovery("").unwrap();
        *documents.lock().unwrap() = (discovery, signer.key_set());
        Issuer { server, signer }
    }

    /// A token whose subject is `system:serviceaccount:<namespace>:<name>`.
    fn token(&self, namespace: &str, name: &str, audience: &str) -> String {
        let spec = TokenSpec {
            namespace: namespace.into(),
            service_account: Ref {
                name: name.into(),
                uid: "7".into(),
            },
            audiences: vec![audience.into()],
            expiration_seconds: 600,
            bound: None,
        };
        self.signer.sign(&spec, jiff::Timestamp::now()).unwrap().0
    }
}

const ENCRYPTION: &str = "
apiVersion: apiserver.config.k8s.io/v1
kind: EncryptionConfiguration
resources:
- resources: [secrets]
  providers:
  - aescbc: {keys: [{name: one, secret: MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=}]}
  - identity: {}
";
const AUDIT: &str = "
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- {level: Metadata, users: [static-jane], resources: [{resources: [configmaps]}]}
- {level: None}
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flags_say_who_is_let_in() {
    let folder = tempfile::tempdir().unwrap();
    let issuer = Issuer::start().await;
    let webhook = Server::start(Arc::new(|_, body| {
        let mut review: Value = serde_json::from_str(body).unwrap();
        review["status"] = match review["spec"]["token"].as_str() {
            Some("asked-elsewhere") => {
                json!({"authenticated": true, "user": {"username": "hook-jane"}})
            }
            _ => json!({"authenticated": false}),
        };
        (200, review)
    }))
    .await;
    let file = |name: &str, text: &str| write(folder.path(), name, text);
    let hook_ca = file("hook-ca.crt", &webhook.ca);
    let kubeconfig = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: a\n\
         clusters: [{{name: a, cluster: {{server: '{}/t', certificate-authority: {hook_ca}}}}}]\n\
         contexts: [{{name: a, context: {{cluster: a, user: a}}}}]\nusers: [{{name: a, user: {{}}}}]\n",
        webhook.url
    );
    let old_key = auth::certificate::new_key().unwrap();
    let new_key = auth::certificate::new_key().unwrap();
    let flags = [
        ("oidc-issuer-url", issuer.server.url.clone()),
        ("oidc-client-id", "kubernetes".into()),
        ("oidc-ca-file", file("oidc-ca.crt", &issuer.server.ca)),
        ("oidc-username-prefix", "oidc:".into()),
        ("oidc-signing-algs", "ES256".into()),
        (
            "authentication-token-webhook-config-file",
            file("hook.yaml", &kubeconfig),
        ),
        ("authentication-token-webhook-version", "v1".into()),
        (
            "token-auth-file",
            file("tokens.csv", "first,static-jane,7,\"dev,ops\"\n"),
        ),
        ("authorization-mode", "Node,RBAC,ABAC".into()),
        (
            "authorization-policy-file",
            file(
                "abac.jsonl",
                r#"{"apiVersion": "abac.authorization.kubernetes.io/v1beta1", "kind": "Policy", "spec": {"user": "static-jane", "namespace": "default", "resource": "configmaps", "apiGroup": "*"}}"#,
            ),
        ),
        (
            "encryption-provider-config",
            file("encryption.yaml", ENCRYPTION),
        ),
        ("audit-policy-file", file("audit.yaml", AUDIT)),
        (
            "audit-log-path",
            folder.path().join("audit.log").display().to_string(),
        ),
        ("audit-log-mode", "batch".into()),
        ("service-account-issuer", "https://new.example.com".into()),
        ("service-account-issuer", "https://old.example.com".into()),
        ("api-audiences", "api,https://new.example.com".into()),
        (
            "service-account-signing-key-file",
            file("new.key", &new_key),
        ),
        ("service-account-key-file", file("new.pub", &new_key)),
        ("service-account-key-file", file("old.pub", &old_key)),
        ("requestheader-username-headers", "X-Own-User".into()),
        ("tls-min-version", "VersionTLS13".into()),
        ("shutdown-delay-duration", "4s".into()),
    ];
    let flags: Vec<String> = flags
        .into_iter()
        .map(|(name, value)| format!("--{name}={value}"))
        .collect();
    let mut process = Process::start(folder, &flags, None).await;
    authentication(&process, &issuer).await;
    own_tokens(&process, &old_key).await;
    authorization_and_audit(&process).await;
    ciphertext(&process).await;
    farewell(&mut process).await;
}

async fn authentication(process: &Process, issuer: &Issuer) {
    let admin = process.admin().unwrap();
    let token = issuer.token("dev", "jane", "kubernetes");
    let jane = process.who(&token).await.unwrap();
    assert_eq!(jane["username"], "oidc:system:serviceaccount:dev:jane");
    let stray = issuer.token("dev", "jane", "elsewhere");
    assert_eq!(process.who(&stray).await, Err(401));
    let asked = process.who("asked-elsewhere").await.unwrap();
    assert_eq!(asked["username"], "hook-jane");
    let known = process.who("first").await.unwrap();
    assert_eq!(
        known,
        json!({"username": "static-jane", "uid": "7",
            "groups": ["dev", "ops", "system:authenticated"]})
    );
    // The file may change; what is wrong with it leaves things as they were.
    process.write("tokens.csv", "second,static-jane,7\n");
    process
        .until("the new token", async || process.who("second").await.ok())
        .await;
    assert_eq!(process.who("first").await, Err(401));
    let secret = json!({"metadata": {"name": "bootstrap-token-abcdef"},
        "type": "bootstrap.kubernetes.io/token",
        "stringData": {"token-id": "abcdef", "token-secret": "0123456789abcdef",
            "usage-bootstrap-authentication": "true"}});
    let path = "/api/v1/namespaces/kube-system/secrets";
    admin.send_value(Method::POST, path, &secret).await.unwrap();
    let node = process.who("abcdef.0123456789abcdef").await.unwrap();
    assert_eq!(node["username"], "system:bootstrap:abcdef");
    assert_eq!(process.who("abcdef.fedcba9876543210").await, Err(401));
    let path = "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication";
    let told = admin.get_value(path).await.unwrap();
    assert_eq!(
        told["data"]["requestheader-username-headers"],
        "[\"X-Own-User\"]"
    );
}

/// Tokens of service accounts: two issuers, two keys, audiences of our own.
async fn own_tokens(process: &Process, old_key: &str) {
    let admin = process.admin().unwrap();
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    let account = json!({"metadata": {"name": "robot"}});
    let account = admin.send_value(Method::POST, accounts, &account).await;
    let account = account.unwrap();
    let path = format!("{accounts}/robot/token");
    let answer = admin.send_value(Method::POST, &path, &json!({})).await;
    let answer = answer.unwrap();
    assert_eq!(
        answer["spec"]["audiences"],
        json!(["api", "https://new.example.com"])
    );
    let token = answer["status"]["token"].as_str().unwrap();
    let robot = process.who(token).await.unwrap();
    assert_eq!(robot["username"], "system:serviceaccount:default:robot");
    // What the old issuer has signed with the old key still counts.
    let old = TokenSigner::new(old_key, "https://old.example.com").unwrap();
    let spec = |audience: &str| TokenSpec {
        namespace: "default".into(),
        service_account: Ref {
            name: "robot".into(),
            uid: account["metadata"]["uid"].as_str().unwrap().into(),
        },
        audiences: vec![audience.into()],
        expiration_seconds: 600,
        bound: None,
    };
    let now = jiff::Timestamp::now();
    let (good, _) = old.sign(&spec("api"), now).unwrap();
    assert!(process.who(&good).await.is_ok());
    let (stray, _) = old.sign(&spec("https://old.example.com"), now).unwrap();
    assert_eq!(process.who(&stray).await, Err(401));
    let keys = admin.get_value("/openid/v1/jwks").await.unwrap();
    assert_eq!(keys["keys"].as_array().unwrap().len(), 2);
    let document = admin.get_value("/.well-known/openid-configuration").await;
    assert_eq!(document.unwrap()["issuer"], "https://new.example.com");
}

async fn authorization_and_audit(process: &Process) {
    let jane = process.bearer("second");
    assert!(jane.get_value(CONFIG_MAPS).await.is_ok());
    assert_eq!(jane.get_value(SECRETS).await.unwrap_err().code, 403);
    let path = process.folder.path().join("audit.log");
    let line = process
        .until("an audit event", async || {
            let text = std::fs::read_to_string(&path).ok()?;
            text.lines().next().map(str::to_owned)
        })
        .await;
    let event: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(event["verb"], "list");
    assert_eq!(event["user"]["username"], "static-jane");
    assert_eq!(event["responseStatus"]["code"], 200);
}

/// The bytes of the store: a ConfigMap is found in them, a Secret is not.
async fn ciphertext(process: &Process) {
    let admin = process.admin().unwrap();
    let secret = json!({"metadata": {"name": "s"}, "stringData": {"key": SECRET}});
    let plain = json!({"metadata": {"name": "p"}, "data": {"key": PLAIN}});
    admin
        .send_value(Method::POST, SECRETS, &secret)
        .await
        .unwrap();
    admin
        .send_value(Method::POST, CONFIG_MAPS, &plain)
        .await
        .unwrap();
    let mut bytes = Vec::new();
    let mut folders = vec![process.data().join("store")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => folders.push(path),
                false => bytes.extend(std::fs::read(path).unwrap()),
            }
        }
    }
    let holds = |text: &str| {
        use base64::Engine;
        let coded = base64::engine::general_purpose::STANDARD.encode(text);
        let forms = [text.as_bytes(), coded.as_bytes()];
        forms
            .iter()
            .any(|form| bytes.windows(form.len()).any(|window| window == *form))
    };
    assert!(holds(PLAIN) && holds("k8s:enc:aescbc:v1:one:"));
    assert!(!holds(SECRET));
}

/// Told to end, the server is not ready at once, and serves on for a while.
async fn farewell(process: &mut Process) {
    let admin = process.admin().unwrap();
    let pid = nix::unistd::Pid::from_raw(i32::try_from(process.child.id()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::SIGTERM).unwrap();
    let mut refused = false;
    while !refused {
        // Between the signal and the end of the delay there is time for this.
        refused = page(&admin, "/readyz").await == Err(500);
        assert_eq!(page(&admin, "/livez").await.as_deref(), Ok("ok"));
    }
    let status = tokio::task::block_in_place(|| process.child.wait()).unwrap();
    assert!(status.success(), "{}", process.log());
}

fn authentication_config(issuer: &Issuer, prefix: &str) -> String {
    json!({"apiVersion": "apiserver.config.k8s.io/v1", "kind": "AuthenticationConfiguration",
        "jwt": [{
            "issuer": {"url": issuer.server.url, "audiences": ["kubernetes"],
                "certificateAuthority": issuer.server.ca},
            "claimValidationRules": [{
                "expression": "claims.sub.startsWith('system:serviceaccount:dev:')",
                "message": "only developers"}],
            "claimMappings": {
                "username": {"expression":
                    format!("'{prefix}:' + claims['kubernetes.io'].serviceaccount.name")},
                "groups": {"expression": "[claims['kubernetes.io'].namespace]"},
                "extra": [{"key": "example.com/audience", "valueExpression": "claims.aud"}]},
            "userValidationRules": [{"expression": "!user.username.startsWith('system:')",
                "message": "no system users"}]}]})
    .to_string()
}

fn authorization_config(types: &[&str]) -> String {
    let one = |kind: &&str| json!({"type": kind, "name": kind.to_lowercase()});
    json!({"apiVersion": "apiserver.config.k8s.io/v1", "kind": "AuthorizationConfiguration",
        "authorizers": types.iter().map(one).collect::<Vec<_>>()})
    .to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_say_who_is_let_in_and_may_change() {
    let folder = tempfile::tempdir().unwrap();
    let issuer = Issuer::start().await;
    // Certificates of an authority of our own, for serving and for clients.
    let theirs = tempfile::tempdir().unwrap();
    let theirs = Pki::open(theirs.path(), &[]).unwrap();
    let serving = |name: &str| {
        let hosts = ["127.0.0.1".to_owned(), name.to_owned()];
        theirs.issue_serving(name, &[], &hosts).unwrap()
    };
    let first = serving("first");
    let file = |name: &str, text: &str| write(folder.path(), name, text);
    let flags = [
        (
            "authentication-config",
            file("authn.json", &authentication_config(&issuer, "old")),
        ),
        (
            "authorization-config",
            file("authz.json", &authorization_config(&["Node", "RBAC"])),
        ),
        ("tls-cert-file", file("tls.crt", &first.cert_pem)),
        ("tls-private-key-file", file("tls.key", &first.key_pem)),
        ("client-ca-file", file("clients.crt", "")),
        ("audit-log-format", "json".into()),
    ];
    let flags: Vec<String> = flags
        .into_iter()
        .map(|(name, value)| format!("--{name}={value}"))
        .collect();
    let process = Process::start(folder, &flags, Some(theirs.ca_pem().to_owned())).await;
    structured(&process, &issuer).await;
    reloaded(&process, &issuer).await;
    certificates(&process, &theirs, &serving("second")).await;
}

async fn structured(process: &Process, issuer: &Issuer) {
    let token = issuer.token("dev", "jane", "kubernetes");
    let jane = process.who(&token).await.unwrap();
    assert_eq!(jane["username"], "old:jane");
    assert_eq!(jane["groups"], json!(["dev", "system:authenticated"]));
    assert_eq!(jane["extra"]["example.com/audience"], json!(["kubernetes"]));
    let other = issuer.token("prod", "jane", "kubernetes");
    assert_eq!(process.who(&other).await, Err(401));
}

async fn reloaded(process: &Process, issuer: &Issuer) {
    let token = issuer.token("dev", "jane", "kubernetes");
    let reloads =
        |part: &str| format!("apiserver_{part}_config_controller_automatic_reloads_total");
    let (authn, authz) = (reloads("authentication"), reloads("authorization"));
    process.write("authn.json", "{\"kind\": \"nonsense\"}");
    process
        .until("a refused file", async || {
            let count = process.metric(&authn, "status=\"failure\"").await;
            (count == "1").then_some(())
        })
        .await;
    assert_eq!(process.who(&token).await.unwrap()["username"], "old:jane");
    process.write("authn.json", &authentication_config(issuer, "new"));
    process
        .until("the new mapping", async || {
            let jane = process.who(&token).await.ok()?;
            (jane["username"] == "new:jane").then_some(())
        })
        .await;
    let jane = process.bearer(&token);
    assert_eq!(jane.get_value(CONFIG_MAPS).await.unwrap_err().code, 403);
    process.write("authz.json", &authorization_config(&["RBAC", "RBAC"]));
    process
        .until("a refused file", async || {
            let count = process.metric(&authz, "status=\"failure\"").await;
            (count == "1").then_some(())
        })
        .await;
    assert_eq!(jane.get_value(CONFIG_MAPS).await.unwrap_err().code, 403);
    process.write(
        "authz.json",
        &authorization_config(&["RBAC", "AlwaysAllow"]),
    );
    process
        .until("the new order", async || {
            jane.get_value(CONFIG_MAPS).await.ok()
        })
        .await;
    assert_eq!(process.metric(&authz, "status=\"success\"").await, "1");
}

/// The serving certificate and the authority of clients change while connections are open.
async fn certificates(process: &Process, theirs: &Pki, second: &auth::certificate::Pair) {
    let pair = theirs.issue_client("visitor", &["guests"]).unwrap();
    let visitor = Access {
        certificate: Some((pair.cert_pem.into_bytes(), pair.key_pem.into_bytes())),
        ..process.access().unwrap()
    };
    let visitor = Client::remote(&visitor).unwrap();
    let who = async || visitor.send_value(Method::POST, WHO, &json!({})).await;
    assert_eq!(who().await.unwrap_err().code, 401);
    process.write("clients.crt", theirs.ca_pem());
    let user = process
        .until("the new authority", async || who().await.ok())
        .await;
    assert_eq!(user["status"]["userInfo"]["username"], "visitor");
    // Servers behind this one are told.
    let path = "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication";
    let admin = process.admin().unwrap();
    process
        .until("the published authority", async || {
            let told = admin.get_value(path).await.ok()?;
            let told = told["data"]["client-ca-file"].as_str()?.to_owned();
            told.contains(theirs.ca_pem().trim()).then_some(())
        })
        .await;
    process.write("tls.crt", &second.cert_pem);
    process.write("tls.key", &second.key_pem);
    let wanted = auth::tls::certificates(&second.cert_pem).unwrap();
    process
        .until("the new certificate", async || {
            let shown = shown(process.port, theirs.ca_pem()).await?;
            (shown == wanted.first()?.as_ref()).then_some(())
        })
        .await;
}

/// The certificate that the server shows now.
async fn shown(port: u16, ca: &str) -> Option<Vec<u8>> {
    let access = Access {
        ca: Some(ca.as_bytes().to_vec()),
        ..Access::default()
    };
    let tls = client::remote::tls_config(&access).unwrap();
    let stream = tokio::net::TcpStream::connect(("127.0.0.1", port))
        .await
        .ok()?;
    let name = rustls::pki_types::ServerName::try_from("127.0.0.1").unwrap();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(tls));
    let stream = connector.connect(name, stream).await.ok()?;
    let chain = stream.get_ref().1.peer_certificates()?;
    Some(chain.first()?.to_vec())
}
