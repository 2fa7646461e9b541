//! Creating a container: what was asked for and what its image says become one record.

use std::collections::BTreeMap;

use http::StatusCode;
use oci::ImageRecord;
use serde_json::{Value, json};

use crate::answer::{self, Answer, Fault};
use crate::call::Call;
use crate::daemon::{Container, Daemon};
use crate::images;
use crate::names;
use crate::record::{Record, State, now};
use crate::translate;
use crate::wire::{Config, CreateRequest, Endpoint, HostConfig};

/// `POST /containers/create`.
pub(crate) async fn create(mut call: Call) -> Answer {
    let wish: CreateRequest = call.body().await?;
    let name = call.query.text("name").to_owned();
    let daemon = &call.daemon;
    let (id, warnings) = daemon.create(&name, wish).await?;
    Ok(answer::json(
        StatusCode::CREATED,
        &json!({"Id": id, "Warnings": warnings}),
    ))
}

/// `POST /containers/{id}/rename`.
pub(crate) async fn rename(call: Call, name: &str) -> Answer {
    let daemon = &call.daemon;
    let container = daemon.find(name)?;
    let wish = call.query.text("name");
    let new = wish.strip_prefix('/').unwrap_or(wish);
    if new.is_empty() {
        return Err(Fault::bad("Neither old nor new names may be empty"));
    }
    let _naming = daemon.naming.lock().await;
    let old = container.record.read().name.clone();
    if old == new {
        return Err(Fault::bad(
            "Renaming a container with the same name as its current name",
        ));
    }
    daemon.check_name(new)?;
    let record = container.save(true, |record| record.name = new.to_owned())?;
    let more = [("oldName", format!("/{old}"))];
    daemon.events.container(&record, "rename", &more);
    answer::done()
}

impl Daemon {
    pub(crate) async fn create(
        &self,
        name: &str,
        wish: CreateRequest,
    ) -> Result<(String, Vec<String>), Fault> {
        let name_of_image = &wish.config.image;
        let image =
            images::find(self, name_of_image)
                .await
                .map_err(|fault| match fault.status {
                    StatusCode::NOT_FOUND => Fault::missing(format!(
                        "No such image: {}",
                        images::with_tag(name_of_image)
                    )),
                    _ => fault,
                })?;
        let details = images::details(self, &image).await?;
        self.create_of(name, wish, image, &details, false).await
    }

    /// As [`Daemon::create`], of an image at hand, which may still be in the making.
    pub(crate) async fn create_of(
        &self,
        name: &str,
        wish: CreateRequest,
        image: ImageRecord,
        details: &Value,
        in_the_making: bool,
    ) -> Result<(String, Vec<String>), Fault> {
        let CreateRequest {
            mut config,
            mut host_config,
            networking_config,
        } = wish;
        let id = names::fresh_id();
        self.resolve_modes(&mut config, &mut host_config)?;
        complete(&mut config, &image, details, &id);
        check(&mut host_config)?;
        let warnings = super::discarded::discard(&mut host_config, &self.able);
        super::discarded::refuse(&host_config.limits, &self.able)?;
        let _naming = self.naming.lock().await;
        let plain = name.strip_prefix('/').unwrap_or(name);
        let name = match plain {
            "" => names::fresh_name(|name| self.check_name(name).is_err()),
            plain => {
                self.check_name(plain)?;
                plain.to_owned()
            }
        };
        let mut record = Record {
            id: id.clone(),
            name,
            created: now(),
            image_id: image.id.to_string(),
            networks: endpoints(&config, &host_config, networking_config.endpoints_config)?,
            config,
            host: host_config,
            mounts: Vec::new(),
            state: State::default(),
            making: in_the_making.then(|| image.clone()),
        };
        if record.args().is_empty() {
            return Err(Fault::bad("no command specified"));
        }
        // Whatever cannot be translated is told now, not first at the start.
        let folder = self.folder.join("containers").join(&id);
        translate::sandbox(&record, &folder, self.user_namespace(&record))?;
        crate::networks::check_ports(&record.host)?;
        for (wish, endpoint) in std::mem::take(&mut record.networks) {
            // Known by their names, whatever they were called by. One that is not there is missed
            // first at the start: it may come until then.
            let name = match self.networks.find(&wish) {
                Ok(network) => network.name,
                Err(_) => wish.clone(),
            };
            if record.host.network_mode == wish {
                record.host.network_mode = name.clone();
            }
            record.networks.insert(name, endpoint);
        }
        self.check_links(&record)?;
        record.mounts = self.plan_mounts(&record)?;
        translate::extras(&record, &folder)?;
        self.engine.lease_image(&id, &image)?;
        let made = self.make_files(&record, &image, &folder).await;
        if let Err(fault) = made {
            self.engine.release_image(&id)?;
            if folder.exists() {
                crate::quotas::remove(&folder, translate::WRITABLE)?;
            }
            return Err(fault);
        }
        let container = Container::new(record.clone(), folder);
        self.containers.write().insert(id.clone(), container);
        self.events.container(&record, "create", &[]);
        Ok((id, warnings))
    }

    async fn make_files(
        &self,
        record: &Record,
        image: &ImageRecord,
        folder: &std::path::Path,
    ) -> Result<(), Fault> {
        crate::quotas::make_writable(&folder.join(translate::WRITABLE), &record.host)?;
        translate::container(record, folder, folder, false)?;
        self.fill_volumes(record, image).await?;
        // The record comes last: without it the folder is an unfinished one.
        let saved = match record.host.auto_remove {
            // Nobody misses it after the machine's end.
            true => record.save_lightly(folder),
            // Its files survive the machine's end as little as what was written a moment ago.
            false => record.save_soon(folder),
        };
        Ok(saved?)
    }

    /// Refuses a name that is taken or none.
    pub(crate) fn check_name(&self, name: &str) -> Result<(), Fault> {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        let good = name.len() > 1
            && name.starts_with(|c: char| c.is_ascii_alphanumeric())
            && name.chars().all(plain);
        if !good {
            return Err(Fault::bad(format!(
                "Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"
            )));
        }
        for container in self.containers.read().values() {
            let record = container.record.read();
            if record.name == name {
                return Err(Fault::conflict(format!(
                    "Conflict. The container name \"/{name}\" is already in use by container \
                     \"{}\". You have to remove (or rename) that container to be able to reuse \
                     that name.",
                    record.id
                )));
            }
        }
        Ok(())
    }
}

/// Fills in what the request leaves to the image.
fn complete(config: &mut Config, image: &ImageRecord, details: &Value, id: &str) {
    let run = &image.config.config;
    let said = &details["config"];
    if config.user.is_empty() {
        config.user = run.user.clone();
    }
    if config.working_dir.is_empty() {
        config.working_dir = run.working_dir.clone();
    }
    // An entrypoint of one's own also leaves the image's arguments behind.
    if config.entrypoint.is_none() {
        if config.cmd.as_ref().is_none_or(Vec::is_empty) {
            config.cmd = Some(run.cmd.clone());
        }
        if !run.entrypoint.is_empty() {
            config.entrypoint = Some(run.entrypoint.clone());
        }
    } else if config.entrypoint.as_deref() == Some(&[String::new()]) {
        // `--entrypoint ""` means none at all.
        config.entrypoint = None;
    }
    for pair in &run.env {
        let name = pair.split('=').next().unwrap_or_default();
        let known = |own: &String| own.split('=').next() == Some(name);
        if !config.env.iter().any(known) {
            config.env.push(pair.clone());
        }
    }
    if !config.env.iter().any(|pair| pair.starts_with("PATH=")) {
        let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
        config.env.push(path.to_owned());
    }
    for (name, value) in &run.labels {
        config.labels.entry(name.clone()).or_insert(value.clone());
    }
    let keys = |value: &Value| -> Vec<String> {
        value
            .as_object()
            .map(|map| map.keys().cloned().collect())
            .unwrap_or_default()
    };
    for port in keys(&said["ExposedPorts"]) {
        config
            .exposed_ports
            .entry(port)
            .or_insert_with(|| json!({}));
    }
    let volumes = keys(&said["Volumes"]);
    if !volumes.is_empty() {
        let all = config.volumes.get_or_insert_with(BTreeMap::new);
        for path in volumes {
            all.entry(path).or_insert_with(|| json!({}));
        }
    }
    if config.stop_signal.is_none() && !run.stop_signal.is_empty() {
        config.stop_signal = Some(run.stop_signal.clone());
    }
    if config.shell.is_none() {
        config.shell = serde_json::from_value(said["Shell"].clone()).ok();
    }
    if config
        .healthcheck
        .as_ref()
        .is_none_or(|check| check.test.is_empty())
        && let Ok(check) = serde_json::from_value(said["Healthcheck"].clone())
    {
        config.healthcheck = Some(check);
    }
    if config.hostname.is_empty() {
        config.hostname = id.chars().take(12).collect();
    }
}

/// Refuses what the engine cannot do, and puts defaults in.
fn check(host: &mut HostConfig) -> Result<(), Fault> {
    let unable = |what: String| {
        Err(Fault::unable(format!(
            "{what} is not supported by this engine"
        )))
    };
    if !["", "runc", "sampan"].contains(&host.runtime.as_str()) {
        let message = format!("unknown or invalid runtime name: {}", host.runtime);
        return Err(Fault::bad(message));
    }
    if !["", "host"].contains(&host.userns_mode.as_str()) {
        return Err(Fault::bad("--userns: invalid USER mode"));
    }
    let shared = |mode: &str| super::share::other(mode).is_some();
    if !["", "host"].contains(&host.pid_mode.as_str()) && !shared(&host.pid_mode) {
        return unable(format!("PID mode {:?}", host.pid_mode));
    }
    if !["", "private", "shareable", "host"].contains(&host.ipc_mode.as_str())
        && !shared(&host.ipc_mode)
    {
        return unable(format!("IPC mode {:?}", host.ipc_mode));
    }
    if !["", "host"].contains(&host.uts_mode.as_str()) {
        return Err(Fault::bad(format!("invalid UTS mode: {}", host.uts_mode)));
    }
    for rule in host.limits.device_cgroup_rules.iter().flatten() {
        if runtime::DeviceRule::parse(rule).is_none() {
            let message = format!("invalid device cgroup rule format: '{rule}'");
            return Err(Fault::bad(message));
        }
    }
    super::discarded::check(&host.limits)?;
    crate::devices::wanted(host)?;
    crate::drivers::check(&mut host.log_config)?;
    let policy = &host.restart_policy;
    let name = policy.name.as_str();
    if !["", "no", "always", "unless-stopped", "on-failure"].contains(&name) {
        let message = format!(
            "invalid restart policy: unknown policy '{name}'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'"
        );
        return Err(Fault::bad(message));
    }
    if policy.maximum_retry_count > 0 && name != "on-failure" {
        let message =
            "invalid restart policy: maximum retry count can only be used with 'on-failure'";
        return Err(Fault::bad(message));
    }
    if host.auto_remove && !["", "no"].contains(&name) {
        return Err(Fault::bad(
            "can't set 'AutoRemove' for a container with a restart policy",
        ));
    }
    let memory = host.limits.memory;
    if memory > 0 && memory < 6 << 20 {
        return Err(Fault::bad("Minimum memory limit allowed is 6MB"));
    }
    if host.limits.memory_swap > 0 && host.limits.memory_swap < memory {
        let message = "Minimum memoryswap limit should be larger than memory limit, see usage";
        return Err(Fault::bad(message));
    }
    if host.shm_size == 0 {
        host.shm_size = 64 << 20;
    }
    if host.network_mode.is_empty() || host.network_mode == "default" {
        host.network_mode = "bridge".to_owned();
    }
    if host.runtime.is_empty() {
        host.runtime = "sampan".to_owned();
    }
    if host.ipc_mode.is_empty() {
        host.ipc_mode = "private".to_owned();
    }
    Ok(())
}

/// The networks a container begins with.
fn endpoints(
    config: &Config,
    host: &HostConfig,
    wishes: BTreeMap<String, Option<Endpoint>>,
) -> Result<BTreeMap<String, Endpoint>, Fault> {
    if super::share::other(&host.network_mode).is_some() {
        return Ok(BTreeMap::new());
    }
    let mut endpoints: BTreeMap<String, Endpoint> = wishes
        .into_iter()
        .map(|(name, endpoint)| (name, endpoint.unwrap_or_default()))
        .collect();
    if let Some(default) = endpoints.remove("default") {
        endpoints.insert("bridge".to_owned(), default);
    }
    let main = endpoints.entry(host.network_mode.clone()).or_default();
    if main.mac_address.is_empty() {
        main.mac_address.clone_from(&config.mac_address);
    }
    for endpoint in endpoints.values_mut() {
        endpoint.wanted_mac_address = std::mem::take(&mut endpoint.mac_address);
        endpoint.wanted_hardware_address()?;
    }
    Ok(endpoints)
}
