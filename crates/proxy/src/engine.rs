//! Carries plans out: the table in the kernel, and what it remembers.

use client::Key;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use netfilter::{Batch, Socket, conntrack};

use crate::model::{self, UDP};
use crate::plan::{self, Front, Plan};
use crate::rules::{self, Set, TABLE};
use crate::ruleset::{Ruleset, Stale};
use crate::{Config, Error};

/// The proxy without its watches: told of services, it keeps the table.
#[derive(Debug)]
pub struct Engine {
    config: Config,
    socket: Socket,
    ruleset: Ruleset,
    /// The kernel's table is ours and as of the last commit.
    in_step: bool,
}

impl Engine {
    /// An engine on the network namespace of the calling thread. It changes
    /// nothing before the first [`Engine::commit`].
    pub fn open(config: Config) -> Result<Engine, Error> {
        Ok(Engine {
            config,
            socket: Socket::open()?,
            ruleset: Ruleset::default(),
            in_step: false,
        })
    }

    /// Decides anew for one service; `None` when it is gone.
    pub fn set<'a>(
        &mut self,
        key: &Key,
        service: Option<&Service>,
        slices: impl IntoIterator<Item = &'a EndpointSlice> + Clone,
    ) {
        let plan = match service.and_then(model::Service::of) {
            Some(service) => plan::plan(&self.config, &service, |port| {
                model::endpoints(slices.clone(), port)
            }),
            None => Plan::default(),
        };
        self.ruleset.set(key, plan);
    }

    /// Brings the kernel to what was decided, in one transaction: the first
    /// time, or after a failure, by putting everything in place of whatever
    /// there is, so that no packet meets a moment without rules.
    pub fn commit(&mut self) -> Result<(), Error> {
        if self.in_step {
            let changes = self.ruleset.changes(&self.config);
            match self.socket.apply(changes) {
                Ok(()) => return self.after_commit(),
                Err(error) => {
                    tracing::warn!(%error, "table was changed by others; replacing it");
                    self.in_step = false;
                }
            }
        }
        // Who sticks to an endpoint goes on doing so: that set is not emptied.
        let sets = Set::ALL.map(Set::name);
        let (ruleset, config) = (&self.ruleset, &self.config);
        let content = |batch: &mut Batch| ruleset.fill(batch, config);
        self.socket
            .put_table(TABLE, &sets, rules::add_frame, content)?;
        self.in_step = true;
        self.after_commit()
    }

    /// What outlives the rules that made it. A failure here is no failure of
    /// the commit: those connections end by themselves.
    fn after_commit(&mut self) -> Result<(), Error> {
        let stale = self.ruleset.committed();
        if let Err(error) = self.forget_datagrams(&stale) {
            tracing::warn!(%error, "UDP connections to removed endpoints not forgotten");
        }
        Ok(())
    }

    /// UDP has no end that the kernel sees: a client that goes on sending
    /// would be sent to where its first datagram went for ever.
    fn forget_datagrams(&mut self, stale: &Stale) -> Result<(), Error> {
        let udp = |front: &Front| front.protocol() == UDP;
        let relevant = stale.fronts.iter().any(udp) || stale.targets.iter().any(|(f, _)| udp(f));
        if !relevant {
            return Ok(());
        }
        let unwanted = |flow: &conntrack::Flow| {
            if flow.protocol != UDP {
                return false;
            }
            let fronts = [
                Front::Address(flow.destination, UDP, flow.destination_port),
                Front::Node(UDP, flow.destination_port),
            ];
            let target = (flow.endpoint, flow.endpoint_port);
            let untranslated = target == (flow.destination, flow.destination_port);
            fronts.iter().any(|front| match untranslated {
                true => stale.fronts.contains(front),
                false => stale.targets.contains(&(*front, target)),
            })
        };
        let forgotten = conntrack::forget(&mut self.socket, unwanted)?;
        tracing::debug!(forgotten, "forgot UDP connections");
        Ok(())
    }
}

/// Removes everything the proxy has put into the network namespace of the
/// calling thread.
pub fn cleanup() -> Result<(), Error> {
    let mut batch = Batch::new(TABLE);
    // Deleting is an error where there is nothing, so there is something first.
    batch.add_table();
    batch.delete_table();
    Ok(Socket::open()?.apply(batch)?)
}
