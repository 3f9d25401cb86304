//! What machines reach: real guests, real gateways, and servers on an address of this host's that the operator opened.

mod common;

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use common::server::{Machines, Server, free_port, gateways, machine_processes, process_of, small, until};
use forkyard::{
    Client, Command, CreateSandbox, ErrorCode, ForkSandbox, NetworkEvent, NetworkEventKind, NetworkLink,
    NetworkPolicy, Sandbox,
};
use rustix::process::{Pid, Signal, kill_process};

/// How soon what is refused must fail: it is an answer, not a time-out. An emulated guest takes a while to start curl.
const PROMPT: Duration = Duration::from_secs(8);

/// An address of this host's beside loopback, which a guest has itself.
fn own_address() -> Ipv4Addr {
    let probe = UdpSocket::bind("0.0.0.0:0").unwrap();
    probe.connect("203.0.113.7:9").expect("this host has a network");
    match probe.local_addr().unwrap().ip() {
        IpAddr::V4(address) => address,
        IpAddr::V6(address) => panic!("{address} is of the wrong family"),
    }
}

fn serve(serve_one: fn(TcpStream)) -> SocketAddr {
    let listener = TcpListener::bind((own_address(), 0)).unwrap();
    let at = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            std::thread::spawn(move || serve_one(stream.unwrap()));
        }
    });
    at
}

/// A web server of one page.
fn page(mut stream: TcpStream) {
    let mut request = Vec::new();
    let mut piece = [0; 4096];
    while !request.ends_with(b"\r\n\r\n") {
        match stream.read(&mut piece) {
            Ok(count @ 1..) => request.extend(&piece[..count]),
            _ => return,
        }
    }
    // Whoever asked may be gone.
    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello");
}

/// Sends back what comes.
fn echo(mut stream: TcpStream) {
    let mut piece = [0; 4096];
    while let Ok(count @ 1..) = stream.read(&mut piece) {
        if stream.write_all(&piece[..count]).is_err() {
            return;
        }
    }
}

/// A resolver that knows one address, this one, for every name.
fn resolver(address: Ipv4Addr) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let at = socket.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut query = [0; 2048];
        while let Ok((count, from)) = socket.recv_from(&mut query) {
            // The question ends behind its name's last, empty label with a type and a class.
            let name_end = 12 + query[12..count].iter().position(|byte| *byte == 0).unwrap();
            let asks_for_ipv4 = query[name_end + 1..name_end + 3] == [0, 1];
            let mut answer = query[..name_end + 5].to_vec();
            answer[2..4].copy_from_slice(&[0x81, 0x80]);
            answer[4..12].copy_from_slice(&[0, 1, 0, u8::from(asks_for_ipv4), 0, 0, 0, 0]);
            if asks_for_ipv4 {
                answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
                answer.extend(address.octets());
            }
            socket.send_to(&answer, from).unwrap();
        }
    });
    at
}

struct World {
    images: PathBuf,
    more: Vec<String>,
    // Dropped in this order.
    server: Option<Server>,
    _machines: Machines,
    dir: tempfile::TempDir,
    client: Client,
    page: SocketAddr,
    echo: SocketAddr,
}

impl World {
    async fn new() -> Self {
        let (images, dir) = common::folders();
        let (page, echo) = (serve(page), serve(echo));
        let more = [
            ["--network-allow".to_owned(), page.to_string()],
            ["--network-allow".to_owned(), echo.to_string()],
            ["--dns-upstream".to_owned(), resolver(own_address()).to_string()],
        ];
        let more = more.concat();
        let server = Server::start_with(free_port(), &images, dir.path(), &more).await;
        let client = server.client(dir.path());
        let machines = Machines(dir.path().to_owned());
        Self { images, more, server: Some(server), _machines: machines, dir, client, page, echo }
    }

    async fn machine(&self, network: NetworkPolicy) -> Sandbox {
        self.client.create(CreateSandbox { network, ..small() }).await.unwrap()
    }

    /// Kills the server and starts another.
    async fn restart(&mut self) {
        let server = self.server.take().expect("it runs");
        let port = server.port();
        server.kill();
        self.server = Some(Server::start_with(port, &self.images, self.dir.path(), &self.more).await);
    }

    /// What a machine gets of the page by a host's name or address.
    async fn fetch(&self, machine: &Sandbox, host: &str) -> Result<String, i32> {
        curl(machine, &[&format!("http://{host}:{}/", self.page.port())]).await
    }

    async fn reaches(&self, machine: &Sandbox) {
        let fetched = self.fetch(machine, &self.page.ip().to_string()).await;
        assert_eq!(fetched.as_deref(), Ok("hello"), "{:?}", events(machine).await);
    }

    /// The gateway of a machine.
    fn gateway(&self, machine: &Sandbox) -> Option<Pid> {
        gateways(self.dir.path()).into_iter().find_map(|(pid, id)| (id == machine.id()).then_some(pid))
    }

    /// Has a program in a machine hold a connection and wait for what the other end will never say; it leaves a file once the
    /// connection is gone.
    async fn hold(&self, machine: &Sandbox) {
        let script = format!(
            "exec 3<>/dev/tcp/{}/{}; echo hello >&3; read -r line <&3; echo $line >/dev/shm/held; cat <&3; touch /dev/shm/gone",
            self.echo.ip(),
            self.echo.port()
        );
        machine.start(Command::new("bash").args(["-c", &script])).await.unwrap();
        until("a connection is held", async || has(machine, "/dev/shm/held").await).await;
    }
}

fn open() -> NetworkPolicy {
    NetworkPolicy { allow_internet_access: true, ..NetworkPolicy::default() }
}

fn only(rule: &str) -> NetworkPolicy {
    NetworkPolicy { allow_out: vec![rule.to_owned()], ..NetworkPolicy::default() }
}

async fn has(machine: &Sandbox, path: &str) -> bool {
    machine.files().exists(path).await.unwrap()
}

/// What curl in a machine prints, or how it fails, at once.
async fn curl(machine: &Sandbox, args: &[&str]) -> Result<String, i32> {
    let began = Instant::now();
    let command = Command::new("curl")
        .args(["--silent", "--show-error", "--max-time", "30"])
        .args(args.iter().copied());
    let result = machine.run(command).await.unwrap();
    if result.exit_code == 0 {
        return Ok(String::from_utf8(result.stdout).unwrap());
    }
    assert!(began.elapsed() < PROMPT, "{args:?} after {:?}: {result:?}", began.elapsed());
    Err(result.exit_code)
}

async fn events(machine: &Sandbox) -> Vec<NetworkEvent> {
    machine.network_events(None, Duration::ZERO).await.unwrap().0
}

async fn event(machine: &Sandbox, what: &str, is_it: impl Fn(&NetworkEvent) -> bool) -> NetworkEvent {
    let mut cursor = None;
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let (events, next) = machine.network_events(cursor.as_deref(), Duration::from_secs(5)).await.unwrap();
        if let Some(event) = events.into_iter().find(&is_it) {
            return event;
        }
        assert!(Instant::now() < deadline, "no event of {what}");
        cursor = next;
    }
}

/// What these processes hold of the host, by its own account.
fn status(pid: Pid, field: &str) -> String {
    let status = std::fs::read_to_string(format!("/proc/{}/status", pid.as_raw_nonzero())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
    line.trim().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn machines_reach_what_their_policies_say() {
    let world = World::new().await;
    nothing_unless_asked_for(&world).await;
    let machine = world.machine(open()).await;
    what_is_open(&world, &machine).await;
    a_gateway_may_do_little(&world, &machine);
    by_name(&world).await;
    forks_start_afresh(&world, &machine).await;
    suspended_machines_come_back_to_another_gateway(&world, &machine).await;
    a_gateway_that_is_killed_is_replaced(&world, &machine).await;
    machine.terminate().await.unwrap();
    assert_eq!(gateways(world.dir.path()), []);
    assert_eq!(machine_processes(world.dir.path()).len(), 0, "each test ended its machines");
    world.server.unwrap().stop().await;
}

async fn nothing_unless_asked_for(world: &World) {
    let machine = world.machine(NetworkPolicy::default()).await;
    let host = world.page.ip().to_string();
    assert_eq!(world.fetch(&machine, &host).await, Err(7));
    assert_eq!(world.fetch(&machine, "good.test").await, Err(6));
    let info = machine.network().await.unwrap();
    assert_eq!((info.link, info.counters.connections_total), (NetworkLink::Down, 0));
    assert_eq!(world.gateway(&machine), None);
    // Its own name is known to it.
    let named = machine.run(Command::new("sh").args(["-c", "getent hosts $(hostname)"])).await.unwrap();
    assert_eq!(named.exit_code, 0);

    let info = machine.update_network(&only(&world.page.to_string())).await.unwrap();
    assert_eq!(info.policy.allow_out, [world.page.to_string()]);
    world.reaches(&machine).await;
    assert_eq!(machine.network().await.unwrap().link, NetworkLink::Up);
    // What is no longer allowed has ended when the call returns.
    machine.update_network(&only(&world.echo.to_string())).await.unwrap();
    world.hold(&machine).await;
    assert_eq!(world.fetch(&machine, &host).await, Err(7));
    machine.update_network(&only(&world.page.to_string())).await.unwrap();
    until("the connection is reset", async || has(&machine, "/dev/shm/gone").await).await;
    let wrong = machine.update_network(&only("https://pypi.org")).await.unwrap_err();
    assert_eq!(wrong.code, ErrorCode::InvalidArgument);

    let info = machine.update_network(&NetworkPolicy::default()).await.unwrap();
    assert_eq!(info.link, NetworkLink::Down);
    assert!(info.counters.connections_total >= 2 && info.counters.connections_open == 0, "{info:?}");
    assert_eq!(world.fetch(&machine, &host).await, Err(7));
    assert_eq!(world.gateway(&machine), None);
    machine.terminate().await.unwrap();
}

async fn what_is_open(world: &World, machine: &Sandbox) {
    world.reaches(machine).await;
    let opened = event(machine, "the page", |event| event.kind == NetworkEventKind::ConnectionEnded).await;
    assert_eq!((opened.address, opened.port), (Some(world.page.ip()), Some(world.page.port())));
    assert!(opened.bytes_in > 5 && opened.bytes_out > 5, "{opened:?}");
    // Whatever is asked for: private and link-local addresses, and the host's other ports.
    let port = world.server.as_ref().unwrap().port();
    for host in
        ["10.1.2.3:80", "169.254.169.254:80", &format!("{}:{port}", world.page.ip()), "[fe80::1%25eth0]:80"]
    {
        assert_eq!(curl(machine, &[&format!("http://{host}/")]).await, Err(7), "{host}");
    }
    let metadata = Some("169.254.169.254".parse().unwrap());
    let refused = event(machine, "a refusal", |event| event.address == metadata).await;
    assert_eq!(refused.kind, NetworkEventKind::ConnectionRefused);
    let counters = machine.network().await.unwrap().counters;
    assert!(counters.connections_refused >= 3 && counters.connections_total >= 1, "{counters:?}");
}

fn a_gateway_may_do_little(world: &World, machine: &Sandbox) {
    let gateway = world.gateway(machine).unwrap();
    assert_eq!((status(gateway, "NoNewPrivs:").as_str(), status(gateway, "Seccomp:").as_str()), ("1", "2"));
    if rustix::process::geteuid().is_root() {
        let mut monitor = machine_processes(world.dir.path()).into_iter();
        let monitor = monitor.find(|(pid, id)| id == machine.id() && *pid != gateway).unwrap().0;
        assert_ne!(status(gateway, "Uid:"), status(monitor, "Uid:"));
        assert!(!status(gateway, "Uid:").starts_with("0\t"));
        assert_eq!(std::fs::read(format!("/proc/{}/environ", gateway.as_raw_nonzero())).unwrap(), b"");
    }
}

async fn by_name(world: &World) {
    let machine = world.machine(only("good.test")).await;
    assert_eq!(world.fetch(&machine, "good.test").await.as_deref(), Ok("hello"));
    assert_eq!(world.fetch(&machine, "bad.test").await, Err(6));
    let refused = event(&machine, "a query", |event| event.kind == NetworkEventKind::DnsRefused).await;
    assert_eq!(refused.name.as_deref(), Some("bad.test"));
    // The address that a name was given for is no way to another name.
    let url = format!("http://good.test:{}/", world.page.port());
    assert!(curl(&machine, &["--header", "Host: bad.test", &url]).await.is_err());
    machine.terminate().await.unwrap();
}

async fn forks_start_afresh(world: &World, machine: &Sandbox) {
    world.hold(machine).await;
    let twin = machine.fork(ForkSandbox::default()).await.unwrap().remove(0);
    let closed = ForkSandbox { network: Some(NetworkPolicy::default()), ..ForkSandbox::default() };
    let shut = machine.fork(closed).await.unwrap().remove(0);
    for fork in [&twin, &shut] {
        until("the fork's connection is reset", async || has(fork, "/dev/shm/gone").await).await;
    }
    assert!(!has(machine, "/dev/shm/gone").await, "the original's goes on");
    world.reaches(&twin).await;
    assert_eq!(world.fetch(&shut, &world.page.ip().to_string()).await, Err(7));
    assert_eq!(shut.network().await.unwrap().link, NetworkLink::Down);
    for fork in [twin, shut] {
        fork.terminate().await.unwrap();
    }
}

async fn suspended_machines_come_back_to_another_gateway(world: &World, machine: &Sandbox) {
    // A machine that was suspended for an hour comes back with a clock that is an hour behind.
    let behind = Command::new("date").args(["--set", "1 hour ago"]).user("root");
    assert_eq!(machine.run(behind).await.unwrap().exit_code, 0);
    machine.suspend().await.unwrap();
    assert_eq!(world.gateway(machine), None);
    machine.resume().await.unwrap();
    until("its connection is reset", async || has(machine, "/dev/shm/gone").await).await;
    world.reaches(machine).await;
    let clock = machine.run(Command::new("date").args(["+%s"])).await.unwrap().stdout;
    let clock: u64 = String::from_utf8(clock).unwrap().trim().parse().unwrap();
    let late = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs().abs_diff(clock);
    assert!(late < 30, "its clock is {late} s off: no certificate would hold");
}

async fn a_gateway_that_is_killed_is_replaced(world: &World, machine: &Sandbox) {
    let changes = async || {
        let read = Command::new("cat").args(["/sys/class/net/eth0/carrier_changes"]);
        let result = machine.run(read).await.unwrap();
        String::from_utf8(result.stdout).unwrap().trim().parse::<u32>().unwrap()
    };
    let reset = "rm -f /dev/shm/held /dev/shm/gone";
    machine.run(Command::new("sh").args(["-c", reset])).await.unwrap();
    world.hold(machine).await;
    let (before, total) = (changes().await, machine.network().await.unwrap().counters.connections_total);
    let gateway = world.gateway(machine).unwrap();
    kill_process(gateway, Signal::KILL).unwrap();
    event(machine, "a new gateway", |event| event.kind == NetworkEventKind::GatewayRestarted).await;
    until("its connection is reset", async || has(machine, "/dev/shm/gone").await).await;
    until("the link is up", async || machine.network().await.unwrap().link == NetworkLink::Up).await;
    assert_eq!(changes().await, before + 2, "down and up");
    world.reaches(machine).await;
    assert_ne!(world.gateway(machine), Some(gateway));
    let counters = machine.network().await.unwrap().counters;
    assert!(counters.connections_total > total, "{counters:?} after {total}");
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_outlive_the_server() {
    let mut world = World::new().await;
    let machine = world.machine(only(&world.echo.to_string())).await;
    let script = format!(
        "exec 3<>/dev/tcp/{}/{}; n=0; while echo $n >&3 && read -r line <&3; do echo $line >/dev/shm/n; n=$((n + 1)); sleep 0.1; done",
        world.echo.ip(),
        world.echo.port()
    );
    machine.start(Command::new("bash").args(["-c", &script])).await.unwrap();
    let count = async |machine: &Sandbox| {
        let read = machine.run(Command::new("cat").args(["/dev/shm/n"])).await.unwrap().stdout;
        String::from_utf8(read).unwrap().trim().parse::<u32>().unwrap_or(0)
    };
    until("the connection carries", async || count(&machine).await > 2).await;
    let gateway = world.gateway(&machine).unwrap();
    world.restart().await;
    let machine = world.client.connect(machine.id()).await.unwrap();
    assert_eq!(world.gateway(&machine), Some(gateway), "taken up");
    let before = count(&machine).await;
    until("the connection carries on", async || count(&machine).await > before + 2).await;
    let info = machine.network().await.unwrap();
    assert_eq!((info.link, info.counters.connections_open), (NetworkLink::Up, 1));
    // What the new server says is heard.
    machine.update_network(&only(&world.page.to_string())).await.unwrap();
    world.reaches(&machine).await;

    // A gateway ends with its machine, also where nobody is there to end it.
    let monitor = machine_processes(world.dir.path()).into_iter();
    let monitor = monitor.filter(|(pid, _)| *pid != gateway).map(|(pid, _)| pid).next().unwrap();
    kill_process(monitor, Signal::KILL).unwrap();
    until("the gateway is gone", async || gateways(world.dir.path()).is_empty()).await;
    until("nothing is left", async || process_of(world.dir.path(), machine.id()).is_none()).await;
    world.server.take().unwrap().stop().await;
}
