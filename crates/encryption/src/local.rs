//! Providers whose keys are in the configuration: aesgcm, aescbc, secretbox.

use aws_lc_rs::aead::{self, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::cipher::{
    self, DecryptionContext, PaddedBlockDecryptingKey, PaddedBlockEncryptingKey, UnboundCipherKey,
};
use aws_lc_rs::iv::FixedLength;
use crypto_secretbox::aead::AeadInPlace;
use crypto_secretbox::{KeyInit, XSalsa20Poly1305};

use crate::SealError;

const GCM_NONCE: usize = aead::NONCE_LEN;
const TAG: usize = 16;
const CBC_IV: usize = 16;
const BOX_NONCE: usize = 24;

/// One key and what is done with it.
pub(crate) enum Cipher {
    Gcm(Gcm),
    Cbc(Box<Cbc>),
    Secretbox(Box<XSalsa20Poly1305>),
}

/// AES-CBC: one key schedule for each direction.
pub(crate) struct Cbc {
    write: PaddedBlockEncryptingKey,
    read: PaddedBlockDecryptingKey,
}

impl Cipher {
    pub(crate) fn gcm(key: &[u8]) -> Result<Cipher, SealError> {
        Gcm::new(key).map(Cipher::Gcm)
    }

    pub(crate) fn cbc(key: &[u8]) -> Result<Cipher, SealError> {
        let algorithm = match key.len() {
            16 => &cipher::AES_128,
            24 => &cipher::AES_192,
            _ => &cipher::AES_256,
        };
        let unbound = || UnboundCipherKey::new(algorithm, key).map_err(|_| SealError::Cipher);
        Ok(Cipher::Cbc(Box::new(Cbc {
            write: PaddedBlockEncryptingKey::cbc_pkcs7(unbound()?)
                .map_err(|_| SealError::Cipher)?,
            read: PaddedBlockDecryptingKey::cbc_pkcs7(unbound()?).map_err(|_| SealError::Cipher)?,
        })))
    }

    pub(crate) fn secretbox(key: &[u8]) -> Result<Cipher, SealError> {
        let cipher = XSalsa20Poly1305::new_from_slice(key).map_err(|_| SealError::Cipher)?;
        Ok(Cipher::Secretbox(Box::new(cipher)))
    }

    /// Appends nonce and ciphertext to `out`, which holds the prefix.
    pub(crate) fn seal(
        &self,
        place: &[u8],
        plain: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), SealError> {
        match self {
            Cipher::Gcm(gcm) => gcm.seal(place, plain, out),
            Cipher::Cbc(cbc) => {
                let mut text = plain.to_vec();
                let context = cbc
                    .write
                    .encrypt(&mut text)
                    .map_err(|_| SealError::Cipher)?;
                let DecryptionContext::Iv128(iv) = context else {
                    return Err(SealError::Cipher);
                };
                out.extend_from_slice(iv.as_ref());
                out.extend_from_slice(&text);
                Ok(())
            }
            Cipher::Secretbox(key) => {
                let nonce: [u8; BOX_NONCE] = random()?;
                out.extend_from_slice(&nonce);
                // NaCl puts the tag first.
                let tag_at = out.len();
                out.extend_from_slice(&[0; TAG]);
                out.extend_from_slice(plain);
                let text = &mut out[tag_at + TAG..];
                let tag = key.encrypt_in_place_detached(&nonce.into(), b"", text);
                let tag = tag.map_err(|_| SealError::Cipher)?;
                out[tag_at..tag_at + TAG].copy_from_slice(&tag);
                Ok(())
            }
        }
    }

    /// Undoes [`Cipher::seal`]; `stored` is what follows the prefix.
    pub(crate) fn open(&self, place: &[u8], stored: &[u8]) -> Result<Vec<u8>, SealError> {
        match self {
            Cipher::Gcm(gcm) => gcm.open(place, stored),
            Cipher::Cbc(cbc) => {
                let (iv, text) = stored.split_at_checked(CBC_IV).ok_or(SealError::Short)?;
                let iv: [u8; CBC_IV] = iv.try_into().map_err(|_| SealError::Short)?;
                let mut text = text.to_vec();
                let context = DecryptionContext::Iv128(FixedLength::from(iv));
                let opened = cbc.read.decrypt(&mut text, context);
                let length = opened.map_err(|_| SealError::Forged)?.len();
                text.truncate(length);
                Ok(text)
            }
            Cipher::Secretbox(key) => {
                let (nonce, rest) = stored.split_at_checked(BOX_NONCE).ok_or(SealError::Short)?;
                let (tag, text) = rest.split_at_checked(TAG).ok_or(SealError::Short)?;
                let nonce: [u8; BOX_NONCE] = nonce.try_into().map_err(|_| SealError::Short)?;
                let tag: [u8; TAG] = tag.try_into().map_err(|_| SealError::Short)?;
                let mut text = text.to_vec();
                key.decrypt_in_place_detached(&nonce.into(), b"", &mut text, &tag.into())
                    .map_err(|_| SealError::Forged)?;
                Ok(text)
            }
        }
    }
}

/// AES-GCM with a random nonce before the ciphertext; the place is authenticated.
pub(crate) struct Gcm(LessSafeKey);

impl Gcm {
    pub(crate) fn new(key: &[u8]) -> Result<Gcm, SealError> {
        let algorithm = match key.len() {
            16 => &aead::AES_128_GCM,
            24 => &aead::AES_192_GCM,
            _ => &aead::AES_256_GCM,
        };
        let key = UnboundKey::new(algorithm, key).map_err(|_| SealError::Cipher)?;
        Ok(Gcm(LessSafeKey::new(key)))
    }

    pub(crate) fn seal(
        &self,
        place: &[u8],
        plain: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), SealError> {
        let nonce: [u8; GCM_NONCE] = random()?;
        out.extend_from_slice(&nonce);
        let text_at = out.len();
        out.extend_from_slice(plain);
        let nonce = Nonce::assume_unique_for_key(nonce);
        let sealed =
            self.0
                .seal_in_place_separate_tag(nonce, Aad::from(place), &mut out[text_at..]);
        let tag = sealed.map_err(|_| SealError::Cipher)?;
        out.extend_from_slice(tag.as_ref());
        Ok(())
    }

    pub(crate) fn open(&self, place: &[u8], stored: &[u8]) -> Result<Vec<u8>, SealError> {
        let (nonce, text) = stored.split_at_checked(GCM_NONCE).ok_or(SealError::Short)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| SealError::Short)?;
        let mut text = text.to_vec();
        let opened = self.0.open_in_place(nonce, Aad::from(place), &mut text);
        let length = opened.map_err(|_| SealError::Forged)?.len();
        text.truncate(length);
        Ok(text)
    }
}

/// Random bytes from the cipher library's generator.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], SealError> {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| SealError::Cipher)?;
    Ok(bytes)
}
