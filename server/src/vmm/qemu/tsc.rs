//! The host's time-stamp counter. Told its rate, an emulated guest, whose counter is the host's, skips calibrating it.

use std::time::{Duration, Instant};

/// How long the rate is measured: reading the clock takes well under a microsecond, so the error stays below 50 ppm, as
/// good as the calibration that the guest's kernel would do in more time.
const MEASURE: Duration = Duration::from_millis(50);

/// What `/proc/cpuinfo` calls a counter that neither the processor's frequency nor its sleep changes. A guest that is told
/// to rely on another one would run its clock at a wrong rate.
const STEADY: [&str; 2] = ["constant_tsc", "nonstop_tsc"];

/// The rate in kHz, or `None` where there is no counter to rely on. Blocks for 50 ms.
pub fn rate_khz() -> Option<u64> {
    if !is_steady(&std::fs::read_to_string("/proc/cpuinfo").ok()?) {
        return None;
    }
    let (start, begin) = (Instant::now(), read()?);
    std::thread::sleep(MEASURE);
    let (passed, ticks) = (start.elapsed(), read()?.checked_sub(begin)?);
    let nanos = u64::try_from(passed.as_nanos()).ok().filter(|nanos| *nanos > 0)?;
    u64::try_from(u128::from(ticks) * 1_000_000 / u128::from(nanos)).ok()
}

fn is_steady(cpuinfo: &str) -> bool {
    let flags = cpuinfo.lines().find_map(|line| line.strip_prefix("flags")?.trim_start().strip_prefix(':'));
    flags
        .is_some_and(|flags| STEADY.iter().all(|wanted| flags.split_whitespace().any(|flag| flag == *wanted)))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_steady_counter_is_relied_on() {
        assert!(is_steady("processor\t: 0\nflags\t\t: fpu tsc constant_tsc nonstop_tsc\nbugs\t\t:"));
        assert!(!is_steady("flags\t\t: fpu tsc constant_tsc\n"));
        assert!(!is_steady("flags\t\t: fpu tsc\npower management: constant_tsc nonstop_tsc\n"));
        assert!(!is_steady(""));
    }
}
