//! Networks, made by users or always there, and the containers on them.

mod addresses;
mod attach;
mod dns;
mod options;
mod plan;
mod ports;
mod requests;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use base::Ipv4Cidr;
use network::user::{Segment, UserNetworks};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::task::AbortHandle;

use crate::answer::Fault;
use crate::record::now;
use crate::wire::Labels;

pub(crate) use ports::check as check_ports;
pub(crate) use requests::{connect, create, disconnect, inspect, list, prune, remove};

/// Names that no user's network may have.
pub(crate) const BUILT_IN: [&str; 3] = ["bridge", "host", "none"];
/// The bridge of containers that ask for no network.
const DEFAULT_BRIDGE: &str = "sdocker0";
/// Where new networks get their addresses, when nothing is said.
const POOLS: usize = 15 + 16;
/// Networks there may be: their rules are looked at for every packet that is forwarded.
const NETWORKS_MAX: usize = 256;

/// What is remembered of a network.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Network {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) created: i64,
    /// `bridge`, `macvlan`, `ipvlan`, `overlay`, `host` or `null`.
    pub(crate) driver: String,
    pub(crate) internal: bool,
    pub(crate) attachable: bool,
    pub(crate) subnet: String,
    pub(crate) gateway: String,
    pub(crate) options: Labels,
    pub(crate) labels: Labels,
    /// The machine's interface: the bridge, or the parent.
    pub(crate) interface: String,
    /// Whether that was there before, and so stays.
    pub(crate) found: bool,
    /// Where containers' addresses come from, when not from the whole subnet.
    pub(crate) ip_range: String,
    /// Addresses that are others', by names that nobody reads.
    pub(crate) aux: Labels,
    pub(crate) enable_ipv6: bool,
    pub(crate) subnet6: String,
    pub(crate) gateway6: String,
    pub(crate) ip_range6: String,
}

impl Network {
    pub(crate) fn is_built_in(&self) -> bool {
        BUILT_IN.contains(&self.name.as_str())
    }

    /// What is no network of ours has what the machine has.
    fn has_ipv4(&self) -> bool {
        !self.subnet.is_empty() || self.subnet6.is_empty()
    }
}

/// All networks; each is a file.
pub(crate) struct Networks {
    folder: PathBuf,
    known: Mutex<BTreeMap<String, Network>>,
    pub(crate) links: UserNetworks,
    /// One change of addresses, ports and rules at a time.
    pub(crate) change: tokio::sync::Mutex<()>,
    /// The name servers of containers, by their ids.
    resolvers: Mutex<BTreeMap<String, AbortHandle>>,
}

impl Networks {
    pub(crate) async fn open(folder: &Path) -> Result<Networks, Fault> {
        std::fs::create_dir_all(folder)?;
        let mut known = BTreeMap::new();
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            if path.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            let network: Network =
                serde_json::from_slice(&std::fs::read(&path)?).map_err(Fault::internal)?;
            known.insert(network.id.clone(), network);
        }
        let networks = Networks {
            folder: folder.to_owned(),
            known: Mutex::new(known),
            links: UserNetworks::open().map_err(Fault::internal)?,
            change: Default::default(),
            resolvers: Mutex::default(),
        };
        for (name, driver) in [("bridge", "bridge"), ("host", "host"), ("none", "null")] {
            if networks.named(name).is_none() {
                let mut network = Network {
                    id: crate::names::fresh_id(),
                    name: name.to_owned(),
                    created: now(),
                    driver: driver.to_owned(),
                    ..Network::default()
                };
                if name == "bridge" {
                    let subnet = networks.free_subnet().await?;
                    network.interface = DEFAULT_BRIDGE.to_owned();
                    network.gateway = first(subnet).to_string();
                    network.subnet = subnet.to_string();
                }
                networks.add(network)?;
            }
        }
        Ok(networks)
    }

    /// What the machine and its packet filter have to know; what cannot be is left out.
    pub(crate) fn segments(&self) -> Vec<Segment> {
        let segment = |network: &Network| match network.segment() {
            Ok(segment) => segment,
            Err(fault) => {
                tracing::warn!(%fault, network = network.name, "a network is left out");
                None
            }
        };
        self.all().iter().filter_map(segment).collect()
    }

    pub(crate) fn all(&self) -> Vec<Network> {
        self.known.lock().values().cloned().collect()
    }

    pub(crate) fn named(&self, name: &str) -> Option<Network> {
        let known = self.known.lock();
        known.values().find(|network| network.name == name).cloned()
    }

    /// The network of this name, id or beginning of an id.
    pub(crate) fn find(&self, wish: &str) -> Result<Network, Fault> {
        if let Some(found) = self.named(wish) {
            return Ok(found);
        }
        let known = self.known.lock();
        let mut fits = known
            .range(wish.to_owned()..)
            .take_while(|(id, _)| !wish.is_empty() && id.starts_with(wish));
        match (fits.next(), fits.next()) {
            (Some((_, found)), None) => Ok(found.clone()),
            _ => Err(Fault::missing(format!("network {wish} not found"))),
        }
    }

    fn add(&self, network: Network) -> Result<(), Fault> {
        let path = self.folder.join(format!("{}.json", network.id));
        let bytes = serde_json::to_vec(&network).map_err(Fault::internal)?;
        base::files::write_atomic(&path, &bytes, 0o600)?;
        self.known.lock().insert(network.id.clone(), network);
        Ok(())
    }

    fn forget(&self, id: &str) -> Result<(), Fault> {
        std::fs::remove_file(self.folder.join(format!("{id}.json")))?;
        self.known.lock().remove(id);
        Ok(())
    }

    /// Takes away what was made for a network on the machine.
    async fn dismantle(&self, network: &Network) -> Result<(), Fault> {
        match network.found || network.interface.is_empty() {
            true => Ok(()),
            false => {
                let removed = self.links.remove(&network.interface).await;
                removed.map_err(Fault::internal)
            }
        }
    }

    /// Addresses that nobody here uses.
    async fn free_subnet(&self) -> Result<Ipv4Cidr, Fault> {
        let mut taken: Vec<Ipv4Cidr> = self
            .all()
            .iter()
            .filter_map(|network| network.subnet.parse().ok())
            .collect();
        let routed = network::user::routed_networks().await;
        taken.extend(routed.map_err(Fault::internal)?);
        let pool = |index: usize| match u8::try_from(index) {
            Ok(index @ ..15) => Ipv4Cidr::new(Ipv4Addr::new(172, 17 + index, 0, 0), 16),
            Ok(index) => Ipv4Cidr::new(Ipv4Addr::new(192, 168, (index - 15) * 16, 0), 20),
            Err(_) => Ipv4Cidr::new(Ipv4Addr::UNSPECIFIED, 32),
        };
        let free = |wish: &Ipv4Cidr| !taken.iter().any(|other| overlap(*wish, *other));
        (0..POOLS).map(pool).find(free).ok_or_else(|| {
            Fault::internal("could not find an available, non-overlapping IPv4 address pool among the defaults to assign to the network")
        })
    }
}

/// The first address that something may have.
fn first(subnet: Ipv4Cidr) -> Ipv4Addr {
    subnet.nth(1).unwrap_or(subnet.address())
}

fn overlap(a: Ipv4Cidr, b: Ipv4Cidr) -> bool {
    a.contains(b.address()) || b.contains(a.address())
}
