//! As whom the parts of this process speak.

use auth::Identity;

/// Identities of upstream's components.
pub(crate) fn controller_manager() -> Identity {
    Identity::component("system:kube-controller-manager")
}

pub(crate) fn scheduler() -> Identity {
    Identity::component("system:kube-scheduler")
}

pub(crate) fn proxy() -> Identity {
    Identity::component("system:kube-proxy")
}

pub(crate) fn node(name: &str) -> Identity {
    Identity::user(&format!("system:node:{name}"), &["system:nodes"])
}

/// The service account under which one controller acts.
pub(crate) fn controller(name: &str) -> Identity {
    Identity::service_account("kube-system", name, "")
}

/// The service account of the DNS server.
pub(crate) fn dns() -> Identity {
    Identity::service_account("kube-system", "coredns", "")
}
