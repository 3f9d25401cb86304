//! Randomness from the host's kernel.

use forkyard_protocol::{ErrorBody, ErrorCode};
use rustix::rand::{GetRandomFlags, getrandom};

/// Fresh random bytes, fit for keys and seeds.
pub fn bytes<const N: usize>() -> Result<[u8; N], ErrorBody> {
    let mut buffer = [0; N];
    let mut filled = 0;
    while filled < N {
        filled += getrandom(&mut buffer[filled..], GetRandomFlags::empty())
            .map_err(|error| ErrorBody::new(ErrorCode::Internal, format!("getrandom: {error}")))?;
    }
    Ok(buffer)
}
