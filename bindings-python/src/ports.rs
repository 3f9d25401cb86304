use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};

use forkyard::SharedTunnel;
use pyo3::prelude::*;

use crate::call::Call;
use crate::value::{Data, Nothing};

/// A connection to a port in a machine.
#[pyclass(module = "forkyard._native", frozen)]
pub struct Tunnel {
    tunnel: SharedTunnel,
}

/// A port on this host that leads to one in a machine.
#[pyclass(module = "forkyard._native", frozen)]
pub struct Forward {
    address: SocketAddr,
    forward: Mutex<Option<forkyard::Forward>>,
}

impl Tunnel {
    pub fn new(tunnel: forkyard::Tunnel) -> Self {
        Self { tunnel: tunnel.share() }
    }
}

#[pymethods]
impl Tunnel {
    /// What has come, at most so many bytes; empty at its end, or once it was closed.
    fn read(&self, limit: usize) -> Call {
        let tunnel = self.tunnel.clone();
        Call::new(async move { Ok(Data(tunnel.read(limit).await?)) })
    }

    fn write(&self, data: Vec<u8>) -> Call {
        let tunnel = self.tunnel.clone();
        Call::new(async move { tunnel.write_all(&data).await.map(|()| Nothing) })
    }

    /// Ends what goes there; what comes from there is read on.
    fn close_write(&self) -> Call {
        let tunnel = self.tunnel.clone();
        Call::new(async move { tunnel.close_write().await.map(|()| Nothing) })
    }

    /// Ends it; a read that is under way ends.
    fn close(&self) -> Call {
        let tunnel = self.tunnel.clone();
        Call::new(async move {
            tunnel.close().await;
            Ok(Nothing)
        })
    }
}

impl Forward {
    pub fn new(forward: forkyard::Forward) -> Self {
        Self { address: forward.address(), forward: Mutex::new(Some(forward)) }
    }
}

#[pymethods]
impl Forward {
    /// Where this host listens: address and port.
    #[getter]
    fn address(&self) -> (String, u16) {
        (self.address.ip().to_string(), self.address.port())
    }

    /// Ends it and all its connections.
    fn close(&self) -> Call {
        let forward = self.forward.lock().unwrap_or_else(PoisonError::into_inner).take();
        Call::new(async move {
            if let Some(forward) = forward {
                forward.close().await;
            }
            Ok(Nothing)
        })
    }
}
