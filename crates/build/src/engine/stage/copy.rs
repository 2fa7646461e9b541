//! `COPY` and `ADD`.

use std::path::Path;

use super::Worker;
use crate::dockerfile::Copy;
use crate::engine::files::{self, Target};
use crate::engine::sources::{Prepared, Wish};
use crate::engine::{BuildError, blocking};
use crate::ignore::Ignore;
use crate::settings;

impl Worker {
    pub(super) async fn copy(&mut self, word: &'static str, copy: &Copy) -> Result<(), BuildError> {
        let target = self.target(copy)?;
        let wish = self.wish(word, copy).await?;
        let prepared = blocking(move || wish.prepare()).await?;
        let what = what(&prepared);
        let shown = format!("{word} {what} in {} ", target.path);
        let options = format!("{:?} {:?} {}", target.chown, target.chmod, target.is_folder);
        let key = self.key(&[&shown, &prepared.digest, &options, &copy.exclude.join("\n")]);
        let kept = match self.look(&key).await? {
            Some(kept) => kept,
            None => {
                let changes = blocking(move || files::copy(&prepared, &target, word)).await?;
                self.keep(key, changes, &shown).await?
            }
        };
        self.state.add(
            kept.created,
            format!("/bin/sh -c #(nop) {shown}"),
            kept.layer,
        )
    }

    fn target(&self, copy: &Copy) -> Result<Target, BuildError> {
        let text = self.expand(&copy.target)?;
        let is_folder = text.ends_with('/') || text == "." || text.ends_with("/.");
        let chmod = match &copy.chmod {
            None => None,
            Some(text) => {
                let text = self.expand(text)?;
                let bits = u32::from_str_radix(&text, 8)
                    .ok()
                    .filter(|bits| *bits <= 0o7777);
                Some(bits.ok_or_else(|| {
                    BuildError::Other(format!(
                        "invalid chmod parameter: '{text}'. it should be octal string and between 0 and 07777"
                    ))
                })?)
            }
        };
        Ok(Target {
            layers: self.task.layers(&self.state),
            folder: self.folder(),
            path: settings::join(&self.state.document.config.working_dir, &text),
            is_folder,
            chown: match &copy.chown {
                Some(text) => Some(self.expand(text)?),
                None => None,
            },
            chmod,
        })
    }

    async fn wish(&self, word: &'static str, copy: &Copy) -> Result<Wish, BuildError> {
        let folder = tempfile::tempdir_in(self.folder())
            .map_err(BuildError::other)?
            .keep();
        let mut patterns = Vec::new();
        let mut downloads = Vec::new();
        for source in &copy.sources {
            let source = self.expand(source)?;
            let is_url = source.starts_with("http://") || source.starts_with("https://");
            if word == "ADD" && is_url {
                let place = folder.join(format!("download-{}", downloads.len()));
                downloads.push((self.download(&source, copy, &place).await?, place));
            } else if word == "ADD" && (source.starts_with("git@") || source.starts_with("git://"))
            {
                return Err(BuildError::Other(format!(
                    "ADD {source}: git repositories are not supported"
                )));
            } else {
                patterns.push(source);
            }
        }
        let mut documents = Vec::new();
        for document in &copy.documents {
            let text = match document.expands {
                true => self.expanding(|expander| expander.text(&document.text)),
                false => Ok(document.text.clone()),
            };
            documents.push((document.name.clone(), text.map_err(BuildError::other)?));
        }
        let exclude = Ignore::of(copy.exclude.iter().map(String::as_str));
        let from = match &copy.from {
            Some(from) => Some(self.expand(from)?),
            None => None,
        };
        Ok(Wish {
            word,
            tree: self.tree(from.as_deref()).await?,
            patterns,
            documents,
            downloads,
            exclude: exclude.map_err(BuildError::other)?,
            unpacks: word == "ADD" && !copy.keep_archives,
            // Files of another image are whose they were.
            owners: copy.from.is_some() && copy.chown.is_none(),
            folder,
        })
    }

    /// Downloads a file; tells its name.
    async fn download(&self, url: &str, copy: &Copy, place: &Path) -> Result<String, BuildError> {
        let path = url.split(['?', '#']).next().unwrap_or_default();
        let name = path.rsplit('/').next().unwrap_or_default().to_owned();
        if name.is_empty() || path.matches('/').count() < 3 {
            let message = format!("cannot determine filename from url: {url}");
            return Err(BuildError::Other(message));
        }
        let fetched = self.task.builder.host.fetch(url, place).await;
        let fetched = fetched.map_err(|error| BuildError::Other(format!("ADD failed: {error}")))?;
        let wanted = copy.checksum.clone();
        let place = place.to_owned();
        blocking(move || {
            use std::os::unix::fs::PermissionsExt;
            let private = std::fs::Permissions::from_mode(0o600);
            std::fs::set_permissions(&place, private).map_err(BuildError::other)?;
            let file = std::fs::File::open(&place).map_err(BuildError::other)?;
            let since = u64::try_from(fetched.modified.unwrap_or(0)).unwrap_or(0);
            let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(since);
            file.set_modified(time).map_err(BuildError::other)?;
            if let Some(wanted) = wanted {
                let found = oci::Digest::of_file(file)?;
                if found.as_str() != wanted {
                    let message = format!("digest mismatch sha256: expected {wanted}, got {found}");
                    return Err(BuildError::Other(message));
                }
            }
            Ok(())
        })
        .await?;
        Ok(name)
    }
}

/// `file:…`, `dir:…` or `multi:…`, as histories have it.
fn what(prepared: &Prepared) -> String {
    let kind = match prepared.items.as_slice() {
        [only] if only.is_folder => "dir",
        [_] => "file",
        _ => "multi",
    };
    format!("{kind}:{}", prepared.digest)
}
