//! The runtime that bindings run calls on, and that cleans up after calls that were dropped.

use std::future::Future;
use std::pin::Pin;
use std::sync::LazyLock;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::runtime::{Builder, Handle, Runtime};
use tokio::task::{JoinError, JoinHandle};
use tokio_util::task::TaskTracker;

use crate::error::{Error, ErrorCode, Result};

/// How long what was left behind may take to be cleaned up.
const CLEANUP: Duration = Duration::from_secs(30);

static RUNTIME: LazyLock<std::io::Result<Runtime>> = LazyLock::new(|| {
    Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("forkyard")
        .on_thread_start(hold_back_broken_pipes)
        .enable_all()
        .build()
});

/// Has a write to a connection whose other end has gone fail on this thread. Programs that are not Rust's may leave SIGPIPE as the
/// system has it, and then it ends them: a Go program is ended so by any thread that is not Go's.
fn hold_back_broken_pipes() {
    let mut signals = std::mem::MaybeUninit::uninit();
    // SAFETY: the set is this function's own, and is made by the first call before the others read it.
    unsafe {
        libc::sigemptyset(signals.as_mut_ptr());
        libc::sigaddset(signals.as_mut_ptr(), libc::SIGPIPE);
        libc::pthread_sigmask(libc::SIG_BLOCK, signals.as_ptr(), std::ptr::null_mut());
    }
}

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
    run_or_undo(work, |_| std::future::ready(Ok(()))).await
}

/// The same for work whose result must not be lost: it is undone where the caller went as it came.
pub async fn run_or_undo<T, F, U>(
    work: impl Future<Output = Result<T>> + Send + 'static,
    undo: F,
) -> Result<T>
where
    T: Send + 'static,
    F: FnOnce(T) -> U + Send + Unpin + 'static,
    U: Future<Output = Result<()>> + Send + 'static,
{
    let task = Task { running: Some((handle().spawn(work), undo)) };
    task.await.unwrap_or_else(|error| {
        Err(Error::new(ErrorCode::Internal, format!("the call's task ended without an answer: {error}")))
    })
}

/// A task that ends with its caller. Its end counts as a cleanup: what it leaves behind is known only then.
struct Task<T, F, U>
where
    T: Send + 'static,
    F: FnOnce(T) -> U + Send + Unpin + 'static,
    U: Future<Output = Result<()>> + Send + 'static,
{
    running: Option<(JoinHandle<Result<T>>, F)>,
}

impl<T, F, U> Future for Task<T, F, U>
where
    T: Send + 'static,
    F: FnOnce(T) -> U + Send + Unpin + 'static,
    U: Future<Output = Result<()>> + Send + 'static,
{
    type Output = std::result::Result<Result<T>, JoinError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Some((task, _)) = self.running.as_mut() else { return Poll::Pending };
        let outcome = ready!(Pin::new(task).poll(context));
        self.running = None;
        Poll::Ready(outcome)
    }
}

impl<T, F, U> Drop for Task<T, F, U>
where
    T: Send + 'static,
    F: FnOnce(T) -> U + Send + Unpin + 'static,
    U: Future<Output = Result<()>> + Send + 'static,
{
    fn drop(&mut self) {
        let Some((task, undo)) = self.running.take() else { return };
        task.abort();
        spawn_cleanup(async move {
            match task.await {
                Ok(Ok(result)) => undo(result).await,
                Ok(Err(_)) | Err(_) => Ok(()),
            }
        });
    }
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

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// Says when it is dropped.
    struct Witness(mpsc::Sender<()>);

    impl Drop for Witness {
        fn drop(&mut self) {
            let _ = self.0.send(());
        }
    }

    #[test]
    fn work_that_is_dropped_has_stopped_once_it_is_settled() {
        let (sender, receiver) = mpsc::channel();
        let (began, begin) = tokio::sync::oneshot::channel();
        let work = run(async move {
            let _witness = Witness(sender);
            began.send(()).expect("somebody waits for it");
            std::future::pending::<Result<()>>().await
        });
        let racing = async {
            tokio::select! {
                outcome = work => panic!("it ended: {outcome:?}"),
                begun = begin => begun.expect("it begins"),
            }
        };
        handle().block_on(racing);
        settle(Duration::from_secs(10));
        receiver.try_recv().expect("it was dropped");
    }

    #[test]
    fn a_result_that_nobody_takes_is_undone() {
        let (sender, receiver) = mpsc::channel();
        let done = handle().spawn(async { Ok(7) });
        while !done.is_finished() {
            std::thread::yield_now();
        }
        let undo = move |made| std::future::ready(sender.send(made).map_err(|error| panic!("{error}")));
        drop(Task { running: Some((done, undo)) });
        settle(Duration::from_secs(10));
        assert_eq!(receiver.try_recv(), Ok(7));
    }

    #[test]
    fn work_that_panics_is_an_error() {
        let outcome = handle().block_on(run(async { if true { panic!("no") } else { Ok(()) } }));
        assert_eq!(outcome.unwrap_err().code, ErrorCode::Internal);
    }

    #[test]
    fn a_peer_that_has_gone_ends_no_program() {
        use std::io::Write as _;

        // Rust's own programs ignore the signal; others do not.
        // SAFETY: no handler is installed, and none was.
        let before = unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
        let written = handle().block_on(handle().spawn(async {
            let (reader, mut writer) = std::io::pipe()?;
            drop(reader);
            writer.write_all(b"x")
        }));
        // SAFETY: what was there before is there again.
        unsafe { libc::signal(libc::SIGPIPE, before) };
        assert_eq!(written.unwrap().unwrap_err().kind(), std::io::ErrorKind::BrokenPipe);
    }
}
