//! What is kept of steps for the next time: keys, and how much of it.

use std::time::SystemTime;

use oci::{Digest, Listed};

use super::{BuildError, Builder, blocking};

/// Results that are kept, and their bytes; those used least lately go first.
const KEPT_MAX: usize = 2000;
const KEPT_BYTES: u64 = 20 << 30;

/// The key of a step: of all that it depends on.
pub(super) struct Key(Vec<u8>);

impl Key {
    /// Begins with the image before the step.
    pub(super) fn after(image: &Digest) -> Key {
        let mut key = Key(b"sampan build 1".to_vec());
        key.add(image.as_str());
        key
    }

    pub(super) fn add(&mut self, part: &str) -> &mut Key {
        // With its length, so that no two lists of parts look alike.
        self.0.extend_from_slice(&(part.len() as u64).to_be_bytes());
        self.0.extend_from_slice(part.as_bytes());
        self
    }

    pub(super) fn finish(&self) -> String {
        Digest::of(&self.0).hex().to_owned()
    }
}

/// What a clean-up took away.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    pub keys: Vec<String>,
    pub bytes: u64,
}

fn bytes(listed: &Listed) -> u64 {
    let layer = listed.kept.layer.as_ref();
    layer.map_or(0, |layer| layer.unpacked + layer.blob.size)
}

impl Builder {
    /// Everything that is kept, the latest used first.
    pub async fn kept(&self) -> Result<Vec<(Listed, u64)>, BuildError> {
        let store = self.store.clone();
        let mut all = blocking(move || Ok(store.all_kept()?)).await?;
        all.sort_by(|a, b| (b.used, &a.key).cmp(&(a.used, &b.key)));
        Ok(all
            .into_iter()
            .map(|listed| {
                let bytes = bytes(&listed);
                (listed, bytes)
            })
            .collect())
    }

    /// Takes away what `wanted` says, but nothing that a running build may need; of what is left,
    /// at most `keep` bytes stay.
    pub async fn prune(
        &self,
        wanted: impl Fn(&Listed) -> bool,
        keep: u64,
    ) -> Result<Pruned, BuildError> {
        let mut left = 0;
        let chosen = self.kept().await?.into_iter().filter(|(listed, bytes)| {
            left += bytes;
            wanted(listed) && (keep == 0 || left > keep)
        });
        self.forget(chosen.collect()).await
    }

    /// Keeps the cache within its limits.
    pub(super) async fn shrink(&self) -> Result<(), BuildError> {
        let all = self.kept().await?;
        let mut sum = 0;
        let surplus = all.into_iter().enumerate().filter_map(|(index, entry)| {
            sum += entry.1;
            (index >= KEPT_MAX || sum > KEPT_BYTES).then_some(entry)
        });
        let surplus: Vec<_> = surplus.collect();
        match surplus.is_empty() {
            true => Ok(()),
            false => self.forget(surplus).await.map(drop),
        }
    }

    async fn forget(&self, chosen: Vec<(Listed, u64)>) -> Result<Pruned, BuildError> {
        let busy = self.running.lock().values().min().copied();
        let idle = |used: SystemTime| busy.is_none_or(|since| used < since);
        let mut pruned = Pruned::default();
        for (listed, bytes) in chosen {
            if idle(listed.used) {
                pruned.keys.push(listed.key);
                pruned.bytes += bytes;
            }
        }
        let (store, keys) = (self.store.clone(), pruned.keys.clone());
        blocking(move || Ok(store.forget_kept(&keys)?)).await?;
        Ok(pruned)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_differ_where_parts_do() {
        let base = Digest::of(b"");
        let key = |parts: &[&str]| {
            let mut key = Key::after(&base);
            parts.iter().for_each(|part| {
                key.add(part);
            });
            key.finish()
        };
        assert_eq!(key(&["a", "b"]), key(&["a", "b"]));
        assert_ne!(key(&["ab"]), key(&["a", "b"]));
        assert_ne!(key(&[]), key(&[""]));
        assert_ne!(key(&["a"]), Key::after(&Digest::of(b"x")).add("a").finish());
    }
}
