//! The last entry: how it went. POSIX lets a global extended header hold records of one's own, named after their maker, and
//! has programs pass over those that they don't know.

use std::io::{self, Write};

use forkyard_protocol::{ErrorBody, TreeSummary};
use tar::{Builder, EntryType, Header, PaxExtensions};

const SUMMARY: &str = "FORKYARD.summary";
const ERROR: &str = "FORKYARD.error";

/// What the other end said of the stream.
pub enum Trailer {
    Summary(TreeSummary),
    Error(ErrorBody),
}

/// Ends a stream.
pub fn write<W: Write>(tar: &mut Builder<W>, trailer: &Trailer) -> io::Result<()> {
    let (key, value) = match trailer {
        Trailer::Summary(summary) => (SUMMARY, serde_json::to_string(summary)),
        Trailer::Error(error) => (ERROR, serde_json::to_string(error)),
    };
    let record = record(key, &value.map_err(io::Error::other)?);
    let mut header = Header::new_ustar();
    header.set_path("pax_global_header")?;
    header.set_entry_type(EntryType::XGlobalHeader);
    header.set_size(record.len() as u64);
    header.set_mode(0o644);
    header.set_cksum();
    tar.append(&header, record.as_bytes())
}

/// A record of a pax header: its length, which counts its own digits, key and value.
fn record(key: &str, value: &str) -> String {
    let rest = format!(" {key}={value}\n");
    let mut length = rest.len();
    while length != rest.len() + length.to_string().len() {
        length = rest.len() + length.to_string().len();
    }
    format!("{length}{rest}")
}

/// What a global header says of the stream, if it is one of ours.
pub fn read(records: &[u8]) -> Option<Trailer> {
    PaxExtensions::new(records).filter_map(Result::ok).find_map(|record| match record.key_bytes() {
        key if key == SUMMARY.as_bytes() => {
            serde_json::from_slice(record.value_bytes()).ok().map(Trailer::Summary)
        }
        key if key == ERROR.as_bytes() => {
            serde_json::from_slice(record.value_bytes()).ok().map(Trailer::Error)
        }
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_counts_its_own_digits() {
        for length in [0, 1, 80, 81, 82, 83, 84, 85, 980, 981, 982, 983, 984] {
            let record = record("k", &"v".repeat(length));
            assert_eq!(record.split(' ').next().unwrap(), record.len().to_string());
        }
    }
}
