//! What several plugins want of one container, taken together. Pure: plugins are asked one after the
//! other, each sees what those before it have done, and two that set the same are a fault.

use std::collections::BTreeSet;

use crate::wire::{self, Field, FieldOwners, LinuxCpu, LinuxMemory, LinuxResources};

/// Before the name of what is to be removed.
const REMOVAL: char = '-';

/// The name without its mark, if it is to be removed.
pub(crate) fn removed(name: &str) -> Option<&str> {
    name.strip_prefix(REMOVAL)
}

/// Who set what.
#[derive(Clone, Debug, Default)]
pub(crate) struct Owners(pub(crate) wire::OwningPlugins);

impl Owners {
    fn of(&mut self, container: &str) -> &mut FieldOwners {
        self.0.owners.entry(container.to_owned()).or_default()
    }

    /// Notes that a plugin sets a field, or with `key` an entry of it.
    fn claim(
        &mut self,
        container: &str,
        field: Field,
        key: &str,
        plugin: &str,
    ) -> Result<(), String> {
        let owners = self.of(container);
        let slot = match key {
            "" => owners.simple.entry(field as i32).or_default(),
            key => {
                let entries = owners.compound.entry(field as i32).or_default();
                entries.owners.entry(key.to_owned()).or_default()
            }
        };
        match removed(slot).unwrap_or(slot) {
            "" => {}
            // What one has taken away from another is its own to set.
            other if other == plugin && removed(slot).is_some() => {}
            other => {
                return Err(format!(
                    "plugins {plugin:?} and {other:?} both tried to set {field:?} {key}"
                ));
            }
        }
        plugin.clone_into(slot);
        Ok(())
    }

    /// Takes a field, or an entry of it, away from whoever set it.
    fn clear(&mut self, container: &str, field: Field, key: &str, plugin: &str) {
        let owners = self.of(container);
        let slot = match key {
            "" => owners.simple.get_mut(&(field as i32)),
            key => (owners.compound.get_mut(&(field as i32)))
                .and_then(|entries| entries.owners.get_mut(key)),
        };
        if let Some(slot) = slot {
            *slot = format!("{REMOVAL}{plugin}");
        }
    }

    /// Adds a plugin to those that set a field together.
    fn join(&mut self, container: &str, field: Field, plugin: &str) {
        let slot = self.of(container).simple.entry(field as i32).or_default();
        if !slot.is_empty() {
            slot.push(',');
        }
        slot.push_str(plugin);
    }
}

/// Updates of containers, one each.
#[derive(Clone, Debug, Default)]
pub(crate) struct Updates(pub(crate) Vec<wire::ContainerUpdate>);

impl Updates {
    /// What is wanted of the first container.
    pub(crate) fn own(&self) -> Option<LinuxResources> {
        self.0.first()?.linux.as_ref()?.resources.clone()
    }

    /// Takes in what a plugin wants of containers that are there.
    pub(crate) fn add(
        &mut self,
        owners: &mut Owners,
        wishes: Vec<wire::ContainerUpdate>,
        plugin: &str,
    ) -> Result<(), String> {
        for wish in wishes {
            let id = wish.container_id;
            let index = match self.0.iter().position(|known| known.container_id == id) {
                Some(index) => index,
                None => {
                    self.0.push(wire::ContainerUpdate {
                        container_id: id.clone(),
                        linux: Some(wire::LinuxContainerUpdate::default()),
                        ignore_failure: true,
                    });
                    self.0.len() - 1
                }
            };
            let known = &mut self.0[index];
            known.ignore_failure &= wish.ignore_failure;
            let Some(wanted) = wish.linux.and_then(|linux| linux.resources) else {
                continue;
            };
            let linux = known.linux.get_or_insert_default();
            let mut both = linux.resources.clone().unwrap_or_default();
            match resources(owners, &id, &wanted, &mut both, plugin) {
                Ok(()) => linux.resources = Some(both),
                Err(_) if wish.ignore_failure => {}
                Err(fault) => return Err(fault),
            }
        }
        Ok(())
    }
}

/// A container that is about to be made.
#[derive(Clone, Debug, Default)]
pub(crate) struct Creation {
    /// As adjusted so far.
    pub(crate) container: wire::Container,
    pub(crate) adjust: wire::ContainerAdjustment,
    pub(crate) updates: Updates,
    pub(crate) owners: Owners,
}

impl Creation {
    pub(crate) fn new(container: wire::Container) -> Creation {
        Creation {
            container,
            ..Creation::default()
        }
    }

    /// Takes a plugin's answer in.
    pub(crate) fn take(
        &mut self,
        answer: wire::CreateContainerResponse,
        plugin: &str,
    ) -> Result<(), String> {
        let id = &self.container.id;
        if answer
            .update
            .iter()
            .any(|update| update.container_id == *id)
        {
            return Err(format!(
                "plugin {plugin:?} asked update of {id:?} during creation"
            ));
        }
        self.updates.add(&mut self.owners, answer.update, plugin)?;
        let Some(wish) = answer.adjust else {
            return Ok(());
        };
        let mut step = Step {
            id: self.container.id.clone(),
            plugin,
            owners: &mut self.owners,
        };
        step.annotations(wish.annotations, &mut self.container, &mut self.adjust)?;
        step.entries(
            Field::Mounts,
            wish.mounts,
            |mount| &mount.destination,
            &mut self.adjust.mounts,
            &mut self.container.mounts,
        )?;
        step.env(wish.env, &mut self.container, &mut self.adjust)?;
        step.args(wish.args, &mut self.container, &mut self.adjust)?;
        step.hooks(wish.hooks, &mut self.container, &mut self.adjust);
        for limit in wish.rlimits {
            step.claim(Field::Rlimits, &limit.kind)?;
            self.container
                .rlimits
                .retain(|known| known.kind != limit.kind);
            self.container.rlimits.push(limit.clone());
            self.adjust.rlimits.push(limit);
        }
        for device in wish.cdi_devices {
            step.claim(Field::CdiDevices, &device.name)?;
            self.adjust.cdi_devices.push(device);
        }
        match wish.linux {
            Some(linux) => step.linux(linux, &mut self.container, &mut self.adjust),
            None => Ok(()),
        }
    }
}

/// One plugin's turn.
struct Step<'a> {
    id: String,
    plugin: &'a str,
    owners: &'a mut Owners,
}

impl Step<'_> {
    fn claim(&mut self, field: Field, key: &str) -> Result<(), String> {
        self.owners.claim(&self.id, field, key, self.plugin)
    }

    fn clear(&mut self, field: Field, key: &str) {
        self.owners.clear(&self.id, field, key, self.plugin);
    }

    /// Entries that are added, replaced and removed by their names.
    fn entries<T: Clone>(
        &mut self,
        field: Field,
        wishes: Vec<T>,
        name: impl Fn(&T) -> &String,
        adjusted: &mut Vec<T>,
        container: &mut Vec<T>,
    ) -> Result<(), String> {
        let gone: BTreeSet<String> = (wishes.iter())
            .filter_map(|wish| removed(name(wish)).map(str::to_owned))
            .collect();
        for key in &gone {
            self.clear(field, key);
        }
        let given: BTreeSet<String> = wishes.iter().map(|wish| name(wish).clone()).collect();
        let stays = |known: &T| !gone.contains(name(known)) && !given.contains(name(known));
        container.retain(stays);
        adjusted.retain(|known| !gone.contains(name(known)));
        for wish in wishes {
            if removed(name(&wish)).is_none() {
                self.claim(field, name(&wish))?;
                container.push(wish.clone());
            }
            adjusted.push(wish);
        }
        Ok(())
    }

    fn annotations(
        &mut self,
        wishes: std::collections::BTreeMap<String, String>,
        container: &mut wire::Container,
        adjusted: &mut wire::ContainerAdjustment,
    ) -> Result<(), String> {
        let (gone, given): (Vec<_>, Vec<_>) =
            (wishes.into_iter()).partition(|(name, _)| removed(name).is_some());
        for (marked, value) in gone {
            let name = removed(&marked).unwrap_or_default();
            self.clear(Field::Annotations, name);
            container.annotations.remove(name);
            adjusted.annotations.remove(name);
            adjusted.annotations.insert(marked, value);
        }
        for (name, value) in given {
            self.claim(Field::Annotations, &name)?;
            container.annotations.insert(name.clone(), value.clone());
            adjusted.annotations.insert(name, value);
        }
        Ok(())
    }

    fn env(
        &mut self,
        wishes: Vec<wire::KeyValue>,
        container: &mut wire::Container,
        adjusted: &mut wire::ContainerAdjustment,
    ) -> Result<(), String> {
        let pairs = |text: String| match text.split_once('=') {
            Some((key, value)) => wire::KeyValue {
                key: key.to_owned(),
                value: value.to_owned(),
            },
            None => wire::KeyValue {
                key: text,
                value: String::new(),
            },
        };
        let mut known: Vec<_> = std::mem::take(&mut container.env)
            .into_iter()
            .map(pairs)
            .collect();
        let taken = self.entries(
            Field::Env,
            wishes,
            |pair| &pair.key,
            &mut adjusted.env,
            &mut known,
        );
        let text = |pair: wire::KeyValue| format!("{}={}", pair.key, pair.value);
        container.env = known.into_iter().map(text).collect();
        taken
    }

    /// An empty first word says that others' arguments are known and replaced.
    fn args(
        &mut self,
        mut wishes: Vec<String>,
        container: &mut wire::Container,
        adjusted: &mut wire::ContainerAdjustment,
    ) -> Result<(), String> {
        if wishes.is_empty() {
            return Ok(());
        }
        if wishes[0].is_empty() {
            self.clear(Field::Args, "");
            wishes.remove(0);
        }
        self.claim(Field::Args, "")?;
        container.args.clone_from(&wishes);
        adjusted.args = wishes;
        Ok(())
    }

    fn hooks(
        &mut self,
        wishes: Option<wire::Hooks>,
        container: &mut wire::Container,
        adjusted: &mut wire::ContainerAdjustment,
    ) {
        let Some(wishes) = wishes.filter(|wishes| *wishes != wire::Hooks::default()) else {
            return;
        };
        self.owners.join(&self.id, Field::OciHooks, self.plugin);
        for hooks in [&mut container.hooks, &mut adjusted.hooks] {
            let hooks = hooks.get_or_insert_default();
            let wishes = wishes.clone();
            hooks.prestart.extend(wishes.prestart);
            hooks.create_runtime.extend(wishes.create_runtime);
            hooks.create_container.extend(wishes.create_container);
            hooks.start_container.extend(wishes.start_container);
            hooks.poststart.extend(wishes.poststart);
            hooks.poststop.extend(wishes.poststop);
        }
    }

    fn linux(
        &mut self,
        wish: wire::LinuxContainerAdjustment,
        container: &mut wire::Container,
        adjusted: &mut wire::ContainerAdjustment,
    ) -> Result<(), String> {
        refuse_rare(&wish)?;
        let container = container.linux.get_or_insert_default();
        let adjusted = adjusted.linux.get_or_insert_default();
        self.entries(
            Field::Devices,
            wish.devices,
            |device| &device.path,
            &mut adjusted.devices,
            &mut container.devices,
        )?;
        if let Some(score) = wish.oom_score_adj {
            self.claim(Field::OomScoreAdj, "")?;
            container.oom_score_adj = Some(score.clone());
            adjusted.oom_score_adj = Some(score);
        }
        if let Some(wanted) = wish.resources {
            let target = adjusted.resources.get_or_insert_default();
            resources(self.owners, &self.id, &wanted, target, self.plugin)?;
            // Nobody else is asked about these, so all claims are new.
            let told = container.resources.get_or_insert_default();
            resources(&mut Owners::default(), &self.id, &wanted, told, self.plugin)?;
        }
        Ok(())
    }
}

/// What the engine does not do, told rather than left undone.
fn refuse_rare(wish: &wire::LinuxContainerAdjustment) -> Result<(), String> {
    let wishes = [
        (!wish.cgroups_path.is_empty(), "the cgroups path"),
        (wish.io_priority.is_some(), "the I/O priority"),
        (wish.seccomp_policy.is_some(), "the seccomp policy"),
        (!wish.namespaces.is_empty(), "namespaces"),
        (!wish.sysctl.is_empty(), "sysctls"),
        (!wish.net_devices.is_empty(), "network devices"),
        (wish.scheduler.is_some(), "the scheduler"),
        (wish.rdt.is_some(), "RDT"),
        (wish.memory_policy.is_some(), "the memory policy"),
    ];
    refuse(&wishes)
}

fn refuse(wishes: &[(bool, &str)]) -> Result<(), String> {
    match wishes.iter().find(|(wished, _)| *wished) {
        Some((_, what)) => Err(format!("adjusting {what} of a container is not supported")),
        None => Ok(()),
    }
}

/// Puts `wanted` over what is in `target`.
fn resources(
    owners: &mut Owners,
    id: &str,
    wanted: &LinuxResources,
    target: &mut LinuxResources,
    plugin: &str,
) -> Result<(), String> {
    refuse(&[
        (wanted.blockio_class.is_some(), "the block I/O class"),
        (wanted.rdt_class.is_some(), "the RDT class"),
        (!wanted.devices.is_empty(), "rules of devices"),
    ])?;
    let mut claim = |field, key: &str| owners.claim(id, field, key, plugin);
    if let Some(memory_wanted) = &wanted.memory {
        memory(
            &mut claim,
            memory_wanted,
            target.memory.get_or_insert_default(),
        )?;
    }
    if let Some(cpu_wanted) = &wanted.cpu {
        cpu(&mut claim, cpu_wanted, target.cpu.get_or_insert_default())?;
    }
    for limit in &wanted.hugepage_limits {
        claim(Field::HugepageLimits, &limit.page_size)?;
        let limits = &mut target.hugepage_limits;
        limits.retain(|known| known.page_size != limit.page_size);
        limits.push(limit.clone());
    }
    for (name, value) in &wanted.unified {
        claim(Field::CgroupsUnified, name)?;
        target.unified.insert(name.clone(), value.clone());
    }
    if let Some(pids) = &wanted.pids {
        claim(Field::PidsLimit, "")?;
        target.pids = Some(pids.clone());
    }
    Ok(())
}

type Claim<'a> = dyn FnMut(Field, &str) -> Result<(), String> + 'a;

fn set<T: Clone>(
    claim: &mut Claim<'_>,
    field: Field,
    wanted: &Option<T>,
    target: &mut Option<T>,
) -> Result<(), String> {
    if wanted.is_some() {
        claim(field, "")?;
        target.clone_from(wanted);
    }
    Ok(())
}

fn memory(
    claim: &mut Claim<'_>,
    wanted: &LinuxMemory,
    target: &mut LinuxMemory,
) -> Result<(), String> {
    refuse(&[
        (wanted.kernel.is_some(), "the kernel memory limit"),
        (wanted.kernel_tcp.is_some(), "the kernel TCP memory limit"),
        (wanted.use_hierarchy.is_some(), "the memory hierarchy"),
    ])?;
    set(claim, Field::MemLimit, &wanted.limit, &mut target.limit)?;
    let (from, to) = (&wanted.reservation, &mut target.reservation);
    set(claim, Field::MemReservation, from, to)?;
    set(claim, Field::MemSwapLimit, &wanted.swap, &mut target.swap)?;
    let (from, to) = (&wanted.swappiness, &mut target.swappiness);
    set(claim, Field::MemSwappiness, from, to)?;
    let (from, to) = (&wanted.disable_oom_killer, &mut target.disable_oom_killer);
    set(claim, Field::MemDisableOomKiller, from, to)
}

fn cpu(claim: &mut Claim<'_>, wanted: &LinuxCpu, target: &mut LinuxCpu) -> Result<(), String> {
    set(claim, Field::CpuShares, &wanted.shares, &mut target.shares)?;
    set(claim, Field::CpuQuota, &wanted.quota, &mut target.quota)?;
    set(claim, Field::CpuPeriod, &wanted.period, &mut target.period)?;
    let (from, to) = (&wanted.realtime_runtime, &mut target.realtime_runtime);
    set(claim, Field::CpuRealtimeRuntime, from, to)?;
    let (from, to) = (&wanted.realtime_period, &mut target.realtime_period);
    set(claim, Field::CpuRealtimePeriod, from, to)?;
    let sets = [
        (Field::CpuSetCpus, &wanted.cpus, &mut target.cpus),
        (Field::CpuSetMems, &wanted.mems, &mut target.mems),
    ];
    for (field, from, to) in sets {
        if !from.is_empty() {
            claim(field, "")?;
            to.clone_from(from);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{ContainerAdjustment, CreateContainerResponse, KeyValue, OptionalInt};

    fn creation() -> Creation {
        Creation::new(wire::Container {
            id: "new".to_owned(),
            env: vec!["A=1".to_owned(), "B=2".to_owned()],
            ..Default::default()
        })
    }

    fn pair(key: &str, value: &str) -> KeyValue {
        let (key, value) = (key.to_owned(), value.to_owned());
        KeyValue { key, value }
    }

    fn with_env(env: &[(&str, &str)]) -> CreateContainerResponse {
        let env = env.iter().map(|(key, value)| pair(key, value)).collect();
        answer(ContainerAdjustment {
            env,
            ..Default::default()
        })
    }

    fn answer(adjust: ContainerAdjustment) -> CreateContainerResponse {
        CreateContainerResponse {
            adjust: Some(adjust),
            ..Default::default()
        }
    }

    fn with_memory(limit: i64) -> LinuxResources {
        LinuxResources {
            memory: Some(LinuxMemory {
                limit: Some(OptionalInt { value: limit }),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    fn update(id: &str, limit: i64, ignore_failure: bool) -> wire::ContainerUpdate {
        wire::ContainerUpdate {
            container_id: id.to_owned(),
            linux: Some(wire::LinuxContainerUpdate {
                resources: Some(with_memory(limit)),
            }),
            ignore_failure,
        }
    }

    #[test]
    fn each_sees_what_those_before_it_did() {
        let mut creation = creation();
        creation
            .take(with_env(&[("B", "3"), ("-A", "")]), "00-a")
            .unwrap();
        assert_eq!(creation.container.env, ["B=3"]);
        creation.take(with_env(&[("C", "4")]), "10-b").unwrap();
        assert_eq!(creation.container.env, ["B=3", "C=4"]);
        let kept = [pair("B", "3"), pair("-A", ""), pair("C", "4")];
        assert_eq!(creation.adjust.env, kept);
    }

    #[test]
    fn two_that_set_the_same_are_told_of_each_other() {
        let mut creation = creation();
        creation.take(with_env(&[("B", "3")]), "00-a").unwrap();
        let fault = creation.take(with_env(&[("B", "4")]), "10-b").unwrap_err();
        assert_eq!(
            fault,
            r#"plugins "10-b" and "00-a" both tried to set Env B"#
        );
    }

    #[test]
    fn what_is_removed_first_may_be_set_again_by_whoever_removed_it() {
        let mut creation = creation();
        creation.take(with_env(&[("B", "3")]), "00-a").unwrap();
        creation
            .take(with_env(&[("-B", ""), ("B", "4")]), "10-b")
            .unwrap();
        assert_eq!(creation.container.env, ["A=1", "B=4"]);
        let fault = creation.take(with_env(&[("B", "5")]), "20-c").unwrap_err();
        assert_eq!(
            fault,
            r#"plugins "20-c" and "10-b" both tried to set Env B"#
        );
    }

    #[test]
    fn arguments_are_replaced_by_those_who_say_so() {
        let with = |args: &[&str]| {
            let args = args.iter().map(|word| (*word).to_owned()).collect();
            answer(ContainerAdjustment {
                args,
                ..Default::default()
            })
        };
        let mut creation = creation();
        creation.take(with(&["one"]), "00-a").unwrap();
        assert!(creation.clone().take(with(&["two"]), "10-b").is_err());
        creation.take(with(&["", "two"]), "10-b").unwrap();
        assert_eq!(creation.adjust.args, ["two"]);
    }

    #[test]
    fn updates_of_one_container_are_one() {
        let (mut updates, mut owners) = (Updates::default(), Owners::default());
        updates
            .add(&mut owners, vec![update("x", 5, true)], "00-a")
            .unwrap();
        // It is taken back where its own maker can do without.
        updates
            .add(&mut owners, vec![update("x", 6, true)], "10-b")
            .unwrap();
        let fault = updates.add(&mut owners, vec![update("x", 7, false)], "20-c");
        let expected = r#"plugins "20-c" and "00-a" both tried to set MemLimit "#;
        assert_eq!(fault.unwrap_err(), expected);
        let kept = updates.0[0].linux.clone().unwrap().resources.unwrap();
        assert_eq!((updates.0.len(), kept), (1, with_memory(5)));
    }

    #[test]
    fn what_is_not_done_is_refused() {
        let with = |linux| {
            answer(ContainerAdjustment {
                linux: Some(linux),
                ..Default::default()
            })
        };
        let rdt = LinuxResources {
            rdt_class: Some(Vec::new()),
            ..Default::default()
        };
        let wishes = [
            (
                wire::LinuxContainerAdjustment {
                    resources: Some(rdt),
                    ..Default::default()
                },
                "the RDT class",
            ),
            (
                wire::LinuxContainerAdjustment {
                    scheduler: Some(Vec::new()),
                    ..Default::default()
                },
                "the scheduler",
            ),
        ];
        for (wish, what) in wishes {
            let fault = creation().take(with(wish), "00-a").unwrap_err();
            let expected = format!("adjusting {what} of a container is not supported");
            assert_eq!(fault, expected);
        }
    }

    #[test]
    fn nobody_updates_what_is_just_made() {
        let answer = CreateContainerResponse {
            update: vec![update("new", 1, true)],
            ..Default::default()
        };
        assert!(creation().take(answer, "00-a").is_err());
    }
}
