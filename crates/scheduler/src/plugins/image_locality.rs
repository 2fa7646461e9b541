//! Likes nodes that have the pod's images already.

use crate::cycle::{Cycle, Plugin, SCORE_MAX};
use crate::node::NodeView;
use crate::queue::Event;

/// Images smaller than this (in sum) do not count, in bytes.
const LEAST: i64 = 23 << 20;
/// Per container, more than this does not count for more, in bytes.
const MOST: i64 = 1000 << 20;

/// The rule.
pub struct ImageLocality;

impl Plugin for ImageLocality {
    fn name(&self) -> &'static str {
        "ImageLocality"
    }

    fn wakes_on(&self) -> &'static [Event] {
        &[]
    }

    fn score(&self, cycle: &Cycle<'_>, node: &NodeView) -> Option<i64> {
        let containers = cycle
            .pod
            .spec
            .as_ref()
            .map_or(0, |spec| spec.containers.len());
        let weigh = |(image, spread): (&String, &usize)| {
            let size = node.images.get(image).copied().unwrap_or(0);
            // An image that lies on few nodes shall not draw all pods there.
            (size as f64 * *spread as f64 / cycle.node_count.max(1) as f64) as i64
        };
        let sum: i64 = cycle.image_spread.iter().map(weigh).sum();
        let most = MOST * i64::try_from(containers.max(1)).unwrap_or(1);
        Some((sum.clamp(LEAST, most) - LEAST) * SCORE_MAX / (most - LEAST))
    }
}

/// The name under which nodes list an image: with a tag.
pub fn normalized(image: &str) -> String {
    let after_slash = image.rsplit('/').next().unwrap_or(image);
    if after_slash.contains(':') || after_slash.contains('@') {
        image.to_owned()
    } else {
        format!("{image}:latest")
    }
}
