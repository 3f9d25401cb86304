//! What of a request's headers reaches a server in a machine, and what of its answer's reaches the client.

use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Uri, header};

/// Headers about one connection and not about the message (RFC 9110, section 7.6.1), beyond those that `Connection` names.
const HOP_BY_HOP: [HeaderName; 9] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    HeaderName::from_static("proxy-connection"),
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// Headers by which a page would speak for all that is served under this name: other machines' pages, and this API.
const WHOLE_ORIGIN: [&str; 8] = [
    "alt-svc",
    "clear-site-data",
    "nel",
    "origin-agent-cluster",
    "public-key-pins",
    "report-to",
    "service-worker-allowed",
    "strict-transport-security",
];

/// Where a proxied server is, as seen from both sides.
pub struct Place {
    /// The port in the machine.
    pub port: u16,
    /// The path that stands before the server's own, without a slash at its end.
    pub prefix: String,
}

/// Makes a request's headers those for the machine. The API's key must never get there.
pub fn to_machine(headers: &mut HeaderMap, uri: &Uri, place: &Place, authorization_is_ours: bool) {
    let upgrade = upgrade(headers);
    remove_hop_by_hop(headers);
    headers.remove(header::EXPECT);
    if authorization_is_ours {
        headers.remove(header::AUTHORIZATION);
    }
    let host = headers.get(header::HOST).cloned();
    let host = host.or_else(|| HeaderValue::from_str(uri.authority().map(Authority::as_str)?).ok());
    // Development servers refuse names that they don't know.
    set(headers, header::HOST, &format!("localhost:{}", place.port));
    set(headers, HeaderName::from_static("x-forwarded-prefix"), &place.prefix);
    if let Some(host) = host {
        headers.insert(HeaderName::from_static("x-forwarded-host"), host);
    }
    // HTTP/2 may split them (RFC 9113, section 8.2.3); HTTP/1.1 must have one.
    let cookies: Vec<_> = headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if cookies.len() > 1
        && let Ok(joined) = HeaderValue::from_bytes(&cookies.join(&b"; "[..]))
    {
        headers.insert(header::COOKIE, joined);
    }
    if let Some(protocol) = upgrade {
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(header::UPGRADE, protocol);
    }
}

/// Makes an answer's headers those for the client.
pub fn to_client(headers: &mut HeaderMap, place: &Place, switches: bool) {
    let upgrade = upgrade(headers);
    remove_hop_by_hop(headers);
    for name in WHOLE_ORIGIN {
        headers.remove(name);
    }
    if let Some(location) = headers.get(header::LOCATION).and_then(|value| relocated(value, place)) {
        headers.insert(header::LOCATION, location);
    }
    let cookies: Vec<_> =
        headers.get_all(header::SET_COOKIE).iter().map(|cookie| confined(cookie, place)).collect();
    headers.remove(header::SET_COOKIE);
    for cookie in cookies.into_iter().flatten() {
        headers.append(header::SET_COOKIE, cookie);
    }
    if let Some(protocol) = upgrade.filter(|_| switches) {
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(header::UPGRADE, protocol);
    }
}

/// The protocol that a message asks to go on with.
pub fn upgrade(headers: &HeaderMap) -> Option<HeaderValue> {
    let asks = options(headers).any(|option| option.eq_ignore_ascii_case("upgrade"));
    headers.get(header::UPGRADE).filter(|_| asks).cloned()
}

fn options(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let values = headers.get_all(header::CONNECTION).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim)
}

fn remove_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = options(headers).filter_map(|option| option.parse().ok()).collect();
    for name in named.iter().chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
}

fn set(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    match HeaderValue::from_str(value) {
        Ok(value) => headers.insert(name, value),
        Err(_) => headers.remove(name),
    };
}

/// A redirection within the machine's server, as one below the prefix.
fn relocated(location: &HeaderValue, place: &Place) -> Option<HeaderValue> {
    let location = location.to_str().ok()?;
    let own = [format!("http://localhost:{}", place.port), format!("http://127.0.0.1:{}", place.port)];
    let path = own.iter().find_map(|own| location.strip_prefix(own.as_str())).unwrap_or(location);
    let is_path = path.starts_with('/') && !path.starts_with("//");
    let path = if path.is_empty() && path != location { "/" } else { path };
    (is_path || path == "/").then(|| HeaderValue::from_str(&format!("{}{path}", place.prefix)).ok()).flatten()
}

/// A cookie that goes to this server in this machine alone.
fn confined(cookie: &HeaderValue, place: &Place) -> Option<HeaderValue> {
    let is_ours = |attribute: &&str| {
        let name = attribute.split('=').next().unwrap_or_default().trim();
        !name.eq_ignore_ascii_case("path") && !name.eq_ignore_ascii_case("domain")
    };
    let text = cookie.to_str().ok()?;
    let (pair, attributes) = text.split_once(';').unwrap_or((text, ""));
    let kept = attributes.split(';').filter(|attribute| !attribute.trim().is_empty()).filter(is_ours);
    let path = format!(" Path={}/", place.prefix);
    let parts: Vec<_> = [pair].into_iter().chain(kept).chain([path.as_str()]).collect();
    HeaderValue::from_str(&parts.join(";")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place() -> Place {
        Place { port: 8000, prefix: "/preview/t".to_owned() }
    }

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        }
        headers
    }

    fn shown(headers: &HeaderMap) -> Vec<String> {
        let mut shown: Vec<_> =
            headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
        shown.sort();
        shown
    }

    #[test]
    fn the_key_and_what_concerns_the_connection_stay_here() {
        let mut request = headers(&[
            ("authorization", "Bearer fy_secret"),
            ("connection", "close, X-Hop"),
            ("x-hop", "1"),
            ("te", "trailers"),
            ("proxy-authorization", "x"),
            ("transfer-encoding", "chunked"),
            ("host", "yard.example"),
            ("cookie", "a=1"),
            ("cookie", "b=2"),
            ("accept", "*/*"),
        ]);
        to_machine(&mut request, &Uri::from_static("/"), &place(), true);
        let wanted = [
            "accept: */*",
            "cookie: a=1; b=2",
            "host: localhost:8000",
            "x-forwarded-host: yard.example",
            "x-forwarded-prefix: /preview/t",
        ];
        assert_eq!(shown(&request), wanted);
        // Behind a preview it is the page's own.
        let mut own = headers(&[("authorization", "Basic x")]);
        to_machine(&mut own, &Uri::from_static("http://yard.example/"), &place(), false);
        assert_eq!(own["authorization"], "Basic x");
        assert_eq!(own["x-forwarded-host"], "yard.example");
    }

    #[test]
    fn an_upgrade_is_passed_on_where_it_is_one() {
        let asked = [("connection", "keep-alive, Upgrade"), ("upgrade", "websocket")];
        let mut request = headers(&asked);
        to_machine(&mut request, &Uri::from_static("/"), &place(), true);
        assert_eq!(
            (&request["connection"], &request["upgrade"]),
            (&"upgrade".parse().unwrap(), &"websocket".parse().unwrap())
        );
        let mut lone = headers(&[("upgrade", "h2c")]);
        to_machine(&mut lone, &Uri::from_static("/"), &place(), true);
        assert!(!lone.contains_key("upgrade"));
        let mut refused = headers(&asked);
        to_client(&mut refused, &place(), false);
        assert!(refused.is_empty());
    }

    #[test]
    fn a_page_speaks_for_itself_alone() {
        let mut answer = headers(&[
            ("strict-transport-security", "max-age=1"),
            ("service-worker-allowed", "/"),
            ("clear-site-data", "*"),
            ("set-cookie", "a=1; Path=/; Domain=example; HttpOnly"),
            ("set-cookie", "b=2"),
            ("content-type", "text/html"),
        ]);
        to_client(&mut answer, &place(), false);
        let wanted = [
            "content-type: text/html",
            "set-cookie: a=1; HttpOnly; Path=/preview/t/",
            "set-cookie: b=2; Path=/preview/t/",
        ];
        assert_eq!(shown(&answer), wanted);
    }

    #[test]
    fn redirections_stay_below_the_prefix() {
        let to = |location: &str| {
            let mut answer = headers(&[("location", location)]);
            to_client(&mut answer, &place(), false);
            answer["location"].to_str().unwrap().to_owned()
        };
        assert_eq!(to("/login?a=b"), "/preview/t/login?a=b");
        assert_eq!(to("http://localhost:8000/x"), "/preview/t/x");
        assert_eq!(to("http://localhost:8000"), "/preview/t/");
        assert_eq!(to("next"), "next");
        assert_eq!(to("//elsewhere.example/"), "//elsewhere.example/");
        assert_eq!(to("https://elsewhere.example/"), "https://elsewhere.example/");
    }
}
