//! Every bound of a gateway, and why it is what it is. A guest is hostile: what it can ask for has an end.

use std::time::Duration;

/// Largest frame that QEMU's end can send: its own buffer (`NET_BUFSIZE`). A longer one means that the stream is out of step.
pub const MAX_FRAME: usize = 4096 + 65536;

/// Connections at once (TCP, UDP flows, pings) where the policy names no number: a browser with all its tabs needs 200.
pub const DEFAULT_CONNECTIONS: usize = 512;
/// Most that a policy can ask for. Each holds one file descriptor.
pub const MAX_CONNECTIONS: usize = 4096;
/// TCP connections whose host side is being made at once; more wait for their turn. Half-open connections are what a scan costs
/// the host's own tables and whatever firewall is on the way.
pub const MAX_CONNECTING: usize = 128;
/// File descriptors beside those of the connections: QEMU, control, the resolver's, the runtime's.
pub const SPARE_FILES: usize = 256;

/// How long the host may take to connect, its turn included. Linux gives up after 127 s, callers long before.
pub const CONNECT_DEADLINE: Duration = Duration::from_secs(30);
/// How long the guest may take to finish a handshake that it began.
pub const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(30);
/// A connection that is closed in one direction and still in the other ends then: its program may be gone without a word.
pub const HALF_CLOSED_IDLE: Duration = Duration::from_mins(10);
/// Idle time after which the host asks the other end whether it still lives; three unanswered questions 30 s apart end it.
pub const KEEPALIVE_IDLE: Duration = Duration::from_mins(2);
/// Between two such questions.
pub const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
/// How many of them.
pub const KEEPALIVE_PROBES: u32 = 3;

/// First bytes of a connection that are held until its name is known: a TLS `ClientHello` with post-quantum key shares has 2 KiB.
pub const SNIFF_MAX: usize = 16 * 1024;
/// How long the rest of a started `ClientHello` or HTTP header may take.
pub const SNIFF_DEADLINE: Duration = Duration::from_secs(10);

/// How long a UDP flow is kept that got answers: RFC 4787 asks for two minutes.
pub const UDP_IDLE: Duration = Duration::from_mins(2);
/// How long one is kept that never got an answer.
pub const UDP_UNANSWERED: Duration = Duration::from_secs(30);
/// How long an echo request may stay unanswered.
pub const PING_IDLE: Duration = Duration::from_secs(10);

/// DNS queries that are answered at once; a stub resolver asks again for what is dropped.
pub const MAX_DNS_QUERIES: usize = 64;
/// TCP connections to the resolver end after this long without a query.
pub const DNS_TCP_IDLE: Duration = Duration::from_secs(15);

/// Bytes on their way to QEMU. TCP waits when they are more, all else is dropped: 170 full frames, a guest's receive ring.
pub const MAX_OUTBOX: usize = 256 * 1024;
/// Bytes of frames that are read from QEMU at once.
pub const INBOX: usize = 64 * 1024;

/// Events that wait for the server; what comes when it is full is counted.
pub const MAX_EVENTS: usize = 1024;
/// Longest line on the control channel: a policy of 256 rules, each a domain name of 253 bytes, and room.
pub const MAX_CONTROL_LINE: usize = 256 * 1024;
/// How long the server may leave a line unread before it is cut off; it connects anew.
pub const CONTROL_WRITE_DEADLINE: Duration = Duration::from_secs(30);
/// Bytes of each of a connection's two buffers, by how many connections there are: few get windows that fill a fast link, many
/// share what there is. All of them full are at most 2 × (32 × 256 + 224 × 64 + 3840 × 16) KiB = 165 MiB, with the default limit
/// of connections 52 MiB. Nothing is resident before bytes have been in it.
pub fn buffer_len(open: usize) -> usize {
    match open {
        0..32 => 256 * 1024,
        32..256 => 64 * 1024,
        _ => 16 * 1024,
    }
}
