//! kubectl of several versions, and helm, as users type them.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};

use crate::cluster::{Cluster, eventually_or};
use crate::extras::ask_more;

pub(crate) const IMAGE: &str = "sampan.local/demo-app:v1";

/// One kubectl against one cluster.
pub(crate) struct Kubectl<'c> {
    pub(crate) cluster: &'c Cluster,
    pub(crate) binary: PathBuf,
    pub(crate) namespace: String,
}

impl Kubectl<'_> {
    pub(crate) fn output(&self, arguments: &str, stdin: &str) -> Output {
        let mut words = vec!["-n".to_owned(), self.namespace.clone()];
        words.extend(split(arguments));
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        self.cluster.run(&self.binary, &words, stdin)
    }

    /// Runs a command that must succeed; returns what it printed.
    pub(crate) fn ok(&self, arguments: &str) -> String {
        self.ok_with(arguments, "")
    }

    pub(crate) fn ok_with(&self, arguments: &str, stdin: &str) -> String {
        let output = self.output(arguments, stdin);
        let (out, err) = texts(&output);
        assert!(
            output.status.success(),
            "kubectl {arguments}\n{out}{err}\nserver:\n{}",
            self.cluster.log()
        );
        out
    }

    /// Runs a command that must fail; returns what it complained.
    pub(crate) fn fails(&self, arguments: &str, stdin: &str) -> String {
        let output = self.output(arguments, stdin);
        let (out, err) = texts(&output);
        assert!(
            !output.status.success(),
            "kubectl {arguments} succeeded:\n{out}{err}"
        );
        err
    }

    /// Runs a command until it prints `wanted`.
    pub(crate) fn until(&self, arguments: &str, wanted: &str) {
        eventually_or(
            &format!("kubectl {arguments} to say {wanted:?}"),
            || self.cluster.log(),
            || {
                let (out, _) = texts(&self.output(arguments, ""));
                out.contains(wanted).then_some(())
            },
        );
    }
}

pub(crate) fn texts(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

/// Splits at spaces outside of single quotes, as a shell does.
fn split(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quoted) = (Vec::new(), None, false);
    for character in line.chars() {
        match character {
            '\'' => {
                quoted = !quoted;
                word.get_or_insert_with(String::new);
            }
            ' ' if !quoted => words.extend(word.take()),
            other => word.get_or_insert_with(String::new).push(other),
        }
    }
    words.extend(word);
    words
}

/// Every kubectl of this machine from 1.31 on; none at all is a fault of the set-up.
pub(crate) fn kubectls() -> Vec<PathBuf> {
    let sdk = Path::new("/usr/lib/google-cloud-sdk/bin");
    let mut found: Vec<PathBuf> = ["kubectl.1.31", "kubectl.1.32", "kubectl.1.33"]
        .map(|name| sdk.join(name))
        .into();
    found.extend(tool("kubectl"));
    found.retain(|path| path.exists());
    assert!(
        !found.is_empty(),
        "no kubectl: run `make e2e`, which installs one"
    );
    found
}

/// Those of this machine that know SPDY only.
fn old_kubectls() -> Vec<PathBuf> {
    let sdk = Path::new("/usr/lib/google-cloud-sdk/bin");
    let names = [
        "kubectl.1.27",
        "kubectl.1.28",
        "kubectl.1.29",
        "kubectl.1.30",
    ];
    let found = names.map(|name| sdk.join(name)).into_iter();
    found.filter(|path| path.exists()).collect()
}

fn tool(name: &str) -> Option<PathBuf> {
    let folder = std::env::var_os("SAMPAN_TOOLS_DIR")?;
    Some(Path::new(&folder).join(name))
}

fn deployment(name: &str, replicas: u32, version: &str) -> String {
    format!(
        r#"
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {name}
spec:
  replicas: {replicas}
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata: {{labels: {{app: {name}}}}}
    spec:
      terminationGracePeriodSeconds: 2
      containers:
      - name: web
        image: {IMAGE}
        args: [demo-app, serve, --linger-ms=100]
        env: [{{name: VERSION, value: {version}}}]
        ports: [{{containerPort: 8080}}]
        readinessProbe: {{httpGet: {{path: /healthz, port: 8080}}, periodSeconds: 1}}
"#
    )
}

#[test]
fn every_kubectl_drives_the_same_cluster() {
    let cluster = Cluster::start();
    cluster.make_image(IMAGE);
    let old = old_kubectls();
    let all = kubectls().into_iter().chain(old.clone());
    for (number, binary) in all.enumerate() {
        let namespace = format!("matrix-{number}");
        let kubectl = Kubectl {
            cluster: &cluster,
            binary,
            namespace: namespace.clone(),
        };
        kubectl.ok(&format!("create namespace {namespace}"));
        look_around(&kubectl);
        write_objects(&kubectl);
        ask_more(&kubectl);
        roll_out(&kubectl);
        use_pods(&kubectl, if number == 0 { &old } else { &[] });
        manage_nodes(&kubectl);
        kubectl.ok(&format!(
            "delete namespace {namespace} --wait=true --timeout=60s"
        ));
    }
}

fn look_around(kubectl: &Kubectl<'_>) {
    assert!(kubectl.ok("version").contains("v1.36"));
    assert!(kubectl.ok("cluster-info").contains("is running at"));
    let kinds = kubectl.ok("api-resources");
    for kind in ["deployments", "pods", "customresourcedefinitions", "leases"] {
        assert!(kinds.contains(kind), "{kind} in {kinds}");
    }
    assert!(kubectl.ok("api-versions").contains("apps/v1"));
    assert!(kubectl.ok("get --raw /readyz").contains("ok"));
    assert!(
        kubectl
            .ok("explain deployment.spec.replicas")
            .contains("FIELD")
    );
    assert!(
        kubectl
            .ok("explain pods --recursive")
            .contains("terminationGracePeriodSeconds")
    );
    assert!(kubectl.ok("auth can-i --list").contains("*.*"));
    assert_eq!(kubectl.ok("auth can-i create pods").trim(), "yes");
    // The one of 1.27 knows only versions of this kind that Kubernetes 1.36 has no more.
    if !kubectl.binary.ends_with("kubectl.1.27") {
        assert_eq!(
            kubectl.ok("auth whoami -o 'jsonpath={.status.userInfo.username}'"),
            "kubernetes-admin"
        );
    }
    let nodes = kubectl.ok("get nodes -o wide");
    assert!(
        nodes.contains("Ready") && nodes.contains("CONTAINER-RUNTIME"),
        "{nodes}"
    );
    let denied = kubectl.fails("get pods --as=nobody", "");
    let wanted = format!(
        "pods is forbidden: User \"nobody\" cannot list resource \"pods\" in API group \"\" in the namespace \"{}\"",
        kubectl.namespace
    );
    assert!(denied.contains(&wanted), "{denied}");
}

fn write_objects(kubectl: &Kubectl<'_>) {
    kubectl.ok("create configmap colours --from-literal=sea=blue");
    assert!(
        kubectl
            .fails("create configmap colours", "")
            .contains("already exists")
    );
    kubectl.ok("label configmap colours tier=front");
    kubectl.ok("annotate configmap colours note=hello");
    kubectl.ok("patch configmap colours -p '{\"data\":{\"sun\":\"gold\"}}'");
    kubectl.ok("patch configmap colours --type=merge -p '{\"data\":{\"sun\":null}}'");
    kubectl.ok("patch configmap colours --type=json -p '[{\"op\":\"add\",\"path\":\"/data/sail\",\"value\":\"white\"}]'");
    assert_eq!(
        kubectl.ok("get cm colours -o 'jsonpath={.data}'"),
        r#"{"sail":"white","sea":"blue"}"#
    );
    assert!(
        kubectl
            .ok("get cm -l tier=front -o name")
            .contains("configmap/colours")
    );
    assert!(
        !kubectl
            .ok("get cm -l tier=back -o name")
            .contains("colours")
    );
    assert!(
        kubectl
            .ok("get cm --field-selector=metadata.name=colours")
            .contains("colours")
    );
    let columns = kubectl.ok("get cm colours -o 'custom-columns=N:.metadata.name,S:.data.sea'");
    assert!(columns.contains("blue"), "{columns}");
    assert!(
        kubectl
            .ok("get cm --sort-by=.metadata.name -o yaml")
            .contains("kind: List")
    );
    assert!(kubectl.ok("get cm -A -o json").contains("kube-root-ca.crt"));
    kubectl.ok("create secret generic treasure --from-literal=map=here");
    assert_eq!(
        kubectl.ok("get secret treasure -o 'jsonpath={.data.map}'"),
        "aGVyZQ=="
    );

    let map = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: applied}\ndata: {a: '1'}\n";
    assert!(kubectl.ok_with("apply -f -", map).contains("created"));
    assert!(kubectl.ok_with("apply -f -", map).contains("unchanged"));
    let changed = map.replace("a: '1'", "b: '2'");
    let diff = kubectl.fails("diff -f -", &changed).is_empty();
    assert!(
        diff,
        "diff says its difference on standard output, not as a complaint"
    );
    assert!(
        kubectl
            .ok_with("apply -f -", &changed)
            .contains("configured")
    );
    assert_eq!(
        kubectl.ok("get cm applied -o 'jsonpath={.data}'"),
        r#"{"b":"2"}"#
    );
    assert!(
        kubectl
            .ok_with("apply --server-side --force-conflicts -f -", map)
            .contains("serverside-applied")
    );
    assert!(
        kubectl
            .ok_with("apply --server-side --dry-run=server -f -", map)
            .contains("dry run")
    );
    kubectl.ok_with("replace -f -", &changed);
    let unknown = map.replace("data:", "dada:");
    assert!(
        kubectl
            .fails("create --validate=strict -f -", &unknown)
            .contains("unknown field \"dada\"")
    );
    let wrong = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: Bad_Name}\n";
    let refused = kubectl.fails("create -f -", wrong);
    assert!(
        refused.contains("a lowercase RFC 1123 subdomain"),
        "{refused}"
    );
    kubectl.ok("delete configmap applied colours");
    assert!(
        kubectl
            .fails("get configmap colours", "")
            .contains("configmaps \"colours\" not found")
    );
}

fn roll_out(kubectl: &Kubectl<'_>) {
    assert!(
        kubectl
            .ok_with("apply -f -", &deployment("web", 2, "v1"))
            .contains("created")
    );
    kubectl.ok("rollout status deployment/web --timeout=60s");
    assert!(kubectl.ok("get deploy web").contains("2/2"));
    kubectl.ok("expose deployment web --port=80 --target-port=8080");
    kubectl.until(
        "get endpointslices -l kubernetes.io/service-name=web",
        "10.244.",
    );
    kubectl.ok("scale deployment web --replicas=3");
    kubectl.ok("rollout status deployment/web --timeout=60s");
    kubectl.ok("set env deployment/web VERSION=v2");
    kubectl.ok("rollout status deployment/web --timeout=60s");
    let history = kubectl.ok("rollout history deployment/web");
    assert!(history.contains('1') && history.contains('2'), "{history}");
    kubectl.ok("rollout undo deployment/web");
    kubectl.ok("rollout status deployment/web --timeout=60s");
    let env = "jsonpath={.spec.template.spec.containers[0].env[0].value}";
    assert_eq!(kubectl.ok(&format!("get deploy web -o '{env}'")), "v1");
    kubectl.ok("rollout pause deployment/web");
    kubectl.ok("set image deployment/web web=sampan.local/demo-app:v1");
    kubectl.ok("rollout resume deployment/web");
    kubectl.ok("rollout restart deployment/web");
    kubectl.ok("rollout status deployment/web --timeout=60s");
    let described = kubectl.ok("describe deployment web");
    assert!(described.contains("ScalingReplicaSet"), "{described}");
    kubectl.ok("wait --for=condition=Available deployment/web --timeout=30s");
    kubectl.ok("delete deployment web --wait=true");
    kubectl.until(
        "get pods -l app=web -o name --ignore-not-found --show-kind=false",
        "",
    );
    kubectl.ok("delete service web");
}

/// `old` are other versions that open streams to the same pod.
fn use_pods(kubectl: &Kubectl<'_>, old: &[PathBuf]) {
    kubectl.ok(&format!(
        "run boat --image={IMAGE} --restart=Never --env=GREETING=Hello -- demo-app serve --linger-ms=0"
    ));
    kubectl.ok("wait --for=condition=Ready pod/boat --timeout=60s");
    assert!(kubectl.ok("get pods -o wide").contains("10.244."));
    kubectl.until("logs boat", "listening on");
    assert!(kubectl.ok("logs boat --tail=1 --timestamps").contains('T'));
    assert!(
        kubectl
            .ok("logs boat --since=1h -c boat")
            .contains("listening")
    );
    let answer = kubectl.ok("exec boat -- /sampan demo-app fetch http://127.0.0.1:8080/");
    assert!(answer.starts_with("Hello from boat"), "{answer}");
    let failed = kubectl.fails(
        "exec boat -- /sampan demo-app fetch http://127.0.0.1:1/",
        "",
    );
    assert!(failed.contains("exit code 1"), "{failed}");
    let absent = kubectl.fails("exec boat -- /no/such/file", "");
    assert!(
        absent.contains("no such file") || absent.contains("not found"),
        "{absent}"
    );
    use_streams(kubectl);
    for binary in old {
        use_streams(&Kubectl {
            binary: binary.clone(),
            namespace: kubectl.namespace.clone(),
            cluster: kubectl.cluster,
        });
    }
    let described = kubectl.ok("describe pod boat");
    for word in ["Scheduled", "Pulled", "Created", "Started", "IP:"] {
        assert!(described.contains(word), "{word} in {described}");
    }
    assert!(kubectl.ok("events --for pod/boat").contains("Started"));
    assert!(kubectl.ok("get events").contains("Scheduled"));
    crate::top::measure(kubectl);
    kubectl.ok("delete pod boat --grace-period=1 --wait=true");

    kubectl.ok("run lost --image=localhost:1/nothing:v1 --restart=Never");
    kubectl.until("get pod lost", "ErrImagePull");
    kubectl.ok("delete pod lost --wait=true");
    kubectl.ok(&format!(
        "run crash --image={IMAGE} --restart=Always -- demo-app fetch http://127.0.0.1:1/"
    ));
    kubectl.until("get pod crash", "CrashLoopBackOff");
    assert!(!kubectl.ok("logs crash --previous").contains("listening"));
    kubectl.ok("delete pod crash --wait=true");
}

/// What every kubectl opens in its own way: 1.31 and younger a WebSocket unless told otherwise,
/// the older ones SPDY.
fn use_streams(kubectl: &Kubectl<'_>) {
    let fetch = ["exec", "boat", "--", "/sampan", "demo-app", "fetch"];
    for websockets in ["true", "false"] {
        drop(Forwarding::start(kubectl, "pod/boat", websockets));
        let words = [&fetch[..], &["http://127.0.0.1:8080/"]].concat();
        let output = streaming(kubectl, &words, websockets).output().unwrap();
        let (out, err) = texts(&output);
        assert!(out.starts_with("Hello from boat"), "{out}{err}");
        let words = [&fetch[..], &["http://127.0.0.1:1/"]].concat();
        let output = streaming(kubectl, &words, websockets).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{:?}", texts(&output));
    }
}

/// kubectl with or without WebSockets.
fn streaming(kubectl: &Kubectl<'_>, words: &[&str], websockets: &str) -> Command {
    let mut command = kubectl.cluster.namespace.command(&kubectl.binary);
    command
        .args(["-n", &kubectl.namespace])
        .args(words)
        .env("KUBECONFIG", kubectl.cluster.kubeconfig())
        .env("HOME", kubectl.cluster.folder.path())
        .env("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", websockets)
        .env("KUBECTL_PORT_FORWARD_WEBSOCKETS", websockets)
        .stdin(Stdio::null());
    command
}

/// `kubectl port-forward` to a port of the test application, until dropped.
struct Forwarding {
    child: Child,
    /// A closed pipe would kill it.
    _output: BufReader<ChildStdout>,
}

impl Forwarding {
    fn start(kubectl: &Kubectl<'_>, target: &str, websockets: &str) -> Forwarding {
        let words = ["port-forward", target, ":8080"];
        let mut child = streaming(kubectl, &words, websockets)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        output.read_line(&mut line).unwrap();
        let local = line
            .split(" -> ")
            .next()
            .and_then(|from| from.rsplit(':').next());
        let local = local.and_then(|port| port.parse().ok());
        let local: u16 = local.unwrap_or_else(|| panic!("{line:?}"));
        let forwarding = Forwarding {
            child,
            _output: output,
        };
        // Several connections, one after the other.
        for _ in 0..3 {
            let url = format!("http://127.0.0.1:{local}/");
            let answer = kubectl.cluster.sampan(&["demo-app", "fetch", &url]);
            let (out, err) = texts(&{ answer }.output().unwrap());
            assert!(out.starts_with("Hello from boat"), "{target}: {out}{err}");
        }
        forwarding
    }
}

impl Drop for Forwarding {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn manage_nodes(kubectl: &Kubectl<'_>) {
    kubectl.ok("cordon node-1");
    assert!(kubectl.ok("get nodes").contains("SchedulingDisabled"));
    kubectl.ok("uncordon node-1");
    kubectl.ok("taint nodes node-1 sea=rough:NoSchedule");
    kubectl.ok(&format!(
        "run waiting --image={IMAGE} --restart=Never -- demo-app serve"
    ));
    kubectl.until("describe pod waiting", "untolerated taint");
    kubectl.ok("taint nodes node-1 sea:NoSchedule-");
    kubectl.ok("wait --for=condition=Ready pod/waiting --timeout=60s");
    kubectl.ok("drain node-1 --force --ignore-daemonsets --delete-emptydir-data --timeout=60s");
    kubectl.until("get pods", "");
    assert!(kubectl.fails("get pod waiting", "").contains("not found"));
    kubectl.ok("uncordon node-1");
}

#[test]
fn helm_installs_upgrades_rolls_back_and_uninstalls() {
    let Some(helm) = tool("helm").filter(|helm| helm.exists()) else {
        panic!("no helm: run `make e2e`, which installs one");
    };
    let cluster = Cluster::start();
    cluster.make_image(IMAGE);
    let chart = cluster.folder.path().join("chart");
    std::fs::create_dir_all(chart.join("templates")).unwrap();
    std::fs::write(
        chart.join("Chart.yaml"),
        "apiVersion: v2\nname: web\nversion: 0.1.0\n",
    )
    .unwrap();
    std::fs::write(chart.join("values.yaml"), "replicas: 1\nversion: v1\n").unwrap();
    let template = deployment("{{ .Release.Name }}", 1, "{{ .Values.version }}")
        .replace("replicas: 1", "replicas: {{ .Values.replicas }}");
    std::fs::write(chart.join("templates/web.yaml"), template).unwrap();
    let chart = chart.display().to_string();
    let run = |line: &str| {
        let words = split(line);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let output = cluster.run(&helm, &words, "");
        let (out, err) = texts(&output);
        assert!(
            output.status.success(),
            "helm {line}\n{out}{err}\n{}",
            cluster.log()
        );
        out
    };
    run(&format!("install boat {chart} --wait --timeout 60s"));
    assert!(run("list").contains("deployed"));
    run(&format!(
        "upgrade boat {chart} --set replicas=2 --wait --timeout 60s"
    ));
    let binary = kubectls().remove(0);
    let kubectl = Kubectl {
        cluster: &cluster,
        binary,
        namespace: "default".into(),
    };
    assert!(kubectl.ok("get deploy boat").contains("2/2"));
    run("rollback boat 1 --wait --timeout 60s");
    kubectl.until("get deploy boat", "1/1");
    assert!(run("history boat").contains("Rollback to 1"));
    run("uninstall boat --wait");
    assert!(kubectl.fails("get deploy boat", "").contains("not found"));
}
