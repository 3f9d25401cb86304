//! TLS: the name in a `ClientHello`. `rustls` reads it, strictly: what two servers could read in two ways has no name.

use forkyard_protocol::normal_name;
use rustls::server::Acceptor;

use super::Sniffed;

/// The content type of a handshake record (RFC 8446, section 5.1).
pub(super) const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const RECORD_HEADER: usize = 5;
const MESSAGE_HEADER: usize = 4;

/// `None` for what is not TLS.
pub(super) fn sniff(first: &[u8]) -> Option<Sniffed> {
    match hello(first) {
        Hello::Absent => None,
        Hello::Begun => Some(Sniffed::NeedMore),
        Hello::Ready(records) => Some(Sniffed::Tls { sni: server_name(records) }),
    }
}

/// Whether there is a hello to be read.
enum Hello<'a> {
    /// This is not TLS.
    Absent,
    /// More bytes will tell.
    Begun,
    /// These records hold it, or are malformed, which is for `rustls` to say.
    Ready(&'a [u8]),
}

/// A cheap look before `rustls` is asked, so that a hello that comes byte by byte is not parsed at each.
fn hello(first: &[u8]) -> Hello<'_> {
    let mut at = 0;
    let mut message: Vec<u8> = Vec::with_capacity(MESSAGE_HEADER);
    let mut got = 0;
    let foreign = |at| if at == 0 { Hello::Absent } else { Hello::Ready(first) };
    loop {
        let header = &first[at..first.len().min(at + RECORD_HEADER)];
        if header.first().is_some_and(|kind| *kind != HANDSHAKE)
            || header.get(1).is_some_and(|major| *major != 3)
        {
            return foreign(at);
        }
        if header.len() < RECORD_HEADER {
            return Hello::Begun;
        }
        let start = at + RECORD_HEADER;
        let end = start + usize::from(u16::from_be_bytes([header[3], header[4]]));
        let body = &first[start..end.min(first.len())];
        message.extend(body.iter().take(MESSAGE_HEADER - message.len()));
        got += body.len();
        if message.first().is_some_and(|kind| *kind != CLIENT_HELLO) {
            return foreign(at);
        }
        if end > first.len() {
            return Hello::Begun;
        }
        let whole = match message.as_slice() {
            &[_, a, b, c] => {
                got >= MESSAGE_HEADER
                    + usize::try_from(u32::from_be_bytes([0, a, b, c])).unwrap_or(usize::MAX)
            }
            _ => false,
        };
        // An empty handshake record is forbidden (RFC 8446, section 5.1).
        if whole || end == start {
            return Hello::Ready(&first[..end]);
        }
        at = end;
    }
}

fn server_name(mut records: &[u8]) -> Option<String> {
    let mut acceptor = Acceptor::default();
    while !records.is_empty() {
        acceptor.read_tls(&mut records).ok()?;
        if let Some(accepted) = acceptor.accept().ok()? {
            return accepted.client_hello().server_name().and_then(normal_name);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
    use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
    use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, RootCertStore, SignatureScheme};

    use super::super::sniff;
    use super::*;

    /// Nothing is verified: the handshake ends after its first message.
    #[derive(Debug)]
    struct Nobody;

    impl ServerCertVerifier for Nobody {
        fn verify_server_cert(
            &self,
            _: &CertificateDer<'_>,
            _: &[CertificateDer<'_>],
            _: &ServerName<'_>,
            _: &[u8],
            _: UnixTime,
        ) -> Result<ServerCertVerified, rustls::Error> {
            Err(rustls::Error::General("no handshake".into()))
        }

        fn verify_tls12_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            Err(rustls::Error::General("no handshake".into()))
        }

        fn verify_tls13_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            Err(rustls::Error::General("no handshake".into()))
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            vec![SignatureScheme::ED25519]
        }
    }

    /// What a real client says first.
    fn client_hello(name: &str) -> Vec<u8> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth();
        config.dangerous().set_certificate_verifier(Arc::new(Nobody));
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let mut client = ClientConnection::new(Arc::new(config), name).unwrap();
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes).unwrap();
        bytes
    }

    /// The same message in records of `size` bytes.
    fn in_records(hello: &[u8], size: usize) -> Vec<u8> {
        let record = |part: &[u8]| {
            [&[HANDSHAKE, 3, 1], &u16::try_from(part.len()).unwrap().to_be_bytes()[..], part].concat()
        };
        hello[RECORD_HEADER..].chunks(size).flat_map(record).collect()
    }

    fn tls(name: &str) -> Sniffed {
        Sniffed::Tls { sni: Some(name.to_owned()) }
    }

    #[test]
    fn the_name_is_found_in_one_record_and_in_many() {
        let hello = client_hello("PyPI.org");
        assert_eq!(sniff(&hello), tls("pypi.org"));
        for size in [1, 3, 4, 5, 100] {
            assert_eq!(sniff(&in_records(&hello, size)), tls("pypi.org"), "records of {size}");
        }
        let with_more = [&hello[..], b"\x17\x03\x03\x00\x01a"].concat();
        assert_eq!(sniff(&with_more), tls("pypi.org"));
    }

    #[test]
    fn every_beginning_of_a_hello_needs_more() {
        for bytes in [client_hello("pypi.org"), in_records(&client_hello("pypi.org"), 7)] {
            for length in 0..bytes.len() {
                assert_eq!(sniff(&bytes[..length]), Sniffed::NeedMore, "{length} of {}", bytes.len());
            }
        }
    }

    #[test]
    fn a_hello_without_a_name_is_tls_all_the_same() {
        assert_eq!(sniff(&client_hello("203.0.113.1")), Sniffed::Tls { sni: None });
        let mut broken = client_hello("pypi.org");
        let at = broken.windows(8).position(|window| window == b"pypi.org").unwrap();
        broken[at + 4] = b'/';
        assert_eq!(sniff(&broken), Sniffed::Tls { sni: None }, "no host name");
        broken[at - 2] = 0xff;
        assert_eq!(sniff(&broken), Sniffed::Tls { sni: None }, "a length beyond the end");
        let mut interrupted = in_records(&client_hello("pypi.org"), 50);
        interrupted[RECORD_HEADER + 50] = 23;
        assert_eq!(sniff(&interrupted), Sniffed::Tls { sni: None });
        let empty = [&b"\x16\x03\x01\x00\x00"[..], &client_hello("pypi.org")].concat();
        assert_eq!(sniff(&empty), Sniffed::Tls { sni: None });
    }

    #[test]
    fn what_only_begins_alike_is_not_tls() {
        for other in [
            &b"\x16\x03\x01\x00\x05\x02\x00\x00\x01a"[..],
            b"\x16\x02",
            b"\x15\x03\x01",
            b"\x80\x2e\x01\x03\x01",
        ] {
            assert_eq!(sniff(other), Sniffed::Other, "{other:?}");
        }
    }

    #[test]
    fn a_hello_beyond_the_bound_has_no_name() {
        let mut long = in_records(&client_hello("pypi.org"), 1);
        long.truncate(20);
        long[RECORD_HEADER] = CLIENT_HELLO;
        long.resize(super::super::MAX_SNIFF + 10, 0);
        assert!(matches!(sniff(&long), Sniffed::Tls { sni: None }));
    }
}
