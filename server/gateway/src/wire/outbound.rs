use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetProtocol, Icmpv4Message, Icmpv4Packet,
    Icmpv4Repr, Icmpv6Message, Icmpv6Packet, Icmpv6Repr, IpProtocol, Ipv4Packet, Ipv4Repr,
    Ipv6FragmentHeader, Ipv6FragmentRepr, Ipv6Packet, Ipv6Repr, NdiscNeighborFlags, NdiscRepr, UdpPacket,
    UdpRepr,
};

use crate::address::{
    GATEWAY_IPV4, GATEWAY_IPV6, GATEWAY_MAC, GUEST_IPV4, GUEST_IPV6, GUEST_MAC, MTU, guest_beside,
};
use crate::outbox::Outbox;

const HOP_LIMIT: u8 = 64;
const IPV4_HEADER: usize = 20;
const IPV6_HEADER: usize = 40;
const UDP_HEADER: usize = 8;
const ICMP_HEADER: usize = 8;
const FRAGMENT_HEADER: usize = 8;
/// An ICMP error is no longer than what every link carries (RFC 1812, RFC 4443).
const IPV4_ERROR: usize = 576;
const IPV6_ERROR: usize = 1280;

/// Why a packet did not arrive, as ICMP says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unreachable {
    /// There is no way to its network.
    Network,
    /// Nobody answers for its address.
    Host,
    /// Nobody listens on its port.
    Port,
    /// The policy or the host's administrator is against it.
    Prohibited,
    /// It is longer than this many bytes, and may not be fragmented.
    TooBig(u16),
}

/// Says that an address is the gateway's.
pub fn arp_reply(out: &mut Outbox, address: Ipv4Addr) {
    let reply = ArpRepr::EthernetIpv4 {
        operation: ArpOperation::Reply,
        source_hardware_addr: EthernetAddress(GATEWAY_MAC),
        source_protocol_addr: address,
        target_hardware_addr: EthernetAddress(GUEST_MAC),
        target_protocol_addr: GUEST_IPV4,
    };
    out.frame(EthernetProtocol::Arp, reply.buffer_len(), |bytes| {
        reply.emit(&mut ArpPacket::new_unchecked(bytes));
    });
}

/// Says that an address is the gateway's.
pub fn neighbour_advert(out: &mut Outbox, address: Ipv6Addr, to: Ipv6Addr) {
    let advert = Icmpv6Repr::Ndisc(NdiscRepr::NeighborAdvert {
        flags: NdiscNeighborFlags::ROUTER | NdiscNeighborFlags::SOLICITED | NdiscNeighborFlags::OVERRIDE,
        target_addr: address,
        lladdr: Some(EthernetAddress(GATEWAY_MAC).into()),
    });
    // A neighbour's hop limit is 255: nobody forwarded it.
    icmpv6(out, address, to, 255, advert.buffer_len(), |bytes| {
        advert.emit(&address, &to, &mut Icmpv6Packet::new_unchecked(bytes), &ChecksumCapabilities::default());
    });
}

/// Answers an echo request.
pub fn echo_reply(out: &mut Outbox, from: IpAddr, ident: u16, sequence: u16, data: &[u8]) {
    match from {
        IpAddr::V4(from) => {
            let reply = Icmpv4Repr::EchoReply { ident, seq_no: sequence, data };
            ipv4(out, from, GUEST_IPV4, IpProtocol::Icmp, reply.buffer_len(), |bytes| {
                reply.emit(&mut Icmpv4Packet::new_unchecked(bytes), &ChecksumCapabilities::default());
            });
        }
        IpAddr::V6(from) => {
            let reply = Icmpv6Repr::EchoReply { ident, seq_no: sequence, data };
            icmpv6(out, from, GUEST_IPV6, HOP_LIMIT, reply.buffer_len(), |bytes| {
                let mut packet = Icmpv6Packet::new_unchecked(bytes);
                reply.emit(&from, &GUEST_IPV6, &mut packet, &ChecksumCapabilities::default());
            });
        }
    }
}

/// Tells the guest why a packet of its own did not arrive. What is no IP packet is not answered.
pub fn unreachable(out: &mut Outbox, packet: &[u8], why: Unreachable) {
    match packet.first().map(|first| first >> 4) {
        Some(4) if packet.len() >= IPV4_HEADER => unreachable_ipv4(out, packet, why),
        Some(6) if packet.len() >= IPV6_HEADER => unreachable_ipv6(out, packet, why),
        _ => {}
    }
}

fn unreachable_ipv4(out: &mut Outbox, packet: &[u8], why: Unreachable) {
    let original = Ipv4Packet::new_unchecked(packet);
    let (code, mtu) = match why {
        Unreachable::Network => (0, 0),
        Unreachable::Host => (1, 0),
        Unreachable::Port => (3, 0),
        Unreachable::TooBig(mtu) => (4, mtu),
        Unreachable::Prohibited => (13, 0),
    };
    // A port is its own machine's to speak of, all else the gateway's.
    let from = if why == Unreachable::Port { original.dst_addr() } else { GATEWAY_IPV4 };
    let cited = &packet[..packet.len().min(IPV4_ERROR - IPV4_HEADER - ICMP_HEADER)];
    ipv4(out, from, original.src_addr(), IpProtocol::Icmp, ICMP_HEADER + cited.len(), |bytes| {
        bytes[ICMP_HEADER..].copy_from_slice(cited);
        bytes[6..8].copy_from_slice(&mtu.to_be_bytes());
        let mut icmp = Icmpv4Packet::new_unchecked(bytes);
        icmp.set_msg_type(Icmpv4Message::DstUnreachable);
        icmp.set_msg_code(code);
        icmp.fill_checksum();
    });
}

fn unreachable_ipv6(out: &mut Outbox, packet: &[u8], why: Unreachable) {
    let original = Ipv6Packet::new_unchecked(packet);
    let (kind, code, mtu) = match why {
        Unreachable::Network => (Icmpv6Message::DstUnreachable, 0, 0),
        Unreachable::Prohibited => (Icmpv6Message::DstUnreachable, 1, 0),
        Unreachable::Host => (Icmpv6Message::DstUnreachable, 3, 0),
        Unreachable::Port => (Icmpv6Message::DstUnreachable, 4, 0),
        Unreachable::TooBig(mtu) => (Icmpv6Message::PktTooBig, 0, u32::from(mtu)),
    };
    let from = if why == Unreachable::Port { original.dst_addr() } else { GATEWAY_IPV6 };
    let to = original.src_addr();
    let cited = &packet[..packet.len().min(IPV6_ERROR - IPV6_HEADER - ICMP_HEADER)];
    icmpv6(out, from, to, HOP_LIMIT, ICMP_HEADER + cited.len(), |bytes| {
        bytes[ICMP_HEADER..].copy_from_slice(cited);
        bytes[4..8].copy_from_slice(&mtu.to_be_bytes());
        let mut icmp = Icmpv6Packet::new_unchecked(bytes);
        icmp.set_msg_type(kind);
        icmp.set_msg_code(code);
        icmp.fill_checksum(&from, &to);
    });
}

/// A UDP datagram to the guest, in fragments where it is longer than the link's MTU.
pub fn datagram(out: &mut Outbox, from: SocketAddr, to_port: u16, payload: &[u8], ident: u16) {
    let to = guest_beside(from.ip());
    let udp = UdpRepr { src_port: from.port(), dst_port: to_port };
    let len = UDP_HEADER + payload.len();
    let fill = |bytes: &mut [u8]| {
        let mut packet = UdpPacket::new_unchecked(bytes);
        let copy = |room: &mut [u8]| room.copy_from_slice(payload);
        let (from, to) = (from.ip().into(), to.into());
        udp.emit(&mut packet, &from, &to, payload.len(), copy, &ChecksumCapabilities::default());
    };
    match from.ip() {
        IpAddr::V4(from) if IPV4_HEADER + len <= MTU => {
            ipv4(out, from, GUEST_IPV4, IpProtocol::Udp, len, fill);
        }
        IpAddr::V6(from) if IPV6_HEADER + len <= MTU => {
            ipv6(out, from, GUEST_IPV6, IpProtocol::Udp, len, fill);
        }
        from => {
            let mut whole = vec![0; len];
            fill(&mut whole);
            fragments(out, from, &whole, ident);
        }
    }
}

fn fragments(out: &mut Outbox, from: IpAddr, whole: &[u8], ident: u16) {
    let headers = if from.is_ipv4() { IPV4_HEADER } else { IPV6_HEADER + FRAGMENT_HEADER };
    // Offsets count in eights.
    let step = (MTU - headers) / 8 * 8;
    for (index, piece) in whole.chunks(step).enumerate() {
        let offset = index * step;
        let more = offset + piece.len() < whole.len();
        // A datagram has at most 65,535 bytes.
        #[expect(clippy::cast_possible_truncation)]
        let offset = offset as u16;
        match from {
            IpAddr::V4(from) => {
                out.frame(EthernetProtocol::Ipv4, IPV4_HEADER + piece.len(), |bytes| {
                    ipv4_header(bytes, from, GUEST_IPV4, IpProtocol::Udp, piece.len());
                    let mut packet = Ipv4Packet::new_unchecked(bytes);
                    packet.set_ident(ident);
                    packet.clear_flags();
                    packet.set_more_frags(more);
                    packet.set_frag_offset(offset);
                    packet.fill_checksum();
                    packet.payload_mut().copy_from_slice(piece);
                });
            }
            IpAddr::V6(from) => {
                let len = FRAGMENT_HEADER + piece.len();
                ipv6(out, from, GUEST_IPV6, IpProtocol::Ipv6Frag, len, |bytes| {
                    bytes[0] = IpProtocol::Udp.into();
                    let repr =
                        Ipv6FragmentRepr { frag_offset: offset / 8, more_frags: more, ident: ident.into() };
                    repr.emit(&mut Ipv6FragmentHeader::new_unchecked(&mut bytes[2..FRAGMENT_HEADER]));
                    bytes[FRAGMENT_HEADER..].copy_from_slice(piece);
                });
            }
        }
    }
}

fn ipv4_header(bytes: &mut [u8], from: Ipv4Addr, to: Ipv4Addr, protocol: IpProtocol, payload_len: usize) {
    let header =
        Ipv4Repr { src_addr: from, dst_addr: to, next_header: protocol, payload_len, hop_limit: HOP_LIMIT };
    header.emit(&mut Ipv4Packet::new_unchecked(bytes), &ChecksumCapabilities::default());
}

fn ipv4(
    out: &mut Outbox,
    from: Ipv4Addr,
    to: Ipv4Addr,
    protocol: IpProtocol,
    len: usize,
    fill: impl FnOnce(&mut [u8]),
) {
    out.frame(EthernetProtocol::Ipv4, IPV4_HEADER + len, |bytes| {
        ipv4_header(bytes, from, to, protocol, len);
        fill(&mut bytes[IPV4_HEADER..]);
    });
}

fn ipv6(
    out: &mut Outbox,
    from: Ipv6Addr,
    to: Ipv6Addr,
    protocol: IpProtocol,
    len: usize,
    fill: impl FnOnce(&mut [u8]),
) {
    ipv6_packet(out, from, to, protocol, HOP_LIMIT, len, fill);
}

fn icmpv6(
    out: &mut Outbox,
    from: Ipv6Addr,
    to: Ipv6Addr,
    hop_limit: u8,
    len: usize,
    fill: impl FnOnce(&mut [u8]),
) {
    ipv6_packet(out, from, to, IpProtocol::Icmpv6, hop_limit, len, fill);
}

fn ipv6_packet(
    out: &mut Outbox,
    from: Ipv6Addr,
    to: Ipv6Addr,
    protocol: IpProtocol,
    hop_limit: u8,
    len: usize,
    fill: impl FnOnce(&mut [u8]),
) {
    let header =
        Ipv6Repr { src_addr: from, dst_addr: to, next_header: protocol, payload_len: len, hop_limit };
    out.frame(EthernetProtocol::Ipv6, IPV6_HEADER + len, |bytes| {
        header.emit(&mut Ipv6Packet::new_unchecked(&mut *bytes));
        fill(&mut bytes[IPV6_HEADER..]);
    });
}
