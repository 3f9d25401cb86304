//! Folders between this host and a machine, streamed as tar; packed and unpacked in threads of their own.

use std::io::{self, Read, Write};
use std::path::Path;

use forkyard_protocol::ErrorBody;
pub use forkyard_protocol::TreeSummary;
use forkyard_tree::{TreeError, Unpack};
use futures_util::stream;
use http::Method;
use tokio::time::Instant;
use tokio_util::io::{ReaderStream, StreamReader, SyncIoBridge};
use tokio_util::sync::CancellationToken;

use crate::error::{Error, ErrorCode, Result};
use crate::files::Files;
use crate::http::{Request, Upload};
use crate::transfer::{OnProgress, TRANSFER_TIMEOUT, local_error, next_piece};

/// Bytes that are packed ahead of the connection.
const AHEAD: usize = 256 * 1024;

/// How often a download whose connection was cut is begun anew.
const MAX_CUTS: u32 = 4;

impl Files<'_> {
    /// Sends a local folder with all that is in it. One that is not there appears as a whole; into one that is there everything
    /// is put, each file as a whole, over what has the same name, and nothing is removed. Links are kept as links; devices,
    /// pipes and sockets are left out and counted. All of it belongs to the machine's default user; permission bits and times
    /// are kept. A cut connection is tried again from the beginning.
    pub async fn upload_dir(
        &self,
        local: impl AsRef<Path>,
        remote: impl AsRef<[u8]>,
        on_progress: Option<OnProgress>,
    ) -> Result<TreeSummary> {
        let local = local.as_ref();
        // Looked at before anything is sent: what is wrong with the folder itself is no failed connection.
        tokio::fs::read_dir(local).await.map(drop).map_err(local_error(local))?;
        let mut request =
            Request::new(Method::PUT, format!("{}&parents=true", self.target("/tree", remote)?));
        let local = local.to_owned();
        request.upload = Some(Upload::new(None, move || {
            let (reader, writer) = tokio::io::duplex(AHEAD);
            let (local, on_progress) = (local.clone(), on_progress.clone());
            tokio::task::spawn_blocking(move || {
                let out = Counted { inner: SyncIoBridge::new(writer), count: 0, on_progress };
                // What went wrong here is told in the stream, and comes back as the call's error.
                if let Err(error) = forkyard_tree::pack(&local, out, words) {
                    tracing::debug!(%error, "a folder was not sent whole");
                }
            });
            reqwest::Body::wrap_stream(ReaderStream::with_capacity(reader, AHEAD))
        }));
        self.sandbox.client.inner.http.call(&request, Instant::now() + TRANSFER_TIMEOUT).await
    }

    /// Fetches a folder with all that is in it, as [`Files::upload_dir`] sends one. The machine is not trusted: nothing lands
    /// outside the local folder, and links that lead out of it are left out and counted. All of it belongs to the caller.
    pub async fn download_dir(
        &self,
        remote: impl AsRef<[u8]>,
        local: impl AsRef<Path>,
        on_progress: Option<OnProgress>,
    ) -> Result<TreeSummary> {
        let request = Request::new(Method::GET, self.target("/tree", remote)?);
        let mut cuts = 0;
        loop {
            match self.receive_dir(&request, local.as_ref(), on_progress.clone()).await {
                Err(error) if error.code == ErrorCode::Connection && cuts < MAX_CUTS => cuts += 1,
                other => return other,
            }
        }
    }

    async fn receive_dir(
        &self,
        request: &Request,
        local: &Path,
        on_progress: Option<OnProgress>,
    ) -> Result<TreeSummary> {
        let client = &self.sandbox.client;
        let response = client.inner.http.open(request, client.deadline()).await?;
        // A thread cannot be aborted: where this future is dropped its stream ends.
        let dropped = CancellationToken::new();
        let _guard = dropped.clone().drop_guard();
        let pieces = stream::unfold((response, dropped), |(mut response, dropped)| async {
            let piece = tokio::select! {
                piece = next_piece(&mut response) => piece.map_err(io::Error::other),
                () = dropped.cancelled() => Err(io::ErrorKind::ConnectionAborted.into()),
            };
            piece.transpose().map(|piece| (piece, (response, dropped)))
        });
        let inner = SyncIoBridge::new(StreamReader::new(Box::pin(pieces)));
        let input = Counted { inner, count: 0, on_progress };
        let options = Unpack { contain_links: true, want_summary: true, owner: None };
        let local = local.to_owned();
        let unpacked =
            tokio::task::spawn_blocking(move || forkyard_tree::unpack(&local, input, options)).await;
        let unpacked = unpacked.map_err(|error| Error::new(ErrorCode::Internal, error.to_string()))?;
        unpacked.map_err(fault)
    }
}

/// A stream that tells of the bytes that went through so far.
struct Counted<T> {
    inner: T,
    count: u64,
    on_progress: Option<OnProgress>,
}

impl<T> Counted<T> {
    fn add(&mut self, count: usize) {
        self.count += count as u64;
        if let Some(on_progress) = &self.on_progress
            && count > 0
        {
            on_progress(self.count);
        }
    }
}

impl<T: Read> Read for Counted<T> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.add(count);
        Ok(count)
    }
}

impl<T: Write> Write for Counted<T> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(data)?;
        self.add(count);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// What went wrong with a local folder, for the machine's agent to give back.
fn words(error: &TreeError) -> ErrorBody {
    let error = match error {
        TreeError::Io { path, error } => local_error(path)(io::Error::new(error.kind(), error.to_string())),
        other => Error::new(ErrorCode::InvalidArgument, other.to_string()),
    };
    ErrorBody::new(error.code, error.message)
}

fn fault(error: TreeError) -> Error {
    match error {
        TreeError::Io { path, error } => local_error(&path)(error),
        TreeError::Refused(message) => Error::new(ErrorCode::FailedPrecondition, message),
        TreeError::Told(told) => told.into(),
        TreeError::Broken(error) => match error.downcast::<Error>() {
            Ok(error) => error,
            Err(error) => {
                Error::new(ErrorCode::Connection, format!("the folder's stream broke off: {error}"))
            }
        },
    }
}
