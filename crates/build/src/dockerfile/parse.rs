//! From logical lines to instructions.

use super::heredoc::{self, Heredoc};
use super::instruction::{Command, Copy, Dockerfile, Healthcheck, Instruction, Run, Stage, Step};
use super::lines::{self, Line};
use super::{ParseError, flags, words};

mod duration;
mod mount;

/// What is refused inside of `ONBUILD`.
const NO_TRIGGERS: [&str; 2] = ["FROM", "MAINTAINER"];
/// Stages and steps a file may have.
const STEP_LIMIT: usize = 10_000;

/// Reads a whole Dockerfile.
pub fn parse(text: &str) -> Result<Dockerfile, ParseError> {
    if text.trim().is_empty() {
        return Err(ParseError::Empty);
    }
    let (escape, lines) = lines::split(text)?;
    if lines.is_empty() {
        return Err(ParseError::NoInstructions);
    }
    if lines.len() > STEP_LIMIT {
        return Err(ParseError::Other(format!(
            "more than {STEP_LIMIT} instructions"
        )));
    }
    let mut file = Dockerfile {
        escape,
        arguments: Vec::new(),
        stages: Vec::new(),
    };
    for line in &lines {
        let fault = |message: String| ParseError::at(line.number, message);
        let (name, rest) = instruction_name(&line.text);
        if name == "FROM" {
            file.stages.push(from(line, rest).map_err(fault)?);
            continue;
        }
        let step = step(line, escape).map_err(fault)?;
        match (file.stages.last_mut(), &step.instruction) {
            (Some(stage), _) => stage.steps.push(step),
            (None, Instruction::Arg(_)) => file.arguments.push(step),
            (None, _) => return Err(fault("no build stage in current context".to_owned())),
        }
    }
    if file.stages.is_empty() {
        return Err(ParseError::Other(
            "no build stage in current context".to_owned(),
        ));
    }
    Ok(file)
}

/// Reads one instruction, such as a trigger of an image or a change of `docker commit`.
pub fn parse_one(text: &str) -> Result<Step, ParseError> {
    let (escape, lines) = lines::split(text)?;
    let [line] = lines.as_slice() else {
        return Err(ParseError::Other(
            "exactly one instruction is wanted".to_owned(),
        ));
    };
    let fault = |message: String| ParseError::at(line.number, message);
    match instruction_name(&line.text).0.as_str() {
        "FROM" => Err(fault("FROM isn't allowed here".to_owned())),
        _ => step(line, escape).map_err(fault),
    }
}

fn instruction_name(text: &str) -> (String, &str) {
    let (name, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    (name.to_ascii_uppercase(), rest.trim())
}

fn from(line: &Line, rest: &str) -> Result<Stage, String> {
    let (flags, rest) = flags::take(rest, &["platform"], &[])?;
    let words: Vec<&str> = rest.split_whitespace().collect();
    let (base, name) = match words.as_slice() {
        [base] => (*base, None),
        [base, word, name] if word.eq_ignore_ascii_case("as") => (*base, Some(*name)),
        [_, _, _] => {
            return Err(format!(
                "second argument to FROM should be \"AS\", not {:?}",
                words[1]
            ));
        }
        _ => return Err("FROM requires either one or three arguments".to_owned()),
    };
    if let Some(name) = name {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if !name.starts_with(|c: char| c.is_ascii_alphabetic()) || !name.chars().all(plain) {
            return Err(format!(
                "invalid name for build stage: {name:?}, name can't start with a number or contain symbols"
            ));
        }
    }
    Ok(Stage {
        line: line.number,
        last: line.last,
        source: shown("FROM", line),
        base: base.to_owned(),
        platform: flags::get(&flags, "platform"),
        name: name.map(str::to_ascii_lowercase),
        steps: Vec::new(),
    })
}

fn shown(name: &str, line: &Line) -> String {
    let rest = instruction_name(&line.text).1;
    format!("{name} {rest}").trim_end().to_owned()
}

fn step(line: &Line, escape: char) -> Result<Step, String> {
    let (name, rest) = instruction_name(&line.text);
    Ok(Step {
        line: line.number,
        last: line.last,
        source: shown(&name, line),
        instruction: instruction(&name, rest, &line.documents, escape)?,
    })
}

fn instruction(
    name: &str,
    rest: &str,
    documents: &[Heredoc],
    escape: char,
) -> Result<Instruction, String> {
    let needs_one = || format!("{name} requires exactly one argument");
    let some = |words: Vec<String>| match words.is_empty() {
        true => Err(format!("{name} requires at least one argument")),
        false => Ok(words),
    };
    let single = |rest: &str| match rest.is_empty() {
        true => Err(needs_one()),
        false => Ok(rest.to_owned()),
    };
    if !matches!(name, "ADD" | "COPY" | "RUN" | "HEALTHCHECK") {
        // They know no flags, but say so.
        if !matches!(
            name,
            "ENV" | "LABEL" | "ARG" | "CMD" | "ENTRYPOINT" | "SHELL" | "ONBUILD"
        ) {
            flags::take(rest, &[], &[])?;
        }
    }
    Ok(match name {
        "ADD" => Instruction::Add(copy(name, rest, documents, escape)?),
        "COPY" => Instruction::Copy(copy(name, rest, documents, escape)?),
        "RUN" => Instruction::Run(run(rest, documents, escape)?),
        "CMD" => Instruction::Cmd(command(rest)),
        "ENTRYPOINT" => match rest.is_empty() {
            true => return Err("ENTRYPOINT requires at least one argument".to_owned()),
            false => Instruction::Entrypoint(command(rest)),
        },
        "ENV" => Instruction::Env(pairs(name, rest, escape)?),
        "LABEL" => Instruction::Label(pairs(name, rest, escape)?),
        "ARG" => Instruction::Arg(arguments(rest, escape)?),
        "EXPOSE" => Instruction::Expose(some(words::split(rest, escape))?),
        "VOLUME" => {
            let words = words::json_list(rest).unwrap_or_else(|| words::split(rest, escape));
            if words.iter().any(|word| word.trim().is_empty()) {
                return Err("VOLUME specified can not be an empty string".to_owned());
            }
            Instruction::Volume(some(words)?)
        }
        "USER" => Instruction::User(single(rest)?),
        "WORKDIR" => Instruction::Workdir(single(rest)?),
        "ONBUILD" => Instruction::Onbuild(onbuild(rest, documents, escape)?),
        "STOPSIGNAL" => match words::split(rest, escape).as_slice() {
            [signal] => Instruction::StopSignal(signal.clone()),
            _ => return Err(needs_one()),
        },
        "HEALTHCHECK" => Instruction::Healthcheck(healthcheck(rest)?),
        "SHELL" => match words::json_list(rest) {
            None => return Err("SHELL requires the arguments to be in JSON form".to_owned()),
            Some(words) => Instruction::Shell(some(words)?),
        },
        "MAINTAINER" => Instruction::Maintainer(single(rest)?),
        other => return Err(format!("unknown instruction: {other}")),
    })
}

fn command(rest: &str) -> Command {
    match words::json_list(rest) {
        Some(words) => Command::Exec(words),
        None => Command::Shell(rest.to_owned()),
    }
}

fn copy(name: &str, rest: &str, documents: &[Heredoc], escape: char) -> Result<Copy, String> {
    const COPY: [&str; 5] = ["from", "chown", "chmod", "link", "exclude"];
    const ADD: [&str; 7] = [
        "chown",
        "chmod",
        "link",
        "exclude",
        "checksum",
        "keep-git-dir",
        "unpack",
    ];
    let known: &[&str] = if name == "COPY" { &COPY } else { &ADD };
    let (flags, rest) = flags::take(rest, known, &["exclude"])?;
    let mut words = words::json_list(rest).unwrap_or_else(|| words::split(rest, escape));
    let Some(target) = words.pop() else {
        return Err(format!(
            "{name} requires at least two arguments, but no arguments were provided"
        ));
    };
    if words.is_empty() {
        return Err(format!(
            "{name} requires at least two arguments, but only one was provided. Destination could not be determined"
        ));
    }
    let exclude = flags.iter().filter(|(name, _)| name == "exclude");
    Ok(Copy {
        sources: match documents.is_empty() {
            true => words,
            false => words
                .into_iter()
                .filter(|word| heredoc::one(word).is_none())
                .collect(),
        },
        documents: documents.to_vec(),
        target,
        exclude: exclude.map(|(_, value)| value.clone()).collect(),
        from: flags::get(&flags, "from"),
        chown: flags::get(&flags, "chown"),
        chmod: flags::get(&flags, "chmod"),
        checksum: flags::get(&flags, "checksum"),
        keep_archives: flags::get(&flags, "unpack").as_deref() == Some("false"),
    })
}

fn run(rest: &str, documents: &[Heredoc], escape: char) -> Result<Run, String> {
    let (flags, rest) = flags::take(rest, &["mount", "network"], &["mount"])?;
    if rest.is_empty() {
        return Err("RUN requires at least one argument".to_owned());
    }
    let network = flags::get(&flags, "network");
    if let Some(network) = &network
        && !["default", "none", "host"].contains(&network.as_str())
    {
        return Err(format!(
            "network {network:?} is not valid, use one of default, none, host"
        ));
    }
    let mounts = flags.iter().filter(|(name, _)| name == "mount");
    let mounts = mounts.map(|(_, value)| mount::parse(value));
    Ok(Run {
        command: match documents.is_empty() {
            true => command(rest),
            false => with_documents(rest, documents, escape),
        },
        documents: documents.to_vec(),
        mounts: mounts.collect::<Result<_, _>>()?,
        network,
    })
}

/// One document and nothing else is the script itself; otherwise the shell reads the documents.
fn with_documents(rest: &str, documents: &[Heredoc], escape: char) -> Command {
    if let ([document], [_only]) = (documents, words::split(rest, escape).as_slice()) {
        return Command::Shell(document.text.clone());
    }
    let mut text = rest.to_owned();
    for document in documents {
        text.push('\n');
        text.push_str(&document.text);
        text.push_str(&document.name);
    }
    Command::Shell(text)
}

/// `name=value …`, or in the old form `name value`.
fn pairs(name: &str, rest: &str, escape: char) -> Result<Vec<(String, String)>, String> {
    let words = words::split(rest, escape);
    let Some(first) = words.first() else {
        return Err(format!("{name} requires at least one argument"));
    };
    let blank = || format!("{name} names can not be blank");
    if !first.contains('=') {
        let (key, value) = rest
            .split_once(char::is_whitespace)
            .ok_or_else(|| format!("{name} must have two arguments"))?;
        return Ok(vec![(key.to_owned(), value.trim_start().to_owned())]);
    }
    let pair = |word: &String| {
        let (key, value) = word.split_once('=').ok_or_else(|| {
            format!("Syntax error - can't find = in {word:?}. Must be of the form: name=value")
        })?;
        match key.is_empty() {
            true => Err(blank()),
            false => Ok((key.to_owned(), value.to_owned())),
        }
    };
    words.iter().map(pair).collect()
}

fn arguments(rest: &str, escape: char) -> Result<Vec<(String, Option<String>)>, String> {
    let words = words::split(rest, escape);
    if words.is_empty() {
        return Err("ARG requires at least one argument".to_owned());
    }
    let argument = |word: String| match word.split_once('=') {
        Some(("", _)) => Err("ARG names can not be blank".to_owned()),
        Some((name, value)) => Ok((name.to_owned(), Some(value.to_owned()))),
        None => Ok((word, None)),
    };
    words.into_iter().map(argument).collect()
}

/// The trigger is looked at now, so that its faults are found where they are.
fn onbuild(rest: &str, documents: &[Heredoc], escape: char) -> Result<String, String> {
    let (name, inner) = instruction_name(rest);
    if name.is_empty() {
        return Err("ONBUILD requires at least one argument".to_owned());
    }
    if name == "ONBUILD" {
        return Err("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed".to_owned());
    }
    if NO_TRIGGERS.contains(&name.as_str()) {
        return Err(format!("{name} isn't allowed as an ONBUILD trigger"));
    }
    instruction(&name, inner, documents, escape)?;
    let mut text = format!("{name} {inner}");
    for document in documents {
        text.push('\n');
        text.push_str(&document.text);
        text.push_str(&document.name);
    }
    Ok(text)
}

fn healthcheck(rest: &str) -> Result<Healthcheck, String> {
    const KNOWN: [&str; 5] = [
        "interval",
        "timeout",
        "start-period",
        "start-interval",
        "retries",
    ];
    let (flags, rest) = flags::take(rest, &KNOWN, &[])?;
    let (kind, rest) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    let kind = kind.to_ascii_uppercase();
    if kind.is_empty() {
        return Err("HEALTHCHECK requires at least one argument".to_owned());
    }
    let mut check = Healthcheck::default();
    match kind.as_str() {
        "NONE" if rest.trim().is_empty() => check.test = vec!["NONE".to_owned()],
        "NONE" => return Err("HEALTHCHECK NONE takes no arguments".to_owned()),
        "CMD" => match command(rest.trim()) {
            Command::Shell(text) if text.is_empty() => {
                return Err("Missing command after HEALTHCHECK CMD".to_owned());
            }
            Command::Shell(text) => check.test = vec!["CMD-SHELL".to_owned(), text],
            Command::Exec(words) => {
                check.test = vec!["CMD".to_owned()];
                check.test.extend(words);
            }
        },
        other => return Err(format!("Unknown type {other:?} in HEALTHCHECK (try CMD)")),
    }
    for (name, value) in &flags {
        let time = || duration::nanoseconds(name, value);
        match name.as_str() {
            "interval" => check.interval = time()?,
            "timeout" => check.timeout = time()?,
            "start-period" => check.start_period = time()?,
            "start-interval" => check.start_interval = time()?,
            _ => {
                let number = value.parse::<i64>().ok().filter(|number| *number >= 0);
                check.retries =
                    number.ok_or_else(|| format!("--retries must be at least 0 (not {value})"))?;
            }
        }
    }
    Ok(check)
}
