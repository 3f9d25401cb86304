use std::path::Path;
use std::process::{Command, Stdio};

use super::ImageError;

/// How much of a failed command's complaint an error shows, in bytes.
const TAIL: usize = 2000;

/// Runs a program to its end and answers what it printed; its complaint is in the error. `timeout` from coreutils bounds
/// it, and all that it starts, to half an hour.
pub fn run(program: &str, configure: impl FnOnce(&mut Command)) -> Result<Vec<u8>, ImageError> {
    let mut command = Command::new("timeout");
    command.args(["--kill-after=10", "1800", program]).stdin(Stdio::null());
    configure(&mut command);
    let output = command.output().map_err(|error| ImageError::Build(format!("{program}: {error}")))?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let hint = match output.status.code() {
        Some(124) => " (no end within 30 minutes)",
        Some(127) => " (not installed?)",
        _ => "",
    };
    let complaint =
        String::from_utf8_lossy(&output.stderr[output.stderr.len().saturating_sub(TAIL)..]).into_owned();
    Err(ImageError::Build(format!("{program} ended with {}{hint}: {}", output.status, complaint.trim())))
}

/// A file's decompressed content, by `xz` or `zstd`.
pub fn decompress(program: &str, path: &Path) -> Result<Vec<u8>, ImageError> {
    let input = Stdio::from(std::fs::File::open(path)?);
    run(program, |command| {
        // From standard input: neither program then minds what the file is called.
        command.args(["--decompress", "--stdout"]).stdin(input);
    })
}
