//! Containers that are in other containers' namespaces, or know their addresses by links.

use std::path::{Path, PathBuf};

use node_api::UserNamespace;
use runtime::SandboxExtras;

use crate::answer::Fault;
use crate::daemon::{Container, Daemon};
use crate::record::Record;
use crate::wire::{Config, HostConfig};

/// The other container that a mode such as `container:web` names.
pub(crate) fn other(mode: &str) -> Option<&str> {
    mode.strip_prefix("container:")
}

/// What a container that starts has of others.
#[derive(Debug, Default)]
pub(crate) struct Shares {
    pub(crate) sandbox: SandboxExtras,
    /// First processes, whose process ids and shared memory it sees.
    pub(crate) pids_of: Option<i32>,
    pub(crate) shm_of: Option<i32>,
}

impl Daemon {
    /// Puts whole ids where other containers are named, and refuses what does not go together.
    pub(super) fn resolve_modes(
        &self,
        config: &mut Config,
        host: &mut HostConfig,
    ) -> Result<(), Fault> {
        for mode in [&mut host.pid_mode, &mut host.ipc_mode] {
            if let Some(name) = other(mode) {
                *mode = format!("container:{}", self.find(name)?.id);
            }
        }
        let Some(name) = other(&host.network_mode) else {
            return Ok(());
        };
        let target = self.find(name)?;
        for (wished, what) in [
            (!config.hostname.is_empty(), "hostname and the network mode"),
            (
                host.links.iter().flatten().next().is_some(),
                "container type network can't be used with links. This would result in undefined behavior",
            ),
            (!host.dns.is_empty(), "dns and the network mode"),
            (
                host.extra_hosts.iter().flatten().next().is_some(),
                "custom host-to-IP mapping and the network mode",
            ),
            (
                !host.port_bindings.is_empty() || host.publish_all_ports,
                "port publishing and the container type network mode",
            ),
            (
                !config.mac_address.is_empty(),
                "mac-address and the network mode",
            ),
        ] {
            if wished {
                return Err(Fault::bad(format!("conflicting options: {what}")));
            }
        }
        host.network_mode = format!("container:{}", target.id);
        config.hostname = target.record.read().config.hostname.clone();
        Ok(())
    }

    /// What a container that starts has of others, who have to be up.
    /// Where it has a user namespace, it is in theirs: only there it has rights to what it joins.
    pub(super) async fn shares(
        &self,
        record: &Record,
        user: Option<&UserNamespace>,
    ) -> Result<Shares, Fault> {
        let host = &record.host;
        let mut shares = Shares {
            sandbox: SandboxExtras {
                node_hostname: host.uts_mode == "host",
                ..SandboxExtras::default()
            },
            ..Shares::default()
        };
        if let Some(id) = other(&host.network_mode) {
            let target = self.target(id, "network")?;
            self.join_user(&target, user, &mut shares).await?;
            if target.id == record.id {
                return Err(Fault::bad("cannot join own network"));
            }
            shares.sandbox.network_of = Some(target.state.sandbox);
        }
        if let Some(id) = other(&host.pid_mode) {
            let target = self.target(id, "PID namespace")?;
            self.join_user(&target, user, &mut shares).await?;
            shares.pids_of = Some(target.state.pid);
        }
        if let Some(id) = other(&host.ipc_mode) {
            let target = self.target(id, "IPC")?;
            if !["shareable", "host"].contains(&target.host.ipc_mode.as_str()) {
                return Err(Fault::bad(format!(
                    "can't join IPC of container {id}: non-shareable IPC (hint: use IpcMode:shareable for the donor container)"
                )));
            }
            self.join_user(&target, user, &mut shares).await?;
            shares.sandbox.ipc_of = Some(target.state.sandbox);
            shares.shm_of = Some(target.state.pid);
        }
        Ok(shares)
    }

    async fn join_user(
        &self,
        target: &Record,
        user: Option<&UserNamespace>,
        shares: &mut Shares,
    ) -> Result<(), Fault> {
        let theirs = self.present_user_namespace(target).await?;
        if theirs.as_ref() != user {
            return Err(Fault::bad(format!(
                "cannot join the namespaces of container {}: only one of both is in the host's                  user namespace (--userns=host)",
                target.id
            )));
        }
        // Of several the first one counts.
        if user.is_some() && shares.sandbox.user_of.is_none() {
            shares.sandbox.user_of = Some(target.state.pid);
        }
        Ok(())
    }

    fn target(&self, id: &str, what: &str) -> Result<Record, Fault> {
        let target = self.find(id)?.snapshot();
        match target.state.is_up() {
            true => Ok(target),
            false => Err(Fault::conflict(format!(
                "cannot join {what} of a non running container: {id}"
            ))),
        }
    }

    /// Where the files of `/etc` are that docker looks after: whose network it is, whose they are.
    pub(super) fn etc(&self, record: &Record, own: &Path) -> PathBuf {
        match other(&record.host.network_mode) {
            Some(id) => self.folder.join("containers").join(id),
            None => own.to_owned(),
        }
    }

    /// The containers a link of `record` names, with what they are called there.
    fn linked(&self, record: &Record) -> Result<Vec<(Record, String)>, Fault> {
        let mut linked = Vec::new();
        let of_networks = record
            .networks
            .values()
            .flat_map(|one| one.links.iter().flatten());
        for link in record.host.links.iter().flatten().chain(of_networks) {
            let (name, alias) = parts(link);
            let target = self.find(name).map_err(|fault| {
                Fault::bad(format!("could not get container for {name}: {fault}"))
            })?;
            let target = target.snapshot();
            // Some clients say it twice, for the container and for its network.
            let known = |(one, name): &(Record, String)| one.id == target.id && name == alias;
            if !linked.iter().any(known) {
                linked.push((target, alias.to_owned()));
            }
        }
        Ok(linked)
    }

    /// Takes a link away that is named as `CONTAINER/ALIAS`. What programs were told at their start
    /// stays.
    pub(super) fn remove_link(&self, name: &str) -> Result<(), Fault> {
        let path = name.trim_start_matches('/');
        let Some((owner, alias)) = path.rsplit_once('/') else {
            self.find(path)?;
            return Err(Fault::internal(
                "Conflict, cannot remove the default link name of the container",
            ));
        };
        let missing = || Fault::missing(format!("No such container: {name}"));
        let owner = self.find(owner).map_err(|_| missing())?;
        let is_meant = |link: &String| parts(link).1 == alias;
        if !owner
            .record
            .read()
            .host
            .links
            .iter()
            .flatten()
            .any(is_meant)
        {
            return Err(missing());
        }
        let record = owner.save(true, |record| {
            if let Some(links) = &mut record.host.links {
                links.retain(|link| !is_meant(link));
            }
        })?;
        if record.state.is_up()
            && let Err(fault) = self.write_files(&owner)
        {
            tracing::debug!(%fault, id = record.id, "a link's address stays in /etc/hosts");
        }
        Ok(())
    }

    /// Refuses links to nobody.
    pub(super) fn check_links(&self, record: &Record) -> Result<(), Fault> {
        self.linked(record).map(drop)
    }

    /// Lines of `/etc/hosts` for links.
    pub(super) fn link_hosts(&self, container: &Container) -> Result<String, Fault> {
        let record = container.snapshot();
        let mut text = String::new();
        for (target, alias) in self.linked(&record)? {
            let address = link_address(&record, &target).ok_or_else(|| {
                Fault::conflict(format!(
                    "Cannot link to a non running container: /{} AS /{}/{alias}",
                    target.name, record.name
                ))
            })?;
            let names = match alias == target.name {
                true => format!("{alias} {}", target.short_id()),
                false => format!("{alias} {} {}", target.short_id(), target.name),
            };
            text.push_str(&format!("{address}\t{names}\n"));
        }
        Ok(text)
    }

    /// What programs were told of links before there were names: only on the default bridge.
    pub(super) fn link_env(&self, record: &Record) -> Result<Vec<(String, String)>, Fault> {
        let mut env = Vec::new();
        if record.network_mode() != "bridge" {
            return Ok(env);
        }
        for (target, alias) in self.linked(record)? {
            let Some(address) = link_address(record, &target) else {
                continue;
            };
            let prefix = alias.replace('-', "_").to_uppercase();
            let mut first = true;
            let exposed = target.config.exposed_ports.keys();
            for port in exposed.chain(target.host.port_bindings.keys()) {
                let (port, protocol) = port.split_once('/').unwrap_or((port, "tcp"));
                let url = format!("{protocol}://{address}:{port}");
                let name = format!("{prefix}_PORT_{port}_{}", protocol.to_uppercase());
                if std::mem::take(&mut first) {
                    env.push((format!("{prefix}_PORT"), url.clone()));
                }
                env.push((format!("{name}_ADDR"), address.clone()));
                env.push((format!("{name}_PORT"), port.to_owned()));
                env.push((format!("{name}_PROTO"), protocol.to_owned()));
                env.push((name, url));
            }
            env.push((
                format!("{prefix}_NAME"),
                format!("/{}/{alias}", record.name),
            ));
            for pair in &target.config.env {
                if let Some((name, value)) =
                    pair.split_once('=').filter(|(name, _)| *name != "PATH")
                {
                    env.push((format!("{prefix}_ENV_{name}"), value.to_owned()));
                }
            }
        }
        Ok(env)
    }
}

/// Whom a link leads to, and what that is called. As shown by inspect an alias has the name of who
/// uses it in front.
pub(super) fn parts(link: &str) -> (&str, &str) {
    let (name, alias) = link.split_once(':').unwrap_or((link, link));
    (name, alias.rsplit('/').next().unwrap_or(alias))
}

/// The address of a container that is up, on a network that both are on.
fn link_address(record: &Record, target: &Record) -> Option<String> {
    let mut shared = record
        .networks
        .keys()
        .filter_map(|name| target.networks.get(name));
    let found = shared.find(|endpoint| !endpoint.ip_address.is_empty())?;
    target.state.is_up().then(|| found.ip_address.clone())
}
