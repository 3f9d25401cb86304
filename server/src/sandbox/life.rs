//! A machine's life, in one task that owns it from its directory to its end.

use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use forkyard_protocol::{ErrorBody, GuestConfig, SandboxId, SandboxStatus};
use tokio::time::{Instant, timeout_at};

use super::manager::{BUCKET, Sandboxes, internal};
use super::origin::Origin;
use super::record::{End, Record};
use super::slot::Slot;
use crate::clock::{now_ms, now_ns};
use crate::guest::Guest;
use crate::image::hex;
use crate::store::Expect;
use crate::vmm::{Machine, MachineSpec, whole_cpus};

impl Sandboxes {
    /// Makes a machine and sees it to its end.
    pub(super) async fn make(self: Arc<Self>, slot: Arc<Slot>, origin: Origin) {
        match self.bring_up(&slot, &origin).await {
            Ok(machine) => self.accompany(slot, machine).await,
            Err(end) => self.finish(&slot, &end).await,
        }
    }

    /// Starts a machine and boots it; one that does not come up is ended.
    async fn bring_up(&self, slot: &Slot, origin: &Origin) -> Result<Arc<dyn Machine>, End> {
        let permit = tokio::select! {
            permit = self.boots.acquire() => permit,
            reason = slot.stopped() => return Err(End::Terminated(reason)),
        };
        let _permit = permit.map_err(|error| End::Failed(error.to_string()))?;
        let machine = self.start(slot, origin).await.map_err(|error| End::Failed(error.message))?;
        match self.boot(slot, origin, &machine).await {
            Ok(()) => Ok(machine),
            Err(end) => Err(self.kill(slot, machine.as_ref(), end).await),
        }
    }

    /// Sees a running machine to its end.
    pub(super) async fn accompany(self: Arc<Self>, slot: Arc<Slot>, machine: Arc<dyn Machine>) {
        let idle_timeout = idle_timeout(&slot.record());
        let idle = async {
            match idle_timeout {
                Some(timeout) => slot.activity().idle_for(timeout).await,
                None => std::future::pending().await,
            }
        };
        let end = tokio::select! {
            reason = machine.exited() => End::Failed(reason),
            reason = slot.stopped() => End::Terminated(reason),
            () = idle => End::Terminated(format!("no call for {} seconds", slot.record().view.timeout_secs)),
        };
        let end = self.kill(&slot, machine.as_ref(), end).await;
        self.finish(&slot, &end).await;
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
        };
        Ok(self.vmm.start(spec).await?)
    }

    /// Waits for the guest's agent and tells it who it is.
    async fn boot(&self, slot: &Slot, origin: &Origin, machine: &Arc<dyn Machine>) -> Result<(), End> {
        let deadline = Instant::now() + self.settings.boot_deadline;
        let greeting = async {
            let socket = machine.agent_socket();
            let guest = match origin.memory {
                Some(_) => Guest::connect_restored(socket, deadline).await?,
                None => Guest::connect(socket, deadline).await?,
            };
            guest.configure(&self.guest_config(&slot.record())?).await?;
            Ok::<_, ErrorBody>(guest)
        };
        let guest = tokio::select! {
            greeted = timeout_at(deadline, greeting) => match greeted {
                Ok(Ok(guest)) => guest,
                Ok(Err(error)) => return Err(boot_failed(&error.message, machine.as_ref()).await),
                Err(_) => return Err(boot_failed("its agent did not answer in time", machine.as_ref()).await),
            },
            reason = machine.exited() => return Err(End::Failed(format!("it ended while it booted: {reason}"))),
            reason = slot.stopped() => return Err(End::Terminated(reason)),
        };
        let mut record = slot.record();
        record.view.status = SandboxStatus::Running;
        record.view.started_at_ms = Some(now_ms());
        // First the store, then everybody: who was told that it runs finds it after a restart.
        self.persist(&record, Expect::Any).await.map_err(|error| End::Failed(error.message))?;
        slot.set_guest(Some(guest));
        slot.set_machine(Some(machine.clone()));
        slot.update(|current| *current = record);
        tracing::info!(sandbox = %slot.id(), "running");
        Ok(())
    }

    /// Ends a machine's process; a failure to do so becomes the reason of its end.
    async fn kill(&self, slot: &Slot, machine: &dyn Machine, end: End) -> End {
        slot.set_guest(None);
        slot.set_machine(None);
        match machine.kill().await {
            Ok(()) => end,
            Err(error) => {
                tracing::error!(sandbox = %slot.id(), %error, "the machine could not be ended");
                End::Failed(error.0)
            }
        }
    }

    /// Deletes what is left of a machine, records its end and frees its budget, in this order.
    pub(super) async fn finish(&self, slot: &Slot, end: &End) {
        if let Err(error) = self.delete_dir(slot.id()).await {
            tracing::error!(sandbox = %slot.id(), error = error.message, "the machine's files could not be deleted");
        }
        let mut record = slot.record();
        end.apply(&mut record);
        if let Err(error) = self.persist(&record, Expect::Any).await {
            tracing::error!(sandbox = %slot.id(), error = error.message, "the machine's end could not be recorded");
        }
        tracing::info!(sandbox = %slot.id(), ?end, "ended");
        slot.update(|current| *current = record);
        for id in self.registry.prune() {
            if let Err(error) = self.store.delete(BUCKET, id.to_string(), Expect::Any).await {
                tracing::error!(sandbox = %id, %error, "an old record could not be deleted");
            }
        }
    }

    pub(super) fn dir(&self, id: &SandboxId) -> PathBuf {
        self.settings.machines_dir.join(id.as_str())
    }

    pub(super) async fn delete_dir(&self, id: &SandboxId) -> Result<(), ErrorBody> {
        match tokio::fs::remove_dir_all(self.dir(id)).await {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(internal(&error)),
            _ => Ok(()),
        }
    }

    fn guest_config(&self, record: &Record) -> Result<GuestConfig, ErrorBody> {
        let mut env = record.defaults.env.clone();
        env.extend(self.settings.guest_env.clone());
        env.extend(record.env.clone());
        let id = record.view.sandbox_id.as_str();
        // A host name takes neither capitals nor underscores.
        let hostname = record.view.name.clone().unwrap_or_else(|| id.to_lowercase().replace('_', "-"));
        Ok(GuestConfig {
            hostname,
            machine_id: hex(&crate::random::bytes::<16>()?),
            seed_base64: STANDARD.encode(crate::random::bytes::<64>()?),
            unix_time_ns: now_ns(),
            env,
            user: record.defaults.user.clone(),
            cwd: record.defaults.cwd.clone(),
            files: self.settings.guest_files.clone(),
        })
    }
}

/// An unnamed machine ends when it is idle for so long; a named one stays.
fn idle_timeout(record: &Record) -> Option<Duration> {
    record.view.name.is_none().then(|| Duration::from_secs(record.view.timeout_secs))
}

async fn boot_failed(what: &str, machine: &dyn Machine) -> End {
    End::Failed(format!("{what}; the end of its console: {}", machine.console_tail().await))
}
