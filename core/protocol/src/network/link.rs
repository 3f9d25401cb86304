//! Who is who on a machine's link. Each machine has a gateway of its own, so all may use the same addresses, and forks keep theirs.
//! The guest's agent configures these without asking; the gateway's DHCP answers with the same.

use std::net::{Ipv4Addr, Ipv6Addr};

/// The guest's hardware address: that of its network card.
pub const GUEST_MAC: [u8; 6] = [0x52, 0x54, 0x00, 0x12, 0x34, 0x56];
/// The gateway's hardware address.
pub const GATEWAY_MAC: [u8; 6] = [0x52, 0x55, 0x0a, 0x00, 0x02, 0x02];

/// The guest's address.
pub const GUEST_IPV4: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 15);
/// The gateway's address, its resolver's too.
pub const GATEWAY_IPV4: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);
/// Length of the IPv4 prefix that both are in.
pub const PREFIX_IPV4: u8 = 24;

/// The guest's address.
pub const GUEST_IPV6: Ipv6Addr = Ipv6Addr::new(0xfd67, 0x7761, 0x7900, 0, 0, 0, 0, 0x15);
/// The gateway's address, its resolver's too.
pub const GATEWAY_IPV6: Ipv6Addr = Ipv6Addr::new(0xfd67, 0x7761, 0x7900, 0, 0, 0, 0, 2);
/// Length of the IPv6 prefix that both are in.
pub const PREFIX_IPV6: u8 = 64;

/// Largest IP packet on the link, in bytes.
pub const MTU: u16 = 1500;
/// Where the gateway answers DNS, over UDP and TCP.
pub const DNS_PORT: u16 = 53;
