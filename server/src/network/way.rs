//! How a machine comes to a gateway.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use forkyard_protocol::{NetworkPolicy, SandboxId};
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::NetworkSettings;
use super::control::Control;
use super::process::{CONTROL, Process};
use crate::guest::Guest;
use crate::vmm::{Machine, socket};

/// How long a gateway may take to answer, or to end when it is told to.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// What a machine's network is made of.
pub struct Way {
    /// What the operator says.
    pub settings: Arc<NetworkSettings>,
    /// Whose it is.
    pub id: SandboxId,
    /// The machine's directory.
    pub dir: PathBuf,
    /// The machine.
    pub machine: Arc<dyn Machine>,
    /// Its guest.
    pub guest: Guest,
    /// What it may reach.
    pub policy: NetworkPolicy,
}

/// A gateway that runs, and how it is spoken to.
pub(super) struct Gateway {
    pub process: Process,
    pub control: Control,
}

impl Way {
    /// Tells the guest that its link is up.
    pub(super) async fn plug_in(&self) {
        if let Err(error) = self.machine.set_link(true).await {
            tracing::warn!(sandbox = %self.id, %error, "the guest was not told that its link is up");
        }
    }

    /// Connects to the machine's card.
    pub(super) async fn connect(&self) -> io::Result<UnixStream> {
        let socket = self.machine.network_socket().ok_or(io::ErrorKind::NotFound)?;
        socket::connect(&socket).await
    }

    /// Starts a gateway on a connection to the card.
    pub(super) async fn start(
        &self,
        policy: &NetworkPolicy,
        connection: io::Result<UnixStream>,
    ) -> io::Result<Gateway> {
        let qemu = std::os::fd::OwnedFd::from(connection?.into_std()?);
        let (settings, id, dir, policy) =
            (self.settings.clone(), self.id.clone(), self.dir.clone(), policy.clone());
        let started =
            tokio::task::spawn_blocking(move || Process::start(&settings, &id, &dir, &qemu, &policy));
        let process = started.await.map_err(io::Error::other)??;
        self.connected(process).await
    }

    /// The gateway that the machine has already, if it has one.
    pub(super) async fn find(&self) -> io::Result<Option<Gateway>> {
        let (settings, id, dir) = (self.settings.clone(), self.id.clone(), self.dir.clone());
        let found = tokio::task::spawn_blocking(move || Process::find(&settings, &id, &dir));
        match found.await.map_err(io::Error::other)?? {
            Some(process) => self.connected(process).await.map(Some),
            None => Ok(None),
        }
    }

    /// Connects to a gateway; one that cannot be spoken to is ended.
    async fn connected(&self, process: Process) -> io::Result<Gateway> {
        let connected = timeout(PATIENCE, Control::connect(&self.dir.join(CONTROL))).await;
        match connected.map_err(io::Error::from).and_then(|connected| connected) {
            Ok(control) => Ok(Gateway { process, control }),
            Err(error) => {
                process.kill().await;
                Err(error)
            }
        }
    }
}
