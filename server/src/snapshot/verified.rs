use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};

/// Entries beyond which those that nobody uses are forgotten: callers choose what is in here.
const MOST: usize = 1024;

/// Which frozen machines' files were found whole since the server started. Who looks at one holds its entry, so that a
/// hundred forks at once read it once, and those of others do not wait.
#[derive(Debug)]
pub struct Verified<K>(Mutex<HashMap<K, Arc<AsyncMutex<bool>>>>);

impl<K> Default for Verified<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Eq + Hash> Verified<K> {
    /// Waits for one's turn at an entry; it says whether the files were found whole, and is for the holder to set.
    pub async fn enter(&self, key: K) -> OwnedMutexGuard<bool> {
        let entry = {
            let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if entries.len() >= MOST {
                // What is forgotten is looked at once more.
                entries.retain(|_, entry| Arc::strong_count(entry) > 1);
            }
            entries.entry(key).or_default().clone()
        };
        entry.lock_owned().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_waits_for_the_same_and_not_for_another() {
        let verified = Verified::default();
        let mut first = verified.enter("a").await;
        assert!(!*first);
        assert!(!*verified.enter("b").await);
        *first = true;
        let (again, ()) = tokio::join!(verified.enter("a"), async { drop(first) });
        assert!(*again);
    }

    #[tokio::test]
    async fn what_nobody_uses_is_forgotten_and_what_is_held_is_not() {
        let verified = Verified::default();
        *verified.enter(0).await = true;
        let mut held = verified.enter(1).await;
        *held = true;
        for key in 2..=MOST {
            drop(verified.enter(key).await);
        }
        assert!(verified.0.lock().unwrap().len() < MOST);
        drop(held);
        assert!(*verified.enter(1).await);
        assert!(!*verified.enter(0).await);
    }
}
