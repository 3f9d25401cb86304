//! A machine's way to the network: a gateway process of its own ([`forkyard_gateway`]), where its policy allows anything at all.
//!
//! The gateway outlives the server: the next one finds it by its command line, and speaks to it through `gateway`, a socket in the
//! machine's directory. It ends with the machine's process, and where that is suspended or put back to a snapshot.

mod control;
mod given;
mod keeper;
mod ledger;
mod process;
mod way;

use std::path::PathBuf;

use forkyard_gateway::dns::DnsConfig;
use forkyard_gateway::policy::Operator;
use forkyard_protocol::NetworkPolicy;

pub use self::given::{Given, given_to_guests, of_environment, reachable};
pub use self::keeper::Network;
pub use self::process::sweep;
pub use self::way::Way;
use crate::vmm::qemu::cgroup::Cgroups;

/// What the operator says of all machines' networks.
#[derive(Debug, Clone)]
pub struct NetworkSettings {
    /// The program that is started as `PROGRAM gateway`: this very one.
    pub program: PathBuf,
    /// What is reachable for those whose policy allows it, and what never is.
    pub operator: Operator,
    /// Whom to ask for names.
    pub dns: DnsConfig,
    /// Where gateways' control groups can be made; none where the host's kernel does not bound processes.
    pub cgroups: Option<Cgroups>,
    /// What guests with a network get beside what all get.
    pub given: Given,
    /// Most connections of one machine at once, and what one has whose policy names no number.
    pub max_connections: u32,
    /// Kilobits a second that one machine may have in each direction, if that is bounded.
    pub bandwidth_kbps: Option<u64>,
}

/// Connections of one machine at once unless the operator says otherwise.
pub const DEFAULT_CONNECTIONS: u32 = 512;

impl NetworkSettings {
    /// A policy within the operator's limits.
    pub fn bounded(&self, policy: &NetworkPolicy) -> NetworkPolicy {
        let mut policy = policy.clone();
        let most = self.max_connections;
        policy.max_connections = Some(policy.max_connections.map_or(most, |asked| asked.min(most)));
        policy.bandwidth_kbps = policy.bandwidth_kbps.into_iter().chain(self.bandwidth_kbps).min();
        policy
    }
}

impl Default for NetworkSettings {
    fn default() -> Self {
        Self {
            program: PathBuf::from("/proc/self/exe"),
            operator: Operator::default(),
            dns: DnsConfig::default(),
            cgroups: None,
            given: Given::default(),
            max_connections: DEFAULT_CONNECTIONS,
            bandwidth_kbps: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_operators_limits_bound_a_policy() {
        let settings = NetworkSettings { bandwidth_kbps: Some(1000), ..NetworkSettings::default() };
        let bounded = |max_connections, bandwidth_kbps| {
            let policy = NetworkPolicy { max_connections, bandwidth_kbps, ..NetworkPolicy::default() };
            let bounded = settings.bounded(&policy);
            (bounded.max_connections.unwrap(), bounded.bandwidth_kbps.unwrap())
        };
        assert_eq!(bounded(None, None), (DEFAULT_CONNECTIONS, 1000));
        assert_eq!(bounded(Some(4096), Some(2000)), (DEFAULT_CONNECTIONS, 1000));
        assert_eq!(bounded(Some(7), Some(8)), (7, 8));
    }
}
