//! Ports that programs in a machine listen on.

use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};

use forkyard::{Error, SharedTunnel};
use napi::bindgen_prelude::{PromiseRaw, Uint8Array};
use napi::{Env, Result};
use napi_derive::napi;

use crate::call::{Cancel, begin};
use crate::error::to_js_error;
use crate::record::port::ListeningPort;
use crate::sandbox::Sandbox;
use crate::value::{invalid, millis_or_zero, seconds_or_zero, whole};

/// A connection to a port in a machine.
#[napi]
pub struct Tunnel {
    tunnel: SharedTunnel,
}

/// A port on this host that leads to one in a machine.
#[napi]
pub struct Forward {
    address: SocketAddr,
    forward: Mutex<Option<forkyard::Forward>>,
}

/// A port. What is out of the core's range is refused there.
fn port(value: f64) -> std::result::Result<u16, Error> {
    whole("a port", value).map_err(|_| invalid(format!("a port must be between 1 and 65535, not {value}")))
}

#[napi]
impl Sandbox {
    #[napi]
    pub fn ports<'env>(
        &self,
        env: &'env Env,
        cancel: Option<&Cancel>,
    ) -> Result<PromiseRaw<'env, Vec<ListeningPort>>> {
        let sandbox = self.sandbox.clone();
        begin(
            env,
            cancel,
            async move { Ok(sandbox.ports().list().await?.into_iter().map(Into::into).collect()) },
        )
    }

    #[napi]
    pub fn wait_port<'env>(
        &self,
        env: &'env Env,
        number: f64,
        timeout_ms: f64,
        cancel: Option<&Cancel>,
    ) -> Result<PromiseRaw<'env, ()>> {
        let sandbox = self.sandbox.clone();
        begin(env, cancel, async move {
            sandbox.ports().wait(port(number)?, millis_or_zero("timeoutMs", timeout_ms)?).await
        })
    }

    #[napi]
    pub fn connect_port<'env>(
        &self,
        env: &'env Env,
        number: f64,
        cancel: Option<&Cancel>,
    ) -> Result<PromiseRaw<'env, Tunnel>> {
        let sandbox = self.sandbox.clone();
        begin(env, cancel, async move {
            Ok(Tunnel { tunnel: sandbox.ports().connect(port(number)?).await?.share() })
        })
    }

    #[napi]
    pub fn forward_port<'env>(
        &self,
        env: &'env Env,
        number: f64,
        host: String,
        local_port: f64,
        cancel: Option<&Cancel>,
    ) -> Result<PromiseRaw<'env, Forward>> {
        let sandbox = self.sandbox.clone();
        begin(env, cancel, async move {
            let local = whole("localPort", local_port)
                .map_err(|_| invalid(format!("localPort must be between 0 and 65535, not {local_port}")))?;
            let forward = sandbox.ports().forward(port(number)?, (host, local)).await?;
            Ok(Forward { address: forward.address(), forward: Mutex::new(Some(forward)) })
        })
    }

    #[napi]
    pub fn preview_url<'env>(
        &self,
        env: &'env Env,
        number: f64,
        expires_ms: f64,
        cancel: Option<&Cancel>,
    ) -> Result<PromiseRaw<'env, String>> {
        let sandbox = self.sandbox.clone();
        begin(env, cancel, async move {
            let lifetime = seconds_or_zero("expiresMs", expires_ms)?;
            Ok(sandbox.ports().preview(port(number)?, lifetime).await?.url)
        })
    }

    #[napi]
    pub fn port_url(&self, env: Env, number: f64) -> Result<String> {
        port(number).and_then(|port| self.sandbox.ports().url(port)).map_err(|error| to_js_error(env, error))
    }
}

#[napi]
impl Tunnel {
    /// What has come, at most so many bytes; empty at its end, or once it was closed.
    #[napi]
    pub fn read<'env>(&self, env: &'env Env, limit: u32) -> Result<PromiseRaw<'env, Uint8Array>> {
        let tunnel = self.tunnel.clone();
        begin(env, None, async move { Ok(tunnel.read(limit as usize).await?.to_vec().into()) })
    }

    #[napi]
    pub fn write<'env>(&self, env: &'env Env, data: Uint8Array) -> Result<PromiseRaw<'env, ()>> {
        let (tunnel, data) = (self.tunnel.clone(), data.to_vec());
        begin(env, None, async move { tunnel.write_all(&data).await })
    }

    /// Ends what goes there; what comes from there is read on.
    #[napi]
    pub fn close_write<'env>(&self, env: &'env Env) -> Result<PromiseRaw<'env, ()>> {
        let tunnel = self.tunnel.clone();
        begin(env, None, async move { tunnel.close_write().await })
    }

    /// Ends it: a read that is under way finds the end, a write fails.
    #[napi]
    pub fn close<'env>(&self, env: &'env Env) -> Result<PromiseRaw<'env, ()>> {
        let tunnel = self.tunnel.clone();
        begin(env, None, async move {
            tunnel.close().await;
            Ok(())
        })
    }
}

#[napi]
impl Forward {
    /// This host's address.
    #[napi(getter)]
    pub fn host(&self) -> String {
        self.address.ip().to_string()
    }

    /// This host's port.
    #[napi(getter)]
    pub fn port(&self) -> u32 {
        self.address.port().into()
    }

    /// Ends it and all its connections.
    #[napi]
    pub fn close<'env>(&self, env: &'env Env, cancel: Option<&Cancel>) -> Result<PromiseRaw<'env, ()>> {
        let forward = self.forward.lock().unwrap_or_else(PoisonError::into_inner).take();
        begin(env, cancel, async move {
            if let Some(forward) = forward {
                forward.close().await;
            }
            Ok(())
        })
    }
}
