//! Removes images nobody uses when the disk gets full, the longest unused first.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use base::Stop;
use tokio::time::Instant;

use crate::events::{Kind, node_reference};
use crate::machine;
use crate::shared::Shared;

/// How often the disk is looked at.
const CHECK_INTERVAL: Duration = Duration::from_secs(300);

/// Keeps space on the disk; ends when the process stops.
pub(crate) async fn keep_space(shared: Arc<Shared>, stop: Stop) {
    let mut last_used: HashMap<String, Instant> = HashMap::new();
    loop {
        tokio::select! {
            () = tokio::time::sleep(CHECK_INTERVAL) => {}
            () = stop.raised() => return,
        }
        let to_free = excess(&shared);
        let ages = (shared.config.image_age_min, shared.config.image_age_max);
        if let Err(error) = collect(&shared, to_free, &mut last_used, ages).await {
            let message = error.to_string();
            let about = node_reference(&shared.config.node_name);
            shared
                .recorder
                .tell(about, Kind::Warning, "ImageGCFailed", message);
        }
    }
}

/// Bytes to free to come down to the low mark; 0 below the high mark.
fn excess(shared: &Shared) -> i64 {
    let config = &shared.config;
    let Some(disk) = machine::disk(&config.root_dir).filter(|disk| disk.total > 0) else {
        return 0;
    };
    let used = disk.total - disk.available;
    let mark = |percent: u8| disk.total / 100 * i64::from(percent);
    match used >= mark(config.image_gc_high_percent) {
        true => used - mark(config.image_gc_low_percent),
        false => 0,
    }
}

/// Removes all images that nobody uses: the node is short of room.
pub(crate) async fn remove_unused(shared: &Shared) -> Result<(), node_api::RuntimeError> {
    let ages = (Duration::ZERO, Duration::ZERO);
    collect(shared, i64::MAX, &mut HashMap::new(), ages).await
}

async fn collect(
    shared: &Shared,
    to_free: i64,
    last_used: &mut HashMap<String, Instant>,
    ages: (Duration, Duration),
) -> Result<(), node_api::RuntimeError> {
    let freed = free(shared, to_free, last_used, ages).await;
    // Others may have removed some, too.
    let since = shared.config.clock.now();
    let left = shared.images.list_images().await?;
    shared.puller.forget_gone(&left, since);
    freed
}

async fn free(
    shared: &Shared,
    to_free: i64,
    last_used: &mut HashMap<String, Instant>,
    (age_min, age_max): (Duration, Duration),
) -> Result<(), node_api::RuntimeError> {
    let images = shared.images.list_images().await?;
    let containers = shared.runtime.list_containers().await?;
    let mounted = containers
        .iter()
        .flat_map(|container| &container.config.mounts)
        .filter_map(|mount| mount.image.as_ref().map(|image| &image.image));
    let used: HashSet<&String> = containers
        .iter()
        .map(|container| &container.image_id)
        .chain(mounted)
        .collect();
    let now = Instant::now();
    last_used.retain(|id, _| images.iter().any(|image| image.id == *id));
    for image in &images {
        let seen = last_used.entry(image.id.clone()).or_insert(now);
        if used.contains(&image.id) {
            *seen = now;
        }
    }
    let age = |id: &String| last_used.get(id).map_or(Duration::ZERO, Instant::elapsed);
    let mut unused: Vec<_> = images
        .iter()
        .filter(|image| !image.pinned && !used.contains(&image.id) && age(&image.id) >= age_min)
        .collect();
    unused.sort_by_key(|image| std::cmp::Reverse(age(&image.id)));
    let mut freed = 0;
    for image in unused {
        let is_old = !age_max.is_zero() && age(&image.id) > age_max;
        if freed >= to_free && !is_old {
            return Ok(());
        }
        shared.images.remove_image(&image.id).await?;
        freed += i64::try_from(image.size).unwrap_or(i64::MAX);
        tracing::info!(
            id = image.id,
            size = image.size,
            "image removed to free space"
        );
    }
    Ok(())
}
