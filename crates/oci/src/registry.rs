//! registry
/// Credentials for one pull.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Credentials {
    pub username: String,
    pub password: String,
    pub identity_token: String,
    pub registry_token: String,
}
/// Options
#[derive(Clone, Debug, Default)]
pub struct RegistryOptions {
    /// Registries (host and port) spoken to over plain HTTP or with any certificate.
    pub insecure: Vec<String>,
}
