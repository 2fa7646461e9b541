//! From adjustments to what the engine makes a container of. Pure.

use std::path::{Path, PathBuf};

use node_api::{ContainerConfig, LinuxResources, Mount};
use runtime::{DeviceNode, DeviceRule, Extras, Hook, Moment, Rlimit, Tmpfs};

use crate::merge::removed;
use crate::wire::{self, OptionalInt, OptionalUInt};

/// Of device files that nobody says more about.
const DEVICE_MODE: u32 = 0o666;

/// Puts the adjustments of all plugins over a container's configuration.
pub(crate) fn adjust(
    wish: wire::ContainerAdjustment,
    config: &mut ContainerConfig,
) -> Result<Extras, String> {
    let mut extras = Extras::default();
    for (name, value) in wish.annotations {
        match removed(&name) {
            Some(name) => config.annotations.remove(name),
            None => config.annotations.insert(name, value),
        };
    }
    for mount in wish.mounts {
        add_mount(mount, config, &mut extras)?;
    }
    for wire::KeyValue { key, value } in wish.env {
        let name = removed(&key).unwrap_or(&key);
        config.envs.retain(|(known, _)| known != name);
        match removed(&key) {
            Some(name) => extras.without_env.push(name.to_owned()),
            None => {
                extras.without_env.retain(|gone| *gone != key);
                config.envs.push((key, value));
            }
        }
    }
    if !wish.args.is_empty() {
        (config.command, config.args) = (wish.args, Vec::new());
    }
    for (moment, hooks) in moments(wish.hooks.unwrap_or_default()) {
        for hook in hooks {
            extras.hooks.add(moment, run(hook)?);
        }
    }
    extras.rlimits = wish.rlimits.into_iter().map(rlimit).collect();
    let names = wish.cdi_devices.into_iter().map(|device| device.name);
    config.cdi_devices.extend(names);
    let linux = wish.linux.unwrap_or_default();
    for device in linux.devices {
        add_device(device, config, &mut extras)?;
    }
    if let Some(limits) = linux.resources {
        let memory = limits.memory.clone().unwrap_or_default();
        let cpu = limits.cpu.clone().unwrap_or_default();
        extras.oom_kill_disable = memory.disable_oom_killer.is_some_and(|wish| wish.value);
        if let Some(swappiness) = memory.swappiness {
            let percent = u8::try_from(swappiness.value).ok().filter(|p| *p <= 100);
            extras.rare.swappiness =
                Some(percent.ok_or("a swappiness beyond 100 is not a percentage")?);
        }
        extras.rare.rt_runtime = signed(&cpu.realtime_runtime);
        extras.rare.rt_period = cpu.realtime_period.map_or(0, |period| period.value);
        put(&limits, &mut config.resources)?;
    }
    if let Some(score) = linux.oom_score_adj {
        config.resources.oom_score_adj = score.value;
    }
    Ok(extras)
}

/// What an update sets, and nothing else.
pub(crate) fn update(wish: &wire::LinuxResources) -> Result<LinuxResources, String> {
    let (memory, cpu) = (wish.memory.clone(), wish.cpu.clone());
    let (memory, cpu) = (memory.unwrap_or_default(), cpu.unwrap_or_default());
    let fixed = memory.swappiness.is_some()
        || memory.disable_oom_killer.is_some()
        || cpu.realtime_runtime.is_some()
        || cpu.realtime_period.is_some();
    if fixed {
        let message = "swappiness, OOM killer and realtime limits are not changed after creation";
        return Err(message.to_owned());
    }
    let mut limits = LinuxResources::default();
    put(wish, &mut limits)?;
    Ok(limits)
}

fn signed(value: &Option<OptionalInt>) -> i64 {
    value.as_ref().map_or(0, |value| value.value)
}

fn put(wish: &wire::LinuxResources, limits: &mut LinuxResources) -> Result<(), String> {
    let set = |target: &mut i64, value: &Option<OptionalInt>| {
        if let Some(value) = value {
            *target = value.value;
        }
    };
    let set_unsigned = |target: &mut i64, value: &Option<OptionalUInt>| {
        if let Some(value) = value {
            *target = number(value.value)?;
        }
        Ok::<(), String>(())
    };
    if let Some(memory) = &wish.memory {
        set(&mut limits.memory_limit_bytes, &memory.limit);
        set(&mut limits.memory_reservation_bytes, &memory.reservation);
        set(&mut limits.memory_swap_limit_bytes, &memory.swap);
    }
    if let Some(cpu) = &wish.cpu {
        set_unsigned(&mut limits.cpu_shares, &cpu.shares)?;
        set(&mut limits.cpu_quota, &cpu.quota);
        set_unsigned(&mut limits.cpu_period, &cpu.period)?;
        for (target, value) in [
            (&mut limits.cpuset_cpus, &cpu.cpus),
            (&mut limits.cpuset_mems, &cpu.mems),
        ] {
            if !value.is_empty() {
                target.clone_from(value);
            }
        }
    }
    for limit in &wish.hugepage_limits {
        let bytes = number(limit.limit)?;
        limits
            .hugepage_limits
            .insert(limit.page_size.clone(), bytes);
    }
    limits.unified.extend(wish.unified.clone());
    if let Some(pids) = &wish.pids {
        limits.pids_limit = pids.limit;
    }
    Ok(())
}

fn number(value: u64) -> Result<i64, String> {
    i64::try_from(value).map_err(|_| format!("{value} is beyond any limit"))
}

fn add_mount(
    wish: wire::Mount,
    config: &mut ContainerConfig,
    extras: &mut Extras,
) -> Result<(), String> {
    let path = PathBuf::from(removed(&wish.destination).unwrap_or(&wish.destination));
    config.mounts.retain(|known| known.container_path != path);
    if removed(&wish.destination).is_some() {
        extras.without_mounts.push(path);
        return Ok(());
    }
    if !path.is_absolute() {
        return Err(format!("mount {path:?}: not an absolute path"));
    }
    let has = |word: &str| wish.options.iter().any(|option| option == word);
    let of = |name: &str| {
        let found = wish
            .options
            .iter()
            .find_map(|option| option.strip_prefix(name));
        found.unwrap_or_default().to_owned()
    };
    match wish.kind.as_str() {
        "tmpfs" => extras.tmpfs.push(Tmpfs {
            container_path: path,
            size: of("size="),
            mode: of("mode="),
            readonly: has("ro"),
            exec: !has("noexec"),
        }),
        "bind" | "rbind" | "" | "none" => {
            let host_path = PathBuf::from(wish.source);
            if !host_path.is_absolute() {
                return Err(format!(
                    "mount {path:?}: source {host_path:?} is not absolute"
                ));
            }
            // It comes in place of what the engine would put there.
            extras.without_mounts.retain(|gone| *gone != path);
            config.mounts.push(Mount {
                container_path: path,
                host_path,
                readonly: has("ro"),
                propagation: runtime::propagation(&wish.options),
                ..Mount::default()
            });
        }
        other => return Err(format!("mount {path:?}: type {other:?} is not supported")),
    }
    Ok(())
}

fn add_device(
    wish: wire::LinuxDevice,
    config: &mut ContainerConfig,
    extras: &mut Extras,
) -> Result<(), String> {
    let path = PathBuf::from(removed(&wish.path).unwrap_or(&wish.path));
    config.devices.retain(|known| known.container_path != path);
    extras.device_nodes.retain(|known| known.path != path);
    if removed(&wish.path).is_some() {
        return Ok(());
    }
    let fault = |what: &str| format!("device {}: {what}", path.display());
    if !Path::new(&path).is_absolute() {
        return Err(fault("not an absolute path"));
    }
    let kind = match wish.kind.as_str() {
        "b" => 'b',
        "c" | "u" => 'c',
        other => return Err(fault(&format!("type {other:?} is not supported"))),
    };
    let number = |value: i64| u64::try_from(value).map_err(|_| fault("a negative number"));
    let (major, minor) = (number(wish.major)?, number(wish.minor)?);
    let small = |value: &Option<OptionalUInt>, usual: u32| match value {
        Some(value) => u32::try_from(value.value).map_err(|_| fault("a number too large")),
        None => Ok(usual),
    };
    let node = DeviceNode {
        kind,
        major,
        minor,
        mode: small(&wish.file_mode, DEVICE_MODE)? & 0o7777,
        uid: small(&wish.uid, 0)?,
        gid: small(&wish.gid, 0)?,
        path: path.clone(),
    };
    extras.device_rules.push(DeviceRule {
        kind,
        major: Some(major),
        minor: Some(minor),
        access: "rwm".to_owned(),
    });
    extras.device_nodes.push(node);
    Ok(())
}

fn moments(hooks: wire::Hooks) -> [(Moment, Vec<wire::Hook>); 6] {
    [
        (Moment::Prestart, hooks.prestart),
        (Moment::CreateRuntime, hooks.create_runtime),
        (Moment::CreateContainer, hooks.create_container),
        (Moment::StartContainer, hooks.start_container),
        (Moment::Poststart, hooks.poststart),
        (Moment::Poststop, hooks.poststop),
    ]
}

fn run(hook: wire::Hook) -> Result<Hook, String> {
    let seconds = |timeout: OptionalInt| {
        let fault = |_| format!("hook {}: timeout is not positive", hook.path);
        u64::try_from(timeout.value).map_err(fault)
    };
    Ok(Hook {
        timeout: hook.timeout.clone().map(seconds).transpose()?,
        path: hook.path.into(),
        args: hook.args,
        env: hook.env,
    })
}

fn rlimit(limit: wire::PosixRlimit) -> Rlimit {
    let name = limit.kind.strip_prefix("RLIMIT_").unwrap_or(&limit.kind);
    Rlimit {
        name: name.to_ascii_lowercase(),
        soft: limit.soft,
        hard: limit.hard,
    }
}

#[cfg(test)]
mod tests {
    use node_api::MountPropagation;

    use super::*;

    fn config() -> ContainerConfig {
        ContainerConfig {
            envs: vec![("A".to_owned(), "1".to_owned())],
            mounts: vec![Mount {
                container_path: "/data".into(),
                host_path: "/srv".into(),
                ..Mount::default()
            }],
            ..ContainerConfig::default()
        }
    }

    fn mount(kind: &str, source: &str, destination: &str, options: &[&str]) -> wire::Mount {
        wire::Mount {
            destination: destination.to_owned(),
            kind: kind.to_owned(),
            source: source.to_owned(),
            options: options.iter().map(|option| (*option).to_owned()).collect(),
        }
    }

    #[test]
    fn mounts_are_added_replaced_and_taken_away() {
        let mut config = config();
        let wish = wire::ContainerAdjustment {
            mounts: vec![
                mount("bind", "/opt", "/data", &["ro", "rslave"]),
                mount("tmpfs", "tmpfs", "/scratch", &["size=1m", "noexec"]),
                mount("", "", "-/etc/hosts", &[]),
            ],
            ..Default::default()
        };
        let extras = adjust(wish, &mut config).unwrap();
        let expected = Mount {
            container_path: "/data".into(),
            host_path: "/opt".into(),
            readonly: true,
            propagation: MountPropagation::HostToContainer,
            ..Mount::default()
        };
        assert_eq!(config.mounts, [expected]);
        assert_eq!(
            (extras.tmpfs[0].size.as_str(), extras.tmpfs[0].exec),
            ("1m", false)
        );
        assert_eq!(extras.without_mounts, [Path::new("/etc/hosts")]);
    }

    #[test]
    fn strange_mounts_are_refused() {
        for (wish, expected) in [
            (
                mount("proc", "proc", "/p", &[]),
                "type \"proc\" is not supported",
            ),
            (
                mount("bind", "x", "/p", &[]),
                "source \"x\" is not absolute",
            ),
        ] {
            let wish = wire::ContainerAdjustment {
                mounts: vec![wish],
                ..Default::default()
            };
            let fault = adjust(wish, &mut config()).unwrap_err();
            assert_eq!(fault, format!("mount \"/p\": {expected}"));
        }
    }

    #[test]
    fn variables_of_the_image_can_be_taken_away() {
        let pair = |key: &str, value: &str| wire::KeyValue {
            key: key.to_owned(),
            value: value.to_owned(),
        };
        let mut config = config();
        let wish = wire::ContainerAdjustment {
            env: vec![pair("-A", ""), pair("-PATH", ""), pair("PATH", "/bin")],
            ..Default::default()
        };
        let extras = adjust(wish, &mut config).unwrap();
        assert_eq!(config.envs, [("PATH".to_owned(), "/bin".to_owned())]);
        assert_eq!(extras.without_env, ["A"]);
    }

    #[test]
    fn limits_that_are_not_named_stay() {
        let mut config = config();
        config.resources.cpu_shares = 7;
        let limits = wire::LinuxResources {
            cpu: Some(wire::LinuxCpu {
                quota: Some(OptionalInt { value: -1 }),
                cpus: "0-1".to_owned(),
                ..Default::default()
            }),
            pids: Some(wire::LinuxPids { limit: 9 }),
            ..Default::default()
        };
        let wish = wire::ContainerAdjustment {
            linux: Some(wire::LinuxContainerAdjustment {
                resources: Some(limits),
                oom_score_adj: Some(OptionalInt { value: -5 }),
                ..Default::default()
            }),
            ..Default::default()
        };
        adjust(wish, &mut config).unwrap();
        let expected = LinuxResources {
            cpu_shares: 7,
            cpu_quota: -1,
            cpuset_cpus: "0-1".to_owned(),
            pids_limit: 9,
            oom_score_adj: -5,
            ..LinuxResources::default()
        };
        assert_eq!(config.resources, expected);
    }

    #[test]
    fn devices_come_by_their_numbers() {
        let device = |path: &str| wire::LinuxDevice {
            path: path.to_owned(),
            kind: "c".to_owned(),
            major: 10,
            minor: 200,
            gid: Some(OptionalUInt { value: 5 }),
            ..Default::default()
        };
        let with = |devices| wire::ContainerAdjustment {
            linux: Some(wire::LinuxContainerAdjustment {
                devices,
                ..Default::default()
            }),
            ..Default::default()
        };
        let extras = adjust(with(vec![device("/dev/x")]), &mut config()).unwrap();
        let expected = DeviceNode {
            path: "/dev/x".into(),
            kind: 'c',
            major: 10,
            minor: 200,
            mode: 0o666,
            uid: 0,
            gid: 5,
        };
        assert_eq!(extras.device_nodes, [expected]);
        assert_eq!(extras.device_rules[0].minor, Some(200));
        assert!(adjust(with(vec![device("x")]), &mut config()).is_err());
    }
}
