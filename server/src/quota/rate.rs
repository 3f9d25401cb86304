use std::time::{Duration, Instant};

/// Seconds of its average rate that a key may use at once.
const BURST_SECS: f64 = 10.0;

/// A token bucket: `rate` requests a second on average, ten seconds' worth at once.
#[derive(Debug, Clone)]
pub struct TokenBucket {
    rate: f64,
    tokens: f64,
    filled_at: Instant,
}

impl TokenBucket {
    /// A full bucket.
    pub fn new(rate: u32, now: Instant) -> Self {
        let rate = f64::from(rate.max(1));
        Self { rate, tokens: rate * BURST_SECS, filled_at: now }
    }

    /// Takes a token, or says how long it is until there is one.
    pub fn take(&mut self, now: Instant) -> Result<(), Duration> {
        let passed = now.saturating_duration_since(self.filled_at).as_secs_f64();
        self.tokens = (self.tokens + passed * self.rate).min(self.rate * BURST_SECS);
        self.filled_at = now;
        if self.tokens >= 1.0 {
            self.tokens -= 1.0;
            return Ok(());
        }
        Err(Duration::from_secs_f64((1.0 - self.tokens) / self.rate))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_then_the_average() {
        let start = Instant::now();
        let mut bucket = TokenBucket::new(2, start);
        for _ in 0..20 {
            bucket.take(start).unwrap();
        }
        assert_eq!(bucket.take(start), Err(Duration::from_millis(500)));
        assert!(bucket.take(start + Duration::from_millis(500)).is_ok());
        assert!(bucket.take(start + Duration::from_millis(500)).is_err());
    }

    #[test]
    fn an_idle_bucket_does_not_overflow() {
        let start = Instant::now();
        let mut bucket = TokenBucket::new(1, start);
        let later = start + Duration::from_hours(1);
        assert_eq!((0..100).filter(|_| bucket.take(later).is_ok()).count(), 10);
    }
}
