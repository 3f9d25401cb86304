//! The Forkyard server: the library behind the one binary `forkyard`.

pub mod action;
pub mod api;
pub mod cli;
pub mod clock;
pub mod doctor;
pub mod event;
pub mod guest;
pub mod host;
pub mod http_server;
pub mod image;
pub mod key;
pub mod network;
pub mod paths;
pub mod pool;
pub mod preview;
pub mod quota;
pub mod random;
pub mod sandbox;
pub mod snapshot;
pub mod sparse;
pub mod store;
pub mod tunnel;
pub mod vmm;
