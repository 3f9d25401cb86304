//! A machine's way to the network: a gateway process of its own ([`forkyard_gateway`]), where its policy allows anything at all.
//!
//! The gateway outlives the server: the next one finds it by its command line, and speaks to it through `gateway`, a socket in the
//! machine's directory. It ends with the machine's process, and where that is suspended or put back to a snapshot.

mod control;
mod given;
mod keeper;
mod ledger;
mod process;

use std::path::PathBuf;

use forkyard_gateway::dns::DnsConfig;
use forkyard_gateway::policy::Operator;

pub use self::given::{Given, given_to_guests};
pub use self::keeper::{Network, Way};
pub use self::ledger::{MAX_EVENTS, Page};
pub use self::process::sweep;
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
}

impl Default for NetworkSettings {
    fn default() -> Self {
        Self {
            program: PathBuf::from("/proc/self/exe"),
            operator: Operator::default(),
            dns: DnsConfig::default(),
            cgroups: None,
            given: Given::default(),
        }
    }
}
