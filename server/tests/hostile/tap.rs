//! All that a host sends, on its cable and to itself, whoever sends it.

use std::collections::BTreeSet;
use std::io::Read as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};

use crate::outside::{HOST, PAGE, RESOLVER};

const EVERYTHING: u16 = 3;
const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMP6: u8 = 58;

/// What was seen that nobody should have sent, and what was seen that somebody should.
#[derive(Default)]
struct Seen {
    strange: BTreeSet<String>,
    page: usize,
}

/// A packet socket on all of the interfaces of this thread's namespace.
pub struct Tap(Arc<Mutex<Seen>>);

impl Tap {
    /// Looks at all that is sent from now on. The server's own port is nothing strange.
    pub fn new(api: u16) -> Self {
        let protocol = Protocol::from(i32::from(EVERYTHING.to_be()));
        let mut socket =
            Socket::new(Domain::PACKET, Type::RAW, Some(protocol)).expect("root, in its own namespace");
        rustix::net::sockopt::set_socket_recv_buffer_size_force(&socket, 64 << 20).unwrap();
        let seen = Arc::<Mutex<Seen>>::default();
        let notes = seen.clone();
        std::thread::spawn(move || {
            let mut frame = vec![0; 1 << 17];
            loop {
                let count = socket.read(&mut frame).unwrap();
                note(&mut notes.lock().unwrap(), &frame[..count], api);
            }
        });
        Self(seen)
    }

    /// What was sent that should not have been, so far: up to a datagram that is sent now.
    pub fn strange(&self) -> BTreeSet<String> {
        let marker = "17 192.0.2.99:9";
        let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.send_to(b"all before has been seen", "192.0.2.99:9").unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        while !self.0.lock().unwrap().strange.contains(marker) {
            assert!(Instant::now() < deadline, "the tap sees nothing");
            std::thread::sleep(Duration::from_millis(2));
        }
        let mut strange = std::mem::take(&mut self.0.lock().unwrap().strange);
        strange.remove(marker);
        strange
    }

    /// Packets to the page, so far.
    pub fn to_the_page(&self) -> usize {
        self.0.lock().unwrap().page
    }
}

fn note(seen: &mut Seen, frame: &[u8], api: u16) {
    let Some((ethernet, packet)) = frame.split_at_checked(14) else { return };
    let Some((protocol, from, to, payload)) = read(ethernet, packet) else { return };
    let port = |at: usize| payload.get(at..at + 2).map_or(0, |port| u16::from_be_bytes([port[0], port[1]]));
    let (from_port, to_port) = if protocol == TCP || protocol == UDP { (port(0), port(2)) } else { (0, 0) };
    // Loopback's frames are from nobody to nobody.
    let is_loopback = ethernet[..12] == [0; 12];
    let kind = payload.first().copied().unwrap_or_default();
    let is_right = if is_loopback {
        protocol == TCP && (from_port == api || to_port == api) && from.is_loopback() && to.is_loopback()
    } else if HOST.contains(&to) {
        // Answers. Nothing outside begins anything.
        from == IpAddr::V4(RESOLVER) || PAGE.contains(&from) || protocol == ICMP6
    } else if PAGE.contains(&to) {
        seen.page += 1;
        protocol == TCP && (to_port == 80 || to_port == 443)
    } else if to == IpAddr::V4(RESOLVER) {
        // The kernel says that nobody listens any more where an answer came late.
        to_port == 53 || (protocol == ICMP && kind == 3)
    } else {
        // Both kernels look for neighbours and say which groups they are in.
        protocol == ICMP6 && (130..=143).contains(&kind)
    };
    if !is_right {
        seen.strange.insert(format!("{protocol} {}", std::net::SocketAddr::new(to, to_port)));
    }
}

/// A packet's protocol, source, destination and payload; none of what is not IP.
fn read<'a>(ethernet: &[u8], packet: &'a [u8]) -> Option<(u8, IpAddr, IpAddr, &'a [u8])> {
    match ethernet[12..] {
        [8, 0] => {
            let address = |at: usize| -> Option<IpAddr> {
                Some(Ipv4Addr::from_octets(*packet.get(at..)?.first_chunk()?).into())
            };
            let payload = packet.get(usize::from(packet.first()? & 0xf) * 4..)?;
            Some((*packet.get(9)?, address(12)?, address(16)?, payload))
        }
        [0x86, 0xdd] => {
            let address = |at: usize| -> Option<IpAddr> {
                Some(Ipv6Addr::from_octets(*packet.get(at..)?.first_chunk()?).into())
            };
            // Reports of groups have a header of hops before them.
            let (protocol, payload) = match *packet.get(6)? {
                0 => (*packet.get(40)?, packet.get(48..)?),
                protocol => (protocol, packet.get(40..)?),
            };
            Some((protocol, address(8)?, address(24)?, payload))
        }
        _ => None,
    }
}
