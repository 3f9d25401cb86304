use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use forkyard_protocol::{MAX_SKIPPED_PATHS, TreeSummary};
use tar::{Archive, Entry};

use crate::entry::{Found, Kind, Meta, Overrides};
use crate::folder::Folder;
use crate::path::{below, stays_inside};
use crate::trailer::Trailer;
use crate::{MAX_ENTRIES, TreeError, at};

/// Permission bits of a folder that the stream says nothing of.
const DEFAULT_MODE: u32 = 0o755;

/// Bytes of all new folders' names: they are held until the end.
const MAX_FOLDER_NAMES: usize = 64 * 1024 * 1024;

/// Bytes after the last entry that are read still: the largest record that programs pad to.
const MAX_PADDING: u64 = 1024 * 1024;

/// How a folder is unpacked.
#[derive(Debug, Clone, Copy, Default)]
pub struct Unpack {
    /// Whom all of it shall belong to: user and group. Default: whoever unpacks it.
    pub owner: Option<(u32, u32)>,
    /// Leaves links out that lead out of the folder, and counts them.
    pub contain_links: bool,
    /// Takes a stream without a summary at its end for one that broke off.
    pub want_summary: bool,
}

/// Reads a folder from a stream. One that is not there appears as a whole; into one that is there everything is put, each file
/// as a whole, over what has the same name. Nothing that was there before is removed.
///
/// Permission bits and times are the stream's, without set-user-ID and the like.
pub fn unpack(target: &Path, input: impl Read, options: Unpack) -> Result<TreeSummary, TreeError> {
    if target.is_dir() {
        return Unpacker::new(Folder::open(target, options.owner)?, options).all(input, false);
    }
    if target.symlink_metadata().is_ok() {
        return Err(at(target)(rustix::io::Errno::NOTDIR.into()));
    }
    let parent = target.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let beside = tempfile::Builder::new().prefix(".forkyard-").tempdir_in(parent).map_err(at(target))?;
    let summary = Folder::open_new(beside.path(), options.owner)
        .and_then(|folder| Unpacker::new(folder, options).all(input, true))
        .map_err(|error| named_after(error, beside.path(), target))?;
    // Whoever made one meanwhile keeps it: only an empty folder gives way.
    std::fs::rename(beside.path(), target).map_err(at(target))?;
    // It is not there any more.
    let _ = beside.keep();
    Ok(summary)
}

/// Names a file as it would have been named.
fn named_after(error: TreeError, beside: &Path, target: &Path) -> TreeError {
    match error {
        TreeError::Io { path, error } => {
            let path = path.strip_prefix(beside).map(|inside| target.join(inside)).unwrap_or(path);
            TreeError::Io { path, error }
        }
        other => other,
    }
}

/// Permission bits of a folder, and when it last changed.
type Finish = (u32, Option<u64>);

struct Unpacker {
    folder: Folder,
    options: Unpack,
    summary: TreeSummary,
    /// New folders, and what they are given at the end: one that is finished may let nobody in.
    made: BTreeMap<PathBuf, Finish>,
    /// Bytes of their names.
    made_bytes: usize,
    root: Option<Finish>,
}

impl Unpacker {
    fn new(folder: Folder, options: Unpack) -> Self {
        let summary = TreeSummary::default();
        Self { folder, options, summary, made: BTreeMap::new(), made_bytes: 0, root: None }
    }

    fn all(mut self, input: impl Read, is_new: bool) -> Result<TreeSummary, TreeError> {
        let mut archive = Archive::new(input);
        let trailer = self.entries(&mut archive)?;
        // What follows the last entry is padding: a sender that is not read out fails, and one that does not end is left.
        io::copy(&mut archive.into_inner().take(MAX_PADDING), &mut io::sink()).map_err(TreeError::Broken)?;
        match trailer {
            Some(Trailer::Error(error)) => return Err(TreeError::Told(error)),
            Some(Trailer::Summary(sent)) => self.add_skipped(sent.skipped, sent.skipped_paths),
            None if self.options.want_summary => {
                return Err(TreeError::Broken(io::ErrorKind::UnexpectedEof.into()));
            }
            None => {}
        }
        // Those inside others first.
        for (path, (mode, modified)) in std::mem::take(&mut self.made).into_iter().rev() {
            self.folder.finish_folder(&path, mode, modified)?;
        }
        if is_new {
            let (mode, modified) = self.root.unwrap_or((DEFAULT_MODE, None));
            self.folder.give_root()?;
            self.folder.finish_folder(Path::new(""), mode, modified)?;
        }
        Ok(self.summary)
    }

    fn entries(&mut self, archive: &mut Archive<impl Read>) -> Result<Option<Trailer>, TreeError> {
        let mut overrides = Overrides::default();
        let mut count = 0;
        for entry in archive.entries().map_err(TreeError::Broken)?.raw(true) {
            let mut entry = entry.map_err(TreeError::Broken)?;
            count += 1;
            if count > 3 * MAX_ENTRIES || self.made() > MAX_ENTRIES {
                return Err(TreeError::Refused(format!("the stream holds over {MAX_ENTRIES} files")));
            }
            match overrides.look(&mut entry)? {
                Found::Entry(meta) => self.put(meta, &mut entry)?,
                Found::Header => {}
                Found::Trailer(trailer) => return Ok(Some(trailer)),
            }
        }
        Ok(None)
    }

    fn made(&self) -> u64 {
        self.summary.files + self.summary.folders + self.summary.links
    }

    fn put(&mut self, meta: Meta, entry: &mut Entry<'_, impl Read>) -> Result<(), TreeError> {
        let path = below(&meta.name)?;
        match meta.kind {
            Kind::Folder if path.as_os_str().is_empty() => {
                self.root = Some((meta.mode, Some(meta.modified)));
                self.summary.folders += 1;
            }
            Kind::Folder => {
                self.parents(&path)?;
                self.make_folder(&path, (meta.mode, Some(meta.modified)))?;
                self.summary.folders += 1;
            }
            Kind::File => {
                self.parents(&path)?;
                self.summary.bytes += self.folder.make_file(&path, meta.mode, meta.modified, entry)?;
                self.summary.files += 1;
            }
            Kind::Link(target) => {
                let target = OsStr::from_bytes(&target);
                if self.options.contain_links && !stays_inside(&path, target) {
                    self.add_skipped(1, vec![path.to_string_lossy().into_owned()]);
                    return Ok(());
                }
                self.parents(&path)?;
                self.folder.make_link(&path, target)?;
                self.summary.links += 1;
            }
        }
        Ok(())
    }

    /// Makes folders above that the stream does not name first, as other programs' streams may not.
    fn parents(&mut self, path: &Path) -> Result<(), TreeError> {
        let Some(parent) = path.parent() else { return Ok(()) };
        if parent.as_os_str().is_empty() || self.folder.has_folder(parent)? {
            return Ok(());
        }
        self.parents(parent)?;
        self.make_folder(parent, (DEFAULT_MODE, None))
    }

    /// Makes a folder; one that was there before this stream stays as it is.
    fn make_folder(&mut self, path: &Path, finish: Finish) -> Result<(), TreeError> {
        if self.folder.make_folder(path)? {
            self.made_bytes += path.as_os_str().len();
            if self.made_bytes > MAX_FOLDER_NAMES {
                let message = format!("the names of the stream's folders take over {MAX_FOLDER_NAMES} bytes");
                return Err(TreeError::Refused(message));
            }
        } else if !self.made.contains_key(path) {
            return Ok(());
        }
        self.made.insert(path.to_owned(), finish);
        Ok(())
    }

    fn add_skipped(&mut self, count: u64, paths: Vec<String>) {
        self.summary.skipped += count;
        let room = MAX_SKIPPED_PATHS.saturating_sub(self.summary.skipped_paths.len());
        self.summary.skipped_paths.extend(paths.into_iter().take(room));
    }
}
