//! What users do by hand: edit, copy, a terminal, follow, watch; and one of
//! each workload seen from inside its containers.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;

use crate::cluster::{Cluster, eventually};
use crate::kubectl::{Kubectl, kubectls, texts};

const BUSYBOX: &str = "/bin/busybox";
const IMAGE: &str = "sampan.local/busybox:v1";
/// Names under which the pods call busybox.
const LINKS: &str = "sh,cat,echo,false,nslookup,sleep,stat,stty,tar,test,touch,rm";
const WORKLOADS: &str = include_str!("manifests/workloads.yaml");
const SHIPS: &str = include_str!("manifests/ships.yaml");

#[test]
fn users_work_by_hand() {
    let cluster = Cluster::start();
    make_busybox(&cluster);
    let mut versions = kubectls();
    let newest = versions.pop().unwrap();
    let oldest = versions.into_iter().next().unwrap_or(newest.clone());
    let [old, new] = [oldest, newest].map(|binary| Kubectl {
        cluster: &cluster,
        binary,
        namespace: "hands".into(),
    });
    old.ok("create namespace hands");
    old.ok_with(
        "apply -f -",
        &WORKLOADS.replace("HOST_FOLDER", &host_folder(&cluster)),
    );
    old.ok("create job done --image=sampan.local/busybox:v1 -- echo finished");
    edit_and_watch(&new);
    compare_and_replace(&old);
    own_fields(&new);
    finish_jobs(&old);
    look_inside(&new);
    name_the_crew(&old);
    follow_logs(&new);
    copy_files(&old);
    copy_files(&new);
    use_a_terminal(&old);
    use_a_terminal(&new);
    attach_and_debug(&old, "look-old");
    attach_and_debug(&new, "look-new");
    revise(&new);
    disrupt(&old);
    define_ships(&new);
    restart_the_sick(&old);
    keep_limits(&new);
    leave(&old);
}

fn make_busybox(cluster: &Cluster) {
    let folder = cluster.folder.path().display().to_string();
    let output = cluster
        .sampan(&["image", "from-binary", IMAGE, "--binary", BUSYBOX])
        .args(["--link", LINKS, "--data-dir", &folder])
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "busybox-static, which `make setup-test` installs, is needed: {}",
        texts(&output).1
    );
}

fn host_folder(cluster: &Cluster) -> String {
    cluster.folder.path().join("host").display().to_string()
}

fn assert_has(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "{word:?} is missing in:\n{text}");
    }
}

/// Runs `edit configmap chart` with a shell script as the editor.
fn edit(kubectl: &Kubectl<'_>, script: &str) -> String {
    let editor = kubectl.cluster.folder.path().join("editor");
    std::fs::write(&editor, format!("#!/bin/sh\n{script}\n")).unwrap();
    std::fs::set_permissions(&editor, std::fs::Permissions::from_mode(0o755)).unwrap();
    let binary = kubectl.binary.display().to_string();
    let variable = format!("EDITOR={}", editor.display());
    let words = [
        variable.as_str(),
        &binary,
        "-n",
        &kubectl.namespace,
        "edit",
        "configmap",
        "chart",
    ];
    let output = kubectl.cluster.run(Path::new("env"), &words, "");
    let (out, err) = texts(&output);
    assert!(output.status.success(), "{out}{err}");
    out + &err
}

fn edit_and_watch(kubectl: &Kubectl<'_>) {
    let seen = kubectl.cluster.folder.path().join("watched");
    let mut watcher = kubectl
        .cluster
        .namespace
        .command(&kubectl.binary)
        .args(["-n", &kubectl.namespace, "get", "cm", "chart", "-w"])
        .args(["-o", "custom-columns=NORTH:.data.north"])
        .env("KUBECONFIG", kubectl.cluster.kubeconfig())
        .env("HOME", kubectl.cluster.folder.path())
        .stdin(Stdio::null())
        .stdout(std::fs::File::create(&seen).unwrap())
        .spawn()
        .unwrap();
    let watched = |wanted: &str| {
        eventually(&format!("the watch to show {wanted:?}"), || {
            let text = std::fs::read_to_string(&seen).unwrap();
            text.lines().any(|line| line == wanted).then_some(())
        });
    };
    watched("up");
    assert_has(
        &edit(kubectl, "sed -i 's/north: up/north: left/' \"$1\""),
        &["edited"],
    );
    watched("left");
    let alive = watcher.try_wait().unwrap().is_none();
    watcher.kill().unwrap();
    watcher.wait().unwrap();
    assert!(alive, "a watch ends only when its user ends it");
    assert_has(&edit(kubectl, "true"), &["no changes"]);
}

fn compare_and_replace(kubectl: &Kubectl<'_>) {
    let map = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: course}\ndata: {to: port}\n";
    kubectl.ok_with("create -f -", map);
    let changed = map.replace("port", "sea");
    let output = kubectl.output("diff -f -", &changed);
    assert_eq!(output.status.code(), Some(1));
    assert_has(&texts(&output).0, &["-  to: port", "+  to: sea"]);
    assert!(kubectl.ok_with("diff -f -", map).is_empty());
    let uid = "get cm course -o 'jsonpath={.metadata.uid}'";
    let before = kubectl.ok(uid);
    assert_has(
        &kubectl.ok_with("replace --force -f -", &changed),
        &["replaced"],
    );
    assert_ne!(
        kubectl.ok(uid),
        before,
        "a forced replacement is a new object"
    );
    let names = kubectl.ok("get cm --sort-by=.metadata.name -o 'custom-columns=N:.metadata.name'");
    let names: Vec<&str> = names.lines().skip(1).collect();
    assert_eq!(names, ["chart", "course", "kube-root-ca.crt"]);
    let everywhere = kubectl.ok("get cm -A --field-selector=metadata.name=course -o wide");
    assert_eq!(everywhere.lines().count(), 2, "{everywhere}");
    assert_has(&everywhere, &["NAMESPACE", "hands", "course"]);
    assert_has(&kubectl.ok("get cm course -o yaml"), &["to: sea"]);
    assert_has(&kubectl.ok("get cm course -o json"), &["\"to\": \"sea\""]);
}

fn own_fields(kubectl: &Kubectl<'_>) {
    let map = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: owned}\ndata: {a: one}\n";
    kubectl.ok_with("apply --server-side --field-manager=first -f -", map);
    let other = map.replace("one", "two");
    let second = "apply --server-side --field-manager=second -f -";
    assert_has(
        &kubectl.fails(second, &other),
        &["Apply failed with 1 conflict: conflict with \"first\": .data.a"],
    );
    kubectl.ok_with(&format!("{second} --force-conflicts"), &other);
    assert_has(
        &kubectl.ok("get cm owned -o yaml --show-managed-fields"),
        &["a: two", "manager: second"],
    );
}

fn finish_jobs(kubectl: &Kubectl<'_>) {
    kubectl.ok(&format!(
        "create cronjob tick --image={IMAGE} '--schedule=0 0 1 1 *' -- echo ticked"
    ));
    kubectl.ok("create job once --from=cronjob/tick");
    kubectl.ok("wait --for=condition=Complete job/done job/once --timeout=60s");
    assert_eq!(kubectl.ok("logs job/done"), "finished\n");
    assert_eq!(kubectl.ok("logs job/once"), "ticked\n");
    kubectl.ok("wait --for=condition=Failed job/sinks --timeout=60s");
    assert_has(
        &kubectl.ok("describe job sinks"),
        &["BackoffLimitExceeded", "0 Active", "1 Failed"],
    );
    assert_has(&kubectl.ok("get cronjobs"), &["tick", "0 0 1 1 *", "False"]);
    let done = kubectl.ok("get pods --field-selector=status.phase=Succeeded -o name");
    assert_has(&done, &["pod/done-", "pod/once-"]);
    assert!(!done.contains("sinks") && !done.contains("hold"), "{done}");
}

fn look_inside(kubectl: &Kubectl<'_>) {
    kubectl.ok("wait --for=condition=Ready pod/hold --timeout=60s");
    assert_has(&kubectl.ok("get pod hold"), &["2/2"]);
    let inside = |script: &str| kubectl.ok(&format!("exec hold -c main -- sh -c '{script}'"));
    assert_eq!(inside("cat /shared/init"), "loaded\n");
    // The volume follows the edited map, the file mounted by subPath does not.
    let first = inside("cat /etc/north.conf");
    assert!(["up", "left"].contains(&first.as_str()), "{first}");
    assert_eq!(inside("cat /chart/south /all/s"), "downdown");
    assert_eq!(inside("cat /key/word /all/word"), "sesamesesame");
    assert_eq!(inside("stat -L -c %a /key/word"), "400\n");
    assert_eq!(inside("cat /all/labels"), "app=\"hold\"");
    assert_eq!(inside("cat /all/token").split('.').count(), 3);
    assert_eq!(inside("echo $WORD $POD"), "sesame hold\n");
    let refused = kubectl.output("exec hold -c main -- sh -c 'exit 7'", "");
    assert_eq!(refused.status.code(), Some(7));
    assert_eq!(
        kubectl.ok_with("exec -i hold -c side -- cat", "through"),
        "through"
    );
}

fn name_the_crew(kubectl: &Kubectl<'_>) {
    kubectl.ok("rollout status statefulset/crew --timeout=60s");
    kubectl.ok("rollout status daemonset/deck --timeout=60s");
    let crew = kubectl.ok(
        "get pods -l app=crew --sort-by=.metadata.name -o 'jsonpath={range .items[*]}{.metadata.name} {.status.startTime}{\"\\n\"}{end}'",
    );
    let crew: Vec<(&str, &str)> = crew
        .lines()
        .filter_map(|line| line.split_once(' '))
        .collect();
    let [("crew-0", first), ("crew-1", second)] = crew[..] else {
        panic!("{crew:?}");
    };
    assert!(first <= second, "crew-1 started before crew-0");
    let address = kubectl.ok("get pod crew-0 -o 'jsonpath={.status.podIP}'");
    let name = "crew-0.crew.hands.svc.cluster.local";
    let resolved = kubectl.ok(&format!("exec hold -c main -- nslookup {name}"));
    assert_has(&resolved, &[&format!("Address: {address}\n")]);
    kubectl.ok("delete pod crew-0");
    kubectl.ok("rollout status statefulset/crew --timeout=60s");
    kubectl.ok("wait --for=condition=Ready pod/crew-0 --timeout=60s");
    let decks = kubectl.ok("get pods -l app=deck -o wide --no-headers");
    assert_eq!(decks.lines().count(), 1, "{decks}");
    assert_has(&decks, &["node-1"]);
}

fn follow_logs(kubectl: &Kubectl<'_>) {
    kubectl.ok(&format!(
        "run talk --image={IMAGE} --restart=Never -- sh -c 'for i in 1 2 3 4; do echo line $i; sleep 0.3; done'"
    ));
    kubectl.ok("wait --for=condition=Ready pod/talk --timeout=60s");
    assert_eq!(
        kubectl.ok("logs -f talk"),
        "line 1\nline 2\nline 3\nline 4\n"
    );
    assert_eq!(kubectl.ok("logs talk --tail=1 --since=10m"), "line 4\n");
    assert_eq!(kubectl.ok("logs hold -c side"), "side is up\n");
    assert_has(
        &kubectl.ok("logs hold --all-containers --prefix"),
        &["[pod/hold/side] side is up", "[pod/hold/main] main is up"],
    );
    assert_has(&kubectl.fails("logs hold -c none", ""), &["none"]);
}

fn copy_files(kubectl: &Kubectl<'_>) {
    let folder = kubectl.cluster.folder.path();
    let (there, back) = (folder.join("there"), folder.join("back"));
    // More than one frame of the stream, and not text.
    let bytes: Vec<u8> = (0..300_000u32)
        .map(|n| (n.wrapping_mul(n) >> 7) as u8)
        .collect();
    std::fs::write(&there, &bytes).unwrap();
    let _ = std::fs::remove_file(&back);
    kubectl.ok(&format!("cp {} hold:/tmp/cargo -c main", there.display()));
    kubectl.ok(&format!("cp hold:/tmp/cargo {} -c main", back.display()));
    assert!(std::fs::read(&back).unwrap() == bytes, "the copy differs");
}

fn use_a_terminal(kubectl: &Kubectl<'_>) {
    let line = format!(
        "stty rows 40 cols 100; {} -n {} exec -it hold -c main -- sh",
        kubectl.binary.display(),
        kubectl.namespace
    );
    let typed = "stty size\ntest -t 0 && echo a-$((40+2))-terminal\nexit 3\n";
    let words = ["-qec", line.as_str(), "/dev/null"];
    let output = kubectl.cluster.run(Path::new("script"), &words, typed);
    let (out, err) = texts(&output);
    assert_has(&out, &["40 100", "a-42-terminal"]);
    assert_eq!(output.status.code(), Some(3), "{out}{err}");

    let piped = kubectl.ok_with(
        &format!("run pipe --rm -i --restart=Never --image={IMAGE} -- sh -c 'cat; echo ends'"),
        "typed\n",
    );
    assert_has(&piped, &["typed", "ends", "deleted"]);
}

fn attach_and_debug(kubectl: &Kubectl<'_>, name: &str) {
    let script = "echo asks; read word; echo got $word";
    kubectl.ok(&format!(
        "run asker --image={IMAGE} --restart=Never --stdin --attach=false -- sh -c '{script}'"
    ));
    kubectl.ok("wait --for=condition=Ready pod/asker --timeout=60s");
    let heard = kubectl.ok_with("attach -i asker", "a-word\n");
    assert_has(&heard, &["got a-word"]);
    kubectl.ok("wait --for=jsonpath={.status.phase}=Succeeded pod/asker --timeout=60s");
    let refused = kubectl.fails("attach asker", "");
    assert_has(&refused, &["cannot attach a container in a completed pod"]);
    // A container that joins a pod which runs, sees its processes and is not started again.
    let probe = "cat /proc/1/cmdline; echo; echo looked";
    kubectl.ok(&format!(
        "debug asker --copy-to=second --container=main --image={IMAGE} -- echo copied"
    ));
    kubectl.until("logs second -c main", "copied");
    kubectl.ok("delete pod asker second --grace-period=1");
    kubectl.ok(&format!(
        "debug hold --image={IMAGE} --container={name} --target=main -- sh -c '{probe}'"
    ));
    kubectl.until(&format!("logs hold -c {name}"), "looked");
    let seen = kubectl.ok(&format!("logs hold -c {name}"));
    assert_has(&seen, &["sleep"]);
    let told = kubectl.ok(&format!(
        "debug node/node-1 --image={IMAGE} -- sh -c 'test -d /host/proc && echo node'"
    ));
    assert_has(&told, &["Creating debugging pod"]);
    let pod = told
        .split_whitespace()
        .find(|word| word.starts_with("node-debugger-"));
    kubectl.until(&format!("logs {}", pod.unwrap()), "node");
    kubectl.ok(&format!("delete pod {}", pod.unwrap()));
}

fn revise(kubectl: &Kubectl<'_>) {
    let env = "get deploy web -o 'jsonpath={.spec.template.spec.containers[0].env}'";
    kubectl.ok("rollout status deployment/web --timeout=60s");
    kubectl.ok(
        r#"patch deploy web -p '{"spec":{"template":{"spec":{"containers":[{"name":"c","env":[{"name":"SEA","$patch":"delete"}]}]}}}}'"#,
    );
    assert_eq!(kubectl.ok(env), r#"[{"name":"SAIL","value":"white"}]"#);
    kubectl.ok("rollout status deployment/web --timeout=60s");
    kubectl.ok("set image deployment/web c=sampan.local/absent:v9");
    assert_has(
        &kubectl.ok("rollout history deployment/web --revision=3"),
        &["absent:v9"],
    );
    assert_has(
        &kubectl.fails("rollout status deployment/web --timeout=1s", ""),
        &["timed out"],
    );
    kubectl.ok("rollout undo deployment/web --to-revision=1");
    kubectl.ok("rollout status deployment/web --timeout=60s");
    assert_has(&kubectl.ok(env), &["calm", "white"]);
    let history = kubectl.ok("rollout history deployment/web");
    let revisions: Vec<&str> = history
        .lines()
        .filter_map(|line| {
            line.split_once(' ')?
                .0
                .parse::<u32>()
                .ok()
                .map(|_| &line[..1])
        })
        .collect();
    assert_eq!(revisions, ["2", "3", "4"], "{history}");
}

fn disrupt(kubectl: &Kubectl<'_>) {
    kubectl.ok("create pdb calm --selector=app=web --min-available=2");
    kubectl.ok("wait '--for=jsonpath={.status.currentHealthy}=2' pdb/calm --timeout=60s");
    let drain = "drain node-1 --pod-selector=app=web --force --ignore-daemonsets";
    assert_has(
        &kubectl.fails(&format!("{drain} --timeout=1s"), ""),
        &["Cannot evict pod as it would violate the pod's disruption budget."],
    );
    kubectl.ok("delete pdb calm");
    assert_has(
        &kubectl.ok(&format!("{drain} --timeout=60s")),
        &["evicted", "drained"],
    );
    kubectl.ok("uncordon node-1");
    kubectl.ok("rollout status deployment/web --timeout=60s");
    kubectl.ok("taint nodes node-1 sea=rough:PreferNoSchedule");
    assert_has(
        &kubectl.ok("describe node node-1"),
        &["sea=rough:PreferNoSchedule"],
    );
    kubectl.ok("taint nodes node-1 sea-");
}

fn define_ships(kubectl: &Kubectl<'_>) {
    kubectl.ok_with("apply -f -", SHIPS);
    kubectl.ok("wait --for=condition=Established crd/ships.sea.example.com --timeout=30s");
    let ship =
        "apiVersion: sea.example.com/v1\nkind: Ship\nmetadata: {name: argo}\nspec: {masts: 2}\n";
    assert_has(&kubectl.ok_with("apply -f -", ship), &["created"]);
    assert_has(
        &kubectl.fails(
            "apply -f -",
            &ship.replace('2', "0").replace("argo", "wreck"),
        ),
        &["spec.masts", "should be greater than or equal to 1"],
    );
    assert_has(&kubectl.ok("get sh"), &["NAME", "MASTS", "argo"]);
    assert_has(
        &kubectl.ok("explain ship.spec"),
        &["What the ship is to be.", "masts", "-required-"],
    );
    assert_has(
        &kubectl.ok("explain hpa.spec --recursive"),
        &["stabilizationWindowSeconds"],
    );
    assert_has(
        &kubectl.ok("get networkpolicy"),
        &["closed", "POD-SELECTOR"],
    );
    kubectl.ok("autoscale deployment web --min=1 --max=3");
    assert_has(&kubectl.ok("get hpa"), &["Deployment/web"]);
    kubectl.ok("delete hpa web");
}

fn restart_the_sick(kubectl: &Kubectl<'_>) {
    kubectl.ok(
        "wait '--for=jsonpath={.status.containerStatuses[0].restartCount}=1' pod/sick --timeout=60s",
    );
    assert_eq!(kubectl.ok("logs sick --previous"), "ill\n");
    kubectl.until("logs sick", "well");
    let events = kubectl.ok("events --for pod/sick");
    assert_has(
        &events,
        &[
            "Unhealthy",
            "Killing",
            "failed liveness probe, will be restarted",
        ],
    );
    let sorted = kubectl.ok("get events --sort-by=.lastTimestamp");
    assert_has(&sorted, &["statefulset/crew", "BackoffLimitExceeded"]);
}

fn keep_limits(kubectl: &Kubectl<'_>) {
    let small = Kubectl {
        cluster: kubectl.cluster,
        binary: kubectl.binary.clone(),
        namespace: "small".into(),
    };
    small.ok("create namespace small");
    // The root certificate's map counts as well.
    small.ok("wait --for=create cm/kube-root-ca.crt --timeout=30s");
    small.ok("create quota tight --hard=configmaps=2");
    small.ok("wait '--for=jsonpath={.status.used.configmaps}=1' quota/tight --timeout=30s");
    small.ok("create configmap fits");
    assert_has(
        &small.fails("create configmap more", ""),
        &[
            "configmaps \"more\" is forbidden: exceeded quota: tight, requested: configmaps=1, used: configmaps=2, limited: configmaps=2",
        ],
    );
    small.ok_with(
        "create -f -",
        "apiVersion: v1\nkind: LimitRange\nmetadata: {name: range}\nspec: {limits: [{type: Container, default: {memory: 64Mi}, defaultRequest: {memory: 32Mi}, max: {memory: 1Gi}}]}\n",
    );
    small.ok(&format!("run tiny --image={IMAGE} --restart=Never -- echo"));
    assert_eq!(
        small.ok("get pod tiny -o 'jsonpath={.spec.containers[0].resources}'"),
        r#"{"limits":{"memory":"64Mi"},"requests":{"memory":"32Mi"}}"#
    );
    let token = small.ok("create token default --duration=20m");
    let own = small.ok(&format!("auth can-i --list --token={}", token.trim()));
    assert_has(&own, &["selfsubjectreviews.authentication.k8s.io"]);
    assert!(small.ok("auth can-i --list").contains("*.*"));
}

fn leave(kubectl: &Kubectl<'_>) {
    kubectl.ok("delete pod hold");
    let farewell = Path::new(&host_folder(kubectl.cluster)).join("pre-stop");
    assert_eq!(std::fs::read_to_string(farewell).unwrap(), "hold leaves\n");
    let held = r#"{"metadata": {"finalizers": ["example.com/held"]}}"#;
    kubectl.ok(&format!(
        "patch cm kube-root-ca.crt -n small --type=merge -p '{held}'"
    ));
    kubectl.ok("delete namespace hands small --wait=false");
    kubectl.ok("wait --for=condition=NamespaceFinalizersRemaining ns/small --timeout=30s");
    let why = "get ns small -o 'jsonpath={.status.conditions[?(@.status==\"True\")].message}'";
    assert_has(
        &kubectl.ok(why),
        &[
            "configmaps. has 1 resource instances",
            "example.com/held in 1 resource instances",
        ],
    );
    let free = r#"{"metadata": {"finalizers": null}}"#;
    kubectl.ok(&format!(
        "patch cm kube-root-ca.crt -n small --type=merge -p '{free}'"
    ));
    kubectl.ok("wait --for=delete ns/hands ns/small --timeout=60s");
    let left = kubectl.ok("get all,cm,secret,sa,ships,cronjobs,networkpolicy,quota,events -A");
    let left: Vec<&str> = left
        .lines()
        .filter(|line| line.starts_with("hands ") || line.starts_with("small "))
        .collect();
    assert!(left.is_empty(), "{left:#?}");
}
