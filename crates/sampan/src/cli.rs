//! The command line.

use anyhow::Result;
use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;

use crate::config::{ConfigCommand, DEFAULT_DATA_DIR, ServerArgs};
use crate::demo_app::DemoApp;
use crate::engine::EngineArgs;
use crate::image::ImageCommand;
use crate::{demo, engine, image, purge, server};

/// Kubernetes in one boat: API server, store, scheduler, controllers, kubelet, container engine,
/// network and DNS in one process
#[derive(Parser, Debug)]
#[command(name = "sampan", version = VERSION)]
struct Cli {
    #[command(flatten)]
    global: ctl::Global,
    #[command(subcommand)]
    command: Command,
}

/// What `/version`, nodes and `--version` say.
pub(crate) const VERSION: &str = concat!("v1.36.2+sampan-", env!("CARGO_PKG_VERSION"));

#[derive(Subcommand, Debug)]
enum Command {
    /// Run a cluster, or one part of it
    Server(Box<ServerArgs>),
    /// Run the container engine alone, behind CRI
    Engine(EngineArgs),
    /// Show and check the configuration
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Manage this node's images
    Image(ImageCommand),
    /// Remove all containers of a node whose server does not run
    Purge {
        /// Folder that holds everything
        #[arg(short = 'd', long, default_value = DEFAULT_DATA_DIR)]
        data_dir: std::path::PathBuf,
    },
    /// Start a cluster of its own, deploy an application, show that it answers, clean up
    Demo(demo::Demo),
    /// The demonstration's web application
    #[command(subcommand, hide = true)]
    DemoApp(DemoApp),
    #[command(flatten)]
    Client(ctl::Command),
}

/// Runs what the command line says; the result is the process's exit code.
pub(crate) fn run() -> i32 {
    let cli = Cli::parse();
    match execute(&cli.global, cli.command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            1
        }
    }
}

fn execute(global: &ctl::Global, command: Command) -> Result<i32> {
    match command {
        Command::Server(args) => {
            log_to_stderr("info,hickory_server=warn");
            let config = args.resolve(global.kubeconfig.clone())?;
            threads(config.worker_threads)?
                .block_on(server::run(config))
                .map(|()| 0)
        }
        Command::Engine(args) => {
            log_to_stderr("info");
            threads(2)?.block_on(engine::run(args)).map(|()| 0)
        }
        Command::Config(command) => command.run().map(|()| 0),
        Command::Image(command) => {
            log_to_stderr("warn");
            threads(2)?.block_on(image::run(command)).map(|()| 0)
        }
        Command::Purge { data_dir } => {
            log_to_stderr("warn");
            let data_dir = std::path::absolute(data_dir)?;
            purge::run(&data_dir).map(|()| 0)
        }
        Command::Demo(demo) => {
            log_to_stderr("warn");
            demo::run(demo)
        }
        Command::DemoApp(app) => single()?.block_on(app.run()),
        Command::Client(verb) => {
            log_to_stderr("warn");
            single()?.block_on(ctl::run(global, verb))
        }
    }
}

fn threads(count: usize) -> Result<tokio::runtime::Runtime> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    Ok(builder.worker_threads(count.max(1)).enable_all().build()?)
}

fn single() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?)
}

fn log_to_stderr(default: &str) {
    let filter = EnvFilter::try_from_env("SAMPAN_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
}
