//! Real machines: QEMU, the image's kernel, the agent as PID 1. `make test` builds the
//! image and names its folder in `FORKYARD_TEST_IMAGES`.

use std::collections::HashSet;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::PathBuf;
use std::time::{Duration, Instant as Clock};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use forkyard_protocol::{GuestConfig, ProcessSpec, SandboxId};
use forkyard_server::guest::{Guest, GuestCall, Offsets};
use forkyard_server::image::{Image, ImageStore};
use forkyard_server::vmm::qemu::Qemu;
use forkyard_server::vmm::{Accelerator, Devices, Freeze, FrozenMemory, Limits, Machine, MachineSpec, Vmm};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use tempfile::TempDir;
use tokio::time::{Instant, timeout};

/// An emulated guest boots in two to four seconds on an idle host; tests share theirs.
const BOOT: Duration = Duration::from_mins(1);

/// How soon an end must be noticed.
const PROMPT: Duration = Duration::from_secs(1);

/// A place for machines beside the images, as hard links need.
struct Host {
    machines: PathBuf,
    image: Image,
    _dir: TempDir,
}

impl Host {
    fn new() -> Self {
        Self::named("m")
    }

    /// With this much of a path to the machines' directory.
    fn named(folder: &str) -> Self {
        let images = std::env::var_os("FORKYARD_TEST_IMAGES").map(PathBuf::from).expect(
            "these tests boot machines: set FORKYARD_TEST_IMAGES to a folder that 'forkyard image build base' filled",
        );
        let image = ImageStore::open(&images)
            .resolve("base")
            .unwrap_or_else(|error| panic!("FORKYARD_TEST_IMAGES={}: {error}", images.display()));
        let beside = images.parent().expect("the image folder lies in another");
        let dir = tempfile::tempdir_in(beside).unwrap();
        let machines = dir.path().join(folder);
        std::fs::create_dir_all(&machines).unwrap();
        Self { _dir: dir, machines, image }
    }

    fn spec(&self, id: &str) -> MachineSpec {
        let dir = self.machines.join(id);
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir).unwrap();
        MachineSpec {
            sandbox_id: SandboxId::parse(id).unwrap(),
            dir,
            rootfs: self.image.rootfs.clone(),
            vmlinux: self.image.vmlinux.clone(),
            initrd: self.image.initrd.clone(),
            vcpus: 1,
            memory_mb: 256,
            layers: Vec::new(),
            memory: None,
            devices: Devices::NOW,
        }
    }
}

impl Drop for Host {
    /// Machines outlive whoever started them, and so would those of a test that fails.
    fn drop(&mut self) {
        for (pid, _) in processes(self) {
            // It may end by itself meanwhile.
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}

/// The processes whose working directory is one of this host's machines.
fn processes(host: &Host) -> Vec<(Pid, SandboxId)> {
    let processes = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let ours = processes.filter_map(|process| {
        let pid = Pid::from_raw(process.file_name().to_str()?.parse().ok()?)?;
        let dir = std::fs::read_link(process.path().join("cwd")).ok()?;
        let id = dir.strip_prefix(&host.machines).ok()?.to_str()?.trim_end_matches(" (deleted)").to_owned();
        Some((pid, SandboxId::parse(&id).ok()?))
    });
    ours.collect()
}

async fn qemu() -> Qemu {
    Qemu::find(Accelerator::Tcg).await.unwrap()
}

async fn boot(machine: &dyn Machine) -> Guest {
    let connecting = Guest::connect(machine.agent_socket(), Instant::now() + BOOT);
    tokio::select! {
        guest = connecting => match guest {
            Ok(guest) => guest,
            Err(error) => panic!("{}; its console: {}", error.message, machine.console_tail().await),
        },
        reason = machine.exited() => panic!("it ended while it booted: {reason}"),
    }
}

fn config() -> GuestConfig {
    GuestConfig {
        hostname: "test".into(),
        machine_id: "0123456789abcdef0123456789abcdef".into(),
        seed_base64: STANDARD.encode([7; 64]),
        unix_time_ns: 1_800_000_000_000_000_000,
        user: "agent".into(),
        cwd: "/workspace".into(),
        ..GuestConfig::default()
    }
}

fn pid(machine: &dyn Machine) -> Pid {
    Pid::from_raw(i32::try_from(machine.pid()).unwrap()).unwrap()
}

fn is_gone(pid: Pid) -> bool {
    test_kill_process(pid).is_err()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_boots_answers_and_is_killed() {
    let (host, qemu) = (Host::new(), qemu().await);
    let started = Clock::now();
    let machine = qemu.start(host.spec("sbx_1")).await.unwrap();
    let running = started.elapsed();
    let guest = boot(machine.as_ref()).await;
    let connected = started.elapsed();
    let health = guest.configure(&config()).await.unwrap();
    let answered = started.elapsed();
    println!(
        "spawn to QMP {running:?}, to the agent's session {connected:?}, to its first answer {answered:?}"
    );
    assert!(health.uptime_secs < 60);
    assert_eq!(guest.health().await.unwrap().version, health.version);
    let process = pid(machine.as_ref());
    let (first, second, killed) =
        tokio::join!(timeout(PROMPT, machine.exited()), timeout(PROMPT, machine.exited()), machine.kill());
    killed.unwrap();
    assert_eq!(first.unwrap(), second.unwrap());
    assert!(is_gone(process));
    assert!(guest.health().await.is_err());
}

/// QEMU's own directory, limits, descriptors and account, as the kernel sees them.
#[tokio::test(flavor = "multi_thread")]
async fn a_machine_is_confined() {
    // A lock that whoever started this program left open, without close-on-exec.
    let foreign = std::fs::File::open("/dev/null").unwrap();
    rustix::io::fcntl_setfd(&foreign, rustix::io::FdFlags::empty()).unwrap();
    let (host, qemu) = (Host::new(), qemu().await);
    let spec = host.spec("sbx_1");
    let dir = spec.dir.clone();
    let machine = qemu.start(spec).await.unwrap();
    let proc = PathBuf::from(format!("/proc/{}", machine.pid()));
    let text = |file: &str| std::fs::read_to_string(proc.join(file)).unwrap();
    assert_eq!(std::fs::read_link(proc.join("cwd")).unwrap(), dir);
    let limits = text("limits");
    let limit = |name: &str| {
        limits.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next()).unwrap().to_owned()
    };
    assert_eq!((limit("Max core file size").as_str(), limit("Max open files").as_str()), ("0", "1024"));
    assert_ne!(limit("Max file size"), "unlimited");
    assert_eq!(text("oom_score_adj").trim(), "500");
    let fds = std::fs::read_dir(proc.join("fd")).unwrap();
    let open: Vec<PathBuf> = fds.filter_map(|fd| std::fs::read_link(fd.unwrap().path()).ok()).collect();
    // Its standard input is the only one that may be that device.
    assert_eq!(open.iter().filter(|path| **path == *"/dev/null").count(), 1, "{open:?}");
    assert!(
        text("status").lines().any(|line| line.starts_with("Seccomp:") && line.trim_end().ends_with('2'))
    );
    if rustix::process::geteuid().is_root() {
        assert_ne!(std::fs::metadata(proc.join("status")).unwrap().uid(), 0);
        assert_eq!(
            (std::fs::metadata(&dir).unwrap().uid(), std::fs::metadata(&dir).unwrap().mode() & 0o777),
            (0, 0o710)
        );
    }
    match qemu.limits() {
        Limits::Enforced => assert!(text("cgroup").trim_end().ends_with("/forkyard/sbx_1")),
        Limits::Absent(reason) => assert!(!reason.is_empty()),
    }
    machine.kill().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_server_takes_a_machine_up() {
    let (host, first) = (Host::new(), qemu().await);
    let spec = host.spec("sbx_1");
    let (id, dir) = (spec.sandbox_id.clone(), spec.dir.clone());
    let machine = first.start(spec).await.unwrap();
    let guest = boot(machine.as_ref()).await;
    guest.configure(&config()).await.unwrap();
    let process = pid(machine.as_ref());
    drop((machine, guest));

    let second = qemu().await;
    let other = SandboxId::parse("sbx_2").unwrap();
    assert!(second.adopt(other.clone(), host.machines.join("sbx_2")).await.unwrap().is_none());
    let machine = second.adopt(id.clone(), dir.clone()).await.unwrap().expect("it runs");
    assert_eq!(pid(machine.as_ref()), process);
    assert!(boot(machine.as_ref()).await.health().await.is_ok());
    // Its end is seen though it is nobody's child here.
    kill_process(process, Signal::KILL).unwrap();
    let reason = timeout(PROMPT, machine.exited()).await.expect("noticed at once");
    assert!(reason.contains("QEMU ended"), "{reason}");
    assert!(second.adopt(id, dir).await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn strays_are_ended_and_no_others() {
    let (host, elsewhere, qemu) = (Host::new(), Host::new(), qemu().await);
    let kept = qemu.start(host.spec("sbx_kept")).await.unwrap();
    let stray = qemu.start(host.spec("sbx_stray")).await.unwrap();
    let foreign = qemu.start(elsewhere.spec("sbx_stray")).await.unwrap();
    // Files tell nothing of what runs.
    std::fs::remove_dir_all(host.machines.join("sbx_stray")).unwrap();
    let keep = HashSet::from([SandboxId::parse("sbx_kept").unwrap()]);
    let swept = qemu.sweep(&host.machines, &keep).await.unwrap();
    assert_eq!(swept, [SandboxId::parse("sbx_stray").unwrap()]);
    timeout(PROMPT, stray.exited()).await.expect("its end is seen");
    assert!(is_gone(pid(stray.as_ref())));
    assert!(!is_gone(pid(kept.as_ref())) && !is_gone(pid(foreign.as_ref())));
    assert_eq!(qemu.sweep(&host.machines, &keep).await.unwrap(), []);
    assert_eq!(qemu.sweep(&host.machines.join("missing"), &keep).await.unwrap(), []);
    kept.kill().await.unwrap();
    foreign.kill().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_nobody_waits_for_leaves_nothing() {
    let (host, qemu) = (Host::new(), qemu().await);
    for wait in [0, 5, 20, 60] {
        let id = format!("sbx_{wait}");
        // On an idle host the longest wait may do; a machine that was handed over is its owner's to end.
        if let Ok(started) = timeout(Duration::from_millis(wait), qemu.start(host.spec(&id))).await {
            started.unwrap().kill().await.unwrap();
        }
    }
    let gone = async {
        // What was given up before its process was there is ended by the task that made it, a moment later.
        while !qemu.sweep(&host.machines, &running(&host)).await.unwrap().is_empty()
            || !running(&host).is_empty()
        {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(Duration::from_secs(5), gone).await.expect("all of them ended by themselves");
}

/// The machines whose processes there are, so that a sweep that keeps them ends none.
fn running(host: &Host) -> HashSet<SandboxId> {
    processes(host).into_iter().map(|(_, id)| id).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_cannot_boot_says_why() {
    let (host, qemu) = (Host::new(), qemu().await);
    let mut spec = host.spec("sbx_1");
    // An initial RAM disk without an agent: the kernel finds nothing to run and panics.
    spec.initrd = host.machines.join("empty");
    std::fs::write(&spec.initrd, b"").unwrap();
    std::fs::set_permissions(&spec.initrd, std::os::unix::fs::PermissionsExt::from_mode(0o444)).unwrap();
    let machine = qemu.start(spec).await.unwrap();
    let reason = timeout(BOOT, machine.exited()).await.expect("it ends");
    assert!(reason.contains("the guest restarted") && reason.contains("Kernel panic"), "{reason}");
    assert!(is_gone(pid(machine.as_ref())));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_in_a_deep_directory_runs_and_shuts_down() {
    let (host, qemu) = (Host::named(&"deep/".repeat(40)), qemu().await);
    let machine = qemu.start(host.spec("sbx_1")).await.unwrap();
    assert!(machine.agent_socket().as_os_str().len() > 107);
    boot(machine.as_ref()).await.configure(&config()).await.unwrap();
    let asked = Clock::now();
    machine.shutdown(Duration::from_secs(10)).await.unwrap();
    println!("quit after {:?}", asked.elapsed());
    assert!(machine.exited().await.contains("exit status: 0"));
    assert!(is_gone(pid(machine.as_ref())));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_does_not_listen_is_shut_down_by_force() {
    let (host, qemu) = (Host::new(), qemu().await);
    let machine = qemu.start(host.spec("sbx_1")).await.unwrap();
    kill_process(pid(machine.as_ref()), Signal::STOP).unwrap();
    timeout(Duration::from_secs(5), machine.shutdown(Duration::from_millis(300))).await.unwrap().unwrap();
    assert!(is_gone(pid(machine.as_ref())));
}

/// What a machine that was frozen into this folder goes on from.
fn frozen(host: &Host, id: &str, folder: &std::path::Path, layers: usize) -> MachineSpec {
    MachineSpec {
        rootfs: folder.join("base.raw"),
        vmlinux: folder.join("vmlinux"),
        initrd: folder.join("initrd"),
        layers: (0..layers).map(|layer| folder.join(format!("layer-{layer}.qcow2"))).collect(),
        memory: Some(FrozenMemory {
            ram: folder.join("ram"),
            changed: Some(folder.join("changed")).filter(|changed| changed.exists()),
            state: folder.join("state"),
        }),
        devices: Devices::NOW,
        ..host.spec(id)
    }
}

/// Runs a shell's command and answers what it wrote.
async fn sh(guest: &Guest, script: &str) -> String {
    let spec = ProcessSpec {
        id: Some(format!("prc_{}", ulid::Ulid::generate()).parse().unwrap()),
        command: "sh".to_owned(),
        args: vec!["-c".to_owned(), script.to_owned()],
        ..ProcessSpec::default()
    };
    let call = GuestCall::StartProcess(Box::new(spec), Some(Offsets::default()));
    let response = guest.send(call.into_request().unwrap()).await.unwrap();
    let body = http_body_util::BodyExt::collect(response.into_body()).await.unwrap().to_bytes();
    let mut decoder = forkyard_protocol::Decoder::new();
    decoder.push(&body);
    let mut text = Vec::new();
    while let Some(frame) = decoder.next_frame().unwrap() {
        if let forkyard_protocol::Frame::Stdout(data) | forkyard_protocol::Frame::Stderr(data) = frame {
            text.extend(data);
        }
    }
    String::from_utf8(text).unwrap()
}

/// What was frozen before machines had a network card goes on without one.
#[tokio::test(flavor = "multi_thread")]
async fn a_machine_of_the_first_devices_goes_on_with_them() {
    let (host, qemu) = (Host::new(), qemu().await);
    let devices = Devices::default();
    let first = qemu.start(MachineSpec { devices, ..host.spec("sbx_0") }).await.unwrap();
    let guest = boot(first.as_ref()).await;
    guest.configure(&config()).await.unwrap();
    sh(&guest, "echo here >/dev/shm/mark").await;
    assert_eq!(first.network_socket(), None);
    let folder = host.machines.parent().unwrap().join("frozen");
    std::fs::create_dir(&folder).unwrap();
    let layers = first.freeze(folder.clone(), Freeze::Memory).await.unwrap().layers;
    let spec = MachineSpec { devices, ..frozen(&host, "sbx_1", &folder, layers) };
    let fork = qemu.start(spec).await.unwrap();
    let guest = boot(fork.as_ref()).await;
    guest.configure(&config()).await.unwrap();
    assert_eq!(sh(&guest, "cat /dev/shm/mark").await, "here\n");
    assert_eq!(sh(&guest, "ls /sys/class/net").await, "lo\n");
    let error = guest.configure(&GuestConfig { network: true, ..config() }).await.unwrap_err();
    assert!(error.message.contains("no network card"), "{error:?}");
    first.kill().await.unwrap();
    fork.kill().await.unwrap();
}

/// Memory, disk and processes of a fork of a fork of a fork are what they were, and nobody sees what another writes.
#[tokio::test(flavor = "multi_thread")]
async fn forks_go_on_where_the_original_stood() {
    let (host, qemu) = (Host::new(), qemu().await);
    let first = qemu.start(host.spec("sbx_0")).await.unwrap();
    let guest = boot(first.as_ref()).await;
    guest.configure(&config()).await.unwrap();
    let counter =
        "(while :; do echo $(($(cat /dev/shm/n) + 1)) >/dev/shm/n; sleep 0.05; done) >/dev/null 2>&1 &";
    sh(&guest, &format!("echo 0 >/dev/shm/n; {counter} echo disk0 >/workspace/f; sync")).await;
    let mut sources = vec![(first, guest)];
    for generation in 1..=3 {
        let folder = host.machines.parent().unwrap().join(format!("frozen-{generation}"));
        std::fs::create_dir(&folder).unwrap();
        let (source, guest) = sources.last().unwrap();
        let frozen_as = source.freeze(folder.clone(), Freeze::Memory).await.unwrap();
        assert_eq!(frozen_as.layers, generation);
        println!("generation {generation}: stood still for {:?}", frozen_as.pause);
        // The original goes on, on a disk of its own.
        assert_eq!(
            sh(guest, &format!("echo mine >>/workspace/own{generation}; sync; echo on")).await,
            "on\n"
        );
        let id = format!("sbx_{generation}");
        let before = Clock::now();
        let fork = qemu.start(frozen(&host, &id, &folder, frozen_as.layers)).await.unwrap();
        let guest = boot(fork.as_ref()).await;
        println!("fork answered after {:?}", before.elapsed());
        guest.configure(&config()).await.unwrap();
        let wanted: Vec<String> = (0..generation).map(|n| format!("disk{n}")).collect();
        assert_eq!(sh(&guest, "cat /workspace/f").await.lines().collect::<Vec<_>>(), wanted);
        assert!(sh(&guest, "ls /workspace").await.split_whitespace().all(|name| name == "f"));
        // The background process counts on.
        let count = async || sh(&guest, "cat /dev/shm/n").await.trim().parse::<u64>().unwrap_or(0);
        let start = count().await;
        timeout(Duration::from_secs(10), async { while count().await <= start {} }).await.expect("it counts");
        sh(&guest, &format!("echo disk{generation} >>/workspace/f; sync")).await;
        sources.push((fork, guest));
    }
    for (machine, _) in sources {
        machine.kill().await.unwrap();
    }
}
