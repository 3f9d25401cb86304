//! The guest's clocks.

use std::io;
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, Timespec, clock_gettime, clock_settime};

/// Nanoseconds since the system booted. Goes on where it stood in a fork and after a resume.
pub fn uptime_ns() -> u64 {
    let uptime = clock_gettime(ClockId::Boottime);
    let (seconds, nanos) = (u64::try_from(uptime.tv_sec), u64::try_from(uptime.tv_nsec));
    seconds.unwrap_or_default().saturating_mul(1_000_000_000).saturating_add(nanos.unwrap_or_default())
}

/// Sets the wall clock to what it must show now if it was `unix_time_ns` when the uptime was `at_uptime_ns`.
pub fn set(unix_time_ns: u64, at_uptime_ns: Option<u64>) -> io::Result<()> {
    let passed = at_uptime_ns.map_or(0, |at| uptime_ns().saturating_sub(at));
    let now = unix_time_ns.saturating_add(passed);
    let time = Timespec {
        tv_sec: i64::try_from(now / 1_000_000_000).unwrap_or(i64::MAX),
        tv_nsec: i64::try_from(now % 1_000_000_000).unwrap_or_default(),
    };
    Ok(clock_settime(ClockId::Realtime, time)?)
}

/// Milliseconds since 1970, by the clock of the system.
pub fn now_ms() -> u64 {
    let passed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(passed.as_millis()).unwrap_or(u64::MAX)
}
