use std::path::Path;

use futures_util::future::BoxFuture;
use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};
use tokio::sync::{mpsc, oneshot};

use super::{Entry, Expect, Store, StoreError};

/// Calls that may wait for the writer; more wait to be queued.
const QUEUE: usize = 1024;

/// Calls that share one commit, and so one `fsync`.
const BATCH: usize = 256;

/// The store in one SQLite file, served by one thread, so that no `fsync` ever runs on the event loop.
pub struct SqliteStore {
    queue: mpsc::Sender<Job>,
}

enum Job {
    Put { bucket: &'static str, key: String, value: Vec<u8>, expect: Expect, reply: Reply<u64> },
    Get { bucket: &'static str, key: String, reply: Reply<Option<Entry>> },
    Delete { bucket: &'static str, key: String, expect: Expect, reply: Reply<()> },
    List { bucket: &'static str, reply: Reply<Vec<Entry>> },
}

type Reply<T> = oneshot::Sender<Result<T, StoreError>>;

/// An answer that is sent once the batch is committed.
type Answer = Box<dyn FnOnce(Option<&str>)>;

impl SqliteStore {
    /// Opens the file, making it and its tables where they are missing.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let connection = open(path).map_err(failed)?;
        let (queue, jobs) = mpsc::channel(QUEUE);
        std::thread::Builder::new()
            .name("forkyard-store".to_owned())
            .spawn(move || serve(connection, jobs))
            .map_err(|error| StoreError::Failed(error.to_string()))?;
        Ok(Self { queue })
    }

    async fn call<T>(&self, job: impl FnOnce(Reply<T>) -> Job) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        let gone = || StoreError::Failed("its thread has ended".to_owned());
        self.queue.send(job(reply)).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }
}

impl Store for SqliteStore {
    fn put(
        &self,
        bucket: &'static str,
        key: String,
        value: Vec<u8>,
        expect: Expect,
    ) -> BoxFuture<'_, Result<u64, StoreError>> {
        Box::pin(self.call(move |reply| Job::Put { bucket, key, value, expect, reply }))
    }

    fn get(&self, bucket: &'static str, key: String) -> BoxFuture<'_, Result<Option<Entry>, StoreError>> {
        Box::pin(self.call(move |reply| Job::Get { bucket, key, reply }))
    }

    fn delete(
        &self,
        bucket: &'static str,
        key: String,
        expect: Expect,
    ) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(self.call(move |reply| Job::Delete { bucket, key, expect, reply }))
    }

    fn list(&self, bucket: &'static str) -> BoxFuture<'_, Result<Vec<Entry>, StoreError>> {
        Box::pin(self.call(move |reply| Job::List { bucket, reply }))
    }
}

fn open(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(std::time::Duration::from_secs(10))?;
    connection.pragma_update(None, "journal_mode", "wal")?;
    // FULL: an acknowledged commit is on disk, not only in the write-ahead log's page cache.
    connection.pragma_update(None, "synchronous", "full")?;
    connection.execute_batch(
        "create table if not exists documents (
            bucket text not null, key text not null, revision integer not null, value blob not null,
            primary key (bucket, key)
        ) without rowid;
        pragma user_version = 1;",
    )?;
    Ok(connection)
}

fn serve(mut connection: Connection, mut jobs: mpsc::Receiver<Job>) {
    let mut batch = Vec::with_capacity(BATCH);
    while jobs.blocking_recv_many(&mut batch, BATCH) > 0 {
        let mut answers = Vec::with_capacity(batch.len());
        // Immediate: one that reads first and then wants to write cannot wait for another process's write, and fails.
        let outcome =
            connection.transaction_with_behavior(TransactionBehavior::Immediate).and_then(|transaction| {
                answers.extend(batch.drain(..).map(|job| perform(&transaction, job)));
                transaction.commit()
            });
        // Where no transaction could begin, the jobs are dropped with their senders: each caller learns of it.
        batch.clear();
        let failure = outcome.err().map(|error| error.to_string());
        for answer in answers {
            answer(failure.as_deref());
        }
    }
}

fn perform(transaction: &Transaction<'_>, job: Job) -> Answer {
    match job {
        Job::Put { bucket, key, value, expect, reply } => {
            answer(reply, put(transaction, bucket, &key, &value, expect))
        }
        Job::Get { bucket, key, reply } => answer(reply, get(transaction, bucket, &key).map_err(failed)),
        Job::Delete { bucket, key, expect, reply } => {
            answer(reply, delete(transaction, bucket, &key, expect))
        }
        Job::List { bucket, reply } => answer(reply, list(transaction, bucket).map_err(failed)),
    }
}

fn answer<T: 'static>(reply: Reply<T>, result: Result<T, StoreError>) -> Answer {
    Box::new(move |failure| {
        let result = match failure {
            Some(message) => Err(StoreError::Failed(message.to_owned())),
            None => result,
        };
        // A caller that no longer waits needs no answer.
        drop(reply.send(result));
    })
}

fn revision(transaction: &Transaction<'_>, bucket: &str, key: &str) -> rusqlite::Result<Option<u64>> {
    transaction
        .prepare_cached("select revision from documents where bucket = ?1 and key = ?2")?
        .query_row(params![bucket, key], |row| row.get(0))
        .optional()
}

fn put(
    transaction: &Transaction<'_>,
    bucket: &str,
    key: &str,
    value: &[u8],
    expect: Expect,
) -> Result<u64, StoreError> {
    let current = revision(transaction, bucket, key).map_err(failed)?;
    if !expect.holds(current) {
        return Err(StoreError::Conflict(key.to_owned()));
    }
    let next = current.unwrap_or(0) + 1;
    transaction
        .prepare_cached(
            "insert or replace into documents (bucket, key, revision, value) values (?1, ?2, ?3, ?4)",
        )
        .and_then(|mut statement| statement.execute(params![bucket, key, next, value]))
        .map_err(failed)?;
    Ok(next)
}

fn delete(transaction: &Transaction<'_>, bucket: &str, key: &str, expect: Expect) -> Result<(), StoreError> {
    let current = revision(transaction, bucket, key).map_err(failed)?;
    if !expect.holds(current) {
        return Err(StoreError::Conflict(key.to_owned()));
    }
    transaction
        .prepare_cached("delete from documents where bucket = ?1 and key = ?2")
        .and_then(|mut statement| statement.execute(params![bucket, key]))
        .map_err(failed)?;
    Ok(())
}

fn entry(row: &rusqlite::Row<'_>) -> rusqlite::Result<Entry> {
    Ok(Entry { key: row.get(0)?, revision: row.get(1)?, value: row.get(2)? })
}

fn get(transaction: &Transaction<'_>, bucket: &str, key: &str) -> rusqlite::Result<Option<Entry>> {
    transaction
        .prepare_cached("select key, revision, value from documents where bucket = ?1 and key = ?2")?
        .query_row(params![bucket, key], entry)
        .optional()
}

fn list(transaction: &Transaction<'_>, bucket: &str) -> rusqlite::Result<Vec<Entry>> {
    transaction
        .prepare_cached("select key, revision, value from documents where bucket = ?1 order by key")?
        .query_map(params![bucket], entry)?
        .collect()
}

#[allow(clippy::needless_pass_by_value)] // the shape that `map_err` wants
fn failed(error: rusqlite::Error) -> StoreError {
    StoreError::Failed(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn revisions_guard_every_change() {
        let dir = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(&dir.path().join("store.sqlite")).unwrap();
        let put = |value: &'static [u8], expect| store.put("b", "k".to_owned(), value.to_vec(), expect);
        assert_eq!(put(b"1", Expect::Absent).await.unwrap(), 1);
        assert!(matches!(put(b"2", Expect::Absent).await, Err(StoreError::Conflict(key)) if key == "k"));
        assert_eq!(put(b"2", Expect::Revision(1)).await.unwrap(), 2);
        assert!(put(b"3", Expect::Revision(1)).await.is_err());
        let entry = store.get("b", "k".to_owned()).await.unwrap().unwrap();
        assert_eq!((entry.revision, entry.value.as_slice()), (2, &b"2"[..]));
        assert!(store.get("other", "k".to_owned()).await.unwrap().is_none());
        store.delete("b", "k".to_owned(), Expect::Revision(2)).await.unwrap();
        assert!(store.list("b").await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn what_was_acknowledged_is_there_after_reopening() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store.sqlite");
        let store = SqliteStore::open(&path).unwrap();
        let puts = (0..500).map(|n| store.put("b", format!("{n:03}"), vec![1], Expect::Absent));
        for result in futures_util::future::join_all(puts).await {
            result.unwrap();
        }
        drop(store);
        let again = SqliteStore::open(&path).unwrap();
        assert_eq!(again.list("b").await.unwrap().len(), 500);
    }
}
