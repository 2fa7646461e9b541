//! Time namespaces: containers whose clocks of the time since the machine's start go otherwise than
//! the node's. Neither CRI nor docker has words for them, annotations do.

use std::collections::BTreeMap;
use std::fmt::Write;

use linux::namespace;
use nix::errno::Errno;
use serde::{Deserialize, Serialize};

use crate::supervisor::Step;

/// The annotations, of containers or their pods, each with a duration such as `1h30m` or `-0.5s`.
const MONOTONIC: &str = "io.sampan.time-offset/monotonic";
const BOOTTIME: &str = "io.sampan.time-offset/boottime";
/// Units of durations, in nanoseconds.
const UNITS: [(&str, i128); 7] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("ms", 1_000_000),
    ("s", SECOND),
    ("m", 60 * SECOND),
    ("h", 3600 * SECOND),
];
const SECOND: i128 = 1_000_000_000;

/// What is added to a clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Offset {
    secs: i64,
    nanosecs: u32,
}

/// The `timeOffsets` of the OCI runtime specification.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Offsets {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    monotonic: Option<Offset>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    boottime: Option<Offset>,
}

/// What is wished for, if anything is; a container's own wishes win over its pod's.
pub(crate) fn wished(
    container: &BTreeMap<String, String>,
    pod: &BTreeMap<String, String>,
) -> Result<Option<Offsets>, String> {
    let wish = |name: &str| {
        let Some(text) = container.get(name).or_else(|| pod.get(name)) else {
            return Ok(None);
        };
        let wrong = || format!("annotation {name}: invalid duration {text:?}");
        parse(text).map(Some).ok_or_else(wrong)
    };
    let offsets = Offsets {
        monotonic: wish(MONOTONIC)?,
        boottime: wish(BOOTTIME)?,
    };
    Ok((offsets != Offsets::default()).then_some(offsets))
}

impl Offsets {
    /// Takes this process to a new namespace with these offsets. `/proc` must be mounted.
    pub(crate) fn enter(&self) -> Result<(), String> {
        match nix::sched::unshare(namespace::TIME) {
            Err(Errno::EINVAL) => {
                return Err("time namespace: the kernel has none (CONFIG_TIME_NS)".to_owned());
            }
            made => made.step("time namespace")?,
        }
        // Made for children only, and ours to shape until somebody is in it: then it is as it is.
        std::fs::write("/proc/self/timens_offsets", self.lines()).step("time offsets")?;
        let made = namespace::own("time_for_children").step("time namespace")?;
        nix::sched::setns(made, namespace::TIME).step("time namespace")
    }

    fn lines(&self) -> String {
        let mut lines = String::new();
        for (clock, offset) in [("monotonic", self.monotonic), ("boottime", self.boottime)] {
            if let Some(Offset { secs, nanosecs }) = offset {
                // A string takes all.
                let _ = writeln!(lines, "{clock} {secs} {nanosecs}");
            }
        }
        lines
    }
}

/// A duration as Go writes it. Nanoseconds are counted forwards, as in all times of the kernel.
fn parse(text: &str) -> Option<Offset> {
    let (sign, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(Offset::default());
    }
    let mut total: i128 = 0;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let (number, after) = rest.split_at(rest.find(|c: char| c != '.' && !c.is_ascii_digit())?);
        let length = after.find(|c: char| c == '.' || c.is_ascii_digit());
        let (unit, after) = after.split_at(length.unwrap_or(after.len()));
        let (_, unit) = UNITS.iter().find(|(name, _)| *name == unit)?;
        let (whole, part) = number.split_once('.').unwrap_or((number, "0"));
        if !number.contains(|c: char| c.is_ascii_digit()) {
            return None;
        }
        let digits = |text: &str| match text {
            "" => Some(0),
            text => text.parse::<i64>().ok().map(i128::from),
        };
        let scale = 10i128.checked_pow(u32::try_from(part.len()).ok()?)?;
        let parts = digits(part)? * unit / scale;
        total = total.checked_add(digits(whole)? * unit + parts)?;
        rest = after;
    }
    let total = sign * total;
    Some(Offset {
        secs: i64::try_from(total.div_euclid(SECOND)).ok()?,
        nanosecs: u32::try_from(total.rem_euclid(SECOND)).ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_as_go_writes_them() {
        for (text, secs, nanosecs) in [
            ("3600s", 3600, 0),
            ("1h30m", 5400, 0),
            ("-0.5s", -1, 500_000_000),
            ("1.5h", 5400, 0),
            ("0", 0, 0),
            ("+2ms3µs", 0, 2_003_000),
        ] {
            assert_eq!(parse(text), Some(Offset { secs, nanosecs }), "{text}");
        }
        for text in [
            "",
            "-",
            "3600",
            "s",
            "1d",
            ".s",
            "1h-2m",
            "1.2.3s",
            "9999999999999999h",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_container_s_wish_wins_over_its_pod_s() {
        let one = |name: &str, text: &str| BTreeMap::from([(name.to_owned(), text.to_owned())]);
        let pod = [one(MONOTONIC, "1s"), one(BOOTTIME, "2s")];
        let pod: BTreeMap<_, _> = pod.into_iter().flatten().collect();
        let offsets = wished(&one(BOOTTIME, "-1s"), &pod).unwrap().unwrap();
        assert_eq!(offsets.lines(), "monotonic 1 0\nboottime -1 0\n");
        let none = BTreeMap::new();
        assert_eq!(wished(&none, &none), Ok(None));
        let fault = wished(&one(MONOTONIC, "soon"), &none).unwrap_err();
        let expected = "annotation io.sampan.time-offset/monotonic: invalid duration \"soon\"";
        assert_eq!(fault, expected);
    }
}
