//! Round trips, forgery, order of providers, wildcards, and the file.

use super::*;

const KEYS: &str = "keys: [{name: k1, secret: AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=}]";
const PLACE: &[u8] = b"/registry/secrets/default/a";

fn rules(providers: &str) -> Rules {
    let text = format!(
        "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n\
         - resources: [secrets]\n  providers: [{providers}]\n"
    );
    Rules::new(&EncryptionConfiguration::parse(&text).unwrap()).unwrap()
}

fn seal(encryption: &Encryption, text: &'static str) -> Bytes {
    encryption
        .seal("secrets", PLACE, Bytes::from_static(text.as_bytes()))
        .unwrap()
}

#[test]
fn values_come_back_from_every_provider() {
    for provider in ["aesgcm", "aescbc", "secretbox"] {
        let encryption = Encryption::new(rules(&format!("{provider}: {{{KEYS}}}")));
        let stored = seal(&encryption, "the cargo is tea");
        assert!(stored.starts_with(format!("k8s:enc:{provider}:v1:k1:").as_bytes()));
        assert!(!stored.windows(3).any(|part| part == b"tea"));
        assert_ne!(
            stored,
            seal(&encryption, "the cargo is tea"),
            "nonces differ"
        );
        let opened = encryption.open("secrets", PLACE, stored.clone()).unwrap();
        assert_eq!(opened.plain, "the cargo is tea");
        assert!(!encryption.is_stale("secrets", opened.seal));
        let mut forged = stored.to_vec();
        *forged.last_mut().unwrap() ^= 1;
        let read = encryption.open("secrets", PLACE, forged.into());
        // CBC does not authenticate: a change may go unnoticed, but does not give the text.
        assert!(read.is_err() || provider == "aescbc", "{provider}");
        for length in 0..stored.len() {
            let read = encryption.open("secrets", PLACE, stored.slice(..length));
            assert!(read.is_err() || provider == "aescbc", "{provider} {length}");
        }
    }
}

#[test]
fn a_value_is_bound_to_its_place() {
    let encryption = Encryption::new(rules(&format!("aesgcm: {{{KEYS}}}")));
    let stored = seal(&encryption, "tea");
    let elsewhere = encryption.open("secrets", b"/registry/secrets/default/b", stored);
    assert!(matches!(elsewhere, Err(SealError::Forged)));
    assert_eq!(encryption.failures(), 1);
}

#[test]
fn secretbox_is_that_of_nacl() {
    let cipher = local::Cipher::secretbox(&[1; 32]).unwrap();
    let expected = "8442bc313f4626f1359e3b50122b6ce6fe66ddfe7d39d14e637eb4fd5b45beadab55198df6ab\
                    5368439792a23c87db70acb6156dc5ef957ac04f6276cf6093b84be77ff0849cc33e34b7254d\
                    5a8f65ad";
    let bytes = (0..expected.len()).step_by(2);
    let bytes = bytes.map(|at| u8::from_str_radix(&expected[at..at + 2], 16).unwrap());
    let stored: Vec<u8> = [2; 24].into_iter().chain(bytes).collect();
    assert_eq!(cipher.open(b"", &stored).unwrap(), [3; 64]);
}

#[test]
fn the_first_provider_writes_and_all_read() {
    let old = Encryption::new(rules("identity: {}"));
    let plain = seal(&old, "tea");
    assert_eq!(plain, "tea");
    let gcm = format!("{{aesgcm: {{{KEYS}}}}}");
    let both = Encryption::new(rules(&format!("{gcm}, {{identity: {{}}}}")));
    let opened = both.open("secrets", PLACE, plain.clone()).unwrap();
    assert!(both.is_stale("secrets", opened.seal));
    let stored = seal(&both, "tea");
    assert!(matches!(
        old.open("secrets", PLACE, stored.clone()),
        Err(SealError::NoProvider)
    ));
    let newer = KEYS.replace("k1, secret: AAEC", "k2, secret: BBEC");
    both.replace(rules(&format!("{{aescbc: {{{newer}}}}}, {gcm}")));
    let opened = both.open("secrets", PLACE, stored).unwrap();
    assert_eq!(opened.plain, "tea");
    assert!(both.is_stale("secrets", opened.seal));
    assert!(
        both.open("secrets", PLACE, plain).is_err(),
        "identity is gone"
    );
    assert_eq!(both.seal("pods", PLACE, "x".into()).unwrap(), "x");
    let smuggled = both.open("pods", PLACE, "k8s:enc:aesgcm:v1:k1:".into());
    assert!(matches!(smuggled, Err(SealError::Encrypted)));
}

#[test]
fn wildcards_match_and_what_is_first_wins() {
    let parse = |text: &str| {
        let head = "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\n";
        EncryptionConfiguration::parse(&format!("{head}{text}"))
    };
    let config = parse(&format!(
        "resources:\n- resources: [secrets, '*.apps']\n  providers: [{{aesgcm: {{{KEYS}}}}}]\n\
         - resources: ['*.', deployments.apps]\n  providers: [{{identity: {{}}}}]\n\
         - resources: ['*.*']\n  providers: [{{secretbox: {{{KEYS}}}}}]\n"
    ));
    let encryption = Encryption::new(Rules::new(&config.unwrap()).unwrap());
    let provider = |resource: &str| {
        let stored = encryption.seal(resource, PLACE, "x".into()).unwrap();
        String::from_utf8_lossy(&stored)
            .split(':')
            .nth(2)
            .map(str::to_owned)
    };
    assert_eq!(provider("secrets").as_deref(), Some("aesgcm"));
    assert_eq!(provider("deployments.apps").as_deref(), Some("aesgcm"));
    assert_eq!(provider("configmaps"), None);
    assert_eq!(
        provider("boats.sea.example.com").as_deref(),
        Some("secretbox")
    );
    let refused = parse(
        "resources:\n- resources: [secrets, '*.', Pods, '*', 'a.*', events.events.k8s.io]\n  \
         providers: [{identity: {}, aesgcm: {keys: [{name: '', secret: '!'}, {name: x, secret: AA==}]}}]\n",
    );
    let text = refused.unwrap_err().to_string();
    for part in [
        "will be masked",
        "resources[0].resources[2]: Invalid value: \"Pods\": resource name should not contain capital letters",
        "use '*.' to encrypt",
        "encrypting the same resource across groups is not supported",
        "Use 'events' instead",
        "more than one provider specified",
        "keys[0].name: Required value",
        "secrets must be base64 encoded",
        "got 1, expected one of [16 24 32]",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
    assert!(parse("resources: []\nother: 1\n").is_err());
}

#[tokio::test]
async fn a_file_is_made_once_and_followed() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("encryption.yaml");
    create_default(&path).unwrap();
    let first = std::fs::read(&path).unwrap();
    create_default(&path).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), first);
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let crew = base::Crew::new();
    let encryption = load(&path, true, &crew).await.unwrap();
    let stored = seal(&encryption, "tea");
    let opened = encryption.open("secrets", PLACE, stored).unwrap();
    let text = String::from_utf8(first).unwrap();
    let text = text.replace(
        "  - secretbox:",
        &format!("  - aesgcm: {{{KEYS}}}\n  - secretbox:"),
    );
    std::fs::write(&path, text).unwrap();
    let reloaded = async {
        while !encryption.is_stale("secrets", opened.seal) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), reloaded)
        .await
        .unwrap();
    crew.stop().raise();
    crew.finished().await.unwrap();
}
