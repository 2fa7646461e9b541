//! The configuration as a file: made at first start, read, and read again when it changes.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base::{Crew, Stop};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::config::ConfigError;
use crate::{Encryption, EncryptionConfiguration, Rules, SealError, local};

/// After a change the file is given this long to become whole.
const SETTLE: Duration = Duration::from_millis(100);

/// Why the configuration in a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// Not readable, writable, or cannot be watched.
    #[error("encryption provider configuration file {}", path.display())]
    Io {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// Not valid.
    #[error("encryption provider configuration file {}: {source}", path.display())]
    Config {
        path: PathBuf,
        #[source]
        source: ConfigError,
    },
    /// Its keys cannot be used, or a service does not answer.
    #[error(transparent)]
    Seal(#[from] SealError),
}

/// Writes a configuration with a new random key, readable by the owner only, unless the file
/// exists: secrets are encrypted by secretbox, and what was stored plain stays readable.
pub fn create_default(path: &Path) -> Result<(), FileError> {
    if path.exists() {
        return Ok(());
    }
    let key: [u8; 32] = local::random()?;
    let text = format!(
        "# Made at the first start. Without this file no secret in the store can be read:\n\
         # keep a copy of it, apart from copies of the store.\n\
         apiVersion: apiserver.config.k8s.io/v1\n\
         kind: EncryptionConfiguration\n\
         resources:\n\
         - resources: [secrets]\n\
         \x20 providers:\n\
         \x20 - secretbox:\n\
         \x20     keys:\n\
         \x20     - name: key1\n\
         \x20       secret: {}\n\
         \x20 - identity: {{}}\n",
        STANDARD.encode(key)
    );
    base::files::write_atomic(path, text.as_bytes(), 0o600).map_err(|source| FileError::Io {
        path: path.to_owned(),
        source,
    })
}

/// Reads the file; with `reload`, follows it from then on. An invalid change is reported, and the
/// rules stay as they were.
pub async fn load(path: &Path, reload: bool, crew: &Crew) -> Result<Arc<Encryption>, FileError> {
    let text = read(path)?;
    let rules = parse(path, &text)?;
    for service in rules.services() {
        if let Err(why) = service.refresh().await {
            tracing::warn!(%why, "key management service is not ready");
        }
    }
    let mut services = follow(&rules, crew);
    let encryption = Encryption::new(rules);
    if !reload {
        return Ok(encryption);
    }
    let io = |source| FileError::Io {
        path: path.to_owned(),
        source,
    };
    let folder = path.parent().unwrap_or(Path::new("/"));
    let mut notice = base::Notice::of_folder(folder).map_err(io)?;
    let (own, path, crew) = (Arc::clone(&encryption), path.to_owned(), crew.clone());
    let task = crew.clone();
    task.spawn("encryption configuration", async move {
        let mut seen = text;
        let stop = crew.stop();
        loop {
            tokio::select! {
                changed = notice.changed() => if let Err(error) = changed {
                    return tracing::error!(%error, "encryption configuration is not followed");
                },
                () = stop.raised() => return,
            }
            tokio::time::sleep(SETTLE).await;
            match reread(&path, &mut seen).await {
                Ok(Some(rules)) => {
                    let old = std::mem::replace(&mut services, follow(&rules, &crew));
                    own.replace(rules);
                    old.raise();
                    tracing::info!(path = %path.display(), "encryption configuration reloaded");
                }
                Ok(None) => {}
                Err(error) => {
                    tracing::error!(%error, "encryption configuration not reloaded");
                }
            }
        }
    });
    Ok(encryption)
}

async fn reread(path: &Path, seen: &mut String) -> Result<Option<Rules>, FileError> {
    let text = read(path)?;
    if text == *seen {
        return Ok(None);
    }
    let rules = parse(path, &text)?;
    *seen = text;
    for service in rules.services() {
        service.refresh().await?;
    }
    Ok(Some(rules))
}

fn read(path: &Path) -> Result<String, FileError> {
    std::fs::read_to_string(path).map_err(|source| FileError::Io {
        path: path.to_owned(),
        source,
    })
}

fn parse(path: &Path, text: &str) -> Result<Rules, FileError> {
    let config = EncryptionConfiguration::parse(text).map_err(|source| FileError::Config {
        path: path.to_owned(),
        source,
    })?;
    Ok(Rules::new(&config)?)
}

/// Follows the services of these rules until the signal returned is raised.
fn follow(rules: &Rules, crew: &Crew) -> Stop {
    let stop = crew.stop().child();
    for service in rules.services() {
        crew.spawn(
            "key management service",
            Arc::clone(service).run(stop.clone()),
        );
    }
    stop
}
