//! A laboratory of network namespaces. They live as long as a descriptor or a
//! thread holds them, so nothing is left behind however a test ends.
#![allow(dead_code)]

use std::fs::File;
use std::future::Future;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use nix::sched::{CloneFlags, setns, unshare};

/// How long a connection in the laboratory may take.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Runs a test in a thread with a network namespace of its own. Threads and
/// processes started from it share that namespace.
pub fn in_own_namespace<F: Future<Output = ()>>(body: impl FnOnce() -> F + Send + 'static) {
    let test = move || {
        unshare(CloneFlags::CLONE_NEWNET).expect("root is needed");
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_all().build().unwrap().block_on(body());
    };
    let result = std::thread::spawn(test).join();
    if let Err(panic) = result {
        std::panic::resume_unwind(panic);
    }
}

/// Another network namespace.
pub struct Namespace {
    file: File,
}

impl Namespace {
    pub fn new() -> Namespace {
        let make = || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            File::open("/proc/thread-self/ns/net").unwrap()
        };
        let file = std::thread::spawn(make).join().unwrap();
        Namespace { file }
    }

    /// The calling thread's own.
    pub fn current() -> Namespace {
        let file = File::open("/proc/thread-self/ns/net").unwrap();
        Namespace { file }
    }

    pub fn path(&self) -> PathBuf {
        format!("/proc/self/fd/{}", self.file.as_raw_fd()).into()
    }

    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let inside = || {
                setns(self.file.as_fd(), CloneFlags::CLONE_NEWNET).unwrap();
                work()
            };
            match scope.spawn(inside).join() {
                Ok(result) => result,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    pub fn sh(&self, script: &str) -> String {
        self.run(|| sh(script))
    }

    /// Serves TCP: each connection gets a line "name peer-address".
    pub fn serve(&self, name: &str, address: &str) {
        let listener = self.run(|| TcpListener::bind(address).unwrap());
        let name = name.to_owned();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let peer = stream.peer_addr().unwrap().ip();
                stream.write_all(format!("{name} {peer}").as_bytes()).ok();
            }
        });
    }

    /// Serves UDP in the same way.
    pub fn serve_udp(&self, name: &str, address: &str) {
        let socket = self.run(|| UdpSocket::bind(address).unwrap());
        let name = name.to_owned();
        std::thread::spawn(move || {
            let mut buffer = [0; 64];
            while let Ok((_, peer)) = socket.recv_from(&mut buffer) {
                socket
                    .send_to(format!("{name} {}", peer.ip()).as_bytes(), peer)
                    .ok();
            }
        });
    }

    /// What the server at `address` says, or the error.
    pub fn ask(&self, address: &str) -> Result<String, std::io::Error> {
        let address: SocketAddr = address.parse().unwrap();
        self.run(|| {
            let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer)
        })
    }

    /// The same by UDP.
    pub fn ask_udp(&self, address: &str) -> Result<String, std::io::Error> {
        self.run(|| {
            let socket = UdpSocket::bind("0.0.0.0:0")?;
            socket.set_read_timeout(Some(PATIENCE))?;
            socket.connect(address)?;
            socket.send(b"?")?;
            let mut buffer = [0; 64];
            let length = socket.recv(&mut buffer)?;
            Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
        })
    }
}

/// A shell script in the calling thread's namespace; its output.
pub fn sh(script: &str) -> String {
    let output = Command::new("sh").args(["-euc", script]).output().unwrap();
    let (out, err) = (output.stdout, output.stderr);
    let out = String::from_utf8_lossy(&out).into_owned();
    assert!(
        output.status.success(),
        "{script}: {out}{}",
        String::from_utf8_lossy(&err)
    );
    out
}

/// A machine outside of the node, the way of the node's default route:
/// the node is 192.0.2.1, the other 192.0.2.2. It counts what should never
/// get to it.
pub fn outside() -> Namespace {
    let outside = Namespace::new();
    let node = Namespace::current();
    let path = outside.path();
    sh(&format!(
        "ip link set lo up
         ip link add uplink type veth peer name eth0 netns {}
         ip address add 192.0.2.1/24 dev uplink
         ip link set uplink up",
        nsid(&path)
    ));
    outside.sh("ip link set lo up
         ip address add 192.0.2.2/24 dev eth0
         ip link set eth0 up
         nft add table ip leak
         nft 'add chain ip leak in { type filter hook prerouting priority 0; }'
         nft add rule ip leak in ip daddr 10.0.0.0/8 counter");
    node.sh("ip route add default via 192.0.2.2");
    outside
}

/// The namespace as other processes see it.
fn nsid(path: &std::path::Path) -> String {
    let fd = path.file_name().unwrap().to_string_lossy();
    format!("/proc/{}/fd/{fd}", std::process::id())
}

/// Packets to cluster ranges that got out of the node.
pub fn leaked(outside: &Namespace) -> u64 {
    let listing = outside.sh("nft list table ip leak");
    let after = listing.split("packets ").nth(1).unwrap();
    after.split(' ').next().unwrap().parse().unwrap()
}

pub fn address(ip: IpAddr, port: u16) -> String {
    SocketAddr::new(ip, port).to_string()
}
