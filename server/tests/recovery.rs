//! The server's own end, however it comes: `forkyard serve` as a process, killed and started again.

mod common;

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command as Program, Stdio};
use std::time::{Duration, Instant};

use forkyard::{Client, Command, CreateSandbox, ErrorCode, SandboxStatus};

struct Server {
    process: Child,
    url: String,
}

impl Drop for Server {
    fn drop(&mut self) {
        // Where a test failed; one that was ended already is ended.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Server {
    /// Starts a server over a data directory and waits until it serves.
    async fn start(images: &Path, dir: &Path) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let listen = format!("127.0.0.1:{port}");
        let process = Program::new(env!("CARGO_BIN_EXE_forkyard"))
            .args(["serve", "--accelerator", "tcg", "--listen", &listen, "--memory-mb", "8000"])
            .arg("--data-dir")
            .arg(dir)
            .arg("--image-dir")
            .arg(images)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let server = Self { process, url: format!("http://{listen}") };
        let deadline = Instant::now() + Duration::from_secs(30);
        while std::net::TcpStream::connect(&listen).is_err() {
            assert!(Instant::now() < deadline, "the server does not serve");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        server
    }

    fn client(&self, dir: &Path) -> Client {
        let key = std::fs::read_to_string(dir.join("api-key")).unwrap();
        Client::builder().url(&self.url).api_key(key).max_retries(0).build().unwrap()
    }

    fn kill(mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Ends it as an operator does.
    async fn stop(mut self) {
        let pid = rustix::process::Pid::from_child(&self.process);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        let ended = tokio::task::spawn_blocking(move || self.process.wait().unwrap());
        assert!(tokio::time::timeout(Duration::from_mins(1), ended).await.unwrap().unwrap().success());
    }
}

fn small() -> CreateSandbox {
    CreateSandbox { image: Some("base".to_owned()), memory_mb: Some(256), ..CreateSandbox::default() }
}

/// Processes that run in a machine's directory.
fn machine_processes(dir: &Path) -> usize {
    let machines = dir.join("machines");
    let entries = std::fs::read_dir("/proc").unwrap();
    entries
        .filter(|entry| {
            std::fs::read_link(entry.as_ref().unwrap().path().join("cwd"))
                .is_ok_and(|cwd| cwd.starts_with(&machines))
        })
        .count()
}

fn machine_dirs(dir: &Path) -> usize {
    std::fs::read_dir(dir.join("machines")).unwrap().count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_killed_among_ten_creates_leaves_nothing_that_is_not_accounted_for() {
    let (images, dir) = common::folders();
    let dir = dir.path();
    let server = Server::start(&images, dir).await;
    let client = server.client(dir);
    // One that runs already is kept; its interpreter's state with it.
    let kept = client.create(small()).await.unwrap();
    kept.files().write("/workspace/state", "before", None).await.unwrap();
    let asleep = client.create(CreateSandbox { name: Some("asleep".to_owned()), ..small() }).await.unwrap();
    asleep.run(Command::new("sh").args(["-c", "echo here >/dev/shm/state"])).await.unwrap();
    asleep.suspend().await.unwrap();
    let creates: Vec<_> = (0..10)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move { client.create(small()).await.map(drop) })
        })
        .collect();
    // In the middle: all were taken in, some guests boot, the others wait for their turn.
    let deadline = Instant::now() + Duration::from_secs(30);
    while machine_processes(dir) < 3 || client.list().await.unwrap().len() < 12 {
        assert!(Instant::now() < deadline, "the creates do not begin");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    server.kill();
    for create in creates {
        // One that was quick has its machine.
        if let Err(error) = create.await.unwrap() {
            assert_eq!(error.code, ErrorCode::Connection);
        }
    }

    let server = Server::start(&images, dir).await;
    let client = server.client(dir);
    let sandboxes = client.list().await.unwrap();
    assert_eq!(sandboxes.len(), 12, "nothing acknowledged is forgotten");
    let alive: Vec<_> = sandboxes.iter().filter(|sandbox| sandbox.status.holds_memory()).collect();
    let lost = sandboxes.iter().filter(|sandbox| sandbox.status == SandboxStatus::Failed);
    assert!(lost.clone().all(|sandbox| sandbox.reason.is_some()));
    assert_eq!(alive.len() + lost.count(), 11);
    assert!(sandboxes.iter().any(|sandbox| sandbox.status == SandboxStatus::Suspended));
    assert_eq!(machine_processes(dir), alive.len(), "processes");
    assert_eq!(machine_dirs(dir), alive.len(), "files");
    assert_eq!(client.server_info().await.unwrap().capacity.sandboxes, alive.len() as u64, "budget");
    let kept = client.connect(kept.id()).await.unwrap();
    assert_eq!(kept.run(Command::new("cat").args(["state"])).await.unwrap().stdout, b"before");

    let read = Command::new("cat").args(["/dev/shm/state"]);
    let asleep = client.connect("asleep").await.unwrap();
    assert_eq!(asleep.run(read.clone()).await.unwrap().stdout, b"here\n", "it woke with its memory");

    server.stop().await;
    assert_eq!((machine_processes(dir), machine_dirs(dir)), (0, 0));
    // The named one was put on disk rather than ended.
    let server = Server::start(&images, dir).await;
    let asleep = server.client(dir).connect("asleep").await.unwrap();
    assert_eq!(asleep.info().status, SandboxStatus::Suspended);
    assert_eq!(asleep.run(read).await.unwrap().stdout, b"here\n");
    asleep.terminate().await.unwrap();
    server.stop().await;
    assert_eq!(std::fs::read_dir(dir.join("suspended")).unwrap().count(), 0);
}
