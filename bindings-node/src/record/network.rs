use forkyard::Error;
use napi_derive::napi;

use super::mirror;
use crate::value::{number, whole_or_none};

/// What a machine may reach.
#[napi(object, object_from_js = false)]
pub struct NetworkPolicy {
    /// Whether what no rule names may be reached.
    pub allow_internet_access: bool,
    /// What may be reached whatever else is said.
    pub allow_out: Vec<String>,
    /// What may not be reached unless `allowOut` names it.
    pub deny_out: Vec<String>,
    /// Most connections at once; absent for the server's limit.
    pub max_connections: Option<u32>,
    /// Kilobits a second in each direction; absent for the server's limit.
    pub bandwidth_kbps: Option<f64>,
}

impl From<forkyard::NetworkPolicy> for NetworkPolicy {
    fn from(policy: forkyard::NetworkPolicy) -> Self {
        let forkyard::NetworkPolicy {
            allow_internet_access,
            allow_out,
            deny_out,
            max_connections,
            bandwidth_kbps,
        } = policy;
        Self {
            allow_internet_access,
            allow_out,
            deny_out,
            max_connections,
            bandwidth_kbps: bandwidth_kbps.map(number),
        }
    }
}

/// What a machine may reach: nothing, where nothing is said.
///
/// A rule is an address or CIDR (`203.0.113.7`, `2001:db8::/32`), a host name (`pypi.org`) or every name below a domain
/// (`*.pythonhosted.org`), each with an optional port (`pypi.org:443`); `allowOut` and `denyOut` hold at most 256 together.
/// Loopback, private and link-local addresses, the host's own and the like are never reachable, unless the server's operator
/// opened them. Beyond that `allowOut` wins over `denyOut`, and that over `allowInternetAccess`.
#[napi(object, object_to_js = false)]
pub struct NetworkRequest {
    /// Whether what no rule names may be reached. Default: false.
    pub allow_internet_access: Option<bool>,
    /// What may be reached whatever else is said. Default: none.
    pub allow_out: Option<Vec<String>>,
    /// What may not be reached unless `allowOut` names it. Default: none.
    pub deny_out: Option<Vec<String>>,
    /// Most connections at once, 1 to 4,096: TCP connections, UDP flows and pings. Default: the server's limit.
    pub max_connections: Option<f64>,
    /// Kilobits a second of payload in each direction, 8 to 100,000,000. Default: the server's limit.
    pub bandwidth_kbps: Option<f64>,
}

impl NetworkRequest {
    /// The policy; none where nothing was said of it.
    pub fn policy(self) -> Result<Option<forkyard::NetworkPolicy>, Error> {
        let Self { allow_internet_access, allow_out, deny_out, max_connections, bandwidth_kbps } = self;
        let is_silent = allow_internet_access.is_none()
            && allow_out.is_none()
            && deny_out.is_none()
            && max_connections.is_none()
            && bandwidth_kbps.is_none();
        if is_silent {
            return Ok(None);
        }
        Ok(Some(forkyard::NetworkPolicy {
            allow_internet_access: allow_internet_access.unwrap_or_default(),
            allow_out: allow_out.unwrap_or_default(),
            deny_out: deny_out.unwrap_or_default(),
            max_connections: whole_or_none("maxConnections", max_connections)?,
            bandwidth_kbps: whole_or_none("bandwidthKbps", bandwidth_kbps)?,
        }))
    }
}

/// What went through a machine's network since the server first knew of it.
#[napi(object, object_from_js = false)]
pub struct NetworkCounters {
    /// Payload bytes that the machine sent.
    pub bytes_out: f64,
    /// Payload bytes that it got.
    pub bytes_in: f64,
    /// Connections that are open.
    pub connections_open: f64,
    /// Connections that were opened.
    pub connections_total: f64,
    /// Connections that were refused.
    pub connections_refused: f64,
    /// Queries to its resolver, the refused ones included.
    pub dns_queries: f64,
    /// Frames of the machine's that were malformed, or more than there was room for.
    pub dropped_frames: f64,
    /// Events that were not kept because there were too many.
    pub dropped_events: f64,
}

impl From<forkyard::NetworkCounters> for NetworkCounters {
    fn from(counters: forkyard::NetworkCounters) -> Self {
        let forkyard::NetworkCounters {
            bytes_out,
            bytes_in,
            connections_open,
            connections_total,
            connections_refused,
            dns_queries,
            dropped_frames,
            dropped_events,
        } = counters;
        Self {
            bytes_out: number(bytes_out),
            bytes_in: number(bytes_in),
            connections_open: number(connections_open),
            connections_total: number(connections_total),
            connections_refused: number(connections_refused),
            dns_queries: number(dns_queries),
            dropped_frames: number(dropped_frames),
            dropped_events: number(dropped_events),
        }
    }
}

/// Whether a machine's network is there. It is `down` where the policy allows nothing, or while its gateway is being started
/// again.
#[napi(string_enum = "snake_case")]
pub enum NetworkLink {
    Up,
    Down,
}

mirror!(NetworkLink = forkyard::NetworkLink { Up, Down });

/// A machine's network.
#[napi(object, object_from_js = false)]
pub struct NetworkInfo {
    /// What the machine may reach.
    pub policy: NetworkPolicy,
    /// What went through.
    pub counters: NetworkCounters,
    /// Whether its network is there.
    pub link: NetworkLink,
}

impl From<forkyard::NetworkInfo> for NetworkInfo {
    fn from(info: forkyard::NetworkInfo) -> Self {
        let forkyard::NetworkInfo { policy, counters, link } = info;
        Self { policy: policy.into(), counters: counters.into(), link: link.into() }
    }
}

/// What happened: a connection was opened; it ended, and the event has its bytes; the policy, a limit or an address that is
/// never reachable stood against it; a name was not resolved, or its addresses were held back; the machine's gateway was
/// started again, and connections of before are gone.
#[napi(string_enum = "snake_case")]
pub enum NetworkEventKind {
    ConnectionOpened,
    ConnectionEnded,
    ConnectionRefused,
    DnsRefused,
    GatewayRestarted,
}

mirror!(
    NetworkEventKind = forkyard::NetworkEventKind {
        ConnectionOpened,
        ConnectionEnded,
        ConnectionRefused,
        DnsRefused,
        GatewayRestarted
    }
);

/// What a connection speaks. `dns` is a query to the machine's resolver.
#[napi(string_enum = "snake_case")]
pub enum NetworkProtocol {
    Tcp,
    Udp,
    Icmp,
    Dns,
}

mirror!(NetworkProtocol = forkyard::NetworkProtocol { Tcp, Udp, Icmp, Dns });

/// How something was judged.
#[napi(string_enum = "snake_case")]
pub enum NetworkVerdict {
    Allowed,
    Refused,
}

mirror!(NetworkVerdict = forkyard::NetworkVerdict { Allowed, Refused });

/// One thing that happened on a machine's network.
#[napi(object, object_from_js = false)]
pub struct NetworkEvent {
    /// When: milliseconds since 1970.
    pub at_ms: f64,
    /// What.
    pub kind: NetworkEventKind,
    /// What it spoke; absent where it is of no connection.
    pub protocol: Option<NetworkProtocol>,
    /// The other end's name, as far as it is known.
    pub name: Option<String>,
    /// Its address.
    pub address: Option<String>,
    /// Its port.
    pub port: Option<u32>,
    /// Payload bytes that the machine sent until then.
    pub bytes_out: f64,
    /// Payload bytes that it got until then.
    pub bytes_in: f64,
    /// How it was judged.
    pub verdict: Option<NetworkVerdict>,
    /// What decided: a rule as it was given, `default`, or a reason such as `private addresses`.
    pub rule: Option<String>,
}

impl From<forkyard::NetworkEvent> for NetworkEvent {
    fn from(event: forkyard::NetworkEvent) -> Self {
        let forkyard::NetworkEvent {
            at_ms,
            kind,
            protocol,
            name,
            address,
            port,
            bytes_out,
            bytes_in,
            verdict,
            rule,
        } = event;
        Self {
            at_ms: number(at_ms),
            kind: kind.into(),
            protocol: protocol.map(Into::into),
            name,
            address: address.map(|address| address.to_string()),
            port: port.map(Into::into),
            bytes_out: number(bytes_out),
            bytes_in: number(bytes_in),
            verdict: verdict.map(Into::into),
            rule,
        }
    }
}

/// A machine's network events, oldest first.
#[napi(object, object_from_js = false)]
pub struct NetworkEvents {
    /// The events.
    pub events: Vec<NetworkEvent>,
    /// Given to the next call, it yields what came after these; absent where there never was an event.
    pub cursor: Option<String>,
}

impl From<(Vec<forkyard::NetworkEvent>, Option<String>)> for NetworkEvents {
    fn from((events, cursor): (Vec<forkyard::NetworkEvent>, Option<String>)) -> Self {
        Self { events: events.into_iter().map(Into::into).collect(), cursor }
    }
}
