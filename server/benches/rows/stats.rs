//! Figures out of samples; no I/O.

use serde::Serialize;

/// What was measured, in the row's unit.
#[derive(Debug, Clone, Serialize, PartialEq)]
pub struct Summary {
    pub p50: f64,
    pub p95: f64,
    pub p99: f64,
    pub n: usize,
}

impl Summary {
    /// The nearest-rank percentiles of these samples; `None` without any.
    pub fn of(samples: &[f64]) -> Option<Self> {
        let mut sorted = samples.to_vec();
        sorted.sort_by(f64::total_cmp);
        let rank =
            |percent: usize| sorted.get((sorted.len() * percent).div_ceil(100).checked_sub(1)?).copied();
        Some(Self { p50: rank(50)?, p95: rank(95)?, p99: rank(99)?, n: sorted.len() })
    }
}

/// What a ratio is to be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Goal {
    /// At most this: times.
    AtMost(f64),
    /// At least this: rates.
    AtLeast(f64),
    /// Reported only.
    None,
}

impl Goal {
    /// Whether a ratio is as wanted.
    pub fn holds(self, ratio: f64) -> bool {
        match self {
            Self::AtMost(limit) => ratio <= limit,
            Self::AtLeast(limit) => ratio >= limit,
            Self::None => true,
        }
    }
}

impl std::fmt::Display for Goal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::AtMost(limit) => write!(f, "<= {limit}"),
            Self::AtLeast(limit) => write!(f, ">= {limit}"),
            Self::None => f.write_str("reported"),
        }
    }
}
