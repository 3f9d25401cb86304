use serde::{Deserialize, Serialize};

use crate::{ErrorBody, ErrorCode};

/// Most rows, and most columns, of a terminal.
pub const MAX_PTY_SIDE: u16 = 4096;

/// Longest time that a terminal may wait for a viewer before it is hung up: a day, in milliseconds.
pub const MAX_HANGUP_MS: u64 = 24 * 3600 * 1000;

/// The size of a terminal in characters; also asks for another: `POST …/processes/{id}/resize`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct PtySize {
    /// Rows, 1 to 4,096.
    pub rows: u16,
    /// Columns, 1 to 4,096.
    pub cols: u16,
}

/// The pseudo-terminal that a process is started on. It is the process's input, output and error output, so all that comes
/// of it is standard output; the process leads its session and is its foreground.
///
/// Any number of viewers, up to 64, read it at once and write to it. Its last MiB of output is kept for those who come later.
/// It is paced by its quickest viewer; one that is behind by more than is kept loses the oldest bytes and is told how many.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct PtySpec {
    /// Rows, 1 to 4,096. Default: 24.
    #[serde(default = "default_rows")]
    pub rows: u16,
    /// Columns, 1 to 4,096. Default: 80.
    #[serde(default = "default_cols")]
    pub cols: u16,
    /// What the terminal understands: the variable `TERM`, 1 to 64 of `A-Z a-z 0-9 . _ + -`. Default: `xterm-256color`.
    #[serde(default = "default_term")]
    pub term: String,
    /// Milliseconds without any viewer after which it is hung up: what runs on it gets SIGHUP and, 2 seconds later, SIGKILL. A
    /// viewer whose connection is cut needs some for the next. 1 to 86,400,000. Default: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hangup_after_ms: Option<u64>,
}

fn default_rows() -> u16 {
    24
}

fn default_cols() -> u16 {
    80
}

fn default_term() -> String {
    "xterm-256color".to_owned()
}

impl Default for PtySpec {
    fn default() -> Self {
        Self { rows: default_rows(), cols: default_cols(), term: default_term(), hangup_after_ms: None }
    }
}

impl PtySize {
    /// Checks both sides; the error says what is allowed.
    pub fn validate(self) -> Result<(), ErrorBody> {
        for (name, side) in [("rows", self.rows), ("cols", self.cols)] {
            if !(1..=MAX_PTY_SIDE).contains(&side) {
                return fail(format!("{name} must be between 1 and {MAX_PTY_SIDE}, not {side}"));
            }
        }
        Ok(())
    }
}

impl PtySpec {
    /// Its size at first.
    pub fn size(&self) -> PtySize {
        PtySize { rows: self.rows, cols: self.cols }
    }

    /// Checks every value; the error names the first that is out of range and what is allowed.
    pub fn validate(&self) -> Result<(), ErrorBody> {
        self.size().validate()?;
        let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'+' | b'-');
        if !(1..=64).contains(&self.term.len()) || !self.term.bytes().all(fits) {
            return fail("term must be 1 to 64 of A-Z a-z 0-9 . _ + -".to_owned());
        }
        match self.hangup_after_ms {
            Some(millis) if !(1..=MAX_HANGUP_MS).contains(&millis) => {
                fail(format!("hangup_after_ms must be between 1 and {MAX_HANGUP_MS}, not {millis}"))
            }
            _ => Ok(()),
        }
    }
}

/// Checks the name under which a caller writes to a process's input: 1 to 64 of `A-Z a-z 0-9 _ -`.
pub fn validate_writer(writer: &str) -> Result<(), ErrorBody> {
    let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-');
    if (1..=64).contains(&writer.len()) && writer.bytes().all(fits) {
        return Ok(());
    }
    fail("writer must be 1 to 64 of A-Z a-z 0-9 _ -".to_owned())
}

fn fail(message: String) -> Result<(), ErrorBody> {
    Err(ErrorBody::new(ErrorCode::InvalidArgument, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_out_of_range_is_named() {
        let message = |change: fn(&mut PtySpec)| {
            let mut spec: PtySpec = serde_json::from_str("{}").unwrap();
            spec.validate().unwrap();
            change(&mut spec);
            spec.validate().unwrap_err().message
        };
        assert_eq!(message(|s| s.rows = 0), "rows must be between 1 and 4096, not 0");
        assert_eq!(message(|s| s.cols = 4097), "cols must be between 1 and 4096, not 4097");
        assert!(message(|s| s.term = "a b".into()).starts_with("term must be"));
        assert!(message(|s| s.hangup_after_ms = Some(0)).starts_with("hangup_after_ms"));
        assert!(validate_writer("01ARZ3-_x").is_ok());
        assert!(validate_writer("").is_err() && validate_writer("a&b").is_err());
    }
}
