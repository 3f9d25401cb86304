//! Who may be spoken to: pure decisions, no I/O.

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use forkyard_protocol::{InvalidRule, NetworkPolicy, NetworkRule, RuleHost, normal_name};
use serde::{Deserialize, Serialize};

use crate::sniff::Sniffed;

mod given;
mod ranges;
#[cfg(test)]
mod tests;

pub use given::{GivenNames, MAX_LIFE, MAX_PAIRS, MIN_LIFE};
pub use ranges::refused as refused_always;

/// What stands as the rule where none spoke.
pub const DEFAULT: &str = "default";
/// What stands as the rule where the policy's default allows an address that the operator opened.
pub const OPERATOR: &str = "operator";
/// What stands as the rule where an address is the host's own.
pub const HOST: &str = "the host's own addresses";
/// What stands as the rule where a datagram may carry a name that nobody can read (RFC 9001, section 5.2).
pub const QUIC: &str = "QUIC hides its name";

const QUIC_PORT: u16 = 443;

/// What a connection speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// ICMP and `ICMPv6` echo: the destination's port is ignored, and a rule with a port does not match.
    Icmp,
}

/// What is decided of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It may pass.
    Allow {
        /// What decided.
        rule: String,
    },
    /// It may be opened, and what the remote says may pass. What the client says first is held back until
    /// [`sniff`](crate::sniff::sniff) understands it and [`Policy::decide_named`] has judged it. Only for TCP.
    AllowNamed {
        /// What decided so far.
        rule: String,
        /// The names that this address was given for, newest first; may be none.
        names: Vec<String>,
    },
    /// It may not.
    Refuse {
        /// What decided.
        rule: String,
    },
}

/// What the operator says of all machines. No client can change it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Operator {
    /// Addresses and CIDRs, each with an optional port, that are reachable though they are among those never reachable, such
    /// as a package mirror in a private network. Policies still decide who may.
    pub extra_allow: Vec<String>,
    /// The host's own addresses, the public ones too: no machine reaches what listens there.
    pub host_addresses: Vec<IpAddr>,
}

/// Why there is no such policy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// A text is no rule.
    #[error(transparent)]
    Rule(#[from] InvalidRule),
    /// The operator opens ranges, not names and not everything.
    #[error(
        "'{0}' cannot be opened by the operator; allowed: an address or a CIDR narrower than 0.0.0.0/0, each with an optional port"
    )]
    Operator(String),
}

/// A rule with the text that its caller knows it by.
#[derive(Debug, Clone)]
struct Named {
    text: String,
    rule: NetworkRule,
}

impl Named {
    fn parse_all(texts: &[String]) -> Result<Vec<Self>, InvalidRule> {
        texts.iter().map(|text| Ok(Self { text: text.clone(), rule: text.parse()? })).collect()
    }

    fn fits(&self, port: Option<u16>) -> bool {
        self.rule.port.is_none() || self.rule.port == port
    }
}

/// What the client said first, as far as names go.
enum Claim<'a> {
    /// Nothing was heard, or it is neither TLS nor HTTP.
    None,
    /// This name.
    Name(&'a str),
    /// A protocol that has names, but none to be read.
    Hidden,
}

/// Where a connection goes.
struct Destination {
    address: IpAddr,
    /// None for ICMP.
    port: Option<u16>,
}

impl Destination {
    fn new(protocol: Protocol, to: SocketAddr) -> Self {
        let port = (protocol != Protocol::Icmp).then_some(to.port());
        Self { address: to.ip().to_canonical(), port }
    }

    /// Its address, and those that a packet there may come to in the end: what is forbidden is forbidden by any of them.
    fn ends(&self) -> impl Iterator<Item = IpAddr> {
        let embedded = match self.address {
            IpAddr::V4(_) => [None, None],
            IpAddr::V6(address) => ranges::embedded(address),
        };
        std::iter::once(self.address).chain(embedded.into_iter().flatten().map(IpAddr::V4))
    }
}

/// A machine's policy, ready to decide.
#[derive(Debug)]
pub struct Policy {
    open: bool,
    allow: Vec<Named>,
    deny: Vec<Named>,
    opened: Vec<Named>,
    host: Vec<IpAddr>,
}

impl Policy {
    /// Reads the rules.
    pub fn new(policy: &NetworkPolicy, operator: &Operator) -> Result<Self, PolicyError> {
        let opened = Named::parse_all(&operator.extra_allow)?;
        if let Some(wrong) = opened.iter().find(|named| !matches!(named.rule.host, RuleHost::Network(_))) {
            return Err(PolicyError::Operator(wrong.text.clone()));
        }
        let deny = Named::parse_all(&policy.deny_out)?;
        let nothing_left =
            deny.iter().any(|named| named.rule.host == RuleHost::Any && named.rule.port.is_none());
        Ok(Self {
            open: policy.allow_internet_access && !nothing_left,
            allow: Named::parse_all(&policy.allow_out)?,
            deny,
            opened,
            host: operator.host_addresses.iter().map(IpAddr::to_canonical).collect(),
        })
    }

    /// Whether a connection may be opened.
    pub fn decide(&self, protocol: Protocol, to: SocketAddr, names: &GivenNames, now: Instant) -> Verdict {
        let destination = Destination::new(protocol, to);
        let given: Vec<&str> = names.of(destination.address, now).collect();
        let verdict = self.judge(&destination, &given, &Claim::None);
        let by_name = self.by_name(&destination, &given);
        match (protocol, &verdict) {
            (_, Verdict::Refuse { .. }) | (Protocol::Icmp, _) => verdict,
            (Protocol::Udp, _) if by_name && to.port() == QUIC_PORT => refuse(QUIC),
            (Protocol::Tcp, Verdict::Allow { rule }) if by_name => {
                let names = given.iter().map(ToString::to_string).collect();
                Verdict::AllowNamed { rule: rule.clone(), names }
            }
            _ => verdict,
        }
    }

    /// Whether a TCP connection for which [`decide`](Self::decide) wants a name may go on, now that the client has spoken.
    /// [`Sniffed::NeedMore`] is for a client that will say no more.
    pub fn decide_named(&self, to: SocketAddr, said: &Sniffed, names: &GivenNames, now: Instant) -> Verdict {
        let destination = Destination::new(Protocol::Tcp, to);
        let given: Vec<&str> = names.of(destination.address, now).collect();
        let claim = match said {
            Sniffed::Tls { sni: Some(name) } | Sniffed::Http { host: Some(name) } => Claim::Name(name),
            Sniffed::Tls { sni: None } | Sniffed::Http { host: None } | Sniffed::NeedMore => Claim::Hidden,
            Sniffed::Other => Claim::None,
        };
        self.judge(&destination, &given, &claim)
    }

    /// Whether DNS may answer for a name at all. Where the policy allows only what it names, other names are not even asked
    /// for: a query's name is a message to whoever serves its domain. CIDRs alone resolve nothing, but `0.0.0.0/0` does.
    pub fn resolves(&self, name: &str) -> bool {
        self.unresolved(name).is_none()
    }

    /// What stands against resolving a name; `None` where it [`resolves`](Self::resolves).
    pub fn unresolved(&self, name: &str) -> Option<&str> {
        let normal = normal_name(name);
        let names = |named: &&Named| normal.as_deref().is_some_and(|name| named.rule.names_name(name));
        if self.allow.iter().any(|named| names(&named)) {
            return None;
        }
        if let Some(denied) = self.deny.iter().filter(|named| named.rule.port.is_none()).find(names) {
            return Some(&denied.text);
        }
        let open = self.open || self.allow.iter().any(|named| named.rule.host == RuleHost::Any);
        (!open).then_some(DEFAULT)
    }

    /// Whether DNS may give this address away: not one that is refused always on every port.
    pub fn gives(&self, address: IpAddr) -> bool {
        let destination = Destination { address: address.to_canonical(), port: None };
        let opened = self.opened.iter().any(|named| named.rule.names_address(destination.address));
        opened || self.never(&destination).is_none()
    }

    /// Whether the operator opened a destination: such alone may be loopback or the host's own.
    pub fn opens(&self, to: SocketAddr) -> bool {
        self.is_opened(&Destination { address: to.ip().to_canonical(), port: Some(to.port()) })
    }

    fn is_opened(&self, to: &Destination) -> bool {
        self.opened.iter().any(|named| named.fits(to.port) && named.rule.names_address(to.address))
    }

    /// Always refused, then `allow_out`, then `deny_out`, then the default.
    fn judge(&self, to: &Destination, given: &[&str], claim: &Claim<'_>) -> Verdict {
        let opened = self.is_opened(to);
        if !opened && let Some(reason) = self.never(to) {
            return refuse(reason);
        }
        for named in self.allow.iter().filter(|named| named.fits(to.port)) {
            if named.rule.names_address(to.address) || allows_by_name(&named.rule, given, claim) {
                return Verdict::Allow { rule: named.text.clone() };
            }
        }
        for named in self.deny.iter().filter(|named| named.fits(to.port)) {
            if to.ends().any(|address| named.rule.names_address(address))
                || denies_by_name(&named.rule, given, claim)
            {
                return refuse(&named.text);
            }
        }
        match (self.open, opened) {
            (false, _) => refuse(DEFAULT),
            (true, false) => Verdict::Allow { rule: DEFAULT.to_owned() },
            (true, true) => Verdict::Allow { rule: OPERATOR.to_owned() },
        }
    }

    /// Why nobody may go there, the operator's openings aside.
    fn never(&self, to: &Destination) -> Option<&'static str> {
        if to.ends().any(|address| self.host.contains(&address)) {
            return Some(HOST);
        }
        ranges::refused(to.address)
    }

    /// Whether what is allowed there depends on the name that the client will say: a name alone allows it, or a name could
    /// still deny it. A CIDR in `allow_out` settles it.
    fn by_name(&self, to: &Destination, given: &[&str]) -> bool {
        let fits = |named: &&Named| named.fits(to.port);
        if self.allow.iter().filter(fits).any(|named| named.rule.names_address(to.address)) {
            return false;
        }
        self.deny.iter().filter(fits).any(|named| named.rule.is_by_name())
            || matches!(self.judge(to, given, &Claim::Hidden), Verdict::Refuse { .. })
    }
}

/// The address was given for a name of the rule, and the client says no other.
fn allows_by_name(rule: &NetworkRule, given: &[&str], claim: &Claim<'_>) -> bool {
    let agrees = match claim {
        Claim::None => true,
        Claim::Name(name) => rule.names_name(name),
        Claim::Hidden => false,
    };
    agrees && given.iter().any(|name| rule.names_name(name))
}

/// The address was given for a name of the rule, or the client says one. What hides its name passes here: a list of what is
/// forbidden stops no guest that wants past it (it may say one name outside TLS and another one inside); a list of what is
/// allowed does.
fn denies_by_name(rule: &NetworkRule, given: &[&str], claim: &Claim<'_>) -> bool {
    given.iter().any(|name| rule.names_name(name))
        || matches!(claim, Claim::Name(name) if rule.names_name(name))
}

fn refuse(rule: &str) -> Verdict {
    Verdict::Refuse { rule: rule.to_owned() }
}
