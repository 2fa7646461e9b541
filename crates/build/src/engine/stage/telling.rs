//! What a stage tells those who follow it, and what names of the client's mean in it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{Base, BuildError, Meaning, News, State, Step, StepId, Task, Worker};
use crate::dockerfile::Instruction;

/// Where a stage is in what it tells.
#[derive(Default)]
pub(in crate::engine) struct Telling {
    /// Steps that were told of.
    steps: usize,
    /// Of those that clients see.
    shown: usize,
    total: usize,
    cached: AtomicBool,
}

impl Telling {
    pub(super) fn cached(&self) {
        self.cached.store(true, Ordering::Relaxed);
    }
}

/// Whether an instruction does work, for which clients show a line.
fn is_work(instruction: &Instruction) -> bool {
    matches!(
        instruction,
        Instruction::Run(_) | Instruction::Copy(_) | Instruction::Add(_) | Instruction::Workdir(_)
    )
}

impl Task {
    /// Makes the base, and tells of it.
    pub(super) async fn begin(
        &mut self,
        done: &BTreeMap<usize, Arc<State>>,
    ) -> Result<State, BuildError> {
        let steps = self.stage.steps.iter();
        let work = steps.filter(|step| is_work(&step.instruction)).count();
        let name = match &self.base {
            Base::Scratch | Base::Stage(_) => None,
            Base::Image(name) => Some(full_name(name)),
            Base::Context(name) => Some(name.clone()),
        };
        self.telling.total = work + usize::from(name.is_some());
        let shown = name.map(|name| format!("FROM {name}"));
        let step = self.tell_begin(shown.as_deref());
        let state = self.base(done).await;
        let lines = (self.stage.line, self.stage.last);
        self.tell_end(step, shown.is_some(), lines, &state);
        state
    }

    /// A step begins; whoever follows hears what it says, if it is shown.
    fn tell_begin(&mut self, shown: Option<&str>) -> StepId {
        let step = StepId {
            stage: self.index,
            number: self.telling.steps,
        };
        self.telling.steps += 1;
        self.telling.cached.store(false, Ordering::Relaxed);
        let follower = &self.work.request.follower;
        if let Some(shown) = shown
            && follower.follows()
        {
            self.telling.shown += 1;
            let stage = match (&self.stage.name, self.work.stages) {
                (_, 1) => String::new(),
                (Some(name), _) => format!("{name} "),
                (None, _) => format!("stage-{} ", self.index),
            };
            let (number, total) = (self.telling.shown, self.telling.total);
            let width = total.to_string().len();
            let name = format!("[{stage}{number:>width$}/{total}] {shown}");
            follower.tell(News::Begins { step, name });
            self.say = self.say.tapped(follower, step);
        }
        step
    }

    fn tell_end<T>(
        &mut self,
        step: StepId,
        shown: bool,
        lines: (usize, usize),
        result: &Result<T, BuildError>,
    ) {
        let follower = &self.work.request.follower;
        match result {
            Ok(_) if shown => {
                let cached = self.telling.cached.load(Ordering::Relaxed);
                follower.tell(News::Ends { step, cached });
            }
            Ok(_) | Err(BuildError::GivenUp) => {}
            Err(error) => follower.tell(News::Fails {
                step,
                lines,
                error: error.plainly(),
            }),
        }
        self.say = self.say.plain();
    }

    /// Whether nothing is to be taken from the cache.
    pub(super) fn is_fresh(&self) -> bool {
        let request = &self.work.request;
        let named = |name: &String| {
            let own = self.stage.name.as_deref();
            own.is_some_and(|own| own.eq_ignore_ascii_case(name))
        };
        request.no_cache || request.no_cache_stages.iter().any(named)
    }

    /// What a name of the client's stands for.
    pub(super) async fn meant(&self, key: &str) -> Result<State, BuildError> {
        match self.work.request.contexts.get(key) {
            Some(Meaning::Image(name)) => self.image(name, self.work.request.pull).await,
            Some(Meaning::Made(made)) => State::of(made.document().clone(), made.layers().to_vec()),
            Some(Meaning::Folder(_)) => Err(BuildError::Other(format!(
                "context {key} is a folder: it cannot be the base of a stage"
            ))),
            None => Err(BuildError::Other(format!("unknown context {key}"))),
        }
    }
}

impl Worker {
    /// Carries a step out, and tells of it.
    pub(super) async fn told(&mut self, step: &Step) -> Result<(), BuildError> {
        let shown = is_work(&step.instruction).then_some(step.source.as_str());
        let id = self.task.tell_begin(shown);
        let result = self.step(step).await;
        let lines = (step.line, step.last);
        self.task.tell_end(id, shown.is_some(), lines, &result);
        result
    }
}

/// With registry and tag.
fn full_name(name: &str) -> String {
    let parsed = name.parse::<oci::Reference>().ok();
    match parsed {
        Some(reference) => reference.tagged().unwrap_or_else(|| name.to_owned()),
        None => name.to_owned(),
    }
}
