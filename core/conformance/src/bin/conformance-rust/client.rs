//! Calls on a client.

use forkyard::{Client, CreateKey, CreateSandbox, PoolSpec, RetentionPolicy, SandboxFilter};
use forkyard_protocol::KeyId;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::call::{Invocation, None_, Outcome, millis};
use crate::objects::Object;
use crate::records::{list as listed, plain, pool as pool_record, sandbox as sandbox_record};
use crate::sandbox::{Run, run_to_end};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Open {
    url: Option<String>,
    api_key: Option<String>,
    timeout_ms: Option<u64>,
}

impl Open {
    fn client(self) -> forkyard::Result<Client> {
        let mut builder = Client::builder();
        if let Some(url) = self.url {
            builder = builder.url(url);
        }
        if let Some(api_key) = self.api_key {
            builder = builder.api_key(api_key);
        }
        if let Some(timeout_ms) = self.timeout_ms {
            builder = builder.timeout(millis(timeout_ms));
        }
        builder.build()
    }
}

pub async fn open(it: &Invocation<'_>) -> Outcome {
    let client = it.args::<Open>()?.client()?;
    Ok(it.keep(Object::Client(client), json!({})))
}

pub async fn in_scope(it: &Invocation<'_>) -> Outcome {
    let client = it.args::<Open>()?.client()?;
    Ok(plain(client.server_info().await?))
}

pub async fn create(it: &Invocation<'_>) -> Outcome {
    let sandbox = it.client()?.create(it.args::<CreateSandbox>()?).await?;
    let said = sandbox_record(&sandbox);
    Ok(it.keep(Object::Sandbox(sandbox), said))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct InScope {
    image: Option<String>,
    memory_mb: Option<u64>,
    run: Run,
}

pub async fn create_in_scope(it: &Invocation<'_>) -> Outcome {
    let InScope { image, memory_mb, run } = it.args()?;
    let sandbox = it.client()?.create(CreateSandbox { image, memory_mb, ..CreateSandbox::default() }).await?;
    let outcome = run_to_end(&sandbox, run).await;
    sandbox.terminate().await?;
    let mut result = outcome?;
    result["sandbox_id"] = sandbox.id().into();
    Ok(result)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NameOrId {
    name_or_id: String,
}

pub async fn connect(it: &Invocation<'_>) -> Outcome {
    let sandbox = it.client()?.connect(&it.args::<NameOrId>()?.name_or_id).await?;
    let said = sandbox_record(&sandbox);
    Ok(it.keep(Object::Sandbox(sandbox), said))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Id {
    pub id: String,
}

pub async fn get(it: &Invocation<'_>) -> Outcome {
    Ok(plain(it.client()?.get(&it.args::<Id>()?.id).await?))
}

pub async fn list(it: &Invocation<'_>) -> Outcome {
    it.args::<None_>()?;
    Ok(plain(it.client()?.list().await?))
}

pub async fn find(it: &Invocation<'_>) -> Outcome {
    Ok(plain(it.client()?.sandboxes(&it.args::<SandboxFilter>()?)?.all().await?))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Iter {
    #[serde(default)]
    filter: SandboxFilter,
    /// Reads no more than these. Default: all.
    take: Option<usize>,
}

pub async fn iter(it: &Invocation<'_>) -> Outcome {
    let Iter { filter, take } = it.args()?;
    let mut listing = it.client()?.sandboxes(&filter)?;
    let mut found = Vec::new();
    while take.is_none_or(|take| found.len() < take) {
        let Some(machine) = listing.next().await? else { break };
        found.push(machine);
    }
    Ok(plain(found))
}

pub async fn get_or_create(it: &Invocation<'_>) -> Outcome {
    let mut request = it.args::<CreateSandbox>()?;
    let name = request.name.take().unwrap_or_default();
    let sandbox = it.client()?.get_or_create(&name, request).await?;
    let said = sandbox_record(&sandbox);
    Ok(it.keep(Object::Sandbox(sandbox), said))
}

pub async fn terminate(it: &Invocation<'_>) -> Outcome {
    Ok(plain(it.client()?.terminate(&it.args::<Id>()?.id).await?))
}

pub async fn images(it: &Invocation<'_>) -> Outcome {
    it.args::<None_>()?;
    Ok(plain(it.client()?.images().await?))
}

pub async fn server_info(it: &Invocation<'_>) -> Outcome {
    it.args::<None_>()?;
    Ok(plain(it.client()?.server_info().await?))
}

pub async fn create_key(it: &Invocation<'_>) -> Outcome {
    Ok(plain(it.client()?.create_key(&it.args::<CreateKey>()?).await?))
}

pub async fn list_keys(it: &Invocation<'_>) -> Outcome {
    it.args::<None_>()?;
    Ok(plain(it.client()?.list_keys().await?))
}

pub async fn revoke_key(it: &Invocation<'_>) -> Outcome {
    let id = KeyId::parse(&it.args::<Id>()?.id)?;
    it.client()?.revoke_key(&id).await?;
    Ok(Value::Null)
}

pub async fn snapshot(it: &Invocation<'_>) -> Outcome {
    Ok(plain(it.client()?.snapshot(&it.args::<Id>()?.id).await?))
}

pub async fn snapshots(it: &Invocation<'_>) -> Outcome {
    it.args::<None_>()?;
    Ok(plain(it.client()?.snapshots().await?))
}

pub async fn delete_snapshot(it: &Invocation<'_>) -> Outcome {
    it.client()?.delete_snapshot(&it.args::<Id>()?.id).await?;
    Ok(Value::Null)
}

pub async fn retention(it: &Invocation<'_>) -> Outcome {
    it.args::<None_>()?;
    Ok(plain(it.client()?.retention().await?))
}

pub async fn set_retention(it: &Invocation<'_>) -> Outcome {
    Ok(plain(it.client()?.set_retention(&it.args::<RetentionPolicy>()?).await?))
}

pub async fn create_pool(it: &Invocation<'_>) -> Outcome {
    Ok(pool_record(it.client()?.create_pool(it.args::<PoolSpec>()?).await?))
}

pub async fn pool(it: &Invocation<'_>) -> Outcome {
    Ok(pool_record(it.client()?.pool(&it.args::<Id>()?.id).await?))
}

pub async fn pools(it: &Invocation<'_>) -> Outcome {
    it.args::<None_>()?;
    Ok(listed(it.client()?.pools().await?, pool_record))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ChangePool {
    id: String,
    spec: PoolSpec,
}

pub async fn change_pool(it: &Invocation<'_>) -> Outcome {
    let ChangePool { id, spec } = it.args()?;
    Ok(pool_record(it.client()?.change_pool(&id, spec).await?))
}

pub async fn delete_pool(it: &Invocation<'_>) -> Outcome {
    it.client()?.delete_pool(&it.args::<Id>()?.id).await?;
    Ok(Value::Null)
}
