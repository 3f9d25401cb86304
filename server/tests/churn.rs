//! Two hundred machines come and go in random order while QEMUs are killed, and the server twice: nothing is left.

mod common;

use std::collections::HashSet;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::server::{Machines, Server, cgroups, machine_processes, names, process_of, small};
use forkyard::{
    CheckpointType, Client, Command, CreateSandbox, CreateSnapshot, ErrorCode, SandboxStatus, SnapshotId,
};
use rustix::process::{Signal, kill_process};

/// Machines in all.
const MACHINES: usize = 200;

/// Machines at once: more wait for two processors without end.
const AT_ONCE: usize = 6;

/// Machines that are left to the end of all, and machines whose QEMU is killed; the others are ended. Their numbers are fixed and
/// only their order is drawn: with each machine's fate drawn for itself, some seeds left more than the server has room for. At most
/// `1 + LEFT + 3 * AT_ONCE` live at once: the source, those that are left, those under way, and those whose caller lost the server,
/// as many for each kill.
const LEFT: usize = 10;
const KILLED: usize = 30;

/// After how many of them the server is killed.
const RESTARTS: [usize; 2] = [MACHINES / 3, MACHINES * 2 / 3];

/// What happens to a machine, chosen before anything runs, so that the seed says it all but the scheduling.
#[derive(Debug, Clone, Copy)]
enum Fate {
    /// Its caller ends it after so many milliseconds.
    Ended(u64),
    /// Its QEMU is killed after so many milliseconds.
    Killed(u64),
    /// It is used, and its end is left to the end of all.
    Left,
}

/// Random numbers that a seed repeats (`SplitMix64`).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }

    /// All machines' fates, in random order.
    fn fates(&mut self) -> Vec<Fate> {
        let mut fates: Vec<Fate> = (0..MACHINES)
            .map(|number| match number {
                _ if number < LEFT => Fate::Left,
                _ if number < LEFT + KILLED => Fate::Killed(self.below(300)),
                _ => Fate::Ended(self.below(100)),
            })
            .collect();
        // Fisher and Yates.
        for last in (1..fates.len()).rev() {
            let other = usize::try_from(self.below(last as u64 + 1)).unwrap();
            fates.swap(last, other);
        }
        fates
    }
}

/// What all tasks share.
struct Churn {
    client: Client,
    snapshot: SnapshotId,
    begun: AtomicUsize,
    /// Machines that the server said were made.
    acknowledged: Mutex<HashSet<String>>,
}

impl Churn {
    /// Sees one machine from its create to its fate.
    async fn one(&self, dir: &Path, fate: Fate) -> Result<(), forkyard::Error> {
        self.begun.fetch_add(1, Ordering::Relaxed);
        let request = CreateSandbox { snapshot_id: Some(self.snapshot.clone()), ..CreateSandbox::default() };
        let machine = self.client.create(request).await?;
        self.acknowledged.lock().unwrap().insert(machine.id().to_owned());
        match fate {
            Fate::Left => {
                let result = machine.run(Command::new("cat").args(["/dev/shm/mark"])).await?;
                assert_eq!(result.stdout, b"here\n");
            }
            Fate::Ended(after) => {
                tokio::time::sleep(Duration::from_millis(after)).await;
                assert_eq!(machine.terminate().await?.status, SandboxStatus::Terminated);
            }
            Fate::Killed(after) => {
                tokio::time::sleep(Duration::from_millis(after)).await;
                let pid = process_of(dir, machine.id()).expect("it runs, whatever became of the server");
                kill_process(pid, Signal::KILL).unwrap();
                // Either it is just lost when this comes, or it was found lost before.
                let ended = machine.terminate().await?;
                assert!(!ended.status.is_alive() && ended.reason.is_some(), "{ended:?}");
            }
        }
        Ok(())
    }

    /// One after another until none is left to be made. The server may be away for a moment.
    async fn many(self: Arc<Self>, dir: std::path::PathBuf, fates: Arc<Mutex<Vec<Fate>>>) {
        loop {
            let Some(fate) = fates.lock().unwrap().pop() else { return };
            if let Err(error) = self.one(&dir, fate).await {
                assert_eq!(error.code, ErrorCode::Connection, "{fate:?}: {error}");
                let next = async {
                    while self.client.server_info().await.is_err() {
                        tokio::time::sleep(Duration::from_millis(10)).await;
                    }
                };
                tokio::time::timeout(Duration::from_mins(1), next).await.expect("the next server serves");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_machines_come_and_go_and_nothing_is_left() {
    // Set to repeat a run that failed.
    let seed = std::env::var("FORKYARD_TEST_SEED").map_or_else(
        |_| {
            u64::from(
                std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().subsec_nanos(),
            )
        },
        |text| text.parse().unwrap(),
    );
    println!("FORKYARD_TEST_SEED={seed}");
    let mut random = Random(seed);
    let (images, dir) = common::folders();
    let dir = dir.path();
    let _machines = Machines(dir.to_owned());
    let mut server = Server::start(&images, dir).await;
    let client = server.client(dir);
    let source = client.create(small()).await.unwrap();
    source.run(Command::new("sh").args(["-c", "echo here >/dev/shm/mark"])).await.unwrap();
    let memory = CreateSnapshot { checkpoint_type: CheckpointType::Memory, ..CreateSnapshot::default() };
    let snapshot = source.checkpoint(memory).await.unwrap().snapshot_id;
    let churn = Arc::new(Churn {
        client: client.clone(),
        snapshot: snapshot.clone(),
        begun: AtomicUsize::new(0),
        acknowledged: Mutex::default(),
    });
    let fates = Arc::new(Mutex::new(random.fates()));
    let tasks: Vec<_> =
        (0..AT_ONCE).map(|_| tokio::spawn(churn.clone().many(dir.to_owned(), fates.clone()))).collect();
    for after in RESTARTS {
        until_long("so many have begun", async || churn.begun.load(Ordering::Relaxed) >= after).await;
        tokio::time::sleep(Duration::from_millis(random.below(300))).await;
        let port = server.port();
        server.kill();
        server = Server::start_at(port, &images, dir).await;
    }
    for task in tasks {
        task.await.unwrap();
    }

    let all = client.list().await.unwrap();
    let known: HashSet<String> = all.iter().map(|sandbox| sandbox.sandbox_id.to_string()).collect();
    assert!(churn.acknowledged.lock().unwrap().is_subset(&known), "an acknowledged machine is forgotten");
    let alive: Vec<_> = all.iter().filter(|sandbox| sandbox.status.is_alive()).collect();
    assert_eq!(machine_processes(dir).len(), alive.len(), "processes");
    assert_eq!(client.server_info().await.unwrap().capacity.sandboxes, alive.len() as u64, "budget");
    for sandbox in alive {
        client.terminate(sandbox.sandbox_id.as_str()).await.unwrap();
    }
    client.delete_snapshot(snapshot.as_str()).await.unwrap();
    let left = machine_processes(dir);
    assert!(left.is_empty(), "processes: {left:?}");
    for folder in ["machines", "suspended", "snapshots"] {
        assert_eq!(names(&dir.join(folder)), Vec::<String>::new(), "{folder}");
    }
    assert_eq!(cgroups(&known.into_iter().collect::<Vec<_>>()), Vec::<std::path::PathBuf>::new());
    let capacity = client.server_info().await.unwrap().capacity;
    assert_eq!((capacity.sandboxes, capacity.memory_used_mb), (0, 0), "budget");
    server.stop().await;
}

/// Waits for something that takes its time.
async fn until_long(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_mins(5), waiting).await.expect(what);
}
