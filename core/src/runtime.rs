use std::future::Future;
use std::time::Duration;

use crate::error::Result;

/// How long what was left behind may take to be cleaned up.
const CLEANUP: Duration = Duration::from_secs(30);

/// Cleans up in the background, on the caller's runtime if one still runs here; without one nobody can, and the machine's
/// idle time-out does it.
pub(crate) fn spawn_cleanup(work: impl Future<Output = Result<()>> + Send + 'static) {
    let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
    runtime.spawn(async move {
        match tokio::time::timeout(CLEANUP, work).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "nothing was left to clean up, or it could not be"),
            Err(_) => tracing::warn!("what a dropped call left behind could not be cleaned up in time"),
        }
    });
}
