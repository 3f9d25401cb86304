//! What happens below a folder, as the kernel tells it (`inotify(7)`).

mod told;
mod tree;

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use bytes::Bytes;
use forkyard_protocol::{EVENTS_MEDIA_TYPE, ErrorBody, ErrorCode, ErrorReply, MAX_WATCHED_FOLDERS};
use futures_util::stream;
use http::{HeaderValue, Response, header};
use http_body_util::{BodyExt as _, StreamBody};
use rustix::io::Errno;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;

use self::tree::Tree;
use super::{blocking, failed};
use crate::reply::{Answer, internal};

/// Watches at once.
const MAX_WATCHES: usize = 64;

/// Silence after which an empty line is sent, so that a dead connection is noticed.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

static WATCHES: Semaphore = Semaphore::const_new(MAX_WATCHES);

/// Streams what happens to what is in a folder and, if so asked, in all below it, from now on.
pub async fn watch(path: PathBuf, recursive: bool) -> Answer {
    let permit = WATCHES.try_acquire().map_err(|_| {
        let message = format!("{MAX_WATCHES} folders are watched already; end one first");
        ErrorBody::new(ErrorCode::NoCapacity, message).retry_after_ms(1000)
    })?;
    let tree = blocking(move || Tree::new(&path, recursive, MAX_WATCHED_FOLDERS)).await?;
    let events = tree.events().map_err(|error| internal(&error))?;
    // SAFETY: the descriptor stays open, and the same, for as long as it is registered: both ends with this value.
    let events = unsafe { AsyncFd::register_with_interest(events, Interest::READABLE) };
    let events = events.map_err(|error| internal(&error))?;
    let watch = Watch { tree, events, _permit: permit, ended: false };
    let lines = stream::unfold(watch, |mut watch| async {
        let data = watch.next().await?;
        Some((Ok(hyper::body::Frame::data(data)), watch))
    });
    let mut response = Response::new(StreamBody::new(lines).boxed_unsync());
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(EVENTS_MEDIA_TYPE));
    Ok(response)
}

struct Watch {
    tree: Tree,
    events: AsyncFd<OwnedFd>,
    _permit: SemaphorePermit<'static>,
    ended: bool,
}

impl Watch {
    /// The next events as lines; an empty line where there were none for a while.
    async fn next(&mut self) -> Option<Bytes> {
        while !self.ended {
            let settles = self.tree.settles_at();
            let patience = settles.map_or(KEEP_ALIVE, |at| at.saturating_duration_since(Instant::now()));
            let ready = match timeout(patience, self.events.readable()).await {
                Err(_) if settles.is_none() => return Some(Bytes::from_static(b"\n")),
                Err(_) => None,
                // The runtime's own end.
                Ok(ready) => Some(ready.ok()?),
            };
            // What comes until here is read below: a second half that is due by now and is not in it does not come.
            let began = Instant::now();
            let mut failure = None;
            if let Some(mut ready) = ready {
                match tokio::task::block_in_place(|| self.tree.read()) {
                    Ok(lives) => self.ended = !lives,
                    Err(Errno::AGAIN) => ready.clear_ready(),
                    Err(error) => failure = Some(failed(self.tree.root())(error.into())),
                }
            }
            self.tree.settle(began);
            let mut lines = self.tree.take_lines();
            if let Some(error) = failure {
                self.ended = true;
                // Strings and words: their JSON cannot fail.
                lines.extend(serde_json::to_vec(&ErrorReply { error }).unwrap_or_default());
                lines.push(b'\n');
            }
            if !lines.is_empty() {
                return Some(lines.into());
            }
        }
        None
    }
}
