//! The gateway as a process.

use std::os::fd::{BorrowedFd, RawFd};
use std::os::unix::net::{UnixListener as StdListener, UnixStream as StdStream};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use forkyard_protocol::NetworkPolicy;
use serde::{Deserialize, Serialize};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::LocalSet;
use tokio::time::timeout;

use crate::confine::confine;
use crate::dns::DnsConfig;
use crate::gateway::Gateway;
use crate::limits::QEMU_DEADLINE;
use crate::policy::Operator;
use crate::{control, link};

/// Buffers from this size on are mapped on their own, so that they take no memory before bytes are in them, and give it back.
const MAP_FROM: i32 = 32 * 1024;

/// All that a gateway needs to know. It reads no file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Start {
    /// Where QEMU's frames are.
    pub qemu: QemuLink,
    /// The path of the control socket, which the gateway makes. In the machine's directory; whoever may open it controls the
    /// gateway. What is left there of a gateway before is replaced.
    pub control: PathBuf,
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

/// Where QEMU's frames are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum QemuLink {
    /// On this inherited descriptor, one end of a pair of stream sockets.
    Fd(RawFd),
    /// On a socket that the gateway makes at this path and QEMU connects to (`-netdev stream,server=off`), within two minutes.
    /// Once it has, nobody else can.
    Listen(PathBuf),
}

enum Qemu {
    Connected(StdStream),
    Awaited(StdListener),
}

/// Runs a gateway until QEMU or the server ends it. Blocks; only for a process of its own, with no other thread, which is confined
/// from here on.
pub fn run(start: Start) -> anyhow::Result<()> {
    #[cfg(target_env = "gnu")]
    // SAFETY: the option only changes where later allocations are made.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, MAP_FROM);
    }
    let control = listen(&start.control)?;
    let qemu = match &start.qemu {
        QemuLink::Fd(fd) => Qemu::Connected(adopt(*fd)?),
        QemuLink::Listen(path) => Qemu::Awaited(listen(path)?),
    };
    let mut seed = [0; 8];
    rustix::rand::getrandom(&mut seed, rustix::rand::GetRandomFlags::empty()).context("no random numbers")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
    confine()?;
    let gateway = Gateway::new(&start.policy, start.operator, start.dns, u64::from_ne_bytes(seed))?;
    LocalSet::new().block_on(&runtime, async {
        let control = UnixListener::from_std(control)?;
        let serve = async {
            let qemu = connected(qemu).await?;
            link::run(&gateway, &qemu).await.context("QEMU's frames cannot be read")
        };
        tokio::select! {
            done = serve => done,
            done = control::serve(gateway.clone(), control) => done.context("the control socket failed"),
        }
    })
}

/// QEMU's socket, once it is there.
async fn connected(qemu: Qemu) -> anyhow::Result<UnixStream> {
    match qemu {
        Qemu::Connected(stream) => Ok(UnixStream::from_std(stream)?),
        Qemu::Awaited(listener) => {
            let listener = UnixListener::from_std(listener)?;
            let accepted = timeout(QEMU_DEADLINE, listener.accept()).await;
            Ok(accepted.context("QEMU did not connect in time")??.0)
        }
    }
}

fn listen(path: &Path) -> anyhow::Result<StdListener> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).context(format!("cannot replace {}", path.display()));
        }
        _ => {}
    }
    let listener = StdListener::bind(path).with_context(|| format!("cannot listen on {}", path.display()))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Takes over an inherited descriptor, by a copy that no program it starts could inherit.
fn adopt(fd: RawFd) -> anyhow::Result<StdStream> {
    anyhow::ensure!(fd >= 0, "{fd} is no descriptor");
    // SAFETY: the descriptor is only looked at, and copied if it is open.
    let inherited = unsafe { BorrowedFd::borrow_raw(fd) };
    let own = rustix::io::fcntl_dupfd_cloexec(inherited, 3)
        .with_context(|| format!("descriptor {fd} is not open"))?;
    let stream = StdStream::from(own);
    stream.set_nonblocking(true)?;
    Ok(stream)
}
