//! Machines: who has which, and what becomes of them.

mod activity;
mod admission;
mod boot;
mod checkpoint;
#[cfg(test)]
mod event_tests;
mod history;
mod keeper;
mod life;
mod line;
mod manager;
mod network;
mod order;
mod origin;
mod patience;
#[cfg(test)]
mod pool_tests;
mod record;
mod recovery;
mod registry;
mod slot;
mod suspend;
mod template;
#[cfg(test)]
pub(crate) mod tests;

pub use activity::{Activity, OpenCall};
pub use manager::{Sandboxes, Settings, all_running, running};
pub use record::{Creation, End, Record};
pub use registry::{ListFilter, Registry, Reserved};
pub use slot::Slot;
