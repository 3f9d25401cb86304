//! The server's own end, however it comes: `forkyard serve` as a process, killed and started again.

mod common;

use std::path::Path;
use std::time::{Duration, Instant};

use common::server::{Server, machine_processes, names, small};
use forkyard::{Command, CreateSandbox, ErrorCode, SandboxStatus};

fn machine_dirs(dir: &Path) -> usize {
    names(&dir.join("machines")).len()
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
    while machine_processes(dir).len() < 3 || client.list().await.unwrap().len() < 12 {
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
    assert_eq!(machine_processes(dir).len(), alive.len(), "processes");
    assert_eq!(machine_dirs(dir), alive.len(), "files");
    assert_eq!(client.server_info().await.unwrap().capacity.sandboxes, alive.len() as u64, "budget");
    let kept = client.connect(kept.id()).await.unwrap();
    assert_eq!(kept.run(Command::new("cat").args(["state"])).await.unwrap().stdout, b"before");

    let read = Command::new("cat").args(["/dev/shm/state"]);
    let asleep = client.connect("asleep").await.unwrap();
    assert_eq!(asleep.run(read.clone()).await.unwrap().stdout, b"here\n", "it woke with its memory");

    server.stop().await;
    assert_eq!((machine_processes(dir).len(), machine_dirs(dir)), (0, 0));
    // The named one was put on disk rather than ended.
    let server = Server::start(&images, dir).await;
    let asleep = server.client(dir).connect("asleep").await.unwrap();
    assert_eq!(asleep.info().status, SandboxStatus::Suspended);
    assert_eq!(asleep.run(read).await.unwrap().stdout, b"here\n");
    asleep.terminate().await.unwrap();
    server.stop().await;
    assert_eq!(std::fs::read_dir(dir.join("suspended")).unwrap().count(), 0);
}
