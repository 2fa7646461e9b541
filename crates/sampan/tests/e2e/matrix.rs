//! The docker command line's commands and options, row by row as `docs/compat.md` has them.

use crate::docker::Engine;

/// What a row runs, and the exit code of it.
struct Row {
    name: &'static str,
    code: i32,
    script: &'static str,
}

const fn row(name: &'static str, script: &'static str) -> Row {
    Row {
        name,
        code: 0,
        script,
    }
}

/// A row whose last command is refused: docker's command line ends with 1, `run` with 125.
const fn refused(name: &'static str, code: i32, script: &'static str) -> Row {
    Row { name, code, script }
}

/// In this order: later rows take what earlier ones have made.
const ROWS: &[Row] = &[
    row(
        "version",
        "docker version && docker info && docker context ls",
    ),
    row(
        "run",
        "docker run -d --name aa --label l=1 -e A=b -w /tmp -u 0 --init --hostname h busybox sleep 1000",
    ),
    row(
        "create, start",
        "docker create --name bb busybox sleep 1000 && docker start bb",
    ),
    row(
        "stop, restart",
        "docker restart -t 0 bb && docker stop -t 0 bb && docker start bb",
    ),
    row(
        "kill, wait",
        "docker kill bb && test $(docker wait bb) = 137",
    ),
    row(
        "pause, unpause",
        "docker pause aa && docker ps | grep Paused && docker unpause aa",
    ),
    row(
        "ps",
        "docker ps -a --filter name=bb --format '{{.Status}}' --size | grep Exited && docker ps -n 1 && docker ps -l",
    ),
    row(
        "inspect",
        "test \"$(docker inspect -f '{{.Config.Hostname}}' aa)\" = h && docker inspect --size --type container aa",
    ),
    row(
        "exec",
        "docker exec -e X=1 -w / -u 0 aa sh -c 'test $X = 1' && docker exec -d aa sleep 9",
    ),
    row(
        "logs",
        "docker run --name ll busybox sh -c 'echo one; echo two' && test $(docker logs -t --tail 1 --since 10m --until 1m ll | wc -l) = 0 && test $(docker logs --tail 1 ll) = two && docker logs -f ll && docker rm ll",
    ),
    row(
        "attach",
        "docker start bb && (docker attach --no-stdin bb & docker kill bb; wait)",
    ),
    row(
        "top, stats, port",
        "docker top aa -o pid,cmd && docker stats --no-stream aa && docker port aa",
    ),
    row(
        "rename, update",
        "docker rename aa cc && docker update --cpus 1 -m 64m --memory-swap 128m --pids-limit 99 --restart no cc && docker rename cc aa",
    ),
    row(
        "cp, diff",
        "echo x > f && docker cp f aa:/tmp/f && docker cp aa:/tmp/f - | tar t && docker diff aa | grep /tmp/f",
    ),
    row(
        "export, commit, import",
        "docker export aa | docker import - imported:1 && docker commit -m m -c 'ENV Q=1' aa made:1 && docker run --rm made:1 sh -c 'test $Q = 1'",
    ),
    row(
        "health",
        "docker run -d --name ww --health-cmd true --health-interval 100ms --health-retries 1 busybox sleep 1000 && read line < <(exec timeout 30 docker events --since 1m --filter container=ww --filter event=health_status) && kill $! && docker inspect -f '{{.State.Health.Status}}' ww | grep -qx healthy && docker rm -f ww",
    ),
    row(
        "--rm, -i, --cidfile",
        "echo in | docker run --rm -i --cidfile id busybox cat && test -s id",
    ),
    row(
        "--entrypoint, --env-file",
        "echo V=7 > env && docker run --rm --env-file env --entrypoint sh busybox -c 'test $V = 7'",
    ),
    row(
        "-v, --mount",
        "mkdir -p d && echo y > d/y && docker run --rm -v $PWD/d:/d:ro -v nn:/n --mount type=tmpfs,target=/t --mount type=volume,source=mm,target=/m --mount type=bind,source=$PWD/d,target=/e,readonly,bind-propagation=rprivate busybox sh -c 'cat /d/y /e/y && touch /n/x /t/x /m/x'",
    ),
    row(
        "--mount type=image",
        "docker run --rm --mount type=image,source=busybox,target=/i busybox ls /i/bin",
    ),
    row(
        "--tmpfs, --read-only, --shm-size",
        "docker run --rm --tmpfs /x:size=1m --read-only --shm-size 8m busybox touch /x/y",
    ),
    row(
        "-p, -P, --expose",
        "docker run -d --name pp --expose 81 -p 127.0.0.1:0:80 -p 8000-8001:90-91/udp -P busybox sleep 1000 && docker port pp 80 && docker port pp 81 && docker rm -f pp",
    ),
    row(
        "-p …/sctp",
        "docker run -d --name pp -p 8132:80/sctp busybox sleep 1000 && docker port pp | grep sctp && docker rm -f pp",
    ),
    row(
        "--network",
        "docker network create --subnet 10.77.0.0/24 net && docker run --rm --network name=net,alias=z,ip=10.77.0.9 --mac-address 02:42:0a:4d:00:09 --link-local-ip 169.254.9.9 busybox sh -c 'ip addr | grep 10.77.0.9'",
    ),
    row(
        "--dns, --add-host, --domainname",
        "docker run --rm --dns 192.0.2.1 --dns-search x.y --dns-option ndots:2 --add-host k:192.0.2.7 --domainname d.e busybox sh -c 'grep 192.0.2.1 /etc/resolv.conf && grep 192.0.2.7 /etc/hosts'",
    ),
    row(
        "--restart",
        "docker run -d --name rr --restart on-failure:1 busybox sh -c false && docker wait rr && docker rm -f rr",
    ),
    row(
        "--stop-signal, --stop-timeout",
        "docker run -d --name ss --stop-signal KILL --stop-timeout 1 busybox sleep 1000 && docker stop ss && docker rm ss",
    ),
    row(
        "--label-file, --annotation",
        "echo k=v > lf && docker run --rm --label-file lf --annotation n=1 busybox true",
    ),
    row(
        "--pid, --ipc, --uts, --cgroupns, --userns",
        "docker run --rm --pid host --ipc host --uts host --cgroupns host --userns host busybox true && docker run --rm --pid container:aa --network container:aa busybox true",
    ),
    row(
        "--pull, --platform",
        "docker run --rm --pull never --platform linux/amd64 busybox true || test $(uname -m) != x86_64",
    ),
    row(
        "--log-driver",
        "docker run --rm --log-driver local --log-opt max-size=1m --log-opt max-file=2 busybox true && docker run --rm --log-driver none busybox echo x",
    ),
    refused(
        "--log-driver gelf",
        125,
        "docker run --rm --log-driver gelf busybox true",
    ),
    row(
        "--log-driver fluentd",
        "docker run --rm --log-driver fluentd --log-opt fluentd-async=true --log-opt fluentd-address=unix:///nowhere --log-opt tag='{{.Name}}' busybox true",
    ),
    row(
        "--sig-proxy, --detach-keys",
        "docker run --rm --sig-proxy=false --detach-keys ctrl-x busybox true",
    ),
    row(
        "cpu",
        "docker run --rm --cpus 0.5 --cpu-shares 512 --cpuset-cpus 0 --cpuset-mems 0 busybox true && docker run --rm --cpu-quota 50000 --cpu-period 100000 busybox true",
    ),
    row(
        "memory",
        "docker run --rm -m 64m --memory-reservation 32m --memory-swap 128m --memory-swappiness 10 --oom-kill-disable=false --oom-score-adj 5 busybox true",
    ),
    row(
        "blkio",
        "docker run --rm --blkio-weight 300 busybox true && dev=$(ls /dev/vda /dev/sda /dev/nvme0n1 /dev/loop0 2>/dev/null | head -1) && docker run --rm --device-read-bps $dev:1mb --device-write-bps $dev:1mb --device-read-iops $dev:99 --device-write-iops $dev:99 busybox true",
    ),
    row(
        "--pids-limit, --ulimit, --device, --device-cgroup-rule",
        "docker run --rm --pids-limit 9 --ulimit nofile=64:128 --device /dev/null:/dev/mine:rw --device-cgroup-rule 'c 1:* rmw' busybox sh -c 'ls /dev/mine && test $(ulimit -n) = 64'",
    ),
    refused(
        "--gpus",
        125,
        "test ! -e /etc/cdi && docker run --rm --gpus all busybox true",
    ),
    refused(
        "--storage-opt",
        125,
        "docker run --rm --storage-opt colour=1 busybox true",
    ),
    row(
        "--cgroup-parent",
        "docker run --rm --cgroup-parent /$GROUP busybox true",
    ),
    row(
        "--privileged, --cap-add, --cap-drop",
        "docker run --rm --privileged busybox true && docker run --rm --cap-drop ALL --cap-add CHOWN busybox true",
    ),
    row(
        "--security-opt",
        "docker run --rm --security-opt no-new-privileges --security-opt seccomp=unconfined --security-opt apparmor=unconfined --security-opt label=disable --security-opt systempaths=unconfined --security-opt writable-cgroups=true busybox true",
    ),
    row(
        "--sysctl, --group-add",
        "docker run --rm --sysctl net.ipv4.ip_forward=1 --group-add 77 busybox sh -c 'id | grep 77'",
    ),
    row(
        "images, history, tag",
        "docker images -a --digests --no-trunc && docker history busybox && docker tag busybox other:2 && docker image inspect other:2",
    ),
    row("save, load", "docker save busybox other:2 | docker load"),
    row(
        "rmi, image prune",
        "docker rmi other:2 made:1 && docker image prune -f && docker image prune -af",
    ),
    refused("search", 1, "docker search 127.0.0.1:1/nothing"),
    refused("pull", 1, "docker pull 127.0.0.1:1/nothing"),
    refused(
        "push",
        1,
        "docker tag busybox 127.0.0.1:1/x && docker push 127.0.0.1:1/x",
    ),
    refused("login", 1, "docker login -u u -p p 127.0.0.1:1"),
    row(
        "logout, manifest",
        "docker logout 127.0.0.1:1 && ! docker manifest inspect --insecure 127.0.0.1:1/x",
    ),
    row(
        "build, builder prune",
        "printf 'FROM busybox\\nRUN echo hi > /x\\n' > Dockerfile && mkdir -p ctx && DOCKER_BUILDKIT=0 docker build -t built -f Dockerfile ctx && docker builder prune -af && docker run --rm built cat /x",
    ),
    row(
        "volume",
        "docker volume create --label x=y vol && docker volume ls -f label=x=y && docker volume inspect vol && docker volume rm vol && docker volume create --opt type=tmpfs --opt device=tmpfs --opt o=size=1m tt && docker run --rm -v tt:/t busybox touch /t/x && docker volume rm tt && docker volume prune -af",
    ),
    row(
        "network",
        "docker network ls && docker network inspect net && docker network connect --alias q net aa && docker network disconnect net aa && docker network rm net && docker network create --internal ii && docker network prune -f",
    ),
    row(
        "network drivers",
        "docker run --rm --network none busybox true && docker run --rm --network host busybox true",
    ),
    row(
        "events",
        "docker events --since 1h --until 0s --filter container=aa | grep start",
    ),
    row("system", "docker system df -v && docker system prune -f"),
    refused("checkpoint", 1, "docker checkpoint create aa one"),
    refused("swarm", 1, "docker service ls"),
    row(
        "rm, container prune",
        "docker rm -f aa && docker container prune -f && test -z \"$(docker ps -aq)\"",
    ),
];

#[test]
fn every_row_of_the_matrix() {
    let Some(engine) = Engine::for_docker() else {
        return;
    };
    // Parents of cgroups that somebody names stay, as with docker.
    let group = format!("sampan-matrix-{}", std::process::id());
    for row in ROWS {
        eprintln!("{}", row.name);
        engine.code(row.code, &format!("set -e\nGROUP={group}\n{}", row.script));
    }
    drop(engine);
    let controllers = std::fs::read_dir("/sys/fs/cgroup").unwrap();
    let mut folders: Vec<_> = controllers.map(|entry| entry.unwrap().path()).collect();
    folders.push("/sys/fs/cgroup".into());
    for folder in folders.iter().map(|folder| folder.join(&group)) {
        if folder.exists() {
            std::fs::remove_dir(folder).unwrap();
        }
    }
}
