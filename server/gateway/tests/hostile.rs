//! What a guest or a server does that means harm, as far as it takes more than one packet.

mod support;

use std::io::{ErrorKind, Read as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::time::Duration;

use forkyard_gateway::address::{GATEWAY_IPV4, GUEST_IPV4};
use forkyard_gateway::limits::MAX_DNS_QUERIES;
use forkyard_gateway::policy::Operator;
use forkyard_protocol::{NetworkEventKind, NetworkPolicy};
use smoltcp::wire::{EthernetProtocol, IpProtocol, TcpPacket};
use support::{World, addresses, ethernet, icmp_of, ipv4, query, udp, udp_payload, upstream_that};

const RESOLVER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(GATEWAY_IPV4), 53);
const PUBLIC: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
const INSIDE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 3);

/// Two servers with the same port, the second where nobody may go.
fn pair_of_servers() -> (TcpListener, TcpListener) {
    loop {
        let first = TcpListener::bind((PUBLIC, 0)).unwrap();
        if let Ok(second) = TcpListener::bind((INSIDE, first.local_addr().unwrap().port())) {
            second.set_nonblocking(true).unwrap();
            return (first, second);
        }
    }
}

fn nobody_came(listener: &TcpListener) {
    assert_eq!(listener.accept().unwrap_err().kind(), ErrorKind::WouldBlock, "somebody came");
}

#[test]
fn a_name_that_is_given_another_address_leads_nowhere_new() {
    let (public, inside) = pair_of_servers();
    let port = public.local_addr().unwrap().port();
    let dns = upstream_that(|turn| (if turn == 0 { PUBLIC } else { INSIDE }, 0));
    let by_name = |name: &str| NetworkPolicy { allow_out: vec![name.to_owned()], ..NetworkPolicy::default() };
    let operator = Operator { extra_allow: vec![PUBLIC.to_string()], ..Operator::default() };
    let mut world = World::start(by_name("rebind.example"), operator, vec![dns]);
    let ask = |world: &mut World| {
        world.guest.frame(&udp(5353, RESOLVER, &query("rebind.example")));
        addresses(&world.guest.frame_where(udp_payload).2)
    };
    // Before anybody asked, no address is the name's.
    let early = world.guest.connect((PUBLIC, port).into());
    world.guest.until("refused", |guest| guest.is_closed(early));

    assert_eq!(ask(&mut world), [PUBLIC]);
    let connection = world.guest.established((PUBLIC, port).into());
    world.guest.send(connection, b"GET / HTTP/1.1\r\nHost: rebind.example\r\n\r\n");
    let mut came = [0; 14];
    public.accept().unwrap().0.read_exact(&mut came).unwrap();
    assert_eq!(&came, b"GET / HTTP/1.1");

    let mut control = world.server();
    assert_eq!(ask(&mut world), [] as [Ipv4Addr; 0], "its time is up, and what it has become is kept back");
    let inward = world.guest.connect((INSIDE, port).into());
    world.guest.until("refused", |guest| guest.is_closed(inward));
    nobody_came(&inside);
    let refused =
        std::iter::from_fn(|| Some(control.event())).find(|event| event.address == Some(INSIDE.into()));
    assert_eq!(refused.unwrap().name.as_deref(), Some("rebind.example"));

    // What a name was given counts for no other policy than one of that name.
    control.set_policy(by_name("other.example"));
    let late = world.guest.connect((PUBLIC, port).into());
    world.guest.until("refused", |guest| guest.is_closed(late));
    public.set_nonblocking(true).unwrap();
    nobody_came(&public);
}

/// A segment that opens a connection, with this checksum in place of the right one.
fn opening(to: SocketAddr, checksum: Option<u16>) -> Vec<u8> {
    let SocketAddr::V4(to) = to else { panic!("IPv4 only") };
    let mut bytes = vec![0; 20];
    let mut packet = TcpPacket::new_unchecked(&mut bytes[..]);
    packet.set_src_port(4000);
    packet.set_dst_port(to.port());
    packet.set_header_len(20);
    packet.set_syn(true);
    packet.set_window_len(1000);
    packet.fill_checksum(&GUEST_IPV4.into(), &(*to.ip()).into());
    if let Some(checksum) = checksum {
        packet.set_checksum(checksum);
    }
    ethernet(EthernetProtocol::Ipv4, &ipv4(GUEST_IPV4, *to.ip(), IpProtocol::Tcp, &bytes))
}

#[test]
fn a_segment_that_was_garbled_opens_nothing() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap();
    let mut world = World::open();
    world.guest.frame(&opening(at, Some(0x1234)));
    // Its port is closed, which is said once all before has been seen.
    let closed = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let settle = |world: &mut World| {
        world.guest.frame(&udp(5000, closed, b"anybody?"));
        assert_eq!(world.guest.frame_where(icmp_of), (3, 3));
    };
    settle(&mut world);
    assert_eq!(world.counters().dropped_frames, 1);
    world.guest.frame(&opening(at, None));
    let (_, from) = listener.accept().unwrap();
    listener.set_nonblocking(true).unwrap();
    settle(&mut world);
    nobody_came(&listener);
    assert!(from.ip().is_loopback());
}

#[test]
fn a_burst_of_queries_does_not_become_as_many_tasks() {
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let policy = NetworkPolicy { allow_internet_access: true, ..NetworkPolicy::default() };
    let mut world = World::start(policy, Operator::default(), vec![silent.local_addr().unwrap()]);
    let asked = MAX_DNS_QUERIES * 3;
    let mut stream = Vec::new();
    for number in 0..asked {
        let frame = udp(5353, RESOLVER, &query(&format!("n{number}.example")));
        stream.extend_from_slice(&u32::try_from(frame.len()).unwrap().to_be_bytes());
        stream.extend_from_slice(&frame);
    }
    world.guest.raw(&stream);
    silent.set_read_timeout(Some(support::PATIENCE)).unwrap();
    silent.recv(&mut [0; 1000]).unwrap();
    let counters = world.counters();
    let dropped = usize::try_from(counters.dropped_frames).unwrap();
    assert!(dropped >= MAX_DNS_QUERIES, "{counters:?}");
    assert_eq!(usize::try_from(counters.dns_queries).unwrap() + dropped, asked);
}

#[test]
fn a_server_that_never_reads_stops_the_client() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut world = World::open();
    let connection = world.guest.established(listener.local_addr().unwrap());
    let (mut stream, _) = listener.accept().unwrap();
    let piece = vec![7; 64 * 1024];
    let mut sent = 0;
    let mut quiet_since = std::time::Instant::now();
    world.guest.until("the client stopped", |guest| {
        while let Ok(count @ 1..) = guest.tcp(connection).send_slice(&piece) {
            sent += count;
            quiet_since = std::time::Instant::now();
        }
        quiet_since.elapsed() > Duration::from_secs(1)
    });
    // The guest's buffers, the gateway's and the kernel's on loopback.
    assert!(sent < 16 * 1024 * 1024, "{sent} bytes went somewhere");
    let mut control = world.server();
    assert_eq!(control.event().kind, NetworkEventKind::ConnectionOpened);
    // Nothing was lost meanwhile.
    world.guest.tcp(connection).close();
    let reader = std::thread::spawn(move || {
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap();
        all.len()
    });
    world.guest.until("all read", |_| reader.is_finished());
    assert_eq!(reader.join().unwrap(), sent);
}
