//! The native half of the npm package `forkyard`: values in, promises out. What its users see is in `index.ts` and `lib`.
//!
//! Records cross as objects whose TypeScript types are generated from here. Each is made from the core's by a `From` that
//! destructures without `..`, and each request into the core's without a default: a new field of the wire breaks the build.
// What JavaScript hands over is owned by the call, whether it is only looked at or not.
#![allow(clippy::needless_pass_by_value)]

mod call;
mod client;
mod error;
mod events;
mod files;
mod folders;
mod listing;
mod network;
mod ports;
mod process;
mod progress;
mod record;
mod sandbox;
mod swarm;
mod value;

/// Waits up to two seconds until what aborted calls left behind is cleaned up; for the program's end.
#[napi_derive::napi]
pub fn settle() {
    forkyard::runtime::settle(std::time::Duration::from_secs(2));
}
