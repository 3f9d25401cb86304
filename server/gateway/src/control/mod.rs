//! What the server and a gateway say to each other: lines of JSON on a unix socket in the machine's directory. The gateway
//! listens, so it outlives the server, and the next one finds it.

mod serve;

use forkyard_protocol::{NetworkCounters, NetworkEvent, NetworkPolicy};
use serde::{Deserialize, Serialize};

pub use self::serve::serve;

/// A line from the server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToGateway {
    /// Put this policy in place; what it no longer allows ends at once. Answered by [`FromGateway::PolicySet`].
    Policy(NetworkPolicy),
    /// Say what went through. Answered by [`FromGateway::Counters`].
    Counters,
    /// End. Answered by the socket's end.
    Stop,
}

/// A line from the gateway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FromGateway {
    /// Something happened. An event whose delivery a lost connection left in doubt comes again on the next.
    Event(NetworkEvent),
    /// What went through since the gateway started.
    Counters(NetworkCounters),
    /// The policy that was sent is in place.
    PolicySet,
    /// A line was not understood, or its policy is none; nothing was changed.
    Error(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_what_they_were() {
        let line = |message: &ToGateway| serde_json::to_string(message).unwrap();
        assert_eq!(line(&ToGateway::Stop), r#""stop""#);
        assert_eq!(line(&ToGateway::Counters), r#""counters""#);
        let policy: ToGateway =
            serde_json::from_str(r#"{"policy": {"allow_internet_access": true}}"#).unwrap();
        assert!(matches!(policy, ToGateway::Policy(policy) if policy.allow_internet_access));
        let error = serde_json::to_string(&FromGateway::Error("why".into())).unwrap();
        assert_eq!(error, r#"{"error":"why"}"#);
    }
}
