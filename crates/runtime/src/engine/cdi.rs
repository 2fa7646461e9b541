//! Container Device Interface: files of the machine that say what a named device brings along.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use node_api::{ContainerConfig, Device, Mount, MountPropagation, RuntimeError};
use serde::Deserialize;

use crate::hooks::{Hook, Hooks, Moment};

/// Where the files are; what is named later wins.
const FOLDERS: [&str; 2] = ["/etc/cdi", "/var/run/cdi"];
/// Bytes of one file.
const FILE_BYTES_MAX: u64 = 4 << 20;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    /// `vendor.com/class`.
    kind: String,
    #[serde(default)]
    devices: Vec<Named>,
    #[serde(default)]
    container_edits: Edits,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Named {
    name: String,
    #[serde(default)]
    container_edits: Edits,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Edits {
    env: Vec<String>,
    device_nodes: Vec<Node>,
    mounts: Vec<Bind>,
    hooks: Vec<Hooked>,
    #[serde(rename = "additionalGids")]
    additional_gids: Vec<i64>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Node {
    path: PathBuf,
    host_path: Option<PathBuf>,
    permissions: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Hooked {
    hook_name: Moment,
    path: PathBuf,
    #[serde(default)]
    args: Vec<String>,
    #[serde(default)]
    env: Vec<String>,
    timeout: Option<u64>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Bind {
    host_path: PathBuf,
    container_path: PathBuf,
    #[serde(default)]
    options: Vec<String>,
}

/// Gives a container what its devices bring along, but for their hooks, which are returned. Reads
/// files.
pub(super) fn inject(config: &mut ContainerConfig) -> Result<Hooks, RuntimeError> {
    inject_of(config, &FOLDERS.map(Path::new))
}

/// Kinds of devices that this machine has files for, such as `vendor.com/class`.
pub fn kinds() -> Vec<String> {
    let specs = read(&FOLDERS.map(Path::new));
    specs.into_iter().flatten().map(|spec| spec.kind).collect()
}

fn inject_of(config: &mut ContainerConfig, folders: &[&Path]) -> Result<Hooks, RuntimeError> {
    let mut hooks = Hooks::default();
    if config.cdi_devices.is_empty() {
        return Ok(hooks);
    }
    let fault = |words: String| {
        let message = format!("CDI device injection failed: {words}");
        RuntimeError::InvalidArgument(message)
    };
    let specs = read(folders);
    let mut edits = Vec::new();
    let mut unknown = Vec::new();
    let mut kinds = Vec::new();
    for name in &config.cdi_devices {
        match find(&specs, name) {
            Some((spec, device)) => {
                // What all devices of a kind need comes once, and first.
                if !kinds.contains(&&spec.kind) {
                    kinds.push(&spec.kind);
                    edits.push(spec.container_edits.clone());
                }
                edits.push(device.container_edits.clone());
            }
            None => unknown.push(name.as_str()),
        }
    }
    if !unknown.is_empty() {
        return Err(fault(format!(
            "unresolvable CDI devices {}",
            unknown.join(", ")
        )));
    }
    for mut edit in edits {
        for hook in std::mem::take(&mut edit.hooks) {
            hook.give(&mut hooks);
        }
        edit.apply(config);
    }
    Ok(hooks)
}

/// The files by folder. One that cannot be read has no devices, as if it were not there.
fn read(folders: &[&Path]) -> Vec<Vec<Spec>> {
    let in_folder = |folder: &&Path| {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
        paths.sort();
        paths.iter().filter_map(|path| parse(path)).collect()
    };
    folders.iter().map(in_folder).collect()
}

fn parse(path: &Path) -> Option<Spec> {
    let extension = path.extension()?.to_str()?;
    if !matches!(extension, "json" | "yaml" | "yml") {
        return None;
    }
    let size = std::fs::metadata(path).ok()?.len();
    let text = (size <= FILE_BYTES_MAX).then(|| std::fs::read_to_string(path))?;
    let tree = text
        .map_err(|error| error.to_string())
        .and_then(|text| super::yaml(&text));
    let read =
        tree.and_then(|tree| serde_json::from_value(tree).map_err(|error| error.to_string()));
    match read {
        Ok(spec) => Some(spec),
        Err(error) => {
            tracing::warn!(error, path = %path.display(), "CDI specification not read");
            None
        }
    }
}

/// A device by its whole name, `vendor.com/class=name`. Two of one folder with the same name are none.
fn find<'s>(specs: &'s [Vec<Spec>], name: &str) -> Option<(&'s Spec, &'s Named)> {
    let (kind, device) = name.split_once('=')?;
    for folder in specs.iter().rev() {
        let of_kind = folder.iter().filter(|spec| spec.kind == kind);
        let mut found = of_kind.flat_map(|spec| {
            let named = spec.devices.iter().filter(|one| one.name == device);
            named.map(move |one| (spec, one))
        });
        match (found.next(), found.next()) {
            (Some(only), None) => return Some(only),
            (Some(_), Some(_)) => return None,
            (None, _) => {}
        }
    }
    None
}

impl Edits {
    fn apply(self, config: &mut ContainerConfig) {
        let given: BTreeMap<String, String> = self
            .env
            .iter()
            .filter_map(|pair| pair.split_once('='))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        config.envs.retain(|(name, _)| !given.contains_key(name));
        config.envs.extend(given);
        let devices = self.device_nodes.into_iter().map(|node| Device {
            host_path: node.host_path.unwrap_or_else(|| node.path.clone()),
            container_path: node.path,
            permissions: node.permissions.unwrap_or_else(|| "rwm".to_owned()),
        });
        config.devices.extend(devices);
        config
            .mounts
            .extend(self.mounts.into_iter().map(Bind::mount));
        config
            .security
            .supplemental_groups
            .extend(self.additional_gids.into_iter().filter(|gid| *gid != 0));
    }
}

impl Hooked {
    fn give(self, hooks: &mut Hooks) {
        let hook = Hook {
            path: self.path,
            args: self.args,
            env: self.env,
            timeout: self.timeout,
        };
        hooks.add(self.hook_name, hook);
    }
}

/// How a mount with options as `mount` takes them shares its events.
pub fn propagation(options: &[String]) -> MountPropagation {
    let has = |words: [&str; 2]| {
        options
            .iter()
            .any(|option| words.contains(&option.as_str()))
    };
    if has(["rshared", "shared"]) {
        MountPropagation::Bidirectional
    } else if has(["rslave", "slave"]) {
        MountPropagation::HostToContainer
    } else {
        MountPropagation::Private
    }
}

impl Bind {
    fn mount(self) -> Mount {
        let has = |word: &str| self.options.iter().any(|option| option == word);
        Mount {
            readonly: has("ro"),
            propagation: propagation(&self.options),
            host_path: self.host_path,
            container_path: self.container_path,
            ..Mount::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CARDS: &str = "cdiVersion: 0.6.0\nkind: vendor.com/card\ncontainerEdits:\n  env: [ALL=1]\n\
        devices:\n- name: one\n  containerEdits:\n    env: [CARD=one]\n    \
        deviceNodes: [{path: /dev/card, hostPath: /dev/null, permissions: rw}]\n    \
        mounts: [{hostPath: /lib, containerPath: /card, options: [ro, bind]}]\n    \
        additionalGids: [0, 44]\n- name: hooked\n  containerEdits:\n    \
        hooks: [{hookName: createContainer, path: /bin/true, args: [\"true\", now], timeout: 5}]\n";

    fn with(devices: &[&str], folders: &[&Path]) -> Result<(ContainerConfig, Hooks), String> {
        let mut config = ContainerConfig {
            cdi_devices: devices.iter().map(|name| (*name).to_owned()).collect(),
            envs: vec![("CARD".to_owned(), "none".to_owned())],
            ..ContainerConfig::default()
        };
        let hooks = inject_of(&mut config, folders).map_err(|fault| fault.to_string())?;
        Ok((config, hooks))
    }

    #[test]
    fn devices_bring_along_what_files_say() {
        let (usual, newer) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let folders = [usual.path(), newer.path()];
        std::fs::write(usual.path().join("cards.yaml"), CARDS).unwrap();
        std::fs::write(usual.path().join("broken.json"), "{").unwrap();
        let (config, hooks) = with(&["vendor.com/card=one"], &folders).unwrap();
        assert_eq!(hooks, Hooks::default());
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(config.envs, [pair("ALL", "1"), pair("CARD", "one")]);
        assert_eq!(config.devices[0].host_path, Path::new("/dev/null"));
        assert_eq!(config.devices[0].permissions, "rw");
        assert!(config.mounts[0].readonly);
        assert_eq!(config.security.supplemental_groups, [44]);
        let fault = with(&["vendor.com/card=two", "x"], &folders).unwrap_err();
        let expected =
            "CDI device injection failed: unresolvable CDI devices vendor.com/card=two, x";
        assert_eq!(fault, expected);
        let (_, hooks) = with(&["vendor.com/card=hooked"], &folders).unwrap();
        let mut expected = Hooks::default();
        let hook = Hook {
            path: "/bin/true".into(),
            args: ["true", "now"].map(str::to_owned).to_vec(),
            timeout: Some(5),
            ..Hook::default()
        };
        expected.add(Moment::CreateContainer, hook);
        assert_eq!(hooks, expected);
        // The newer folder wins.
        let other = CARDS.replace("/dev/null", "/dev/zero");
        std::fs::write(newer.path().join("cards.yml"), &other).unwrap();
        let (config, _) = with(&["vendor.com/card=one"], &folders).unwrap();
        assert_eq!(config.devices[0].host_path, Path::new("/dev/zero"));
        std::fs::write(newer.path().join("same.yml"), other).unwrap();
        assert!(with(&["vendor.com/card=one"], &folders).is_err());
    }
}
