//! Tokens: what is signed, what holds, and what no longer does.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use auth::token::{Bearer, Bound, DEFAULT_ISSUER, Found, PROJECTED_SECONDS, Ref, TokenError};
use auth::{Anonymous, Authenticator, TokenLookup, TokenSigner, TokenSpec};
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

    fn object(&self, _: &str, _: &str, _: &str) -> Option<Arc<meta::Object>> {
        None
    }
}

/// A world without anything.
pub(crate) struct Nothing;

impl TokenLookup for Nothing {
    fn find(&self, _: &str, _: &str, _: &str) -> Option<Found> {
        None
    }

    fn object(&self, _: &str, _: &str, _: &str) -> Option<Arc<meta::Object>> {
        None
    }
}

/// Objects themselves, for tokens that live in secrets.
struct Objects(Mutex<HashMap<String, meta::Object>>);

impl TokenLookup for Objects {
    fn find(&self, resource: &str, namespace: &str, name: &str) -> Option<Found> {
        let object = self.object(resource, namespace, name)?;
        Some(Found {
            uid: object.uid().into(),
            deleted_at: None,
        })
    }

    fn object(&self, resource: &str, namespace: &str, name: &str) -> Option<Arc<meta::Object>> {
        let objects = self.0.lock().unwrap();
        objects
            .get(&format!("{resource}/{namespace}/{name}"))
            .cloned()
            .map(Arc::new)
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

fn why(result: Result<Bearer, TokenError>) -> String {
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
    let bearer = signer.verify(&token, &[], &usual(), now).unwrap();
    let (identity, audiences) = (bearer.identity, bearer.audiences);
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
        refusal.starts_with("token audiences [\"vault\" \"x\"] is invalid"),
        "{refusal}"
    );
    let bearer = signer.verify(&token, &["vault".into()], &usual(), now);
    assert_eq!(bearer.unwrap().audiences, ["vault"]);
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
    let document = signer.discovery("192.0.2.1:6443").unwrap();
    assert_eq!(
        document["jwks_uri"],
        "https://192.0.2.1:6443/openid/v1/jwks"
    );
    assert_eq!(document["issuer"], DEFAULT_ISSUER);
}

#[tokio::test]
async fn requests_are_authenticated_in_order() {
    let signer = Arc::new(signer());
    let (token, _) = signer.sign(&spec(), Timestamp::now()).unwrap();
    let authenticator = Authenticator::new(Arc::clone(&signer))
        .static_tokens("# people\nsecret,jane,7,\"dev,ops\"\n")
        .unwrap();
    let unauthorized = Err((401, "Unauthorized".to_owned()));
    for (header, wanted) in [
        ("", Ok("system:anonymous".to_owned())),
        ("Basic eDp5", Ok("system:anonymous".into())),
        ("Bearer nonsense", unauthorized.clone()),
        ("bearer secret", Ok("jane".into())),
    ] {
        assert_eq!(
            who(&authenticator, header, &usual()).await,
            wanted,
            "{header}"
        );
    }
    // Twice: once verified, once from memory.
    let header = format!("Bearer {token}");
    for _ in 0..2 {
        let name = who(&authenticator, &header, &usual()).await;
        assert_eq!(name, Ok("system:serviceaccount:default:web".into()));
    }
    let gone = who(&authenticator, &header, &world(&[])).await;
    assert_eq!(gone, unauthorized);
    let strict = Authenticator::new(Arc::clone(&signer)).anonymous(Anonymous {
        enabled: false,
        paths: Vec::new(),
    });
    assert_eq!(who(&strict, "", &usual()).await, unauthorized);
    let health = Authenticator::new(Arc::clone(&signer)).anonymous(Anonymous {
        enabled: true,
        paths: vec!["/healthz".into()],
    });
    assert_eq!(who(&health, "", &usual()).await, unauthorized);
    let health = Authenticator::new(signer).anonymous(Anonymous {
        enabled: true,
        paths: vec!["/api".into()],
    });
    assert_eq!(
        who(&health, "", &usual()).await,
        Ok("system:anonymous".into())
    );
    assert!(
        Authenticator::new(Arc::new(self::signer()))
            .static_tokens("lonely")
            .is_err()
    );
}

/// Who sends a request for `/api` with this `Authorization`.
async fn who(
    authenticator: &Authenticator,
    header: &str,
    lookup: &dyn TokenLookup,
) -> Result<String, (u16, String)> {
    let mut headers = http::HeaderMap::new();
    if !header.is_empty() {
        headers.insert("authorization", header.parse().unwrap());
    }
    let peer = auth::Peer::default();
    let found = authenticator
        .authenticate(&peer, &headers, "/api", lookup)
        .await;
    found
        .map(|found| found.identity.name)
        .map_err(|status| (status.code, status.message))
}

#[tokio::test]
async fn browsers_show_tokens_as_protocols() {
    let authenticator = Authenticator::new(Arc::new(signer()))
        .static_tokens("secret,jane,7")
        .unwrap();
    let mut headers = http::HeaderMap::new();
    let offer = format!(
        "base64url.bearer.authorization.k8s.io.{}, v5.channel.k8s.io",
        URL_SAFE_NO_PAD.encode("secret")
    );
    headers.insert("sec-websocket-protocol", offer.parse().unwrap());
    let peer = auth::Peer::default();
    let found = authenticator
        .authenticate(&peer, &headers, "/", &Nothing)
        .await
        .unwrap();
    assert_eq!(found.identity.name, "jane");
    authenticator.strip(&mut headers);
    assert_eq!(headers["sec-websocket-protocol"], "v5.channel.k8s.io");
}

#[tokio::test]
async fn reviews_tell_who_and_why_not() {
    let signer = Arc::new(signer());
    let (token, _) = signer.sign(&spec(), Timestamp::now()).unwrap();
    let authenticator = Authenticator::new(signer);
    let status = authenticator.review(&token, &[], &usual()).await.0;
    assert_eq!(status["authenticated"], true);
    assert_eq!(
        status["user"]["username"],
        "system:serviceaccount:default:web"
    );
    assert_eq!(status["audiences"], json!([DEFAULT_ISSUER]));
    let status = authenticator.review(&token, &[], &world(&[])).await.0;
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

#[test]
fn tokens_in_secrets_live_as_long_as_these() {
    use base64::Engine;
    let signer = signer();
    let account = Ref {
        name: "robot".into(),
        uid: "u1".into(),
    };
    let token = signer
        .sign_legacy("default", &account, "robot-token")
        .unwrap();
    let encoded = base64::engine::general_purpose::STANDARD.encode(&token);
    let secret = |labels: serde_json::Value, token: &str| {
        meta::Object(
            json!({"metadata": {"name": "robot-token", "uid": "s1", "labels": labels},
            "data": {"token": token}}),
        )
    };
    let objects = Objects(Mutex::default());
    let put = |key: &str, object: meta::Object| {
        objects.0.lock().unwrap().insert(key.to_owned(), object);
    };
    let now: Timestamp = "2026-03-01T12:00:00Z".parse().unwrap();
    let check = || signer.verify(&token, &[], &objects, now);
    assert_eq!(why(check()), "Token has been invalidated");
    put("secrets/default/robot-token", secret(json!({}), "b3RoZXI="));
    assert_eq!(why(check()), "Token does not match server's copy");
    put("secrets/default/robot-token", secret(json!({}), &encoded));
    assert_eq!(why(check()), "serviceaccounts \"robot\" not found");
    let robot = json!({"metadata": {"name": "robot", "uid": "u1"},
        "secrets": [{"name": "robot-token"}]});
    put("serviceaccounts/default/robot", meta::Object(robot));
    let bearer = check().unwrap();
    assert_eq!(bearer.identity.name, "system:serviceaccount:default:robot");
    assert!(
        bearer
            .warning
            .is_some_and(|text| text.contains("TokenRequest"))
    );
    assert_eq!(
        bearer.used_secret,
        Some(("default".into(), "robot-token".into()))
    );
    let today = json!({"kubernetes.io/legacy-token-last-used": "2026-03-01"});
    put("secrets/default/robot-token", secret(today, &encoded));
    assert_eq!(check().unwrap().used_secret, None);
    let marked = json!({"kubernetes.io/legacy-token-invalid-since": "2026-02-01"});
    put("secrets/default/robot-token", secret(marked, &encoded));
    assert!(why(check()).contains("has been marked invalid"));
    let other = signer.verify(&token, &["vault".into()], &objects, now);
    assert!(why(other).contains("is invalid for the target audiences"));
}

/// Keys of all kinds sign and verify, and those that are named verify alone.
#[test]
fn keys_may_be_several_and_of_several_kinds() {
    use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
    use aws_lc_rs::rsa::{KeyPair, KeySize};
    use aws_lc_rs::signature::KeyPair as _;
    use base64::Engine;
    let pem = |label: &str, der: &[u8]| {
        let text = base64::engine::general_purpose::STANDARD.encode(der);
        let lines: Vec<_> = text.as_bytes().chunks(64).collect();
        let text = String::from_utf8(lines.join(&b'\n')).unwrap();
        format!("-----BEGIN {label}-----\n{text}\n-----END {label}-----\n")
    };
    let pair = KeyPair::generate(KeySize::Rsa2048).unwrap();
    let private: Pkcs8V1Der<'_> = pair.as_der().unwrap();
    let public: PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
    let rsa = pem("PRIVATE KEY", private.as_ref());
    let rsa_public = pem("PUBLIC KEY", public.as_ref());
    let ec = auth::certificate::new_key().unwrap();
    let account = Ref {
        name: "robot".into(),
        uid: "u".into(),
    };
    let token = |signer: &TokenSigner| signer.sign_legacy("a", &account, "s").unwrap();
    let old = TokenSigner::new(&rsa, "https://old").unwrap();
    let new = TokenSigner::new(&ec, "https://new").unwrap();
    let [old_token, new_token] = [token(&old), token(&new)];
    assert!(old.open(&old_token).is_ok());
    let refused = |signer: &TokenSigner, token: &str| signer.open(token).unwrap_err().to_string();
    assert_eq!(
        refused(&new, &old_token),
        "invalid signature, no keys found"
    );
    let both = TokenSigner::new(&ec, "https://new").unwrap();
    let both = both
        .issuers(vec!["https://new".into(), "https://old".into()])
        .verifying(&[rsa_public.clone(), ec.clone()])
        .unwrap();
    assert!(both.open(&old_token).is_ok() && both.open(&new_token).is_ok());
    let keys = both.key_set();
    let shown = |key: &str| {
        let list = keys["keys"].as_array().unwrap().iter();
        list.map(|one| one[key].as_str().unwrap_or_default().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(shown("alg"), ["RS256", "ES256"]);
    assert_eq!(shown("e"), ["AQAB", ""]);
    let document = both.discovery("a:1").unwrap();
    assert_eq!(
        document["id_token_signing_alg_values_supported"],
        json!(["ES256", "RS256"])
    );
    // A key that signs but is not among those that verify.
    let stray = TokenSigner::new(&ec, "https://new").unwrap();
    let stray = stray.verifying(&[rsa_public]).unwrap();
    assert_eq!(
        refused(&stray, &new_token),
        "invalid signature, no keys found"
    );
    // Audiences of our own, a limit, and an issuer that is no address.
    let odd = TokenSigner::new(&ec, "own")
        .unwrap()
        .audiences(vec!["x".into(), "y".into()])
        .limited(Some(3600));
    assert_eq!(odd.discovery("a:1"), None);
    assert_eq!((odd.own().len(), odd.seconds_max()), (2, Some(3600)));
    assert!(TokenSigner::new("no key", "own").is_err());
    assert!(odd.verifying(&["no key".into()]).is_err());
}
