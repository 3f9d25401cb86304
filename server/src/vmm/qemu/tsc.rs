//! The host's time-stamp counter. Told its rate, an emulated guest, whose counter is the host's, skips calibrating it.

use std::time::{Duration, Instant};

/// How long the rate is measured: reading the clock takes well under a microsecond, so the error stays below 50 ppm, as
/// good as the calibration that the guest's kernel would do in more time.
const MEASURE: Duration = Duration::from_millis(50);

/// The rate in kHz, or `None` where there is no such counter. Blocks for 50 ms.
pub fn rate_khz() -> Option<u64> {
    let (start, begin) = (Instant::now(), read()?);
    std::thread::sleep(MEASURE);
    let (passed, ticks) = (start.elapsed(), read()?.checked_sub(begin)?);
    let nanos = u64::try_from(passed.as_nanos()).ok().filter(|nanos| *nanos > 0)?;
    u64::try_from(u128::from(ticks) * 1_000_000 / u128::from(nanos)).ok()
}

#[cfg(target_arch = "x86_64")]
#[allow(clippy::unnecessary_wraps)] // the other architectures' answer is `None`
fn read() -> Option<u64> {
    // SAFETY: every x86-64 processor has the instruction, and Linux lets programs use it.
    Some(unsafe { core::arch::x86_64::_rdtsc() })
}

#[cfg(not(target_arch = "x86_64"))]
fn read() -> Option<u64> {
    None
}
