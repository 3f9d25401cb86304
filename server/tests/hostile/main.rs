//! A guest that tries everything that is refused, with root in a real machine: whatever comes out of its gateway is seen.

#[path = "../common/mod.rs"]
mod common;
mod outside;
mod tap;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use common::server::{Machines, Server, free_port, gateways};
use forkyard::{Command, CreateSandbox, ForkSandbox, NetworkEventKind, NetworkPolicy, Sandbox};
use outside::{NAMES, Outside, PAGE};
use rustix::process::Pid;
use serde::Deserialize;
use serde_json::json;
use tap::Tap;

const PROGRAM: &str = include_str!("guest.py");

/// What no policy opens. Outside this test's host everything answers, if it is reached.
const FORBIDDEN: [&str; 29] = [
    "0.0.0.1",
    "10.1.2.3",
    "100.64.1.1",
    "100.100.100.200",
    "168.63.129.16",
    "169.254.1.1",
    "169.254.169.254",
    "172.16.0.1",
    "172.31.255.254",
    "192.0.0.192",
    "192.168.1.1",
    "198.18.0.1",
    "203.0.113.1",
    "240.0.0.1",
    "64:ff9b::a00:1",
    "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::1",
    "100::1",
    "2001:0:a00:1::f7f7:f7f7",
    "2001:2::1",
    "2001:db8:1::1",
    "2002:7f00:1::1",
    "2002:a9fe:a9fe::1",
    "fd00:ec2::254",
    "fd00::1",
    "fec0::1",
    "4000::1",
    "::203.0.113.1",
];
/// Where a guest's own kernel sends nothing of an ordinary program's, or means itself.
const ONLY_RAW: [&str; 25] = [
    "0.0.0.0",
    "10.0.2.2",
    "10.0.2.15",
    "10.0.2.16",
    "10.0.2.255",
    "127.0.0.1",
    "127.0.0.2",
    "127.255.255.255",
    "203.0.113.255",
    "224.0.0.1",
    "224.0.0.251",
    "239.255.255.250",
    "255.255.255.255",
    "::",
    "::1",
    "::127.0.0.1",
    "::ffff:127.0.0.1",
    "::ffff:10.1.2.3",
    "::ffff:169.254.169.254",
    "::ffff:198.51.100.7",
    "fd67:7761:7900::2",
    "fd67:7761:7900::16",
    "fe80::1",
    "ff02::1",
    "ff0e::1",
];
/// Names whose answers are no answers, or lead where nobody goes.
const LIES: [&str; 9] =
    ["inside", "metadata", "wrongid", "elsewhere", "loop", "alias", "huge", "many", "silent"];

/// What the guest says it got.
#[derive(Debug, Deserialize)]
struct Report {
    tcp: BTreeMap<String, Vec<String>>,
    udp: BTreeMap<String, Vec<String>>,
    names: BTreeMap<String, (u8, Vec<IpAddr>)>,
    rebound: Vec<(u8, Vec<IpAddr>)>,
    conversed: u32,
    sent: u32,
    kept_back: u32,
    giants: u32,
}

#[test]
fn nothing_arrives() {
    let Some(outside) = Outside::new() else {
        eprintln!("this user may make no network namespace: not tested");
        return;
    };
    // Its threads are where this one is.
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(async {
        let world = World::new(&outside).await;
        world.reaches_the_page(&world.hostile).await;
        let gateway = world.gateway(&world.hostile);
        let memory = resident(gateway);
        let before = received(&world.neighbour).await;
        assert_eq!(world.tap.strange(), BTreeSet::new());

        let report = world.attack().await;
        nothing_was_let_through(&report);
        assert_eq!(world.tap.strange(), BTreeSet::new(), "something came out");
        assert_eq!(received(&world.neighbour).await, before, "something came to another machine");

        assert_eq!(world.gateway(&world.hostile), gateway, "the gateway goes on");
        let grown = resident(gateway).saturating_sub(memory);
        assert!(grown < 32 * 1024, "{memory} KiB before, and {grown} KiB more");
        world.it_was_counted().await;
        for machine in [&world.hostile, &world.neighbour] {
            world.reaches_the_page(machine).await;
        }
        names_are_held_to(&world.neighbour).await;
        for machine in [&world.hostile, &world.neighbour] {
            machine.terminate().await.unwrap();
        }
        world.server.stop().await;
    });
}

struct World {
    // Dropped in this order.
    server: Server,
    _machines: Machines,
    dir: tempfile::TempDir,
    tap: Tap,
    /// The one that means harm, and one that does nothing.
    hostile: Sandbox,
    neighbour: Sandbox,
}

impl World {
    async fn new(outside: &Outside) -> Self {
        let (images, dir) = common::folders();
        let port = free_port();
        let more = ["--dns-upstream".to_owned(), outside::upstream().to_string()];
        let server = Server::start_with(port, &images, dir.path(), &more).await;
        let machines = Machines(dir.path().to_owned());
        let tap = Tap::new(port);
        the_tap_sees(&tap);
        // A policy could not ask for more.
        let network = NetworkPolicy {
            allow_internet_access: true,
            allow_out: ["0.0.0.0/0", "::/0", "127.0.0.1", "169.254.169.254", "*.test"]
                .map(str::to_owned)
                .into(),
            ..NetworkPolicy::default()
        };
        let (image, memory_mb) = (Some("python".to_owned()), Some(256));
        let create = CreateSandbox { image, memory_mb, network, ..CreateSandbox::default() };
        let hostile = server.client(dir.path()).create(create).await.unwrap();
        let neighbour = hostile.fork(ForkSandbox::default()).await.unwrap().remove(0);
        for machine in [&hostile, &neighbour] {
            machine.files().write(AUTHORITY, outside.authority.clone(), None).await.unwrap();
        }
        Self { server, _machines: machines, dir, tap, hostile, neighbour }
    }

    fn gateway(&self, machine: &Sandbox) -> Pid {
        let mut gateways = gateways(self.dir.path()).into_iter();
        gateways.find_map(|(pid, id)| (id == machine.id()).then_some(pid)).expect("it has a gateway")
    }

    /// By address, by name, and by a name that a certificate proves; by IPv4 and by IPv6.
    async fn reaches_the_page(&self, machine: &Sandbox) {
        let before = self.tap.to_the_page();
        for url in
            ["http://198.51.100.7/", "http://[2001:db8:2::7]/", "http://good.test/", "https://good.test/"]
        {
            assert_eq!(fetch(machine, &[url]).await.as_deref(), Ok("hello"), "{url}");
        }
        assert!(self.tap.to_the_page() > before, "the tap does not see what passes");
    }

    async fn attack(&self) -> Report {
        self.hostile.files().write("/tmp/guest.py", PROGRAM, None).await.unwrap();
        let names: Vec<String> = LIES.iter().map(|label| format!("{label}.test")).collect();
        let asked = json!({
            "forbidden": FORBIDDEN, "only_raw": ONLY_RAW, "allowed": PAGE[0], "names": names, "rebinds": "rebind.test",
        });
        let args = ["/tmp/guest.py".to_owned(), asked.to_string()];
        let command = Command::new("python3").args(args).user("root").timeout(Duration::from_mins(3));
        let result = self.hostile.run(command).await.unwrap();
        assert_eq!(result.exit_code, 0, "{}", String::from_utf8_lossy(&result.stderr));
        serde_json::from_slice(&result.stdout).unwrap()
    }

    /// The operator can see what was tried.
    async fn it_was_counted(&self) {
        let counters = self.hostile.network().await.unwrap().counters;
        assert!(counters.dropped_frames > 500 && counters.connections_refused > 200, "{counters:?}");
        assert_eq!(counters.connections_open, 0, "{counters:?}");
        let (events, _) = self.hostile.network_events(None, Duration::ZERO).await.unwrap();
        assert!(events.iter().any(|event| event.kind == NetworkEventKind::ConnectionRefused));
    }
}

/// Where the page's authority is, in machines.
const AUTHORITY: &str = "/tmp/authority.pem";

/// What curl in a machine prints, or how it fails.
async fn fetch(machine: &Sandbox, args: &[&str]) -> Result<String, i32> {
    let usual = ["--silent", "--show-error", "--max-time", "30", "--cacert", AUTHORITY];
    let command = Command::new("curl").args(usual.iter().chain(args).copied());
    let result = machine.run(command).await.unwrap();
    if result.exit_code == 0 { Ok(String::from_utf8(result.stdout).unwrap()) } else { Err(result.exit_code) }
}

/// Resident memory of a process: KiB.
fn resident(pid: Pid) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", pid.as_raw_nonzero())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

/// How many frames a machine's card got.
async fn received(machine: &Sandbox) -> String {
    let read = Command::new("cat").args(["/sys/class/net/eth0/statistics/rx_packets"]);
    String::from_utf8(machine.run(read).await.unwrap().stdout).unwrap()
}

/// A test of the test: what the host itself sends to where nobody may is seen.
fn the_tap_sees(tap: &Tap) {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
    let to = ["127.0.0.1:9", "169.254.169.254:80", "203.0.113.1:9", "198.51.100.7:6666"];
    for to in to {
        socket.send_to(b"seen", to).unwrap();
    }
    // Nobody listens there, which is an answer too.
    let refused = std::net::TcpStream::connect("10.1.2.3:81").unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    let strange = tap.strange();
    for to in to.map(|to| format!("17 {to}")).into_iter().chain(["6 10.1.2.3:81".to_owned()]) {
        assert!(strange.contains(&to), "{to} is not among {strange:?}");
    }
}

fn nothing_was_let_through(report: &Report) {
    // A guest's own kernel keeps what is shorter than a header, and no more.
    let Report { sent, kept_back, giants, .. } = *report;
    assert!(sent > 1_500 && kept_back < 100 && giants > 40, "{sent} sent, {giants} giants, {kept_back} not");
    assert_eq!(report.conversed, 500, "connections at once");
    assert_eq!((report.tcp.len(), report.udp.len()), (FORBIDDEN.len(), FORBIDDEN.len()));
    // An answer, not silence.
    let refusals = ["ECONNREFUSED", "EHOSTUNREACH", "ENETUNREACH", "EACCES", "EINVAL"];
    for (to, outcomes) in report.tcp.iter().chain(&report.udp) {
        for outcome in outcomes {
            assert!(refusals.contains(&outcome.as_str()), "{to}: {outcome}");
        }
    }
    for label in LIES {
        let (code, addresses) = &report.names[&format!("{label}.test")];
        let code_due = if ["inside", "metadata"].contains(&label) { 3 } else { 2 };
        assert_eq!((*code, addresses.len()), (code_due, 0), "{label}");
    }
    // IPv4 and IPv6 in turn, twice each: what leads outside is given, what leads inside is not.
    for (turn, given) in report.rebound.iter().enumerate() {
        let expected = if turn / 2 % 2 == 0 { (0, vec![PAGE[turn % 2]]) } else { (3, Vec::new()) };
        assert_eq!(given, &expected, "turn {turn}");
    }
}

/// A policy of names lets through who says them, in TLS and in HTTP.
async fn names_are_held_to(machine: &Sandbox) {
    let only = NetworkPolicy { allow_out: vec![NAMES[0].to_owned()], ..NetworkPolicy::default() };
    machine.update_network(&only).await.unwrap();
    for scheme in ["http", "https"] {
        let url = format!("{scheme}://{}/", NAMES[0]);
        assert_eq!(fetch(machine, &[&url]).await.as_deref(), Ok("hello"), "{url}");
        let (url, port) = (format!("{scheme}://{}/", NAMES[1]), if scheme == "http" { 80 } else { 443 });
        assert_eq!(fetch(machine, &[&url]).await, Err(6), "its name is not even resolved");
        let resolve = format!("{}:{port}:{}", NAMES[1], PAGE[0]);
        let refused = fetch(machine, &["--resolve", &resolve, &url]).await;
        assert!(matches!(refused, Err(35 | 52 | 56)), "a connection that says another name: {refused:?}");
        let by_address = fetch(machine, &[&format!("{scheme}://{}/", PAGE[0])]).await;
        assert!(by_address.is_err(), "a connection that says none");
    }
}
