use std::fs::Permissions;
use std::os::unix::fs::{PermissionsExt as _, fchown};
use std::path::{Path, PathBuf};

use forkyard_protocol::{ErrorBody, ErrorCode, FileStat};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::io::AsyncWriteExt as _;

use super::{Options, blocking, failed, list, tree};

/// Permission bits of a new file.
const DEFAULT_MODE: u32 = 0o644;

/// Replaces a file's contents as a whole: written beside, synced, renamed. Until then the old contents stay; a body that
/// breaks off changes nothing.
pub async fn write(path: PathBuf, options: Options, body: Incoming) -> Result<FileStat, ErrorBody> {
    let (temporary, target, mode) = blocking(move || prepare(&path, &options)).await?;
    let file = temporary.as_file().try_clone().map_err(failed(&target))?;
    receive(tokio::fs::File::from_std(file), body, &target).await?;
    blocking(move || {
        temporary.as_file().set_permissions(Permissions::from_mode(mode)).map_err(failed(&target))?;
        temporary.as_file().sync_all().map_err(failed(&target))?;
        temporary.persist(&target).map_err(|error| failed(&target)(error.error))?;
        list::stat(&target, true)
    })
    .await
}

/// A file beside the target, with its owner; the target behind any links; the permission bits that it shall have.
fn prepare(path: &Path, options: &Options) -> Result<(tempfile::NamedTempFile, PathBuf, u32), ErrorBody> {
    if options.parents
        && let Some(parent) = path.parent()
    {
        // The permission bits are the file's: folders of its would lock its owner out.
        tree::make_parents(parent, &Options { mode: None, ..*options })?;
    }
    // A link is written through, as a program would.
    let target = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let replaced = std::fs::metadata(&target).ok();
    if replaced.as_ref().is_some_and(std::fs::Metadata::is_dir) {
        return Err(failed(path)(rustix::io::Errno::ISDIR.into()));
    }
    let mode = options.mode.or_else(|| replaced.map(|file| file.permissions().mode() & 0o7777));
    let folder = target.parent().ok_or_else(|| failed(path)(rustix::io::Errno::ISDIR.into()))?;
    let temporary =
        tempfile::Builder::new().prefix(".forkyard-").tempfile_in(folder).map_err(failed(path))?;
    if let Some((uid, gid)) = options.owner
        && rustix::process::geteuid().is_root()
    {
        fchown(temporary.as_file(), Some(uid), Some(gid)).map_err(failed(path))?;
    }
    Ok((temporary, target, mode.unwrap_or(DEFAULT_MODE)))
}

async fn receive(mut file: tokio::fs::File, mut body: Incoming, path: &Path) -> Result<(), ErrorBody> {
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| {
            ErrorBody::new(ErrorCode::Cancelled, format!("the file's contents broke off: {error}"))
        })?;
        if let Ok(data) = frame.into_data() {
            file.write_all(&data).await.map_err(failed(path))?;
        }
    }
    file.flush().await.map_err(failed(path))?;
    // Hands the file back before it is synced: tokio's own writes are done by now.
    drop(file.into_std().await);
    Ok(())
}
