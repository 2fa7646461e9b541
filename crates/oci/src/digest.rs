//! SHA-256 digests, and readers that compute them in passing.

use std::fmt;
use std::io::{self, Read};
use std::str::FromStr;

use sha2::{Digest as _, Sha256};

use crate::error::ImageError;

/// `sha256:` and 64 lower-case hexadecimal digits.
#[derive(
    Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(String);

const PREFIX: &str = "sha256:";

impl Digest {
    /// The digest of bytes at hand.
    pub fn of(bytes: &[u8]) -> Digest {
        Digest::from_hasher(Sha256::new_with_prefix(bytes))
    }

    /// The digest of all that a reader has.
    pub fn of_file(reader: impl Read) -> Result<Digest, ImageError> {
        let (digest, _, _) = Tee::new(reader, None, u64::MAX)
            .finish()
            .map_err(|error| ImageError::Io("hashing".to_owned(), error))?;
        Ok(digest)
    }

    fn from_hasher(hasher: Sha256) -> Digest {
        let mut text = String::with_capacity(PREFIX.len() + 64);
        text.push_str(PREFIX);
        for byte in hasher.finalize() {
            text.push_str(&format!("{byte:02x}"));
        }
        Digest(text)
    }

    /// The digits alone.
    pub fn hex(&self) -> &str {
        self.0.strip_prefix(PREFIX).unwrap_or(&self.0)
    }

    /// With its prefix.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Fails unless `found` is this digest.
    pub(crate) fn check(&self, found: &Digest, what: &str) -> Result<(), ImageError> {
        if self != found {
            let message = format!("{what} has digest {found}, expected {self}");
            return Err(ImageError::Corrupt(message));
        }
        Ok(())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Digest {
    type Err = ImageError;

    fn from_str(text: &str) -> Result<Digest, ImageError> {
        let hex = text.strip_prefix(PREFIX).unwrap_or("");
        let digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if hex.len() != 64 || !hex.bytes().all(digit) {
            return Err(ImageError::Corrupt(format!(
                "{text:?} is not a sha256 digest"
            )));
        }
        Ok(Digest(text.to_owned()))
    }
}

impl TryFrom<String> for Digest {
    type Error = ImageError;

    fn try_from(text: String) -> Result<Digest, ImageError> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> String {
        digest.0
    }
}

/// Passes bytes on, hashing and counting them, and writes a copy when asked.
pub(crate) struct Tee<R> {
    inner: R,
    copy: Option<std::fs::File>,
    hasher: Sha256,
    bytes: u64,
    limit: u64,
}

impl<R: Read> Tee<R> {
    /// Fails as soon as more than `limit` bytes come.
    pub(crate) fn new(inner: R, copy: Option<std::fs::File>, limit: u64) -> Tee<R> {
        Tee {
            inner,
            copy,
            hasher: Sha256::new(),
            bytes: 0,
            limit,
        }
    }

    /// Reads what is left and tells digest, length and the copy.
    pub(crate) fn finish(mut self) -> io::Result<(Digest, u64, Option<std::fs::File>)> {
        io::copy(&mut self, &mut io::sink())?;
        Ok((Digest::from_hasher(self.hasher), self.bytes, self.copy))
    }
}

impl<R: Read> Read for Tee<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.inner.read(buffer)?;
        let bytes = &buffer[..length];
        self.hasher.update(bytes);
        self.bytes += length as u64;
        if self.bytes > self.limit {
            return Err(ImageError::Hostile(format!("more than {} bytes", self.limit)).into());
        }
        if let Some(copy) = &mut self.copy {
            io::Write::write_all(copy, bytes)?;
        }
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_of_nothing() {
        let empty = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(Digest::of(b"").as_str(), empty);
        assert_eq!(empty.parse::<Digest>().unwrap().as_str(), empty);
        for wrong in [
            "",
            "sha256:",
            "sha512:00",
            "sha256:../../../etc/passwd",
            &empty.to_uppercase(),
        ] {
            assert!(wrong.parse::<Digest>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_tee_stops_at_its_limit() {
        let fault = Tee::new(&b"abcdef"[..], None, 5).finish().unwrap_err();
        assert!(fault.to_string().contains("more than 5 bytes"));
    }
}
