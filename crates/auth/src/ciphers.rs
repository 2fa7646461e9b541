//! Which versions of TLS a server speaks, and with which ciphers, under the names that Go has for
//! them (`--tls-min-version`, `--tls-cipher-suites`).

use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{ALL_CIPHER_SUITES, default_provider};
use rustls::version::{TLS12, TLS13};
use rustls::{CipherSuite, SupportedCipherSuite, SupportedProtocolVersion};

/// Names that Go knows and that are not spoken here: they do without forward secrecy, or without
/// authenticated encryption.
const WEAK: [&str; 13] = [
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_3DES_EDE_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA",
    "TLS_RSA_WITH_3DES_EDE_CBC_SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA256",
    "TLS_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_RSA_WITH_AES_256_CBC_SHA",
    "TLS_RSA_WITH_AES_256_GCM_SHA384",
];

/// A choice that cannot be followed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpokenError {
    #[error("unknown tls version {0:?}: must be one of VersionTLS12, VersionTLS13")]
    Version(String),
    #[error("tls version {0:?} is not spoken any more: the lowest is VersionTLS12")]
    OldVersion(String),
    #[error("Cipher suite {0} not supported or doesn't exist; there are {known}", known = known().join(", "))]
    Unknown(String),
    #[error("Cipher suite {0} is insecure and not spoken; there are {known}", known = known().join(", "))]
    Weak(String),
    #[error("none of the cipher suites can be used with TLS 1.2, the lowest version allowed")]
    None,
}

/// What is spoken; by default TLS 1.2 and 1.3 with everything that is safe.
#[derive(Clone, Debug, Default)]
pub struct Spoken {
    only_newest: bool,
    /// Those of TLS 1.2; empty: all. Those of TLS 1.3 are not a matter of choice, as in Go.
    suites: Vec<SupportedCipherSuite>,
}

impl Spoken {
    /// From the flags; an empty list means all suites.
    pub fn of(minimum: Option<&str>, suites: &[String]) -> Result<Spoken, SpokenError> {
        let only_newest = match minimum.unwrap_or("VersionTLS12") {
            "" | "VersionTLS12" => false,
            "VersionTLS13" => true,
            old @ ("VersionTLS10" | "VersionTLS11") => {
                return Err(SpokenError::OldVersion(old.into()));
            }
            other => return Err(SpokenError::Version(other.into())),
        };
        let mut chosen = Vec::new();
        for name in suites {
            let suite = find(name)?;
            if suite.version() == &TLS12 && !chosen.contains(&suite) {
                chosen.push(suite);
            }
        }
        if !suites.is_empty() && chosen.is_empty() && !only_newest {
            return Err(SpokenError::None);
        }
        Ok(Spoken {
            only_newest,
            suites: chosen,
        })
    }

    pub(crate) fn provider(&self) -> CryptoProvider {
        let mut provider = default_provider();
        provider.cipher_suites.retain(|suite| {
            suite.version() == &TLS13 || self.suites.is_empty() || self.suites.contains(suite)
        });
        provider
    }

    pub(crate) fn versions(&self) -> &'static [&'static SupportedProtocolVersion] {
        static NEWEST: [&SupportedProtocolVersion; 1] = [&TLS13];
        static BOTH: [&SupportedProtocolVersion; 2] = [&TLS13, &TLS12];
        match self.only_newest {
            true => &NEWEST,
            false => &BOTH,
        }
    }
}

fn find(name: &str) -> Result<SupportedCipherSuite, SpokenError> {
    // Go's older names of two suites.
    let long = match name {
        "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305" | "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305" => {
            format!("{name}_SHA256")
        }
        name => name.to_owned(),
    };
    let mut all = ALL_CIPHER_SUITES.iter();
    if let Some(suite) = all.find(|suite| go_name(suite.suite()) == long) {
        return Ok(*suite);
    }
    Err(match name.contains("RC4") || WEAK.contains(&name) {
        true => SpokenError::Weak(name.into()),
        false => SpokenError::Unknown(name.into()),
    })
}

/// Go names those of TLS 1.3 without the version.
fn go_name(suite: CipherSuite) -> String {
    format!("{suite:?}").replacen("TLS13_", "TLS_", 1)
}

fn known() -> Vec<String> {
    let mut names: Vec<String> = ALL_CIPHER_SUITES
        .iter()
        .map(|suite| go_name(suite.suite()))
        .collect();
    names.sort();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(minimum: &str, suites: &[&str]) -> Result<Spoken, SpokenError> {
        let suites: Vec<String> = suites.iter().map(|name| (*name).to_owned()).collect();
        Spoken::of((!minimum.is_empty()).then_some(minimum), &suites)
    }

    #[test]
    fn gos_names_choose() {
        let all = of("", &[]).unwrap();
        assert_eq!(all.versions().len(), 2);
        assert_eq!(all.provider().cipher_suites.len(), 9);
        assert_eq!(of("VersionTLS13", &[]).unwrap().versions(), [&TLS13]);
        let names = [
            "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
            "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305",
            "TLS_AES_128_GCM_SHA256",
        ];
        let some = of("VersionTLS12", &names).unwrap();
        // Two of TLS 1.2 and the three of TLS 1.3.
        assert_eq!(some.provider().cipher_suites.len(), 5);
    }

    #[test]
    fn what_is_not_spoken_is_refused() {
        let told = |minimum: &str, suites: &[&str]| of(minimum, suites).unwrap_err().to_string();
        assert!(told("VersionTLS10", &[]).contains("the lowest is VersionTLS12"));
        assert!(told("1.2", &[]).contains("unknown tls version \"1.2\""));
        let weak = told("", &["TLS_RSA_WITH_AES_128_CBC_SHA"]);
        assert!(weak.contains("is insecure and not spoken; there are TLS_AES_128_GCM"));
        assert!(told("", &["TLS_X"]).starts_with("Cipher suite TLS_X not supported or doesn't"));
        assert_eq!(
            of("", &["TLS_AES_128_GCM_SHA256"]).unwrap_err(),
            SpokenError::None
        );
        assert!(of("VersionTLS13", &["TLS_AES_128_GCM_SHA256"]).is_ok());
    }
}
