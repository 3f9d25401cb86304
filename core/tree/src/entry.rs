//! The entries of a stream, with what the headers before them say. Read raw: the library would hold names of any length.

use std::io::Read;

use tar::{Entry, EntryType, PaxExtensions};

use crate::TreeError;
use crate::path::shown;
use crate::trailer::{self, Trailer};

/// Longest header before an entry, in bytes.
const MAX_HEADER: u64 = 64 * 1024;

/// What headers say of the entry after them.
#[derive(Default)]
pub struct Overrides {
    name: Option<Vec<u8>>,
    target: Option<Vec<u8>>,
    size: Option<u64>,
}

/// What an entry is.
pub enum Kind {
    File,
    Folder,
    Link(Vec<u8>),
}

/// An entry that stands for something.
pub struct Meta {
    pub name: Vec<u8>,
    pub kind: Kind,
    pub mode: u32,
    pub modified: u64,
}

/// What comes out of an entry of the stream.
pub enum Found {
    /// It is one.
    Entry(Meta),
    /// It said something of the one that follows, or nothing.
    Header,
    /// It was the last.
    Trailer(Trailer),
}

impl Overrides {
    /// Looks at the next entry.
    pub fn look<R: Read>(&mut self, entry: &mut Entry<'_, R>) -> Result<Found, TreeError> {
        let kind = entry.header().entry_type();
        match kind {
            EntryType::XGlobalHeader => {
                let records = header(entry)?;
                Ok(trailer::read(&records).map_or(Found::Header, Found::Trailer))
            }
            EntryType::XHeader => {
                let records = header(entry)?;
                self.take_records(&records)?;
                Ok(Found::Header)
            }
            EntryType::GNULongName => {
                self.name = Some(until_nul(header(entry)?));
                Ok(Found::Header)
            }
            EntryType::GNULongLink => {
                self.target = Some(until_nul(header(entry)?));
                Ok(Found::Header)
            }
            _ => std::mem::take(self).meta(entry).map(Found::Entry),
        }
    }

    fn take_records(&mut self, records: &[u8]) -> Result<(), TreeError> {
        for record in PaxExtensions::new(records) {
            let record = record.map_err(TreeError::Broken)?;
            let value = record.value_bytes();
            match record.key_bytes() {
                b"path" => self.name = Some(value.to_vec()),
                b"linkpath" => self.target = Some(value.to_vec()),
                b"size" => {
                    let size = record.value().ok().and_then(|value| value.parse().ok());
                    self.size = Some(size.ok_or_else(|| refused(value, "is no size"))?);
                }
                key if key.starts_with(b"GNU.sparse.") => {
                    return Err(refused(key, "is for sparse files, which are not taken; send them whole"));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn meta<R: Read>(self, entry: &Entry<'_, R>) -> Result<Meta, TreeError> {
        let header = entry.header();
        let name = self.name.unwrap_or_else(|| header.path_bytes().into_owned());
        if self.size.is_some_and(|size| size != entry.size()) {
            return Err(refused(&name, "has a size that its header does not; send it in the GNU format"));
        }
        let kind = match header.entry_type() {
            // As programs wrote folders before there was a type for them.
            EntryType::Regular if name.ends_with(b"/") => Kind::Folder,
            EntryType::Regular | EntryType::Continuous => Kind::File,
            EntryType::Directory => Kind::Folder,
            EntryType::Symlink => {
                let target =
                    self.target.or_else(|| header.link_name_bytes().map(std::borrow::Cow::into_owned));
                let target = target.filter(|target| !target.is_empty() && !target.contains(&0));
                Kind::Link(target.ok_or_else(|| refused(&name, "is a link to nothing"))?)
            }
            EntryType::Link => return Err(refused(&name, "is a hard link; send the file itself")),
            _ => return Err(refused(&name, "is neither file, folder nor symbolic link")),
        };
        let mode = header.mode().map_err(TreeError::Broken)? & 0o777;
        Ok(Meta { name, kind, mode, modified: header.mtime().map_err(TreeError::Broken)? })
    }
}

fn refused(name: &[u8], why: &str) -> TreeError {
    TreeError::Refused(format!("the stream holds '{}', which {why}", shown(name)))
}

fn header<R: Read>(entry: &mut Entry<'_, R>) -> Result<Vec<u8>, TreeError> {
    if entry.size() > MAX_HEADER {
        return Err(TreeError::Refused(format!("the stream holds a header of {} bytes", entry.size())));
    }
    let mut content = Vec::new();
    entry.read_to_end(&mut content).map_err(TreeError::Broken)?;
    Ok(content)
}

fn until_nul(mut name: Vec<u8>) -> Vec<u8> {
    if let Some(end) = name.iter().position(|byte| *byte == 0) {
        name.truncate(end);
    }
    name
}
