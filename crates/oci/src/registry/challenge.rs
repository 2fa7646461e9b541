//! What registries want to see before they answer: passwords, and tokens of their token servers.

use std::collections::HashMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use http::header::{AUTHORIZATION, CONTENT_TYPE, WWW_AUTHENTICATE};
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use serde::Deserialize;

use super::{Client, Credentials, whole};
use crate::error::ImageError;
use crate::reference::Reference;

impl Client {
    pub(super) async fn answer_challenge(
        &self,
        name: &Reference,
        response: &Response<Incoming>,
    ) -> Result<(), ImageError> {
        let challenges: Vec<&str> = response
            .headers()
            .get_all(WWW_AUTHENTICATE)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .collect();
        let basic = || {
            let Credentials {
                username, password, ..
            } = &self.endpoint.credentials;
            format!("Basic {}", BASE64.encode(format!("{username}:{password}")))
        };
        let anonymous = self.endpoint.credentials.username.is_empty();
        let authorization =
            if let Some(bearer) = challenges.iter().find_map(|c| without_scheme(c, "bearer")) {
                let token = self
                    .token(name, &parameters(bearer), (!anonymous).then(basic))
                    .await?;
                format!("Bearer {token}")
            } else if challenges
                .iter()
                .any(|c| without_scheme(c, "basic").is_some())
                && !anonymous
            {
                basic()
            } else {
                let why = "the registry wants credentials".to_owned();
                return Err(ImageError::Denied(name.to_string(), why));
            };
        *self.lock() = Some(authorization);
        Ok(())
    }

    /// Asks the token server the challenge names.
    async fn token(
        &self,
        name: &Reference,
        challenge: &HashMap<String, String>,
        basic: Option<String>,
    ) -> Result<String, ImageError> {
        let realm = challenge
            .get("realm")
            .map(String::as_str)
            .unwrap_or_default();
        let scopes = match &self.scopes {
            Some(scopes) => scopes.clone(),
            None => {
                let repository = self.endpoint.repository(&name.repository);
                vec![format!("repository:{repository}:pull")]
            }
        };
        let mut query: Vec<_> = scopes.into_iter().map(|scope| ("scope", scope)).collect();
        if let Some(service) = challenge.get("service") {
            query.push(("service", service.clone()));
        }
        let identity = &self.endpoint.credentials.identity_token;
        let request = if identity.is_empty() {
            let separator = if realm.contains('?') { '&' } else { '?' };
            let mut request = Request::get(format!("{realm}{separator}{}", form(&query)));
            if let Some(basic) = basic {
                request = request.header(AUTHORIZATION, basic);
            }
            request.body(Full::default())
        } else {
            query.push(("grant_type", "refresh_token".to_owned()));
            query.push(("refresh_token", identity.clone()));
            query.push(("client_id", "sampan".to_owned()));
            let request =
                Request::post(realm).header(CONTENT_TYPE, "application/x-www-form-urlencoded");
            request.body(Full::from(form(&query)))
        };
        let response = self.send(request).await?;
        let status = response.status();
        let body = whole(response).await?;
        if status == StatusCode::UNAUTHORIZED && self.scopes.as_ref().is_some_and(Vec::is_empty) {
            let why = "incorrect username or password".to_owned();
            return Err(ImageError::Denied(name.to_string(), why));
        }
        if !status.is_success() {
            return Err(ImageError::Denied(
                name.to_string(),
                format!("token server: {status}"),
            ));
        }
        #[derive(Deserialize)]
        struct Token {
            #[serde(default)]
            token: String,
            #[serde(default)]
            access_token: String,
        }
        let fault = |error| ImageError::Registry(format!("token server: {error}"));
        let token: Token = serde_json::from_slice(&body).map_err(fault)?;
        Ok(if token.token.is_empty() {
            token.access_token
        } else {
            token.token
        })
    }
}

/// The rest of a challenge of this scheme.
fn without_scheme<'a>(challenge: &'a str, scheme: &str) -> Option<&'a str> {
    let (first, rest) = challenge
        .trim()
        .split_once(' ')
        .unwrap_or((challenge.trim(), ""));
    first.eq_ignore_ascii_case(scheme).then_some(rest)
}

/// `a="b",c=d` as a map.
fn parameters(text: &str) -> HashMap<String, String> {
    let mut found = HashMap::new();
    let mut rest = text;
    while let Some((key, after)) = rest.split_once('=') {
        let (value, next) = match after.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').unwrap_or((quoted, "")),
            None => after.split_once(',').unwrap_or((after, "")),
        };
        found.insert(
            key.trim_matches([',', ' ']).to_ascii_lowercase(),
            value.to_owned(),
        );
        rest = next;
    }
    found
}

fn form(pairs: &[(&str, String)]) -> String {
    let encoded = |text: &str| {
        let mut out = String::new();
        for byte in text.bytes() {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                    out.push(byte.into())
                }
                _ => out.push_str(&format!("%{byte:02X}")),
            }
        }
        out
    };
    let pairs: Vec<String> = pairs
        .iter()
        .map(|(key, value)| format!("{key}={}", encoded(value)))
        .collect();
    pairs.join("&")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_taken_apart() {
        let text = r#"Bearer realm="https://auth.example/token?x=1",service="r, e",scope="repository:a:pull""#;
        let found = parameters(without_scheme(text, "bearer").unwrap());
        assert_eq!(found["realm"], "https://auth.example/token?x=1");
        assert_eq!(found["service"], "r, e");
        assert!(without_scheme("Basic realm=\"x\"", "bearer").is_none());
    }

    #[test]
    fn forms_are_escaped() {
        assert_eq!(
            form(&[("a", "b c:/d".to_owned()), ("e", "f".to_owned())]),
            "a=b%20c%3A%2Fd&e=f"
        );
    }
}
