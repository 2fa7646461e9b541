//! A small client for people: the verbs of kubectl that a fresh machine needs
//! before kubectl is on it, with kubectl's words and output.

mod apply;
mod delete;
mod describe;
mod exec;
mod get;
mod logs;
mod output;
mod resources;
mod scale;
mod wait;

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use client::{Access, Client};

/// Where the cluster is and which part of it is meant.
#[derive(Args, Clone, Debug, Default)]
pub struct Global {
    /// Path of the kubeconfig file
    #[arg(long, global = true, env = "KUBECONFIG")]
    pub kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig to use
    #[arg(long, global = true)]
    pub context: Option<String>,
    /// Namespace of the request
    #[arg(short, long, global = true)]
    pub namespace: Option<String>,
}

/// The verbs.
#[derive(Subcommand, Clone, Debug)]
pub enum Command {
    /// Show one or many resources
    Get(get::Get),
    /// Create or change what files say (server-side apply)
    Apply(apply::Apply),
    /// Delete resources by file or by name
    Delete(delete::Delete),
    /// Show a resource with its events
    Describe(describe::Describe),
    /// Print the logs of a container
    Logs(logs::Logs),
    /// Run a command in a container
    Exec(exec::Exec),
    /// Wait until a condition holds
    Wait(wait::Wait),
    /// Set the number of replicas
    Scale(scale::Scale),
    /// List the kinds the server knows
    ApiResources,
}

/// A connection with its defaults.
pub(crate) struct Session {
    pub(crate) access: Access,
    pub(crate) client: Client,
    pub(crate) namespace: String,
}

/// Runs a verb; the result is the process's exit code.
pub async fn run(global: &Global, command: Command) -> Result<i32> {
    let session = Session::open(global)?;
    match command {
        Command::Get(get) => get.run(&session).await.map(|()| 0),
        Command::Apply(apply) => apply.run(&session).await.map(|()| 0),
        Command::Delete(delete) => delete.run(&session).await.map(|()| 0),
        Command::Describe(describe) => describe.run(&session).await.map(|()| 0),
        Command::Logs(logs) => logs.run(&session).await.map(|()| 0),
        Command::Exec(exec) => exec.run(&session).await,
        Command::Wait(wait) => wait.run(&session).await.map(|()| 0),
        Command::Scale(scale) => scale.run(&session).await.map(|()| 0),
        Command::ApiResources => resources::list(&session).await.map(|()| 0),
    }
}

impl Session {
    fn open(global: &Global) -> Result<Session> {
        let path = kubeconfig_path(global)?;
        let access = client::kubeconfig::load(&path, global.context.as_deref())?;
        let client = Client::remote(&access)?;
        let namespace = global
            .namespace
            .clone()
            .unwrap_or_else(|| access.namespace.clone());
        Ok(Session {
            access,
            client,
            namespace,
        })
    }
}

/// The first of: flag or environment, the user's own, the server's default.
fn kubeconfig_path(global: &Global) -> Result<PathBuf> {
    if let Some(path) = &global.kubeconfig {
        return Ok(path.clone());
    }
    let home = std::env::home_dir().map(|home| home.join(".kube/config"));
    let server = PathBuf::from("/var/lib/sampan/admin.kubeconfig");
    let known = home.into_iter().chain([server]).find(|path| path.exists());
    known.context(
        "no kubeconfig: name one by --kubeconfig or KUBECONFIG, or start a server with `sampan server`",
    )
}
