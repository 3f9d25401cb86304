//! The gateway as a process: confined, idle when nothing happens, gone when QEMU is. Started by itself with another argument.

mod support;

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use forkyard_gateway::confine::confine;
use forkyard_gateway::control::ToGateway;
use forkyard_gateway::dns::DnsConfig;
use forkyard_gateway::policy::Operator;
use forkyard_gateway::process::{Start, run};
use forkyard_protocol::NetworkPolicy;
use rustix::thread::UnshareFlags;
use smoltcp::wire::{IpProtocol, Ipv4Packet};
use support::{Guest, PATIENCE, Server, echo_request, payload_of, query, serve, udp};

fn main() {
    let mut args = std::env::args().skip(1);
    match args.next().as_deref() {
        Some("gateway") => run(serde_json::from_str(&args.next().unwrap()).unwrap()).unwrap(),
        Some("confined") => say_what_is_left(),
        Some("namespace") => in_a_namespace(),
        // Asked for its tests by name or list, like any test.
        Some("--list") => println!("process: test"),
        _ => {
            nothing_but_the_network_is_left();
            a_gateway_lives_and_ends_with_qemu();
            the_server_may_end_it();
            pings_and_long_datagrams_where_the_host_lets_them();
            println!("process: 4 passed");
        }
    }
}

fn this(mode: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.arg(mode);
    command
}

fn say_what_is_left() {
    let parent = rustix::process::getppid().unwrap();
    confine().unwrap();
    let file = std::fs::File::open("/etc/passwd").map(drop).map_err(|error| error.kind());
    let program = Command::new("true").spawn().map(drop).map_err(|error| error.kind());
    let thread = std::thread::Builder::new().spawn(|| ()).map(drop).map_err(|error| error.kind());
    let signal =
        rustix::process::kill_process(parent, rustix::process::Signal::CONT).map_err(rustix::io::Errno::kind);
    let unix = UnixStream::connect("/run/any").map(drop).map_err(|error| error.kind());
    let socket = UdpSocket::bind("127.0.0.1:0").map(drop).map_err(|error| error.kind());
    println!("{file:?} {program:?} {thread:?} {signal:?} {unix:?} {socket:?}");
}

fn nothing_but_the_network_is_left() {
    let output = this("confined").output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let said = String::from_utf8(output.stdout).unwrap();
    let denied = "Err(PermissionDenied)";
    assert_eq!(said.trim(), format!("{denied} {denied} {denied} {denied} {denied} Ok(())"));
}

/// A gateway with one end of a pair of sockets; the other is the guest's.
fn start(control: &Path, dns: SocketAddr) -> (Child, Guest) {
    let (qemu, guest) = UnixStream::pair().unwrap();
    let listener = UnixListener::bind(control).unwrap();
    let start = Start {
        qemu: inherited(&qemu),
        control: inherited(&listener),
        policy: NetworkPolicy { allow_internet_access: true, ..NetworkPolicy::default() },
        operator: Operator { extra_allow: vec!["127.0.0.0/8".into()], ..Operator::default() },
        dns: DnsConfig { upstreams: vec![dns], ..DnsConfig::default() },
    };
    let json = serde_json::to_string(&start).unwrap();
    let child = this("gateway").arg(json).stderr(Stdio::inherit()).spawn().unwrap();
    (child, Guest::new(guest))
}

fn inherited(fd: &(impl AsFd + AsRawFd)) -> i32 {
    rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::empty()).unwrap();
    fd.as_raw_fd()
}

fn status(child: &Child, field: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    let line = status.lines().find(|line| line.starts_with(field)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn wait(child: &mut Child) -> std::process::ExitStatus {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        if Instant::now() > deadline {
            child.kill().unwrap();
            panic!("the gateway did not end");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn echo(mut stream: TcpStream) {
    let mut buffer = [0; 4096];
    while let Ok(count @ 1..) = stream.read(&mut buffer) {
        stream.write_all(&buffer[..count]).unwrap();
    }
}

fn a_gateway_lives_and_ends_with_qemu() {
    let folder = tempfile::tempdir().unwrap();
    let control = folder.path().join("control");
    let upstream = UdpSocket::bind("127.0.0.1:0").unwrap();
    let (mut gateway, mut guest) = start(&control, upstream.local_addr().unwrap());
    let connection = guest.established(serve("127.0.0.1:0", echo));
    guest.send(connection, b"through a confined gateway");
    assert_eq!(guest.read(connection, 26), b"through a confined gateway");
    guest.frame(&udp(5353, "10.0.2.2:53".parse().unwrap(), &query("who.example")));
    upstream.set_read_timeout(Some(PATIENCE)).unwrap();
    assert!(upstream.recv_from(&mut [0; 100]).unwrap().0 > 12);

    assert_eq!((status(&gateway, "NoNewPrivs:"), status(&gateway, "Seccomp:")), (1, 2));
    assert_eq!(status(&gateway, "Threads:"), 1);
    let mut server = Server::connect(&control);
    assert_eq!(server.counters().connections_open, 1);
    drop(server);
    assert_eq!(Server::connect(&control).counters().connections_open, 1, "it outlives its server");

    // The query that was not answered is given up first, and what is delayed is acknowledged.
    let quiet = Instant::now() + Duration::from_secs(7);
    guest.until("quiet", |_| Instant::now() > quiet);
    let before = status(&gateway, "voluntary_ctxt_switches:");
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(status(&gateway, "voluntary_ctxt_switches:"), before, "it wakes up with nothing to do");

    drop(guest);
    assert!(wait(&mut gateway).success());
}

fn the_server_may_end_it() {
    let folder = tempfile::tempdir().unwrap();
    let control = folder.path().join("control");
    let (mut gateway, mut guest) = start(&control, "127.0.0.1:9".parse().unwrap());
    let connection = guest.established(serve("127.0.0.1:0", echo));
    guest.send(connection, b"hello");
    assert_eq!(guest.read(connection, 5), b"hello");
    Server::connect(&control).say(&ToGateway::Stop);
    assert!(wait(&mut gateway).success());
}

/// What a process says that could make no namespace.
const NO_NAMESPACE: i32 = 77;

fn pings_and_long_datagrams_where_the_host_lets_them() {
    let status = this("namespace").status().unwrap();
    match status.code() {
        Some(0) => {}
        Some(NO_NAMESPACE) => eprintln!("this host lets nobody make a network namespace: no pings tested"),
        _ => panic!("{status}"),
    }
}

/// In a process of its own, since a user namespace is for all of its threads.
fn in_a_namespace() {
    if !unshare() {
        std::process::exit(NO_NAMESPACE);
    }
    std::fs::write("/proc/sys/net/ipv4/ping_group_range", "0 0").unwrap();
    let up = Command::new("ip").args(["link", "set", "lo", "up", "mtu", "1400"]).status().unwrap();
    assert!(up.success());
    let folder = tempfile::tempdir().unwrap();
    let (mut gateway, mut guest) = start(&folder.path().join("control"), "127.0.0.1:9".parse().unwrap());

    guest.frame(&echo_request(Ipv4Addr::LOCALHOST));
    let icmp = |frame: &[u8]| payload_of(frame, IpProtocol::Icmp);
    let (from, reply) = guest.frame_where(icmp);
    assert_eq!((from, reply[0], &reply[4..]), (Ipv4Addr::LOCALHOST, 0, &b"\0\x09\0\x04ping"[..]));

    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    let long = udp(5000, server.local_addr().unwrap(), &[7; 1450]);
    guest.frame(&long);
    let (_, error) = guest.frame_where(icmp);
    let mtu = u16::from_be_bytes([error[6], error[7]]);
    assert_eq!((error[0], error[1], mtu), (3, 4, 1400), "too long for the way, as the guest hears");
    let mut divisible = long;
    let mut header = Ipv4Packet::new_unchecked(&mut divisible[14..]);
    header.set_dont_frag(false);
    header.fill_checksum();
    guest.frame(&divisible);
    server.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(server.recv(&mut [0; 2000]).unwrap(), 1450, "only what may be cut arrives");

    drop(guest);
    assert!(wait(&mut gateway).success());
}

/// As root, or as the root of a user namespace.
fn unshare() -> bool {
    let (user, group) = (rustix::process::getuid(), rustix::process::getgid());
    // SAFETY: no descriptors are split off, and there is one thread.
    let unshare = |flags| unsafe { rustix::thread::unshare_unsafe(flags) };
    if unshare(UnshareFlags::NEWNET).is_ok() {
        return true;
    }
    if unshare(UnshareFlags::NEWUSER | UnshareFlags::NEWNET).is_err() {
        return false;
    }
    std::fs::write("/proc/self/setgroups", "deny").unwrap();
    std::fs::write("/proc/self/uid_map", format!("0 {} 1", user.as_raw())).unwrap();
    std::fs::write("/proc/self/gid_map", format!("0 {} 1", group.as_raw())).unwrap();
    true
}
