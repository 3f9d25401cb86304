//! Those who wait for room, in fair order: decided without I/O.

use std::collections::VecDeque;

/// What came of an attempt to serve the first of a key's line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It has what it waited for, or waits no longer.
    Served,
    /// Its key may have no more; others may.
    KeyFull,
    /// The host has no room. Nobody overtakes: else a large machine would never find any among small ones.
    HostFull,
}

/// A line for each key; the keys take turns, so that a burst of one does not hold up another.
#[derive(Debug)]
pub(super) struct Line<K, T> {
    /// The key whose turn it is comes first.
    keys: VecDeque<(K, VecDeque<T>)>,
    len: usize,
    host_is_full: bool,
}

impl<K, T> Default for Line<K, T> {
    fn default() -> Self {
        Self { keys: VecDeque::new(), len: 0, host_is_full: false }
    }
}

impl<K: PartialEq, T> Line<K, T> {
    /// How many wait.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether somebody waits for room on the host, so that newcomers have to stand behind them.
    pub fn waits_for_host(&self) -> bool {
        self.host_is_full && self.len > 0
    }

    /// Puts one at the end of its key's line.
    pub fn join(&mut self, key: K, waiter: T) {
        self.len += 1;
        match self.keys.iter_mut().find(|(other, _)| *other == key) {
            Some((_, line)) => line.push_back(waiter),
            None => self.keys.push_back((key, VecDeque::from([waiter]))),
        }
    }

    /// Serves as many as can be.
    pub fn serve(&mut self, mut attempt: impl FnMut(&mut T) -> Verdict) {
        self.host_is_full = false;
        // Keys whose first cannot be served now, one after another.
        let mut passed = 0;
        while passed < self.keys.len() {
            let Some((key, mut line)) = self.keys.pop_front() else { return };
            let Some(first) = line.front_mut() else { continue };
            match attempt(first) {
                Verdict::Served => {
                    line.pop_front();
                    self.len -= 1;
                    passed = 0;
                    if !line.is_empty() {
                        self.keys.push_back((key, line));
                    }
                }
                Verdict::KeyFull => {
                    passed += 1;
                    self.keys.push_back((key, line));
                }
                Verdict::HostFull => {
                    self.host_is_full = true;
                    self.keys.push_front((key, line));
                    return;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Serves `room` waiters and refuses the others; answers who was served.
    fn serve(line: &mut Line<char, u32>, room: usize, full: &[char]) -> Vec<u32> {
        let mut served = Vec::new();
        line.serve(|waiter| {
            let key = char::from_digit(*waiter / 10 + 10, 36).unwrap();
            if full.contains(&key) {
                Verdict::KeyFull
            } else if served.len() == room {
                Verdict::HostFull
            } else {
                served.push(*waiter);
                Verdict::Served
            }
        });
        served
    }

    fn line() -> Line<char, u32> {
        let mut line = Line::default();
        for (key, waiter) in [('a', 1), ('a', 2), ('a', 3), ('b', 11), ('b', 12), ('c', 21)] {
            line.join(key, waiter);
        }
        line
    }

    #[test]
    fn keys_take_turns_and_each_keeps_its_order() {
        let mut line = line();
        assert_eq!(serve(&mut line, 2, &[]), [1, 11]);
        assert!(line.waits_for_host());
        assert_eq!(serve(&mut line, 9, &[]), [21, 2, 12, 3]);
        assert_eq!((line.len(), line.waits_for_host()), (0, false));
    }

    #[test]
    fn a_key_whose_budget_is_met_holds_nobody_up() {
        let mut line = line();
        assert_eq!(serve(&mut line, 9, &['a']), [11, 21, 12]);
        assert!(!line.waits_for_host(), "the host has room");
        assert_eq!(serve(&mut line, 9, &[]), [1, 2, 3]);
    }

    #[test]
    fn nobody_overtakes_one_who_waits_for_the_host() {
        let mut line = line();
        assert!(serve(&mut line, 0, &[]).is_empty());
        assert_eq!(line.len(), 6);
        assert_eq!(serve(&mut line, 1, &[]), [1]);
    }
}
