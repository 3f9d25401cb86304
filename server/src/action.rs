//! All that can be asked of a server. Transport ends here: the HTTP API, the command line and tests speak these.

use std::sync::Arc;
use std::time::Duration;

use forkyard_protocol::{
    Capacity, CreateKey, CreateSandbox, CreateSnapshot, CreatedKey, ErrorBody, ErrorCode, ExtendTimeout,
    ForkSandbox, ImageList, KeyId, KeyInfo, KeyList, NetworkEventList, NetworkInfo, NetworkPolicy, Pool,
    PoolId, PoolList, PoolSpec, ProjectId, RestoreSandbox, RetentionPolicy, Sandbox, SandboxEventList,
    SandboxId, SandboxList, SandboxPage, SandboxStatus, ServerInfo, Snapshot, SnapshotId, SnapshotList,
    Stage,
};
use http::Response;
use hyper::body::Incoming;
use tokio::time::timeout;

use crate::guest::GuestCall;
use crate::key::{Keys, require_admin};
use crate::preview::Previews;
use crate::sandbox::{ListFilter, OpenCall, Sandboxes, Slot, all_running, running};

/// How long a call that met a dying machine waits for the verdict: the machine's end is noticed in milliseconds.
const VERDICT: Duration = Duration::from_secs(1);

/// What can be asked.
pub enum Action {
    /// Makes a machine; waits until it runs if so asked.
    CreateSandbox {
        /// What kind of machine.
        request: CreateSandbox,
        /// Names the call, so that repeating it has no second effect.
        idempotency_key: Option<String>,
        /// Whether to wait.
        wait: bool,
    },
    /// Shows a machine, waiting at most so long for it to be made or, where a stage is given, to have left that stage.
    GetSandbox(SandboxId, Duration, Option<Stage>),
    /// Lists machines.
    ListSandboxes(ListFilter),
    /// Lists what happened to a machine after a cursor, waiting at most so long for news.
    SandboxEvents(SandboxId, Option<String>, Duration),
    /// Ends a machine.
    TerminateSandbox(SandboxId),
    /// Freezes a machine; waits until the snapshot is on disk if so asked.
    CreateSnapshot {
        /// The machine.
        sandbox_id: SandboxId,
        /// What to freeze.
        request: CreateSnapshot,
        /// Whether to wait.
        wait: bool,
    },
    /// Starts twins of a machine; waits until they run if so asked.
    ForkSandbox {
        /// The machine.
        sandbox_id: SandboxId,
        /// How many, and how they differ.
        request: ForkSandbox,
        /// Names the call, so that repeating it has no second effect.
        idempotency_key: Option<String>,
        /// Whether to wait.
        wait: bool,
    },
    /// Puts a machine on disk.
    SuspendSandbox(SandboxId),
    /// Lets a suspended machine go on.
    ResumeSandbox(SandboxId),
    /// Gives a machine another idle time-out.
    ExtendTimeout(SandboxId, ExtendTimeout),
    /// Puts a machine back to where a snapshot stands.
    RestoreSandbox(SandboxId, RestoreSandbox),
    /// Shows a snapshot, waiting at most so long for it to be made.
    GetSnapshot(SnapshotId, Duration),
    /// Lists snapshots.
    ListSnapshots,
    /// Deletes a snapshot.
    DeleteSnapshot(SnapshotId),
    /// Shows which of its snapshots the project keeps.
    GetRetention,
    /// Has the project keep others of its snapshots.
    SetRetention(RetentionPolicy),
    /// Has machines of one kind kept ready.
    CreatePool(PoolSpec),
    /// Shows a pool.
    GetPool(PoolId),
    /// Has a pool keep something else.
    ChangePool(PoolId, PoolSpec),
    /// Lists pools.
    ListPools,
    /// Deletes a pool.
    DeletePool(PoolId),
    /// Asks something of a machine's network.
    Network(SandboxId, NetworkCall),
    /// Asks something of a machine's guest.
    Guest(SandboxId, GuestCall),
    /// Lists images.
    ListImages,
    /// Describes the server.
    ServerInfo,
    /// Makes a key.
    CreateKey(CreateKey),
    /// Lists keys.
    ListKeys,
    /// Revokes a key.
    RevokeKey(KeyId),
}

/// What can be asked of a machine's network.
pub enum NetworkCall {
    /// Shows it.
    Get,
    /// Has the machine reach something else.
    Set(NetworkPolicy),
    /// Lists what happened after a cursor, waiting at most so long for news.
    Events(Option<String>, Duration),
}

/// What is answered.
pub enum Reply {
    /// A machine that was made, or is being made.
    Created(Box<Sandbox>),
    /// A machine.
    Sandbox(Box<Sandbox>),
    /// One page of machines.
    Sandboxes(SandboxPage),
    /// A snapshot that was made, or is being made.
    SnapshotCreated(Box<Snapshot>),
    /// A snapshot.
    Snapshot(Box<Snapshot>),
    /// Snapshots.
    Snapshots(SnapshotList),
    /// Which snapshots the project keeps.
    Retention(RetentionPolicy),
    /// Forks that were made, or are being made.
    Forks(SandboxList),
    /// A new pool.
    PoolCreated(Box<Pool>),
    /// A pool.
    Pool(Box<Pool>),
    /// Pools.
    Pools(PoolList),
    /// A machine's network.
    Network(Box<NetworkInfo>),
    /// What happened on it.
    NetworkEvents(NetworkEventList),
    /// What happened to a machine.
    SandboxEvents(SandboxEventList),
    /// The guest's answer.
    Guest(GuestReply),
    /// Images.
    Images(ImageList),
    /// The server.
    Server(ServerInfo),
    /// A new key, with its secret.
    KeyCreated(CreatedKey),
    /// Keys.
    Keys(KeyList),
    /// Nothing more to say.
    Done,
}

/// A guest's answer, its body still to come.
pub struct GuestReply {
    /// What the agent answered.
    pub response: Response<Incoming>,
    /// Whether the body is a stream of envelopes.
    pub is_stream: bool,
    /// Whose guest it is.
    pub slot: Arc<Slot>,
    /// Keeps the machine from being idle while the body is passed on.
    pub call: OpenCall,
}

/// Performs actions.
pub struct Service {
    /// The machines.
    pub sandboxes: Arc<Sandboxes>,
    /// The keys.
    pub keys: Keys,
    /// Signs previews.
    pub previews: Previews,
}

impl Service {
    /// Performs one action for the holder of this key.
    pub async fn perform(&self, caller: &KeyInfo, action: Action) -> Result<Reply, ErrorBody> {
        match action {
            Action::CreateSandbox { request, idempotency_key, wait } => {
                let slot = self.sandboxes.create(caller, request, idempotency_key).await?;
                let sandbox = if wait { running(&slot).await? } else { slot.record().view };
                Ok(Reply::Created(Box::new(sandbox)))
            }
            Action::GetSandbox(id, wait, seen) => {
                let slot = self.sandboxes.get(&caller.project, &id)?;
                let made = slot.wait_for(|record| {
                    record.view.status != SandboxStatus::Pending
                        || seen.is_some_and(|seen| record.view.stage != Some(seen))
                });
                let record = timeout(wait, made).await.unwrap_or_else(|_| slot.record());
                Ok(Reply::Sandbox(Box::new(record.view)))
            }
            Action::ListSandboxes(filter) => {
                Ok(Reply::Sandboxes(self.sandboxes.registry().list(&caller.project, &filter)))
            }
            Action::SandboxEvents(id, cursor, wait) => self.events(&caller.project, &id, cursor, wait).await,
            Action::TerminateSandbox(id) => {
                Ok(Reply::Sandbox(Box::new(self.sandboxes.terminate(&caller.project, &id).await?)))
            }
            Action::CreateSnapshot { sandbox_id, request, wait } => {
                let begun = self.sandboxes.checkpoint(&caller.project, &sandbox_id, request).await?;
                if !wait {
                    return Ok(Reply::SnapshotCreated(Box::new(begun)));
                }
                let finished =
                    self.sandboxes.snapshots().finished(&caller.project, &begun.snapshot_id).await?;
                finished.made()?;
                Ok(Reply::SnapshotCreated(Box::new(finished.view)))
            }
            Action::ForkSandbox { sandbox_id, request, idempotency_key, wait } => {
                let slots = self.sandboxes.fork(caller, &sandbox_id, request, idempotency_key).await?;
                let sandboxes = if wait {
                    all_running(&slots).await?
                } else {
                    slots.iter().map(|slot| slot.record().view).collect()
                };
                Ok(Reply::Forks(SandboxList { sandboxes }))
            }
            Action::SuspendSandbox(id) => {
                Ok(Reply::Sandbox(Box::new(self.sandboxes.suspend(&caller.project, &id).await?)))
            }
            Action::ResumeSandbox(id) => {
                Ok(Reply::Sandbox(Box::new(self.sandboxes.resume(&caller.project, &id).await?)))
            }
            Action::ExtendTimeout(id, request) => {
                let changed = self.sandboxes.extend_timeout(&caller.project, &id, &request).await?;
                Ok(Reply::Sandbox(Box::new(changed)))
            }
            Action::RestoreSandbox(id, RestoreSandbox { snapshot_id }) => {
                let restored = self.sandboxes.restore(&caller.project, &id, &snapshot_id).await?;
                Ok(Reply::Sandbox(Box::new(restored)))
            }
            Action::GetSnapshot(id, wait) => {
                let snapshots = self.sandboxes.snapshots();
                let finished = timeout(wait, snapshots.finished(&caller.project, &id)).await;
                let record = finished.unwrap_or_else(|_| snapshots.get(&caller.project, &id))?;
                Ok(Reply::Snapshot(Box::new(record.view)))
            }
            Action::ListSnapshots => Ok(Reply::Snapshots(self.sandboxes.snapshots().list(&caller.project))),
            Action::DeleteSnapshot(id) => {
                self.sandboxes.delete_snapshot(&caller.project, &id).await?;
                Ok(Reply::Done)
            }
            Action::GetRetention => Ok(Reply::Retention(self.sandboxes.snapshots().policy(&caller.project))),
            Action::SetRetention(policy) => {
                self.sandboxes.snapshots().set_policy(&caller.project, policy.clone()).await?;
                Ok(Reply::Retention(policy))
            }
            Action::CreatePool(spec) => {
                Ok(Reply::PoolCreated(Box::new(self.sandboxes.create_pool(caller, spec).await?)))
            }
            Action::GetPool(id) => Ok(Reply::Pool(Box::new(self.sandboxes.pool(&caller.project, &id)?))),
            Action::ChangePool(id, spec) => {
                Ok(Reply::Pool(Box::new(self.sandboxes.change_pool(caller, &id, spec).await?)))
            }
            Action::ListPools => Ok(Reply::Pools(self.sandboxes.pools(&caller.project))),
            Action::DeletePool(id) => {
                self.sandboxes.delete_pool(&caller.project, &id).await?;
                Ok(Reply::Done)
            }
            Action::Network(id, call) => self.call_network(&caller.project, &id, call).await,
            Action::Guest(id, call) => self.call_guest(&caller.project, &id, call).await.map(Reply::Guest),
            Action::ListImages => self.list_images().await.map(Reply::Images),
            Action::ServerInfo => Ok(Reply::Server(self.server_info())),
            Action::CreateKey(request) => {
                require_admin(caller)?;
                Ok(Reply::KeyCreated(self.keys.create(request, caller.project.clone()).await?))
            }
            Action::ListKeys => require_admin(caller).map(|()| Reply::Keys(self.keys.list())),
            Action::RevokeKey(id) => {
                require_admin(caller)?;
                self.keys.revoke(&id).await?;
                Ok(Reply::Done)
            }
        }
    }

    async fn events(
        &self,
        project: &ProjectId,
        id: &SandboxId,
        cursor: Option<String>,
        wait: Duration,
    ) -> Result<Reply, ErrorBody> {
        let events = self.sandboxes.events(project, id, cursor.as_deref(), wait).await?;
        Ok(Reply::SandboxEvents(events))
    }

    async fn call_network(
        &self,
        project: &ProjectId,
        id: &SandboxId,
        call: NetworkCall,
    ) -> Result<Reply, ErrorBody> {
        let info = match call {
            NetworkCall::Get => self.sandboxes.network(project, id).await?,
            NetworkCall::Set(policy) => self.sandboxes.set_network(project, id, policy).await?,
            NetworkCall::Events(cursor, wait) => {
                let events = self.sandboxes.network_events(project, id, cursor.as_deref(), wait).await?;
                return Ok(Reply::NetworkEvents(events));
            }
        };
        Ok(Reply::Network(Box::new(info)))
    }

    /// Asks something of the guest of a project's machine.
    pub async fn call_guest(
        &self,
        project: &ProjectId,
        id: &SandboxId,
        call: GuestCall,
    ) -> Result<GuestReply, ErrorBody> {
        let slot = self.sandboxes.awake(project, id).await?;
        let (guest, open_call) = slot.guest()?;
        let is_stream = call.is_stream();
        match guest.send(call.into_request()?).await {
            Ok(response) => Ok(GuestReply { response, is_stream, slot, call: open_call }),
            Err(error) => Err(lost(&slot).await.unwrap_or(error)),
        }
    }

    async fn list_images(&self) -> Result<ImageList, ErrorBody> {
        let images = self.sandboxes.images().clone();
        let listed = tokio::task::spawn_blocking(move || images.list()).await;
        let images = listed.map_err(|error| ErrorBody::new(ErrorCode::Internal, error.to_string()))??;
        Ok(ImageList { images })
    }

    fn server_info(&self) -> ServerInfo {
        let vmm = self.sandboxes.vmm();
        let usage = self.sandboxes.registry().usage(vmm.overhead_mb());
        ServerInfo {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            accelerator: vmm.accelerator().as_str().to_owned(),
            qemu: vmm.version(),
            capacity: Capacity {
                memory_mb: self.sandboxes.budget().memory_mb,
                memory_used_mb: usage.memory_mb,
                sandboxes: usage.sandboxes,
            },
        }
    }
}

/// Why a machine whose guest stopped answering is lost, if it is.
pub async fn lost(slot: &Slot) -> Option<ErrorBody> {
    let ended = slot.wait_for(|record| !record.is_alive());
    timeout(VERDICT, ended).await.ok().map(|record| record.not_running())
}
