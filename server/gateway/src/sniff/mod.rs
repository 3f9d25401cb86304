//! What name a client says first: TLS's SNI, HTTP's `Host`. Pure, and bounded by [`MAX_SNIFF`].

mod http;
mod tls;

/// So many bytes settle it: a `ClientHello` or a request head that is longer has no name to be read.
pub const MAX_SNIFF: usize = 16 * 1024;

/// What the first bytes of a connection are. Names are as [`forkyard_protocol::normal_name`] writes them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sniffed {
    /// More bytes will tell; never for [`MAX_SNIFF`] bytes or more.
    NeedMore,
    /// A TLS `ClientHello`.
    Tls {
        /// The name that it asks for, in the clear: with ECH the outer one. `None` where there is none, it is an address, or
        /// the hello is malformed.
        sni: Option<String>,
    },
    /// An HTTP request.
    Http {
        /// The host that it asks for. `None` where there is none, it is an address, several disagree, the head is malformed
        /// or too long, and for HTTP/2 in the clear, whose names are compressed and change from request to request.
        host: Option<String>,
    },
    /// Neither.
    Other,
}

/// Looks at the first bytes that a client sent, all of them so far. Each byte that comes may be asked about anew: what is not
/// whole is put off cheaply.
pub fn sniff(first: &[u8]) -> Sniffed {
    let full = first.len() >= MAX_SNIFF;
    let first = &first[..first.len().min(MAX_SNIFF)];
    match tls::sniff(first).or_else(|| http::sniff(first)) {
        None => Sniffed::Other,
        Some(Sniffed::NeedMore) if full => {
            if first.first() == Some(&tls::HANDSHAKE) {
                Sniffed::Tls { sni: None }
            } else {
                Sniffed::Http { host: None }
            }
        }
        Some(sniffed) => sniffed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_is_never_asked_for_beyond_the_bound() {
        assert_eq!(sniff(b""), Sniffed::NeedMore);
        for head in
            [&b"\x16\x03\x01\x3f\xff\x01"[..], b"GET /", b"GET / HTTP/1.1\r\na: b\r\n", b"\r\n", b"get"]
        {
            let mut bytes = head.to_vec();
            assert_eq!(sniff(&bytes), Sniffed::NeedMore, "{head:?}");
            bytes.resize(MAX_SNIFF, b'a');
            assert_ne!(sniff(&bytes), Sniffed::NeedMore, "{head:?}");
        }
    }

    #[test]
    fn no_bytes_make_it_panic() {
        let mut random = fastrand::Rng::with_seed(1);
        for _ in 0..20_000 {
            let length = random.usize(..200);
            let mut bytes: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(length).collect();
            if random.bool() {
                bytes.splice(
                    ..0,
                    random
                        .choice(&[&b"\x16\x03\x01"[..], b"GET / HTTP/1.1\r\n", b"PRI * "])
                        .unwrap()
                        .iter()
                        .copied(),
                );
            }
            sniff(&bytes);
        }
    }
}
