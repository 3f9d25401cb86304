use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use forkyard_protocol::{ENVELOPE_MEDIA_TYPE, ErrorBody, Frame};
use futures_util::stream;
use http::{HeaderValue, Response, header};
use http_body_util::{BodyExt as _, StreamBody};
use tokio::time::timeout;

use super::process::Process;
use super::ring::{Cursor, Next, Offsets};
use crate::reply::Answer;

/// Silence after which a sign of life is sent, so that a dead connection is noticed.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Bytes that are sent in one piece where so many are there.
const BATCH: usize = 128 * 1024;

struct Reader {
    process: Arc<Process>,
    number: u64,
    cursor: Cursor,
    started: bool,
    ended: bool,
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.process.leave(self.number);
    }
}

impl Process {
    /// Its output from these offsets on, as a stream of frames until its end.
    pub fn stream(self: &Arc<Self>, offsets: Offsets) -> Answer {
        let (number, cursor) = self.join(offsets)?;
        let reader = Reader { process: self.clone(), number, cursor, started: false, ended: false };
        let frames = stream::unfold(reader, |mut reader| async {
            let data = reader.next().await?;
            Some((Ok(hyper::body::Frame::data(data)), reader))
        });
        let mut response = Response::new(StreamBody::new(frames).boxed_unsync());
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(ENVELOPE_MEDIA_TYPE));
        Ok::<_, ErrorBody>(response)
    }
}

impl Reader {
    async fn next(&mut self) -> Option<Bytes> {
        if self.ended {
            return None;
        }
        let mut batch = Vec::new();
        if !self.started {
            self.started = true;
            batch.extend(Frame::Started(self.process.info()).encode());
        }
        let (process, mut cursor) = (self.process.clone(), self.cursor);
        let mut ended = false;
        let filled = process.until(|state| {
            while batch.len() < BATCH {
                match state.ring.next(&mut cursor) {
                    Next::Piece(chunk) if chunk.stream == 0 => {
                        batch.extend(Frame::Stdout(chunk.data.into()).encode());
                    }
                    Next::Piece(chunk) => batch.extend(Frame::Stderr(chunk.data.into()).encode()),
                    Next::Dropped([stdout, stderr]) => {
                        batch.extend(Frame::Dropped { stdout, stderr }.encode());
                    }
                    Next::Wait => {
                        if let Some(exit) = &state.exit {
                            batch.extend(Frame::Exited(exit.clone()).encode());
                            ended = true;
                        }
                        break;
                    }
                }
            }
            (!batch.is_empty()).then_some(())
        });
        if timeout(KEEP_ALIVE, filled).await.is_err() {
            batch.extend(Frame::KeepAlive.encode());
        }
        self.cursor = cursor;
        self.ended = ended;
        self.process.advance(self.number, cursor);
        Some(batch.into())
    }
}
