//! The machine's network card. Its addresses are constants that the gateway at the other end knows too; nobody asks for them.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use forkyard_protocol::link;

use crate::netlink::{Message, Netlink, PUT};

const CARD: &str = "/sys/class/net/eth0";

// linux/rtnetlink.h, linux/if_link.h, linux/if_addr.h
const NEW_LINK: u16 = 16;
const NEW_ADDRESS: u16 = 20;
const NEW_ROUTE: u16 = 24;
const LINK_MTU: u16 = 4;
const ADDRESS_ADDRESS: u16 = 1;
const ADDRESS_LOCAL: u16 = 2;
const ADDRESS_FLAGS: u16 = 8;
/// Nobody else can have the address, so nobody needs to be asked, for a second, whether somebody has.
const NO_DETECTION: u32 = 0x02;
/// All goes through the gateway: nobody else is on the link.
const NO_SUBNET_ROUTE: u32 = 0x200;
const ROUTE_LINK: u16 = 4;
const ROUTE_GATEWAY: u16 = 5;
/// The gateway is on the link though no route says so.
const ON_LINK: u32 = 4;
const UP: u32 = 1;

// linux/sock_diag.h, linux/inet_diag.h, net/tcp_states.h
const BY_FAMILY: u16 = 20;
const DESTROY: u16 = 21;
const IPV4: u8 = 2;
const IPV6: u8 = 10;
const TCP: u8 = 6;
/// All but those that listen, are closed, or only wait for their port to be free again.
const CONNECTED: u32 = 0b1011_0011_1110;

/// What was done with the card. Linux's part of it costs an emulated guest a tenth of a second where it runs for the first time, so
/// a machine that is to be forked has all done in advance but the last step.
#[derive(Clone, Copy)]
enum Card {
    Untouched,
    /// It is up under this index and has its addresses. No route leads to it, not even to its own subnet: nothing can be sent.
    Prepared(u32),
    /// It has, or had, its routes.
    Used(u32),
}

/// How long the kernel may take to notice a cable.
const CABLE_NOTICED_WITHIN: Duration = Duration::from_secs(1);
/// How often it is asked.
const CABLE_LOOK: Duration = Duration::from_millis(1);

static CARD_NOW: Mutex<Card> = Mutex::new(Card::Untouched);

/// Does all that can be done before it is known whether the machine gets a network.
pub fn prepare() -> io::Result<()> {
    let mut card = CARD_NOW.lock().unwrap_or_else(PoisonError::into_inner);
    if let Card::Untouched = *card {
        let index = find()?;
        let netlink = Netlink::open(None)?;
        netlink.ask(&[set_link(index, true)])?;
        netlink.ask(&addresses(index))?;
        *card = Card::Prepared(index);
    }
    Ok(())
}

/// Has the card up with its addresses and routes, or without, where nothing can be sent and every attempt fails at once.
/// Connections that were open are reset.
pub fn set(up: bool) -> io::Result<()> {
    let mut card = CARD_NOW.lock().unwrap_or_else(PoisonError::into_inner);
    let index = match *card {
        Card::Untouched | Card::Prepared(_) if !up => return Ok(()),
        Card::Untouched => find()?,
        Card::Prepared(index) => {
            Netlink::open(None)?.ask(&routes(index))?;
            *card = Card::Used(index);
            await_cable();
            return Ok(());
        }
        Card::Used(index) => {
            reset_connections()?;
            index
        }
    };
    *card = Card::Used(index);
    let netlink = Netlink::open(None)?;
    netlink.ask(&[set_link(index, up)])?;
    if up {
        netlink.ask(&addresses(index))?;
        netlink.ask(&routes(index))?;
        await_cable();
    }
    Ok(())
}

/// Waits until the kernel has noticed that the cable was put in, which the host did a moment ago: until then its routes are dead,
/// and what a program sends fails. Where nobody put it in, the network is down, as it would be anyway.
fn await_cable() {
    let deadline = Instant::now() + CABLE_NOTICED_WITHIN;
    let is_up =
        || fs::read_to_string(Path::new(CARD).join("operstate")).is_ok_and(|state| state.trim() == "up");
    while !is_up() && Instant::now() < deadline {
        // The file tells nobody that it changed.
        std::thread::sleep(CABLE_LOOK);
    }
}

/// The card's index. Before it is used for the first time.
fn find() -> io::Result<u32> {
    let index = match fs::read_to_string(Path::new(CARD).join("ifindex")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(io::Error::other("this machine has no network card"));
        }
        text => text?.trim().parse().map_err(io::Error::other)?,
    };
    // While the cable is out, what would go there fails at once rather than after minutes.
    for family in ["ipv4", "ipv6"] {
        fs::write(format!("/proc/sys/net/{family}/conf/all/ignore_routes_with_linkdown"), "1")?;
    }
    // No link-local address: there are no neighbours, and what is sent from it would go unanswered.
    fs::write("/proc/sys/net/ipv6/conf/eth0/addr_gen_mode", "1")?;
    Ok(index)
}

/// The resolver's configuration while the network is up.
pub fn resolver() -> String {
    format!("nameserver {}\n", link::GATEWAY_IPV4)
}

fn set_link(index: u32, up: bool) -> Message {
    // ifinfomsg: family, type, index, flags, which of them change.
    let mut body = [0; 16];
    body[4..8].copy_from_slice(&index.to_ne_bytes());
    body[8..12].copy_from_slice(&if up { UP } else { 0 }.to_ne_bytes());
    body[12..16].copy_from_slice(&UP.to_ne_bytes());
    Message::new(NEW_LINK, 0, &body).with(LINK_MTU, &u32::from(link::MTU).to_ne_bytes())
}

fn addresses(index: u32) -> [Message; 2] {
    [
        add_address(index, IpAddr::V4(link::GUEST_IPV4), link::PREFIX_IPV4),
        add_address(index, IpAddr::V6(link::GUEST_IPV6), link::PREFIX_IPV6),
    ]
}

fn routes(index: u32) -> [Message; 2] {
    [IpAddr::V4(link::GATEWAY_IPV4), IpAddr::V6(link::GATEWAY_IPV6)].map(|to| add_default_route(index, to))
}

fn add_address(index: u32, address: IpAddr, prefix: u8) -> Message {
    // ifaddrmsg: family, prefix length, flags, scope, index.
    let mut body = [family(address), prefix, 0, 0, 0, 0, 0, 0];
    body[4..].copy_from_slice(&index.to_ne_bytes());
    Message::new(NEW_ADDRESS, PUT, &body)
        .with(ADDRESS_LOCAL, &octets(address))
        .with(ADDRESS_ADDRESS, &octets(address))
        .with(ADDRESS_FLAGS, &(NO_DETECTION | NO_SUBNET_ROUTE).to_ne_bytes())
}

fn add_default_route(index: u32, gateway: IpAddr) -> Message {
    // rtmsg: family, destination's and source's prefix length, type of service; the main table, set up at boot, everywhere,
    // unicast; flags.
    let mut body = [family(gateway), 0, 0, 0, 254, 3, 0, 1, 0, 0, 0, 0];
    body[8..].copy_from_slice(&ON_LINK.to_ne_bytes());
    Message::new(NEW_ROUTE, PUT, &body)
        .with(ROUTE_GATEWAY, &octets(gateway))
        .with(ROUTE_LINK, &index.to_ne_bytes())
}

fn family(address: IpAddr) -> u8 {
    if address.is_ipv4() { IPV4 } else { IPV6 }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// Resets connections over the card: whoever carried them is gone, and a program that only waits would never learn it.
fn reset_connections() -> io::Result<()> {
    let diagnosis = Netlink::open(Some(rustix::net::netlink::SOCK_DIAG))?;
    for family in [IPV4, IPV6] {
        let mut sockets = Vec::new();
        // inet_diag_req_v2: family, protocol, extensions, padding, states, and the socket's id of 48 bytes.
        let mut body = [0; 56];
        body[..2].copy_from_slice(&[family, TCP]);
        body[4..8].copy_from_slice(&CONNECTED.to_ne_bytes());
        diagnosis.list(&Message::new(BY_FAMILY, 0, &body), |entry| {
            // inet_diag_msg: family, state, timer, retransmissions, then the id.
            if let Some(id) = entry.get(4..52)
                && is_over_the_card(id)
            {
                sockets.push(id.to_vec());
            }
        })?;
        for id in sockets {
            body[8..].copy_from_slice(&id);
            match diagnosis.ask(&[Message::new(DESTROY, 0, &body)]) {
                // It ended meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                other => other?,
            }
        }
    }
    Ok(())
}

/// Whether a socket's id (ports of 2 bytes, then source and destination of 16) is of a connection from the card to elsewhere.
fn is_over_the_card(id: &[u8]) -> bool {
    let own = |address: &[u8]| {
        let mapped = link::GUEST_IPV4.to_ipv6_mapped().octets();
        let plain = link::GUEST_IPV4.octets();
        address == link::GUEST_IPV6.octets()
            || address == mapped
            || (address[..4] == plain && address[4..].iter().all(|byte| *byte == 0))
    };
    own(&id[4..20]) && !own(&id[20..36])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_leads_out_is_reset() {
        let id = |from: &[u8], to: &[u8]| {
            let mut id = [0; 48];
            id[4..4 + from.len()].copy_from_slice(from);
            id[20..20 + to.len()].copy_from_slice(to);
            is_over_the_card(&id)
        };
        let (guest, remote) = (link::GUEST_IPV4.octets(), [203, 0, 113, 7]);
        let mapped = link::GUEST_IPV4.to_ipv6_mapped().octets();
        assert!(
            id(&guest, &remote) && id(&mapped, &[0x20; 16]) && id(&link::GUEST_IPV6.octets(), &[0x20; 16])
        );
        assert!(!id(&[127, 0, 0, 1], &[127, 0, 0, 1]) && !id(&guest, &guest) && !id(&[0; 16], &[0; 16]));
    }

    #[test]
    fn states_that_listen_or_only_wait_are_left_alone() {
        // TCP_ESTABLISHED is 1, TCP_TIME_WAIT 6, TCP_CLOSE 7, TCP_LISTEN 10, TCP_CLOSING 11.
        let states: Vec<u32> = (0..16).filter(|state| CONNECTED & (1 << state) != 0).collect();
        assert_eq!(states, [1, 2, 3, 4, 5, 8, 9, 11]);
    }
}
