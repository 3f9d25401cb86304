//! The runtime that bindings run calls on, and that cleans up after calls that were dropped.

use std::future::Future;
use std::sync::LazyLock;
use std::time::Duration;

use tokio::runtime::{Builder, Handle, Runtime};
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use crate::error::{Error, ErrorCode, Result};

/// How long what was left behind may take to be cleaned up.
const CLEANUP: Duration = Duration::from_secs(30);

static RUNTIME: LazyLock<std::io::Result<Runtime>> = LazyLock::new(|| {
    Builder::new_multi_thread().worker_threads(2).thread_name("forkyard").enable_all().build()
});

/// The one runtime of this process, made when it is first asked for: two threads, which wait and frame and never compute.
///
/// It does not survive `fork(2)`: threads do not, so a binding must refuse to use it in a child.
///
/// # Panics
///
/// Where the system gives no threads: nothing can be done then.
pub fn handle() -> Handle {
    match &*RUNTIME {
        Ok(runtime) => runtime.handle().clone(),
        Err(error) => panic!("no runtime could be made: {error}"),
    }
}

/// Does the work here, for a caller that has no runtime; dropped, it stops the work, which dropping a plain task would not.
pub async fn run<T: Send + 'static>(work: impl Future<Output = Result<T>> + Send + 'static) -> Result<T> {
    let task = AbortOnDropHandle::new(handle().spawn(work));
    task.await.unwrap_or_else(|error| {
        Err(Error::new(ErrorCode::Internal, format!("the call's task ended without an answer: {error}")))
    })
}

/// Cleanups that are under way.
static CLEANUPS: LazyLock<TaskTracker> = LazyLock::new(TaskTracker::new);

/// Waits until what dropped calls left behind is cleaned up, at most `patience`. For programs that end: a process that was
/// to be killed goes on if nobody is left to say so.
pub fn settle(patience: Duration) {
    if CLEANUPS.is_empty() {
        return;
    }
    CLEANUPS.close();
    if handle().block_on(async { tokio::time::timeout(patience, CLEANUPS.wait()).await }).is_err() {
        tracing::warn!("the program ends before all that it left behind was cleaned up");
    }
    CLEANUPS.reopen();
}

/// Cleans up in the background. On a runtime of its own: the caller's may be the very thing that ends.
pub(crate) fn spawn_cleanup(work: impl Future<Output = Result<()>> + Send + 'static) {
    let cleanup = async move {
        match tokio::time::timeout(CLEANUP, work).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "nothing was left to clean up, or it could not be"),
            Err(_) => tracing::warn!("what a dropped call left behind could not be cleaned up in time"),
        }
    };
    handle().spawn(CLEANUPS.track_future(cleanup));
}
