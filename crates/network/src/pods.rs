//! Attaching pods to the bridge and detaching them.

use std::net::IpAddr;
use std::os::fd::AsRawFd;

use async_trait::async_trait;
use node_api::{PodNetwork, PodNetworkConfig, PodNetworkResult, RuntimeError};
use parking_lot::Mutex;

use crate::addresses::{Addresses, Allocation};
use crate::firewall::Firewall;
use crate::links::{self, Connection, Pair};
use crate::{Config, Error, namespace, sysctl};

/// The pod network of this node.
pub(crate) struct Pods {
    config: Config,
    bridge: u32,
    addresses: Mutex<Addresses>,
    firewall: Firewall,
}

impl Pods {
    pub(crate) async fn open(config: Config) -> Result<Pods, Error> {
        let addresses = Addresses::open(&config.state_dir, config.pod_cidr)?;
        // The guards stand before the bridge routes anything they guard against.
        let firewall = Firewall::open(&config, addresses.all())?;
        let connection = Connection::open()?;
        let bridge = connection.run(|handle| prepare(handle, &config)).await?;
        prepare_settings(&config)?;
        let addresses = Mutex::new(addresses);
        Ok(Pods {
            config,
            bridge,
            addresses,
            firewall,
        })
    }

    async fn attach(&self, config: &PodNetworkConfig) -> Result<PodNetworkResult, Error> {
        let host_interface = host_interface(&config.sandbox_id);
        let allocation = self.addresses.lock().allocate(config, host_interface)?;
        let attached = self.connect(&allocation).await;
        let attached = attached.and_then(|()| match allocation.port_mappings.is_empty() {
            true => Ok(()),
            false => self.firewall.open_ports(&allocation),
        });
        if let Err(error) = attached {
            if let Err(second) = self.detach(&config.sandbox_id).await {
                tracing::warn!(%second, "clean-up after a failed attachment failed");
            }
            return Err(error);
        }
        Ok(PodNetworkResult {
            ips: vec![IpAddr::V4(allocation.address)],
            host_interface: allocation.host_interface,
        })
    }

    async fn connect(&self, allocation: &Allocation) -> Result<(), Error> {
        let netns = namespace::open(&allocation.netns)?;
        let inside = namespace::inside(netns.clone(), || {
            refuse_redirects()?;
            Connection::open()
        });
        let inside = inside.await?;
        let pair = Pair {
            host_interface: &allocation.host_interface,
            interface: &allocation.interface,
            netns: netns.as_raw_fd(),
            hardware: links::hardware_address(IpAddr::V4(allocation.address)),
            bridge: self.bridge,
            mtu: self.config.mtu,
        };
        let gateway = self.config.gateway();
        let work = |pod: rtnetlink::Handle| async move {
            let mut index = links::find(&pod, pair.interface).await?;
            if index.is_none() {
                let outside = Connection::open()?;
                outside.run(|node| create_afresh(node, &pair)).await?;
                index = links::find(&pod, pair.interface).await?;
            }
            let index = index.ok_or_else(|| Error::NoInterface {
                name: allocation.interface.clone(),
                netns: allocation.netns.clone(),
            })?;
            links::configure_pod(&pod, index, allocation.address, gateway).await
        };
        inside.run(work).await
    }

    async fn detach(&self, sandbox_id: &str) -> Result<(), Error> {
        let allocation = self.addresses.lock().get(sandbox_id).cloned();
        let Some(allocation) = allocation else {
            return Ok(());
        };
        self.firewall.close_ports(&allocation)?;
        let name = allocation.host_interface.clone();
        let connection = Connection::open()?;
        connection
            .run(|handle| async move { links::delete(&handle, &name).await })
            .await?;
        // Last of all: until then the address must not be given to another.
        self.addresses.lock().release(sandbox_id)
    }

    async fn collect(&self, live: &[String]) -> Result<(), Error> {
        let dead: Vec<String> = {
            let addresses = self.addresses.lock();
            let ids = addresses.all().map(|allocation| &allocation.sandbox_id);
            ids.filter(|id| !live.contains(id)).cloned().collect()
        };
        for sandbox_id in dead {
            tracing::info!(sandbox_id, "detaching a sandbox that is gone");
            self.detach(&sandbox_id).await?;
        }
        Ok(())
    }
}

#[async_trait]
impl PodNetwork for Pods {
    async fn add(&self, config: &PodNetworkConfig) -> Result<PodNetworkResult, RuntimeError> {
        Ok(self.attach(config).await?)
    }

    async fn del(&self, sandbox_id: &str) -> Result<(), RuntimeError> {
        Ok(self.detach(sandbox_id).await?)
    }

    async fn gc(&self, live_sandbox_ids: &[String]) -> Result<(), RuntimeError> {
        Ok(self.collect(live_sandbox_ids).await?)
    }
}

/// Bridge and routes.
async fn prepare(handle: rtnetlink::Handle, config: &Config) -> Result<u32, Error> {
    let (gateway, prefix) = (config.gateway(), config.pod_cidr.prefix());
    let address = IpAddr::V4(gateway);
    let bridge = links::ensure_bridge(&handle, &config.bridge, address, config.mtu).await?;
    links::add_address(&handle, bridge, address, prefix).await?;
    links::route_services(&handle, config.service_cidr, bridge, gateway).await?;
    // The node's own range has the bridge's longer prefix.
    if config.cluster_cidr.prefix() < prefix {
        links::block(&handle, config.cluster_cidr).await?;
    }
    Ok(bridge)
}

fn prepare_settings(config: &Config) -> Result<(), Error> {
    sysctl::set("ip_forward", "1")?;
    sysctl::set(&format!("conf/{}/route_localnet", config.bridge), "1")?;
    // Pods reach each other by the gateway on purpose: advice against it would
    // lead them past the services, and uses up their share of ICMP errors. It
    // is given when the interface or "all" says so; other interfaces go on.
    sysctl::set(&format!("conf/{}/send_redirects", config.bridge), "0")?;
    sysctl::set("conf/all/send_redirects", "0")
}

/// A pod whose node answers "go there directly" would bypass the services.
fn refuse_redirects() -> Result<(), Error> {
    for scope in ["all", "default"] {
        let set = sysctl::set(&format!("conf/{scope}/accept_redirects"), "0");
        if let Err(error) = set {
            // The node sends none either; a read-only /proc is no reason to fail.
            tracing::debug!(%error, "redirects stay accepted in a pod");
        }
    }
    Ok(())
}

/// Creates the pair; a near end without its far end is left from a crash.
async fn create_afresh(node: rtnetlink::Handle, pair: &Pair<'_>) -> Result<(), Error> {
    if links::find(&node, pair.host_interface).await?.is_some() {
        links::delete(&node, pair.host_interface).await?;
    }
    links::create_pair(&node, pair).await
}

/// A name that always belongs to the same sandbox (FNV-1a of its id).
fn host_interface(sandbox_id: &str) -> String {
    let hash = sandbox_id
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
    // Interface names have at most 15 characters.
    format!("veth{:011x}", hash >> 20)
}
