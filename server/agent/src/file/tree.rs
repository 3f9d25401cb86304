use std::io;
use std::os::unix::fs::{DirBuilderExt as _, chown};
use std::path::Path;

use forkyard_protocol::{ErrorBody, FileStat};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

use super::{Options, failed, list};
use crate::reply::invalid;

/// Permission bits of a new folder.
const DEFAULT_MODE: u32 = 0o755;

/// Makes a folder. One that is there is an error, unless missing parents are to be made: then it is what was wanted.
pub fn make_dir(path: &Path, options: &Options) -> Result<FileStat, ErrorBody> {
    if options.parents {
        make_parents(path, options)?;
    } else {
        make_one(path, options).map_err(failed(path))?;
    }
    list::stat(path, true)
}

/// Makes what is missing of a folder and those above it.
pub fn make_parents(path: &Path, options: &Options) -> Result<(), ErrorBody> {
    let missing: Vec<&Path> = path.ancestors().take_while(|dir| !dir.exists()).collect();
    for dir in missing.into_iter().rev() {
        match make_one(dir, options) {
            // Somebody else made it meanwhile.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            other => other.map_err(failed(dir))?,
        }
    }
    if path.is_dir() { Ok(()) } else { Err(failed(path)(Errno::NOTDIR.into())) }
}

fn make_one(path: &Path, options: &Options) -> io::Result<()> {
    std::fs::DirBuilder::new().mode(options.mode.unwrap_or(DEFAULT_MODE)).create(path)?;
    match options.owner {
        Some((uid, gid)) if rustix::process::geteuid().is_root() => chown(path, Some(uid), Some(gid)),
        _ => Ok(()),
    }
}

/// Removes a file, a link itself, or a folder: an empty one, or with all that is in it.
pub fn remove(path: &Path, recursive: bool) -> Result<(), ErrorBody> {
    if path.components().count() <= 1 {
        return Err(invalid("the root cannot be removed"));
    }
    let kind = path.symlink_metadata().map_err(failed(path))?.file_type();
    let removed = match (kind.is_dir(), recursive) {
        (false, _) => std::fs::remove_file(path),
        (true, false) => std::fs::remove_dir(path),
        (true, true) => std::fs::remove_dir_all(path),
    };
    removed.map_err(failed(path))
}

/// Moves within one file system.
pub fn rename(from: &Path, to: &Path, overwrite: bool) -> Result<FileStat, ErrorBody> {
    let flags = if overwrite { RenameFlags::empty() } else { RenameFlags::NOREPLACE };
    renameat_with(CWD, from, CWD, to, flags).map_err(|error| {
        // Which of the two it is about: the target is what is there already, the source what is not.
        let about = if error == Errno::EXIST || from.symlink_metadata().is_ok() { to } else { from };
        failed(about)(error.into())
    })?;
    list::stat(to, false)
}
