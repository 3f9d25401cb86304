//! One case: what it is given, its steps, and what is cleared away after it.

use anyhow::{Context as _, ensure};
use forkyard::{Client, ErrorCode};
use forkyard_protocol::Scope;
use serde_json::{Map, Value, json};

use super::{Language, Via, given, make_key, open, small};
use crate::case::{Case, Machine};
use crate::proxy::Proxy;
use crate::value::Names;

/// What a case has while it runs.
pub(super) struct World<'a> {
    pub language: &'a Language<'a>,
    pub proxy: Option<Proxy>,
    pub names: Names,
    pub via: Via,
    pub made: Made,
}

/// What a case has made on the server.
#[derive(Default)]
pub(super) struct Made {
    pub sandboxes: Vec<String>,
    pub snapshots: Vec<String>,
    pub pools: Vec<String>,
}

impl Language<'_> {
    pub(super) async fn run(&self, index: usize, case: &Case) -> anyhow::Result<Via> {
        let missing = case
            .steps
            .iter()
            .find(|step| !step.call.starts_with("local.") && !self.surface.calls.contains(&step.call));
        if let Some(step) = missing {
            anyhow::bail!("no binding for {}", step.call);
        }
        let local = tempfile::tempdir_in(self.world.dir())?;
        let api_key = match case.key {
            None => self.api_key.clone(),
            Some(key) => {
                ensure!(case.machine != Machine::Shared, "the shared machine is of another project");
                let scope = if key.admin { Scope::Admin } else { Scope::Sandboxes };
                let project = format!("{}x{index}", self.number);
                make_key(&self.admin, &project, scope, key.max_sandboxes, key.requests_per_second).await?
            }
        };
        let client = self.world.client(&api_key)?;
        let mut made = Made::default();
        let outcome = self.prepared(index, case, &api_key, &client, &local, &mut made).await;
        let cleared = made.clear(&client).await;
        let via = outcome?;
        cleared?;
        Ok(via)
    }

    async fn prepared(
        &self,
        index: usize,
        case: &Case,
        api_key: &str,
        client: &Client,
        local: &tempfile::TempDir,
        made: &mut Made,
    ) -> anyhow::Result<Via> {
        let proxy = if case.needs_proxy() {
            Some(Proxy::start(self.world.address(), case.http1).await?)
        } else {
            None
        };
        let url = proxy.as_ref().map_or_else(|| format!("http://{}", self.world.address()), Proxy::url);
        let handle = if case.needs_client() {
            open(self.executor, &url, api_key, case.client.and_then(|it| it.timeout_ms)).await?
        } else {
            self.handle.clone()
        };
        let machine = match case.machine {
            Machine::None => None,
            Machine::Shared => Some(self.shared.as_ref().context("no shared machine")?.id().to_owned()),
            Machine::Own => {
                let machine = client.create(small()).await?.id().to_owned();
                made.sandboxes.push(machine.clone());
                Some(machine)
            }
        };
        let host = self.world.host();
        let mut names = Names::from([
            ("client".to_owned(), handle.clone()),
            ("dir".to_owned(), json!(format!("/workspace/{}-{index}", case.topic))),
            ("local".to_owned(), json!(local.path())),
            ("case".to_owned(), json!(format!("case-{}-{index}", self.number))),
            ("url".to_owned(), json!(url)),
            ("api_key".to_owned(), json!(api_key)),
            ("host".to_owned(), json!({"ip": host.ip().to_string(), "port": host.port()})),
        ]);
        if let Some(machine) = machine {
            let args = Map::from_iter([("name_or_id".to_owned(), json!(machine))]);
            let on = handle["$handle"].as_str().map(str::to_owned);
            names.insert("machine".to_owned(), given(self.executor, "client.connect", on, args).await?);
        }
        let mut world = World { language: self, proxy, names, via: Via::new(), made: std::mem::take(made) };
        let outcome = world.steps(case).await;
        *made = world.made;
        outcome.map(|()| world.via)
    }
}

impl World<'_> {
    async fn steps(&mut self, case: &Case) -> anyhow::Result<()> {
        for (number, step) in case.steps.iter().enumerate() {
            self.step(step).await.with_context(|| format!("step {} ({})", number + 1, step.call))?;
        }
        Ok(())
    }
}

impl Made {
    /// Notes what an answer says was made.
    pub fn note(&mut self, call: &str, returned: &Value) {
        let ids = |field: &str| {
            let values = returned.as_array().cloned().unwrap_or_else(|| vec![returned.clone()]);
            values.iter().filter_map(|value| value[field].as_str().map(str::to_owned)).collect::<Vec<_>>()
        };
        match call {
            "client.create" | "client.get_or_create" | "sandbox.fork" => {
                self.sandboxes.extend(ids("sandbox_id"));
            }
            "sandbox.checkpoint" => self.snapshots.extend(ids("snapshot_id")),
            "client.create_pool" => self.pools.extend(ids("pool_id")),
            _ => {}
        }
    }

    /// Ends and deletes it all; what is gone already is gone.
    async fn clear(self, client: &Client) -> anyhow::Result<()> {
        let gone = |outcome: forkyard::Result<()>| match outcome {
            Err(error) if error.code != ErrorCode::NotFound => Err(error),
            _ => Ok(()),
        };
        for id in &self.pools {
            gone(client.delete_pool(id).await).context("a pool cannot be deleted")?;
        }
        for id in &self.sandboxes {
            gone(client.terminate(id).await.map(drop)).context("a machine cannot be ended")?;
        }
        for id in &self.snapshots {
            gone(client.delete_snapshot(id).await).context("a snapshot cannot be deleted")?;
        }
        Ok(())
    }
}
