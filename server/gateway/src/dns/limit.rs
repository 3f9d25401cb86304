//! So many a second, and no more than so many at once.

use std::time::Instant;

/// A token bucket.
#[derive(Debug)]
pub(super) struct Bucket {
    per_second: f64,
    burst: f64,
    tokens: f64,
    at: Instant,
    was_empty: bool,
}

/// What a bucket answers.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Token {
    /// There was one.
    Taken,
    /// There is none, for the first time since one was taken.
    JustEmpty,
    /// There still is none.
    Empty,
}

impl Bucket {
    pub(super) fn new(per_second: u32, burst: u32, now: Instant) -> Self {
        let burst = f64::from(burst.max(1));
        Self { per_second: f64::from(per_second), burst, tokens: burst, at: now, was_empty: false }
    }

    pub(super) fn take(&mut self, now: Instant) -> Token {
        let elapsed = now.saturating_duration_since(self.at).as_secs_f64();
        self.tokens = self.burst.min(elapsed.mul_add(self.per_second, self.tokens));
        self.at = self.at.max(now);
        if self.tokens >= 1.0 {
            self.tokens -= 1.0;
            self.was_empty = false;
            return Token::Taken;
        }
        if std::mem::replace(&mut self.was_empty, true) { Token::Empty } else { Token::JustEmpty }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn it_fills_at_its_rate_and_says_once_that_it_is_empty() {
        let start = Instant::now();
        let mut bucket = Bucket::new(10, 3, start);
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        assert_eq!(
            [0; 4].map(|ms| bucket.take(at(ms))),
            [Token::Taken, Token::Taken, Token::Taken, Token::JustEmpty]
        );
        assert_eq!(bucket.take(at(50)), Token::Empty);
        assert_eq!(bucket.take(at(101)), Token::Taken);
        assert_eq!(bucket.take(at(0)), Token::JustEmpty, "time that goes back gives nothing");
        assert_eq!(
            [10_000; 4].map(|ms| bucket.take(at(ms))).iter().filter(|token| **token == Token::Taken).count(),
            3
        );
    }
}
