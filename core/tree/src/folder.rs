//! A folder that things are put into, without ever following a link in it.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Gid, Mode, OFlags, Timespec, Timestamps, UTIME_OMIT, Uid};
use rustix::io::Errno;

use crate::path::{split, temporary};
use crate::{TreeError, at};

/// Bytes of a file that are written at once.
const PIECE: usize = 128 * 1024;

const OPEN_FOLDER: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// An open folder.
pub struct Folder {
    /// Its name, for errors.
    path: PathBuf,
    root: OwnedFd,
    owner: Option<(u32, u32)>,
    /// The folder inside that was used last: a stream fills one after another.
    last: Option<(PathBuf, OwnedFd)>,
}

impl Folder {
    /// Opens a folder, which may be behind a link; what is put into it will belong to this user and group.
    pub fn open(path: &Path, owner: Option<(u32, u32)>) -> Result<Self, TreeError> {
        Self::open_with(path, owner, OPEN_FOLDER.difference(OFlags::NOFOLLOW))
    }

    /// The same for one that was just made, in whose place somebody may have put a link.
    pub fn open_new(path: &Path, owner: Option<(u32, u32)>) -> Result<Self, TreeError> {
        Self::open_with(path, owner, OPEN_FOLDER)
    }

    fn open_with(path: &Path, owner: Option<(u32, u32)>, flags: OFlags) -> Result<Self, TreeError> {
        let root = rustix::fs::open(path, flags, Mode::empty());
        let root = root.map_err(|error| at(path)(error.into()))?;
        Ok(Self { path: path.to_owned(), root, owner, last: None })
    }

    /// Whether there is a folder inside of this path.
    pub fn has_folder(&mut self, path: &Path) -> Result<bool, TreeError> {
        match self.inside(path) {
            Ok(_) => Ok(true),
            Err(TreeError::Io { error, .. }) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Makes a folder, which only its owner may enter until it is finished; whether it was not there before.
    pub fn make_folder(&mut self, path: &Path) -> Result<bool, TreeError> {
        let whole = self.path.join(path);
        let failed = |error: Errno| at(&whole)(error.into());
        let (parent, name) = self.place(path)?;
        match rustix::fs::mkdirat(parent, name, Mode::RWXU) {
            Ok(()) => {}
            Err(Errno::EXIST) => {
                // Whatever is there: only a folder can be opened as one.
                return self.inside(path).map(|_| false);
            }
            Err(error) => return Err(failed(error)),
        }
        let made = self.inside(path)?.try_clone().map_err(at(&whole))?;
        self.give(&made).map_err(failed)?;
        Ok(true)
    }

    /// Puts a file in place as a whole; answers its size. An error of the stream's is told from one of the file's.
    pub fn make_file(
        &mut self,
        path: &Path,
        mode: u32,
        modified: u64,
        content: &mut impl Read,
    ) -> Result<u64, TreeError> {
        let whole = self.path.join(path);
        let failed = |error: Errno| at(&whole)(error.into());
        let (owner, (parent, name)) = (self.owner, self.place(path)?);
        let beside = temporary();
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(parent, &beside, flags, Mode::RUSR | Mode::WUSR).map_err(failed)?;
        let mut file = File::from(file);
        let mut put = || {
            let size = copy(content, &mut file, &whole)?;
            give(&file, owner).map_err(failed)?;
            rustix::fs::fchmod(&file, Mode::from_raw_mode(mode)).map_err(failed)?;
            rustix::fs::futimens(&file, &times(modified)).map_err(failed)?;
            rustix::fs::renameat(parent, &beside, parent, name).map_err(failed)?;
            Ok(size)
        };
        put().inspect_err(|_| discard(parent, &beside))
    }

    /// Puts a symbolic link in place.
    pub fn make_link(&mut self, path: &Path, target: &OsStr) -> Result<(), TreeError> {
        let whole = self.path.join(path);
        let failed = |error: Errno| at(&whole)(error.into());
        let (owner, (parent, name)) = (self.owner, self.place(path)?);
        let beside = temporary();
        rustix::fs::symlinkat(target, parent, &beside).map_err(failed)?;
        let put = || {
            if let Some((uid, gid)) = owner {
                let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
                rustix::fs::chownat(parent, &beside, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
            }
            rustix::fs::renameat(parent, &beside, parent, name)
        };
        put().inspect_err(|_| discard(parent, &beside)).map_err(failed)
    }

    /// Gives a folder inside, or this one, its permission bits and, if so told, its time.
    pub fn finish_folder(&mut self, path: &Path, mode: u32, modified: Option<u64>) -> Result<(), TreeError> {
        let whole = self.path.join(path);
        let failed = |error: Errno| at(&whole)(error.into());
        let folder = self.inside(path)?;
        rustix::fs::fchmod(folder, Mode::from_raw_mode(mode)).map_err(failed)?;
        modified.map_or(Ok(()), |at| rustix::fs::futimens(folder, &times(at))).map_err(failed)
    }

    /// Gives this folder itself to its owner.
    pub fn give_root(&self) -> Result<(), TreeError> {
        self.give(&self.root).map_err(|error| at(&self.path)(error.into()))
    }

    /// Where a path lies: its folder, and its name there.
    fn place<'a>(&mut self, path: &'a Path) -> Result<(&OwnedFd, &'a OsStr), TreeError> {
        let (parent, name) = split(path)
            .ok_or_else(|| TreeError::Refused("the stream's folder itself is no folder".to_owned()))?;
        Ok((self.inside(parent)?, name))
    }

    /// Opens a folder inside, name by name: a link among them, or in its place, is no folder.
    fn inside(&mut self, path: &Path) -> Result<&OwnedFd, TreeError> {
        if path.as_os_str().is_empty() {
            return Ok(&self.root);
        }
        if self.last.as_ref().is_none_or(|(last, _)| last != path) {
            // On from the last one where it is above.
            let last = self.last.take().filter(|(last, _)| path.starts_with(last));
            let (mut walked, mut folder) = last.map_or_else(Default::default, |(last, fd)| (last, Some(fd)));
            let rest = path.strip_prefix(&walked).unwrap_or(path).to_owned();
            for name in &rest {
                walked.push(name);
                let from = folder.as_ref().unwrap_or(&self.root);
                let opened = rustix::fs::openat(from, name, OPEN_FOLDER, Mode::empty());
                folder = Some(opened.map_err(|error| at(self.path.join(&walked))(error.into()))?);
            }
            self.last = folder.map(|folder| (path.to_owned(), folder));
        }
        Ok(self.last.as_ref().map_or(&self.root, |(_, folder)| folder))
    }

    fn give(&self, file: &OwnedFd) -> Result<(), Errno> {
        give(file, self.owner)
    }
}

fn give(file: impl std::os::fd::AsFd, owner: Option<(u32, u32)>) -> Result<(), Errno> {
    let Some((uid, gid)) = owner else { return Ok(()) };
    rustix::fs::fchown(file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
}

fn copy(content: &mut impl Read, file: &mut File, path: &Path) -> Result<u64, TreeError> {
    let mut buffer = vec![0; PIECE];
    let mut size = 0;
    loop {
        let count = match content.read(&mut buffer) {
            Ok(0) => return Ok(size),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(TreeError::Broken(error)),
        };
        file.write_all(&buffer[..count]).map_err(at(path))?;
        size += count as u64;
    }
}

/// Removes what could not be finished; where that fails too, the first error is the one to tell.
fn discard(parent: &OwnedFd, name: &OsStr) {
    let _ = rustix::fs::unlinkat(parent.as_fd(), name, AtFlags::empty());
}

fn times(modified: u64) -> Timestamps {
    let unchanged = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
    let modified = Timespec { tv_sec: i64::try_from(modified).unwrap_or(i64::MAX), tv_nsec: 0 };
    Timestamps { last_access: unchanged, last_modification: modified }
}
