//! Tokens of OpenID Connect issuers, as flags or a structured AuthenticationConfiguration
//! describe them.

mod config;
mod distributed;
mod issuer;
mod mapping;
mod source;

pub use config::{
    AnonymousConfig, AuthenticationConfiguration, ClaimMappings, ClaimOrExpression,
    ClaimValidationRule, ExtraMapping, IssuerConfig, JwtAuthenticator, OidcFlags, PrefixedClaim,
    UserValidationRule,
};
pub use issuer::Issuer;
