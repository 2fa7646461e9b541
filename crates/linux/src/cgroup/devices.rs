//! Which device nodes may be used in a control group.

use std::io;

use super::{Cgroup, write};

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

    fn line(&self) -> String {
        let number = |n: Option<u64>| n.map_or("*".to_owned(), |n| n.to_string());
        let (major, minor) = (number(self.major), number(self.minor));
        format!("{} {major}:{minor} {}", self.kind, self.access)
    }
}

impl Cgroup {
    /// Denies every device but those of `rules`. Returns false when this machine has no
    /// version 1 devices controller, the only means used here.
    pub fn allow_devices(&self, rules: &[DeviceRule]) -> io::Result<bool> {
        let Some(folder) = self.v1("devices") else {
            return Ok(false);
        };
        write(&folder, "devices.deny", "a")?;
        for rule in rules {
            write(&folder, "devices.allow", &rule.line())?;
        }
        Ok(true)
    }
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
}
