//! What the driver does by itself: with files of this host, and as somebody who comes to its ports.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde_json::{Map, Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::value::{self, to_bytes};

/// How long a peer may take to answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// What it returned or how it failed, as a language's call would say it.
type Told = (Option<Value>, Option<Value>);

/// Does what a step asks of the driver.
pub(super) async fn local(call: &str, args: &Map<String, Value>) -> anyhow::Result<Told> {
    let text =
        |name: &str| args.get(name).and_then(Value::as_str).with_context(|| format!("{name} is missing"));
    let done = (Some(Value::Null), None);
    Ok(match call {
        "local.write" => {
            fs::write(text("path")?, to_bytes(args.get("data").context("data is missing")?)?)?;
            if let Some(mode) = args.get("mode").and_then(Value::as_u64) {
                fs::set_permissions(text("path")?, fs::Permissions::from_mode(u32::try_from(mode)?))?;
            }
            done
        }
        "local.make_dir" => fs::create_dir_all(text("path")?).map(|()| done)?,
        "local.link" => symlink(text("target")?, text("path")?).map(|()| done)?,
        "local.read" => found(fs::read(text("path")?).map(|data| value::bytes(&data)))?,
        "local.stat" => found(fs::symlink_metadata(text("path")?).map(|stat| {
            let target = fs::read_link(text("path").unwrap_or_default()).ok();
            json!({"mode": stat.mode() & 0o7777, "size": stat.size(), "is_dir": stat.is_dir(), "target": target})
        }))?,
        "local.list" => found(fs::read_dir(text("path")?).and_then(|entries| {
            let mut names = entries
                .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
                .collect::<std::io::Result<Vec<String>>>()?;
            names.sort();
            Ok(json!(names))
        }))?,
        "local.get" => get(text("url")?, args.get("api_key").and_then(Value::as_str)).await?,
        "local.exchange" => {
            let port = args.get("port").and_then(Value::as_u64).context("port is missing")?;
            let data = to_bytes(args.get("data").context("data is missing")?)?;
            exchange(text("host")?, u16::try_from(port)?, &data).await?
        }
        other => bail!("the driver cannot {other}"),
    })
}

fn found(outcome: std::io::Result<Value>) -> anyhow::Result<Told> {
    match outcome {
        Ok(value) => Ok((Some(value), None)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Ok((None, Some(json!({"code": "not_found"}))))
        }
        Err(error) => Err(error.into()),
    }
}

/// Fetches a page as a browser does.
async fn get(url: &str, api_key: Option<&str>) -> anyhow::Result<Told> {
    // Installed once for the process.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut request = reqwest::Client::builder().timeout(PATIENCE).build()?.get(url);
    if let Some(api_key) = api_key {
        request = request.bearer_auth(api_key);
    }
    let response = request.send().await?;
    let status = response.status().as_u16();
    Ok((Some(json!({"status": status, "body": response.text().await?})), None))
}

/// Connects, says something, and hears all that is said until the end.
async fn exchange(host: &str, port: u16, data: &[u8]) -> anyhow::Result<Told> {
    let talk = async {
        let mut stream = TcpStream::connect((host, port)).await?;
        stream.write_all(data).await?;
        stream.shutdown().await?;
        let mut heard = Vec::new();
        stream.read_to_end(&mut heard).await?;
        std::io::Result::Ok(heard)
    };
    Ok(match timeout(PATIENCE, talk).await.context("the peer does not end")? {
        Ok(heard) => (Some(value::bytes(&heard)), None),
        Err(error) => (None, Some(json!({"code": "connection", "message": error.to_string()}))),
    })
}
