//! TCP through a gateway, against real servers on loopback.

mod support;

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, TcpStream};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use forkyard_gateway::address::GATEWAY_IPV4;
use forkyard_gateway::policy::{HOST, Operator};
use forkyard_protocol::{NetworkEventKind, NetworkPolicy, NetworkVerdict};
use smoltcp::socket::tcp::State;
use support::{PATIENCE, World, query, serve, udp, udp_payload, upstream};

fn echo(mut stream: TcpStream) {
    let mut buffer = [0; 4096];
    while let Ok(count @ 1..) = stream.read(&mut buffer) {
        if stream.write_all(&buffer[..count]).is_err() {
            return;
        }
    }
}

fn reset(stream: &TcpStream) {
    socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO)).unwrap();
}

#[test]
fn a_request_is_answered() {
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let server = serve(address, |mut stream| {
            let mut request = Vec::new();
            let mut byte = [0];
            while !request.ends_with(b"\r\n\r\n") {
                stream.read_exact(&mut byte).unwrap();
                request.extend_from_slice(&byte);
            }
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello").unwrap();
        });
        let mut world = World::open();
        let connection = world.guest.established(server);
        world.guest.send(connection, b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n");
        let answer = world.guest.read(connection, 43);
        assert!(answer.ends_with(b"\r\n\r\nhello"), "{answer:?}");
        world.guest.until("the server's end", |guest| guest.at_end(connection));
        world.guest.tcp(connection).close();
        world.guest.until("closed", |guest| guest.is_closed(connection));
        let mut control = world.server();
        let opened = control.event();
        assert_eq!((opened.kind, opened.bytes_out), (NetworkEventKind::ConnectionOpened, 0));
        let ended = control.event();
        assert_eq!(ended.kind, NetworkEventKind::ConnectionEnded);
        assert_eq!((ended.bytes_out, ended.bytes_in), (35, 43));
        assert_eq!((ended.address, ended.port), (Some(server.ip()), Some(server.port())));
        let counters = control.counters();
        assert_eq!((counters.connections_open, counters.connections_total), (0, 1));
        assert_eq!((counters.bytes_out, counters.bytes_in), (35, 43));
    }
}

#[test]
fn what_is_refused_is_reset_and_told() {
    // Loopback is not open here; nothing must arrive at the listener.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let policy = NetworkPolicy { allow_internet_access: true, ..NetworkPolicy::default() };
    let mut world = World::start(policy, Operator::default(), Vec::new());
    let began = Instant::now();
    let connection = world.guest.connect(listener.local_addr().unwrap());
    world.guest.until("reset", |guest| guest.is_closed(connection));
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    let event = world.server().event();
    assert_eq!(event.kind, NetworkEventKind::ConnectionRefused);
    assert_eq!(event.verdict, Some(NetworkVerdict::Refused));
    assert_eq!(event.rule.as_deref(), Some("loopback addresses"));
    listener.set_nonblocking(true).unwrap();
    assert_eq!(listener.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
}

#[test]
fn the_hosts_own_addresses_are_refused() {
    let probe = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
    if probe.connect("203.0.113.7:9").is_err() {
        eprintln!("this host has no address but loopback: not tested");
        return;
    }
    let own = probe.local_addr().unwrap().ip();
    let listener = std::net::TcpListener::bind((own, 0)).unwrap();
    // The policy allows it, as one does whose caller knows nothing of this host.
    let policy = NetworkPolicy { allow_out: vec![own.to_string()], ..NetworkPolicy::default() };
    let operator = Operator { host_addresses: vec![own], ..Operator::default() };
    let mut world = World::start(policy, operator, Vec::new());
    let connection = world.guest.connect(listener.local_addr().unwrap());
    world.guest.until("reset", |guest| guest.is_closed(connection));
    assert_eq!(world.server().event().rule.as_deref(), Some(HOST));
    listener.set_nonblocking(true).unwrap();
    assert_eq!(listener.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
}

#[test]
fn a_closed_port_is_a_reset() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut world = World::open();
    let connection = world.guest.connect(closed);
    world.guest.until("reset", |guest| guest.is_closed(connection));
    let counters = world.counters();
    assert_eq!((counters.connections_total, counters.connections_refused), (0, 0));
}

#[test]
fn the_guest_may_close_first_and_still_read() {
    let server = serve("127.0.0.1:0", |mut stream| {
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap();
        stream.write_all(format!("{} bytes", all.len()).as_bytes()).unwrap();
    });
    let mut world = World::open();
    let connection = world.guest.established(server);
    world.guest.send(connection, &vec![1; 100_000]);
    world.guest.tcp(connection).close();
    assert_eq!(world.guest.read(connection, 12), b"100000 bytes");
    world
        .guest
        .until("closed", |guest| matches!(guest.tcp(connection).state(), State::TimeWait | State::Closed));
}

#[test]
fn the_server_may_close_first_and_still_read() {
    let (tell, told) = mpsc::channel();
    let server = serve("127.0.0.1:0", move |mut stream| {
        stream.write_all(b"bye").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap();
        tell.send(all.len()).unwrap();
    });
    let mut world = World::open();
    let connection = world.guest.established(server);
    assert_eq!(world.guest.read(connection, 3), b"bye");
    world.guest.until("the server's end", |guest| guest.at_end(connection));
    world.guest.send(connection, &vec![2; 100_000]);
    world.guest.tcp(connection).close();
    world.guest.until("closed", |guest| guest.is_closed(connection));
    assert_eq!(told.recv_timeout(PATIENCE).unwrap(), 100_000);
}

#[test]
fn the_guests_reset_reaches_the_server() {
    let (tell, told) = mpsc::channel();
    let server = serve("127.0.0.1:0", move |mut stream| {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        tell.send(stream.read(&mut byte).unwrap_err().kind()).unwrap();
    });
    let mut world = World::open();
    let connection = world.guest.established(server);
    world.guest.send(connection, b"x");
    let mut control = world.server();
    assert_eq!(control.event().kind, NetworkEventKind::ConnectionOpened);
    world.guest.tcp(connection).abort();
    world.guest.turn();
    assert_eq!(told.recv_timeout(PATIENCE).unwrap(), ErrorKind::ConnectionReset);
    assert_eq!(control.event().kind, NetworkEventKind::ConnectionEnded);
}

#[test]
fn the_servers_reset_reaches_the_guest() {
    let server = serve("127.0.0.1:0", |mut stream| {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        reset(&stream);
    });
    let mut world = World::open();
    let connection = world.guest.established(server);
    world.guest.send(connection, b"x");
    world.guest.until("reset", |guest| guest.is_closed(connection));
}

#[test]
fn five_hundred_at_once() {
    let server = serve("127.0.0.1:0", echo);
    let mut world = World::open();
    let connections: Vec<_> = (0..500).map(|_| world.guest.connect_with(server, 2048)).collect();
    world.guest.until("all connected", |guest| connections.iter().all(|one| guest.tcp(*one).may_send()));
    let mut control = world.server();
    world.guest.until("all established", |_| control.counters().connections_open == 500);
    for (index, one) in connections.iter().enumerate() {
        let text = format!("connection {index:03}");
        world.guest.tcp(*one).send_slice(text.as_bytes()).unwrap();
    }
    world
        .guest
        .until("all answered", |guest| connections.iter().all(|one| guest.tcp(*one).recv_queue() == 14));
    for (index, one) in connections.iter().enumerate() {
        let expected = format!("connection {index:03}").into_bytes();
        assert_eq!(world.guest.tcp(*one).recv(|bytes| (bytes.len(), bytes.to_vec())).unwrap(), expected);
        world.guest.tcp(*one).close();
    }
    world.guest.until("all ended", |_| control.counters().connections_open == 0);
}

#[test]
fn one_too_many_is_refused() {
    let server = serve("127.0.0.1:0", echo);
    let mut world = World::with(NetworkPolicy {
        allow_internet_access: true,
        max_connections: Some(2),
        ..NetworkPolicy::default()
    });
    let first = world.guest.established(server);
    world.guest.established(server);
    let third = world.guest.connect(server);
    world.guest.until("reset", |guest| guest.is_closed(third));
    world.guest.tcp(first).abort();
    let mut control = world.server();
    world.guest.until("room again", |_| control.counters().connections_open == 1);
    world.guest.established(server);
}

#[test]
fn a_client_that_never_reads_stops_the_server() {
    let (tell, told) = mpsc::channel();
    let server = serve("127.0.0.1:0", move |mut stream| {
        stream.set_write_timeout(Some(Duration::from_secs(1))).unwrap();
        let mut sent = 0_usize;
        let piece = vec![1; 64 * 1024];
        while let Ok(count) = stream.write(&piece) {
            sent += count;
        }
        tell.send(sent).unwrap();
        // The connection stays until the guest is done.
        let _ = stream.read(&mut [0]);
    });
    let mut world = World::open();
    let connection = world.guest.established(server);
    let mut sent = None;
    world.guest.until("the server stopped", |_| {
        sent = told.try_recv().ok();
        sent.is_some()
    });
    // The kernel's buffers on loopback, the gateway's and the guest's.
    assert!(sent.unwrap() < 16 * 1024 * 1024, "{sent:?} bytes went somewhere");
    // Others are not held up by it.
    let other = serve("127.0.0.1:0", echo);
    let second = world.guest.established(other);
    world.guest.send(second, b"still here");
    assert_eq!(world.guest.read(second, 10), b"still here");
    // And what was held back is all there.
    world.guest.read(connection, sent.unwrap());
}

#[test]
fn a_new_policy_resets_what_it_forbids() {
    let (tell, told) = mpsc::channel();
    let server = serve("127.0.0.1:0", move |mut stream| {
        tell.send(stream.read(&mut [0]).map_err(|error| error.kind())).unwrap();
    });
    let kept = serve("127.0.0.1:0", echo);
    let mut world = World::open();
    let doomed = world.guest.established(server);
    let spared = world.guest.established(kept);
    let mut control = world.server();
    control.set_policy(NetworkPolicy {
        allow_internet_access: true,
        deny_out: vec![server.to_string()],
        ..NetworkPolicy::default()
    });
    world.guest.until("reset", |guest| guest.is_closed(doomed));
    assert_eq!(told.recv_timeout(PATIENCE).unwrap(), Err(ErrorKind::ConnectionReset));
    world.guest.send(spared, b"still here");
    assert_eq!(world.guest.read(spared, 10), b"still here");
    let again = world.guest.connect(server);
    world.guest.until("refused", |guest| guest.is_closed(again));
}

#[test]
fn a_name_is_asked_for_before_anything_is_forwarded() {
    let (tell, told) = mpsc::channel();
    let server = serve("127.0.0.1:0", move |mut stream| {
        let mut all = Vec::new();
        let outcome = stream.read_to_end(&mut all).map_err(|error| error.kind());
        tell.send((outcome, all)).unwrap();
    });
    let policy = NetworkPolicy { allow_out: vec!["good.example".into()], ..NetworkPolicy::default() };
    let operator = Operator { extra_allow: vec!["127.0.0.0/8".to_owned()], ..Operator::default() };
    let mut world = World::start(policy, operator, vec![upstream(Ipv4Addr::LOCALHOST)]);
    world.guest.frame(&udp(5353, (GATEWAY_IPV4, 53).into(), &query("good.example")));
    world.guest.frame_where(udp_payload);
    let mut control = world.server();

    let wrong = world.guest.established(server);
    world.guest.send(wrong, b"GET / HTTP/1.1\r\nHost: bad");
    world.guest.send(wrong, b".example\r\n\r\n");
    world.guest.until("reset", |guest| guest.is_closed(wrong));
    assert_eq!(told.recv_timeout(PATIENCE).unwrap(), (Err(ErrorKind::ConnectionReset), Vec::new()));
    let event = control.event();
    assert_eq!(event.kind, NetworkEventKind::ConnectionRefused);
    assert_eq!(event.name.as_deref(), Some("bad.example"));

    let right = world.guest.established(server);
    world.guest.send(right, b"GET / HTTP/1.1\r\nHost: good.example\r\n\r\n");
    world.guest.tcp(right).close();
    world.guest.until("closed", |guest| matches!(guest.tcp(right).state(), State::TimeWait | State::Closed));
    assert_eq!(told.recv_timeout(PATIENCE).unwrap().1.len(), 38);
    let event = control.event();
    assert_eq!(
        (event.kind, event.name.as_deref()),
        (NetworkEventKind::ConnectionOpened, Some("good.example"))
    );

    let neither = world.guest.established(server);
    world.guest.send(neither, b"SSH-2.0-client\r\n");
    world.guest.tcp(neither).close();
    world
        .guest
        .until("closed", |guest| matches!(guest.tcp(neither).state(), State::TimeWait | State::Closed));
    assert_eq!(told.recv_timeout(PATIENCE).unwrap().1, b"SSH-2.0-client\r\n");
}

#[test]
fn bandwidth_is_held() {
    let server = serve("127.0.0.1:0", |mut stream| {
        let _ = stream.write_all(&vec![1; 3_000_000]);
    });
    // A megabyte a second, one of them at once: three take two seconds more.
    let mut world = World::with(NetworkPolicy {
        allow_internet_access: true,
        bandwidth_kbps: Some(8_000),
        ..NetworkPolicy::default()
    });
    let began = Instant::now();
    let connection = world.guest.established(server);
    world.guest.read(connection, 3_000_000);
    assert!(began.elapsed() > Duration::from_millis(1_800), "{:?}", began.elapsed());
}
