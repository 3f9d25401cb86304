use std::net::SocketAddr;
use std::sync::{Arc, Mutex as SyncMutex, PoisonError};

use forkyard::{Error, ErrorCode};
use pyo3::prelude::*;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, ReadHalf, WriteHalf};
use tokio::sync::{Mutex, Notify};

use crate::call::Call;
use crate::value::{Data, Nothing};

/// Most bytes of one read.
const MAX_READ: usize = 1024 * 1024;

/// A connection to a port in a machine.
#[pyclass(module = "forkyard._native", frozen)]
pub struct Tunnel {
    from: Arc<Mutex<Option<ReadHalf<forkyard::Tunnel>>>>,
    to: Arc<Mutex<Option<WriteHalf<forkyard::Tunnel>>>>,
    closing: Arc<Notify>,
}

/// A port on this host that leads to one in a machine.
#[pyclass(module = "forkyard._native", frozen)]
pub struct Forward {
    address: SocketAddr,
    forward: SyncMutex<Option<forkyard::Forward>>,
}

impl Tunnel {
    pub fn new(tunnel: forkyard::Tunnel) -> Self {
        let (from, to) = tokio::io::split(tunnel);
        Self {
            from: Arc::new(Mutex::new(Some(from))),
            to: Arc::new(Mutex::new(Some(to))),
            closing: Arc::default(),
        }
    }
}

#[pymethods]
impl Tunnel {
    /// What has come, at most so many bytes; empty at its end, or once it was closed.
    fn read(&self, limit: usize) -> Call {
        let (from, closing) = (self.from.clone(), self.closing.clone());
        Call::new(async move {
            let mut from = from.lock().await;
            let Some(from) = from.as_mut() else { return Ok(Data(bytes::Bytes::new())) };
            let mut buffer = bytes::BytesMut::with_capacity(limit.clamp(1, MAX_READ));
            tokio::select! {
                read = from.read_buf(&mut buffer) => read.map_err(broken)?,
                () = closing.notified() => 0,
            };
            Ok(Data(buffer.freeze()))
        })
    }

    fn write(&self, data: Vec<u8>) -> Call {
        let to = self.to.clone();
        Call::new(async move {
            let mut to = to.lock().await;
            let to = to.as_mut().ok_or_else(closed)?;
            to.write_all(&data).await.map_err(broken)?;
            Ok(Nothing)
        })
    }

    /// Ends what goes there; what comes from there is read on.
    fn close_write(&self) -> Call {
        let to = self.to.clone();
        Call::new(async move {
            if let Some(to) = to.lock().await.as_mut() {
                to.shutdown().await.map_err(broken)?;
            }
            Ok(Nothing)
        })
    }

    /// Ends it; a read that is under way ends.
    fn close(&self) -> Call {
        let (from, to, closing) = (self.from.clone(), self.to.clone(), self.closing.clone());
        Call::new(async move {
            closing.notify_waiters();
            from.lock().await.take();
            to.lock().await.take();
            Ok(Nothing)
        })
    }
}

impl Forward {
    pub fn new(forward: forkyard::Forward) -> Self {
        Self { address: forward.address(), forward: SyncMutex::new(Some(forward)) }
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

fn closed() -> Error {
    Error::new(ErrorCode::FailedPrecondition, "the connection was closed")
}

fn broken(error: std::io::Error) -> Error {
    match error.downcast::<Error>() {
        Ok(error) => error,
        Err(error) => Error::new(ErrorCode::Connection, format!("the connection broke off: {error}")),
    }
}
