//! Files that the operator gives to guests. A fork remembers what its original was given: to look whether the file has changed since
//! costs nothing, where to read it, or to be sent it, costs an emulated guest a tenth of a second.

use std::collections::BTreeMap;
use std::fs::{self, File, Metadata};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use forkyard_protocol::{ErrorBody, GuestFile, RawPath};

use crate::reply::{internal, invalid};

/// What was put in place, by path.
#[derive(Default)]
pub struct Given(Mutex<BTreeMap<String, Kept>>);

/// A file as it was when it was put in place. Whatever changes it, its attributes or what its name leads to changes this too.
#[derive(PartialEq, Eq)]
struct Kept {
    digest: String,
    mode: u32,
    inode: u64,
    changed: (i64, i64),
}

impl Kept {
    fn of(file: &GuestFile, found: &Metadata) -> Self {
        Self {
            digest: file.digest.clone(),
            mode: file.mode,
            inode: found.ino(),
            changed: (found.ctime(), found.ctime_nsec()),
        }
    }
}

impl Given {
    /// Puts files in place; answers the paths of those that are not there and came without their contents.
    pub fn take(&self, files: Vec<GuestFile>) -> Result<Vec<String>, ErrorBody> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut missing = Vec::new();
        for file in files {
            let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", file.path);
            RawPath::new(file.path.as_bytes()).map_err(|error| invalid(failed(&error)))?;
            let is_kept = fs::metadata(&file.path)
                .is_ok_and(|found| kept.get(&file.path) == Some(&Kept::of(&file, &found)));
            if is_kept {
                continue;
            }
            let Some(content) = &file.content else {
                missing.push(file.path);
                continue;
            };
            let found = put(Path::new(&file.path), content.as_bytes(), file.mode);
            let found = found.map_err(|error| internal(&failed(&error)))?;
            kept.insert(file.path.clone(), Kept::of(&file, &found));
        }
        Ok(missing)
    }
}

fn put(path: &Path, content: &[u8], mode: u32) -> io::Result<Metadata> {
    // What is there as it should be is left alone: a fork's disk that is written to costs tens of milliseconds.
    if fs::read(path).is_ok_and(|found| found == content) {
        let found = fs::metadata(path)?;
        if found.permissions().mode() & 0o7777 == mode {
            return Ok(found);
        }
    }
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    let mut file = File::options().create(true).write(true).truncate(true).mode(mode).open(path)?;
    file.write_all(content)?;
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    // A machine that is frozen next would leave the writing to each of its forks.
    file.sync_all()?;
    file.metadata()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contents_are_wanted_only_where_the_file_is_not_as_it_was_given() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("folder/trust");
        let file = |digest: &str, content: Option<&str>| GuestFile {
            path: path.to_str().unwrap().to_owned(),
            mode: 0o640,
            digest: digest.to_owned(),
            content: content.map(str::to_owned),
        };
        let given = Given::default();
        let lacks = |digest, content| !given.take(vec![file(digest, content)]).unwrap().is_empty();
        let read = || fs::read_to_string(&path).unwrap();

        assert!(lacks("1", None), "it was never given");
        assert!(!lacks("1", Some("one")));
        assert_eq!((read().as_str(), fs::metadata(&path).unwrap().mode() & 0o7777), ("one", 0o640));
        assert!(!lacks("1", None));
        assert!(lacks("2", None), "others are wanted");
        assert!(!lacks("2", Some("two")));
        assert_eq!(read(), "two");

        // Of the same length, as it may be in the same second.
        std::thread::sleep(std::time::Duration::from_millis(20));
        fs::write(&path, "owt").unwrap();
        assert!(lacks("2", None), "the guest has changed it");
        assert!(!lacks("2", Some("two")));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        assert!(lacks("2", None), "the guest has changed its mode");
        assert!(!lacks("2", Some("two")));
        fs::remove_file(&path).unwrap();
        assert!(lacks("2", None), "the guest has removed it");
        // One that is there already is not written again, but remembered.
        fs::write(&path, "two").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let before = fs::metadata(&path).unwrap();
        assert!(!lacks("2", Some("two")) && !lacks("2", None));
        assert_eq!(fs::metadata(&path).unwrap().ctime_nsec(), before.ctime_nsec());
    }

    #[test]
    fn a_path_that_leads_nowhere_is_refused_by_name() {
        let file = |path: &str| GuestFile {
            path: path.to_owned(),
            mode: 0o644,
            digest: "1".to_owned(),
            content: Some(String::new()),
        };
        for path in ["relative", "/proc/none/file"] {
            let error = Given::default().take(vec![file(path)]).unwrap_err();
            assert!(error.message.starts_with(path), "{error:?}");
        }
    }
}
