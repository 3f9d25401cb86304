use std::time::{Duration, SystemTime};

use forkyard::runtime::run;

use crate::{Answer, Error, Sandbox, value};

/// NetworkPolicy says what a machine may reach. The zero value is nothing.
///
/// A rule is an address or CIDR (203.0.113.7, 2001:db8::/32), a host name (pypi.org) or every name below a domain
/// (*.pythonhosted.org), each with an optional port (pypi.org:443); AllowOut and DenyOut hold at most 256 together. Loopback,
/// private and link-local addresses, the host's own and the like are never reachable, unless the server's operator opened them.
/// Beyond that AllowOut wins over DenyOut, and that over AllowInternetAccess.
#[derive(Debug, uniffi::Record)]
pub struct NetworkPolicy {
    /// AllowInternetAccess says whether what no rule names may be reached.
    pub allow_internet_access: bool,
    /// AllowOut is what may be reached whatever else is said.
    pub allow_out: Vec<String>,
    /// DenyOut is what may not be reached unless AllowOut names it.
    pub deny_out: Vec<String>,
    /// MaxConnections is the most connections at once, 1 to 4,096: TCP connections, UDP flows and pings. Default: the server's
    /// limit.
    pub max_connections: i32,
    /// BandwidthKbps is how many kilobits of payload a second may go in each direction, 8 to 100,000,000. Default: the server's
    /// limit.
    pub bandwidth_kbps: i32,
}

impl TryFrom<NetworkPolicy> for forkyard::NetworkPolicy {
    type Error = Error;

    fn try_from(policy: NetworkPolicy) -> Answer<Self> {
        let NetworkPolicy { allow_internet_access, allow_out, deny_out, max_connections, bandwidth_kbps } =
            policy;
        Ok(Self {
            allow_internet_access,
            allow_out,
            deny_out,
            max_connections: value::count("MaxConnections", max_connections)?,
            bandwidth_kbps: value::count("BandwidthKbps", bandwidth_kbps)?,
        })
    }
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
            max_connections: value::size(max_connections.unwrap_or_default().into()),
            bandwidth_kbps: value::size(bandwidth_kbps.unwrap_or_default()),
        }
    }
}

/// NetworkCounters are what went through a machine's network since the server first knew of it.
#[derive(Debug, uniffi::Record)]
pub struct NetworkCounters {
    /// BytesOut is how many payload bytes the machine sent.
    pub bytes_out: i64,
    /// BytesIn is how many it got.
    pub bytes_in: i64,
    /// ConnectionsOpen is how many connections are open.
    pub connections_open: i64,
    /// ConnectionsTotal is how many were opened.
    pub connections_total: i64,
    /// ConnectionsRefused is how many were refused.
    pub connections_refused: i64,
    /// DNSQueries is how many queries its resolver got, the refused ones included.
    pub dns_queries: i64,
    /// DroppedFrames is how many frames of the machine's were malformed, or more than there was room for.
    pub dropped_frames: i64,
    /// DroppedEvents is how many events were not kept because there were too many.
    pub dropped_events: i64,
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
            bytes_out: value::bytes(bytes_out),
            bytes_in: value::bytes(bytes_in),
            connections_open: value::bytes(connections_open),
            connections_total: value::bytes(connections_total),
            connections_refused: value::bytes(connections_refused),
            dns_queries: value::bytes(dns_queries),
            dropped_frames: value::bytes(dropped_frames),
            dropped_events: value::bytes(dropped_events),
        }
    }
}

/// NetworkLink is whether a machine's network is there.
#[derive(Debug, Clone, Copy, uniffi::Enum)]
pub enum NetworkLink {
    /// It is.
    Up,
    /// The machine's policy allows nothing, or its gateway is being started again.
    Down,
}

impl From<forkyard::NetworkLink> for NetworkLink {
    fn from(link: forkyard::NetworkLink) -> Self {
        match link {
            forkyard::NetworkLink::Up => Self::Up,
            forkyard::NetworkLink::Down => Self::Down,
        }
    }
}

/// NetworkInfo is a machine's network.
#[derive(Debug, uniffi::Record)]
pub struct NetworkInfo {
    /// Policy is what the machine may reach.
    pub policy: NetworkPolicy,
    /// Counters are what went through.
    pub counters: NetworkCounters,
    /// Link is whether its network is there.
    pub link: NetworkLink,
}

impl From<forkyard::NetworkInfo> for NetworkInfo {
    fn from(info: forkyard::NetworkInfo) -> Self {
        let forkyard::NetworkInfo { policy, counters, link } = info;
        Self { policy: policy.into(), counters: counters.into(), link: link.into() }
    }
}

/// NetworkEventKind is what happened.
#[derive(Debug, Clone, Copy, uniffi::Enum)]
pub enum NetworkEventKind {
    /// A connection was opened.
    ConnectionOpened,
    /// It ended; the event has its bytes.
    ConnectionEnded,
    /// The policy, a limit or an address that is never reachable stood against it.
    ConnectionRefused,
    /// A name was not resolved, or its addresses were held back.
    DnsRefused,
    /// The machine's gateway was started again: connections of before are gone.
    GatewayRestarted,
}

impl From<forkyard::NetworkEventKind> for NetworkEventKind {
    fn from(kind: forkyard::NetworkEventKind) -> Self {
        match kind {
            forkyard::NetworkEventKind::ConnectionOpened => Self::ConnectionOpened,
            forkyard::NetworkEventKind::ConnectionEnded => Self::ConnectionEnded,
            forkyard::NetworkEventKind::ConnectionRefused => Self::ConnectionRefused,
            forkyard::NetworkEventKind::DnsRefused => Self::DnsRefused,
            forkyard::NetworkEventKind::GatewayRestarted => Self::GatewayRestarted,
        }
    }
}

/// NetworkProtocol is what a connection speaks.
#[derive(Debug, Clone, Copy, uniffi::Enum)]
pub enum NetworkProtocol {
    /// The event is of no connection.
    None,
    /// TCP.
    Tcp,
    /// UDP: the datagrams between one port of the machine and one remote address and port.
    Udp,
    /// ICMP and ICMPv6 echo.
    Icmp,
    /// A query to the machine's resolver.
    Dns,
}

impl From<Option<forkyard::NetworkProtocol>> for NetworkProtocol {
    fn from(protocol: Option<forkyard::NetworkProtocol>) -> Self {
        match protocol {
            None => Self::None,
            Some(forkyard::NetworkProtocol::Tcp) => Self::Tcp,
            Some(forkyard::NetworkProtocol::Udp) => Self::Udp,
            Some(forkyard::NetworkProtocol::Icmp) => Self::Icmp,
            Some(forkyard::NetworkProtocol::Dns) => Self::Dns,
        }
    }
}

/// NetworkVerdict is how something was judged.
#[derive(Debug, Clone, Copy, uniffi::Enum)]
pub enum NetworkVerdict {
    /// There was nothing to judge.
    None,
    /// It may pass.
    Allowed,
    /// It may not.
    Refused,
}

impl From<Option<forkyard::NetworkVerdict>> for NetworkVerdict {
    fn from(verdict: Option<forkyard::NetworkVerdict>) -> Self {
        match verdict {
            None => Self::None,
            Some(forkyard::NetworkVerdict::Allowed) => Self::Allowed,
            Some(forkyard::NetworkVerdict::Refused) => Self::Refused,
        }
    }
}

/// NetworkEvent is one thing that happened on a machine's network.
#[derive(Debug, uniffi::Record)]
pub struct NetworkEvent {
    /// At is when.
    pub at: SystemTime,
    /// Kind is what.
    pub kind: NetworkEventKind,
    /// Protocol is what it spoke.
    pub protocol: NetworkProtocol,
    /// Name is the other end's name, as far as it is known.
    pub name: String,
    /// Address is its address.
    pub address: String,
    /// Port is its port.
    pub port: i32,
    /// BytesOut is how many payload bytes the machine sent until then.
    pub bytes_out: i64,
    /// BytesIn is how many it got until then.
    pub bytes_in: i64,
    /// Verdict is how it was judged.
    pub verdict: NetworkVerdict,
    /// Rule is what decided: a rule as it was given, "default", or a reason such as "private addresses".
    pub rule: String,
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
            at: value::time(at_ms),
            kind: kind.into(),
            protocol: protocol.into(),
            name: name.unwrap_or_default(),
            address: address.map(|address| address.to_string()).unwrap_or_default(),
            port: port.unwrap_or_default().into(),
            bytes_out: value::bytes(bytes_out),
            bytes_in: value::bytes(bytes_in),
            verdict: verdict.into(),
            rule: rule.unwrap_or_default(),
        }
    }
}

/// NetworkEvents are a machine's network events, oldest first.
#[derive(Debug, uniffi::Record)]
pub struct NetworkEvents {
    /// Events are the events.
    pub events: Vec<NetworkEvent>,
    /// Cursor, given to the next call, has it answer what came after these; empty where there never was an event.
    pub cursor: String,
}

#[uniffi::export]
impl Sandbox {
    /// Network answers what the machine may reach, and what went through.
    pub async fn network(&self) -> Answer<NetworkInfo> {
        let sandbox = self.sandbox.clone();
        Ok(run(async move { sandbox.network().await }).await?.into())
    }

    /// UpdateNetwork has the machine reach something else from now on, in place of all that it might before. Connections that it
    /// may no longer have are reset before this returns. A suspended machine finds it when it is resumed.
    ///
    /// It fails with [CodeInvalidArgument] where a rule is none or a number is out of range, and with [CodeFailedPrecondition]
    /// where the machine goes on from a snapshot of before machines had a network.
    pub async fn update_network(&self, policy: NetworkPolicy) -> Answer<NetworkInfo> {
        let (sandbox, policy) = (self.sandbox.clone(), policy.try_into()?);
        Ok(run(async move { sandbox.update_network(&policy).await }).await?.into())
    }

    /// NetworkEvents answers what happened on the machine's network: the newest 1,000 events or, where a cursor is given, those
    /// after it. Where there is none yet, it waits so long for the next, at most a minute and half of the client's time-out. The
    /// server keeps the events in its memory, until it ends.
    pub async fn network_events(&self, cursor: String, wait: Duration) -> Answer<NetworkEvents> {
        let (sandbox, cursor) = (self.sandbox.clone(), value::text(cursor));
        let (events, cursor) =
            run(async move { sandbox.network_events(cursor.as_deref(), wait).await }).await?;
        Ok(NetworkEvents {
            events: events.into_iter().map(Into::into).collect(),
            cursor: cursor.unwrap_or_default(),
        })
    }
}
