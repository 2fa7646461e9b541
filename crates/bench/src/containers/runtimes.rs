//! Other runtimes, and the bundle they run.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde_json::{Value, json};
use tokio::process::Command;

/// Where version 2 is mounted beside version 1.
const UNIFIED: &str = "/sys/fs/cgroup/unified";

/// An OCI bundle whose one program ends at once.
#[derive(Clone, Debug)]
pub(super) struct Bundle(PathBuf);

impl Bundle {
    /// What `<runtime> spec` writes, with `program` to be run instead of a shell.
    pub(super) async fn make(runtime: &Path, folder: &Path, program: &Path) -> Result<Bundle> {
        for name in ["proc", "dev", "sys"] {
            std::fs::create_dir_all(folder.join("rootfs").join(name))?;
        }
        std::fs::copy(program, folder.join("rootfs/true"))?;
        let mut spec = Command::new(runtime);
        let output = spec.arg("spec").current_dir(folder).output().await;
        let output = output.with_context(|| format!("{} cannot be run", runtime.display()))?;
        ensure!(
            output.status.success(),
            "{} spec: {}",
            runtime.display(),
            String::from_utf8_lossy(&output.stderr)
        );
        let path = folder.join("config.json");
        let mut config: Value = serde_json::from_slice(&std::fs::read(&path)?)?;
        config["process"]["terminal"] = json!(false);
        config["process"]["args"] = json!(["/true"]);
        config["root"]["readonly"] = json!(false);
        std::fs::write(&path, config.to_string())?;
        Ok(Bundle(folder.to_owned()))
    }
}

/// One runtime.
#[derive(Debug)]
pub(super) struct Runtime {
    program: PathBuf,
    state: PathBuf,
    bundle: Bundle,
}

impl Runtime {
    pub(super) fn new(program: &Path, state: PathBuf, bundle: Bundle) -> Runtime {
        Runtime {
            program: program.to_owned(),
            state,
            bundle,
        }
    }

    /// Creates, starts, waits for and deletes a container.
    pub(super) async fn run(&self, id: &str) -> Result<()> {
        let output = Command::new(&self.program)
            .arg("--root")
            .arg(&self.state)
            .arg("run")
            .arg("--bundle")
            .arg(&self.bundle.0)
            .arg(id)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await
            .with_context(|| format!("{} cannot be run", self.program.display()))?;
        ensure!(
            output.status.success(),
            "{}: {}",
            self.program.display(),
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(())
    }
}

/// What runtimes know of running containers is in memory, as nearly everywhere: where `/run` is on a
/// disk it is hidden. Our mount namespace is our own.
pub(super) fn have_run_in_memory() -> Result<()> {
    let kind = nix::sys::statfs::statfs("/run")?.filesystem_type();
    if kind == nix::sys::statfs::TMPFS_MAGIC {
        return Ok(());
    }
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    let options = Some("mode=755");
    mount(Some("tmpfs"), "/run", Some("tmpfs"), flags, options).context("mounting /run")
}

/// crun takes a machine with both versions of cgroups only where version 2 has no controllers. Our
/// mount namespace is our own: without version 2 in it all have the same hierarchies.
pub(super) fn hide_version_2(wanted: bool) -> Result<()> {
    match wanted && Path::new(UNIFIED).is_dir() {
        true => umount2(UNIFIED, MntFlags::MNT_DETACH).context("hiding cgroup version 2"),
        false => Ok(()),
    }
}
