//! `kill -9` of the server: nothing acknowledged is lost, nothing is left half made.

use std::path::Path;

use forkyard::{CreateSandbox, CreateSnapshot, ErrorCode, ForkSandbox, Sandbox, SandboxStatus};
use forkyard_protocol::PoolSpec;

use crate::common::server::{machine_processes, names, process_of, until};
use crate::world::{PROMPT, World, assert_counts_on, memory, of, sh};

/// A moment in a call, seen from outside.
type Moment = Box<dyn Fn(&Path) -> bool>;

/// Kills the server at a moment in a call, or at its end where the call was quicker, and starts another. Answers whether the call
/// was still under way.
async fn kill_at<T: Send + 'static>(
    world: &mut World,
    what: &str,
    call: impl Future<Output = forkyard::Result<T>> + Send + 'static,
    moment: impl Fn(&Path) -> bool,
) -> bool {
    let call = tokio::spawn(call);
    let dir = world.dir().to_owned();
    until(what, async || moment(&dir) || call.is_finished()).await;
    world.restart(|_| {}).await;
    match call.await.unwrap() {
        Ok(_) => false,
        Err(error) => {
            assert_eq!(error.code, ErrorCode::Connection, "{what}: {error}");
            true
        }
    }
}

/// Some of these moments last for a few milliseconds; on a busy host not all are met.
fn assert_met(what: &str, met: usize, of: usize) {
    println!("{what}: killed at {met} moments of {of}");
    assert!(met * 2 >= of, "{what}: {met} of {of}");
}

fn any(folder: &Path, is: impl Fn(&str) -> bool) -> bool {
    names(folder).iter().any(|name| is(name))
}

/// A folder is there that a snapshot is being written to.
fn begun(dir: &Path) -> bool {
    any(&dir.join("snapshots"), |name| name.starts_with(".snap_"))
}

/// The same, and all of its files are in it.
fn written(dir: &Path) -> bool {
    let snapshots = dir.join("snapshots");
    names(&snapshots)
        .iter()
        .any(|name| name.starts_with('.') && any(&snapshots.join(name), |file| file.starts_with("layer-")))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_is_killed_in_the_middle() {
    let mut world = World::new().await;
    in_use(&mut world).await;
    checkpoints(&mut world).await;
    forks(&mut world).await;
    let snapshot = world.snapshot().await;
    let machine =
        world.client.create(CreateSandbox { name: Some("lid".to_owned()), ..of(&snapshot) }).await.unwrap();
    suspensions(&mut world, &machine).await;
    restores(&mut world, &machine, snapshot.snapshot_id.as_str()).await;
    machine.terminate().await.unwrap();
    pools(&mut world, snapshot.snapshot_id.as_str()).await;
    // What was acknowledged before all of this is whole, and was read again by the last of these servers.
    let fork = world.fork_of(&snapshot).await;
    assert_counts_on(&fork).await;
    fork.terminate().await.unwrap();
    world.client.delete_snapshot(snapshot.snapshot_id.as_str()).await.unwrap();
    world.source.terminate().await.unwrap();
    world.assert_accounted(0).await;
}

/// A process that the killed server was about to turn into a machine holds its lock a little longer; another server holds it on.
async fn in_use(world: &mut World) {
    world
        .restart(|dir| {
            let lock = std::fs::File::open(dir.join("lock")).unwrap();
            rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
            std::thread::spawn(move || {
                std::thread::sleep(std::time::Duration::from_millis(300));
                drop(lock);
            });
        })
        .await;
    let mut second = tokio::process::Command::new(env!("CARGO_BIN_EXE_forkyard"));
    second.args(["serve", "--accelerator", "tcg", "--listen", "127.0.0.1:0", "--data-dir"]).arg(world.dir());
    let refused =
        tokio::time::timeout(PROMPT, second.kill_on_drop(true).output()).await.expect("it ends").unwrap();
    assert!(!refused.status.success());
    let says = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(says.contains("another server uses the data directory"), "{says}");
    world.assert_source_runs_on().await;
}

async fn checkpoints(world: &mut World) {
    let source = world.source.id().to_owned();
    // The state is in the machine's own directory for the few milliseconds in which the guest stands still.
    let still = move |dir: &Path| dir.join("machines").join(&source).join("state").exists();
    let moments: [(CreateSnapshot, Moment); 5] = [
        (memory(), Box::new(begun)),
        (memory(), Box::new(still)),
        (memory(), Box::new(written)),
        (CreateSnapshot::default(), Box::new(begun)),
        (CreateSnapshot::default(), Box::new(written)),
    ];
    let mut met = 0;
    for (request, moment) in moments {
        let source = world.source.clone();
        let call = async move { source.checkpoint(request).await };
        met += usize::from(kill_at(world, "a checkpoint", call, moment).await);
        world.assert_accounted(0).await;
        world.assert_source_runs_on().await;
        assert_eq!(world.client.snapshots().await.unwrap().len(), 1, "it is not forgotten");
        for snapshot in world.client.snapshots().await.unwrap() {
            world.client.delete_snapshot(snapshot.snapshot_id.as_str()).await.unwrap();
        }
    }
    assert_met("checkpoints", met, 5);
}

async fn forks(world: &mut World) {
    let moments: [Moment; 3] = [
        Box::new(begun),
        Box::new(|dir| names(&dir.join("machines")).len() > 1),
        Box::new(|dir| machine_processes(dir).len() > 2),
    ];
    let mut met = 0;
    for moment in moments {
        let source = world.source.clone();
        let request = ForkSandbox { count: 3, ..ForkSandbox::default() };
        let call = async move { source.fork(request).await };
        met += usize::from(kill_at(world, "a fork", call, moment).await);
        world.assert_accounted(0).await;
        world.assert_source_runs_on().await;
        for fork in world.of_status(SandboxStatus::Running).await {
            if fork.sandbox_id.as_str() != world.source.id() {
                world.client.terminate(fork.sandbox_id.as_str()).await.unwrap();
            }
        }
    }
    assert_met("forks", met, 3);
}

async fn suspensions(world: &mut World, machine: &Sandbox) {
    let id = machine.id().to_owned();
    let suspended = |name: String| move |dir: &Path| dir.join("suspended").join(&name).exists();
    let moments: [Moment; 2] = [Box::new(suspended(format!(".{id}"))), Box::new(suspended(id.clone()))];
    let mut met = 0;
    for (number, moment) in moments.into_iter().enumerate() {
        sh(machine, &format!("echo suspend {number} >/dev/shm/mark")).await;
        let suspending = machine.clone();
        let call = async move { suspending.suspend().await };
        met += usize::from(kill_at(world, "a suspension", call, moment).await);
        world.assert_accounted(0).await;
        assert_eq!(sh(machine, "cat /dev/shm/mark").await, format!("suspend {number}\n"));
        assert_counts_on(machine).await;
    }
    let of_machine = id.clone();
    let moments: [Moment; 2] = [
        Box::new(move |dir| dir.join("machines").join(&of_machine).exists()),
        Box::new(move |dir| process_of(dir, &id).is_some()),
    ];
    for (number, moment) in moments.into_iter().enumerate() {
        sh(machine, &format!("echo resume {number} >/dev/shm/mark")).await;
        machine.suspend().await.unwrap();
        let resuming = machine.clone();
        let call = async move { resuming.resume().await };
        met += usize::from(kill_at(world, "a resumption", call, moment).await);
        world.assert_accounted(0).await;
        assert_eq!(sh(machine, "cat /dev/shm/mark").await, format!("resume {number}\n"));
        assert_counts_on(machine).await;
    }
    assert_met("suspensions and resumptions", met, 4);
}

async fn restores(world: &mut World, machine: &Sandbox, snapshot: &str) {
    let id = machine.id().to_owned();
    let path = |folder: &str, name: String| {
        let folder = folder.to_owned();
        move |dir: &Path| dir.join(&folder).join(&name).exists()
    };
    let mut met = 0;
    for number in 0..4 {
        sh(machine, &format!("echo restore {number} >/dev/shm/mark")).await;
        let before = process_of(world.dir(), &id);
        let of_machine = id.clone();
        let moment: Moment = match number {
            0 => Box::new(path("suspended", format!(".{id}"))),
            1 => Box::new(path("suspended", id.clone())),
            // The first process has gone; then the one that takes its place is there.
            2 => Box::new(move |dir| process_of(dir, &of_machine).is_none()),
            _ => Box::new(move |dir| process_of(dir, &of_machine).is_some_and(|pid| Some(pid) != before)),
        };
        let (restoring, snapshot) = (machine.clone(), snapshot.to_owned());
        let call = async move { restoring.restore(&snapshot).await };
        met += usize::from(kill_at(world, "a restore", call, moment).await);
        world.assert_accounted(0).await;
        // Where it was, or where the snapshot stands: the machine is one of the two.
        let mark = sh(machine, "cat /dev/shm/mark").await;
        assert!([format!("restore {number}\n"), "here\n".to_owned()].contains(&mark), "{mark}");
        assert_counts_on(machine).await;
    }
    assert_met("restores", met, 4);
}

async fn pools(world: &mut World, snapshot: &str) {
    let spec = PoolSpec { snapshot_id: Some(snapshot.parse().unwrap()), min_ready: 1, ..PoolSpec::default() };
    let pool = world.client.create_pool(spec).await.unwrap();
    let moments: [Moment; 2] = [
        Box::new(|dir| names(&dir.join("machines")).len() > 1),
        Box::new(|dir| machine_processes(dir).len() > 1),
    ];
    let mut met = 0;
    for moment in moments {
        let (client, id) = (world.client.clone(), pool.pool_id.to_string());
        let refilled = async move {
            loop {
                if client.pool(&id).await?.ready == 1 {
                    return Ok(());
                }
            }
        };
        met += usize::from(kill_at(world, "a refill", refilled, moment).await);
        let ready = async || world.client.pool(pool.pool_id.as_str()).await.unwrap().ready == 1;
        until("the pool is filled again", ready).await;
        world.assert_accounted(1).await;
        // The next server has it to fill again.
        let claimed = world.client.create(CreateSandbox {
            snapshot_id: Some(snapshot.parse().unwrap()),
            ..CreateSandbox::default()
        });
        claimed.await.unwrap().terminate().await.unwrap();
    }
    assert_met("refills", met, 2);
    world.client.delete_pool(pool.pool_id.as_str()).await.unwrap();
    until("nobody waits any more", async || machine_processes(world.dir()).len() == 1).await;
    until("its directory is gone", async || names(&world.dir().join("machines")).len() == 1).await;
}
