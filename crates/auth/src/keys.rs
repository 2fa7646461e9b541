//! Keys of service account tokens, as files hold them: private ones that sign, and public ones
//! that verify.

use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING,
    ECDSA_P521_SHA512_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair,
};
use rustls::pki_types::pem::{PemObject, SectionKind};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::jwk::{KeySet, key_id};
use crate::token::TokenError;

/// A private key.
pub(crate) struct SigningKey {
    pair: Pair,
    /// What tokens say signed them, and how.
    pub(crate) id: String,
    pub(crate) algorithm: &'static str,
    /// SubjectPublicKeyInfo, DER.
    pub(crate) public: Vec<u8>,
    random: SystemRandom,
}

enum Pair {
    Ec(EcdsaKeyPair),
    Rsa(RsaKeyPair),
}

impl SigningKey {
    /// The first private key of a PEM text: RSA, or ECDSA on a curve that tokens may use.
    pub(crate) fn of_pem(pem: &str) -> Result<SigningKey, TokenError> {
        let mut found = sections(pem).filter_map(|(kind, der)| private(kind, &der));
        let (pair, algorithm) = found.next().ok_or(TokenError::Key)?;
        let public = public(&pair).ok_or(TokenError::Key)?;
        Ok(SigningKey {
            id: key_id(&public),
            pair,
            algorithm,
            public,
            random: SystemRandom::new(),
        })
    }

    pub(crate) fn sign(&self, message: &[u8]) -> Result<Vec<u8>, TokenError> {
        match &self.pair {
            Pair::Ec(pair) => {
                let signature = pair.sign(&self.random, message);
                Ok(signature.map_err(|_| TokenError::Sign)?.as_ref().to_vec())
            }
            Pair::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &self.random, message, &mut signature)
                    .map_err(|_| TokenError::Sign)?;
                Ok(signature)
            }
        }
    }
}

/// All keys of PEM texts: public ones, certificates' ones, and those that belong to private keys.
/// A text without any is an error.
pub(crate) fn verifying(pems: &[String]) -> Result<KeySet, TokenError> {
    let mut all = Vec::new();
    for pem in pems {
        let before = all.len();
        for (kind, der) in sections(pem) {
            match kind {
                SectionKind::PublicKey => all.push(der),
                SectionKind::Certificate => {
                    let parsed = X509Certificate::from_der(&der);
                    let (_, certificate) = parsed.map_err(|_| TokenError::PublicKey)?;
                    all.push(certificate.public_key().raw.to_vec());
                }
                kind => all.extend(private(kind, &der).and_then(|(pair, _)| public(&pair))),
            }
        }
        if all.len() == before {
            return Err(TokenError::PublicKey);
        }
    }
    KeySet::of_public_keys(&all).ok_or(TokenError::PublicKey)
}

fn sections(pem: &str) -> impl Iterator<Item = (SectionKind, Vec<u8>)> {
    <(SectionKind, Vec<u8>)>::pem_slice_iter(pem.as_bytes()).filter_map(Result::ok)
}

fn public(pair: &Pair) -> Option<Vec<u8>> {
    let public: PublicKeyX509Der<'_> = match pair {
        Pair::Ec(pair) => pair.public_key().as_der().ok()?,
        Pair::Rsa(pair) => pair.public_key().as_der().ok()?,
    };
    Some(public.as_ref().to_vec())
}

fn private(kind: SectionKind, der: &[u8]) -> Option<(Pair, &'static str)> {
    let rsa = match kind {
        SectionKind::RsaPrivateKey => RsaKeyPair::from_der(der).ok(),
        SectionKind::PrivateKey => RsaKeyPair::from_pkcs8(der).ok(),
        SectionKind::EcPrivateKey => None,
        _ => return None,
    };
    if let Some(pair) = rsa {
        return Some((Pair::Rsa(pair), "RS256"));
    }
    let curves = [
        (&ECDSA_P256_SHA256_FIXED_SIGNING, "ES256"),
        (&ECDSA_P384_SHA384_FIXED_SIGNING, "ES384"),
        (&ECDSA_P521_SHA512_FIXED_SIGNING, "ES512"),
    ];
    curves.into_iter().find_map(|(curve, algorithm)| {
        let pair = EcdsaKeyPair::from_private_key_der(curve, der);
        let pair = pair.or_else(|_| EcdsaKeyPair::from_pkcs8(curve, der));
        Some((Pair::Ec(pair.ok()?), algorithm))
    })
}
