//! The node's KubeletConfiguration: which files it is read from, and what of it is said elsewhere.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use node_config::{Configuration, Layers, Source};
use serde_json::{Map, Value, json};

use super::{Role, ServerArgs};
use crate::node_flags::NodeArgs;
use crate::node_settings;

/// How deep folders of drop-ins may lie in each other.
const DEPTH_MAX: usize = 8;
/// Most drop-ins.
const DROPINS_MAX: usize = 1_000;

/// Reads everything that says how the kubelet is to be.
pub(super) fn configuration(
    args: &ServerArgs,
    flags: &NodeArgs,
    role: Role,
    data_dir: &Path,
) -> Result<Configuration> {
    let has_kubelet = matches!(role, Role::All | Role::Kubelet);
    let mut layers = Layers {
        own: own(data_dir),
        given: given(args, role),
        flags: flags.fields().to_vec(),
        ..Layers::default()
    };
    if let Some(path) = args.kubelet_config.as_ref().filter(|_| has_kubelet) {
        let path = std::path::absolute(path)?;
        let text = std::fs::read_to_string(&path).with_context(|| {
            format!(
                "failed to load kubelet config file, path: {}",
                path.display()
            )
        })?;
        layers.file = Some(Source { path, text });
    }
    if let Some(folder) = args.kubelet_config_dir.as_ref().filter(|_| has_kubelet) {
        let mut found = Vec::new();
        walk(folder, DEPTH_MAX, &mut found).with_context(|| {
            format!(
                "failed to merge kubelet configs: failed to walk through kubelet dropin directory \
                 {folder:?}"
            )
        })?;
        layers.dropins = found;
    }
    let configuration = Configuration::read(&layers)?;
    node_settings::check(configuration.settings())?;
    Ok(configuration)
}

/// What holds here where upstream has another default.
fn own(data_dir: &Path) -> Value {
    json!({
        "staticPodPath": data_dir.join("manifests"),
        // Our own engine, in this process.
        "containerRuntimeEndpoint": "",
        "podLogsDir": data_dir.join("logs/pods"),
        "clusterDNS": [super::CLUSTER_DNS.to_string()],
        "clusterDomain": super::CLUSTER_DOMAIN,
        "serializeImagePulls": false,
        "maxParallelImagePulls": 4,
        "failSwapOn": false,
        "failCgroupV1": false,
        "healthzPort": 0,
        "oomScoreAdj": 0,
        // A developer's disk is often fuller than a server's.
        "evictionHard": {
            "memory.available": "100Mi",
            "nodefs.available": "5%",
            "nodefs.inodesFree": "5%",
            "imagefs.available": "5%",
            "imagefs.inodesFree": "5%",
        },
    })
}

/// What flags of the server say already.
fn given(args: &ServerArgs, role: Role) -> Value {
    let mut all = Map::new();
    let mut set = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            all.insert(name.to_owned(), value);
        }
    };
    set("maxPods", args.max_pods.map(Value::from));
    let text = |text: &Option<String>| text.clone().map(Value::from);
    set(
        "containerRuntimeEndpoint",
        text(&args.container_runtime_endpoint),
    );
    set("imageServiceEndpoint", text(&args.image_service_endpoint));
    set("port", args.kubelet_port.map(Value::from));
    set("clusterDNS", args.cluster_dns.map(|ip| json!([ip])));
    set(
        "clusterDomain",
        args.cluster_domain.clone().map(Value::from),
    );
    let path = |path: &Option<PathBuf>| path.as_ref().map(|path| json!(path));
    set("resolvConf", path(&args.resolv_conf));
    set("staticPodPath", path(&args.pod_manifest_path));
    // Elsewhere these are the API server's.
    if role == Role::Kubelet {
        set("tlsCertFile", path(&args.tls_cert_file));
        set("tlsPrivateKeyFile", path(&args.tls_private_key_file));
        let authority = path(&args.client_ca_file);
        set(
            "authentication",
            authority.map(|path| json!({"x509": {"clientCAFile": path}})),
        );
    }
    Value::Object(all)
}

/// Finds the drop-ins of a folder and of those in it, in the order of their names.
fn walk(folder: &Path, depth: usize, found: &mut Vec<Source>) -> Result<()> {
    let entries = std::fs::read_dir(folder)?;
    let mut paths: Vec<PathBuf> = entries
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<std::io::Result<_>>()?;
    paths.sort();
    for path in paths {
        if path.is_dir() {
            if depth == 0 {
                bail!("{}: folders lie too deep", path.display());
            }
            walk(&path, depth - 1, found)?;
        } else if path.extension().is_some_and(|end| end == "conf") {
            if found.len() == DROPINS_MAX {
                bail!("more than {DROPINS_MAX} files");
            }
            let text =
                std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
            found.push(Source { path, text });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_read_in_order_and_flags_win() {
        let folder = tempfile::tempdir().unwrap();
        let head = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n";
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, format!("{head}{text}")).unwrap();
        };
        write(
            "kubelet.yaml",
            "maxPods: 10\npodsPerCore: 1\nstaticPodPath: pods\n",
        );
        write("d/20.conf", "podsPerCore: 3\nport: 10300\n");
        write("d/10.conf", "podsPerCore: 2\nmaxPods: 20\n");
        write("d/15/late.conf", "maxPods: 25\n");
        write("d/30.yaml", "maxPods: 99\n");
        let args = ServerArgs {
            kubelet_config: Some(folder.path().join("kubelet.yaml")),
            kubelet_config_dir: Some(folder.path().join("d")),
            kubelet_port: Some(10_400),
            kubelet_arg: vec!["seccomp-default=true".into()],
            ..ServerArgs::default()
        };
        let config = args.fill().unwrap();
        let settings = config.kubelet.settings();
        assert_eq!((settings.max_pods, settings.pods_per_core), (25, 3));
        assert_eq!(settings.port, 10_400);
        assert!(settings.seccomp_default);
        let pods = folder.path().join("pods").display().to_string();
        assert_eq!(settings.static_pod_path, pods);
        assert_eq!(settings.max_parallel_image_pulls, Some(4));
        write("d/40.conf", "topologyManagerPolicy: best\n");
        let args = ServerArgs {
            kubelet_config_dir: Some(folder.path().join("d")),
            ..ServerArgs::default()
        };
        let fault = args.fill().unwrap_err().to_string();
        assert!(
            fault.contains("topologyManagerPolicy (--topology"),
            "{fault}"
        );
    }
}
