//! ComputeSDK's composite score (<https://github.com/computesdk/benchmarks>, `METHODOLOGY.md` and `src/util/stats.ts`, as of
//! 2026): the fastest and slowest 5 % are left out, then median, 95th and 99th percentile count 60, 25 and 15 %, each 100 at
//! 0 ms and 0 at 10 s, and all of it is multiplied by the share that succeeded. No I/O.

/// Milliseconds at which a time scores nothing.
const CEILING_MS: f64 = 10_000.0;

/// The share that is left out at each end, in percent.
const TRIM: usize = 5;

/// The score, 0 to 100, of these times in milliseconds and so many attempts that failed.
pub fn composite(times_ms: &[f64], failed: usize) -> f64 {
    if times_ms.is_empty() {
        return 0.0;
    }
    let mut sorted = times_ms.to_vec();
    sorted.sort_by(f64::total_cmp);
    let trim = sorted.len() * TRIM / 100;
    let kept = &sorted[trim..sorted.len() - trim];
    let percentile = |percent: usize| kept[(kept.len() * percent).div_ceil(100).max(1) - 1];
    let median = f64::midpoint(kept[(kept.len() - 1) / 2], kept[kept.len() / 2]);
    let points = |ms: f64| (100.0 * (1.0 - ms / CEILING_MS)).max(0.0);
    let timing = 0.60 * points(median) + 0.25 * points(percentile(95)) + 0.15 * points(percentile(99));
    #[allow(clippy::cast_precision_loss)] // hundreds
    let succeeded = times_ms.len() as f64 / (times_ms.len() + failed) as f64;
    (timing * succeeded * 100.0).round() / 100.0
}
