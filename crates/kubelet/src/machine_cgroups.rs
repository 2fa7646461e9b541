//! Control groups that are no pod's: those above all pods, and others of the machine.

use std::io;
use std::sync::Arc;

use async_trait::async_trait;
use linux::cgroup::{Hierarchies, Limits};
use node_api::CgroupDriver;

/// Limits groups. The errors are for people.
#[async_trait]
pub trait Cgroups: Send + Sync + 'static {
    /// Makes a group above pods', such as `/kubepods/burstable`, unless it is there, and limits it.
    async fn limit_pods(&self, path: &str, limits: &Limits) -> Result<(), String>;
    /// Bytes of memory that the pods in such a group use.
    async fn memory_of_pods(&self, path: &str) -> Result<i64, String>;
    /// Limits a group that somebody else made.
    async fn limit_reserved(&self, path: &str, limits: &Limits) -> Result<(), String>;
}

/// The groups of this machine.
#[derive(Clone, Debug)]
pub struct MachineCgroups(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    hierarchies: Hierarchies,
    driver: CgroupDriver,
    above: String,
}

/// A group as its driver knows it.
struct Place {
    path: String,
    group: linux::cgroup::Cgroup,
}

impl MachineCgroups {
    /// Those that `driver` makes; by files, pods' lie below the group `above`.
    pub fn open(driver: CgroupDriver, above: &str) -> io::Result<MachineCgroups> {
        let (hierarchies, above) = match driver {
            CgroupDriver::Cgroupfs => (Hierarchies::of_this_machine()?, above.to_owned()),
            CgroupDriver::Systemd => {
                let above = systemd::prefix().map_err(io::Error::other)?;
                (Hierarchies::with_systemd()?, above)
            }
        };
        Ok(MachineCgroups::over(hierarchies, driver, above))
    }

    fn over(hierarchies: Hierarchies, driver: CgroupDriver, above: String) -> MachineCgroups {
        MachineCgroups(Arc::new(Inner {
            hierarchies,
            driver,
            above,
        }))
    }

    /// Does something with a group, where it does not hold up others.
    async fn with<T, F>(&self, work: F) -> Result<T, String>
    where
        T: Send + 'static,
        F: FnOnce(&Inner) -> Result<T, String> + Send + 'static,
    {
        let inner = Arc::clone(&self.0);
        let done = tokio::task::spawn_blocking(move || work(&inner)).await;
        done.map_err(|error| error.to_string())?
    }
}

impl Inner {
    /// A group above pods'.
    fn of_pods(&self, path: &str) -> Result<Place, String> {
        let below = match self.driver {
            CgroupDriver::Cgroupfs => path.to_owned(),
            CgroupDriver::Systemd => systemd::expand(&systemd::slice_of(path)).map_err(text)?,
        };
        self.at(format!("{}{below}", self.above.trim_end_matches('/')))
    }

    /// A group by its own name.
    fn named(&self, path: &str) -> Result<Place, String> {
        let path = match self.driver {
            CgroupDriver::Cgroupfs => path.to_owned(),
            CgroupDriver::Systemd => {
                let slice = systemd::slice_name(path).map_err(text)?;
                format!("{}{}", self.above, systemd::expand(slice).map_err(text)?)
            }
        };
        self.at(path)
    }

    fn at(&self, path: String) -> Result<Place, String> {
        let group = self.hierarchies.group(&path).map_err(text)?;
        Ok(Place { path, group })
    }

    fn write(&self, place: &Place, limits: &Limits) -> Result<(), String> {
        if self.driver == CgroupDriver::Systemd {
            systemd::set_limits(&place.path, limits).map_err(text)?;
        }
        for controller in place.group.limit(limits).map_err(text)? {
            tracing::debug!(
                controller,
                path = place.path,
                "no such cgroup controller, limit not set"
            );
        }
        Ok(())
    }
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

#[async_trait]
impl Cgroups for MachineCgroups {
    async fn limit_pods(&self, path: &str, limits: &Limits) -> Result<(), String> {
        let (path, limits) = (path.to_owned(), limits.clone());
        self.with(move |inner| {
            let place = inner.of_pods(&path)?;
            if inner.driver == CgroupDriver::Systemd {
                systemd::start_slice(&place.path, "sampan pods", &limits).map_err(text)?;
            }
            place.group.create().map_err(text)?;
            inner.write(&place, &limits)
        })
        .await
    }

    async fn memory_of_pods(&self, path: &str) -> Result<i64, String> {
        let path = path.to_owned();
        self.with(move |inner| {
            let used = inner.of_pods(&path)?.group.usage().memory_bytes;
            i64::try_from(used).map_err(text)
        })
        .await
    }

    async fn limit_reserved(&self, path: &str, limits: &Limits) -> Result<(), String> {
        let (path, limits) = (path.to_owned(), limits.clone());
        self.with(move |inner| {
            let place = inner.named(&path)?;
            let missing = place.group.missing();
            if missing.is_empty() {
                return inner.write(&place, &limits);
            }
            let parts: Vec<String> = path
                .split('/')
                .filter(|part| !part.is_empty())
                .map(|part| format!("{part:?}"))
                .collect();
            let missing: Vec<String> = missing
                .iter()
                .map(|path| path.display().to_string())
                .collect();
            Err(format!(
                "cgroup [{}] has some missing paths: {}",
                parts.join(" "),
                missing.join(", ")
            ))
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use linux::cgroup::Hierarchy;

    use super::*;

    fn hierarchy(folder: &Path, controllers: &[&str]) -> Hierarchy {
        Hierarchy {
            controllers: controllers.iter().map(|one| (*one).to_owned()).collect(),
            folder: folder.into(),
            unified: controllers.is_empty(),
        }
    }

    fn limits() -> Limits {
        Limits {
            cpu_shares: 512,
            memory_bytes: 1 << 30,
            swap_bytes: -1,
            unified: [("memory.min".to_owned(), "4096".to_owned())].into(),
            ..Limits::default()
        }
    }

    #[tokio::test]
    async fn groups_of_version_1_are_made_and_limited() {
        let folder = tempfile::tempdir().unwrap();
        let (cpu, memory) = (folder.path().join("cpu"), folder.path().join("memory"));
        fs::create_dir(&cpu).unwrap();
        fs::create_dir(&memory).unwrap();
        let all = Hierarchies(vec![
            hierarchy(&cpu, &["cpu"]),
            hierarchy(&memory, &["memory"]),
        ]);
        let groups = MachineCgroups::over(all, CgroupDriver::Cgroupfs, "/own".into());
        groups
            .limit_pods("/kubepods/burstable", &limits())
            .await
            .unwrap();
        let read = |path: &Path| fs::read_to_string(path).unwrap();
        assert_eq!(read(&cpu.join("own/kubepods/burstable/cpu.shares")), "512");
        let own = memory.join("own/kubepods/burstable");
        assert_eq!(read(&own.join("memory.limit_in_bytes")), "1073741824");
        assert!(!own.join("memory.min").exists());
        fs::write(own.join("memory.usage_in_bytes"), "77\n").unwrap();
        let used = groups.memory_of_pods("/kubepods/burstable").await;
        assert_eq!(used, Ok(77));
        // Others make the groups of what is no pod.
        fs::create_dir(cpu.join("services")).unwrap();
        let fault = groups.limit_reserved("/services", &limits()).await;
        let missing = memory.join("services");
        let expected = format!(
            "cgroup [\"services\"] has some missing paths: {}",
            missing.display()
        );
        assert_eq!(fault, Err(expected));
        fs::create_dir(&missing).unwrap();
        groups.limit_reserved("/services", &limits()).await.unwrap();
        assert_eq!(read(&cpu.join("services/cpu.shares")), "512");
    }

    #[tokio::test]
    async fn groups_of_version_2_are_made_and_limited() {
        let folder = tempfile::tempdir().unwrap();
        let own = folder.path().join("own/kubepods");
        fs::create_dir_all(&own).unwrap();
        for (file, text) in [
            ("cgroup.controllers", "cpu memory"),
            ("memory.swap.max", "0"),
        ] {
            fs::write(own.join(file), text).unwrap();
        }
        let all = Hierarchies(vec![hierarchy(folder.path(), &[])]);
        let groups = MachineCgroups::over(all, CgroupDriver::Cgroupfs, "/own".into());
        groups.limit_pods("/kubepods", &limits()).await.unwrap();
        let read = |file: &str| fs::read_to_string(own.join(file)).unwrap();
        assert_eq!(read("cpu.weight"), "20");
        assert_eq!(read("memory.max"), "1073741824");
        assert_eq!(read("memory.swap.max"), "max");
        assert_eq!(read("memory.min"), "4096");
    }

    #[tokio::test]
    async fn this_machine_takes_limits() {
        let above = format!("/sampan-test-kubelet-{}", std::process::id());
        let groups = MachineCgroups::open(CgroupDriver::Cgroupfs, &above).unwrap();
        let limits = |memory_bytes: i64| Limits {
            pids: 777,
            memory_bytes,
            ..limits()
        };
        let all = Hierarchies::of_this_machine().unwrap();
        let path = format!("{above}/kubepods");
        let memory = || {
            let folders = all.0.iter().map(|one| one.folder.join(&path[1..]));
            let mut files = folders
                .flat_map(|own| ["memory.limit_in_bytes", "memory.max"].map(|file| own.join(file)));
            let text = files.find_map(|file| fs::read_to_string(file).ok());
            text.unwrap().trim().parse::<i64>().unwrap()
        };
        // More, and less again.
        for bytes in [1 << 30, 2 << 30, 1 << 29] {
            groups
                .limit_pods("/kubepods", &limits(bytes))
                .await
                .unwrap();
            assert_eq!(memory(), bytes);
        }
        let group = all.group(&path).unwrap();
        assert_eq!(group.detail().tasks_max, 777);
        assert!(group.missing().is_empty());
        all.group(&above).unwrap().remove().unwrap();
        assert!(!group.missing().is_empty());
    }
}
