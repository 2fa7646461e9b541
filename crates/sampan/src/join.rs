//! How a kubelet comes to its certificates: as a client by a bootstrap token first and by rotation
//! then, as a server from files, from the cluster, or from itself.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use auth::certificate::{Authority, Pair, Subject, Usage, facts, new_key};
use auth::tls::ServingCertificates;
use base::Crew;
use client::Client;
use enroll::{Bootstrap, CLIENT, PairStore, Rotation, SERVING, Swap, Template};
use jiff::Timestamp;

use crate::certificates;
use crate::config::Config;
use crate::files::text;

/// Where the node's certificates are kept.
fn folder(config: &Config) -> PathBuf {
    let usual = config.data_dir.join("kubelet/pki");
    config.kubelet_arg.cert_dir().map_or(usual, Path::to_owned)
}

/// The kubelet's client of an API server elsewhere; asks to be let in if it has no credentials.
pub(crate) async fn client(config: &Config, crew: &Crew) -> Result<Client> {
    let kubeconfig = config.kubeconfig.clone();
    let kubeconfig = kubeconfig.context("--kubeconfig is needed")?;
    let folder = folder(config);
    if let Some(file) = &config.bootstrap_kubeconfig {
        let bootstrap = Bootstrap {
            node_name: config.node_name.clone(),
            bootstrap: file.clone(),
            kubeconfig: kubeconfig.clone(),
            folder: folder.clone(),
        };
        let stop = crew.stop();
        tokio::select! {
            got = bootstrap.run() => got.context("bootstrap")?,
            () = stop.raised() => bail!("stopped before the node was let in"),
        }
    }
    let access = client::kubeconfig::load(&kubeconfig, None)?;
    if !config.kubelet.settings().rotate_certificates {
        return Ok(Client::remote(&access)?);
    }
    let store = PairStore::open(&folder, "kubelet-client")?;
    let current = store.current()?.filter(is_valid);
    let first = match &current {
        Some(pair) => enroll::access_of(&access, pair),
        None => access.clone(),
    };
    let (client, swap) = Swap::new(&Client::remote(&first)?);
    let rotation = Rotation {
        client: client.clone(),
        signing: CLIENT,
        template: Template::of_node(&config.node_name, BTreeSet::new()),
        store,
        used: Box::new(move |pair| {
            swap.set(&Client::remote(&enroll::access_of(&access, pair))?);
            Ok(())
        }),
    };
    crew.spawn("client certificate", rotation.run(current, crew.stop()));
    Ok(client)
}

fn is_valid(pair: &Pair) -> bool {
    let end = facts(&pair.cert_pem).map_or(0, |facts| facts.not_after);
    end > Timestamp::now().as_second()
}

/// What the kubelet's server shows, where nobody of this process signs for it: what files say, what
/// the cluster signs (`serverTLSBootstrap`), or what it signs itself.
pub(crate) fn shown(
    config: &Config,
    client: &Client,
    node_ip: IpAddr,
    crew: &Crew,
) -> Result<Arc<ServingCertificates>> {
    let settings = config.kubelet.settings();
    if !settings.tls_cert_file.is_empty() {
        return certificates::of_files(settings, crew);
    }
    let hosts = BTreeSet::from([node_ip.to_string(), config.node_name.clone()]);
    let folder = folder(config);
    if !settings.server_tls_bootstrap {
        let own = self_signed(&folder, &config.node_name, hosts)?;
        return Ok(Arc::new(ServingCertificates::new(&own)?));
    }
    let store = PairStore::open(&folder, "kubelet-server")?;
    let current = store.current()?.filter(is_valid);
    let first = match &current {
        Some(pair) => pair.clone(),
        // Nobody who verifies it will speak to us before the request is approved.
        None => self_signed(&folder, &config.node_name, hosts.clone())?,
    };
    let shown = Arc::new(ServingCertificates::new(&first)?);
    let own = Arc::clone(&shown);
    let rotation = Rotation {
        client: client.clone(),
        signing: SERVING,
        template: Template::of_node(&config.node_name, hosts),
        store,
        used: Box::new(move |pair| {
            let set = own.set(pair, &[]);
            set.map_err(|error| enroll::Error::Pair(error.to_string()))
        }),
    };
    crew.spawn("serving certificate", rotation.run(current, crew.stop()));
    Ok(shown)
}

/// `kubelet.crt` and `kubelet.key`, made if they are missing.
fn self_signed(folder: &Path, name: &str, hosts: BTreeSet<String>) -> Result<Pair> {
    let (cert, key) = (folder.join("kubelet.crt"), folder.join("kubelet.key"));
    if cert.exists() && key.exists() {
        let pair = Pair {
            cert_pem: text(&cert)?,
            key_pem: text(&key)?,
        };
        if is_valid(&pair) {
            return Ok(pair);
        }
    }
    let authority = Authority::create(&format!("{name}-ca"), &new_key()?)?;
    let mut pair = authority.issue(&Subject {
        common_name: name,
        organizations: &[],
        hosts,
        usage: Usage::Server,
    })?;
    pair.cert_pem.push_str(authority.cert_pem());
    std::fs::create_dir_all(folder)?;
    base::files::write_atomic(&key, pair.key_pem.as_bytes(), 0o600)?;
    base::files::write_atomic(&cert, pair.cert_pem.as_bytes(), 0o644)?;
    Ok(pair)
}
