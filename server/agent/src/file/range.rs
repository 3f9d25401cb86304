/// What a `Range` header asks for, of a file of this size.
#[derive(Debug, PartialEq, Eq)]
pub enum Range {
    /// All of it: no header, or one that this server may ignore (RFC 9110, section 14.2).
    Whole,
    /// From the first to before the second byte.
    Part(u64, u64),
    /// Nothing that the file has.
    Unsatisfiable,
}

/// Reads a header of one range in bytes; several ranges are answered with the whole.
pub fn parse(header: Option<&str>, size: u64) -> Range {
    let Some((first, last)) = header.and_then(|text| text.strip_prefix("bytes=")?.split_once('-')) else {
        return Range::Whole;
    };
    let range = match (first.parse::<u64>(), last.parse::<u64>()) {
        (Ok(first), Ok(last)) if first <= last => (first, last.saturating_add(1).min(size)),
        (Ok(first), _) if last.is_empty() => (first, size),
        (_, Ok(suffix)) if first.is_empty() => (size.saturating_sub(suffix), size),
        _ => return Range::Whole,
    };
    if range.0 < range.1 { Range::Part(range.0, range.1) } else { Range::Unsatisfiable }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_follow_rfc_9110() {
        let cases = [
            (None, Range::Whole),
            (Some("bytes=0-0"), Range::Part(0, 1)),
            (Some("bytes=2-"), Range::Part(2, 10)),
            (Some("bytes=2-99"), Range::Part(2, 10)),
            (Some("bytes=-3"), Range::Part(7, 10)),
            (Some("bytes=-99"), Range::Part(0, 10)),
            (Some("bytes=10-"), Range::Unsatisfiable),
            (Some("bytes=-0"), Range::Unsatisfiable),
            (Some("bytes=5-2"), Range::Whole),
            (Some("bytes=0-1,3-4"), Range::Whole),
            (Some("lines=1-2"), Range::Whole),
            (Some("bytes=x"), Range::Whole),
        ];
        for (header, wanted) in cases {
            assert_eq!(parse(header, 10), wanted, "{header:?}");
        }
    }
}
