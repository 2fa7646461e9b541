//! What builds keep: shown and cleaned up.

use serde_json::{Value, json};

use super::Fault;
use crate::answer::{self, Answer};
use crate::call::Call;
use crate::daemon::Daemon;
use crate::record::moment;

/// `POST /build/prune`.
pub(crate) async fn prune(call: Call) -> Answer {
    let filters = call.query.filters()?;
    filters.only(&[
        "until",
        "id",
        "unused-for",
        "parent",
        "type",
        "description",
        "inuse",
        "shared",
        "private",
    ])?;
    let until = match filters
        .get("until")
        .first()
        .or(filters.get("unused-for").first())
    {
        None => None,
        Some(text) => Some(crate::containers::until_moment(text)?),
    };
    // How much may stay had several names.
    let mut keep = 0;
    for name in ["reserved-space", "keep-storage", "max-used-space"] {
        keep = keep.max(call.query.number::<u64>(name)?.unwrap_or(0));
    }
    let wanted = |listed: &oci::Listed| {
        until.is_none_or(|until| nanos(listed.used) <= until)
            && filters.fits("id", |id| listed.key.starts_with(id))
            && filters.fits("description", |part| listed.kept.about.contains(part))
    };
    let pruned = call.daemon.builds.builder.prune(wanted, keep).await;
    let pruned = pruned.map_err(|error| Fault::internal(error.to_string()))?;
    answer::ok(&json!({"CachesDeleted": pruned.keys, "SpaceReclaimed": pruned.bytes}))
}

/// For `system df`.
pub(crate) async fn usage(daemon: &Daemon) -> Result<Vec<Value>, Fault> {
    let kept = daemon.builds.builder.kept().await;
    let kept = kept.map_err(|error| Fault::internal(error.to_string()))?;
    let show = |(listed, bytes): &(oci::Listed, u64)| {
        json!({
            "ID": listed.key.get(..25), "Type": "regular", "Description": listed.kept.about,
            "InUse": false, "Shared": false, "Size": bytes, "CreatedAt": listed.kept.created,
            "LastUsedAt": moment(nanos(listed.used)), "UsageCount": 1,
        })
    };
    Ok(kept.iter().map(show).collect())
}

fn nanos(time: std::time::SystemTime) -> i64 {
    let since = time
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}
