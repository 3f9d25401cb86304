//! What no machine reaches, whatever its policy says.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};

const fn v4(a: u8, b: u8, c: u8, d: u8, prefix: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), prefix)
}

const fn v6(head: [u16; 3], prefix: u8) -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::new(head[0], head[1], head[2], 0, 0, 0, 0, 0), prefix)
}

const PRIVATE: &str = "private addresses";
const LOOPBACK: &str = "loopback addresses";
const LINK_LOCAL: &str = "link-local addresses";
const METADATA: &str = "cloud metadata addresses";
const MULTICAST: &str = "multicast addresses";
const RESERVED: &str = "reserved addresses";

/// IPv4, by the IANA registry of special-purpose addresses (RFC 6890). The documentation ranges of RFC 5737 are not among
/// them: nothing is routed there, and test benches live in them.
const REFUSED_V4: [(Ipv4Net, &str); 16] = [
    (v4(0, 0, 0, 0, 8), "addresses of this network"), // RFC 791, section 3.2; Linux connects 0.0.0.0 to itself
    (v4(10, 0, 0, 0, 8), PRIVATE),                    // RFC 1918
    (v4(100, 100, 100, 200, 32), METADATA),           // Alibaba Cloud
    (v4(100, 64, 0, 0, 10), "carrier addresses"),     // RFC 6598
    (v4(127, 0, 0, 0, 8), LOOPBACK),                  // RFC 1122, section 3.2.1.3
    (v4(168, 63, 129, 16, 32), METADATA), // Azure: a public address that each of its hosts answers
    (v4(169, 254, 169, 254, 32), METADATA), // nearly every cloud
    (v4(169, 254, 0, 0, 16), LINK_LOCAL), // RFC 3927
    (v4(172, 16, 0, 0, 12), PRIVATE),     // RFC 1918
    (v4(192, 0, 0, 0, 24), RESERVED),     // RFC 6890; Oracle Cloud's metadata is in it
    (v4(192, 88, 99, 0, 24), RESERVED),   // RFC 7526: relays of 6to4, withdrawn
    (v4(192, 168, 0, 0, 16), PRIVATE),    // RFC 1918
    (v4(198, 18, 0, 0, 15), "benchmarking addresses"), // RFC 2544
    (v4(224, 0, 0, 0, 4), MULTICAST),     // RFC 5771
    (v4(255, 255, 255, 255, 32), "broadcast"), // RFC 919
    (v4(240, 0, 0, 0, 4), RESERVED),      // RFC 1112, section 4
];

/// IPv6 by name. What is in none of them and not global unicast is refused as reserved.
const REFUSED_V6: [(Ipv6Net, &str); 7] = [
    (v6([0xfc00, 0, 0], 7), PRIVATE), // RFC 4193; with fd00:ec2::254, the metadata of AWS
    (v6([0xfe80, 0, 0], 10), LINK_LOCAL), // RFC 4291, section 2.5.6
    (v6([0xfec0, 0, 0], 10), PRIVATE), // RFC 3879: site-local, withdrawn
    (v6([0xff00, 0, 0], 8), MULTICAST), // RFC 4291, section 2.7
    (v6([0x64, 0xff9b, 1], 48), PRIVATE), // RFC 8215: NAT64 for local use
    (v6([0x100, 0, 0], 64), "discarded addresses"), // RFC 6666
    (v6([0x2001, 2, 0], 48), "benchmarking addresses"), // RFC 5180
];

/// The only unicast that is global (RFC 4291, section 2.4, and the IANA registry).
const GLOBAL_V6: Ipv6Net = v6([0x2000, 0, 0], 3);
/// NAT64's well-known prefix (RFC 6052, section 2.1): the last 32 bits are an IPv4 address.
const NAT64: Ipv6Net = v6([0x64, 0xff9b, 0], 96);
/// 6to4 (RFC 3056, section 2): bits 16 to 47 are an IPv4 address.
const SIX_TO_FOUR: Ipv6Net = v6([0x2002, 0, 0], 16);
/// Teredo (RFC 4380, section 4): bits 32 to 63 are its server's IPv4 address, the last 32 its client's, inverted.
const TEREDO: Ipv6Net = v6([0x2001, 0, 0], 32);

/// Why no machine reaches this address; `None` for one that a policy may allow.
pub fn refused(address: IpAddr) -> Option<&'static str> {
    match address.to_canonical() {
        IpAddr::V4(address) => refused_v4(address),
        IpAddr::V6(address) => refused_v6(address),
    }
}

fn refused_v4(address: Ipv4Addr) -> Option<&'static str> {
    REFUSED_V4.iter().find(|(network, _)| network.contains(&address)).map(|(_, name)| *name)
}

fn refused_v6(address: Ipv6Addr) -> Option<&'static str> {
    if address.is_loopback() {
        return Some(LOOPBACK);
    }
    if let Some((_, name)) = REFUSED_V6.iter().find(|(network, _)| network.contains(&address)) {
        return Some(name);
    }
    if let Some(name) = embedded(address).into_iter().flatten().find_map(refused_v4) {
        return Some(name);
    }
    // Among these `::` and the IPv4-compatible addresses (RFC 4291, section 2.5.5.1, withdrawn).
    (!GLOBAL_V6.contains(&address) && !NAT64.contains(&address)).then_some(RESERVED)
}

/// The IPv4 addresses that a packet to this one may come to in the end.
pub fn embedded(address: Ipv6Addr) -> [Option<Ipv4Addr>; 2] {
    let octets = address.octets();
    let at =
        |index: usize| Ipv4Addr::new(octets[index], octets[index + 1], octets[index + 2], octets[index + 3]);
    if NAT64.contains(&address) {
        [Some(at(12)), None]
    } else if SIX_TO_FOUR.contains(&address) {
        [Some(at(2)), None]
    } else if TEREDO.contains(&address) {
        [Some(at(4)), Some(Ipv4Addr::from_bits(!at(12).to_bits()))]
    } else {
        [None, None]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn why(address: &str) -> Option<&'static str> {
        refused(address.parse().unwrap())
    }

    #[test]
    fn what_is_refused_always() {
        for (address, name) in [
            ("0.0.0.0", "addresses of this network"),
            ("0.255.255.255", "addresses of this network"),
            ("10.0.0.1", PRIVATE),
            ("10.255.255.255", PRIVATE),
            ("100.64.0.0", "carrier addresses"),
            ("100.127.255.255", "carrier addresses"),
            ("100.100.100.200", METADATA),
            ("127.0.0.1", LOOPBACK),
            ("127.255.255.254", LOOPBACK),
            ("168.63.129.16", METADATA),
            ("169.254.0.1", LINK_LOCAL),
            ("169.254.169.254", METADATA),
            ("172.16.0.1", PRIVATE),
            ("172.31.255.255", PRIVATE),
            ("192.0.0.192", RESERVED),
            ("192.88.99.1", RESERVED),
            ("192.168.1.1", PRIVATE),
            ("198.19.255.255", "benchmarking addresses"),
            ("224.0.0.1", MULTICAST),
            ("239.255.255.255", MULTICAST),
            ("240.0.0.1", RESERVED),
            ("255.255.255.255", "broadcast"),
            ("::", RESERVED),
            ("::1", LOOPBACK),
            ("::ffff:127.0.0.1", LOOPBACK),
            ("::ffff:169.254.169.254", METADATA),
            ("::ffff:0:0", "addresses of this network"),
            ("::127.0.0.1", RESERVED),
            ("::8.8.8.8", RESERVED),
            ("64:ff9b::10.0.0.1", PRIVATE),
            ("64:ff9b::169.254.169.254", METADATA),
            ("64:ff9b:1::8.8.8.8", PRIVATE),
            ("2002:7f00:1::1", LOOPBACK),
            ("2002:a9fe:a9fe::", METADATA),
            ("2001:0:a00:1::f7f7:f7f7", PRIVATE), // server 10.0.0.1, client 8.8.8.8
            ("2001:0:808:808::f5ff:fffe", PRIVATE), // server 8.8.8.8, client 10.0.0.1
            ("fc00::1", PRIVATE),
            ("fd00:ec2::254", PRIVATE),
            ("fe80::1", LINK_LOCAL),
            ("fec0::1", PRIVATE),
            ("ff02::1", MULTICAST),
            ("100::1", "discarded addresses"),
            ("2001:2::1", "benchmarking addresses"),
            ("4000::1", RESERVED),
        ] {
            assert_eq!(why(address), Some(name), "{address}");
        }
    }

    #[test]
    fn what_a_policy_may_allow() {
        for address in [
            "1.1.1.1",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "126.255.255.255",
            "128.0.0.0",
            "169.253.255.255",
            "172.15.255.255",
            "172.32.0.0",
            "192.0.2.1",
            "198.51.100.1",
            "203.0.113.1",
            "223.255.255.255",
            "::ffff:203.0.113.1",
            "64:ff9b::203.0.113.1",
            "2002:cb00:7101::1",
            "2001:0:808:808::f7f7:f7f7",
            "2001:db8::1",
            "2606:4700:4700::1111",
        ] {
            assert_eq!(why(address), None, "{address}");
        }
    }
}
