//! The real kubectl over TLS.

use std::path::PathBuf;
use std::process::Stdio;

use base::Crew;
use tokio::io::AsyncWriteExt;

use crate::cluster::Cluster;

const KUBECTL: &str = "/usr/lib/google-cloud-sdk/bin/kubectl.1.33";

struct Kubectl {
    cluster: Cluster,
    config: PathBuf,
}

impl Kubectl {
    async fn start() -> Kubectl {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let crew = Crew::new();
        let store = store::memory(&crew).await.unwrap();
        let cluster = Cluster::over(store, crew, port).await;
        let tls = auth::tls::server_config(&cluster.pki).unwrap();
        apiserver::listen(cluster.server.clone(), vec![listener], tls, &cluster.crew).unwrap();
        let url = format!("https://127.0.0.1:{port}");
        let config = cluster.dir.path().join("kubeconfig");
        let text = auth::kubeconfig(&url, cluster.pki.ca_pem(), cluster.pki.admin(), "test");
        std::fs::write(&config, text).unwrap();
        Kubectl { cluster, config }
    }

    async fn run(&self, line: &str, input: &str) -> Result<String, String> {
        self.run_as(KUBECTL, line, input).await
    }

    /// The same with another version of kubectl.
    async fn run_as(&self, program: &str, line: &str, input: &str) -> Result<String, String> {
        let mut child = tokio::process::Command::new(program)
            .args(line.split_whitespace())
            .env("KUBECONFIG", &self.config)
            .env("HOME", self.cluster.dir.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(input.as_bytes()).await.unwrap();
        drop(stdin);
        let done = child.wait_with_output().await.unwrap();
        let out = String::from_utf8_lossy(&done.stdout).into_owned();
        match done.status.success() {
            true => Ok(out),
            false => Err(out + &String::from_utf8_lossy(&done.stderr)),
        }
    }

    async fn expect(&self, line: &str, input: &str, part: &str) {
        let out = self
            .run(line, input)
            .await
            .unwrap_or_else(|out| panic!("{line}: {out}"));
        assert!(out.contains(part), "kubectl {line}: {out}");
    }
}

const DEPLOYMENT: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: c, image: 'example.com/web:1', ports: [{containerPort: 80}]}]}
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_at_work() {
    let kubectl = Kubectl::start().await;
    kubectl.expect("version", "", "sampan").await;
    kubectl
        .expect("get namespaces", "", "kube-node-lease")
        .await;
    kubectl.expect("api-resources", "", "deployments").await;
    kubectl
        .expect("create -f -", DEPLOYMENT, "deployment.apps/web created")
        .await;
    kubectl
        .expect("get deploy -o wide", "", "example.com/web:1")
        .await;
    kubectl
        .expect("apply -f -", DEPLOYMENT, "deployment.apps/web configured")
        .await;
    kubectl
        .expect("apply -f -", DEPLOYMENT, "deployment.apps/web unchanged")
        .await;
    let more = DEPLOYMENT.replace("replicas: 2", "replicas: 4");
    kubectl
        .expect("apply -f -", &more, "deployment.apps/web configured")
        .await;
    kubectl
        .expect(
            "apply --server-side --force-conflicts -f -",
            &more,
            "serverside-applied",
        )
        .await;
    kubectl
        .expect("scale deployment web --replicas=7", "", "scaled")
        .await;
    kubectl
        .expect("get deploy web -o jsonpath={.spec.replicas}", "", "7")
        .await;
    kubectl
        .expect("expose deployment web --port=80", "", "service/web exposed")
        .await;
    kubectl
        .expect("get svc web -o yaml", "", "clusterIP: 10.")
        .await;
    kubectl
        .expect("label deployment web tier=front", "", "labeled")
        .await;
    kubectl
        .expect(
            "set image deployment/web c=example.com/web:2",
            "",
            "image updated",
        )
        .await;
    kubectl
        .expect(
            "patch deployment web -p {\"spec\":{\"paused\":true}}",
            "",
            "patched",
        )
        .await;
    kubectl
        .expect("describe deployment web", "", "example.com/web:2")
        .await;
    kubectl.expect("auth can-i --list", "", "*.*").await;
    kubectl.expect("auth whoami", "", "kubernetes-admin").await;
    kubectl
        .expect("get --raw /readyz?verbose", "", "readyz check passed")
        .await;
    kubectl.expect("delete deployment web", "", "deleted").await;
    kubectl.expect("get events -A", "", "").await;
    let missing = kubectl.run("get deployment web", "").await.unwrap_err();
    assert!(missing.contains("NotFound"), "{missing}");
    kubectl.cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fields_are_explained() {
    let kubectl = Kubectl::start().await;
    kubectl
        .expect("explain deployment.spec.replicas", "", "FIELD: replicas")
        .await;
    kubectl.cluster.stop().await;
}

const DEFINITION: &str = "
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: foos.example.com}
spec:
  group: example.com
  scope: Namespaced
  names: {plural: foos, kind: Foo, shortNames: [fo], categories: [all]}
  versions:
  - name: v1
    served: true
    storage: true
    additionalPrinterColumns:
    - {name: Size, type: integer, jsonPath: .spec.size}
    - {name: Wide, type: string, jsonPath: '.spec.bars[0].name', priority: 1}
    - {name: Age, type: date, jsonPath: .metadata.creationTimestamp}
    schema:
      openAPIV3Schema:
        description: Foo CRD for Testing
        type: object
        properties:
          spec:
            type: object
            description: Specification of Foo
            properties:
              size: {type: integer, default: 3}
              bars:
                description: List of Bars and their specs.
                type: array
                items:
                  type: object
                  required: [name]
                  properties:
                    name: {description: Name of Bar., type: string}
                    feeling: {type: string, enum: [Great, Down]}
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_with_a_kind_of_their_own() {
    let kubectl = Kubectl::start().await;
    kubectl.expect("create -f -", DEFINITION, "created").await;
    kubectl
        .expect(
            "wait --for=condition=established crd/foos.example.com --timeout=10s",
            "",
            "met",
        )
        .await;
    for program in [KUBECTL, "/usr/lib/google-cloud-sdk/bin/kubectl.1.27"] {
        for (what, parts) in [
            (
                "foos",
                &["Foo CRD for Testing", "apiVersion", "Specification of Foo"][..],
            ),
            (
                "foos.metadata",
                &["Standard object's metadata", "creationTimestamp"],
            ),
            (
                "foos.spec.bars",
                &["List of Bars and their specs", "name", "-required-"],
            ),
        ] {
            let out = kubectl
                .run_as(program, &format!("explain {what}"), "")
                .await;
            let out = out.unwrap_or_else(|out| panic!("{program} {what}: {out}"));
            for part in parts {
                assert!(out.contains(part), "{program} {what}: {out}");
            }
        }
        let none = kubectl.run_as(program, "explain foos.spec.bars2", "").await;
        let none = none.unwrap_err();
        assert!(none.contains("field \"bars2\" does not exist"), "{none}");
    }
    let foo = |spec: &str| {
        format!("{{apiVersion: example.com/v1, kind: Foo, metadata: {{name: a}}, spec: {spec}}}")
    };
    let refused = |spec: &'static str, part: &'static str| {
        let (kubectl, input) = (&kubectl, foo(spec));
        async move {
            let out = kubectl.run("create -f -", &input).await.unwrap_err();
            assert!(out.contains(part), "{spec}: {out}");
        }
    };
    refused("{new: 1}", "unknown field \"spec.new\"").await;
    refused("{bars: [{}]}", "spec.bars[0].name: Required value").await;
    refused(
        "{bars: [{name: a, feeling: x}]}",
        "Unsupported value: \"x\"",
    )
    .await;
    let good = foo("{bars: [{name: b}]}");
    kubectl.expect("apply -f -", &good, "created").await;
    kubectl.expect("get fo", "", "SIZE").await;
    kubectl.expect("get all -o wide", "", "WIDE").await;
    kubectl
        .expect("delete crd foos.example.com", "", "deleted")
        .await;
    kubectl.cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_among_rights_and_certificates() {
    let kubectl = Kubectl::start().await;
    kubectl
        .expect("auth whoami -o yaml", "", "username: kubernetes-admin")
        .await;
    kubectl.expect("auth can-i --list", "", "*.*").await;
    kubectl
        .expect(
            "create serviceaccount robot",
            "",
            "serviceaccount/robot created",
        )
        .await;
    let robot = "--as=system:serviceaccount:default:robot";
    let refused = kubectl
        .run(&format!("get pods {robot}"), "")
        .await
        .unwrap_err();
    assert!(
        refused.contains(
            "pods is forbidden: User \"system:serviceaccount:default:robot\" cannot list resource \
             \"pods\" in API group \"\" in the namespace \"default\""
        ),
        "{refused}"
    );
    let rights = "
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: reader, namespace: default}
rules: [{apiGroups: [''], resources: [pods], verbs: [get, list]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: reader, namespace: default}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: reader}
subjects: [{kind: ServiceAccount, name: robot, namespace: default}]
";
    kubectl
        .expect(
            "auth reconcile -f -",
            rights,
            "rolebinding.rbac.authorization.k8s.io/reader reconciled",
        )
        .await;
    kubectl.expect(&format!("get pods {robot}"), "", "").await;
    kubectl
        .expect(&format!("auth can-i list pods {robot}"), "", "yes")
        .await;
    kubectl
        .expect(&format!("auth can-i --list {robot}"), "", "[get list]")
        .await;
    kubectl
        .expect("create secret generic anchor", "", "created")
        .await;
    let line = "create token robot --audience=vault --duration=1h --bound-object-kind=Secret \
                --bound-object-name=anchor";
    let token = kubectl.run(line, "").await.unwrap();
    let review = serde_json::json!({"spec": {"token": token.trim(), "audiences": ["vault"]}});
    let reviews = "/apis/authentication.k8s.io/v1/tokenreviews";
    let review = kubectl.cluster.post(reviews, review).await.unwrap();
    assert_eq!(
        review["status"]["audiences"],
        serde_json::json!(["vault"]),
        "{review}"
    );
    let short = kubectl
        .run("create token robot --duration=1m", "")
        .await
        .unwrap_err();
    assert!(
        short.contains("may not specify a duration less than 10 minutes"),
        "{short}"
    );
    for (name, verb, shown) in [("good", "approve", "Approved"), ("bad", "deny", "Denied")] {
        let subject = auth::certificate::Subject {
            common_name: "jane",
            organizations: &[],
            hosts: std::collections::BTreeSet::new(),
            usage: auth::certificate::Usage::Client,
        };
        let (pem, _) = auth::certificate::request(&subject).unwrap();
        use base64::Engine;
        let request = base64::engine::general_purpose::STANDARD.encode(pem);
        let request = format!(
            "
apiVersion: certificates.k8s.io/v1
kind: CertificateSigningRequest
metadata: {{name: {name}}}
spec: {{signerName: example.com/x, usages: [client auth], request: {request}}}
"
        );
        kubectl.expect("create -f -", &request, "created").await;
        kubectl.expect("get csr", "", "Pending").await;
        kubectl
            .expect(&format!("certificate {verb} {name}"), "", name)
            .await;
        kubectl.expect("get csr", "", shown).await;
    }
    kubectl.cluster.stop().await;
}
