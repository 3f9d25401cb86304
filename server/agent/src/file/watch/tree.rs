use std::collections::HashMap;
use std::ffi::OsStr;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use forkyard_protocol::{ErrorBody, ErrorCode, FileEventKind, Resource};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use rustix::io::Errno;

use super::super::failed;
use super::told::{Half, NO_FOLDER, Told};

/// Bytes of events that are taken from the kernel at once.
const BATCH: usize = 64 * 1024;

/// The folders that are watched, and what happened in them.
pub struct Tree {
    inotify: OwnedFd,
    root: PathBuf,
    recursive: bool,
    max_folders: usize,
    folders: HashMap<i32, PathBuf>,
    told: Told,
}

impl Tree {
    /// Watches a folder and, if so asked, those below it: at most so many.
    pub fn new(root: &Path, recursive: bool, max_folders: usize) -> Result<Self, ErrorBody> {
        let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK);
        let inotify = inotify.map_err(|error| failed(root)(error.into()))?;
        let (root, told) = (root.to_owned(), Told::new(root));
        let mut tree = Self { inotify, root, recursive, max_folders, folders: HashMap::new(), told };
        let root = tree.root.clone();
        if !root.is_dir() {
            let error = root.metadata().err().unwrap_or_else(|| Errno::NOTDIR.into());
            return Err(failed(&root)(error));
        }
        tree.add(&root, false).map_err(|error| failed(&root)(error.into()))?;
        if tree.told.overflowed() {
            let most = tree.folders.len().min(max_folders);
            let message = format!(
                "{} has over {most} folders; watch one below it, or without 'recursive'",
                root.display()
            );
            return Err(ErrorBody::new(ErrorCode::FailedPrecondition, message).about(Resource::File));
        }
        Ok(tree)
    }

    /// The folder that was asked for.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// A descriptor that can be read where there are events.
    pub fn events(&self) -> io::Result<OwnedFd> {
        self.inotify.try_clone()
    }

    /// Watches a folder and, if so asked, those below it; of what is in a new one, tells.
    fn add(&mut self, folder: &Path, is_new: bool) -> Result<(), Errno> {
        let mut open = vec![folder.to_owned()];
        while let Some(folder) = open.pop() {
            let number = match self.add_one(&folder) {
                Ok(Some(number)) => number,
                // The machine's own bound is as much as one of ours.
                Ok(None) | Err(Errno::NOSPC) if folder != self.root => {
                    self.told.tell(NO_FOLDER, FileEventKind::Overflow, &folder, true);
                    return Ok(());
                }
                // Gone already, or no folder any more.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) if folder != self.root => continue,
                Ok(None) => return Err(Errno::NOSPC),
                Err(error) => return Err(error),
            };
            // One that is watched still has its number still.
            let gone = self.told.settle_with(number);
            self.let_go(gone.into_iter().filter(|gone| *gone != number));
            self.folders.insert(number, folder.clone());
            if !self.recursive {
                return Ok(());
            }
            // Looked at once it is watched: what is made meanwhile is told twice rather than never.
            let Ok(entries) = std::fs::read_dir(&folder) else { continue };
            for entry in entries.flatten() {
                let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
                if is_new {
                    self.told.tell(number, FileEventKind::Created, &entry.path(), is_dir);
                }
                if is_dir {
                    open.push(entry.path());
                }
            }
        }
        Ok(())
    }

    /// The number of a folder that is watched now; none where there are as many as there may be.
    fn add_one(&self, folder: &Path) -> Result<Option<i32>, Errno> {
        if self.folders.len() >= self.max_folders {
            return Ok(None);
        }
        let flags = WatchFlags::CREATE
            | WatchFlags::DELETE
            | WatchFlags::DELETE_SELF
            | WatchFlags::MOVE
            | WatchFlags::MOVE_SELF
            | WatchFlags::MODIFY
            | WatchFlags::ATTRIB
            | WatchFlags::ONLYDIR;
        // The folder that was asked for may be behind a link; those below it are not followed.
        let flags = if folder == self.root { flags } else { flags | WatchFlags::DONT_FOLLOW };
        inotify::add_watch(&self.inotify, folder, flags).map(Some)
    }

    /// Takes what the kernel has; `false` once the watched folder itself is gone.
    pub fn read(&mut self) -> Result<bool, Errno> {
        let inotify = self.inotify.try_clone().map_err(|_| Errno::MFILE)?;
        let mut buffer = vec![MaybeUninit::uninit(); BATCH];
        let mut reader = Reader::new(&inotify, &mut buffer);
        let mut lives = true;
        loop {
            let event = reader.next()?;
            let (number, what, cookie) = (event.wd(), event.events(), event.cookie());
            let name = event.file_name().map(|name| OsStr::from_bytes(name.to_bytes()).to_owned());
            lives &= self.take(number, what, cookie, name.as_deref())?;
            if reader.is_buffer_empty() {
                return Ok(lives);
            }
        }
    }

    /// One event of the kernel's; `false` where the watched folder itself is gone.
    fn take(
        &mut self,
        number: i32,
        what: ReadFlags,
        cookie: u32,
        name: Option<&OsStr>,
    ) -> Result<bool, Errno> {
        if what.contains(ReadFlags::QUEUE_OVERFLOW) {
            self.told.tell(NO_FOLDER, FileEventKind::Overflow, &self.root, true);
            return Ok(true);
        }
        let Some(folder) = self.folders.get(&number).cloned() else { return Ok(true) };
        if what.contains(ReadFlags::IGNORED) {
            self.folders.remove(&number);
            return Ok(folder != self.root);
        }
        let Some(name) = name else {
            // About the folder itself: told by the one above it, but for the first.
            let ends = what.intersects(ReadFlags::DELETE_SELF | ReadFlags::MOVE_SELF | ReadFlags::UNMOUNT);
            if ends && folder == self.root {
                self.told.settle_all();
                self.told.tell(NO_FOLDER, FileEventKind::Removed, &folder, true);
                return Ok(false);
            }
            return Ok(true);
        };
        let (path, is_dir) = (folder.join(name), what.contains(ReadFlags::ISDIR));
        if what.contains(ReadFlags::MOVED_FROM) {
            let folders = if is_dir { self.below(&path) } else { Vec::new() };
            let half = Half { cookie, from: path, is_dir, folders, read_at: Instant::now() };
            let refused = self.told.hold(number, half);
            self.let_go(refused);
        } else if what.contains(ReadFlags::MOVED_TO)
            && let Some(moved) = self.told.take_half(cookie)
        {
            self.rename(&moved, &path);
            self.told.tell_moved(number, &moved.from, &path, is_dir);
            // One that was made and moved at once was gone when it was to be watched.
            if is_dir && self.recursive && moved.folders.is_empty() {
                self.add(&path, true)?;
            }
        } else if what.intersects(ReadFlags::CREATE | ReadFlags::MOVED_TO) {
            self.told.tell(number, FileEventKind::Created, &path, is_dir);
            if is_dir && self.recursive {
                self.add(&path, true)?;
            }
        } else if what.contains(ReadFlags::DELETE) {
            self.told.tell(number, FileEventKind::Removed, &path, is_dir);
        } else if what.contains(ReadFlags::MODIFY) {
            self.told.tell(number, FileEventKind::Modified, &path, is_dir);
        } else if what.contains(ReadFlags::ATTRIB) {
            self.told.tell(number, FileEventKind::Attributes, &path, is_dir);
        }
        Ok(true)
    }

    /// What was moved away and did not turn up by this time was moved out.
    pub fn settle(&mut self, now: Instant) {
        let gone = self.told.settle(now);
        self.let_go(gone);
    }

    /// When there is something to settle.
    pub fn settles_at(&self) -> Option<Instant> {
        self.told.settles_at()
    }

    /// What can be told now, a line of JSON each.
    pub fn take_lines(&mut self) -> Vec<u8> {
        self.told.take_lines()
    }

    fn let_go(&mut self, folders: impl IntoIterator<Item = i32>) {
        for number in folders {
            self.folders.remove(&number);
            // One that the kernel let go of already needs no more.
            let _ = inotify::remove_watch(&self.inotify, number);
        }
    }

    fn rename(&mut self, moved: &Half, to: &Path) {
        for number in &moved.folders {
            if let Some(folder) = self.folders.get_mut(number)
                && let Ok(inside) = folder.strip_prefix(&moved.from)
            {
                let mut renamed = to.to_owned();
                renamed.extend(inside);
                *folder = renamed;
            }
        }
    }

    fn below(&self, path: &Path) -> Vec<i32> {
        let inside = self.folders.iter().filter(|(_, folder)| folder.starts_with(path));
        inside.map(|(number, _)| *number).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_folders_are_watched_as_may_be_and_no_more() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        (0..3).for_each(|number| std::fs::create_dir(root.join(number.to_string())).unwrap());
        assert_eq!(Tree::new(root, true, 4).ok().unwrap().folders.len(), 4);
        let many = Tree::new(root, true, 3).err().unwrap();
        assert_eq!(many.code, ErrorCode::FailedPrecondition, "{many}");
        assert!(many.message.contains("over 3 folders"), "{many}");
        let mut flat = Tree::new(root, false, 1).ok().unwrap();
        std::fs::create_dir(root.join("new")).unwrap();
        assert!(flat.read().unwrap());
        assert!(!flat.told.overflowed(), "the one below is not watched");
        // One more, once it is watched.
        let mut full = Tree::new(root, true, 5).ok().unwrap();
        std::fs::create_dir_all(root.join("more/below")).unwrap();
        assert!(full.read().unwrap());
        assert!(full.told.overflowed());
        assert_eq!(full.folders.len(), 5);
    }

    #[test]
    fn a_folder_that_was_moved_out_and_in_at_once_is_watched_under_its_new_name() {
        let dir = tempfile::tempdir().unwrap();
        let (root, out) = (dir.path().join("root"), dir.path().join("out"));
        std::fs::create_dir_all(root.join("a/b")).unwrap();
        let mut tree = Tree::new(&root, true, 8).ok().unwrap();
        std::fs::rename(root.join("a"), &out).unwrap();
        std::fs::rename(&out, root.join("c")).unwrap();
        assert!(tree.read().unwrap());
        tree.settle(Instant::now() + std::time::Duration::from_secs(1));
        std::fs::write(root.join("c/b/file"), "x").unwrap();
        while tree.read().is_ok() {}
        let told = String::from_utf8(tree.take_lines()).unwrap();
        let kinds: Vec<_> = told.lines().map(|line| line.split('"').nth(3).unwrap()).collect();
        assert_eq!(kinds, ["removed", "created", "created", "created", "modified"], "{told}");
        assert!(told.contains(&format!("\"path\":\"{}\"", root.join("c/b/file").display())), "{told}");
    }
}
