//! The documented service under a real systemd, which makes the cgroups of pods and of docker's
//! containers, too.

use crate::cluster::ON_ANY_DISK;
use crate::kubectl::{IMAGE, kubectls};
use crate::machine::{Layout, Machine, missing};

const BINARY: &str = env!("CARGO_BIN_EXE_sampan");
const UNIT: &str = include_str!("../../../../docs/sampan.service");

/// A pod with limits, and what is to be found of it.
const PODS: &str = r#"
systemctl start sampan.service
systemctl show sampan.service -p ActiveState --value | grep -x active
export KUBECONFIG=$MACHINE/data/admin.kubeconfig
kubectl wait --for=condition=Ready node/node-1 --timeout=60s
kubectl apply -f - <<'POD'
apiVersion: v1
kind: Pod
metadata: {name: web}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: main
    image: IMAGE
    args: [demo-app, serve]
    resources: {requests: {cpu: 100m, memory: 32Mi}, limits: {cpu: 500m, memory: 64Mi}}
POD
kubectl wait --for=condition=Ready pod/web --timeout=60s
uid=$(kubectl get pod web -o 'jsonpath={.metadata.uid}' | tr - _)
slice=kubepods-burstable-pod$uid.slice
id=$(kubectl get pod web -o 'jsonpath={.status.containerStatuses[0].containerID}')
scope=sampan-${id##*/}.scope
shown() { systemctl show "$1" -p "$2" --value; }
test "$(shown $slice MemoryLimit)" = 67108864
test "$(shown $scope Slice)" = $slice
test "$(shown $scope MemoryLimit)" = 67108864
test "$(shown $scope CPUQuotaPerSecUSec)" = 500ms
systemd-cgls --no-pager /kubepods.slice | grep -F "$scope"
kubectl patch pod web --subresource resize --patch \
  '{"spec": {"containers": [{"name": "main", "resources": {"limits": {"memory": "96Mi"}}}]}}'
kubectl wait --for='jsonpath={.status.containerStatuses[0].resources.limits.memory}=96Mi' pod/web --timeout=60s
test "$(shown $scope MemoryLimit)" = 100663296
test "$(shown $slice MemoryLimit)" = 100663296
systemctl stop sampan.service
test "$(shown $scope ActiveState)" = active
systemctl start sampan.service
kubectl wait --for=condition=Ready pod/web --timeout=60s
test "$(kubectl get pod web -o 'jsonpath={.status.containerStatuses[0].containerID}')" = "$id"
kubectl delete pod web --timeout=60s
systemctl stop sampan.service
BINARY purge --data-dir $MACHINE/data
systemctl list-units --all --no-legend 'sampan-*' 'kubepods-*-pod*' | tee $MACHINE/left
test ! -s $MACHINE/left
"#;

/// A container of docker's, the same way.
const DOCKER: &str = r#"
systemctl start docker.service
export DOCKER_HOST=unix://$MACHINE/docker.sock
test "$(docker info -f '{{.CgroupDriver}}')" = systemd
id=$(docker run -d --memory 64m --pids-limit 40 IMAGE demo-app serve)
pid=$(docker inspect -f '{{.State.Pid}}' $id)
scope=$(sed -n 's,^0::/system.slice/,,p' /proc/$pid/cgroup)
shown() { systemctl show "$1" -p "$2" --value; }
test "$(shown $scope MemoryLimit)" = 67108864
test "$(shown $scope TasksMax)" = 40
docker update --memory 96m --memory-swap 96m $id
test "$(shown $scope MemoryLimit)" = 100663296
docker run -d --cgroup-parent /a/b IMAGE 2>&1 | grep 'should be a valid slice'
docker rm -f $(docker ps -aq)
systemctl list-units --all --no-legend 'sampan-*' | tee $MACHINE/left
test ! -s $MACHINE/left
"#;

fn machine(name: &str, unit: String) -> Option<Machine> {
    if let Some(why) = missing() {
        eprintln!("skipped: {why}");
        return None;
    }
    let mut machine = Machine::new(Layout::Hybrid);
    let made = std::process::Command::new(BINARY)
        .args(["image", "from-binary", IMAGE, "--data-dir"])
        .arg(machine.folder.path().join("data"))
        .status()
        .unwrap();
    assert!(made.success());
    machine.units.push((name.to_owned(), unit));
    Some(machine)
}

fn run(machine: Machine, script: &str) {
    let kubectl = kubectls().pop().unwrap();
    let script = script.replace("IMAGE", IMAGE).replace("BINARY", BINARY);
    let script = format!(
        "set -ex\nkubectl() {{ {} \"$@\"; }}\n{script}",
        kubectl.display()
    );
    let said = machine.run(&script);
    assert_eq!(said.code, 0, "{}", said.output);
}

#[test]
fn pods_are_units_of_the_service_that_the_docs_show() {
    let start = "/usr/local/bin/sampan server";
    assert!(UNIT.contains(start));
    let Some(mut machine) = machine("sampan.service", String::new()) else {
        return;
    };
    let folder = machine.folder.path().display().to_string();
    let flags = ON_ANY_DISK.join(" ");
    let own = format!("{BINARY} server --data-dir {folder}/data --node-name node-1 {flags}");
    let unit = UNIT.replace(start, &own).replace(
        "[Service]\n",
        &format!("[Service]\nStandardError=file:{folder}/output\n"),
    );
    machine.units[0].1 = unit.replace("[Unit]\n", "[Unit]\nDefaultDependencies=no\n");
    run(machine, PODS);
}

#[test]
fn containers_of_docker_are_units() {
    if !["/usr/local/bin/docker", "/usr/bin/docker"]
        .iter()
        .any(|p| std::path::Path::new(p).exists())
    {
        eprintln!("skipped: no docker command line on this machine");
        return;
    }
    let Some(mut machine) = machine("docker.service", String::new()) else {
        return;
    };
    let folder = machine.folder.path().display().to_string();
    machine.units[0].1 = format!(
        "[Unit]\nDefaultDependencies=no\n[Service]\nType=notify\nKillMode=process\nDelegate=yes\n\
         ExecStart={BINARY} engine --data-dir {folder}/data --docker-socket {folder}/docker.sock \
         --cri-socket {folder}/cri.sock --exec-opt native.cgroupdriver=systemd\n"
    );
    run(machine, DOCKER);
}
