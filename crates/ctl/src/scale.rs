//! `sampan scale`.

use anyhow::Result;
use clap::Args;
use serde_json::json;

use crate::{Session, output, resources};

/// Arguments of `scale`.
#[derive(Args, Clone, Debug)]
pub struct Scale {
    /// Kind and names: `deployment web`, `deploy/web`
    #[arg(required = true)]
    resources: Vec<String>,
    /// Wanted number of replicas
    #[arg(long)]
    replicas: u32,
}

impl Scale {
    pub(crate) async fn run(self, session: &Session) -> Result<()> {
        for (names, only) in resources::resolve(session, &self.resources).await? {
            for name in only {
                let path = names.path(Some(&session.namespace), Some(&name));
                let body = serde_json::to_vec(&json!({"spec": {"replicas": self.replicas}}))?;
                let media_type = "application/merge-patch+json";
                session
                    .client
                    .patch_value(&format!("{path}/scale"), media_type, body)
                    .await?;
                output::line(&format!("{} scaled", output::name_of(&names, &name)));
            }
        }
        Ok(())
    }
}
