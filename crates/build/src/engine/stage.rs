//! One stage, step by step.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use oci::{ImageDocument, Kept};
use tokio::sync::watch;

use super::cache::Key;
use super::follow::{News, StepId};
use super::plan::{Base, context_key, stage_of};
use super::say::Say;
use super::sources::Tree;
use super::state::State;
use super::{BuildError, Builder, Meaning, Work, blocking};
use crate::dockerfile::{Instruction, Stage, Step, parse_one};
use crate::expand::Expander;
use crate::settings;

mod copy;
mod run;
mod telling;

use telling::Telling;

/// Arguments that need no `ARG`, and are in no cache and no history without one.
pub(super) const PREDEFINED: [&str; 10] = [
    "HTTP_PROXY",
    "http_proxy",
    "HTTPS_PROXY",
    "https_proxy",
    "FTP_PROXY",
    "ftp_proxy",
    "NO_PROXY",
    "no_proxy",
    "ALL_PROXY",
    "all_proxy",
];
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

type Before = BTreeMap<usize, watch::Receiver<Option<Arc<State>>>>;

/// What a stage needs to run.
pub(super) struct Task {
    pub(super) builder: Arc<Builder>,
    pub(super) work: Arc<Work>,
    pub(super) names: Arc<BTreeMap<String, usize>>,
    pub(super) stage: Stage,
    pub(super) index: usize,
    pub(super) base: Base,
    pub(super) first_step: usize,
    pub(super) before: Before,
    pub(super) say: Say,
    pub(super) telling: Telling,
}

/// A stage under way.
struct Worker {
    task: Task,
    /// Stages it needs, finished.
    done: BTreeMap<usize, Arc<State>>,
    state: State,
    /// Arguments that were declared so far.
    args: BTreeMap<String, String>,
    /// `CMD` was said in this stage.
    has_cmd: bool,
}

impl Task {
    /// Carries the stage out.
    pub(super) async fn run(mut self) -> Result<State, BuildError> {
        let mut done = BTreeMap::new();
        for (index, mut receiver) in std::mem::take(&mut self.before) {
            let ended = receiver.wait_for(Option::is_some).await;
            let state = ended.ok().and_then(|state| state.clone());
            done.insert(index, state.ok_or(BuildError::GivenUp)?);
        }
        let work = &self.work;
        let source = self.stage.source.clone();
        self.say.line(format!(
            "Step {}/{} : {source}",
            self.first_step, work.total
        ));
        let state = self.begin(&done).await?;
        if self.base != Base::Scratch {
            self.say.line(format!(" ---> {}", state.short_id()));
        }
        let steps = std::mem::take(&mut self.stage.steps);
        let mut worker = Worker {
            task: self,
            done,
            state,
            args: BTreeMap::new(),
            has_cmd: false,
        };
        worker.triggers().await?;
        for (index, step) in steps.into_iter().enumerate() {
            let number = worker.task.first_step + 1 + index;
            let total = worker.task.work.total;
            worker
                .task
                .say
                .line(format!("Step {number}/{total} : {}", step.source));
            worker.told(&step).await?;
            let id = worker.state.short_id();
            worker.task.say.line(format!(" ---> {id}"));
        }
        Ok(worker.state)
    }

    async fn base(&self, done: &BTreeMap<usize, Arc<State>>) -> Result<State, BuildError> {
        match &self.base {
            Base::Scratch => State::of(ImageDocument::scratch(), Vec::new()),
            Base::Stage(index) => match done.get(index) {
                Some(state) => Ok(State::clone(state)),
                None => Err(BuildError::GivenUp),
            },
            Base::Image(name) => self.image(name, self.work.request.pull).await,
            Base::Context(key) => self.meant(key).await,
        }
    }

    /// An image of the host's, whose layers stay as long as the build lasts.
    async fn image(&self, name: &str, pull: bool) -> Result<State, BuildError> {
        let host = &self.builder.host;
        let image = host
            .image(name, pull, &self.work.request.wishes, &self.say)
            .await
            .map_err(BuildError::Other)?;
        let store = self.builder.store.clone();
        let lease = format!("{}.{}", self.work.lease, image.id.hex());
        blocking(move || {
            store.lease(&lease, &[&image])?;
            let mut state = State::of(store.document(&image)?, image.layers)?;
            // What people call it by.
            state.id = image.id;
            Ok(state)
        })
        .await
    }

    fn layers(&self, state: &State) -> Vec<PathBuf> {
        let layers = state.layers.iter();
        layers
            .map(|layer| self.builder.store.layer_folder(&layer.diff_id))
            .collect()
    }
}

impl Worker {
    /// Instructions that the base image has for whoever builds on it.
    async fn triggers(&mut self) -> Result<(), BuildError> {
        let triggers = std::mem::take(&mut self.state.document.config.on_build);
        if triggers.is_empty() {
            return Ok(());
        }
        let plural = if triggers.len() == 1 { "" } else { "s" };
        let say = self.task.say.clone();
        say.line(format!(
            "# Executing {} build trigger{plural}",
            triggers.len()
        ));
        for trigger in &triggers {
            let step = parse_one(trigger)?;
            say.line(format!(" ---> Running {trigger}"));
            self.told(&step).await?;
        }
        Ok(())
    }

    async fn step(&mut self, step: &Step) -> Result<(), BuildError> {
        match &step.instruction {
            Instruction::Run(run) => self.run(run).await,
            Instruction::Copy(copy) => self.copy("COPY", copy).await,
            Instruction::Add(copy) => self.copy("ADD", copy).await,
            Instruction::Arg(arguments) => self.declare(arguments).await,
            Instruction::Workdir(_) => self.workdir(&step.instruction).await,
            other => self.tell(other).await,
        }
    }

    /// A word with this stage's variables: those of the image count more than arguments.
    fn expand(&self, word: &str) -> Result<String, BuildError> {
        self.expanding(|expander| expander.word(word).map_err(BuildError::other))
    }

    fn expanding<T>(&self, work: impl FnOnce(&Expander<'_>) -> T) -> T {
        let env = &self.state.document.config.env;
        let lookup =
            |name: &str| settings::variable(env, name).or_else(|| self.args.get(name).cloned());
        work(&Expander {
            escape: self.task.work.escape,
            lookup: &lookup,
        })
    }

    async fn declare(&mut self, arguments: &[(String, Option<String>)]) -> Result<(), BuildError> {
        let work = Arc::clone(&self.task.work);
        let mut shown = "ARG".to_owned();
        for (name, default) in arguments {
            let name = self.expand(name)?;
            work.used.lock().insert(name.clone());
            let wished = work.request.args.get(&name);
            let global = || work.globals.get(&name).cloned();
            let value = match (wished, default) {
                (Some(value), _) => Some(value.clone()),
                (None, Some(default)) => Some(self.expand(default)?),
                (None, None) => global(),
            };
            shown += &format!(" {name}");
            if let Some(default) = default {
                shown += &format!("={default}");
            }
            if let Some(value) = value {
                self.args.insert(name, value);
            }
        }
        self.note(shown).await
    }

    /// An instruction that changes settings only.
    async fn tell(&mut self, instruction: &Instruction) -> Result<(), BuildError> {
        let mut document = self.state.document.clone();
        let shown = match instruction {
            Instruction::Maintainer(name) => {
                document.author = self.expand(name)?;
                format!("MAINTAINER {}", document.author)
            }
            other => {
                let applied = self
                    .expanding(|expander| settings::apply(&mut document.config, other, expander));
                let shown = applied.map_err(BuildError::Other)?;
                shown.ok_or_else(|| BuildError::other("an instruction out of place"))?
            }
        };
        match instruction {
            Instruction::Cmd(_) => self.has_cmd = true,
            // The base's arguments are not for another program.
            Instruction::Entrypoint(_) if !self.has_cmd => document.config.cmd = None,
            _ => {}
        }
        self.state.document = document;
        self.note(shown).await
    }

    /// Keeps and records a step without files.
    async fn note(&mut self, shown: String) -> Result<(), BuildError> {
        let key = self.key(&[&shown]);
        let kept = match self.look(&key).await? {
            Some(kept) => kept,
            None => {
                let kept = self.result(None, &shown);
                let store = self.task.builder.store.clone();
                let keeping = kept.clone();
                blocking(move || Ok(store.keep(&key, &keeping)?)).await?;
                kept
            }
        };
        self.state
            .add(kept.created, format!("/bin/sh -c #(nop)  {shown}"), None)
    }

    async fn workdir(&mut self, instruction: &Instruction) -> Result<(), BuildError> {
        let mut config = self.state.document.config.clone();
        let applied =
            self.expanding(|expander| settings::apply(&mut config, instruction, expander));
        let shown = applied.map_err(BuildError::Other)?.unwrap_or_default();
        self.state.document.config = config;
        let path = self.state.document.config.working_dir.clone();
        let key = self.key(&[&shown, "with files"]);
        let kept = match self.look(&key).await? {
            Some(kept) => kept,
            None => {
                let (layers, folder) = (self.task.layers(&self.state), self.folder());
                let changes = blocking(move || {
                    let bench = super::files::Workbench::open(&layers, &folder)?;
                    let made = bench.root().make_folders(path.as_ref(), 0o755);
                    made.map_err(|error| BuildError::Other(format!("{path}: {error}")))?;
                    Ok(bench.changes())
                });
                self.keep(key, changes.await?, &shown).await?
            }
        };
        self.state.add(
            kept.created,
            format!("/bin/sh -c #(nop) {shown}"),
            kept.layer,
        )
    }

    /// Where a step may put what it needs.
    fn folder(&self) -> PathBuf {
        self.task.work.folder.path().to_owned()
    }

    fn key(&self, parts: &[&str]) -> String {
        let mut key = Key::after(&self.state.id);
        if let Some(epoch) = self.task.work.epoch {
            key.add(&format!("epoch {epoch}"));
        }
        for part in parts {
            key.add(part);
        }
        key.finish()
    }

    /// The result of the step, if it is known.
    async fn look(&self, key: &str) -> Result<Option<Kept>, BuildError> {
        if self.task.is_fresh() {
            return Ok(None);
        }
        let (store, key) = (self.task.builder.store.clone(), key.to_owned());
        let kept = blocking(move || Ok(store.kept(&key)?)).await?;
        if kept.is_some() {
            self.task.telling.cached();
            self.task.say.remark(" ---> Using cache");
        }
        Ok(kept)
    }

    fn result(&self, layer: Option<oci::LayerRecord>, about: &str) -> Kept {
        let now = match self.task.work.epoch {
            Some(epoch) => jiff::Timestamp::from_second(epoch).unwrap_or_default(),
            None => jiff::Timestamp::now(),
        };
        Kept {
            layer,
            created: format!("{now:.9}"),
            about: about.to_owned(),
            parent: self.state.id.to_string(),
        }
    }

    /// Makes a layer of changes, and keeps it.
    async fn keep(
        &self,
        key: String,
        mut changes: oci::Changes,
        about: &str,
    ) -> Result<Kept, BuildError> {
        changes.latest = self.task.work.epoch;
        let store = self.task.builder.store.clone();
        let mut kept = self.result(None, about);
        blocking(move || {
            if changes.are_none()? {
                store.keep(&key, &kept)?;
                return Ok(kept);
            }
            let ingest = store.ingest()?;
            let oci::Layer(layer) = ingest.changes(&changes)?;
            kept.layer = Some(layer);
            ingest.keep(&key, &kept)?;
            Ok(kept)
        })
        .await
    }

    /// Where files come from: the context, another stage, an image.
    async fn tree(&self, from: Option<&str>) -> Result<Tree, BuildError> {
        let task = &self.task;
        let Some(from) = from else {
            return Ok(Tree::Context(task.work.request.context.clone()));
        };
        if let Some(meaning) = task.work.request.contexts.get(&context_key(from)) {
            return match meaning {
                Meaning::Folder(folder) => Ok(Tree::Context(folder.clone())),
                _ => Ok(Tree::Layers(
                    task.layers(&task.meant(&context_key(from)).await?),
                )),
            };
        }
        if let Some(index) = stage_of(&task.names, from, task.index) {
            let state = self.done.get(&index).ok_or_else(|| {
                BuildError::Other(format!("stage {from} is not part of this build"))
            })?;
            return Ok(Tree::Layers(task.layers(state)));
        }
        if from.parse::<usize>().is_ok() {
            let message = format!("invalid from flag value {from}: refers to no earlier stage");
            return Err(BuildError::Other(message));
        }
        let image = task.image(from, false).await.map_err(|error| {
            BuildError::Other(format!("invalid from flag value {from}: {error}"))
        })?;
        Ok(Tree::Layers(task.layers(&image)))
    }
}
