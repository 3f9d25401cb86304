use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use forkyard_protocol::{
    ErrorBody, ErrorCode, KeyInfo, PoolId, ProjectId, Resource, Sandbox, SandboxId, SandboxPage,
    SandboxStatus,
};

use super::record::{Place, Record};
use super::slot::Slot;
use crate::quota::{HostBudget, Usage, admit, admit_key};

/// Ended machines that are kept for `get` and `list`; the oldest are forgotten first.
const KEEP_ENDED: usize = 1000;

/// All machines that this server knows, and the one place where room for another is given out.
#[derive(Default)]
pub struct Registry(Mutex<HashMap<SandboxId, Arc<Slot>>>);

/// What [`Registry::reserve`] found.
pub enum Reserved {
    /// Room was given; the machine is to be made now.
    New(Arc<Slot>),
    /// The same call was made before; this is its machine.
    Existing(Arc<Slot>),
    /// It waited in a pool.
    Claimed(Arc<Slot>),
}

/// Whether a machine may be one that waits in a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claims {
    /// It may: one that nobody has used yet is as good.
    Allowed,
    /// It may not: it is to be another machine's twin, or to wait in a pool itself.
    Forbidden,
}

/// Which machines to list.
#[derive(Debug, Clone, Default)]
pub struct ListFilter {
    /// Only those with this name.
    pub name: Option<String>,
    /// Only those in this state.
    pub status: Option<SandboxStatus>,
    /// Only those of this image: as it was asked for, or its digest.
    pub image: Option<String>,
    /// Only those with all of these marks.
    pub labels: BTreeMap<String, String>,
    /// Only those older than the one with this id.
    pub before: Option<SandboxId>,
    /// At most so many.
    pub limit: usize,
}

impl ListFilter {
    fn admits(&self, view: &Sandbox) -> bool {
        let image = self.image.as_ref();
        (self.name.is_none() || view.name == self.name)
            && self.status.is_none_or(|status| view.status == status)
            && image.is_none_or(|image| view.image == *image || view.image_digest == *image)
            && self.labels.iter().all(|(key, value)| view.labels.get(key) == Some(value))
            && self.before.as_ref().is_none_or(|before| view.sandbox_id < *before)
    }
}

impl Registry {
    /// Puts in a machine that the store knew.
    pub fn restore(&self, slot: Arc<Slot>) {
        self.lock().insert(slot.id().clone(), slot);
    }

    /// Gives room to a new machine, or finds the one that the same call made before, or one in a pool. One lock for all of it:
    /// no two calls can take the same name, key, memory or waiting machine.
    pub fn reserve(
        &self,
        record: Record,
        claims: Claims,
        caller: &KeyInfo,
        budget: HostBudget,
        overhead_mb: u64,
    ) -> Result<Reserved, ErrorBody> {
        let mut slots = self.lock();
        if let Some(found) = find_repetition(&slots, &record)? {
            return Ok(Reserved::Existing(found));
        }
        let (mut usage, mut ready) = (Usage::default(), Vec::new());
        for slot in slots.values() {
            let other = slot.record();
            if !other.is_alive() {
                continue;
            }
            if claims == Claims::Allowed && other.serves(&record) {
                ready.push((slot.id().clone(), slot.clone()));
            }
            if record.view.name.is_some()
                && other.view.name == record.view.name
                && other.project == record.project
            {
                return Err(name_taken(&other));
            }
            // A suspended one holds no memory, but a place on disk and in the key's budget.
            usage.of_key += u64::from(other.key_id == caller.key_id);
            usage.add(&other, overhead_mb);
        }
        // The one that has waited the longest; its memory is counted already, and so may be its place in the key's budget.
        ready.sort_by(|(a, _), (b, _)| a.cmp(b));
        for (_, slot) in ready {
            let is_own = u64::from(slot.record().key_id == caller.key_id);
            admit_key(usage.of_key - is_own, u64::from(caller.max_sandboxes))?;
            if slot.claim(&record) {
                return Ok(Reserved::Claimed(slot));
            }
        }
        admit_key(usage.of_key, u64::from(caller.max_sandboxes))?;
        admit(budget, usage, record.view.memory_mb + overhead_mb)?;
        let slot = Arc::new(Slot::new(record));
        slots.insert(slot.id().clone(), slot.clone());
        Ok(Reserved::New(slot))
    }

    /// A machine that waits in a pool, withdrawn from there, to make room: of the caller's own key where that key's budget is
    /// met, else of any, the youngest first.
    pub fn withdraw_one(&self, refusal: &ErrorBody, caller: &KeyInfo) -> Option<Arc<Slot>> {
        let slots = self.lock();
        let mut waiting: Vec<_> = slots
            .values()
            .filter(|slot| {
                let record = slot.record();
                let helps = match refusal.code {
                    ErrorCode::QuotaExceeded => record.key_id == caller.key_id,
                    ErrorCode::NoCapacity => true,
                    _ => false,
                };
                helps && record.is_alive() && matches!(record.place, Place::Starting | Place::Ready)
            })
            .collect();
        waiting.sort_by(|a, b| b.id().cmp(a.id()));
        waiting.into_iter().find(|slot| slot.withdraw()).cloned()
    }

    /// A pool's living machines.
    pub fn of_pool(&self, pool_id: &PoolId) -> Vec<Arc<Slot>> {
        let is_of = |slot: &&Arc<Slot>| {
            let record = slot.record();
            record.pool_id.as_ref() == Some(pool_id) && record.is_alive()
        };
        self.lock().values().filter(is_of).cloned().collect()
    }

    /// Takes out a machine that never came to be.
    pub fn forget(&self, id: &SandboxId) {
        self.lock().remove(id);
    }

    /// A machine of this project; another's does not exist.
    pub fn get(&self, project: &ProjectId, id: &SandboxId) -> Result<Arc<Slot>, ErrorBody> {
        let is_theirs = |record: &Record| record.project == *project && record.is_taken();
        self.lock().get(id).filter(|slot| is_theirs(&slot.record())).cloned().ok_or_else(|| {
            ErrorBody::new(ErrorCode::NotFound, format!("there is no sandbox {id}")).about(Resource::Sandbox)
        })
    }

    /// The project that a machine belongs to.
    pub fn owner(&self, id: &SandboxId) -> Result<ProjectId, ErrorBody> {
        let record = self.lock().get(id).map(|slot| slot.record());
        record.filter(Record::is_taken).map(|record| record.project).ok_or_else(|| {
            ErrorBody::new(ErrorCode::NotFound, format!("there is no sandbox {id}")).about(Resource::Sandbox)
        })
    }

    /// One page of a project's machines, newest first.
    pub fn list(&self, project: &ProjectId, filter: &ListFilter) -> SandboxPage {
        let mut found: Vec<Sandbox> = self
            .lock()
            .values()
            .map(|slot| slot.record())
            .filter(|record| record.project == *project && record.is_taken())
            .map(|record| record.view)
            .filter(|view| filter.admits(view))
            .collect();
        // Ids are ULIDs: their order is the order in which they were made.
        found.sort_by(|a, b| b.sandbox_id.cmp(&a.sandbox_id));
        let more = found.len() > filter.limit;
        found.truncate(filter.limit);
        let next_cursor = found.last().filter(|_| more).map(|view| view.sandbox_id.to_string());
        SandboxPage { sandboxes: found, next_cursor }
    }

    /// Every machine.
    pub fn all(&self) -> Vec<Arc<Slot>> {
        self.lock().values().cloned().collect()
    }

    /// What living machines hold.
    pub fn usage(&self, overhead_mb: u64) -> Usage {
        let mut usage = Usage::default();
        self.lock().values().for_each(|slot| usage.add(&slot.record(), overhead_mb));
        usage
    }

    /// Gives room again to a machine that was suspended, and marks it as resuming.
    pub fn readmit(&self, slot: &Slot, budget: HostBudget, overhead_mb: u64) -> Result<(), ErrorBody> {
        let slots = self.lock();
        let mut usage = Usage::default();
        slots.values().for_each(|slot| usage.add(&slot.record(), overhead_mb));
        // The key's own limit was met when the machine was made.
        admit(budget, usage, slot.record().view.memory_mb + overhead_mb)?;
        slot.update(|record| record.view.status = SandboxStatus::Resuming);
        Ok(())
    }

    /// Forgets the oldest ended machines beyond those that are kept, and answers which.
    pub fn prune(&self) -> Vec<SandboxId> {
        let mut slots = self.lock();
        let mut ended: Vec<SandboxId> =
            slots.values().filter(|slot| !slot.record().is_alive()).map(|slot| slot.id().clone()).collect();
        ended.sort();
        ended.truncate(ended.len().saturating_sub(KEEP_ENDED));
        for id in &ended {
            slots.remove(id);
        }
        ended
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SandboxId, Arc<Slot>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Usage {
    /// Counts what a machine holds of the host.
    fn add(&mut self, record: &Record, overhead_mb: u64) {
        if record.view.status.holds_memory() {
            self.memory_mb += record.view.memory_mb + overhead_mb;
            self.sandboxes += 1;
        }
    }
}

fn name_taken(other: &Record) -> ErrorBody {
    let name = other.view.name.as_deref().unwrap_or_default();
    let message =
        format!("the name '{name}' is taken by {}; terminate it or connect to it", other.view.sandbox_id);
    ErrorBody::new(ErrorCode::AlreadyExists, message).about(Resource::Sandbox)
}

/// The machine that the same call made before. A create that failed leaves its key free: its repetition is a new try.
fn find_repetition(
    slots: &HashMap<SandboxId, Arc<Slot>>,
    record: &Record,
) -> Result<Option<Arc<Slot>>, ErrorBody> {
    let Some(creation) = &record.creation else { return Ok(None) };
    for slot in slots.values() {
        let other = slot.record();
        let same_key = other.project == record.project
            && other.creation.as_ref().is_some_and(|c| c.idempotency_key == creation.idempotency_key);
        if !same_key || other.view.status == SandboxStatus::Failed && other.view.started_at_ms.is_none() {
            continue;
        }
        if other.creation.as_ref() == Some(creation) {
            return Ok(Some(slot.clone()));
        }
        return Err(ErrorBody::new(
            ErrorCode::FailedPrecondition,
            "this Idempotency-Key was used for another request; use a new one",
        ));
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use forkyard_protocol::{CreateSandbox, KeyId, Scope};

    use super::super::origin::Origin;
    use super::super::record::{Creation, End};
    use super::*;
    use crate::snapshot::Contents;
    use crate::vmm::Devices;

    const BUDGET: HostBudget = HostBudget { memory_mb: 2000, sandboxes: 10 };

    fn origin() -> Origin {
        Origin {
            image: "python".into(),
            ..Origin::frozen(&Contents::default(), std::path::Path::new(""), Devices::NOW)
        }
    }

    fn caller() -> KeyInfo {
        KeyInfo {
            key_id: KeyId::parse("key_1").unwrap(),
            project: ProjectId::parse("prj_1").unwrap(),
            scope: Scope::Sandboxes,
            description: String::new(),
            max_sandboxes: 8,
            requests_per_second: 10,
            created_at_ms: 0,
        }
    }

    fn record(n: u32, name: Option<&str>, key: Option<&str>) -> Record {
        let request = CreateSandbox { name: name.map(str::to_owned), ..CreateSandbox::default() };
        let creation =
            key.map(|key| Creation { idempotency_key: key.to_owned(), request: format!("{name:?}") });
        Record::pending(
            SandboxId::parse(&format!("sbx_{n}")).unwrap(),
            &caller(),
            request,
            &origin(),
            creation,
        )
    }

    fn reserve(registry: &Registry, record: Record) -> Result<Reserved, ErrorBody> {
        registry.reserve(record, Claims::Allowed, &caller(), BUDGET, 64)
    }

    fn code(result: Result<Reserved, ErrorBody>) -> Option<ErrorCode> {
        result.err().map(|error| error.code)
    }

    #[test]
    fn a_repeated_create_finds_its_machine() {
        let registry = Registry::default();
        reserve(&registry, record(1, None, Some("k"))).unwrap();
        let Ok(Reserved::Existing(slot)) = reserve(&registry, record(2, None, Some("k"))) else {
            panic!("made another")
        };
        assert_eq!(slot.id().as_str(), "sbx_1");
        assert_eq!(
            code(reserve(&registry, record(3, Some("n"), Some("k")))),
            Some(ErrorCode::FailedPrecondition)
        );
        slot.update(|record| End::Failed("no boot".into()).apply(record));
        assert!(matches!(reserve(&registry, record(4, None, Some("k"))), Ok(Reserved::New(_))));
    }

    #[test]
    fn a_name_is_free_again_after_its_machine() {
        let registry = Registry::default();
        let Ok(Reserved::New(slot)) = reserve(&registry, record(1, Some("a"), None)) else {
            panic!("not made")
        };
        assert_eq!(code(reserve(&registry, record(2, Some("a"), None))), Some(ErrorCode::AlreadyExists));
        slot.update(|record| End::Terminated("asked".into()).apply(record));
        assert!(reserve(&registry, record(3, Some("a"), None)).is_ok());
    }

    #[test]
    fn ended_machines_hold_no_budget() {
        let registry = Registry::default();
        let Ok(Reserved::New(slot)) = reserve(&registry, record(1, None, None)) else { panic!("not made") };
        reserve(&registry, record(2, None, None)).unwrap();
        reserve(&registry, record(3, None, None)).unwrap();
        assert_eq!(code(reserve(&registry, record(4, None, None))), Some(ErrorCode::NoCapacity));
        slot.update(|record| End::Terminated("asked".into()).apply(record));
        assert!(reserve(&registry, record(5, None, None)).is_ok());
        assert_eq!(registry.usage(64), Usage { memory_mb: 3 * 576, sandboxes: 3, of_key: 0 });
    }

    #[test]
    fn a_suspended_machine_holds_no_memory_but_a_place() {
        let registry = Registry::default();
        for n in 0..8 {
            let Ok(Reserved::New(slot)) = reserve(&registry, record(n, None, None)) else {
                panic!("not made")
            };
            slot.update(|record| record.view.status = SandboxStatus::Suspended);
        }
        assert_eq!(registry.usage(64), Usage::default());
        assert_eq!(code(reserve(&registry, record(8, None, None))), Some(ErrorCode::QuotaExceeded));
        let slots = registry.all();
        for slot in &slots[..3] {
            registry.readmit(slot, BUDGET, 64).unwrap();
        }
        assert_eq!(registry.readmit(&slots[3], BUDGET, 64).unwrap_err().code, ErrorCode::NoCapacity);
        assert_eq!(slots[3].record().view.status, SandboxStatus::Suspended);
    }

    #[test]
    fn a_list_holds_what_fits_all_that_was_asked() {
        let registry = Registry::default();
        for (n, team, place) in [(1, "red", "a"), (2, "red", "b"), (3, "blue", "a")] {
            let mut record = record(n, None, None);
            record.view.labels = [("team".into(), team.into()), ("place".into(), place.into())].into();
            record.view.image_digest = format!("sha256:{n}");
            reserve(&registry, record).unwrap();
        }
        let found = |change: fn(&mut ListFilter)| {
            let mut filter = ListFilter { limit: 9, ..ListFilter::default() };
            change(&mut filter);
            let page = registry.list(&caller().project, &filter);
            page.sandboxes.iter().map(|view| view.sandbox_id.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(found(|f| f.labels = [("team".into(), "red".into())].into()), ["sbx_2", "sbx_1"]);
        let both = |f: &mut ListFilter| {
            f.labels = [("team".into(), "red".into()), ("place".into(), "a".into())].into();
        };
        assert_eq!(found(both), ["sbx_1"]);
        assert!(found(|f| f.labels = [("team".into(), "re".into())].into()).is_empty());
        assert!(found(|f| f.labels = [("squad".into(), "red".into())].into()).is_empty());
        assert_eq!(found(|f| f.image = Some("python".into())).len(), 3);
        assert_eq!(found(|f| f.image = Some("sha256:3".into())), ["sbx_3"]);
        assert!(found(|f| f.image = Some("base".into())).is_empty());
        assert!(found(|f| f.status = Some(SandboxStatus::Running)).is_empty());
    }

    #[test]
    fn pages_are_newest_first_and_a_project_sees_its_own() {
        let registry = Registry::default();
        for n in 1..=3 {
            reserve(&registry, record(n, None, None)).unwrap();
        }
        let project = caller().project;
        let page = registry.list(&project, &ListFilter { limit: 2, ..ListFilter::default() });
        let ids =
            |page: &SandboxPage| page.sandboxes.iter().map(|s| s.sandbox_id.to_string()).collect::<Vec<_>>();
        assert_eq!(ids(&page), ["sbx_3", "sbx_2"]);
        let before = Some(SandboxId::parse(page.next_cursor.as_deref().unwrap()).unwrap());
        let rest = registry.list(&project, &ListFilter { limit: 2, before, ..ListFilter::default() });
        assert_eq!((ids(&rest), rest.next_cursor), (vec!["sbx_1".to_owned()], None));
        let other = ProjectId::parse("prj_2").unwrap();
        assert!(
            registry.list(&other, &ListFilter { limit: 9, ..ListFilter::default() }).sandboxes.is_empty()
        );
        assert_eq!(
            registry.get(&other, &SandboxId::parse("sbx_1").unwrap()).err().map(|e| e.code),
            Some(ErrorCode::NotFound)
        );
    }
}
