use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use forkyard::OnProgress;
use forkyard::runtime::run;
use tokio::sync::watch;

use crate::{Answer, Blob, Error, Sandbox};

/// Most bytes that cross the border at once.
const MAX_WHOLE: i64 = 1 << 30;

/// FileKind is what a path names.
#[derive(Debug, Clone, Copy, uniffi::Enum)]
pub enum FileKind {
    /// A regular file.
    File,
    /// A folder.
    Directory,
    /// A symbolic link, where links are not followed.
    Symlink,
    /// A device, pipe or socket.
    Other,
}

impl From<forkyard::FileKind> for FileKind {
    fn from(kind: forkyard::FileKind) -> Self {
        match kind {
            forkyard::FileKind::File => Self::File,
            forkyard::FileKind::Directory => Self::Directory,
            forkyard::FileKind::Symlink => Self::Symlink,
            forkyard::FileKind::Other => Self::Other,
        }
    }
}

/// FileInfo is a file's attributes.
#[derive(Debug, uniffi::Record)]
pub struct FileInfo {
    /// Name is the last component of its path, with U+FFFD in place of what is not UTF-8.
    pub name: String,
    /// NameBase64 is the name's exact bytes in base64; only where they are not UTF-8.
    pub name_base64: String,
    /// Kind is what it is.
    pub kind: FileKind,
    /// Size is its size in bytes.
    pub size: i64,
    /// Mode is its permission bits, such as 0o644.
    pub mode: u32,
    /// UID is its owner's number.
    pub uid: u32,
    /// GID is its group's number.
    pub gid: u32,
    /// ModifiedAt is when its contents last changed.
    pub modified_at: SystemTime,
    /// Target is where a symbolic link points, with U+FFFD in place of what is not UTF-8.
    pub target: String,
}

impl From<forkyard::FileStat> for FileInfo {
    fn from(stat: forkyard::FileStat) -> Self {
        let forkyard::FileStat { name, name_base64, kind, size, mode, uid, gid, modified_at_ms, target } =
            stat;
        let since = Duration::from_millis(modified_at_ms.unsigned_abs());
        let epoch = SystemTime::UNIX_EPOCH;
        Self {
            name,
            name_base64: name_base64.unwrap_or_default(),
            kind: kind.into(),
            size: crate::value::bytes(size),
            mode,
            uid,
            gid,
            modified_at: if modified_at_ms < 0 { epoch - since } else { epoch + since },
            target: target.unwrap_or_default(),
        }
    }
}

/// Progress is how far a transfer has come, to be watched by one reader.
#[derive(uniffi::Object)]
pub struct Progress {
    sender: watch::Sender<u64>,
    ended: AtomicBool,
}

#[uniffi::export]
impl Progress {
    /// NewProgress makes one for one transfer.
    #[uniffi::constructor]
    pub fn new() -> Arc<Self> {
        Arc::new(Self { sender: watch::Sender::new(0), ended: AtomicBool::new(false) })
    }

    /// The bytes that went over so far, once they are not as many as were seen; none after the transfer's end.
    pub async fn next(&self, seen: i64) -> Answer<Option<i64>> {
        let mut receiver = self.sender.subscribe();
        loop {
            let now = crate::value::bytes(*receiver.borrow_and_update());
            if now != seen {
                return Ok(Some(now));
            }
            // Asked after the number: what was told before the end is seen before it.
            if self.ended.load(Ordering::Acquire) || receiver.changed().await.is_err() {
                return Ok(None);
            }
        }
    }

    /// The transfer has ended, well or not.
    pub fn end(&self) {
        self.ended.store(true, Ordering::Release);
        self.sender.send_modify(|_| {});
    }
}

/// What the core tells, as progress to be watched.
pub(crate) fn callback(progress: Arc<Progress>) -> OnProgress {
    Arc::new(move |bytes| {
        progress.sender.send_replace(bytes);
    })
}

#[uniffi::export]
impl Sandbox {
    /// A file's contents, at most 1 GiB.
    pub async fn read_native(&self, path: Blob) -> Answer<Blob> {
        let sandbox = self.sandbox.clone();
        let data = run(async move { sandbox.files().read(path.0).await }).await?;
        if i64::try_from(data.len()).is_ok_and(|length| length <= MAX_WHOLE) {
            return Ok(Blob(data.into()));
        }
        Err(Error::invalid("the file is over 1 GiB: read it piece by piece with Open, or Download it"))
    }

    /// Part of a file, at most 1 GiB.
    pub async fn read_range(&self, path: Blob, offset: i64, length: i64) -> Answer<Blob> {
        let sandbox = self.sandbox.clone();
        let range = (u64::try_from(offset), u64::try_from(length));
        let (Ok(offset), Ok(length), true) = (range.0, range.1, length <= MAX_WHOLE) else {
            return Err(Error::invalid(format!("no part of a file: {length} bytes from {offset} on")));
        };
        let data = run(async move { sandbox.files().read_range(path.0, offset, length).await }).await?;
        Ok(Blob(data.into()))
    }

    /// Replaces a file's contents as a whole.
    pub async fn write_native(&self, path: Blob, data: Blob, mode: Option<u32>) -> Answer<FileInfo> {
        let sandbox = self.sandbox.clone();
        Ok(run(async move { sandbox.files().write(path.0, data.0, mode).await }).await?.into())
    }

    /// Sends a local file.
    pub async fn upload_native(
        &self,
        local: String,
        remote: Blob,
        mode: Option<u32>,
        progress: Arc<Progress>,
    ) -> Answer<FileInfo> {
        let sandbox = self.sandbox.clone();
        let told = Some(callback(progress));
        Ok(run(async move { sandbox.files().upload(local, remote.0, mode, told).await }).await?.into())
    }

    /// Fetches a file; answers its size.
    pub async fn download_native(&self, remote: Blob, local: String, progress: Arc<Progress>) -> Answer<i64> {
        let sandbox = self.sandbox.clone();
        let told = Some(callback(progress));
        let size = run(async move { sandbox.files().download(remote.0, local, told).await }).await?;
        Ok(crate::value::bytes(size))
    }

    /// A folder's entries, by name.
    pub async fn list_native(&self, path: Blob) -> Answer<Vec<FileInfo>> {
        let sandbox = self.sandbox.clone();
        let entries = run(async move { sandbox.files().list(path.0).await }).await?;
        Ok(entries.into_iter().map(Into::into).collect())
    }

    /// A file's attributes, those of a link's target.
    pub async fn stat_native(&self, path: Blob) -> Answer<FileInfo> {
        let sandbox = self.sandbox.clone();
        Ok(run(async move { sandbox.files().stat(path.0).await }).await?.into())
    }

    /// Makes a folder and what is missing above it.
    pub async fn make_dir_native(&self, path: Blob) -> Answer<FileInfo> {
        let sandbox = self.sandbox.clone();
        Ok(run(async move { sandbox.files().make_dir(path.0).await }).await?.into())
    }

    /// Moves a file or folder.
    pub async fn move_native(&self, from: Blob, to: Blob, overwrite: bool) -> Answer<FileInfo> {
        let sandbox = self.sandbox.clone();
        Ok(run(async move { sandbox.files().rename(from.0, to.0, overwrite).await }).await?.into())
    }

    /// Removes a file or, recursively, a folder.
    pub async fn remove_native(&self, path: Blob, recursive: bool) -> Answer<()> {
        let sandbox = self.sandbox.clone();
        run(async move { sandbox.files().remove(path.0, recursive).await }).await.map_err(Error::from)
    }
}
