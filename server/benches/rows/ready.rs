//! A pool that is full when a measurement begins.

use std::time::Duration;

use forkyard::PoolSpec;
use tokio::time::{Instant, sleep};

use crate::world::{IMAGE, MEMORY_MB, Outcome, World, words};

/// How long a pool may take to fill: a hundred machines, one after another.
const PATIENCE: Duration = Duration::from_mins(5);

/// How often it is looked at meanwhile; the API has no call that waits for it.
const LOOK: Duration = Duration::from_millis(20);

pub struct Ready<'a> {
    world: &'a World,
    id: String,
    count: u32,
}

impl<'a> Ready<'a> {
    /// A pool of [`World::machine`]'s kind, at most so many machines with those that were claimed, full.
    pub async fn fill(world: &'a World, count: u32, max: Option<u32>) -> Outcome<Self> {
        let spec = PoolSpec {
            image: Some(IMAGE.to_owned()),
            memory_mb: Some(MEMORY_MB),
            min_ready: count,
            max,
            ..PoolSpec::default()
        };
        let id = world.client.create_pool(spec).await.map_err(words)?.pool_id.to_string();
        let pool = Self { world, id, count };
        pool.full().await?;
        Ok(pool)
    }

    /// Resolves once it is full, so that nothing is being made any more.
    pub async fn full(&self) -> Outcome<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let pool = self.world.client.pool(&self.id).await.map_err(words)?;
            if pool.ready >= self.count && pool.starting == 0 {
                return Ok(());
            }
            if Instant::now() > deadline {
                let reason = pool.reason.unwrap_or_default();
                return Err(format!(
                    "{} of {} machines were ready in time: {reason}",
                    pool.ready, self.count
                ));
            }
            sleep(LOOK).await;
        }
    }

    /// How many machines came out of it.
    pub async fn hits(&self) -> Outcome<u64> {
        self.world.client.pool(&self.id).await.map(|pool| pool.hits).map_err(words)
    }

    /// Deletes it; the server ends its machines.
    pub async fn delete(self) -> Outcome<()> {
        self.world.client.delete_pool(&self.id).await.map_err(words)
    }
}
