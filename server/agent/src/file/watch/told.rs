use std::collections::{HashSet, VecDeque};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use forkyard_protocol::{FileEvent, FileEventKind};

/// Events that wait to be sent: a folder of any size may be moved in at once.
const MAX_TOLD: usize = 65_536;

/// How long what was moved away may take to turn up under another name. The kernel tells both one after the other, but not at once:
/// whoever reads in between sees the first alone, and a busy host may stop the machine there: 10 ms were too few.
const SECOND_HALF: Duration = Duration::from_millis(100);

/// What happened and nobody was told of yet, in its order. What was moved away has its place there until it is known whether it is
/// gone or has another name; nothing after it is told before.
pub struct Told {
    root: PathBuf,
    queue: VecDeque<Waiting>,
}

struct Waiting {
    event: FileEvent,
    /// The folder in which it happened.
    number: i32,
    half: Option<Half>,
}

/// The first half of a move.
#[derive(Debug, PartialEq, Eq)]
pub struct Half {
    /// What the second half has too.
    pub cookie: u32,
    /// The path before.
    pub from: PathBuf,
    /// Whether it is a folder.
    pub is_dir: bool,
    /// The watched folders in it.
    pub folders: Vec<i32>,
    /// When it was read.
    pub read_at: Instant,
}

impl Half {
    fn settles_at(&self) -> Instant {
        self.read_at + SECOND_HALF
    }
}

impl Told {
    /// Nothing yet.
    pub fn new(root: &Path) -> Self {
        Self { root: root.to_owned(), queue: VecDeque::new() }
    }

    /// Notes what happened in a folder.
    pub fn tell(&mut self, number: i32, kind: FileEventKind, path: &Path, is_dir: bool) {
        self.push(Waiting { event: event(kind, path, None, is_dir), number, half: None });
    }

    /// Notes the second half of a move.
    pub fn tell_moved(&mut self, number: i32, from: &Path, path: &Path, is_dir: bool) {
        let event = event(FileEventKind::Moved, path, Some(from), is_dir);
        self.push(Waiting { event, number, half: None });
    }

    /// Notes the first half of a move. Where there is no room for it, answers the folders in it, which are to be let go of.
    pub fn hold(&mut self, number: i32, half: Half) -> Vec<i32> {
        let event = event(FileEventKind::Removed, &half.from, None, half.is_dir);
        let refused = self.push(Waiting { event, number, half: Some(half) });
        refused.and_then(|waiting| waiting.half).map(|half| half.folders).unwrap_or_default()
    }

    /// Takes out the first half that belongs to this second one.
    pub fn take_half(&mut self, cookie: u32) -> Option<Half> {
        // It was among the last.
        let is_it = |waiting: &Waiting| waiting.half.as_ref().is_some_and(|half| half.cookie == cookie);
        let at = self.queue.iter().rposition(is_it)?;
        self.queue.remove(at)?.half
    }

    /// What has not turned up by its time is gone. Answers the folders that went with it.
    pub fn settle(&mut self, now: Instant) -> Vec<i32> {
        self.settle_where(|half| half.settles_at() <= now)
    }

    /// What this folder went away with is gone: the folder was moved in since, from elsewhere.
    pub fn settle_with(&mut self, number: i32) -> Vec<i32> {
        self.settle_where(|half| half.folders.contains(&number))
    }

    /// All that has not turned up is gone.
    pub fn settle_all(&mut self) {
        self.settle_where(|_| true);
    }

    fn settle_where(&mut self, is_gone: impl Fn(&Half) -> bool) -> Vec<i32> {
        if self.settles_at().is_none() {
            return Vec::new();
        }
        let mut gone = HashSet::new();
        self.queue.retain_mut(|waiting| {
            // It happened elsewhere, in what had been moved out.
            if gone.contains(&waiting.number) {
                return false;
            }
            if let Some(half) = waiting.half.take_if(|half| is_gone(half)) {
                gone.extend(half.folders);
            }
            true
        });
        gone.into_iter().collect()
    }

    /// When the first half that keeps others waiting has its time, if there is one.
    pub fn settles_at(&self) -> Option<Instant> {
        self.queue.iter().find_map(|waiting| waiting.half.as_ref().map(Half::settles_at))
    }

    /// Whether more happened than was kept or could be watched.
    pub fn overflowed(&self) -> bool {
        self.queue.iter().any(|waiting| waiting.event.kind == FileEventKind::Overflow)
    }

    /// What can be told now, a line of JSON each.
    pub fn take_lines(&mut self) -> Vec<u8> {
        let settled = self.queue.iter().position(|waiting| waiting.half.is_some());
        let mut lines = Vec::new();
        for waiting in self.queue.drain(..settled.unwrap_or(self.queue.len())) {
            // Strings and words: their JSON cannot fail.
            lines.extend(serde_json::to_vec(&waiting.event).unwrap_or_default());
            lines.push(b'\n');
        }
        lines
    }

    /// Answers what there was no room for.
    fn push(&mut self, waiting: Waiting) -> Option<Waiting> {
        // A program that writes in small pieces says one thing.
        let is_said = |last: &Waiting| last.half.is_none() && last.event == waiting.event;
        if waiting.half.is_none() && self.queue.back().is_some_and(is_said) {
            return None;
        }
        if self.queue.len() < MAX_TOLD {
            self.queue.push_back(waiting);
            return None;
        }
        if self.queue.len() == MAX_TOLD {
            let event = event(FileEventKind::Overflow, &self.root, None, true);
            self.queue.push_back(Waiting { event, number: NO_FOLDER, half: None });
        }
        Some(waiting)
    }
}

/// The number of no folder.
pub const NO_FOLDER: i32 = -1;

fn event(kind: FileEventKind, path: &Path, from: Option<&Path>, is_dir: bool) -> FileEvent {
    let text = |path: &Path| path.to_string_lossy().into_owned();
    FileEvent { kind, path: text(path), from: from.map(text), is_dir }
}

#[cfg(test)]
mod tests {
    use FileEventKind::{Created, Modified, Moved, Overflow, Removed};

    use super::*;

    const ROOT: i32 = 1;

    fn told(told: &mut Told) -> Vec<FileEvent> {
        let lines = String::from_utf8(told.take_lines()).unwrap();
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn of(kind: FileEventKind, path: &str) -> FileEvent {
        event(kind, Path::new(path), None, false)
    }

    fn half(cookie: u32, from: &str, folders: &[i32], read_at: Instant) -> Half {
        Half { cookie, from: from.into(), is_dir: false, folders: folders.to_vec(), read_at }
    }

    #[test]
    fn a_move_waits_for_its_second_half_and_holds_what_came_after_the_first() {
        let (mut queue, now) = (Told::new(Path::new("/r")), Instant::now());
        queue.tell(ROOT, Created, Path::new("/r/before"), false);
        assert!(queue.hold(ROOT, half(7, "/r/a", &[2, 3], now)).is_empty());
        queue.tell(2, Modified, Path::new("/r/a/inside"), false);
        assert_eq!(told(&mut queue), [of(Created, "/r/before")]);
        assert!(queue.settle(now + SECOND_HALF / 2).is_empty());
        assert_eq!(told(&mut queue), [], "the second half may be on its way");
        assert_eq!(queue.take_half(8), None);
        let moved = queue.take_half(7).unwrap();
        assert_eq!(moved, half(7, "/r/a", &[2, 3], now));
        queue.tell_moved(ROOT, &moved.from, Path::new("/r/b"), false);
        let renamed = FileEvent { from: Some("/r/a".into()), ..of(Moved, "/r/b") };
        assert_eq!(told(&mut queue), [of(Modified, "/r/a/inside"), renamed]);
        assert!(queue.settles_at().is_none() && queue.settle(now + SECOND_HALF).is_empty());
    }

    #[test]
    fn what_does_not_turn_up_was_gone_before_what_came_after() {
        let (mut queue, now) = (Told::new(Path::new("/r")), Instant::now());
        queue.hold(ROOT, half(7, "/r/a", &[3], now));
        queue.hold(ROOT, half(8, "/r/b", &[4], now + SECOND_HALF / 2));
        queue.tell(3, Created, Path::new("/r/a/it-is-elsewhere"), false);
        queue.tell(ROOT, Created, Path::new("/r/a"), false);
        assert_eq!(queue.settles_at(), Some(now + SECOND_HALF));
        assert_eq!(queue.settle(now + SECOND_HALF), [3]);
        assert_eq!(told(&mut queue), [of(Removed, "/r/a")]);
        queue.settle_all();
        assert_eq!(told(&mut queue), [of(Removed, "/r/b"), of(Created, "/r/a")]);
    }

    #[test]
    fn what_was_moved_out_and_in_again_was_gone() {
        let (mut queue, now) = (Told::new(Path::new("/r")), Instant::now());
        queue.hold(ROOT, half(7, "/r/a", &[3], now));
        queue.hold(3, half(8, "/r/a/it-is-elsewhere", &[], now));
        queue.tell(ROOT, Created, Path::new("/r/b"), false);
        assert!(queue.settle_with(4).is_empty());
        assert_eq!(queue.settle_with(3), [3]);
        assert_eq!(told(&mut queue), [of(Removed, "/r/a"), of(Created, "/r/b")]);
    }

    #[test]
    fn too_much_is_told_as_an_overflow_and_the_same_thing_once() {
        let (mut queue, now) = (Told::new(Path::new("/r")), Instant::now());
        for number in 0..MAX_TOLD + 5 {
            let path = format!("/r/{number}");
            queue.tell(ROOT, Modified, Path::new(&path), false);
            queue.tell(ROOT, Modified, Path::new(&path), false);
        }
        assert_eq!(queue.hold(ROOT, half(7, "/r/a", &[3], now)), [3], "nothing else would let go of it");
        let all = told(&mut queue);
        assert_eq!(all.len(), MAX_TOLD + 1);
        assert_eq!(all[MAX_TOLD - 1], of(Modified, "/r/65535"));
        assert_eq!((all[MAX_TOLD].kind, all[MAX_TOLD].path.as_str()), (Overflow, "/r"));
        queue.tell(ROOT, Modified, Path::new("/r/1"), false);
        assert_eq!(told(&mut queue), [of(Modified, "/r/1")]);
    }
}
