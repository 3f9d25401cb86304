//! A guest's frames all the way: QEMU's stream in, the stack, QEMU's stream out. The policy allows nothing, so that no chance leads
//! out of the process; the gateway's own resolver takes TCP all the same.

use std::net::Ipv4Addr;
use std::sync::Once;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use forkyard_gateway::address::{GATEWAY_IPV4, GATEWAY_MAC, GUEST_IPV4, GUEST_IPV6, GUEST_MAC, MTU};
use forkyard_gateway::dns::DnsConfig;
use forkyard_gateway::policy::Operator;
use forkyard_gateway::{Gateway, link};
use forkyard_protocol::NetworkPolicy;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, DhcpMessageType, DhcpPacket, DhcpRepr, EthernetAddress, EthernetFrame,
    EthernetProtocol, Icmpv4Packet, Icmpv6Packet, IpAddress, IpProtocol, Ipv4Packet, Ipv6Packet, TcpPacket,
    TcpRepr, TcpSeqNumber, UdpPacket, UdpRepr,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::task::{LocalSet, spawn_local};
use tokio::time::timeout;

/// The frame is sent between the right hardware addresses, which it lacks, and with right checksums.
const MENDED: u8 = 1;
/// TCP acknowledges what the gateway sent last.
const ACKNOWLEDGES: u8 = 2;

/// Who has the gateway's address, by ARP and by IPv6.
pub const NEIGHBOURS: &[u8] =
    b"\x01\0\x1e\x08\x06\0\x01\x08\0\x06\x04\0\x01\x52\x54\0\x12\x34\x56\x0a\0\x02\x0f\
    \0\0\0\0\0\0\x0a\0\x02\x02\
    \x01\0\x42\x86\xdd\x60\0\0\0\0\x18\x3a\xff\xfd\x67\x77\x61\x79\0\0\0\0\0\0\0\0\0\0\x15\
    \xff\x02\0\0\0\0\0\0\0\0\0\x01\xff\0\0\x02\x87\0\0\0\0\0\0\0\xfd\x67\x77\x61\x79\0\0\0\0\0\0\0\0\0\0\x02";
/// The gateway is pinged, by IPv4 and by IPv6.
pub const PINGS: &[u8] = b"\x01\0\x22\x08\0\x45\0\0\x20\0\x01\0\0\x40\x01\0\0\x0a\0\x02\x0f\x0a\0\x02\x02\
    \x08\0\0\0\0\x09\0\x04ping\
    \x01\0\x36\x86\xdd\x60\0\0\0\0\x0c\x3a\x40\xfd\x67\x77\x61\x79\0\0\0\0\0\0\0\0\0\0\x15\
    \xfd\x67\x77\x61\x79\0\0\0\0\0\0\0\0\0\0\x02\x80\0\0\0\0\x09\0\x04ping";
/// What is not allowed: a datagram, a connection, a fragment.
pub const REFUSED: &[u8] = b"\x01\0\x22\x08\0\x45\0\0\x20\0\x01\0\0\x40\x11\0\0\x0a\0\x02\x0f\x7f\0\0\x01\
    \x13\x88\0\x09\0\x0c\0\0data\
    \x01\0\x2e\x08\0\x45\0\0\x2c\0\x01\x40\0\x40\x06\0\0\x0a\0\x02\x0f\x0a\x01\x02\x03\
    \x12\x34\0\x50\0\0\0\x01\0\0\0\0\x60\x02\xff\xff\0\0\0\0\x02\x04\x05\xb4\
    \x01\0\x26\x08\0\x45\0\0\x24\0\x01\x20\0\x40\x11\0\0\x0a\0\x02\x0f\xc6\x33\x64\x07\
    \x13\x88\0\x09\0\x20\0\0fragment";
/// The resolver is asked in a datagram.
pub const QUERY: &[u8] = b"\x01\0\x44\x08\0\x45\0\0\x42\0\x01\0\0\x40\x11\0\0\x0a\0\x02\x0f\x0a\0\x02\x02\
    \x14\xe9\0\x35\0\x2e\0\0\x12\x34\x01\0\0\x01\0\0\0\0\0\x01\x01a\x07example\0\0\x01\0\x01\0\0\x29\x04\xd0\0\0\0\0\0\0";
/// And over a connection, which is closed then: a handshake, the query, the end.
pub const CONVERSATION: &[u8] =
    b"\x01\0\x2e\x08\0\x45\0\0\x2c\0\x01\x40\0\x40\x06\0\0\x0a\0\x02\x0f\x0a\0\x02\x02\
    \x12\x34\0\x35\0\0\0\x01\0\0\0\0\x60\x02\xff\xff\0\0\0\0\x02\x04\x05\xb4\
    \x03\0\x2a\x08\0\x45\0\0\x28\0\x02\x40\0\x40\x06\0\0\x0a\0\x02\x0f\x0a\0\x02\x02\
    \x12\x34\0\x35\0\0\0\x02\0\0\0\0\x50\x10\xff\xff\0\0\0\0\
    \x03\0\x52\x08\0\x45\0\0\x50\0\x03\x40\0\x40\x06\0\0\x0a\0\x02\x0f\x0a\0\x02\x02\
    \x12\x34\0\x35\0\0\0\x02\0\0\0\0\x50\x18\xff\xff\0\0\0\0\
    \0\x26\x12\x34\x01\0\0\x01\0\0\0\0\0\x01\x01a\x07example\0\0\x01\0\x01\0\0\x29\x04\xd0\0\0\0\0\0\0\
    \x03\0\x2a\x08\0\x45\0\0\x28\0\x04\x40\0\x40\x06\0\0\x0a\0\x02\x0f\x0a\0\x02\x02\
    \x12\x34\0\x35\0\0\0\x2a\0\0\0\0\x50\x11\xff\xff\0\0\0\0";

/// A DHCP client asks who is there.
pub const DISCOVER: &[u8] = &dhcp_message([0x35, 1, 1, 0xff, 0, 0, 0, 0, 0, 0]);
/// It wants an address that it does not get.
pub const REQUEST: &[u8] = &dhcp_message([0x35, 1, 3, 0x32, 4, 10, 0, 2, 99, 0xff]);

const fn dhcp_message(options: [u8; 10]) -> [u8; 250] {
    let mut message = [0; 250];
    let head = [1, 1, 6, 0, 0x12, 0x34, 0x56, 0x78];
    let cookie = [0x63, 0x82, 0x53, 0x63];
    let mut at = 0;
    while at < options.len() {
        if at < head.len() {
            message[at] = head[at];
        }
        if at < GUEST_MAC.len() {
            message[28 + at] = GUEST_MAC[at];
        }
        if at < cookie.len() {
            message[236 + at] = cookie[at];
        }
        message[240 + at] = options[at];
        at += 1;
    }
    message
}

/// Any frames in any order: the gateway goes on, and says nothing that a card could not take.
pub fn frames(bytes: &[u8]) {
    answers(bytes);
}

/// What the gateway says to these steps. Each is a byte of how, two of length, and a frame.
pub fn answers(mut bytes: &[u8]) -> Vec<Vec<u8>> {
    with_gateway(async |link| {
        while let [how, high, low, rest @ ..] = bytes {
            let len = usize::from(u16::from_be_bytes([*high, *low])).min(rest.len());
            let (frame, after) = rest.split_at(len);
            bytes = after;
            if how & ACKNOWLEDGES != 0 {
                // What another task has to say has been said by then, below too.
                link.say(&[]).await;
            }
            if how & MENDED != 0 {
                let mut frame = [&GATEWAY_MAC[..], &GUEST_MAC, frame].concat();
                mend(&mut frame, (how & ACKNOWLEDGES != 0).then_some(link.acknowledged));
                link.say(&frame).await;
            } else {
                link.say(frame).await;
            }
        }
        link.say(&[]).await;
    })
}

/// A DHCP message: whatever it says, there is one address, for one card.
pub fn dhcp(bytes: &[u8]) {
    let message = &bytes[..bytes.len().min(MTU)];
    let replies = dhcp_replies(message);
    assert!(replies.len() <= 1, "{} answers", replies.len());
    for reply in replies {
        assert_eq!(message.get(28..34), Some(&GUEST_MAC[..]), "another card's");
        let reply = DhcpPacket::new_checked(&reply[..]).expect("a DHCP message");
        let reply = DhcpRepr::parse(&reply).expect("a DHCP message that can be read");
        assert_eq!(reply.transaction_id.to_be_bytes(), message[4..8], "somebody else's transaction");
        assert_eq!(reply.server_identifier, Some(GATEWAY_IPV4));
        let given = match reply.message_type {
            DhcpMessageType::Offer | DhcpMessageType::Ack => GUEST_IPV4,
            DhcpMessageType::Nak => Ipv4Addr::UNSPECIFIED,
            other => panic!("{other:?} is no answer"),
        };
        assert_eq!(reply.your_ip, given);
    }
}

/// What the gateway says to this message of a card that has no address yet.
pub fn dhcp_replies(message: &[u8]) -> Vec<Vec<u8>> {
    let len = u16::try_from(message.len()).expect("no more than the MTU");
    let mut frame =
        [&[0xff; 6], &GUEST_MAC[..], b"\x08\0\x45\0\0\0\0\x01\0\0\x40\x11\0\0\0\0\0\0\xff\xff\xff\xff"]
            .concat();
    frame[16..18].copy_from_slice(&(20 + 8 + len).to_be_bytes());
    frame.extend_from_slice(b"\0\x44\0\x43");
    frame.extend_from_slice(&(8 + len).to_be_bytes());
    frame.extend_from_slice(&[0, 0]);
    frame.extend_from_slice(message);
    mend(&mut frame, None);
    let said = with_gateway(async |link| link.say(&frame).await);
    said.into_iter().map(|frame| frame[14 + 20 + 8..].to_vec()).collect()
}

/// The guest's end of a gateway.
struct Link {
    stream: UnixStream,
    unread: Vec<u8>,
    said: Vec<Vec<u8>>,
    /// What comes after the TCP that the gateway sent last.
    acknowledged: TcpSeqNumber,
    /// How often it was asked whether it lives.
    asked: u8,
}

/// What the gateway says while somebody speaks to it. A panic of any of its tasks is one here.
fn with_gateway(act: impl AsyncFnOnce(&mut Link)) -> Vec<Vec<u8>> {
    static PANICS: AtomicUsize = AtomicUsize::new(0);
    static HOOK: Once = Once::new();
    thread_local! {
        static RUNTIME: tokio::runtime::Runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    }
    // Tokio keeps a task's panic to itself.
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            PANICS.fetch_add(1, Ordering::SeqCst);
            before(info);
        }));
    });
    let panics = PANICS.load(Ordering::SeqCst);
    let said = RUNTIME.with(|runtime| {
        LocalSet::new().block_on(runtime, async {
            let (stream, qemu) = UnixStream::pair().expect("a pair of sockets");
            let dns = DnsConfig { queries_per_second: u32::MAX, ..DnsConfig::default() };
            let gateway = Gateway::new(&NetworkPolicy::default(), Operator::default(), dns, 7);
            let gateway = gateway.expect("a policy that is one");
            let carried = spawn_local(async move { link::run(&gateway, &qemu).await });
            let mut link = Link {
                stream,
                unread: Vec::new(),
                said: Vec::new(),
                acknowledged: TcpSeqNumber(0),
                asked: 0,
            };
            timeout(Duration::from_secs(10), act(&mut link)).await.expect("it answers");
            let Link { stream, said, .. } = link;
            drop(stream);
            carried.await.expect("it does not panic").expect("it ends with its guest");
            said
        })
    });
    assert_eq!(PANICS.load(Ordering::SeqCst), panics, "a task panicked");
    said
}

impl Link {
    /// Says something, and hears what there is until the gateway has answered a question behind it: it goes on.
    async fn say(&mut self, frame: &[u8]) {
        self.asked = self.asked.wrapping_add(1);
        let asked = [10, 0, 3, self.asked];
        let question = ArpRepr::EthernetIpv4 {
            operation: ArpOperation::Request,
            source_hardware_addr: EthernetAddress(GUEST_MAC),
            source_protocol_addr: GUEST_IPV4,
            target_hardware_addr: EthernetAddress([0; 6]),
            target_protocol_addr: asked.into(),
        };
        let mut bytes = [&GATEWAY_MAC[..], &GUEST_MAC, &[8, 6], &[0; 28]].concat();
        question.emit(&mut ArpPacket::new_unchecked(&mut bytes[14..]));
        for frame in [frame, &bytes] {
            let len = u32::try_from(frame.len()).expect("two bytes of length");
            self.stream.write_all(&len.to_be_bytes()).await.expect("it reads");
            self.stream.write_all(frame).await.expect("it reads");
        }
        loop {
            let mut alive = false;
            for frame in self.frames().await {
                self.check(&frame);
                if frame[12..14] == [8, 6] && frame[28..32] == asked {
                    alive = true;
                } else {
                    self.said.push(frame);
                }
            }
            if alive {
                return;
            }
        }
    }

    /// The frames that have come; one at the least.
    async fn frames(&mut self) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        while frames.is_empty() {
            assert_ne!(self.stream.read_buf(&mut self.unread).await.expect("it writes"), 0, "it ended");
            let mut at = 0;
            while let Some(len) = self.unread[at..].first_chunk::<4>() {
                let end = at + 4 + u32::from_be_bytes(*len) as usize;
                let Some(frame) = self.unread.get(at + 4..end) else { break };
                frames.push(frame.to_vec());
                at = end;
            }
            self.unread.drain(..at);
        }
        frames
    }

    /// Whether a card could take it, and a guest's stack read it.
    fn check(&mut self, bytes: &[u8]) {
        let frame = EthernetFrame::new_checked(bytes).expect("a frame");
        assert_eq!((frame.src_addr().0, frame.dst_addr().0), (GATEWAY_MAC, GUEST_MAC));
        assert!(frame.payload().len() <= MTU, "{} bytes", bytes.len());
        match frame.ethertype() {
            EthernetProtocol::Arp => {
                let packet = ArpPacket::new_checked(frame.payload()).expect("ARP");
                assert_eq!(packet.operation(), ArpOperation::Reply);
                assert_ne!(packet.source_protocol_addr(), GUEST_IPV4.octets(), "the guest's own address");
            }
            EthernetProtocol::Ipv4 => {
                let packet = Ipv4Packet::new_checked(frame.payload()).expect("IPv4");
                assert!(packet.verify_checksum() && usize::from(packet.total_len()) == frame.payload().len());
                assert_eq!(packet.dst_addr(), GUEST_IPV4);
                let (from, to) = (packet.src_addr().into(), packet.dst_addr().into());
                self.check_payload(packet.next_header(), packet.payload(), from, to);
            }
            EthernetProtocol::Ipv6 => {
                let packet = Ipv6Packet::new_checked(frame.payload()).expect("IPv6");
                assert_eq!(packet.total_len(), frame.payload().len());
                let to = packet.dst_addr();
                assert!(to == GUEST_IPV6 || to.is_unicast_link_local(), "to {to}");
                self.check_payload(
                    packet.next_header(),
                    packet.payload(),
                    packet.src_addr().into(),
                    to.into(),
                );
            }
            EthernetProtocol::Unknown(other) => panic!("a frame of {other:#x}"),
        }
    }

    fn check_payload(&mut self, protocol: IpProtocol, payload: &[u8], from: IpAddress, to: IpAddress) {
        let right = &ChecksumCapabilities::default();
        match protocol {
            IpProtocol::Tcp => {
                let packet = TcpPacket::new_checked(payload).expect("TCP");
                TcpRepr::parse(&packet, &from, &to, right).expect("TCP that can be read");
                self.acknowledged = packet.seq_number() + packet.segment_len();
            }
            IpProtocol::Udp => {
                let packet = UdpPacket::new_checked(payload).expect("UDP");
                UdpRepr::parse(&packet, &from, &to, right).expect("UDP that can be read");
            }
            IpProtocol::Icmp => {
                assert!(Icmpv4Packet::new_checked(payload).expect("ICMP").verify_checksum());
            }
            IpProtocol::Icmpv6 => {
                let (IpAddress::Ipv6(from), IpAddress::Ipv6(to)) = (from, to) else {
                    panic!("ICMPv6 in IPv4");
                };
                assert!(Icmpv6Packet::new_checked(payload).expect("ICMPv6").verify_checksum(&from, &to));
            }
            other => panic!("a packet of {other}"),
        }
    }
}

/// Puts right checksums where there is room for them, so that more than the first of them is looked at.
fn mend(frame: &mut [u8], acknowledged: Option<TcpSeqNumber>) {
    let Some((ethernet, packet)) = frame.split_at_mut_checked(14) else { return };
    match ethernet[12..] {
        [8, 0] => {
            let Ok(mut packet) = Ipv4Packet::new_checked(packet) else { return };
            packet.fill_checksum();
            let (from, to) = (packet.src_addr(), packet.dst_addr());
            let protocol = packet.next_header();
            if protocol == IpProtocol::Icmp {
                if let Ok(mut icmp) = Icmpv4Packet::new_checked(packet.payload_mut()) {
                    icmp.fill_checksum();
                }
                return;
            }
            mend_payload(protocol, packet.payload_mut(), from.into(), to.into(), acknowledged);
        }
        [0x86, 0xdd] => {
            let Ok(mut packet) = Ipv6Packet::new_checked(packet) else { return };
            let (from, to) = (packet.src_addr(), packet.dst_addr());
            let protocol = packet.next_header();
            if protocol == IpProtocol::Icmpv6 {
                if let Ok(mut icmp) = Icmpv6Packet::new_checked(packet.payload_mut()) {
                    icmp.fill_checksum(&from, &to);
                }
                return;
            }
            mend_payload(protocol, packet.payload_mut(), from.into(), to.into(), acknowledged);
        }
        _ => {}
    }
}

fn mend_payload(
    protocol: IpProtocol,
    payload: &mut [u8],
    from: IpAddress,
    to: IpAddress,
    acknowledged: Option<TcpSeqNumber>,
) {
    match protocol {
        IpProtocol::Tcp => {
            let Ok(mut packet) = TcpPacket::new_checked(payload) else { return };
            if let Some(number) = acknowledged {
                packet.set_ack_number(number);
            }
            packet.fill_checksum(&from, &to);
        }
        IpProtocol::Udp => {
            if let Ok(mut packet) = UdpPacket::new_checked(payload) {
                packet.fill_checksum(&from, &to);
            }
        }
        _ => {}
    }
}
