//! Everything but TCP, frame by frame: what the gateway answers, what it refuses, and what it survives.

mod support;

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use forkyard_gateway::address::{GATEWAY_IPV4, GATEWAY_IPV6, GATEWAY_MAC, GUEST_IPV4, GUEST_IPV6, GUEST_MAC};
use forkyard_gateway::policy::Operator;
use forkyard_protocol::{NetworkEventKind, NetworkPolicy, NetworkProtocol};
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, DhcpMessageType, DhcpPacket, DhcpRepr, EthernetAddress, EthernetFrame,
    EthernetProtocol, Icmpv6Packet, Icmpv6Repr, IpProtocol, Ipv4Packet, Ipv6Packet, Ipv6Repr, NdiscRepr,
    UdpPacket,
};
use support::{
    PATIENCE, World, addresses, echo_request, ethernet, icmp_of, ipv4, payload_of, query, udp, udp_payload,
    upstream,
};

fn arp(operation: ArpOperation, from: Ipv4Addr, of: Ipv4Addr) -> Vec<u8> {
    let repr = ArpRepr::EthernetIpv4 {
        operation,
        source_hardware_addr: EthernetAddress(GUEST_MAC),
        source_protocol_addr: from,
        target_hardware_addr: EthernetAddress([0; 6]),
        target_protocol_addr: of,
    };
    let mut bytes = vec![0; repr.buffer_len()];
    repr.emit(&mut ArpPacket::new_unchecked(&mut bytes));
    ethernet(EthernetProtocol::Arp, &bytes)
}

/// Asks and awaits an answer: all that was sent before has been seen by then, and the gateway lives.
fn settle(world: &mut World) {
    world.guest.frame(&arp(ArpOperation::Request, GUEST_IPV4, GATEWAY_IPV4));
    world.guest.frame_where(|frame| {
        let frame = EthernetFrame::new_checked(frame).unwrap();
        if frame.ethertype() != EthernetProtocol::Arp {
            return None;
        }
        let packet = ArpPacket::new_checked(frame.payload()).unwrap();
        assert_eq!(packet.operation(), ArpOperation::Reply);
        assert_eq!(packet.source_hardware_addr(), GATEWAY_MAC);
        (packet.source_protocol_addr() == GATEWAY_IPV4.octets()).then_some(())
    });
}

/// A UDP server on loopback that sends back what it gets, until it gets nothing.
fn udp_echo() -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let at = socket.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut buffer = vec![0; 65536];
        while let Ok((count @ 1.., from)) = socket.recv_from(&mut buffer) {
            socket.send_to(&buffer[..count], from).unwrap();
        }
    });
    at
}

#[test]
fn neighbours_are_the_gateway() {
    let mut world = World::open();
    settle(&mut world);
    // The guest's own address is free for it: nobody answers.
    world.guest.frame(&arp(ArpOperation::Request, Ipv4Addr::UNSPECIFIED, GUEST_IPV4));
    settle(&mut world);
    let solicit = Icmpv6Repr::Ndisc(NdiscRepr::NeighborSolicit { target_addr: GATEWAY_IPV6, lladdr: None });
    let group = "ff02::1:ff00:2".parse().unwrap();
    let header = Ipv6Repr {
        src_addr: GUEST_IPV6,
        dst_addr: group,
        next_header: IpProtocol::Icmpv6,
        payload_len: solicit.buffer_len(),
        hop_limit: 255,
    };
    let mut bytes = vec![0; 40 + solicit.buffer_len()];
    header.emit(&mut Ipv6Packet::new_unchecked(&mut bytes));
    let mut icmp = Icmpv6Packet::new_unchecked(&mut bytes[40..]);
    solicit.emit(&GUEST_IPV6, &group, &mut icmp, &ChecksumCapabilities::default());
    world.guest.frame(&ethernet(EthernetProtocol::Ipv6, &bytes));
    world.guest.frame_where(|frame| {
        let frame = EthernetFrame::new_checked(frame).unwrap();
        let packet = Ipv6Packet::new_checked(frame.payload()).ok()?;
        let icmp = Icmpv6Packet::new_checked(packet.payload()).ok()?;
        let caps = ChecksumCapabilities::default();
        let repr = Icmpv6Repr::parse(&packet.src_addr(), &packet.dst_addr(), &icmp, &caps).unwrap();
        let Icmpv6Repr::Ndisc(NdiscRepr::NeighborAdvert { target_addr, lladdr, .. }) = repr else {
            return None;
        };
        assert_eq!((target_addr, packet.hop_limit()), (GATEWAY_IPV6, 255));
        assert_eq!(lladdr.unwrap().as_bytes(), GATEWAY_MAC);
        Some(())
    });
}

#[test]
fn dhcp_gives_the_one_address() {
    let ask = |message_type, requested_ip| {
        let repr = DhcpRepr {
            message_type,
            transaction_id: 77,
            secs: 0,
            client_hardware_address: EthernetAddress(GUEST_MAC),
            client_ip: Ipv4Addr::UNSPECIFIED,
            your_ip: Ipv4Addr::UNSPECIFIED,
            server_ip: Ipv4Addr::UNSPECIFIED,
            router: None,
            subnet_mask: None,
            relay_agent_ip: Ipv4Addr::UNSPECIFIED,
            broadcast: false,
            requested_ip,
            client_identifier: None,
            server_identifier: None,
            parameter_request_list: None,
            dns_servers: None,
            max_size: None,
            lease_duration: None,
            renew_duration: None,
            rebind_duration: None,
            additional_options: &[],
        };
        let mut message = vec![0; repr.buffer_len()];
        repr.emit(&mut DhcpPacket::new_unchecked(&mut message[..])).unwrap();
        let mut datagram = vec![0; 8];
        datagram[1] = 68;
        datagram[3] = 67;
        datagram[4..6].copy_from_slice(&u16::try_from(8 + message.len()).unwrap().to_be_bytes());
        datagram.extend_from_slice(&message);
        let packet = ipv4(Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST, IpProtocol::Udp, &datagram);
        ethernet(EthernetProtocol::Ipv4, &packet)
    };
    let mut world = World::open();
    let answers = [
        (DhcpMessageType::Discover, None, DhcpMessageType::Offer),
        (DhcpMessageType::Request, Some(GUEST_IPV4), DhcpMessageType::Ack),
        (DhcpMessageType::Request, Some(Ipv4Addr::new(10, 0, 2, 99)), DhcpMessageType::Nak),
    ];
    for (asked, wanted, expected) in answers {
        world.guest.frame(&ask(asked, wanted));
        let (_, port, message) = world.guest.frame_where(udp_payload);
        assert_eq!(port, 68);
        let packet = DhcpPacket::new_checked(&message[..]).unwrap();
        let reply = DhcpRepr::parse(&packet).unwrap();
        assert_eq!((reply.message_type, reply.transaction_id), (expected, 77));
        if expected != DhcpMessageType::Nak {
            assert_eq!((reply.your_ip, reply.router), (GUEST_IPV4, Some(GATEWAY_IPV4)));
            assert_eq!(reply.subnet_mask, Some(Ipv4Addr::new(255, 255, 255, 0)));
            assert_eq!(reply.dns_servers.unwrap().as_slice(), [GATEWAY_IPV4]);
        }
    }
}

#[test]
fn datagrams_go_and_come() {
    let server = udp_echo();
    let mut world = World::open();
    for text in ["one", "two"] {
        world.guest.frame(&udp(5000, server, text.as_bytes()));
        let expected = (server, 5000, text.as_bytes().to_vec());
        assert_eq!(world.guest.frame_where(udp_payload), expected);
    }
    let mut control = world.server();
    let event = control.event();
    assert_eq!(
        (event.kind, event.protocol),
        (NetworkEventKind::ConnectionOpened, Some(NetworkProtocol::Udp))
    );
    let counters = control.counters();
    assert_eq!((counters.connections_open, counters.bytes_out, counters.bytes_in), (1, 6, 6));
    // A policy that forbids it ends the flow.
    control.set_policy(NetworkPolicy::default());
    assert_eq!(control.event().kind, NetworkEventKind::ConnectionEnded);
    world.guest.frame(&udp(5000, server, b"three"));
    assert_eq!(world.guest.frame_where(icmp_of), (3, 13));
}

#[test]
fn long_datagrams_come_in_fragments() {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut world = World::open();
    world.guest.frame(&udp(5000, socket.local_addr().unwrap(), b"more"));
    let (_, from) = socket.recv_from(&mut [0; 10]).unwrap();
    let long: Vec<u8> = (0..=255).cycle().take(5000).collect();
    socket.send_to(&long, from).unwrap();
    let mut whole = Vec::new();
    loop {
        let (at, piece, more) = world.guest.frame_where(|frame| {
            let frame = EthernetFrame::new_checked(frame).unwrap();
            let packet = Ipv4Packet::new_checked(frame.payload()).unwrap();
            assert!(packet.verify_checksum() && frame.payload().len() <= 1500);
            Some((usize::from(packet.frag_offset()), packet.payload().to_vec(), packet.more_frags()))
        });
        assert_eq!(at, whole.len());
        whole.extend(piece);
        if !more {
            break;
        }
    }
    let packet = UdpPacket::new_checked(&whole[..]).unwrap();
    assert!(packet.verify_checksum(&Ipv4Addr::LOCALHOST.into(), &GUEST_IPV4.into()));
    assert_eq!(packet.payload(), long);
}

#[test]
fn what_cannot_pass_is_answered_by_icmp() {
    let closed = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut world = World::open();
    world.guest.frame(&udp(5000, closed, b"anybody?"));
    assert_eq!(world.guest.frame_where(icmp_of), (3, 3), "port unreachable");
    world.guest.frame(&udp(5000, "10.9.9.9:9".parse().unwrap(), b"private"));
    assert_eq!(world.guest.frame_where(icmp_of), (3, 13), "prohibited");
    // SCTP.
    let packet = ipv4(GUEST_IPV4, Ipv4Addr::LOCALHOST, IpProtocol::Unknown(132), &[0; 12]);
    world.guest.frame(&ethernet(EthernetProtocol::Ipv4, &packet));
    assert_eq!(world.guest.frame_where(icmp_of), (3, 13), "another protocol");
    let mut fragment = ipv4(GUEST_IPV4, Ipv4Addr::LOCALHOST, IpProtocol::Udp, &[0; 16]);
    let mut header = Ipv4Packet::new_unchecked(&mut fragment[..]);
    header.set_dont_frag(false);
    header.set_more_frags(true);
    header.fill_checksum();
    world.guest.frame(&ethernet(EthernetProtocol::Ipv4, &fragment));
    assert_eq!(world.guest.frame_where(icmp_of), (3, 13), "a fragment");
    let big = ipv4(GUEST_IPV4, Ipv4Addr::LOCALHOST, IpProtocol::Udp, &[0; 3000]);
    world.guest.frame(&ethernet(EthernetProtocol::Ipv4, &big));
    let (_, icmp) = world.guest.frame_where(|frame| payload_of(frame, IpProtocol::Icmp));
    assert_eq!((icmp[0], icmp[1], u16::from_be_bytes([icmp[6], icmp[7]])), (3, 4, 1500), "too big");
}

#[test]
fn the_gateway_answers_pings_and_asks_others_only_where_the_host_lets_it() {
    let mut world = World::open();
    world.guest.frame(&echo_request(GATEWAY_IPV4));
    let (from, icmp) = world.guest.frame_where(|frame| payload_of(frame, IpProtocol::Icmp));
    assert_eq!((from, icmp[0], &icmp[4..]), (GATEWAY_IPV4, 0, &b"\0\x09\0\x04ping"[..]));
    world.guest.frame(&echo_request(Ipv4Addr::LOCALHOST));
    let (from, icmp) = world.guest.frame_where(|frame| payload_of(frame, IpProtocol::Icmp));
    let protocol = Some(socket2::Protocol::ICMPV4);
    if socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, protocol).is_ok() {
        assert_eq!((from, icmp[0], &icmp[4..]), (Ipv4Addr::LOCALHOST, 0, &b"\0\x09\0\x04ping"[..]));
    } else {
        assert_eq!((from, icmp[0], icmp[1]), (GATEWAY_IPV4, 3, 13));
        let event = world.server().event();
        assert_eq!(event.rule.as_deref(), Some(forkyard_gateway::NO_PING));
    }
}

#[test]
fn dns_is_answered_over_udp_and_tcp() {
    let given = Ipv4Addr::new(192, 0, 1, 7);
    let policy = NetworkPolicy { allow_out: vec!["*.example".into()], ..NetworkPolicy::default() };
    let mut world = World::start(policy, Operator::default(), vec![upstream(given)]);
    let resolver: SocketAddr = (GATEWAY_IPV4, 53).into();
    world.guest.frame(&udp(5353, resolver, &query("first.example")));
    let (from, port, answer) = world.guest.frame_where(udp_payload);
    assert_eq!((from, port, addresses(&answer)), (resolver, 5353, vec![given]));
    let connection = world.guest.established(resolver);
    for name in ["second.example", "refused.test"] {
        let query = query(name);
        let len = u16::try_from(query.len()).unwrap().to_be_bytes();
        world.guest.send(connection, &[&len[..], &query].concat());
        let len = world.guest.read(connection, 2);
        let answer = world.guest.read(connection, usize::from(u16::from_be_bytes([len[0], len[1]])));
        assert_eq!(addresses(&answer).len(), usize::from(name == "second.example"));
    }
    let event = world.server().event();
    assert_eq!((event.kind, event.name.as_deref()), (NetworkEventKind::DnsRefused, Some("refused.test")));
    world.guest.tcp(connection).close();
    world
        .guest
        .until("closed", |guest| guest.tcp(connection).state() != smoltcp::socket::tcp::State::FinWait1);
    let counters = world.counters();
    assert_eq!((counters.dns_queries, counters.connections_total), (3, 0));
    // Nothing else is there.
    let other = world.guest.connect((GATEWAY_IPV4, 80).into());
    world.guest.until("reset", |guest| guest.is_closed(other));
}

#[test]
fn forged_frames_are_dropped_and_counted() {
    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    server.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    let at = server.local_addr().unwrap();
    let mut world = World::open();
    let mut forged = udp(5000, at, b"forged");
    forged[6..12].copy_from_slice(&[2, 0, 0, 0, 0, 1]);
    world.guest.frame(&forged);
    let mut forged = udp(5000, at, b"forged");
    let mut header = Ipv4Packet::new_unchecked(&mut forged[14..]);
    header.set_src_addr(Ipv4Addr::new(10, 0, 2, 16));
    header.fill_checksum();
    world.guest.frame(&forged);
    // Who says that the gateway's address is its own changes nothing.
    world.guest.frame(&arp(ArpOperation::Reply, GATEWAY_IPV4, GUEST_IPV4));
    settle(&mut world);
    assert_eq!(world.counters().dropped_frames, 3);
    assert!(server.recv(&mut [0; 10]).is_err(), "a forged datagram went out");
    world.guest.frame(&udp(5000, at, b"honest"));
    assert_eq!(server.recv(&mut [0; 10]).unwrap(), 6);
}

#[test]
fn malformed_frames_harm_nothing() {
    // Not opened by the operator: nothing that comes out of chance leaves this host's test.
    let mut world = World::start(NetworkPolicy::default(), Operator::default(), Vec::new());
    let mut random = fastrand::Rng::with_seed(20);
    let to: SocketAddr = "127.0.0.1:9".parse().unwrap();
    let mut syn =
        vec![0x12, 0x34, 0, 80, 0, 0, 0, 1, 0, 0, 0, 0, 0x60, 2, 0xff, 0xff, 0, 0, 0, 0, 2, 4, 5, 0xb4];
    smoltcp::wire::TcpPacket::new_unchecked(&mut syn[..])
        .fill_checksum(&GUEST_IPV4.into(), &Ipv4Addr::LOCALHOST.into());
    let seeds = [
        udp(68, (GATEWAY_IPV4, 67).into(), &[1; 300]),
        udp(5000, to, b"payload"),
        udp(5000, (GATEWAY_IPV4, 53).into(), b"payload"),
        echo_request(GATEWAY_IPV4),
        arp(ArpOperation::Request, GUEST_IPV4, GATEWAY_IPV4),
        ethernet(EthernetProtocol::Ipv4, &ipv4(GUEST_IPV4, Ipv4Addr::LOCALHOST, IpProtocol::Tcp, &syn)),
        ethernet(EthernetProtocol::Ipv6, &[0x60; 80]),
    ];
    for turn in 0..20_000 {
        let mut frame = seeds[random.usize(..seeds.len())].clone();
        if turn % 4 == 0 {
            let from = random.usize(..frame.len());
            random.fill(&mut frame[from..]);
        }
        for _ in 0..random.usize(..6) {
            let at = random.usize(12..frame.len());
            frame[at] = random.u8(..);
        }
        if random.bool() {
            frame.truncate(random.usize(..frame.len()));
        }
        if frame.len() >= 34 && frame[12..14] == [8, 0] && random.bool() {
            // So that more than the header is looked at.
            let len = frame.len() - 14;
            let mut header = Ipv4Packet::new_unchecked(&mut frame[14..]);
            if (20..=len).contains(&usize::from(header.header_len())) {
                header.fill_checksum();
            }
        }
        world.guest.frame(&frame);
        if turn % 50 == 0 {
            settle(&mut world);
        }
    }
    settle(&mut world);
    assert!(world.counters().dropped_frames > 1_000);
}

#[test]
fn a_guest_that_takes_no_answers_does_not_fill_the_gateway() {
    let mut world = World::open();
    let question = arp(ArpOperation::Request, GUEST_IPV4, GATEWAY_IPV4);
    let mut stream = Vec::new();
    for _ in 0..1_000 {
        stream.extend_from_slice(&u32::try_from(question.len()).unwrap().to_be_bytes());
        stream.extend_from_slice(&question);
    }
    let began = Instant::now();
    let mut taken = 0;
    // The socket takes no more once the gateway reads no more.
    while world.guest.try_raw(&stream) {
        taken += 1;
        assert!(taken < 500, "the gateway keeps answers for a guest that takes none");
        assert!(began.elapsed() < PATIENCE);
    }
    settle_after_flood(&mut world);
}

fn settle_after_flood(world: &mut World) {
    world.guest.finish_raw();
    settle(world);
}

#[test]
fn a_stream_out_of_step_ends_the_gateway() {
    let mut world = World::open();
    world.guest.raw(&[0xff; 64]);
    assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| world.ended())).is_err());
}
