//! A guest's memory as its process holds it: the pages that differ from the file it was mapped from.

use std::fs::File;
use std::io;
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

/// Copies every page that the process `pid` has changed of its private mapping of `ram` to the same place in `target`;
/// answers how many bytes. The process must stand still, and `target` hold what `ram` holds. Blocks.
pub fn copy_changed(pid: u32, ram: &Path, target: &File) -> io::Result<u64> {
    let inode = std::fs::metadata(ram)?.ino();
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps"))?;
    let mappings: Vec<Mapping> = maps.lines().filter_map(|line| mapping_of(line, inode)).collect();
    if mappings.is_empty() {
        return Err(io::Error::other("the process does not map its memory's file"));
    }
    let pagemap = File::open(format!("/proc/{pid}/pagemap"))?;
    let memory = File::open(format!("/proc/{pid}/mem"))?;
    let (mut entries, mut piece) = (vec![0; ENTRIES * 8], Vec::new());
    let mut copied = 0;
    for mapping in mappings {
        let mut at = mapping.start;
        while at < mapping.end {
            let count = ((mapping.end - at) / PAGE).min(ENTRIES as u64);
            let bytes = &mut entries[..usize::try_from(count * 8).unwrap_or(usize::MAX)];
            pagemap.read_exact_at(bytes, at / PAGE * 8)?;
            for (first, pages) in changed_runs(bytes) {
                let from = at + first * PAGE;
                let to = mapping.offset + (from - mapping.start);
                copied += copy(&memory, from, target, to, pages * PAGE, &mut piece)?;
            }
            at += count * PAGE;
        }
    }
    Ok(copied)
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

fn copy(
    memory: &File,
    from: u64,
    target: &File,
    to: u64,
    length: u64,
    piece: &mut Vec<u8>,
) -> io::Result<u64> {
    let mut done = 0;
    while done < length {
        let count = (length - done).min(PIECE);
        piece.resize(usize::try_from(count).unwrap_or(usize::MAX), 0);
        memory.read_exact_at(piece, from + done)?;
        target.write_all_at(piece, to + done)?;
        done += count;
    }
    Ok(length)
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

    #[test]
    fn what_this_process_wrote_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ram");
        let base: Vec<u8> = (0..16 * PAGE).map(|at| u8::try_from(at / PAGE).unwrap()).collect();
        std::fs::write(&path, &base).unwrap();
        let file = File::options().read(true).write(true).open(&path).unwrap();
        let length = usize::try_from(16 * PAGE).unwrap();
        // SAFETY: a new mapping where the kernel likes; it is used below within its length and given back at the end.
        let mapped = unsafe {
            rustix::mm::mmap(
                std::ptr::null_mut(),
                length,
                rustix::mm::ProtFlags::READ | rustix::mm::ProtFlags::WRITE,
                rustix::mm::MapFlags::PRIVATE,
                &file,
                0,
            )
        }
        .unwrap();
        // SAFETY: the mapping is as long as this, and nobody else knows it.
        let memory = unsafe { std::slice::from_raw_parts_mut(mapped.cast::<u8>(), length) };
        memory[5000] = 99;
        assert_eq!(memory[40_000], 9, "a page that is read stays the file's");
        let target = dir.path().join("target");
        std::fs::copy(&path, &target).unwrap();
        let target_file = File::options().write(true).open(&target).unwrap();
        assert_eq!(copy_changed(std::process::id(), &path, &target_file).unwrap(), PAGE);
        let mut wanted = base;
        wanted[5000] = 99;
        assert_eq!(std::fs::read(&target).unwrap(), wanted);
        // SAFETY: `memory` is not used after this.
        unsafe { rustix::mm::munmap(mapped, length) }.unwrap();
    }
}
