//! Which device nodes may be used in a control group.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::Path;

use super::{Cgroup, explain, write};
use crate::bpf::{DeviceUse, filter_devices};

/// One rule of what is allowed.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct DeviceRule {
    /// `c` or `b`.
    pub kind: char,
    /// `None` is every number.
    pub major: Option<u64>,
    pub minor: Option<u64>,
    /// Some of `rwm`.
    pub access: String,
}

impl DeviceRule {
    /// A rule for one character device.
    pub fn character(major: u64, minor: Option<u64>) -> DeviceRule {
        DeviceRule {
            kind: 'c',
            major: Some(major),
            minor,
            access: "rwm".to_owned(),
        }
    }

    /// What every container may use: making nodes, and the harmless devices.
    pub fn container_default() -> Vec<DeviceRule> {
        let make = |kind| DeviceRule {
            kind,
            major: None,
            minor: None,
            access: "m".to_owned(),
        };
        let mut rules = vec![make('c'), make('b')];
        for (major, minor) in [
            (1, 3),
            (1, 5),
            (1, 7),
            (1, 8),
            (1, 9),
            (5, 0),
            (5, 1),
            (5, 2),
        ] {
            rules.push(DeviceRule::character(major, Some(minor)));
        }
        rules.push(DeviceRule::character(136, None));
        rules
    }

    /// As users write it: `c 42:* rwm`, where `a` is both kinds.
    pub fn parse(text: &str) -> Option<Vec<DeviceRule>> {
        let mut words = text.split_whitespace();
        let (kind, numbers, access) = (words.next()?, words.next()?, words.next()?);
        let (major, minor) = numbers.split_once(':')?;
        let number = |text: &str| match text {
            "*" => Some(None),
            text => text.parse().ok().map(Some),
        };
        let kinds = match kind {
            "a" => "bc",
            "b" | "c" => kind,
            _ => return None,
        };
        let known = !access.is_empty() && access.chars().all(|c| "rwm".contains(c));
        if words.next().is_some() || !known {
            return None;
        }
        let (major, minor) = (number(major)?, number(minor)?);
        let rule = |kind| DeviceRule {
            kind,
            major,
            minor,
            access: access.to_owned(),
        };
        Some(kinds.chars().map(rule).collect())
    }

    fn line(&self) -> String {
        let number = |n: Option<u64>| n.map_or("*".to_owned(), |n| n.to_string());
        let (major, minor) = (number(self.major), number(self.minor));
        format!("{} {major}:{minor} {}", self.kind, self.access)
    }
}

impl DeviceRule {
    fn device_use(&self) -> DeviceUse {
        let bit = |letter, bit| if self.access.contains(letter) { bit } else { 0 };
        let number = |n: Option<u64>| n.and_then(|n| i32::try_from(n).ok());
        DeviceUse {
            block: self.kind == 'b',
            access: bit('m', 1) | bit('r', 2) | bit('w', 4),
            major: number(self.major),
            minor: number(self.minor),
        }
    }
}

impl Cgroup {
    /// Denies every device but those of `rules`: by the devices controller of version 1 where
    /// there is one, else by a program attached to the group of version 2.
    pub fn allow_devices(&self, rules: &[DeviceRule]) -> io::Result<()> {
        if let Some(folder) = self.v1("devices") {
            write(&folder, "devices.deny", "a")?;
            return allow(&folder, rules.iter().map(DeviceRule::line));
        }
        let Some(group) = self.unified_handle()? else {
            return Err(io::ErrorKind::Unsupported.into());
        };
        let uses: Vec<DeviceUse> = rules.iter().map(DeviceRule::device_use).collect();
        filter_devices(group.as_fd(), &uses)
    }

    /// Allows what `rules` name beside what is allowed already. Only with version 1's controller:
    /// a program of version 2 is not added to.
    pub fn allow_more_devices(&self, rules: &[DeviceRule]) -> io::Result<()> {
        match (self.v1("devices"), rules) {
            (_, []) => Ok(()),
            (Some(folder), rules) => allow(&folder, rules.iter().map(DeviceRule::line)),
            (None, _) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// Allows every device again, of those the group above may use. Only with version 1's controller.
    pub fn allow_all_devices(&self) -> io::Result<()> {
        match self.v1("devices") {
            Some(folder) => write(&folder, "devices.allow", "a"),
            None => Err(io::ErrorKind::Unsupported.into()),
        }
    }
}

/// Each line is a write of its own; to open the file costs more than a write.
fn allow(folder: &Path, lines: impl Iterator<Item = String>) -> io::Result<()> {
    let path = folder.join("devices.allow");
    let file = File::options().write(true).open(&path);
    let mut file = file.map_err(|error| explain(error, "open", &path))?;
    for line in lines {
        let written = file.write_all(line.as_bytes());
        written.map_err(|error| explain(error, &format!("write {line:?} to"), &path))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_as_the_kernel_reads_them() {
        let lines: Vec<String> = DeviceRule::container_default()
            .iter()
            .map(DeviceRule::line)
            .collect();
        assert_eq!(lines[0], "c *:* m");
        assert!(lines.contains(&"c 1:3 rwm".to_owned()));
        assert_eq!(lines.last().unwrap(), "c 136:* rwm");
    }

    /// The kernel itself: a process in a version 2 group may use what is allowed, and no more.
    #[test]
    fn version_2_by_a_program() {
        let mut all = crate::cgroup::Hierarchies::of_this_machine().unwrap();
        all.0.retain(|hierarchy| hierarchy.unified);
        if all.0.is_empty() || !nix::unistd::getuid().is_root() {
            return;
        }
        let name = format!("sampan-test-devices-{}", std::process::id());
        let group = all.group(&name).unwrap();
        group.create().unwrap();
        group
            .allow_devices(&[DeviceRule::character(1, Some(3))])
            .unwrap();
        let mut child = std::process::Command::new("/bin/sh")
            .args(["-c", "read go; true < /dev/null && ! true < /dev/zero"])
            .stdin(std::process::Stdio::piped())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap());
        group.join(pid).unwrap();
        drop(child.stdin.take());
        let status = child.wait().unwrap();
        group.remove().unwrap();
        assert!(status.success(), "{status}");
    }
}
