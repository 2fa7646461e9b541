//! The checkpoint on disk: every version by revision, in redb. Written in
//! large steps behind the log, read for values that are no longer in memory.

use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes};
use redb::{Database, ReadOnlyTable, ReadableDatabase, ReadableTable, TableDefinition};

use crate::api::{KeyValue, StoreError};
use crate::index::{Rev, Version};
use crate::patience::{PatientFile, Space};

const VERSIONS: TableDefinition<(i64, u32), &[u8]> = TableDefinition::new("versions");
const LEASES: TableDefinition<i64, i64> = TableDefinition::new("leases");
const FACTS: TableDefinition<&str, i64> = TableDefinition::new("facts");

/// The layout of the tables; another number is refused.
const FORMAT: i64 = 1;

/// Bytes of a version before its key: version, create revision, lease, key length.
const HEAD_BYTES: usize = 28;

/// Where a checkpoint stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Standing {
    /// Number of the last record of the log that is included.
    pub(crate) applied: u64,
    pub(crate) revision: i64,
    pub(crate) compact_revision: i64,
}

/// What one checkpoint adds and removes.
pub(crate) struct Change<'a> {
    pub(crate) standing: Standing,
    pub(crate) versions: &'a mut dyn Iterator<Item = (Rev, &'a KeyValue)>,
    pub(crate) dropped: &'a [Rev],
    /// Granted time to live by lease; `None` when revoked.
    pub(crate) leases: &'a [(i64, Option<i64>)],
}

/// The database file.
#[derive(Debug)]
pub(crate) struct Engine {
    database: Database,
    pub(crate) space: Arc<Space>,
}

/// A checkpoint as it was; later ones do not change it.
pub(crate) struct View {
    versions: ReadOnlyTable<(i64, u32), &'static [u8]>,
}

/// What [`Engine::open`] found.
pub(crate) struct Opened {
    pub(crate) engine: Engine,
    /// Ties the log to this database.
    pub(crate) id: i64,
    pub(crate) standing: Standing,
}

impl Engine {
    /// Opens or creates the file; redb checks and repairs it after a crash.
    pub(crate) fn open(path: &Path, cache_bytes: usize) -> Result<Opened, redb::Error> {
        let space = Arc::<Space>::default();
        // Secrets lie in there.
        let file = std::fs::File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)?;
        let database = Database::builder()
            .set_cache_size(cache_bytes)
            .create_with_backend(PatientFile {
                file,
                space: space.clone(),
            })?;
        let engine = Engine { database, space };
        let txn = engine.database.begin_write()?;
        let is_new = {
            txn.open_table(VERSIONS)?;
            txn.open_table(LEASES)?;
            let mut facts = txn.open_table(FACTS)?;
            let is_new = facts.get("format")?.is_none();
            if is_new {
                let id = random_id();
                for (name, value) in [("format", FORMAT), ("id", id), ("revision", 1)] {
                    facts.insert(name, value)?;
                }
            }
            is_new
        };
        if is_new {
            txn.commit()?;
        } else {
            txn.abort()?;
        }
        let txn = engine.database.begin_read()?;
        let facts = txn.open_table(FACTS)?;
        let fact = |name: &str| -> Result<i64, redb::Error> {
            Ok(facts.get(name)?.map_or(0, |value| value.value()))
        };
        if fact("format")? != FORMAT {
            return Err(redb::Error::UpgradeRequired(
                fact("format")?.try_into().unwrap_or(u8::MAX),
            ));
        }
        let standing = Standing {
            applied: fact("applied")? as u64,
            revision: fact("revision")?,
            compact_revision: fact("compact_revision")?,
        };
        let id = fact("id")?;
        drop(facts);
        drop(txn);
        Ok(Opened {
            engine,
            id,
            standing,
        })
    }

    /// The newest checkpoint.
    pub(crate) fn view(&self) -> Result<View, redb::Error> {
        let versions = self.database.begin_read()?.open_table(VERSIONS)?;
        Ok(View { versions })
    }

    /// All leases with their granted time to live.
    pub(crate) fn leases(&self) -> Result<Vec<(i64, i64)>, redb::Error> {
        let table = self.database.begin_read()?.open_table(LEASES)?;
        let mut leases = Vec::new();
        for row in table.iter()? {
            let (id, ttl) = row?;
            leases.push((id.value(), ttl.value()));
        }
        Ok(leases)
    }

    /// Makes `change` durable, all of it or nothing.
    pub(crate) fn write(&self, change: Change<'_>) -> Result<(), redb::Error> {
        let mut txn = self.database.begin_write()?;
        txn.set_quick_repair(true);
        {
            let mut versions = txn.open_table(VERSIONS)?;
            let mut bytes = Vec::new();
            for (rev, kv) in change.versions {
                bytes.clear();
                encode(kv, &mut bytes);
                versions.insert((rev.main, rev.sub), bytes.as_slice())?;
            }
            for rev in change.dropped {
                versions.remove((rev.main, rev.sub))?;
            }
            let mut leases = txn.open_table(LEASES)?;
            for (id, ttl) in change.leases {
                match ttl {
                    Some(ttl) => leases.insert(id, ttl)?,
                    None => leases.remove(id)?,
                };
            }
            let mut facts = txn.open_table(FACTS)?;
            facts.insert("applied", change.standing.applied as i64)?;
            facts.insert("revision", change.standing.revision)?;
            facts.insert("compact_revision", change.standing.compact_revision)?;
        }
        Ok(txn.commit()?)
    }
}

impl View {
    /// The value stored under `rev`.
    pub(crate) fn value(&self, rev: Rev) -> Result<Bytes, StoreError> {
        let found = self
            .versions
            .get((rev.main, rev.sub))
            .map_err(|error| broken(&error))?
            .ok_or_else(|| broken(&format!("version {rev:?} is missing")))?;
        let mut bytes = found.value();
        let (_, key) = head(&mut bytes).ok_or_else(|| broken(&"a version cannot be decoded"))?;
        let value = bytes.get(key..).unwrap_or_default();
        Ok(Bytes::copy_from_slice(value))
    }

    /// Calls `each` for every version from `from` on, in order, until it says
    /// stop (`false`); the value is what remains of its last argument.
    pub(crate) fn scan(
        &self,
        from: Rev,
        mut each: impl FnMut(Rev, Version, &[u8], &[u8]) -> bool,
    ) -> Result<(), StoreError> {
        let rows = self
            .versions
            .range((from.main, from.sub)..)
            .map_err(|error| broken(&error))?;
        for row in rows {
            let (rev, bytes) = row.map_err(|error| broken(&error))?;
            let (main, sub) = rev.value();
            let rev = Rev { main, sub };
            let mut bytes = bytes.value();
            let (version, key) =
                head(&mut bytes).ok_or_else(|| broken(&"a version cannot be decoded"))?;
            let (key, value) = bytes
                .split_at_checked(key)
                .ok_or_else(|| broken(&"a version cannot be decoded"))?;
            if !each(rev, Version { rev, ..version }, key, value) {
                break;
            }
        }
        Ok(())
    }
}

fn encode(kv: &KeyValue, out: &mut Vec<u8>) {
    out.put_i64_le(kv.version);
    out.put_i64_le(kv.create_revision);
    out.put_i64_le(kv.lease);
    out.put_u32_le(kv.key.len() as u32);
    out.put_slice(&kv.key);
    out.put_slice(&kv.value);
}

/// Reads what stands before the key; returns it with the key's length.
fn head(bytes: &mut &[u8]) -> Option<(Version, usize)> {
    if bytes.len() < HEAD_BYTES {
        return None;
    }
    let version = Version {
        rev: Rev { main: 0, sub: 0 },
        version: bytes.get_i64_le(),
        create: bytes.get_i64_le(),
        lease: bytes.get_i64_le(),
    };
    let key = bytes.get_u32_le() as usize;
    (key <= bytes.len()).then_some((version, key))
}

fn broken(error: &dyn std::fmt::Display) -> StoreError {
    StoreError::Fatal(format!("checkpoint: {error}"))
}

/// A positive number unlike any other.
pub(crate) fn random_id() -> i64 {
    use std::hash::{BuildHasher, Hasher};
    let seeded = std::collections::hash_map::RandomState::new().build_hasher();
    (seeded.finish() >> 1) as i64
}
