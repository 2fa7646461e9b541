//! Devices that bring more along than a node: by names of the Container Device Interface, and `--gpus`,
//! which are such devices, too.

use crate::answer::Fault;
use crate::wire::{DeviceRequest, HostConfig};

const GPU: &str = "gpu";
/// What makers of such devices call them.
const GPU_KINDS: [&str; 2] = ["nvidia.com/gpu", "amd.com/gpu"];

/// Names of the devices that a container wants.
pub(crate) fn wanted(host: &HostConfig) -> Result<Vec<String>, Fault> {
    wanted_of(host, &runtime::cdi_kinds())
}

fn wanted_of(host: &HostConfig, kinds: &[String]) -> Result<Vec<String>, Fault> {
    let mut names = Vec::new();
    for request in host.limits.device_requests.iter().flatten() {
        if request.driver == "cdi" {
            names.extend(request.device_ids.iter().flatten().cloned());
            continue;
        }
        names.extend(gpus(request, kinds)?);
    }
    Ok(names)
}

fn gpus(request: &DeviceRequest, kinds: &[String]) -> Result<Vec<String>, Fault> {
    let list = request.capabilities.iter().flatten();
    let shown: Vec<String> = list.map(|all| format!("[{}]", all.join(" "))).collect();
    let wants_gpus = request.capabilities.iter().flatten().flatten();
    let wants_gpus = wants_gpus.into_iter().any(|name| name == GPU);
    let fits = |kind: &&&str| {
        let maker = kind.split('.').next().unwrap_or_default();
        ["", maker].contains(&request.driver.as_str()) && kinds.iter().any(|known| known == **kind)
    };
    let kind = GPU_KINDS.iter().find(fits).filter(|_| wants_gpus);
    let Some(kind) = kind else {
        return Err(Fault::internal(format!(
            "could not select device driver {:?} with capabilities: [{}]",
            request.driver,
            shown.join(" ")
        )));
    };
    let ids = request.device_ids.iter().flatten();
    let named: Vec<String> = ids.map(|id| format!("{kind}={id}")).collect();
    Ok(match (named.is_empty(), request.count) {
        (false, _) => named,
        (true, count @ 1..) => (0..count).map(|index| format!("{kind}={index}")).collect(),
        (true, _) => vec![format!("{kind}=all")],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str, kinds: &[&str]) -> Result<Vec<String>, String> {
        let host: HostConfig =
            serde_json::from_str(&format!(r#"{{"DeviceRequests":[{text}]}}"#)).unwrap();
        let kinds: Vec<String> = kinds.iter().map(|kind| (*kind).to_owned()).collect();
        wanted_of(&host, &kinds).map_err(|fault| fault.message)
    }

    #[test]
    fn names_and_counts() {
        let cdi = r#"{"Driver":"cdi","DeviceIDs":["a.com/b=c"]}"#;
        assert_eq!(names(cdi, &[]).unwrap(), ["a.com/b=c"]);
        let all = r#"{"Driver":"","Count":-1,"DeviceIDs":null,"Capabilities":[["gpu"]]}"#;
        let refused = "could not select device driver \"\" with capabilities: [[gpu]]";
        assert_eq!(names(all, &["other.com/gpu"]).unwrap_err(), refused);
        let known = ["nvidia.com/gpu"];
        assert_eq!(names(all, &known).unwrap(), ["nvidia.com/gpu=all"]);
        let two = all.replace("-1", "2");
        assert_eq!(
            names(&two, &known).unwrap(),
            ["nvidia.com/gpu=0", "nvidia.com/gpu=1"]
        );
    }
}
