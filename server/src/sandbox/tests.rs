//! Life cycles over machines that are tasks: everything but QEMU and Linux is real.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use forkyard_protocol::{
    CreateSandbox, ErrorCode, GuestHealth, KeyId, KeyInfo, PREAMBLE_LEN, ProjectId, SandboxId, SandboxStatus,
    Scope, echo,
};
use futures_util::future::BoxFuture;
use http_body_util::Full;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixListener;
use tokio::sync::watch;

use super::*;
use crate::image::ImageStore;
use crate::quota::HostBudget;
use crate::store::SqliteStore;
use crate::vmm::{Accelerator, Machine, MachineSpec, Vmm, VmmError};

/// A host whose machines are tasks. They outlive the server, as QEMU does.
#[derive(Default)]
pub(super) struct FakeHost {
    machines: Mutex<HashMap<SandboxId, Arc<FakeMachine>>>,
    pub(super) agents_are_dead: AtomicBool,
}

pub(super) struct FakeMachine {
    dir: PathBuf,
    pub(super) ended: watch::Sender<Option<String>>,
}

impl Machine for FakeMachine {
    fn pid(&self) -> u32 {
        1
    }
    fn agent_socket(&self) -> PathBuf {
        self.dir.join("agent")
    }
    fn exited(&self) -> BoxFuture<'_, String> {
        let mut ended = self.ended.subscribe();
        Box::pin(async move { ended.wait_for(Option::is_some).await.unwrap().clone().unwrap() })
    }
    fn kill(&self) -> BoxFuture<'_, Result<(), VmmError>> {
        self.ended.send_if_modified(|ended| ended.get_or_insert_with(|| "killed".to_owned()) == "killed");
        Box::pin(async { Ok(()) })
    }
    fn console_tail(&self) -> BoxFuture<'_, String> {
        Box::pin(async { "last words".to_owned() })
    }
}

async fn agent(listener: UnixListener) {
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut preamble = [0; PREAMBLE_LEN];
        stream.read_exact(&mut preamble).await.unwrap();
        stream.write_all(&echo(preamble, 1)).await.unwrap();
        let service = service_fn(|_| async {
            let health = GuestHealth { version: "1".into(), processes: 0, uptime_secs: 0, uptime_ns: None };
            let body = Full::new(bytes::Bytes::from(serde_json::to_vec(&health).unwrap()));
            Ok::<_, std::convert::Infallible>(http::Response::new(body))
        });
        let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        tokio::spawn(server.serve_connection(TokioIo::new(stream), service));
    }
}

impl Vmm for FakeHost {
    fn start(&self, spec: MachineSpec) -> BoxFuture<'_, Result<Arc<dyn Machine>, VmmError>> {
        Box::pin(async move {
            let machine = Arc::new(FakeMachine { dir: spec.dir.clone(), ended: watch::Sender::new(None) });
            let listener =
                UnixListener::bind(machine.agent_socket()).map_err(|e| VmmError::Failed(e.to_string()))?;
            if !self.agents_are_dead.load(Ordering::Relaxed) {
                tokio::spawn(agent(listener));
            }
            self.machines.lock().unwrap().insert(spec.sandbox_id, machine.clone());
            Ok(machine as Arc<dyn Machine>)
        })
    }
    fn adopt(&self, id: SandboxId, _: PathBuf) -> BoxFuture<'_, Result<Option<Arc<dyn Machine>>, VmmError>> {
        let machine = self.machines.lock().unwrap().get(&id).cloned();
        let machine = machine.filter(|machine| machine.ended.borrow().is_none());
        Box::pin(async { Ok(machine.map(|machine| machine as Arc<dyn Machine>)) })
    }
    fn sweep<'a>(
        &'a self,
        _: &'a Path,
        keep: &'a HashSet<SandboxId>,
    ) -> BoxFuture<'a, Result<Vec<SandboxId>, VmmError>> {
        let strays = self.living().into_iter().filter(|id| !keep.contains(id)).collect::<Vec<_>>();
        for id in &strays {
            self.machine(id).ended.send_replace(Some("swept".to_owned()));
        }
        Box::pin(async { Ok(strays) })
    }
    fn version(&self) -> String {
        "fake".to_owned()
    }
    fn accelerator(&self) -> Accelerator {
        Accelerator::Tcg
    }
    fn overhead_mb(&self) -> u64 {
        10
    }
}

impl FakeHost {
    pub(super) fn machine(&self, id: &SandboxId) -> Arc<FakeMachine> {
        self.machines.lock().unwrap()[id].clone()
    }
    pub(super) fn living(&self) -> Vec<SandboxId> {
        let machines = self.machines.lock().unwrap();
        machines.iter().filter(|(_, m)| m.ended.borrow().is_none()).map(|(id, _)| id.clone()).collect()
    }
}

pub(crate) struct World {
    dir: tempfile::TempDir,
    pub(super) host: Arc<FakeHost>,
}

impl World {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        crate::image::write_fake(&dir.path().join("images"), "python");
        Self { dir, host: Arc::default() }
    }

    /// A server over this world's disk and machines; the one before it may just have been killed.
    pub(crate) async fn server(&self) -> Arc<Sandboxes> {
        let settings = Settings {
            machines_dir: self.dir.path().join("machines"),
            snapshots_dir: self.dir.path().join("snapshots"),
            suspended_dir: self.dir.path().join("suspended"),
            templates_dir: self.dir.path().join("templates"),
            template_budget_bytes: 4 << 30,
            budget: HostBudget { memory_mb: 2000, sandboxes: 100 },
            boot_deadline: Duration::from_millis(300),
            concurrent_boots: 2,
            guest_env: [].into(),
            network: Arc::default(),
        };
        let store = Arc::new(SqliteStore::open(&self.dir.path().join("store.sqlite")).unwrap());
        let images = ImageStore::open(self.dir.path().join("images"));
        Sandboxes::open(settings, self.host.clone(), images, store).await.unwrap()
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    fn machine_dirs(&self) -> usize {
        std::fs::read_dir(self.dir.path().join("machines")).unwrap().count()
    }
}

pub(super) fn caller() -> KeyInfo {
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

pub(super) async fn create(server: &Arc<Sandboxes>, change: impl FnOnce(&mut CreateSandbox)) -> Arc<Slot> {
    let mut request = CreateSandbox::default();
    change(&mut request);
    let slot = server.create(&caller(), request, None).await.unwrap();
    running(&slot).await.unwrap();
    slot
}

pub(super) fn assert_nothing_left(world: &World, server: &Sandboxes) {
    assert_eq!(world.machine_dirs(), 0, "files");
    assert!(world.host.living().is_empty(), "processes");
    assert_eq!(server.registry().usage(0).sandboxes, 0, "budget");
}

#[tokio::test]
async fn a_machine_runs_until_it_is_terminated_and_leaves_nothing() {
    let world = World::new();
    let server = world.server().await;
    let slot = create(&server, |_| {}).await;
    assert!(slot.guest().is_ok());
    assert_eq!(world.machine_dirs(), 1);
    let ended = server.terminate(&caller().project, slot.id()).await.unwrap();
    assert_eq!(ended.status, SandboxStatus::Terminated);
    assert_eq!(slot.guest().err().map(|error| error.code), Some(ErrorCode::SandboxLost));
    assert_eq!(server.terminate(&caller().project, slot.id()).await.unwrap(), ended);
    assert_nothing_left(&world, &server);
}

#[tokio::test]
async fn a_machine_that_dies_is_lost_with_its_reason() {
    let world = World::new();
    let server = world.server().await;
    let slot = create(&server, |_| {}).await;
    world.host.machine(slot.id()).ended.send_replace(Some("QEMU ended with signal: 9".to_owned()));
    let record = slot.wait_for(|record| !record.is_alive()).await;
    assert_eq!(record.view.status, SandboxStatus::Failed);
    assert_eq!(record.view.reason.as_deref(), Some("QEMU ended with signal: 9"));
    assert_eq!(record.not_running().code, ErrorCode::SandboxLost);
    assert_nothing_left(&world, &server);
}

#[tokio::test]
async fn a_guest_that_does_not_boot_fails_with_its_last_words() {
    let world = World::new();
    world.host.agents_are_dead.store(true, Ordering::Relaxed);
    let server = world.server().await;
    let slot = server.create(&caller(), CreateSandbox::default(), None).await.unwrap();
    let error = running(&slot).await.unwrap_err();
    assert!(error.message.contains("last words"), "{error}");
    slot.wait_for(|record| !record.is_alive()).await;
    assert_nothing_left(&world, &server);
}

#[tokio::test]
async fn an_idle_machine_ends_unless_it_has_a_name() {
    let world = World::new();
    let server = world.server().await;
    let named = create(&server, |request| {
        request.name = Some("kept".to_owned());
        request.timeout_secs = 1;
    })
    .await;
    let unnamed = create(&server, |request| request.timeout_secs = 1).await;
    let record = unnamed.wait_for(|record| !record.is_alive()).await;
    assert_eq!(record.view.reason.as_deref(), Some("no call for 1 seconds"));
    assert!(named.record().is_alive());
    server.terminate_all().await;
    assert_nothing_left(&world, &server);
}

#[tokio::test]
async fn bad_requests_leave_nothing() {
    let world = World::new();
    let server = world.server().await;
    let refused = async |change: fn(&mut CreateSandbox)| {
        let mut request = CreateSandbox::default();
        change(&mut request);
        server.create(&caller(), request, None).await.err().expect("refused").code
    };
    assert_eq!(refused(|r| r.image = Some("nothing".into())).await, ErrorCode::NotFound);
    assert_eq!(refused(|r| r.image = Some("../x".into())).await, ErrorCode::InvalidArgument);
    assert_eq!(refused(|r| r.cpus = Some(0.0)).await, ErrorCode::InvalidArgument);
    assert_eq!(refused(|r| r.memory_mb = Some(100_000)).await, ErrorCode::InvalidArgument);
    assert_nothing_left(&world, &server);
}

#[tokio::test]
async fn a_server_that_comes_back_keeps_what_runs_and_records_what_is_lost() {
    let world = World::new();
    let before = world.server().await;
    let kept = create(&before, |_| {}).await.id().clone();
    let lost = create(&before, |_| {}).await.id().clone();
    // A machine in the middle of its making: a record, and a process whose agent does not answer yet.
    world.host.agents_are_dead.store(true, Ordering::Relaxed);
    let half = before.create(&caller(), CreateSandbox::default(), None).await.unwrap().id().clone();
    // From here the first server is as good as killed: its tasks see nothing of what follows.
    world.host.machines.lock().unwrap().remove(&lost);
    let after = world.server().await;
    let project = caller().project;
    let status = |id| after.get(&project, id).unwrap().record().view.status;
    assert_eq!(status(&kept), SandboxStatus::Running);
    assert!(after.get(&project, &kept).unwrap().guest().is_ok());
    assert_eq!(status(&lost), SandboxStatus::Failed);
    assert_eq!(status(&half), SandboxStatus::Failed);
    assert_eq!(after.registry().usage(0).sandboxes, 1);
    assert_eq!(world.host.living(), std::slice::from_ref(&kept));
    assert_eq!(world.machine_dirs(), 1);
    after.terminate(&project, &kept).await.unwrap();
    assert_nothing_left(&world, &after);
}

#[tokio::test]
async fn what_is_asked_of_a_machine_that_has_ended_is_answered_at_once() {
    let world = World::new();
    let server = world.server().await;
    let id = create(&server, |_| {}).await.id().clone();
    let project = caller().project;
    server.terminate(&project, &id).await.unwrap();
    // Under the server that it ended under, and under the next, which has no task for it.
    for server in [server, world.server().await] {
        let asked = tokio::time::timeout(Duration::from_secs(5), server.suspend(&project, &id));
        let refused = asked.await.expect("answered").unwrap_err();
        assert_eq!(refused.code, ErrorCode::SandboxLost);
    }
}

#[tokio::test]
async fn what_a_suspension_left_behind_is_deleted_and_does_not_stop_the_next() {
    let world = World::new();
    let before = world.server().await;
    let id = create(&before, |_| {}).await.id().clone();
    let suspended = world.path().join("suspended");
    for name in [format!(".{id}"), id.to_string(), "sbx_lost".to_owned(), "operators".to_owned()] {
        std::fs::create_dir_all(suspended.join(name)).unwrap();
    }
    let after = world.server().await;
    let left: Vec<_> =
        std::fs::read_dir(&suspended).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["operators"]);
    // This kind of machine cannot be frozen: it runs on, and nothing is left of the attempt.
    let project = caller().project;
    for _ in 0..2 {
        let refused = after.suspend(&project, &id).await.unwrap_err();
        assert!(refused.message.contains("cannot be frozen"), "{refused}");
        assert_eq!(after.get(&project, &id).unwrap().record().view.status, SandboxStatus::Running);
    }
    after.terminate(&project, &id).await.unwrap();
}
