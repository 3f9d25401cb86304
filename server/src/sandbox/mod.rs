//! Machines: who has which, and what becomes of them.

mod activity;
mod record;
mod registry;
mod slot;

pub use activity::{Activity, OpenCall};
pub use record::{Creation, End, Record};
pub use registry::{ListFilter, Registry, Reserved};
pub use slot::Slot;
