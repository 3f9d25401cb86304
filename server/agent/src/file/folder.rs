//! Folders as tar streams, packed and unpacked in threads of their own.

use std::path::{Path, PathBuf};

use forkyard_protocol::{ErrorBody, ErrorCode, Resource, TreeSummary};
use forkyard_tree::{TreeError, Unpack};
use futures_util::TryStreamExt as _;
use http::{HeaderValue, Response, header};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Incoming;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio_util::io::{ReaderStream, StreamReader, SyncIoBridge};

use super::{Options, blocking, failed, tree};
use crate::reply::{Answer, invalid, os_error};

/// Folders under way at once: each holds a thread.
const MAX_TREES: usize = 16;

/// Bytes of a stream that are packed ahead of whoever reads it.
const AHEAD: usize = 256 * 1024;

static TREES: Semaphore = Semaphore::const_new(MAX_TREES);

/// Streams a folder.
pub async fn read(path: PathBuf) -> Answer {
    let permit = permit()?;
    let opened = path.clone();
    // What is wrong with the folder itself is an error of the call; of what it holds, the stream tells.
    blocking(move || std::fs::read_dir(&opened).map(drop).map_err(failed(&opened))).await?;
    let (reader, writer) = tokio::io::duplex(AHEAD);
    tokio::task::spawn_blocking(move || {
        let packed = forkyard_tree::pack(&path, SyncIoBridge::new(writer), words);
        if let Err(error) = packed {
            eprintln!("forkyard-agent: {} was not sent whole: {error}", path.display());
        }
        drop(permit);
    });
    let stream = ReaderStream::with_capacity(reader, AHEAD).map_ok(hyper::body::Frame::data);
    let mut response = Response::new(StreamBody::new(stream).boxed_unsync());
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-tar"));
    Ok(response)
}

/// Unpacks a stream into a folder.
pub async fn write(path: PathBuf, options: Options, body: Incoming) -> Result<TreeSummary, ErrorBody> {
    let permit = permit()?;
    if path.components().count() <= 1 {
        return Err(invalid("the root cannot be replaced; name a folder in it"));
    }
    let stream = StreamReader::new(body.into_data_stream().map_err(std::io::Error::other));
    let input = SyncIoBridge::new(stream);
    blocking(move || {
        let _permit = permit;
        if options.parents
            && let Some(parent) = path.parent()
        {
            tree::make_parents(parent, &options)?;
        }
        let owner = options.owner.filter(|_| rustix::process::geteuid().is_root());
        let unpack = Unpack { owner, ..Unpack::default() };
        let summary = forkyard_tree::unpack(&path, input, unpack).map_err(|error| words(&error))?;
        // Once for all of them: a sync for each file would take most of the time.
        sync(&path).map_err(failed(&path))?;
        Ok(summary)
    })
    .await
}

fn sync(path: &Path) -> std::io::Result<()> {
    Ok(rustix::fs::syncfs(std::fs::File::open(path)?)?)
}

fn permit() -> Result<SemaphorePermit<'static>, ErrorBody> {
    TREES.try_acquire().map_err(|_| {
        let message = format!("{MAX_TREES} folders are on their way already");
        ErrorBody::new(ErrorCode::NoCapacity, message).retry_after_ms(1000)
    })
}

fn words(error: &TreeError) -> ErrorBody {
    match error {
        TreeError::Io { path, error } => os_error(error, Resource::File, &path.display().to_string()),
        TreeError::Refused(message) => invalid(message.as_str()),
        TreeError::Told(told) => told.clone(),
        TreeError::Broken(error) => {
            ErrorBody::new(ErrorCode::Cancelled, format!("the folder's stream broke off: {error}"))
        }
    }
}
