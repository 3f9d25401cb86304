//! Who is who on a machine's link, as the guest's agent knows it too.

use std::net::IpAddr;

use forkyard_protocol::link;
pub use forkyard_protocol::link::{
    DNS_PORT, GATEWAY_IPV4, GATEWAY_IPV6, GATEWAY_MAC, GUEST_IPV4, GUEST_IPV6, GUEST_MAC, PREFIX_IPV4,
    PREFIX_IPV6,
};

/// Largest IP packet on the link, in bytes.
pub const MTU: usize = link::MTU as usize;

/// Whether this is one of the gateway's own addresses.
pub fn is_gateway(address: IpAddr) -> bool {
    address == GATEWAY_IPV4 || address == GATEWAY_IPV6
}

/// The guest's address in the family of another.
pub fn guest_beside(address: IpAddr) -> IpAddr {
    if address.is_ipv4() { GUEST_IPV4.into() } else { GUEST_IPV6.into() }
}
