//! Frames of the guest, read and made; no I/O, and nothing that a guest sends can panic here.

mod dhcp;
mod inbound;
mod outbound;

pub use self::dhcp::answer as dhcp_answer;
pub use self::inbound::{Datagram, Drop, Echo, Inbound, Segment, read};
pub use self::outbound::{Unreachable, arp_reply, datagram, echo_reply, neighbour_advert, unreachable};
