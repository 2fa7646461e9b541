//! Which devices a container gets: those it may use again first, then by the NUMA nodes that were
//! agreed on, as far as its plugin prefers none.

use std::collections::BTreeMap;

use super::table::{Ids, Resource, Table, nodes};
use crate::numa::Mask;

/// A choice under way.
#[derive(Debug)]
pub(crate) struct Pick {
    required: usize,
    chosen: Ids,
    available: Ids,
    aligned: Ids,
    unaligned: Ids,
    placeless: Ids,
}

/// How far a choice can be made without the plugin.
#[derive(Debug)]
pub(crate) enum Begun {
    /// Nothing is to be given.
    Nothing,
    Done(Ids),
    /// The plugin may prefer some.
    Ask(Pick),
}

/// One container's need.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Need<'a> {
    pub(crate) uid: &'a str,
    pub(crate) container: &'a str,
    pub(crate) resource: &'a str,
    pub(crate) required: usize,
}

/// Begins to choose.
pub(crate) fn begin(
    table: &Table,
    need: Need<'_>,
    reusable: &Ids,
    affinity: Option<Mask>,
) -> Result<Begun, String> {
    let Need {
        uid,
        container,
        resource,
        required,
    } = need;
    let known = table.of_container(uid, container, resource);
    let before = known.map(super::table::Allocation::ids).unwrap_or_default();
    if known.is_some() && before.len() != required {
        return Err(format!(
            "pod {uid:?} container {container:?} changed request for resource {resource:?} from {} to {required}",
            before.len()
        ));
    }
    let registered = table.resources.get(resource).filter(|known| !known.retired);
    let Some(registered) = registered else {
        return Err(format!("cannot allocate unregistered device {resource}"));
    };
    let healthy = registered.healthy();
    if healthy.is_empty() {
        return Err(format!(
            "no healthy devices present; cannot allocate unhealthy devices {resource}"
        ));
    }
    if !healthy.is_superset(&before) {
        return Err(format!(
            "previously allocated devices are no longer healthy; cannot allocate unhealthy devices {resource}"
        ));
    }
    if known.is_some() || required == 0 {
        return Ok(Begun::Nothing);
    }
    let chosen: Ids = reusable.iter().take(required).cloned().collect();
    let needed = required - chosen.len();
    if needed == 0 {
        return Ok(Begun::Done(chosen));
    }
    let available = table.available(resource);
    if available.len() < needed {
        return Err(format!(
            "requested number of devices unavailable for {resource}. Requested: {needed}, Available: {}",
            available.len()
        ));
    }
    let mut pick = split(registered, available, affinity);
    pick.required = required;
    pick.chosen = chosen;
    // All that is aligned goes first, where it does not suffice.
    if pick.needed() >= pick.aligned.len() {
        let aligned = std::mem::take(&mut pick.aligned);
        pick.take(&aligned);
    }
    match pick.needed() {
        0 => Ok(Begun::Done(pick.chosen)),
        _ => Ok(Begun::Ask(pick)),
    }
}

/// Sorts devices by whether they are on the nodes that were agreed on.
fn split(resource: &Resource, available: Ids, affinity: Option<Mask>) -> Pick {
    let mut pick = Pick {
        required: 0,
        chosen: Ids::new(),
        available: available.clone(),
        aligned: Ids::new(),
        unaligned: Ids::new(),
        placeless: Ids::new(),
    };
    let Some(affinity) = affinity.filter(|_| resource.is_aligned()) else {
        pick.placeless = available;
        return pick;
    };
    for id in available {
        let on = resource.devices.get(&id).map(nodes).unwrap_or_default();
        let list = match () {
            () if on.is_empty() => &mut pick.placeless,
            () if affinity.contains_any(on) => &mut pick.aligned,
            () => &mut pick.unaligned,
        };
        list.insert(id);
    }
    pick
}

impl Pick {
    fn needed(&self) -> usize {
        self.required - self.chosen.len()
    }

    fn take(&mut self, from: &Ids) {
        let fresh = from.iter().filter(|id| !self.chosen.contains(*id));
        let fresh: Vec<String> = fresh.take(self.needed()).cloned().collect();
        self.chosen.extend(fresh);
    }

    fn pool(&self) -> &Ids {
        match self.aligned.is_empty() {
            true => &self.available,
            false => &self.aligned,
        }
    }

    /// What the plugin is asked about: devices to choose from, those that are chosen already, and
    /// how many there are to be in all.
    pub(crate) fn question(&self) -> (Vec<String>, Vec<String>, usize) {
        let all = self.pool().union(&self.chosen).cloned().collect();
        (all, self.chosen.iter().cloned().collect(), self.required)
    }

    /// Ends the choice with what the plugin prefers, if anything.
    pub(crate) fn finish(mut self, preferred: &Ids) -> Result<Ids, String> {
        let preferred: Ids = preferred.intersection(self.pool()).cloned().collect();
        self.take(&preferred);
        for pool in [
            self.aligned.clone(),
            self.unaligned.clone(),
            self.placeless.clone(),
        ] {
            self.take(&pool);
        }
        match self.needed() {
            0 => Ok(self.chosen),
            needed => Err(format!(
                "unexpectedly allocated less resources than required. Requested: {}, Got: {}",
                self.required,
                self.required - needed
            )),
        }
    }
}

/// Devices by resource that later containers of a pod may use.
pub(crate) type Reusable = BTreeMap<String, Ids>;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::device_plugin::{Device, HEALTHY, NumaNode, TopologyInfo};

    fn device(id: &str, health: &str, on: &[i64]) -> (String, Device) {
        let nodes = on.iter().map(|id| NumaNode { id: *id }).collect();
        let device = Device {
            id: id.into(),
            health: health.into(),
            topology: (!on.is_empty()).then_some(TopologyInfo { nodes }),
        };
        (id.to_owned(), device)
    }

    fn table() -> Table {
        let devices = [
            device("a0", HEALTHY, &[0]),
            device("a1", HEALTHY, &[0]),
            device("b0", HEALTHY, &[1]),
            device("b1", HEALTHY, &[1]),
            device("sick", "Unhealthy", &[1]),
        ];
        let resource = Resource {
            devices: devices.into_iter().collect(),
            connected: true,
            ..Resource::default()
        };
        let mut table = Table::default();
        table.resources.insert("x.io/d".into(), resource);
        table
    }

    fn need(required: usize) -> Need<'static> {
        Need {
            uid: "u",
            container: "c",
            resource: "x.io/d",
            required,
        }
    }

    fn ids(names: &[&str]) -> Ids {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn choose(
        table: &Table,
        required: usize,
        reusable: &[&str],
        node: Option<usize>,
        preferred: &[&str],
    ) -> Ids {
        let affinity = node.map(|node| Mask::of([node]));
        match begin(table, need(required), &ids(reusable), affinity).unwrap() {
            Begun::Nothing => Ids::new(),
            Begun::Done(chosen) => chosen,
            Begun::Ask(pick) => pick.finish(&ids(preferred)).unwrap(),
        }
    }

    #[test]
    fn aligned_and_preferred_devices_come_first() {
        let table = table();
        assert_eq!(choose(&table, 1, &[], None, &[]), ids(&["a0"]));
        assert_eq!(choose(&table, 1, &[], None, &["b1"]), ids(&["b1"]));
        assert_eq!(choose(&table, 1, &[], Some(1), &["b1"]), ids(&["b1"]));
        // What the plugin prefers elsewhere does not count while the nodes agreed on have enough.
        assert_eq!(choose(&table, 1, &[], Some(1), &["a0"]), ids(&["b0"]));
        assert_eq!(
            choose(&table, 3, &[], Some(1), &["a1"]),
            ids(&["a1", "b0", "b1"])
        );
        assert_eq!(choose(&table, 2, &["b1"], None, &[]), ids(&["a0", "b1"]));
        assert_eq!(choose(&table, 1, &["b1"], None, &["a0"]), ids(&["b1"]));
    }

    #[test]
    fn refusals_are_upstreams() {
        let mut table = table();
        let fault =
            |table: &Table, count| begin(table, need(count), &Ids::new(), None).unwrap_err();
        assert_eq!(
            fault(&table, 5),
            "requested number of devices unavailable for x.io/d. Requested: 5, Available: 4"
        );
        let known = table.resources.get_mut("x.io/d").unwrap();
        known.connected = false;
        assert_eq!(
            fault(&table, 1),
            "no healthy devices present; cannot allocate unhealthy devices x.io/d"
        );
        table.resources.clear();
        assert_eq!(
            fault(&table, 1),
            "cannot allocate unregistered device x.io/d"
        );
    }

    #[test]
    fn hints_count_free_devices_and_prefer_few_nodes() {
        let table = table();
        let resource = &table.resources["x.io/d"];
        let free = ids(&["a0", "b0", "b1"]);
        let hints = resource.hints(&[0, 1], &free, &Ids::new(), 2);
        let shown: Vec<_> = hints
            .iter()
            .map(|h| (h.affinity.unwrap(), h.preferred))
            .collect();
        assert_eq!(shown, [(Mask::of([1]), true), (Mask::of([0, 1]), false)]);
        let hints = resource.hints(&[0, 1], &free, &ids(&["a1"]), 2);
        assert_eq!(hints[0].affinity, Some(Mask::of([0])));
        assert_eq!(hints.len(), 2);
    }
}
