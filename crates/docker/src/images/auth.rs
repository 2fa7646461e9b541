//! Who asks a registry: credentials, `login`, and what a registry says without a pull.

use base64::Engine as _;
use base64::alphabet::URL_SAFE;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use http::StatusCode;
use oci::{Credentials, ImageError, Reference};
use serde::Deserialize;
use serde_json::json;

use super::with_tag;
use crate::answer::{self, Answer, Fault};
use crate::call::Call;

/// What `X-Registry-Auth` holds.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(crate) struct Auth {
    username: String,
    password: String,
    identitytoken: String,
    registrytoken: String,
    serveraddress: String,
}

impl Auth {
    pub(crate) fn into_credentials(self) -> Credentials {
        Credentials {
            username: self.username,
            password: self.password,
            identity_token: self.identitytoken,
            registry_token: self.registrytoken,
        }
    }
}

/// Docker's base64: for URLs, with or without padding.
pub(crate) const BASE64: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Credentials in the header's base64 of JSON, with or without padding.
pub(super) fn credentials(header: Option<&str>) -> Result<Credentials, Fault> {
    let text = header.unwrap_or_default();
    if text.is_empty() {
        return Ok(Credentials::default());
    }
    let bytes = BASE64
        .decode(text)
        .map_err(|error| Fault::bad(format!("invalid X-Registry-Auth header: {error}")))?;
    let auth: Auth = match bytes.is_empty() {
        true => Auth::default(),
        false => serde_json::from_slice(&bytes)
            .map_err(|error| Fault::bad(format!("invalid X-Registry-Auth header: {error}")))?,
    };
    Ok(auth.into_credentials())
}

/// `POST /auth`.
pub(crate) async fn login(mut call: Call) -> Answer {
    let auth: Auth = call.body().await?;
    let server = match auth.serveraddress.as_str() {
        "" => "https://index.docker.io/v1/".to_owned(),
        server => server.to_owned(),
    };
    let options = call.daemon.engine.registries();
    match oci::login(options, &server, &auth.into_credentials()).await {
        Ok(()) => answer::ok(&json!({"Status": "Login Succeeded", "IdentityToken": ""})),
        Err(ImageError::Denied(what, why)) => {
            let why = if why.is_empty() {
                "incorrect username or password"
            } else {
                &why
            };
            let message = format!("Get {what:?}: unauthorized: {why}");
            Err(Fault::new(StatusCode::UNAUTHORIZED, message))
        }
        Err(error) => Err(Fault::internal(error)),
    }
}

/// `GET /distribution/{name}/json`.
pub(crate) async fn distribution(call: Call, name: &str) -> Answer {
    let reference: Reference = with_tag(name).parse().map_err(Fault::from)?;
    let credentials = credentials(call.header("x-registry-auth"))?;
    let options = call.daemon.engine.registries();
    let found = oci::look(options, &reference, &credentials).await?;
    let platforms = found
        .platforms
        .iter()
        .map(|platform| json!({"architecture": platform.architecture, "os": platform.os}));
    answer::ok(&json!({
        "Descriptor": {
            "mediaType": found.descriptor.media_type, "digest": found.descriptor.digest,
            "size": found.descriptor.size,
        },
        "Platforms": platforms.collect::<Vec<_>>(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_with_and_without_padding() {
        // {"username":"u","password":"p"}
        for text in [
            "eyJ1c2VybmFtZSI6InUiLCJwYXNzd29yZCI6InAifQ==",
            "eyJ1c2VybmFtZSI6InUiLCJwYXNzd29yZCI6InAifQ",
        ] {
            let found = credentials(Some(text)).unwrap();
            assert_eq!(
                (found.username.as_str(), found.password.as_str()),
                ("u", "p")
            );
        }
        assert!(credentials(Some("e30=")).unwrap() == Credentials::default());
        assert!(credentials(Some("%%")).is_err());
    }
}
