//! Tokens of OpenID Connect issuers, as flags or a structured AuthenticationConfiguration
//! describe them.

mod config;
mod issuer;
mod mapping;

pub use config::{
    AnonymousConfig, AuthenticationConfiguration, ClaimMappings, ClaimOrExpression,
    ClaimValidationRule, ExtraMapping, IssuerConfig, JwtAuthenticator, OidcFlags, PrefixedClaim,
    UserValidationRule,
};
pub use issuer::Issuer;
