//! Files between this host and a machine, streamed: memory stays flat whatever their size.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use forkyard_protocol::FileStat;
use futures_util::TryStreamExt as _;
use http::Method;
use tokio::fs::File;
use tokio::io::AsyncWriteExt as _;
use tokio::time::{Instant, timeout};
use tokio_util::io::ReaderStream;

use crate::error::{Error, ErrorCode, Result};
use crate::files::Files;
use crate::http::{Request, Upload};

/// Bytes that are read from a local file at once.
const PIECE: usize = 256 * 1024;

/// How long a transfer may take in all.
pub(crate) const TRANSFER_TIMEOUT: Duration = Duration::from_hours(1);

/// How long a download may stand still.
const STALL_TIMEOUT: Duration = Duration::from_mins(1);

/// Told of the bytes that went over so far; after a cut they count from 0 again.
pub type OnProgress = Arc<dyn Fn(u64) + Send + Sync>;

impl Files<'_> {
    /// Sends a local file. The machine's file changes as a whole once all of it is there. A cut connection is tried again
    /// from the file's beginning.
    pub async fn upload(
        &self,
        local: impl AsRef<Path>,
        remote: impl AsRef<[u8]>,
        mode: Option<u32>,
        on_progress: Option<OnProgress>,
    ) -> Result<FileStat> {
        let local = local.as_ref();
        let request = self.write_request(remote, mode)?;
        // Looked at before anything is sent: a missing file is no failed connection.
        let file = File::open(local).await.map_err(local_error(local))?;
        let metadata = file.metadata().await.map_err(local_error(local))?;
        if metadata.is_dir() {
            let message = format!("{} is a folder: send it with upload_dir", local.display());
            return Err(Error::new(ErrorCode::InvalidArgument, message));
        }
        let upload = Upload::new(Some(metadata.len()), {
            let local = local.to_owned();
            move || {
                let (local, on_progress) = (local.clone(), on_progress.clone());
                let sent = AtomicU64::new(0);
                let file = async move { File::open(local).await };
                let pieces = futures_util::stream::once(file)
                    .map_ok(|file| ReaderStream::with_capacity(file, PIECE))
                    .try_flatten()
                    .inspect_ok(move |piece| {
                        let sent = sent.fetch_add(piece.len() as u64, Ordering::Relaxed) + piece.len() as u64;
                        if let Some(on_progress) = &on_progress {
                            on_progress(sent);
                        }
                    });
                reqwest::Body::wrap_stream(pieces)
            }
        });
        let request = Request { upload: Some(upload), ..request };
        self.sandbox.client.inner.http.call(&request, Instant::now() + TRANSFER_TIMEOUT).await
    }

    /// Fetches a file. The local file changes as a whole once all of it is there. Answers its size in bytes.
    pub async fn download(
        &self,
        remote: impl AsRef<[u8]>,
        local: impl AsRef<Path>,
        on_progress: Option<OnProgress>,
    ) -> Result<u64> {
        let (local, remote) = (local.as_ref(), remote.as_ref());
        let folder = local.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let beside =
            tempfile::Builder::new().prefix(".forkyard-").tempfile_in(folder).map_err(local_error(local))?;
        let request = Request::new(Method::GET, self.target("", remote)?);
        let mut cuts = 0;
        let size = loop {
            let file = beside.reopen().map_err(local_error(local))?;
            file.set_len(0).map_err(local_error(local))?;
            match self.receive(&request, File::from_std(file), local, on_progress.as_ref()).await {
                Err(error) if error.code == ErrorCode::Connection && cuts < 4 => cuts += 1,
                other => break other?,
            }
        };
        beside.persist(local).map_err(|error| local_error(local)(error.error))?;
        Ok(size)
    }

    async fn receive(
        &self,
        request: &Request,
        mut file: File,
        local: &Path,
        on_progress: Option<&OnProgress>,
    ) -> Result<u64> {
        let client = &self.sandbox.client;
        let mut response = client.inner.http.open(request, client.deadline()).await?;
        let mut received = 0;
        while let Some(piece) = next_piece(&mut response).await? {
            file.write_all(&piece).await.map_err(local_error(local))?;
            received += piece.len() as u64;
            if let Some(on_progress) = on_progress {
                on_progress(received);
            }
        }
        file.flush().await.map_err(local_error(local))?;
        Ok(received)
    }
}

/// The next piece of an answer's body, unless it stands still.
pub(crate) async fn next_piece(response: &mut reqwest::Response) -> Result<Option<bytes::Bytes>> {
    let piece = timeout(STALL_TIMEOUT, response.chunk()).await.map_err(|_| {
        let message = format!("nothing came for {} seconds", STALL_TIMEOUT.as_secs());
        Error::new(ErrorCode::Timeout, message)
    })?;
    Ok(piece?)
}

/// What this host's kernel said about a local file.
pub(crate) fn local_error(path: &Path) -> impl Fn(std::io::Error) -> Error + '_ {
    move |error| {
        let code = match error.kind() {
            std::io::ErrorKind::NotFound => ErrorCode::NotFound,
            std::io::ErrorKind::PermissionDenied => ErrorCode::PermissionDenied,
            std::io::ErrorKind::StorageFull => ErrorCode::NoSpace,
            _ => ErrorCode::InvalidArgument,
        };
        Error::new(code, format!("the local file {}: {error}", path.display()))
    }
}
