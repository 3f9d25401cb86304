//! A guest's way to the network: who may be spoken to, names, and what a connection says first.

pub mod dns;
pub mod policy;
pub mod sniff;
