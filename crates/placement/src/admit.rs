//! One pod after the other is given its place: the topology policy picks NUMA nodes, then each
//! manager gives what it has.

use crate::cpus::NoCpus;
use crate::devices::Reusable;
use crate::hints::{Hint, Policy, Scope};
use crate::numa::Mask;
use crate::wish::{ContainerWish, PodWish};
use crate::{Placement, Refusal};

/// Where nobody has to agree.
const ANYWHERE: Hint = Hint {
    affinity: None,
    preferred: false,
};

impl Placement {
    /// Gives a new pod all it asks for, or says why it cannot run here.
    pub async fn admit(&self, pod: &PodWish) -> Result<(), Refusal> {
        if let Some((resource, requested)) = self.devices.gone(pod) {
            return Err(Refusal {
                reason: format!("OutOf{resource}"),
                message: format!(
                    "Node didn't have enough resource: {resource}, requested: {requested}, used: 0, capacity: 0"
                ),
            });
        }
        let wants_cpus = {
            let cpus = self.cpus.lock();
            pod.containers.iter().any(|one| cpus.wanted(pod, one) > 0)
        };
        let wants_memory = {
            let memory = self.memory.lock();
            let mut all = pod.containers.iter();
            all.any(|one| memory.wanted(pod, one).is_some())
        };
        if !wants_cpus && !wants_memory && !self.devices.concern(pod) {
            return Ok(());
        }
        // One at a time: hints and what follows from them belong together.
        let _held = self.admission.lock().await;
        let admitted = self.place(pod).await;
        if admitted.is_err() {
            self.release(&pod.uid);
        } else if wants_cpus {
            self.pool.send_modify(|count| *count += 1);
        }
        admitted
    }

    async fn place(&self, pod: &PodWish) -> Result<(), Refusal> {
        let mut reuse = Reusable::new();
        let by_pod = self.policy != Policy::None && self.scope == Scope::Pod;
        let for_all = match by_pod {
            true => {
                let devices = self.devices.pod_hints(&self.nodes, pod);
                let cpus = self.cpus.lock().pod_hints(&self.machine, pod);
                let memory = self.memory.lock().pod_hints(pod);
                self.decide(&[devices, cpus, memory])?
            }
            false => ANYWHERE,
        };
        for container in &pod.containers {
            let best = match self.policy {
                Policy::None => ANYWHERE,
                _ if by_pod => for_all,
                _ => {
                    let uid = &pod.uid;
                    let devices = self.devices.hints(&self.nodes, uid, container, &reuse);
                    let cpus = self.cpus.lock().hints(&self.machine, pod, container);
                    let memory = self.memory.lock().hints(pod, container);
                    self.decide(&[devices, cpus, memory])?
                }
            };
            let affinity = best.affinity;
            self.remember(&pod.uid, container, affinity);
            let given = self
                .devices
                .allocate(&pod.uid, container, &mut reuse, affinity);
            given.await.map_err(Refusal::unexpected)?;
            self.place_cpus(pod, container, affinity)?;
            let mut memory = self.memory.lock();
            let given = memory.allocate(pod, container, affinity, best.preferred);
            given.map_err(Refusal::unexpected)?;
        }
        Ok(())
    }

    fn place_cpus(
        &self,
        pod: &PodWish,
        container: &ContainerWish,
        affinity: Option<Mask>,
    ) -> Result<(), Refusal> {
        let mut cpus = self.cpus.lock();
        let given = cpus.allocate(&self.machine, pod, container, affinity);
        given.map_err(|fault| match fault {
            NoCpus::Alignment(message) => Refusal {
                reason: "SMTAlignmentError".into(),
                message,
            },
            NoCpus::Other(fault) => Refusal::unexpected(fault),
        })
    }

    fn decide(&self, hints: &[crate::hints::Hints]) -> Result<Hint, Refusal> {
        let (best, admitted) = self.policy.decide(
            &self.nodes,
            self.prefer_closest.then_some(&self.machine),
            hints,
        );
        match admitted {
            true => Ok(best),
            false => Err(Refusal {
                reason: "TopologyAffinityError".into(),
                message: "Resources cannot be allocated with Topology locality".into(),
            }),
        }
    }

    fn remember(&self, uid: &str, container: &ContainerWish, affinity: Option<Mask>) {
        if let Some(affinity) = affinity {
            let mut affinities = self.affinities.lock();
            let of_pod = affinities.entry(uid.to_owned()).or_default();
            of_pod.insert(container.name.clone(), affinity);
        }
    }
}
