use std::collections::VecDeque;

use bytes::Bytes;

/// Bytes of output that are kept for one process, both streams together.
const CAPACITY: usize = 3 * 1024 * 1024;

/// The same for one terminal.
const TERMINAL_CAPACITY: usize = 1024 * 1024;

/// Pieces that are kept for one terminal. Who types gets a byte back at a time, which takes a hundred to keep.
const TERMINAL_CHUNKS: usize = 16 * 1024;

/// Which part of the capacity a process may be ahead of the reader that it waits for. The rest stays behind that reader: a
/// connection that is cut loses what was under way on it, and the next one begins there. That is at most 1.2 MB: what
/// agent (128 KiB) and server (256 KiB) have yet to send, and the windows of server (256 KiB) and client (512 KiB).
const AHEAD: usize = 3;

/// Bytes of standard output and of standard error.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Offsets(pub [u64; 2]);

/// A piece of one stream, 0 for standard output and 1 for standard error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// Which stream.
    pub stream: usize,
    /// Where in it the piece begins.
    pub offset: u64,
    /// The piece.
    pub data: Bytes,
}

/// What a process wrote lately, both streams in the order in which it was read. Pure: who waits and who wakes is
/// elsewhere.
#[derive(Debug)]
pub struct Ring {
    capacity: usize,
    max_chunks: usize,
    chunks: VecDeque<Chunk>,
    /// Number of the first chunk that is kept, counted from the process's start.
    first: u64,
    bytes: usize,
    written: Offsets,
}

/// What a reader meets next.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// A piece that the reader lacks.
    Piece(Chunk),
    /// This many bytes of each stream are gone.
    Dropped([u64; 2]),
    /// Nothing yet.
    Wait,
}

/// A reader's place.
#[derive(Debug, Clone, Copy)]
pub struct Cursor {
    chunk: u64,
    offsets: Offsets,
}

impl Default for Ring {
    fn default() -> Self {
        Self {
            capacity: CAPACITY,
            max_chunks: usize::MAX,
            chunks: VecDeque::new(),
            first: 0,
            bytes: 0,
            written: Offsets::default(),
        }
    }
}

impl Ring {
    /// One for a terminal.
    pub fn of_terminal() -> Self {
        Self { capacity: TERMINAL_CAPACITY, max_chunks: TERMINAL_CHUNKS, ..Self::default() }
    }

    /// Bytes that are kept at most.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Bytes written to each stream in all.
    pub fn written(&self) -> Offsets {
        self.written
    }

    /// A place from which these offsets come next; `None` where they lie beyond what was written.
    pub fn cursor(&self, offsets: Offsets) -> Option<Cursor> {
        let beyond = offsets.0.iter().zip(self.written.0).any(|(wanted, written)| *wanted > written);
        (!beyond).then_some(Cursor { chunk: self.first, offsets })
    }

    /// Whether more may be taken from the process: always without a reader to wait for.
    pub fn has_room(&self, slowest: Option<Cursor>) -> bool {
        slowest.is_none_or(|cursor| self.unread(cursor) < self.capacity / AHEAD)
    }

    fn unread(&self, cursor: Cursor) -> usize {
        let skip = usize::try_from(cursor.chunk.saturating_sub(self.first)).unwrap_or(usize::MAX);
        self.chunks.iter().skip(skip).map(|chunk| chunk.data.len()).sum()
    }

    /// Adds a piece, at the cost of the oldest.
    pub fn push(&mut self, stream: usize, data: Bytes) {
        let offset = self.written.0[stream];
        self.written.0[stream] += data.len() as u64;
        self.bytes += data.len();
        self.chunks.push_back(Chunk { stream, offset, data });
        self.shrink(self.capacity);
    }

    /// Drops the oldest pieces until at most so many bytes are kept.
    pub fn shrink(&mut self, capacity: usize) {
        while (self.bytes > capacity || self.chunks.len() > self.max_chunks)
            && let Some(oldest) = self.chunks.pop_front()
        {
            self.bytes -= oldest.data.len();
            self.first += 1;
        }
    }

    /// What comes next at a place, which moves on.
    pub fn next(&self, cursor: &mut Cursor) -> Next {
        if cursor.chunk < self.first {
            cursor.chunk = self.first;
        }
        loop {
            let index = usize::try_from(cursor.chunk - self.first).unwrap_or(usize::MAX);
            let Some(chunk) = self.chunks.get(index) else { return self.next_at_end(cursor) };
            let wanted = &mut cursor.offsets.0[chunk.stream];
            if chunk.offset > *wanted {
                let mut dropped = [0; 2];
                dropped[chunk.stream] = chunk.offset - *wanted;
                *wanted = chunk.offset;
                return Next::Dropped(dropped);
            }
            cursor.chunk += 1;
            let end = chunk.offset + chunk.data.len() as u64;
            if end > *wanted {
                let skip = usize::try_from(*wanted - chunk.offset).unwrap_or(usize::MAX);
                let piece = Chunk { stream: chunk.stream, offset: *wanted, data: chunk.data.slice(skip..) };
                *wanted = end;
                return Next::Piece(piece);
            }
        }
    }

    /// Where no chunk is left, what was written beyond the place is gone.
    fn next_at_end(&self, cursor: &mut Cursor) -> Next {
        let gone = [0, 1].map(|stream| self.written.0[stream] - cursor.offsets.0[stream]);
        cursor.offsets = self.written;
        if gone == [0, 0] { Next::Wait } else { Next::Dropped(gone) }
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;

    fn text(ring: &Ring, cursor: &mut Cursor) -> String {
        let mut text = String::new();
        loop {
            match ring.next(cursor) {
                Next::Piece(chunk) => {
                    write!(text, "{}{}", chunk.stream, String::from_utf8_lossy(&chunk.data)).unwrap();
                }
                Next::Dropped(gone) => write!(text, "-{}/{}", gone[0], gone[1]).unwrap(),
                Next::Wait => return text,
            }
        }
    }

    #[test]
    fn a_reader_gets_everything_in_order_and_once() {
        let mut ring = Ring::default();
        let mut cursor = ring.cursor(Offsets::default()).unwrap();
        ring.push(0, "abc".into());
        ring.push(1, "x".into());
        assert_eq!(text(&ring, &mut cursor), "0abc1x");
        ring.push(0, "de".into());
        assert_eq!(text(&ring, &mut cursor), "0de");
        assert_eq!(text(&ring, &mut cursor), "");
    }

    #[test]
    fn a_cut_is_taken_up_in_the_middle_of_a_piece() {
        let mut ring = Ring::default();
        ring.push(0, "abc".into());
        ring.push(1, "xyz".into());
        ring.push(0, "def".into());
        let mut cursor = ring.cursor(Offsets([2, 3])).unwrap();
        assert_eq!(text(&ring, &mut cursor), "0c0def");
        assert!(ring.cursor(Offsets([7, 0])).is_none());
        let mut end = ring.cursor(Offsets([6, 3])).unwrap();
        assert_eq!(text(&ring, &mut end), "");
    }

    #[test]
    fn what_was_pushed_out_is_counted() {
        let mut ring = Ring::default();
        let piece = Bytes::from(vec![b'a'; 1024 * 1024]);
        for _ in 0..4 {
            ring.push(0, piece.clone());
        }
        let mut cursor = ring.cursor(Offsets::default()).unwrap();
        assert_eq!(ring.next(&mut cursor), Next::Dropped([1024 * 1024, 0]));
        assert!(matches!(ring.next(&mut cursor), Next::Piece(_)));
        ring.shrink(0);
        assert_eq!(ring.next(&mut cursor), Next::Dropped([2 * 1024 * 1024, 0]));
        assert_eq!(ring.next(&mut cursor), Next::Wait);
    }

    #[test]
    fn who_types_at_a_terminal_fills_no_memory() {
        let mut ring = Ring::of_terminal();
        for _ in 0..TERMINAL_CHUNKS + 7 {
            ring.push(0, "x".into());
        }
        let mut cursor = ring.cursor(Offsets::default()).unwrap();
        assert_eq!(ring.next(&mut cursor), Next::Dropped([7, 0]));
        ring.push(0, Bytes::from(vec![b'y'; TERMINAL_CAPACITY]));
        assert_eq!(ring.bytes, TERMINAL_CAPACITY);
    }

    #[test]
    fn a_process_waits_for_the_slowest_reader_and_what_it_read_stays() {
        let mut ring = Ring::default();
        let mut cursor = ring.cursor(Offsets::default()).unwrap();
        let mut pushed = 0;
        while ring.has_room(Some(cursor)) {
            ring.push(0, Bytes::from(vec![0; 64 * 1024]));
            pushed += 64 * 1024;
        }
        assert_eq!(pushed, CAPACITY / AHEAD);
        assert!(ring.has_room(None));
        while ring.next(&mut cursor) != Next::Wait {}
        assert!(ring.has_room(Some(cursor)));
        let mut again = ring.cursor(Offsets::default()).unwrap();
        assert!(matches!(ring.next(&mut again), Next::Piece(chunk) if chunk.offset == 0));
    }
}
