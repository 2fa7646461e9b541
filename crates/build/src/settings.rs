//! Instructions that only say how containers run: what they do to an image's settings.

use oci::{HealthSettings, Settings};
use serde_json::json;

use crate::dockerfile::{Command, Instruction, parse_one};
use crate::expand::Expander;

/// Ports one `EXPOSE` may name by a range.
const PORTS_LIMIT: u16 = 4096;

/// The shell of stages that name none.
pub(crate) fn shell(settings: &Settings) -> Vec<String> {
    let own = settings.shell.clone().filter(|shell| !shell.is_empty());
    own.unwrap_or_else(|| vec!["/bin/sh".to_owned(), "-c".to_owned()])
}

/// A command as it is run.
pub(crate) fn arguments(command: &Command, settings: &Settings) -> Vec<String> {
    match command {
        Command::Exec(words) => words.clone(),
        Command::Shell(text) => {
            let mut words = shell(settings);
            words.push(text.clone());
            words
        }
    }
}

/// Applies changes such as those of `docker commit --change`.
pub fn apply_changes(settings: &mut Settings, changes: &[String]) -> Result<(), String> {
    for change in changes {
        let step = parse_one(change).map_err(|error| error.to_string())?;
        let env = settings.env.clone();
        let lookup = |name: &str| variable(&env, name);
        let expander = Expander {
            escape: '\\',
            lookup: &lookup,
        };
        if apply(settings, &step.instruction, &expander)?.is_none() {
            let name = change.split_whitespace().next().unwrap_or_default();
            return Err(format!(
                "{} is not a valid change command",
                name.to_ascii_uppercase()
            ));
        }
    }
    Ok(())
}

/// A variable of an environment.
pub(crate) fn variable(env: &[String], name: &str) -> Option<String> {
    let pairs = env.iter().filter_map(|pair| pair.split_once('='));
    let mut found = pairs.filter(|(key, _)| *key == name);
    found.next().map(|(_, value)| value.to_owned())
}

/// Sets a variable where it is, or at the end.
pub(crate) fn set_variable(env: &mut Vec<String>, name: &str, value: &str) {
    let pair = format!("{name}={value}");
    let known = |old: &&mut String| old.split('=').next() == Some(name);
    match env.iter_mut().find(known) {
        Some(old) => *old = pair,
        None => env.push(pair),
    }
}

/// Carries out an instruction, and tells it in its expanded form; `None` where it needs more than
/// settings.
pub(crate) fn apply(
    settings: &mut Settings,
    instruction: &Instruction,
    expander: &Expander<'_>,
) -> Result<Option<String>, String> {
    let word = |text: &str| expander.word(text).map_err(|error| error.to_string());
    let quoted = |words: &[String]| json!(words).to_string();
    Ok(Some(match instruction {
        Instruction::Cmd(command) => {
            let words = arguments(command, settings);
            let shown = format!("CMD {}", quoted(&words));
            settings.cmd = Some(words);
            shown
        }
        Instruction::Entrypoint(command) => {
            let words = arguments(command, settings);
            let shown = format!("ENTRYPOINT {}", quoted(&words));
            settings.entrypoint = Some(words);
            shown
        }
        Instruction::Env(pairs) => {
            let mut shown = "ENV".to_owned();
            for (name, value) in pairs {
                let (name, value) = (word(name)?, word(value)?);
                shown += &format!(" {name}={value}");
                set_variable(&mut settings.env, &name, &value);
            }
            shown
        }
        Instruction::Label(pairs) => {
            let mut shown = "LABEL".to_owned();
            for (name, value) in pairs {
                let (name, value) = (word(name)?, word(value)?);
                shown += &format!(" {name}={value}");
                settings.labels.insert(name, value);
            }
            shown
        }
        Instruction::Expose(words) => {
            let mut shown = "EXPOSE".to_owned();
            for text in words {
                for port in expander.words(text).map_err(|error| error.to_string())? {
                    for port in ports(&port)? {
                        shown += &format!(" {port}");
                        settings.exposed_ports.insert(port, json!({}));
                    }
                }
            }
            shown
        }
        Instruction::Volume(words) => {
            let mut shown = Vec::new();
            for text in words {
                let path = word(text)?;
                settings.volumes.insert(path.clone(), json!({}));
                shown.push(path);
            }
            format!("VOLUME [{}]", shown.join(" "))
        }
        Instruction::User(text) => {
            settings.user = word(text)?;
            format!("USER {}", settings.user)
        }
        Instruction::Workdir(text) => {
            settings.working_dir = join(&settings.working_dir, &word(text)?);
            format!("WORKDIR {}", settings.working_dir)
        }
        Instruction::Onbuild(text) => {
            settings.on_build.push(text.clone());
            format!("ONBUILD {text}")
        }
        Instruction::StopSignal(text) => {
            let signal = word(text)?;
            if linux::process::signal_number(&signal).is_none() {
                return Err(format!("invalid signal: {signal}"));
            }
            settings.stop_signal = signal;
            format!("STOPSIGNAL {}", settings.stop_signal)
        }
        Instruction::Healthcheck(check) => {
            settings.healthcheck = Some(HealthSettings {
                test: check.test.clone(),
                interval: check.interval,
                timeout: check.timeout,
                start_period: check.start_period,
                start_interval: check.start_interval,
                retries: check.retries,
            });
            format!("HEALTHCHECK {}", json!(settings.healthcheck))
        }
        Instruction::Shell(words) => {
            settings.shell = Some(words.clone());
            format!("SHELL {}", quoted(words))
        }
        Instruction::Add(_)
        | Instruction::Copy(_)
        | Instruction::Run(_)
        | Instruction::Arg(_)
        | Instruction::Maintainer(_) => return Ok(None),
    }))
}

/// An absolute path without dots, relative ones below `base`.
pub(crate) fn join(base: &str, path: &str) -> String {
    let whole = match path.starts_with('/') {
        true => path.to_owned(),
        false => format!("{base}/{path}"),
    };
    let mut parts: Vec<&str> = Vec::new();
    for part in whole.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

/// `80`, `80/udp`, `8000-8010/tcp`.
fn ports(text: &str) -> Result<Vec<String>, String> {
    let wrong = || format!("invalid containerPort: {text}");
    let (numbers, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = protocol.to_ascii_lowercase();
    if !["tcp", "udp", "sctp"].contains(&protocol.as_str()) {
        return Err(format!("invalid proto: {protocol}"));
    }
    let (first, last) = numbers.split_once('-').unwrap_or((numbers, numbers));
    let number = |text: &str| text.parse::<u16>().map_err(|_| wrong());
    let (first, last) = (number(first)?, number(last)?);
    if first > last || last - first >= PORTS_LIMIT {
        return Err(wrong());
    }
    Ok((first..=last)
        .map(|port| format!("{port}/{protocol}"))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_of_a_commit() {
        let mut settings = Settings {
            env: vec!["A=1".to_owned()],
            ..Settings::default()
        };
        let changes = [
            "ENV A=2 B=\"$A x\"",
            "CMD echo hi",
            "EXPOSE 80 90-91/udp",
            "WORKDIR /a",
            "WORKDIR ../b/./c",
            "LABEL x=y",
            "STOPSIGNAL SIGINT",
        ];
        apply_changes(&mut settings, &changes.map(str::to_owned)).unwrap();
        // A variable is what it was before the instruction.
        assert_eq!(settings.env, ["A=2", "B=1 x"]);
        assert_eq!(
            settings.cmd.as_deref().unwrap().join(" "),
            "/bin/sh -c echo hi"
        );
        let ports: Vec<&String> = settings.exposed_ports.keys().collect();
        assert_eq!(ports, ["80/tcp", "90/udp", "91/udp"]);
        assert_eq!(
            (settings.working_dir.as_str(), settings.stop_signal.as_str()),
            ("/b/c", "SIGINT")
        );
        for (change, why) in [
            ("RUN x", "RUN is not a valid change command"),
            ("EXPOSE x", "invalid containerPort: x"),
            ("STOPSIGNAL SIGFOO", "invalid signal: SIGFOO"),
        ] {
            assert_eq!(
                apply_changes(&mut settings, &[change.to_owned()]),
                Err(why.to_owned())
            );
        }
    }
}
