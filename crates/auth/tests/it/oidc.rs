//! Tokens of issuers that are servers of their own: discovery, keys that change, claims that
//! become users.

use std::sync::{Arc, Mutex};

use auth::jwt::{AuthenticationConfiguration, Issuer, JwtAuthenticator, OidcFlags};
use auth::{Authenticator, Pki};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::server::Server;
use crate::tokens::Nothing;

/// A key of an issuer.
enum Key {
    Rsa(RsaKeyPair),
    Ec(EcdsaKeyPair),
}

impl Key {
    fn rsa() -> Key {
        Key::Rsa(RsaKeyPair::generate(KeySize::Rsa2048).unwrap())
    }

    fn ec() -> Key {
        Key::Ec(EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).unwrap())
    }

    fn jwk(&self, id: &str) -> Value {
        let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        match self {
            Key::Rsa(key) => {
                let public = key.public_key();
                json!({"kty": "RSA", "use": "sig", "kid": id, "alg": "RS256",
                    "n": text(public.modulus().big_endian_without_leading_zero()),
                    "e": text(public.exponent().big_endian_without_leading_zero())})
            }
            Key::Ec(key) => {
                let point = key.public_key().as_ref();
                json!({"kty": "EC", "kid": id, "crv": "P-384", "x": text(&point[1..49]),
                    "y": text(&point[49..97])})
            }
        }
    }

    fn token(&self, id: &str, claims: &Value) -> String {
        let algorithm = match self {
            Key::Rsa(_) => "RS256",
            Key::Ec(_) => "ES384",
        };
        let text = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!(
            "{}.{}",
            text(&json!({"alg": algorithm, "kid": id})),
            text(claims)
        );
        let random = SystemRandom::new();
        let signature = match self {
            Key::Rsa(key) => {
                let mut signature = vec![0; key.public_modulus_len()];
                key.sign(
                    &RSA_PKCS1_SHA256,
                    &random,
                    signed.as_bytes(),
                    &mut signature,
                )
                .unwrap();
                signature
            }
            Key::Ec(key) => key
                .sign(&random, signed.as_bytes())
                .unwrap()
                .as_ref()
                .to_vec(),
        };
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

/// An issuer: a server with documents by path, each of which may change.
struct Issuing {
    _server: Server,
    url: String,
    ca: String,
    documents: Documents,
    /// Paths in the order asked for.
    asked: Arc<Mutex<Vec<String>>>,
}

type Documents = Arc<Mutex<Vec<(String, Value)>>>;

impl Issuing {
    async fn start() -> Issuing {
        let (documents, asked) = (Documents::default(), Arc::<Mutex<Vec<String>>>::default());
        let (shown, noted) = (Arc::clone(&documents), Arc::clone(&asked));
        let server = Server::start(Arc::new(move |path, _| {
            noted.lock().unwrap().push(path.to_owned());
            let found = shown
                .lock()
                .unwrap()
                .iter()
                .find(|(own, _)| own == path)
                .cloned();
            found.map_or((404, Value::Null), |(_, document)| (200, document))
        }))
        .await;
        Issuing {
            url: server.url.clone(),
            ca: server.ca.clone(),
            _server: server,
            documents,
            asked,
        }
    }

    fn show(&self, path: &str, document: Value) {
        let mut documents = self.documents.lock().unwrap();
        documents.retain(|(own, _)| own != path);
        documents.push((path.to_owned(), document));
    }

    fn show_keys(&self, keys: &[Value]) {
        self.show("/keys", json!({"keys": keys}));
        let document = json!({"issuer": self.url, "jwks_uri": format!("{}/keys", self.url)});
        self.show("/.well-known/openid-configuration", document);
    }

    fn claims(&self, more: Value) -> Value {
        let now = Timestamp::now().as_second();
        let mut claims = json!({"iss": self.url, "aud": "kubernetes", "sub": "jane",
            "iat": now, "exp": now + 600});
        for (key, value) in more.as_object().unwrap() {
            claims[key] = value.clone();
        }
        claims
    }

    fn flags(&self) -> OidcFlags {
        OidcFlags {
            issuer_url: self.url.clone(),
            client_id: "kubernetes".into(),
            ca: self.ca.clone(),
            ..OidcFlags::default()
        }
    }
}

fn authenticator(issuers: Vec<JwtAuthenticator>) -> Authenticator {
    let dir = tempfile::tempdir().unwrap();
    let pki = Pki::open(dir.path(), &[]).unwrap();
    let signer = Arc::new(pki.token_signer("https://own").unwrap());
    issuers
        .into_iter()
        .fold(Authenticator::new(signer), |authenticator, issuer| {
            authenticator.foreign(Arc::new(Issuer::new(issuer).unwrap()))
        })
}

async fn who(authenticator: &Authenticator, token: &str) -> Result<Value, String> {
    let (status, _) = authenticator.review(token, &[], &Nothing).await;
    match status["authenticated"] == true {
        true => Ok(status["user"].clone()),
        false => Err(status["error"].as_str().unwrap_or_default().to_owned()),
    }
}

#[tokio::test]
async fn keys_are_fetched_and_rotated() {
    let server = Issuing::start().await;
    let (first, second) = (Key::rsa(), Key::ec());
    server.show_keys(&[first.jwk("1")]);
    let mut config = server.flags().structured();
    config.signing_algorithms.clear();
    let authenticator = authenticator(vec![config]);
    let claims = server.claims(json!({}));
    let jane = who(&authenticator, &first.token("1", &claims))
        .await
        .unwrap();
    assert_eq!(jane["username"], format!("{}#jane", server.url));
    assert_eq!(jane["groups"], json!(["system:authenticated"]));
    // A new key signs: it is looked up by itself.
    server.show_keys(&[second.jwk("2")]);
    let rotated = second.token("2", &claims);
    assert_eq!(who(&authenticator, &rotated).await.unwrap(), jane);
    // The old one is gone: what it signs anew no longer holds.
    let later = server.claims(json!({"jti": "other"}));
    let refused = who(&authenticator, &first.token("1", &later))
        .await
        .unwrap_err();
    assert!(
        refused.starts_with("oidc: verify token: failed to verify"),
        "{refused}"
    );
    let asked = server.asked.lock().unwrap().clone();
    assert_eq!(
        asked,
        [
            "/.well-known/openid-configuration",
            "/keys",
            "/keys",
            "/keys"
        ]
    );
    // What is known is not asked for again.
    who(
        &authenticator,
        &second.token("2", &server.claims(json!({"jti": "b"}))),
    )
    .await
    .unwrap();
    assert_eq!(server.asked.lock().unwrap().len(), 4);
}

#[tokio::test]
async fn flags_say_what_claims_mean() {
    let server = Issuing::start().await;
    let key = Key::rsa();
    server.show_keys(&[key.jwk("1")]);
    let flags = OidcFlags {
        username_claim: Some("email".into()),
        groups_claim: Some("roles".into()),
        groups_prefix: Some("oidc:".into()),
        required_claims: vec![("hd".into(), "example.com".into())],
        ..server.flags()
    };
    let authenticator = authenticator(vec![flags.structured()]);
    let good = json!({"email": "jane@example.com", "email_verified": true, "hd": "example.com",
        "roles": ["dev", "ops"], "jti": "7"});
    let ask = async |changes: Value| {
        let mut claims = server.claims(good.clone());
        for (key, value) in changes.as_object().unwrap() {
            claims[key] = value.clone();
        }
        who(&authenticator, &key.token("1", &claims)).await
    };
    let jane = ask(json!({})).await.unwrap();
    assert_eq!(
        jane,
        json!({"username": "jane@example.com",
            "groups": ["oidc:dev", "oidc:ops", "system:authenticated"],
            "extra": {"authentication.kubernetes.io/credential-id": ["JTI=7"]}})
    );
    assert_eq!(
        ask(json!({"roles": "dev"})).await.unwrap()["groups"][0],
        "oidc:dev"
    );
    for (changes, wanted) in [
        (json!({"email_verified": false}), "oidc: email not verified"),
        (json!({"email": 7}), "oidc: parse username claims"),
        (
            json!({"hd": "example.org"}),
            "oidc: required claim hd value does not match",
        ),
        (
            json!({"aud": "other"}),
            "oidc: verify token: oidc: expected audience in",
        ),
        (
            json!({"exp": 1}),
            "oidc: verify token: oidc: token is expired",
        ),
        (
            json!({"nbf": i64::MAX}),
            "oidc: verify token: oidc: current time",
        ),
        (json!({"roles": [1]}), "oidc: parse groups claim"),
    ] {
        let refused = ask(changes.clone()).await.unwrap_err();
        assert!(refused.starts_with(wanted), "{changes}: {refused}");
    }
    // Another issuer's tokens are nobody's.
    assert_eq!(
        ask(json!({"iss": "https://elsewhere"})).await.unwrap_err(),
        "invalid bearer token"
    );
}

#[tokio::test]
async fn several_issuers_with_expressions() {
    let (one, two) = (Issuing::start().await, Issuing::start().await);
    let key = Key::ec();
    one.show_keys(&[key.jwk("1")]);
    // The second one's documents are kept elsewhere.
    two.show(
        "/hidden",
        json!({"issuer": two.url, "jwks_uri": format!("{}/keys", two.url)}),
    );
    two.show("/keys", json!({"keys": [key.jwk("1")]}));
    let file = json!({
        "apiVersion": "apiserver.config.k8s.io/v1", "kind": "AuthenticationConfiguration",
        "jwt": [
            {
                "issuer": {"url": one.url, "certificateAuthority": one.ca, "audiences": ["a", "kubernetes"],
                    "audienceMatchPolicy": "MatchAny"},
                "claimMappings": {
                    "username": {"expression": "\"one:\" + claims.sub"},
                    "groups": {"expression": "claims.roles.split(\",\")"},
                    "uid": {"claim": "sub"},
                    "extra": [{"key": "example.com/level", "valueExpression": "string(claims.level)"}],
                },
                "claimValidationRules": [
                    {"expression": "claims.level > 1", "message": "too low"},
                ],
                "userValidationRules": [
                    {"expression": "!user.username.startsWith(\"one:system:\")", "message": "reserved"},
                    {"expression": "user.groups.all(group, group != \"system:masters\")"},
                ],
            },
            {
                "issuer": {"url": two.url, "certificateAuthority": two.ca, "audiences": ["kubernetes"],
                    "discoveryURL": format!("{}/hidden", two.url)},
                "claimMappings": {"username": {"claim": "sub", "prefix": "two:"}},
            },
        ],
        "anonymous": {"enabled": true, "conditions": [{"path": "/livez"}]},
    });
    let file: AuthenticationConfiguration = serde_json::from_value(file).unwrap();
    let faults = file.faults("https://own");
    assert!(faults.is_empty(), "{}", faults.summary());
    assert_eq!(file.anonymous().unwrap().paths, ["/livez"]);
    let authenticator = authenticator(file.jwt);
    let ask = async |server: &Issuing, more: Value| {
        who(&authenticator, &key.token("1", &server.claims(more))).await
    };
    let jane = ask(&one, json!({"roles": "dev,ops", "level": 2}))
        .await
        .unwrap();
    assert_eq!(
        jane,
        json!({"username": "one:jane", "uid": "jane",
            "groups": ["dev", "ops", "system:authenticated"], "extra": {"example.com/level": ["2"]}})
    );
    assert_eq!(ask(&two, json!({})).await.unwrap()["username"], "two:jane");
    for (claims, wanted) in [
        (json!({"roles": "dev", "level": 1}), "too low"),
        (
            json!({"roles": "dev", "level": 2, "sub": "system:x"}),
            "reserved",
        ),
        (json!({"roles": "system:masters", "level": 2}), "failed"),
        (json!({"level": 2}), "no such key: roles"),
    ] {
        let refused = ask(&one, claims.clone()).await.unwrap_err();
        assert!(refused.contains(wanted), "{claims}: {refused}");
    }
}

#[test]
fn faults_of_the_file_are_told() {
    let check = |jwt: Value| {
        let file = json!({"apiVersion": "apiserver.config.k8s.io/v1",
            "kind": "AuthenticationConfiguration", "jwt": [jwt]});
        let file: AuthenticationConfiguration = serde_json::from_value(file).unwrap();
        file.faults("https://own").summary()
    };
    let username = json!({"username": {"claim": "sub", "prefix": ""}});
    let issuer = json!({"url": "https://a", "audiences": ["x"]});
    for (jwt, wanted) in [
        (
            json!({"issuer": {"url": "http://a?b#c", "audiences": ["x"]}, "claimMappings": username}),
            "URL scheme must be https",
        ),
        (
            json!({"issuer": {"url": "https://own", "audiences": ["x"]}, "claimMappings": username}),
            "URL must not overlap with disallowed issuers: [https://own]",
        ),
        (
            json!({"issuer": {"url": "https://a"}, "claimMappings": username}),
            "at least one jwt[0].issuer.audiences is required",
        ),
        (
            json!({"issuer": {"url": "https://a", "audiences": ["x", "y"]}, "claimMappings": username}),
            "audienceMatchPolicy must be MatchAny for multiple audiences",
        ),
        (json!({"issuer": issuer}), "claim or expression is required"),
        (
            json!({"issuer": issuer, "claimMappings": {"username": {"claim": "sub"}}}),
            "prefix is required when claim is set",
        ),
        (
            json!({"issuer": issuer, "claimMappings": {"username": {"expression": "claims.email"}}}),
            "claims.email_verified must be used",
        ),
        (
            json!({"issuer": issuer, "claimMappings": {"username": {"expression": "claims."}}}),
            "compilation failed",
        ),
        (
            json!({"issuer": issuer, "claimMappings": username,
            "claimValidationRules": [{"expression": "claims.sub"}]}),
            "must evaluate to bool",
        ),
        (
            json!({"issuer": issuer, "claimMappings": {"username": {"claim": "sub", "prefix": ""},
            "extra": [{"key": "kubernetes.io/x", "valueExpression": "claims.a"}]}}),
            "reserved for Kubernetes use",
        ),
    ] {
        let told = check(jwt.clone());
        assert!(told.contains(wanted), "{jwt}: {told}");
    }
    let unknown = json!({"jwt": [{"issuer": {"uri": "x"}}]});
    assert!(serde_json::from_value::<AuthenticationConfiguration>(unknown).is_err());
}

/// The groups of a user are told elsewhere, in a token of another issuer.
#[tokio::test]
async fn groups_may_be_told_elsewhere() {
    let (home, club) = (Issuing::start().await, Issuing::start().await);
    let (own, theirs) = (Key::rsa(), Key::ec());
    home.show_keys(&[own.jwk("a")]);
    club.show_keys(&[theirs.jwk("b")]);
    let flags = OidcFlags {
        groups_claim: Some("groups".into()),
        username_prefix: Some("-".into()),
        signing_algorithms: vec!["RS256".into(), "ES384".into()],
        ca: format!("{}{}", home.ca, club.ca),
        ..home.flags()
    };
    let authenticator = authenticator(vec![flags.structured()]);
    let pointing = |path: &str| {
        home.claims(json!({"jti": path, "_claim_names": {"groups": "club"},
            "_claim_sources": {"club": {"endpoint": format!("{}{path}", club.url),
                "access_token": "please"}}}))
    };
    let groups = theirs.token("b", &club.claims(json!({"groups": ["dev", "ops"]})));
    club.show("/groups", Value::String(groups));
    let forged = own.token("b", &club.claims(json!({"groups": ["admins"]})));
    club.show("/forged", Value::String(forged));
    let other = theirs.token("b", &club.claims(json!({"groups": ["x"], "aud": "other"})));
    club.show("/other", Value::String(other));
    let review = async |claims: &Value| {
        let token = own.token("a", claims);
        authenticator.review(&token, &[], &Nothing).await.0
    };
    let jane = review(&pointing("/groups")).await;
    assert_eq!(
        jane["user"]["groups"],
        json!(["dev", "ops", "system:authenticated"]),
        "{jane}"
    );
    for (path, why) in [
        ("/forged", "verify distributed claim token"),
        ("/other", "expected audience"),
        ("/none", "while getting distributed claim"),
    ] {
        let refused = review(&pointing(path)).await["error"].to_string();
        assert!(refused.contains(why), "{path}: {refused}");
    }
    // What the token says itself is not asked for.
    let mut plain = pointing("/forged");
    plain["groups"] = json!(["guests"]);
    let jane = review(&plain).await;
    assert_eq!(jane["user"]["groups"][0], "guests");
}
