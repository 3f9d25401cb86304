//! Files, streamed both ways; never held as a whole.

mod folder;
mod list;
mod range;
mod read;
mod tree;
mod watch;
mod write;

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use forkyard_protocol::{DEFAULT_LIST_LIMIT, ErrorBody, MAX_LIST_LIMIT, Query, RawPath};
use http::{Method, Request};
use hyper::body::Incoming;

use crate::api::unknown;
use crate::config::Config;
use crate::process::Account;
use crate::reply::{Answer, internal, json, nothing};

/// Answers a call below `/files`.
pub async fn route(
    config: &Config,
    method: &Method,
    rest: &[&str],
    query: &Query,
    request: Request<Incoming>,
) -> Answer {
    let path = || query.path("path").map(|path| to_path(&path));
    match (method, rest) {
        (&Method::GET, []) => read::read(path()?, request.headers()).await,
        (&Method::PUT, []) => {
            let options = options(config, query)?;
            json(&write::write(path()?, options, request.into_body()).await?)
        }
        (&Method::DELETE, []) => {
            let (path, recursive) = (path()?, query.flag("recursive")?);
            blocking(move || tree::remove(&path, recursive)).await?;
            Ok(nothing())
        }
        (&Method::GET, ["stat"]) => {
            let (path, follow) = (path()?, query.flag("follow")?);
            json(&blocking(move || list::stat(&path, follow)).await?)
        }
        (&Method::GET, ["list"]) => {
            let limit = query.number("limit", DEFAULT_LIST_LIMIT as u64)?.clamp(1, MAX_LIST_LIMIT as u64);
            let limit = usize::try_from(limit).unwrap_or(MAX_LIST_LIMIT);
            let (path, cursor) = (path()?, query.text("cursor")?.map(str::to_owned));
            json(&blocking(move || list::list(&path, limit, cursor.as_deref())).await?)
        }
        (&Method::POST, ["mkdir"]) => {
            let (path, options) = (path()?, options(config, query)?);
            json(&blocking(move || tree::make_dir(&path, &options)).await?)
        }
        (&Method::POST, ["move"]) => {
            let (from, to) = (to_path(&query.path("from")?), to_path(&query.path("to")?));
            let overwrite = query.flag("overwrite")?;
            json(&blocking(move || tree::rename(&from, &to, overwrite)).await?)
        }
        (&Method::GET, ["watch"]) => watch::watch(path()?, query.flag("recursive")?).await,
        (&Method::GET, ["tree"]) => folder::read(path()?).await,
        (&Method::PUT, ["tree"]) => {
            let options = options(config, query)?;
            json(&folder::write(path()?, options, request.into_body()).await?)
        }
        _ => Err(unknown(method, request.uri().path())),
    }
}

/// How a file or folder is made.
pub struct Options {
    mode: Option<u32>,
    owner: Option<(u32, u32)>,
    parents: bool,
}

fn options(config: &Config, query: &Query) -> Result<Options, ErrorBody> {
    let defaults = config.get();
    let user = query.text("user")?.unwrap_or(&defaults.user);
    // Without a default user (an agent on somebody's host) files belong to the agent's own.
    let account = if user.is_empty() { None } else { Some(Account::find(user)?) };
    let owner = account.map(|account| (account.uid, account.gid));
    Ok(Options { mode: query.mode("mode")?, owner, parents: query.flag("parents")? })
}

fn to_path(path: &RawPath) -> PathBuf {
    PathBuf::from(OsStr::from_bytes(path.as_bytes()))
}

/// Runs what waits for the disk where it stalls nobody else.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ErrorBody> + Send + 'static,
) -> Result<T, ErrorBody> {
    tokio::task::spawn_blocking(work).await.map_err(|error| internal(&error))?
}

fn failed(path: &std::path::Path) -> impl Fn(std::io::Error) -> ErrorBody + '_ {
    move |error| {
        crate::reply::os_error(&error, forkyard_protocol::Resource::File, &path.display().to_string())
    }
}
