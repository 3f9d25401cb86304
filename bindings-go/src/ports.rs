use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use forkyard::SharedTunnel;
use forkyard::runtime::{handle, run};

use crate::{Answer, Blob, Error, Sandbox, value};

/// ListeningPort is a TCP port that something in a machine listens on.
#[derive(Debug, uniffi::Record)]
pub struct ListeningPort {
    /// Port is the port.
    pub port: i32,
    /// LoopbackOnly says that only the machine itself could reach it over its network; [Ports] reach it either way.
    pub loopback_only: bool,
}

impl From<forkyard::ListeningPort> for ListeningPort {
    fn from(listening: forkyard::ListeningPort) -> Self {
        let forkyard::ListeningPort { port, loopback_only } = listening;
        Self { port: port.into(), loopback_only }
    }
}

/// A connection to a port in a machine.
#[derive(uniffi::Object)]
pub struct TunnelHandle {
    tunnel: SharedTunnel,
}

/// A port on this host that leads to one in a machine.
#[derive(uniffi::Object)]
pub struct ForwardHandle {
    address: SocketAddr,
    forward: Mutex<Option<forkyard::Forward>>,
}

/// A port of a machine's. What is out of the core's range is refused there.
fn port(value: i32) -> Answer<u16> {
    u16::try_from(value)
        .map_err(|_| Error::invalid(format!("a port must be between 1 and 65535, not {value}")))
}

#[uniffi::export]
impl Sandbox {
    /// The ports that something in the machine listens on, in their order.
    pub async fn ports_native(&self) -> Answer<Vec<ListeningPort>> {
        let sandbox = self.sandbox.clone();
        let ports = run(async move { sandbox.ports().list().await }).await?;
        Ok(ports.into_iter().map(Into::into).collect())
    }

    /// Waits until something listens on a port.
    pub async fn wait_port(&self, number: i32, patience: Duration) -> Answer<()> {
        let (sandbox, port) = (self.sandbox.clone(), port(number)?);
        run(async move { sandbox.ports().wait(port, patience).await }).await.map_err(Error::from)
    }

    /// Connects to a port.
    pub async fn connect_port(&self, number: i32) -> Answer<Arc<TunnelHandle>> {
        let (sandbox, port) = (self.sandbox.clone(), port(number)?);
        let tunnel = run(async move { sandbox.ports().connect(port).await }).await?.share();
        Ok(Arc::new(TunnelHandle { tunnel }))
    }

    /// Listens on this host for a port.
    pub async fn forward_port(
        &self,
        number: i32,
        host: String,
        local_port: i32,
    ) -> Answer<Arc<ForwardHandle>> {
        let (sandbox, port) = (self.sandbox.clone(), port(number)?);
        let local = u16::try_from(local_port).map_err(|_| {
            Error::invalid(format!("LocalPort must be between 0 and 65535, not {local_port}"))
        })?;
        let forward = run(async move { sandbox.ports().forward(port, (host, local)).await }).await?;
        Ok(Arc::new(ForwardHandle { address: forward.address(), forward: Mutex::new(Some(forward)) }))
    }

    /// A preview's address.
    pub async fn preview_url(&self, number: i32, lifetime: Duration) -> Answer<String> {
        let (sandbox, port) = (self.sandbox.clone(), port(number)?);
        let lifetime = Duration::from_secs(value::seconds(lifetime).unwrap_or_default());
        Ok(run(async move { sandbox.ports().preview(port, lifetime).await }).await?.url)
    }

    /// The address for those who have the API key.
    pub fn port_url(&self, number: i32) -> Answer<String> {
        Ok(self.sandbox.ports().url(port(number)?)?)
    }
}

#[uniffi::export]
impl TunnelHandle {
    /// What comes, at most so many bytes; none at the end, or once it was shut.
    pub async fn read(&self, limit: i32) -> Answer<Blob> {
        let limit = usize::try_from(limit).unwrap_or_default().max(1);
        loop {
            // A call that is cancelled as it ends loses what it answers: what has come is taken after it.
            let tunnel = self.tunnel.clone();
            let has_more = run(async move { tunnel.has_more().await }).await?;
            let data = self.tunnel.take(limit);
            if !data.is_empty() || !has_more {
                return Ok(Vec::from(data).into());
            }
        }
    }

    /// Sends as much as there is room for, and answers how many bytes. Without a task of its own: a call that is cancelled has sent
    /// nothing.
    pub async fn write(&self, data: Blob) -> Answer<i64> {
        let size = self.tunnel.write(&data.0).await?;
        Ok(value::bytes(size as u64))
    }

    /// Ends what goes there.
    pub async fn close_write(&self) -> Answer<()> {
        self.tunnel.close_write().await.map_err(Error::from)
    }

    /// Ends it, and what is under way on it.
    pub fn shut(&self) {
        let tunnel = self.tunnel.clone();
        handle().spawn(async move { tunnel.close().await });
    }
}

#[uniffi::export]
impl ForwardHandle {
    /// This host's address.
    pub fn host(&self) -> String {
        self.address.ip().to_string()
    }

    /// This host's port.
    pub fn port(&self) -> i32 {
        self.address.port().into()
    }

    /// Ends it and all its connections.
    pub async fn shut(&self) -> Answer<()> {
        let forward = self.forward.lock().unwrap_or_else(PoisonError::into_inner).take();
        run(async move {
            if let Some(forward) = forward {
                forward.close().await;
            }
            Ok(())
        })
        .await
        .map_err(Error::from)
    }
}
