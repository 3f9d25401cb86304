//! How long a machine may be idle, changed while it lives.

use forkyard_protocol::{ErrorBody, ExtendTimeout, ProjectId, Sandbox, SandboxId};

use super::manager::Sandboxes;
use super::order::Wish;
use super::slot::Slot;
use crate::store::Expect;

impl Sandboxes {
    /// Gives a machine another idle time-out, counted from now on. One that is suspended stays so.
    pub async fn extend_timeout(
        &self,
        project: &ProjectId,
        id: &SandboxId,
        request: &ExtendTimeout,
    ) -> Result<Sandbox, ErrorBody> {
        request.validate()?;
        let slot = self.registry.get(project, id)?;
        // Until it has its new time-out the old one must not end it.
        let _call = slot.activity().begin();
        self.order(project, id, Wish::SetTimeout(request.timeout_secs)).await
    }

    /// To be called by the machine's own task alone: nobody else then writes its record.
    pub(super) async fn change_timeout(&self, slot: &Slot, secs: u64) -> Result<(), ErrorBody> {
        let mut record = slot.record();
        record.view.timeout_secs = secs;
        self.persist(&record, Expect::Any).await?;
        slot.update(|record| record.view.timeout_secs = secs);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use forkyard_protocol::{ErrorCode, ExtendTimeout};

    use super::super::tests::{World, caller, create};

    #[tokio::test]
    async fn a_new_time_out_holds_from_now_on_and_after_a_restart() {
        let world = World::new();
        let server = world.server().await;
        let project = caller().project;
        let long = create(&server, |request| request.timeout_secs = 1).await;
        let short = create(&server, |request| request.timeout_secs = 600).await;
        let extend = async |id, timeout_secs| {
            server.extend_timeout(&project, id, &ExtendTimeout { timeout_secs }).await
        };
        assert_eq!(extend(long.id(), 600).await.unwrap().timeout_secs, 600);
        assert_eq!(extend(short.id(), 1).await.unwrap().timeout_secs, 1);
        let ended = short.wait_for(|record| !record.is_alive());
        let ended = tokio::time::timeout(Duration::from_secs(20), ended).await.expect("it ends");
        assert_eq!(ended.view.reason.as_deref(), Some("no call for 1 seconds"));
        assert!(long.record().is_alive(), "its old time-out passed while the other's did");
        let refused = extend(long.id(), 0).await.unwrap_err();
        assert_eq!(refused.code, ErrorCode::InvalidArgument);
        assert_eq!(extend(short.id(), 5).await.unwrap_err().code, ErrorCode::SandboxLost);
        let after = world.server().await;
        assert_eq!(after.get(&project, long.id()).unwrap().record().view.timeout_secs, 600);
        after.terminate(&project, long.id()).await.unwrap();
    }
}
