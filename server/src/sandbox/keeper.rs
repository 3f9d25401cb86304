//! Keeps pools filled: one task for each, which makes its machines ready one after another and ends what is too much.

use std::sync::Arc;
use std::time::Duration;

use forkyard_protocol::{ErrorBody, ErrorCode, KeyInfo, Pool as View, PoolId, PoolList, PoolSpec, ProjectId};

use super::life::Phase;
use super::manager::{Sandboxes, internal, new_id};
use super::origin::Origin;
use super::record::{Place, Record};
use super::registry::{Claims, Reserved};
use super::slot::Slot;
use crate::pool::{Counts, Pool, Step, next};

/// How long a pool waits after its machine could not be made ready, and how long at most after further failures, each of which
/// doubles it.
const BACK_OFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_mins(1));

impl Sandboxes {
    /// Has machines of one kind kept ready.
    pub async fn create_pool(self: &Arc<Self>, caller: &KeyInfo, spec: PoolSpec) -> Result<View, ErrorBody> {
        self.require_kind(&caller.project, &spec).await?;
        let pool = self.pools.create(caller, spec).await?;
        tokio::spawn(self.clone().keep(pool.clone()));
        Ok(self.view(&pool))
    }

    /// Has a pool keep something else; machines of another kind that wait in it are ended.
    pub async fn change_pool(
        &self,
        caller: &KeyInfo,
        id: &PoolId,
        spec: PoolSpec,
    ) -> Result<View, ErrorBody> {
        self.require_kind(&caller.project, &spec).await?;
        let pool = self.pools.change(caller, id, spec).await?;
        Ok(self.view(&pool))
    }

    /// A pool of this project.
    pub fn pool(&self, project: &ProjectId, id: &PoolId) -> Result<View, ErrorBody> {
        self.pools.get(project, id).map(|pool| self.view(&pool))
    }

    /// A project's pools, newest first.
    pub fn pools(&self, project: &ProjectId) -> PoolList {
        PoolList { pools: self.pools.list(project).iter().map(|pool| self.view(pool)).collect() }
    }

    /// Deletes a pool; machines that were claimed go on.
    pub async fn delete_pool(&self, project: &ProjectId, id: &PoolId) -> Result<(), ErrorBody> {
        self.pools.delete(project, id).await
    }

    /// Refuses what no machine can be made of.
    async fn require_kind(&self, project: &ProjectId, spec: &PoolSpec) -> Result<(), ErrorBody> {
        spec.validate()?;
        self.origin(project, &spec.machine()).await.map(drop)
    }

    /// Starts the keepers of all pools that the store knew.
    pub(super) fn keep_all(self: &Arc<Self>) {
        for pool in self.pools.all().values() {
            tokio::spawn(self.clone().keep(pool.clone()));
        }
    }

    async fn keep(self: Arc<Self>, pool: Arc<Pool>) {
        let mut delay = BACK_OFF.0;
        loop {
            // Before anything is looked at: what comes free meanwhile counts.
            let freed = self.admission.freed.notified();
            let outcome = tokio::select! {
                () = pool.closed.cancelled() => break,
                outcome = self.tend(&pool) => outcome,
            };
            let again = match outcome {
                Ok(Step::Rest) => None,
                Ok(_) => {
                    delay = BACK_OFF.0;
                    pool.explain(None);
                    continue;
                }
                Err(error) => {
                    tracing::debug!(pool = %pool.record().pool_id, error = error.message, "not filled");
                    pool.explain(Some(error.message));
                    Some(error.code)
                }
            };
            let is_full = matches!(again, Some(ErrorCode::NoCapacity | ErrorCode::QuotaExceeded));
            tokio::select! {
                () = pool.closed.cancelled() => break,
                () = pool.changed.notified() => {}
                () = freed, if is_full => {}
                () = tokio::time::sleep(delay), if again.is_some() && !is_full => {
                    delay = (delay * 2).min(BACK_OFF.1);
                }
            }
        }
        self.drain(&pool, |_| true);
    }

    /// Takes one step towards what a pool is to keep.
    async fn tend(self: &Arc<Self>, pool: &Pool) -> Result<Step, ErrorBody> {
        let record = pool.record();
        let request = record.spec.machine();
        let origin = match self.origin(&record.owner.project, &request).await {
            Ok(origin) => origin,
            Err(error) => {
                // The snapshot or image is gone, and nobody can ask for it any more.
                self.drain(pool, |_| true);
                return Err(error);
            }
        };
        let mut machine = Record::pending(new_id()?, &record.owner, request, &origin, None);
        machine.pool_id = Some(record.pool_id);
        machine.place = Place::Starting;
        let kind = machine.kind();
        pool.keep(machine.view.image.clone(), kind.clone());
        self.drain(pool, |waiting| waiting.kind() != kind);
        let step = next(&record.spec, self.counts(pool));
        match step {
            Step::Rest => {}
            Step::End => {
                let members = self.registry.of_pool(&pool.record().pool_id);
                let withdrawn = members.iter().find(|slot| slot.withdraw());
                withdrawn.inspect(|slot| slot.stop("its pool was made smaller"));
            }
            Step::Start => self.make_ready(machine, &record.owner, origin).await?,
        }
        Ok(step)
    }

    /// Makes a machine and waits until it can be claimed.
    async fn make_ready(
        self: &Arc<Self>,
        machine: Record,
        owner: &KeyInfo,
        origin: Origin,
    ) -> Result<(), ErrorBody> {
        // One at a time, whatever the number of pools: those who ask for a machine come first.
        let _turn = self.refills.acquire().await.map_err(|error| internal(&error))?;
        if !self.has_no_line() {
            return Err(ErrorBody::new(ErrorCode::NoCapacity, "others wait for room on this host"));
        }
        let overhead = self.vmm.overhead_mb();
        let Reserved::New(slot) =
            self.registry.reserve(machine, Claims::Forbidden, owner, self.settings.budget, overhead)?
        else {
            return Err(internal(&"a machine for a pool was taken for another"));
        };
        tokio::spawn(self.clone().live(slot.clone(), Phase::Made(Box::new(origin))));
        let made = slot.wait_for(|record| record.place != Place::Starting || !record.is_alive()).await;
        if made.is_alive() { Ok(()) } else { Err(made.not_running()) }
    }

    /// Ends those of a pool's waiting machines that are as said.
    fn drain(&self, pool: &Pool, is_to_go: impl Fn(&Record) -> bool) {
        for slot in self.registry.of_pool(&pool.record().pool_id) {
            if is_to_go(&slot.record()) && slot.withdraw() {
                slot.stop("its pool has no more use for it");
            }
        }
    }

    fn view(&self, pool: &Pool) -> View {
        pool.view(self.counts(pool))
    }

    fn counts(&self, pool: &Pool) -> Counts {
        count(&self.registry.of_pool(&pool.record().pool_id))
    }
}

fn count(members: &[Arc<Slot>]) -> Counts {
    let mut counts = Counts::default();
    for member in members {
        match member.record().place {
            Place::Taken => counts.claimed += 1,
            Place::Starting => counts.starting += 1,
            Place::Ready => counts.ready += 1,
            Place::Leaving => {}
        }
    }
    counts
}
