use smoltcp::wire::{
    DHCP_CLIENT_PORT, DHCP_SERVER_PORT, DhcpMessageType, DhcpPacket, DhcpRepr, EthernetAddress,
};

use super::outbound::datagram;
use crate::address::{GATEWAY_IPV4, GUEST_IPV4, GUEST_MAC, PREFIX_IPV4};
use crate::outbox::Outbox;

/// The address never changes, so a client need not ask again: a day.
const LEASE_SECS: u32 = 24 * 60 * 60;

/// Answers a DHCP message: whatever the guest asks for, it gets its one address, or a refusal. Other messages need no answer.
pub fn answer(out: &mut Outbox, message: &[u8]) {
    let Ok(packet) = DhcpPacket::new_checked(message) else { return };
    let Ok(request) = DhcpRepr::parse(&packet) else { return };
    if request.client_hardware_address != EthernetAddress(GUEST_MAC) {
        return;
    }
    let wanted = request.requested_ip.or((!request.client_ip.is_unspecified()).then_some(request.client_ip));
    let message_type = match request.message_type {
        DhcpMessageType::Discover => DhcpMessageType::Offer,
        DhcpMessageType::Request if wanted.is_some_and(|wanted| wanted != GUEST_IPV4) => DhcpMessageType::Nak,
        DhcpMessageType::Request => DhcpMessageType::Ack,
        _ => return,
    };
    let given = message_type != DhcpMessageType::Nak;
    let reply = DhcpRepr {
        message_type,
        transaction_id: request.transaction_id,
        secs: 0,
        client_hardware_address: EthernetAddress(GUEST_MAC),
        client_ip: request.client_ip,
        your_ip: if given { GUEST_IPV4 } else { std::net::Ipv4Addr::UNSPECIFIED },
        server_ip: GATEWAY_IPV4,
        router: given.then_some(GATEWAY_IPV4),
        subnet_mask: given.then(|| smoltcp::wire::Ipv4Cidr::new(GUEST_IPV4, PREFIX_IPV4).netmask()),
        relay_agent_ip: std::net::Ipv4Addr::UNSPECIFIED,
        broadcast: request.broadcast,
        requested_ip: None,
        client_identifier: None,
        server_identifier: Some(GATEWAY_IPV4),
        parameter_request_list: None,
        dns_servers: given.then(|| std::iter::once(GATEWAY_IPV4).collect()),
        max_size: None,
        lease_duration: given.then_some(LEASE_SECS),
        renew_duration: None,
        rebind_duration: None,
        additional_options: &[],
    };
    let mut bytes = vec![0; reply.buffer_len()];
    if reply.emit(&mut DhcpPacket::new_unchecked(&mut bytes[..])).is_ok() {
        datagram(out, (GATEWAY_IPV4, DHCP_SERVER_PORT).into(), DHCP_CLIENT_PORT, &bytes, 0);
    }
}
