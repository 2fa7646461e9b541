//! Where device plugins register.

use std::sync::Arc;

use base::Crew;
use bytes::Bytes;
use futures::FutureExt;
use tonic::Status;

use super::Devices;
use crate::grpc::{self, Answer, Dispatch};
use crate::wire::device_plugin::{Empty, REGISTER, RegisterRequest, VERSION};

/// Opens the socket and serves it.
pub(super) fn start(devices: &Arc<Devices>, crew: &Crew) {
    let listener = match super::plugins::listen(&devices.folder) {
        Ok(listener) => listener,
        Err(error) => {
            let folder = devices.folder.display();
            return tracing::warn!(%error, %folder, "no device plugins: their socket cannot be made");
        }
    };
    let own = Arc::clone(devices);
    let dispatch: Dispatch = Arc::new(move |path, body| {
        let devices = Arc::clone(&own);
        async move { register(&devices, &path, body).await }.boxed()
    });
    let serving = grpc::serve(dispatch, listener, crew.stop());
    crew.spawn("device plugin registration", serving);
}

async fn register(devices: &Devices, path: &str, body: Bytes) -> Result<Answer, Status> {
    if path != REGISTER {
        return Err(Status::unimplemented(format!("unknown method {path}")));
    }
    let request: RegisterRequest = grpc::take(body)?;
    let resource = &request.resource_name;
    tracing::info!(resource, "a device plugin registers");
    if request.version != VERSION {
        return Err(Status::unknown(format!(
            "requested API version {:?} is not supported by kubelet. Supported version is [{VERSION:?}]",
            request.version
        )));
    }
    if !is_extended(resource) {
        return Err(Status::unknown(format!(
            "the ResourceName {resource:?} is invalid"
        )));
    }
    // A path of its own would leave the folder that only the node's administrator writes to.
    if request.endpoint.contains('/') || request.endpoint.is_empty() {
        return Err(Status::unknown(format!(
            "the endpoint {:?} is invalid",
            request.endpoint
        )));
    }
    let accepted = devices.accept(resource, &request.endpoint).await;
    accepted.map_err(Status::unknown)?;
    Ok(grpc::one(&Empty {}))
}

/// Whether a name is a resource of somebody else than Kubernetes.
pub(crate) fn is_extended(name: &str) -> bool {
    let Some((domain, rest)) = name.split_once('/') else {
        return false;
    };
    let plain = |text: &str, more: &[char]| {
        let inner = |c: char| c.is_ascii_alphanumeric() || more.contains(&c);
        let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
        text.chars().all(inner) && edge(text.chars().next()) && edge(text.chars().last())
    };
    let lower = !domain.chars().any(|c| c.is_ascii_uppercase());
    let native = name.contains("kubernetes.io/") || name.starts_with("requests.");
    // As a quota counts it, `requests.` comes before the domain.
    let fits = domain.len() <= 253 - "requests.".len() && rest.len() <= 63;
    let labels = domain.split('.').all(|label| plain(label, &['-']));
    !native && lower && fits && labels && plain(rest, &['-', '_', '.'])
}

#[cfg(test)]
mod tests {
    use super::is_extended;

    #[test]
    fn names_of_others_are_extended() {
        for (name, expected) in [
            ("nvidia.com/gpu", true),
            ("example.com/a_b.c-1", true),
            ("cpu", false),
            ("kubernetes.io/x", false),
            ("sub.kubernetes.io/x", false),
            ("requests.a.com/x", false),
            ("a..com/x", false),
            ("A.com/x", false),
            ("a.com/", false),
            ("a.com/x/y", false),
        ] {
            assert_eq!(is_extended(name), expected, "{name}");
        }
    }
}
