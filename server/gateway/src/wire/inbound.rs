use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetFrame, EthernetProtocol, Icmpv4Packet, Icmpv4Repr,
    Icmpv6Message, Icmpv6Packet, Icmpv6Repr, IpAddress, IpProtocol, Ipv4Packet, Ipv6FragmentHeader,
    Ipv6Packet, NdiscRepr, TcpPacket, UdpPacket, UdpRepr,
};

use crate::address::{GATEWAY_IPV4, GUEST_IPV4, GUEST_IPV6, GUEST_MAC, MTU};

const DHCP_SERVER: u16 = 67;
const DHCP_CLIENT: u16 = 68;

/// Why a frame is worth nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drop {
    /// It is cut off, has a wrong checksum, or contradicts itself.
    Malformed,
    /// Its hardware or IP address is not the guest's.
    Forged,
}

/// What the guest wants.
#[derive(Debug, PartialEq)]
pub enum Inbound<'a> {
    /// Who has this address?
    Arp(Ipv4Addr),
    /// Who has this address?
    NeighbourSolicit {
        /// The address that is looked for.
        target: Ipv6Addr,
        /// Who asks.
        from: Ipv6Addr,
    },
    /// A DHCP message.
    Dhcp(&'a [u8]),
    /// A TCP segment.
    Segment(Segment<'a>),
    /// A UDP datagram.
    Datagram(Datagram<'a>),
    /// An ICMP echo request.
    Echo(Echo<'a>),
    /// A packet that nothing here carries: a fragment, another protocol. The guest is to be told.
    Unsupported(&'a [u8]),
    /// A packet longer than the link's MTU.
    TooBig(&'a [u8]),
    /// What every guest says to its neighbours, and nobody here listens to.
    Chatter,
}

/// A TCP segment.
#[derive(Debug, PartialEq)]
pub struct Segment<'a> {
    /// The guest's end.
    pub source: SocketAddr,
    /// The other.
    pub destination: SocketAddr,
    /// Whether it opens a connection.
    pub opens: bool,
    /// Whether it resets one.
    pub resets: bool,
    /// The whole IP packet.
    pub packet: &'a [u8],
}

/// A UDP datagram.
#[derive(Debug, PartialEq)]
pub struct Datagram<'a> {
    /// The guest's end.
    pub source: SocketAddr,
    /// The other.
    pub destination: SocketAddr,
    /// What it carries.
    pub payload: &'a [u8],
    /// Whether nobody may fragment it on its way.
    pub dont_fragment: bool,
    /// The whole IP packet.
    pub packet: &'a [u8],
}

/// An ICMP echo request.
#[derive(Debug, PartialEq)]
pub struct Echo<'a> {
    /// Who is asked.
    pub destination: IpAddr,
    /// The guest's identifier.
    pub ident: u16,
    /// Its sequence number.
    pub sequence: u16,
    /// What is to come back.
    pub data: &'a [u8],
    /// The whole IP packet.
    pub packet: &'a [u8],
}

/// Reads a frame.
pub fn read(frame: &[u8]) -> Result<Inbound<'_>, Drop> {
    let frame = EthernetFrame::new_checked(frame).map_err(malformed)?;
    if frame.src_addr().0 != GUEST_MAC {
        return Err(Drop::Forged);
    }
    match frame.ethertype() {
        EthernetProtocol::Arp => arp(frame.payload()),
        EthernetProtocol::Ipv4 => ipv4(frame.payload()),
        EthernetProtocol::Ipv6 => ipv6(frame.payload()),
        EthernetProtocol::Unknown(_) => Ok(Inbound::Chatter),
    }
}

fn malformed(_: smoltcp::wire::Error) -> Drop {
    Drop::Malformed
}

fn arp(packet: &[u8]) -> Result<Inbound<'_>, Drop> {
    let packet = ArpPacket::new_checked(packet).map_err(malformed)?;
    let ArpRepr::EthernetIpv4 {
        operation,
        source_hardware_addr,
        source_protocol_addr,
        target_protocol_addr,
        ..
    } = ArpRepr::parse(&packet).map_err(malformed)?
    else {
        return Err(Drop::Malformed);
    };
    let is_guest = source_protocol_addr == GUEST_IPV4 || source_protocol_addr.is_unspecified();
    if source_hardware_addr.0 != GUEST_MAC || !is_guest {
        return Err(Drop::Forged);
    }
    match operation {
        ArpOperation::Request => Ok(Inbound::Arp(target_protocol_addr)),
        _ => Ok(Inbound::Chatter),
    }
}

fn ipv4(bytes: &[u8]) -> Result<Inbound<'_>, Drop> {
    let packet = Ipv4Packet::new_checked(bytes).map_err(malformed)?;
    if packet.version() != 4 || !packet.verify_checksum() {
        return Err(Drop::Malformed);
    }
    // Short frames are padded; the padding is nobody's.
    let bytes = &bytes[..usize::from(packet.total_len())];
    let (source, destination) = (packet.src_addr(), packet.dst_addr());
    if source.is_unspecified() && packet.next_header() == IpProtocol::Udp {
        return Ok(dhcp(packet.payload()).map_or(Inbound::Chatter, Inbound::Dhcp));
    }
    if source != GUEST_IPV4 {
        return Err(Drop::Forged);
    }
    if (destination.is_broadcast() || destination == GATEWAY_IPV4)
        && let (IpProtocol::Udp, Some(message)) = (packet.next_header(), dhcp(packet.payload()))
    {
        return Ok(Inbound::Dhcp(message));
    }
    if !is_one(destination.into()) {
        return Ok(Inbound::Chatter);
    }
    if bytes.len() > MTU {
        return Ok(Inbound::TooBig(bytes));
    }
    if packet.frag_offset() != 0 {
        // The first of them is answered.
        return Ok(Inbound::Chatter);
    }
    if packet.more_frags() {
        return Ok(Inbound::Unsupported(bytes));
    }
    let payload = packet.payload();
    match packet.next_header() {
        IpProtocol::Tcp => segment(source.into(), destination.into(), payload, bytes),
        IpProtocol::Udp => udp(source.into(), destination.into(), payload, packet.dont_frag(), bytes),
        IpProtocol::Icmp => {
            let icmp = Icmpv4Packet::new_checked(payload).map_err(malformed)?;
            match Icmpv4Repr::parse(&icmp, &ChecksumCapabilities::default()) {
                Ok(Icmpv4Repr::EchoRequest { ident, seq_no, data }) => Ok(Inbound::Echo(Echo {
                    destination: destination.into(),
                    ident,
                    sequence: seq_no,
                    data,
                    packet: bytes,
                })),
                Ok(_) => Ok(Inbound::Chatter),
                Err(_) if icmp.verify_checksum() => Ok(Inbound::Chatter),
                Err(error) => Err(malformed(error)),
            }
        }
        _ => Ok(Inbound::Unsupported(bytes)),
    }
}

fn dhcp(payload: &[u8]) -> Option<&[u8]> {
    let udp = UdpPacket::new_checked(payload).ok()?;
    (udp.src_port() == DHCP_CLIENT && udp.dst_port() == DHCP_SERVER).then(|| udp.payload())
}

fn ipv6(bytes: &[u8]) -> Result<Inbound<'_>, Drop> {
    let packet = Ipv6Packet::new_checked(bytes).map_err(malformed)?;
    if packet.version() != 6 {
        return Err(Drop::Malformed);
    }
    let bytes = &bytes[..packet.total_len()];
    let (source, destination) = (packet.src_addr(), packet.dst_addr());
    let payload = packet.payload();
    if source.is_unspecified() || source.is_unicast_link_local() {
        // Linux has a link-local address whether it is asked to or not, and says so.
        return if packet.next_header() == IpProtocol::Icmpv6 {
            Ok(neighbour(source, destination, payload))
        } else if packet.next_header() == IpProtocol::HopByHop || destination.is_multicast() {
            Ok(Inbound::Chatter)
        } else {
            Err(Drop::Forged)
        };
    }
    if source != GUEST_IPV6 {
        return Err(Drop::Forged);
    }
    if packet.next_header() == IpProtocol::Icmpv6
        && Icmpv6Packet::new_checked(payload).map_err(malformed)?.msg_type().is_ndisc()
    {
        return Ok(neighbour(source, destination, payload));
    }
    if !is_one(destination.into()) {
        return Ok(Inbound::Chatter);
    }
    if bytes.len() > MTU {
        return Ok(Inbound::TooBig(bytes));
    }
    match packet.next_header() {
        IpProtocol::Tcp => segment(source.into(), destination.into(), payload, bytes),
        IpProtocol::Udp => udp(source.into(), destination.into(), payload, true, bytes),
        IpProtocol::Icmpv6 => {
            let icmp = Icmpv6Packet::new_checked(payload).map_err(malformed)?;
            if !icmp.verify_checksum(&source, &destination) {
                return Err(Drop::Malformed);
            }
            if icmp.msg_type() != Icmpv6Message::EchoRequest {
                return Ok(Inbound::Chatter);
            }
            Ok(Inbound::Echo(Echo {
                destination: destination.into(),
                ident: icmp.echo_ident(),
                sequence: icmp.echo_seq_no(),
                data: icmp.payload(),
                packet: bytes,
            }))
        }
        IpProtocol::Ipv6Frag => {
            // The length of the next header's own header is 8; its first fragment is answered.
            let header = payload.get(2..8).ok_or(Drop::Malformed)?;
            let header = Ipv6FragmentHeader::new_checked(header).map_err(malformed)?;
            Ok(if header.frag_offset() == 0 { Inbound::Unsupported(bytes) } else { Inbound::Chatter })
        }
        _ => Ok(Inbound::Unsupported(bytes)),
    }
}

fn neighbour(source: Ipv6Addr, destination: Ipv6Addr, payload: &[u8]) -> Inbound<'_> {
    let parsed = Icmpv6Packet::new_checked(payload)
        .and_then(|icmp| Icmpv6Repr::parse(&source, &destination, &icmp, &ChecksumCapabilities::default()));
    match parsed {
        // What comes from no address asks whether its own is taken. It is not.
        Ok(Icmpv6Repr::Ndisc(NdiscRepr::NeighborSolicit { target_addr, .. })) if !source.is_unspecified() => {
            Inbound::NeighbourSolicit { target: target_addr, from: source }
        }
        _ => Inbound::Chatter,
    }
}

/// Whether an address can stand for one machine beyond this link. An IPv4 address in IPv6's clothes never does on a wire, but the
/// host's sockets would reach the IPv4 address.
fn is_one(address: IpAddr) -> bool {
    address.to_canonical() == address
        && !address.is_multicast()
        && !address.is_unspecified()
        && address != IpAddr::V4(Ipv4Addr::BROADCAST)
}

fn segment<'a>(
    source: IpAddr,
    destination: IpAddr,
    payload: &[u8],
    packet: &'a [u8],
) -> Result<Inbound<'a>, Drop> {
    let tcp = TcpPacket::new_checked(payload).map_err(malformed)?;
    if tcp.src_port() == 0 || tcp.dst_port() == 0 {
        return Err(Drop::Malformed);
    }
    let (opens, resets) = (tcp.syn() && !tcp.ack() && !tcp.rst() && !tcp.fin(), tcp.rst());
    // These are acted upon before the stack has a socket that would look; all others are its to check.
    if (opens || resets) && !tcp.verify_checksum(&source.into(), &destination.into()) {
        return Err(Drop::Malformed);
    }
    Ok(Inbound::Segment(Segment {
        source: SocketAddr::new(source, tcp.src_port()),
        destination: SocketAddr::new(destination, tcp.dst_port()),
        opens,
        resets,
        packet,
    }))
}

fn udp<'a>(
    source: IpAddr,
    destination: IpAddr,
    payload: &'a [u8],
    dont_fragment: bool,
    packet: &'a [u8],
) -> Result<Inbound<'a>, Drop> {
    let udp = UdpPacket::new_checked(payload).map_err(malformed)?;
    let (from, to) = (IpAddress::from(source), IpAddress::from(destination));
    let ports = UdpRepr::parse(&udp, &from, &to, &ChecksumCapabilities::default()).map_err(malformed)?;
    Ok(Inbound::Datagram(Datagram {
        source: SocketAddr::new(source, ports.src_port),
        destination: SocketAddr::new(destination, ports.dst_port),
        payload: udp.payload(),
        dont_fragment,
        packet,
    }))
}
