//! Certificate signing requests: what is read off them, and what the authority makes of them.

use std::collections::BTreeSet;
use std::time::Duration;

use auth::certificate::{self, Authority, Subject, Usage, facts};
use auth::csr::{self, CsrError, Request};
use jiff::Timestamp;

fn request(common_name: &str, organizations: &[&str], hosts: &[&str]) -> Request {
    let subject = Subject {
        common_name,
        organizations,
        hosts: hosts.iter().map(|host| (*host).to_owned()).collect(),
        usage: Usage::Client,
    };
    let (pem, _) = certificate::request(&subject).unwrap();
    Request::parse(pem.as_bytes()).unwrap()
}

fn words(text: &str) -> Vec<String> {
    text.split(", ").map(str::to_owned).collect()
}

const CLIENT: &str = "digital signature, key encipherment, client auth";

#[test]
fn a_request_becomes_a_certificate() {
    let authority = Authority::create("test", &certificate::new_key().unwrap()).unwrap();
    let asked = request("jane", &["dev", "ops"], &["example.com", "192.0.2.1"]);
    assert_eq!(asked.organizations, ["dev", "ops"]);
    assert_eq!(asked.dns_names, ["example.com"]);
    let now = Timestamp::now();
    let hour = Duration::from_secs(3600);
    let pem = authority.sign(&asked, &words(CLIENT), hour, now).unwrap();
    let made = facts(&pem).unwrap();
    assert_eq!(made.common_name, "jane");
    assert_eq!(made.organizations, ["dev", "ops"]);
    let hosts = BTreeSet::from(["example.com".to_owned(), "192.0.2.1".to_owned()]);
    assert_eq!(made.hosts, hosts);
    assert_eq!(made.not_after, now.as_second() + 3600);
    assert_eq!(made.not_before, now.as_second() - 300);
    // The peer's library believes it too.
    let mut roots = rustls::RootCertStore::empty();
    roots
        .add(
            auth::tls::certificates(authority.cert_pem())
                .unwrap()
                .remove(0),
        )
        .unwrap();
    let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier =
        rustls::server::WebPkiClientVerifier::builder_with_provider(roots.into(), provider);
    let leaf = auth::tls::certificates(&pem).unwrap().remove(0);
    let verified = verifier.build().unwrap().verify_client_cert(
        &leaf,
        &[],
        rustls::pki_types::UnixTime::now(),
    );
    verified.unwrap();
}

#[test]
fn long_lives_are_cut() {
    let authority = Authority::create("test", &certificate::new_key().unwrap()).unwrap();
    let asked = request("jane", &[], &[]);
    let (now, usages) = (Timestamp::now(), words(CLIENT));
    assert_eq!(csr::lifetime(None), csr::LIFETIME_MAX);
    assert_eq!(csr::lifetime(Some(1)), Duration::from_secs(600));
    assert_eq!(csr::lifetime(Some(i64::MAX)), csr::LIFETIME_MAX);
    // A life longer than the authority's ends with it, and after it there is none.
    let pem = authority
        .sign(&asked, &usages, Duration::from_secs(1 << 40), now)
        .unwrap();
    let end = facts(authority.cert_pem()).unwrap().not_after;
    assert_eq!(facts(&pem).unwrap().not_after, end);
    let late = Timestamp::from_second(end).unwrap();
    let refused = authority.sign(&asked, &usages, csr::LIFETIME_MAX, late);
    assert!(
        matches!(refused, Err(CsrError::SignerExpired(_))),
        "{refused:?}"
    );
    let refused = authority.sign(&asked, &words("flying"), csr::LIFETIME_MAX, now);
    assert!(matches!(refused, Err(CsrError::Usages(_))), "{refused:?}");
}

#[test]
fn kubelets_ask_for_their_own_only() {
    let check = |name: &str, groups: &[&str], hosts: &[&str], usages: &str, signer: &str| {
        let asked = request(name, groups, hosts);
        csr::check(signer, &asked, &words(usages))
            .unwrap()
            .err()
            .unwrap_or_default()
    };
    let nodes = &["system:nodes"];
    let (client, serving) = (csr::KUBE_APISERVER_CLIENT_KUBELET, csr::KUBELET_SERVING);
    let server = "digital signature, server auth";
    assert_eq!(check("system:node:a", nodes, &[], CLIENT, client), "");
    assert_eq!(check("system:node:a", nodes, &["a"], server, serving), "");
    assert_eq!(
        check("system:node:a", &["system:masters"], &[], CLIENT, client),
        "subject organization is not system:nodes"
    );
    assert_eq!(
        check("system:node:a", nodes, &["a"], CLIENT, client),
        "DNS subjectAltNames are not allowed"
    );
    assert_eq!(
        check("jane", nodes, &[], CLIENT, client),
        "subject common name does not begin with system:node:"
    );
    assert_eq!(
        check("system:node:a", nodes, &[], "client auth", client),
        "usages did not match [client auth digital signature key encipherment]"
    );
    assert_eq!(
        check("system:node:a", nodes, &[], server, serving),
        "DNS or IP subjectAltName is required"
    );
    assert_eq!(
        check("jane", &[], &[], "server auth", csr::KUBE_APISERVER_CLIENT),
        "invalid usage for client certificate: server auth"
    );
    assert!(csr::check("example.com/x", &request("jane", &[], &[]), &[]).is_none());
}

#[test]
fn forged_and_broken_requests_are_refused() {
    assert_eq!(Request::parse(b"nonsense"), Err(CsrError::NotPem));
    let subject = Subject {
        common_name: "jane",
        organizations: &[],
        hosts: BTreeSet::new(),
        usage: Usage::Client,
    };
    let (pem, _) = certificate::request(&subject).unwrap();
    use base64::Engine;
    let engine = base64::engine::general_purpose::STANDARD;
    let text: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    let mut der = engine.decode(text).unwrap();
    // Another name under the same signature.
    let at = der.windows(4).position(|part| part == b"jane").unwrap();
    der[at] = b'J';
    let pem = format!(
        "-----BEGIN CERTIFICATE REQUEST-----\n{}\n-----END CERTIFICATE REQUEST-----\n",
        engine.encode(der)
    );
    let forged = Request::parse(pem.as_bytes()).unwrap();
    assert!(matches!(forged.verify(), Err(CsrError::Signature(_))));
}
