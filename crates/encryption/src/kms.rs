//! KMS v2: values are encrypted by keys derived from a seed, and the seed by a service.
//!
//! The service is asked for its key's id every minute; a new id makes a new seed. Reading needs
//! the service once per seed, ahead of time ([`Kms::warm`]), so that reading itself never waits.

mod grpc;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use aws_lc_rs::hkdf;
use bytes::Bytes;
use parking_lot::Mutex;
use prost::Message;

use crate::config::KmsConfiguration;
use crate::local::{Gcm, random};
use crate::{Opened, Seal, SealError};

/// Between two questions to a service that is well, and to one that is not.
const STATUS_EVERY: Duration = Duration::from_secs(60);
const STATUS_EVERY_UNHEALTHY: Duration = Duration::from_secs(10);
/// How long a seed may be written with since the service was last well.
const WRITE_MAX: Duration = Duration::from_secs(180);
const SEED: usize = 32;
/// What is put before a value to derive its key.
const INFO: usize = 32;
const KEY_ID_BYTES_MAX: usize = 1024;
const ENCRYPTED_SEED_BYTES_MAX: usize = 1024;
const ANNOTATION_BYTES_MAX: usize = 32 << 10;
/// Seeds kept decrypted. Each restart and each new key makes one.
const SEEDS_MAX: usize = 4096;

/// A value as stored, after the prefix.
#[derive(Clone, PartialEq, Message)]
struct EncryptedObject {
    #[prost(bytes = "vec", tag = "1")]
    encrypted_data: Vec<u8>,
    #[prost(string, tag = "2")]
    key_id: String,
    #[prost(bytes = "vec", tag = "3")]
    encrypted_dek_source: Vec<u8>,
    #[prost(btree_map = "string, bytes", tag = "4")]
    annotations: std::collections::BTreeMap<String, Vec<u8>>,
    #[prost(int32, tag = "5")]
    encrypted_dek_source_type: i32,
}

/// `encrypted_dek_source` is a seed; otherwise the key itself.
const HKDF_SHA256_XNONCE_AES_GCM_SEED: i32 = 1;

enum Dek {
    Seed(hkdf::Prk),
    Key(Box<Gcm>),
}

struct OkmLength;

impl hkdf::KeyType for OkmLength {
    fn len(&self) -> usize {
        32
    }
}

impl Dek {
    fn seed(bytes: &[u8]) -> Dek {
        Dek::Seed(hkdf::Prk::new_less_safe(hkdf::HKDF_SHA256, bytes))
    }

    fn derive(seed: &hkdf::Prk, info: &[u8]) -> Result<Gcm, SealError> {
        let mut key = [0; 32];
        let info = [info];
        let okm = seed.expand(&info, OkmLength);
        let filled = okm.and_then(|okm| okm.fill(&mut key));
        filled.map_err(|_| SealError::Cipher)?;
        Gcm::new(&key)
    }

    fn open(&self, place: &[u8], data: &[u8]) -> Result<Vec<u8>, SealError> {
        match self {
            Dek::Key(gcm) => gcm.open(place, data),
            Dek::Seed(seed) => {
                let (info, rest) = data.split_at_checked(INFO).ok_or(SealError::Short)?;
                Dek::derive(seed, info)?.open(place, rest)
            }
        }
    }
}

/// What is written with now.
struct Current {
    dek: Arc<Dek>,
    /// Without data.
    envelope: EncryptedObject,
    seal: Seal,
    until: Mutex<Instant>,
}

/// One service.
pub(crate) struct Kms {
    name: String,
    prefix: Vec<u8>,
    client: grpc::Client,
    current: ArcSwapOption<Current>,
    /// Decrypted seeds by what they are encrypted as.
    known: Mutex<HashMap<Vec<u8>, Arc<Dek>>>,
    fault: Mutex<Option<String>>,
}

impl std::fmt::Debug for Kms {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kms")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl Kms {
    pub(crate) fn new(config: &KmsConfiguration) -> Kms {
        let deadline = config.deadline().unwrap_or(Duration::from_secs(3));
        Kms {
            name: config.name.clone(),
            prefix: format!("k8s:enc:kms:v2:{}:", config.name).into_bytes(),
            client: grpc::Client::new(config.socket().unwrap_or_default(), deadline),
            current: ArcSwapOption::empty(),
            known: Mutex::default(),
            fault: Mutex::new(Some("not asked yet".into())),
        }
    }

    pub(crate) fn prefix(&self) -> &[u8] {
        &self.prefix
    }

    pub(crate) fn unhealthy(&self) -> Option<String> {
        let fault = self.fault.lock();
        fault
            .as_ref()
            .map(|why| format!("kmsv2 Provider {} is not healthy, error: {why}", self.name))
    }

    pub(crate) fn seal_now(&self) -> Seal {
        self.current
            .load()
            .as_ref()
            .map_or(Seal::PLAIN, |now| now.seal)
    }

    fn wrong(&self, why: impl Into<String>) -> SealError {
        SealError::Kms {
            name: self.name.clone(),
            why: why.into(),
        }
    }

    pub(crate) fn seal(&self, place: &[u8], plain: &[u8]) -> Result<Bytes, SealError> {
        let current = self.current.load_full();
        let current = current.ok_or_else(|| self.wrong("the service has not answered yet"))?;
        if *current.until.lock() < Instant::now() {
            return Err(self.wrong("the service has been unhealthy for too long to encrypt"));
        }
        let Dek::Seed(seed) = &*current.dek else {
            return Err(SealError::Cipher);
        };
        let info: [u8; INFO] = random()?;
        let mut data = Vec::with_capacity(plain.len() + 64);
        data.extend_from_slice(&info);
        Dek::derive(seed, &info)?.seal(place, plain, &mut data)?;
        let object = EncryptedObject {
            encrypted_data: data,
            ..current.envelope.clone()
        };
        let mut out = Vec::with_capacity(self.prefix.len() + object.encoded_len());
        out.extend_from_slice(&self.prefix);
        // A vector grows as needed.
        object.encode(&mut out).map_err(|_| SealError::Cipher)?;
        Ok(out.into())
    }

    pub(crate) fn open(&self, place: &[u8], stored: &[u8]) -> Result<Opened, SealError> {
        let object = self.decode(stored)?;
        let dek = self.known.lock().get(&cache_key(&object)).cloned();
        let dek = dek.ok_or_else(|| self.wrong("failed to decrypt DEK"))?;
        Ok(Opened {
            plain: dek.open(place, &object.encrypted_data)?.into(),
            seal: self.seal_of(&object),
        })
    }

    /// Has the seed of a stored value decrypted, unless it is known.
    pub(crate) async fn warm(&self, stored: &[u8]) {
        let Ok(object) = self.decode(stored) else {
            return;
        };
        let key = cache_key(&object);
        if self.known.lock().contains_key(&key) {
            return;
        }
        let is_seed = object.encrypted_dek_source_type == HKDF_SHA256_XNONCE_AES_GCM_SEED;
        let request = grpc::DecryptRequest {
            ciphertext: object.encrypted_dek_source,
            uid: uuid::Uuid::new_v4().to_string(),
            key_id: object.key_id,
            annotations: object.annotations,
        };
        let answer: Result<grpc::DecryptResponse, String> =
            self.client.call("Decrypt", &request).await;
        let dek = answer.and_then(|answer| match is_seed {
            true if answer.plaintext.len() < SEED => Err("invalid seed length".into()),
            true => Ok(Dek::seed(&answer.plaintext)),
            false => Gcm::new(&answer.plaintext)
                .map(|gcm| Dek::Key(Box::new(gcm)))
                .map_err(|error| error.to_string()),
        });
        match dek {
            Ok(dek) => self.remember(key, Arc::new(dek)),
            Err(why) => tracing::error!(name = self.name, why, "failed to decrypt DEK"),
        }
    }

    fn remember(&self, key: Vec<u8>, dek: Arc<Dek>) {
        let mut known = self.known.lock();
        if known.len() >= SEEDS_MAX
            && let Some(any) = known.keys().next().cloned()
        {
            known.remove(&any);
        }
        known.insert(key, dek);
    }

    fn decode(&self, stored: &[u8]) -> Result<EncryptedObject, SealError> {
        let object =
            EncryptedObject::decode(stored).map_err(|error| self.wrong(error.to_string()))?;
        self.check(&object)?;
        Ok(object)
    }

    fn check(&self, object: &EncryptedObject) -> Result<(), SealError> {
        let annotations: usize = object
            .annotations
            .iter()
            .map(|(name, value)| name.len() + value.len())
            .sum();
        let sane = !object.key_id.is_empty()
            && object.key_id.len() <= KEY_ID_BYTES_MAX
            && !object.encrypted_dek_source.is_empty()
            && object.encrypted_dek_source.len() <= ENCRYPTED_SEED_BYTES_MAX
            && annotations <= ANNOTATION_BYTES_MAX;
        match sane {
            true => Ok(()),
            false => Err(self.wrong("got invalid EncryptedObject")),
        }
    }

    fn seal_of(&self, object: &EncryptedObject) -> Seal {
        let kind = object.encrypted_dek_source_type.to_be_bytes();
        Seal::of(&[&self.prefix, object.key_id.as_bytes(), &kind])
    }

    /// Asks the service how it is, and for a new seed if its key is another.
    pub(crate) async fn refresh(&self) -> Result<(), SealError> {
        let done = self.try_refresh().await;
        *self.fault.lock() = done.as_ref().err().map(ToString::to_string);
        done
    }

    async fn try_refresh(&self) -> Result<(), SealError> {
        // Counted from before the call, so that the limit holds however long it takes.
        let until = Instant::now() + WRITE_MAX;
        let status: Result<grpc::StatusResponse, String> =
            self.client.call("Status", &grpc::StatusRequest {}).await;
        let status = status.map_err(|why| self.wrong(why))?;
        if status.healthz != "ok" {
            let why = format!("got unexpected healthz status: {}", status.healthz);
            return Err(self.wrong(why));
        }
        if !matches!(status.version.as_str(), "v2" | "v2beta1") {
            let why = format!("expected KMSv2 API version v2, got {}", status.version);
            return Err(self.wrong(why));
        }
        if let Some(current) = &*self.current.load()
            && current.envelope.key_id == status.key_id
        {
            *current.until.lock() = until;
            return Ok(());
        }
        let seed: [u8; SEED] = random()?;
        let request = grpc::EncryptRequest {
            plaintext: seed.to_vec(),
            uid: uuid::Uuid::new_v4().to_string(),
        };
        let answer: Result<grpc::EncryptResponse, String> =
            self.client.call("Encrypt", &request).await;
        let answer =
            answer.map_err(|why| self.wrong(format!("failed to encrypt DEK, error: {why}")))?;
        if answer.key_id != status.key_id {
            return Err(self.wrong("failed to rotate DEK: status and encrypt name different keys"));
        }
        let envelope = EncryptedObject {
            encrypted_data: Vec::new(),
            key_id: answer.key_id,
            encrypted_dek_source: answer.ciphertext,
            annotations: answer.annotations,
            encrypted_dek_source_type: HKDF_SHA256_XNONCE_AES_GCM_SEED,
        };
        self.check(&envelope)?;
        let dek = Arc::new(Dek::seed(&seed));
        self.remember(cache_key(&envelope), Arc::clone(&dek));
        self.current.store(Some(Arc::new(Current {
            dek,
            seal: self.seal_of(&envelope),
            envelope,
            until: Mutex::new(until),
        })));
        Ok(())
    }

    /// Follows the service until told to stop.
    pub(crate) async fn run(self: Arc<Kms>, stop: base::Stop) {
        loop {
            let pause = match self.unhealthy() {
                None => STATUS_EVERY,
                Some(_) => STATUS_EVERY_UNHEALTHY,
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = stop.raised() => return,
            }
            if let Err(error) = self.refresh().await {
                tracing::warn!(%error, "key management service");
            }
        }
    }
}

/// Names a seed by all that the service needs to decrypt it.
fn cache_key(object: &EncryptedObject) -> Vec<u8> {
    let named = EncryptedObject {
        encrypted_data: Vec::new(),
        ..object.clone()
    };
    named.encode_to_vec()
}

#[cfg(test)]
mod tests;
