//! Listeners: unix sockets that are made ready, and connections, each a task of its own and only so
//! many at one time.

use std::future::Future;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::Stop;

/// After a connection that could not be accepted, most often for want of descriptors.
const PAUSE: Duration = Duration::from_millis(50);

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Somebody else answers on it.
    #[error("{0} is in use by another server")]
    InUse(PathBuf),
    /// The system refuses it.
    #[error("cannot listen on {0}")]
    Io(PathBuf, #[source] io::Error),
}

/// Listens on a unix socket that only this user and group reach. One that somebody answers on stays;
/// one that is left over gives way.
pub async fn unix(path: &Path) -> Result<UnixListener, ListenError> {
    if let Ok(stream) = UnixStream::connect(path).await
        && listens(&stream)
    {
        return Err(ListenError::InUse(path.to_owned()));
    }
    replace(path).map_err(|error| ListenError::Io(path.to_owned(), error))
}

/// Whether the process lives that listens at the other end. When it was killed while it started a
/// child, the child holds its socket until it becomes another program, and nobody answers.
fn listens(stream: &UnixStream) -> bool {
    let pid = stream.peer_cred().ok().and_then(|peer| peer.pid());
    // A process of a namespace beside ours has no number here.
    let named = pid.filter(|pid| *pid > 0);
    named.is_none_or(|pid| Path::new("/proc").join(pid.to_string()).exists())
}

/// The same where whoever answered before is known to be gone, or to give way.
pub fn replace(path: &Path) -> io::Result<UnixListener> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    // Whoever can connect gives orders.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))?;
    Ok(listener)
}

/// Where connections come from.
pub trait Listener: Send {
    /// A connection.
    type Stream: Send + 'static;
    /// The next one. Safe to cancel.
    fn next(&self) -> impl Future<Output = io::Result<Self::Stream>> + Send;
}

impl Listener for UnixListener {
    type Stream = UnixStream;

    async fn next(&self) -> io::Result<UnixStream> {
        self.accept().await.map(|(stream, _)| stream)
    }
}

impl Listener for TcpListener {
    type Stream = TcpStream;

    async fn next(&self) -> io::Result<TcpStream> {
        self.accept().await.map(|(stream, _)| stream)
    }
}

/// Gives each connection to `work`, at most `at_once` at one time. Ends when the process stops, and
/// all connections with it.
pub async fn serve<L, W, F>(listener: L, at_once: usize, stop: Stop, work: W)
where
    L: Listener,
    W: Fn(L::Stream) -> F,
    F: Future<Output = ()> + Send + 'static,
{
    let slots = Arc::new(Semaphore::new(at_once));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.next() => accepted,
            Some(_) = connections.join_next() => continue,
            () = stop.raised() => return,
        };
        let stream = match accepted {
            Ok(stream) => stream,
            Err(error) => {
                tracing::warn!(%error, "connection not accepted");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let slot = tokio::select! {
            slot = Arc::clone(&slots).acquire_owned() => slot,
            () = stop.raised() => return,
        };
        let Ok(slot) = slot else {
            return;
        };
        let connection = work(stream);
        connections.spawn(async move {
            connection.await;
            drop(slot);
        });
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    const LISTENS: &str = "LISTENER_TEST_SOCKET";

    /// Run as a process of its own: listens, leaves the socket to a child, and is gone.
    #[test]
    #[expect(clippy::zombie_processes, reason = "the child outlives this process")]
    fn dies_with_a_child_at_its_start() {
        let Some(path) = std::env::var_os(LISTENS) else {
            return;
        };
        let listener = std::os::unix::net::UnixListener::bind(path).unwrap();
        let child = std::process::Command::new("sleep")
            .arg("1000")
            .stdin(std::os::fd::OwnedFd::from(listener))
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        println!("child={}=", child.id());
    }

    #[tokio::test]
    async fn a_socket_that_only_a_child_still_holds_gives_way() {
        let path = std::env::temp_dir().join(format!("left-{}.sock", std::process::id()));
        let output = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "--nocapture"])
            .arg("listener::tests::dies_with_a_child_at_its_start")
            .env(LISTENS, &path)
            .output()
            .unwrap();
        let words = String::from_utf8(output.stdout).unwrap();
        let child = words.split('=').nth(1).unwrap_or_else(|| panic!("{words}"));
        UnixStream::connect(&path).await.unwrap();
        let taken = unix(&path).await;
        let killed = std::process::Command::new("kill").arg(child).status();
        assert!(killed.unwrap().success());
        let mine = taken.unwrap();
        assert!(matches!(unix(&path).await, Err(ListenError::InUse(_))));
        drop(mine);
        std::fs::remove_file(path).unwrap();
    }

    #[tokio::test]
    async fn connections_wait_for_their_turn_and_end_with_the_process() {
        let path = std::env::temp_dir().join(format!("listener-{}.sock", std::process::id()));
        let listener = unix(&path).await.unwrap();
        assert!(matches!(unix(&path).await, Err(ListenError::InUse(_))));
        let stop = Stop::new();
        let serving = tokio::spawn(serve(
            listener,
            1,
            stop.clone(),
            |mut stream: UnixStream| async move {
                let mut byte = [0];
                while stream.read_exact(&mut byte).await.is_ok() {
                    drop(stream.write_all(&byte).await);
                }
            },
        ));
        let mut byte = [7];
        let mut first = UnixStream::connect(&path).await.unwrap();
        first.write_all(&byte).await.unwrap();
        first.read_exact(&mut byte).await.unwrap();
        let mut second = UnixStream::connect(&path).await.unwrap();
        second.write_all(&byte).await.unwrap();
        drop(first);
        second.read_exact(&mut byte).await.unwrap();
        stop.raise();
        serving.await.unwrap();
        assert_eq!(second.read(&mut byte).await.unwrap_or(0), 0);
        // The file is left over, and gives way.
        drop(unix(&path).await.unwrap());
        std::fs::remove_file(path).unwrap();
    }
}
