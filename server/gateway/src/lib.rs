//! A machine's way to the network.
//!
//! One gateway process serves one machine. On one side is QEMU's `-netdev stream`: a unix socket on which each frame is a
//! big-endian length of four bytes and an Ethernet frame. On the other are ordinary sockets of an ordinary process. Between is a
//! TCP/IP stack of our own, where a policy judges each connection before it is made: what the guest asks for never reaches the
//! host's stack as packets, so it needs no privileges, and its loopback and addresses can be kept from the guest.
//!
//! Fragments from the guest are refused, the first of them with an ICMP error; datagrams to the guest are fragmented.

pub mod address;
mod bucket;
pub mod confine;
mod connection;
pub mod control;
pub mod dns;
mod events;
mod gateway;
mod host;
pub mod limits;
pub mod link;
mod outbox;
mod ping;
pub mod policy;
pub mod process;
mod resolve;
pub mod sniff;
mod stack;
mod tcp;
mod udp;
pub mod wire;

pub use gateway::{GATEWAY, Gateway, LIMIT, NO_PING};
