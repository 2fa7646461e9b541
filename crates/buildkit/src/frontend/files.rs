//! The Dockerfile, the context and other folders, from where the client has them.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use build::dockerfile::{Dockerfile, Instruction, MountKind};
use tonic::Status;

use super::DefinitionFile;
use super::attrs::Attrs;
use crate::jobs::Job;
use crate::sessions::{Files, Session};
use crate::wire::Timestamp;
use crate::{Service, fault, transfer};

const IGNORE: &str = ".dockerignore";
/// Where a client uploads what came on its standard input.
const UPLOAD: &str = "http://buildkit-session/";
/// Bytes of a context that comes as an archive.
const ARCHIVE_MAX: u64 = 64 << 30;
/// Bytes between two words on how far a transfer is.
const PROGRESS_STEP: u64 = 4 << 20;

/// Where files come from, and where they are put.
pub(super) struct Source<'a> {
    pub(super) service: &'a Arc<Service>,
    pub(super) job: &'a Arc<Job>,
    pub(super) session: &'a Arc<Session>,
    pub(super) attrs: &'a Attrs,
    /// Of this build alone.
    pub(super) folder: &'a Path,
}

impl Source<'_> {
    /// The Dockerfile; with the context, if that comes as one archive.
    pub(super) async fn definition(&self) -> Result<DefinitionFile, Status> {
        let filename = self.attrs.filename.clone();
        let digest = self.job.digest("definition");
        let title = format!("[internal] load build definition from {filename}");
        self.job.begin(&digest, &title);
        let found = self.find_definition(&digest, &filename).await;
        let error = found.as_ref().err().map_or("", Status::message);
        self.job.end(&digest, false, error);
        found
    }

    async fn find_definition(
        &self,
        digest: &str,
        filename: &str,
    ) -> Result<DefinitionFile, Status> {
        let context = match self.attrs.context.as_str() {
            "" => None,
            address => Some(self.archive(digest, address, filename).await?),
        };
        let key = self.attrs.dockerfile_key.as_str();
        if let Some((folder, text)) = &context
            && key.is_empty()
        {
            let text = text.clone().ok_or_else(|| missing(filename))?;
            return Ok(DefinitionFile {
                text,
                ignore: None,
                context: Some(folder.clone()),
            });
        }
        let specific = format!("{filename}{IGNORE}");
        let lower = match filename.strip_suffix("Dockerfile") {
            Some(start) if start.is_empty() || start.ends_with('/') => {
                format!("{start}dockerfile")
            }
            _ => filename.to_owned(),
        };
        let names = [filename.to_owned(), specific.clone(), lower.clone()];
        let files = Files {
            folder: if key.is_empty() { "dockerfile" } else { key },
            follow: &names,
            ..Files::default()
        };
        let folder = self.make_folder("definition")?;
        self.transfer(digest, "transferring dockerfile:", &files, &folder)
            .await?;
        let text = read(&folder, filename).await?;
        let text = match text {
            Some(text) => text,
            None => read(&folder, &lower)
                .await?
                .ok_or_else(|| missing(filename))?,
        };
        Ok(DefinitionFile {
            text,
            ignore: read(&folder, &specific).await?,
            context: context.map(|(folder, _)| folder),
        })
    }

    /// A context that is one archive, or just a Dockerfile.
    async fn archive(
        &self,
        digest: &str,
        address: &str,
        filename: &str,
    ) -> Result<(PathBuf, Option<String>), Status> {
        let file = self.folder.join("archive");
        if let Some(path) = address.strip_prefix(UPLOAD) {
            self.upload(digest, path, &file).await?;
        } else if address.starts_with("http://") || address.starts_with("https://") {
            let path = address.split(['#', '?']).next().unwrap_or_default();
            if path.ends_with(".git") {
                return Err(no_repositories());
            }
            let fetched = self.service.backend.fetch(address, &file).await;
            fetched.map_err(fault::words)?;
        } else {
            return Err(no_repositories());
        }
        let folder = self.make_folder("context")?;
        let (place, filename) = (folder.clone(), filename.to_owned());
        let unpacking = tokio::task::spawn_blocking(move || {
            let text = build::receive_file(&file, &place, &filename);
            std::fs::remove_file(&file).map_err(fault::words)?;
            match text {
                Ok(text) => Ok(Some(text)),
                // The Dockerfile may come from elsewhere.
                Err(_) if place.read_dir().is_ok_and(|mut all| all.next().is_some()) => Ok(None),
                Err(error) => Err(fault::words(error)),
            }
        });
        let text = unpacking
            .await
            .map_err(|error| Status::internal(error.to_string()))??;
        Ok((folder, text))
    }

    async fn upload(&self, digest: &str, path: &str, target: &Path) -> Result<(), Status> {
        let started = Timestamp::now();
        let mut pieces = self.session.upload(path).await?;
        let mut file = std::fs::File::create_new(target).map_err(fault::words)?;
        let mut bytes = 0;
        while let Some(piece) = pieces.message().await? {
            bytes += piece.data.len() as u64;
            if bytes > ARCHIVE_MAX {
                return Err(fault::words("the context is too large"));
            }
            let writing = tokio::task::spawn_blocking(move || {
                file.write_all(&piece.data)?;
                Ok::<_, std::io::Error>(file)
            });
            let written = writing.await.map_err(fault::words)?;
            file = written.map_err(fault::words)?;
        }
        let id = "transferring context:";
        self.job.part(digest, id, bytes, started, true);
        Ok(())
    }

    /// The folder with the context; an empty one where no step takes anything of it.
    pub(super) async fn context(
        &self,
        definition: &DefinitionFile,
        file: &Dockerfile,
    ) -> Result<PathBuf, Status> {
        if let Some(folder) = &definition.context {
            return Ok(folder.clone());
        }
        let folder = self.make_folder("context")?;
        let Some(follow) = wanted(file) else {
            return Ok(folder);
        };
        let rules = match &definition.ignore {
            Some(rules) => Some(rules.clone()),
            None => self.ignore().await?,
        };
        let exclude = patterns(rules.as_deref().unwrap_or_default());
        let digest = self.job.digest("context");
        self.job.begin(&digest, "[internal] load build context");
        let files = Files {
            folder: "context",
            exclude: &exclude,
            follow: &follow,
        };
        let came = self
            .transfer(&digest, "transferring context:", &files, &folder)
            .await;
        let error = came.as_ref().err().map_or("", Status::message);
        self.job.end(&digest, false, error);
        came.map(|()| folder)
    }

    /// The lines of `.dockerignore`.
    async fn ignore(&self) -> Result<Option<String>, Status> {
        let digest = self.job.digest("ignore");
        self.job.begin(&digest, "[internal] load .dockerignore");
        let folder = self.make_folder("ignore")?;
        let names = [IGNORE.to_owned()];
        let files = Files {
            folder: "context",
            follow: &names,
            ..Files::default()
        };
        let came = self
            .transfer(&digest, "transferring context:", &files, &folder)
            .await;
        let error = came.as_ref().err().map_or("", Status::message);
        self.job.end(&digest, false, error);
        came?;
        read(&folder, IGNORE).await
    }

    /// A folder of the client's that has a name in this build.
    pub(super) async fn named_folder(&self, name: &str, local: &str) -> Result<PathBuf, Status> {
        let folder =
            self.make_folder(&format!("named-{}", oci::Digest::of(name.as_bytes()).hex()))?;
        let digest = self.job.digest(&format!("context {name}"));
        self.job
            .begin(&digest, &format!("[context {name}] load from client"));
        let came = async {
            let names = [IGNORE.to_owned()];
            let files = Files {
                folder: local,
                follow: &names,
                ..Files::default()
            };
            let rules = self.make_folder(&format!("rules-{digest}"))?;
            self.transfer(&digest, "transferring dockerignore:", &files, &rules)
                .await?;
            let exclude = patterns(&read(&rules, IGNORE).await?.unwrap_or_default());
            let files = Files {
                folder: local,
                exclude: &exclude,
                ..Files::default()
            };
            let id = format!("transferring {name}:");
            self.transfer(&digest, &id, &files, &folder).await
        };
        let came = came.await;
        let error = came.as_ref().err().map_or("", Status::message);
        self.job.end(&digest, false, error);
        came.map(|()| folder)
    }

    fn make_folder(&self, name: &str) -> Result<PathBuf, Status> {
        let folder = self.folder.join(name.replace(':', "-"));
        std::fs::create_dir(&folder).map_err(fault::words)?;
        Ok(folder)
    }

    async fn transfer(
        &self,
        digest: &str,
        id: &str,
        files: &Files<'_>,
        folder: &Path,
    ) -> Result<(), Status> {
        let other = self.attrs.sessions.get(files.folder);
        let other = match other {
            Some(id) => Some(self.service.sessions.get(id).await?),
            None => None,
        };
        let session = other.as_ref().unwrap_or(self.session);
        let started = Timestamp::now();
        let mut told = 0;
        let progress = |bytes: u64| {
            if bytes >= told + PROGRESS_STEP {
                told = bytes;
                self.job.part(digest, id, bytes, started, false);
            }
        };
        let received = transfer::receive(session, files, folder, progress).await?;
        self.job.part(digest, id, received.bytes, started, true);
        Ok(())
    }
}

fn missing(filename: &str) -> Status {
    fault::words(format!(
        "failed to read dockerfile: open {filename}: no such file or directory"
    ))
}

fn no_repositories() -> Status {
    fault::words("contexts of git repositories are not supported by this engine")
}

async fn read(folder: &Path, name: &str) -> Result<Option<String>, Status> {
    let (folder, name) = (folder.to_owned(), name.to_owned());
    let reading = tokio::task::spawn_blocking(move || {
        let name = Path::new(&name);
        let root = linux::root::Root::open(&folder)?;
        match root.lookup(name, nix::fcntl::OFlag::O_RDONLY, 0) {
            Ok(file) => std::io::read_to_string(std::fs::File::from(file)).map(Some),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    });
    let text = reading.await.map_err(fault::words)?;
    text.map_err(fault::words)
}

/// Patterns of a file as clients take them: relative, without comments.
fn patterns(text: &str) -> Vec<String> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let lines = lines.map(str::trim).filter(|line| !line.is_empty());
    let clean = |line: &str| {
        let (sign, pattern) = match line.strip_prefix('!') {
            Some(pattern) => ("!", pattern.trim()),
            None => ("", line),
        };
        let parts = pattern.split('/').filter(|part| !matches!(*part, "" | "."));
        let pattern = parts.collect::<Vec<_>>().join("/");
        (!pattern.is_empty()).then(|| format!("{sign}{pattern}"))
    };
    lines.filter_map(clean).collect()
}

/// What steps take of the context: nothing, all of it (an empty list), or these.
fn wanted(file: &Dockerfile) -> Option<Vec<String>> {
    let mut found = BTreeSet::new();
    let (mut any, mut all) = (false, false);
    for step in file.stages.iter().flat_map(|stage| &stage.steps) {
        match &step.instruction {
            Instruction::Copy(copy) | Instruction::Add(copy) if copy.from.is_none() => {
                let urls = |source: &&String| !source.contains("://");
                for source in copy.sources.iter().filter(urls) {
                    any = true;
                    let path = source.trim_matches('/');
                    let path = path.strip_prefix("./").unwrap_or(path);
                    all |= path.is_empty() || path == "." || path.contains(['$', '\\']);
                    all |= path.split('/').any(|part| part == "..");
                    found.insert(path.to_owned());
                }
            }
            Instruction::Run(run) => {
                let binds = |mount: &&build::dockerfile::Mount| {
                    mount.kind == MountKind::Bind && mount.from.is_none()
                };
                let binds = run.mounts.iter().any(|mount| binds(&mount));
                any |= binds;
                all |= binds;
            }
            _ => {}
        }
    }
    match (any, all) {
        (false, _) => None,
        (true, true) => Some(Vec::new()),
        (true, false) => Some(found.into_iter().collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_copied_is_asked_for() {
        let of = |text: &str| wanted(&build::dockerfile::parse(text).unwrap());
        assert_eq!(of("FROM x\nRUN y\nCOPY --from=z /a /b"), None);
        assert_eq!(of("FROM x\nADD https://h/f /\n"), None);
        assert_eq!(of("FROM x\nCOPY . /\nCOPY a /"), Some(Vec::new()));
        assert_eq!(of("FROM x\nCOPY $a /"), Some(Vec::new()));
        assert_eq!(of("FROM x\nRUN --mount=target=/x y"), Some(Vec::new()));
        assert_eq!(
            of("FROM x\nCOPY ./b/ /a/*.txt /\nADD b /"),
            Some(vec!["a/*.txt".to_owned(), "b".to_owned()])
        );
    }

    #[test]
    fn patterns_become_relative() {
        let text = "# no\n\n/a/./b/\n ! /c \n.\n**/*.o\n";
        assert_eq!(patterns(text), ["a/b", "!c", "**/*.o"]);
    }
}
