//! The settings of admission, from flags and an AdmissionConfiguration.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::Config;

impl Config {
    /// Which admission plugins run, and what they are told.
    pub(crate) fn admission(&self) -> Result<admission::Settings> {
        let mut settings = admission::Settings {
            enable: self.enable_admission_plugins.clone(),
            disable: self.disable_admission_plugins.clone(),
            ..admission::Settings::default()
        };
        let Some(path) = &self.admission_control_config_file else {
            return Ok(settings);
        };
        let file = read(path)?;
        // Files of plugins are named beside the file that names them.
        let folder = path.parent().map(Path::to_owned).unwrap_or_default();
        let mut load = |name: &str| {
            let path: PathBuf = folder.join(name);
            read(&path).map_err(|error| format!("{error:#}"))
        };
        settings.configure(&file, &mut load)?;
        Ok(settings)
    }
}

fn read(path: &Path) -> Result<serde_json::Value> {
    let text =
        std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_saphyr::from_str(&text).with_context(|| format!("{} is not valid", path.display()))
}
