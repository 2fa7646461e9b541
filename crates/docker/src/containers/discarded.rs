//! Limits that not every machine has: what cannot be is taken out, with what docker tells of such; what
//! can be is put into the engine's words.

use std::os::unix::fs::{FileTypeExt, MetadataExt};

use linux::cgroup::{Abilities, BlockRate, RareLimits};

use crate::answer::Fault;
use crate::wire::{DeviceRate, HostConfig, Limits};

/// What docker takes as a weight.
const WEIGHTS: std::ops::RangeInclusive<u64> = 10..=1000;
/// Microseconds, docker's own period of real-time limits.
const RT_PERIOD: i64 = 1_000_000;

/// Refuses limits that are out of range.
pub(super) fn check(limits: &Limits) -> Result<(), Fault> {
    let wrong = |weight: u64| weight != 0 && !WEIGHTS.contains(&weight);
    if wrong(limits.blkio_weight) {
        return Err(Fault::bad("Range of blkio weight is from 10 to 1000"));
    }
    let mut weights = limits.blkio_weight_device.iter().flatten();
    if let Some(one) = weights.find(|one| wrong(one.weight)) {
        return Err(Fault::bad(format!(
            "Range of blkio weight device is from 10 to 1000: {}",
            one.path
        )));
    }
    let period = match limits.rt_period {
        0 => RT_PERIOD,
        period => period,
    };
    if limits.rt_runtime > period {
        let message = "cpu real-time runtime cannot be higher than cpu real-time period";
        return Err(Fault::bad(message));
    }
    match limits.memory_swappiness {
        Some(swappiness) if !(-1..=100).contains(&swappiness) => Err(Fault::bad(format!(
            "Invalid value: {swappiness}, valid memory swappiness range is 0-100"
        ))),
        _ => Ok(()),
    }
}

/// Takes out what will not be, and says so.
pub(super) fn discard(host: &mut HostConfig, able: &Abilities) -> Vec<String> {
    let limits = &mut host.limits;
    let mut warnings = Vec::new();
    if !able.block_weight && std::mem::take(&mut limits.blkio_weight) != 0 {
        warnings.push("Your kernel does not support Block I/O weight or the cgroup is not mounted. Weight discarded.");
    }
    if !able.block_weight_device && filled(limits.blkio_weight_device.take()) {
        warnings.push("Your kernel does not support Block I/O weight_device or the cgroup is not mounted. Weight-device discarded.");
    }
    let rates = [
        (
            &mut limits.blkio_device_read_bps,
            "Your kernel does not support BPS Block I/O read limit or the cgroup is not mounted. Block I/O BPS read limit discarded.",
        ),
        (
            &mut limits.blkio_device_write_bps,
            "Your kernel does not support BPS Block I/O write limit or the cgroup is not mounted. Block I/O BPS write limit discarded.",
        ),
        (
            &mut limits.blkio_device_read_iops,
            "Your kernel does not support IOPS Block read limit or the cgroup is not mounted. Block I/O IOPS read limit discarded.",
        ),
        (
            &mut limits.blkio_device_write_iops,
            "Your kernel does not support IOPS Block write limit or the cgroup is not mounted. Block I/O IOPS write limit discarded.",
        ),
    ];
    for (rates, words) in rates {
        if !able.block_rates && filled(rates.take()) {
            warnings.push(words);
        }
    }
    let swappiness = limits.memory_swappiness.filter(|wish| *wish >= 0);
    if !able.swappiness && swappiness.is_some() {
        limits.memory_swappiness = None;
        warnings.push("Your kernel does not support memory swappiness capabilities or the cgroup is not mounted. Memory swappiness discarded.");
    }
    if !able.oom_kill_disable && limits.oom_kill_disable == Some(true) {
        limits.oom_kill_disable = None;
        warnings.push("Your kernel does not support OomKillDisable. OomKillDisable discarded.");
    }
    warnings.into_iter().map(str::to_owned).collect()
}

/// What docker refuses rather than to discard it.
pub(super) fn refuse(limits: &Limits, able: &Abilities) -> Result<(), Fault> {
    if able.real_time || (limits.rt_period == 0 && limits.rt_runtime == 0) {
        return Ok(());
    }
    let what = match limits.rt_period {
        0 => "runtime",
        _ => "period",
    };
    Err(Fault::bad(format!(
        "Your kernel does not support CPU real-time {what}"
    )))
}

fn filled<T>(list: Option<Vec<T>>) -> bool {
    list.is_some_and(|list| !list.is_empty())
}

/// In the engine's words; devices are looked at, which must be there.
pub(crate) fn rare(limits: &Limits) -> Result<RareLimits, Fault> {
    let rates = |list: &Option<Vec<DeviceRate>>| -> Result<Vec<BlockRate>, Fault> {
        let list = list.iter().flatten();
        list.map(|one| device(&one.path, one.rate)).collect()
    };
    let weights = limits.blkio_weight_device.iter().flatten();
    let weights: Result<_, Fault> = weights.map(|one| device(&one.path, one.weight)).collect();
    Ok(RareLimits {
        weight: limits.blkio_weight,
        weights: weights?,
        read_bytes: rates(&limits.blkio_device_read_bps)?,
        write_bytes: rates(&limits.blkio_device_write_bps)?,
        read_operations: rates(&limits.blkio_device_read_iops)?,
        write_operations: rates(&limits.blkio_device_write_iops)?,
        rt_period: u64::try_from(limits.rt_period).unwrap_or(0),
        rt_runtime: limits.rt_runtime,
        swappiness: limits
            .memory_swappiness
            .and_then(|wish| u8::try_from(wish).ok()),
    })
}

fn device(path: &str, rate: u64) -> Result<BlockRate, Fault> {
    let found = std::fs::metadata(path)
        .map_err(|error| Fault::bad(format!("stat {path}: {}", crate::answer::words(&error))))?;
    if !found.file_type().is_block_device() {
        return Err(Fault::bad(format!("{path}: not a block device")));
    }
    Ok(BlockRate {
        major: nix::sys::stat::major(found.rdev()),
        minor: nix::sys::stat::minor(found.rdev()),
        rate,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"{"BlkioWeight":300,"BlkioWeightDevice":[],"BlkioDeviceReadBps":null,
        "BlkioDeviceWriteIOps":[{"Path":"/dev/none","Rate":9}],"MemorySwappiness":-1}"#;

    #[test]
    fn only_what_was_wished_is_told_of() {
        let mut host: HostConfig = serde_json::from_str(TEXT).unwrap();
        let warnings = discard(&mut host, &Abilities::default());
        assert_eq!(warnings.len(), 2, "{warnings:?}");
        assert!(warnings[1].contains("IOPS Block write limit"));
        assert!(discard(&mut host, &Abilities::default()).is_empty());
        let mut able: HostConfig = serde_json::from_str(TEXT).unwrap();
        let all = Abilities {
            block_weight: true,
            block_rates: true,
            ..Abilities::default()
        };
        assert!(discard(&mut able, &all).is_empty());
        assert_eq!(able.limits.blkio_weight, 300);
        let fault = rare(&able.limits).unwrap_err();
        assert_eq!(fault.message, "stat /dev/none: no such file or directory");
        assert!(rare(&host.limits).is_ok());
    }

    #[test]
    fn what_is_out_of_range() {
        for text in [
            r#"{"BlkioWeight":9}"#,
            r#"{"BlkioWeightDevice":[{"Path":"/dev/x","Weight":1001}]}"#,
            r#"{"MemorySwappiness":101}"#,
            r#"{"CpuRealtimeRuntime":1000001}"#,
        ] {
            let limits: Limits = serde_json::from_str(text).unwrap();
            assert!(check(&limits).is_err(), "{text}");
        }
        let limits: Limits = serde_json::from_str(r#"{"CpuRealtimeRuntime":9}"#).unwrap();
        assert!(check(&limits).is_ok() && refuse(&limits, &Abilities::default()).is_err());
    }
}
