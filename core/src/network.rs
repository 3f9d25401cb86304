use std::time::Duration;

use forkyard_protocol::NetworkEventList;
pub use forkyard_protocol::{
    NetworkCounters, NetworkEvent, NetworkEventKind, NetworkInfo, NetworkLink, NetworkPolicy,
    NetworkProtocol, NetworkVerdict,
};
use http::Method;

use crate::error::Result;
use crate::events::news_path;
use crate::http::Request;
use crate::sandbox::Sandbox;

impl Sandbox {
    /// What the machine may reach, and what went through.
    pub async fn network(&self) -> Result<NetworkInfo> {
        self.client.get_json(&self.path("/network")).await
    }

    /// Has the machine reach something else from now on; connections that it may no longer have are reset before this returns. A
    /// suspended machine finds it when it is resumed.
    pub async fn update_network(&self, policy: &NetworkPolicy) -> Result<NetworkInfo> {
        policy.validate()?;
        let request = Request::new(Method::PUT, self.path("/network")).json(policy)?;
        self.client.inner.http.call(&request, self.client.deadline()).await
    }

    /// What happened on the machine's network after a cursor, oldest first, and the cursor to go on with. Without a cursor, all
    /// that is kept: the newest 1,000 events. Where there is nothing yet, waits for it at most so long, a minute and the client's
    /// own time-out at the most.
    pub async fn network_events(
        &self,
        cursor: Option<&str>,
        wait: Duration,
    ) -> Result<(Vec<NetworkEvent>, Option<String>)> {
        let path = news_path(&self.client, &self.path("/network/events"), cursor, wait);
        let list: NetworkEventList = self.client.get_json(&path).await?;
        Ok((list.events, list.next_cursor))
    }
}
