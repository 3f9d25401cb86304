//! Files with holes: memory and disks are mostly zeros that nobody wrote, and stay so when they are copied or hashed.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use rustix::fs::SeekFrom;
use sha2::{Digest as _, Sha256};

use crate::image::hex;

/// Bytes that are read at once.
const PIECE: u64 = 1024 * 1024;

/// Copies a file's data, and makes the target as long as the source. Blocks.
pub fn copy(source: &File, target: &File) -> io::Result<()> {
    target.set_len(source.metadata()?.len())?;
    for_each_piece(source, |offset, data| target.write_all_at(data, offset))
}

/// The SHA-256 of a file's length and of its data with the places where it lies, in 64 hexadecimal digits. Holes are not
/// read, so that a gigabyte of which little was written costs little. Blocks.
pub fn digest(file: &File) -> io::Result<String> {
    let mut hash = Sha256::new();
    hash.update(file.metadata()?.len().to_le_bytes());
    for_each_piece(file, |offset, data| {
        // A file system may give back a hole as zeros, or the other way round: they are the same contents.
        if data.iter().any(|byte| *byte != 0) {
            hash.update(offset.to_le_bytes());
            hash.update(data);
        }
        Ok(())
    })?;
    Ok(hex(&hash.finalize()))
}

/// Hands out the file's data in pieces that start and end at multiples of [`PIECE`], leaving out those that are holes.
fn for_each_piece(file: &File, mut each: impl FnMut(u64, &[u8]) -> io::Result<()>) -> io::Result<()> {
    let length = file.metadata()?.len();
    let mut buffer = vec![0; usize::try_from(PIECE).unwrap_or(usize::MAX)];
    let mut at = 0;
    while at < length {
        let data = match rustix::fs::seek(file, SeekFrom::Data(at)) {
            Ok(data) => data,
            Err(rustix::io::Errno::NXIO) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        at = data / PIECE * PIECE;
        let count = usize::try_from((length - at).min(PIECE)).unwrap_or(usize::MAX);
        file.read_exact_at(&mut buffer[..count], at)?;
        each(at, &buffer[..count])?;
        at += PIECE;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holes_stay_holes_and_count_as_zeros() {
        use std::os::unix::fs::MetadataExt as _;
        let dir = tempfile::tempdir().unwrap();
        let open = |name: &str| {
            let mut options = File::options();
            options.create(true).truncate(true).read(true).write(true).open(dir.path().join(name)).unwrap()
        };
        let (source, target) = (open("source"), open("target"));
        source.set_len(64 << 20).unwrap();
        source.write_all_at(b"here", 40 << 20).unwrap();
        copy(&source, &target).unwrap();
        let metadata = target.metadata().unwrap();
        assert_eq!(metadata.len(), 64 << 20);
        assert!(metadata.blocks() * 512 < 4 << 20, "{} blocks", metadata.blocks());
        let before = digest(&target).unwrap();
        assert_eq!(before, digest(&source).unwrap());
        target.write_all_at(&[0; 100], 1 << 20).unwrap();
        assert_eq!(digest(&target).unwrap(), before, "zeros are zeros");
        target.write_all_at(b"x", 63 << 20).unwrap();
        assert_ne!(digest(&target).unwrap(), before);
        target.set_len(1 << 20).unwrap();
        assert_ne!(digest(&target).unwrap(), before);
    }
}
