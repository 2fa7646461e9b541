//! Bootstrap tokens, `<id>.<secret>`: secrets of `kube-system` by which a new machine is let in.

use std::collections::BTreeSet;
use std::time::Duration;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jiff::Timestamp;
use meta::Object;

use crate::identity::Identity;

/// The type of the secrets.
pub const TYPE: &str = "bootstrap.kubernetes.io/token";
/// Their names begin so; the id follows.
pub const PREFIX: &str = "bootstrap-token-";
/// The group of all bootstrap users.
const GROUP: &str = "system:bootstrappers";

/// Whether a text is the id of a token.
pub fn is_id(text: &str) -> bool {
    is_word(text, 6)
}

fn is_word(text: &str, length: usize) -> bool {
    let good = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    text.len() == length && text.bytes().all(good)
}

/// Id and secret of a bearer token that looks like one.
pub fn split(token: &str) -> Option<(&str, &str)> {
    let (id, secret) = token.split_once('.')?;
    (is_id(id) && is_word(secret, 16)).then_some((id, secret))
}

/// How long a token lives still: [`Duration::MAX`] without end, `None` when it has ended (or its
/// end cannot be read).
pub fn time_left(expiration: &str, now: Timestamp) -> Option<Duration> {
    if expiration.is_empty() {
        return Some(Duration::MAX);
    }
    let end: Timestamp = expiration.parse().ok()?;
    let left = Duration::try_from(end.duration_since(now)).ok()?;
    (!left.is_zero()).then_some(left)
}

/// The user of a bearer token, judged by the secret of its id in `kube-system`.
pub fn authenticate(token: &str, secret: &Object, now: Timestamp) -> Option<Identity> {
    let (id, given) = split(token)?;
    let field = |key: &str| -> String {
        let encoded = secret.0.pointer(&format!("/data/{key}"));
        let bytes = STANDARD.decode(encoded.and_then(|text| text.as_str()).unwrap_or_default());
        String::from_utf8(bytes.unwrap_or_default()).unwrap_or_default()
    };
    let refused = |why: &str| {
        tracing::debug!(secret = secret.name(), "bootstrap secret {why}");
        None
    };
    if secret.deletion_timestamp().is_some() {
        return refused("is deleted and awaiting removal");
    }
    if secret.text("/type") != TYPE {
        return refused("has invalid type");
    }
    if verify_slices_are_equal(field("token-secret").as_bytes(), given.as_bytes()).is_err() {
        return refused("has invalid value for key token-secret");
    }
    if field("token-id") != id {
        return refused("has invalid value for key token-id");
    }
    if time_left(&field("expiration"), now).is_none() {
        return refused("has expired");
    }
    if field("usage-bootstrap-authentication") != "true" {
        return refused("is not marked usage-bootstrap-authentication=true");
    }
    let mut groups = BTreeSet::from([GROUP.to_owned()]);
    let extra = field("auth-extra-groups");
    for group in extra.split(',').filter(|_| !extra.is_empty()) {
        if !is_group(group) {
            return refused("has invalid value for key auth-extra-groups");
        }
        groups.insert(group.to_owned());
    }
    let groups: Vec<&str> = groups.iter().map(String::as_str).collect();
    Some(Identity::user(&format!("system:bootstrap:{id}"), &groups))
}

/// `system:bootstrappers:` and at most 256 small letters, digits, colons and dashes that end in a
/// letter or digit.
fn is_group(group: &str) -> bool {
    let Some(rest) = group.strip_prefix("system:bootstrappers:") else {
        return false;
    };
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let good = rest
        .bytes()
        .all(|byte| plain(byte) || byte == b':' || byte == b'-');
    (1..=256).contains(&rest.len()) && good && rest.bytes().last().is_some_and(plain)
}

/// A signature (JWS, HS256) of `content` by a token, without the content.
pub fn detached_signature(content: &str, id: &str, secret: &str) -> String {
    let header = serde_json::json!({"alg": "HS256", "kid": id}).to_string();
    let header = URL_SAFE_NO_PAD.encode(header);
    let signed = format!("{header}.{}", URL_SAFE_NO_PAD.encode(content));
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let signature = URL_SAFE_NO_PAD.encode(hmac::sign(&key, signed.as_bytes()));
    format!("{header}..{signature}")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn secret(changes: &[(&str, &str)]) -> Object {
        let mut data = json!({});
        let usual = [
            ("token-id", "abcdef"),
            ("token-secret", "0123456789abcdef"),
            ("usage-bootstrap-authentication", "true"),
        ];
        for (key, value) in usual.iter().chain(changes) {
            data[*key] = STANDARD.encode(value).into();
        }
        Object(json!({"metadata": {"name": "bootstrap-token-abcdef"}, "type": TYPE, "data": data}))
    }

    fn groups(changes: &[(&str, &str)]) -> Option<Vec<String>> {
        let now = "2026-01-01T00:00:00Z".parse().unwrap();
        let user = authenticate("abcdef.0123456789abcdef", &secret(changes), now)?;
        assert_eq!(user.name, "system:bootstrap:abcdef");
        Some(user.groups)
    }

    #[test]
    fn only_good_tokens_let_in() {
        let all = ["system:bootstrappers", "system:authenticated"];
        assert_eq!(groups(&[]).unwrap(), all);
        assert_eq!(
            groups(&[("expiration", "2026-01-01T00:00:01Z")]).unwrap(),
            all
        );
        let extra = groups(&[("auth-extra-groups", "system:bootstrappers:kubeadm")]).unwrap();
        assert!(extra.contains(&"system:bootstrappers:kubeadm".to_owned()));
        for bad in [
            ("expiration", "2026-01-01T00:00:00Z"),
            ("expiration", "tomorrow"),
            ("token-id", "abcdeg"),
            ("token-secret", "0123456789abcdeg"),
            ("usage-bootstrap-authentication", "yes"),
            ("auth-extra-groups", "system:masters"),
            ("auth-extra-groups", "system:bootstrappers:"),
        ] {
            assert_eq!(groups(&[bad]), None, "{bad:?}");
        }
        let now = Timestamp::now();
        assert_eq!(
            authenticate("ABCDEF.0123456789abcdef", &secret(&[]), now),
            None
        );
        assert_eq!(authenticate("abcdef", &secret(&[]), now), None);
        let mut other = secret(&[]);
        other.0["type"] = Value::from("Opaque");
        assert_eq!(authenticate("abcdef.0123456789abcdef", &other, now), None);
    }

    #[test]
    fn signatures_are_those_of_kubeadm() {
        // From upstream's test of the same function.
        let content = "Hello from the other side. I must have called a thousand times.";
        assert_eq!(
            detached_signature(content, "joshua", "my voice is my passcode"),
            "eyJhbGciOiJIUzI1NiIsImtpZCI6Impvc2h1YSJ9..VShe2taLd-YTrmWuRkcL_8QTNDHYxQIEBsAYYiIj1_8"
        );
    }
}
