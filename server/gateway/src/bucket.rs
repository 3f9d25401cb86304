use std::time::{Duration, Instant};

/// Bytes that may go at once however slow the rate: a few full packets, so that nothing can be too large for its bucket.
const LEAST_BURST: f64 = 16.0 * 1024.0;

/// A token bucket of bytes: a rate, averaged over one second.
#[derive(Debug, Clone)]
pub struct Bucket {
    /// Bytes a second; none is no limit.
    rate: Option<f64>,
    tokens: f64,
    filled_at: Instant,
}

impl Bucket {
    /// A full bucket of so many kilobits a second.
    pub fn new(kbps: Option<u64>, now: Instant) -> Self {
        #[expect(clippy::cast_precision_loss)]
        let rate = kbps.map(|kbps| (kbps.max(1) as f64) * 125.0);
        Self { rate, tokens: rate.map_or(0.0, |rate| rate.max(LEAST_BURST)), filled_at: now }
    }

    /// How many of the wanted bytes may go now; where none may, how long it is until a fair piece can.
    pub fn offer(&mut self, wanted: usize, now: Instant) -> Result<usize, Duration> {
        let Some(rate) = self.rate else { return Ok(wanted) };
        let passed = now.saturating_duration_since(self.filled_at).as_secs_f64();
        self.tokens = (self.tokens + passed * rate).min(rate.max(LEAST_BURST));
        self.filled_at = now;
        let piece = 1500.0_f64.min(rate);
        if self.tokens < piece {
            return Err(Duration::from_secs_f64((piece - self.tokens) / rate));
        }
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let there = self.tokens as usize;
        Ok(there.min(wanted))
    }

    /// Lets something through that cannot be cut, or not; what it takes too much, the next ones wait for.
    pub fn admit(&mut self, bytes: usize, now: Instant) -> bool {
        let admitted = self.offer(bytes, now).is_ok();
        if admitted {
            self.take(bytes);
        }
        admitted
    }

    /// Takes what went.
    pub fn take(&mut self, bytes: usize) {
        #[expect(clippy::cast_precision_loss)]
        if self.rate.is_some() {
            self.tokens -= bytes as f64;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_at_once_then_the_rate() {
        let start = Instant::now();
        let mut bucket = Bucket::new(Some(8_000), start);
        assert_eq!(bucket.offer(2_000_000, start), Ok(1_000_000));
        bucket.take(1_000_000);
        assert_eq!(bucket.offer(1, start), Err(Duration::from_micros(1_500)));
        assert_eq!(bucket.offer(5_000, start + Duration::from_millis(3)), Ok(3_000));
    }

    #[test]
    fn no_rate_no_limit() {
        let start = Instant::now();
        let mut bucket = Bucket::new(None, start);
        bucket.take(usize::MAX);
        assert_eq!(bucket.offer(usize::MAX, start), Ok(usize::MAX));
    }

    #[test]
    fn the_slowest_lets_a_packet_through() {
        let start = Instant::now();
        let mut bucket = Bucket::new(Some(8), start);
        assert_eq!(bucket.offer(1_500, start), Ok(1_500));
        bucket.take(16 * 1024);
        assert_eq!(bucket.offer(1_500, start), Err(Duration::from_secs(1)));
        assert_eq!(bucket.offer(1_500, start + Duration::from_secs(1)), Ok(1_000));
    }
}
