//! Snapshots: machines frozen on disk, immutable, each a folder of hard links that holds all that a fork needs.
//!
//! ```text
//! snapshots/<id>/        base.raw, vmlinux, initrd, layer-0.qcow2 …, and with memory ram and state
//! snapshots/.<id>/       one that is being made
//! ```
//!
//! The file system counts the references: what several snapshots, machines and the image share is gone with the last link, so
//! one can be deleted while forks of it run.

mod files;
mod record;
mod retention;
mod verified;

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use forkyard_protocol::{
    ErrorBody, ErrorCode, ProjectId, Resource, RetentionPolicy, Snapshot, SnapshotId, SnapshotList,
    SnapshotStatus,
};
use tokio::sync::{Notify, watch};
use tokio::task::spawn_blocking;

pub(crate) use self::files::delete_others;
pub use self::files::{Contents, Folder, delete};
pub use self::record::{GuestDefaults, Record};
pub use self::verified::Verified;
use crate::clock::now_ms;
use crate::store::{Expect, Store};

const BUCKET: &str = "snapshots";

/// The projects' retention policies, by project.
const POLICIES: &str = "retention";

/// Least time between two looks at what has become too old.
const RETRY_MS: u64 = 1000;

/// Failed snapshots of one project whose records are kept, to say why; the oldest are forgotten first.
const KEEP_FAILED: usize = 100;

/// The snapshots of this server, all records in memory; every change is in the store before it counts.
pub struct Snapshots {
    dir: PathBuf,
    store: Arc<dyn Store>,
    records: Mutex<HashMap<SnapshotId, watch::Sender<Record>>>,
    verified: Verified<SnapshotId>,
    policies: Mutex<HashMap<ProjectId, RetentionPolicy>>,
    /// Held from a look at what a budget has left until what takes it is recorded.
    budgeting: tokio::sync::Mutex<()>,
    /// Told whenever another snapshot may be the next to be too old.
    ageing: Notify,
}

impl Snapshots {
    /// Reads the records; what an earlier server was making when it ended has failed, and its files are deleted.
    pub async fn open(dir: PathBuf, store: Arc<dyn Store>) -> Result<Self, ErrorBody> {
        let mut records = HashMap::new();
        for entry in store.list(BUCKET).await.map_err(|error| internal(&error))? {
            let record: Record = serde_json::from_slice(&entry.value)
                .map_err(|error| internal(&format!("the record of {} cannot be read: {error}", entry.key)))?;
            records.insert(record.view.snapshot_id.clone(), watch::Sender::new(record));
        }
        let mut policies = HashMap::new();
        for entry in store.list(POLICIES).await.map_err(|error| internal(&error))? {
            let cannot_be_read = |error: &dyn std::fmt::Display| {
                internal(&format!("the retention policy of {} cannot be read: {error}", entry.key))
            };
            let project = ProjectId::parse(&entry.key).map_err(|error| cannot_be_read(&error))?;
            let policy = serde_json::from_slice(&entry.value).map_err(|error| cannot_be_read(&error))?;
            policies.insert(project, policy);
        }
        let snapshots = Self {
            dir,
            store,
            records: Mutex::new(records),
            verified: Verified::default(),
            policies: Mutex::new(policies),
            budgeting: tokio::sync::Mutex::new(()),
            ageing: Notify::new(),
        };
        let unfinished: Vec<SnapshotId> = snapshots
            .lock()
            .iter()
            .filter(|(_, record)| record.borrow().view.status == SnapshotStatus::InProgress)
            .map(|(id, _)| id.clone())
            .collect();
        for id in unfinished {
            let reason = "the server ended while the snapshot was being made";
            snapshots.fail(&id, &ErrorBody::new(ErrorCode::FailedPrecondition, reason)).await?;
        }
        let (dir, keep) = (snapshots.dir.clone(), snapshots.completed());
        run(move || delete_others(&dir, SnapshotId::PREFIX, &keep)).await?;
        Ok(snapshots)
    }

    /// Notes a snapshot that is about to be made.
    pub async fn begin(&self, record: Record) -> Result<(), ErrorBody> {
        self.persist(&record, Expect::Absent).await?;
        self.lock().insert(record.view.snapshot_id.clone(), watch::Sender::new(record));
        Ok(())
    }

    /// A folder for a machine to be frozen into: beside the finished ones, and deleted unless it is published.
    pub async fn folder(&self, id: &SnapshotId) -> Result<Folder, ErrorBody> {
        let (dir, name) = (self.dir.clone(), id.to_string());
        run(move || Folder::make(&dir, &name)).await
    }

    /// Puts a frozen machine in its place and tells everybody.
    pub async fn complete(&self, id: &SnapshotId, folder: Folder, pause_ms: u64) -> Result<(), ErrorBody> {
        let (contents, folder) = run(move || Ok((folder.seal()?, folder))).await?;
        let mut record = self.record(id)?;
        record.view.status = SnapshotStatus::Completed;
        record.view.pause_ms = pause_ms;
        record.view.size_bytes = contents.size_bytes;
        record.view.logical_size_bytes = contents.logical_size_bytes;
        record.contents = contents;
        let project = record.project.clone();
        let budgeting = self.budgeting.lock().await;
        for older in retention::make_room(
            &self.policy(&project),
            &self.list(&project).snapshots,
            record.view.size_bytes,
        )? {
            tracing::info!(snapshot = %older, "an old snapshot gives way to a new one");
            self.remove(&older).await?;
        }
        let target = self.path(id);
        run(move || folder.publish(&target)).await?;
        // Its files were read for their digests a moment ago.
        *self.verified.enter(id.clone()).await = true;
        self.update(record).await?;
        drop(budgeting);
        self.ageing.notify_one();
        Ok(())
    }

    /// Notes that a snapshot could not be made.
    pub async fn fail(&self, id: &SnapshotId, error: &ErrorBody) -> Result<(), ErrorBody> {
        let mut record = self.record(id)?;
        record.view.status = SnapshotStatus::Failed;
        record.view.reason = Some(error.message.clone());
        record.failure = Some(error.code);
        let project = record.project.clone();
        self.update(record).await?;
        self.forget_failures(&project).await
    }

    /// Forgets the oldest failures of a project beyond those that are kept.
    async fn forget_failures(&self, project: &ProjectId) -> Result<(), ErrorBody> {
        let mut failed: Vec<SnapshotId> = {
            let records = self.lock();
            let failed = records.iter().filter(|(_, record)| {
                let record = record.borrow();
                record.view.status == SnapshotStatus::Failed && record.project == *project
            });
            failed.map(|(id, _)| id.clone()).collect()
        };
        failed.sort();
        failed.truncate(failed.len().saturating_sub(KEEP_FAILED));
        for id in failed {
            self.store.delete(BUCKET, id.to_string(), Expect::Any).await.map_err(|error| internal(&error))?;
            self.lock().remove(&id);
        }
        Ok(())
    }

    /// A snapshot of this project; another's does not exist.
    pub fn get(&self, project: &ProjectId, id: &SnapshotId) -> Result<Record, ErrorBody> {
        self.record(id).ok().filter(|record| record.project == *project).ok_or_else(|| unknown(id))
    }

    /// The same, once it is no longer being made.
    pub async fn finished(&self, project: &ProjectId, id: &SnapshotId) -> Result<Record, ErrorBody> {
        self.get(project, id)?;
        let mut receiver = self.lock().get(id).ok_or_else(|| unknown(id))?.subscribe();
        let finished = receiver.wait_for(|record| record.view.status != SnapshotStatus::InProgress).await;
        finished.map(|record| record.clone()).map_err(|_| unknown(id))
    }

    /// A project's snapshots, newest first.
    pub fn list(&self, project: &ProjectId) -> SnapshotList {
        let mut snapshots: Vec<Snapshot> = self
            .lock()
            .values()
            .map(|record| record.borrow().clone())
            .filter(|record| record.project == *project)
            .map(|record| record.view)
            .collect();
        snapshots.sort_by(|a, b| b.snapshot_id.cmp(&a.snapshot_id));
        SnapshotList { snapshots }
    }

    /// Deletes a snapshot. Machines that came from it, and snapshots of those, keep what they need.
    pub async fn delete(&self, project: &ProjectId, id: &SnapshotId) -> Result<(), ErrorBody> {
        if self.get(project, id)?.view.status == SnapshotStatus::InProgress {
            let message = format!("snapshot {id} is still being made; delete it when it is completed");
            return Err(ErrorBody::new(ErrorCode::FailedPrecondition, message).about(Resource::Snapshot));
        }
        self.remove(id).await
    }

    async fn remove(&self, id: &SnapshotId) -> Result<(), ErrorBody> {
        // First the record: files without one are deleted at the next start, a record without files would promise what is
        // not there.
        self.store.delete(BUCKET, id.to_string(), Expect::Any).await.map_err(|error| internal(&error))?;
        self.lock().remove(id);
        let path = self.path(id);
        run(move || delete(&path)).await
    }

    /// Which of its snapshots a project keeps.
    pub fn policy(&self, project: &ProjectId) -> RetentionPolicy {
        let policies = self.policies.lock().unwrap_or_else(PoisonError::into_inner);
        policies.get(project).cloned().unwrap_or_default()
    }

    /// Has a project keep others of its snapshots from now on.
    pub async fn set_policy(&self, project: &ProjectId, policy: RetentionPolicy) -> Result<(), ErrorBody> {
        policy.validate()?;
        let value = serde_json::to_vec(&policy).map_err(|error| internal(&error))?;
        let put = self.store.put(POLICIES, project.to_string(), value, Expect::Any).await;
        put.map_err(|error| internal(&error))?;
        self.policies.lock().unwrap_or_else(PoisonError::into_inner).insert(project.clone(), policy);
        self.ageing.notify_one();
        Ok(())
    }

    /// Deletes what the projects' policies no longer keep, now and from now on.
    pub async fn retain(&self) {
        loop {
            let next_end_ms = self.delete_surplus().await;
            let wait = next_end_ms.map(|end| Duration::from_millis(end.saturating_sub(now_ms())));
            tokio::select! {
                () = self.ageing.notified() => {}
                () = tokio::time::sleep(wait.unwrap_or_default()), if wait.is_some() => {}
            }
        }
    }

    /// Answers when there will be more to delete, in milliseconds since 1970.
    async fn delete_surplus(&self) -> Option<u64> {
        let policies = self.policies.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut next_end_ms = None;
        for (project, policy) in policies {
            for id in retention::surplus(&policy, &self.list(&project).snapshots, now_ms()) {
                match self.remove(&id).await {
                    Ok(()) => tracing::info!(snapshot = %id, "deleted by its project's retention policy"),
                    Err(error) => {
                        tracing::error!(snapshot = %id, error = error.message, "it could not be deleted");
                    }
                }
            }
            let next = retention::next_end_ms(&policy, &self.list(&project).snapshots);
            // One that could not be deleted is tried again, and not at once.
            let next = next.map(|end| end.max(now_ms() + RETRY_MS));
            next_end_ms = [next_end_ms, next].into_iter().flatten().min();
        }
        next_end_ms
    }

    /// Checks that a snapshot's files are what was written, once after each start of the server.
    pub async fn verify(&self, record: &Record) -> Result<(), ErrorBody> {
        let id = &record.view.snapshot_id;
        let mut verified = self.verified.enter(id.clone()).await;
        let (path, contents, is_verified) = (self.path(id), record.contents.clone(), *verified);
        let checked = run(move || Ok(contents.check(&path, is_verified))).await?;
        checked.map_err(|what| corrupt(id, &what))?;
        *verified = true;
        Ok(())
    }

    /// The folder of a finished snapshot.
    pub fn path(&self, id: &SnapshotId) -> PathBuf {
        self.dir.join(id.as_str())
    }

    fn completed(&self) -> HashSet<String> {
        let records = self.lock();
        let completed =
            records.iter().filter(|(_, record)| record.borrow().view.status == SnapshotStatus::Completed);
        completed.map(|(id, _)| id.to_string()).collect()
    }

    fn record(&self, id: &SnapshotId) -> Result<Record, ErrorBody> {
        self.lock().get(id).map(|record| record.borrow().clone()).ok_or_else(|| unknown(id))
    }

    async fn update(&self, record: Record) -> Result<(), ErrorBody> {
        self.persist(&record, Expect::Any).await?;
        if let Some(sender) = self.lock().get(&record.view.snapshot_id) {
            sender.send_replace(record);
        }
        Ok(())
    }

    async fn persist(&self, record: &Record, expect: Expect) -> Result<(), ErrorBody> {
        let value = serde_json::to_vec(record).map_err(|error| internal(&error))?;
        let key = record.view.snapshot_id.to_string();
        self.store.put(BUCKET, key, value, expect).await.map_err(|error| internal(&error))?;
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SnapshotId, watch::Sender<Record>>> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn run<T: Send + 'static>(
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> Result<T, ErrorBody> {
    let done = spawn_blocking(work).await.map_err(|error| internal(&error))?;
    done.map_err(|error| {
        let code = if crate::host::is_full(&error) { ErrorCode::NoSpace } else { ErrorCode::Internal };
        ErrorBody::new(code, format!("the host's disk: {error}")).about(Resource::Snapshot)
    })
}

fn unknown(id: &SnapshotId) -> ErrorBody {
    ErrorBody::new(ErrorCode::NotFound, format!("there is no snapshot {id}")).about(Resource::Snapshot)
}

fn corrupt(id: &SnapshotId, what: &str) -> ErrorBody {
    let message = format!("snapshot {id} is damaged and no machine is made of it: {what}");
    ErrorBody::new(ErrorCode::SnapshotCorrupt, message).about(Resource::Snapshot)
}

fn internal(error: &dyn std::fmt::Display) -> ErrorBody {
    ErrorBody::new(ErrorCode::Internal, error.to_string())
}

#[cfg(test)]
mod tests;
