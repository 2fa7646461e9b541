//! Monitors as the node problem detector's files describe them, and what their rules say.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use regex::Regex;
use serde::Deserialize;

/// Rules, conditions and bytes of one file.
const RULES_MAX: usize = 256;

/// The rules that are usual for the kernel.
const KERNEL: &str = include_str!("kernel-monitor.json");

/// Why a file is refused.
#[derive(Debug, thiserror::Error)]
pub enum MonitorError {
    #[error("monitor: {0}")]
    Json(#[from] serde_json::Error),
    #[error("monitor: unknown plugin {0:?}")]
    Plugin(String),
    #[error("monitor: pattern of {reason:?}")]
    Pattern {
        reason: String,
        source: Box<regex::Error>,
    },
    #[error("monitor: {0:?} is not a duration")]
    Duration(String),
    #[error("monitor: the rule of {0:?} names no condition that the monitor has")]
    Condition(String),
    #[error("monitor: the rule of {0:?} needs a pattern or a path")]
    Incomplete(String),
    #[error("monitor: more than {RULES_MAX} rules")]
    TooMany,
}

/// Whether a condition holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Truth {
    #[default]
    False,
    True,
    Unknown,
}

/// How a condition of the machine is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    pub truth: Truth,
    pub reason: String,
    pub message: String,
}

/// Something a monitor found out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// It happened, and is over.
    Event { reason: String, message: String },
    /// It holds from now on.
    Condition { kind: String, state: State },
}

#[derive(Clone, Debug, Deserialize)]
struct File {
    plugin: String,
    #[serde(rename = "pluginConfig", default)]
    settings: Settings,
    lookback: Option<String>,
    #[serde(default)]
    conditions: Vec<Default_>,
    #[serde(default)]
    rules: Vec<RuleFile>,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct Settings {
    invoke_interval: Option<String>,
    timeout: Option<String>,
    max_output_length: Option<usize>,
}

#[derive(Clone, Debug, Deserialize)]
struct Default_ {
    #[serde(rename = "type")]
    kind: String,
    reason: String,
    message: String,
}

#[derive(Clone, Debug, Deserialize)]
struct RuleFile {
    #[serde(rename = "type")]
    kind: String,
    condition: Option<String>,
    reason: String,
    pattern: Option<String>,
    path: Option<PathBuf>,
    #[serde(default)]
    args: Vec<String>,
    timeout: Option<String>,
}

/// What one rule looks at.
#[derive(Clone, Debug)]
pub(crate) enum Look {
    Pattern(Regex),
    Program {
        path: PathBuf,
        args: Vec<String>,
        timeout: Duration,
    },
}

#[derive(Clone, Debug)]
pub(crate) struct Rule {
    /// The condition that it makes true; `None`: an event.
    pub(crate) condition: Option<String>,
    pub(crate) reason: String,
    pub(crate) look: Look,
}

/// A set of rules and the conditions they are about.
#[derive(Clone, Debug)]
pub struct Monitor {
    of_kernel: bool,
    pub(crate) lookback: Duration,
    pub(crate) interval: Duration,
    pub(crate) output_max: usize,
    /// Each condition as it is while nothing is wrong.
    pub(crate) well: BTreeMap<String, State>,
    pub(crate) rules: Vec<Rule>,
}

impl Monitor {
    /// The usual monitor of the kernel's log.
    pub fn kernel() -> Monitor {
        Monitor::read(KERNEL).unwrap_or_else(|error| {
            tracing::error!(%error, "the usual rules are wrong");
            Monitor {
                of_kernel: true,
                lookback: Duration::ZERO,
                interval: Duration::ZERO,
                output_max: 0,
                well: BTreeMap::new(),
                rules: Vec::new(),
            }
        })
    }

    /// Reads a file of the node problem detector, of plugin `kmsg` or `custom`.
    pub fn read(text: &str) -> Result<Monitor, MonitorError> {
        let file: File = serde_json::from_str(text)?;
        let of_kernel = match file.plugin.as_str() {
            "kmsg" => true,
            "custom" => false,
            other => return Err(MonitorError::Plugin(other.to_owned())),
        };
        if file.rules.len() > RULES_MAX || file.conditions.len() > RULES_MAX {
            return Err(MonitorError::TooMany);
        }
        let well = file.conditions.into_iter().map(|one| {
            let state = State {
                truth: Truth::False,
                reason: one.reason,
                message: one.message,
            };
            (one.kind, state)
        });
        let well: BTreeMap<String, State> = well.collect();
        let time = |text: &Option<String>, usual: u64| match text {
            Some(text) => duration(text),
            None => Ok(Duration::from_secs(usual)),
        };
        let usual = time(&file.settings.timeout, 5)?;
        let mut rules = Vec::new();
        for rule in file.rules {
            rules.push(read_rule(rule, of_kernel, usual, &well)?);
        }
        Ok(Monitor {
            of_kernel,
            lookback: time(&file.lookback, 0)?,
            interval: time(&file.settings.invoke_interval, 30)?.max(Duration::from_secs(1)),
            output_max: file.settings.max_output_length.unwrap_or(80).min(4096),
            well,
            rules,
        })
    }

    pub(crate) fn is_of_kernel(&self) -> bool {
        self.of_kernel
    }

    /// What is found before anything was looked at.
    pub(crate) fn at_first(&self) -> impl Iterator<Item = Finding> {
        self.well.iter().map(|(kind, state)| Finding::Condition {
            kind: kind.clone(),
            state: state.clone(),
        })
    }

    /// What a line of the kernel means. The last of several lines of one problem is the one that
    /// matches, as rules are written.
    pub(crate) fn judge(&self, line: &str) -> Vec<Finding> {
        let matches = |rule: &&Rule| match &rule.look {
            Look::Pattern(pattern) => pattern.is_match(line),
            Look::Program { .. } => false,
        };
        let found = self
            .rules
            .iter()
            .filter(matches)
            .map(|rule| match &rule.condition {
                None => Finding::Event {
                    reason: rule.reason.clone(),
                    message: line.to_owned(),
                },
                Some(kind) => Finding::Condition {
                    kind: kind.clone(),
                    state: State {
                        truth: Truth::True,
                        reason: rule.reason.clone(),
                        message: line.to_owned(),
                    },
                },
            });
        found.collect()
    }
}

fn read_rule(
    rule: RuleFile,
    of_kernel: bool,
    usual: Duration,
    well: &BTreeMap<String, State>,
) -> Result<Rule, MonitorError> {
    let reason = rule.reason;
    let condition = match rule.kind.as_str() {
        "permanent" => Some(rule.condition.unwrap_or_default()),
        _ => None,
    };
    if condition
        .as_ref()
        .is_some_and(|kind| !well.contains_key(kind))
    {
        return Err(MonitorError::Condition(reason));
    }
    let look = match (of_kernel, rule.pattern, rule.path) {
        (true, Some(pattern), _) => {
            let compiled = Regex::new(&pattern).map_err(|source| MonitorError::Pattern {
                reason: reason.clone(),
                source: Box::new(source),
            })?;
            Look::Pattern(compiled)
        }
        (false, _, Some(path)) => Look::Program {
            path,
            args: rule.args,
            timeout: match &rule.timeout {
                Some(text) => duration(text)?,
                None => usual,
            },
        },
        _ => return Err(MonitorError::Incomplete(reason)),
    };
    Ok(Rule {
        condition,
        reason,
        look,
    })
}

/// Reads `1h2m3s500ms`.
fn duration(text: &str) -> Result<Duration, MonitorError> {
    let fault = || MonitorError::Duration(text.to_owned());
    let mut rest = text;
    let mut whole = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(fault)?;
        let number: u32 = rest[..digits].parse().map_err(|_| fault())?;
        let unit = rest[digits..].find(|c: char| c.is_ascii_digit());
        let unit = &rest[digits..unit.map_or(rest.len(), |at| digits + at)];
        let one = match unit {
            "ms" => Duration::from_millis(1),
            "s" => Duration::from_secs(1),
            "m" => Duration::from_secs(60),
            "h" => Duration::from_secs(3_600),
            _ => return Err(fault()),
        };
        whole = whole
            .checked_add(one.checked_mul(number).ok_or_else(fault)?)
            .ok_or_else(fault)?;
        rest = &rest[digits + unit.len()..];
    }
    match text.is_empty() {
        true => Err(fault()),
        false => Ok(whole),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_kernel_are_judged_by_the_usual_rules() {
        let monitor = Monitor::kernel();
        assert_eq!(monitor.lookback, Duration::from_secs(300));
        let kinds: Vec<_> = monitor.well.keys().map(String::as_str).collect();
        assert_eq!(kinds, ["KernelDeadlock", "ReadonlyFilesystem"]);
        for (line, expected) in [
            (
                "Killed process 1012 (heapster) total-vm:327128kB, anon-rss:306328kB, file-rss:11132kB",
                Some("OOMKilling"),
            ),
            (
                "Memory cgroup out of memory: Killed process 77 (a) total-vm:1kB, anon-rss:1kB, file-rss:0kB, shmem-rss:0kB",
                Some("OOMKilling"),
            ),
            (
                "INFO: task kworker/1:2:99 blocked for more than 120 seconds.",
                Some("TaskHung"),
            ),
            (
                "EXT4-fs error (device sda1): ext4_find_entry:1455: inode #2",
                Some("Ext4Error"),
            ),
            (
                "BUG: unable to handle kernel NULL pointer dereference at 00000010",
                Some("KernelOops"),
            ),
            ("divide error: 0000 [#0] SMP", Some("KernelOops")),
            (
                "unregister_netdevice: waiting for lo to become free. Usage count = 2",
                Some("UnregisterNetDevice"),
            ),
            ("eth0: link up", None),
        ] {
            let events: Vec<String> = monitor
                .judge(line)
                .into_iter()
                .map(|finding| match finding {
                    Finding::Event { reason, message } => {
                        assert_eq!(message, line);
                        reason
                    }
                    other => panic!("{other:?}"),
                })
                .collect();
            let expected: Vec<&str> = expected.into_iter().collect();
            assert_eq!(events, expected, "{line}");
        }
        let found = monitor.judge("EXT4-fs (sda1): Remounting filesystem read-only");
        let Finding::Condition { kind, state } = &found[0] else {
            panic!("{found:?}");
        };
        assert_eq!(
            (kind.as_str(), state.truth),
            ("ReadonlyFilesystem", Truth::True)
        );
        assert_eq!(state.reason, "FilesystemIsReadOnly");
    }

    #[test]
    fn faults_of_files_are_named() {
        assert_eq!(duration("1h2m3s").unwrap(), Duration::from_secs(3_723));
        for bad in ["", "5", "s", "5x", "5s3"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
        let rule = |rule: &str| format!(r#"{{"plugin": "kmsg", "rules": [{rule}]}}"#);
        for (text, expected) in [
            (r#"{"plugin": "journald"}"#.to_owned(), "unknown plugin"),
            (
                rule(r#"{"type": "temporary", "reason": "A", "pattern": "("}"#),
                "pattern of",
            ),
            (
                rule(r#"{"type": "permanent", "condition": "B", "reason": "A", "pattern": "x"}"#),
                "names no condition",
            ),
            (
                rule(r#"{"type": "temporary", "reason": "A"}"#),
                "needs a pattern",
            ),
        ] {
            let error = Monitor::read(&text).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
