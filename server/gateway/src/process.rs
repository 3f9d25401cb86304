//! The gateway as a process.

use std::os::fd::{BorrowedFd, FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::net::{UnixListener as StdListener, UnixStream as StdStream};

use anyhow::Context as _;
use forkyard_protocol::NetworkPolicy;
use serde::{Deserialize, Serialize};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::LocalSet;

use crate::confine::confine;
use crate::dns::DnsConfig;
use crate::gateway::Gateway;
use crate::policy::Operator;
use crate::{control, link};

/// Buffers from this size on are mapped on their own, so that they take no memory before bytes are in them, and give it back.
const MAP_FROM: i32 = 32 * 1024;

/// All that a gateway needs to know. It opens no file and no socket by name: whoever starts it has made them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Start {
    /// The inherited descriptor of QEMU's frames: a stream socket, connected.
    pub qemu: RawFd,
    /// The inherited descriptor of the control socket, which listens; whoever may connect to it controls the gateway.
    pub control: RawFd,
    /// What the machine may reach at first.
    #[serde(default)]
    pub policy: NetworkPolicy,
    /// What the operator says of all machines.
    #[serde(default)]
    pub operator: Operator,
    /// The resolvers that are asked for the machine, and how much.
    #[serde(default)]
    pub dns: DnsConfig,
}

/// Runs a gateway until QEMU or the server ends it. Blocks; only for a process of its own, with no other thread, which is confined
/// from here on.
pub fn run(start: Start) -> anyhow::Result<()> {
    #[cfg(target_env = "gnu")]
    // SAFETY: the option only changes where later allocations are made.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, MAP_FROM);
    }
    let control = StdListener::from(adopt(start.control)?);
    control.set_nonblocking(true)?;
    let qemu = StdStream::from(adopt(start.qemu)?);
    qemu.set_nonblocking(true)?;
    let mut seed = [0; 8];
    rustix::rand::getrandom(&mut seed, rustix::rand::GetRandomFlags::empty()).context("no random numbers")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
    confine()?;
    let gateway = Gateway::new(&start.policy, start.operator, start.dns, u64::from_ne_bytes(seed))?;
    LocalSet::new().block_on(&runtime, async {
        let control = UnixListener::from_std(control)?;
        let qemu = UnixStream::from_std(qemu)?;
        tokio::select! {
            done = link::run(&gateway, &qemu) => done.context("QEMU's frames cannot be read"),
            done = control::serve(gateway.clone(), control) => done.context("the control socket failed"),
        }
    })
}

/// Takes over an inherited descriptor, by a copy that no program it starts could inherit.
fn adopt(fd: RawFd) -> anyhow::Result<OwnedFd> {
    anyhow::ensure!(fd >= 0, "{fd} is no descriptor");
    // SAFETY: the descriptor is only looked at, and copied if it is open.
    let inherited = unsafe { BorrowedFd::borrow_raw(fd) };
    let own = rustix::io::fcntl_dupfd_cloexec(inherited, 3)
        .with_context(|| format!("descriptor {fd} is not open"))?;
    // The inherited one would keep the other end from seeing that this one is gone.
    // SAFETY: it was given to this process for this purpose, and nothing else here has it.
    drop(unsafe { OwnedFd::from_raw_fd(fd) });
    Ok(own)
}
