//! Limits in the words of units: what runc writes, so that `systemctl` shows the same.

use linux::cgroup::Limits;

use crate::value::Value;

/// "No limit".
const INFINITY: u64 = u64::MAX;
/// Quotas by the kernel's usual period.
const USUAL_PERIOD: i64 = 100_000;
/// systemd knows quotas in steps of this many microseconds a second.
const QUOTA_STEP: u64 = 10_000;
const SECOND: u64 = 1_000_000;
const SWAP_FILE: &str = "memory.swap.max";
/// Files of version 2 that units have words for.
const FILES: [(&str, &str); 5] = [
    (SWAP_FILE, "MemorySwapMax"),
    ("memory.high", "MemoryHigh"),
    ("memory.low", "MemoryLow"),
    ("memory.max", "MemoryMax"),
    ("memory.min", "MemoryMin"),
];

/// Properties of a unit by name.
pub(crate) type Properties = Vec<(&'static str, Value)>;

/// Resources are counted.
pub(crate) fn accounting() -> Properties {
    let names = ["CPUAccounting", "MemoryAccounting", "TasksAccounting"];
    names.map(|name| (name, Value::Bool(true))).into()
}

/// The limits of a unit; `unified` where version 2 manages resources. What systemd cannot say is
/// left to files.
pub(crate) fn of(limits: &Limits, unified: bool) -> Properties {
    let mut all = Properties::new();
    let mut add = |name, value| all.push((name, value));
    if limits.cpu_shares > 0 {
        match unified {
            true => add("CPUWeight", number(limits.cpu_weight())),
            false => add("CPUShares", number(limits.cpu_shares)),
        }
    }
    if limits.cpu_quota != 0 {
        add("CPUQuotaPerSecUSec", Value::U64(quota(limits)));
        if limits.cpu_period > 0 {
            add("CPUQuotaPeriodUSec", number(limits.cpu_period));
        }
    }
    if limits.memory_bytes != 0 {
        let name = if unified { "MemoryMax" } else { "MemoryLimit" };
        add(name, number(limits.memory_bytes));
        if unified && !limits.unified.contains_key(SWAP_FILE) {
            let swap = match limits.swap_bytes {
                0 => 0,
                sum if sum < 0 => -1,
                sum => (sum - limits.memory_bytes.max(0)).max(0),
            };
            add("MemorySwapMax", number(swap));
        }
    }
    if unified && limits.memory_low_bytes != 0 {
        add("MemoryLow", number(limits.memory_low_bytes));
    }
    if limits.pids != 0 {
        add("TasksMax", number(limits.pids));
    }
    if unified {
        for (name, list) in [
            ("AllowedCPUs", &limits.cpus),
            ("AllowedMemoryNodes", &limits.memory_nodes),
        ] {
            if let Some(bits) = bits(list) {
                add(name, Value::bytes(&bits));
            }
        }
        for (file, name) in FILES {
            if let Some(text) = limits.unified.get(file) {
                add(name, Value::U64(text.trim().parse().unwrap_or(INFINITY)));
            }
        }
    }
    all
}

fn number(value: i64) -> Value {
    Value::U64(u64::try_from(value).unwrap_or(INFINITY))
}

/// Microseconds of processors a second, rounded up to what systemd knows.
fn quota(limits: &Limits) -> u64 {
    let Ok(quota) = u64::try_from(limits.cpu_quota) else {
        return INFINITY;
    };
    let period = match limits.cpu_period {
        period if period > 0 => period.unsigned_abs(),
        _ => USUAL_PERIOD.unsigned_abs(),
    };
    let exact = quota.saturating_mul(SECOND) / period;
    exact
        .checked_next_multiple_of(QUOTA_STEP)
        .unwrap_or(INFINITY)
}

/// A list such as `0-2,7` as bits, the first in the lowest of the first byte; nothing where it says
/// nothing, or what the kernel will refuse.
fn bits(list: &str) -> Option<Vec<u8>> {
    let mut bits = Vec::new();
    for part in list.trim().split(',').filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (u16, u16) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        for number in first..=last {
            let byte = usize::from(number / 8);
            bits.resize(bits.len().max(byte + 1), 0);
            bits[byte] |= 1 << (number % 8);
        }
    }
    (!bits.is_empty()).then_some(bits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_told_in_the_words_of_both_versions() {
        let limits = Limits {
            cpu_shares: 1024,
            cpu_quota: 15_500,
            cpu_period: 100_000,
            memory_bytes: 64 << 20,
            pids: 100,
            cpus: "0-1,9".to_owned(),
            ..Limits::default()
        };
        let old = of(&limits, false);
        let expected = [
            ("CPUShares", Value::U64(1024)),
            ("CPUQuotaPerSecUSec", Value::U64(160_000)),
            ("CPUQuotaPeriodUSec", Value::U64(100_000)),
            ("MemoryLimit", Value::U64(64 << 20)),
            ("TasksMax", Value::U64(100)),
        ];
        assert_eq!(old, expected);
        let new = of(&limits, true);
        let find = |name: &str| new.iter().find(|one| one.0 == name).unwrap().1.clone();
        assert_eq!(find("CPUWeight"), Value::U64(39));
        assert_eq!(find("MemoryMax"), Value::U64(64 << 20));
        assert_eq!(find("MemorySwapMax"), Value::U64(0));
        assert_eq!(find("AllowedCPUs"), Value::bytes(&[3, 2]));
        let files = [("memory.swap.max", "4096"), ("memory.high", "max")];
        let named = Limits {
            unified: files.map(|(file, text)| (file.into(), text.into())).into(),
            ..limits
        };
        assert_eq!(of(&named, false), expected);
        let all = of(&named, true);
        let find = |name: &str| all.iter().filter(|one| one.0 == name).collect::<Vec<_>>();
        let swap = ("MemorySwapMax", Value::U64(4096));
        assert_eq!(find("MemorySwapMax"), [&swap]);
        assert_eq!(find("MemoryHigh"), [&("MemoryHigh", Value::U64(u64::MAX))]);
    }

    #[test]
    fn no_limit_is_infinity_and_what_is_not_set_is_not_said() {
        let limits = Limits {
            cpu_quota: -1,
            memory_bytes: -1,
            pids: -1,
            ..Limits::default()
        };
        assert!(
            of(&limits, false)
                .iter()
                .all(|(_, v)| *v == Value::U64(u64::MAX))
        );
        assert!(of(&Limits::default(), true).is_empty());
    }
}
