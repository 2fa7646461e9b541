//! Public keys of token issuers (JSON Web Keys), and the signatures they verify.

use aws_lc_rs::signature::{
    self, EcdsaVerificationAlgorithm, RsaParameters, RsaPublicKeyComponents, UnparsedPublicKey,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde_json::{Value, json};
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey;
use x509_parser::x509::SubjectPublicKeyInfo;

/// Signature algorithms that tokens may use.
pub const ALGORITHMS: [&str; 9] = [
    "RS256", "RS384", "RS512", "ES256", "ES384", "ES512", "PS256", "PS384", "PS512",
];
/// Keys of one issuer that are looked at.
const KEYS_MAX: usize = 256;

/// The keys of an issuer.
#[derive(Clone, Debug, Default)]
pub struct KeySet(Vec<Key>);

#[derive(Clone, Debug)]
struct Key {
    id: String,
    /// The only algorithm it may be used with, if it says one.
    algorithm: String,
    material: Material,
}

#[derive(Clone, Debug)]
enum Material {
    Rsa {
        modulus: Vec<u8>,
        exponent: Vec<u8>,
    },
    /// Curve and uncompressed point.
    Ec {
        curve: String,
        point: Vec<u8>,
    },
}

/// A token taken apart; nothing of it is believed yet.
#[derive(Debug)]
pub(crate) struct Parts<'a> {
    pub(crate) algorithm: String,
    pub(crate) key_id: String,
    pub(crate) payload: Vec<u8>,
    signed: &'a str,
    signature: Vec<u8>,
}

impl<'a> Parts<'a> {
    pub(crate) fn of(token: &'a str) -> Option<Parts<'a>> {
        let (signed, signature) = token.rsplit_once('.')?;
        let (header, payload) = signed.split_once('.')?;
        let header: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(header).ok()?).ok()?;
        let text = |key: &str| {
            header
                .get(key)
                .and_then(Value::as_str)
                .unwrap_or("")
                .to_owned()
        };
        Some(Parts {
            algorithm: text("alg"),
            key_id: text("kid"),
            payload: URL_SAFE_NO_PAD.decode(payload).ok()?,
            signed,
            signature: URL_SAFE_NO_PAD.decode(signature).ok()?,
        })
    }
}

#[derive(Deserialize)]
struct Document {
    #[serde(default)]
    keys: Vec<Value>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Raw {
    kty: String,
    kid: String,
    alg: String,
    #[serde(rename = "use")]
    usage: String,
    n: String,
    e: String,
    crv: String,
    x: String,
    y: String,
}

impl KeySet {
    /// Of public keys as certificates hold them (SubjectPublicKeyInfo, DER), named as upstream
    /// names them: by a digest. What is neither RSA nor on a known curve is `None`.
    pub(crate) fn of_public_keys(ders: &[Vec<u8>]) -> Option<KeySet> {
        let keys = ders.iter().map(|der| key_of_der(der));
        Some(KeySet(keys.collect::<Option<Vec<_>>>()?))
    }

    /// The document that others read such keys from.
    pub(crate) fn document(&self) -> Value {
        let shown = self.0.iter().map(|key| {
            let mut shown = json!({"use": "sig", "kid": key.id, "alg": key.algorithm});
            let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
            match &key.material {
                Material::Rsa { modulus, exponent } => {
                    shown["kty"] = "RSA".into();
                    shown["n"] = text(modulus).into();
                    shown["e"] = text(exponent).into();
                }
                Material::Ec { curve, point } => {
                    let (x, y) = point.split_at(point.len().div_ceil(2));
                    shown["kty"] = "EC".into();
                    shown["crv"] = curve.as_str().into();
                    shown["x"] = text(x.get(1..).unwrap_or_default()).into();
                    shown["y"] = text(y).into();
                }
            }
            shown
        });
        json!({"keys": shown.collect::<Vec<_>>()})
    }

    /// The algorithms of all keys, each once, in order.
    pub(crate) fn algorithms(&self) -> Vec<&str> {
        let all: std::collections::BTreeSet<&str> =
            self.0.iter().map(|key| key.algorithm.as_str()).collect();
        all.into_iter().collect()
    }

    /// Whether there is a key of this name; without a name, any.
    pub(crate) fn has(&self, id: &str) -> bool {
        self.0.iter().any(|key| id.is_empty() || key.id == id)
    }

    /// Reads a key set; keys of kinds that are not known are left out.
    pub fn parse(json: &[u8]) -> Result<KeySet, serde_json::Error> {
        let document: Document = serde_json::from_slice(json)?;
        let read = |key: Value| key_of(serde_json::from_value(key).ok()?);
        Ok(KeySet(
            document
                .keys
                .into_iter()
                .take(KEYS_MAX)
                .filter_map(read)
                .collect(),
        ))
    }

    /// Whether any key that may be meant has signed a token.
    pub(crate) fn verifies(&self, parts: &Parts<'_>) -> bool {
        let meant = |key: &&Key| {
            (parts.key_id.is_empty() || key.id == parts.key_id)
                && (key.algorithm.is_empty() || key.algorithm == parts.algorithm)
        };
        self.0
            .iter()
            .filter(meant)
            .any(|key| key.material.verifies(parts))
    }
}

fn key_of(raw: Raw) -> Option<Key> {
    if !matches!(raw.usage.as_str(), "" | "sig") {
        return None;
    }
    let bytes = |text: &str| URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).ok();
    let material = match raw.kty.as_str() {
        "RSA" => Material::Rsa {
            modulus: bytes(&raw.n)?,
            exponent: bytes(&raw.e)?,
        },
        "EC" => Material::Ec {
            point: [vec![4], bytes(&raw.x)?, bytes(&raw.y)?].concat(),
            curve: raw.crv,
        },
        _ => return None,
    };
    Some(Key {
        id: raw.kid,
        algorithm: raw.alg,
        material,
    })
}

/// What a key is called: the digest of how a certificate holds it.
pub(crate) fn key_id(public_key: &[u8]) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, public_key);
    URL_SAFE_NO_PAD.encode(digest)
}

fn key_of_der(der: &[u8]) -> Option<Key> {
    let (_, info) = SubjectPublicKeyInfo::from_der(der).ok()?;
    let (algorithm, material) = match info.parsed().ok()? {
        PublicKey::RSA(key) => {
            let bare = |number: &[u8]| match number {
                [0, rest @ ..] => rest.to_vec(),
                whole => whole.to_vec(),
            };
            let (modulus, exponent) = (bare(key.modulus), bare(key.exponent));
            ("RS256", Material::Rsa { modulus, exponent })
        }
        PublicKey::EC(point) => {
            let curve = info.algorithm.parameters.as_ref()?.as_oid().ok()?;
            let (algorithm, curve) = match curve.to_id_string().as_str() {
                "1.2.840.10045.3.1.7" => ("ES256", "P-256"),
                "1.3.132.0.34" => ("ES384", "P-384"),
                "1.3.132.0.35" => ("ES512", "P-521"),
                _ => return None,
            };
            let (curve, point) = (curve.to_owned(), point.data().to_vec());
            (algorithm, Material::Ec { curve, point })
        }
        _ => return None,
    };
    Some(Key {
        id: key_id(der),
        algorithm: algorithm.into(),
        material,
    })
}

fn rsa(algorithm: &str) -> Option<&'static RsaParameters> {
    Some(match algorithm {
        "RS256" => &signature::RSA_PKCS1_2048_8192_SHA256,
        "RS384" => &signature::RSA_PKCS1_2048_8192_SHA384,
        "RS512" => &signature::RSA_PKCS1_2048_8192_SHA512,
        "PS256" => &signature::RSA_PSS_2048_8192_SHA256,
        "PS384" => &signature::RSA_PSS_2048_8192_SHA384,
        "PS512" => &signature::RSA_PSS_2048_8192_SHA512,
        _ => return None,
    })
}

/// The algorithm belongs to the curve: no other use of a key is believed.
fn ec(algorithm: &str, curve: &str) -> Option<&'static EcdsaVerificationAlgorithm> {
    Some(match (algorithm, curve) {
        ("ES256", "P-256") => &signature::ECDSA_P256_SHA256_FIXED,
        ("ES384", "P-384") => &signature::ECDSA_P384_SHA384_FIXED,
        ("ES512", "P-521") => &signature::ECDSA_P521_SHA512_FIXED,
        _ => return None,
    })
}

impl Material {
    fn verifies(&self, parts: &Parts<'_>) -> bool {
        let message = parts.signed.as_bytes();
        match self {
            Material::Rsa { modulus, exponent } => rsa(&parts.algorithm).is_some_and(|with| {
                let (n, e) = (modulus.as_slice(), exponent.as_slice());
                RsaPublicKeyComponents { n, e }
                    .verify(with, message, &parts.signature)
                    .is_ok()
            }),
            Material::Ec { curve, point } => ec(&parts.algorithm, curve).is_some_and(|with| {
                let key = UnparsedPublicKey::new(with, point);
                key.verify(message, &parts.signature).is_ok()
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 7515, appendices A.2 (RS256) and A.3 (ES256).
    const RSA_TOKEN: &str = "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw";
    const RSA_KEY: &str = r#"{"keys": [{"kty": "RSA", "e": "AQAB", "n": "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ"}]}"#;
    const EC_TOKEN: &str = "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q";
    const EC_KEY: &str = r#"{"keys": [{"kty": "EC", "crv": "P-256", "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU", "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}]}"#;

    fn verifies(keys: &str, token: &str) -> bool {
        let keys = KeySet::parse(keys.as_bytes()).unwrap();
        Parts::of(token).is_some_and(|parts| keys.verifies(&parts))
    }

    #[test]
    fn the_standards_own_examples_hold() {
        assert!(verifies(RSA_KEY, RSA_TOKEN));
        assert!(verifies(EC_KEY, EC_TOKEN));
    }

    #[test]
    fn nothing_else_does() {
        assert!(!verifies(EC_KEY, RSA_TOKEN));
        assert!(!verifies(r#"{"keys": []}"#, EC_TOKEN));
        assert!(!verifies(&EC_KEY.replace("P-256", "P-384"), EC_TOKEN));
        assert!(!verifies(
            &EC_KEY.replace("\"EC\",", "\"EC\", \"alg\": \"ES384\","),
            EC_TOKEN
        ));
        assert!(!verifies(
            &EC_KEY.replace("\"EC\",", "\"EC\", \"use\": \"enc\","),
            EC_TOKEN
        ));
        let none = EC_TOKEN.replacen("eyJhbGciOiJFUzI1NiJ9", "eyJhbGciOiJub25lIn0", 1);
        assert!(!verifies(EC_KEY, &none));
        assert!(!verifies(EC_KEY, "a.b.c") && !verifies(EC_KEY, "") && !verifies(EC_KEY, "..."));
    }
}
