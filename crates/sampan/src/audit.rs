//! The audit trail: flags under kube-apiserver's names, and what follows from them.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ::audit::{Audit, Backend, Batch, BatchConfig, Log, LogConfig, Policy, Sink};
use anyhow::{Context, Result, bail};
use base::Crew;
use clap::Args;
use serde::{Deserialize, Serialize};

use crate::config;
use crate::files::text;
use crate::serving::time;

const MEGABYTE: u64 = 1 << 20;
const DAY: Duration = Duration::from_secs(86_400);
/// Bytes of an event and of a batch, where events are cut and flags say nothing.
const EVENT_BYTES: usize = 100 << 10;
const BATCH_BYTES: usize = 10 << 20;

/// The flags about how records are written; where to is among those of the server.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub(crate) struct AuditArgs {
    /// Form of the log: json [default: json]
    #[arg(long)]
    audit_log_format: Option<String>,
    /// blocking, blocking-strict or batch [default: blocking]
    #[arg(long)]
    audit_log_mode: Option<String>,
    /// Version of the records in the log: audit.k8s.io/v1
    #[arg(long)]
    audit_log_version: Option<String>,
    /// Compress rotated files [default: false]
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    audit_log_compress: Option<bool>,
    /// Cut large records of the log [default: false]
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    audit_log_truncate_enabled: Option<bool>,
    /// Bytes of a record in the log [default: 102400]
    #[arg(long)]
    audit_log_truncate_max_event_size: Option<usize>,
    /// Bytes of a batch to the log [default: 10485760]
    #[arg(long)]
    audit_log_truncate_max_batch_size: Option<usize>,
    /// Records that wait for the log in mode batch [default: 10000]
    #[arg(long)]
    audit_log_batch_buffer_size: Option<usize>,
    /// Records of a batch to the log [default: 1]
    #[arg(long)]
    audit_log_batch_max_size: Option<usize>,
    /// How long such a batch waits to become full [default: 0s]
    #[arg(long)]
    audit_log_batch_max_wait: Option<String>,
    /// Whether batches to the log are throttled [default: false]
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    audit_log_batch_throttle_enable: Option<bool>,
    /// Batches to the log per second [default: 0]
    #[arg(long)]
    audit_log_batch_throttle_qps: Option<String>,
    /// Batches to the log at once [default: 0]
    #[arg(long)]
    audit_log_batch_throttle_burst: Option<u32>,
    /// How the webhook gets its records: batch [default: batch]
    #[arg(long)]
    audit_webhook_mode: Option<String>,
    /// Version of the records for the webhook: audit.k8s.io/v1
    #[arg(long)]
    audit_webhook_version: Option<String>,
    /// Cut large records for the webhook [default: false]
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    audit_webhook_truncate_enabled: Option<bool>,
    /// Bytes of a record for the webhook [default: 102400]
    #[arg(long)]
    audit_webhook_truncate_max_event_size: Option<usize>,
    /// Bytes of a batch to the webhook [default: 10485760]
    #[arg(long)]
    audit_webhook_truncate_max_batch_size: Option<usize>,
    /// Records that wait for the webhook [default: 10000]
    #[arg(long)]
    audit_webhook_batch_buffer_size: Option<usize>,
    /// Records of a batch to the webhook [default: 400]
    #[arg(long)]
    audit_webhook_batch_max_size: Option<usize>,
    /// How long such a batch waits to become full [default: 30s]
    #[arg(long)]
    audit_webhook_batch_max_wait: Option<String>,
    /// Whether batches to the webhook are throttled [default: true]
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    audit_webhook_batch_throttle_enable: Option<bool>,
    /// Batches to the webhook per second [default: 10]
    #[arg(long)]
    audit_webhook_batch_throttle_qps: Option<String>,
    /// Batches to the webhook at once [default: 15]
    #[arg(long)]
    audit_webhook_batch_throttle_burst: Option<u32>,
    /// Wait before a batch is sent again [default: 10s]
    #[arg(long)]
    audit_webhook_initial_backoff: Option<String>,
}

/// How records reach the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Blocking,
    Strict,
    Batch,
}

impl AuditArgs {
    /// The audit trail, if there is a policy.
    pub(crate) fn trail(&self, places: &config::Audit, crew: &Crew) -> Result<Option<Arc<Audit>>> {
        let mode = self.check()?;
        let Some(path) = &places.audit_policy_file else {
            return Ok(None);
        };
        let place = || format!("audit policy {}", path.display());
        let policy = Policy::parse(&text(path)?).with_context(place)?;
        let mut sinks = Vec::new();
        if let Some(path) = &places.audit_log_path {
            sinks.push(self.log(path, places, mode, crew)?);
        }
        if let Some(path) = &places.audit_webhook_config_file {
            let access = client::kubeconfig::load(path, None)?;
            let batch = Batch::to(&access, self.webhook_batch()?, crew)?;
            let (cut, most) = (
                self.audit_webhook_truncate_enabled,
                self.audit_webhook_truncate_max_event_size,
            );
            sinks.push(Sink::new(Arc::new(batch)).truncating(limit(cut, most, EVENT_BYTES)));
        }
        Ok((!sinks.is_empty()).then(|| Audit::new(policy, sinks)))
    }

    fn log(&self, path: &Path, places: &config::Audit, mode: Mode, crew: &Crew) -> Result<Sink> {
        let age = u32::try_from(places.audit_log_maxage).unwrap_or(u32::MAX);
        let log = Log::open(LogConfig {
            path: path.to_owned(),
            size_max: places.audit_log_maxsize * MEGABYTE,
            backups_max: places.audit_log_maxbackup,
            age_max: (age > 0).then(|| DAY * age),
            compress: self.audit_log_compress.unwrap_or(false),
            legacy: self.audit_log_format.as_deref() == Some("legacy"),
        });
        let log = log.with_context(|| format!("audit log {}", path.display()))?;
        let backend: Arc<dyn Backend> = match mode {
            Mode::Batch => Arc::new(Batch::log(log, self.log_batch()?, crew)),
            Mode::Blocking | Mode::Strict => Arc::new(log),
        };
        let (cut, most) = (
            self.audit_log_truncate_enabled,
            self.audit_log_truncate_max_event_size,
        );
        let sink = Sink::new(backend).strict(mode == Mode::Strict);
        Ok(sink.truncating(limit(cut, most, EVENT_BYTES)))
    }

    fn check(&self) -> Result<Mode> {
        match self.audit_log_format.as_deref().unwrap_or("json") {
            "json" | "legacy" => {}
            other => bail!("invalid audit log format {other}, allowed formats are \"legacy,json\""),
        }
        for (flag, version) in [
            ("audit-log-version", &self.audit_log_version),
            ("audit-webhook-version", &self.audit_webhook_version),
        ] {
            if let Some(other) = version.as_deref().filter(|own| *own != "audit.k8s.io/v1") {
                bail!("--{flag} {other:?}: there is audit.k8s.io/v1 only");
            }
        }
        match self.audit_webhook_mode.as_deref().unwrap_or("batch") {
            "batch" => {}
            "blocking" | "blocking-strict" => {
                bail!("--audit-webhook-mode: requests do not wait for a webhook; use batch")
            }
            other => bail!("invalid audit webhook mode {other}, allowed modes are \"batch\""),
        }
        Ok(match self.audit_log_mode.as_deref().unwrap_or("blocking") {
            "blocking" => Mode::Blocking,
            "blocking-strict" => Mode::Strict,
            "batch" => Mode::Batch,
            other => bail!(
                "invalid audit log mode {other}, allowed modes are \
                 \"batch,blocking,blocking-strict\""
            ),
        })
    }

    fn log_batch(&self) -> Result<BatchConfig> {
        let usual = BatchConfig::of_log();
        let (cut, most) = (
            self.audit_log_truncate_enabled,
            self.audit_log_truncate_max_batch_size,
        );
        let wait = &self.audit_log_batch_max_wait;
        let rate = &self.audit_log_batch_throttle_qps;
        Ok(BatchConfig {
            buffer: self.audit_log_batch_buffer_size.unwrap_or(usual.buffer),
            size_max: self.audit_log_batch_max_size.unwrap_or(usual.size_max),
            bytes_max: limit(cut, most, BATCH_BYTES),
            wait_max: or("audit-log-batch-max-wait", wait, usual.wait_max)?,
            throttle: match self.audit_log_batch_throttle_enable.unwrap_or(false) {
                true => per_second("audit-log-batch-throttle-qps", rate, 0.0)?,
                false => None,
            },
            burst: self.audit_log_batch_throttle_burst.unwrap_or(usual.burst),
            ..usual
        })
    }

    fn webhook_batch(&self) -> Result<BatchConfig> {
        let usual = BatchConfig::default();
        let (cut, most) = (
            self.audit_webhook_truncate_enabled,
            self.audit_webhook_truncate_max_batch_size,
        );
        let wait = &self.audit_webhook_batch_max_wait;
        let rate = &self.audit_webhook_batch_throttle_qps;
        let pause = &self.audit_webhook_initial_backoff;
        Ok(BatchConfig {
            buffer: self.audit_webhook_batch_buffer_size.unwrap_or(usual.buffer),
            size_max: self.audit_webhook_batch_max_size.unwrap_or(usual.size_max),
            bytes_max: limit(cut, most, BATCH_BYTES),
            wait_max: or("audit-webhook-batch-max-wait", wait, usual.wait_max)?,
            throttle: match self.audit_webhook_batch_throttle_enable.unwrap_or(true) {
                true => per_second("audit-webhook-batch-throttle-qps", rate, 10.0)?,
                false => None,
            },
            burst: self
                .audit_webhook_batch_throttle_burst
                .unwrap_or(usual.burst),
            initial_backoff: or(
                "audit-webhook-initial-backoff",
                pause,
                usual.initial_backoff,
            )?,
        })
    }
}

/// A limit of bytes, where there is to be one.
fn limit(enabled: Option<bool>, given: Option<usize>, usual: usize) -> Option<usize> {
    enabled.unwrap_or(false).then(|| given.unwrap_or(usual))
}

fn or(flag: &str, given: &Option<String>, usual: Duration) -> Result<Duration> {
    given
        .as_deref()
        .map_or(Ok(usual), |given| time(flag, given))
}

fn per_second(flag: &str, given: &Option<String>, usual: f64) -> Result<Option<f64>> {
    let rate = match given {
        Some(text) => text
            .parse()
            .ok()
            .filter(|rate: &f64| *rate > 0.0)
            .with_context(|| format!("--{flag} {text:?}: must be a positive number"))?,
        None => usual,
    };
    Ok((rate > 0.0).then_some(rate))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(json: serde_json::Value) -> AuditArgs {
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn what_is_not_possible_is_told() {
        let told = |json| args(json).check().map_err(|error| error.to_string());
        use serde_json::json;
        assert_eq!(told(json!({})), Ok(Mode::Blocking));
        assert_eq!(
            told(json!({"audit-log-mode": "blocking-strict"})),
            Ok(Mode::Strict)
        );
        for (flag, value, part) in [
            (
                "audit-log-format",
                "x",
                "allowed formats are \"legacy,json\"",
            ),
            (
                "audit-log-mode",
                "x",
                "allowed modes are \"batch,blocking,blocking-strict\"",
            ),
            ("audit-webhook-mode", "blocking", "use batch"),
            (
                "audit-log-version",
                "audit.k8s.io/v1beta1",
                "audit.k8s.io/v1 only",
            ),
        ] {
            let error = told(json!({ flag: value })).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
        let some = args(json!({"audit-webhook-batch-max-size": 7,
            "audit-webhook-truncate-enabled": true, "audit-webhook-batch-throttle-qps": "2.5"}));
        let config = some.webhook_batch().unwrap();
        assert_eq!((config.size_max, config.bytes_max), (7, Some(BATCH_BYTES)));
        assert_eq!(config.throttle, Some(2.5));
        let log = some.log_batch().unwrap();
        assert_eq!((log.size_max, log.bytes_max, log.throttle), (1, None, None));
    }
}
