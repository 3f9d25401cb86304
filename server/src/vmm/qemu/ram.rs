//! A guest's memory as its process holds it: the pages that differ from the file it was mapped from.

use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::Path;

const PAGE: u64 = 4096;

/// Pages whose entries are looked at in one read: 128 MiB of memory.
const ENTRIES: usize = 32 * 1024;

/// Bytes that are copied at once.
const PIECE: u64 = 1024 * 1024;

/// Bits of an entry (<https://docs.kernel.org/admin-guide/mm/pagemap.html>): in memory, on the swap device, and a page of
/// the file itself rather than the process's own copy.
const PRESENT: u64 = 1 << 63;
const SWAPPED: u64 = 1 << 62;
const OF_FILE: u64 = 1 << 61;

/// A part of a file in a process's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Mapping {
    start: u64,
    end: u64,
    offset: u64,
}

/// Neighbouring pages that a process has changed: where they are in it and in the file, and their bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Change {
    address: u64,
    offset: u64,
    length: u64,
}

/// Ends a file of changes; one that lacks it was cut off.
const END: u64 = u64::MAX;

/// Copies every page that the process `pid` has changed of its private mapping of `ram` to the same place in `target`. The
/// process must stand still, and `target` hold what `ram` holds. Blocks.
pub fn copy_changed(pid: u32, ram: &Path, target: &File) -> io::Result<()> {
    let memory = File::open(format!("/proc/{pid}/mem"))?;
    for change in changes(pid, ram)? {
        read(&memory, change, |done, piece| target.write_all_at(piece, change.offset + done))?;
    }
    Ok(())
}

/// How many bytes the process has changed of its private mapping of `ram`. Blocks.
pub fn changed_bytes(pid: u32, ram: &Path) -> io::Result<u64> {
    Ok(changes(pid, ram)?.iter().map(|change| change.length).sum())
}

/// Writes every page that the process has changed of its private mapping of `ram`, each run of them behind its offset in the
/// file and its length. The process must stand still. Blocks.
pub fn save_changed(pid: u32, ram: &Path, target: impl Write) -> io::Result<()> {
    let mut target = BufWriter::new(target);
    let memory = File::open(format!("/proc/{pid}/mem"))?;
    for change in changes(pid, ram)? {
        target.write_all(&change.offset.to_le_bytes())?;
        target.write_all(&change.length.to_le_bytes())?;
        read(&memory, change, |_, piece| target.write_all(piece))?;
    }
    target.write_all(&END.to_le_bytes())?;
    target.flush()
}

/// Puts what [`save_changed`] wrote into the memory of another process that maps the same file and has not used it yet. Blocks.
pub fn restore_changed(pid: u32, ram: &Path, source: impl Read) -> io::Result<()> {
    let mappings = mappings(pid, ram)?;
    let memory = OpenOptions::new().write(true).open(format!("/proc/{pid}/mem"))?;
    let (mut source, mut piece) = (BufReader::new(source), Vec::new());
    loop {
        let offset = read_u64(&mut source)?;
        if offset == END {
            return Ok(());
        }
        let length = read_u64(&mut source)?;
        let holds = |mapping: &&Mapping| {
            let end = mapping.offset + (mapping.end - mapping.start);
            offset >= mapping.offset && offset.checked_add(length).is_some_and(|last| last <= end)
        };
        let mapping = mappings.iter().find(holds);
        let mapping = mapping.ok_or_else(|| io::Error::other("what was changed lies outside the memory"))?;
        let address = mapping.start + (offset - mapping.offset);
        let mut done = 0;
        while done < length {
            let count = (length - done).min(PIECE);
            piece.resize(usize::try_from(count).unwrap_or(usize::MAX), 0);
            source.read_exact(&mut piece)?;
            memory.write_all_at(&piece, address + done)?;
            done += count;
        }
    }
}

fn read_u64(source: &mut impl Read) -> io::Result<u64> {
    let mut bytes = [0; 8];
    source.read_exact(&mut bytes)?;
    Ok(u64::from_le_bytes(bytes))
}

/// What a process has changed of its private mapping of a file.
fn changes(pid: u32, ram: &Path) -> io::Result<Vec<Change>> {
    let pagemap = File::open(format!("/proc/{pid}/pagemap"))?;
    let (mut entries, mut found) = (vec![0; ENTRIES * 8], Vec::new());
    for mapping in mappings(pid, ram)? {
        let mut at = mapping.start;
        while at < mapping.end {
            let count = ((mapping.end - at) / PAGE).min(ENTRIES as u64);
            let bytes = &mut entries[..usize::try_from(count * 8).unwrap_or(usize::MAX)];
            pagemap.read_exact_at(bytes, at / PAGE * 8)?;
            found.extend(changed_runs(bytes).into_iter().map(|(first, pages)| {
                let address = at + first * PAGE;
                let offset = mapping.offset + (address - mapping.start);
                Change { address, offset, length: pages * PAGE }
            }));
            at += count * PAGE;
        }
    }
    Ok(found)
}

/// Where a process maps a file.
fn mappings(pid: u32, ram: &Path) -> io::Result<Vec<Mapping>> {
    let inode = std::fs::metadata(ram)?.ino();
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps"))?;
    let mappings: Vec<Mapping> = maps.lines().filter_map(|line| mapping_of(line, inode)).collect();
    if mappings.is_empty() {
        return Err(io::Error::other("the process does not map its memory's file"));
    }
    Ok(mappings)
}

/// The mapping that a line of `/proc/PID/maps` describes, if it is of this file.
fn mapping_of(line: &str, inode: u64) -> Option<Mapping> {
    let mut fields = line.split_ascii_whitespace();
    let (start, end) = fields.next()?.split_once('-')?;
    let offset = fields.nth(1)?;
    let found: u64 = fields.nth(1)?.parse().ok()?;
    let hex = |text| u64::from_str_radix(text, 16).ok();
    (found == inode).then_some(Mapping { start: hex(start)?, end: hex(end)?, offset: hex(offset)? })
}

/// Runs of pages that are the process's own: the index of the first, and how many.
fn changed_runs(entries: &[u8]) -> Vec<(u64, u64)> {
    let mut runs: Vec<(u64, u64)> = Vec::new();
    for (index, entry) in (0..).zip(entries.as_chunks::<8>().0) {
        let entry = u64::from_ne_bytes(*entry);
        if entry & (PRESENT | SWAPPED) == 0 || entry & OF_FILE != 0 {
            continue;
        }
        match runs.last_mut() {
            Some((first, count)) if *first + *count == index => *count += 1,
            _ => runs.push((index, 1)),
        }
    }
    runs
}

/// Hands out a change's bytes in pieces, each with how many came before it.
fn read(memory: &File, change: Change, mut each: impl FnMut(u64, &[u8]) -> io::Result<()>) -> io::Result<()> {
    let mut piece = vec![0; usize::try_from(change.length.min(PIECE)).unwrap_or(usize::MAX)];
    let mut done = 0;
    while done < change.length {
        let count = usize::try_from((change.length - done).min(PIECE)).unwrap_or(usize::MAX);
        memory.read_exact_at(&mut piece[..count], change.address + done)?;
        each(done, &piece[..count])?;
        done += count as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_mappings_of_the_file_count() {
        let line = "7f1000000000-7f1020000000 rw-p 00100000 fe:00 4711                       /m/sbx_1/ram";
        let mapping = Mapping { start: 0x7f10_0000_0000, end: 0x7f10_2000_0000, offset: 0x10_0000 };
        assert_eq!(mapping_of(line, 4711), Some(mapping));
        assert_eq!(mapping_of(line, 4712), None);
        assert_eq!(mapping_of("7f10-7f20 rw-p 00000000 00:00 0", 4711), None);
    }

    #[test]
    fn neighbours_are_one_run() {
        let entries = [PRESENT, PRESENT, 0, SWAPPED, PRESENT | OF_FILE, PRESENT];
        let bytes: Vec<u8> = entries.iter().flat_map(|entry| entry.to_ne_bytes()).collect();
        assert_eq!(changed_runs(&bytes), [(0, 2), (3, 1), (5, 1)]);
    }

    /// A private mapping of a file in this process.
    struct Mapped {
        address: *mut u8,
        length: usize,
    }

    impl Mapped {
        fn new(file: &File, length: usize) -> Self {
            // SAFETY: a new mapping where the kernel likes; it is used within its length and given back when this is dropped.
            let address = unsafe {
                rustix::mm::mmap(
                    std::ptr::null_mut(),
                    length,
                    rustix::mm::ProtFlags::READ | rustix::mm::ProtFlags::WRITE,
                    rustix::mm::MapFlags::PRIVATE,
                    file,
                    0,
                )
            };
            Self { address: address.unwrap().cast(), length }
        }

        fn bytes(&mut self) -> &mut [u8] {
            // SAFETY: the mapping is as long as this, and nobody else knows it.
            unsafe { std::slice::from_raw_parts_mut(self.address, self.length) }
        }
    }

    impl Drop for Mapped {
        fn drop(&mut self) {
            // SAFETY: nobody uses the mapping after this.
            unsafe { rustix::mm::munmap(self.address.cast(), self.length) }.unwrap();
        }
    }

    /// A file whose pages each hold their number, and how long it is.
    fn numbered(path: &Path) -> (File, usize) {
        let base: Vec<u8> = (0..16 * PAGE).map(|at| u8::try_from(at / PAGE).unwrap()).collect();
        std::fs::write(path, &base).unwrap();
        (File::options().read(true).write(true).open(path).unwrap(), base.len())
    }

    #[test]
    fn what_this_process_wrote_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let (path, pid) = (dir.path().join("ram"), std::process::id());
        let (file, length) = numbered(&path);
        let mut mapped = Mapped::new(&file, length);
        mapped.bytes()[5000] = 99;
        assert_eq!(mapped.bytes()[40_000], 9, "a page that is read stays the file's");
        let target = dir.path().join("target");
        std::fs::copy(&path, &target).unwrap();
        assert_eq!(changed_bytes(pid, &path).unwrap(), PAGE);
        copy_changed(pid, &path, &File::options().write(true).open(&target).unwrap()).unwrap();
        let mut wanted = std::fs::read(&path).unwrap();
        wanted[5000] = 99;
        assert_eq!(std::fs::read(&target).unwrap(), wanted);
    }

    #[test]
    fn what_one_process_changed_another_goes_on_with() {
        let dir = tempfile::tempdir().unwrap();
        let (path, pid) = (dir.path().join("ram"), std::process::id());
        let (file, length) = numbered(&path);
        let mut first = Mapped::new(&file, length);
        let wanted = {
            let bytes = first.bytes();
            bytes[5000] = 99;
            // Zeros are a change too.
            bytes[3 * 4096..5 * 4096].fill(0);
            bytes.to_vec()
        };
        let mut saved = Vec::new();
        save_changed(pid, &path, &mut saved).unwrap();
        assert_eq!(saved.len(), 2 * 16 + 3 * 4096 + 8);
        drop(first);
        let mut second = Mapped::new(&file, length);
        restore_changed(pid, &path, saved.as_slice()).unwrap();
        assert!(second.bytes() == wanted);
        assert_eq!(changed_bytes(pid, &path).unwrap(), 3 * PAGE, "the file's own pages stay shared");
        // One that was cut off between two changes is not taken for whole.
        let cut = &saved[..16 + 4096];
        assert_eq!(restore_changed(pid, &path, cut).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        let beyond = [16 * PAGE, PAGE].map(u64::to_le_bytes).concat();
        assert!(restore_changed(pid, &path, beyond.as_slice()).unwrap_err().to_string().contains("outside"));
    }
}
