//! What the data plane asks of policy, DNS and sniffing. A stand-in until those modules are merged: the types have their names and
//! fields, the implementations know addresses and exact names only.

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use serde::{Deserialize, Serialize};

/// What a machine may reach.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkPolicy {
    /// Whether what no rule names may be reached.
    #[serde(default)]
    pub allow_internet_access: bool,
    /// What may be reached whatever else is said.
    #[serde(default)]
    pub allow_out: Vec<String>,
    /// What may not.
    #[serde(default)]
    pub deny_out: Vec<String>,
    /// Most connections at once.
    #[serde(default)]
    pub max_connections: Option<u32>,
    /// Kilobits a second, each direction for itself.
    #[serde(default)]
    pub bandwidth_kbps: Option<u64>,
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NetworkEventKind {
    /// A connection was opened.
    ConnectionOpened,
    /// It ended.
    ConnectionEnded,
    /// Something stood against it.
    ConnectionRefused,
}

/// What a connection speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NetworkProtocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// ICMP echo.
    Icmp,
}

/// How it was judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NetworkVerdict {
    /// It may pass.
    Allowed,
    /// It may not.
    Refused,
}

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkEvent {
    /// When: milliseconds since 1970.
    pub at_ms: u64,
    /// What.
    pub kind: NetworkEventKind,
    /// What it spoke.
    pub protocol: Option<NetworkProtocol>,
    /// The remote's name.
    pub name: Option<String>,
    /// The remote's address.
    pub address: Option<IpAddr>,
    /// The remote's port.
    pub port: Option<u16>,
    /// Payload bytes that the machine sent.
    pub bytes_out: u64,
    /// Payload bytes that it got.
    pub bytes_in: u64,
    /// How it was judged.
    pub verdict: Option<NetworkVerdict>,
    /// What decided.
    pub rule: Option<String>,
}

/// What went through since the gateway started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct NetworkCounters {
    /// Payload bytes that the machine sent.
    pub bytes_out: u64,
    /// Payload bytes that it got.
    pub bytes_in: u64,
    /// Connections that are open.
    pub connections_open: u64,
    /// Connections that were opened.
    pub connections_total: u64,
    /// Connections that were refused.
    pub connections_refused: u64,
    /// Queries to its resolver.
    pub dns_queries: u64,
    /// Frames that were malformed, forged, or more than the queues hold.
    pub dropped_frames: u64,
    /// Events that were not kept.
    pub dropped_events: u64,
}

/// What a connection speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// ICMP echo.
    Icmp,
}

/// How a destination is judged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It may pass.
    Allow {
        /// What decided.
        rule: String,
    },
    /// Only where what the client says first names one of these; something that is neither TLS nor HTTP passes.
    AllowNamed {
        /// What decided.
        rule: String,
        /// The names.
        names: Vec<String>,
    },
    /// It may not.
    Refuse {
        /// What decided.
        rule: String,
    },
}

/// The names that DNS gave the guest addresses for.
#[derive(Debug, Default)]
pub struct GivenNames;

impl GivenNames {
    /// The names that an address was given for, newest first.
    pub fn of(&self, _address: IpAddr, _now: Instant) -> impl Iterator<Item = &str> {
        std::iter::empty()
    }
}

/// What the operator says of all machines.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Operator {
    /// Ranges that are reachable though they are among those never reachable.
    pub extra_allow: Vec<String>,
    /// The host's own addresses.
    pub host_addresses: Vec<IpAddr>,
}

/// What stands as the rule where an address is the host's own.
pub const HOST: &str = "the host's own addresses";

/// A policy, ready to decide.
#[derive(Debug, Default)]
pub struct Policy {
    wire: NetworkPolicy,
    opened: Vec<(IpAddr, u8)>,
}

impl Policy {
    /// Reads the rules.
    pub fn new(wire: &NetworkPolicy, operator: &Operator) -> Result<Self, String> {
        let opened = operator.extra_allow.iter().map(|range| parse(range)).collect::<Result<_, _>>()?;
        Ok(Self { wire: wire.clone(), opened })
    }

    /// Whether a connection may be opened.
    pub fn decide(&self, _: Protocol, to: SocketAddr, _: &GivenNames, _now: Instant) -> Verdict {
        let refuse = |rule: &str| Verdict::Refuse { rule: rule.into() };
        if self.wire.deny_out.contains(&to.to_string()) {
            return refuse("deny_out");
        }
        if let Some(name) = self.wire.allow_out.iter().find_map(|rule| named(rule, to)) {
            return Verdict::AllowNamed { rule: name.into(), names: vec![name.into()] };
        }
        if !self.opens(to) && is_never(to.ip()) {
            return refuse("private addresses");
        }
        if self.wire.allow_internet_access {
            return Verdict::Allow { rule: "default".into() };
        }
        refuse("default")
    }

    /// Whether a connection may go on, now that the client has said its name.
    pub fn decide_named(&self, to: SocketAddr, said: &Sniffed, _: &GivenNames, _now: Instant) -> Verdict {
        let Some(name) = self.wire.allow_out.iter().find_map(|rule| named(rule, to)) else {
            return Verdict::Refuse { rule: "default".into() };
        };
        let (Sniffed::Tls { sni: said } | Sniffed::Http { host: said }) = said else {
            return Verdict::Allow { rule: name.into() };
        };
        if said.as_deref() == Some(name) {
            Verdict::Allow { rule: name.into() }
        } else {
            Verdict::Refuse { rule: "default".into() }
        }
    }

    /// Whether the operator opened a destination: such alone may be loopback or the host's own.
    pub fn opens(&self, to: SocketAddr) -> bool {
        self.opened.iter().any(|(network, length)| contains(*network, *length, to.ip()))
    }
}

/// `name=address:port`, for tests of named connections.
fn named(rule: &str, destination: SocketAddr) -> Option<&str> {
    let (name, address) = rule.split_once('=')?;
    (address.parse() == Ok(destination)).then_some(name)
}

fn parse(range: &str) -> Result<(IpAddr, u8), String> {
    let (address, length) = range.split_once('/').unwrap_or((range, ""));
    let address: IpAddr = address.parse().map_err(|_| format!("'{range}' is no address range"))?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    let length = if length.is_empty() { Ok(most) } else { length.parse::<u8>() };
    let length = length.ok().filter(|length| *length <= most);
    length.map(|length| (address, length)).ok_or_else(|| format!("'{range}' is no address range"))
}

fn contains(network: IpAddr, length: u8, address: IpAddr) -> bool {
    let bits = |address: IpAddr| match address {
        IpAddr::V4(address) => u128::from(u32::from(address)) << 96,
        IpAddr::V6(address) => address.into(),
    };
    let mask = u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0);
    network.is_ipv4() == address.is_ipv4() && (bits(network) ^ bits(address)) & mask == 0
}

fn is_never(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_loopback() || address.is_private() || address.is_link_local(),
        IpAddr::V6(address) => {
            address.is_loopback() || address.is_unique_local() || address.is_unicast_link_local()
        }
    }
}

/// Answers the guest's DNS.
pub struct Resolver {
    upstream: Vec<SocketAddr>,
}

impl Resolver {
    /// A resolver that asks these.
    pub fn new(upstream: Vec<SocketAddr>) -> Self {
        Self { upstream }
    }

    /// Answers a DNS message.
    pub async fn answer(&self, query: &[u8]) -> Option<Vec<u8>> {
        let upstream = self.upstream.first()?;
        let local: SocketAddr =
            if upstream.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0_u16; 8], 0).into() };
        let socket = tokio::net::UdpSocket::bind(local).await.ok()?;
        socket.connect(upstream).await.ok()?;
        socket.send(query).await.ok()?;
        let mut answer = vec![0; 65_535];
        let wait = std::time::Duration::from_secs(3);
        let count = tokio::time::timeout(wait, socket.recv(&mut answer)).await.ok()?.ok()?;
        answer.truncate(count);
        Some(answer)
    }

    /// The names it gave out.
    pub fn names(&self) -> &GivenNames {
        &GivenNames
    }
}

/// What a connection's first bytes are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sniffed {
    /// It cannot be said yet.
    NeedMore,
    /// A TLS `ClientHello`.
    Tls {
        /// The name it asks for.
        sni: Option<String>,
    },
    /// An HTTP/1 request.
    Http {
        /// Its `Host`.
        host: Option<String>,
    },
    /// Neither.
    Other,
}

/// Looks at a connection's first bytes.
pub fn sniff(first: &[u8]) -> Sniffed {
    if !first.starts_with(&b"GET "[..first.len().min(4)]) {
        return Sniffed::Other;
    }
    let text = String::from_utf8_lossy(first);
    let Some((head, _)) = text.split_once("\r\n\r\n") else { return Sniffed::NeedMore };
    let host = head.lines().find_map(|line| line.strip_prefix("Host: "));
    Sniffed::Http { host: host.map(|host| host.split(':').next().unwrap_or(host).to_owned()) }
}
