use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};
use serde::{Deserialize, Serialize};

/// Longest path, in bytes (Linux's own `PATH_MAX`, less its NUL).
pub const MAX_PATH_LEN: usize = 4095;

/// Entries of one page of a listing unless the caller says otherwise.
pub const DEFAULT_LIST_LIMIT: usize = 1000;

/// Most entries of one page of a listing.
pub const MAX_LIST_LIMIT: usize = 10_000;

/// Unreserved characters of RFC 3986 and the slash stay as they are, so that a path is readable in a URL.
const PATH_SET: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'/').remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A path that breaks the rules.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// Not from the root.
    #[error("the path must be absolute (start with '/')")]
    NotAbsolute,
    /// A component is `..`.
    #[error("the path must not contain '..' components: write the path out")]
    Parent,
    /// A NUL byte.
    #[error("the path must not contain NUL bytes")]
    Nul,
    /// Over [`MAX_PATH_LEN`].
    #[error("the path must be at most {MAX_PATH_LEN} bytes long")]
    TooLong,
}

/// A path in a guest: any bytes but NUL, absolute, without `..`. On the wire it is percent-encoded in a query.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct RawPath(Vec<u8>);

impl RawPath {
    /// Takes the bytes, once they are a path by the rules.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Result<Self, PathError> {
        let bytes = bytes.into();
        if bytes.first() != Some(&b'/') {
            return Err(PathError::NotAbsolute);
        }
        if bytes.len() > MAX_PATH_LEN {
            return Err(PathError::TooLong);
        }
        if bytes.contains(&0) {
            return Err(PathError::Nul);
        }
        if bytes.split(|b| *b == b'/').any(|part| part == b"..") {
            return Err(PathError::Parent);
        }
        Ok(Self(bytes))
    }

    /// The path's bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The path as it stands in a URL's query.
    pub fn encode(&self) -> String {
        percent_encode(&self.0, PATH_SET).to_string()
    }
}

impl std::fmt::Debug for RawPath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", String::from_utf8_lossy(&self.0))
    }
}

impl std::fmt::Display for RawPath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.0))
    }
}

/// What a path names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub enum FileKind {
    /// A regular file.
    File,
    /// A folder.
    Directory,
    /// A symbolic link (only where links are not followed).
    Symlink,
    /// A device, pipe or socket.
    Other,
}

/// A file's attributes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct FileStat {
    /// The last component of its path, with U+FFFD in place of what is not UTF-8.
    pub name: String,
    /// The name's exact bytes in base64 (standard alphabet, padded); only where they are not UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name_base64: Option<String>,
    /// What it is.
    pub kind: FileKind,
    /// Its size in bytes.
    pub size: u64,
    /// Its permission bits, such as 0o644.
    pub mode: u32,
    /// Its owner's number.
    pub uid: u32,
    /// Its group's number.
    pub gid: u32,
    /// When its contents last changed: milliseconds since 1970.
    pub modified_at_ms: i64,
    /// Where a symbolic link points, with U+FFFD in place of what is not UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
}

/// One page of a folder's entries, sorted by name, links not followed.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct FileList {
    /// The entries.
    pub entries: Vec<FileStat>,
    /// Given back as `cursor`, it yields the next page; absent on the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

/// Most names that a [`TreeSummary`] has of what was left out.
pub const MAX_SKIPPED_PATHS: usize = 100;

/// What a folder that was sent consists of.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct TreeSummary {
    /// Regular files.
    pub files: u64,
    /// Folders, itself among them.
    pub folders: u64,
    /// Symbolic links.
    pub links: u64,
    /// Bytes of all files.
    pub bytes: u64,
    /// What was left out: devices, pipes and sockets; where a folder is fetched, also links that lead out of it.
    pub skipped: u64,
    /// The first 100 of those, relative to the folder, with U+FFFD in place of what is not UTF-8.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub skipped_paths: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_keep_their_bytes() {
        let path = RawPath::new(b"/a b\n\xff/.../..x".to_vec()).unwrap();
        assert_eq!(path.encode(), "/a%20b%0A%FF/.../..x");
    }

    #[test]
    fn bad_paths_are_named() {
        assert_eq!(RawPath::new("a"), Err(PathError::NotAbsolute));
        assert_eq!(RawPath::new(""), Err(PathError::NotAbsolute));
        assert_eq!(RawPath::new("/a/../b"), Err(PathError::Parent));
        assert_eq!(RawPath::new("/.."), Err(PathError::Parent));
        assert_eq!(RawPath::new("/a\0b"), Err(PathError::Nul));
        assert_eq!(RawPath::new(format!("/{}", "a".repeat(4095))), Err(PathError::TooLong));
    }
}
