//! Flags of the kubelet, given as `--kubelet-arg name=value`: upstream's names for fields of the
//! KubeletConfiguration, and a few of our own.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Parser;
use kubelet::{CredentialProviders, DeadContainers, ProblemConfig, ProblemMonitor};
use node_config::{CredentialProvider, GoDuration, Source};
use serde::{Deserialize, Serialize};

/// The flags.
#[derive(Parser, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[command(name = "kubelet", no_binary_name = true)]
#[serde(rename_all = "kebab-case", default)]
pub(crate) struct NodeArgs {
    /// Folder of `device-plugins/kubelet.sock` and `pod-resources/kubelet.sock`; plugins made for
    /// other distributions look below /var/lib/kubelet [default: kubelet in the data folder]
    #[arg(long)]
    plugin_sockets_dir: Option<PathBuf>,
    /// Folder of the node's certificates [default: kubelet/pki in the data folder]
    #[arg(long)]
    cert_dir: Option<PathBuf>,
    /// Files of the node problem detector (plugins kmsg and custom), beside its usual rules
    #[arg(long)]
    node_problem_monitors: Option<String>,
    /// Whether the kernel's log is watched by the usual rules [default: true]
    #[arg(long)]
    node_problem_detector: Option<bool>,
    /// Takes every SIGTERM for the machine's end, where no systemd says which one it is
    #[arg(long, num_args = 0..=1, default_missing_value = "true")]
    shutdown_on_sigterm: Option<bool>,
    /// File or folder (*.json, *.yaml, *.yml) of CredentialProviderConfig: programs that know
    /// credentials of registries
    #[arg(long)]
    image_credential_provider_config: Option<PathBuf>,
    /// Folder of these programs
    #[arg(long)]
    image_credential_provider_bin_dir: Option<PathBuf>,
    /// Ended containers that stay on the node; below zero: all [default: -1]
    #[arg(long, allow_hyphen_values = true)]
    maximum_dead_containers: Option<i32>,
    /// Ended containers that stay beside the newest of a name; below zero: all [default: 1]
    #[arg(long, allow_hyphen_values = true)]
    maximum_dead_containers_per_container: Option<i32>,
    /// An ended container stays at least so long, such as 10s [default: 0s]
    #[arg(long, allow_hyphen_values = true)]
    minimum_container_ttl_duration: Option<String>,
    /// Those that stand for a field of the KubeletConfiguration.
    #[arg(skip)]
    #[serde(skip)]
    fields: Vec<(String, String)>,
}

impl NodeArgs {
    /// From `name=value` entries, with or without dashes before.
    pub(crate) fn of_words(words: &[String]) -> Result<NodeArgs> {
        let (mut fields, mut own) = (Vec::new(), Vec::new());
        for word in words {
            let word = word.trim_start_matches("--");
            let (name, value) = word.split_once('=').unwrap_or((word, ""));
            match node_config::is_flag(name) {
                true => fields.push((name.to_owned(), value.to_owned())),
                false => own.push(format!("--{word}")),
            }
        }
        let own = NodeArgs::try_parse_from(own).context("kubelet-arg")?;
        Ok(NodeArgs { fields, ..own })
    }

    /// What is set of the KubeletConfiguration.
    pub(crate) fn fields(&self) -> &[(String, String)] {
        &self.fields
    }

    /// The folder of sockets for plugins; `root` is the kubelet's folder.
    pub(crate) fn sockets<'a>(&'a self, root: &'a Path) -> &'a Path {
        self.plugin_sockets_dir.as_deref().unwrap_or(root)
    }

    /// Where the node's certificates are kept, if not as usual.
    pub(crate) fn cert_dir(&self) -> Option<&Path> {
        self.cert_dir.as_deref()
    }

    /// What is watched to find what is wrong with the machine; reads the files it names.
    pub(crate) fn problems(&self) -> Result<ProblemConfig> {
        let mut config = ProblemConfig::default();
        if self.node_problem_detector == Some(false) {
            config.monitors.clear();
        }
        let files = self
            .node_problem_monitors
            .iter()
            .flat_map(|list| list.split(','));
        for file in files.map(str::trim).filter(|file| !file.is_empty()) {
            let text = std::fs::read_to_string(file).with_context(|| file.to_owned())?;
            let monitor = ProblemMonitor::read(&text).with_context(|| file.to_owned())?;
            config.monitors.push(monitor);
        }
        Ok(config)
    }

    /// Who is asked for credentials of images; reads the files it names. `tokens` says whether they may
    /// be told tokens of service accounts.
    pub(crate) fn credential_providers(&self, tokens: bool) -> Result<Option<CredentialProviders>> {
        let config = self.image_credential_provider_config.as_deref();
        let folder = self.image_credential_provider_bin_dir.clone();
        if config.is_none() && folder.is_none() {
            return Ok(None);
        }
        let config = config.context(
            "credential provider config path is empty: set image-credential-provider-config",
        )?;
        let read = |path: PathBuf| {
            let text = std::fs::read_to_string(&path);
            let text = text.with_context(|| format!("unable to read file {path:?}"))?;
            Ok(Source { path, text })
        };
        let files: Result<Vec<Source>> = files_of(config)?.into_iter().map(read).collect();
        let providers = CredentialProvider::read(&files?, tokens).map_err(anyhow::Error::msg)?;
        Ok(Some(CredentialProviders {
            folder: folder.context(
                "plugin binary directory is not named: set image-credential-provider-bin-dir",
            )?,
            providers,
        }))
    }

    /// Which ended containers stay.
    pub(crate) fn dead_containers(&self) -> Result<DeadContainers> {
        let most = |number: i32| usize::try_from(number).ok();
        let age = self
            .minimum_container_ttl_duration
            .as_deref()
            .unwrap_or("0");
        let age = GoDuration::parse(age).map_err(anyhow::Error::msg);
        let age = age.context("minimum-container-ttl-duration")?;
        if age.nanos < 0 {
            bail!("invalid minimum garbage collection age: {age}");
        }
        Ok(DeadContainers {
            per_container_max: most(self.maximum_dead_containers_per_container.unwrap_or(1)),
            in_all_max: most(self.maximum_dead_containers.unwrap_or(-1)),
            age_min: age.time(),
        })
    }

    /// Whether every SIGTERM is the machine's end.
    pub(crate) fn ends_with_sigterm(&self) -> bool {
        self.shutdown_on_sigterm == Some(true)
    }
}

/// A file itself, or the files of a folder in their order.
fn files_of(path: &Path) -> Result<Vec<PathBuf>> {
    let found = std::fs::metadata(path);
    if !found
        .with_context(|| format!("unable to access path {path:?}"))?
        .is_dir()
    {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    let entries = std::fs::read_dir(path);
    for entry in entries.with_context(|| format!("unable to read directory {path:?}"))? {
        let file = entry?.path();
        let ending = file.extension().and_then(OsStr::to_str);
        if matches!(ending, Some("json" | "yaml" | "yml")) && !file.is_dir() {
            files.push(file);
        }
    }
    files.sort();
    match files.is_empty() {
        true => bail!("no configuration files found in directory {path:?}"),
        false => Ok(files),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_upstreams_or_ours() {
        let words = ["--max-pods=5", "plugin-sockets-dir=/p", "seccomp-default"];
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        let args = NodeArgs::of_words(&words).unwrap();
        assert_eq!(args.sockets(Path::new("/root")), Path::new("/p"));
        let fields = args.fields().iter();
        let fields: Vec<_> = fields.map(|(n, v)| (n.as_str(), v.as_str())).collect();
        assert_eq!(fields[0], ("max-pods", "5"));
        assert!(NodeArgs::of_words(&["no-such-flag=1".to_owned()]).is_err());
    }

    #[test]
    fn ended_containers_stay_as_told() {
        let read = |words: &[&str]| {
            let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
            NodeArgs::of_words(&words)?.dead_containers()
        };
        assert_eq!(read(&[]).unwrap(), DeadContainers::default());
        let told = read(&[
            "maximum-dead-containers=40",
            "maximum-dead-containers-per-container=-1",
            "minimum-container-ttl-duration=1m30s",
        ]);
        let expected = DeadContainers {
            per_container_max: None,
            in_all_max: Some(40),
            age_min: std::time::Duration::from_secs(90),
        };
        assert_eq!(told.unwrap(), expected);
        for bad in ["soon", "-1s"] {
            let word = format!("minimum-container-ttl-duration={bad}");
            assert!(read(&[&word]).is_err(), "{bad}");
        }
    }

    #[test]
    fn providers_are_read_from_a_folder_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let read = |words: &[String]| {
            let args = NodeArgs::of_words(words)?;
            args.credential_providers(true)
        };
        let path = folder.path();
        let config = format!("image-credential-provider-config={}", path.display());
        let programs = "image-credential-provider-bin-dir=/bin".to_owned();
        let both = [config, programs.clone()];
        assert_eq!(read(&[]).unwrap(), None);
        let fault = read(&[programs]).unwrap_err().to_string();
        assert!(
            fault.starts_with("credential provider config path is empty"),
            "{fault}"
        );
        let fault = read(&both).unwrap_err().to_string();
        assert!(
            fault.starts_with("no configuration files found in directory"),
            "{fault}"
        );
        for (file, name) in [("b.yml", "second"), ("a.json", "first"), ("c.txt", "third")] {
            let text = format!(
                r#"{{"apiVersion": "kubelet.config.k8s.io/v1", "kind": "CredentialProviderConfig",
                "providers": [{{"name": "{name}", "matchImages": ["a.io"],
                "defaultCacheDuration": "0s",
                "apiVersion": "credentialprovider.kubelet.k8s.io/v1"}}]}}"#
            );
            std::fs::write(path.join(file), text).unwrap();
        }
        let all = read(&both).unwrap().unwrap();
        let names: Vec<_> = all.providers.iter().map(|one| one.name.as_str()).collect();
        assert_eq!(names, ["first", "second"]);
        assert_eq!(all.folder, Path::new("/bin"));
    }
}
