//! Faults in the middle of freezing machines and making others of them: the server is killed, QEMU is killed, the disk is full,
//! files are damaged.

#[path = "../common/mod.rs"]
mod common;
mod damage;
mod machines_killed;
mod server_killed;
mod streams;
mod world;
