use std::path::{Path, PathBuf};
use std::time::Duration;

use forkyard::{
    CheckpointType, Client, Command, CreateSandbox, CreateSnapshot, ErrorCode, Sandbox, SandboxInfo,
    SandboxStatus, SnapshotInfo, SnapshotStatus,
};
use rustix::process::{Pid, Signal, kill_process};

use crate::common;
use crate::common::server::{Machines, Server, machine_processes, names, process_of, small, until};

/// Memory that a machine of these tests holds, with its overhead, in MiB.
const MACHINE_MB: u64 = 256 + 112;

/// How soon a call must end whose machine is gone.
pub const PROMPT: Duration = Duration::from_secs(8);

/// A server over a data directory, and a machine in which a program counts in memory.
pub struct World {
    images: PathBuf,
    // Dropped in this order.
    server: Option<Server>,
    _machines: Machines,
    dir: tempfile::TempDir,
    pub client: Client,
    pub source: Sandbox,
}

impl World {
    pub async fn new() -> Self {
        let (images, dir) = common::folders();
        let server = Server::start(&images, dir.path()).await;
        let client = server.client(dir.path());
        let source = client.create(small()).await.unwrap();
        let count = "n=0; while :; do n=$((n + 1)); echo $n >/dev/shm/n; sleep 0.1; done";
        sh(&source, &format!("({count}) >/dev/null 2>&1 & echo here >/dev/shm/mark; echo here >mark; sync"))
            .await;
        let machines = Machines(dir.path().to_owned());
        Self { images, server: Some(server), _machines: machines, dir, client, source }
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub fn server(&self) -> &Server {
        self.server.as_ref().expect("it runs")
    }

    /// Kills the server and starts another, with what is to be done in between.
    pub async fn restart(&mut self, meanwhile: impl FnOnce(&Path)) {
        let server = self.server.take().expect("it runs");
        let port = server.port();
        server.kill();
        meanwhile(self.dir.path());
        self.server = Some(Server::start_at(port, &self.images, self.dir.path()).await);
    }

    /// A snapshot of the source with its memory.
    pub async fn snapshot(&self) -> SnapshotInfo {
        self.source.checkpoint(memory()).await.unwrap()
    }

    /// A machine of a snapshot.
    pub async fn fork_of(&self, snapshot: &SnapshotInfo) -> Sandbox {
        self.client.create(of(snapshot)).await.unwrap()
    }

    pub fn path_of(&self, snapshot: &SnapshotInfo, file: &str) -> PathBuf {
        self.dir().join("snapshots").join(snapshot.snapshot_id.as_str()).join(file)
    }

    /// Kills a machine's QEMU.
    pub fn kill_machine(&self, id: &str) {
        kill_process(process_of(self.dir(), id).expect("it runs"), Signal::KILL).unwrap();
    }

    pub async fn of_status(&self, status: SandboxStatus) -> Vec<SandboxInfo> {
        let all = self.client.list().await.unwrap();
        all.into_iter().filter(|sandbox| sandbox.status == status).collect()
    }

    /// Records, processes, directories and budgets agree, and nothing is half made. `pooled` machines wait in pools.
    pub async fn assert_accounted(&self, pooled: usize) {
        let ids = |of: Vec<SandboxInfo>| {
            let mut ids: Vec<_> = of.into_iter().map(|sandbox| sandbox.sandbox_id.to_string()).collect();
            ids.sort();
            ids
        };
        let running = ids(self.of_status(SandboxStatus::Running).await);
        let suspended = ids(self.of_status(SandboxStatus::Suspended).await);
        let all = self.client.list().await.unwrap();
        let ended = all.iter().filter(|sandbox| !sandbox.status.is_alive());
        assert_eq!(
            running.len() + suspended.len() + ended.clone().count(),
            all.len(),
            "nobody is in between"
        );
        assert!(ended.clone().all(|sandbox| sandbox.reason.is_some()));
        // Folders are deleted away from the call that has no more use for them.
        until("what was frozen and given up is deleted", async || {
            !names(&self.dir().join("snapshots")).iter().any(|name| name.starts_with('.'))
        })
        .await;
        let mut processes: Vec<_> = machine_processes(self.dir()).into_iter().map(|(_, id)| id).collect();
        processes.sort();
        let dirs = names(&self.dir().join("machines"));
        assert_eq!(processes, dirs);
        assert_eq!(dirs.len(), running.len() + pooled);
        assert!(running.iter().all(|id| dirs.contains(id)));
        for (pid, id) in machine_processes(self.dir()) {
            assert_uses_all(pid, &self.dir().join("machines").join(id));
        }
        assert_eq!(names(&self.dir().join("suspended")), suspended);
        let capacity = self.client.server_info().await.unwrap().capacity;
        assert_eq!(capacity.sandboxes, dirs.len() as u64);
        assert_eq!(capacity.memory_used_mb, MACHINE_MB * dirs.len() as u64);
        let mut kept = Vec::new();
        for snapshot in self.client.snapshots().await.unwrap() {
            match snapshot.status {
                SnapshotStatus::Completed => kept.push(snapshot.snapshot_id.to_string()),
                SnapshotStatus::Failed => assert!(snapshot.reason.is_some()),
                SnapshotStatus::InProgress => panic!("nobody makes {snapshot:?}"),
            }
        }
        kept.sort();
        assert_eq!(names(&self.dir().join("snapshots")), kept);
    }

    /// The source runs, with all that it had.
    pub async fn assert_source_runs_on(&self) {
        assert_counts_on(&self.source).await;
        assert_eq!(sh(&self.source, "cat /dev/shm/mark mark").await, "here\nhere\n");
        assert_eq!(sh(&self.source, "echo on >on && sync && rm on && echo on").await, "on\n");
    }
}

/// A machine's directory holds no frozen state, and no layer of a disk that its process does not use.
fn assert_uses_all(pid: Pid, dir: &Path) {
    let fds = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().filter_map(Result::ok);
    let open: Vec<PathBuf> = fds.filter_map(|fd| std::fs::read_link(fd.path()).ok()).collect();
    for name in names(dir) {
        assert_ne!(name, "state");
        assert!(!name.starts_with("layer-") || open.contains(&dir.join(&name)), "{name} is not used");
    }
}

/// The program that counts in memory goes on.
pub async fn assert_counts_on(machine: &Sandbox) {
    let count = async || sh(machine, "cat /dev/shm/n").await.trim().parse::<u64>().unwrap_or(0);
    let before = count().await;
    until("the program counts on", async || count().await > before).await;
}

pub fn memory() -> CreateSnapshot {
    CreateSnapshot { checkpoint_type: CheckpointType::Memory, ..CreateSnapshot::default() }
}

pub fn of(snapshot: &SnapshotInfo) -> CreateSandbox {
    CreateSandbox { snapshot_id: Some(snapshot.snapshot_id.clone()), ..CreateSandbox::default() }
}

/// Runs a shell's command that must do well, and answers what it wrote.
pub async fn sh(machine: &Sandbox, script: &str) -> String {
    let result = machine.run(Command::new("sh").args(["-c", script])).await.unwrap();
    assert_eq!(result.exit_code, 0, "{script}: {result:?}");
    String::from_utf8(result.stdout).unwrap()
}

/// The error that a call to a machine that ended during it must end with, soon.
pub async fn lost<T: std::fmt::Debug>(call: tokio::task::JoinHandle<forkyard::Result<T>>) -> forkyard::Error {
    let outcome = tokio::time::timeout(PROMPT, call).await.expect("it says so at once").unwrap();
    let error = outcome.unwrap_err();
    assert_eq!(error.code, ErrorCode::SandboxLost, "{error}");
    error
}
