//! Doing things inside another network namespace.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;

use nix::sched::{CloneFlags, setns};
use tokio::sync::oneshot;

use crate::Error;

/// Opens the namespace a path names.
pub(crate) fn open(netns: &Path) -> Result<Arc<File>, Error> {
    let file = File::open(netns).map_err(Error::io(format!("open {}", netns.display())))?;
    Ok(Arc::new(file))
}

/// Runs `work` in a thread of its own that has entered the namespace and ends
/// afterwards: no pooled thread ever carries a foreign namespace. Sockets that
/// `work` opens belong to that namespace for good.
pub(crate) async fn inside<T: Send + 'static>(
    netns: Arc<File>,
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let (done, result) = oneshot::channel();
    let runtime = tokio::runtime::Handle::current();
    let body = move || {
        let _context = runtime.enter();
        let entered = setns(netns.as_fd(), CloneFlags::CLONE_NEWNET)
            .map_err(|errno| Error::io("enter the pod's network namespace")(errno.into()));
        // The receiver is gone only when the caller was cancelled.
        done.send(entered.and_then(|()| work())).ok();
    };
    std::thread::Builder::new()
        .name("pod-netns".to_owned())
        .spawn(body)
        .map_err(Error::io("start a thread"))?;
    result.await.map_err(|_| Error::Interrupted)?
}
