//! Health checks: a command in the container, again and again, and what its results mean.

use std::sync::Arc;
use std::time::Duration;

use node_api::{RuntimeError, RuntimeService};
use serde::Serialize;

use crate::daemon::{Container, Daemon};
use crate::record::{moment, now};
use crate::wire::Healthcheck;

const INTERVAL: Duration = Duration::from_secs(30);
const TIMEOUT: Duration = Duration::from_secs(30);
const START_INTERVAL: Duration = Duration::from_secs(5);
const RETRIES: u32 = 3;
/// Results that are remembered, and bytes of output of each.
const KEPT: usize = 5;
const OUTPUT_LIMIT: usize = 4096;

/// How a container is. Without a check there is nothing to say.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Health {
    pub(crate) status: &'static str,
    pub(crate) failing_streak: u32,
    pub(crate) log: Vec<Probe>,
}

/// One result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Probe {
    start: String,
    end: String,
    exit_code: i32,
    output: String,
}

/// The command of a check; `None` when there is none.
fn command(check: &Healthcheck, shell: Option<&[String]>) -> Option<Vec<String>> {
    let (kind, words) = check.test.split_first()?;
    match kind.as_str() {
        "CMD" => Some(words.to_vec()),
        "CMD-SHELL" => {
            let default = ["/bin/sh".to_owned(), "-c".to_owned()];
            let mut command = shell.unwrap_or(&default).to_vec();
            command.push(words.first()?.clone());
            Some(command)
        }
        _ => None,
    }
}

fn span(nanos: i64, otherwise: Duration) -> Duration {
    match u64::try_from(nanos) {
        Ok(nanos @ 1..) => Duration::from_nanos(nanos),
        _ => otherwise,
    }
}

impl Daemon {
    /// Starts to look after a container that has just come up.
    pub(crate) fn watch_health(&self, container: &Arc<Container>) {
        let record = container.snapshot();
        let Some(check) = record.config.healthcheck.clone() else {
            return;
        };
        let Some(command) = command(&check, record.config.shell.as_deref()) else {
            return;
        };
        let inner = record.state.inner.clone();
        container.progress.send_modify(|progress| {
            progress.health = Health {
                status: "starting",
                ..Health::default()
            };
        });
        let Some(daemon) = self.me.upgrade() else {
            return;
        };
        let container = Arc::clone(container);
        tokio::spawn(async move {
            let mut progress = container.progress.subscribe();
            let begun = tokio::time::Instant::now();
            let over = |p: &crate::daemon::Progress| !p.up || p.removed;
            loop {
                let young = begun.elapsed() < span(check.start_period, Duration::ZERO);
                let starting = container.progress.borrow().health.status == "starting";
                let wait = match young && starting {
                    true => span(check.start_interval, START_INTERVAL),
                    false => span(check.interval, INTERVAL),
                };
                tokio::select! {
                    () = tokio::time::sleep(wait) => {}
                    _ = progress.wait_for(over) => return,
                }
                if container.record.read().state.inner != inner {
                    return;
                }
                let young = begun.elapsed() < span(check.start_period, Duration::ZERO);
                daemon
                    .probe(&container, &inner, &command, &check, young)
                    .await;
            }
        });
    }

    async fn probe(
        &self,
        container: &Arc<Container>,
        inner: &str,
        command: &[String],
        check: &Healthcheck,
        young: bool,
    ) {
        let timeout = span(check.timeout, TIMEOUT);
        let start = moment(now());
        let result = self
            .engine
            .exec_sync(inner, command.to_vec(), Some(timeout))
            .await;
        let (exit_code, mut output) = match result {
            Ok(result) => {
                let mut output = result.stdout;
                output.extend_from_slice(&result.stderr);
                (result.exit_code, output)
            }
            Err(RuntimeError::DeadlineExceeded(_)) => {
                let words = format!("Health check exceeded timeout ({timeout:?})");
                (-1, words.into_bytes())
            }
            Err(error) => (-1, error.to_string().into_bytes()),
        };
        output.truncate(OUTPUT_LIMIT);
        let probe = Probe {
            start,
            end: moment(now()),
            exit_code,
            output: String::from_utf8_lossy(&output).into_owned(),
        };
        let retries = u32::try_from(check.retries).unwrap_or(0);
        let retries = if retries == 0 { RETRIES } else { retries };
        let mut changed = None;
        container.progress.send_modify(|progress| {
            let health = &mut progress.health;
            let before = health.status;
            health.take(probe, retries, young);
            changed = (health.status != before).then_some(health.status);
        });
        if let Some(status) = changed {
            let record = container.snapshot();
            let action = format!("health_status: {status}");
            self.events.container(&record, action, &[]);
        }
    }
}

impl Health {
    /// Takes a result in. Failures of a young container do not count.
    fn take(&mut self, probe: Probe, retries: u32, young: bool) {
        if probe.exit_code == 0 {
            self.failing_streak = 0;
            self.status = "healthy";
        } else if !(young && self.status == "starting") {
            self.failing_streak += 1;
            if self.failing_streak >= retries {
                self.status = "unhealthy";
            }
        }
        if self.log.len() == KEPT {
            self.log.remove(0);
        }
        self.log.push(probe);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_become_a_state() {
        let probe = |exit_code| Probe {
            start: String::new(),
            end: String::new(),
            exit_code,
            output: String::new(),
        };
        let mut health = Health {
            status: "starting",
            ..Health::default()
        };
        health.take(probe(1), 2, true);
        assert_eq!((health.status, health.failing_streak), ("starting", 0));
        health.take(probe(0), 2, true);
        assert_eq!(health.status, "healthy");
        health.take(probe(1), 2, true);
        assert_eq!(health.status, "healthy");
        health.take(probe(1), 2, false);
        assert_eq!((health.status, health.failing_streak), ("unhealthy", 2));
        for _ in 0..9 {
            health.take(probe(0), 2, false);
        }
        assert_eq!((health.status, health.log.len()), ("healthy", KEPT));
    }

    #[test]
    fn commands_of_checks() {
        let check = |test: &[&str]| Healthcheck {
            test: test.iter().map(|word| (*word).to_owned()).collect(),
            ..Healthcheck::default()
        };
        assert_eq!(command(&check(&["NONE"]), None), None);
        assert_eq!(command(&check(&["CMD", "true"]), None).unwrap(), ["true"]);
        let shell = command(&check(&["CMD-SHELL", "a b"]), None).unwrap();
        assert_eq!(shell, ["/bin/sh", "-c", "a b"]);
    }
}
