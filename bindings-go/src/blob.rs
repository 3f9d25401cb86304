use uniffi::deps::{anyhow, bytes::Buf as _};
use uniffi::{FfiConverter, MetadataBuffer, RustBuffer, metadata};

/// Bytes. UniFFI's own `Vec<u8>` crosses the border one byte at a time; this is the same on the wire, copied at once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Blob(pub Vec<u8>);

/// The length before the bytes.
const HEADER: usize = 4;

// SAFETY: lifts and lowers what `Vec<u8>` does: a buffer that holds a big-endian `i32` length and that many bytes. Reading
// checks what is left before it takes it.
unsafe impl<UT> FfiConverter<UT> for Blob {
    type FfiType = RustBuffer;

    fn lower(blob: Self) -> RustBuffer {
        let mut buffer = Vec::with_capacity(HEADER + blob.0.len());
        <Self as FfiConverter<UT>>::write(blob, &mut buffer);
        RustBuffer::from_vec(buffer)
    }

    fn try_lift(buffer: RustBuffer) -> anyhow::Result<Self> {
        let buffer = buffer.destroy_into_vec();
        let mut rest = buffer.as_slice();
        let blob = <Self as FfiConverter<UT>>::try_read(&mut rest)?;
        anyhow::ensure!(rest.is_empty(), "{} bytes follow the bytes", rest.len());
        Ok(blob)
    }

    fn write(blob: Self, buffer: &mut Vec<u8>) {
        // A panic here becomes an error of the call; files and outputs are bounded before.
        let length = i32::try_from(blob.0.len()).expect("at most 2 GiB cross at once");
        buffer.extend_from_slice(&length.to_be_bytes());
        buffer.extend_from_slice(&blob.0);
    }

    fn try_read(buffer: &mut &[u8]) -> anyhow::Result<Self> {
        anyhow::ensure!(buffer.len() >= HEADER, "the bytes' length is missing");
        let length = usize::try_from(buffer.get_i32())?;
        anyhow::ensure!(buffer.len() >= length, "{length} bytes were announced, {} came", buffer.len());
        let (bytes, rest) = buffer.split_at(length);
        *buffer = rest;
        Ok(Self(bytes.to_vec()))
    }

    const TYPE_ID_META: MetadataBuffer =
        MetadataBuffer::from_code(metadata::codes::TYPE_VEC).concat(<u8 as FfiConverter<UT>>::TYPE_ID_META);
}

uniffi::derive_ffi_traits!(blanket Blob);

impl From<Vec<u8>> for Blob {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }
}
