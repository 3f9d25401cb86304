//! Rows about the network: a guest's TCP through its gateway against QEMU's own user-mode network, what an idle gateway costs, and
//! what a network costs when a machine is made.

use std::net::{IpAddr, UdpSocket};
use std::path::Path;
use std::time::{Duration, Instant};

use forkyard::{CreateSandbox, NetworkPolicy, Sandbox};
use forkyard_protocol::{ProcessId, ProcessSpec};
use forkyard_server::guest::{Guest, GuestCall};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use crate::bare::PATIENCE;
use crate::bare_lid::{BareLid, Network};
use crate::fork_rows::{creation, pss_mib, terminate};
use crate::report::Measured;
use crate::stats::Goal;
use crate::world::{MS, Outcome, World, words};

/// What goes through one connection, and how often in each direction.
const SIZE_MIB: u64 = 32;
const ROUNDS: usize = 7;

/// Round trips of a sample's connection; the first fill the guest's caches.
const TRIPS: usize = 120;
const FIRST_TRIPS: usize = 20;

/// Machines that are made with and without a network.
const CREATIONS: usize = 30;

/// What a network may cost when a machine is made, in milliseconds.
const CREATION_MS: f64 = 10.0;

/// Gateways whose rest is looked at, for how long, and when they are at rest: the server asks once for their totals before.
const IDLE: usize = 3;
const WATCHED: Duration = Duration::from_secs(10);
const REST: Duration = Duration::from_secs(8);

/// What an idle gateway may hold of the host's memory, in MiB.
const IDLE_MIB: f64 = 3.0;

/// An address of this host's beside loopback, which a guest has itself; none without a network.
pub fn own_address() -> Option<IpAddr> {
    let probe = UdpSocket::bind("0.0.0.0:0").ok()?;
    // Looks the route up and sends nothing.
    probe.connect("203.0.113.7:9").ok()?;
    Some(probe.local_addr().ok()?.ip())
}

fn reachable_address() -> Outcome<IpAddr> {
    own_address()
        .ok_or_else(|| "this host has no address but loopback, which each machine has itself".to_owned())
}

/// The kind of machine that is measured, with a way to this host's own address.
fn kind(to: IpAddr) -> CreateSandbox {
    let network = NetworkPolicy { allow_out: vec![to.to_string()], ..NetworkPolicy::default() };
    CreateSandbox { network, ..World::kind() }
}

/// One connection's throughput, both ways, in MiB/s, and its round trip, with both networks in guests of the same kind.
pub async fn net(world: &World) -> Outcome<[Measured; 3]> {
    let address = reachable_address()?;
    let listener = TcpListener::bind((address, 0)).await.map_err(words)?;
    let files = world.template().await?;
    let sandbox = world.client.create(kind(address)).await.map_err(words)?;
    let ours = world.guest(&sandbox)?;
    let (lid, bare) = BareLid::open(world, &files, Network::User).await?;
    let guests = [&ours, &bare];
    let (mut down, mut up, mut trips) = <([Vec<f64>; 2], [Vec<f64>; 2], [Vec<f64>; 2])>::default();
    for _ in 0..ROUNDS {
        for (index, guest) in guests.into_iter().enumerate() {
            down[index].push(download(&listener, guest).await?);
            up[index].push(upload(&listener, guest).await?);
            trips[index].extend(round_trips(&listener, guest).await?);
        }
    }
    lid.end().await?;
    sandbox.terminate().await.map_err(words)?;
    let rate = |row, [ours, bare]: [Vec<f64>; 2]| Measured {
        row,
        unit: "MiB/s",
        goal: Goal::AtLeast(0.8),
        ..Measured::ms(ours, bare)
    };
    let [ours, bare] = trips;
    let latency = Measured { row: "net_latency", goal: Goal::AtMost(1.3), ..Measured::ms(ours, bare) };
    Ok([rate("net_throughput_down", down), rate("net_throughput_up", up), latency])
}

/// Has a guest connect, and do something with the connection, its descriptor 3.
async fn dial(listener: &TcpListener, guest: &Guest, what: &str) -> Outcome<TcpStream> {
    let at = listener.local_addr().map_err(words)?;
    let script = format!("exec 3<>/dev/tcp/{}/{}; exec {what}", at.ip(), at.port());
    let id = ProcessId::parse(&format!("prc_{}", ulid::Ulid::generate())).map_err(words)?;
    let args = vec!["-c".to_owned(), script];
    let spec = ProcessSpec { id: Some(id), command: "bash".to_owned(), args, ..ProcessSpec::default() };
    let start = GuestCall::StartProcess(Box::new(spec), None);
    let response = guest.send(start.into_request().map_err(words)?).await.map_err(words)?;
    if !response.status().is_success() {
        return Err(format!("the agent answered {}", response.status()));
    }
    let accepted = timeout(PATIENCE, listener.accept()).await.map_err(|_| "a guest did not connect")?;
    let (stream, _) = accepted.map_err(words)?;
    stream.set_nodelay(true).map_err(words)?;
    Ok(stream)
}

/// MiB a second to the guest.
async fn download(listener: &TcpListener, guest: &Guest) -> Outcome<f64> {
    let mut stream = dial(listener, guest, "cat <&3 >/dev/null").await?;
    let piece = vec![7; 1 << 20];
    let start = Instant::now();
    for _ in 0..SIZE_MIB {
        stream.write_all(&piece).await.map_err(words)?;
    }
    stream.shutdown().await.map_err(words)?;
    // The guest has read all of it when it closes.
    stream.read(&mut [0]).await.map_err(words)?;
    Ok(rate(SIZE_MIB << 20, start))
}

/// MiB a second from the guest.
async fn upload(listener: &TcpListener, guest: &Guest) -> Outcome<f64> {
    let mut stream = dial(listener, guest, &format!("head -c {SIZE_MIB}M /dev/zero >&3")).await?;
    let mut piece = vec![0; 1 << 20];
    // Counted from the first bytes on: before them the guest starts a program.
    let first = stream.read(&mut piece).await.map_err(words)? as u64;
    let (start, mut read) = (Instant::now(), first);
    loop {
        match stream.read(&mut piece).await.map_err(words)? {
            0 => break,
            count => read += count as u64,
        }
    }
    if read == SIZE_MIB << 20 { Ok(rate(read - first, start)) } else { Err(format!("{read} bytes came")) }
}

/// Milliseconds of one byte to a program in the guest and back.
async fn round_trips(listener: &TcpListener, guest: &Guest) -> Outcome<Vec<f64>> {
    let mut stream = dial(listener, guest, "cat <&3 >&3").await?;
    let mut times = Vec::with_capacity(TRIPS);
    for _ in 0..TRIPS {
        let start = Instant::now();
        stream.write_all(b"x").await.map_err(words)?;
        stream.read_exact(&mut [0]).await.map_err(words)?;
        times.push(start.elapsed().as_secs_f64() * MS);
    }
    Ok(times.split_off(FIRST_TRIPS))
}

fn rate(bytes: u64, start: Instant) -> f64 {
    // Tens of millions.
    #[allow(clippy::cast_precision_loss)]
    let mib = bytes as f64 / f64::from(1 << 20);
    mib / start.elapsed().as_secs_f64()
}

/// `create` of a machine with a network until the first command's answer, against one without, alternately.
pub async fn create_network(world: &World) -> Outcome<Measured> {
    let with = kind(reachable_address()?);
    world.template().await?;
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    for _ in 0..CREATIONS {
        ours.push(creation(world, &with).await?);
        bare.push(creation(world, &World::kind()).await?);
    }
    Ok(Measured::difference("create_network", ours, bare, CREATION_MS))
}

/// What a gateway holds of the host's memory while nothing happens, against the machine that it serves, in MiB; and how often it
/// woke meanwhile.
pub async fn net_idle(world: &World) -> Outcome<Measured> {
    let address = reachable_address()?;
    let mut machines = Vec::new();
    for _ in 0..IDLE {
        machines.push(world.client.create(kind(address)).await.map_err(words)?);
    }
    tokio::time::sleep(REST).await;
    let gateways = machines.iter().map(|it| gateway_of(world, it)).collect::<Outcome<Vec<u32>>>()?;
    let before = used(&gateways)?;
    tokio::time::sleep(WATCHED).await;
    let after = used(&gateways)?;
    let ours = gateways.iter().map(|pid| pss_mib(*pid)).collect::<Outcome<_>>()?;
    let bare = machines.iter().map(|it| pss_mib(world.monitor(it)?.pid())).collect::<Outcome<_>>()?;
    terminate(&machines).await?;
    let note = format!(
        "in {} s {IDLE} gateways woke {} times and ran for {:.1} ms (wanted: never)",
        WATCHED.as_secs(),
        after.switches - before.switches,
        after.ran.saturating_sub(before.ran).as_secs_f64() * MS,
    );
    let row = Measured { row: "net_idle", unit: "MiB", note, ..Measured::ms(ours, bare) };
    Ok(row.within(IDLE_MIB))
}

/// The gateway of a machine, by its command line.
fn gateway_of(world: &World, machine: &Sandbox) -> Outcome<u32> {
    let dir = world.dir.path().join("machines").join(machine.id()).canonicalize().map_err(words)?;
    let is_it = |process: &Path| {
        let line = std::fs::read_to_string(process.join("cmdline")).unwrap_or_default();
        line.split('\0').eq(["forkyard", "gateway", &dir.to_string_lossy(), ""])
    };
    let processes = std::fs::read_dir("/proc").map_err(words)?.filter_map(Result::ok);
    let found = processes.map(|entry| entry.path()).find(|process| is_it(process));
    let pid = found.and_then(|process| process.file_name()?.to_str()?.parse().ok());
    pid.ok_or_else(|| format!("{} has no gateway", machine.id()))
}

/// What processes have used of the host's processors.
struct Used {
    switches: u64,
    ran: Duration,
}

/// By <https://docs.kernel.org/filesystems/proc.html> (`status`) and <https://docs.kernel.org/scheduler/sched-stats.html> (`schedstat`).
fn used(pids: &[u32]) -> Outcome<Used> {
    let mut used = Used { switches: 0, ran: Duration::ZERO };
    for pid in pids {
        let read = |name: &str| std::fs::read_to_string(format!("/proc/{pid}/{name}")).map_err(words);
        let number = |text: Option<&str>| text.and_then(|text| text.trim().parse::<u64>().ok());
        let status = read("status")?;
        let switches = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        used.switches += number(switches).ok_or("the kernel counts no switches")?;
        let ran = number(read("schedstat")?.split(' ').next()).ok_or("the kernel counts no time")?;
        used.ran += Duration::from_nanos(ran);
    }
    Ok(used)
}
