use forkyard::{Error, PtySpec};
use napi_derive::napi;

use crate::value::{invalid, whole_or_none};

/// The size of a terminal in characters.
#[napi(object, object_from_js = false)]
pub struct PtySize {
    pub rows: u32,
    pub cols: u32,
}

impl From<forkyard::PtySize> for PtySize {
    fn from(size: forkyard::PtySize) -> Self {
        let forkyard::PtySize { rows, cols } = size;
        Self { rows: rows.into(), cols: cols.into() }
    }
}

/// What terminal to start a program on.
#[napi(object, object_to_js = false)]
pub struct PtyRequest {
    /// Rows, 1 to 4,096. Default: 24.
    pub rows: Option<f64>,
    /// Columns, 1 to 4,096. Default: 80.
    pub cols: Option<f64>,
    /// What the terminal understands: the variable `TERM`. Default: `xterm-256color`.
    pub term: Option<String>,
    /// Milliseconds without any viewer, at most a day, after which it is hung up. A viewer whose connection is cut needs some
    /// for the next. Default: never.
    pub hangup_after_ms: Option<f64>,
}

impl TryFrom<PtyRequest> for PtySpec {
    type Error = Error;

    fn try_from(request: PtyRequest) -> Result<Self, Error> {
        let PtyRequest { rows, cols, term, hangup_after_ms } = request;
        let default = Self::default();
        Ok(Self {
            rows: rows.map_or(Ok(default.rows), |value| side("rows", value))?,
            cols: cols.map_or(Ok(default.cols), |value| side("cols", value))?,
            term: term.unwrap_or(default.term),
            hangup_after_ms: whole_or_none("hangupAfterMs", hangup_after_ms)?,
        })
    }
}

/// The size that a terminal is to have.
pub fn size(rows: f64, cols: f64) -> Result<forkyard::PtySize, Error> {
    Ok(forkyard::PtySize { rows: side("rows", rows)?, cols: side("cols", cols)? })
}

/// A side of a terminal. What is out of the core's range is refused there.
fn side(name: &str, value: f64) -> Result<u16, Error> {
    crate::value::whole(name, value)
        .map_err(|_| invalid(format!("{name} must be between 1 and 4096, not {value}")))
}
