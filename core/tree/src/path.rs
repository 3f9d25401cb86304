//! Names that a stream gives, none of which is trusted.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use forkyard_protocol::MAX_PATH_LEN;

use crate::TreeError;

/// A name as the stream has it, made a path below the folder; an empty one is the folder itself.
pub fn below(name: &[u8]) -> Result<PathBuf, TreeError> {
    let refused = |why: &str| TreeError::Refused(format!("the stream holds '{}', which {why}", shown(name)));
    if name.len() > MAX_PATH_LEN {
        return Err(refused("is too long for a path"));
    }
    if name.contains(&0) {
        return Err(refused("has a NUL in it"));
    }
    let mut path = PathBuf::new();
    for component in Path::new(OsStr::from_bytes(name)).components() {
        match component {
            Component::Normal(part) => path.push(part),
            Component::CurDir => {}
            Component::ParentDir => return Err(refused("leads out of the folder by '..'")),
            Component::RootDir | Component::Prefix(_) => return Err(refused("is absolute")),
        }
    }
    Ok(path)
}

/// Whether a link of this path stays inside, whatever other links there are: it may climb no higher than the folder, and only
/// before it goes down, since what it goes through on its way down may be a link itself.
pub fn stays_inside(link: &Path, target: &OsStr) -> bool {
    let mut depth = link.components().count().saturating_sub(1);
    let mut descends = false;
    for component in Path::new(target).components() {
        match component {
            Component::Normal(_) => descends = true,
            Component::CurDir => {}
            Component::ParentDir if !descends && depth > 0 => depth -= 1,
            _ => return false,
        }
    }
    true
}

/// The folder that a path lies in, and its name there.
pub fn split(path: &Path) -> Option<(&Path, &OsStr)> {
    Some((path.parent()?, path.file_name()?))
}

/// A name that nothing else has.
pub fn temporary() -> OsString {
    format!(".forkyard-{:016x}", fastrand::u64(..)).into()
}

/// A name as people can read it, in bounds.
pub fn shown(name: &[u8]) -> String {
    let text = String::from_utf8_lossy(&name[..name.len().min(200)]);
    text.escape_debug().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_below_the_folder() {
        assert_eq!(below(b"./a//b/./c/").unwrap(), Path::new("a/b/c"));
        assert_eq!(below(b"./").unwrap(), Path::new(""));
        assert_eq!(below(b"..a/b..").unwrap(), Path::new("..a/b.."));
        for bad in [&b"/etc/passwd"[..], b"..", b"a/../b", b"a/..", b"a\0b", &[b'a'; 5000]] {
            assert!(matches!(below(bad), Err(TreeError::Refused(_))), "{bad:?}");
        }
    }

    #[test]
    fn links_stay_inside_even_through_other_links() {
        let stays = |link: &str, target: &str| stays_inside(Path::new(link), OsStr::new(target));
        assert!(stays("l", "a/b"));
        assert!(stays("d/l", "../a"));
        assert!(stays("d/e/l", "../../a/./b"));
        assert!(!stays("l", "/etc/passwd"));
        assert!(!stays("l", "../a"));
        assert!(!stays("d/l", "../../a"));
        // `d/up` leads to the folder itself, so `d/up/..` leads out of it, though its text does not.
        assert!(stays("d/up", ".."));
        assert!(!stays("l", "d/up/.."));
    }
}
