//! Single frames of a guest, and what is in those to it.

use std::net::{Ipv4Addr, SocketAddr};

use forkyard_gateway::address::{GATEWAY_MAC, GUEST_IPV4, GUEST_MAC};
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    EthernetAddress, EthernetFrame, EthernetProtocol, Icmpv4Packet, Icmpv4Repr, IpProtocol, Ipv4Packet,
    Ipv4Repr, UdpPacket, UdpRepr,
};

/// A frame from the guest.
pub fn ethernet(protocol: EthernetProtocol, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 14 + payload.len()];
    let mut frame = EthernetFrame::new_unchecked(&mut bytes);
    frame.set_src_addr(EthernetAddress(GUEST_MAC));
    frame.set_dst_addr(EthernetAddress(GATEWAY_MAC));
    frame.set_ethertype(protocol);
    frame.payload_mut().copy_from_slice(payload);
    bytes
}

/// An IPv4 packet.
pub fn ipv4(from: Ipv4Addr, to: Ipv4Addr, protocol: IpProtocol, payload: &[u8]) -> Vec<u8> {
    let repr = Ipv4Repr {
        src_addr: from,
        dst_addr: to,
        next_header: protocol,
        payload_len: payload.len(),
        hop_limit: 64,
    };
    let mut bytes = vec![0; 20 + payload.len()];
    repr.emit(&mut Ipv4Packet::new_unchecked(&mut bytes), &ChecksumCapabilities::default());
    bytes[20..].copy_from_slice(payload);
    bytes
}

/// A UDP datagram of the guest's, in a frame.
pub fn udp(from_port: u16, to: SocketAddr, payload: &[u8]) -> Vec<u8> {
    let SocketAddr::V4(to) = to else { panic!("IPv4 only") };
    let repr = UdpRepr { src_port: from_port, dst_port: to.port() };
    let mut bytes = vec![0; 8 + payload.len()];
    let (from, dst) = (GUEST_IPV4.into(), (*to.ip()).into());
    repr.emit(
        &mut UdpPacket::new_unchecked(&mut bytes[..]),
        &from,
        &dst,
        payload.len(),
        |room| room.copy_from_slice(payload),
        &ChecksumCapabilities::default(),
    );
    ethernet(EthernetProtocol::Ipv4, &ipv4(GUEST_IPV4, *to.ip(), IpProtocol::Udp, &bytes))
}

/// The payload of an IPv4 packet of this protocol in a frame to the guest, and who it is from, all checksums right.
pub fn payload_of(frame: &[u8], protocol: IpProtocol) -> Option<(Ipv4Addr, Vec<u8>)> {
    let frame = EthernetFrame::new_checked(frame).ok()?;
    if frame.ethertype() != EthernetProtocol::Ipv4 {
        return None;
    }
    assert_eq!(frame.dst_addr().0, GUEST_MAC);
    let packet = Ipv4Packet::new_checked(frame.payload()).ok()?;
    assert!(packet.verify_checksum() && packet.dst_addr() == GUEST_IPV4);
    (packet.next_header() == protocol).then(|| (packet.src_addr(), packet.payload().to_vec()))
}

/// The type and code of an ICMP error to the guest.
pub fn icmp_of(frame: &[u8]) -> Option<(u8, u8)> {
    let (_, icmp) = payload_of(frame, IpProtocol::Icmp)?;
    assert!(Icmpv4Packet::new_checked(&icmp[..]).unwrap().verify_checksum());
    Some((icmp[0], icmp[1]))
}

/// What a datagram to the guest holds, whom it is from and for which port.
pub fn udp_payload(frame: &[u8]) -> Option<(SocketAddr, u16, Vec<u8>)> {
    let (from, bytes) = payload_of(frame, IpProtocol::Udp)?;
    let packet = UdpPacket::new_checked(&bytes[..]).unwrap();
    assert!(packet.verify_checksum(&from.into(), &GUEST_IPV4.into()));
    Some(((from, packet.src_port()).into(), packet.dst_port(), packet.payload().to_vec()))
}

/// An echo request of the guest's, in a frame.
pub fn echo_request(to: Ipv4Addr) -> Vec<u8> {
    let repr = Icmpv4Repr::EchoRequest { ident: 9, seq_no: 4, data: b"ping" };
    let mut bytes = vec![0; repr.buffer_len()];
    repr.emit(&mut Icmpv4Packet::new_unchecked(&mut bytes[..]), &ChecksumCapabilities::default());
    ethernet(EthernetProtocol::Ipv4, &ipv4(GUEST_IPV4, to, IpProtocol::Icmp, &bytes))
}
