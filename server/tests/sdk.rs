//! The Rust SDK against a real server and a real microVM, over real connections.

mod common;

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use forkyard::{Client, Command, CreateSandbox, ErrorCode, OnProgress, OutputEvent, Sandbox};
use forkyard_protocol::CreateKey;
use forkyard_server::action::Service;
use forkyard_server::api::{Api, router};
use forkyard_server::http_server;
use futures_util::future::join_all;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

struct World {
    service: Arc<Service>,
    url: String,
    key: String,
    dir: tempfile::TempDir,
}

impl World {
    async fn new() -> Self {
        let (images, dir) = common::folders();
        let service = Arc::new(common::service(&dir, images).await);
        let project = common::caller().project;
        let key = service.keys.create(CreateKey::default(), project).await.unwrap().api_key;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let stopping = CancellationToken::new();
        let api = Api { service: service.clone(), stopping: stopping.clone() };
        tokio::spawn(http_server::serve(listener, router(api), stopping));
        Self { service, url, key, dir }
    }

    fn client(&self, url: &str) -> Client {
        Client::builder().url(url).api_key(&self.key).build().unwrap()
    }
}

/// Passes one connection after another on to the server, and cuts each after so many bytes from the server, while there
/// are limits left.
async fn cutting_proxy(server: String, limits: Vec<usize>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let mut limits = limits.into_iter();
        while let Ok((client, _)) = listener.accept().await {
            let server = TcpStream::connect(server.trim_start_matches("http://")).await.unwrap();
            let mut left = limits.next().unwrap_or(usize::MAX);
            tokio::spawn(async move {
                let (mut from_client, mut to_client) = client.into_split();
                let (mut from_server, mut to_server) = server.into_split();
                let up = tokio::spawn(async move { tokio::io::copy(&mut from_client, &mut to_server).await });
                let mut buffer = vec![0; 16 * 1024];
                while let Ok(count @ 1..) = from_server.read(&mut buffer).await {
                    if count >= left || to_client.write_all(&buffer[..count]).await.is_err() {
                        break;
                    }
                    left -= count;
                }
                up.abort();
            });
        }
    });
    format!("http://{address}")
}

fn small() -> CreateSandbox {
    CreateSandbox { image: Some("base".to_owned()), memory_mb: Some(256), ..CreateSandbox::default() }
}

fn sh(script: &str) -> Command {
    Command::new("sh").args(["-c", script])
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sdk_drives_a_real_machine() {
    let world = World::new().await;
    let client = world.client(&world.url);
    let sandbox = client.create(small()).await.unwrap();
    commands(&sandbox).await;
    files(&sandbox).await;
    transfers(&sandbox, world.dir.path()).await;
    folders(&world, &sandbox).await;
    many_at_once(&sandbox).await;
    cuts(&world, &sandbox).await;
    cancelling(&sandbox).await;
    swarm(&client).await;
    assert_eq!(client.connect(sandbox.id()).await.unwrap().id(), sandbox.id());
    let alive = client.list().await.unwrap().into_iter().filter(|it| it.status.is_alive());
    assert_eq!(alive.count(), 1);
    sandbox.terminate().await.unwrap();
    let gone = sandbox.run(Command::new("true")).await.unwrap_err();
    assert_eq!(gone.code, ErrorCode::SandboxLost);
    assert_eq!(world.service.sandboxes.registry().usage(0).sandboxes, 0);
}

async fn commands(sandbox: &Sandbox) {
    let result =
        sandbox.run(sh(r"printf 'a\377'; echo $K >&2; cat; exit 3").env("K", "v").stdin("in")).await.unwrap();
    assert_eq!((result.stdout.as_slice(), result.stderr.as_slice()), (&b"a\xffin"[..], &b"v\n"[..]));
    assert_eq!(result.exit_code, 3);
    let late = sandbox.run(sh("trap '' TERM; sleep 60").timeout(Duration::from_millis(300))).await.unwrap();
    assert!(late.timed_out);
    let missing = sandbox.run(Command::new("no-such-program")).await.unwrap_err();
    assert_eq!((missing.code, missing.errno.as_deref()), (ErrorCode::NotFound, Some("ENOENT")));
    // What takes all memory, or all processes, ends itself and not the machine.
    let hungry = sandbox.run(Command::new("tail").args(["/dev/zero"])).await.unwrap();
    assert!(hungry.oom_killed, "{hungry:?}");
    let mut process = sandbox.start(sh("echo started; sleep 600")).await.unwrap();
    assert_eq!(process.next().await.unwrap(), Some(OutputEvent::Stdout(b"started\n".to_vec())));
    process.handle().signal(9).await.unwrap();
    let Some(OutputEvent::Exited(exit)) = process.next().await.unwrap() else { panic!("no end") };
    assert_eq!(exit.signal, Some(9));
}

async fn files(sandbox: &Sandbox) {
    let files = sandbox.files();
    let name = b"/workspace/a b\n\xff";
    files.write(name, "0123456789", Some(0o600)).await.unwrap();
    assert_eq!(files.read(name).await.unwrap(), "0123456789");
    assert_eq!(files.read_range(name, 3, 4).await.unwrap(), "3456");
    let listed = files.list("/workspace").await.unwrap();
    assert_eq!((listed.len(), listed[0].mode, listed[0].uid), (1, 0o600, 1000));
    files.rename(name, "/workspace/b", false).await.unwrap();
    files.remove("/workspace/b", false).await.unwrap();
    assert!(!files.exists("/workspace/b").await.unwrap());
    assert_eq!(files.read("/a/../b").await.unwrap_err().code, ErrorCode::InvalidArgument);
    sandbox
        .run(sh("fallocate -l 100G /workspace/all || fallocate -l 3700M /workspace/all; true"))
        .await
        .unwrap();
    let full = files.write("/workspace/more", vec![0u8; 300 << 20], None).await.unwrap_err();
    assert_eq!((full.code, full.errno.as_deref()), (ErrorCode::NoSpace, Some("ENOSPC")));
    files.remove("/workspace/all", false).await.unwrap();
    assert_eq!(files.list("/workspace").await.unwrap(), []);
}

async fn transfers(sandbox: &Sandbox, dir: &Path) {
    let (sent, received) = (dir.join("sent"), dir.join("received"));
    let pattern: Vec<u8> = (0..=255).cycle().take(20_000_003).collect();
    std::fs::write(&sent, &pattern).unwrap();
    let seen = Arc::new(AtomicU64::new(0));
    let progress: OnProgress = {
        let seen = seen.clone();
        Arc::new(move |bytes| seen.store(bytes, Ordering::Relaxed))
    };
    let stat = sandbox.files().upload(&sent, "/workspace/big", None, Some(progress.clone())).await.unwrap();
    assert_eq!((stat.size, seen.load(Ordering::Relaxed)), (20_000_003, 20_000_003));
    let size = sandbox.files().download("/workspace/big", &received, Some(progress)).await.unwrap();
    assert_eq!(size, 20_000_003);
    assert!(std::fs::read(&received).unwrap() == pattern);
    let missing = sandbox.files().upload(dir.join("none"), "/workspace/x", None, None).await.unwrap_err();
    assert!(missing.message.contains("the local file"), "{missing}");
    sandbox.files().remove("/workspace/big", false).await.unwrap();
}

async fn folders(world: &World, sandbox: &Sandbox) {
    let (sent, received) = (world.dir.path().join("project"), world.dir.path().join("copy"));
    std::fs::create_dir_all(sent.join("src/deep")).unwrap();
    for number in 0..200 {
        std::fs::write(sent.join(format!("src/deep/{number}")), format!("{number}\n")).unwrap();
    }
    std::fs::write(sent.join("tool"), "#!/bin/sh\necho works\n").unwrap();
    std::fs::set_permissions(sent.join("tool"), std::fs::Permissions::from_mode(0o755)).unwrap();
    let files = sandbox.files();
    let seen = Arc::new(AtomicU64::new(0));
    let progress: OnProgress = {
        let seen = seen.clone();
        Arc::new(move |bytes| seen.store(bytes, Ordering::Relaxed))
    };
    let up = files.upload_dir(&sent, "/workspace/project", Some(progress)).await.unwrap();
    assert_eq!((up.files, up.folders, up.links, up.skipped), (201, 3, 0, 0));
    assert!(seen.load(Ordering::Relaxed) > 200 * 1024);
    let script = "cd project && ./tool && stat -c %U%a . src tool && cat src/deep/* | sort -n | tail -n 1
        mkfifo pipe && ln -s /etc/passwd out && ln -s src/deep in && chmod 500 src";
    let result = sandbox.run(sh(script)).await.unwrap();
    let wanted = "works\nagent755\nagent755\nagent755\n199\n";
    assert_eq!(
        String::from_utf8_lossy(&result.stdout),
        wanted,
        "{}",
        String::from_utf8_lossy(&result.stderr)
    );
    // Over a connection that is cut twice.
    let proxy = cutting_proxy(world.url.clone(), vec![30_000, 60_000]).await;
    let cut = world.client(&proxy).connect(sandbox.id()).await.unwrap();
    let down = cut.files().download_dir("/workspace/project", &received, None).await.unwrap();
    assert_eq!((down.files, down.folders, down.links, down.bytes), (201, 3, 1, up.bytes));
    assert_eq!(down.skipped_paths, ["pipe", "out"].map(str::to_owned).into_iter().rev().collect::<Vec<_>>());
    assert_eq!(std::fs::read_to_string(received.join("in/199")).unwrap(), "199\n");
    assert!(received.join("out").symlink_metadata().is_err());
    // Again, into what is there; what is only there stays.
    std::fs::remove_dir_all(sent.join("src/deep")).unwrap();
    std::fs::write(sent.join("tool"), "new").unwrap();
    files.upload_dir(&sent, "/workspace/project", None).await.unwrap();
    assert_eq!(files.read("/workspace/project/tool").await.unwrap(), "new");
    assert_eq!(files.read("/workspace/project/src/deep/7").await.unwrap(), "7\n");
    let missing = files.download_dir("/workspace/none", &received, None).await.unwrap_err();
    assert_eq!((missing.code, missing.errno.as_deref()), (ErrorCode::NotFound, Some("ENOENT")));
    let none = files.upload_dir(sent.join("none"), "/workspace/x", None).await.unwrap_err();
    assert!(none.message.contains("the local file"), "{none}");
    let file = files.upload(&sent, "/workspace/x", None, None).await.unwrap_err();
    assert!(file.message.ends_with("is a folder: send it with upload_dir"), "{file}");
    files.remove("/workspace/project", true).await.unwrap();
    std::fs::set_permissions(received.join("src"), std::fs::Permissions::from_mode(0o700)).unwrap();
}

async fn many_at_once(sandbox: &Sandbox) {
    let runs = (0..100).map(|n| async move {
        let result = sandbox.run(Command::new("echo").args([n.to_string()])).await.unwrap();
        assert_eq!(result.stdout, format!("{n}\n").into_bytes());
    });
    join_all(runs).await;
}

async fn cuts(world: &World, sandbox: &Sandbox) {
    // The first connection is the look whether the server speaks HTTP/2; it carries the first calls too.
    let proxy = cutting_proxy(world.url.clone(), vec![100_000, 300_000, 700_000]).await;
    let cut = world.client(&proxy).connect(sandbox.id()).await.unwrap();
    let script = "echo once >> /tmp/runs; head -c 3000000 /dev/zero; cat /tmp/runs";
    let result = cut.run(sh(script)).await.unwrap();
    assert_eq!(result.stdout.len(), 3_000_005);
    assert!(result.stdout.ends_with(b"once\n"));
}

async fn cancelling(sandbox: &Sandbox) {
    let run = sandbox.run(sh("echo $$ > /tmp/pid; sleep 600"));
    assert!(tokio::time::timeout(Duration::from_secs(3), run).await.is_err());
    let check = sh(
        "for i in 1 2 3 4 5 6 7 8 9 10; do kill -0 $(cat /tmp/pid) 2>/dev/null || exit 0; sleep 0.2; done; exit 1",
    );
    assert_eq!(sandbox.run(check).await.unwrap().exit_code, 0, "the process goes on");
}

/// Three tasks on two machines at once; one never succeeds.
async fn swarm(client: &Client) {
    let most = Arc::new(AtomicU64::new(0));
    let seen = most.clone();
    let swarm = client.swarm(small()).concurrency(2).retries(1).on_progress(move |progress| {
        seen.fetch_max((progress.starting + progress.running) as u64, Ordering::Relaxed);
    });
    let job = async |sandbox: Sandbox, task: &'static str| {
        let result = sandbox.run(Command::new(task)).await?;
        Ok(result.exit_code)
    };
    let outcome = swarm.run(vec!["true", "no-such-program", "false"], job).await.unwrap();
    assert_eq!(outcome.results[0].as_ref().unwrap(), &0);
    assert_eq!(outcome.results[1].as_ref().unwrap_err().code, ErrorCode::NotFound);
    assert_eq!(outcome.results[2].as_ref().unwrap(), &1);
    assert_eq!((outcome.report.succeeded, outcome.report.failed), (2, 1));
    assert_eq!(outcome.report.tasks[1].attempts.len(), 2, "tried again in another machine");
    assert_eq!(most.load(Ordering::Relaxed), 2);
    // Dropped, it ends what it made.
    let endless = client.swarm(small());
    let sleeping = async |sandbox: Sandbox, (): ()| sandbox.run(Command::new("sleep").args(["600"])).await;
    let dropped = tokio::time::timeout(Duration::from_secs(3), endless.run(vec![()], sleeping)).await;
    assert!(dropped.is_err());
    tokio::task::spawn_blocking(|| forkyard::runtime::settle(Duration::from_secs(10))).await.unwrap();
}
