//! Machines under QEMU.

mod argv;
mod disk;
mod qmp;
mod version;

pub use argv::Argv;
pub use disk::empty_qcow2;
pub use qmp::{Event, Qmp};
pub use version::{OLDEST, PROGRAM, Version};
