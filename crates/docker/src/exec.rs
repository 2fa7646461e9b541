//! Further commands in running containers.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::FutureExt;
use http::StatusCode;
use node_api::{ExecRequest, ExecSession, RuntimeError, TerminalSize};
use parking_lot::Mutex;
use runtime::ExecOptions;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;

use crate::answer::{self, Answer, Fault};
use crate::call::Call;
use crate::daemon::{Container, Daemon};
use crate::frames::{self, STDERR};
use crate::hijack::{self, End};
use crate::record::Status;

/// Execs that are remembered; the oldest ended ones give way.
const KEPT: usize = 1024;

/// What is wished for.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct ExecWish {
    attach_stdin: bool,
    attach_stdout: bool,
    attach_stderr: bool,
    detach_keys: String,
    tty: bool,
    env: Vec<String>,
    cmd: Vec<String>,
    privileged: bool,
    user: String,
    working_dir: String,
    console_size: Option<(u16, u16)>,
}

#[derive(Default)]
struct Course {
    started: bool,
    running: bool,
    /// On the node.
    pid: i32,
    exit_code: Option<i32>,
    resize: Option<mpsc::Sender<TerminalSize>>,
}

struct Exec {
    id: String,
    container: Arc<Container>,
    wish: ExecWish,
    course: Mutex<Course>,
}

/// All execs.
#[derive(Default)]
pub(crate) struct Execs(Mutex<BTreeMap<String, Arc<Exec>>>);

impl Execs {
    fn find(&self, id: &str) -> Result<Arc<Exec>, Fault> {
        let missing = || Fault::missing(format!("No such exec instance: {id}"));
        self.0.lock().get(id).cloned().ok_or_else(missing)
    }

    fn add(&self, exec: Arc<Exec>) {
        let mut all = self.0.lock();
        if all.len() >= KEPT {
            all.retain(|_, exec| {
                let course = exec.course.lock();
                course.running || !course.started
            });
        }
        all.insert(exec.id.clone(), exec);
    }

    /// Ids of what still runs in a container.
    pub(crate) fn of(&self, container: &str) -> Option<Vec<String>> {
        let all = self.0.lock();
        let running = all.values().filter(|exec| exec.container.id == container);
        let ids: Vec<String> = running
            .filter(|exec| exec.course.lock().running)
            .map(|exec| exec.id.clone())
            .collect();
        (!ids.is_empty()).then_some(ids)
    }

    pub(crate) fn forget(&self, container: &str) {
        self.0
            .lock()
            .retain(|_, exec| exec.container.id != container);
    }
}

/// `POST /containers/{id}/exec`.
pub(crate) async fn create(mut call: Call, name: &str) -> Answer {
    let container = call.daemon.find(name)?;
    let wish: ExecWish = call.body().await?;
    if wish.cmd.is_empty() {
        return Err(Fault::bad("No exec command specified"));
    }
    hijack::detach_keys(&wish.detach_keys)?;
    running(&container)?;
    let record = container.snapshot();
    let id = crate::names::fresh_id();
    let words = wish.cmd.join(" ");
    call.daemon.events.container(
        &record,
        format!("exec_create: {words}"),
        &[("execID", id.clone())],
    );
    call.daemon.execs.add(Arc::new(Exec {
        id: id.clone(),
        container,
        wish,
        course: Mutex::default(),
    }));
    Ok(answer::json(StatusCode::CREATED, &json!({ "Id": id })))
}

fn running(container: &Container) -> Result<(), Fault> {
    let record = container.record.read();
    match record.state.status {
        Status::Running => Ok(()),
        Status::Paused => Err(Fault::conflict(format!(
            "container {} is paused, unpause the container before exec",
            record.id
        ))),
        _ => Err(Fault::conflict(format!(
            "container {} is not running",
            record.id
        ))),
    }
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct StartWish {
    detach: bool,
    console_size: Option<(u16, u16)>,
}

/// `POST /exec/{id}/start`.
pub(crate) async fn start(mut call: Call, id: &str) -> Answer {
    let exec = call.daemon.execs.find(id)?;
    let start: StartWish = call.body().await?;
    running(&exec.container)?;
    {
        let mut course = exec.course.lock();
        if course.started {
            let message = format!("exec {id} has already been started");
            return Err(Fault::conflict(message));
        }
        course.started = true;
    }
    let size = start.console_size.or(exec.wish.console_size);
    let daemon = Arc::clone(&call.daemon);
    if start.detach {
        let mut session = open(&daemon, &exec, size).await?;
        tokio::spawn(async move {
            let mut wire = hijack::Wire {
                input: Box::new(tokio::io::empty()),
                output: Box::new(tokio::io::sink()),
            };
            hijack::carry(&mut session, &mut wire, true, None).await;
            finish(&daemon, &exec, session).await;
        });
        return Ok(answer::empty(StatusCode::OK));
    }
    let tty = exec.wish.tty;
    let kind = match tty || call.version < (1, 42) {
        true => frames::RAW,
        false => frames::MULTIPLEXED,
    };
    Ok(hijack::take(call.request, kind, move |mut wire| {
        async move {
            match open(&daemon, &exec, size).await {
                Ok(session) => attend(&daemon, &exec, session, &mut wire).await,
                Err(fault) => {
                    let words = format!("{fault}\r\n");
                    let piece = frames::piece(STDERR, tty, words.as_bytes());
                    // The client may be gone; the exit code tells the same.
                    let _ = wire.output.write_all(&piece).await;
                }
            }
            let _ = wire.output.shutdown().await;
        }
        .boxed()
    }))
}

/// Carries the streams; a client that leaves early does not end the command.
async fn attend(
    daemon: &Arc<Daemon>,
    exec: &Arc<Exec>,
    mut session: ExecSession,
    wire: &mut hijack::Wire,
) {
    let keys = hijack::detach_keys(&exec.wish.detach_keys).unwrap_or_default();
    let keys = exec.wish.tty.then_some(keys.as_slice());
    match hijack::carry(&mut session, wire, exec.wish.tty, keys).await {
        End::Finished => finish(daemon, exec, session).await,
        End::Detached | End::Gone => {
            let (daemon, exec) = (Arc::clone(daemon), Arc::clone(exec));
            tokio::spawn(async move { finish(&daemon, &exec, session).await });
        }
    }
}

async fn open(
    daemon: &Daemon,
    exec: &Exec,
    size: Option<(u16, u16)>,
) -> Result<ExecSession, Fault> {
    let wish = &exec.wish;
    let request = ExecRequest {
        container_id: exec.container.inner()?,
        command: wish.cmd.clone(),
        tty: wish.tty,
        stdin: wish.attach_stdin,
        stdout: wish.attach_stdout || wish.tty,
        stderr: wish.attach_stderr && !wish.tty,
    };
    let options = ExecOptions {
        env: wish.env.clone(),
        working_dir: wish.working_dir.clone(),
        user: wish.user.clone(),
        privileged: wish.privileged,
    };
    let record = exec.container.snapshot();
    let words = wish.cmd.join(" ");
    daemon.events.container(
        &record,
        format!("exec_start: {words}"),
        &[("execID", exec.id.clone())],
    );
    let (session, pid) = match daemon.engine.exec_with(request, options).await {
        Ok(started) => started,
        Err(error) => {
            let (code, fault) = refused(&error);
            exec.course.lock().exit_code = Some(code);
            return Err(fault);
        }
    };
    let resize = session.resize.clone();
    if let (Some((height, width)), Some(resize)) = (size, &resize) {
        // The terminal ends with the command; a size that comes too late is for nobody.
        let _ = resize.send(TerminalSize { width, height }).await;
    }
    let mut course = exec.course.lock();
    course.running = true;
    course.pid = pid;
    course.resize = resize;
    Ok(session)
}

/// Exit code and words of a command that did not start.
fn refused(error: &RuntimeError) -> (i32, Fault) {
    let message = error.to_string();
    let code = crate::containers::start_code(&message);
    let words = format!(
        "OCI runtime exec failed: exec failed: unable to start container process: {message}"
    );
    (code, Fault::bad(words))
}

async fn finish(daemon: &Daemon, exec: &Exec, session: ExecSession) {
    let code = match session.exit.await {
        Ok(Ok(code)) => code,
        // Its container has ended, and it with it.
        Ok(Err(_)) | Err(_) => 137,
    };
    {
        let mut course = exec.course.lock();
        course.running = false;
        course.exit_code = Some(code);
        course.resize = None;
    }
    let record = exec.container.snapshot();
    let more = [("execID", exec.id.clone()), ("exitCode", code.to_string())];
    daemon.events.container(&record, "exec_die", &more);
}

/// `POST /exec/{id}/resize`.
pub(crate) async fn resize(call: Call, id: &str) -> Answer {
    let exec = call.daemon.execs.find(id)?;
    let size = crate::containers::terminal_size(&call)?;
    let resize = exec.course.lock().resize.clone();
    if let Some(resize) = resize {
        // As above: too late is for nobody.
        let _ = resize.send(size).await;
    }
    Ok(answer::empty(StatusCode::OK))
}

/// `GET /exec/{id}/json`.
pub(crate) async fn inspect(call: Call, id: &str) -> Answer {
    let exec = call.daemon.execs.find(id)?;
    let course = exec.course.lock();
    let (entrypoint, arguments) = exec.wish.cmd.split_at(1);
    answer::ok(&json!({
        "ID": exec.id,
        "Running": course.running,
        "ExitCode": course.exit_code,
        "ProcessConfig": {
            "tty": exec.wish.tty,
            "entrypoint": entrypoint[0],
            "arguments": arguments,
            "privileged": exec.wish.privileged,
            "user": exec.wish.user,
        },
        "OpenStdin": exec.wish.attach_stdin,
        "OpenStderr": exec.wish.attach_stderr,
        "OpenStdout": exec.wish.attach_stdout,
        "CanRemove": false,
        "ContainerID": exec.container.id,
        "DetachKeys": exec.wish.detach_keys,
        "Pid": course.pid,
    }))
}
