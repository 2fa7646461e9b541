//! Wishes that are taken but not fulfilled, and what docker tells of such.

use serde_json::Value;

use crate::wire::HostConfig;

/// Members of the request, and the words when they are set.
const DISCARDED: [(&str, &str); 6] = [
    (
        "BlkioWeight",
        "Your kernel does not support Block I/O weight or the cgroup is not mounted. Weight discarded.",
    ),
    (
        "BlkioWeightDevice",
        "Your kernel does not support Block I/O weight_device or the cgroup is not mounted. Weight-device discarded.",
    ),
    (
        "BlkioDeviceReadBps",
        "Your kernel does not support BPS Block I/O read limit or the cgroup is not mounted. Block I/O BPS read limit discarded.",
    ),
    (
        "BlkioDeviceWriteBps",
        "Your kernel does not support BPS Block I/O write limit or the cgroup is not mounted. Block I/O BPS write limit discarded.",
    ),
    (
        "BlkioDeviceReadIOps",
        "Your kernel does not support IOPS Block read limit or the cgroup is not mounted. Block I/O IOPS read limit discarded.",
    ),
    (
        "BlkioDeviceWriteIOps",
        "Your kernel does not support IOPS Block write limit or the cgroup is not mounted. Block I/O IOPS write limit discarded.",
    ),
];

/// Takes out what will not be, and says so.
pub(super) fn discard(host: &mut HostConfig) -> Vec<String> {
    let mut warnings = Vec::new();
    for (name, words) in DISCARDED {
        let empty = |value: &Value| match value {
            Value::Array(list) => list.is_empty(),
            Value::Null => true,
            value => value.as_u64() == Some(0),
        };
        if host.other.get(name).is_some_and(|value| !empty(value)) {
            host.other.remove(name);
            warnings.push(words.to_owned());
        }
    }
    warnings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_wished_is_told_of() {
        let text = r#"{"BlkioWeight":300,"BlkioWeightDevice":[],"BlkioDeviceReadBps":null,
            "BlkioDeviceWriteIOps":[{"Path":"/dev/sda","Rate":9}]}"#;
        let mut host: HostConfig = serde_json::from_str(text).unwrap();
        let warnings = discard(&mut host);
        assert_eq!(warnings.len(), 2, "{warnings:?}");
        assert!(warnings[1].contains("IOPS Block write limit"));
        assert!(discard(&mut host).is_empty());
    }
}
