//! Gives each node without one a range of pod addresses.

use std::sync::Arc;

use base::cidr::Ipv4Cidr;
use client::{Client, Informer, Key, Patch, WriteOptions};
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::Node;
use meta::Status;
use reconcile::{Outcome, Reconcile, Recorder, feed};
use serde_json::json;

use crate::context::Context;

const NAME: &str = "node-ipam-controller";
/// The service account, as upstream has it.
const ACCOUNT: &str = "node-controller";
/// One at a time: each choice depends on the others.
const WORKERS: usize = 1;
/// Bits of a node's range.
const NODE_PREFIX: u8 = 24;

struct Controller {
    client: Client,
    nodes: Informer<Node>,
    recorder: Recorder,
    cluster: Ipv4Cidr,
}

/// Starts the controller, if the cluster has a range to give from.
pub(crate) fn start(context: &Context) {
    let cluster = match context.config.cluster_cidr.parse() {
        Ok(cluster) => cluster,
        Err(error) => {
            tracing::debug!(%error, "nodes are given no ranges of pod addresses");
            return;
        }
    };
    let queue = context.queue();
    let client = context.client(ACCOUNT);
    let controller = Controller {
        client: client.clone(),
        nodes: context.hub.informer(),
        recorder: Recorder::start(client, NAME, "", &context.crew),
        cluster,
    };
    feed(NAME, &controller.nodes, &queue, &context.crew, |change| {
        let needs = change
            .new
            .as_deref()
            .is_some_and(|node| ranges(node).is_empty());
        needs.then(|| change.key.clone()).into_iter().collect()
    });
    let nodes = controller.nodes.clone();
    context.drive(Arc::new(controller), &queue, WORKERS, async move {
        nodes.synced().await;
    });
}

fn ranges(node: &Node) -> Vec<Ipv4Cidr> {
    let Some(spec) = &node.spec else {
        return Vec::new();
    };
    let all = spec.pod_cidrs.iter().flatten().chain(&spec.pod_cidr);
    all.filter_map(|text| text.parse().ok()).collect()
}

/// The first range of `cluster` that overlaps none of `taken`. Pure.
fn free_range(cluster: Ipv4Cidr, taken: &[Ipv4Cidr]) -> Option<Ipv4Cidr> {
    let prefix = NODE_PREFIX.max(cluster.prefix());
    let size = 1u32.checked_shl(u32::from(32 - prefix)).unwrap_or(0);
    let count = 1u32 << (prefix - cluster.prefix());
    let candidates = (0..count).filter_map(|index| cluster.nth(index.checked_mul(size)?));
    let overlap = |one: &Ipv4Cidr, other: &Ipv4Cidr| {
        one.contains(other.address()) || other.contains(one.address())
    };
    candidates
        .map(|address| Ipv4Cidr::new(address, prefix))
        .find(|range| !taken.iter().any(|taken| overlap(taken, range)))
}

impl Reconcile for Controller {
    fn name(&self) -> &'static str {
        NAME
    }

    fn reconcile<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Outcome, Status>> {
        Box::pin(async move {
            let Some(node) = self.nodes.get_key(key) else {
                return Ok(Outcome::Done);
            };
            if !ranges(&node).is_empty() {
                return Ok(Outcome::Done);
            }
            let nodes = self.nodes.list();
            let taken: Vec<Ipv4Cidr> = nodes.iter().flat_map(|node| ranges(node)).collect();
            let Some(range) = free_range(self.cluster, &taken) else {
                let message = format!("Node {key} status is now: CIDRNotAvailable");
                self.recorder
                    .normal(node.as_ref(), "CIDRNotAvailable", message);
                return Err(Status::internal("no range of pod addresses is free"));
            };
            let range = range.to_string();
            let body = json!({"metadata": {"resourceVersion": node.metadata.resource_version},
                "spec": {"podCIDR": range, "podCIDRs": [range]}});
            let api = self.client.all::<Node>();
            let patch = Patch::Merge(body);
            let written = api
                .patch(&key.name, &patch, &WriteOptions::default())
                .await?;
            self.nodes.absorb(written);
            Ok(Outcome::Done)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_do_not_overlap() {
        let range = |text: &str| -> Ipv4Cidr { text.parse().unwrap() };
        let free = |cluster: &str, taken: &[&str]| {
            let taken: Vec<_> = taken.iter().map(|text| range(text)).collect();
            free_range(range(cluster), &taken).map(|range| range.to_string())
        };
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(free("10.244.0.0/16", &[]), some("10.244.0.0/24"));
        assert_eq!(
            free("10.244.0.0/16", &["10.244.0.0/24", "10.244.2.0/24"]),
            some("10.244.1.0/24")
        );
        assert_eq!(
            free("10.244.0.0/16", &["10.244.0.0/23"]),
            some("10.244.2.0/24")
        );
        assert_eq!(free("10.0.0.0/23", &["10.0.0.64/26", "10.0.1.0/24"]), None);
        assert_eq!(free("10.0.0.0/26", &[]), some("10.0.0.0/26"));
    }
}
