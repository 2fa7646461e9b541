//! `postStart` and `preStop`.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, LifecycleHandler};
use node_api::RuntimeService;

use crate::web::{self, Url};

/// An HTTP hook that does not answer fails after this long.
const HTTP_TIMEOUT: Duration = Duration::from_secs(30);

/// Whom a hook is for.
pub(crate) struct Target<'a> {
    pub(crate) runtime: &'a Arc<dyn RuntimeService>,
    pub(crate) container: &'a Container,
    pub(crate) container_id: &'a str,
    pub(crate) ip: Option<IpAddr>,
}

/// Runs a hook to its end; the error says what went wrong.
pub(crate) async fn run(target: &Target<'_>, hook: &LifecycleHandler) -> Result<(), String> {
    if let Some(exec) = &hook.exec {
        let command = exec.command.clone().unwrap_or_default();
        let shown = command.join(" ");
        let id = target.container_id;
        let done = target.runtime.exec_sync(id, command, None).await;
        let done = done.map_err(|fault| format!("command '{shown}' failed: {fault}"))?;
        if done.exit_code == 0 {
            return Ok(());
        }
        let output = [done.stdout, done.stderr.clone()].concat();
        return Err(format!(
            "command '{shown}' exited with {}: {}, message: {:?}",
            done.exit_code,
            String::from_utf8_lossy(&done.stderr).trim(),
            String::from_utf8_lossy(&output)
        ));
    }
    if let Some(sleep) = &hook.sleep {
        tokio::time::sleep(Duration::from_secs(sleep.seconds.max(0).unsigned_abs())).await;
        return Ok(());
    }
    if let Some(get) = &hook.http_get {
        let url = Url::of(get, target.container, target.ip)?;
        let answer = web::get(&url, HTTP_TIMEOUT).await?;
        return match answer.status {
            200..400 => Ok(()),
            code => Err(format!("HTTP hook failed with status code {code}")),
        };
    }
    // Upstream accepts tcpSocket here and does nothing.
    Ok(())
}
