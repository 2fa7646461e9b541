//! Images that go to registries, and who may send them.

use base64::Engine as _;
use serde_json::{Value, json};

use crate::host::Host;
use crate::registry::Registry;

fn header(password: &str) -> String {
    let auth = json!({"username": "user", "password": password}).to_string();
    base64::engine::general_purpose::URL_SAFE.encode(auth)
}

fn push(host: &Host, name: &str, password: &str) -> String {
    let path = format!("/images/{name}/push");
    let auth = format!("X-Registry-Auth: {}", header(password));
    host.send_with("POST", &path, &auth, b"").text()
}

#[test]
fn images_are_pushed_and_pulled_back() {
    let host = Host::new();
    let registry = Registry::start(&host.network_namespace());
    let at = format!("127.0.0.1:{}", registry.port);
    for repo in ["one", "two"] {
        let path = format!("/images/busybox/tag?repo={at}/team/{repo}&tag=v1");
        assert_eq!(host.post(&path, &Value::Null).status, 201);
    }
    let refused = push(&host, &format!("{at}/team/one:v1"), "wrong");
    assert!(refused.contains("\"error\":"), "{refused}");
    // The connection breaks after the first piece: the upload goes on where it was.
    registry.content.lock().unwrap().break_piece = true;
    let pushed = push(&host, &format!("{at}/team/one:v1"), "secret");
    assert!(pushed.contains("\"Pushed\""), "{pushed}");
    assert!(pushed.contains("v1: digest: sha256:") && pushed.contains("\"aux\":{"));
    let requests = registry.content.lock().unwrap().requests.clone();
    let asked = |request: &String| request.starts_with("GET /v2/team/one/blobs/uploads/");
    assert!(requests.iter().any(asked));
    let again = push(&host, &format!("{at}/team/one:v1"), "secret");
    assert!(again.contains("Layer already exists"), "{again}");
    let mounted = push(&host, &format!("{at}/team/two:v1"), "secret");
    assert!(mounted.contains("Mounted from team/one"), "{mounted}");
    let auth = format!("X-Registry-Auth: {}", header("secret"));
    let path = format!("/distribution/{at}/team/two:v1/json");
    let look = host.send_with("GET", &path, &auth, b"");
    assert_eq!(look.status, 200, "{}", look.text());
    assert_eq!(look.json()["Platforms"][0]["os"], "linux");
    let digest = look.json()["Descriptor"]["digest"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(pushed.contains(&digest));
    let id = host.get("/images/busybox/json").json()["Id"].clone();
    for name in [
        &format!("{at}/team/one:v1"),
        &format!("{at}/team/two:v1"),
        "busybox",
    ] {
        host.send("DELETE", &format!("/images/{name}"), "", b"");
    }
    assert_eq!(host.get("/images/json").json(), json!([]));
    let path = format!("/images/create?fromImage={at}/team/one&tag=v1");
    let pulled = host.send_with("POST", &path, &auth, b"").text();
    assert!(pulled.contains("Downloaded newer image"), "{pulled}");
    let back = host.get(&format!("/images/{at}/team/one:v1/json")).json();
    assert_eq!(back["Id"], id);
    let missing = host.post(&format!("/images/{at}/none/push"), &Value::Null);
    assert_eq!(missing.status, 404);
    let words = format!("An image does not exist locally with the tag: {at}/none");
    assert_eq!(missing.json()["message"], words);
}

#[test]
fn who_may_log_in() {
    let host = Host::new();
    let registry = Registry::start(&host.network_namespace());
    let server = format!("127.0.0.1:{}", registry.port);
    let login = |password: &str| {
        let body = json!({"username": "user", "password": password, "serveraddress": server});
        host.post("/auth", &body)
    };
    let good = login("secret");
    assert_eq!(good.status, 200, "{}", good.text());
    assert_eq!(good.json()["Status"], "Login Succeeded");
    let wrong = login("wrong");
    assert_eq!(wrong.status, 401);
    let words =
        format!("Get \"http://{server}/v2/\": unauthorized: incorrect username or password");
    assert_eq!(wrong.json()["message"], words);
    let path = format!("/images/search?term={server}/box&limit=3");
    let found = host.get(&path).json();
    assert_eq!(
        (&found[0]["name"], &found[0]["star_count"]),
        (&json!("team/box"), &json!(7))
    );
    let starry = host.get(&format!("{path}&filters=%7B%22stars%22:%5B%229%22%5D%7D"));
    assert_eq!(starry.json(), json!([]));
    let gone = host.get("/images/search?term=127.0.0.1:1/box");
    assert_eq!(gone.status, 500);
}

#[test]
fn builds_fetch_files_and_base_images() {
    let host = Host::new();
    let registry = Registry::start(&host.network_namespace());
    let at = format!("127.0.0.1:{}", registry.port);
    let digest = oci::Digest::of(b"downloaded\n");
    let file = |digest: &str| {
        format!("FROM busybox\nADD --checksum={digest} http://{at}/file /fetched/\n")
    };
    host.built("t=fetched", &[("Dockerfile", &file(digest.as_str()))]);
    let seen = host.output(
        "fetched",
        "cat /fetched/file; ls -l --full-time /fetched/file",
    );
    assert!(seen.starts_with("downloaded\n-rw-------"), "{seen}");
    assert!(seen.contains("2023-11-14 22:13:20"), "{seen}");
    // A whole build may come from an address: an archive, or a Dockerfile alone.
    let recipe = ("Dockerfile", "FROM busybox\nCOPY from /\n");
    let files = crate::builds::context(&[recipe, ("from", "far away\n")]);
    registry.content.lock().unwrap().context = files;
    let remote = format!("/build?networkmode=none&t=remote&remote=http://{at}/context");
    let built = host.post(&remote, &Value::Null).text();
    assert!(
        built.contains("Successfully tagged remote:latest"),
        "{built}"
    );
    assert_eq!(host.output("remote", "cat /from"), "far away\n");
    let git = host.post("/build?remote=https://example.org/x.git", &Value::Null);
    assert_eq!(git.status, 501, "{}", git.text());
    let import = format!("/images/create?fromSrc=http://{at}/context&repo=imported");
    assert_eq!(host.post(&import, &Value::Null).status, 200);
    let comment = host.get("/images/imported/json").json()["Comment"].clone();
    assert_eq!(comment, format!("Imported from http://{at}/context"));
    let other = oci::Digest::of(b"");
    let (_, fault) = host.build("", &[("Dockerfile", &file(other.as_str()))]);
    let words = format!("digest mismatch sha256: expected {other}, got {digest}");
    assert_eq!(fault.unwrap()["message"], words);
    // A base that is not here comes from its registry, with the credentials sent along.
    let path = format!("/images/busybox/tag?repo={at}/team/base&tag=v1");
    assert_eq!(host.post(&path, &Value::Null).status, 201);
    assert!(push(&host, &format!("{at}/team/base:v1"), "secret").contains("Pushed"));
    host.send("DELETE", &format!("/images/{at}/team/base:v1"), "", b"");
    let file = format!("FROM {at}/team/base:v1\nLABEL a=b\n");
    let archive = crate::builds::context(&[("Dockerfile", &file)]);
    let auth = json!({&at: {"username": "user", "password": "secret"}}).to_string();
    let auth = base64::engine::general_purpose::URL_SAFE.encode(auth);
    let header = format!("X-Registry-Config: {auth}");
    let built = host
        .send_with("POST", "/build?t=based", &header, &archive)
        .text();
    assert!(
        built.contains("Successfully tagged based:latest"),
        "{built}"
    );
    let refused = host
        .send_with("POST", "/build?t=based&pull=1", "X-None: 1", &archive)
        .text();
    assert!(
        refused.contains("the registry wants credentials") || refused.contains("401"),
        "{refused}"
    );
}
