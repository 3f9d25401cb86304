//! One rule of a policy, parsed.

use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use ipnet::IpNet;

/// Longest name, in characters (RFC 1035, without the trailing dot).
const MAX_NAME: usize = 253;
/// Longest label of a name, in characters.
const MAX_LABEL: usize = 63;

const ALLOWED: &str = "an address or CIDR (203.0.113.0/24, 2001:db8::/32), a host name (pypi.org) or every name below a \
                       domain (*.example.com), each with an optional port (pypi.org:443, [2001:db8::1]:443)";

/// What a rule says about the remote's host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RuleHost {
    /// Every address, IPv4 and IPv6: `0.0.0.0/0`, which is how users of this field write "everything" where they mean it. A
    /// machine with IPv6 must not escape a `deny_out` of it.
    Any,
    /// The addresses of a network; a single address is a network of one.
    Network(IpNet),
    /// One name, as [`normal_name`] writes it.
    Name(String),
    /// Every name below this one, but not itself.
    Below(String),
}

/// One entry of `allow_out` or `deny_out`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkRule {
    /// What it says about the remote's host.
    pub host: RuleHost,
    /// The remote's port; any where there is none.
    pub port: Option<u16>,
}

/// Why a text is no rule: the text, what is wrong, what is allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{}' {reason}", text.escape_debug())]
pub struct InvalidRule {
    text: String,
    reason: String,
}

impl NetworkRule {
    /// Whether it names this address, the port aside. A rule by name names none.
    pub fn names_address(&self, address: IpAddr) -> bool {
        match &self.host {
            RuleHost::Any => true,
            RuleHost::Network(network) => network.contains(&address),
            RuleHost::Name(_) | RuleHost::Below(_) => false,
        }
    }

    /// Whether it names this name, which is as [`normal_name`] writes it. A rule by address names none.
    pub fn names_name(&self, name: &str) -> bool {
        match &self.host {
            RuleHost::Any | RuleHost::Network(_) => false,
            RuleHost::Name(own) => own == name,
            RuleHost::Below(own) => {
                name.strip_suffix(own.as_str()).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'))
            }
        }
    }

    /// Whether it is by name.
    pub fn is_by_name(&self) -> bool {
        matches!(self.host, RuleHost::Name(_) | RuleHost::Below(_))
    }
}

impl FromStr for NetworkRule {
    type Err = InvalidRule;

    fn from_str(text: &str) -> Result<Self, InvalidRule> {
        parse(text).map_err(|reason| InvalidRule { text: shortened(text), reason })
    }
}

/// A name as names are compared: lower case, without the trailing dot. `None` for what is no name in ASCII: labels of 1 to 63
/// letters, digits, hyphens and underscores, 253 characters in all.
pub fn normal_name(name: &str) -> Option<String> {
    let name = name.strip_suffix('.').unwrap_or(name);
    let good = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    let whole = name.len() <= MAX_NAME
        && name.split('.').all(|label| (1..=MAX_LABEL).contains(&label.len()) && label.bytes().all(good));
    whole.then(|| name.to_ascii_lowercase())
}

fn parse(text: &str) -> Result<NetworkRule, String> {
    if let Some(rest) = text.strip_prefix('[') {
        let (address, rest) =
            rest.split_once(']').ok_or_else(|| format!("lacks a ']'; allowed: {ALLOWED}"))?;
        let port = match rest.strip_prefix(':') {
            Some(port) => Some(parse_port(port)?),
            None if rest.is_empty() => None,
            None => return Err(format!("has something other than a port after ']'; allowed: {ALLOWED}")),
        };
        let network = parse_network(address)?
            .filter(|_| address.contains(':'))
            .ok_or_else(|| format!("has no IPv6 address in its brackets; allowed: {ALLOWED}"))?;
        return Ok(NetworkRule { host: network, port });
    }
    let (host, port) = match text.matches(':').count() {
        0 => (text, None),
        1 => text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port))),
        _ => {
            let host = parse_network(text)?.ok_or_else(|| {
                format!("is no IPv6 address, or lacks brackets around it; allowed: {ALLOWED}")
            })?;
            return Ok(NetworkRule { host, port: None });
        }
    };
    let port = port.map(parse_port).transpose()?;
    let host = match parse_network(host)? {
        Some(network) => network,
        None => parse_name(host)?,
    };
    Ok(NetworkRule { host, port })
}

/// An address or CIDR, or `None` for what does not look like one.
fn parse_network(text: &str) -> Result<Option<RuleHost>, String> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(Some(RuleHost::Network(IpNet::from(address.to_canonical()))));
    }
    let Some((address, _)) = text.split_once('/') else { return Ok(None) };
    if address.parse::<IpAddr>().is_err() {
        return Ok(None);
    }
    let network: IpNet = text.parse().map_err(|_| {
        "has no prefix length after '/' that fits: 0 to 32 for IPv4, 0 to 128 for IPv6".to_owned()
    })?;
    if network.trunc() != network {
        return Err(format!("has bits set beyond its prefix; its network is '{}'", network.trunc()));
    }
    match unmapped(network) {
        IpNet::V4(network) if network.prefix_len() == 0 => Ok(Some(RuleHost::Any)),
        network => Ok(Some(RuleHost::Network(network))),
    }
}

/// A network of IPv4-mapped addresses as the IPv4 network that it is: addresses are compared in that form.
fn unmapped(network: IpNet) -> IpNet {
    let IpNet::V6(v6) = network else { return network };
    let mapped: Ipv6Addr = Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0);
    match v6.prefix_len().checked_sub(96) {
        Some(prefix) if v6.addr().segments()[..6] == mapped.segments()[..6] => {
            v6.addr().to_ipv4_mapped().and_then(|v4| IpNet::new(v4.into(), prefix).ok()).unwrap_or(network)
        }
        _ => network,
    }
}

fn parse_port(text: &str) -> Result<u16, String> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse() {
        Ok(port) if digits && port != 0 => Ok(port),
        _ => Err("has no port of 1 to 65535 after ':'".to_owned()),
    }
}

fn parse_name(text: &str) -> Result<RuleHost, String> {
    if text == "*" {
        return Err("is no rule; every address is '0.0.0.0/0'".to_owned());
    }
    if !text.is_ascii() {
        return Err("has characters beyond ASCII; write the name in punycode (xn--…)".to_owned());
    }
    let (below, name) = match text.strip_prefix("*.") {
        Some(name) => (true, name),
        None => (false, text),
    };
    let name = normal_name(name).ok_or_else(|| format!("is no rule; allowed: {ALLOWED}"))?;
    // `1.2.3` and `10.0.0.256` are addresses gone wrong: no top-level domain is a number (RFC 3696, section 2).
    if name.rsplit('.').next().is_some_and(|label| label.bytes().all(|byte| byte.is_ascii_digit())) {
        return Err("is neither an address nor a name: the last part of a name is no number".to_owned());
    }
    Ok(if below { RuleHost::Below(name) } else { RuleHost::Name(name) })
}

/// So much of it as an error should repeat.
fn shortened(text: &str) -> String {
    match text.char_indices().nth(100) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn rule(text: &str) -> NetworkRule {
        text.parse().unwrap_or_else(|error| panic!("{error}"))
    }

    #[track_caller]
    fn error(text: &str) -> String {
        text.parse::<NetworkRule>().unwrap_err().to_string()
    }

    fn network(text: &str) -> RuleHost {
        RuleHost::Network(text.parse().unwrap())
    }

    #[test]
    fn every_form_is_understood() {
        for (text, host, port) in [
            ("203.0.113.7", network("203.0.113.7/32"), None),
            ("203.0.113.0/24:443", network("203.0.113.0/24"), Some(443)),
            ("0.0.0.0/0", RuleHost::Any, None),
            ("0.0.0.0/0:53", RuleHost::Any, Some(53)),
            ("::/0", network("::/0"), None),
            ("2001:db8::1", network("2001:db8::1/128"), None),
            ("2001:db8::/32", network("2001:db8::/32"), None),
            ("[2001:db8::1]:443", network("2001:db8::1/128"), Some(443)),
            ("[2001:db8::/32]:443", network("2001:db8::/32"), Some(443)),
            ("[2001:db8::1]", network("2001:db8::1/128"), None),
            ("::ffff:203.0.113.7", network("203.0.113.7/32"), None),
            ("::ffff:203.0.113.0/120", network("203.0.113.0/24"), None),
            ("[::ffff:203.0.113.7]:80", network("203.0.113.7/32"), Some(80)),
            ("PyPI.org.", RuleHost::Name("pypi.org".into()), None),
            ("pypi.org:443", RuleHost::Name("pypi.org".into()), Some(443)),
            ("*.Example.COM", RuleHost::Below("example.com".into()), None),
            ("xn--bcher-kva.example", RuleHost::Name("xn--bcher-kva.example".into()), None),
        ] {
            assert_eq!(rule(text), NetworkRule { host, port }, "{text}");
        }
    }

    #[test]
    fn what_is_no_rule_says_why() {
        for (text, why) in [
            ("", "is no rule; allowed: an address or CIDR"),
            ("https://pypi.org", "has no port"),
            ("pypi.org/simple", "is no rule; allowed"),
            ("pypi.org:0", "has no port of 1 to 65535"),
            ("pypi.org:+80", "has no port of 1 to 65535"),
            ("pypi.org:65536", "has no port of 1 to 65535"),
            ("10.0.0.1/8", "its network is '10.0.0.0/8'"),
            ("10.0.0.0/33", "has no prefix length"),
            ("10.0.0.256", "is neither an address nor a name"),
            ("2001:db8::1::2", "lacks brackets"),
            ("[2001:db8::1", "lacks a ']'"),
            ("[2001:db8::1]443", "something other than a port"),
            ("[203.0.113.7]:443", "no IPv6 address in its brackets"),
            ("*", "every address is '0.0.0.0/0'"),
            ("a.*.example", "is no rule"),
            ("*.*.example", "is no rule"),
            ("-.a..b", "is no rule"),
            ("bücher.example", "in punycode"),
            (" pypi.org", "is no rule"),
            ("pypi.org\n", "is no rule"),
        ] {
            let error = error(text);
            assert!(error.contains(why), "{text}: {error}");
        }
        assert!(error(&"a".repeat(10_000)).len() < 500);
    }

    #[test]
    fn names_match_whole_labels() {
        let below = rule("*.example.com");
        assert!(below.names_name("a.example.com"));
        assert!(below.names_name("a.b.example.com"));
        for other in ["example.com", "badexample.com", ".example.com", "example.com.evil.org"] {
            assert!(!below.names_name(other), "{other}");
        }
        assert!(rule("example.com").names_name("example.com"));
        assert!(!rule("example.com").names_name("a.example.com"));
        assert!(!rule("0.0.0.0/0").names_name("example.com"));
        assert!(!rule("example.com").names_address("203.0.113.7".parse().unwrap()));
        assert!(rule("0.0.0.0/0").names_address("2001:db8::1".parse().unwrap()));
    }
}
