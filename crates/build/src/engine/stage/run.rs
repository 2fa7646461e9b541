//! `RUN`.

use super::{PATH, PREDEFINED, Worker};
use crate::dockerfile::{Command, MountKind, Run};
use crate::engine::host;
use crate::engine::mounts::{Mounted, secret_id};
use crate::engine::{BuildError, blocking};
use crate::settings;

/// Where a script with an interpreter of its own is.
const SCRIPTS: &str = "/dev/pipes";

impl Worker {
    pub(super) async fn run(&mut self, run: &Run) -> Result<(), BuildError> {
        let config = &self.state.document.config;
        let args = settings::arguments(&run.command, config);
        let given = self.given();
        let mut created_by = args.join(" ");
        if !given.is_empty() {
            created_by = format!("|{} {} {created_by}", given.len(), given.join(" "));
        }
        let mut parts = vec![created_by.clone(), format!("{:?}", run.network)];
        parts.extend(run.mounts.iter().map(|mount| format!("{mount:?}")));
        // What a mount brings along decides about the result, a cache does not.
        for mount in run
            .mounts
            .iter()
            .filter(|mount| mount.kind == MountKind::Bind)
        {
            parts.push(self.content_of(mount).await?);
        }
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        let key = self.key(&parts);
        let kept = match self.look(&key).await? {
            Some(kept) => kept,
            None => {
                let command = self.command(run, args, &given).await?;
                self.carry_out(key, command, &created_by).await?
            }
        };
        self.state.add(kept.created, created_by, kept.layer)
    }

    /// Arguments that count here, `name=value` in order.
    fn given(&self) -> Vec<String> {
        let env = &self.state.document.config.env;
        let counts = |name: &str| settings::variable(env, name).is_none();
        let pairs = self.args.iter().filter(|(name, _)| counts(name));
        pairs
            .map(|(name, value)| format!("{name}={value}"))
            .collect()
    }

    async fn content_of(&self, mount: &crate::dockerfile::Mount) -> Result<String, BuildError> {
        let wish = crate::engine::sources::Wish {
            word: "RUN",
            tree: self.tree(mount.from.as_deref()).await?,
            patterns: vec![mount.source.clone()],
            documents: Vec::new(),
            downloads: Vec::new(),
            exclude: crate::Ignore::default(),
            unpacks: false,
            owners: mount.from.is_some(),
            folder: self.folder(),
        };
        blocking(move || Ok(wish.prepare()?.digest)).await
    }

    /// The command and what it mounts.
    async fn command(
        &self,
        run: &Run,
        mut args: Vec<String>,
        given: &[String],
    ) -> Result<(host::Command, Mounted), BuildError> {
        let work = &self.task.work;
        let config = &self.state.document.config;
        let folder = tempfile::tempdir_in(self.folder())
            .map_err(BuildError::other)?
            .keep();
        let mut mounted = Mounted::default();
        for mount in &run.mounts {
            let mut mount = mount.clone();
            mount.target = match mount.target.as_str() {
                "" => String::new(),
                target => settings::join(&config.working_dir, &self.expand(target)?),
            };
            let tree = match mount.kind {
                MountKind::Bind => Some(self.tree(mount.from.as_deref()).await?),
                MountKind::Cache if mount.from.is_some() => {
                    Some(self.tree(mount.from.as_deref()).await?)
                }
                _ => None,
            };
            let secret = work.request.secrets.get(&secret_id(&mount));
            let secret = secret.map(Vec::as_slice);
            mounted
                .add(
                    &self.task.builder,
                    &mount,
                    tree,
                    secret,
                    &work.request.agents,
                    &folder,
                )
                .await?;
        }
        if let (Command::Shell(text), [document]) = (&run.command, run.documents.as_slice())
            && *text == document.text
            && text.starts_with("#!")
        {
            let target = format!("{SCRIPTS}/{}", document.name);
            mounted
                .binds
                .push(script(&folder, &document.text, &target)?);
            args = vec![target];
        }
        let mut env = config.env.clone();
        let asked = work.request.args.iter();
        let predefined = asked.filter(|(name, _)| PREDEFINED.contains(&name.as_str()));
        let predefined = predefined.map(|(name, value)| format!("{name}={value}"));
        for pair in given
            .iter()
            .cloned()
            .chain(predefined)
            .chain(mounted.env.iter().cloned())
        {
            let (name, value) = pair.split_once('=').unwrap_or((&pair, ""));
            if settings::variable(&env, name).is_none() {
                settings::set_variable(&mut env, name, value);
            }
        }
        if settings::variable(&env, "PATH").is_none() {
            settings::set_variable(&mut env, "PATH", PATH);
        }
        let network = match run.network.as_deref() {
            None | Some("default") => work.request.network.clone(),
            Some(other) => other.to_owned(),
        };
        let command = host::Command {
            image: self.state.record(),
            args,
            env,
            working_dir: config.working_dir.clone(),
            user: config.user.clone(),
            network,
            binds: mounted.binds.clone(),
            tmpfs: mounted.tmpfs.clone(),
            wishes: work.request.wishes.clone(),
        };
        Ok((command, mounted))
    }

    async fn carry_out(
        &self,
        key: String,
        (command, mounted): (host::Command, Mounted),
        about: &str,
    ) -> Result<oci::Kept, BuildError> {
        let builder = &self.task.builder;
        let shown = command.args.join(" ");
        // The semaphore is never closed.
        let slot = builder.containers.acquire().await;
        let ran = builder.host.run(command, &self.task.say).await;
        drop((slot, mounted));
        let ran = ran.map_err(BuildError::Other)?;
        let kept = match ran.code {
            0 => self.keep(key, ran.changes.clone(), about).await,
            code => Err(BuildError::Command {
                command: shown,
                code,
            }),
        };
        builder.host.discard(ran).await;
        kept
    }
}

fn script(folder: &std::path::Path, text: &str, target: &str) -> Result<host::Bind, BuildError> {
    use std::os::unix::fs::PermissionsExt;
    let source = folder.join("script");
    let all = std::fs::Permissions::from_mode(0o755);
    let written =
        std::fs::write(&source, text).and_then(|()| std::fs::set_permissions(&source, all));
    written.map_err(BuildError::other)?;
    Ok(host::Bind {
        source,
        target: target.to_owned(),
        readonly: true,
    })
}
