//! What a machine may reach, and what it did reach.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::{ErrorBody, ErrorCode};

pub mod link;
mod rule;

pub use rule::{InvalidRule, NetworkRule, RuleHost, normal_name};

/// Most rules of one policy, `allow_out` and `deny_out` together.
pub const MAX_NETWORK_RULES: usize = 256;
/// Most connections that a policy can allow at once.
pub const MAX_NETWORK_CONNECTIONS: u32 = 4096;
/// Least bandwidth of a policy, in kilobits a second: less would starve TCP's own acknowledgements.
pub const MIN_BANDWIDTH_KBPS: u64 = 8;
/// Most bandwidth of a policy, in kilobits a second (100 Gbit/s).
pub const MAX_BANDWIDTH_KBPS: u64 = 100_000_000;

/// What a machine may reach. The default is nothing.
///
/// A rule is an address or CIDR (`203.0.113.7`, `2001:db8::/32`), a host name (`pypi.org`) or every name below a domain
/// (`*.pythonhosted.org`, which is not `pythonhosted.org` itself), each with an optional port (`pypi.org:443`,
/// `[2001:db8::1]:443`). `0.0.0.0/0` is every address, IPv6 included. Names beyond ASCII are written in punycode.
///
/// Ranges that are never reachable come first: loopback, private, link-local and the like. Then `allow_out` wins over
/// `deny_out`, and that over `allow_internet_access`.
///
/// A name allows an address that the machine was given for it by its own DNS, as long as a TLS client says the same name in
/// its SNI, and an HTTP client in its `Host`; what is neither TLS nor HTTP passes, and UDP to port 443 (QUIC, whose name
/// cannot be read) does not. A name denies an address given for it, and a connection whose SNI or `Host` says it. An address
/// written as such is matched by CIDRs alone.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct NetworkPolicy {
    /// Whether what no rule names may be reached. Default: false.
    #[serde(default)]
    pub allow_internet_access: bool,
    /// What may be reached whatever else is said; names that are resolved. At most 256 rules with `deny_out`. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allow_out: Vec<String>,
    /// What may not be reached unless `allow_out` names it. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub deny_out: Vec<String>,
    /// Most connections at once, 1 to 4,096: TCP connections, UDP flows and pings that wait for their answer. One more is
    /// refused. Default: the server's limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_connections: Option<u32>,
    /// Kilobits (1,000 bits) a second of payload that TCP and UDP may carry, 8 to 100,000,000: all connections together,
    /// each direction for itself, averaged over one second. What is more waits (TCP) or is dropped (UDP). Default: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bandwidth_kbps: Option<u64>,
}

impl NetworkPolicy {
    /// Whether anything may be reached at all. Where not, the machine has no network.
    pub fn allows_anything(&self) -> bool {
        self.allow_internet_access || !self.allow_out.is_empty()
    }

    /// Whether nothing was said.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// Checks every value; the error names the first entry that is wrong and what is allowed.
    pub fn validate(&self) -> Result<(), ErrorBody> {
        let fail = |message: String| Err(ErrorBody::new(ErrorCode::InvalidArgument, message));
        let count = self.allow_out.len() + self.deny_out.len();
        if count > MAX_NETWORK_RULES {
            return fail(format!(
                "allow_out and deny_out hold at most {MAX_NETWORK_RULES} rules together, not {count}"
            ));
        }
        for (list, rules) in [("allow_out", &self.allow_out), ("deny_out", &self.deny_out)] {
            for (index, rule) in rules.iter().enumerate() {
                if let Err(error) = rule.parse::<NetworkRule>() {
                    return fail(format!("{list}[{index}]: {error}"));
                }
            }
        }
        if let Some(connections) = self.max_connections
            && !(1..=MAX_NETWORK_CONNECTIONS).contains(&connections)
        {
            return fail(format!(
                "max_connections must be between 1 and {MAX_NETWORK_CONNECTIONS}, not {connections}"
            ));
        }
        if let Some(kbps) = self.bandwidth_kbps
            && !(MIN_BANDWIDTH_KBPS..=MAX_BANDWIDTH_KBPS).contains(&kbps)
        {
            return fail(format!(
                "bandwidth_kbps must be between {MIN_BANDWIDTH_KBPS} and {MAX_BANDWIDTH_KBPS}, not {kbps}"
            ));
        }
        Ok(())
    }
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub enum NetworkEventKind {
    /// A connection was opened.
    ConnectionOpened,
    /// It ended; the event has its bytes.
    ConnectionEnded,
    /// The policy, a limit or a range that is never reachable stood against it.
    ConnectionRefused,
    /// A name was not resolved, or its addresses were held back.
    DnsRefused,
    /// The gateway was started again: connections of before are gone.
    GatewayRestarted,
}

/// What a connection speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub enum NetworkProtocol {
    /// TCP.
    Tcp,
    /// UDP: the datagrams between one port of the machine and one remote address and port.
    Udp,
    /// ICMP and `ICMPv6` echo.
    Icmp,
    /// A query to the machine's resolver.
    Dns,
}

/// How it was judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub enum NetworkVerdict {
    /// It may pass.
    Allowed,
    /// It may not.
    Refused,
}

/// One thing that happened on a machine's network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct NetworkEvent {
    /// When: milliseconds since 1970.
    pub at_ms: u64,
    /// What.
    pub kind: NetworkEventKind,
    /// What it spoke; absent where the event is of no connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<NetworkProtocol>,
    /// The remote's name: from SNI or `Host`, or the one that DNS gave the address for, or the one that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The remote's address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    #[cfg_attr(test, schemars(with = "Option<String>"))]
    pub address: Option<IpAddr>,
    /// The remote's port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Payload bytes that the machine sent until then.
    #[serde(default)]
    pub bytes_out: u64,
    /// Payload bytes that it got until then.
    #[serde(default)]
    pub bytes_in: u64,
    /// How it was judged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<NetworkVerdict>,
    /// What decided: a rule as its caller wrote it, `default`, or a reason of the gateway's own such as `private addresses`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
}

/// A machine's events, oldest first. The newest 1,000 are kept, and with them a machine's totals, in the server's memory: they
/// outlive the gateway, not the server.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct NetworkEventList {
    /// The events.
    pub events: Vec<NetworkEvent>,
    /// Given back as `cursor`, it yields what came after these; absent where there never was an event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

/// What went through a machine's network, whatever the number of its gateways, since the server began or took the machine up; of
/// a gateway that was there already, since that one started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(test, derive(schemars::JsonSchema))]
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
    /// Queries to its resolver, the refused ones included.
    pub dns_queries: u64,
    /// Frames from the machine that were malformed, or more than its queues hold.
    pub dropped_frames: u64,
    /// Events that were not kept because there were too many.
    pub dropped_events: u64,
}

/// Whether a machine's network is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub enum NetworkLink {
    /// The gateway serves the machine.
    Up,
    /// It does not: the policy allows nothing, or the gateway is being started again.
    Down,
}

/// A machine's network as the API shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct NetworkInfo {
    /// What the machine may reach.
    pub policy: NetworkPolicy,
    /// What went through.
    pub counters: NetworkCounters,
    /// Whether its network is there.
    pub link: NetworkLink,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(change: impl FnOnce(&mut NetworkPolicy)) -> String {
        let mut policy = NetworkPolicy::default();
        change(&mut policy);
        policy.validate().unwrap_err().message
    }

    #[test]
    fn the_default_allows_nothing() {
        let policy: NetworkPolicy = serde_json::from_str("{}").unwrap();
        assert_eq!(policy, NetworkPolicy::default());
        assert!(!policy.allow_internet_access);
        policy.validate().unwrap();
    }

    #[test]
    fn what_is_wrong_is_named() {
        let allow = |rules: &[&str]| {
            let rules = rules.iter().map(ToString::to_string).collect();
            message(|policy| policy.allow_out = rules)
        };
        assert!(allow(&["pypi.org", "10.0.0.1/8"]).starts_with("allow_out[1]: '10.0.0.1/8'"));
        let deny = message(|policy| policy.deny_out = vec!["https://pypi.org".into()]);
        assert!(deny.starts_with("deny_out[0]: 'https://pypi.org'"), "{deny}");
        assert!(
            message(|policy| {
                policy.allow_out = vec!["a.example".into(); 200];
                policy.deny_out = vec!["b.example".into(); 57];
            })
            .contains("at most 256 rules together, not 257")
        );
        assert!(message(|policy| policy.max_connections = Some(0)).contains("between 1 and 4096, not 0"));
        assert!(message(|policy| policy.bandwidth_kbps = Some(7)).contains("between 8 and 100000000, not 7"));
    }

    #[test]
    fn unknown_fields_are_refused() {
        let error = serde_json::from_str::<NetworkPolicy>(r#"{"allow": []}"#).unwrap_err();
        assert!(error.to_string().contains("unknown field `allow`"));
    }
}
