use std::ffi::OsString;
use std::fs::{File, FileType, Metadata};
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use forkyard_protocol::{ErrorBody, MAX_SKIPPED_PATHS, TreeSummary};
use rustix::fs::{Mode, OFlags};
use tar::{Builder, EntryType, Header};

use crate::trailer::{self, Trailer};
use crate::{MAX_ENTRIES, TreeError, at};

/// Writes a folder, then how that went: an error of the folder's is told to whoever reads the stream, by these words.
///
/// Links are kept as links. Devices, pipes and sockets are left out and counted. A file that grows meanwhile is taken as far as
/// it went; one that shrinks is an error.
pub fn pack(
    folder: &Path,
    out: impl Write,
    words: impl Fn(&TreeError) -> ErrorBody,
) -> Result<TreeSummary, TreeError> {
    let mut packer = Packer { tar: Builder::new(out), summary: TreeSummary::default() };
    let packed = packer.folder(folder);
    let trailer = match &packed {
        Ok(()) => Trailer::Summary(packer.summary.clone()),
        // Nobody is left to be told.
        Err(TreeError::Broken(_)) => return packed.map(|()| packer.summary),
        Err(error) => Trailer::Error(words(error)),
    };
    trailer::write(&mut packer.tar, &trailer).map_err(TreeError::Broken)?;
    packer.tar.into_inner().and_then(|mut out| out.flush()).map_err(TreeError::Broken)?;
    packed.map(|()| packer.summary)
}

struct Packer<W: Write> {
    tar: Builder<W>,
    summary: TreeSummary,
}

impl<W: Write> Packer<W> {
    fn folder(&mut self, folder: &Path) -> Result<(), TreeError> {
        let metadata = folder.metadata().map_err(at(folder))?;
        if !metadata.is_dir() {
            return Err(at(folder)(rustix::io::Errno::NOTDIR.into()));
        }
        self.add_folder(Path::new("."), &metadata)?;
        let mut open = vec![(PathBuf::new(), names(folder)?.into_iter())];
        while let Some((inside, rest)) = open.last_mut() {
            let Some(name) = rest.next() else {
                open.pop();
                continue;
            };
            let path = inside.join(name);
            let whole = folder.join(&path);
            let metadata = match whole.symlink_metadata() {
                Ok(metadata) => metadata,
                // Removed since it was listed.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(at(whole)(error)),
            };
            if self.add(&whole, &path, &metadata)? {
                open.push((path, names(&whole)?.into_iter()));
            }
            let entries = self.summary.files + self.summary.folders + self.summary.links;
            if entries > MAX_ENTRIES {
                return Err(TreeError::Refused(format!(
                    "{} holds over {MAX_ENTRIES} files",
                    folder.display()
                )));
            }
        }
        Ok(())
    }

    /// Adds one of a folder's; whether it is a folder itself.
    fn add(&mut self, whole: &Path, path: &Path, metadata: &Metadata) -> Result<bool, TreeError> {
        let kind: FileType = metadata.file_type();
        if kind.is_dir() {
            self.add_folder(path, metadata)?;
            return Ok(true);
        }
        if kind.is_symlink() {
            let target = whole.read_link().map_err(at(whole))?;
            let mut header = header(EntryType::Symlink, metadata, 0);
            self.tar.append_link(&mut header, path, target).map_err(TreeError::Broken)?;
            self.summary.links += 1;
        } else if kind.is_file() {
            self.add_file(whole, path)?;
        } else {
            self.summary.skipped += 1;
            if self.summary.skipped_paths.len() < MAX_SKIPPED_PATHS {
                self.summary.skipped_paths.push(path.to_string_lossy().into_owned());
            }
        }
        Ok(false)
    }

    fn add_folder(&mut self, path: &Path, metadata: &Metadata) -> Result<(), TreeError> {
        let mut header = header(EntryType::Directory, metadata, 0);
        self.tar.append_data(&mut header, path, io::empty()).map_err(TreeError::Broken)?;
        self.summary.folders += 1;
        Ok(())
    }

    fn add_file(&mut self, whole: &Path, path: &Path) -> Result<(), TreeError> {
        // Not through a link that has taken its place, and without waiting for whoever writes to a pipe that has.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = rustix::fs::open(whole, flags, Mode::empty()).map_err(|error| at(whole)(error.into()))?;
        let file = File::from(file);
        let metadata = file.metadata().map_err(at(whole))?;
        if !metadata.is_file() {
            return Err(at(whole)(io::Error::other("it changed while it was sent")));
        }
        let mut header = header(EntryType::Regular, &metadata, metadata.len());
        let mut content = Exact { file, left: metadata.len(), error: None };
        self.tar.append_data(&mut header, path, &mut content).map_err(TreeError::Broken)?;
        if let Some(error) = content.error {
            return Err(at(whole)(error));
        }
        self.summary.files += 1;
        self.summary.bytes += metadata.len();
        Ok(())
    }
}

/// As many bytes of a file as its header says: what is missing is zeros, so that the stream goes on to say what was wrong.
struct Exact {
    file: File,
    left: u64,
    error: Option<io::Error>,
}

impl Read for Exact {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let buffer = &mut buffer[..wanted];
        let read = if self.error.is_some() { Ok(0) } else { self.file.read(buffer) };
        let count = match read {
            Ok(0) if wanted > 0 => {
                self.error.get_or_insert_with(|| io::Error::other("it shrank while it was sent"));
                buffer.fill(0);
                wanted
            }
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Err(error),
            Err(error) => {
                self.error = Some(error);
                buffer.fill(0);
                wanted
            }
        };
        self.left -= count as u64;
        Ok(count)
    }
}

fn header(kind: EntryType, metadata: &Metadata, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(metadata.mode() & 0o7777);
    header.set_mtime(u64::try_from(metadata.mtime()).unwrap_or_default());
    header.set_uid(metadata.uid().into());
    header.set_gid(metadata.gid().into());
    header
}

/// A folder's names in their order, so that the same folder is the same stream.
fn names(folder: &Path) -> Result<Vec<OsString>, TreeError> {
    let entries = folder.read_dir().map_err(at(folder))?;
    let names: io::Result<Vec<_>> = entries.map(|entry| entry.map(|entry| entry.file_name())).collect();
    let mut names = names.map_err(at(folder))?;
    names.sort();
    Ok(names)
}
