use std::sync::Arc;
use std::time::Duration;

use forkyard::PtySpec;
use forkyard::runtime::run;

use crate::process::CommandSpec;
use crate::{Answer, Error, Process, Sandbox};

/// PtyOptions say what terminal to start a program on. Zero values stand for defaults.
#[derive(Debug, uniffi::Record)]
pub struct PtyOptions {
    /// Rows are 1 to 4,096. Default: 24.
    pub rows: i32,
    /// Cols are the columns, 1 to 4,096. Default: 80.
    pub cols: i32,
    /// Term is what the terminal understands: the variable TERM. Default: xterm-256color.
    pub term: String,
    /// HangupAfter is how long it may be without any viewer, at most a day, before it is hung up. A viewer whose connection is cut
    /// needs some for the next. Default: for ever.
    pub hangup_after: Duration,
}

impl TryFrom<PtyOptions> for PtySpec {
    type Error = Error;

    fn try_from(options: PtyOptions) -> Answer<Self> {
        let PtyOptions { rows, cols, term, hangup_after } = options;
        let defaults = Self::default();
        // Less than a millisecond would be none at all.
        let millis = hangup_after.max(Duration::from_millis(1)).as_millis();
        Ok(Self {
            rows: if rows == 0 { defaults.rows } else { side("Rows", rows)? },
            cols: if cols == 0 { defaults.cols } else { side("Cols", cols)? },
            term: if term.is_empty() { defaults.term } else { term },
            hangup_after_ms: (!hangup_after.is_zero()).then(|| u64::try_from(millis).unwrap_or(u64::MAX)),
        })
    }
}

/// PtySize is the size of a terminal in characters.
#[derive(Debug, uniffi::Record)]
pub struct PtySize {
    /// Rows are its rows.
    pub rows: i32,
    /// Cols are its columns.
    pub cols: i32,
}

impl From<forkyard::PtySize> for PtySize {
    fn from(size: forkyard::PtySize) -> Self {
        let forkyard::PtySize { rows, cols } = size;
        Self { rows: rows.into(), cols: cols.into() }
    }
}

/// A side of a terminal. What is out of the core's range is refused there.
fn side(name: &str, value: i32) -> Answer<u16> {
    u16::try_from(value)
        .map_err(|_| Error::invalid(format!("{name} must be between 1 and 4096, not {value}")))
}

#[uniffi::export]
impl Sandbox {
    /// Starts a command on a terminal.
    pub async fn pty_native(&self, command: CommandSpec, terminal: PtyOptions) -> Answer<Arc<Process>> {
        let command = forkyard::Command::try_from(command)?.terminal(terminal.try_into()?);
        let sandbox = self.sandbox.clone();
        Ok(Process::new(run(async move { sandbox.start(command).await }).await?))
    }
}

#[uniffi::export]
impl Process {
    /// Resize changes the size of its terminal; what is in the foreground there is told by SIGWINCH. Both sides are 1 to 4,096. It
    /// fails with [CodeFailedPrecondition] where it has no terminal, or has ended already.
    pub async fn resize(&self, rows: i32, cols: i32) -> Answer<()> {
        let size = forkyard::PtySize { rows: side("rows", rows)?, cols: side("cols", cols)? };
        let handle = self.handle.clone();
        run(async move { handle.resize(size).await }).await.map_err(Error::from)
    }
}
