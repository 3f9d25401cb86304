use std::ffi::{OsStr, OsString};
use std::fs::Metadata;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use forkyard_protocol::{ErrorBody, FileKind, FileList, FileStat};

use super::failed;
use crate::reply::invalid;

/// A file's attributes; a link's own, or its target's.
pub fn stat(path: &Path, follow: bool) -> Result<FileStat, ErrorBody> {
    let metadata = if follow { path.metadata() } else { path.symlink_metadata() };
    let name = path.file_name().unwrap_or(OsStr::new("/"));
    Ok(describe(path, name, &metadata.map_err(failed(path))?))
}

/// One page of a folder, by name. Only names are held for the whole folder.
pub fn list(path: &Path, limit: usize, cursor: Option<&str>) -> Result<FileList, ErrorBody> {
    let after = cursor.map(|cursor| URL_SAFE_NO_PAD.decode(cursor)).transpose();
    let after = after.map_err(|_| invalid("parameter 'cursor' must be a 'next_cursor' that was answered"))?;
    let mut names = Vec::new();
    for entry in std::fs::read_dir(path).map_err(failed(path))? {
        let name = entry.map_err(failed(path))?.file_name();
        if after.as_deref().is_none_or(|after| name.as_bytes() > after) {
            names.push(name);
        }
    }
    names.sort_by(|a: &OsString, b| a.as_bytes().cmp(b.as_bytes()));
    let more = names.len() > limit;
    names.truncate(limit);
    let next_cursor = names.last().filter(|_| more).map(|name| URL_SAFE_NO_PAD.encode(name.as_bytes()));
    let mut entries = Vec::with_capacity(names.len());
    for name in names {
        let file = path.join(&name);
        match file.symlink_metadata() {
            Ok(metadata) => entries.push(describe(&file, &name, &metadata)),
            // Removed since it was listed.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(&file)(error)),
        }
    }
    Ok(FileList { entries, next_cursor })
}

fn describe(path: &Path, name: &OsStr, metadata: &Metadata) -> FileStat {
    let kind = metadata.file_type();
    let kind = match () {
        () if kind.is_file() => FileKind::File,
        () if kind.is_dir() => FileKind::Directory,
        () if kind.is_symlink() => FileKind::Symlink,
        () => FileKind::Other,
    };
    // A link that vanishes meanwhile has no target to show.
    let target = (kind == FileKind::Symlink).then(|| std::fs::read_link(path).ok()).flatten();
    FileStat {
        name: name.to_string_lossy().into_owned(),
        name_base64: name.to_str().is_none().then(|| STANDARD.encode(name.as_bytes())),
        kind,
        size: metadata.len(),
        mode: metadata.mode() & 0o7777,
        uid: metadata.uid(),
        gid: metadata.gid(),
        modified_at_ms: metadata.mtime() * 1000 + metadata.mtime_nsec() / 1_000_000,
        target: target.map(|target| target.to_string_lossy().into_owned()),
    }
}
