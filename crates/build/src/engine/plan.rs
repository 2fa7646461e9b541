//! Which stages a build needs, and which of them wait for which. Pure.

use std::collections::{BTreeMap, BTreeSet};

use crate::dockerfile::{Dockerfile, Instruction, Stage};
use crate::expand::Expander;

use super::{BuildError, Request};

/// What a stage begins with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Base {
    Scratch,
    Stage(usize),
    Image(String),
    /// Something the client names, by its key.
    Context(String),
}

/// One stage's place in the build.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) base: Base,
    /// Stages it needs.
    pub(super) after: BTreeSet<usize>,
    /// Number of its `FROM`, from 1.
    pub(super) first_step: usize,
}

#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) globals: BTreeMap<String, String>,
    /// Build arguments that global `ARG`s asked for.
    pub(super) used: BTreeSet<String>,
    pub(super) names: BTreeMap<String, usize>,
    pub(super) stages: BTreeMap<usize, Place>,
    pub(super) target: usize,
    pub(super) total: usize,
    /// Names that mean something else than stages and images.
    contexts: BTreeSet<String>,
}

impl Plan {
    pub(super) fn of(file: &Dockerfile, request: &Request) -> Result<Plan, BuildError> {
        let mut plan = Plan {
            globals: platform(),
            used: BTreeSet::new(),
            names: BTreeMap::new(),
            stages: BTreeMap::new(),
            target: 0,
            total: 0,
            contexts: request.contexts.keys().cloned().collect(),
        };
        plan.read_globals(file, request)?;
        for (index, stage) in file.stages.iter().enumerate() {
            if let Some(name) = &stage.name
                && plan.names.insert(name.clone(), index).is_some()
            {
                return Err(BuildError::Other(format!("duplicate name {name}")));
            }
        }
        plan.target = plan.find_target(file, &request.target)?;
        let mut wanted = vec![plan.target];
        while let Some(index) = wanted.pop() {
            if plan.stages.contains_key(&index) {
                continue;
            }
            let place = plan.place(file, index)?;
            wanted.extend(place.after.iter().copied());
            plan.stages.insert(index, place);
        }
        for (index, place) in &mut plan.stages {
            place.first_step = plan.total + 1;
            plan.total += 1 + file.stages[*index].steps.len();
        }
        Ok(plan)
    }

    fn read_globals(&mut self, file: &Dockerfile, request: &Request) -> Result<(), BuildError> {
        for step in &file.arguments {
            let Instruction::Arg(arguments) = &step.instruction else {
                continue;
            };
            for (name, default) in arguments {
                let value = match (request.args.get(name), default) {
                    (Some(value), _) => Some(value.clone()),
                    (None, Some(default)) => Some(self.expand(file, default)?),
                    (None, None) => None,
                };
                self.used.insert(name.clone());
                if let Some(value) = value {
                    self.globals.insert(name.clone(), value);
                }
            }
        }
        Ok(())
    }

    fn expand(&self, file: &Dockerfile, word: &str) -> Result<String, BuildError> {
        let lookup = |name: &str| self.globals.get(name).cloned();
        let expander = Expander {
            escape: file.escape,
            lookup: &lookup,
        };
        expander.word(word).map_err(BuildError::other)
    }

    fn find_target(&self, file: &Dockerfile, target: &str) -> Result<usize, BuildError> {
        let last = file.stages.len() - 1;
        if target.is_empty() {
            return Ok(last);
        }
        let named = self.names.get(&target.to_ascii_lowercase()).copied();
        let numbered = || target.parse().ok().filter(|index| *index <= last);
        named.or_else(numbered).ok_or_else(|| {
            BuildError::Other(format!("target stage \"{target}\" could not be found"))
        })
    }

    fn place(&self, file: &Dockerfile, index: usize) -> Result<Place, BuildError> {
        let stage = &file.stages[index];
        let name = self.expand(file, &stage.base)?;
        if name.is_empty() {
            return Err(BuildError::Other(format!(
                "dockerfile parse error on line {}: base name ({}) should not be blank",
                stage.line, stage.base
            )));
        }
        if let Some(platform) = &stage.platform {
            check_platform(&self.expand(file, platform)?)?;
        }
        let mut after = sources(stage, &self.names, &self.contexts, index);
        let base = match self.names.get(&name.to_ascii_lowercase()) {
            _ if self.contexts.contains(&context_key(&name)) => Base::Context(context_key(&name)),
            Some(other) if *other < index => Base::Stage(*other),
            _ if name == "scratch" => Base::Scratch,
            _ => Base::Image(name),
        };
        if let Base::Stage(other) = base {
            after.insert(other);
        }
        Ok(Place {
            base,
            after,
            first_step: 0,
        })
    }
}

/// Stages that a stage's steps take files of.
fn sources(
    stage: &Stage,
    names: &BTreeMap<String, usize>,
    contexts: &BTreeSet<String>,
    index: usize,
) -> BTreeSet<usize> {
    let mut found = BTreeSet::new();
    let mut add = |from: &Option<String>| {
        let named = from
            .as_deref()
            .filter(|from| !contexts.contains(&context_key(from)))
            .and_then(|from| stage_of(names, from, index));
        found.extend(named);
    };
    for step in &stage.steps {
        match &step.instruction {
            Instruction::Copy(copy) => add(&copy.from),
            Instruction::Run(run) => run.mounts.iter().for_each(|mount| add(&mount.from)),
            _ => {}
        }
    }
    found
}

/// By what a name is looked up among those the client gave a meaning.
pub fn context_key(name: &str) -> String {
    let name = name.to_ascii_lowercase();
    let name = name.strip_prefix("docker.io/").unwrap_or(&name);
    let name = name.strip_prefix("library/").unwrap_or(name);
    name.strip_suffix(":latest").unwrap_or(name).to_owned()
}

/// The earlier stage of this name or number.
pub(super) fn stage_of(names: &BTreeMap<String, usize>, from: &str, index: usize) -> Option<usize> {
    let named = names.get(&from.to_ascii_lowercase()).copied();
    named
        .or_else(|| from.parse().ok())
        .filter(|found| *found < index)
}

/// What this machine is, in the names of arguments.
fn platform() -> BTreeMap<String, String> {
    let architecture = oci::ImageDocument::scratch().architecture;
    let pairs = ["TARGET", "BUILD"].into_iter().flat_map(|who| {
        [
            (format!("{who}PLATFORM"), format!("linux/{architecture}")),
            (format!("{who}OS"), "linux".to_owned()),
            (format!("{who}ARCH"), architecture.clone()),
            (format!("{who}VARIANT"), String::new()),
        ]
    });
    pairs.collect()
}

fn check_platform(wanted: &str) -> Result<(), BuildError> {
    let own = &platform()["TARGETPLATFORM"];
    if wanted.is_empty() || wanted == own || wanted == "linux" {
        return Ok(());
    }
    let message = format!("images for {wanted} are not supported: this machine is {own}");
    Err(BuildError::Other(message))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(text: &str, target: &str) -> Result<Plan, String> {
        let request = Request {
            target: target.to_owned(),
            args: BTreeMap::from([("v".to_owned(), "2".to_owned())]),
            ..Request::default()
        };
        let file = crate::dockerfile::parse(text).unwrap();
        Plan::of(&file, &request).map_err(|error| error.to_string())
    }

    #[test]
    fn only_needed_stages() {
        let text = "ARG v=1\nARG w=x$v\nFROM base:$w AS a\nRUN 1\nFROM scratch AS b\nRUN 2\n\
                    FROM a AS c\nCOPY --from=B / /\nRUN --mount=from=0,target=/x 3\nFROM b AS d\nRUN 4\n";
        let found = plan(text, "c").unwrap();
        assert_eq!(found.stages.keys().copied().collect::<Vec<_>>(), [0, 1, 2]);
        assert_eq!(found.stages[&0].base, Base::Image("base:x2".to_owned()));
        assert_eq!(
            (found.stages[&2].base.clone(), found.stages[&2].first_step),
            (Base::Stage(0), 5)
        );
        assert_eq!(found.stages[&2].after, BTreeSet::from([0, 1]));
        assert_eq!(found.total, 7);
        let last = plan(text, "").unwrap();
        assert_eq!(last.stages.keys().copied().collect::<Vec<_>>(), [1, 3]);
        assert_eq!(plan(text, "0").unwrap().target, 0);
        assert_eq!(
            plan(text, "z").unwrap_err(),
            "target stage \"z\" could not be found"
        );
        assert!(
            plan("ARG x\nFROM $x", "")
                .unwrap_err()
                .contains("base name ($x) should not be blank")
        );
        assert!(
            plan("FROM --platform=linux/s390x x", "")
                .unwrap_err()
                .contains("linux/s390x")
        );
        assert_eq!(
            plan("FROM a AS x\nFROM b AS x", "").unwrap_err(),
            "duplicate name x"
        );
    }
}
