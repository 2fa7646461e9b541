//! Files that may change while the server runs.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use base::Crew;
use futures::future::BoxFuture;

/// How long files may change before they are read: a pair is two files.
const SETTLE: Duration = Duration::from_millis(200);

/// What is done when any of the files may have changed.
pub(crate) type Look = Arc<dyn Fn() -> BoxFuture<'static, ()> + Send + Sync>;

/// The whole of a file that is text.
pub(crate) fn text(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

/// Looks again whenever one of the files, or something beside it, changes.
pub(crate) fn follow(
    name: &'static str,
    files: impl IntoIterator<Item = PathBuf>,
    crew: &Crew,
    look: &Look,
) -> Result<()> {
    let folders: BTreeSet<PathBuf> = files.into_iter().map(folder).collect();
    for folder in folders {
        let notice = base::Notice::of_folder(&folder);
        let notice = notice.with_context(|| folder.display().to_string())?;
        let (look, stop) = (Arc::clone(look), crew.stop());
        crew.spawn(name, async move {
            tokio::select! {
                () = follow_folder(name, notice, look) => {}
                () = stop.raised() => {}
            }
        });
    }
    Ok(())
}

async fn follow_folder(name: &'static str, mut notice: base::Notice, look: Look) {
    loop {
        if let Err(error) = notice.changed().await {
            return tracing::error!(%error, name, "files are not followed");
        }
        tokio::time::sleep(SETTLE).await;
        look().await;
    }
}

fn folder(path: PathBuf) -> PathBuf {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
        _ => PathBuf::from("."),
    }
}
