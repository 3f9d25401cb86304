use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use napi::bindgen_prelude::Uint8Array;
use napi_derive::napi;

use super::mirror;
use crate::value::number;

/// What a path names.
#[napi(string_enum = "snake_case")]
pub enum FileKind {
    File,
    Directory,
    Symlink,
    Other,
}

mirror!(FileKind = forkyard::FileKind { File, Directory, Symlink, Other });

/// A file's attributes.
#[napi(object, object_from_js = false)]
pub struct FileInfo {
    /// The last component of its path, with U+FFFD in place of what is not UTF-8.
    pub name: String,
    /// The name's exact bytes; only where they are not UTF-8.
    pub name_bytes: Option<Uint8Array>,
    /// What it is.
    pub kind: FileKind,
    /// Its size in bytes.
    pub size: f64,
    /// Its permission bits, such as 0o644.
    pub mode: u32,
    /// Its owner's number.
    pub uid: u32,
    /// Its group's number.
    pub gid: u32,
    /// When its contents last changed: milliseconds since 1970.
    pub modified_at_ms: f64,
    /// Where a symbolic link points, with U+FFFD in place of what is not UTF-8.
    pub target: Option<String>,
}

impl From<forkyard::FileStat> for FileInfo {
    fn from(stat: forkyard::FileStat) -> Self {
        let forkyard::FileStat { name, name_base64, kind, size, mode, uid, gid, modified_at_ms, target } =
            stat;
        // A server sends nothing else than base64 there; what is not is as if it were not there.
        let name_bytes = name_base64.and_then(|text| BASE64_STANDARD.decode(text).ok());
        Self {
            name,
            name_bytes: name_bytes.map(Into::into),
            kind: kind.into(),
            size: number(size),
            mode,
            uid,
            gid,
            #[allow(clippy::cast_precision_loss)] // exact for a quarter of a million years
            modified_at_ms: modified_at_ms as f64,
            target,
        }
    }
}

/// What a folder that was sent or fetched consists of.
#[napi(object, object_from_js = false)]
pub struct TreeSummary {
    /// Regular files.
    pub files: f64,
    /// Folders, itself among them.
    pub folders: f64,
    /// Symbolic links.
    pub links: f64,
    /// Bytes of all files.
    pub bytes: f64,
    /// What was left out: devices, pipes and sockets; where a folder is fetched, also links that lead out of it.
    pub skipped: f64,
    /// The first 100 of those, relative to the folder, with U+FFFD in place of what is not UTF-8.
    pub skipped_paths: Vec<String>,
}

impl From<forkyard::TreeSummary> for TreeSummary {
    fn from(summary: forkyard::TreeSummary) -> Self {
        let forkyard::TreeSummary { files, folders, links, bytes, skipped, skipped_paths } = summary;
        Self {
            files: number(files),
            folders: number(folders),
            links: number(links),
            bytes: number(bytes),
            skipped: number(skipped),
            skipped_paths,
        }
    }
}

/// What happened to a file or folder: it is there now, made or moved in from elsewhere (`created`); its contents changed; its
/// permissions, owner or times changed (`attributes`); it has another name now; it is gone, deleted or moved out (`removed`); more
/// happened than was kept, or than can be watched: whoever needs to know looks again (`overflow`).
#[napi(string_enum = "snake_case")]
pub enum FileEventKind {
    Created,
    Modified,
    Attributes,
    Moved,
    Removed,
    Overflow,
}

mirror!(FileEventKind = forkyard::FileEventKind { Created, Modified, Attributes, Moved, Removed, Overflow });

/// One thing that happened below a watched folder.
#[napi(object, object_from_js = false)]
pub struct FileEvent {
    /// What happened.
    pub kind: FileEventKind,
    /// To what: an absolute path, with U+FFFD in place of what is not UTF-8.
    pub path: String,
    /// The path before, of what was moved.
    pub from: Option<String>,
    /// Whether it is a folder.
    pub is_dir: bool,
}

impl From<forkyard::FileEvent> for FileEvent {
    fn from(event: forkyard::FileEvent) -> Self {
        let forkyard::FileEvent { kind, path, from, is_dir } = event;
        Self { kind: kind.into(), path, from, is_dir }
    }
}
