//! Calls on a machine's ports, and on what they lead to.

use std::sync::Arc;

use forkyard::{Forward, Tunnel};
use forkyard_conformance::value::bytes;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::Mutex;

use crate::call::{Failure, Invocation, None_, Outcome, Raw, millis};
use crate::objects::Object;
use crate::records::plain;

/// Bytes that one read takes at most.
const READ: usize = 64 * 1024;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct At {
    port: u16,
}

pub async fn list(it: &Invocation<'_>) -> Outcome {
    it.args::<None_>()?;
    Ok(plain(it.sandbox()?.ports().list().await?))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wait {
    port: u16,
    timeout_ms: u64,
}

pub async fn wait(it: &Invocation<'_>) -> Outcome {
    let Wait { port, timeout_ms } = it.args()?;
    it.sandbox()?.ports().wait(port, millis(timeout_ms)).await?;
    Ok(Value::Null)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Preview {
    port: u16,
    expires_secs: u64,
}

pub async fn preview_url(it: &Invocation<'_>) -> Outcome {
    let Preview { port, expires_secs } = it.args()?;
    Ok(it.sandbox()?.ports().preview(port, millis(expires_secs * 1000)).await?.url.into())
}

pub async fn url(it: &Invocation<'_>) -> Outcome {
    Ok(it.sandbox()?.ports().url(it.args::<At>()?.port)?.into())
}

pub async fn connect(it: &Invocation<'_>) -> Outcome {
    let tunnel = it.sandbox()?.ports().connect(it.args::<At>()?.port).await?;
    Ok(it.keep(Object::Tunnel(Arc::new(Mutex::new(Some(tunnel)))), json!({})))
}

pub async fn forward(it: &Invocation<'_>) -> Outcome {
    let forward = it.sandbox()?.ports().forward(it.args::<At>()?.port, ("127.0.0.1", 0)).await?;
    let address = forward.address();
    let said = json!({"host": address.ip().to_string(), "port": address.port()});
    Ok(it.keep(Object::Forward(Arc::new(Mutex::new(Some(forward)))), said))
}

pub async fn close_forward(it: &Invocation<'_>) -> Outcome {
    it.args::<None_>()?;
    let forward = it.forward()?.lock().await.take();
    if let Some(forward) = forward {
        Forward::close(forward).await;
    }
    Ok(Value::Null)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Write {
    data: Raw,
}

fn open(tunnel: &mut Option<Tunnel>) -> Result<&mut Tunnel, Failure> {
    tunnel.as_mut().ok_or_else(|| Failure::unasked("the stream was dropped"))
}

pub async fn write(it: &Invocation<'_>) -> Outcome {
    let data = it.args::<Write>()?.data.0;
    let mut tunnel = it.tunnel()?.lock().await;
    open(&mut tunnel)?.write_all(&data).await?;
    Ok(Value::Null)
}

pub async fn read(it: &Invocation<'_>) -> Outcome {
    it.args::<None_>()?;
    let mut tunnel = it.tunnel()?.lock().await;
    let mut data = vec![0; READ];
    let size = open(&mut tunnel)?.read(&mut data).await?;
    Ok(bytes(&data[..size]))
}

pub async fn read_all(it: &Invocation<'_>) -> Outcome {
    it.args::<None_>()?;
    let mut tunnel = it.tunnel()?.lock().await;
    let mut data = Vec::new();
    open(&mut tunnel)?.read_to_end(&mut data).await?;
    Ok(bytes(&data))
}

pub async fn close_write(it: &Invocation<'_>) -> Outcome {
    it.args::<None_>()?;
    let mut tunnel = it.tunnel()?.lock().await;
    open(&mut tunnel)?.shutdown().await?;
    Ok(Value::Null)
}

pub async fn close(it: &Invocation<'_>) -> Outcome {
    it.args::<None_>()?;
    drop(it.tunnel()?.lock().await.take());
    Ok(Value::Null)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Exchange {
    port: u16,
    data: Raw,
}

/// Both end where they are dropped.
pub async fn exchange_in_scope(it: &Invocation<'_>) -> Outcome {
    let Exchange { port, data } = it.args()?;
    let ports = it.sandbox()?.ports();
    let forward = ports.forward(port, ("127.0.0.1", 0)).await?;
    let address = forward.address();
    let mut tunnel = ports.connect(port).await?;
    let mut heard = Vec::new();
    tunnel.write_all(&data.0).await?;
    tunnel.shutdown().await?;
    tunnel.read_to_end(&mut heard).await?;
    Ok(json!({"heard": bytes(&heard), "host": address.ip().to_string(), "port": address.port()}))
}
