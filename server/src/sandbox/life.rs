//! A machine's life, in one task that owns it from its directory to its end.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use forkyard_protocol::{ErrorBody, GuestConfig, SandboxEventKind, SandboxId, SandboxStatus};
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout, timeout_at};

use super::boot::{Booted, rehearse};
use super::checkpoint::LAST_WORDS;
use super::manager::{BUCKET, Sandboxes, internal};
use super::order::{Order, Wish};
use super::origin::Origin;
use super::record::{End, Record, no_call_for};
use super::slot::Slot;
use crate::clock::now_ms;
use crate::guest::Guest;
use crate::image::hex;
use crate::store::Expect;
use crate::vmm::Machine;

/// Where a machine stands in its life.
pub(super) enum Phase {
    /// It has room and is to be made of this.
    Made(Box<Origin>),
    /// Its agent answers, and it waits in a pool.
    Ready(Box<Ready>),
    /// It is somebody's, and its agent answers.
    Running(Arc<dyn Machine>),
    /// It is on disk.
    Suspended,
}

/// A machine that waits in a pool.
pub(super) struct Ready {
    booted: Booted,
    /// What another is made of, should it end just as it is claimed.
    origin: Origin,
}

impl Sandboxes {
    /// Sees a machine from where it stands to its end.
    pub(super) async fn live(self: Arc<Self>, slot: Arc<Slot>, mut phase: Phase) {
        let Some(mut orders) = slot.take_orders() else {
            return tracing::error!(sandbox = %slot.id(), "a machine has a task already");
        };
        let end = loop {
            let next = match phase {
                Phase::Made(origin) if slot.record().is_taken() => {
                    self.bring_up(&slot, &origin).await.map(Phase::Running)
                }
                Phase::Made(origin) => self.make_ready_for_pool(&slot, *origin).await,
                Phase::Ready(ready) => self.wait_in_pool(&slot, *ready).await.map(Phase::Running),
                Phase::Running(machine) => self.accompany(&slot, machine, &mut orders).await,
                Phase::Suspended => self.rest(&slot, &mut orders).await.map(Phase::Running),
            };
            match next {
                Ok(next) => phase = next,
                Err(end) => break end,
            }
        };
        self.finish(&slot, &end).await;
    }

    /// Starts a machine, boots it and gives it to whom it is for; one that does not come up is ended.
    pub(super) async fn bring_up(&self, slot: &Slot, origin: &Origin) -> Result<Arc<dyn Machine>, End> {
        let booted = self.boot(slot, origin).await?;
        self.hand_over(slot, booted).await
    }

    /// Starts a machine and boots it, so that it can be claimed.
    async fn make_ready_for_pool(&self, slot: &Slot, origin: Origin) -> Result<Phase, End> {
        let booted = self.boot(slot, &origin).await?;
        let Booted { machine, guest, has_given, .. } = &booted;
        // What its owner asks for first is then as fast as what they ask for next.
        let rehearsal = async {
            self.configure(slot, guest, *has_given).await?;
            rehearse(slot, guest, &["true".to_owned()], &origin.defaults).await;
            Ok(())
        };
        let deadline = Instant::now() + self.settings.boot_deadline;
        if let Err(end) = self.attend(slot, machine.as_ref(), deadline, rehearsal).await {
            return Err(self.kill(slot, machine.as_ref(), end).await);
        }
        slot.offer();
        Ok(Phase::Ready(Box::new(Ready { booted, origin })))
    }

    /// Waits with a machine until somebody claims it, and gives it to them.
    async fn wait_in_pool(&self, slot: &Slot, ready: Ready) -> Result<Arc<dyn Machine>, End> {
        let Ready { booted, origin } = ready;
        let machine = booted.machine.clone();
        let end = tokio::select! {
            _ = slot.wait_for(Record::is_taken) => match self.hand_over(slot, booted).await {
                Err(End::Failed(reason)) => End::Failed(reason),
                other => return other,
            },
            reason = machine.exited() => self.kill(slot, machine.as_ref(), End::Failed(reason)).await,
            reason = slot.stopped() => {
                return Err(self.kill(slot, machine.as_ref(), End::Terminated(reason)).await);
            }
        };
        if slot.withdraw() {
            return Err(end);
        }
        tracing::warn!(sandbox = %slot.id(), ?end, "a machine out of a pool is made anew");
        self.delete_dir(slot.id()).await.map_err(|error| End::Failed(error.message))?;
        self.bring_up(slot, &origin).await
    }

    /// Sees a running machine to its end or its suspension.
    async fn accompany(
        &self,
        slot: &Slot,
        machine: Arc<dyn Machine>,
        orders: &mut mpsc::Receiver<Order>,
    ) -> Result<Phase, End> {
        loop {
            let view = slot.record().view;
            let patience = Duration::from_secs(view.timeout_secs);
            let order = tokio::select! {
                reason = machine.exited() => return Err(self.kill(slot, machine.as_ref(), End::Failed(reason)).await),
                reason = slot.stopped() => return Err(self.kill(slot, machine.as_ref(), End::Terminated(reason)).await),
                () = slot.activity().idle_for(patience) => None,
                order = orders.recv() => order,
            };
            let Some(order) = order else {
                if view.name.is_none() {
                    let end = End::TimedOut(view.timeout_secs);
                    return Err(self.kill(slot, machine.as_ref(), end).await);
                }
                match self.put_to_disk(slot, machine.as_ref(), Some(no_call_for(view.timeout_secs))).await {
                    Ok(()) => return Ok(Phase::Suspended),
                    Err(error) => {
                        tracing::error!(sandbox = %slot.id(), error = error.message, "an idle machine runs on");
                        // Tried again when it has been idle for as long once more.
                        drop(slot.activity().begin());
                    }
                }
                continue;
            };
            match &order.wish {
                Wish::Resume => order.answer(Ok(())),
                Wish::SetTimeout(secs) => {
                    let outcome = self.change_timeout(slot, *secs).await;
                    order.answer(outcome);
                }
                Wish::Suspend(reason) => {
                    let outcome = self.put_to_disk(slot, machine.as_ref(), reason.clone()).await;
                    let is_suspended = outcome.is_ok();
                    order.answer(outcome);
                    if is_suspended {
                        return Ok(Phase::Suspended);
                    }
                }
                Wish::Restore(origin) => {
                    let (outcome, next) = self.put_back(slot, &machine, origin).await?;
                    order.answer(outcome);
                    if let Some(next) = next {
                        return Ok(next);
                    }
                }
                Wish::Network(policy) => {
                    let outcome = self.change_network(slot, &machine, policy).await;
                    order.answer(outcome);
                }
            }
        }
    }

    /// Tells a guest whose it is, records that it runs, and tells everybody who waits for it.
    async fn hand_over(&self, slot: &Slot, booted: Booted) -> Result<Arc<dyn Machine>, End> {
        let machine = booted.machine.clone();
        match self.introduce(slot, booted).await {
            Ok(()) => Ok(machine),
            Err(end) => Err(self.kill(slot, machine.as_ref(), end).await),
        }
    }

    async fn introduce(&self, slot: &Slot, booted: Booted) -> Result<(), End> {
        let Booted { machine, guest, devices, has_given } = booted;
        let deadline = Instant::now() + self.settings.boot_deadline;
        self.open_network(slot, &machine, &guest).await;
        self.attend(slot, machine.as_ref(), deadline, self.configure(slot, &guest, has_given)).await?;
        let mut record = slot.record();
        let is_new = record.view.started_at_ms.is_none();
        record.view.status = SandboxStatus::Running;
        record.view.stage = None;
        record.view.started_at_ms.get_or_insert_with(now_ms);
        self.vmm.accelerator().as_str().clone_into(&mut record.accelerator);
        record.devices = devices;
        // First the store, then everybody: who was told that it runs finds it after a restart.
        self.persist(&record, Expect::Any).await.map_err(|error| End::Failed(error.message))?;
        slot.set_guest(Some(guest));
        slot.set_machine(Some(machine));
        if is_new {
            self.note(slot, |_| (), SandboxEventKind::Started);
        }
        slot.update(|current| *current = record);
        tracing::info!(sandbox = %slot.id(), "running");
        Ok(())
    }

    /// Waits for something that a guest does on its way to its owner, unless its machine or its owner ends it before.
    pub(super) async fn attend<T>(
        &self,
        slot: &Slot,
        machine: &dyn Machine,
        deadline: Instant,
        doing: impl Future<Output = Result<T, ErrorBody>>,
    ) -> Result<T, End> {
        tokio::select! {
            done = timeout_at(deadline, doing) => match done {
                Ok(Ok(done)) => Ok(done),
                // A channel that breaks mostly does so as its machine ends, whose own words say more.
                Ok(Err(error)) => match timeout(LAST_WORDS, machine.exited()).await {
                    Ok(reason) => Err(ended_on_its_way(&reason)),
                    Err(_) => Err(boot_failed(&error.message, machine).await),
                },
                Err(_) => Err(boot_failed("its agent did not answer in time", machine).await),
            },
            reason = machine.exited() => Err(ended_on_its_way(&reason)),
            reason = slot.stopped() => Err(End::Terminated(reason)),
        }
    }

    /// Ends a machine's process; a failure to do so becomes the reason of its end.
    pub(super) async fn kill(&self, slot: &Slot, machine: &dyn Machine, end: End) -> End {
        slot.set_guest(None);
        slot.set_machine(None);
        slot.network().end().await;
        match machine.kill().await {
            Ok(()) => end,
            Err(error) => {
                tracing::error!(sandbox = %slot.id(), %error, "the machine could not be ended");
                End::Failed(error.to_string())
            }
        }
    }

    /// Deletes what is left of a machine, records its end and frees its budget, in this order.
    pub(super) async fn finish(&self, slot: &Slot, end: &End) {
        if let Err(error) = self.delete_dir(slot.id()).await {
            tracing::error!(sandbox = %slot.id(), error = error.message, "the machine's files could not be deleted");
        }
        self.delete_suspended(slot.id()).await;
        let is_taken = !slot.withdraw();
        let mut record = slot.record();
        end.apply(&mut record);
        if is_taken && let Err(error) = self.persist(&record, Expect::Any).await {
            tracing::error!(sandbox = %slot.id(), error = error.message, "the machine's end could not be recorded");
        }
        if is_taken {
            self.note_end(slot, &record, end);
        }
        tracing::info!(sandbox = %slot.id(), ?end, "ended");
        let record = slot.update(|current| *current = record);
        // One that was never made has no task, and nobody else answers what was asked of it.
        drop(slot.take_orders());
        if !is_taken {
            // Nobody ever knew of it.
            self.registry.forget(slot.id());
        }
        if let Some(pool_id) = &record.pool_id {
            self.pools.look_again_at(pool_id);
        }
        self.serve_line();
        for id in self.registry.prune() {
            if let Err(error) = self.store.delete(BUCKET, id.to_string(), Expect::Any).await {
                tracing::error!(sandbox = %id, %error, "an old record could not be deleted");
            }
            self.forget_events(&id).await;
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

    /// Tells a guest what it must know, and gives it what the operator has for those with a network, unless it has that already.
    pub(super) async fn configure(
        &self,
        slot: &Slot,
        guest: &Guest,
        has_given: bool,
    ) -> Result<(), ErrorBody> {
        let record = slot.record();
        let config = self.guest_config(&record, guest)?;
        let given = &self.settings.network.given.files;
        let given = if record.network.allows_anything() && !has_given { &given[..] } else { &[] };
        tokio::try_join!(guest.configure(&config), guest.give(given)).map(drop)
    }

    fn guest_config(&self, record: &Record, guest: &Guest) -> Result<GuestConfig, ErrorBody> {
        let mut env = record.defaults.env.clone();
        env.extend(self.settings.guest_env.clone());
        if record.network.allows_anything() {
            env.extend(self.settings.network.given.env.clone());
        }
        env.extend(record.env.clone());
        let id = record.view.sandbox_id.as_str();
        // A host name takes neither capitals nor underscores.
        let (unix_time_ns, uptime_ns) = guest.clock();
        let hostname = record.view.name.clone().unwrap_or_else(|| id.to_lowercase().replace('_', "-"));
        Ok(GuestConfig {
            hostname,
            // The same after a resume, another in every fork.
            machine_id: hex(&Sha256::digest(id)[..16]),
            seed_base64: STANDARD.encode(crate::random::bytes::<64>()?),
            unix_time_ns,
            uptime_ns,
            env,
            user: record.defaults.user.clone(),
            cwd: record.defaults.cwd.clone(),
            network: record.network.allows_anything(),
        })
    }
}

fn ended_on_its_way(reason: &str) -> End {
    End::Failed(format!("it ended while it booted: {reason}"))
}

async fn boot_failed(what: &str, machine: &dyn Machine) -> End {
    End::Failed(format!("{what}; the end of its console: {}", machine.console_tail().await))
}
