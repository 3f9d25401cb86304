//! The gateway as a process: confined, idle when nothing happens, gone when QEMU is. Started by itself with another argument.

mod support;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream, UdpSocket};
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
use support::{Guest, PATIENCE, Server, query, serve, udp};

fn main() {
    let mut args = std::env::args().skip(1);
    match args.next().as_deref() {
        Some("gateway") => run(serde_json::from_str(&args.next().unwrap()).unwrap()).unwrap(),
        Some("confined") => say_what_is_left(),
        // Asked for its tests by name or list, like any test.
        Some("--list") => println!("process: test"),
        _ => {
            nothing_but_the_network_is_left();
            a_gateway_lives_and_ends_with_qemu();
            the_server_may_end_it();
            println!("process: 3 passed");
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
