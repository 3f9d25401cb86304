//! Values on their way in, where zero means the default, and on their way out.

use std::time::{Duration, SystemTime};

use crate::{Answer, Error};

/// A text; the empty one stands for none.
pub fn text(value: String) -> Option<String> {
    (!value.is_empty()).then_some(value)
}

/// An id; the empty one stands for none.
pub fn id<T: std::str::FromStr<Err = forkyard::InvalidId>>(value: &str) -> Answer<Option<T>> {
    if value.is_empty() { Ok(None) } else { Ok(Some(value.parse()?)) }
}

/// A number that is not negative; 0 stands for none.
pub fn count<T: TryFrom<i32>>(name: &str, value: i32) -> Answer<Option<T>> {
    if value == 0 {
        return Ok(None);
    }
    let number = T::try_from(value);
    number.map(Some).map_err(|_| Error::invalid(format!("{name} must not be negative, but is {value}")))
}

/// A number of processors; 0 stands for none.
pub fn cpus(value: f64) -> Option<f64> {
    (value != 0.0).then_some(value)
}

/// A length of time in whole seconds, rounded up; 0 stands for none.
pub fn seconds(value: Duration) -> Option<u64> {
    (!value.is_zero()).then(|| value.as_secs() + u64::from(value.subsec_nanos() > 0))
}

/// A size in MiB as Go has it.
pub fn size(value: u64) -> i32 {
    i32::try_from(value).unwrap_or(i32::MAX)
}

/// A number of bytes as Go has it.
pub fn bytes(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// A time out of milliseconds since 1970.
pub fn time(millis: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(millis)
}
