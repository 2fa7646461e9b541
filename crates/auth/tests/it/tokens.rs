//! Tokens: what is signed, what holds, and what no longer does.

use std::collections::HashMap;
use std::sync::Arc;

use auth::token::{Bound, DEFAULT_ISSUER, Found, PROJECTED_SECONDS, Ref, TokenError};
use auth::{Authenticator, Identity, TokenLookup, TokenSigner, TokenSpec};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

/// `resource/namespace/name` → what is found.
struct World(HashMap<String, Found>);

impl TokenLookup for World {
    fn find(&self, resource: &str, namespace: &str, name: &str) -> Option<Found> {
        self.0
            .get(&format!("{resource}/{namespace}/{name}"))
            .cloned()
    }
}

fn world(things: &[(&str, &str)]) -> World {
    let found = |uid: &str| Found {
        uid: uid.into(),
        deleted_at: None,
    };
    World(
        things
            .iter()
            .map(|(key, uid)| ((*key).to_owned(), found(uid)))
            .collect(),
    )
}

fn usual() -> World {
    world(&[
        ("serviceaccounts/default/web", "sa-uid"),
        ("pods/default/web-0", "pod-uid"),
        ("nodes//a", "node-uid"),
    ])
}

fn signer() -> TokenSigner {
    TokenSigner::new(&auth::certificate::new_key().unwrap(), DEFAULT_ISSUER).unwrap()
}

fn named(name: &str, uid: &str) -> Ref {
    Ref {
        name: name.into(),
        uid: uid.into(),
    }
}

fn spec() -> TokenSpec {
    TokenSpec {
        namespace: "default".into(),
        service_account: named("web", "sa-uid"),
        audiences: Vec::new(),
        expiration_seconds: 3600,
        bound: Some(Bound::Pod {
            pod: named("web-0", "pod-uid"),
            node: Some(named("a", "node-uid")),
        }),
    }
}

fn payload(token: &str) -> Value {
    let part = token.split('.').nth(1).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}

fn hours(count: i64) -> SignedDuration {
    SignedDuration::from_hours(count)
}

fn why(result: Result<(Identity, Vec<String>), TokenError>) -> String {
    result.unwrap_err().to_string()
}

#[test]
fn a_bound_token_names_pod_and_node() {
    let (signer, now) = (signer(), Timestamp::now());
    let (token, until) = signer.sign(&spec(), now).unwrap();
    assert_eq!(until.as_second(), now.as_second() + 3600);
    let claims = payload(&token);
    assert_eq!(claims["iss"], DEFAULT_ISSUER);
    assert_eq!(claims["sub"], "system:serviceaccount:default:web");
    assert_eq!(claims["aud"], json!([DEFAULT_ISSUER]));
    assert_eq!(
        claims["kubernetes.io"],
        json!({"namespace": "default", "serviceaccount": {"name": "web", "uid": "sa-uid"},
            "pod": {"name": "web-0", "uid": "pod-uid"}, "node": {"name": "a", "uid": "node-uid"}})
    );
    let (identity, audiences) = signer.verify(&token, &[], &usual(), now).unwrap();
    assert_eq!(audiences, [DEFAULT_ISSUER]);
    assert_eq!(identity.name, "system:serviceaccount:default:web");
    assert_eq!(identity.uid, "sa-uid");
    assert_eq!(
        identity.groups,
        [
            "system:serviceaccounts",
            "system:serviceaccounts:default",
            "system:authenticated"
        ]
    );
    let extra =
        |key: &str| identity.extra[&format!("authentication.kubernetes.io/{key}")].join(",");
    assert_eq!(
        (extra("pod-name"), extra("pod-uid")),
        ("web-0".into(), "pod-uid".into())
    );
    assert_eq!(
        (extra("node-name"), extra("node-uid")),
        ("a".into(), "node-uid".into())
    );
    assert_eq!(
        extra("credential-id"),
        format!("JTI={}", claims["jti"].as_str().unwrap())
    );
}

#[test]
fn projected_tokens_outlive_what_they_say() {
    let (signer, now) = (signer(), Timestamp::now());
    let asked = TokenSpec {
        expiration_seconds: PROJECTED_SECONDS,
        ..spec()
    };
    let (token, until) = signer.sign(&asked, now).unwrap();
    assert_eq!(until.as_second(), now.as_second() + PROJECTED_SECONDS);
    let claims = payload(&token);
    assert_eq!(
        claims["kubernetes.io"]["warnafter"],
        now.as_second() + PROJECTED_SECONDS
    );
    assert_eq!(claims["exp"], now.as_second() + 365 * 24 * 3600);
    let foreign = TokenSpec {
        audiences: vec!["vault".into()],
        ..asked
    };
    let (token, _) = signer.sign(&foreign, now).unwrap();
    assert_eq!(payload(&token)["exp"], now.as_second() + PROJECTED_SECONDS);
}

#[test]
fn a_token_dies_with_time_and_with_what_it_is_bound_to() {
    let (signer, now) = (signer(), Timestamp::now());
    let (token, _) = signer.sign(&spec(), now).unwrap();
    let check = |world: &World, at: Timestamp| signer.verify(&token, &[], world, at);
    assert!(check(&usual(), now + hours(1)).is_ok());
    assert_eq!(
        why(check(&usual(), now + hours(2))),
        "service account token has expired"
    );
    assert_eq!(
        why(check(&usual(), now - hours(1))),
        "service account token is not valid yet"
    );
    let no_pod = world(&[("serviceaccounts/default/web", "sa-uid")]);
    assert_eq!(
        why(check(&no_pod, now)),
        "service account token has been invalidated"
    );
    let other_pod = world(&[
        ("serviceaccounts/default/web", "sa-uid"),
        ("pods/default/web-0", "new"),
    ]);
    assert_eq!(
        why(check(&other_pod, now)),
        "pod UID (new) does not match service account pod ref claim (pod-uid)"
    );
    let other_account = world(&[
        ("serviceaccounts/default/web", "new"),
        ("pods/default/web-0", "pod-uid"),
    ]);
    assert_eq!(
        why(check(&other_account, now)),
        "service account UID (new) does not match claim (sa-uid)"
    );
    assert_eq!(
        why(check(&world(&[]), now)),
        "serviceaccounts \"web\" not found"
    );
    let mut dying = usual();
    dying.0.get_mut("pods/default/web-0").unwrap().deleted_at = Some(now);
    assert!(check(&dying, now + SignedDuration::from_secs(30)).is_ok());
    assert!(check(&dying, now + SignedDuration::from_secs(90)).is_err());
}

#[test]
fn audiences_must_meet() {
    let (signer, now) = (signer(), Timestamp::now());
    let asked = TokenSpec {
        audiences: vec!["vault".into(), "x".into()],
        ..spec()
    };
    let (token, _) = signer.sign(&asked, now).unwrap();
    let refusal = why(signer.verify(&token, &[], &usual(), now));
    assert!(
        refusal.starts_with("token audiences [\"vault\", \"x\"] is invalid"),
        "{refusal}"
    );
    let (_, audiences) = signer
        .verify(&token, &["vault".into()], &usual(), now)
        .unwrap();
    assert_eq!(audiences, ["vault"]);
}

#[test]
fn forged_tokens_do_not_hold() {
    let (ours, now) = (signer(), Timestamp::now());
    let (theirs, _) = signer().sign(&spec(), now).unwrap();
    assert!(ours.verify(&theirs, &[], &usual(), now).is_err());
    let (token, _) = ours.sign(&spec(), now).unwrap();
    let parts: Vec<&str> = token.split('.').collect();
    let mut claims = payload(&token);
    claims["sub"] = "system:serviceaccount:kube-system:admin".into();
    claims["kubernetes.io"]["namespace"] = "kube-system".into();
    let forged = URL_SAFE_NO_PAD.encode(claims.to_string());
    let none = URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#);
    for bad in [
        format!("{}.{forged}.{}", parts[0], parts[2]),
        format!("{none}.{forged}."),
        format!("{none}.{}.", parts[1]),
        format!("{}.{}.AAAA", parts[0], parts[1]),
        String::new(),
        "..".into(),
        "a.b".into(),
        "x".repeat(100_000),
    ] {
        assert!(ours.verify(&bad, &[], &usual(), now).is_err(), "{bad:.40}");
    }
}

#[test]
fn strangers_can_verify_with_the_key_set() {
    let (signer, now) = (signer(), Timestamp::now());
    let (token, _) = signer.sign(&spec(), now).unwrap();
    let set = signer.key_set();
    let key = &set["keys"][0];
    let mut point = vec![4];
    for coordinate in ["x", "y"] {
        let text = key[coordinate].as_str().unwrap();
        point.extend(URL_SAFE_NO_PAD.decode(text).unwrap());
    }
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let algorithm = &aws_lc_rs::signature::ECDSA_P256_SHA256_FIXED;
    aws_lc_rs::signature::UnparsedPublicKey::new(algorithm, point)
        .verify(
            signed.as_bytes(),
            &URL_SAFE_NO_PAD.decode(signature).unwrap(),
        )
        .unwrap();
    let document = signer.discovery("192.0.2.1:6443");
    assert_eq!(
        document["jwks_uri"],
        "https://192.0.2.1:6443/openid/v1/jwks"
    );
    assert_eq!(document["issuer"], DEFAULT_ISSUER);
}

#[test]
fn requests_are_authenticated_in_order() {
    let signer = Arc::new(signer());
    let (token, _) = signer.sign(&spec(), Timestamp::now()).unwrap();
    let authenticator = Authenticator::new(Arc::clone(&signer))
        .static_tokens("# people\nsecret,jane,7,\"dev,ops\"\n")
        .unwrap();
    let who = |certificate: Option<&Identity>, header: Option<&str>| {
        let found = authenticator.authenticate(certificate, header, &usual());
        found
            .map(|identity| identity.name)
            .map_err(|status| (status.code, status.message))
    };
    let admin = Identity::user("kubernetes-admin", &["system:masters"]);
    let unauthorized = Err((401, "Unauthorized".to_owned()));
    assert_eq!(
        who(Some(&admin), Some("Bearer nonsense")),
        Ok("kubernetes-admin".into())
    );
    assert_eq!(who(None, None), Ok("system:anonymous".into()));
    assert_eq!(who(None, Some("Basic eDp5")), Ok("system:anonymous".into()));
    assert_eq!(who(None, Some("Bearer nonsense")), unauthorized);
    assert_eq!(who(None, Some("bearer secret")), Ok("jane".into()));
    // Twice: once verified, once from memory.
    for _ in 0..2 {
        let name = who(None, Some(&format!("Bearer {token}")));
        assert_eq!(name, Ok("system:serviceaccount:default:web".into()));
    }
    let gone = authenticator.authenticate(None, Some(&format!("Bearer {token}")), &world(&[]));
    assert_eq!(gone.unwrap_err().code, 401);
    let strict = Authenticator::new(signer).anonymous(false);
    assert_eq!(
        strict.authenticate(None, None, &usual()).unwrap_err().code,
        401
    );
    assert!(
        Authenticator::new(Arc::new(self::signer()))
            .static_tokens("lonely")
            .is_err()
    );
}

#[test]
fn reviews_tell_who_and_why_not() {
    let signer = Arc::new(signer());
    let (token, _) = signer.sign(&spec(), Timestamp::now()).unwrap();
    let authenticator = Authenticator::new(signer);
    let status = authenticator.review(&token, &[], &usual());
    assert_eq!(status["authenticated"], true);
    assert_eq!(
        status["user"]["username"],
        "system:serviceaccount:default:web"
    );
    assert_eq!(status["audiences"], json!([DEFAULT_ISSUER]));
    let status = authenticator.review(&token, &[], &world(&[]));
    assert_eq!(status["error"], "serviceaccounts \"web\" not found");
    assert!(status.get("authenticated").is_none());
}

#[test]
fn no_changed_token_holds() {
    let (signer, now) = (signer(), Timestamp::now());
    let (token, _) = signer.sign(&spec(), now).unwrap();
    for index in 0..token.len() {
        for letter in ["A", "B", "-", ".", "", "=="] {
            let changed = format!("{}{letter}{}", &token[..index], &token[index + 1..]);
            if changed != token {
                assert!(
                    signer.verify(&changed, &[], &usual(), now).is_err(),
                    "{index} {letter}"
                );
            }
        }
    }
}
