//! The JSON of typed kinds, decoded and encoded in one place. Decoders of a kind are large, and
//! generic ones are compiled anew in every crate that uses them: those of a pod alone would be in
//! the binary a dozen times. Here each is compiled once, and other crates call it.

use k8s_openapi::api::apps::v1 as apps;
use k8s_openapi::api::batch::v1 as batch;
use k8s_openapi::api::certificates::v1 as certificates;
use k8s_openapi::api::coordination::v1 as coordination;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1 as discovery;
use k8s_openapi::api::networking::v1 as networking;
use k8s_openapi::api::node::v1 as node;
use k8s_openapi::api::policy::v1 as policy;
use k8s_openapi::api::rbac::v1 as rbac;
use k8s_openapi::api::storage::v1 as storage;
use serde::de::DeserializeOwned;

use crate::List;
use crate::lean::lean;

/// What can be read from JSON: an object of a kind, or any tree.
pub trait Decode: Sized {
    /// One object; a typed one comes without `managedFields`.
    ///
    /// # Errors
    /// Bytes that are no JSON, or not of this shape.
    fn decode(json: &[u8]) -> serde_json::Result<Self>;
}

/// The whole JSON of a kind: objects, lists, and back.
pub trait Wire: Decode {
    /// A list of objects.
    ///
    /// # Errors
    /// Bytes that are no JSON, or not of this shape.
    fn decode_list(json: &[u8]) -> serde_json::Result<List<Self>>;

    /// The object as JSON.
    ///
    /// # Errors
    /// None of the kinds here; the encoder's own.
    fn encode(&self) -> serde_json::Result<Vec<u8>>;
}

impl Decode for serde_json::Value {
    fn decode(json: &[u8]) -> serde_json::Result<serde_json::Value> {
        serde_json::from_slice(json)
    }
}

/// A list whose objects decode by themselves.
fn list<K: DeserializeOwned>(json: &[u8]) -> serde_json::Result<List<K>> {
    serde_json::from_slice(json)
}

macro_rules! kinds {
    ($($kind:ty),* $(,)?) => {$(
        impl Decode for $kind {
            fn decode(json: &[u8]) -> serde_json::Result<$kind> {
                serde_json::from_slice(&lean(json))
            }
        }

        impl Wire for $kind {
            fn decode_list(json: &[u8]) -> serde_json::Result<List<$kind>> {
                list(&lean(json))
            }

            fn encode(&self) -> serde_json::Result<Vec<u8>> {
                serde_json::to_vec(self)
            }
        }
    )*};
}

// The kinds that some part of Sampan reads or writes typed.
kinds!(
    apps::ControllerRevision,
    apps::DaemonSet,
    apps::Deployment,
    apps::ReplicaSet,
    apps::StatefulSet,
    batch::CronJob,
    batch::Job,
    certificates::CertificateSigningRequest,
    coordination::Lease,
    core::ConfigMap,
    core::Endpoints,
    core::Event,
    core::Namespace,
    core::Node,
    core::PersistentVolume,
    core::PersistentVolumeClaim,
    core::Pod,
    core::ReplicationController,
    core::ResourceQuota,
    core::Secret,
    core::Service,
    core::ServiceAccount,
    discovery::EndpointSlice,
    networking::IPAddress,
    networking::ServiceCIDR,
    node::RuntimeClass,
    policy::PodDisruptionBudget,
    rbac::ClusterRole,
    storage::VolumeAttributesClass,
);
