//! The conformance suite: one set of cases that the Rust core and every binding pass against a real server, through a
//! proxy that makes faults where a case asks for them.
//!
//! All decisions are made here: what is asked, what must come back, which fault strikes when, what is covered. A language
//! adds an executor, a process that does as it is told: it reads one JSON line a call ([`wire`]) and answers one.

pub mod case;
pub mod coverage;
pub mod executor;
pub mod fault;
pub mod parity;
pub mod proxy;
pub mod run;
pub mod value;
pub mod wire;
pub mod world;
