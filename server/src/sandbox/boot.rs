//! How a machine comes up: from its image, its template or a snapshot, until its agent answers.

use std::os::unix::fs::DirBuilderExt as _;
use std::sync::Arc;

use forkyard_protocol::{ErrorBody, Stage};
use tokio::time::Instant;

use super::manager::{Sandboxes, internal};
use super::origin::Origin;
use super::record::End;
use super::slot::Slot;
use super::template::{Found, Kind, Making};
use crate::guest::Guest;
use crate::snapshot::GuestDefaults;
use crate::vmm::{Devices, Machine, MachineSpec, whole_cpus};

/// A machine whose agent answers, and that is nobody's yet.
pub(super) struct Booted {
    /// The machine.
    pub machine: Arc<dyn Machine>,
    /// Its guest.
    pub guest: Guest,
    /// The devices that it has.
    pub devices: Devices,
    /// Whether the guest has the operator's files: it is a fork of its template, or what that was made of.
    pub has_given: bool,
}

/// What a machine has to do with its kind's template.
enum Descent {
    /// It is the template's fork.
    Fork,
    /// The template is made of it.
    Maker(Making),
    /// Nothing.
    Other,
}

impl Sandboxes {
    /// Starts a machine and waits for its agent; one that does not come up is ended.
    pub(super) async fn boot(&self, slot: &Slot, origin: &Origin) -> Result<Booted, End> {
        let (origin, descent) = tokio::select! {
            found = self.template(slot, origin) => found,
            reason = slot.stopped() => return Err(End::Terminated(reason)),
        };
        if self.boots.available_permits() == 0 {
            slot.enter(Stage::WaitingForTurn);
        }
        let permit = tokio::select! {
            permit = self.boots.acquire() => permit,
            reason = slot.stopped() => return Err(End::Terminated(reason)),
        };
        let _permit = permit.map_err(|error| End::Failed(error.to_string()))?;
        let origin = &origin;
        slot.enter(if origin.memory.is_some() { Stage::Restoring } else { Stage::Booting });
        let machine = self.start(slot, origin).await.map_err(|error| End::Failed(error.message))?;
        match self.greet(slot, origin, descent, &machine).await {
            Ok((guest, has_given)) => Ok(Booted { machine, guest, devices: origin.devices, has_given }),
            Err(end) => Err(self.kill(slot, machine.as_ref(), end).await),
        }
    }

    /// What a machine of an image goes on from: its template, or the right to make it. Without either it boots.
    async fn template(&self, slot: &Slot, origin: &Origin) -> (Origin, Descent) {
        if !origin.is_image() || self.settings.template_budget_bytes == 0 {
            return (origin.clone(), Descent::Other);
        }
        let view = slot.record().view;
        let kind = Kind {
            image_digest: &origin.image_digest,
            vcpus: whole_cpus(view.cpus),
            memory_mb: view.memory_mb,
            accelerator: self.vmm.accelerator().as_str(),
            vmm: &self.vmm.version(),
            devices: origin.devices,
            given: &self.settings.network.given.digest(),
        };
        slot.enter(Stage::WaitingForTemplate);
        match self.templates.find(&kind, origin).await {
            Ok(Found::Template(template)) => (*template, Descent::Fork),
            Ok(Found::Missing(making)) => (origin.clone(), Descent::Maker(making)),
            Err(error) => {
                tracing::warn!(sandbox = %slot.id(), error = error.message, "a machine boots without a template");
                (origin.clone(), Descent::Other)
            }
        }
    }

    async fn start(&self, slot: &Slot, origin: &Origin) -> Result<Arc<dyn Machine>, ErrorBody> {
        let view = slot.record().view;
        let dir = self.dir(slot.id());
        std::fs::DirBuilder::new().mode(0o700).create(&dir).map_err(|error| {
            internal(&format!("the machine's directory {} cannot be made: {error}", dir.display()))
        })?;
        let spec = MachineSpec {
            sandbox_id: slot.id().clone(),
            dir,
            rootfs: origin.rootfs.clone(),
            vmlinux: origin.vmlinux.clone(),
            initrd: origin.initrd.clone(),
            layers: origin.layers.clone(),
            memory: origin.memory.clone(),
            vcpus: whole_cpus(view.cpus),
            memory_mb: view.memory_mb,
            devices: origin.devices,
        };
        Ok(self.vmm.start(spec).await?)
    }

    /// Waits for the guest's agent, and makes a template of the machine where that is to be done. True where the guest has the
    /// operator's files.
    async fn greet(
        &self,
        slot: &Slot,
        origin: &Origin,
        descent: Descent,
        machine: &Arc<dyn Machine>,
    ) -> Result<(Guest, bool), End> {
        let deadline = Instant::now() + self.settings.boot_deadline;
        let greeting = async {
            let socket = machine.agent_socket();
            let guest = match origin.memory {
                Some(_) => Guest::connect_restored(socket, deadline).await?,
                None => Guest::connect(socket, deadline).await?,
            };
            let has_given = match descent {
                Descent::Fork => true,
                Descent::Other => false,
                // Before the guest learns whose it is: a template is nobody's.
                Descent::Maker(making) => {
                    let made = self.make_template(slot, origin, making, machine.as_ref(), &guest).await;
                    if let Err(error) = &made {
                        tracing::warn!(sandbox = %slot.id(), error = error.message, "no template was made of a machine");
                    }
                    made.is_ok()
                }
            };
            Ok::<_, ErrorBody>((guest, has_given))
        };
        self.attend(slot, machine.as_ref(), deadline, greeting).await
    }

    /// Freezes a machine that has booted as its kind's template, warm and with what all of the kind are given.
    async fn make_template(
        &self,
        slot: &Slot,
        origin: &Origin,
        making: Making,
        machine: &dyn Machine,
        guest: &Guest,
    ) -> Result<(), ErrorBody> {
        slot.enter(Stage::Warming);
        self.prepare_network(slot, origin.devices, guest).await?;
        for command in &origin.warm {
            rehearse(slot, guest, command, &origin.defaults).await;
        }
        slot.enter(Stage::Freezing);
        self.templates.make(making, machine).await
    }
}

/// Makes a guest warm; one that lacks the command is only slower the first time.
pub(super) async fn rehearse(slot: &Slot, guest: &Guest, command: &[String], defaults: &GuestDefaults) {
    if let Err(error) = guest.rehearse(command, defaults).await {
        tracing::debug!(sandbox = %slot.id(), error = error.message, ?command, "not rehearsed");
    }
}
