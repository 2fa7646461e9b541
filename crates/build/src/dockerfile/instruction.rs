//! What a Dockerfile says.

use super::heredoc::Heredoc;

/// A whole file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dockerfile {
    pub escape: char,
    /// Arguments before the first stage: they count in `FROM` lines.
    pub arguments: Vec<Step>,
    pub stages: Vec<Stage>,
}

/// `FROM` and what follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stage {
    pub line: usize,
    /// Where the instruction ends.
    pub last: usize,
    /// The instruction as it is shown.
    pub source: String,
    pub base: String,
    pub platform: Option<String>,
    pub name: Option<String>,
    pub steps: Vec<Step>,
}

/// One instruction with its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    pub line: usize,
    /// Where it ends.
    pub last: usize,
    /// The instruction as it is shown.
    pub source: String,
    pub instruction: Instruction,
}

/// All there are but `FROM`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Instruction {
    Add(Copy),
    Copy(Copy),
    Run(Run),
    Cmd(Command),
    Entrypoint(Command),
    Env(Vec<(String, String)>),
    Label(Vec<(String, String)>),
    Arg(Vec<(String, Option<String>)>),
    Expose(Vec<String>),
    Volume(Vec<String>),
    User(String),
    Workdir(String),
    /// An instruction for whoever builds on this image.
    Onbuild(String),
    StopSignal(String),
    Healthcheck(Healthcheck),
    Shell(Vec<String>),
    Maintainer(String),
}

/// A command in one of its two forms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// For the stage's shell.
    Shell(String),
    /// `["program", "argument"]`.
    Exec(Vec<String>),
}

/// `RUN`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    pub command: Command,
    pub documents: Vec<Heredoc>,
    pub mounts: Vec<Mount>,
    /// `default`, `none` or `host`.
    pub network: Option<String>,
}

/// `RUN --mount=…`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mount {
    pub kind: MountKind,
    pub target: String,
    pub source: String,
    pub from: Option<String>,
    pub id: Option<String>,
    pub readonly: bool,
    pub sharing: Sharing,
    pub required: bool,
    pub mode: Option<u32>,
    pub uid: u32,
    pub gid: u32,
    /// Of memory, in bytes; 0 is no limit.
    pub size: u64,
    /// A secret as a variable.
    pub env: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MountKind {
    #[default]
    Bind,
    Cache,
    Tmpfs,
    Secret,
    /// The client's agent of keys.
    Ssh,
}

/// Who may use a cache at the same time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sharing {
    #[default]
    Shared,
    Private,
    Locked,
}

/// `COPY` and `ADD`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copy {
    pub sources: Vec<String>,
    pub documents: Vec<Heredoc>,
    pub target: String,
    pub from: Option<String>,
    pub chown: Option<String>,
    pub chmod: Option<String>,
    pub exclude: Vec<String>,
    pub checksum: Option<String>,
    /// Archives stay what they are.
    pub keep_archives: bool,
}

/// `HEALTHCHECK`; times are nanoseconds, 0 is the default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Healthcheck {
    /// `NONE`, `CMD` or `CMD-SHELL` first.
    pub test: Vec<String>,
    pub interval: i64,
    pub timeout: i64,
    pub start_period: i64,
    pub start_interval: i64,
    pub retries: i64,
}
