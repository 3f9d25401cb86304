//! HTTP/1: the host in a request's head. `httparse` reads it; what it refuses but a laxer server might take has no name.

use forkyard_protocol::normal_name;
use httparse::{EMPTY_HEADER, Request, Status};

use super::Sniffed;

/// Most headers that are read; `httparse` refuses more.
const MAX_HEADERS: usize = 100;

/// `None` for what is not HTTP.
pub(super) fn sniff(first: &[u8]) -> Option<Sniffed> {
    // Servers skip empty lines before a request (RFC 9112, section 2.2); some skip any space.
    let head = &first[first.iter().position(|byte| !is_space(*byte)).unwrap_or(first.len())..];
    let Some(line) = head.split_inclusive(|byte| *byte == b'\n').next().filter(|line| line.ends_with(b"\n"))
    else {
        return could_be_request_line(head).then_some(Sniffed::NeedMore);
    };
    if !could_be_request_line(line) || !is_request_line(line) {
        return None;
    }
    let mut headers = [EMPTY_HEADER; MAX_HEADERS];
    let mut request = Request::new(&mut headers);
    match request.parse(head) {
        Ok(Status::Partial) => Some(Sniffed::NeedMore),
        Ok(Status::Complete(_)) => Some(Sniffed::Http { host: host(&request) }),
        // HTTP/2's preface, which is a request line, ends here too.
        Err(_) => Some(Sniffed::Http { host: None }),
    }
}

/// What a lax server takes for a space within the line (RFC 9112, section 3).
fn is_space(byte: u8) -> bool {
    byte.is_ascii_whitespace() || byte == 0x0b
}

/// Whether a line that has not ended may become a request's: a token of any length (RFC 9110, section 5.6.2), for some servers
/// take any method, and whatever comes behind it.
fn could_be_request_line(start: &[u8]) -> bool {
    let method = start.split(|byte| is_space(*byte)).next().unwrap_or_default();
    method.iter().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte))
}

/// `METHOD target HTTP/x`, in any spelling that a lax server could take for one, and HTTP/0.9's line where it names a host.
fn is_request_line(line: &[u8]) -> bool {
    let mut words = line.split(|byte| is_space(*byte)).filter(|word| !word.is_empty()).skip(1);
    words
        .clone()
        .last()
        .and_then(|word| word.get(..5))
        .is_some_and(|start| start.eq_ignore_ascii_case(b"HTTP/"))
        || words.next().is_some_and(|target| target.windows(3).any(|window| window == b"://"))
}

/// The one host that a request names: in its target (RFC 9112, section 3.2.2) and in its `Host`.
fn host(request: &Request<'_, '_>) -> Option<String> {
    let target = request.path.unwrap_or_default();
    let authority = if request.method == Some("CONNECT") {
        Some(target)
    } else {
        target
            .split_once("://")
            .filter(|(scheme, _)| !scheme.contains(['/', '?']))
            .map(|(_, rest)| rest.split(['/', '?', '#']).next().unwrap_or_default())
    };
    let header = request.headers.iter().filter(|header| header.name.eq_ignore_ascii_case("host"));
    let mut said = header.map(|header| std::str::from_utf8(header.value).ok()).chain(authority.map(Some));
    let first = normal_host(said.next()??)?;
    said.all(|other| other.and_then(normal_host).is_some_and(|other| other == first)).then_some(first)
}

/// `host[:port]` without its port.
fn normal_host(authority: &str) -> Option<String> {
    let authority = authority.trim();
    let name = match authority.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => authority,
    };
    normal_name(name).filter(|name| name.parse::<std::net::Ipv4Addr>().is_err())
}

#[cfg(test)]
mod tests {
    use super::super::sniff;
    use super::*;

    fn http(host: Option<&str>) -> Sniffed {
        Sniffed::Http { host: host.map(str::to_owned) }
    }

    #[test]
    fn the_host_is_found() {
        for (head, host) in [
            ("GET / HTTP/1.1\r\nHost: PyPI.org\r\n\r\n", Some("pypi.org")),
            ("GET / HTTP/1.1\r\nAccept: */*\r\nhost:pypi.org.:8080\r\n\r\nbody", Some("pypi.org")),
            ("\r\n\r\nPOST /a HTTP/1.0\r\nHost: pypi.org\r\n\r\n", Some("pypi.org")),
            ("GET http://pypi.org/a?b=http://x HTTP/1.1\r\nHost: pypi.org:80\r\n\r\n", Some("pypi.org")),
            ("GET http://pypi.org:80?a HTTP/1.1\r\n\r\n", Some("pypi.org")),
            ("GET /?to=http://evil.example HTTP/1.1\r\nHost: pypi.org\r\n\r\n", Some("pypi.org")),
            ("CONNECT pypi.org:443 HTTP/1.1\r\nHost: pypi.org:443\r\n\r\n", Some("pypi.org")),
            ("GET / HTTP/1.1\nHost: pypi.org\n\n", Some("pypi.org")),
        ] {
            assert_eq!(sniff(head.as_bytes()), http(host), "{head}");
        }
    }

    #[test]
    fn what_is_ambiguous_has_no_host() {
        for head in [
            "GET / HTTP/1.0\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: 203.0.113.1\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: [2001:db8::1]:80\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a.example\r\nHost: b.example\r\n\r\n",
            "GET http://a.example/ HTTP/1.1\r\nHost: b.example\r\n\r\n",
            "GET http://user@a.example/ HTTP/1.1\r\nHost: a.example\r\n\r\n",
            "CONNECT b.example:443 HTTP/1.1\r\nHost: a.example\r\n\r\n",
            "GET / HTTP/1.1\r\nHost : a.example\r\n\r\n",
            "GET / HTTP/1.1\r\n Host: a.example\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a.example, b.example\r\n\r\n",
            "GET / HTTP/1.1\r\nHost:\r\n\r\n",
            "GET / http/1.1\r\nHost: a.example\r\n\r\n",
            "GET\t/ HTTP/1.1\r\nHost: a.example\r\n\r\n",
            "GET\x0b/\x0bHTTP/1.1\r\nHost: a.example\r\n\r\n",
            "GET  a b  HTTP/1.1\r\nHost: a.example\r\n\r\n",
            "GET http://a.example/\r\n",
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        ] {
            assert_eq!(sniff(head.as_bytes()), http(None), "{head}");
        }
        let many = format!("GET / HTTP/1.1\r\n{}Host: a.example\r\n\r\n", "a: b\r\n".repeat(MAX_HEADERS));
        assert_eq!(sniff(many.as_bytes()), http(None));
    }

    #[test]
    fn every_beginning_of_a_request_needs_more() {
        let head = "\r\nGET /a HTTP/1.1\r\nHost: pypi.org\r\nAccept: */*\r\n\r\n";
        for length in 0..head.len() {
            assert_eq!(sniff(&head.as_bytes()[..length]), Sniffed::NeedMore, "{length}");
        }
    }

    #[test]
    fn other_protocols_are_let_be() {
        for other in [
            &b"SSH-2.0-OpenSSH_9.2\r\n"[..],
            b"EHLO there\r\n",
            b"PING\r\n",
            b"*1\r\n$4\r\nPING\r\n",
            b"GET key\r\n",
            b"GET /\r\n",
            b"NICK a\r\nUSER b\r\n",
            b"\x00\x00\x00\x08\x04\xd2\x16\x2f",
            b"\x05\x01\x00",
            b"HTTP/1.1\r\n",
            b"G\0T / HTTP/1.1\r\n",
        ] {
            assert_eq!(sniff(other), Sniffed::Other, "{:?}", String::from_utf8_lossy(other));
        }
    }
}
