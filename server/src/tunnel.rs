//! Connections to ports inside machines.

use bytes::Bytes;
use forkyard_protocol::{ErrorBody, ErrorCode, ProjectId, SandboxId};
use futures_util::TryStreamExt as _;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use serde::de::IgnoredAny;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::io::{ReaderStream, StreamReader};

use crate::action::{GuestReply, Service};
use crate::guest::{GuestCall, read_json};

/// Bytes on their way into a machine that it has not taken yet.
const WINDOW: usize = 64 * 1024;

/// Connects to a port of a machine's. The machine is in use until the connection is dropped.
pub async fn open(
    service: &Service,
    project: &ProjectId,
    id: &SandboxId,
    port: u16,
) -> Result<impl AsyncRead + AsyncWrite + Send + Unpin + use<>, ErrorBody> {
    // Only one direction of it is used: what is written here is the call's body, which ends when this is shut or dropped.
    let (to, body) = tokio::io::duplex(WINDOW);
    let body = ReaderStream::with_capacity(body, WINDOW).map_ok(Frame::data).map_err(Into::into);
    let call = GuestCall::Tunnel(port, 0, StreamBody::new(body).boxed_unsync());
    let GuestReply { response, call, .. } = service.call_guest(project, id, call).await?;
    if !response.status().is_success() {
        let told = read_json::<IgnoredAny>(response).await;
        return Err(told.err().unwrap_or_else(|| ErrorBody::new(ErrorCode::Internal, "no error was told")));
    }
    let from = response.into_body().into_data_stream().map_err(std::io::Error::other);
    let from = from.inspect_ok(move |_: &Bytes| _ = &call);
    Ok(tokio::io::join(StreamReader::new(Box::pin(from)), to))
}
