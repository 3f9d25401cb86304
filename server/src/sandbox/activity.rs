use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Calls that a machine is serving, and since when it has served none.
#[derive(Debug, Clone)]
pub struct Activity(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    open: u64,
    since: Instant,
}

/// A call that is being served; the machine is not idle until it is dropped.
#[derive(Debug)]
pub struct OpenCall(Activity);

impl Activity {
    /// Idle from now on.
    pub fn new() -> Self {
        Self(Arc::new(Mutex::new(State { open: 0, since: Instant::now() })))
    }

    /// Marks the start of a call.
    pub fn begin(&self) -> OpenCall {
        self.change(|state| state.open += 1);
        OpenCall(self.clone())
    }

    /// Resolves once no call was open for `timeout`.
    ///
    /// A call only ever moves the deadline later, so sleeping until the earliest possible one and looking again is exact
    /// and costs a call nothing.
    pub async fn idle_for(&self, timeout: Duration) {
        loop {
            let deadline = {
                let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
                let from = if state.open == 0 { state.since } else { Instant::now() };
                from + timeout
            };
            if deadline <= Instant::now() {
                return;
            }
            tokio::time::sleep_until(deadline).await;
        }
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut state);
        state.since = Instant::now();
    }
}

impl Default for Activity {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for OpenCall {
    fn drop(&mut self) {
        self.0.change(|state| state.open -= 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn idleness_counts_from_the_end_of_the_last_call() {
        let activity = Activity::new();
        let start = Instant::now();
        let call = activity.begin();
        let closer = tokio::spawn(async move {
            tokio::time::sleep(Duration::from_secs(25)).await;
            drop(call);
        });
        activity.idle_for(Duration::from_secs(10)).await;
        closer.await.unwrap();
        assert_eq!(start.elapsed().as_secs(), 35);
    }

    #[tokio::test(start_paused = true)]
    async fn an_unused_machine_is_idle_from_its_start() {
        let start = Instant::now();
        Activity::new().idle_for(Duration::from_secs(10)).await;
        assert_eq!(start.elapsed().as_secs(), 10);
    }
}
