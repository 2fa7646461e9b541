//! Which pod has which address: one file per allocation, so that a crash at
//! any moment loses at most the allocation being made.

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use base::Ipv4Cidr;
use node_api::{PodNetworkConfig, PortMapping};
use serde::{Deserialize, Serialize};

use crate::Error;

/// What one pod has been given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Allocation {
    pub(crate) sandbox_id: String,
    pub(crate) address: Ipv4Addr,
    /// The end of the pair that stays with the node.
    pub(crate) host_interface: String,
    pub(crate) interface: String,
    pub(crate) netns: PathBuf,
    pub(crate) pod_namespace: String,
    pub(crate) pod_name: String,
    pub(crate) pod_uid: String,
    pub(crate) port_mappings: Vec<PortMapping>,
}

/// All allocations of this node.
#[derive(Debug)]
pub(crate) struct Addresses {
    folder: PathBuf,
    range: Ipv4Cidr,
    by_sandbox: BTreeMap<String, Allocation>,
    taken: HashSet<Ipv4Addr>,
    /// Where the search starts: an address rests as long as possible before
    /// it is used again.
    next: u32,
}

/// The network's and the gateway's addresses come first.
const FIRST_POD: u32 = 2;

impl Addresses {
    /// Reads what an earlier run has left.
    pub(crate) fn open(folder: &Path, range: Ipv4Cidr) -> Result<Addresses, Error> {
        let doing = |what: &str| Error::io(format!("{what} {}", folder.display()));
        if range.prefix() > 30 {
            return Err(Error::RangeTooSmall(range));
        }
        std::fs::create_dir_all(folder).map_err(doing("create"))?;
        let mut addresses = Addresses {
            folder: folder.to_owned(),
            range,
            by_sandbox: BTreeMap::new(),
            taken: HashSet::new(),
            next: FIRST_POD,
        };
        for entry in std::fs::read_dir(folder).map_err(doing("list"))? {
            let path = entry.map_err(doing("list"))?.path();
            match read(&path) {
                Ok(allocation) => addresses.insert(allocation),
                // Torn by a power failure: its pod is gone as well.
                Err(error) => {
                    tracing::warn!(path = %path.display(), %error, "dropping an unreadable allocation");
                    std::fs::remove_file(&path).map_err(doing("clean up"))?;
                }
            }
        }
        Ok(addresses)
    }

    /// The allocation of a sandbox.
    pub(crate) fn get(&self, sandbox_id: &str) -> Option<&Allocation> {
        self.by_sandbox.get(sandbox_id)
    }

    /// All allocations.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Allocation> {
        self.by_sandbox.values()
    }

    /// Gives a sandbox an address, or the one it has.
    pub(crate) fn allocate(
        &mut self,
        config: &PodNetworkConfig,
        host_interface: String,
    ) -> Result<Allocation, Error> {
        let path = self.path(&config.sandbox_id)?;
        let known = self.get(&config.sandbox_id).map(|known| known.address);
        let address = match known {
            Some(address) => address,
            None => self.find_free()?,
        };
        let allocation = Allocation {
            sandbox_id: config.sandbox_id.clone(),
            address,
            host_interface,
            interface: config.interface.clone(),
            netns: config.netns.clone(),
            pod_namespace: config.pod_namespace.clone(),
            pod_name: config.pod_name.clone(),
            pod_uid: config.pod_uid.clone(),
            port_mappings: config.port_mappings.clone(),
        };
        write(&path, &allocation).map_err(Error::io(format!("write {}", path.display())))?;
        self.insert(allocation.clone());
        Ok(allocation)
    }

    /// Takes the address back; a sandbox without one is no error.
    pub(crate) fn release(&mut self, sandbox_id: &str) -> Result<(), Error> {
        let path = self.path(sandbox_id)?;
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(Error::io(format!("remove {}", path.display()))(error));
            }
            _ => {}
        }
        if let Some(allocation) = self.by_sandbox.remove(sandbox_id) {
            self.taken.remove(&allocation.address);
        }
        Ok(())
    }

    fn insert(&mut self, allocation: Allocation) {
        let index = allocation
            .address
            .to_bits()
            .wrapping_sub(self.range.address().to_bits());
        if self.range.contains(allocation.address) {
            self.next = index + 1;
        }
        self.taken.insert(allocation.address);
        self.by_sandbox
            .insert(allocation.sandbox_id.clone(), allocation);
    }

    fn find_free(&self) -> Result<Ipv4Addr, Error> {
        let end = self.range.last().to_bits() - self.range.address().to_bits();
        (self.next..end)
            .chain(FIRST_POD..self.next.min(end))
            .filter_map(|index| self.range.nth(index))
            .find(|address| !self.taken.contains(address))
            .ok_or(Error::Exhausted(self.range))
    }

    fn path(&self, sandbox_id: &str) -> Result<PathBuf, Error> {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        let valid = !sandbox_id.is_empty()
            && sandbox_id.len() <= 200
            && !sandbox_id.starts_with('.')
            && sandbox_id.chars().all(plain);
        if !valid {
            return Err(Error::BadSandboxId(sandbox_id.to_owned()));
        }
        Ok(self.folder.join(sandbox_id))
    }
}

fn read(path: &Path) -> io::Result<Allocation> {
    let allocation: Allocation = serde_json::from_slice(&std::fs::read(path)?)?;
    let named = path
        .file_name()
        .is_some_and(|name| name == &*allocation.sandbox_id);
    named
        .then_some(allocation)
        .ok_or(io::ErrorKind::InvalidData.into())
}

/// Whole or absent when the process dies. Not flushed to the disk: whatever
/// takes the page cache away takes the pods away too.
fn write(path: &Path, allocation: &Allocation) -> io::Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = path.with_file_name(format!(".{name}"));
    std::fs::write(&temporary, serde_json::to_vec(allocation)?)?;
    std::fs::rename(&temporary, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(sandbox_id: &str) -> PodNetworkConfig {
        PodNetworkConfig {
            sandbox_id: sandbox_id.to_owned(),
            netns: "/proc/1/ns/net".into(),
            interface: "eth0".to_owned(),
            pod_namespace: "default".to_owned(),
            pod_name: "pod".to_owned(),
            pod_uid: "1".to_owned(),
            port_mappings: Vec::new(),
        }
    }

    fn open(folder: &Path) -> Addresses {
        Addresses::open(folder, "10.0.0.0/29".parse().unwrap()).unwrap()
    }

    fn give(addresses: &mut Addresses, sandbox_id: &str) -> Result<u8, Error> {
        let allocation = addresses.allocate(&config(sandbox_id), "veth".to_owned())?;
        Ok(allocation.address.octets()[3])
    }

    #[test]
    fn addresses_are_unique_and_rest_before_reuse() {
        let folder = tempfile::tempdir().unwrap();
        let mut addresses = open(folder.path());
        assert_eq!(give(&mut addresses, "a").unwrap(), 2);
        assert_eq!(give(&mut addresses, "b").unwrap(), 3);
        assert_eq!(give(&mut addresses, "a").unwrap(), 2, "idempotent");
        addresses.release("a").unwrap();
        addresses.release("a").unwrap();
        for expected in [4, 5, 6, 2] {
            let name = format!("c{expected}");
            assert_eq!(give(&mut addresses, &name).unwrap(), expected);
        }
        assert!(matches!(
            give(&mut addresses, "z"),
            Err(Error::Exhausted(_))
        ));
    }

    #[test]
    fn a_restart_remembers_and_torn_files_are_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let mut addresses = open(folder.path());
        give(&mut addresses, "a").unwrap();
        give(&mut addresses, "b").unwrap();
        std::fs::write(folder.path().join("torn"), "{\"sandbox").unwrap();
        std::fs::write(folder.path().join(".half"), "").unwrap();
        let mut again = open(folder.path());
        assert_eq!(again.all().count(), 2);
        assert_eq!(again.get("b"), addresses.get("b"));
        assert_eq!(give(&mut again, "c").unwrap(), 4);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 3);
    }

    #[test]
    fn a_sandbox_id_cannot_leave_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        let mut addresses = open(folder.path());
        for id in ["", "..", "a/b", ".a"] {
            assert!(matches!(
                give(&mut addresses, id),
                Err(Error::BadSandboxId(_))
            ));
        }
    }
}
