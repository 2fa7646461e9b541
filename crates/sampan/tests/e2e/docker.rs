//! The docker command line against `sampan engine`.

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use crate::cluster::{Namespace, eventually};

const BINARY: &str = env!("CARGO_BIN_EXE_sampan");
const LINKS: &str = "sh,sleep,cat,echo,id,env,ls,true,touch,ip,nc,nslookup,netstat,grep,tty";

/// An engine with docker's socket, in namespaces of its own.
pub(crate) struct Engine {
    namespace: Namespace,
    folder: tempfile::TempDir,
    process: Option<Child>,
}

impl Engine {
    /// An engine, if there is a client to speak to it.
    pub(crate) fn for_docker() -> Option<Engine> {
        let places = ["/usr/local/bin/docker", "/usr/bin/docker"];
        if !places.iter().any(|place| Path::new(place).exists()) {
            eprintln!("no docker command line on this machine");
            return None;
        }
        Some(Engine::start())
    }

    /// Where its network is.
    pub(crate) fn network(&self) -> std::path::PathBuf {
        self.namespace.network()
    }

    fn start() -> Engine {
        let folder = tempfile::Builder::new()
            .prefix("sampan-docker-")
            .tempdir()
            .unwrap();
        let made = Command::new(BINARY)
            .args(["image", "from-binary", "busybox", "--link", LINKS])
            .args(["--binary", "/bin/busybox", "--data-dir"])
            .arg(folder.path())
            .status()
            .unwrap();
        assert!(made.success());
        let mut engine = Engine {
            namespace: Namespace::new(),
            folder,
            process: None,
        };
        engine.boot();
        engine
    }

    pub(crate) fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn boot(&mut self) {
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.path("log"))
            .unwrap();
        let process = self
            .namespace
            .command(BINARY)
            .args(["engine", "--data-dir"])
            .arg(self.folder.path())
            .arg("--docker-socket")
            .arg(self.path("docker.sock"))
            .arg("--cri-socket")
            .arg(self.path("cri.sock"))
            .stdin(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        self.process = Some(process);
        let socket = self.path("docker.sock");
        eventually("docker's socket", || {
            std::os::unix::net::UnixStream::connect(&socket).ok()
        });
    }

    pub(crate) fn kill(&mut self) {
        let mut process = self.process.take().unwrap();
        process.kill().unwrap();
        process.wait().unwrap();
    }

    /// Runs a script whose `docker` speaks to this engine.
    fn shell(&self, script: &str) -> Output {
        let socket = format!("unix://{}", self.path("docker.sock").display());
        self.namespace
            .command("/bin/bash")
            // Another mount namespace begins at its root.
            .args([
                "-uc",
                &format!("cd {}\n{script}", self.folder.path().display()),
            ])
            .env("DOCKER_HOST", socket)
            .env("DOCKER_CONFIG", self.path("client"))
            .output()
            .unwrap()
    }

    /// Its standard output, when it has the right exit code.
    pub(crate) fn code(&self, wanted: i32, script: &str) -> String {
        let output = self.shell(script);
        let (out, err) = (
            String::from_utf8_lossy(&output.stdout).into_owned(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        );
        let log = std::fs::read_to_string(self.path("log")).unwrap_or_default();
        assert_eq!(
            output.status.code(),
            Some(wanted),
            "{script}\n{out}\n{err}\n{log}"
        );
        out + if wanted == 0 { "" } else { &err }
    }

    pub(crate) fn ok(&self, script: &str) -> String {
        self.code(0, script)
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if self.process.is_some() {
            self.shell("docker ps -aq | xargs -r docker rm -f");
            self.kill();
        }
        // Inside, for it also takes rules of the packet filter away.
        let purged = self
            .namespace
            .command(BINARY)
            .args(["purge", "--data-dir"])
            .arg(self.folder.path())
            .status()
            .unwrap();
        assert!(purged.success());
    }
}

#[test]
fn docker_runs_its_everyday_commands() {
    let Some(mut engine) = Engine::for_docker() else {
        return;
    };
    assert!(
        engine
            .ok("docker version")
            .contains("API version:      1.51")
    );
    assert!(engine.ok("docker images").contains("busybox"));
    assert_eq!(engine.ok("docker run --rm busybox echo hello"), "hello\n");
    assert_eq!(
        engine.ok("echo in | docker run --rm -i busybox cat"),
        "in\n"
    );
    engine.code(7, "docker run --rm busybox sh -c 'exit 7'");
    assert!(
        engine
            .code(127, "docker run --rm busybox nope")
            .contains("not found in $PATH")
    );
    engine.code(126, "docker run --rm busybox /etc");
    engine.code(
        125,
        "docker run --rm --security-opt apparmor=own busybox true",
    );
    let terminal =
        "script -qec \"docker run --rm -it busybox sh -c 'tty; exit 5'\" /dev/null </dev/null";
    assert!(engine.code(5, terminal).contains("/dev/pts/0"));
    everyday(&engine);
    networks(&engine);
    engine.ok("docker run -d --name after --restart always busybox sleep 1000");
    engine.kill();
    engine.boot();
    let left = engine.ok("docker ps --format '{{.Names}} {{.State}}'");
    assert_eq!(left, "after running\n");
    engine.ok("docker rm -f after");
    assert_eq!(engine.ok("docker ps -aq"), "");
    assert_eq!(
        engine.ok("docker rmi -f busybox | tail -1 | cut -c1-8"),
        "Deleted:\n"
    );
}

fn everyday(engine: &Engine) {
    engine.ok("docker run -d --name web -e A=b -v keep:/data busybox sh -c 'echo up; sleep 1000'");
    assert!(engine.ok("docker ps").contains("web"));
    assert_eq!(engine.ok("docker exec web sh -c 'echo $A'"), "b\n");
    assert_eq!(engine.code(3, "docker exec web sh -c 'exit 3'"), "");
    engine.ok("echo text > file && docker cp file web:/tmp/there && docker cp web:/tmp/there back");
    assert_eq!(engine.ok("cat back"), "text\n");
    assert!(engine.ok("docker diff web").contains("A /tmp/there"));
    assert!(engine.ok("docker top web").contains("sleep 1000"));
    assert!(engine.ok("docker stats --no-stream web").contains("web"));
    engine.ok("docker pause web && docker unpause web && docker update -m 64m web");
    engine.ok("docker restart -t 0 web && docker rename web site && docker stop -t 0 site");
    assert!(engine.ok("docker logs site").starts_with("up\n"));
    let state = "docker inspect site --format '{{.State.Status}} {{.State.ExitCode}}'";
    assert_eq!(engine.ok(state), "exited 137\n");
    assert!(
        engine
            .ok("docker export site | tar t")
            .contains("tmp/there")
    );
    engine.ok("docker save busybox -o saved.tar && docker load -i saved.tar");
    engine.ok("docker rm site && docker volume rm keep && docker system df && docker info");
}

fn networks(engine: &Engine) {
    engine.ok("docker network create front");
    engine.ok("docker run -d --name web --network front --network-alias site -p 8099:80 busybox sh -c 'while true; do echo page | nc -l -p 80; done'");
    engine.ok("docker exec web sh -c 'until netstat -ltn | grep -q :80; do true; done'");
    assert_eq!(
        engine.ok("/bin/busybox nc -w 4 127.0.0.1 8099 </dev/null"),
        "page\n"
    );
    assert_eq!(engine.ok("docker port web"), "80/tcp -> 0.0.0.0:8099\n");
    let address = "{{.NetworkSettings.Networks.front.IPAddress}}";
    let address = engine.ok(&format!("docker inspect web --format '{address}'"));
    let asked = engine.ok("docker run --rm --network front busybox nslookup site");
    assert!(asked.contains(address.trim()), "{asked}");
    engine.code(1, "docker network rm front");
    engine.ok("docker rm -f web && docker network rm front");
}
