use std::time::Duration;

pub use forkyard_protocol::{
    CheckpointType, CreateSnapshot, ForkSandbox, RestoreSandbox, RetentionPolicy, Snapshot as SnapshotInfo,
    SnapshotId, SnapshotStatus, WhenFull,
};
use forkyard_protocol::{ErrorCode, SandboxList, SnapshotList};
use http::Method;
use tokio::time::Instant;

use crate::client::{CREATE_TIMEOUT, Client, SandboxInfo, Unfinished};
use crate::error::{Error, Result};
use crate::http::Request;
use crate::sandbox::Sandbox;

/// How long freezing a machine may take in all: its memory is written to the host's disk.
const CHECKPOINT_TIMEOUT: Duration = Duration::from_mins(10);

impl Sandbox {
    /// Freezes the machine, which goes on running, and waits until the snapshot is on disk. Machines are made of it with
    /// [`forkyard_protocol::CreateSandbox::snapshot_id`]. Not tried again after a failed connection: a second snapshot would come of
    /// it.
    pub async fn checkpoint(&self, request: CreateSnapshot) -> Result<SnapshotInfo> {
        request.validate()?;
        let mut call = Request::new(Method::POST, self.path("/snapshots")).json(&request)?;
        call.repeatable = false;
        let deadline = Instant::now() + self.client.inner.timeout.max(CHECKPOINT_TIMEOUT);
        self.client.inner.http.call(&call, deadline).await
    }

    /// Puts the machine on disk: it holds no memory and no processor until it is resumed, by [`Sandbox::resume`] or, unless it was
    /// made otherwise, by the next call to it. One that is there already stays there.
    pub async fn suspend(&self) -> Result<SandboxInfo> {
        self.post(Request::new(Method::POST, self.path("/suspend"))).await
    }

    /// Lets a suspended machine go on where it stood; where the host has no room, waits for it until the deadline.
    pub async fn resume(&self) -> Result<SandboxInfo> {
        self.post(Request::new(Method::POST, self.path("/resume"))).await
    }

    /// Puts the machine back to where a snapshot stands, under its own id and name; what it did since is gone. Where the
    /// snapshot does not come up the machine goes on as it was.
    pub async fn restore(&self, snapshot_id: &str) -> Result<SandboxInfo> {
        let request = RestoreSandbox { snapshot_id: checked(snapshot_id)? };
        self.post(Request::new(Method::POST, self.path("/restore")).json(&request)?).await
    }

    async fn post(&self, request: Request) -> Result<SandboxInfo> {
        let deadline = Instant::now() + self.client.inner.timeout.max(CREATE_TIMEOUT);
        self.client.inner.http.call(&request, deadline).await
    }

    /// Starts twins of the machine, each with its memory, its processes and its disk as they stand, and waits until they run.
    /// However often it is tried, so many are made; where one does not come up, or the future is dropped, all are ended again.
    pub async fn fork(&self, request: ForkSandbox) -> Result<Vec<Self>> {
        request.validate()?;
        let mut call = Request::new(Method::POST, self.path("/fork")).json(&request)?;
        call.idempotency_key = Some(ulid::Ulid::generate().to_string());
        let guard = Unfinished::new(&self.client, &call, true);
        let deadline = Instant::now() + self.client.inner.timeout.max(CREATE_TIMEOUT);
        let forks = self.client.inner.http.call::<SandboxList>(&call, deadline).await;
        guard.settle(&forks);
        Ok(forks?.sandboxes.into_iter().map(|fork| Self::new(self.client.clone(), fork)).collect())
    }
}

impl Client {
    /// A snapshot's record, by its id.
    pub async fn snapshot(&self, id: &str) -> Result<SnapshotInfo> {
        self.get_json(&format!("/snapshots/{}", checked(id)?)).await
    }

    /// All snapshots of the project, newest first.
    pub async fn snapshots(&self) -> Result<Vec<SnapshotInfo>> {
        Ok(self.get_json::<SnapshotList>("/snapshots").await?.snapshots)
    }

    /// Deletes a snapshot; machines that came from it go on. Deleting one that is gone fails with `not_found`.
    pub async fn delete_snapshot(&self, id: &str) -> Result<()> {
        let request = Request::new(Method::DELETE, format!("/snapshots/{}", checked(id)?));
        self.inner.http.bytes(&request, self.deadline()).await.map(drop)
    }

    /// Which of its snapshots the project keeps.
    pub async fn retention(&self) -> Result<RetentionPolicy> {
        self.get_json("/retention").await
    }

    /// Has the project keep others of its snapshots; what it no longer keeps is deleted at once.
    pub async fn set_retention(&self, policy: &RetentionPolicy) -> Result<RetentionPolicy> {
        policy.validate()?;
        let request = Request::new(Method::PUT, "/retention").json(policy)?;
        self.inner.http.call(&request, self.deadline()).await
    }
}

fn checked(id: &str) -> Result<SnapshotId> {
    SnapshotId::parse(id).map_err(|error| Error::new(ErrorCode::InvalidArgument, error.to_string()))
}
