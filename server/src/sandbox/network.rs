//! What machines may reach, and what they did reach.

use std::sync::Arc;

use forkyard_protocol::{ErrorBody, ErrorCode, NetworkInfo, NetworkPolicy, ProjectId, SandboxId};

use super::manager::Sandboxes;
use super::order::Wish;
use super::slot::Slot;
use crate::guest::Guest;
use crate::network::Way;
use crate::store::Expect;
use crate::vmm::{Devices, Machine};

impl Sandboxes {
    /// What a machine may reach, and what went through.
    pub async fn network(&self, project: &ProjectId, id: &SandboxId) -> Result<NetworkInfo, ErrorBody> {
        let slot = self.registry.get(project, id)?;
        let policy = slot.record().network;
        Ok(slot.network().info(policy).await)
    }

    /// Has a machine reach something else from now on. Where it runs, what it may no longer reach has ended when this returns; one
    /// that is suspended finds it when it is resumed.
    pub async fn set_network(
        &self,
        project: &ProjectId,
        id: &SandboxId,
        policy: NetworkPolicy,
    ) -> Result<NetworkInfo, ErrorBody> {
        policy.validate()?;
        require_card(&policy, self.registry.get(project, id)?.record().devices)?;
        self.order(project, id, Wish::Network(policy)).await?;
        self.network(project, id).await
    }

    /// Puts a policy in place of a machine that runs.
    pub(super) async fn change_network(
        &self,
        slot: &Slot,
        machine: &Arc<dyn Machine>,
        policy: &NetworkPolicy,
    ) -> Result<(), ErrorBody> {
        let had_one = slot.record().network.allows_anything();
        self.note_network(slot, policy).await?;
        let (guest, _call) = slot.guest()?;
        match (had_one, policy.allows_anything()) {
            (true, true) => slot.network().set_policy(self.settings.network.bounded(policy)).await,
            (false, true) => {
                self.open_network(slot, machine, &guest).await;
                self.configure(slot, &guest, false).await
            }
            (true, false) => {
                // While the gateway is still there to refuse what is under way.
                let refused = slot.network().set_policy(policy.clone()).await;
                slot.network().end().await;
                machine.set_link(false).await?;
                self.configure(slot, &guest, false).await?;
                refused
            }
            (false, false) => Ok(()),
        }
    }

    /// Notes what a machine may reach from now on.
    pub(super) async fn note_network(&self, slot: &Slot, policy: &NetworkPolicy) -> Result<(), ErrorBody> {
        let mut record = slot.record();
        record.network = policy.clone();
        self.persist(&record, Expect::Any).await?;
        slot.update(|record| record.network = policy.clone());
        Ok(())
    }

    /// Has a guest that becomes a template do in advance what a network takes. Those of its forks that get none are as cut off as
    /// without it, and those that get one are not slower than the others.
    pub(super) async fn prepare_network(
        &self,
        slot: &Slot,
        devices: Devices,
        guest: &Guest,
    ) -> Result<(), ErrorBody> {
        if !devices.have_network() {
            return Ok(());
        }
        guest.give(&self.settings.network.given.files).await?;
        // An agent of an earlier version cannot; its forks do it themselves.
        if let Err(error) = guest.prepare_network().await {
            tracing::warn!(sandbox = %slot.id(), error = error.message, "a template's network is not prepared");
        }
        Ok(())
    }

    /// Has a gateway serve a machine whose policy allows anything; nobody waits for it.
    pub(super) async fn open_network(&self, slot: &Slot, machine: &Arc<dyn Machine>, guest: &Guest) {
        if slot.record().network.allows_anything() {
            slot.network().begin(self.way(slot, machine, guest)).await;
        }
    }

    /// The same for a machine of an earlier server's, which mostly has one.
    pub(super) async fn take_up_network(&self, slot: &Slot, machine: &Arc<dyn Machine>, guest: &Guest) {
        if slot.record().network.allows_anything() {
            slot.network().take_up(self.way(slot, machine, guest)).await;
        }
    }

    fn way(&self, slot: &Slot, machine: &Arc<dyn Machine>, guest: &Guest) -> Way {
        let settings = self.settings.network.clone();
        Way {
            id: slot.id().clone(),
            dir: self.dir(slot.id()),
            machine: machine.clone(),
            guest: guest.clone(),
            policy: settings.bounded(&slot.record().network),
            settings,
        }
    }
}

/// Refuses to let a machine reach anything that has no card to reach it by.
pub(super) fn require_card(policy: &NetworkPolicy, devices: Devices) -> Result<(), ErrorBody> {
    if !policy.allows_anything() || devices.have_network() {
        return Ok(());
    }
    let message = "this machine, or the snapshot that it goes on from, was made before machines had a network; make it anew \
                   from its image, or let it reach nothing";
    Err(ErrorBody::new(ErrorCode::FailedPrecondition, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_without_a_card_is_given_no_network() {
        let open = NetworkPolicy { allow_internet_access: true, ..NetworkPolicy::default() };
        // What records of before devices were counted are read as.
        let old: Devices = serde_json::from_str::<Option<Devices>>("null").unwrap().unwrap_or_default();
        let error = require_card(&open, old).unwrap_err();
        assert_eq!(error.code, ErrorCode::FailedPrecondition);
        assert!(error.message.contains("make it anew from its image"), "{error:?}");
        require_card(&NetworkPolicy::default(), old).unwrap();
        require_card(&open, Devices::NOW).unwrap();
    }
}
