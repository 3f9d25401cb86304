//! What must survive a restart: small JSON documents in buckets, each with a revision.
//!
//! The trait is as narrow as a key-value service on a network (put with expected revision, get, list, delete), so that
//! one can stand behind it where many nodes share their state.

mod sqlite;

use futures_util::future::BoxFuture;
pub use sqlite::SqliteStore;

/// A document as it stands in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its key within the bucket.
    pub key: String,
    /// Grows by one with each put, from 1.
    pub revision: u64,
    /// The document.
    pub value: Vec<u8>,
}

/// What must hold for a put or delete to take place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// Nothing.
    Any,
    /// No document under this key.
    Absent,
    /// The document has this revision.
    Revision(u64),
}

impl Expect {
    /// Whether it holds for the revision that is there, if any.
    pub fn holds(self, current: Option<u64>) -> bool {
        match self {
            Self::Any => true,
            Self::Absent => current.is_none(),
            Self::Revision(wanted) => current == Some(wanted),
        }
    }
}

/// Why the store did not do as told.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another revision is there than was expected.
    #[error("the document '{0}' was changed by somebody else")]
    Conflict(String),
    /// The store's disk or file.
    #[error("the store failed: {0}")]
    Failed(String),
}

/// A bucketed key-value store. What a call has acknowledged survives `kill -9` and power loss.
pub trait Store: Send + Sync {
    /// Writes a document and answers its new revision.
    fn put(
        &self,
        bucket: &'static str,
        key: String,
        value: Vec<u8>,
        expect: Expect,
    ) -> BoxFuture<'_, Result<u64, StoreError>>;

    /// Reads a document.
    fn get(&self, bucket: &'static str, key: String) -> BoxFuture<'_, Result<Option<Entry>, StoreError>>;

    /// Deletes a document; deleting what is not there succeeds under [`Expect::Any`].
    fn delete(
        &self,
        bucket: &'static str,
        key: String,
        expect: Expect,
    ) -> BoxFuture<'_, Result<(), StoreError>>;

    /// All documents of a bucket, by key.
    fn list(&self, bucket: &'static str) -> BoxFuture<'_, Result<Vec<Entry>, StoreError>>;
}
