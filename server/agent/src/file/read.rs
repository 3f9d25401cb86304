use std::io::SeekFrom;
use std::path::PathBuf;

use forkyard_protocol::{ErrorBody, ErrorCode, Resource};
use futures_util::TryStreamExt as _;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use http_body_util::{BodyExt as _, StreamBody};
use rustix::fs::{Mode, OFlags};
use tokio::fs::File;
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};
use tokio_util::io::ReaderStream;

use super::range::{self, Range};
use super::{blocking, failed};
use crate::reply::{Answer, full, internal};

/// Bytes that are read at once.
const PIECE: usize = 256 * 1024;

/// Streams a file, or the part of it that was asked for.
pub async fn read(path: PathBuf, headers: &HeaderMap) -> Answer {
    let opened = path.clone();
    let file = blocking(move || open(&opened)).await?;
    let mut file = File::from_std(file);
    let size = file.metadata().await.map_err(failed(&path))?.len();
    let range = headers.get(header::RANGE).and_then(|value| value.to_str().ok());
    let (status, start, end) = match range::parse(range, size) {
        Range::Whole => (StatusCode::OK, 0, size),
        Range::Part(start, end) => (StatusCode::PARTIAL_CONTENT, start, end),
        Range::Unsatisfiable => return unsatisfiable(size),
    };
    file.seek(SeekFrom::Start(start)).await.map_err(failed(&path))?;
    let stream = ReaderStream::with_capacity(file.take(end - start), PIECE).map_ok(hyper::body::Frame::data);
    let mut response = Response::new(StreamBody::new(stream).boxed_unsync());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(end - start));
    if status == StatusCode::PARTIAL_CONTENT {
        let value = format!("bytes {start}-{}/{size}", end - 1);
        headers
            .insert(header::CONTENT_RANGE, HeaderValue::from_str(&value).map_err(|error| internal(&error))?);
    }
    Ok(response)
}

/// Opens a regular file and nothing else: a pipe would wait for a writer for ever.
fn open(path: &std::path::Path) -> Result<std::fs::File, ErrorBody> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = rustix::fs::open(path, flags, Mode::empty()).map_err(|error| failed(path)(error.into()))?;
    let file = std::fs::File::from(file);
    let kind = file.metadata().map_err(failed(path))?.file_type();
    if kind.is_dir() {
        return Err(failed(path)(rustix::io::Errno::ISDIR.into()));
    }
    if !kind.is_file() {
        let message =
            format!("{} is a device, pipe or socket; only regular files can be read", path.display());
        return Err(ErrorBody::new(ErrorCode::FailedPrecondition, message).about(Resource::File));
    }
    Ok(file)
}

fn unsatisfiable(size: u64) -> Answer {
    let mut response = Response::new(full(""));
    *response.status_mut() = StatusCode::RANGE_NOT_SATISFIABLE;
    let value = HeaderValue::from_str(&format!("bytes */{size}")).map_err(|error| internal(&error))?;
    response.headers_mut().insert(header::CONTENT_RANGE, value);
    Ok(response)
}
