//! Numbers on their way between JavaScript, where all are floating, and Rust.

use std::time::Duration;

use forkyard::{Error, ErrorCode};

/// The largest whole number that JavaScript holds exactly.
const MAX_SAFE_INTEGER: f64 = 9_007_199_254_740_991.0;

/// A number for JavaScript: exact up to 2^53, which sizes and times stay below.
#[allow(clippy::cast_precision_loss)]
pub fn number(value: u64) -> f64 {
    value as f64
}

/// A whole number from JavaScript.
pub fn whole<T: TryFrom<u64>>(name: &str, value: f64) -> Result<T, Error> {
    let is_whole = value.fract() == 0.0 && (0.0..=MAX_SAFE_INTEGER).contains(&value);
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // looked at above
    let value_or_none = is_whole.then_some(value as u64).and_then(|value| T::try_from(value).ok());
    value_or_none
        .ok_or_else(|| invalid(format!("{name} must be a whole number of a sensible size, not {value}")))
}

/// The same where there may be none.
pub fn whole_or_none<T: TryFrom<u64>>(name: &str, value: Option<f64>) -> Result<Option<T>, Error> {
    value.map(|value| whole(name, value)).transpose()
}

/// A length of time from JavaScript, in milliseconds.
pub fn millis(name: &str, value: f64) -> Result<Duration, Error> {
    Duration::try_from_secs_f64(value / 1000.0)
        .ok()
        .filter(|duration| !duration.is_zero())
        .ok_or_else(|| invalid(format!("{name} must be a number of milliseconds above 0, not {value}")))
}

/// The same where it may be none at all.
pub fn millis_or_zero(name: &str, value: f64) -> Result<Duration, Error> {
    Duration::try_from_secs_f64(value / 1000.0)
        .map_err(|_| invalid(format!("{name} must be a number of milliseconds of 0 or more, not {value}")))
}

/// A length of time from JavaScript as the wire has it: seconds, part of one a whole one.
pub fn seconds(name: &str, value: f64) -> Result<u64, Error> {
    Ok(rounded_up(millis(name, value)?))
}

/// The same where it may be none at all.
pub fn seconds_or_zero(name: &str, value: f64) -> Result<Duration, Error> {
    Ok(Duration::from_secs(rounded_up(millis_or_zero(name, value)?)))
}

fn rounded_up(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}

/// Seconds from the wire as milliseconds for JavaScript.
pub fn secs_as_millis(value: u64) -> f64 {
    number(value) * 1000.0
}

/// The error for a value that is wrong before anything is sent.
pub fn invalid(message: String) -> Error {
    Error::new(ErrorCode::InvalidArgument, message)
}
