//! Hooks of the OCI runtime specification: programs that are run at certain moments of a
//! container's life, and told of its state on their standard input.

use std::collections::BTreeMap;
use std::fmt::{self, Display};
use std::fs::File;
use std::io::{self, Seek, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use crate::supervisor::set_nonblocking;

/// The version of the specification that states and `config.json` follow.
pub(crate) const OCI_VERSION: &str = "1.1.0";
/// Bytes of each output of a hook that are told of when it fails; the rest is read and dropped.
const OUTPUT_LIMIT: usize = 2 << 10;

/// When a hook is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Moment {
    /// The container has its namespaces and mounts; among the node's processes.
    Prestart,
    /// The same, after [`Moment::Prestart`].
    CreateRuntime,
    /// In the container's namespaces, but still with the node's files.
    CreateContainer,
    /// In the container, just before its program.
    StartContainer,
    /// The program runs; among the node's processes.
    Poststart,
    /// The container is being removed; among the node's processes.
    Poststop,
}

impl Moment {
    /// What the container's state is called then.
    fn status(self) -> &'static str {
        match self {
            Moment::Prestart | Moment::CreateRuntime | Moment::CreateContainer => "creating",
            Moment::StartContainer => "created",
            Moment::Poststart => "running",
            Moment::Poststop => "stopped",
        }
    }
}

impl Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Moment::Prestart => "prestart",
            Moment::CreateRuntime => "createRuntime",
            Moment::CreateContainer => "createContainer",
            Moment::StartContainer => "startContainer",
            Moment::Poststart => "poststart",
            Moment::Poststop => "poststop",
        })
    }
}

/// A program that is run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hook {
    /// Absolute: of the node's files, but for [`Moment::StartContainer`], which sees the container's.
    pub path: PathBuf,
    /// Its own name first, as of any program.
    #[serde(default)]
    pub args: Vec<String>,
    /// All of its environment.
    #[serde(default)]
    pub env: Vec<String>,
    /// Seconds it may take; without limit where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<u64>,
}

/// A container's hooks, in their order; as JSON what `config.json` has below `hooks`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hooks(BTreeMap<Moment, Vec<Hook>>);

impl Hooks {
    /// One more, after those of the same moment.
    pub fn add(&mut self, moment: Moment, hook: Hook) {
        self.0.entry(moment).or_default().push(hook);
    }

    /// All of them, moment by moment.
    pub fn iter(&self) -> impl Iterator<Item = (Moment, &Hook)> {
        self.0
            .iter()
            .flat_map(|(moment, hooks)| hooks.iter().map(|hook| (*moment, hook)))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn at(&self, moment: Moment) -> &[Hook] {
        self.0.get(&moment).map_or(&[], Vec::as_slice)
    }

    /// Adds all of another's after its own.
    pub(crate) fn extend(&mut self, other: Hooks) {
        for (moment, hooks) in other.0 {
            self.0.entry(moment).or_default().extend(hooks);
        }
    }

    /// What is wrong with one of them, before any is run.
    pub(crate) fn check(&self) -> Result<(), String> {
        for (moment, hooks) in &self.0 {
            for hook in hooks {
                let path = hook.path.display();
                if !hook.path.is_absolute() {
                    return Err(format!("{moment} hook {path:?}: path is not absolute"));
                }
                if hook.timeout == Some(0) {
                    return Err(format!("{moment} hook {path:?}: timeout is not positive"));
                }
            }
        }
        Ok(())
    }
}

/// A container's hooks, with what they are told of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Plan {
    pub(crate) hooks: Hooks,
    /// The folder with `config.json`.
    pub(crate) bundle: PathBuf,
    pub(crate) annotations: BTreeMap<String, String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct State<'a> {
    oci_version: &'a str,
    id: &'a str,
    status: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pid: Option<i32>,
    bundle: &'a Path,
    annotations: &'a BTreeMap<String, String>,
}

impl Plan {
    /// Whether the container has to wait for hooks that are run among the node's processes.
    pub(crate) fn waits(&self) -> bool {
        let hooks = [Moment::Prestart, Moment::CreateRuntime].map(|moment| self.hooks.at(moment));
        hooks.iter().any(|hooks| !hooks.is_empty())
    }

    /// Runs a moment's hooks until one fails. Blocks. `pid` is the first process's, as the hooks see it.
    pub(crate) fn run(&self, moment: Moment, id: &str, pid: i32) -> Result<(), String> {
        match self.faults(moment, id, pid).next() {
            Some(fault) => Err(fault),
            None => Ok(()),
        }
    }

    /// Runs a moment's hooks, each as far as faults are taken: one per hook that failed. Blocks.
    pub(crate) fn faults(
        &self,
        moment: Moment,
        id: &str,
        pid: i32,
    ) -> impl Iterator<Item = String> {
        let state = State {
            oci_version: OCI_VERSION,
            id,
            status: moment.status(),
            pid: (pid > 0).then_some(pid),
            bundle: &self.bundle,
            annotations: &self.annotations,
        };
        let state = serde_json::to_vec(&state).unwrap_or_default();
        let folder = match moment {
            Moment::StartContainer => Path::new("/"),
            _ => &self.bundle,
        };
        let numbered = self.hooks.at(moment).iter().enumerate();
        numbered.filter_map(move |(index, hook)| {
            let fault = hook.run(&state, folder).err()?;
            Some(format!("error running {moment} hook #{index}: {fault}"))
        })
    }
}

impl Hook {
    fn run(&self, state: &[u8], folder: &Path) -> Result<(), String> {
        let explain =
            |error: io::Error| format!("fork/exec {}: {}", self.path.display(), words(&error));
        let mut command = Command::new(&self.path);
        if let Some((name, rest)) = self.args.split_first() {
            command.arg0(name).args(rest);
        }
        let pairs = self.env.iter().filter_map(|pair| pair.split_once('='));
        command
            .env_clear()
            .envs(pairs)
            .current_dir(folder)
            .process_group(0)
            .stdin(given(state).map_err(explain)?)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().map_err(explain)?;
        let deadline = (self.timeout).map(|seconds| Instant::now() + Duration::from_secs(seconds));
        let mut outputs = [
            Output::new(child.stdout.take().map(OwnedFd::from)),
            Output::new(child.stderr.take().map(OwnedFd::from)),
        ];
        let watched = watch(&child, &mut outputs, deadline);
        if !matches!(watched, Ok(true)) {
            let group = Pid::from_raw(i32::try_from(child.id()).unwrap_or_default());
            // Its own children too; who is gone already needs no signal.
            let _ = killpg(group, Signal::SIGKILL);
        }
        let status = child.wait().map_err(explain)?;
        match watched.map_err(explain)? {
            false => Err(format!(
                "hook ran past specified timeout of {:.1}s",
                self.timeout.unwrap_or_default() as f64
            )),
            true if status.success() => Ok(()),
            true => Err(format!(
                "{}, stdout: {}, stderr: {}",
                ending(status),
                outputs[0].text(),
                outputs[1].text()
            )),
        }
    }
}

/// A file with `bytes`, which no writer has to wait for.
fn given(bytes: &[u8]) -> io::Result<Stdio> {
    let mut file = File::from(memfd_create(c"state", MFdFlags::MFD_CLOEXEC)?);
    file.write_all(bytes)?;
    file.rewind()?;
    Ok(file.into())
}

/// Reads what the hook says until it ends; false where its time is over before.
fn watch(child: &Child, outputs: &mut [Output; 2], deadline: Option<Instant>) -> io::Result<bool> {
    let pid = Pid::from_raw(i32::try_from(child.id()).map_err(io::Error::other)?);
    let process = linux::process::open_pidfd(pid)?;
    for output in outputs.iter().filter_map(|output| output.pipe.as_ref()) {
        set_nonblocking(output)?;
    }
    loop {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        if left.is_some_and(|left| left.is_zero()) {
            return Ok(false);
        }
        let limit = left.map_or(PollTimeout::NONE, |left| {
            // Rounded up, for what is less than a millisecond is none.
            PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX)
        });
        let pipes = outputs.iter().filter_map(|output| output.pipe.as_ref());
        let mut fds: Vec<PollFd<'_>> = std::iter::once(&process)
            .chain(pipes)
            .map(|fd| PollFd::new(fd.as_fd(), PollFlags::POLLIN))
            .collect();
        match poll(&mut fds, limit) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        let ended = (fds[0].revents()).is_some_and(|events| events.contains(PollFlags::POLLIN));
        for output in &mut *outputs {
            output.read();
        }
        // Whoever else still holds the pipes is not waited for.
        if ended {
            return Ok(true);
        }
    }
}

/// What a hook writes.
struct Output {
    pipe: Option<OwnedFd>,
    kept: Vec<u8>,
}

impl Output {
    fn new(pipe: Option<OwnedFd>) -> Output {
        Output {
            pipe,
            kept: Vec::new(),
        }
    }

    /// Takes in what is there.
    fn read(&mut self) {
        let mut chunk = [0u8; 4 << 10];
        while let Some(pipe) = &self.pipe {
            match nix::unistd::read(pipe, &mut chunk) {
                Err(nix::errno::Errno::EAGAIN) => return,
                Err(nix::errno::Errno::EINTR) => {}
                Ok(0) | Err(_) => self.pipe = None,
                Ok(length) => {
                    let room = OUTPUT_LIMIT - self.kept.len();
                    self.kept.extend_from_slice(&chunk[..length.min(room)]);
                    if length == chunk.len() && room == 0 {
                        // One that writes without end must not keep us from the clock.
                        return;
                    }
                }
            }
        }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.kept).into_owned()
    }
}

fn words(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(number) => nix::errno::Errno::from_raw(number)
            .desc()
            .to_ascii_lowercase(),
        None => error.to_string(),
    }
}

fn ending(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(9)) => "signal: killed".to_owned(),
        (None, signal) => format!("signal: {}", signal.unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, timeout: Option<u64>) -> Hook {
        Hook {
            path: "/bin/sh".into(),
            args: ["sh", "-c", script].map(str::to_owned).to_vec(),
            env: vec!["WORD=hello".to_owned()],
            timeout,
        }
    }

    fn plan(moment: Moment, hooks: &[Hook]) -> Plan {
        Plan {
            hooks: Hooks([(moment, hooks.to_vec())].into()),
            bundle: "/tmp".into(),
            annotations: [("a".to_owned(), "b".to_owned())].into(),
        }
    }

    #[test]
    fn a_hook_is_told_the_state_and_its_fault_is_told() {
        let expected = "{\"ociVersion\":\"1.1.0\",\"id\":\"c\",\"status\":\"running\",\"pid\":7,\
                        \"bundle\":\"/tmp\",\"annotations\":{\"a\":\"b\"}}";
        let says = shell("pwd; echo $WORD $HOME >&2; cat; exit 3", None);
        let fault = plan(Moment::Poststart, &[says]).run(Moment::Poststart, "c", 7);
        let words = format!(
            "error running poststart hook #0: exit status 3, stdout: /tmp\n{expected}, stderr: hello\n"
        );
        assert_eq!(fault, Err(words));
        let missing = Hook {
            path: "/no/such".into(),
            ..Hook::default()
        };
        let hooks = [shell("exit 0", None), missing, shell("kill -9 $$", None)];
        let plan = plan(Moment::Poststop, &hooks);
        let faults: Vec<String> = plan.faults(Moment::Poststop, "c", 0).collect();
        let expected = [
            "error running poststop hook #1: fork/exec /no/such: no such file or directory",
            "error running poststop hook #2: signal: killed, stdout: , stderr: ",
        ];
        assert_eq!(faults, expected);
        assert_eq!(plan.run(Moment::Prestart, "c", 7), Ok(()));
    }

    #[test]
    fn a_hook_has_its_time_and_may_say_much() {
        let late = plan(Moment::Prestart, &[shell("sleep 60 & sleep 60", Some(1))]);
        let fault = late.run(Moment::Prestart, "c", 7).unwrap_err();
        assert_eq!(
            fault,
            "error running prestart hook #0: hook ran past specified timeout of 1.0s"
        );
        let loud = shell("head -c 1000000 /dev/zero; exit 1", None);
        let fault = plan(Moment::Prestart, &[loud]).run(Moment::Prestart, "c", 7);
        let fault = fault.unwrap_err();
        assert!(fault.contains("exit status 1"), "{fault}");
        assert!(fault.len() < 2 * OUTPUT_LIMIT);
    }

    #[test]
    fn hooks_in_the_words_of_the_specification() {
        let text = r#"{"createRuntime":[{"path":"/bin/a","args":["a"],"timeout":3}],"poststop":[{"path":"b"}]}"#;
        let hooks: Hooks = serde_json::from_str(text).unwrap();
        assert_eq!(hooks.at(Moment::CreateRuntime)[0].timeout, Some(3));
        let fault = hooks.check().unwrap_err();
        assert_eq!(fault, "poststop hook \"b\": path is not absolute");
    }
}
