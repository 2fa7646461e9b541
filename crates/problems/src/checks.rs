//! Runs programs that look at the machine, each at its interval: exit code 0 is well, 1 is not, and
//! everything else is not known.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::process::Command;
use tokio::sync::mpsc;

use crate::monitor::{Finding, Look, Monitor, Rule, State, Truth};

/// Programs of one monitor that run at one time.
const RUNNING_MAX: usize = 3;

/// Runs a monitor's programs until nobody listens.
pub(crate) async fn follow(monitor: Monitor, findings: mpsc::Sender<Finding>) {
    for finding in monitor.at_first() {
        if findings.send(finding).await.is_err() {
            return;
        }
    }
    // The programs are asked in rounds, as their file says; nothing of theirs tells of changes.
    let mut rounds = tokio::time::interval(monitor.interval);
    rounds.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut known = monitor.well.clone();
    loop {
        tokio::select! {
            _ = rounds.tick() => {}
            () = findings.closed() => return,
        }
        for rules in monitor.rules.chunks(RUNNING_MAX) {
            let mut answers = Vec::new();
            for rule in rules {
                answers.push(tokio::spawn(ask(rule.clone(), monitor.output_max)));
            }
            for (rule, answer) in rules.iter().zip(answers) {
                let Ok((truth, message)) = answer.await else {
                    continue;
                };
                let found = conclude(&monitor, rule, truth, message, &mut known);
                if let Some(finding) = found
                    && findings.send(finding).await.is_err()
                {
                    return;
                }
            }
        }
    }
}

/// What an answer means beside what is known.
fn conclude(
    monitor: &Monitor,
    rule: &Rule,
    truth: Truth,
    message: String,
    known: &mut std::collections::BTreeMap<String, State>,
) -> Option<Finding> {
    let reason = rule.reason.clone();
    let Some(kind) = &rule.condition else {
        let event = Finding::Event { reason, message };
        return (truth == Truth::True).then_some(event);
    };
    let state = match truth {
        Truth::False => monitor.well.get(kind).cloned().unwrap_or_default(),
        _ => State {
            truth,
            reason,
            message,
        },
    };
    // Of one problem each round may say it in other words.
    let before = known.get(kind)?;
    if before.truth == state.truth && before.reason == state.reason {
        return None;
    }
    // Another rule's problem is not over because this one's is.
    if truth == Truth::False && before.truth != Truth::False && before.reason != rule.reason {
        return None;
    }
    known.insert(kind.clone(), state.clone());
    Some(Finding::Condition {
        kind: kind.clone(),
        state,
    })
}

/// Runs one program. Returns whether there is a problem, and its words.
async fn ask(rule: Rule, output_max: usize) -> (Truth, String) {
    let Look::Program {
        path,
        args,
        timeout,
    } = &rule.look
    else {
        return (Truth::Unknown, String::new());
    };
    match tokio::time::timeout(*timeout, run(path, args, output_max)).await {
        Ok(Ok((code, output))) => {
            let truth = match code {
                Some(0) => Truth::False,
                Some(1) => Truth::True,
                _ => Truth::Unknown,
            };
            (truth, output)
        }
        Ok(Err(error)) => {
            tracing::warn!(%error, path = %path.display(), "a check cannot be run");
            (
                Truth::Unknown,
                "Error in running plugin. Please check the error log".into(),
            )
        }
        Err(_) => (Truth::Unknown, timed_out(&rule, *timeout)),
    }
}

fn timed_out(rule: &Rule, timeout: Duration) -> String {
    let reason = &rule.reason;
    format!("Timeout when running plugin of {reason:?}: it had {timeout:?}")
}

async fn run(
    path: &Path,
    args: &[String],
    output_max: usize,
) -> std::io::Result<(Option<i32>, String)> {
    let mut child = Command::new(path)
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    let mut bytes = Vec::new();
    if let Some(mut output) = child.stdout.take() {
        let most = u64::try_from(output_max).unwrap_or(0);
        (&mut output).take(most).read_to_end(&mut bytes).await?;
        // The rest is read and forgotten, so that the program can end.
        tokio::io::copy(&mut output, &mut tokio::io::sink()).await?;
    }
    let status = child.wait().await?;
    let text = String::from_utf8_lossy(&bytes).trim().to_owned();
    Ok((status.code(), text))
}
